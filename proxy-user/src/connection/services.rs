//! What every connection shares.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::watch;

use crate::authorize::{Callers, Identifier, PolicyStore, Subject, Unidentified};
use crate::config::Rate;
use crate::credentials::{Credentials, Redaction};
use crate::doctor::Doctor;
use crate::forward::Forwarder;
use crate::http::HttpLimits;
use crate::limits::Backoff;
use crate::limits::gcra::Gcra;
use crate::record::Recorder;
use crate::trust::BotTls;

/// The parts of the daemon that a connection passes through.
pub struct Services {
    /// The live policy.
    pub policy: Arc<PolicyStore>,
    /// Finds identities.
    pub identifier: Arc<dyn Identifier>,
    /// Who has connections.
    pub callers: Arc<Callers>,
    /// The journal.
    pub recorder: Arc<Recorder>,
    /// Secrets, composed into headers.
    pub credentials: Arc<Credentials>,
    /// Our side of a client's TLS.
    pub bot_tls: BotTls,
    /// Says why a client does not trust us.
    pub doctor: Doctor,
    /// The way to upstreams.
    pub forward: Forwarder,
    /// What of requests is told apart in the journal.
    pub redaction: Redaction,
    /// Settings of the host.
    pub settings: Settings,
    /// What upstreams asked for.
    pub backoff: Backoff,
    /// What `status` shows.
    pub counters: Counters,
    /// Turns true when the daemon is about to end.
    pub drain: watch::Receiver<bool>,
}

/// Settings of the host for connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What happens to workloads that no policy knows, at hosts that no API names.
    pub unidentified: Unidentified,
    /// How long a client may take to say what it speaks.
    pub sniff_time: Duration,
    /// What a client's HTTP may take.
    pub http: HttpLimits,
    /// Connections that one identity may have open, and all workloads without one together.
    pub connections_per_identity: u64,
    /// The ports whose connections are always turned to the proxy; others come here only until the kernel knows who asks.
    pub ports: Vec<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            unidentified: Unidentified::Deny,
            sniff_time: Duration::from_secs(10),
            http: HttpLimits::default(),
            connections_per_identity: 6_000,
            ports: vec![80, 443],
        }
    }
}

/// How much went through since the start.
#[derive(Debug)]
pub struct Counters {
    open: AtomicU64,
    late: AtomicU64,
    listening: AtomicU64,
    accepted: AtomicU64,
    merged: AtomicU64,
    refusals: Rate,
    unknown: Arc<Tally>,
    identities: Mutex<HashMap<String, Arc<Tally>, RandomState>>,
}

/// Decisions for one identity.
#[derive(Debug)]
pub struct Tally {
    allowed: AtomicU64,
    denied: AtomicU64,
    unrecorded: AtomicU64,
    /// How many refusals of calls and connections may have records.
    refusals: Gcra,
    /// How many of what the kernel refuses, which calls that are refused do not use up.
    kernel: Gcra,
    open: AtomicU64,
}

/// Where something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// Here: a call, a connection, a tunnel.
    Proxy,
    /// By the programs: a socket, a datagram, a trace.
    Kernel,
}

/// One of the connections of an identity, until this is dropped.
pub(super) struct Held(Arc<Tally>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tally {
    fn new(refusals: Rate) -> Self {
        let rate = || Gcra::new(refusals.number, refusals.per, refusals.burst);
        Self {
            allowed: AtomicU64::new(0),
            denied: AtomicU64::new(0),
            unrecorded: AtomicU64::new(0),
            refusals: rate(),
            kernel: rate(),
            open: AtomicU64::new(0),
        }
    }

    /// One more connection, unless there are so many already.
    pub(super) fn hold(self: &Arc<Self>, most: u64) -> Option<Held> {
        // Counted before it is compared: of two that come at once, not both see the last place.
        let held = Held(Arc::clone(self));
        (self.open.fetch_add(1, Ordering::Relaxed) < most).then_some(held)
    }

    /// Requests and connections that went on.
    #[must_use]
    pub fn allowed(&self) -> u64 {
        self.allowed.load(Ordering::Relaxed)
    }

    /// Requests and connections that were refused.
    #[must_use]
    pub fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }

    pub(crate) fn count_allowed(&self) {
        self.allowed.fetch_add(1, Ordering::Relaxed);
    }

    /// What was refused, or kept from it, without a record of its own.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded.load(Ordering::Relaxed)
    }

    pub(super) fn count_denied(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_unrecorded(&self) {
        self.unrecorded.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes the place of a record for what is refused at a time since any beginning; that there is none is counted.
    pub(super) fn take_record(&self, by: RefusedBy, now: Duration) -> bool {
        let rate = match by {
            RefusedBy::Proxy => &self.refusals,
            RefusedBy::Kernel => &self.kernel,
        };
        let taken = rate.take(now, Duration::ZERO).is_ok();
        if !taken {
            self.count_unrecorded();
        }
        taken
    }
}

impl Counters {
    /// So many refusals of an identity have a record of their own.
    #[must_use]
    pub fn new(refusals: Rate) -> Self {
        Self {
            open: AtomicU64::new(0),
            late: AtomicU64::new(0),
            listening: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            merged: AtomicU64::new(0),
            refusals,
            unknown: Arc::new(Tally::new(refusals)),
            identities: Mutex::default(),
        }
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }

    /// Those of them that came after the drain began.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::SeqCst)
    }

    /// Connections since the start.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Refusals of the kernel side that were not recorded because they repeat one that was a moment ago.
    #[must_use]
    pub fn merged(&self) -> u64 {
        self.merged.load(Ordering::Relaxed)
    }

    /// Counts one of these.
    pub fn count_merged(&self) {
        self.merged.fetch_add(1, Ordering::Relaxed);
    }

    /// What was refused without a record of its own: there was too much of its identity, or the journal could not be written.
    #[must_use]
    pub fn unrecorded(&self) -> u64 {
        let identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        identities.values().map(|tally| tally.unrecorded()).sum::<u64>() + self.unknown.unrecorded()
    }

    /// Decisions for workloads without one identity.
    #[must_use]
    pub fn unknown(&self) -> &Tally {
        &self.unknown
    }

    /// Decisions by name of identity, for those that asked for anything.
    #[must_use]
    pub fn identities(&self) -> Vec<(String, Arc<Tally>)> {
        let identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            identities.iter().map(|(name, tally)| (name.clone(), Arc::clone(tally))).collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    pub(crate) fn tally(&self, subject: &Subject) -> Arc<Tally> {
        let Some(identity) = subject.identity() else { return Arc::clone(&self.unknown) };
        let mut identities = self.identities.lock().unwrap_or_else(PoisonError::into_inner);
        match identities.get(&identity.name) {
            Some(tally) => Arc::clone(tally),
            None => {
                let tally = Arc::new(Tally::new(self.refusals));
                Arc::clone(identities.entry(identity.name.clone()).or_insert(tally))
            }
        }
    }

    /// Listeners that may still accept.
    #[must_use]
    pub fn listening(&self) -> u64 {
        self.listening.load(Ordering::SeqCst)
    }
}

/// One connection, open until this is dropped.
pub struct OpenConnection {
    services: Arc<Services>,
    late: bool,
}

impl OpenConnection {
    /// Counts a connection, which has just been accepted.
    #[must_use]
    pub fn count(services: &Arc<Services>) -> Self {
        let (counters, late) = (&services.counters, *services.drain.borrow());
        counters.accepted.fetch_add(1, Ordering::Relaxed);
        // In this order, and back in the other one: there are never more late ones than open ones.
        counters.open.fetch_add(1, Ordering::SeqCst);
        if late {
            counters.late.fetch_add(1, Ordering::SeqCst);
        }
        Self { services: Arc::clone(services), late }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        if self.late {
            self.services.counters.late.fetch_sub(1, Ordering::SeqCst);
        }
        self.services.counters.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One listener, which may accept until this is dropped.
pub struct Listening(Arc<Services>);

impl Listening {
    /// Counts a listener.
    #[must_use]
    pub fn count(services: &Arc<Services>) -> Self {
        services.counters.listening.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(services))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.counters.listening.fetch_sub(1, Ordering::SeqCst);
    }
}
