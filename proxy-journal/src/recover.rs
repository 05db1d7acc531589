//! Finds the end of a journal after the daemon ended, in whatever way, so that a writer can go on there.
//!
//! A kill in the middle of a write leaves a half last line, which never took effect: the decision in it was not answered.
//! It is cut off. Anything else that is wrong is not what a kill leaves, and is an error: a journal is not continued
//! over a break, or the break would be buried. Only the last segment is read, once, as a stream (hashing runs at hundreds of
//! megabytes in a second), and only the ids of open calls are held.
//!
//! A loss of power leaves more: of what had not reached the disk any page may be there or not. That is at most what was written
//! within [`UNSYNCED`], so what is broken in a run of another boot than the present one, and not older than that, is told apart from
//! a break ([`Recovery::lost`]). Whoever goes on keeps it as evidence, and says in the journal that there was something.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::chain::Head;
use crate::key::PublicKey;
use crate::line::{self, Parts};
use crate::reader::{Lines, RawLine};
use crate::sealed::{Mark, Sealed, prove_and};
use crate::segment::Segment;
use crate::timestamp::Timestamp;
use crate::tree::Tree;
use crate::verify::{Break, Fault};

/// How long what is written may be on its way to the disk, at most: the daemon asks for it each second, and refuses calls when that fails.
pub const UNSYNCED: Duration = Duration::from_secs(10);

/// Where a journal goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Number of the segment.
    pub number: u32,
    /// The record before the first one of the segment, as that one names it.
    pub before: Head,
    /// The last record.
    pub head: Head,
    /// Length of the segment in bytes, after the repair.
    pub len: u64,
    /// The tree over its records.
    pub tree: Tree,
    /// Bytes of a half last line that were cut off.
    pub torn_bytes: u64,
    /// Bytes after `len` that a loss of power left, and that are no chain. They are still there.
    pub lost: u64,
    /// Allowed calls without an outcome, in the order of their decisions. Whoever goes on closes each as interrupted.
    pub open: Vec<Uuid>,
    /// Names the journal, when it has a name.
    pub journal: Option<Uuid>,
    /// The key whose turn it is to sign, when there is one.
    pub key: Option<PublicKey>,
}

/// Why a journal cannot be continued.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// It is broken somewhere else than in a half last line.
    #[error(
        "the journal is broken and is not continued: {0}. Find out who changed it. To go on, move the file out of the \
         directory and keep it as evidence: a new chain begins then"
    )]
    Broken(Break),
    /// It cannot be read or cut.
    #[error("the journal cannot be read")]
    Read(#[from] io::Error),
}

/// The few fields that say which calls are open, and in which boot the last run was.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    id: Option<Uuid>,
    #[serde(borrow)]
    verdict: Option<Cow<'a, str>>,
    #[serde(borrow)]
    boot_id: Option<Cow<'a, str>>,
    #[serde(default)]
    open: Option<OpenIds>,
}

/// `open` of a `segment` record; in other kinds the word may mean anything.
#[derive(Deserialize)]
#[serde(untagged)]
enum OpenIds {
    Ids(Vec<Uuid>),
    Other(IgnoredAny),
}

#[derive(Default)]
struct Looked {
    open: HashMap<Uuid, u64>,
    boot: Option<String>,
    /// Time of the last record.
    time: Option<Timestamp>,
}

impl Looked {
    fn look(&mut self, parts: &Parts<'_>) -> Result<Option<u64>, Fault> {
        self.time = Some(parts.time);
        let Ok(probe) = serde_json::from_str::<Probe<'_>>(parts.text) else {
            // Another kind whose id is something else: sound as long as it is JSON.
            return serde_json::from_str::<IgnoredAny>(parts.text).map(|_| None).map_err(|_| Fault::Json);
        };
        match (&*probe.kind, probe.id, probe.verdict.as_deref()) {
            ("decision", Some(id), Some("allow")) => drop(self.open.insert(id, parts.seq)),
            ("outcome", Some(id), _) => drop(self.open.remove(&id)),
            ("start", ..) => self.boot = probe.boot_id.map(Cow::into_owned),
            ("segment", ..) => {
                self.boot = probe.boot_id.map(Cow::into_owned);
                if let Some(OpenIds::Ids(ids)) = probe.open {
                    self.open.extend(ids.into_iter().map(|id| (id, 0)));
                }
            }
            _ => {}
        }
        Ok(None)
    }
}

/// Reads the last segment from its first byte, cuts off a half last line, and leaves the position at the end. `boot` names the
/// present boot, as `start` records do.
///
/// # Errors
/// [`RecoverError`]; the segment is unchanged then.
pub fn recover<F: Read + Seek + Segment>(
    file: &mut F,
    number: u32,
    boot: Option<&str>,
) -> Result<Recovery, RecoverError> {
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    let mut looked = Looked::default();
    let after = (number == 1).then_some(Head::GENESIS);
    let reader = BufReader::with_capacity(256 << 10, &mut *file);
    let Sealed { before, head, len, first_break, torn, tree, start, marks, .. } =
        prove_and(reader, Some(number), after, |parts| looked.look(parts))?;
    let Looked { open, boot: ran_in, time } = looked;
    let (mut torn_bytes, mut lost) = (torn.unwrap_or(0), 0);
    if let Some(place) = first_break {
        // The run that ended then said which boot it was of.
        let other_boot = boot.zip(ran_in.as_deref()).is_some_and(|(now, then)| now != then);
        if !other_boot || !is_young(file, len, time)? {
            return Err(RecoverError::Broken(place));
        }
        (torn_bytes, lost) = (0, end.saturating_sub(len));
    }
    if torn_bytes > 0 {
        file.cut_back(len)?;
    }
    file.seek(SeekFrom::End(0))?;
    let (mut journal, mut key) = (None, None);
    if let Some(start) = start {
        (journal, key) = (start.journal, start.key);
    }
    for marked in marks {
        if let Mark::Key(change) = marked.mark {
            (journal, key) = (Some(change.journal), Some(change.key));
        }
    }
    let mut open: Vec<(u64, Uuid)> = open.into_iter().map(|(id, seq)| (seq, id)).collect();
    open.sort_unstable();
    let open = open.into_iter().map(|(_, id)| id).collect();
    Ok(Recovery { number, before, head, len, tree, torn_bytes, lost, open, journal, key })
}

/// Whether nothing after this offset says that it is much younger than the last good record.
fn is_young<F: Read + Seek>(file: &mut F, from: u64, last: Option<Timestamp>) -> io::Result<bool> {
    let Some(last) = last else { return Ok(false) };
    file.seek(SeekFrom::Start(from))?;
    let mut lines = Lines::new(BufReader::with_capacity(256 << 10, file));
    while let Some(line) = lines.next()? {
        if let RawLine::Whole(line) = line
            && let Ok(parts) = line::split(line)
            && parts.time.since(last) > UNSYNCED
        {
            return Ok(false);
        }
    }
    Ok(true)
}
