//! The credentials of the running daemon: those of the live policy, each with what was obtained for it.
//!
//! A credential that a new policy leaves as it was stays the same object, so that its tokens go on.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proxy_policy::{ApiId, Credential, CredentialKind, PolicySet, SecretRef, Store as Place};
use serde_json::Map;

use super::about::About;
use super::attach::Attachment;
use super::error::CredentialError;
use super::issuer::Issuer;
use super::kinds;
use super::outcall::Outcall;
use super::provider::{Ask, Provided, Provider};
use super::refresh::RefreshTokens;
use super::secret::Secret;
use super::sources::{Held, SourceError, Sources};
use super::store::{Store, StoreError};
use super::vault::Changed;
use crate::config;
use crate::uplink::Uplink;

/// What all kinds share.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) sources: Arc<Sources>,
    /// The way to those who issue.
    pub(super) outcall: Outcall,
    /// This host as an issuer, if it is one.
    pub(super) issuer: Option<Arc<Issuer>>,
    /// Refresh tokens in turn.
    pub(super) refresh_tokens: Arc<RefreshTokens>,
}

impl Tools {
    /// A token that somebody is exchanged for: the secret that a reference names, or what this host issues about `identity`
    /// alone. The latter is never at hand in [`Sources`], which do not know who calls.
    ///
    /// # Errors
    /// There is none, or its source cannot be asked.
    pub(super) async fn subject_token(
        &self,
        identity: &str,
        reference: &SecretRef,
    ) -> Result<Held, SourceError> {
        if reference.store() != Place::Issuer {
            return self.sources.fetch(reference).await;
        }
        let unavailable = |problem: &str| SourceError::Unavailable { problem: problem.to_owned() };
        let issuer = self.issuer.as_ref().ok_or_else(|| unavailable(NO_ISSUER))?;
        let issued = issuer.issue(identity, reference.name().into(), Map::new(), Duration::MAX);
        let issued = issued.ok_or_else(|| unavailable(NOT_PUBLISHED))?;
        Ok(Held { secret: Arc::new(issued.token), version: issued.version, since_s: None })
    }
}

/// A credential wants a token of this host.
pub(super) const NO_ISSUER: &str = "this host issues no tokens; add [issuer] to its configuration";
/// A credential wants one before anybody could check it.
pub(super) const NOT_PUBLISHED: &str = "the keys of this host's issuer are not published; see its log";

/// How late a change of a file is noticed, at most twice: it must have stood still once.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Secrets and credentials of the running daemon.
pub struct Credentials {
    tools: Tools,
    known: Mutex<HashMap<String, Arc<LiveCredential>>>,
}

impl Credentials {
    /// Reads the store. When that fails the daemon can start all the same: each call that needs a secret is refused
    /// with the reason, which [`Credentials::problem`] tells too, until a [`Credentials::reload`] succeeds.
    #[must_use]
    pub fn new(store: Store, outcall: Outcall) -> Self {
        let sources = Arc::new(Sources::new(store));
        let refresh_tokens = Arc::new(RefreshTokens::new(Arc::clone(&sources)));
        let tools = Tools { sources, outcall, issuer: None, refresh_tokens };
        Self { tools, known: Mutex::default() }
    }

    /// The same on a host that issues tokens itself.
    #[must_use]
    pub fn with_issuer(mut self, issuer: Arc<Issuer>) -> Self {
        self.tools.issuer = Some(issuer);
        self
    }

    /// The same with what the configuration says of places beyond this host. After [`Credentials::with_issuer`].
    #[must_use]
    pub fn reaching(self, hashicorp: Option<&config::Hashicorp>, programs: config::Programs) -> Self {
        let Tools { sources, outcall, issuer, .. } = &self.tools;
        sources.reach(hashicorp, programs, outcall, issuer.as_ref());
        self
    }

    /// The same with the login at the proxy of the site, if it has one.
    #[must_use]
    pub fn logging_in(self, uplink: Option<&Uplink>, reference: Option<&SecretRef>) -> Self {
        if let (Some(uplink), Some(reference)) = (uplink, reference) {
            self.tools.sources.log_in_at(uplink, reference);
        }
        self
    }

    /// The same with secrets of this host that the sinks of the journal need.
    #[must_use]
    pub fn sending(self, references: Vec<SecretRef>) -> Self {
        self.tools.sources.keep_for_sinks(references);
        self
    }

    /// A secret of this host, as it is at the moment.
    ///
    /// # Errors
    /// There is none, in words.
    pub fn at_hand(&self, reference: &SecretRef) -> Result<Arc<Secret>, String> {
        let held = self.tools.sources.held(reference).ok_or("it has not been read yet")?;
        held.map(|held| held.secret).map_err(|error| error.to_string())
    }

    /// Reads the store again and swaps all secrets at once; returns how many there are. Blocks on files.
    ///
    /// # Errors
    /// Those of [`Store::read`]. The secrets that were read before go on, and [`Credentials::problem`] says why.
    pub fn reload(&self) -> Result<usize, StoreError> {
        self.tools.sources.reload()
    }

    /// What somebody changed in the store since this was asked last: names, with the version that each has now, or none.
    #[must_use]
    pub fn take_changed(&self) -> Changed {
        self.tools.sources.vault().take_changed()
    }

    /// Takes up what changes in files that hold secrets, until dropped.
    pub async fn follow_files(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let sources = Arc::clone(&self.tools.sources);
            if tokio::task::spawn_blocking(move || sources.follow()).await.is_err() {
                return;
            }
        }
    }

    /// Waits until no refresh token is under way: what a server gave in the place of the last one is stored then. The daemon ends
    /// after this.
    pub async fn settle(&self) {
        self.tools.refresh_tokens.settle().await;
    }

    /// Gives back what is leased from others. The daemon ends after this.
    pub async fn end(&self) {
        self.tools.sources.end().await;
    }

    pub(super) fn tools(&self) -> &Tools {
        &self.tools
    }

    pub(super) fn outcall(&self) -> &Outcall {
        &self.tools.outcall
    }

    /// Why the last reading of the store failed, and what to do; `None` when it did not.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.tools.sources.vault().problem()
    }

    /// How many secrets the daemon's own store has.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tools.sources.vault().count()
    }

    /// The credentials of a policy that goes live, by their ids. Those that are as they were before are the same objects;
    /// those that the policy does not have any more are forgotten.
    #[must_use]
    pub fn adopt(&self, set: &PolicySet) -> Vec<Arc<LiveCredential>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let secrets: Vec<_> = set.credentials().flat_map(|credential| credential.kind.secrets()).collect();
        self.tools.sources.prepare(&secrets);
        let mut next = HashMap::new();
        let all: Vec<_> = set
            .credentials()
            .map(|credential| {
                let same = known.remove(&credential.name).filter(|it| it.kind == credential.kind);
                let live = same.unwrap_or_else(|| Arc::new(LiveCredential::new(credential, &self.tools)));
                next.insert(credential.name.clone(), Arc::clone(&live));
                live
            })
            .collect();
        *known = next;
        all
    }
}

/// One credential at work.
pub struct LiveCredential {
    name: String,
    kind: CredentialKind,
    provider: Box<dyn Provider>,
    sources: Arc<Sources>,
    used: LastUse,
}

/// When it went into a call, to the second, and whose the first call of that second was. Written at each call: the lock is taken
/// once a second.
#[derive(Default)]
struct LastUse {
    at_s: AtomicU64,
    by: Mutex<String>,
}

/// What is known of a credential, for people. Nothing of its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialState {
    /// The version of its secret; of the first one when it has several.
    pub version: Option<u64>,
    /// Since when the secret is this one, in seconds since the Unix epoch.
    pub since_s: Option<u64>,
    /// When it last went into a call, in seconds since the Unix epoch, and whose call that was.
    pub used: Option<(u64, String)>,
    /// What people say of those of its secrets that are in the daemon's own store, by reference.
    pub about: Vec<(String, About)>,
    /// Why no call can have it, and what to do.
    pub problem: Option<String>,
}

impl fmt::Debug for LiveCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveCredential").field("name", &self.name).finish_non_exhaustive()
    }
}

impl LiveCredential {
    pub(super) fn new(credential: &Credential, tools: &Tools) -> Self {
        let provider = kinds::provider(credential, tools);
        let (name, kind) = (credential.name.clone(), credential.kind.clone());
        Self { name, kind, provider, sources: Arc::clone(&tools.sources), used: LastUse::default() }
    }

    /// As the policy names it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Notes that it goes into a call of an identity.
    pub fn note_use(&self, identity: &str, now_s: u64) {
        if self.used.at_s.swap(now_s, Ordering::Relaxed) != now_s {
            identity.clone_into(&mut self.used.by.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// What is known of it now. Asks nobody: what was not fetched yet is no problem.
    #[must_use]
    pub fn state(&self) -> CredentialState {
        let held: Vec<_> =
            self.kind.secrets().into_iter().filter_map(|secret| self.sources.peek(secret)).collect();
        let first = held.first().and_then(|held| held.as_ref().ok());
        let problem = held.iter().find_map(|held| held.as_ref().err()).map(ToString::to_string);
        let at_s = self.used.at_s.load(Ordering::Relaxed);
        let by = self.used.by.lock().unwrap_or_else(PoisonError::into_inner).clone();
        CredentialState {
            version: first.map(|held| held.version),
            since_s: first.and_then(|held| held.since_s),
            used: (at_s != 0).then_some((at_s, by)),
            about: self.about(),
            problem,
        }
    }

    fn about(&self) -> Vec<(String, About)> {
        let of_store = self.kind.secrets().into_iter().filter(|secret| secret.store() == Place::Vault);
        of_store
            .filter_map(|secret| Some((secret.to_string(), self.sources.vault().about(secret.name())?)))
            .collect()
    }

    /// What a call needs, if it is at hand: never waits. `None`: [`LiveCredential::provide`] obtains it.
    pub fn ready(&self, ask: &Ask<'_>) -> Option<Provided> {
        self.provider.ready(ask)
    }

    /// Obtains what a call needs.
    ///
    /// # Errors
    /// There is no secret, or whoever issues it did not.
    pub async fn provide(&self, ask: &Ask<'_>) -> Result<Attachment, CredentialError> {
        self.provider.provide(ask).await
    }
}

/// Whether a credential may go to an API: what its own `apis` say holds whatever a grant says.
///
/// # Errors
/// It is bound to other APIs.
pub fn bound_to(credential: &Credential, api: ApiId, name: &str) -> Result<(), CredentialError> {
    if credential.apis.is_empty() || credential.apis.contains(&api) {
        return Ok(());
    }
    Err(CredentialError::Misfit {
        credential: credential.name.clone(),
        problem: format!("it is bound to other APIs than {name}; see its `apis`"),
    })
}

#[cfg(test)]
#[path = "live_tests.rs"]
pub(super) mod tests;
