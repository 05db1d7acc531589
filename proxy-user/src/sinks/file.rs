//! The way to a file, one line for each record; or to a named pipe, which is another way at the same path.

use std::fs::{File as Open, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use nix::fcntl::OFlag;

use super::message::{Message, Spelling};
use super::pipe::Pipe;
use super::way::{Sent, Trouble, Way};

pub(super) struct File {
    path: PathBuf,
    spelling: Spelling,
    open: Option<At>,
    lines: Vec<u8>,
}

/// What is at the path.
enum At {
    File { file: Open, unsettled: bool },
    Pipe(Pipe),
}

impl File {
    pub(super) fn new(path: PathBuf, spelling: Spelling) -> File {
        File { path, spelling, open: None, lines: Vec::new() }
    }

    fn trouble(&self, error: impl std::fmt::Display) -> Trouble {
        Trouble::new(format!("{} cannot be written: {error}", self.path.display()))
    }

    /// Opens what is at the path, if it is not open: also when another file came there, as by logrotate.
    fn open(&mut self) -> Result<(), Trouble> {
        let there = std::fs::symlink_metadata(&self.path).ok();
        if let (Some(At::File { file, .. }), Some(there)) = (&self.open, &there)
            && file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (there.dev(), there.ino()))
        {
            return Ok(());
        }
        if let (Some(At::Pipe(pipe)), Some(there)) = (&self.open, &there)
            && pipe.is(there)
        {
            return Ok(());
        }
        // What was written to the file that went away is brought to the disk as well.
        self.settle()?;
        self.open = None;
        if there.as_ref().is_some_and(|there| there.file_type().is_fifo()) {
            self.open = Some(At::Pipe(Pipe::open(&self.path)?));
            return Ok(());
        }
        let mut options = OpenOptions::new();
        // Not through a link: whoever may change the folder would choose a file for us.
        options
            .read(true)
            .append(true)
            .create(true)
            .mode(0o640)
            .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits());
        let mut file = options.open(&self.path).map_err(|error| self.trouble(error))?;
        if !file.metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(self.trouble("it is neither a file nor a pipe"));
        }
        end_half_line(&mut file).map_err(|error| self.trouble(error))?;
        self.open = Some(At::File { file, unsettled: true });
        Ok(())
    }
}

/// A line that a kill or a full disk cut off gets its end: what comes next is a line of its own, and that record comes again.
fn end_half_line(file: &mut Open) -> std::io::Result<()> {
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(0))? > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

impl Way for File {
    async fn send(&mut self, messages: &[Message]) -> Result<Sent, Trouble> {
        self.open()?;
        self.lines.clear();
        self.lines.shrink_to(1 << 20);
        for message in messages {
            self.lines.extend_from_slice(self.spelling.spell(message).as_bytes());
            self.lines.push(b'\n');
        }
        let bytes = match &mut self.open {
            Some(At::File { file, unsettled }) => {
                *unsettled = true;
                let written = file.write_all(&self.lines);
                written.map_err(|error| self.trouble(error))?;
                0
            }
            Some(At::Pipe(pipe)) => {
                pipe.write(&self.lines).await?;
                u64::try_from(self.lines.len()).unwrap_or(u64::MAX)
            }
            None => return Err(self.trouble("it is not open")),
        };
        Ok(Sent { count: messages.len(), rejected: 0, bytes })
    }

    async fn waiting(&mut self) -> Result<u64, Trouble> {
        match &self.open {
            Some(At::Pipe(pipe)) => pipe.waiting(),
            _ => Ok(0),
        }
    }

    fn settle(&mut self) -> Result<(), Trouble> {
        if let Some(At::File { file, unsettled: unsettled @ true }) = &mut self.open {
            let synced = file.sync_data();
            *unsettled = false;
            return synced.map_err(|error| self.trouble(error));
        }
        Ok(())
    }

    fn reset(&mut self) {
        self.open = None;
    }
}
