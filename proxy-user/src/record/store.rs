//! Opens the journal's directory: its ownership, the lock against a second daemon, the repair after a kill or a loss of power.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use nix::fcntl::OFlag;
use proxy_journal::source::is_packed;
use proxy_journal::{
    AppendError, Head, Outcome, Prepared, Record, Recovered, Recovery, Timestamp, Writer, kept, recover,
    segment,
};

use super::RecordError;
use super::options::Options;
use super::signer::Signer;
use super::space::{Reserve, is_full};

/// The journal, ready to go on: repaired, locked, with its `start` record on the disk.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) writer: Writer<File>,
    /// The same file once more, to sync it without holding up writers.
    pub(super) sync: Arc<File>,
    /// Whether the segment that is written to is where the journal spills.
    pub(super) spilled: bool,
    pub(super) signer: Signer,
    /// Locked as long as it is open.
    pub(super) lock: File,
}

/// Opens or makes the journal in `dir`.
pub(super) fn open(dir: &Path, options: &Options) -> Result<Store, RecordError> {
    make(dir).map_err(at(dir))?;
    own(dir, &File::open(dir).map_err(at(dir))?)?;

    let path = dir.join("lock");
    let lock = file(&path, OpenOptions::new().write(true).create(true)).map_err(at(&path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(RecordError::Locked(dir.to_owned())),
        Err(TryLockError::Error(source)) => return Err(at(&path)(source)),
    }
    if let Some(spill) = &options.spill {
        link(dir, spill)?;
    }

    let (path, journal, recovery) = last_segment(dir, options)?;
    let sync = journal.try_clone().map_err(at(&path))?;
    let (mut signer, is_new) = Signer::open(dir, Some(&recovery))?;

    let now = Timestamp::from(SystemTime::now());
    let unwritable = |source| RecordError::Unwritable { path: dir.to_owned(), source };
    let mut writer = Writer::resume(journal, &recovery);
    if is_new {
        let record = signer.introduction(writer.head());
        writer.append(&record, now).map_err(unwritable)?;
    }
    let begun = first_records(dir, &recovery, options);
    let lines = begun.iter().map(|record| Prepared::new(record, now)).collect::<Result<Vec<_>, _>>();
    let lines = lines.map_err(unwritable)?;
    if let Err(error) = writer.append_all(&lines) {
        // The last run may have ended because there was no room: what its reserve is for.
        if !matches!(&error, AppendError::Write(error) if is_full(error)) || !Reserve::give_back(dir) {
            return Err(unwritable(error));
        }
        writer.append_all(&lines).map_err(unwritable)?;
    }
    sync.sync_all().map_err(at(&path))?;
    // The name of a new file is on the disk only when its directory is.
    sync_dir(path.parent().unwrap_or(dir)).map_err(at(dir))?;
    if !signer.is_noted(dir) {
        note_key(dir, &path, &mut signer).map_err(at(&dir.join(proxy_journal::keys::FILE)))?;
    }
    let spilled = path.parent() != Some(dir);
    Ok(Store { writer, sync: Arc::new(sync), spilled, signer, lock })
}

/// Opens the last segment with a record in it, and finds its end.
fn last_segment(dir: &Path, options: &Options) -> Result<(PathBuf, File, Recovery), RecordError> {
    let boot = Some(options.start.boot_id.as_str()).filter(|boot| !boot.is_empty());
    let mut segments = segment::list(dir).map_err(at(dir))?;
    loop {
        let (number, path) = segments.pop().unwrap_or_else(|| (1, dir.join(segment::file_name(1))));
        if is_packed(&path) {
            // It was closed, so one came after it.
            let after = dir.join(segment::file_name(number + 1));
            return Err(RecordError::Missing(after));
        }
        let mut journal =
            file(&path, OpenOptions::new().read(true).append(true).create(number == 1)).map_err(at(&path))?;
        own(&path, &journal)?;
        let broken = |source| RecordError::Broken { path: path.clone(), source };
        let recovery = recover(&mut journal, number, boot).map_err(broken)?;
        if recovery.lost > 0 {
            set_aside(dir, &path, &mut journal, &recovery).map_err(at(&path))?;
        }
        if recovery.tree.size() == 0 && number > 1 {
            // A kill came before its first record: the one before it goes on.
            fs::remove_file(&path).map_err(at(&path))?;
            continue;
        }
        if let Some((_, before)) = segments.last() {
            let end = end_of(before).map_err(at(before))?;
            if end != Some(recovery.before) {
                return Err(RecordError::Apart { path, before: before.clone() });
            }
        } else if number > 1 && recovery.before == Head::GENESIS {
            return Err(RecordError::Missing(dir.join(segment::file_name(number - 1))));
        }
        return Ok((path, journal, recovery));
    }
}

/// The last record of a closed segment; `None` when it does not end with one.
fn end_of(path: &Path) -> io::Result<Option<Head>> {
    proxy_journal::source::last_record(path)
}

/// Keeps what a loss of power left after the end of the chain, and cuts it off.
fn set_aside(dir: &Path, path: &Path, journal: &mut File, recovery: &Recovery) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kept = dir.join(format!("lost-{}-after-{}", name, recovery.head.seq));
    let mut to = file(&kept, OpenOptions::new().write(true).create(true).truncate(true))?;
    journal.seek(SeekFrom::Start(recovery.len))?;
    io::copy(&mut journal.take(recovery.lost), &mut to)?;
    to.sync_all()?;
    tracing::error!(
        bytes = recovery.lost, kept = %kept.display(),
        "the power was lost before the end of the journal was on the disk: what was left of it is kept, and the chain goes on before it"
    );
    journal.set_len(recovery.len)?;
    journal.seek(SeekFrom::End(0)).map(|_| ())
}

/// Notes the last hand-over beside the segments, when a kill came before it was.
fn note_key(dir: &Path, path: &Path, signer: &mut Signer) -> io::Result<()> {
    let mut noted = Vec::new();
    let segments = segment::list(dir)?;
    for (_, segment) in segments.iter().filter(|(_, segment)| !is_packed(segment) || segments.len() == 1) {
        noted.extend(proxy_journal::source::lines_of_kind(segment, "key")?);
    }
    if noted.is_empty() {
        noted.extend(proxy_journal::source::lines_of_kind(path, "key")?);
    }
    let known = fs::read(dir.join(proxy_journal::keys::FILE)).unwrap_or_default();
    for line in noted {
        if !known.windows(line.len()).any(|part| part == line) {
            signer.note(&line)?;
        }
    }
    Ok(())
}

/// Leads to where the journal spills, for everybody who reads it.
fn link(dir: &Path, spill: &Path) -> Result<(), RecordError> {
    make(spill).map_err(at(spill))?;
    own(spill, &File::open(spill).map_err(at(spill))?)?;
    let link = dir.join(segment::SPILL);
    match fs::read_link(&link) {
        Ok(there) if there == spill => return Ok(()),
        Ok(there) => {
            let left = segment::list(&there).unwrap_or_default();
            if !left.is_empty() {
                return Err(RecordError::Spilled { there, spill: spill.to_owned() });
            }
            fs::remove_file(&link).map_err(at(&link))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at(&link)(error)),
    }
    std::os::unix::fs::symlink(spill, &link).map_err(at(&link))?;
    sync_dir(dir).map_err(at(dir))
}

/// What a run begins with: the repair, an outcome for each call that the last run left open, the start or what is there
/// instead of it.
fn first_records(dir: &Path, recovery: &Recovery, options: &Options) -> Vec<Record> {
    let mut records = Vec::with_capacity(recovery.open.len() + 2);
    if recovery.torn_bytes > 0 || recovery.lost > 0 || !recovery.open.is_empty() {
        let closed = u64::try_from(recovery.open.len()).unwrap_or(u64::MAX);
        let (dropped_bytes, lost_bytes) = (recovery.torn_bytes, recovery.lost);
        records.push(Record::Recovered(Recovered { dropped_bytes, lost_bytes, closed }));
    }
    let mut bodies = kept::left_of(dir, &recovery.open, |path, error| {
        tracing::error!(file = %path.display(), %error, "what was kept of the body of an interrupted call cannot be read");
    });
    records.extend(recovery.open.iter().map(|id| {
        let error = Some("the daemon ended before the call did".to_owned());
        let captures = bodies.remove(id).unwrap_or_default();
        Record::Outcome(Outcome { id: *id, interrupted: true, error, captures, ..Outcome::default() })
    }));
    records.push(options.instead.clone().unwrap_or_else(|| Record::Start(options.start.clone())));
    records
}

/// Makes the file of the segment with this number, which is not there yet; its name is on the disk then.
pub(super) fn make_segment(dir: &Path, number: u32) -> io::Result<File> {
    let path = dir.join(segment::file_name(number));
    let made = file(&path, OpenOptions::new().read(true).append(true).create_new(true))?;
    sync_dir(dir)?;
    Ok(made)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn at(path: &Path) -> impl Fn(io::Error) -> RecordError + use<> {
    let path = path.to_owned();
    move |source| RecordError::Open { path: path.clone(), source }
}

fn make(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Opens a file of the journal, for its owner only, and not through a link. (std adds `O_CLOEXEC`.)
pub(super) fn file(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// Nobody else may write to it.
pub(super) fn own(path: &Path, opened: &File) -> Result<(), RecordError> {
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
