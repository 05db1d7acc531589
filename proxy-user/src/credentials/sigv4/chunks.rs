//! `aws-chunked` bodies: each chunk carries a signature over the one before, and so do the trailers. A client's chunks keep their
//! borders and lengths; only the signatures change.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use bytes::{Buf as _, Bytes, BytesMut};

use super::{Stamp, hex, sha256, signature};

/// The most bytes of a chunk. It is signed before it is sent, so that it must be there as a whole.
const MOST_CHUNK: usize = 2 << 20;
/// The most bytes of the line before a chunk, and of all trailers.
const MOST_LINE: usize = 256;
const MOST_TRAILERS: usize = 8 * 1024;

const FIELD: &[u8] = b";chunk-signature=";
const TRAILER: &[u8] = b"x-amz-trailer-signature:";
const DIGITS: usize = 64;

/// How a body begins: after the signature of its head.
pub(super) struct Start {
    pub(super) key: hmac::Key,
    pub(super) stamp: Stamp,
    pub(super) scope: String,
    pub(super) signature: String,
    pub(super) trailers: bool,
}

/// What is wrong with a body. The client sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// It is not spelled as such bodies are.
    #[error("the body is not aws-chunked, as its head says")]
    Malformed,
    /// A chunk is too large to be signed.
    #[error("a chunk of the body has more than 2 MiB; have the client sign smaller ones")]
    TooLarge,
    /// It ends too early.
    #[error("the body ends within a chunk")]
    Incomplete,
}

/// Signs a body anew, piece by piece.
pub struct Chunks {
    start: Start,
    /// What has come of the next chunk.
    pending: BytesMut,
    /// How many bytes are awaited at least, before it is looked at again.
    awaited: usize,
    at: At,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Chunk,
    Trailers,
    End,
}

impl fmt::Debug for Chunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chunks")
    }
}

impl Chunks {
    pub(super) fn new(start: Start) -> Self {
        Self { start, pending: BytesMut::new(), awaited: 1, at: At::Chunk }
    }

    /// What goes out after more has come in; nothing as long as a chunk is not whole.
    ///
    /// # Errors
    /// The client sends something else.
    pub fn feed(&mut self, data: &[u8]) -> Result<Bytes, ChunkError> {
        let mut out = BytesMut::new();
        self.pending.extend_from_slice(data);
        while self.pending.len() >= self.awaited && self.at != At::End {
            let more = match self.at {
                At::Chunk => self.chunk(&mut out)?,
                At::Trailers => self.trailers(&mut out)?,
                At::End => break,
            };
            if !more {
                break;
            }
        }
        if self.at == At::End && !self.pending.is_empty() {
            return Err(ChunkError::Malformed);
        }
        Ok(out.freeze())
    }

    /// The body has ended.
    ///
    /// # Errors
    /// It is not whole.
    pub fn finish(&self) -> Result<(), ChunkError> {
        match self.at {
            At::End => Ok(()),
            At::Chunk | At::Trailers => Err(ChunkError::Incomplete),
        }
    }

    /// One chunk, if it is whole: `SIZE;chunk-signature=SIGNATURE`, and as many bytes.
    fn chunk(&mut self, out: &mut BytesMut) -> Result<bool, ChunkError> {
        let Some(end) = line_end(&self.pending, MOST_LINE)? else {
            self.awaited = self.pending.len() + 1;
            return Ok(false);
        };
        let line = self.pending.get(..end).unwrap_or_default();
        let at = line.windows(FIELD.len()).position(|it| it == FIELD).ok_or(ChunkError::Malformed)?;
        let (size, field) = line.split_at(at);
        let theirs = field.get(FIELD.len()..).unwrap_or_default();
        let is_hex = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_hexdigit);
        if size.len() > 8 || !is_hex(size) || theirs.len() != DIGITS || !is_hex(theirs) {
            return Err(ChunkError::Malformed);
        }
        let digits = std::str::from_utf8(size).unwrap_or_default();
        let length = usize::from_str_radix(digits, 16).map_err(|_| ChunkError::Malformed)?;
        if length > MOST_CHUNK {
            return Err(ChunkError::TooLarge);
        }
        let from = end + 2;
        // The last one has trailers behind it, or the end.
        let is_last_of_trailers = length == 0 && self.start.trailers;
        let whole = if is_last_of_trailers { from } else { from + length + 2 };
        if self.pending.len() < whole {
            self.awaited = whole;
            return Ok(false);
        }
        let data = self.pending.get(from..from + length).unwrap_or_default();
        if !is_last_of_trailers && self.pending.get(from + length..whole) != Some(b"\r\n") {
            return Err(ChunkError::Malformed);
        }
        let empty = digest::digest(&digest::SHA256, b"");
        let text =
            self.text("AWS4-HMAC-SHA256-PAYLOAD", &format!("{}\n{}", hex(empty.as_ref()), sha256(data)));
        self.start.signature = signature(&self.start.key, &text);
        out.reserve(whole);
        out.extend_from_slice(size);
        out.extend_from_slice(FIELD);
        out.extend_from_slice(self.start.signature.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.pending.get(from..whole).unwrap_or_default());
        self.pending.advance(whole);
        self.awaited = 1;
        if length == 0 {
            self.at = if self.start.trailers { At::Trailers } else { At::End };
        }
        Ok(true)
    }

    /// The trailers, if they are whole: lines, the last of them with the signature, and an empty one.
    fn trailers(&mut self, out: &mut BytesMut) -> Result<bool, ChunkError> {
        let (mut lines, mut at): (Vec<&[u8]>, usize) = (Vec::new(), 0);
        loop {
            let rest = self.pending.get(at..).unwrap_or_default();
            let Some(end) = line_end(rest, MOST_TRAILERS.saturating_sub(at))? else {
                self.awaited = self.pending.len() + 1;
                return Ok(false);
            };
            let line = rest.get(..end).unwrap_or_default();
            at += end + 2;
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let (last, signed) = lines.split_last().ok_or(ChunkError::Malformed)?;
        let is_ours = last.get(..TRAILER.len()).is_some_and(|name| name.eq_ignore_ascii_case(TRAILER));
        if !is_ours || last.get(TRAILER.len()..).unwrap_or_default().trim_ascii().len() != DIGITS {
            return Err(ChunkError::Malformed);
        }
        let mut canonical = Vec::new();
        for line in signed {
            let colon = line.iter().position(|byte| *byte == b':').ok_or(ChunkError::Malformed)?;
            let (name, value) = line.split_at(colon);
            canonical.extend(name.trim_ascii().to_ascii_lowercase());
            canonical.push(b':');
            canonical.extend_from_slice(value.get(1..).unwrap_or_default().trim_ascii());
            canonical.push(b'\n');
        }
        let text = self.text("AWS4-HMAC-SHA256-TRAILER", &sha256(&canonical));
        let new = signature(&self.start.key, &text);
        for line in signed {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
        let value = last.get(TRAILER.len()..).unwrap_or_default();
        let spaces = value.len() - value.trim_ascii_start().len();
        out.extend_from_slice(last.get(..TRAILER.len() + spaces).unwrap_or_default());
        out.extend_from_slice(new.as_bytes());
        out.extend_from_slice(value.get(spaces + DIGITS..).unwrap_or_default());
        out.extend_from_slice(b"\r\n\r\n");
        self.pending.advance(at);
        self.at = At::End;
        Ok(true)
    }

    fn text(&self, what: &str, digests: &str) -> String {
        let Start { stamp, scope, signature, .. } = &self.start;
        format!("{what}\n{}\n{scope}\n{signature}\n{digests}", stamp.text())
    }
}

/// Where the first line ends, without its line break; nothing if there is no end yet.
fn line_end(bytes: &[u8], most: usize) -> Result<Option<usize>, ChunkError> {
    let end = bytes.iter().take(most + 2).position(|byte| *byte == b'\n');
    match end {
        Some(end) if end > 0 && bytes.get(end - 1) == Some(&b'\r') => Ok(Some(end - 1)),
        Some(_) => Err(ChunkError::Malformed),
        None if bytes.len() > most => Err(ChunkError::Malformed),
        None => Ok(None),
    }
}

#[cfg(test)]
#[path = "chunks_tests.rs"]
mod tests;
