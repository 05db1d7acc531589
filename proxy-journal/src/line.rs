//! One line of the journal, taken apart by its exact bytes. The format is described at [`crate::writer`].

use crate::chain::ChainHash;
use crate::timestamp::Timestamp;
use crate::verify::Fault;

/// The `"v"` of every line: the version of the format.
pub const FORMAT_VERSION: u64 = 1;

/// Longest line in bytes, with its newline. A longer one is neither written nor read.
pub const MAX_LINE: usize = 1 << 20;

/// Bytes of a line beside its body, at most: the fixed words, two numbers of 20 digits, a time, two hashes.
pub(crate) const ENVELOPE: usize = 320;

pub(crate) const OPEN: &str = "{\"v\":1,\"seq\":";
pub(crate) const TIME: &str = ",\"time\":\"";
pub(crate) const PREV: &str = "\",\"prev\":\"";
pub(crate) const HASH: &str = ",\"hash\":\"";
pub(crate) const CLOSE: &str = "\"}";

/// A line whose shape is right. Whether it is true (its hash, its place in the chain) is not looked at here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) seq: u64,
    pub(crate) time: Timestamp,
    pub(crate) prev: ChainHash,
    pub(crate) hash: ChainHash,
    /// What the hash is over.
    pub(crate) hashed: &'a str,
    /// What stands between the envelope's `prev` and `hash`: the other members, from the first one's name on.
    pub(crate) members: &'a str,
    /// The whole line, without its newline.
    pub(crate) text: &'a str,
}

impl Parts<'_> {
    /// The kind of the record, when it stands where this version writes it: first.
    pub(crate) fn kind(&self) -> Option<&str> {
        let after = self.text.find(PREV)? + PREV.len() + 64;
        let kind = self.text.get(after..)?.strip_prefix("\",\"kind\":\"")?;
        kind.split_once('"').map(|(kind, _)| kind)
    }
}

/// Takes a line (without its newline) apart. Strict: one spelling only, so that verification needs no canonical form.
pub(crate) fn split(line: &[u8]) -> Result<Parts<'_>, Fault> {
    let text = std::str::from_utf8(line).map_err(|_| Fault::Shape("it is not UTF-8"))?;
    let rest = text.strip_prefix("{\"v\":").ok_or(Fault::Shape("it does not begin with {\"v\":"))?;
    let (version, rest) = number(rest).ok_or(Fault::Shape("the version is not a number"))?;
    if version != FORMAT_VERSION {
        return Err(Fault::Version(version));
    }
    let (seq, rest) = rest
        .strip_prefix(",\"seq\":")
        .and_then(number)
        .ok_or(Fault::Shape("there is no seq after the version"))?;
    let (time, rest) = rest
        .strip_prefix(TIME)
        .and_then(|rest| rest.split_at_checked(27))
        .and_then(|(time, rest)| Some((Timestamp::parse(time)?, rest)))
        .ok_or(Fault::Shape("there is no time in UTC after the seq"))?;
    let (prev, rest) = rest
        .strip_prefix(PREV)
        .and_then(|rest| rest.split_at_checked(64))
        .and_then(|(prev, rest)| Some((ChainHash::from_hex(prev)?, rest)))
        .ok_or(Fault::Shape("there is no prev after the time"))?;
    let rest = rest.strip_prefix("\",").ok_or(Fault::Shape("there is nothing after the prev"))?;
    let suffix = HASH.len() + 64 + CLOSE.len();
    let (hashed, hash) = text
        .len()
        .checked_sub(suffix)
        .and_then(|at| text.split_at_checked(at))
        .and_then(|(hashed, rest)| {
            let hash = rest.strip_prefix(HASH)?.strip_suffix(CLOSE)?;
            Some((hashed, ChainHash::from_hex(hash)?))
        })
        .ok_or(Fault::Shape("it does not end with its hash"))?;
    let members = rest.get(..rest.len().saturating_sub(suffix)).unwrap_or_default();
    Ok(Parts { seq, time, prev, hash, hashed, members, text })
}

/// A number in its one spelling: digits, without sign and leading zeros.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    if digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    digits.parse().ok().map(|value| (value, rest))
}
