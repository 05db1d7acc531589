//! Secrets of the daemon's own store made anew: somebody makes one, the API has to take it, then it becomes the current one, and
//! the one before ends after a while. Who makes and ends them: `makers`.
//!
//! Beside a secret `NAME` stand, in the same store, `NAME.next` (made, and not current yet) and `NAME.previous` (not current any more,
//! and not ended yet). Each step is one write of the store: whatever breaks off is found there, and cleaned up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_policy::{Credential, PolicySet, SecretRef};

use super::inject::Inject;
use super::live::{Credentials, LiveCredential, Tools};
use super::makers::{self, Ended};
use super::name::SecretName;
use super::provider::{Ask, AskedBy};
use super::secret::Secret;
use super::sources::Held;
use super::store::{Store, StoreError};
use super::vault::Changed;
use crate::base::clock;
use crate::config::Rotation;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// The version that is current now.
    pub version: u64,
    /// The credentials that were tried with it.
    pub tried: Vec<String>,
}

/// What becomes of a secret: told before it is the current one, and after one has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// A new one becomes the current one. Nothing is done when this cannot be told.
    Rotated {
        /// Its version.
        version: u64,
        /// The credentials that were tried with it.
        tried: &'a [String],
    },
    /// The one before has ended.
    Ended {
        /// The version that it had.
        version: u64,
    },
    /// One that was made, and did not become the current one, has ended.
    Discarded,
}

/// Takes down what becomes of a secret.
pub(super) type Note<'a> = dyn Fn(Step<'_>) -> Result<(), String> + Send + Sync + 'a;

/// How long what an API may not know yet is left alone.
const AGAIN: Duration = Duration::from_secs(1);

/// Why a secret was not made anew; the one from before is still current. For the operator; nothing of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret {name} was not made anew, and is as it was: {what}")]
pub struct RotationError {
    /// Of the secret.
    pub name: String,
    /// What went wrong, and what to do.
    pub what: String,
}

/// The names of a secret and of what stands beside it.
struct Names {
    current: SecretName,
    next: SecretName,
    previous: SecretName,
}

impl Names {
    fn of(name: &str) -> Result<Self, RotationError> {
        let parse = |text: String| text.parse::<SecretName>();
        match (parse(name.to_owned()), parse(format!("{name}.next")), parse(format!("{name}.previous"))) {
            (Ok(current), Ok(next), Ok(previous)) => Ok(Self { current, next, previous }),
            _ => Err(failed(name, "it is not the name of a secret of the store".to_owned())),
        }
    }
}

fn failed(name: &str, what: String) -> RotationError {
    RotationError { name: name.to_owned(), what }
}

fn now_s() -> u64 {
    u64::try_from(clock::now().0).unwrap_or(0)
}

impl Credentials {
    /// Makes a secret anew. One at a time for each secret: whoever calls sees to that.
    ///
    /// # Errors
    /// A step failed, and what it made was ended again as far as that can be.
    pub async fn rotate(
        &self,
        name: &str,
        rotation: &Rotation,
        set: &PolicySet,
        note: &Note<'_>,
    ) -> Result<Rotated, RotationError> {
        let names = Names::of(name)?;
        self.clean_up(&names, rotation, note).await?;
        if self.held(&names.previous).is_some() {
            let what = format!(
                "the one before it, {}, is not ended yet; wait for the overlap, or end it",
                names.previous
            );
            return Err(failed(name, what));
        }
        let current = self.held(&names.current);
        let current =
            current.ok_or_else(|| failed(name, "there is no such secret in the store".to_owned()))?;
        let made = makers::make(rotation, &current.secret, self.tools()).await;
        let made = Arc::new(made.map_err(|what| failed(name, what))?);
        if made.is_empty() || makers::is_same(rotation, &made, &current.secret) {
            return Err(failed(name, "what was made is nothing, or the current one".to_owned()));
        }
        // From here on it is known, whatever breaks off.
        let (next, staged) = (names.next.clone(), copy(&made));
        let stage = move |store: &Store| {
            let version = store.set(&next, staged, now_s())?;
            Ok(((), vec![(next.to_string(), Some(version))]))
        };
        if let Err(error) = self.change(name, stage).await {
            // A store that cannot be written (a full disk) knows nothing of it: it ends here.
            let current = Some(&*current.secret);
            let ended = makers::end(rotation, Ended::Next, &made, current, self.tools()).await;
            let left =
                ended.err().map_or(String::new(), |left| format!("; the new one could not be ended: {left}"));
            return Err(failed(name, format!("{}{left}", error.what)));
        }
        let tried = match self.taken(&names.current, &made, rotation, set).await {
            Ok(tried) => tried,
            Err(what) => return Err(self.rolled_back(&names, rotation, note, what).await),
        };
        if let Err(what) = note(Step::Rotated { version: current.version.saturating_add(1), tried: &tried }) {
            return Err(self.rolled_back(&names, rotation, note, what).await);
        }
        let (current_name, next, previous) =
            (names.current.clone(), names.next.clone(), names.previous.clone());
        let promoted = move |store: &Store| {
            let promoted = store.promote(&current_name, current.version, &next, &previous, now_s())?;
            let own = |version| {
                let (previous, before) = (previous.to_string(), Some(current.version));
                vec![(current_name.to_string(), Some(version)), (next.to_string(), None), (previous, before)]
            };
            Ok((promoted, promoted.map(own).unwrap_or_default()))
        };
        match self.change(name, promoted).await? {
            Some(version) => Ok(Rotated { version, tried }),
            None => {
                let what = "somebody else set it meanwhile".to_owned();
                Err(self.rolled_back(&names, rotation, note, what).await)
            }
        }
    }

    /// Ends what was made, as far as that can be, and says why.
    async fn rolled_back(
        &self,
        names: &Names,
        rotation: &Rotation,
        note: &Note<'_>,
        what: String,
    ) -> RotationError {
        let left = self.clean_up(names, rotation, note).await.err();
        let left = left.map_or(String::new(), |left| format!("; and {}", left.what));
        failed(&names.current.to_string(), format!("{what}{left}"))
    }

    /// Ends what is due: the secret before the current one, after the overlap, and what a rotation left that broke off. Whether the
    /// secret is due to be made anew.
    ///
    /// # Errors
    /// It could not be ended; it is tried again the next time.
    pub async fn end_due(
        &self,
        name: &str,
        rotation: &Rotation,
        note: &Note<'_>,
    ) -> Result<bool, RotationError> {
        let names = Names::of(name)?;
        self.clean_up(&names, rotation, note).await?;
        if let Some(previous) = self.held(&names.previous) {
            if age(&previous) >= rotation.overlap {
                self.end_one(&names, Ended::Previous, &previous, rotation, note).await?;
                tracing::info!("the secret that {name} was before is ended");
            }
            return Ok(false);
        }
        let current = self.held(&names.current);
        Ok(current.zip(rotation.every).is_some_and(|(current, every)| age(&current) >= every))
    }

    /// Ends what was made and did not become current.
    async fn clean_up(
        &self,
        names: &Names,
        rotation: &Rotation,
        note: &Note<'_>,
    ) -> Result<(), RotationError> {
        match self.held(&names.next) {
            Some(next) => self.end_one(names, Ended::Next, &next, rotation, note).await,
            None => Ok(()),
        }
    }

    /// Has a secret ended, and takes it out of the store. Never one that is the current one.
    async fn end_one(
        &self,
        names: &Names,
        which: Ended,
        held: &Held,
        rotation: &Rotation,
        note: &Note<'_>,
    ) -> Result<(), RotationError> {
        let name = names.current.to_string();
        let place = match which {
            Ended::Next => names.next.clone(),
            Ended::Previous => names.previous.clone(),
        };
        // As the store has it now: somebody may have set it again, and said so to nobody yet.
        self.change(&name, |_| Ok(((), Changed::new()))).await?;
        let current = self.held(&names.current);
        let is_current =
            current.as_ref().is_some_and(|it| makers::is_same(rotation, &it.secret, &held.secret));
        if !is_current {
            let current = current.as_ref().map(|it| &*it.secret);
            let ended = makers::end(rotation, which, &held.secret, current, self.tools()).await;
            ended.map_err(|error| failed(&name, format!("{place} could not be ended: {error}")))?;
        }
        self.change(&name, move |store| {
            store.remove(&place)?;
            Ok(((), vec![(place.to_string(), None)]))
        })
        .await?;
        let step = match which {
            Ended::Next => Step::Discarded,
            Ended::Previous => Step::Ended { version: held.version },
        };
        // One that is the current one went on: somebody set it again.
        if !is_current && let Err(what) = note(step) {
            tracing::error!("that a secret of {name} has ended is not in the journal yet: {what}");
        }
        Ok(())
    }

    /// Has the new one tried; by whom.
    async fn taken(
        &self,
        name: &SecretName,
        made: &Arc<Secret>,
        rotation: &Rotation,
        set: &PolicySet,
    ) -> Result<Vec<String>, String> {
        if let Some(taken) = makers::is_taken(rotation, made, self.tools()).await {
            return taken.map(|by| vec![by.to_owned()]);
        }
        let deadline = Instant::now() + rotation.timeout;
        loop {
            match self.tried(name, made, set).await {
                Err(NotTaken { is_refusal: true, .. })
                    if makers::is_slow(rotation) && Instant::now() + AGAIN < deadline =>
                {
                    tokio::time::sleep(AGAIN).await;
                }
                tried => return tried.map_err(|it| it.what),
            }
        }
    }

    /// Tries the credentials of a policy that are of this secret, each by its probe; their names.
    async fn tried(
        &self,
        name: &SecretName,
        made: &Arc<Secret>,
        set: &PolicySet,
    ) -> Result<Vec<String>, NotTaken> {
        let reference = SecretRef::vault(&name.to_string());
        let sources = Arc::new(self.tools().sources.with_candidate(name, made));
        let tools = Tools { sources, ..self.tools().clone() };
        let mut tried = Vec::new();
        let of_it = |credential: &&Credential| credential.kind.secrets().contains(&&reference);
        for credential in set.credentials().filter(of_it) {
            let Some(probe) = &credential.probe else { continue };
            let api = set.api(probe.api).ok_or("the policy has not the API of a probe")?;
            let inject = api.inject.as_ref().and_then(Inject::of).map(Arc::new);
            let has_grant = |it: &&proxy_policy::Identity| {
                it.grants.iter().any(|grant| grant.credential == Some(credential.id))
            };
            let identity = set.identities().find(has_grant).map_or("_vouchsafe", |it| it.name.as_str());
            let ask = Ask {
                identity,
                api: &api.name,
                host: probe.request.host.name(),
                workload: AskedBy::default(),
                inject: inject.as_ref(),
            };
            let at_work = Arc::new(LiveCredential::new(credential, &tools));
            let probed = self.probe(&at_work, probe, &ask).await;
            // Also where keys of a role are had with it first, somebody may not know it yet.
            let probed = probed.map_err(|error| NotTaken { what: error.to_string(), is_refusal: true })?;
            if !probed.status.is_success() {
                let status = probed.status.as_u16();
                let what = format!(
                    "the API does not take the new one: {} was answered by {status} for the credential {}",
                    probe.request.text, credential.name
                );
                // Some services of AWS refuse a key with 400.
                return Err(NotTaken { what, is_refusal: matches!(status, 400 | 401 | 403) });
            }
            tried.push(credential.name.clone());
        }
        match tried.is_empty() {
            true => Err(NotTaken::from(format!(
                "no credential of the policy with \"{reference}\" has a probe, by which the new one is tried; add one"
            ))),
            false => Ok(tried),
        }
    }

    fn held(&self, name: &SecretName) -> Option<Held> {
        self.tools().sources.vault().held(&name.to_string()).ok()
    }

    /// Changes the store, and takes up what it is then; as [`Vault::change`](super::vault::Vault::change).
    async fn change<T: Send + 'static>(
        &self,
        name: &str,
        edit: impl FnOnce(&Store) -> Result<(T, Changed), StoreError> + Send + 'static,
    ) -> Result<T, RotationError> {
        let sources = Arc::clone(&self.tools().sources);
        let changed = tokio::task::spawn_blocking(move || sources.vault().change(edit)).await;
        let changed = changed.map_err(|_| failed(name, "the store was not changed".to_owned()))?;
        changed.map_err(|error| failed(name, error.to_string()))
    }
}

/// Why a new one did not become the current one.
struct NotTaken {
    what: String,
    /// The API refused it, and may only not know it yet.
    is_refusal: bool,
}

impl From<String> for NotTaken {
    fn from(what: String) -> Self {
        Self { what, is_refusal: false }
    }
}

impl From<&str> for NotTaken {
    fn from(what: &str) -> Self {
        Self::from(what.to_owned())
    }
}

fn copy(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_vec())
}

fn age(held: &Held) -> Duration {
    Duration::from_secs(now_s().saturating_sub(held.since_s.unwrap_or(0)))
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
