//! The thread that writes what is kept of bodies: encrypted to the auditors, so that this host cannot read it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};

use age::stream::StreamWriter;
use age::x25519::Recipient;
use age::{Encryptor, Recipient as Wraps};
use bytes::Bytes;
use proxy_journal::{Blame, CaptureEnd, Outcome, Part, kept};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::capture::{Capture, Captures, Ending, Flow, Key};
use super::options::Durability;
use super::receipt::Receipt;
use super::recorder::Inner;
use super::store::{file, sync_dir};

/// Room that is left to the journal itself, at least.
const LEAST_ROOM: u64 = 1 << 20;
/// Bodies at once, each with a file that is open.
const MOST_BODIES: usize = if cfg!(test) { 32 } else { 4096 };
/// And of one identity: none takes the places of all others.
const MOST_OF_ONE: usize = MOST_BODIES / 4;
/// Finished files that wait for the disk, each open.
const MOST_UNSYNCED: usize = 256;

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Work {
    /// A call is to begin: its files are made.
    Open { call: Call, most: u64, has_request: bool, answer: oneshot::Sender<Result<Captures, Arc<str>>> },
    /// More of a body.
    Data { key: Key, data: Bytes },
    /// There is no more of it.
    End { key: Key, end: CaptureEnd },
    /// The call has ended.
    Complete { keys: Vec<Key>, receipt: Receipt, outcome: Box<Outcome> },
    /// The call was never begun.
    Forget { keys: Vec<Key> },
    /// The journal is closed.
    Stop,
}

/// How bodies are kept.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) auditors: Vec<Recipient>,
    pub(super) durability: Durability,
    /// Bytes of the disk that bodies leave to the journal.
    pub(super) reserve: u64,
}

/// Counts what is written, and hashes it.
struct Hashing {
    file: BufWriter<File>,
    sha: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.file.write_all(data)?;
        self.sha.update(data);
        self.size += u64::try_from(data.len()).unwrap_or(u64::MAX);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A call, as far as its bodies are told apart.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) id: Uuid,
    pub(super) identity: Option<Arc<str>>,
}

/// A body under way.
struct Body {
    part: Part,
    segment: u32,
    call: Call,
    flow: Arc<Flow>,
    bytes: u64,
    stage: Stage,
}

enum Stage {
    Open(Box<StreamWriter<Hashing>>),
    /// Nothing came, so there is no file.
    Empty,
    Kept(proxy_journal::Capture),
    Failed(Arc<str>),
}

/// The thread's own.
struct Writing<'a> {
    inner: &'a Inner,
    terms: &'a Terms,
    work: Sender<Work>,
    bodies: HashMap<Key, Body>,
    next: Key,
    to_disk: SyncSender<Finished>,
    /// Files were not handed to the thread that brings them to the disk, which had too many.
    left_out: Arc<AtomicBool>,
}

/// A file that is to be brought to the disk, and its folder.
struct Finished(File, PathBuf);

impl Inner {
    /// The life of the thread.
    pub(super) fn keep_bodies(&self, terms: &Terms, work: Sender<Work>, orders: &Receiver<Work>) {
        let (to_disk, finished) = sync_channel(MOST_UNSYNCED);
        let left_out = Arc::new(AtomicBool::new(false));
        let mut writing = Writing {
            inner: self,
            terms,
            work,
            bodies: HashMap::new(),
            next: 0,
            to_disk,
            left_out: Arc::clone(&left_out),
        };
        std::thread::scope(|scope| {
            scope.spawn(move || sync(&self.dir, &finished, &left_out));
            loop {
                match orders.recv() {
                    Ok(Work::Stop) | Err(_) => break,
                    Ok(work) => writing.take(work),
                }
            }
            // What came in the meantime is ended as what came before.
            orders.try_iter().for_each(|work| writing.take(work));
            // The other one ends with it.
            drop(writing);
        });
    }
}

/// Brings finished files to the disk, one after the other, in `fast` mode: nobody waits for it.
fn sync(dir: &Path, finished: &Receiver<Finished>, left_out: &AtomicBool) {
    while let Ok(first) = finished.recv() {
        let (mut folders, mut synced) = (BTreeSet::new(), Ok(()));
        for Finished(file, folder) in std::iter::once(first).chain(finished.try_iter()) {
            synced = synced.and(file.sync_data());
            folders.insert(folder);
        }
        for folder in folders {
            synced = synced.and(sync_dir(&folder));
        }
        if left_out.swap(false, Ordering::AcqRel) {
            synced = synced.and(File::open(dir).and_then(|dir| Ok(rustix::fs::syncfs(dir)?)));
        }
        if let Err(error) = synced {
            tracing::error!(%error, "bodies that are kept for auditors do not reach the disk");
        }
    }
}

impl Writing<'_> {
    fn take(&mut self, work: Work) {
        match work {
            Work::Open { call, most, has_request, answer } => {
                // Where nobody waits any more, what was opened is forgotten as it is dropped.
                let _ = answer.send(self.open(&call, most, has_request));
            }
            Work::Data { key, data } => {
                let Some(body) = self.bodies.get_mut(&key) else { return };
                if let Stage::Open(writer) = &mut body.stage {
                    match writer.write_all(&data) {
                        Ok(()) => body.bytes += u64::try_from(data.len()).unwrap_or(u64::MAX),
                        Err(error) => body.fail(&self.inner.dir, &error),
                    }
                }
                body.flow.written(data.len());
            }
            Work::End { key, end } => self.end(key, end),
            Work::Complete { keys, receipt, outcome } => {
                let outcome = self.complete(&keys, *outcome);
                receipt.complete(outcome);
            }
            Work::Forget { keys } => {
                for key in keys {
                    if let Some(body) = self.bodies.remove(&key) {
                        body.discard(&self.inner.dir);
                    }
                }
            }
            Work::Stop => {}
        }
    }

    fn open(&mut self, call: &Call, most: u64, has_request: bool) -> Result<Captures, Arc<str>> {
        if self.bodies.len() >= MOST_BODIES {
            return Err("as many bodies are under way as can be kept at once".into());
        }
        let of_one = self.bodies.values().filter(|body| body.call.identity == call.identity);
        if of_one.count() >= MOST_OF_ONE {
            return Err("as many bodies of this identity are under way as can be kept at once".into());
        }
        let segment = self.inner.lock().writer.number();
        let failed = |error: io::Error| Arc::from(error.to_string());
        let folder = self.folder(segment).map_err(failed)?;
        let request = match has_request {
            true => Some(self.begin(&folder, segment, call, Part::Request, most).map_err(failed)?),
            false => None,
        };
        // Where the second cannot be made, the first is dropped, and forgotten as the ending of no call.
        let response = self.begin(&folder, segment, call, Part::Response, most);
        let keys: Vec<Key> = request.iter().chain(response.as_ref().ok()).map(|(key, _)| *key).collect();
        let ending = Ending::new(self.work.clone(), keys);
        let (_, response) = response.map_err(failed)?;
        Ok(Captures { request: request.map(|(_, request)| request), response, ending })
    }

    /// The folder of a segment, made where it is not there, on a disk that has room for bodies.
    fn folder(&self, segment: u32) -> io::Result<PathBuf> {
        let dir = &self.inner.dir;
        let room = rustix::fs::statvfs(dir.as_path())?;
        if room.f_bavail.saturating_mul(room.f_frsize) < self.terms.reserve.max(LEAST_ROOM) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let folder = kept::folder(dir, segment);
        for made in [folder.parent().unwrap_or(&folder), &folder] {
            match DirBuilder::new().mode(0o700).create(made) {
                Ok(()) => sync_dir(made.parent().unwrap_or(dir))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        if !fs::symlink_metadata(&folder)?.is_dir() {
            return Err(io::Error::other(format!("{} is not a folder", folder.display())));
        }
        Ok(folder)
    }

    fn begin(
        &mut self,
        folder: &Path,
        segment: u32,
        call: &Call,
        part: Part,
        most: u64,
    ) -> io::Result<(Key, Capture)> {
        let path = unfinished(folder, call.id, part);
        let made = file(&path, OpenOptions::new().write(true).create_new(true))?;
        let begun = || -> io::Result<_> {
            let auditors = self.terms.auditors.iter().map(|it| it as &dyn Wraps);
            let encryptor = Encryptor::with_recipients(auditors).map_err(io::Error::other)?;
            let file = BufWriter::with_capacity(4096, made);
            let mut writer = encryptor.wrap_output(Hashing { file, sha: Sha256::new(), size: 0 })?;
            // Where there is no room for this, the call does not begin.
            writer.flush()?;
            Ok(writer)
        };
        let writer = begun().inspect_err(|_| drop(fs::remove_file(&path)))?;
        let flow = Arc::new(Flow::default());
        let key = self.next;
        self.next += 1;
        let stage = Stage::Open(Box::new(writer));
        self.bodies.insert(
            key,
            Body { part, segment, call: call.clone(), flow: Arc::clone(&flow), bytes: 0, stage },
        );
        Ok((key, Capture::new(self.work.clone(), key, flow, most)))
    }

    fn end(&mut self, key: Key, end: CaptureEnd) {
        let Some(body) = self.bodies.get_mut(&key) else { return };
        if let Some(finished) = body.end(&self.inner.dir, end, self.terms.durability)
            && self.to_disk.try_send(finished).is_err()
        {
            self.left_out.store(true, Ordering::Release);
        }
        match &body.stage {
            Stage::Kept(_) | Stage::Empty | Stage::Open(_) => body.flow.done(),
            Stage::Failed(_) => {}
        }
    }

    /// The outcome with what was kept; a body that could not be is told as the error, unless there is one already.
    fn complete(&mut self, keys: &[Key], mut outcome: Outcome) -> Outcome {
        for key in keys {
            self.end(*key, CaptureEnd::Broken);
            match self.bodies.remove(key).map(|body| body.stage) {
                Some(Stage::Kept(capture)) => {
                    self.inner.lock().captured += capture.size;
                    outcome.captures.push(capture);
                }
                Some(Stage::Failed(why)) if outcome.error.is_none() => {
                    outcome.error = Some(super::NotKept(why).to_string());
                    outcome.blame = Some(Blame::Host);
                }
                _ => {}
            }
        }
        outcome
    }
}

impl Body {
    /// Ends what is open; with the file, where it is still to be brought to the disk.
    fn end(&mut self, dir: &Path, end: CaptureEnd, durability: Durability) -> Option<Finished> {
        let Stage::Open(_) = &self.stage else { return None };
        let Stage::Open(writer) = std::mem::replace(&mut self.stage, Stage::Empty) else { return None };
        if self.bytes == 0 {
            self.discard(dir);
            return None;
        }
        match self.finish(dir, *writer, end, durability) {
            Ok((capture, finished)) => {
                self.stage = Stage::Kept(capture);
                finished
            }
            Err(error) => {
                self.fail(dir, &error);
                None
            }
        }
    }

    fn finish(
        &self,
        dir: &Path,
        writer: StreamWriter<Hashing>,
        end: CaptureEnd,
        durability: Durability,
    ) -> io::Result<(proxy_journal::Capture, Option<Finished>)> {
        let Hashing { file, sha, size } = writer.finish()?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        if durability == Durability::Sync {
            file.sync_data()?;
        }
        let folder = kept::folder(dir, self.segment);
        fs::rename(
            unfinished(&folder, self.call.id, self.part),
            folder.join(kept::file_name(self.call.id, self.part)),
        )?;
        let capture = proxy_journal::Capture {
            part: self.part,
            file: kept::record_name(self.segment, self.call.id, self.part),
            end,
            bytes: Some(self.bytes),
            size,
            sha256: kept::hex(&sha.finalize()),
        };
        if durability == Durability::Sync {
            sync_dir(&folder)?;
            return Ok((capture, None));
        }
        Ok((capture, Some(Finished(file, folder))))
    }

    fn fail(&mut self, dir: &Path, error: &io::Error) {
        let why: Arc<str> = error.to_string().into();
        tracing::error!(call = %self.call.id, error = %why, "a body that must be kept for auditors cannot be: its call is broken off");
        self.discard(dir);
        self.stage = Stage::Failed(Arc::clone(&why));
        self.flow.fail(why);
    }

    /// Takes a file away that nobody will name.
    fn discard(&self, dir: &Path) {
        let _ = fs::remove_file(unfinished(&kept::folder(dir, self.segment), self.call.id, self.part));
    }
}

fn unfinished(folder: &Path, id: Uuid, part: Part) -> PathBuf {
    folder.join(format!("{}{}", kept::file_name(id, part), kept::UNFINISHED))
}
