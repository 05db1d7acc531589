//! How far a sink is, kept in `STATE/sinks/NAME.cursor` over restarts.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use proxy_journal::follow::Cursor;

/// A cursor takes a few KiB.
const MOST: u64 = 64 << 10;

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("how far a sink is cannot be kept at {}", path.display())]
pub struct CursorError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The file of one sink.
#[derive(Debug)]
pub(super) struct CursorFile {
    dir: PathBuf,
    path: PathBuf,
    kept: Option<Cursor>,
}

impl CursorFile {
    /// The file of the sink with this name; its folder is made.
    pub(super) fn new(dir: &Path, name: &str) -> Result<CursorFile, CursorError> {
        if let Err(source) = DirBuilder::new().mode(0o700).recursive(true).create(dir) {
            return Err(CursorError { path: dir.to_owned(), source });
        }
        Ok(CursorFile { dir: dir.to_owned(), path: dir.join(format!("{name}.cursor")), kept: None })
    }

    /// What was kept last. A file that is damaged is told, and everything is sent again: rather twice than never.
    pub(super) fn read(&self) -> Result<Option<Cursor>, CursorError> {
        let failed = |source| CursorError { path: self.path.clone(), source };
        let file = match File::options().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut text = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MOST), &mut text).map_err(failed)?;
        match serde_json::from_slice(&text) {
            Ok(cursor) => Ok(Some(cursor)),
            Err(error) => {
                tracing::error!(
                    file = %self.path.display(), %error,
                    "how far this sink was cannot be read: everything that the journal has is sent again"
                );
                Ok(Some(proxy_journal::follow::Place::start_of(1).into()))
            }
        }
    }

    /// Whether this is another one than was kept last.
    pub(super) fn differs(&self, cursor: &Cursor) -> bool {
        self.kept.as_ref() != Some(cursor)
    }

    /// Keeps a cursor: on the disk, whole or not at all.
    pub(super) fn keep(&mut self, cursor: &Cursor) -> Result<(), CursorError> {
        let aside = self.path.with_extension("cursor.new");
        let write = || {
            let mut file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(&aside)?;
            file.write_all(&serde_json::to_vec(cursor)?)?;
            file.sync_all()?;
            fs::rename(&aside, &self.path)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| CursorError { path: self.path.clone(), source })?;
        self.kept = Some(cursor.clone());
        Ok(())
    }
}
