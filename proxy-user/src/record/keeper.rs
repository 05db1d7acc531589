//! The thread that looks after closed segments: compresses them, brings back what spilled, and removes those whose time is over.
//! What takes time is done by a thread of its own that stands behind all others; nothing waits for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use proxy_journal::archive::{index_name, keep_index, pack_indexed, put_index};
use proxy_journal::source::is_packed;
use proxy_journal::{Record, Retired, Source, kept, segment};

use super::recorder::Inner;
use super::store::{file, sync_dir};
use crate::kernel;

/// How often is looked whether something is over when no segment was closed.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);

/// What is to be done with closed segments.
#[derive(Debug, Clone)]
pub(super) struct Keep {
    pub(super) compress: bool,
    pub(super) keep_for: Option<Duration>,
    pub(super) keep_bytes: Option<u64>,
}

/// Tells the thread that there is something to do, or that it shall end.
#[derive(Debug, Default)]
pub(super) struct Bell {
    /// There is work.
    work: Mutex<bool>,
    /// It shall end. Changed only while `work` is held.
    end: AtomicBool,
    wake: Condvar,
}

impl Bell {
    pub(super) fn wake(&self) {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.wake.notify_all();
    }

    pub(super) fn end(&self) {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        self.end.store(true, Ordering::Release);
        drop(work);
        self.wake.notify_all();
    }

    fn ends(&self) -> bool {
        self.end.load(Ordering::Acquire)
    }

    /// Waits for work; `false`: it shall end.
    fn wait(&self) -> bool {
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.wake.wait_timeout_while(work, LOOK_EVERY, |work| !*work && !self.ends());
        let (mut work, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *work = false;
        !self.ends()
    }
}

/// How many closed segments may wait to be compressed until that gets a share of a busy processor.
const MOST_WAITING: usize = 4;
/// The share, as a nice value.
const NICE: i32 = 19;

impl Inner {
    /// The life of the thread.
    pub(super) fn keep_until_stopped(self: &Arc<Inner>, keep: &Keep) {
        loop {
            match self.keep(keep) {
                Err(error) if !self.keeper.ends() => {
                    tracing::error!(%error, "closed segments of the journal cannot be looked after; it is tried again");
                }
                Ok(()) | Err(_) => {}
            }
            // Of the first heap; the thread that worked has emptied its own. Not that one's to do: it takes locks of heaps that calls use.
            kernel::own::trim();
            if !self.keeper.wait() {
                return;
            }
        }
    }

    fn keep(&self, keep: &Keep) -> io::Result<()> {
        let live = self.lock().writer.number();
        let spill = self.dir.join(segment::SPILL);
        for (number, path) in segment::list(&self.dir)? {
            if number >= live || self.keeper.ends() {
                break;
            }
            if path.starts_with(&spill) || (keep.compress && !is_packed(&path)) {
                self.behind_all(live, || self.put_away(keep, number, &path))?;
            }
        }
        self.behind_all(live, || {
            self.index(live);
            Ok(())
        })?;
        // Only now: what is to be compressed counts for what it will be.
        self.retire(keep, live)
    }

    /// Works on a thread that runs when no other has anything to do. It holds nothing that others wait for: it may not get on for as long
    /// as the host is busy. When too much waits for it, it gets a small share.
    fn behind_all(&self, live: u32, work: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
        let closed = segment::list(&self.dir)?.into_iter().filter(|(number, _)| *number < live);
        let waiting = closed.filter(|(_, path)| !is_packed(path)).count();
        let work = || {
            // No harm when it is not granted.
            match waiting > MOST_WAITING {
                false => drop(kernel::step_back()),
                true => drop(rustix::process::setpriority_process(None, NICE)),
            }
            let done = work();
            kernel::own::trim_own();
            done
        };
        std::thread::scope(|scope| {
            let worker = std::thread::Builder::new().name("journal-packer".to_owned());
            let ended = worker.spawn_scoped(scope, work)?.join();
            ended.unwrap_or_else(|_| Err(io::Error::other("the thread that compresses ended in a panic")))
        })
    }

    /// Compresses a closed segment, and makes its index on the way; one that is compressed, or shall not be, is only brought back from where
    /// it spilled.
    fn put_away(&self, keep: &Keep, number: u32, path: &Path) -> io::Result<()> {
        if is_packed(path) || !keep.compress {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return self.replace(path, &name, |from, to| io::copy(from, to).map(|_| ()));
        }
        let (name, mut index) = (segment::packed_name(number), Vec::new());
        self.replace(path, &name, |from, to| pack_indexed(from, to, &mut index))?;
        if let Err(error) = put_index(&self.dir.join(name), number, &index) {
            tracing::debug!(%error, segment = number, "the index of a segment of the journal cannot be written");
        }
        Ok(())
    }

    /// Makes the indexes that are missing. Who reads does without them, and makes them: nothing hangs on it.
    fn index(&self, live: u32) {
        let spill = self.dir.join(segment::SPILL);
        for (number, path) in segment::list(&self.dir).unwrap_or_default() {
            if number >= live || self.keeper.ends() {
                break;
            }
            if !path.starts_with(&spill)
                && let Err(error) = keep_index(&path, number, |segment| self.until_the_end(segment))
            {
                tracing::debug!(%error, segment = number, "a segment of the journal cannot be indexed");
            }
        }
    }

    /// Removes the oldest closed segments as far as the settings say, after the journal says that it does.
    fn retire(&self, keep: &Keep, live: u32) -> io::Result<()> {
        let mut closed = Vec::new();
        for (number, path) in segment::list(&self.dir)?.into_iter().filter(|(number, _)| *number < live) {
            let meta = fs::metadata(&path)?;
            let bodies = kept::size(&self.dir, number)?;
            closed.push((number, path, meta.len() + bodies, meta.modified()?));
        }
        let mut total: u64 = closed.iter().map(|(_, _, bytes, _)| bytes).sum();
        let mut over: Vec<(u32, PathBuf)> = Vec::new();
        let mut reason = String::new();
        for (number, path, bytes, ended) in closed {
            let age = SystemTime::now().duration_since(ended).unwrap_or_default();
            if keep.keep_for.is_some_and(|most| age > most) {
                reason = "journal.keep".to_owned();
            } else if keep.keep_bytes.is_some_and(|most| total > most) {
                reason = "journal.keep_bytes".to_owned();
            } else {
                break;
            }
            total -= bytes;
            over.push((number, path));
        }
        let Some((last, path)) = over.last() else { return Ok(()) };
        let end = proxy_journal::source::last_record(path)?;
        let end =
            end.ok_or_else(|| io::Error::other(format!("{} does not end with a record", path.display())))?;
        let retired = Retired { segment: *last, through: end.seq, head: end.hash, reason };
        self.note_now(&Record::Retired(retired)).map_err(io::Error::other)?;
        for (number, path) in over {
            fs::remove_file(&path)?;
            let _ = fs::remove_file(path.with_file_name(index_name(number)));
            let bodies = kept::folder(&self.dir, number);
            if let Err(error) = fs::remove_dir_all(&bodies)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::error!(%error, "{} is in no journal any more and cannot be removed", bodies.display());
            }
            tracing::info!(segment = number, "a segment of the journal was removed, as its settings say");
        }
        sync_dir(&self.dir)
    }

    /// Puts what `make` makes of `from` beside it under this name, proves that it reads as what it was made from, and removes that.
    fn replace(
        &self,
        from: &Path,
        name: &str,
        make: impl FnOnce(&mut dyn BufRead, &mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let dir = &self.dir;
        let path = dir.join(name);
        // Not the names of segments, so that nobody reads them; the second says how it is read.
        let (new, proof) = (dir.join(format!("{name}.new")), dir.join(format!(".check-{name}")));
        let done = || -> io::Result<()> {
            let mut to = file(&new, OpenOptions::new().write(true).create(true).truncate(true))?;
            let opened = File::open(from)?;
            let modified = opened.metadata()?.modified()?;
            make(&mut self.until_the_end(io::BufReader::with_capacity(READ, opened)), &mut to)?;
            // How old it is, is asked later.
            to.set_modified(modified)?;
            to.sync_all()?;
            fs::rename(&new, &proof)?;
            if !reads_as(self.until_the_end(Source::open(&proof)?), Source::open(from)?)? {
                return Err(io::Error::other(format!(
                    "{} does not read as {}",
                    path.display(),
                    from.display()
                )));
            }
            fs::rename(&proof, &path)?;
            sync_dir(dir)?;
            fs::remove_file(from)
        };
        done().inspect_err(|_| {
            let _ = (fs::remove_file(&new), fs::remove_file(&proof));
        })
    }

    /// Reads until the daemon ends, which does not wait for a whole segment.
    fn until_the_end<R>(&self, inner: R) -> UntilTheEnd<'_, R> {
        UntilTheEnd { inner, bell: &self.keeper, since: 0 }
    }
}

/// Bytes of a segment that are read at once.
const READ: usize = 256 << 10;

/// After so many bytes of a segment, the thread gives way. Who stands behind all others has a turn now and then all the same, and would keep
/// the processor until the next tick of the kernel, which calls wait for: four milliseconds where it has 250 of them in a second.
const BREATH: usize = 128 << 10;
/// As short as the kernel's timers are: some 50 us (`timerslack_ns`, proc(5)).
const PAUSE: Duration = Duration::from_micros(1);

struct UntilTheEnd<'a, R> {
    inner: R,
    bell: &'a Bell,
    /// Bytes that were taken since it gave way.
    since: usize,
}

impl<R: BufRead> BufRead for UntilTheEnd<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.bell.ends() {
            return Err(io::Error::other("the daemon ends"));
        }
        if self.since >= BREATH {
            self.since = 0;
            std::thread::sleep(PAUSE);
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.since = self.since.saturating_add(amount);
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for UntilTheEnd<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(to)?;
        self.consume(read);
        Ok(read)
    }
}

/// Whether both have the same bytes.
fn reads_as(mut one: impl BufRead, mut other: impl BufRead) -> io::Result<bool> {
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let both = left.len().min(right.len());
        if both == 0 || left.get(..both) != right.get(..both) {
            return Ok(left.is_empty() && right.is_empty());
        }
        one.consume(both);
        other.consume(both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::standing;
    use crate::record::{Options, Recorder};

    #[test]
    fn work_stands_behind_all_others_until_too_much_waits_for_it() {
        let keep = tempfile::tempdir().unwrap();
        let dir = keep.path().join("journal");
        let recorder = Recorder::open(&dir, Options::new("test")).unwrap();
        let at_work = || {
            let mut found = None;
            let look = || {
                found = Some(standing());
                Ok(())
            };
            recorder.inner.behind_all(100, look).unwrap();
            found.unwrap()
        };
        let most = u32::try_from(MOST_WAITING).unwrap();
        for number in 2..=most {
            fs::write(dir.join(segment::file_name(number)), "").unwrap();
        }
        assert_eq!(at_work().0, libc::SCHED_IDLE.to_string());
        fs::write(dir.join(segment::packed_name(most + 1)), "").unwrap();
        assert_eq!(at_work().0, libc::SCHED_IDLE.to_string(), "one that is compressed waits for nothing");
        fs::write(dir.join(segment::file_name(most + 2)), "").unwrap();
        assert_eq!(at_work(), ("0".to_owned(), NICE.to_string()));
        assert_eq!(standing().0, "0", "who asked stands where it stood");
        let failed = recorder.inner.behind_all(1, || Err(io::Error::other("no")));
        assert_eq!(failed.unwrap_err().to_string(), "no");
    }

    #[test]
    fn the_end_of_the_daemon_does_not_wait_for_a_whole_segment() {
        let bell = Bell::default();
        let mut reading =
            UntilTheEnd { inner: io::BufReader::with_capacity(4, &b"some lines"[..]), bell: &bell, since: 0 };
        assert_eq!(reading.fill_buf().unwrap(), b"some");
        reading.consume(4);
        bell.wake();
        assert_eq!(reading.read(&mut [0; 8]).unwrap(), 4);
        bell.end();
        assert!(reading.fill_buf().is_err() && reading.read(&mut [0; 8]).is_err());
        assert!(!bell.wait(), "nor is more work waited for");
    }

    #[test]
    fn whoever_works_through_a_segment_gives_way_again_and_again() {
        // How often this thread slept.
        let slept = || -> usize {
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
            line.trim().parse().unwrap()
        };
        let (bell, segment) = (Bell::default(), vec![b'x'; 16 * BREATH]);
        let mut reading = UntilTheEnd { inner: &segment[..], bell: &bell, since: 0 };
        let (before, mut taken) = (slept(), 0);
        while !reading.fill_buf().unwrap().is_empty() {
            reading.consume(4096);
            taken += 4096;
        }
        let slept = slept() - before;
        assert_eq!(taken, segment.len());
        assert!((8..64).contains(&slept), "{slept} times");
    }

    #[test]
    fn what_was_compressed_is_held_against_what_it_was_made_from_byte_by_byte() {
        let dir = tempfile::tempdir().unwrap();
        let text = "one line of it\n".repeat(60_000);
        let plain = dir.path().join("journal-00000001.jsonl");
        fs::write(&plain, &text).unwrap();
        let packed = dir.path().join("journal-00000001.jsonl.zst");
        let reads_as = |text: &str| {
            proxy_journal::packed::pack(text.as_bytes(), File::create(&packed).unwrap()).unwrap();
            super::reads_as(Source::open(&packed).unwrap(), Source::open(&plain).unwrap()).unwrap()
        };
        assert!(reads_as(&text));
        let (last, middle) = (text.len() - 2, text.len() / 2);
        for other in [
            format!("{}x", &text[..last]) + "\n",
            text.replacen("one", "two", 1),
            format!("{}#{}", &text[..middle], &text[middle + 1..]),
            text[..text.len() - 15].to_owned(),
            text.clone() + "more\n",
            String::new(),
        ] {
            assert!(!reads_as(&other), "{} bytes", other.len());
        }
    }
}
