//! The callers of the open connections: identified by a new policy before it goes live, so that no call waits for that.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use super::policy::LivePolicy;
use super::subject::{Caller, Identifier};
use crate::workload::{Identified, Workload};

/// From how many on those that are gone are looked for.
const FEW: usize = 64;

/// The open connections' callers. Costs a connection one lock at its beginning, and its calls nothing.
#[derive(Debug, Default)]
pub struct Callers(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    callers: Vec<Weak<Caller>>,
    /// How many there were when those that are gone were last taken out.
    present: usize,
}

/// What workloads are under a policy that is not live yet.
#[derive(Debug)]
pub struct Ahead {
    live: Arc<LivePolicy>,
    /// By the workload's address, which is its own as long as it is held here.
    found: HashMap<usize, (Arc<Workload>, Identified)>,
}

impl Callers {
    /// Takes note of the caller of a connection, which is forgotten some time after it is gone.
    pub fn add(&self, caller: &Arc<Caller>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Never more than twice as many as there are, and each is looked at twice at most.
        if kept.callers.len() >= FEW.max(2 * kept.present) {
            kept.callers.retain(|caller| caller.strong_count() > 0);
            kept.present = kept.callers.len();
        }
        kept.callers.push(Arc::downgrade(caller));
    }

    fn present(&self) -> Vec<Arc<Caller>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.callers.iter().filter_map(Weak::upgrade).collect()
    }

    /// Finds what the workloads of the open connections will be under `live`, each once, until there is no more time: the
    /// others are found when they next ask. Blocks on the file system.
    #[must_use]
    pub fn ahead(&self, live: &Arc<LivePolicy>, identifier: &dyn Identifier, until: Instant) -> Ahead {
        let mut found = HashMap::new();
        for caller in self.present() {
            if Instant::now() >= until {
                break;
            }
            let workload = caller.workload();
            found.entry(address(&workload)).or_insert_with(|| {
                let identified = identifier.find(&workload, live);
                (workload, identified)
            });
        }
        Ahead { live: Arc::clone(live), found }
    }

    /// Hands out what was found, once the policy is live. A caller that asked in between has found the same.
    pub fn turn(&self, ahead: &Ahead) {
        for caller in self.present() {
            if let Some((_, identified)) = ahead.found.get(&address(&caller.workload())) {
                caller.turn(&ahead.live, identified);
            }
        }
    }
}

fn address(workload: &Arc<Workload>) -> usize {
    Arc::as_ptr(workload).addr()
}

#[cfg(test)]
#[path = "callers_tests.rs"]
mod tests;
