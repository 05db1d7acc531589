//! The policy that is live: one compiled set with its generation, swapped as a whole.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use proxy_journal::Why;
use proxy_policy::{Api, ApiId, Credential, CredentialId, PolicySet, RuleId};
use tokio::sync::watch;

use crate::credentials::{Credentials, Inject, LiveCredential, Strip};
use crate::limits::{LiveLimits, Registry};

/// One compiled policy set, its generation, and what is derived from it once instead of for each call.
#[derive(Debug)]
pub struct LivePolicy {
    set: PolicySet,
    generation: u64,
    /// By API.
    apis: Vec<Prepared>,
    /// By credential: it at work. Empty where calls are only judged.
    credentials: Vec<Arc<LiveCredential>>,
    /// What `resolver` means in its network rules.
    resolvers: Vec<IpAddr>,
    limits: LiveLimits,
    /// By rule: why a call goes on by it, once one did.
    whys: Box<[OnceLock<Arc<Why>>]>,
    /// Nothing is denied on this host.
    observes: bool,
}

/// Where one API has its credential, with typed names.
#[derive(Debug)]
struct Prepared {
    inject: Option<Arc<Inject>>,
    strip: Arc<Strip>,
}

impl LivePolicy {
    /// Prepares a set to go live as the given generation.
    #[must_use]
    pub fn new(set: PolicySet, generation: u64) -> Self {
        let apis = set.apis().map(Prepared::of).collect();
        let (credentials, resolvers) = (Vec::new(), Vec::new());
        let whys = (0..set.summary().rules).map(|_| OnceLock::new()).collect();
        let limits = LiveLimits::default();
        Self { set, generation, apis, credentials, resolvers, limits, whys, observes: false }
    }

    /// With the addresses that `resolver` stands for in network rules.
    #[must_use]
    pub fn with_resolvers(mut self, resolvers: Vec<IpAddr>) -> Self {
        self.resolvers = resolvers;
        self
    }

    /// With its credentials at work; those that stay the same keep what they obtained.
    #[must_use]
    pub fn with_credentials(mut self, credentials: &Credentials) -> Self {
        self.credentials = credentials.adopt(&self.set);
        self
    }

    /// On a host on which nothing is denied: what would be is recorded.
    #[must_use]
    pub fn observing(mut self, observes: bool) -> Self {
        self.observes = observes;
        self
    }

    /// Whether nothing is denied on this host.
    #[must_use]
    pub fn observes(&self) -> bool {
        self.observes
    }

    /// With its limits; what was used of those that stay the same is still used.
    #[must_use]
    pub fn with_limits(mut self, registry: &Registry) -> Self {
        self.limits = LiveLimits::of(&self.set, registry);
        self
    }

    /// How much may be called.
    #[must_use]
    pub fn limits(&self) -> &LiveLimits {
        &self.limits
    }

    /// The addresses that `resolver` stands for in network rules.
    #[must_use]
    pub fn resolvers(&self) -> &[IpAddr] {
        &self.resolvers
    }

    /// The compiled set. Ids that it gave out are without meaning in another one.
    #[must_use]
    pub fn set(&self) -> &PolicySet {
        &self.set
    }

    /// Why a call goes on by a rule of this set; the first one says it for all.
    pub fn why(&self, rule: RuleId, first: impl FnOnce() -> Why) -> Arc<Why> {
        let at = usize::try_from(rule.0).ok().and_then(|at| self.whys.get(at));
        match at {
            Some(known) => Arc::clone(known.get_or_init(|| Arc::new(first()))),
            None => Arc::new(first()),
        }
    }

    /// Counts the sets that went live; grows with each.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The API of an id that this set gave out.
    #[must_use]
    pub fn api(&self, id: ApiId) -> Option<&Api> {
        self.set.api(id)
    }

    /// What a client may not bring to an API: the headers of its `strip`, and what is in the place of its `inject`, which
    /// goes out also when no credential is attached.
    #[must_use]
    pub fn strip(&self, api: ApiId) -> Option<&Arc<Strip>> {
        self.prepared(api).map(|prepared| &prepared.strip)
    }

    /// The part of a request that carries the credential of an API.
    #[must_use]
    pub fn inject(&self, api: ApiId) -> Option<&Arc<Inject>> {
        self.prepared(api)?.inject.as_ref()
    }

    /// A credential of an id that this set gave out.
    #[must_use]
    pub fn credential(&self, id: CredentialId) -> Option<&Credential> {
        self.set.credential(id)
    }

    /// The same at work.
    #[must_use]
    pub fn live_credential(&self, id: CredentialId) -> Option<&Arc<LiveCredential>> {
        self.credentials.get(usize::try_from(id.0).ok()?)
    }

    fn prepared(&self, api: ApiId) -> Option<&Prepared> {
        self.apis.get(usize::try_from(api.0).ok()?)
    }
}

impl Prepared {
    fn of(api: &Api) -> Self {
        let inject = api.inject.as_ref().and_then(Inject::of).map(Arc::new);
        let strip = Arc::new(Strip::of(&api.strip, &api.keep, inject.as_deref()));
        Self { inject, strip }
    }
}

/// Holds the live policy. Readers never wait; a swap is seen by the next request of every connection.
#[derive(Debug)]
pub struct PolicyStore {
    live: ArcSwap<LivePolicy>,
    /// The generation, for those who wait for another one.
    changes: watch::Sender<u64>,
}

impl PolicyStore {
    /// Begins with a first policy.
    #[must_use]
    pub fn new(first: LivePolicy) -> Self {
        let changes = watch::Sender::new(first.generation);
        Self { live: ArcSwap::from_pointee(first), changes }
    }

    /// The policy as it is now.
    #[must_use]
    pub fn live(&self) -> Arc<LivePolicy> {
        self.live.load_full()
    }

    /// The generation that is live, without taking hold of the policy.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.live.load().generation
    }

    /// Puts another policy in its place, and returns the one before. `at_once` is done before those who wait for a change
    /// are told.
    pub fn swap(&self, next: &Arc<LivePolicy>, at_once: impl FnOnce()) -> Arc<LivePolicy> {
        let before = self.live.swap(Arc::clone(next));
        at_once();
        self.changes.send_replace(next.generation);
        before
    }

    /// Waits until another policy is live than that of `generation`.
    pub async fn other_than(&self, generation: u64) {
        // The sender is ours: it is there as long as we are.
        let _ = self.changes.subscribe().wait_for(|live| *live != generation).await;
    }
}
