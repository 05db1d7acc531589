//! Who asks: a workload together with the identity that one generation of the policy gives to it.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use proxy_policy::{Identity, IdentityId};
use serde_json::value::RawValue;

use super::policy::{LivePolicy, PolicyStore};
use crate::workload::{Identified, Workload};

/// Finds the identity of a workload. It may look at files and `/proc`, and so may wait.
pub trait Identifier: Send + Sync {
    /// The identity that `live` gives to `workload`.
    fn identify<'a>(
        &'a self,
        workload: &'a Arc<Workload>,
        live: &'a Arc<LivePolicy>,
    ) -> Pin<Box<dyn Future<Output = Identified> + Send + 'a>>;

    /// The same, found now. Blocks on the file system: not for asynchronous code.
    fn find(&self, workload: &Arc<Workload>, live: &Arc<LivePolicy>) -> Identified;
}

/// A workload and what it is under one generation of the policy.
#[derive(Debug)]
pub struct Subject {
    workload: Arc<Workload>,
    live: Arc<LivePolicy>,
    identified: Identified,
    /// Nothing that it does is denied, because nothing is on this host.
    observed: bool,
    /// As the journal tells the workload, once nothing more can become known of it.
    pub(super) told: OnceLock<Arc<RawValue>>,
}

impl Subject {
    /// A workload as `identified` says; the id in it must come from the set of `live`.
    #[must_use]
    pub fn new(workload: Arc<Workload>, live: Arc<LivePolicy>, identified: Identified) -> Self {
        let observed = live.observes();
        Self { workload, live, identified, observed, told: OnceLock::new() }
    }

    /// The same where nothing is denied, or where something is, whatever holds on this host now.
    #[must_use]
    pub fn where_all_is_observed(mut self, observed: bool) -> Self {
        self.observed = observed;
        self
    }

    /// Whether nothing that it does is denied by policy, because the host only observes.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.observed
    }

    /// The process, as the kernel saw it when it connected.
    #[must_use]
    pub fn workload(&self) -> &Arc<Workload> {
        &self.workload
    }

    /// The policy that the identity belongs to, and that decides.
    #[must_use]
    pub fn live(&self) -> &Arc<LivePolicy> {
        &self.live
    }

    /// What the identification said.
    #[must_use]
    pub fn identified(&self) -> &Identified {
        &self.identified
    }

    /// The identity, if there is exactly one.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.live.set().identity(self.identity_id()?)
    }

    /// The id of the identity, if there is exactly one.
    #[must_use]
    pub fn identity_id(&self) -> Option<IdentityId> {
        match self.identified {
            Identified::One(id) => Some(id),
            _ => None,
        }
    }
}

/// The workload of one connection, identified again when the policy changed since the last question.
#[derive(Debug)]
pub struct Caller {
    subject: ArcSwap<Subject>,
}

impl Caller {
    /// Identifies the workload of a new connection.
    pub async fn identify(workload: Arc<Workload>, store: &PolicyStore, identifier: &dyn Identifier) -> Self {
        let subject = identify(workload, store.live(), identifier).await;
        Self { subject: ArcSwap::from_pointee(subject) }
    }

    /// Whose connection it is.
    #[must_use]
    pub fn workload(&self) -> Arc<Workload> {
        Arc::clone(&self.subject.load().workload)
    }

    /// Makes it what it was found to be under a policy that is live now, unless it found that, or more, itself.
    pub(super) fn turn(&self, live: &Arc<LivePolicy>, identified: &Identified) {
        let before = self.subject.load_full();
        if before.live.generation() >= live.generation() {
            return;
        }
        let workload = Arc::clone(&before.workload);
        let next = Arc::new(Subject::new(workload, Arc::clone(live), identified.clone()));
        // Who asked meanwhile has stored what it found.
        self.subject.compare_and_swap(&before, next);
    }

    /// The subject under the policy that is live now. Does not wait unless the policy changed.
    pub async fn current(&self, store: &PolicyStore, identifier: &dyn Identifier) -> Arc<Subject> {
        let subject = self.subject.load_full();
        if subject.live.generation() == store.generation() {
            return subject;
        }
        let workload = Arc::clone(&subject.workload);
        let subject = Arc::new(identify(workload, store.live(), identifier).await);
        self.subject.store(Arc::clone(&subject));
        subject
    }
}

async fn identify(workload: Arc<Workload>, live: Arc<LivePolicy>, identifier: &dyn Identifier) -> Subject {
    let identified = identifier.identify(&workload, &live).await;
    Subject::new(workload, live, identified)
}
