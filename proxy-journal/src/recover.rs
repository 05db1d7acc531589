//! Finds the end of a journal after the daemon ended, in whatever way, so that a writer can go on there.
//!
//! A kill in the middle of a write leaves a half last line, which never took effect: the decision in it was not answered.
//! It is cut off. Anything else that is wrong is not what a kill leaves, and is an error: a journal is not continued
//! over a break, or the break would be buried. The whole segment is read once, as a stream (hashing runs at hundreds of
//! megabytes in a second), and only the ids of open calls are held.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use serde::Deserialize;
use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::chain::Head;
use crate::segment::Segment;
use crate::verify::{Break, Fault, walk};

/// Where a journal goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// The last record.
    pub head: Head,
    /// Length of the segment in bytes, after the repair.
    pub len: u64,
    /// Bytes of a half last line that were cut off.
    pub torn_bytes: u64,
    /// Allowed calls without an outcome, in the order of their decisions. Whoever goes on closes each as interrupted.
    pub open: Vec<Uuid>,
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

/// The few fields that say which calls are open.
#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    id: Option<Uuid>,
    verdict: Option<Cow<'a, str>>,
}

/// Reads a whole segment from its first byte, cuts off a half last line, and leaves the position at the end.
///
/// # Errors
/// [`RecoverError`]; the segment is unchanged then.
pub fn recover<F: Read + Seek + Segment>(file: &mut F) -> Result<Recovery, RecoverError> {
    file.seek(SeekFrom::Start(0))?;
    let mut open: HashMap<Uuid, u64> = HashMap::new();
    let walk = walk(BufReader::with_capacity(256 << 10, &mut *file), Head::GENESIS, |parts| {
        let Ok(probe) = serde_json::from_str::<Probe<'_>>(parts.text) else {
            // Another kind whose id is something else: sound as long as it is JSON.
            return serde_json::from_str::<IgnoredAny>(parts.text).map(|_| ()).map_err(|_| Fault::Json);
        };
        match (&*probe.kind, probe.id, probe.verdict.as_deref()) {
            ("decision", Some(id), Some("allow")) => drop(open.insert(id, parts.seq)),
            ("outcome", Some(id), _) => drop(open.remove(&id)),
            _ => {}
        }
        Ok(())
    })?;
    if let Some(place) = walk.first_break {
        return Err(RecoverError::Broken(place));
    }
    let torn_bytes = walk.torn.unwrap_or(0);
    if torn_bytes > 0 {
        file.cut_back(walk.len)?;
    }
    file.seek(SeekFrom::End(0))?;
    let mut open: Vec<(u64, Uuid)> = open.into_iter().map(|(id, seq)| (seq, id)).collect();
    open.sort_unstable();
    let open = open.into_iter().map(|(_, id)| id).collect();
    Ok(Recovery { head: walk.head, len: walk.len, torn_bytes, open })
}
