//! What was found of a workload when it was last identified, besides its capture: with it, it can be held against other identities later.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use proxy_common::ENVIRONMENT_TRACED;
use proxy_journal::{Footing, Known};

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
pub struct Latest(Mutex<Option<Arc<Known>>>);

impl Latest {
    /// What was found last.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set(&self, found: Known) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *latest = Some(Arc::new(found));
    }
}

impl Clone for Latest {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.get()))
    }
}

impl PartialEq for Latest {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Latest {}
