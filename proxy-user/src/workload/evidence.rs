//! What was found of a workload when it was last identified, besides its capture: with it, it can be held against other identities later.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proxy_common::ENVIRONMENT_TRACED;
use proxy_journal::{Footing, Known};
use serde_json::value::RawValue;

use super::{
    Workload, environment,
    files::{self, FileId},
    writers,
};

/// What can be found whatever is asked. Blocks on the file system.
pub(super) fn of(workload: &Workload) -> Known {
    Known {
        exe: footing(workload),
        environment: environment::of(workload).unwrap_or_else(|_| vec!["?".to_owned()]),
        traced: workload.environment & ENVIRONMENT_TRACED != 0,
        ..Known::default()
    }
}

fn footing(workload: &Workload) -> Footing {
    let path = workload.exe.as_deref().map(Path::new);
    let path = path.filter(|path| path.is_absolute() && workload.exe_ino != 0);
    // With mounts of its own a process can show any path of the host: also one where an answer does not come.
    let path = path.filter(|path| files::at_hand(path) == Some(file_of(workload)));
    path.map_or(Footing::Elsewhere, |path| footing_at(path, workload))
}

fn file_of(workload: &Workload) -> FileId {
    FileId { dev: workload.exe_dev, ino: workload.exe_ino }
}

/// What is at a path.
pub(super) fn footing_at(path: &Path, workload: &Workload) -> Footing {
    let file = file_of(workload);
    if files::named_by(path) != Some(file) {
        return Footing::Elsewhere;
    }
    let others = |pinned| writers::of_path(path, file, workload.uid, pinned).is_some();
    match others(false) {
        false => Footing::Own,
        true if others(true) => Footing::Others,
        true => Footing::Shared,
    }
}

/// The newest of what was found.
#[derive(Debug, Default)]
pub struct Latest(Mutex<Option<Found>>);

#[derive(Debug)]
struct Found {
    known: Arc<Known>,
    /// How the journal tells the workload with it.
    told: Option<Arc<RawValue>>,
}

impl Latest {
    fn lock(&self) -> MutexGuard<'_, Option<Found>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found last.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Known>> {
        self.lock().as_ref().map(|found| Arc::clone(&found.known))
    }

    pub(super) fn set(&self, known: Known) {
        let mut latest = self.lock();
        // The same as before is told as before.
        if latest.as_ref().is_none_or(|before| *before.known != known) {
            *latest = Some(Found { known: Arc::new(known), told: None });
        }
    }

    /// How the journal tells the workload with what was found last: spelled once for all connections, until something else is found.
    pub(crate) fn told(&self, spell: impl FnOnce() -> Box<RawValue>) -> Arc<RawValue> {
        let before = match &*self.lock() {
            Some(Found { told: Some(told), .. }) => return Arc::clone(told),
            Some(Found { known, told: None }) => Some(Arc::clone(known)),
            None => None,
        };
        let told: Arc<RawValue> = spell().into();
        // What was found meanwhile is told otherwise.
        if let Some(found) = &mut *self.lock()
            && before.is_some_and(|before| Arc::ptr_eq(&before, &found.known))
        {
            found.told = Some(Arc::clone(&told));
        }
        told
    }
}

impl Clone for Latest {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.get().map(|known| Found { known, told: None })))
    }
}

impl PartialEq for Latest {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Latest {}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_workload_is_spelled_once_until_something_else_is_found_of_it() {
        let known = |tool: &str| Known { environment: vec![tool.to_owned()], ..Known::default() };
        let (latest, spelled) = (Latest::default(), Cell::new(0));
        let told = || {
            latest.told(|| {
                spelled.set(spelled.get() + 1);
                let environment = latest.get().map(|known| known.environment.clone());
                serde_json::value::to_raw_value(&environment).unwrap()
            })
        };
        assert_eq!((told().get(), told().get()), ("null", "null"));
        assert_eq!(spelled.get(), 2, "nothing was found that it could be kept for");
        for (found, text, times) in [("A", "[\"A\"]", 3), ("A", "[\"A\"]", 3), ("B", "[\"B\"]", 4)] {
            latest.set(known(found));
            assert_eq!((told().get(), told().get()), (text, text));
            assert_eq!(spelled.get(), times);
        }
    }

    #[test]
    fn what_is_found_while_it_is_spelled_is_not_told_as_what_was_before() {
        let known = |tool: &str| Known { environment: vec![tool.to_owned()], ..Known::default() };
        let latest = Latest::default();
        latest.set(known("A"));
        let raw = |text: &str| serde_json::value::to_raw_value(text).unwrap();
        let told = latest.told(|| {
            latest.set(known("B"));
            raw("A")
        });
        assert_eq!(told.get(), "\"A\"");
        assert_eq!(latest.told(|| raw("B")).get(), "\"B\"");
    }
}
