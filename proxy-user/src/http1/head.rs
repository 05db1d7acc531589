//! Heads of HTTP/1 messages, taken apart and put together: names keep their case and their order.

use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, EXPECT, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};
use httparse::Status;

/// Header fields of a message that there is room for.
const MOST_FIELDS: usize = 512;

/// Why a head is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// It has too many bytes or fields.
    #[error("the head is larger than the limit")]
    TooLarge,
    /// Its target is longer than any may be.
    #[error("the target is too long")]
    TargetTooLong,
    /// The grammar of RFC 9112 has no such thing.
    #[error("invalid HTTP: {0}")]
    Invalid(&'static str),
}

/// How the names of a message were spelled, in their order.
#[derive(Clone, Debug)]
pub struct Spelling {
    head: Bytes,
    /// Where the names stand in it.
    names: Arc<[Range<u32>]>,
}

impl Spelling {
    fn new(head: &Bytes, parsed: &[httparse::Header<'_>]) -> Self {
        let short = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let place = |name: &str| {
            let from = (name.as_ptr() as usize).saturating_sub(head.as_ptr() as usize);
            short(from)..short(from + name.len())
        };
        let names = parsed.iter().map(|field| place(field.name)).collect();
        Self { head: head.clone(), names }
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.names.iter().map(|place| self.at(place).unwrap_or_default())
    }

    fn at(&self, place: &Range<u32>) -> Option<&[u8]> {
        let at = |at: u32| usize::try_from(at).unwrap_or(usize::MAX);
        self.head.get(at(place.start)..at(place.end))
    }

    /// How the field of that name was spelled that has `nth` others of its name before it, and which of all names that is. Looked for at
    /// `guess` first.
    fn of(&self, name: &HeaderName, nth: usize, guess: usize) -> Option<(usize, &[u8])> {
        let name = name.as_str().as_bytes();
        let same = |spelled: &(usize, &[u8])| spelled.1.eq_ignore_ascii_case(name);
        if nth == 0
            && let Some(spelled) = self.names.get(guess).and_then(|place| self.at(place))
            && spelled.eq_ignore_ascii_case(name)
        {
            return Some((guess, spelled));
        }
        self.names().enumerate().filter(same).nth(nth)
    }
}

/// What a response's status line says behind the status, when that is not what the status says.
#[derive(Clone, Debug)]
pub struct Reason(Bytes);

impl Reason {
    /// Its words.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// How a head stood on the wire, where that is not how HTTP spells it by itself.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    /// How the names were spelled, where that is not in small letters.
    pub spelling: Option<Spelling>,
    /// What stands behind the status of a response, where that is something else than usual.
    pub reason: Option<Reason>,
}

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The target, in the form in which it came.
    pub uri: Uri,
    /// 1.0 or 1.1.
    pub version: Version,
    /// The fields.
    pub headers: HeaderMap,
    /// How their names were spelled, where that is not in small letters.
    pub spelling: Option<Spelling>,
    /// Whether the connection may be used for another one.
    pub keep_alive: bool,
    /// Whether the client waits for 100 before it sends the body (RFC 9110 §10.1.1).
    pub expects: bool,
}

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The fields.
    pub headers: HeaderMap,
    /// How they were spelled.
    pub wire: Wire,
    /// Whether the connection may be used for another request.
    pub keep_alive: bool,
}

fn invalid(error: httparse::Error) -> HeadError {
    use httparse::Error::{HeaderName, HeaderValue, NewLine, Status, Token, TooManyHeaders, Version};
    HeadError::Invalid(match error {
        TooManyHeaders => return HeadError::TooLarge,
        HeaderName => "the name of a field",
        HeaderValue => "the value of a field",
        NewLine => "the end of a line",
        Status => "the status",
        Token => "the request line",
        Version => "the version",
    })
}

/// Takes a whole request head apart, which has at most `fields` fields.
///
/// # Errors
/// It is none.
pub fn request(head: &Bytes, fields: usize) -> Result<RequestHead, HeadError> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let room = room.get_mut(..fields.min(MOST_FIELDS)).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, room) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(HeadError::Invalid("the end")),
        Err(error) => return Err(invalid(error)),
    }
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
        .map_err(|_| HeadError::Invalid("the method"))?;
    let target = parsed.path.unwrap_or_default();
    if target.len() > MOST_TARGET {
        return Err(HeadError::TargetTooLong);
    }
    let uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes()))
        .map_err(|_| HeadError::Invalid("the target"))?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let (headers, spelling) = fields_of(head, parsed.headers)?;
    let keep_alive = keeps_alive(version, &headers);
    let expects = version == Version::HTTP_11
        && headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    Ok(RequestHead { method, uri, version, headers, spelling, keep_alive, expects })
}

/// What the http crate takes.
const MOST_TARGET: usize = 65_534;

/// Takes a whole response head apart.
///
/// # Errors
/// It is none.
pub fn response(head: &Bytes) -> Result<ResponseHead, HeadError> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, &mut room) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) => return Err(HeadError::Invalid("the end")),
        Err(error) => return Err(invalid(error)),
    }
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default())
        .map_err(|_| HeadError::Invalid("the status"))?;
    let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
    let usual = status.canonical_reason().unwrap_or_default();
    let reason = parsed.reason.filter(|reason| !reason.is_empty() && *reason != usual);
    let reason = reason.map(|reason| Reason(head.slice_ref(reason.as_bytes())));
    let (headers, spelling) = fields_of(head, parsed.headers)?;
    let keep_alive = keeps_alive(version, &headers);
    Ok(ResponseHead { status, headers, wire: Wire { spelling, reason }, keep_alive })
}

/// Takes a trailer section apart, with its last empty line.
///
/// # Errors
/// It is none.
pub fn trailers(section: &Bytes) -> Result<HeaderMap, HeadError> {
    let mut room = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    match httparse::parse_headers(section, &mut room) {
        Ok(Status::Complete((_, parsed))) => Ok(fields_of(section, parsed)?.0),
        Ok(Status::Partial) => Err(HeadError::Invalid("the end of the trailers")),
        Err(error) => Err(invalid(error)),
    }
}

/// Trailer fields that there is room for.
const MOST_TRAILERS: usize = 128;

/// Whether a head that is not whole yet can become one.
///
/// # Errors
/// It cannot.
pub fn plausible(begun: &[u8], is_request: bool) -> Result<(), HeadError> {
    let mut room = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let parsed = match is_request {
        true => httparse::Request::new(&mut []).parse_with_uninit_headers(begun, &mut room).map(|_| ()),
        false => httparse::ParserConfig::default()
            .parse_response_with_uninit_headers(&mut httparse::Response::new(&mut []), begun, &mut room)
            .map(|_| ()),
    };
    parsed.map_err(invalid)
}

fn fields_of(
    head: &Bytes,
    parsed: &[httparse::Header<'_>],
) -> Result<(HeaderMap, Option<Spelling>), HeadError> {
    let mut headers = HeaderMap::with_capacity(parsed.len());
    let mut spelled = false;
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| HeadError::Invalid("the name of a field"))?;
        spelled |= name.as_str() != field.name;
        let value = HeaderValue::from_maybe_shared(head.slice_ref(field.value))
            .map_err(|_| HeadError::Invalid("the value of a field"))?;
        headers.try_append(name, value).map_err(|_| HeadError::TooLarge)?;
    }
    Ok((headers, spelled.then(|| Spelling::new(head, parsed))))
}

/// Whether `Connection` says so, or nothing else (RFC 9112 §9.3).
fn keeps_alive(version: Version, headers: &HeaderMap) -> bool {
    let says = |wanted: &str| {
        let mut values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| value.split(',').any(|option| option.trim().eq_ignore_ascii_case(wanted)))
    };
    !says("close") && (version == Version::HTTP_11 || says("keep-alive"))
}

/// Writes a request line.
pub fn write_request_line(out: &mut BytesMut, method: &Method, target: &str) {
    for piece in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// Writes a status line.
pub fn write_status_line(out: &mut BytesMut, version: Version, status: StatusCode, reason: Option<&Reason>) {
    out.extend_from_slice(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(match reason {
        Some(reason) => &reason.0,
        None => status.canonical_reason().unwrap_or_default().as_bytes(),
    });
    out.extend_from_slice(b"\r\n");
}

/// Writes fields, as they were spelled if that is known.
pub fn write_fields(out: &mut BytesMut, headers: &HeaderMap, spelling: Option<&Spelling>) {
    let mut last: Option<&HeaderName> = None;
    let (mut nth, mut next) = (0, 0);
    for (name, value) in headers {
        nth = if last == Some(name) { nth + 1 } else { 0 };
        last = Some(name);
        let spelled = spelling.and_then(|spelling| spelling.of(name, nth, next));
        if let Some((at, _)) = spelled {
            next = at + 1;
        }
        out.extend_from_slice(spelled.map_or(name.as_str().as_bytes(), |(_, spelled)| spelled));
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(head: &RequestHead) -> String {
        let mut out = BytesMut::new();
        write_request_line(&mut out, &head.method, &head.uri.to_string());
        write_fields(&mut out, &head.headers, head.spelling.as_ref());
        out.extend_from_slice(b"\r\n");
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn a_head_is_written_as_it_was_read() {
        for text in [
            "GET /a?b=c HTTP/1.1\r\nHost: a.test\r\nX-a: 1\r\nx-B: 2\r\nX-A: 3\r\n\r\n",
            "POST http://a.test/ HTTP/1.1\r\nhost: a.test\r\ncontent-length: 0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHOST: a.test\r\nempty: \r\n\r\n",
        ] {
            let head = request(&Bytes::from(text), 16).unwrap();
            // Values of one name stand together, which RFC 9110 §5.3 permits.
            let sorted = |text: &str| {
                let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(&written(&head)), sorted(text));
        }
    }

    #[test]
    fn a_connection_is_kept_as_its_version_and_its_options_say() {
        let keeps = |version: &str, more: &str| {
            let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{more}\r\n");
            request(&Bytes::from(text), 16).unwrap().keep_alive
        };
        assert!(keeps("1.1", ""));
        assert!(!keeps("1.1", "Connection: Close\r\n"));
        assert!(!keeps("1.1", "Connection: x\r\nConnection: y , close\r\n"));
        assert!(!keeps("1.0", ""));
        assert!(keeps("1.0", "connection: keep-alive\r\n"));
        assert!(!keeps("1.0", "connection: keep-alive, close\r\n"));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in [
            "GET / HTTP/2.0\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET /\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nx y: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nx : 1\r\n\r\n",
            "GET / HTTP/1.1\r\nx: 1\r\n 2\r\n\r\n",
            "GET / HTTP/1.1\r\nx: \0\r\n\r\n",
            "GET / HTTP/1.1\r\n: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nx: 1\r\n",
        ] {
            assert!(request(&Bytes::from(text), 16).is_err(), "{text:?}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(17));
        assert_eq!(request(&Bytes::from(many), 16).unwrap_err(), HeadError::TooLarge);
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
        assert_eq!(request(&Bytes::from(long), 16).unwrap_err(), HeadError::TargetTooLong);
        for text in [
            "HTTP/1.1 99 x\r\n\r\n",
            "HTTP/1.1 2000 x\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "ICY 200 OK\r\n\r\n",
        ] {
            assert!(response(&Bytes::from(text)).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_reason_of_its_own_is_kept() {
        let head = response(&Bytes::from("HTTP/1.1 200 Fine\r\n\r\n")).unwrap();
        let mut out = BytesMut::new();
        write_status_line(&mut out, Version::HTTP_11, head.status, head.wire.reason.as_ref());
        assert_eq!(&out[..], b"HTTP/1.1 200 Fine\r\n");
        assert!(response(&Bytes::from("HTTP/1.1 404 Not Found\r\n\r\n")).unwrap().wire.reason.is_none());
    }
}
