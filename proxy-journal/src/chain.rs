//! What links one record to the next: the hash of a line, and the head of a chain.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// SHA-256 over the bytes of one journal line up to, and without, its `,"hash":"` suffix.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash([u8; 32]);

impl ChainHash {
    /// What the first record of a chain has as `prev`: 64 zeros.
    pub const ZERO: ChainHash = ChainHash([0; 32]);

    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> ChainHash {
        ChainHash(Sha256::digest(bytes).into())
    }

    /// Its 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 lower-case hexadecimal digits, as they stand in a line.
    pub fn hex(&self) -> [u8; 64] {
        let mut out = [b'0'; 64];
        for (pair, byte) in out.chunks_exact_mut(2).zip(self.0) {
            for (digit, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
            }
        }
        out
    }

    /// Reads exactly 64 lower-case hexadecimal digits; anything else is `None`.
    pub fn from_hex(text: &str) -> Option<ChainHash> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return None;
        }
        let (mut bytes, mut wrong) = ([0; 32], 0);
        for (byte, pair) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
            let [high, low] = pair.map(nibble);
            wrong |= high | low;
            *byte = high << 4 | (low & 0x0f);
        }
        (wrong & 0xf0 == 0).then_some(ChainHash(bytes))
    }
}

/// What a byte is as a digit; 0x80 where it is none. Without a branch for each: hashes are half of what is read to verify.
fn nibble(digit: u8) -> u8 {
    match (digit.wrapping_sub(b'0'), digit.wrapping_sub(b'a')) {
        (number @ 0..=9, _) => number,
        (_, letter @ 0..=5) => letter + 10,
        _ => 0x80,
    }
}

impl From<[u8; 32]> for ChainHash {
    fn from(bytes: [u8; 32]) -> ChainHash {
        ChainHash(bytes)
    }
}

impl Serialize for ChainHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChainHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ChainHash, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        ChainHash::from_hex(&text).ok_or_else(|| serde::de::Error::custom("not a hash"))
    }
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not the hash of a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a journal hash: give the 64 hexadecimal digits that `vouchsafe audit verify` printed as the head"
)]
pub struct NotAHash;

impl FromStr for ChainHash {
    type Err = NotAHash;

    /// Reads a hash that a person gives: 64 hexadecimal digits in either case, blanks around them ignored.
    fn from_str(text: &str) -> Result<ChainHash, NotAHash> {
        ChainHash::from_hex(&text.trim().to_ascii_lowercase()).ok_or(NotAHash)
    }
}

/// The end of a chain: what the next record continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Sequence number of the last record, counted from 1; 0 when there is none yet.
    pub seq: u64,
    /// Hash of the last record; [`ChainHash::ZERO`] when there is none yet.
    pub hash: ChainHash,
}

impl Head {
    /// The head of a chain without records.
    pub const GENESIS: Head = Head { seq: 0, hash: ChainHash::ZERO };
}

impl Default for Head {
    fn default() -> Head {
        Head::GENESIS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_from_its_hex_and_only_from_lower_case_in_a_line() {
        let hash = ChainHash::of(b"abc");
        let text = hash.to_string();
        assert_eq!(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.hex().as_slice(), text.as_bytes());
        assert_eq!(ChainHash::from_hex(&text), Some(hash));
        assert_eq!(ChainHash::from_hex(&text.to_uppercase()), None);
        assert_eq!(text.to_uppercase().parse(), Ok(hash));
        assert_eq!("12".parse::<ChainHash>(), Err(NotAHash));
    }
}
