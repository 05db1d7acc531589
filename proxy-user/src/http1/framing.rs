//! The framing of HTTP/1 as its bytes come: where a message ends must be one thing to everybody who reads it.
//!
//! RFC 9112 lets readers be lenient: of two framings one is taken and the other dropped. [`Framing`] refuses what another reader could
//! take for another message.
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
//! Of a body it follows the chunks, to know where the data is and where the next head begins: sizes are hexadecimal digits and nothing
//! before an extension (of a response also blanks, which old servers pad them with), lines end with CR LF.
//!
//! What is not about framing (names, values, versions) is left to [`super::head`]. One look at each line, none at data.

use memchr::{memchr, memchr2};

/// Bytes of a line that are looked at, also when it comes in pieces: what frames a message is shorter.
const KEPT: usize = 96;
/// Interim responses (RFC 9110 §15.2) to one request.
const MAX_INTERIM: u8 = 32;
/// Bytes of a line with a chunk's size, of a server.
const MOST_EXTENSION: usize = 16 * 1024;
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
    /// What follows belongs to the tunnel.
    #[error("it asks for a tunnel and has a body")]
    ConnectWithBody,
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

/// A fault, and at which byte of what was given; nothing before it has been read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What.
    pub fault: Fault,
    /// Index of the byte with which it became certain. A head is never complete before it.
    pub at: usize,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Of a head that goes on, or between chunks.
    Inner,
    /// The rest of a head.
    Head,
    /// Data of the body.
    Data,
    /// Of the trailer section, with the empty line at its end.
    Trailers,
}

/// How a response's body is framed that has one (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks, and trailers may follow.
    Chunks,
    /// All that comes until the connection ends.
    UntilClose,
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
    UntilClose,
    /// The message is over.
    Over,
    /// Not HTTP any more.
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
    /// A tunnel is asked for.
    connect: bool,
    /// HTTP/1.0, of a response; of a request the policy's facts say it.
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
    kept: Vec<u8>,
    length: usize,
}

impl Framing {
    /// Before the first byte of a message.
    #[must_use]
    pub fn new(message: Message) -> Self {
        let (head, kept) = (Head::default(), Vec::new());
        Self { message, state: State::Head, head, interim: 0, returned: false, kept, length: 0 }
    }

    /// The next byte is the first of another message; of a response that is interim, the next one is to the same request.
    pub fn begin(&mut self) {
        let interim = if self.is_interim() { self.interim } else { 0 };
        *self = Self { interim, ..Self::new(self.message) };
    }

    /// Whether a WebSocket or a tunnel was asked for, so that it may not be HTTP any more.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.state == State::Free
    }

    /// Whether the message has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// Whether nothing of a message came yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.state == State::Head
            && !self.head.begun
            && self.length == 0
            && !self.returned
            && self.head.empty_lines == 0
    }

    /// Whether the end of the connection is the end of the body.
    #[must_use]
    pub fn is_until_close(&self) -> bool {
        self.state == State::UntilClose
    }

    /// Whether a response was interim (RFC 9110 §15.2), and another one follows.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        self.message == Message::Responses && matches!(self.head.status, 100..=199) && self.head.status != 101
    }

    /// How the body is framed, once the head is over and nothing else came.
    #[must_use]
    pub fn extent(&self) -> Extent {
        match self.state {
            State::Data(length) => Extent::Length(length),
            State::ChunkSize => Extent::Chunks,
            State::UntilClose => Extent::UntilClose,
            _ => Extent::None,
        }
    }

    /// The response has no body whatever its head says: it is one to HEAD.
    pub fn has_no_body(&mut self) {
        self.state = State::Over;
    }

    /// Bytes that are still to come of a body of known length, or of a chunk.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match self.state {
            State::Data(left) | State::ChunkData(left) => Some(left),
            _ => None,
        }
    }

    /// What the first of these bytes are, and how many.
    ///
    /// # Errors
    /// They can be read in two ways. What follows means nothing any more.
    pub fn step(&mut self, bytes: &[u8]) -> Result<(Part, usize), Found> {
        let before = self.state;
        let taken = match before {
            State::Over | State::Free | State::UntilClose => bytes.len(),
            State::Data(left) | State::ChunkData(left) => self.skip(left, bytes.len()),
            State::Head | State::ChunkSize | State::ChunkEnd | State::Trailers => {
                self.line(bytes).map_err(|(fault, at)| Found { fault, at })?
            }
        };
        let part = match before {
            State::Head if self.state != State::Head => Part::Head,
            State::Head | State::ChunkSize | State::ChunkEnd => Part::Inner,
            State::Trailers => Part::Trailers,
            _ => Part::Data,
        };
        Ok((part, taken))
    }

    fn skip(&mut self, left: u64, there: usize) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        let left = left - u64::try_from(taken).unwrap_or(left);
        self.state = match (self.state, left) {
            (State::Data(_), 0) => State::Over,
            (State::Data(_), left) => State::Data(left),
            (_, 0) => State::ChunkEnd,
            (_, left) => State::ChunkData(left),
        };
        taken
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
            let kept = std::mem::take(&mut self.kept);
            self.judge(&kept, self.length)
        };
        (self.length, self.returned) = (0, false);
        judged.map_err(|fault| (fault, taken - 1))?;
        Ok(taken)
    }

    fn keep(&mut self, piece: &[u8]) {
        let free = KEPT.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(piece.get(..free).unwrap_or(piece));
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
                if self.message == Message::Requests {
                    self.head.connect = line.starts_with(b"CONNECT ");
                } else {
                    self.head.old = line.starts_with(b"HTTP/1.0");
                    self.head.status = line.get(9..12).and_then(number).unwrap_or(0);
                }
            }
            State::ChunkSize => {
                // What a server says there is dropped, and may be long.
                let lenient = self.message == Message::Responses && length <= MOST_EXTENSION;
                self.state = match chunk_size(line, whole, lenient)? {
                    0 => State::Trailers,
                    size => State::ChunkData(size),
                }
            }
            State::ChunkEnd if length == 0 => self.state = State::ChunkSize,
            State::ChunkEnd => return Err(Fault::ChunkEnd),
            State::Trailers if length == 0 => self.state = State::Over,
            // What they may say is looked at where they are taken.
            State::Trailers
            | State::Data(_)
            | State::ChunkData(_)
            | State::UntilClose
            | State::Over
            | State::Free => {}
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
            // Behind many blanks, the same could stand for the upstream.
            if !whole {
                return Err(Fault::Upgrade);
            }
            self.head.websocket |= value.eq_ignore_ascii_case(b"websocket");
        }
        Ok(())
    }

    fn end_of_head(&mut self) -> Result<State, Fault> {
        let Head { length, chunked, websocket, connect, old, status, .. } = self.head;
        if chunked && length.is_some() {
            return Err(Fault::LengthAndCoding);
        }
        if self.message == Message::Responses {
            if old && chunked {
                return Err(Fault::CodingOfOld);
            }
            if self.is_interim() {
                self.interim += 1;
                return if self.interim > MAX_INTERIM { Err(Fault::Interim) } else { Ok(State::Over) };
            }
            return Ok(match (status, length) {
                (101, _) => State::Free,
                (204 | 304, _) | (_, Some(0)) => State::Over,
                (_, Some(length)) => State::Data(length),
                _ if chunked => State::ChunkSize,
                _ => State::UntilClose,
            });
        }
        if websocket || connect {
            return match (chunked || length.is_some_and(|length| length > 0), connect) {
                (false, _) => Ok(State::Free),
                (true, true) => Err(Fault::ConnectWithBody),
                (true, false) => Err(Fault::UpgradeWithBody),
            };
        }
        Ok(match length {
            Some(length @ 1..) => State::Data(length),
            _ if chunked => State::ChunkSize,
            _ => State::Over,
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

fn chunk_size(line: &[u8], whole: bool, lenient: bool) -> Result<u64, Fault> {
    let (size, extension) = line.split_at(memchr(b';', line).unwrap_or(line.len()));
    let size = match lenient {
        true => size.trim_ascii_end(),
        false => size,
    };
    if size.is_empty() || size.len() > MAX_DIGITS || !size.iter().all(u8::is_ascii_hexdigit) {
        return Err(Fault::ChunkSize);
    }
    let is_long = !whole && !lenient;
    if is_long || extension == b";" || extension.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')
    {
        return Err(Fault::ChunkExtension);
    }
    let size = std::str::from_utf8(size).ok().and_then(|size| u64::from_str_radix(size, 16).ok());
    size.ok_or(Fault::ChunkSize)
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
