//! One valid policy at a time: a new set goes live as a whole, or not at all and with every reason.
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use notify::{EventKindMask, RecommendedWatcher, RecursiveMode, Watcher};
use proxy_journal::{IdentityKeys, PolicyLoad, PolicyResult, Record};
use proxy_policy::{Moment, NetworkRule, PolicySet};
use tokio::sync::mpsc;

use super::{
    authority::Authority,
    behind::{behind_the_calls, let_go, started_behind},
    network,
    policies::{Errors, Loaded, within_reach},
    reidentify,
};
use crate::{
    authorize::{Callers, Identifier, LivePolicy, PolicyStore},
    base::clock,
    config::{self, Config},
    connection::Services,
    control::{Failure, ReloadReport},
    credentials::Credentials,
    forward::error::chain,
    kernel::{KernelError, Network},
    limits::Registry,
    record::Recorder,
};

/// How long the folder must be quiet before it is read: an editor writes in several steps.
const QUIET: Duration = Duration::from_millis(200);

/// How often the host's resolvers are looked up; the network may change under us.
const RESOLVERS_EVERY: Duration = Duration::from_secs(10);

/// How long a new policy waits for who has connections to be identified by it: what it takes away is had for so long.
const AHEAD: Duration = Duration::from_millis(250);

/// How late the end of a network rule is noticed, at most.
const ENDS_EVERY: Duration = Duration::from_millis(250);

/// What the last load said.
#[derive(Debug, Clone)]
pub(super) struct LastLoad {
    pub(super) digest: String,
    pub(super) resolvers: Vec<IpAddr>,
    pub(super) at: SystemTime,
    pub(super) errors: Option<Vec<String>>,
    /// Of the policy that is live.
    live_digest: String,
    /// Of which moment the rules are that the kernel has.
    pub(super) rules_at: Moment,
    /// When the next of them ends.
    next_end: Option<Moment>,
}

/// A watch of the policy root.
pub(super) struct Watch {
    _watcher: RecommendedWatcher,
    changes: mpsc::Receiver<()>,
}

/// Reads policies and puts them live.
pub(super) struct Reloader {
    root: PathBuf,
    store: Arc<PolicyStore>,
    identifier: Arc<dyn Identifier>,
    callers: Arc<Callers>,
    recorder: Arc<Recorder>,
    network: Arc<Network>,
    /// Nothing is denied on this host.
    observes: bool,
    /// Somebody is named whom bodies can be kept for.
    auditors: bool,
    /// What every governed workload may reach.
    open: Vec<NetworkRule>,
    limits: Arc<Registry>,
    credentials: Arc<Credentials>,
    authority: Arc<Authority>,
    /// Held by who reads and puts live: one at a time, which also orders the generations. Never waited for by asynchronous
    /// code, which would hold up every connection for as long as a load takes.
    one: Mutex<()>,
    last: ArcSwap<LastLoad>,
}

/// The first policy of a daemon. Without a valid one it does not start: what earlier daemons attached stays closed.
pub(super) fn first(
    root: &Path,
    auditors: bool,
    limits: &Registry,
    credentials: &Credentials,
) -> Result<(LivePolicy, LastLoad, usize, Vec<String>), Errors> {
    let resolvers = network::resolvers();
    let loaded = Loaded::read(root);
    let digest = loaded.digest().to_owned();
    let warnings = loaded.warnings(WARNINGS);
    let set = within_reach(loaded.into_set()?, root, auditors)?;
    let identities = set.summary().identities;
    let rules_at = clock::now();
    let next_end = set.next_network_end(rules_at);
    let resolved = resolvers.clone();
    let last = LastLoad {
        live_digest: digest.clone(),
        digest,
        resolvers: resolved,
        at: SystemTime::now(),
        errors: None,
        rules_at,
        next_end,
    };
    let live =
        LivePolicy::new(set, 1).with_resolvers(resolvers).with_limits(limits).with_credentials(credentials);
    Ok((live, last, identities, warnings))
}

/// How many warnings of one load are told: as far as somebody reads them.
const WARNINGS: usize = 20;

/// Logs what is probably not meant in a policy that goes live.
pub(super) fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}

impl Reloader {
    pub(super) fn new(
        config: &Config,
        services: &Services,
        network: Arc<Network>,
        limits: Arc<Registry>,
        authority: Arc<Authority>,
        last: LastLoad,
    ) -> Self {
        Self {
            root: config.policies.clone(),
            store: Arc::clone(&services.policy),
            identifier: Arc::clone(&services.identifier),
            callers: Arc::clone(&services.callers),
            recorder: Arc::clone(&services.recorder),
            credentials: Arc::clone(&services.credentials),
            network,
            observes: config.mode == config::Mode::Observe,
            auditors: !config.journal.auditors.is_empty(),
            open: config.network.allow.clone(),
            limits,
            authority,
            one: Mutex::default(),
            last: ArcSwap::from_pointee(last),
        }
    }

    /// What the last load said. Does not wait for one that is under way.
    pub(super) fn last(&self) -> Arc<LastLoad> {
        self.last.load_full()
    }

    /// Reads everything again. Blocks on the disk.
    pub(super) fn reload(&self) -> Result<ReloadReport, Failure> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.last();
        let (root, auditors) = (self.root.clone(), self.auditors);
        let (digest, warnings, set) = behind_the_calls(move || {
            let loaded = Loaded::read(&root);
            let (digest, warnings) = (loaded.digest().to_owned(), loaded.warnings(WARNINGS));
            (digest, warnings, loaded.into_set().and_then(|set| within_reach(set, &root, auditors)))
        });
        let resolvers = network::resolvers();
        let live = self.store.live();
        let identities = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        match set {
            Ok(set) => {
                let count = identities(set.summary().identities);
                let changed = last.digest != digest || last.errors.is_some();
                let same_as_live =
                    last.digest == digest && last.errors.is_none() && last.resolvers == resolvers;
                let mut generation = live.generation();
                let (mut rules_at, mut next_end) = (last.rules_at, last.next_end);
                if !same_as_live {
                    generation += 1;
                    rules_at = clock::now();
                    next_end = set.next_network_end(rules_at);
                    // First of all: what it intercepts must be certified, and where that fails nothing was changed.
                    match self.authority.require(&set) {
                        Ok(None) => {}
                        Ok(Some(why)) => self.authority.note(&self.recorder, why, None),
                        Err(error) => return Err(self.refuse(&last, digest, vec![chain(&error)])),
                    }
                    let rules = network::kernel_rules(&set, &self.open, &resolvers, rules_at);
                    if let Err(error) = self.network.apply(generation, &rules) {
                        return Err(self.refuse(&last, digest, vec![error.to_string()]));
                    }
                    self.note(loaded(generation, &digest, &set));
                    let next = LivePolicy::new(set, generation)
                        .with_resolvers(resolvers.clone())
                        .with_limits(&self.limits)
                        .with_credentials(&self.credentials)
                        .observing(self.observes);
                    self.go_live(next);
                    tracing::info!(generation, identities = count, "the policy is live");
                }
                if !same_as_live {
                    warn(&warnings);
                }
                self.last.store(Arc::new(LastLoad {
                    live_digest: digest.clone(),
                    digest,
                    resolvers,
                    at: SystemTime::now(),
                    errors: None,
                    rules_at,
                    next_end,
                }));
                Ok(ReloadReport { generation, changed, identities: count, warnings })
            }
            Err(Errors(errors)) => Err(self.refuse(&last, digest, errors)),
        }
    }

    /// Puts a policy in the place of the one before. Who has connections is identified first, so that no call waits for it.
    fn go_live(&self, next: LivePolicy) {
        let next = Arc::new(next);
        let ahead = self.callers.ahead(&next, &*self.identifier, Instant::now() + AHEAD);
        // The one before ends there, if no call holds it, and not under a call.
        let_go(self.store.swap(&next, || self.callers.turn(&ahead)));
    }

    /// The policy with this digest does not go live: recorded once, and shown by `status` until another one does.
    fn refuse(&self, last: &LastLoad, digest: String, errors: Vec<String>) -> Failure {
        let repeated = last.digest == digest && last.errors.as_ref() == Some(&errors);
        if !repeated {
            let generation = self.store.live().generation() + 1;
            self.note(PolicyLoad {
                generation,
                digest: digest.clone(),
                identities: 0,
                result: PolicyResult::Refused,
                errors: errors.clone(),
                identity_keys: IdentityKeys::new(),
            });
            tracing::error!("the new policy is refused, the old one goes on:\n{}", errors.join("\n"));
        }
        self.last.store(Arc::new(LastLoad { digest, errors: Some(errors.clone()), ..last.clone() }));
        let mut failure = Failure::new(
            "policy",
            format!("the policy in {} is refused; the old one goes on", self.root.display()),
            format!("correct it and see `vouchsafe check {}`", self.root.display()),
        );
        failure.problems = errors;
        failure
    }

    fn note(&self, load: PolicyLoad) {
        if let Err(error) = self.recorder.note(Record::Policy(load)) {
            tracing::error!(%error, "the journal does not take the record of a policy load");
        }
    }

    /// Takes the network rules that are over back from the kernel, at their end, until dropped. By the policy that is live: what
    /// is on the disk meanwhile does not count.
    pub(super) async fn end_what_is_over(self: Arc<Self>) {
        let mut told = false;
        loop {
            // Short, because the clock of the host may be set.
            tokio::time::sleep(ENDS_EVERY).await;
            let now = clock::now();
            if self.last().next_end.is_none_or(|end| end > now) {
                continue;
            }
            let this = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || this.take_back(now)).await {
                Ok(Err(error)) if !told => {
                    tracing::error!(%error, "the kernel still has network rules that are over; this is tried again");
                    told = true;
                }
                Ok(Ok(())) => told = false,
                _ => {}
            }
        }
    }

    /// The same policy as a new generation, without the rules that are over.
    fn take_back(&self, now: Moment) -> Result<(), KernelError> {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.last();
        // A reload may have been here before.
        if last.next_end.is_none_or(|end| end > now) {
            return Ok(());
        }
        let live = self.store.live();
        let (set, resolvers, generation) = (live.set().clone(), live.resolvers(), live.generation() + 1);
        let rules = network::kernel_rules(&set, &self.open, resolvers, now);
        self.network.apply(generation, &rules)?;
        let next_end = set.next_network_end(now);
        self.last.store(Arc::new(LastLoad { rules_at: now, next_end, ..(*last).clone() }));
        self.note(loaded(generation, &last.live_digest, &set));
        let next = LivePolicy::new(set, generation)
            .with_resolvers(resolvers.to_vec())
            .with_limits(&self.limits)
            .with_credentials(&self.credentials)
            .observing(self.observes);
        self.go_live(next);
        tracing::info!(generation, "network rules ended");
        Ok(())
    }

    /// Begins to watch the policy root, and looks once more at what is there: nothing told of what changed between the
    /// first load and now. A watch that cannot be had is told; SIGHUP and `vouchsafe` commands still reload.
    pub(super) fn watch(&self) -> Option<Watch> {
        let (changed, changes) = mpsc::channel::<()>(1);
        let told = move |event: notify::Result<notify::Event>| {
            // Reading the files is no event that is asked for: it must not begin another reload.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = changed.try_send(());
            }
        };
        let changes_only = notify::Config::default().with_event_kinds(EventKindMask::CORE);
        // Its thread is told of each of many files that are written at once.
        let watcher = started_behind(|| RecommendedWatcher::new(told, changes_only));
        let watched = watcher.and_then(|mut watcher| {
            watcher.watch(&self.root, RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        // Its outcome is in the log, the journal and the status.
        let _ = self.reload();
        match watched {
            Ok(watcher) => Some(Watch { _watcher: watcher, changes }),
            Err(error) => {
                tracing::warn!(%error, path = %self.root.display(), "changes of the policy are not noticed; reload by SIGHUP");
                None
            }
        }
    }

    /// Reloads whenever something below the policy root changes, until dropped.
    pub(super) async fn follow(self: Arc<Self>, watch: Watch) {
        let Watch { _watcher, mut changes } = watch;
        let mut look = tokio::time::interval(RESOLVERS_EVERY);
        loop {
            tokio::select! {
                change = changes.recv() => if change.is_none() { return },
                _ = look.tick() => {
                    // A small file that is in memory.
                    if network::resolvers() == self.last().resolvers {
                        continue;
                    }
                }
            }
            while tokio::time::timeout(QUIET, changes.recv()).await.is_ok_and(|change| change.is_some()) {}
            let this = Arc::clone(&self);
            // Its outcome is in the log, the journal and the status.
            let _ = tokio::task::spawn_blocking(move || this.reload().map(drop)).await;
        }
    }
}
/// What the journal says of a policy that goes live.
fn loaded(generation: u64, digest: &str, set: &PolicySet) -> PolicyLoad {
    PolicyLoad {
        generation,
        digest: digest.to_owned(),
        identities: u64::try_from(set.summary().identities).unwrap_or(u64::MAX),
        result: PolicyResult::Loaded,
        errors: Vec::new(),
        identity_keys: reidentify::keys(set),
    }
}
