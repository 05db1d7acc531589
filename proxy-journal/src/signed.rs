//! The records that make a journal evidence against its own host: keys, signed checkpoints, and where segments begin and end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::chain::{ChainHash, Head};
use crate::key::{PublicKey, SecretKey, Signature};
use crate::note::Note;
use crate::timestamp::Timestamp;

/// From here on another key signs; the first one of a journal names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// Names this journal; it stays the same as long as the chain goes on.
    pub journal: Uuid,
    /// The key that signs from here on.
    pub key: PublicKey,
    /// The key that signed until here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<PublicKey>,
    /// The former key's word for it: it signs [`KeyChange::text`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_former: Option<Signature>,
    /// The new key's word for it: whoever names it here has it.
    pub by_key: Signature,
    /// Why, in words.
    pub reason: String,
}

impl KeyChange {
    /// A change to `key`, signed by both, for the record that follows `after`.
    pub fn new(
        journal: Uuid,
        key: &SecretKey,
        former: Option<&SecretKey>,
        after: Head,
        reason: &str,
    ) -> KeyChange {
        let text = key_text(journal, key.public(), former.map(SecretKey::public), after);
        KeyChange {
            journal,
            key: key.public(),
            former: former.map(SecretKey::public),
            by_former: former.map(|former| former.sign(text.as_bytes())),
            by_key: key.sign(text.as_bytes()),
            reason: reason.to_owned(),
        }
    }

    /// Whether everybody who must have signed it has, for the record that follows `after`.
    pub fn is_signed(&self, after: Head) -> bool {
        let text = key_text(self.journal, self.key, self.former, after);
        let by_former = match (&self.former, &self.by_former) {
            (Some(former), Some(signature)) => former.verify(text.as_bytes(), signature),
            (None, None) => true,
            _ => false,
        };
        by_former && self.key.verify(text.as_bytes(), &self.by_key)
    }
}

fn key_text(journal: Uuid, key: PublicKey, former: Option<PublicKey>, after: Head) -> String {
    let former = former.map_or_else(|| "none".to_owned(), |former| former.to_string());
    format!(
        "vouchsafe journal key\njournal {journal}\nkey {key}\nformer {former}\nafter {} {}\n",
        after.seq, after.hash
    )
}

/// All records of a segment so far, under one signature. What is signed is a [`Note`], with the time of the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Names the journal.
    pub journal: Uuid,
    /// Number of the segment.
    pub segment: u32,
    /// Sequence number of the first record of the segment.
    pub first: u64,
    /// How many records it is over: from the first one to the one before this.
    pub size: u64,
    /// Hash of the record before this one.
    pub head: ChainHash,
    /// Root of the tree ([`crate::tree`]) over them.
    pub root: ChainHash,
    /// The key that signed.
    pub key: PublicKey,
    /// Its signature.
    pub signature: Signature,
}

impl Checkpoint {
    /// Signs what `note` says.
    pub fn new(note: &Note, key: &SecretKey) -> Checkpoint {
        let signature = key.sign(note.text().as_bytes());
        let Note { journal, segment, first, size, head, root, time: _ } = *note;
        Checkpoint { journal, segment, first, size, head, root, key: key.public(), signature }
    }

    /// What was signed, when the record has this time.
    pub fn note(&self, time: Timestamp) -> Note {
        let Checkpoint { journal, segment, first, size, head, root, .. } = *self;
        Note { journal, segment, first, size, head, root, time }
    }

    /// Whether its key signed it.
    pub fn is_signed(&self, time: Timestamp) -> bool {
        self.key.verify(self.note(time).text().as_bytes(), &self.signature)
    }

    /// The note with its signature, as it is given to a witness.
    pub fn signed_note(&self, time: Timestamp) -> String {
        let note = self.note(time);
        let name = note.key_name();
        let mut bytes = key_id(&name, &self.key).to_vec();
        bytes.extend_from_slice(self.signature.bytes());
        format!("{}\n\u{2014} {name} {}\n", note.text(), STANDARD.encode(bytes))
    }
}

/// What tells keys of one name apart in a signed note (C2SP signed-note: SHA-256 over name, newline, algorithm, key; four bytes).
pub(crate) fn key_id(name: &str, key: &PublicKey) -> [u8; 4] {
    let hash = ChainHash::of(&[name.as_bytes(), b"\n\x01", key.bytes()].concat());
    let [a, b, c, d, ..] = *hash.bytes();
    [a, b, c, d]
}

/// The first record of every segment but the first one of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentStart {
    /// Its number.
    pub number: u32,
    /// Names the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<Uuid>,
    /// The key that signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PublicKey>,
    /// Why the one before ended: `size`, `age`, `space`.
    pub reason: String,
    /// The boot that it was begun in, as in [`crate::Start`].
    pub boot_id: String,
    /// Calls whose decision is before this record and whose outcome is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<Uuid>,
}

/// Segments whose time is over are removed, from the beginning of the journal on. Written before it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// Number of the last segment that goes; all before it go too.
    pub segment: u32,
    /// Sequence number of its last record.
    pub through: u64,
    /// Hash of that record.
    pub head: ChainHash,
    /// Why, in words: which setting says so.
    pub reason: String,
}
