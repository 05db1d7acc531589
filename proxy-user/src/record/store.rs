//! Opens the journal's directory: its ownership, the lock against a second daemon, the repair after a kill.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::fcntl::OFlag;
use proxy_journal::{
    Outcome, Prepared, Record, Recovered, Recovery, Start, Timestamp, Writer, recover, segment,
};

use super::RecordError;

/// How the journal is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the `start` record says.
    pub start: Start,
    /// What a command that is no daemon writes instead of `start`.
    pub instead: Option<Record>,
    /// An outcome is written with the next decision, and after this time at the latest.
    pub flush_within: Duration,
    /// What is written reaches the disk after this time at the latest.
    pub sync_within: Duration,
    /// Socket of systemd's journal; `None` to leave it out.
    pub journald: Option<PathBuf>,
}

impl Options {
    /// The settings of a daemon of this version: 50 ms, 1 s, systemd's own socket.
    pub fn new(version: &str) -> Options {
        // Without /proc the boot is unknown, which is no reason to write nothing.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Options {
            start: Start {
                version: version.to_owned(),
                boot_id: boot_id.trim().to_owned(),
                pid: std::process::id(),
                policy_generation: None,
            },
            instead: None,
            flush_within: Duration::from_millis(50),
            sync_within: Duration::from_secs(1),
            journald: Some(PathBuf::from("/run/systemd/journal/socket")),
        }
    }
}

/// The journal, ready to go on: repaired, locked, with its `start` record on the disk.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) writer: Writer<File>,
    /// The same file once more, to sync it without holding up writers.
    pub(super) sync: File,
    /// Locked as long as it is open.
    pub(super) lock: File,
    /// The first records of this run, for the sinks.
    pub(super) begun: Vec<Record>,
}

/// Opens or makes the journal in `dir`.
pub(super) fn open(dir: &Path, options: &Options) -> Result<Store, RecordError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| RecordError::Open { path, source }
    };
    make(dir).map_err(at(dir))?;
    own(dir, &File::open(dir).map_err(at(dir))?)?;

    let path = dir.join("lock");
    let lock = file(&path, OpenOptions::new().write(true).create(true)).map_err(at(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(RecordError::Locked(dir.to_owned())),
        Err(TryLockError::Error(source)) => return Err(at(&path)(source)),
    }

    let segments = segment::list(dir).map_err(at(dir))?;
    if segments.iter().any(|(number, _)| *number != 1) {
        return Err(RecordError::Newer(dir.to_owned()));
    }
    let path = dir.join(segment::file_name(1));
    let mut journal =
        file(&path, OpenOptions::new().read(true).append(true).create(true)).map_err(at(&path))?;
    own(&path, &journal)?;
    let recovery =
        recover(&mut journal).map_err(|source| RecordError::Broken { path: path.clone(), source })?;
    let sync = journal.try_clone().map_err(at(&path))?;

    let begun = first_records(&recovery, options);
    let now = Timestamp::from(SystemTime::now());
    let unwritable = |source| RecordError::Unwritable { path: dir.to_owned(), source };
    let lines = begun.iter().map(|record| Prepared::new(record, now)).collect::<Result<Vec<_>, _>>();
    let mut writer = Writer::resume(journal, &recovery);
    writer.append_all(&lines.map_err(unwritable)?).map_err(unwritable)?;
    sync.sync_all().map_err(at(&path))?;
    // The name of a new file is on the disk only when its directory is.
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))?;
    Ok(Store { writer, sync, lock, begun })
}

/// What a run begins with: the repair, an outcome for each call that the last run left open, the start or what is there
/// instead of it.
fn first_records(recovery: &Recovery, options: &Options) -> Vec<Record> {
    let mut records = Vec::with_capacity(recovery.open.len() + 2);
    if recovery.torn_bytes > 0 || !recovery.open.is_empty() {
        let closed = u64::try_from(recovery.open.len()).unwrap_or(u64::MAX);
        records.push(Record::Recovered(Recovered { dropped_bytes: recovery.torn_bytes, closed }));
    }
    records.extend(recovery.open.iter().map(|id| {
        let error = Some("the daemon ended before the call did".to_owned());
        Record::Outcome(Outcome { id: *id, interrupted: true, error, ..Outcome::default() })
    }));
    records.push(options.instead.clone().unwrap_or_else(|| Record::Start(options.start.clone())));
    records
}

fn make(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Opens a file of the journal, for its owner only, and not through a link. (std adds `O_CLOEXEC`.)
fn file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// Nobody else may write to it.
fn own(path: &Path, opened: &File) -> Result<(), RecordError> {
    let source = match opened.metadata() {
        Ok(meta) => {
            let (uid, mode) = (meta.uid(), meta.mode() & 0o7777);
            if mode & 0o022 == 0 && (uid == 0 || uid == nix::unistd::geteuid().as_raw()) {
                return Ok(());
            }
            return Err(RecordError::Exposed { path: path.to_owned(), uid, mode });
        }
        Err(source) => source,
    };
    Err(RecordError::Open { path: path.to_owned(), source })
}
