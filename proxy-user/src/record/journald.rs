//! Shows the records to systemd's journal, from a thread of its own, and never holds up a call.
//!
//! The journal file is the evidence; this is its mirror for `journalctl`. So what does not fit in the queue is dropped and
//! counted, and a host without systemd is no error. The crates that speak the protocol (`libsystemd`,
//! `systemd-journal-logger`) send to a fixed path and from the thread that logs; the protocol is one datagram of fields.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use proxy_journal::{Decision, Outcome, Record};

use super::fields;

/// Records that wait, at most: some seconds of a busy host.
const QUEUE: usize = 4096;

/// How long one datagram may wait for journald to read.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// What is shown.
#[derive(Debug)]
pub(super) enum Message {
    Record(Record),
    /// The end of a call, with its decision.
    Ended(Arc<Decision>, Outcome),
}

/// How systemd's journal takes the records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournaldHealth {
    /// What happened to the last record.
    pub state: JournaldState,
    /// Records that it took.
    pub sent: u64,
    /// Records that it did not take; they are in the journal file.
    pub dropped: u64,
}

/// What happened to the last record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournaldState {
    /// The settings leave journald out.
    Off,
    /// Nothing was sent yet, or the last one was taken.
    Ok,
    /// There is no journald on this host.
    Absent,
    /// The last one was not taken.
    Failing(String),
}

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    state: Mutex<JournaldState>,
    sent: AtomicU64,
    dropped: AtomicU64,
    stopping: AtomicBool,
}

/// The way to the thread that sends.
#[derive(Debug)]
pub(super) struct Sink {
    shared: Arc<Shared>,
    queue: Option<SyncSender<Message>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Sink {
    /// Starts to send to the socket at this path; `None` starts nothing.
    pub(super) fn start(socket: Option<&Path>) -> Sink {
        let shared = Arc::new(Shared {
            socket: socket.unwrap_or(Path::new("")).to_owned(),
            state: Mutex::new(if socket.is_some() { JournaldState::Ok } else { JournaldState::Off }),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
        });
        let off = |shared| Sink { shared, queue: None, thread: Mutex::new(None) };
        if socket.is_none() {
            return off(shared);
        }
        let (queue, messages) = sync_channel(QUEUE);
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name("journald".to_owned()).spawn(move || shared.send_all(&messages))
        };
        match thread {
            Ok(thread) => Sink { shared, queue: Some(queue), thread: Mutex::new(Some(thread)) },
            Err(error) => {
                shared.set(JournaldState::Failing(error.to_string()));
                off(shared)
            }
        }
    }

    /// Queues a record, or drops it when the queue is full.
    pub(super) fn show(&self, message: Message) {
        if let Some(queue) = &self.queue
            && queue.try_send(message).is_err()
        {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn health(&self) -> JournaldHealth {
        JournaldHealth {
            state: self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            sent: self.shared.sent.load(Ordering::Relaxed),
            dropped: self.shared.dropped.load(Ordering::Relaxed),
        }
    }

    /// Sends what waits, unless journald hangs, and ends the thread.
    pub(super) fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that sends to journald ended in a panic");
        }
    }
}

impl Shared {
    fn set(&self, state: JournaldState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The life of the thread.
    fn send_all(&self, messages: &Receiver<Message>) {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(SEND_TIMEOUT))?;
            Ok(socket)
        });
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return self.set(JournaldState::Failing(error.to_string())),
        };
        loop {
            let message = match messages.recv_timeout(Duration::from_millis(100)) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) if !self.stopping.load(Ordering::Relaxed) => continue,
                Err(_) => return,
            };
            let datagram = match &message {
                Message::Record(record) => fields::record(record),
                Message::Ended(decision, outcome) => fields::ended(decision, outcome),
            };
            // By path each time: a socket that was made anew is found again.
            match socket.send_to(&datagram, &self.socket) {
                Ok(_) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    self.set(JournaldState::Ok);
                }
                Err(error) => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    self.set(match error.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => JournaldState::Absent,
                        _ => JournaldState::Failing(error.to_string()),
                    });
                    if self.stopping.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        }
    }
}
