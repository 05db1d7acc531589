//! The way to systemd's journal: one datagram of fields for each record, in its native protocol.
//!
//! The crates that speak the protocol (`libsystemd`, `systemd-journal-logger`) send to a fixed path and from the thread that logs.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;

use super::fields;
use super::message::Message;
use super::way::{Sent, Trouble, Way};

/// How long one datagram may wait for journald to read.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Journald {
    pub(super) fn new(path: PathBuf) -> Journald {
        Journald { path, socket: None }
    }

    fn socket(&mut self) -> io::Result<&UnixDatagram> {
        match &mut self.socket {
            Some(socket) => Ok(socket),
            none => {
                let socket = UnixDatagram::unbound()?;
                // It blocks this thread, which has nothing else to do; a socket of datagrams that is full tells no poll so.
                socket.set_write_timeout(Some(SEND_TIMEOUT))?;
                Ok(none.insert(socket))
            }
        }
    }
}

impl Way for Journald {
    async fn send(&mut self, messages: &[Message]) -> Result<Sent, Trouble> {
        let path = self.path.clone();
        let socket = self.socket().map_err(|error| Trouble::new(format!("no socket: {error}")))?;
        let mut sent = Sent::default();
        for message in messages {
            // By path each time: a socket that was made anew is found again.
            match socket.send_to(&fields::spell(message), &path) {
                Ok(_) => {}
                // It will never fit; the journal has it.
                Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => sent.rejected += 1,
                Err(_) if sent.count > 0 => break,
                Err(error) => {
                    let what = format!("records are not reaching {}: {error}", path.display());
                    return Err(match error.kind() {
                        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Trouble::absent(what),
                        _ => Trouble::new(what),
                    });
                }
            }
            sent.count += 1;
        }
        Ok(sent)
    }

    fn reset(&mut self) {
        self.socket = None;
    }
}
