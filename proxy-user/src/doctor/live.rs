//! The diagnosis of a handshake that failed: in bounded time, a few at once, and once in a while for a process.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::{Diagnosis, Examiner, OurRoots, Patient, Refused};
use crate::trust::CaCertificate;
use crate::workload::Workload;

/// How long a connection waits for its diagnosis. What it looks at can be made to hang by the process itself.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many are made at once. One that hangs keeps its place.
const AT_ONCE: usize = 2;
/// For how long one is good: a bot that tries again and again costs one in this time.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// How many are kept.
const MOST_KEPT: usize = 1024;

type Key = (u32, u64, u64, Refused);
type Known = HashMap<Key, (Instant, Arc<Diagnosis>)>;

/// Diagnoses those whose handshakes fail.
pub struct Doctor {
    state: PathBuf,
    examiner: Arc<Examiner>,
    places: Arc<Semaphore>,
    known: Mutex<Known>,
}

impl Doctor {
    /// One who knows the CA below this state directory.
    #[must_use]
    pub fn new(state: PathBuf) -> Self {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        Self { state, examiner: Arc::default(), places, known: Mutex::default() }
    }

    /// What is the matter with a process that refused our certificate; nothing when that cannot be found out in time.
    pub async fn diagnose(&self, workload: &Workload, refused: Refused) -> Option<Arc<Diagnosis>> {
        let key = (workload.pid, workload.start_time_ns, workload.exec_ns, refused);
        if let Some(known) = self.known(&key) {
            return Some(known);
        }
        let patient = Patient::from(workload);
        let (state, examiner) = (self.state.clone(), Arc::clone(&self.examiner));
        let examine = async {
            let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let work = move || {
                let _place = place;
                let roots = OurRoots::new(CaCertificate::all(&state).ok()?);
                examiner.examine(&patient, &roots, Some(refused)).ok()
            };
            tokio::task::spawn_blocking(work).await.ok().flatten()
        };
        let found = tokio::time::timeout(PATIENCE, examine).await.ok().flatten().map(Arc::new)?;
        let mut known = self.all();
        if known.len() >= MOST_KEPT {
            known.clear();
        }
        known.insert(key, (Instant::now(), Arc::clone(&found)));
        Some(found)
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, key: &Key) -> Option<Arc<Diagnosis>> {
        let known = self.all();
        let (since, diagnosis) = known.get(key)?;
        (since.elapsed() < GOOD_FOR).then(|| Arc::clone(diagnosis))
    }
}

/// A refusal in words: who, which runtime, why, and what to do.
#[must_use]
pub fn sentence(workload: &Workload, what: &str, diagnosis: Option<&Diagnosis>) -> String {
    let mut text = format!("{what}: {}", workload.label());
    // Writing to a string does not fail.
    let _ = workload.unit.as_ref().map(|unit| write!(text, ", unit {unit}"));
    match diagnosis {
        Some(Diagnosis { runtime, why, mend, .. }) => {
            let _ = write!(text, ", {runtime}; {why}");
            let _ = mend.as_ref().map(|mend| write!(text, "; to mend it: {mend}"));
        }
        None => {
            let _ = match workload.unit.as_deref().filter(|unit| unit.ends_with(".service")) {
                Some(unit) => write!(text, "; to mend it: vouchsafe trust install --unit {unit}"),
                None => write!(text, "; to mend it: vouchsafe trust install"),
            };
        }
    }
    text
}
