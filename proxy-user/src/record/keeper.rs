//! The thread that looks after closed segments: compresses them, brings back what spilled, and removes those whose time is over.
//! It has the lowest priority; nothing waits for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use proxy_journal::archive::{index_name, keep_index};
use proxy_journal::source::is_packed;
use proxy_journal::{Record, Retired, Source, kept, packed, segment};

use super::recorder::Inner;
use super::store::{file, sync_dir};

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
    state: Mutex<Rung>,
    wake: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
struct Rung {
    work: bool,
    end: bool,
}

impl Bell {
    pub(super) fn wake(&self) {
        self.ring(|rung| rung.work = true);
    }

    pub(super) fn end(&self) {
        self.ring(|rung| rung.end = true);
    }

    fn ring(&self, how: impl FnOnce(&mut Rung)) {
        how(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_all();
    }

    fn ends(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).end
    }

    /// Waits for work; `false`: it shall end.
    fn wait(&self) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = |rung: &mut Rung| !rung.work && !rung.end;
        let waited = self.wake.wait_timeout_while(state, LOOK_EVERY, idle);
        let (mut rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        rung.work = false;
        !rung.end
    }
}

impl Inner {
    /// The life of the thread.
    pub(super) fn keep_until_stopped(self: &Arc<Inner>, keep: &Keep) {
        // Of this thread alone, and no harm when it is not granted.
        let _ = rustix::process::setpriority_process(None, 19);
        loop {
            if let Err(error) = self.keep(keep) {
                tracing::error!(%error, "closed segments of the journal cannot be looked after; it is tried again");
            }
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
            let is_away = path.starts_with(&spill);
            if !is_packed(&path) && keep.compress {
                replace(&self.dir, &path, &segment::packed_name(number), |from, to| {
                    packed::pack(io::BufReader::new(from), to).map(|_| ())
                })?;
            } else if is_away {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                replace(&self.dir, &path, &name, |mut from, to| io::copy(&mut from, to).map(|_| ()))?;
            }
        }
        self.index(live);
        self.retire(keep, live)
    }

    /// Makes the indexes that are missing. Who reads does without them, and makes them: nothing hangs on it.
    fn index(&self, live: u32) {
        let spill = self.dir.join(segment::SPILL);
        for (number, path) in segment::list(&self.dir).unwrap_or_default() {
            if number >= live || self.keeper.ends() {
                break;
            }
            if !path.starts_with(&spill)
                && let Err(error) = keep_index(&path, number)
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
}

/// Puts what `make` makes of `from` into `dir` under this name, proves that it reads as what it was made from, and removes that.
fn replace(
    dir: &Path,
    from: &Path,
    name: &str,
    make: impl FnOnce(File, &mut File) -> io::Result<()>,
) -> io::Result<()> {
    let path = dir.join(name);
    // Not the name of a segment, so that nobody reads it.
    let new = dir.join(format!("{name}.new"));
    let done = || -> io::Result<()> {
        let mut to = file(&new, OpenOptions::new().write(true).create(true).truncate(true))?;
        let opened = File::open(from)?;
        let modified = opened.metadata()?.modified()?;
        make(opened, &mut to)?;
        // How old it is, is asked later.
        to.set_modified(modified)?;
        to.sync_all()?;
        // It is read under the name that says how.
        let proof = dir.join(format!(".check-{name}"));
        fs::rename(&new, &proof)?;
        if !reads_as(Source::open(&proof)?, Source::open(from)?)? {
            fs::remove_file(&proof)?;
            return Err(io::Error::other(format!("{} does not read as {}", path.display(), from.display())));
        }
        fs::rename(&proof, &path)?;
        sync_dir(dir)?;
        fs::remove_file(from)
    };
    done().inspect_err(|_| drop(fs::remove_file(&new)))
}

/// Whether both have the same bytes.
fn reads_as(mut one: Source, mut other: Source) -> io::Result<bool> {
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

    #[test]
    fn what_was_compressed_is_held_against_what_it_was_made_from_byte_by_byte() {
        let dir = tempfile::tempdir().unwrap();
        let text = "one line of it\n".repeat(60_000);
        let plain = dir.path().join("journal-00000001.jsonl");
        fs::write(&plain, &text).unwrap();
        let packed = dir.path().join("journal-00000001.jsonl.zst");
        let reads_as = |text: &str| {
            packed::pack(text.as_bytes(), File::create(&packed).unwrap()).unwrap();
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
