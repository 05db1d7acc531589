//! What a checkpoint says, as a text that is signed and given to witnesses.
//!
//! The text is a checkpoint of C2SP (<https://c2sp.org/tlog-checkpoint>), signed as a note (<https://c2sp.org/signed-note>), so that
//! what reads those reads these. The tree is that of one segment:
//!
//! ```text
//! vouchsafe.journal/0198b1f2-…/7        the journal and the number of the segment
//! 1000                                  how many records it is over
//! <root of the tree, base64>
//! first 61001                           sequence number of the segment's first record
//! head <hash of the last one, hex>
//! time 2026-11-24T20:00:00.123456Z
//!
//! — vouchsafe.journal/0198b1f2-… <four bytes that name the key, and its signature, base64>
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use uuid::Uuid;

use crate::chain::ChainHash;
use crate::key::{PublicKey, Signature};
use crate::signed::key_id;
use crate::timestamp::Timestamp;

const ORIGIN: &str = "vouchsafe.journal/";

/// Longest file of notes that is read, in bytes.
const MAX_NOTES: usize = 64 << 20;

/// What a checkpoint says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// Names the journal.
    pub journal: Uuid,
    /// Number of the segment.
    pub segment: u32,
    /// Sequence number of its first record.
    pub first: u64,
    /// How many records it is over; never 0.
    pub size: u64,
    /// Hash of the last of them.
    pub head: ChainHash,
    /// Root of the tree over them.
    pub root: ChainHash,
    /// When it was signed, by the host's clock.
    pub time: Timestamp,
}

impl Note {
    /// Sequence number of the last record that it is over.
    pub fn through(&self) -> u64 {
        self.first.saturating_add(self.size).saturating_sub(1)
    }

    /// The text that is signed.
    pub fn text(&self) -> String {
        let Note { journal, segment, first, size, head, root, time } = self;
        let root = STANDARD.encode(root.bytes());
        format!("{ORIGIN}{journal}/{segment}\n{size}\n{root}\nfirst {first}\nhead {head}\ntime {time}\n")
    }

    /// The name of the keys of this journal.
    pub fn key_name(&self) -> String {
        format!("{ORIGIN}{}", self.journal)
    }

    fn parse(text: &str) -> Option<Note> {
        let mut lines = text.lines();
        let (journal, segment) = lines.next()?.strip_prefix(ORIGIN)?.split_once('/')?;
        let size = lines.next()?.parse().ok().filter(|size| *size > 0)?;
        let root: [u8; 32] = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let note = Note {
            journal: journal.parse().ok()?,
            segment: segment.parse().ok()?,
            first: lines.next()?.strip_prefix("first ")?.parse().ok()?,
            size,
            head: ChainHash::from_hex(lines.next()?.strip_prefix("head ")?)?,
            root: ChainHash::from(root),
            time: Timestamp::parse(lines.next()?.strip_prefix("time ")?)?,
        };
        // One spelling only: what was signed is what is compared.
        (note.text() == text).then_some(note)
    }
}

/// A note that somebody kept, with the signatures of its journal's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    /// What it says.
    pub note: Note,
    /// Which keys signed, each by its four bytes.
    signatures: Vec<([u8; 4], Signature)>,
}

/// A text that is not a note of a journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotANote {
    /// It has another shape.
    #[error(
        "note {0} is not a checkpoint of a journal, as `vouchsafe audit checkpoint` prints and witnesses get"
    )]
    Shape(usize),
    /// There is none in it.
    #[error("there is no checkpoint in it")]
    Empty,
    /// It is too long.
    #[error("it is longer than {MAX_NOTES} bytes: give the newest checkpoints")]
    TooLong,
}

impl SignedNote {
    /// Reads notes that stand one after the other, as a witness collects them.
    ///
    /// # Errors
    /// [`NotANote`]: one of them is none.
    pub fn parse_all(text: &str) -> Result<Vec<SignedNote>, NotANote> {
        if text.len() > MAX_NOTES {
            return Err(NotANote::TooLong);
        }
        let mut found = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            let (note, after) = SignedNote::parse(rest).ok_or(NotANote::Shape(found.len() + 1))?;
            found.push(note);
            rest = after.trim_start();
        }
        if found.is_empty() { Err(NotANote::Empty) } else { Ok(found) }
    }

    /// Reads one note from the beginning of `text`, and returns what follows it.
    fn parse(text: &str) -> Option<(SignedNote, &str)> {
        let (body, mut rest) = text.split_at_checked(text.find("\n\n")? + 1)?;
        rest = rest.strip_prefix('\n')?;
        let note = Note::parse(body)?;
        let (mut signatures, name) = (Vec::new(), note.key_name());
        while let Some(line) = rest.strip_prefix("\u{2014} ") {
            let (line, after) = line.split_once('\n').unwrap_or((line, ""));
            // Other signatures are those of witnesses, which this does not know.
            if let Some(signature) = line.strip_prefix(&name).and_then(|line| line.strip_prefix(' ')) {
                let bytes = STANDARD.decode(signature).ok()?;
                let (id, signature) = bytes.split_first_chunk::<4>()?;
                signatures.push((*id, Signature::from_bytes(signature.try_into().ok()?)));
            }
            rest = after;
        }
        (!signatures.is_empty()).then_some((SignedNote { note, signatures }, rest))
    }

    /// Whether this key signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let id = key_id(&self.note.key_name(), key);
        let text = self.note.text();
        let mine = self.signatures.iter().filter(|(signer, _)| *signer == id);
        mine.into_iter().any(|(_, signature)| key.verify(text.as_bytes(), signature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SecretKey;
    use crate::signed::Checkpoint;

    fn note() -> Note {
        Note {
            journal: Uuid::from_u128(7),
            segment: 3,
            first: 61_001,
            size: 1000,
            head: ChainHash::of(b"head"),
            root: ChainHash::of(b"root"),
            time: Timestamp::parse("2026-11-24T20:00:00.123456Z").unwrap(),
        }
    }

    #[test]
    fn a_note_reads_back_with_its_signature_and_with_no_other() {
        let (key, other) = (SecretKey::from_bytes(&[1; 32]), SecretKey::from_bytes(&[2; 32]));
        let checkpoint = Checkpoint::new(&note(), &key);
        let text = checkpoint.signed_note(note().time);
        let two = format!("{text}\n{text}");
        let found = SignedNote::parse_all(&two).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].note, found[0].note.through()), (note(), 62_000));
        assert!(found[0].is_signed_by(&key.public()) && !found[0].is_signed_by(&other.public()));
        let changed = SignedNote::parse_all(&text.replace("\n1000\n", "\n1001\n")).unwrap();
        assert!(!changed[0].is_signed_by(&key.public()));
        // The signature of a witness beside it changes nothing.
        let cosigned = format!("{text}\u{2014} witness.example/w AAAA\n");
        assert!(SignedNote::parse_all(&cosigned).unwrap()[0].is_signed_by(&key.public()));
    }

    #[test]
    fn what_is_no_note_is_refused() {
        let text = Checkpoint::new(&note(), &SecretKey::from_bytes(&[1; 32])).signed_note(note().time);
        assert_eq!(SignedNote::parse_all(" \n"), Err(NotANote::Empty));
        for (from, to) in [
            ("first 61001", "first 061001"),
            ("\n1000\n", "\n0\n"),
            ("vouchsafe.journal", "another.log"),
            ("head ", "head  "),
            ("\u{2014} ", "- "),
            ("\n\n", "\n"),
        ] {
            assert_eq!(SignedNote::parse_all(&text.replacen(from, to, 1)), Err(NotANote::Shape(1)), "{from}");
        }
    }
}
