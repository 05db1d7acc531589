//! The daemon's end of the control socket: bind, admit, read a line, answer a line.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::peer::{Access, Peer};
use super::{Failure, Handler, MAX_REQUEST_BYTES, Reply, Request, detach};

/// How many connections are served at the same time.
pub const MAX_CONNECTIONS: usize = 32;
/// How long a whole request line, or the silence before it, may take.
pub const IDLE: Duration = Duration::from_secs(30);
/// How long a peer may take to read a reply.
const WRITE: Duration = Duration::from_secs(10);
/// How long to wait after an `accept` that failed for want of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A daemon is running already.
    #[error(
        "a vouchsafe daemon is running already and answers on {}; stop it first (`systemctl stop vouchsafe`), or see \
         it with `vouchsafe status`", path.display()
    )]
    AlreadyRunning {
        /// Its control socket.
        path: PathBuf,
    },
    /// Something that is no socket has the name.
    #[error("{} is not a socket; move it away", path.display())]
    NotASocket {
        /// The path of the control socket.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {what} {}: {error}; the runtime directory must exist and belong to the daemon \
             (RuntimeDirectory=vouchsafe in its unit)", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

/// The bound socket. While it exists, no second daemon can bind the same path; dropped, it removes the socket.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    access: Access,
    idle: Duration,
    /// Held until the end: also two daemons that start in the same instant find out about each other.
    _only_one: File,
}

impl Control {
    /// Binds the socket, mode 0660, and gives it to `group` when this host has it. A socket file on which nobody
    /// answers is replaced. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// Another daemon is running, the path is taken by something else, or the directory cannot be used.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, ControlError> {
        let failed = |what| move |error| ControlError::Io { what, path: path.to_owned(), error };
        let access = Access::for_group(group).map_err(failed("look up the group of"))?;
        let only_one = lock(path)?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(failed("bind the control socket"))?;
        // Until here only the umask keeps others out, and the check of each peer.
        fs::set_permissions(path, Permissions::from_mode(0o660)).map_err(failed("set the mode of"))?;
        if let Some(gid) = access.gid() {
            chown(path, None, Some(gid)).map_err(failed("set the group of"))?;
        }
        if let Some(name) = access.missing_group() {
            tracing::info!(group = name, "no such group: only root can use the control socket");
        }
        let inode = fs::symlink_metadata(path).map_err(failed("inspect"))?.ino();
        Ok(Self { listener, path: path.to_owned(), inode, access, idle: IDLE, _only_one: only_one })
    }

    /// Where the socket is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until `stop` is done; connections that are open then are closed.
    pub async fn serve(self, handler: Arc<dyn Handler>, stop: impl Future<Output = ()>) {
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut open = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return,
                Some(_) = open.join_next(), if !open.is_empty() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the control socket could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = match self.admit(&stream) {
                Ok(peer) => peer,
                Err(refusal) => {
                    turn_away(&stream, refusal);
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
                let help = "close one, or try again in a moment";
                turn_away(
                    &stream,
                    Failure::new("busy", format!("{MAX_CONNECTIONS} control connections are open"), help),
                );
                continue;
            };
            let (handler, idle) = (Arc::clone(&handler), self.idle);
            open.spawn(async move {
                // An error here is a peer that went away: nobody is left to tell.
                drop(converse(stream, handler, peer, idle).await);
                drop(permit);
            });
        }
    }

    fn admit(&self, stream: &UnixStream) -> Result<Peer, Failure> {
        let credentials = stream.peer_cred().map_err(|error| {
            Failure::new(
                "not-allowed",
                format!("the kernel does not say who is calling: {error}"),
                "try again",
            )
        })?;
        let peer = Peer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
        if self.access.admits(peer) {
            return Ok(peer);
        }
        tracing::warn!(uid = peer.uid, gid = peer.gid, pid = peer.pid, "control: a peer was refused");
        Err(self.access.refusal(peer))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Only our own: somebody may have moved it away and bound another.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            drop(fs::remove_file(&self.path));
        }
    }
}

fn lock(socket: &Path) -> Result<File, ControlError> {
    let path = socket.with_extension("lock");
    let failed = |error| ControlError::Io { what: "lock", path: path.clone(), error };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ControlError::AlreadyRunning { path: socket.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Removes a socket that a daemon left when it was killed.
fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let failed = |what| move |error| ControlError::Io { what, path: path.to_owned(), error };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("inspect")(error)),
    }
    match std::os::unix::net::UnixStream::connect(path) {
        // A full backlog (EAGAIN would need a non-blocking socket) is somebody too.
        Ok(_) => Err(ControlError::AlreadyRunning { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the old socket"))
        }
        Err(error) => Err(failed("find out who answers on")(error)),
    }
}

/// One line without waiting: the buffer of a new connection has room for it.
fn turn_away(stream: &UnixStream, refusal: Failure) {
    drop(stream.try_write(&line(&Reply::of::<()>(Err(refusal)))));
}

fn line(reply: &Reply) -> Vec<u8> {
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    line.push(b'\n');
    line
}

async fn converse(
    stream: UnixStream,
    handler: Arc<dyn Handler>,
    peer: Peer,
    idle: Duration,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut request = Vec::new();
    loop {
        request.clear();
        let mut bounded = (&mut read).take(MAX_REQUEST_BYTES as u64);
        let received = timeout(idle, bounded.read_until(b'\n', &mut request)).await;
        let (reply, last) = match received {
            Err(_) => (line(&refuse("idle", "no request came in time")), true),
            Ok(Ok(0)) => return Ok(()),
            Ok(Ok(_)) if request.ends_with(b"\n") || request.len() < MAX_REQUEST_BYTES => {
                (answer(&request, &handler, peer).await, false)
            }
            Ok(Ok(_)) => (line(&refuse("too-long", "a request may have 65536 bytes")), true),
            Ok(Err(error)) => return Err(error),
        };
        timeout(WRITE, write.write_all(&reply)).await??;
        if last {
            return Ok(());
        }
    }
}

fn refuse(code: &str, message: &str) -> Reply {
    Reply::of::<()>(Err(Failure::new(
        code,
        message,
        "send one JSON object per line, as {\"command\":\"status\"}",
    )))
}

/// The line that answers a request. It can be large, as all warnings of a policy are: calls do not wait while it is written down.
async fn answer(request: &[u8], handler: &Arc<dyn Handler>, peer: Peer) -> Vec<u8> {
    let Ok(request) = serde_json::from_slice::<Request>(request) else {
        return line(&refuse("not-understood", "the line is no JSON object with a \"command\""));
    };
    let handler = Arc::clone(handler);
    let done = spawn_blocking(move || line(&carry_out(&request, handler.as_ref(), peer))).await;
    done.unwrap_or_else(|_| {
        line(&Reply::of::<()>(Err(Failure::new(
            "internal",
            "the daemon failed while it carried the command out",
            "see its log (`journalctl -u vouchsafe`) and report this",
        ))))
    })
}

fn carry_out(request: &Request, handler: &dyn Handler, peer: Peer) -> Reply {
    match request.command.as_str() {
        "ping" => Reply::of(Ok("pong")),
        "status" => Reply::of(Ok(handler.status())),
        "reload" => Reply::of(handler.reload(Some(peer.person(&request.arguments)))),
        "reload-secrets" => Reply::of(handler.reload_secrets(Some(peer.person(&request.arguments)))),
        detach::COMMAND => {
            Reply::of(detach::Order::of(peer, &request.arguments).and_then(|order| handler.detach(order)))
        }
        other => match handler.other(peer, other, &request.arguments) {
            Some(result) => Reply::of(result),
            None => Reply::of::<()>(Err(Failure::new(
                "unknown-command",
                "this daemon does not know the command",
                "it may be older than the program that sent it: restart it (`systemctl restart vouchsafe`)",
            ))),
        },
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
