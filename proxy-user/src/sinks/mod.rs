//! Where the records of the journal go besides its own files: journald, syslog servers, OpenTelemetry collectors, files and pipes.
//!
//! A sink reads the journal's own files. So a call does nothing for it and waits for nothing of it; what it holds in memory is one
//! batch; a receiver that is away for hours gets everything when it is back; and a restart goes on where it was. Each record is
//! sent at least once: the cursor of a sink moves behind a record when its receiver has it, as far as the receiver's protocol tells,
//! and what is sent twice has the same `seq` and `hash`.
//!
//! Each sink has a thread with a small runtime of its own: whatever it waits for, it is not in the way of calls, nor of another sink.
//!
//! * `worker` is the life of one: read, send, see that it arrived, move the cursor.
//! * `cursor` keeps how far it is, over restarts.
//! * `message` is a record on its way, and `calls` gives outcomes the decisions that they belong to.
//! * `journald` (with `fields`), `syslog`, `otlp` and `file` are the ways.
//! * `link` opens connections, `ocsf` spells records as OCSF has them.

mod calls;
mod cursor;
mod fields;
mod file;
mod journald;
mod link;
mod message;
mod ocsf;
mod otlp;
mod pipe;
mod syslog;
mod way;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;

use self::cursor::{CursorError, CursorFile};
use self::message::Spelling;
use self::worker::Worker;
use crate::config::{self, Config, Receiver};
use crate::credentials::Credentials;
use crate::record::Signal;
use crate::trust::{CaCertificate, RootsError, UpstreamTls};
use crate::uplink::Uplink;

/// How long an end waits for what is not sent yet. The rest is sent after the next start.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Number of a record that is not known.
const UNKNOWN: u64 = u64::MAX;

/// Why a sink cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// How far it is cannot be told.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// The journal cannot be read.
    #[error("the journal in {} cannot be read for the sink {name}", dir.display())]
    Journal {
        /// Which sink.
        name: String,
        /// The journal.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its server could never be verified.
    #[error("[journal.sinks.{name}]: {source}")]
    Roots {
        /// Which sink.
        name: String,
        /// Why.
        source: RootsError,
    },
    /// Its URL is none.
    #[error("[journal.sinks.{name}]: url {why}")]
    Url {
        /// Which sink.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// There is no thread for it.
    #[error("the sink {name} cannot begin")]
    Thread {
        /// Which sink.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What sinks need of the rest of the daemon.
pub struct Around<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The roots of this host, which no receiver may be verified by.
    pub own_roots: Vec<CaCertificate>,
    /// The proxy of the site.
    pub uplink: Option<Arc<Uplink>>,
    /// Where headers and client certificates are; `None`: no sink that needs one works.
    pub credentials: Option<Arc<Credentials>>,
}

/// Where each sink begins: to be asked before this run writes its first record.
pub struct Plan {
    sinks: Vec<Planned>,
}

struct Planned {
    name: String,
    sink: config::Sink,
    cursor: CursorFile,
    at: proxy_journal::follow::Cursor,
}

/// How a sink is, for `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkHealth {
    /// Its name.
    pub name: String,
    /// Whom it sends to.
    pub to: String,
    /// How the last attempt went.
    pub state: SinkState,
    /// Records that its receiver took, in this run. What was sent twice counts twice.
    pub sent: u64,
    /// Records that its receiver will not take, and records that are no records.
    pub rejected: u64,
    /// Records that the journal's retention removed before they were sent.
    pub lost: u64,
    /// Records of the journal that its receiver does not have yet.
    pub behind: u64,
    /// Age of the oldest of them that is known, in seconds.
    pub behind_s: u64,
    /// What went wrong last, also when it is well again.
    pub last_error: Option<String>,
}

/// How the last attempt of a sink went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SinkState {
    /// Nothing was sent yet, or the last attempt went well.
    Ok,
    /// Nobody is there to receive, which for journald and pipes is no fault.
    Absent,
    /// It failed.
    Failing(String),
}

/// What a sink's thread and `status` share.
#[derive(Debug)]
struct Shared {
    name: String,
    to: String,
    state: Mutex<SinkState>,
    last_error: Mutex<Option<String>>,
    sent: AtomicU64,
    rejected: AtomicU64,
    lost: AtomicU64,
    /// Record up to which everything is sent; [`UNKNOWN`] before a sink that begins in the middle has sent anything.
    confirmed: AtomicU64,
    /// When the oldest record happened that is read and not sent, in microseconds; 0: there is none.
    oldest_us: AtomicU64,
}

/// The sinks of a running daemon.
#[derive(Debug, Default)]
pub struct Sinks {
    running: Mutex<Vec<Running>>,
    stop: Option<watch::Sender<bool>>,
    signal: Option<Arc<Signal>>,
}

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Plan {
    /// Reads where the sinks of the configuration are.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn new(config: &Config) -> Result<Plan, SinkError> {
        Plan::of(config, config.journal.sinks.clone())
    }

    /// The same of journald alone: for commands that write to the journal while no daemon does.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn journald_alone(config: &Config) -> Result<Plan, SinkError> {
        Plan::of(config, config::Sinks::new())
    }

    fn of(config: &Config, mut all: config::Sinks) -> Result<Plan, SinkError> {
        let socket = &config.journal.journald;
        if !socket.as_os_str().is_empty() {
            all.insert(config::JOURNALD.to_owned(), config::Sink::journald(socket.clone()));
        }
        let (state, journal) = (config.state.join("sinks"), config.journal_dir());
        let planned = all.into_iter().map(|(name, sink)| {
            let cursor = CursorFile::new(&state, &name)?;
            let at = match cursor.read()? {
                Some(at) => at,
                None => first(&journal, sink.from).map_err(|source| SinkError::Journal {
                    name: name.clone(),
                    dir: journal.clone(),
                    source,
                })?,
            };
            Ok(Planned { name, sink, cursor, at })
        });
        Ok(Plan { sinks: planned.collect::<Result<_, SinkError>>()? })
    }

    /// Starts them, to send what is written as `signal` tells.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn start(self, around: &Around<'_>, signal: &Arc<Signal>) -> Result<Sinks, SinkError> {
        let (stop, stopping) = watch::channel(false);
        let mut running = Vec::with_capacity(self.sinks.len());
        for planned in self.sinks {
            running.push(start(planned, around, Arc::clone(signal), stopping.clone())?);
        }
        Ok(Sinks { running: Mutex::new(running), stop: Some(stop), signal: Some(Arc::clone(signal)) })
    }
}

/// Where a sink begins that was never there.
fn first(journal: &Path, from: config::From) -> std::io::Result<proxy_journal::follow::Cursor> {
    use proxy_journal::follow::{Follower, Place};
    let found = match from {
        config::From::Start => Follower::from_start(journal),
        config::From::End => Follower::from_end(journal),
    };
    match found {
        Ok(follower) => Ok(follower.cursor().clone()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Place::start_of(1).into()),
        Err(error) => Err(error),
    }
}

fn start(
    planned: Planned,
    around: &Around<'_>,
    signal: Arc<Signal>,
    stopping: watch::Receiver<bool>,
) -> Result<Running, SinkError> {
    let Planned { name, sink, cursor, at } = planned;
    let journal = around.config.journal_dir();
    let spelling = Spelling::new(sink.format);
    let shared = Arc::new(Shared::new(&name, &sink.to));
    let tls = |tls: &config::SinkTls| {
        let upstream = &around.config.upstream;
        let (roots, system) =
            if tls.roots.is_empty() { (&upstream.roots, upstream.system_roots) } else { (&tls.roots, false) };
        UpstreamTls::new(roots, system, &around.own_roots, upstream.connect_timeout)
            .map_err(|source| SinkError::Roots { name: name.clone(), source })
    };
    let secrets = link::Secrets::new(around.credentials.clone());
    macro_rules! run {
        ($way:expr) => {{
            let (way, shared) = ($way, Arc::clone(&shared));
            let thread = std::thread::Builder::new().name(format!("sink-{name}"));
            let run = move || {
                worker::run(Worker::new(way, &journal, at, cursor, shared, signal), stopping, STOP_WITHIN)
            };
            thread.spawn(run).map_err(|source| SinkError::Thread { name: name.clone(), source })?
        }};
    }
    let thread = match &sink.to {
        Receiver::Journald(socket) => run!(journald::Journald::new(socket.clone())),
        Receiver::File(path) => run!(file::File::new(path.clone(), spelling)),
        Receiver::Syslog { host, port, tls: spoken, facility } => {
            let spoken = match spoken {
                Some(spoken) => Some((tls(spoken)?, spoken.clone())),
                None => None,
            };
            let link = link::Dial { host: host.clone(), port: *port, tls: spoken, secrets };
            run!(syslog::Syslog::new(link, *facility, spelling))
        }
        Receiver::Otlp { url, protocol, headers, gzip, tls: spoken } => {
            let uplink = around.uplink.clone();
            let place = otlp::Place { tls: tls(spoken)?, client: spoken.client.clone(), uplink, secrets };
            let otlp = otlp::Otlp::new(url, *protocol, headers.clone(), *gzip, place, spelling);
            run!(otlp.map_err(|why| SinkError::Url { name: name.clone(), why })?)
        }
    };
    Ok(Running { shared, thread: Some(thread) })
}

impl Sinks {
    /// How each of them is.
    #[must_use]
    pub fn health(&self) -> Vec<SinkHealth> {
        let head = self.signal.as_ref().map_or(0, |signal| signal.head());
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().map(|running| running.health(head)).collect()
    }

    /// Sends what is not sent yet, as far as that goes quickly, and ends their threads. Blocks for some seconds at most.
    pub fn stop(&self) {
        if let Some(stop) = &self.stop {
            stop.send_replace(true);
        }
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for running in running.iter_mut() {
            if running.thread.take().is_some_and(|thread| thread.join().is_err()) {
                tracing::error!(sink = running.shared.name, "the thread of a sink ended in a panic");
            }
        }
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    fn health(&self, head: u64) -> SinkHealth {
        let mut health = self.shared.health(head);
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            health.state =
                SinkState::Failing("its thread has ended; restart the daemon, and report it".to_owned());
        }
        health
    }
}

impl Shared {
    fn new(name: &str, to: &Receiver) -> Shared {
        let to = match to {
            Receiver::Journald(socket) => format!("journald at {}", socket.display()),
            Receiver::Syslog { host, port, tls, .. } => {
                let scheme = if tls.is_some() { "tls" } else { "tcp" };
                format!("syslog at {scheme}://{}", crate::uplink::authority(host, *port))
            }
            Receiver::Otlp { url, .. } => format!("OTLP at {url}"),
            Receiver::File(path) => path.display().to_string(),
        };
        Shared {
            name: name.to_owned(),
            to,
            state: Mutex::new(SinkState::Ok),
            last_error: Mutex::new(None),
            sent: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            confirmed: AtomicU64::new(UNKNOWN),
            oldest_us: AtomicU64::new(0),
        }
    }

    /// Sets how it went; says whether that is something else than before.
    fn set(&self, state: SinkState) -> bool {
        if let SinkState::Failing(why) = &state {
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
        }
        let mut now = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = std::mem::discriminant(&*now) != std::mem::discriminant(&state);
        *now = state;
        changed
    }

    fn health(&self, head: u64) -> SinkHealth {
        let of = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let (confirmed, oldest) = (of(&self.confirmed), of(&self.oldest_us));
        let now = crate::base::clock::now_us();
        SinkHealth {
            name: self.name.clone(),
            to: self.to.clone(),
            state: self.state.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            sent: of(&self.sent),
            rejected: of(&self.rejected),
            lost: of(&self.lost),
            behind: if confirmed == UNKNOWN { 0 } else { head.saturating_sub(confirmed) },
            behind_s: if oldest == 0 { 0 } else { now.saturating_sub(oldest) / 1_000_000 },
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

#[cfg(test)]
mod tests;
