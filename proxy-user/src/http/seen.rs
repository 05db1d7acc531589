//! What conditions look at, gathered only when one asks: headers as they will be forwarded, and a JSON body.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderMap, SET_COOKIE};
use http_body::Frame;
use http_body_util::BodyExt as _;
use proxy_policy::{Body, BodyFault};

use super::body::Replay;
use super::hop;
use crate::authorize::{Facts, LivePolicy, Seen, SeenBody};
use crate::credentials::{Strip, strip};

/// What conditions see of a request before its body is read: the headers without those that carry the credential of the
/// API that is called.
#[must_use]
pub fn head(
    live: &LivePolicy,
    facts: &Facts<'_>,
    headers: &HeaderMap,
    version: Version,
    websocket: bool,
) -> Seen {
    let api = live.set().api_for(facts.scheme, facts.host.name(), facts.port);
    let strip = api.and_then(|api| live.strip(api.id)).map(|strip| &**strip);
    Seen { headers: self::headers(headers, version, websocket, strip), body: SeenBody::NotRead }
}

/// The headers that the upstream will get from the client: without those of the hop and those that carry credentials.
/// Each name is there once, in small letters; `_` counts as `-`, as for servers that hand both to the application under one
/// name (RFC 3875 §4.1.18).
#[must_use]
pub fn headers(
    headers: &HeaderMap,
    version: Version,
    websocket: bool,
    what: Option<&Strip>,
) -> Vec<(String, String)> {
    let mut forwarded = hop::strip_request(headers, version, websocket);
    strip(&mut forwarded, None, what.unwrap_or(&Strip::default()));
    let mut seen: Vec<(String, String)> = Vec::with_capacity(forwarded.len());
    for (name, value) in &forwarded {
        let value = String::from_utf8_lossy(value.as_bytes());
        let between = if name == COOKIE || name == SET_COOKIE { "; " } else { ", " };
        let name = name.as_str().replace('_', "-");
        match seen.iter_mut().find(|(known, _)| *known == name) {
            Some((_, joined)) => {
                joined.push_str(between);
                joined.push_str(&value);
            }
            None => seen.push((name, value.into_owned())),
        }
    }
    seen
}

/// Reads a body for conditions, up to `limit` bytes and for `time`. What was read is what will be forwarded: the same
/// bytes go on, and after them what was not read.
pub async fn body(replay: &mut Replay, headers: &HeaderMap, limit: usize, time: Duration) -> SeenBody {
    if let Some(fault) = unreadable(headers) {
        return SeenBody::Fault(fault);
    }
    let reading = read(replay, limit);
    match tokio::time::timeout(time, reading).await {
        Err(_) => SeenBody::Fault(BodyFault::Incomplete),
        Ok(Err(fault)) => SeenBody::Fault(fault),
        Ok(Ok(bytes)) => whole_body(&bytes, headers, limit),
    }
}

/// What conditions see of a body that is there as a whole.
#[must_use]
pub fn whole_body(bytes: &[u8], headers: &HeaderMap, limit: usize) -> SeenBody {
    let fault = match unreadable(headers) {
        Some(fault) => fault,
        None if bytes.len() > limit => BodyFault::TooLarge { limit },
        None => match Body::parse(bytes) {
            Ok(body) => return SeenBody::Json(body),
            Err(fault) => fault,
        },
    };
    SeenBody::Fault(fault)
}

/// Reads all of a body, up to `limit` bytes. What was read goes on in one piece, which is once in memory, also when nobody waits
/// for the rest any more.
pub async fn read(replay: &mut Replay, limit: usize) -> Result<Bytes, BodyFault> {
    let mut gathering = Gathering::of(replay);
    loop {
        if gathering.bytes.len() > limit {
            return Err(BodyFault::TooLarge { limit });
        }
        if gathering.replay.broken.is_some() {
            return Err(BodyFault::Incomplete);
        }
        let Some(rest) = &mut gathering.replay.rest else { return Ok(gathering.end()) };
        match rest.frame().await {
            None => gathering.replay.rest = None,
            Some(Err(error)) => {
                gathering.replay.rest = None;
                gathering.replay.broken = Some(error);
            }
            Some(Ok(frame)) => gathering.add(frame),
        }
    }
}

/// What is read of a body, and goes back into it as one frame: many small ones would each need more room than what is in them.
struct Gathering<'a> {
    replay: &'a mut Replay,
    bytes: Vec<u8>,
    behind: VecDeque<Frame<Bytes>>,
}

impl<'a> Gathering<'a> {
    /// What was read for an earlier question is the beginning.
    fn of(replay: &'a mut Replay) -> Self {
        let before = std::mem::take(&mut replay.frames);
        let mut gathering = Self { replay, bytes: Vec::new(), behind: VecDeque::new() };
        before.into_iter().for_each(|frame| gathering.add(frame));
        gathering
    }

    fn add(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => self.bytes.extend_from_slice(&data),
            Err(other) => self.behind.push_back(other),
        }
    }

    fn put_back(&mut self) -> Bytes {
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        self.replay.frames.append(&mut self.behind);
        if !bytes.is_empty() {
            self.replay.frames.push_front(Frame::data(bytes.clone()));
        }
        bytes
    }

    fn end(mut self) -> Bytes {
        self.put_back()
    }
}

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.put_back();
    }
}

/// Why a body is not looked at, whatever is in it: an upstream goes by these headers, and would read something else.
fn unreadable(headers: &HeaderMap) -> Option<BodyFault> {
    // To servers that take `_` for `-` these are the real ones.
    if headers.contains_key("content_encoding") {
        return Some(BodyFault::Encoded);
    }
    if headers.contains_key("content_type") {
        return Some(BodyFault::NotJsonType);
    }
    if headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Some(BodyFault::Encoded);
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return Some(BodyFault::NotJsonType) };
    let Ok(text) = value.to_str() else { return Some(BodyFault::NotJsonType) };
    let text = text.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let json = kind == "application/json"
        || kind
            .strip_prefix("application/")
            .is_some_and(|rest| rest.ends_with("+json") && !rest.contains(','));
    let utf8 = parts.all(|part| match part.split_once('=') {
        // Also with a space before the `=`, and as `charset*` (RFC 2231), which some readers take.
        Some((name, charset)) if name.starts_with("charset") => {
            name == "charset" && matches!(charset.trim_matches('"'), "utf-8" | "utf8")
        }
        // Other parameters do not change how JSON is read (RFC 8259 §11).
        Some(_) => !part.contains(','),
        None => part.is_empty(),
    });
    (!json || !utf8).then_some(BodyFault::NotJsonType)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    /// A body that comes in pieces of one byte each, the second half only after nobody waits any more, as it goes on then.
    async fn in_two_halves(limit: usize) -> (Option<usize>, usize, Bytes) {
        use tokio::io::AsyncWriteExt as _;
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let serve = async {
            let served = crate::http1::Served::new(server);
            served.head(4096).await.unwrap().unwrap();
            let mut replay = Replay::of(super::super::body::Incoming::Http1(served.body(false)));
            let read = tokio::time::timeout(Duration::from_millis(100), read(&mut replay, limit)).await;
            let frames = replay.frames.len();
            let whole = replay.collect().await.unwrap().to_bytes();
            (read.ok().and_then(Result::ok).map(|bytes| bytes.len()), frames, whole)
        };
        let half = "1\r\nx\r\n".repeat(500);
        let send = async {
            let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
            client.write_all(format!("{head}{half}").as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            client.write_all(format!("{half}0\r\n\r\n").as_bytes()).await.unwrap();
        };
        tokio::join!(serve, send).0
    }

    #[tokio::test]
    async fn what_was_read_of_a_body_goes_on_in_one_piece_also_when_nobody_waits_any_more() {
        // In vain, as the rest did not come in time, and as it has more than is looked at.
        for limit in [10_000, 100] {
            let (read, frames, whole) = in_two_halves(limit).await;
            assert_eq!((read, frames), (None, 1), "many frames would take more room than what is in them");
            assert!(whole.len() == 1000 && whole.iter().all(|byte| *byte == b'x'), "{}", whole.len());
        }
    }

    #[test]
    fn conditions_see_the_headers_that_go_on_each_once() {
        let sent = map(&[
            ("x-env", "prod"),
            ("x-hidden", "1"),
            ("connection", "x-hidden"),
            ("authorization", "Bearer own"),
            ("x-key", "own"),
            ("x_env", "test"),
            ("x-env", "dev"),
            ("x_other", "2"),
        ]);
        let strip = Strip::of(&["x-key".to_owned()], &[], None);
        let seen = headers(&sent, Version::HTTP_11, false, Some(&strip));
        let expected = [("x-env", "prod, dev, test"), ("x-other", "2")];
        let mut seen: Vec<(&str, &str)> = seen.iter().map(|(name, value)| (&**name, &**value)).collect();
        seen.sort_unstable();
        let mut sorted = seen.clone();
        sorted.retain(|(name, _)| *name == "x-other");
        assert_eq!(sorted, expected[1..]);
        let env: Vec<&str> =
            seen.iter().filter(|(name, _)| *name == "x-env").map(|(_, value)| *value).collect();
        assert_eq!(env.len(), 1);
        for part in ["prod", "dev", "test"] {
            assert!(env[0].contains(part), "{env:?}");
        }
        assert_eq!(seen.len(), 2, "{seen:?}");
    }

    #[test]
    fn only_a_body_that_says_that_it_is_json_is_looked_at() {
        for (pairs, fault) in [
            (&[("content-type", "application/json")][..], None),
            (&[("content-type", "Application/JSON; charset=UTF-8")], None),
            (&[("content-type", "application/vnd.api+json; profile=\"x\"")], None),
            (&[("content-type", "application/json"), ("content-encoding", "identity")], None),
            (&[], Some(BodyFault::NotJsonType)),
            (&[("content-type", "application/x-www-form-urlencoded")], Some(BodyFault::NotJsonType)),
            (&[("content-type", "text/plain")], Some(BodyFault::NotJsonType)),
            (&[("content-type", "application/json; charset=utf-16")], Some(BodyFault::NotJsonType)),
            (&[("content-type", "application/json; charset =utf-7")], Some(BodyFault::NotJsonType)),
            (&[("content-type", "application/json; charset*=utf-8''utf-7")], Some(BodyFault::NotJsonType)),
            (&[("content-type", "application/json, text/plain")], Some(BodyFault::NotJsonType)),
            (&[("content-type", "application/json;x=y, text/plain")], Some(BodyFault::NotJsonType)),
            (
                &[("content-type", "application/json"), ("content-type", "text/plain")],
                Some(BodyFault::NotJsonType),
            ),
            (&[("content-type", "application/json"), ("content-encoding", "gzip")], Some(BodyFault::Encoded)),
            (&[("content-type", "application/json"), ("content_encoding", "gzip")], Some(BodyFault::Encoded)),
            (
                &[("content-type", "application/json"), ("content_type", "text/plain")],
                Some(BodyFault::NotJsonType),
            ),
        ] {
            assert_eq!(unreadable(&map(pairs)), fault, "{pairs:?}");
        }
    }
}
