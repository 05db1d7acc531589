//! The framing of HTTP/1 as its bytes come: where a message ends must be one thing to everybody who reads it.
//!
//! hyper reads leniently, as RFC 9112 lets it, and hides what it decided: of two framings it takes one and drops the other. [`Framing`]
//! sees the same bytes before it and refuses what another reader could take for another message.
//!
//! | in a head | |
//! | --- | --- |
//! | a line that ends with LF alone, a CR without LF | refused (RFC 9112 §2.2) |
//! | more than one empty line before a request, any before a response | refused |
//! | a fragment in the target | refused (RFC 9112 §3.2) |
//! | `Content-Length` twice, even the same; a sign, a leading zero, a list, an overflow | refused |
//! | `Transfer-Encoding` twice, or anything but `chunked`, or beside `Content-Length`, or from HTTP/1.0 | refused |
//! | a WebSocket asked for with a body; a line of `Upgrade` that is longer than 96 bytes | refused |
//!
//! Of the body of a request it follows the chunks, to know where the next head begins: sizes are hexadecimal digits and nothing before
//! an extension, lines end with CR LF. The body of a response is hyper's alone: a connection that has more than one response to give
//! is not used again.
//!
//! What is not about framing (names, values, versions) is left to hyper, which refuses it. One look at each line, none at bodies.

use memchr::{memchr, memchr2};

/// Bytes of a line that are looked at, also when it comes in pieces: what frames a message is shorter.
const KEPT: usize = 96;
/// Interim responses (RFC 9110 §15.2) to one request.
const MAX_INTERIM: u8 = 32;
/// Hexadecimal digits of a chunk's size.
const MAX_DIGITS: usize = 15;

/// What can be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// LF alone.
    #[error("a line ends with LF alone")]
    LineFeed,
    /// CR alone.
    #[error("a CR stands alone")]
    Return,
    /// More empty lines before the message than RFC 9112 §2.2 knows.
    #[error("there are empty lines before it")]
    EmptyLines,
    /// The target goes on where no server looks.
    #[error("its target has a fragment")]
    Fragment,
    /// Not one number.
    #[error("its content-length is not a number in its shortest form")]
    Length,
    /// Several.
    #[error("it has more than one content-length")]
    Lengths,
    /// Not `chunked` alone.
    #[error("its transfer-encoding is not chunked")]
    Coding,
    /// Several.
    #[error("it has more than one transfer-encoding")]
    Codings,
    /// Both.
    #[error("it has both content-length and transfer-encoding")]
    LengthAndCoding,
    /// A sender of HTTP/1.0 does not know of it.
    #[error("it is HTTP/1.0 and has transfer-encoding")]
    CodingOfOld,
    /// Longer than what is looked at.
    #[error("its upgrade is longer than what names protocols")]
    Upgrade,
    /// What follows belongs to the WebSocket.
    #[error("it asks for a WebSocket and has a body")]
    UpgradeWithBody,
    /// Not a size.
    #[error("the size of a chunk is not hexadecimal digits")]
    ChunkSize,
    /// Something else than a little text.
    #[error("a chunk's extension is empty or long, or has a control character")]
    ChunkExtension,
    /// The data went on, or ended early.
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// Many.
    #[error("more than {MAX_INTERIM} interim responses came before it")]
    Interim,
}

/// A fault, and at which byte of what was fed; nothing before it has been read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What.
    pub fault: Fault,
    /// Index of the byte with which it became certain. A head is never complete before it.
    pub at: usize,
    /// Whether it is in a head, and not in a body.
    pub in_head: bool,
}

/// Whose messages they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// A client's; one after another.
    Requests,
    /// A server's; each is told by [`Framing::expect`].
    Responses,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of a body.
    Data(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// Not HTTP any more, or the body of a response.
    Free,
}

/// What the head said so far.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    empty_lines: u8,
    begun: bool,
    length: Option<u64>,
    chunked: bool,
    websocket: bool,
    /// HTTP/1.0, of a response; hyper looks at it for requests.
    old: bool,
    status: u16,
}

/// Follows the messages of one direction of a connection.
#[derive(Debug)]
pub struct Framing {
    message: Message,
    state: State,
    head: Head,
    interim: u8,
    /// The CR of a line came, and nothing after it yet.
    returned: bool,
    /// The beginning of a line that comes in pieces, and its length so far.
    kept: [u8; KEPT],
    length: usize,
}

impl Framing {
    /// Before the first byte.
    #[must_use]
    pub fn new(message: Message) -> Self {
        let state = match message {
            Message::Requests => State::Head,
            Message::Responses => State::Free,
        };
        let (head, kept) = (Head::default(), [0; KEPT]);
        Self { message, state, head, interim: 0, returned: false, kept, length: 0 }
    }

    /// The next byte is the first of a response.
    pub fn expect(&mut self) {
        *self = Self { state: State::Head, ..Self::new(self.message) };
    }

    /// Whether a WebSocket was asked for, so that it may not be HTTP any more.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.state == State::Free
    }

    /// Follows what came.
    ///
    /// # Errors
    /// It can be read in two ways. What follows means nothing any more.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Found> {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            at += match self.state {
                State::Free => return Ok(()),
                State::Data(left) | State::ChunkData(left) => self.skip(left, rest.len()),
                State::Head | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                    let in_head = self.state == State::Head;
                    self.line(rest).map_err(|(fault, index)| Found { fault, at: at + index, in_head })?
                }
            };
        }
        Ok(())
    }

    fn skip(&mut self, left: u64, there: usize) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        let left = left - u64::try_from(taken).unwrap_or(left);
        self.state = match (self.state, left) {
            (State::Data(_), 0) => self.next(),
            (State::Data(_), left) => State::Data(left),
            (_, 0) => State::ChunkEnd,
            (_, left) => State::ChunkData(left),
        };
        taken
    }

    /// The end of a message.
    fn next(&mut self) -> State {
        self.head = Head::default();
        State::Head
    }

    /// Takes a line, or what is there of it: how many bytes.
    fn line(&mut self, rest: &[u8]) -> Result<usize, (Fault, usize)> {
        let (line, taken) = if self.returned {
            if rest.first() != Some(&b'\n') {
                return Err((Fault::Return, 0));
            }
            (&[][..], 1)
        } else {
            let end = memchr2(b'\r', b'\n', rest);
            let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            if self.state == State::Head
                && !self.head.begun
                && let Some(index) = memchr(b'#', line)
                && self.message == Message::Requests
            {
                return Err((Fault::Fragment, index));
            }
            match end {
                None => {
                    self.keep(line);
                    return Ok(rest.len());
                }
                Some(end) if rest.get(end) == Some(&b'\n') => return Err((Fault::LineFeed, end)),
                Some(end) => match rest.get(end + 1) {
                    None => {
                        self.keep(line);
                        self.returned = true;
                        return Ok(rest.len());
                    }
                    Some(b'\n') => (line, end + 2),
                    Some(_) => return Err((Fault::Return, end + 1)),
                },
            }
        };
        let judged = if self.length == 0 {
            self.judge(line.get(..KEPT).unwrap_or(line), line.len())
        } else {
            self.keep(line);
            let (kept, length) = (self.kept, self.length);
            self.judge(kept.get(..length.min(KEPT)).unwrap_or_default(), length)
        };
        (self.length, self.returned) = (0, false);
        judged.map_err(|fault| (fault, taken - 1))?;
        Ok(taken)
    }

    fn keep(&mut self, piece: &[u8]) {
        let free = self.kept.get_mut(self.length.min(KEPT)..).unwrap_or_default();
        for (place, byte) in free.iter_mut().zip(piece) {
            *place = *byte;
        }
        self.length = self.length.saturating_add(piece.len());
    }

    /// Takes a whole line in; `length` is more than what is here of one that is long.
    fn judge(&mut self, line: &[u8], length: usize) -> Result<(), Fault> {
        let whole = line.len() == length;
        match self.state {
            State::Head if length == 0 && self.head.begun => self.state = self.end_of_head()?,
            State::Head if self.head.begun => self.field(line, whole)?,
            State::Head if length == 0 => {
                self.head.empty_lines += 1;
                let most = if self.message == Message::Requests { 1 } else { 0 };
                if self.head.empty_lines > most {
                    return Err(Fault::EmptyLines);
                }
            }
            State::Head => {
                self.head.begun = true;
                if self.message == Message::Responses {
                    self.head.old = line.starts_with(b"HTTP/1.0");
                    self.head.status = line.get(9..12).and_then(number).unwrap_or(0);
                }
            }
            State::ChunkSize => {
                self.state = match chunk_size(line, whole)? {
                    0 => State::Trailers,
                    size => State::ChunkData(size),
                }
            }
            State::ChunkEnd if length == 0 => self.state = State::ChunkSize,
            State::ChunkEnd => return Err(Fault::ChunkEnd),
            State::Trailers if length == 0 => self.state = self.next(),
            // What they may say is looked at where they are taken.
            State::Trailers | State::Data(_) | State::ChunkData(_) | State::Free => {}
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8], whole: bool) -> Result<(), Fault> {
        if let Some(value) = value_of(line, LENGTH) {
            if self.head.length.is_some() {
                return Err(Fault::Lengths);
            }
            self.head.length = Some(Some(value).filter(|_| whole).and_then(number).ok_or(Fault::Length)?);
        } else if let Some(value) = value_of(line, CODING) {
            if self.head.chunked {
                return Err(Fault::Codings);
            }
            if !whole || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Coding);
            }
            self.head.chunked = true;
        } else if let Some(value) = value_of(line, UPGRADE) {
            // Behind many blanks, the same could stand for hyper and the upstream.
            if !whole {
                return Err(Fault::Upgrade);
            }
            self.head.websocket |= value.eq_ignore_ascii_case(b"websocket");
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<State, Fault> {
        let Head { length, chunked, websocket, old, status, .. } = self.head;
        if chunked && length.is_some() {
            return Err(Fault::LengthAndCoding);
        }
        if self.message == Message::Responses {
            if old && chunked {
                return Err(Fault::CodingOfOld);
            }
            if !matches!(status, 100..=199) || status == 101 {
                return Ok(State::Free);
            }
            self.interim += 1;
            return if self.interim > MAX_INTERIM { Err(Fault::Interim) } else { Ok(self.next()) };
        }
        if websocket {
            return if chunked || length.is_some_and(|length| length > 0) {
                Err(Fault::UpgradeWithBody)
            } else {
                Ok(State::Free)
            };
        }
        Ok(match length {
            Some(length @ 1..) => State::Data(length),
            _ if chunked => State::ChunkSize,
            _ => self.next(),
        })
    }
}

const LENGTH: &[u8] = b"content-length";
const CODING: &[u8] = b"transfer-encoding";
const UPGRADE: &[u8] = b"upgrade";

/// The value of a field, if the line is one of that name.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (begin, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":").filter(|_| begin.eq_ignore_ascii_case(name))?;
    // As RFC 9110 §5.5 has it; other blanks are part of the value.
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let to = value.iter().rposition(|byte| !blank(byte)).map_or(from, |last| last + 1);
    value.get(from..to)
}

/// A number in its shortest form.
fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    let shortest = matches!(digits, [b'0'] | [b'1'..=b'9', ..]);
    if !shortest || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn chunk_size(line: &[u8], whole: bool) -> Result<u64, Fault> {
    let (size, extension) = line.split_at(memchr(b';', line).unwrap_or(line.len()));
    if size.is_empty() || size.len() > MAX_DIGITS || !size.iter().all(u8::is_ascii_hexdigit) {
        return Err(Fault::ChunkSize);
    }
    if !whole || extension == b";" || extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Fault::ChunkExtension);
    }
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    size.ok_or(Fault::ChunkSize)
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
