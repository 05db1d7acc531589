//! Secrets of the daemon's own store made anew: a program makes one, the API has to take it, then it becomes the current one, and
//! the one before ends after a while.
//!
//! Beside a secret `NAME` stand, in the same store, `NAME.next` (made, and not current yet) and `NAME.previous` (not current any more,
//! and not ended yet). Each step is one write of the store: whatever breaks off is found there, and cleaned up.

use std::sync::Arc;
use std::time::Duration;

use proxy_policy::{Credential, PolicySet, SecretRef};

use super::inject::Inject;
use super::live::{Credentials, LiveCredential, Tools};
use super::name::SecretName;
use super::program::Program;
use super::provider::{Ask, AskedBy};
use super::secret::Secret;
use super::source_files::without_line_end;
use super::sources::Held;
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
    ) -> Result<Rotated, RotationError> {
        let names = Names::of(name)?;
        self.clean_up(&names, rotation).await?;
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
        let made = program(&rotation.make, rotation).run(Some(copy(&current.secret))).await;
        let made = made.map_err(|error| failed(name, error.to_string()))?;
        let made = Arc::new(Secret::new(without_line_end(made.expose()).to_vec()));
        if made.is_empty() || made.expose() == current.secret.expose() {
            return Err(failed(name, "the program of `make` printed nothing, or the current one".to_owned()));
        }
        // From here on it is known, whatever breaks off.
        let (next, staged) = (names.next.clone(), copy(&made));
        if let Err(error) = self.change(name, move |store| store.set(&next, staged, now_s()).map(drop)).await
        {
            // A store that cannot be written (a full disk) knows nothing of it: it ends here.
            if let Some(command) = &rotation.revoke {
                let ended = program(command, rotation).run(Some(copy(&made))).await;
                let left = ended
                    .err()
                    .map_or(String::new(), |left| format!("; the new one could not be ended: {left}"));
                return Err(failed(name, format!("{}{left}", error.what)));
            }
            return Err(error);
        }
        let tried = match self.tried(&names.current, &made, set).await {
            Ok(tried) => tried,
            Err(what) => {
                let left = self.clean_up(&names, rotation).await.err();
                let left = left.map_or(String::new(), |left| format!("; and {}", left.what));
                return Err(failed(name, format!("{what}{left}")));
            }
        };
        let (current_name, next, previous) =
            (names.current.clone(), names.next.clone(), names.previous.clone());
        let promoted = move |store: &super::store::Store| {
            store.promote(&current_name, current.version, &next, &previous, now_s())
        };
        match self.change(name, promoted).await? {
            Some(version) => Ok(Rotated { version, tried }),
            None => {
                self.clean_up(&names, rotation).await?;
                Err(failed(name, "somebody else set it meanwhile".to_owned()))
            }
        }
    }

    /// Ends what is due: the secret before the current one, after the overlap, and what a rotation left that broke off. Whether the
    /// secret is due to be made anew.
    ///
    /// # Errors
    /// It could not be ended; it is tried again the next time.
    pub async fn end_due(&self, name: &str, rotation: &Rotation) -> Result<bool, RotationError> {
        let names = Names::of(name)?;
        self.clean_up(&names, rotation).await?;
        if let Some(previous) = self.held(&names.previous) {
            if age(&previous) >= rotation.overlap {
                self.end_one(&names, &names.previous, &previous, rotation).await?;
                tracing::info!("the secret that {name} was before is ended");
            }
            return Ok(false);
        }
        let current = self.held(&names.current);
        Ok(current.zip(rotation.every).is_some_and(|(current, every)| age(&current) >= every))
    }

    /// Ends what was made and did not become current.
    async fn clean_up(&self, names: &Names, rotation: &Rotation) -> Result<(), RotationError> {
        match self.held(&names.next) {
            Some(next) => self.end_one(names, &names.next, &next, rotation).await,
            None => Ok(()),
        }
    }

    /// Has a secret revoked, and takes it out of the store. Never one that is the current one.
    async fn end_one(
        &self,
        names: &Names,
        which: &SecretName,
        held: &Held,
        rotation: &Rotation,
    ) -> Result<(), RotationError> {
        let name = names.current.to_string();
        let is_current =
            self.held(&names.current).is_some_and(|it| it.secret.expose() == held.secret.expose());
        if let Some(command) = rotation.revoke.as_ref().filter(|_| !is_current) {
            let ended = program(command, rotation).run(Some(copy(&held.secret))).await;
            ended.map_err(|error| failed(&name, format!("{which} could not be ended: {error}")))?;
        }
        let which = which.clone();
        self.change(&name, move |store| store.remove(&which)).await
    }

    /// Tries the credentials of a policy that are of this secret, each by its probe; their names.
    async fn tried(
        &self,
        name: &SecretName,
        made: &Arc<Secret>,
        set: &PolicySet,
    ) -> Result<Vec<String>, String> {
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
            let probed = self.probe(&at_work, probe, &ask).await.map_err(|error| error.to_string())?;
            if !probed.status.is_success() {
                let status = probed.status.as_u16();
                return Err(format!(
                    "the API does not take the new one: {} was answered by {status} for the credential {}",
                    probe.request.text, credential.name
                ));
            }
            tried.push(credential.name.clone());
        }
        match tried.is_empty() {
            true => Err(format!(
                "no credential of the policy with secret = \"{reference}\" has a probe, by which the new one is tried; add one"
            )),
            false => Ok(tried),
        }
    }

    fn held(&self, name: &SecretName) -> Option<Held> {
        self.tools().sources.vault().held(&name.to_string()).ok()
    }

    /// Changes the store, and takes up what it is then.
    async fn change<T: Send + 'static>(
        &self,
        name: &str,
        edit: impl FnOnce(&super::store::Store) -> Result<T, super::store::StoreError> + Send + 'static,
    ) -> Result<T, RotationError> {
        let sources = Arc::clone(&self.tools().sources);
        let changed = tokio::task::spawn_blocking(move || {
            let changed = edit(sources.vault().store())?;
            sources.vault().reload()?;
            Ok(changed)
        });
        let changed: Result<T, super::store::StoreError> =
            changed.await.map_err(|_| failed(name, "the store was not changed".to_owned()))?;
        changed.map_err(|error| failed(name, error.to_string()))
    }
}

fn copy(secret: &Secret) -> Secret {
    Secret::new(secret.expose().to_vec())
}

fn age(held: &Held) -> Duration {
    Duration::from_secs(now_s().saturating_sub(held.since_s.unwrap_or(0)))
}

fn program(command: &[String], rotation: &Rotation) -> Program {
    Program::new(command).passing(&rotation.env).within(rotation.timeout).running_as(rotation.user.as_deref())
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
