//! What a running process trusts, and why it would refuse our certificates: which runtime it is, where that looks for roots,
//! whether ours are there, and the one command that mends it.
//!
//! * `snapshot` reads a process at once, and nothing of it that could be a secret.
//! * `runtime` tells runtimes apart.
//! * `readers` knows where each looks for roots; `holds` looks there.
//! * `advice` says what to do.
//! * `live` does all that when a handshake has failed, off the async threads, bounded and remembered.
//!
//! Invariant: nothing here is believed for a decision. What a process shows of itself it can make up; it gets advice for
//! that, and no more.

mod advice;
mod holds;
mod live;
mod readers;
mod runtime;
mod snapshot;

use std::io;
use std::time::Duration;

use serde::Serialize;

pub use holds::{Holds, OurRoots};
pub use live::{Doctor, sentence};
pub use runtime::{Kind, Runtime};

use self::advice::Advice;
use self::holds::Looker;
use self::readers::{Place, Reader};
use self::snapshot::Snapshot;
use crate::workload::Workload;
use crate::workload::files::FileId;

/// What two times may differ by that are the same.
const TICKS: Duration = Duration::from_millis(20);

/// Whom to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patient {
    /// Its process id.
    pub pid: u32,
    /// When it started, in nanoseconds since boot; another process of that id is not it.
    pub start_time_ns: Option<u64>,
    /// The path of its executable.
    pub exe: Option<String>,
    /// Its executable.
    pub file: FileId,
    /// The unit that it belongs to.
    pub unit: Option<String>,
    /// It is in a container.
    pub contained: bool,
}

impl From<&Workload> for Patient {
    fn from(workload: &Workload) -> Self {
        Self {
            pid: workload.pid,
            start_time_ns: Some(workload.start_time_ns).filter(|start| *start != 0),
            exe: workload.exe.clone(),
            file: FileId { dev: workload.exe_dev, ino: workload.exe_ino },
            unit: workload.unit.clone(),
            contained: workload.container.is_some(),
        }
    }
}

/// How a client refused our certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// It said so.
    Said,
    /// It went away after the handshake, without a word.
    Left,
}

/// What is the matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Everything that it reads has our roots.
    Trusts,
    /// What it reads has our roots, but got them after it had started.
    Restart,
    /// Something that it reads does not have them, or not all.
    Lacks,
    /// Its roots are compiled in, and nothing adds to them.
    CompiledIn,
    /// What it reads has our roots, and it refused nevertheless.
    Pinned,
    /// It cannot be told.
    Unknown,
}

impl Verdict {
    /// As the journal spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trusts => "trusts",
            Self::Restart => "restart",
            Self::Lacks => "lacks",
            Self::CompiledIn => "compiled_in",
            Self::Pinned => "pinned",
            Self::Unknown => "unknown",
        }
    }
}

/// One place that a process looks for roots in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Which library or program does.
    pub who: &'static str,
    /// The place, in words.
    pub place: String,
    /// The variable that names it.
    pub variable: Option<&'static str>,
    /// Whether ours are there.
    pub holds: Holds,
    /// They came after the process had started, and it does not look again.
    pub too_new: bool,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What the process is.
    pub runtime: Runtime,
    /// Where it looks for roots.
    pub stores: Vec<Store>,
    /// What is the matter.
    pub verdict: Verdict,
    /// Why, in words.
    pub why: String,
    /// What to do: a command, but for a few things that none can do.
    pub mend: Option<String>,
}

/// Looks at processes.
#[derive(Default)]
pub struct Examiner(Looker);

impl Examiner {
    /// Looks at a process, which may have ended since: then less is known. Blocks on the file system.
    ///
    /// # Errors
    /// It may not be looked at; or it ended, and it was not said what it had executed.
    pub fn examine(
        &self,
        patient: &Patient,
        roots: &OurRoots,
        refused: Option<Refused>,
    ) -> io::Result<Diagnosis> {
        let seen = match Snapshot::take(patient.pid, patient.start_time_ns) {
            Ok(seen) if seen.exe.is_some() => seen,
            Ok(_) | Err(_) if patient.file.ino != 0 => {
                Snapshot::of_gone(patient.exe.as_deref(), patient.file)?
            }
            Ok(seen) => seen,
            Err(error) => return Err(error),
        };
        let runtime = runtime::recognize(&seen);
        let looked: Vec<(Reader, Store)> = readers::readers(&runtime, &seen)
            .into_iter()
            .map(|reader| {
                let store = self.look(&reader, &runtime, &seen, roots, refused);
                (reader, store)
            })
            .collect();
        let advice = Advice::of(patient, &runtime, &seen, &looked, refused);
        let stores = looked.into_iter().map(|(_, store)| store).collect();
        Ok(Diagnosis { runtime, stores, verdict: advice.verdict, why: advice.why, mend: advice.mend })
    }

    /// The source by which a reader trusts us, else its first one.
    fn look(
        &self,
        reader: &Reader,
        runtime: &Runtime,
        seen: &Snapshot,
        roots: &OurRoots,
        refused: Option<Refused>,
    ) -> Store {
        let looked = reader.sources.iter().map(|source| {
            let sight = self.0.look(&source.place, &seen.files, roots);
            // A folder is looked at for each server.
            let is_read_once = !matches!(source.place, Place::SystemFolder(_) | Place::Folder(_));
            let is_read_once = is_read_once && (runtime.kind.reads_once() || refused.is_some());
            // Starts are known to the tick, changes to the tick of another clock.
            let is_newer =
                sight.changed.is_some_and(|changed| changed > seen.started + TICKS) && seen.is_whole;
            Store {
                who: reader.who,
                place: words(&source.place),
                variable: source.variable,
                too_new: is_read_once && is_newer && sight.holds != Holds::None,
                holds: sight.holds,
            }
        });
        let rank = |store: &Store| match (&store.holds, store.too_new) {
            (Holds::All, false) => 0,
            (Holds::All, true) => 1,
            (Holds::Some, _) => 2,
            (Holds::None | Holds::Unknown(_), _) => 3,
        };
        let best = looked.min_by_key(rank);
        best.unwrap_or_else(|| Store {
            who: reader.who,
            place: words(&Place::Unknown),
            variable: None,
            holds: Holds::Unknown("nobody knows where it looks".into()),
            too_new: false,
        })
    }
}

fn words(place: &Place) -> String {
    match place {
        Place::System(path) | Place::File(path) | Place::Java(path) => path.display().to_string(),
        Place::SystemFolder(path) | Place::Folder(path) => format!("the folder {}", path.display()),
        Place::Nss(path) => format!("the database in {}", path.display()),
        Place::CompiledIn => "roots that are compiled in".to_owned(),
        Place::Unknown => "an unknown place".to_owned(),
    }
}
