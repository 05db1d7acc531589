//! Looks through segments on all cores; what is found comes in the order of the journal.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use proxy_journal::Archive;
use proxy_journal::archive::{Call, Walk};

use super::filter::Wanted;

/// How many threads look; each has pages of its own in memory.
const THREADS: usize = 8;

/// How much of what was found waits to be taken together.
const CHUNK: usize = 256;

/// How many threads there are to look with.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS)
}

/// A segment that nobody looks through yet, and where what is found goes.
type Task<T> = Mutex<Option<(Walk, SyncSender<io::Result<Vec<T>>>)>>;

/// What all threads know.
struct Search<'a, T, F> {
    wanted: &'a Wanted,
    /// Makes of a call what is asked for.
    make: F,
    chunk: usize,
    tasks: Vec<Task<T>>,
    next: AtomicUsize,
    /// There is enough.
    enough: AtomicBool,
}

/// Hands over what `make` makes of the calls that are wanted, one after another in their order, at most so many.
///
/// # Errors
/// The journal cannot be read, or `each` failed.
pub(super) fn search<T: Send, E: From<io::Error>>(
    archive: &Archive,
    wanted: &Wanted,
    newest_first: bool,
    most: usize,
    make: impl Fn(&Call) -> T + Sync,
    each: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    if most == 0 {
        return Ok(());
    }
    let (mut tasks, mut found) = (Vec::new(), Vec::new());
    for walk in Walk::segments(archive, &wanted.filter, newest_first) {
        let (sender, receiver) = sync_channel(2);
        tasks.push(Mutex::new(Some((walk.sifted(wanted.sieve()), sender))));
        found.push(receiver);
    }
    let search = Search {
        wanted,
        make,
        chunk: CHUNK.min(most),
        tasks,
        next: AtomicUsize::new(0),
        enough: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads().min(found.len()) {
            let archive = archive.again();
            scope.spawn(|| search.run(archive));
        }
        // What is not taken any more ends with its receivers.
        let taken = take(found, most, each);
        search.enough.store(true, Ordering::Relaxed);
        taken
    })
}

fn take<T, E: From<io::Error>>(
    found: Vec<Receiver<io::Result<Vec<T>>>>,
    most: usize,
    mut each: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    let mut left = most;
    for segment in found {
        for chunk in segment {
            for one in chunk? {
                each(one)?;
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

impl<T: Send, F: Fn(&Call) -> T + Sync> Search<'_, T, F> {
    fn has_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    /// Looks through one segment after another.
    fn run(&self, mut archive: Archive) {
        while !self.has_enough()
            && let Some(task) = self.tasks.get(self.next.fetch_add(1, Ordering::Relaxed))
        {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some((walk, sender)) = task else { continue };
            if let Err(error) = self.look(&mut archive, walk, &sender) {
                let _ = sender.send(Err(error));
            }
        }
    }

    fn look(
        &self,
        archive: &mut Archive,
        mut walk: Walk,
        sender: &SyncSender<io::Result<Vec<T>>>,
    ) -> io::Result<()> {
        let mut chunk = Vec::new();
        while !self.has_enough()
            && let Some(batch) = archive.next(&mut walk)?
        {
            for hit in &batch.hits {
                if self.has_enough() {
                    return Ok(());
                }
                let Some(call) = archive.read(hit, &self.wanted.filter)? else { continue };
                if !hit.certain && !self.wanted.holds(&call) {
                    continue;
                }
                chunk.push((self.make)(&call));
                if chunk.len() >= self.chunk && sender.send(Ok(std::mem::take(&mut chunk))).is_err() {
                    return Ok(());
                }
            }
        }
        if !chunk.is_empty() {
            let _ = sender.send(Ok(chunk));
        }
        Ok(())
    }
}
