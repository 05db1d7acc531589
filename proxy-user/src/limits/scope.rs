//! Whose limits: those of one identity, grant, API or host, with what is used of them.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use proxy_policy::{Bound, Limit, Limits, Spanned};
use tokio::sync::Semaphore;

use super::{gcra::Gcra, ledger::Ledger, quota::Quota};

/// The limits of one thing under one policy.
#[derive(Debug)]
pub struct Scope {
    /// For people: `identity bot`.
    pub(super) whose: String,
    /// Of each limit: whose, and which.
    names: Vec<Arc<str>>,
    pub(super) wait: Duration,
    pub(super) cells: Vec<(Spanned<Limit>, Cell)>,
    pub(super) clock: Instant,
}

impl Scope {
    /// Whose, and which, of each limit: `identity bot: 60/min`.
    #[must_use]
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// How long a call may wait for its turn.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.wait
    }
}

/// What is used of one limit. Shared by the policies before and after a reload, as long as the limit is the same.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    Rate(Arc<Gcra>),
    AtOnce(Arc<Semaphore>),
    Calls(Arc<Quota>, u64),
    Bytes(Arc<Quota>, u64),
}

/// All that is used now.
#[derive(Debug)]
pub struct Registry {
    ledger: Arc<Ledger>,
    clock: Instant,
    rates: Mutex<HashMap<String, Weak<Gcra>>>,
    places: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Registry {
    /// One whose quotas are in this ledger.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>) -> Self {
        Self { ledger, clock: Instant::now(), rates: Mutex::default(), places: Mutex::default() }
    }

    /// The ledger of its quotas.
    #[must_use]
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The limits of one thing. `key` names it for as long as it exists (`grant/bot/github/0`), and what was used of a limit
    /// goes on under the same key. `None`: it has no limits.
    #[must_use]
    pub fn scope(&self, key: &str, whose: String, limits: &Limits) -> Option<Arc<Scope>> {
        if limits.is_empty() {
            return None;
        }
        let cells = limits
            .each
            .iter()
            .map(|limit| {
                let named = format!("{key}: {}", limit.as_str());
                let cell = match limit.bound() {
                    Bound::Rate { calls, per, burst } => {
                        Cell::Rate(kept(&self.rates, named, || Gcra::new(calls, per, burst)))
                    }
                    Bound::AtOnce(most) => {
                        let most = usize::try_from(most).unwrap_or(usize::MAX);
                        Cell::AtOnce(kept(&self.places, named, || Semaphore::new(most)))
                    }
                    Bound::Calls { most, per } => {
                        Cell::Calls(self.ledger.quota(&format!("{key} calls"), per), most)
                    }
                    Bound::Bytes { most, per } => {
                        Cell::Bytes(self.ledger.quota(&format!("{key} bytes"), per), most)
                    }
                };
                (limit.clone(), cell)
            })
            .collect();
        let names = limits.each.iter().map(|limit| named(&whose, limit).into()).collect();
        Some(Arc::new(Scope { whose, names, wait: limits.wait, cells, clock: self.clock }))
    }
}

/// One limit, and whose.
pub(super) fn named(whose: &str, limit: &Limit) -> String {
    format!("{whose}: {}", limit.as_str())
}

/// The one with this name, as long as anybody uses it.
fn kept<T>(known: &Mutex<HashMap<String, Weak<T>>>, name: String, new: impl FnOnce() -> T) -> Arc<T> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    known.retain(|_, cell| cell.strong_count() > 0);
    if let Some(cell) = known.get(&name).and_then(Weak::upgrade) {
        return cell;
    }
    let cell = Arc::new(new());
    known.insert(name, Arc::downgrade(&cell));
    cell
}
