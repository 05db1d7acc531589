//! Pipes of the kernel through which bytes go from one TCP connection to another without being copied (splice(2)).
//!
//! A pipe is taken when many bytes move and is given back when no more come: a connection that rests has none. There is a
//! bound on all of them together; whoever gets none copies.
//!
//! Invariant: a pipe with bytes in it is never given back, so nobody gets the bytes of another connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What a pipe takes, in bytes: as much as the largest window of a connection that is of use at once.
pub(super) const CAPACITY: usize = 256 * 1024;
/// The most pipes at once: 16 MiB, if all of them were full of the bytes of peers that do not read.
const MOST: usize = 64;

static RESTING: Mutex<Vec<(OwnedFd, OwnedFd)>> = Mutex::new(Vec::new());
static MADE: AtomicUsize = AtomicUsize::new(0);

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub(super) struct Pipe {
    ends: Option<(OwnedFd, OwnedFd)>,
    holds: usize,
}

impl Pipe {
    /// One that is empty; `None` when all are in use, or the system gives none.
    pub(super) fn take() -> Option<Self> {
        if let Some(ends) = RESTING.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Some(Self { ends: Some(ends), holds: 0 });
        }
        // Counted before it is made: of two that come at once, not both get the last one.
        let mut pipe = Self { ends: None, holds: 0 };
        if MADE.fetch_add(1, Ordering::Relaxed) >= MOST {
            return None;
        }
        let ends = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        // A smaller one does it, too: it takes more calls.
        let _ = fcntl_setpipe_size(&ends.1, CAPACITY);
        pipe.ends = Some(ends);
        Some(pipe)
    }

    /// How many bytes are in it.
    pub(super) fn holds(&self) -> usize {
        self.holds
    }

    /// Moves what has come on a socket into the pipe; 0 is the end of what comes.
    ///
    /// # Errors
    /// Of the socket; `WouldBlock` when nothing has come or the pipe is full.
    pub(super) fn fill(&mut self, from: impl AsFd) -> io::Result<usize> {
        let Some((_, into)) = &self.ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let count = splice(from, None, into, None, CAPACITY, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.holds = self.holds.saturating_add(count);
        Ok(count)
    }

    /// Moves what is in the pipe to a socket, as much as that takes.
    ///
    /// # Errors
    /// Of the socket; `WouldBlock` when it takes nothing now.
    pub(super) fn drain(&mut self, to: impl AsFd) -> io::Result<usize> {
        let Some((out_of, _)) = &self.ends else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let count = splice(out_of, None, to, None, self.holds, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?;
        self.holds = self.holds.saturating_sub(count);
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        match self.ends.take() {
            Some(ends) if self.holds == 0 => {
                RESTING.lock().unwrap_or_else(PoisonError::into_inner).push(ends);
            }
            _ => {
                MADE.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// Whether the system moves bytes between a socket and a pipe at all: not every filter of system calls lets it.
pub(super) fn is_refused(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [nix::libc::EINVAL, nix::libc::ENOSYS, nix::libc::EPERM, nix::libc::EOPNOTSUPP]
        .contains(&code.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn a_pipe_that_holds_bytes_is_not_given_to_anybody_else() {
        let (mut from, to) = pair();
        from.write_all(b"of somebody").unwrap();
        let mut pipe = Pipe::take().unwrap();
        assert_eq!(pipe.fill(&to).unwrap(), 11);
        drop(pipe);
        let (mut reader, writer) = pair();
        let mut all: Vec<Pipe> = std::iter::from_fn(Pipe::take).take(MOST).collect();
        for pipe in &mut all {
            // What a pipe has in it would come out here, whatever it says of itself.
            pipe.holds = 11;
            let came = pipe.drain(&writer);
            assert!(came.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock));
            pipe.holds = 0;
        }
        drop(writer);
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        assert!(got.is_empty());
    }
}
