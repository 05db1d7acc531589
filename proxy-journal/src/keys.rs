//! Which key may sign when: the chain of hand-overs, from the first key of a journal on.
//!
//! Each hand-over is a record of the journal. So that the chain is still there when the segments with its beginning are gone, the same
//! lines stand in the file [`FILE`] beside the segments. They prove themselves: each is signed by the key before.

use std::fs;
use std::io;
use std::path::Path;

use crate::chain::{ChainHash, Head};
use crate::key::PublicKey;
use crate::line;
use crate::signed::KeyChange;

/// Name of the file with all hand-overs, in the directory of the journal.
pub const FILE: &str = "keys.jsonl";

/// Longest such file that is read, in bytes: some ten thousand hand-overs.
const MAX: u64 = 8 << 20;

/// Hand-overs, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    changes: Vec<KeyChange>,
}

/// A file of hand-overs that proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[from] io::Error),
    /// A line of it is not a hand-over, or not signed, or does not follow the one before.
    #[error("line {0} is not a hand-over from the key of the line before")]
    Line(usize),
}

impl Keys {
    /// Reads the file in this directory; one that is not there has no keys.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn read(dir: &Path) -> Result<Keys, KeysError> {
        let path = dir.join(FILE);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Keys::default()),
            Err(error) => return Err(error.into()),
            Ok(meta) if meta.len() > MAX => return Err(io::Error::other("it is too long").into()),
            Ok(_) => {}
        }
        Keys::parse(&fs::read(&path)?)
    }

    /// Reads lines of a journal that are hand-overs, and proves each.
    ///
    /// # Errors
    /// [`KeysError::Line`].
    pub fn parse(text: &[u8]) -> Result<Keys, KeysError> {
        let mut keys = Keys::default();
        // A half last line is one that was not finished; the journal has it.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines = text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
        for (at, line) in lines.filter(|line| !line.is_empty()).enumerate() {
            keys.add(line).ok_or(KeysError::Line(at + 1))?;
        }
        Ok(keys)
    }

    fn add(&mut self, line: &[u8]) -> Option<()> {
        let parts = line::split(line).ok()?;
        let change: KeyChange = serde_json::from_str(parts.text).ok()?;
        let after = Head { seq: parts.seq.checked_sub(1)?, hash: parts.prev };
        let is_its_hash = ChainHash::of(parts.hashed.as_bytes()) == parts.hash;
        // The first one may itself be handed over to: what was before is not known then.
        let follows = self
            .changes
            .last()
            .is_none_or(|last| last.journal == change.journal && change.former == Some(last.key));
        (is_its_hash && follows && change.is_signed(after)).then(|| self.changes.push(change))
    }

    /// Takes a hand-over that a journal has, when it is not there yet.
    pub(crate) fn learn(&mut self, change: &KeyChange) {
        if !self.changes.contains(change) {
            self.changes.push(change.clone());
        }
    }

    /// Whether `trusted` is `key`, or handed over to it, over however many between.
    pub fn leads(&self, trusted: PublicKey, key: PublicKey) -> bool {
        let mut at = key;
        // Each step goes back by one hand-over, so there are not more steps than that.
        for _ in 0..=self.changes.len() {
            if at == trusted {
                return true;
            }
            let Some(former) =
                self.changes.iter().find(|change| change.key == at).and_then(|change| change.former)
            else {
                return false;
            };
            at = former;
        }
        false
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// All keys, the newest last.
    pub fn all(&self) -> impl Iterator<Item = PublicKey> {
        self.changes.iter().map(|change| change.key)
    }
}
