//! An inclusion proof: the records of one call, and what shows that they are in a journal, without the journal.
//!
//! It is a JSON object of lines as they stand in the journal, the paths from them to the roots of checkpoints (RFC 9162), the
//! checkpoints as signed notes, and the hand-overs of keys. Whoever trusts a key of the journal needs nothing else.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chain::ChainHash;
use crate::key::PublicKey;
use crate::keys::{self, Keys, KeysError};
use crate::line;
use crate::note::SignedNote;
use crate::reader::{Content, Entry, Lines, RawLine};
use crate::record::Record;
use crate::segment;
use crate::signed::Checkpoint;
use crate::source::Source;
use crate::text::escape_json;
use crate::tree;

/// Version of the format.
const VERSION: u32 = 1;

/// Longest proof that is read, in bytes.
const MAX_PROOF: u64 = 64 << 20;

/// What proves the records of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    vouchsafe_proof: u32,
    records: Vec<Proved>,
    /// The hand-overs, as lines of the journal, oldest first.
    keys: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Proved {
    /// As it stands in the journal, without its newline.
    line: String,
    /// From the record to the root.
    path: Vec<ChainHash>,
    /// The checkpoint, with its signature.
    note: String,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// Something cannot be read.
    #[error("the journal cannot be read")]
    Read(#[from] io::Error),
    /// The file of keys proves nothing.
    #[error("the file {file} beside the segments: {error}", file = keys::FILE)]
    Keys {
        /// What is wrong with it.
        error: KeysError,
    },
    /// There is no such call.
    #[error("the journal has no record of {0}")]
    Absent(Uuid),
    /// No checkpoint is over it yet.
    #[error(
        "record {0} is not signed yet: the daemon signs what is new within some seconds (`[journal] checkpoint_within`), and at its \
         end; a journal of a version before there were checkpoints has none"
    )]
    Unsigned(u64),
    /// What stands before it in its segment is not a journal.
    #[error("the segment with it is broken; `vouchsafe audit verify` says where")]
    Broken,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoProof {
    /// It is no proof, or one of another version.
    #[error("this is not a proof of a journal, as `vouchsafe audit prove` writes it")]
    Shape,
    /// A record of it is not what its hash says.
    #[error("record {0} was changed")]
    Changed(u64),
    /// A path does not lead to its checkpoint.
    #[error("record {0} is not among those that the checkpoint is over")]
    Elsewhere(u64),
    /// A checkpoint is not signed by a key of the proof.
    #[error("the checkpoint over record {0} is not signed by a key of this journal")]
    Unsigned(u64),
    /// It is about two calls, or two journals.
    #[error("its records do not belong together")]
    Mixed,
    /// The keys do not come from the one that is trusted.
    #[error("it is signed by {signer}, to which {trusted} did not hand over")]
    Stranger {
        /// Who signed.
        signer: PublicKey,
        /// Who should have, or should have handed over.
        trusted: PublicKey,
    },
}

/// What a proof proves.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The call.
    pub id: Uuid,
    /// Names the journal.
    pub journal: Uuid,
    /// Who signed the last checkpoint.
    pub key: PublicKey,
    /// Whether it is known whose key that is.
    pub trusted: bool,
    /// The records.
    pub entries: Vec<Entry>,
}

/// Reads the text of a proof, which may be anybody's.
///
/// # Errors
/// It cannot be read, or is too long for one.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_PROOF + 1).read_to_string(&mut text)?;
    match u64::try_from(read).is_ok_and(|read| read <= MAX_PROOF) {
        true => Ok(text),
        false => Err(io::Error::other("it is too long for a proof")),
    }
}

/// Finds the records of the call and what proves them, in a directory of segments.
///
/// # Errors
/// [`ProveError`].
pub fn prove(dir: &Path, id: Uuid) -> Result<Proof, ProveError> {
    let text = match std::fs::read_to_string(dir.join(keys::FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    Keys::parse(text.as_bytes()).map_err(|error| ProveError::Keys { error })?;
    let keys = text.lines().map(str::to_owned).collect();
    let mut records = Vec::new();
    for (_, path) in segment::list(dir)? {
        records.extend(prove_in(Source::open(&path)?, id)?);
    }
    if records.is_empty() {
        return Err(ProveError::Absent(id));
    }
    Ok(Proof { vouchsafe_proof: VERSION, records, keys })
}

/// What one segment has of it.
fn prove_in(segment: impl BufRead, id: Uuid) -> Result<Vec<Proved>, ProveError> {
    let wanted = id.as_hyphenated().to_string();
    let (mut hashes, mut proved) = (Vec::new(), Vec::new());
    // Lines that no checkpoint was seen for yet, each with its index.
    let mut open: Vec<(usize, u64, String)> = Vec::new();
    let mut lines = Lines::new(segment);
    while let Some(line) = lines.next()? {
        let RawLine::Whole(line) = line else { break };
        let parts = line::split(line).map_err(|_| ProveError::Broken)?;
        if !open.is_empty() && parts.kind() == Some("checkpoint") {
            let checkpoint: Checkpoint = serde_json::from_str(parts.text).map_err(|_| ProveError::Broken)?;
            for (index, _, line) in open.drain(..) {
                let path = tree::path(&hashes, index).ok_or(ProveError::Broken)?;
                proved.push(Proved { line, path, note: checkpoint.signed_note(parts.time) });
            }
        }
        if parts.text.contains(&wanted) && id_of(line) == Some(id) {
            open.push((hashes.len(), parts.seq, parts.text.to_owned()));
        }
        hashes.push(parts.hash);
    }
    match open.first() {
        Some((_, seq, _)) => Err(ProveError::Unsigned(*seq)),
        None => Ok(proved),
    }
}

/// The call that a line is about.
fn id_of(line: &[u8]) -> Option<Uuid> {
    match Entry::parse(line).ok()?.content {
        Content::Known(Record::Decision(decision) | Record::Connection(decision)) => Some(decision.id),
        Content::Known(Record::Outcome(outcome)) => Some(outcome.id),
        _ => None,
    }
}

impl Proof {
    /// Reads a proof.
    ///
    /// # Errors
    /// [`NoProof::Shape`].
    pub fn parse(text: &str) -> Result<Proof, NoProof> {
        let proof: Proof = serde_json::from_str(text).map_err(|_| NoProof::Shape)?;
        (proof.vouchsafe_proof == VERSION).then_some(proof).ok_or(NoProof::Shape)
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Proves it, by a key that is trusted or, without one, by those that it names itself.
    ///
    /// # Errors
    /// [`NoProof`].
    pub fn verify(&self, trusted: Option<PublicKey>) -> Result<Shown, NoProof> {
        let keys = Keys::parse(self.keys.iter().flat_map(|line| [line, "\n"]).collect::<String>().as_bytes());
        let keys = keys.map_err(|_| NoProof::Shape)?;
        let (mut entries, mut shown): (Vec<Entry>, Option<(Uuid, Uuid, PublicKey)>) = (Vec::new(), None);
        for Proved { line, path, note } in &self.records {
            let parts = line::split(line.as_bytes()).map_err(|_| NoProof::Shape)?;
            let seq = parts.seq;
            if ChainHash::of(parts.hashed.as_bytes()) != parts.hash {
                return Err(NoProof::Changed(seq));
            }
            let notes = SignedNote::parse_all(note).map_err(|_| NoProof::Shape)?;
            let [signed] = notes.as_slice() else { return Err(NoProof::Shape) };
            let index = seq.checked_sub(signed.note.first).ok_or(NoProof::Elsewhere(seq))?;
            if tree::root_by(parts.hash, index, signed.note.size, path) != Some(signed.note.root) {
                return Err(NoProof::Elsewhere(seq));
            }
            let signer = keys.all().find(|key| signed.is_signed_by(key)).ok_or(NoProof::Unsigned(seq))?;
            if let Some(trusted) = trusted.filter(|trusted| !keys.leads(*trusted, signer)) {
                return Err(NoProof::Stranger { signer, trusted });
            }
            let id = id_of(line.as_bytes()).ok_or(NoProof::Shape)?;
            if shown.is_some_and(|(call, journal, _)| (call, journal) != (id, signed.note.journal)) {
                return Err(NoProof::Mixed);
            }
            shown = Some((id, signed.note.journal, signer));
            entries.push(Entry::parse(line.as_bytes()).map_err(|_| NoProof::Shape)?);
        }
        let (id, journal, key) = shown.ok_or(NoProof::Shape)?;
        Ok(Shown { id, journal, key, trusted: trusted.is_some(), entries })
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { id, journal, key, trusted, entries } = self;
        writeln!(f, "proved: {} records of the call {id} are in the journal {journal}", entries.len())?;
        match trusted {
            true => writeln!(f, "Signed by {key}, which the given key is, or handed over to.")?,
            false => writeln!(
                f,
                "Signed by {key}. Whose key that is, this cannot show: give the one that you know with --key."
            )?,
        }
        for entry in entries {
            writeln!(f, "{}", escape_json(&entry.text))?;
        }
        Ok(())
    }
}
