//! The other end of the control socket, for commands: blocking, one request, one reply.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Failure, Reply, Request, Status};

/// How long a daemon may take for its reply: a reload reads files.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many bytes a reply may have.
const MAX_REPLY_BYTES: u64 = 16 * 1024 * 1024;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("the vouchsafe daemon is not running (nobody answers on {}); start it with `systemctl start vouchsafe`",
            path.display())]
    NotRunning {
        /// The control socket.
        path: PathBuf,
    },
    /// The socket does not admit us.
    #[error("{} is not open to you; run the command as root, or join the group that it belongs to and log in again",
            path.display())]
    NotAllowed {
        /// The control socket.
        path: PathBuf,
    },
    /// The daemon refused the command.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// The daemon closed the connection, or said something else than a reply.
    #[error("the daemon on {} gave no reply that this program understands; when it runs an older version, restart it \
             (`systemctl restart vouchsafe`)", path.display())]
    NotUnderstood {
        /// The control socket.
        path: PathBuf,
    },
    /// The operating system refused, or the daemon took too long.
    #[error("no reply from the daemon on {}: {error}; see its log (`journalctl -u vouchsafe`)", path.display())]
    Io {
        /// The control socket.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
}

/// Gives one command, and returns what came out of it.
///
/// # Errors
/// Nobody answers, we are not admitted, the command failed, or the reply is none.
pub fn call<T: DeserializeOwned>(socket: &Path, command: &str) -> Result<T, ClientError> {
    call_with(socket, command, Map::new())
}

/// The same with arguments.
///
/// # Errors
/// Those of [`call`].
pub fn call_with<T: DeserializeOwned>(
    socket: &Path,
    command: &str,
    arguments: Map<String, Value>,
) -> Result<T, ClientError> {
    call_patiently(socket, command, arguments, PATIENCE)
}

/// The same for what may take longer.
///
/// # Errors
/// Those of [`call`].
pub fn call_patiently<T: DeserializeOwned>(
    socket: &Path,
    command: &str,
    arguments: Map<String, Value>,
    patience: Duration,
) -> Result<T, ClientError> {
    let path = || socket.to_owned();
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning { path: path() }
        }
        io::ErrorKind::PermissionDenied => ClientError::NotAllowed { path: path() },
        _ => ClientError::Io { path: path(), error },
    };
    let line =
        exchange(socket, &Request { command: command.to_owned(), arguments }, patience).map_err(failed)?;
    let not_understood = |_| ClientError::NotUnderstood { path: path() };
    match serde_json::from_slice(&line).map_err(not_understood)? {
        Reply::Done { result, .. } => serde_json::from_value(result).map_err(not_understood),
        Reply::Failed { error, .. } => Err(error.into()),
    }
}

/// How the daemon is.
///
/// # Errors
/// Those of [`call`].
pub fn status(socket: &Path) -> Result<Status, ClientError> {
    call(socket, "status")
}

fn exchange(socket: &Path, request: &Request, patience: Duration) -> io::Result<Vec<u8>> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // Who is turned away finds the reason in what was sent before the connection was closed.
    match (&stream).write_all(&line) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            return Err(error);
        }
        _ => {}
    }
    let mut reply = Vec::new();
    BufReader::new(stream.take(MAX_REPLY_BYTES)).read_until(b'\n', &mut reply)?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn served(reply: &'static [u8]) -> Result<u64, ClientError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                assert_eq!(line, "{\"command\":\"count\"}\n");
                (&stream).write_all(reply).unwrap();
            });
            call(&path, "count")
        })
    }

    #[test]
    fn a_reply_is_returned_and_a_failure_is_an_error_with_its_words() {
        assert_eq!(served(b"{\"ok\":true,\"result\":3}\n").unwrap(), 3);
        let error = served(b"{\"ok\":false,\"error\":{\"code\":\"c\",\"message\":\"m\",\"help\":\"h\"}}\n");
        assert_eq!(error.unwrap_err().to_string(), "m; h");
    }

    #[test]
    fn what_is_no_reply_is_not_believed() {
        for reply in [&b""[..], b"{\"ok\":true,\"result\":\"three\"}\n", b"{\"ok\":true,", b"220 smtp\n"] {
            assert!(matches!(served(reply), Err(ClientError::NotUnderstood { .. })));
        }
    }

    #[test]
    fn a_missing_and_a_dead_socket_mean_that_the_daemon_is_not_running() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        assert!(matches!(call::<u64>(&path, "ping"), Err(ClientError::NotRunning { .. })));
        drop(UnixListener::bind(&path).unwrap());
        assert!(matches!(call::<u64>(&path, "ping"), Err(ClientError::NotRunning { .. })));
    }
}
