//! The way to a named pipe. Nobody waits for a reader: without one, records stay in the journal until there is one.

use std::fs::Metadata;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{OpenOptions, Sender};

use super::way::Trouble;

/// How long a reader may read nothing.
const WRITE_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Pipe {
    sender: Sender,
    /// Device and inode.
    file: (u64, u64),
}

impl Pipe {
    pub(super) fn open(path: &Path) -> Result<Pipe, Trouble> {
        let told = |error: &std::io::Error| format!("the pipe {} cannot be written: {error}", path.display());
        match OpenOptions::new().open_sender(path) {
            Ok(sender) => {
                let stat = rustix::fs::fstat(&sender).map_err(|error| Trouble::new(told(&error.into())))?;
                Ok(Pipe { sender, file: (stat.st_dev, stat.st_ino) })
            }
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
                Err(Trouble::absent(format!("nobody reads the pipe {}", path.display())))
            }
            Err(error) => Err(Trouble::new(told(&error))),
        }
    }

    /// Whether it is what is at its path.
    pub(super) fn is(&self, there: &Metadata) -> bool {
        self.file == (there.dev(), there.ino())
    }

    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Trouble> {
        while !bytes.is_empty() {
            match tokio::time::timeout(WRITE_WITHIN, self.sender.write(bytes)).await {
                Ok(Ok(written)) => bytes = bytes.get(written..).unwrap_or_default(),
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                    return Err(Trouble::absent("the reader of the pipe has gone"));
                }
                Ok(Err(error)) => return Err(Trouble::new(format!("the pipe cannot be written: {error}"))),
                Err(_) => {
                    let within = WRITE_WITHIN.as_secs();
                    return Err(Trouble::new(format!("the reader of the pipe read nothing for {within} s")));
                }
            }
        }
        Ok(())
    }

    /// Bytes that are in the pipe and not read yet.
    pub(super) fn waiting(&self) -> Result<u64, Trouble> {
        let waiting = rustix::io::ioctl_fionread(self.sender.as_fd());
        waiting.map_err(|error| Trouble::new(format!("the pipe is none: {error}")))
    }
}
