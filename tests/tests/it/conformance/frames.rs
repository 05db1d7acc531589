//! Frames of HTTP/2 that break its rules (RFC 9113; sections as there), and those that only look like it. The cases are those of
//! h2spec, which no package carries.

use tests::World;
use tests::frames::{
    ACK, CONTINUATION, DATA, Dealt, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, Origin, PADDED, PING,
    PREFACE, PRIORITIZED, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};
use tests::upstream::Upstream;
use tests::wire::Dialer;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;

/// What must become of it.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// The connection ends with one of these errors, or the one for all that break the rules: the h2 crate is not always more exact.
    Connection(&'static [u32]),
    /// The stream, or the whole connection (§5.4.2), ends with one of these.
    Stream(u32, &'static [u32]),
    /// Nothing: the request on this stream is answered with 200.
    Served(u32),
}
use Expect::{Connection, Served, Stream};

fn head(path: &str, method: &str) -> Vec<u8> {
    block(&[
        (b":method", method.as_bytes()),
        (b":scheme", b"https"),
        (b":path", path.as_bytes()),
        (b":authority", b"raw.test"),
    ])
}

/// A whole request for what is answered.
fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/v1/x", "GET"))
}

/// A whole request for what is not answered.
fn hang(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/v1/never", "GET"))
}

/// A request whose body follows.
fn put(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head("/v1/x", "PUT"))
}

fn setting(kind: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&kind.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// The request of a stream in a header block that goes on with these bytes.
fn spoiled(stream: u32, bytes: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[&head("/v1/x", "GET"), bytes].concat())
}

/// A frame whose length on the wire is another one than that of its payload.
fn reserved(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[5] |= 0x80;
    bytes
}

/// Section, what it is, what is sent, and what must become of it.
type Case = (&'static str, &'static str, Vec<Vec<u8>>, Expect);

fn cases() -> Vec<Case> {
    let text = head("/v1/x", "GET");
    let (begin, end) = text.split_at(20);
    let tiny = |kind, flags, stream| frame(kind, flags, stream, &[]);
    let mut cases = connection_cases();
    cases.extend([
        ("5.1", "DATA on an idle stream", vec![frame(DATA, 0, 1, b"x")], Connection(&[PROTOCOL_ERROR])),
        (
            "5.1",
            "RST_STREAM of an idle stream",
            vec![frame(RST_STREAM, 0, 1, &[0; 4])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        ("5.1", "WINDOW_UPDATE of an idle stream", vec![window(1, 1)], Connection(&[PROTOCOL_ERROR])),
        (
            "5.1",
            "CONTINUATION of an idle stream",
            vec![frame(CONTINUATION, END_HEADERS, 1, &text)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "5.1",
            "DATA behind END_STREAM",
            vec![hang(1), frame(DATA, 0, 1, b"x")],
            Stream(1, &[STREAM_CLOSED]),
        ),
        ("5.1", "HEADERS behind END_STREAM", vec![hang(1), hang(1)], Stream(1, &[STREAM_CLOSED])),
        (
            "5.1",
            "CONTINUATION behind END_STREAM",
            vec![hang(1), frame(CONTINUATION, END_HEADERS, 1, &text)],
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        (
            "5.1",
            "DATA behind RST_STREAM",
            vec![put(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), frame(DATA, 0, 1, b"x"), get(3)],
            Served(3),
        ),
        (
            "5.1",
            "HEADERS behind RST_STREAM",
            vec![hang(1), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), hang(1)],
            Stream(1, &[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
        (
            "5.1",
            "PRIORITY of an idle stream",
            vec![frame(PRIORITY, 0, 9, &[0, 0, 0, 0, 1]), get(11)],
            Served(11),
        ),
        ("5.1.1", "a stream of a server's number", vec![get(2)], Connection(&[PROTOCOL_ERROR])),
        (
            "5.1.1",
            "a number that goes back",
            vec![hang(5), get(3)],
            Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        (
            "5.3",
            "HEADERS that depend on themselves",
            vec![frame(
                HEADERS,
                END_HEADERS | END_STREAM | PRIORITIZED,
                1,
                &[&[0, 0, 0, 1, 0][..], &text].concat(),
            )],
            Stream(1, &[PROTOCOL_ERROR]),
        ),
        (
            "6.1",
            "DATA whose padding is all and more",
            vec![put(1), frame(DATA, PADDED | END_STREAM, 1, &[2, 0])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.1",
            "DATA with padding",
            vec![put(1), frame(DATA, PADDED | END_STREAM, 1, &[2, b'x', 0, 0])],
            Served(1),
        ),
        (
            "6.2",
            "HEADERS with padding",
            vec![frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[&[2][..], &text, &[0, 0]].concat())],
            Served(1),
        ),
        (
            "6.2",
            "HEADERS whose padding is all and more",
            vec![frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[9, 0, 0])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.2",
            "HEADERS with a priority",
            vec![frame(
                HEADERS,
                END_HEADERS | END_STREAM | PRIORITIZED,
                1,
                &[&[0, 0, 0, 0, 15][..], &text].concat(),
            )],
            Served(1),
        ),
        (
            "6.3",
            "PRIORITY of four bytes",
            vec![hang(1), frame(PRIORITY, 0, 1, &[0; 4])],
            Stream(1, &[FRAME_SIZE_ERROR]),
        ),
        (
            "6.4",
            "RST_STREAM of three bytes",
            vec![hang(1), frame(RST_STREAM, 0, 1, &[0; 3])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        (
            "6.9",
            "a stream's WINDOW_UPDATE of nothing",
            vec![hang(1), window(1, 0)],
            Stream(1, &[PROTOCOL_ERROR]),
        ),
        (
            "6.9.1",
            "a stream's window above 2^31-1",
            vec![hang(1), window(1, 0x7fff_ffff), window(1, 0x7fff_ffff)],
            Stream(1, &[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.10",
            "a header block in several frames",
            vec![
                frame(HEADERS, END_STREAM, 1, begin),
                frame(CONTINUATION, 0, 1, &end[..9]),
                tiny(CONTINUATION, 0, 1),
                frame(CONTINUATION, END_HEADERS, 1, &end[9..]),
            ],
            Served(1),
        ),
        (
            "6.10",
            "another frame in a header block",
            vec![frame(HEADERS, END_STREAM, 1, begin), frame(PING, 0, 0, &[0; 8])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.10",
            "another stream's CONTINUATION in a header block",
            vec![frame(HEADERS, END_STREAM, 1, begin), frame(CONTINUATION, END_HEADERS, 3, end)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.10",
            "another stream's HEADERS in a header block",
            vec![frame(HEADERS, END_STREAM, 1, begin), get(3)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.10",
            "an unknown frame in a header block",
            vec![frame(HEADERS, END_STREAM, 1, begin), frame(0x16, 0, 1, &[])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.10",
            "CONTINUATION behind END_HEADERS",
            vec![frame(HEADERS, END_HEADERS, 1, &text), frame(CONTINUATION, END_HEADERS, 1, &[])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "8.1",
            "trailers that do not end the stream",
            vec![put(1), frame(HEADERS, END_HEADERS, 1, &block(&[(b"x-a", b"b")]))],
            Stream(1, &[PROTOCOL_ERROR]),
        ),
        // Malformed; the h2 crate leaves the field out instead, and nobody sees it.
        (
            "8.1",
            "a pseudo-header in trailers",
            vec![put(1), frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(b":path", b"/v1/y")]))],
            Served(1),
        ),
        (
            "8.4",
            "PUSH_PROMISE of a client",
            vec![hang(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &text].concat())],
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]);
    cases
}

/// Of the connection as a whole, and of compressed fields.
fn connection_cases() -> Vec<Case> {
    let largest = 1 << 14;
    vec![
        ("4.1", "an unknown frame", vec![frame(0x16, 0xff, 0, &[1; 9]), get(1)], Served(1)),
        (
            "4.1",
            "flags and a bit that mean nothing",
            vec![reserved(frame(PING, 0xfe, 0, &[0; 8])), reserved(get(1))],
            Served(1),
        ),
        ("4.2", "the largest DATA", vec![put(1), frame(DATA, END_STREAM, 1, &vec![0; largest])], Served(1)),
        (
            "4.2",
            "DATA one byte larger",
            vec![put(1), frame(DATA, END_STREAM, 1, &vec![0; largest + 1])],
            Stream(1, &[FRAME_SIZE_ERROR]),
        ),
        (
            "4.2",
            "HEADERS one byte larger",
            vec![frame(HEADERS, END_HEADERS | END_STREAM, 1, &vec![0; largest + 1])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        ("4.3", "an index that no table has", vec![spoiled(1, &[0xc6])], Connection(&[COMPRESSION_ERROR])),
        ("4.3", "the index 0", vec![spoiled(1, &[0x80])], Connection(&[COMPRESSION_ERROR])),
        (
            "4.3",
            "a name by an index that no table has",
            vec![spoiled(1, &[0x7f, 0x20, 1, b'x'])],
            Connection(&[COMPRESSION_ERROR]),
        ),
        (
            "4.3",
            "a table larger than allowed",
            vec![frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[&[0x3f, 0xe2, 0x1f][..], &head("/v1/x", "GET")].concat(),
            )],
            Connection(&[COMPRESSION_ERROR]),
        ),
        (
            "4.3",
            "a new size of the table behind a field",
            vec![spoiled(1, &[0x20])],
            Connection(&[COMPRESSION_ERROR]),
        ),
        (
            "4.3",
            "Huffman padding of eight bits",
            vec![spoiled(1, &[0, 1, b'a', 0x82, 0x1f, 0xff])],
            Connection(&[COMPRESSION_ERROR]),
        ),
        (
            "4.3",
            "Huffman padding of zeros",
            vec![spoiled(1, &[0, 1, b'a', 0x81, 0x18])],
            Connection(&[COMPRESSION_ERROR]),
        ),
        (
            "4.3",
            "the end of strings within a Huffman string",
            vec![spoiled(1, &[0, 1, b'a', 0x84, 0xff, 0xff, 0xff, 0xff])],
            Connection(&[COMPRESSION_ERROR]),
        ),
        (
            "4.3",
            "a string longer than its block",
            vec![spoiled(1, &[0, 1, b'a', 0x7f, 0xff, 0x7f])],
            Connection(&[COMPRESSION_ERROR]),
        ),
        (
            "4.3",
            "an integer without end",
            vec![spoiled(1, &[&[0xff][..], &[0xff; 9], &[0x7f]].concat())],
            Connection(&[COMPRESSION_ERROR]),
        ),
        (
            "6.1",
            "DATA of the connection",
            vec![frame(DATA, END_STREAM, 0, b"x")],
            Connection(&[PROTOCOL_ERROR]),
        ),
        ("6.2", "HEADERS of the connection", vec![get(0)], Connection(&[PROTOCOL_ERROR])),
        (
            "6.3",
            "PRIORITY of the connection",
            vec![frame(PRIORITY, 0, 0, &[0; 5])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.4",
            "RST_STREAM of the connection",
            vec![frame(RST_STREAM, 0, 0, &[0; 4])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.5",
            "an acknowledgement of settings with some",
            vec![frame(SETTINGS, ACK, 0, &[0; 6])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        (
            "6.5",
            "SETTINGS of a stream",
            vec![frame(SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 9])],
            Connection(&[PROTOCOL_ERROR]),
        ),
        (
            "6.5",
            "SETTINGS of five bytes",
            vec![frame(SETTINGS, 0, 0, &[0; 5])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        ("6.5.2", "ENABLE_PUSH of 2", vec![setting(2, 2)], Connection(&[PROTOCOL_ERROR])),
        (
            "6.5.2",
            "INITIAL_WINDOW_SIZE above 2^31-1",
            vec![setting(4, 1 << 31)],
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.5.2",
            "MAX_FRAME_SIZE below 2^14",
            vec![setting(5, (1 << 14) - 1)],
            Connection(&[PROTOCOL_ERROR]),
        ),
        ("6.5.2", "MAX_FRAME_SIZE above 2^24-1", vec![setting(5, 1 << 24)], Connection(&[PROTOCOL_ERROR])),
        ("6.5.2", "an unknown setting", vec![setting(0xff, 7), get(1)], Served(1)),
        ("6.7", "PING of a stream", vec![frame(PING, 0, 1, &[0; 8])], Connection(&[PROTOCOL_ERROR])),
        ("6.7", "PING of six bytes", vec![frame(PING, 0, 0, &[0; 6])], Connection(&[FRAME_SIZE_ERROR])),
        ("6.8", "GOAWAY of a stream", vec![frame(GOAWAY, 0, 1, &[0; 8])], Connection(&[PROTOCOL_ERROR])),
        ("6.8", "GOAWAY behind a request", vec![get(1), frame(GOAWAY, 0, 0, &[0; 8])], Served(1)),
        ("6.9", "a WINDOW_UPDATE of nothing", vec![window(0, 0)], Connection(&[PROTOCOL_ERROR])),
        (
            "6.9",
            "a WINDOW_UPDATE of three bytes",
            vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
            Connection(&[FRAME_SIZE_ERROR]),
        ),
        (
            "6.9.1",
            "a window above 2^31-1",
            vec![window(0, 0x7fff_ffff), window(0, 0x7fff_ffff)],
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.9.2",
            "a stream's window above 2^31-1 by a setting",
            vec![hang(1), window(1, 0x7fff_0000), setting(4, 0x7fff_ffff)],
            Connection(&[FLOW_CONTROL_ERROR]),
        ),
        (
            "6.10",
            "CONTINUATION of the connection",
            vec![
                frame(HEADERS, END_STREAM, 1, &head("/v1/x", "GET")),
                frame(CONTINUATION, END_HEADERS, 0, &[]),
            ],
            Connection(&[PROTOCOL_ERROR]),
        ),
    ]
}

#[test]
fn frames_that_break_the_rules_end_their_stream_or_connection_with_the_error_that_the_standard_names() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    let dialer = Dialer::new(&world);
    let mut wrong = Vec::new();
    for (section, what, bytes, expect) in cases() {
        let mut bot = Http2::open(&dialer);
        // What breaks the rules may be answered before all of it is out.
        let _ = bot.raw(&bytes.concat());
        let stream = match expect {
            Connection(_) => 0,
            Stream(stream, _) | Served(stream) => stream,
        };
        let dealt = bot.dealt(stream);
        let is_right = match (expect, &dealt) {
            (Connection(codes) | Stream(_, codes), Dealt::GoneAway(code)) => {
                codes.contains(code) || *code == PROTOCOL_ERROR
            }
            (Stream(_, codes), Dealt::Reset(code)) => codes.contains(code),
            (Served(_), Dealt::Answered(200)) => true,
            _ => false,
        };
        if !is_right {
            wrong.push(format!("§{section} {what}: {dealt:?}, not {expect:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| seen.target != "/v1/y" && seen.trailers.is_empty()), "{seen:?}");
}

/// What an upstream answers on the stream of a request, and what its client gets.
fn answers() -> Vec<(&'static str, Vec<Vec<u8>>, u16)> {
    let flags = END_HEADERS | END_STREAM;
    let ok = |fields: &[(&[u8], &[u8])]| frame(HEADERS, flags, 1, &[&[0x88][..], &block(fields)].concat());
    vec![
        ("an answer", vec![ok(&[])], 200),
        ("unknown frames before it", vec![frame(0x16, 0xff, 1, &[1; 9]), ok(&[])], 200),
        (
            "100 and 103 before it",
            vec![
                frame(HEADERS, END_HEADERS, 1, &block(&[(b":status", b"100")])),
                frame(HEADERS, END_HEADERS, 1, &block(&[(b":status", b"103"), (b"link", b"</x>")])),
                ok(&[]),
            ],
            200,
        ),
        ("DATA before its head", vec![frame(DATA, END_STREAM, 1, b"x")], 502),
        ("no status", vec![frame(HEADERS, flags, 1, &block(&[(b"x", b"y")]))], 502),
        ("two statuses", vec![frame(HEADERS, flags, 1, &[0x88, 0x88])], 502),
        (
            "the status behind a field",
            vec![frame(HEADERS, flags, 1, &[&block(&[(b"x", b"y")])[..], &[0x88]].concat())],
            502,
        ),
        ("a status of two digits", vec![frame(HEADERS, flags, 1, &block(&[(b":status", b"20")]))], 502),
        (
            "101, which HTTP/2 does not have",
            vec![frame(HEADERS, flags, 1, &block(&[(b":status", b"101")]))],
            502,
        ),
        ("a name in capitals", vec![ok(&[(b"X-A", b"b")])], 502),
        ("a field of a connection", vec![ok(&[(b"connection", b"keep-alive")])], 502),
        ("a coding of HTTP/1", vec![ok(&[(b"transfer-encoding", b"chunked")])], 502),
        ("a value with the end of a line in it", vec![ok(&[(b"x-a", b"b\r\nx-c: d")])], 502),
        (
            "a push that nobody asked for",
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2][..], &head("/v1/x", "GET")].concat())],
            502,
        ),
        ("a stream that nobody opened", vec![frame(HEADERS, flags, 2, &[0x88])], 502),
        ("an index that no table has", vec![frame(HEADERS, flags, 1, &[0x88, 0xc6])], 502),
        ("SETTINGS of five bytes", vec![frame(SETTINGS, 0, 0, &[0; 5])], 502),
        // A server may not; the h2 crate takes no notice, and a push is refused all the same.
        ("permission to push", vec![setting(2, 1), ok(&[])], 200),
        ("a window above 2^31-1", vec![window(0, 0x7fff_ffff)], 502),
        ("a frame larger than allowed", vec![frame(HEADERS, END_HEADERS, 1, &vec![0; 17 << 10])], 502),
    ]
}

#[test]
fn an_upstream_that_breaks_the_rules_of_http2_is_502_and_to_blame_and_the_next_call_is_served() {
    let world = World::start();
    for (what, answer, status) in answers() {
        let path = format!("/v1/{}", what.replace(' ', "-").replace(['/', ','], ""));
        for version in ["--http2", "--http1.1"] {
            let bytes = answer.concat();
            let _origin = Origin::start(&world, move |_, upstream| {
                upstream.request();
                let _ = upstream.raw(&bytes);
                // Until the daemon has had enough.
                while upstream.read().is_some_and(|frame| frame.kind != GOAWAY && frame.kind != RST_STREAM) {}
            });
            let answer = world.curl(&[version, "-X", "PUT", "-d", "x", &format!("https://raw.test{path}")]);
            assert_eq!(answer.status, status, "{what}: {answer:?}");
            if status == 502 {
                assert_eq!(super::outcome(&world, &path)["blame"], "upstream", "{what}");
            }
        }
    }
    assert!(!world.log().contains("panicked"), "{}", world.log());
    assert_eq!(world.curl(&["https://api.test/v1/still"]).status, 200);
}

#[test]
fn pings_are_answered_with_what_was_in_them_and_acknowledgements_are_not() {
    let world = World::start();
    let mut bot = Http2::open(&Dialer::new(&world));
    bot.send(PING, ACK, 0, b"not-sent").unwrap();
    bot.send(PING, 0, 0, b"answered").unwrap();
    let mut came = std::iter::from_fn(|| bot.read()).filter(|frame| frame.kind == PING);
    let answer = came.next().unwrap();
    assert_eq!((answer.flags, &answer.payload[..]), (ACK, &b"answered"[..]));
}

#[test]
fn what_does_not_begin_with_the_preface_of_http2_is_closed_and_asks_for_nothing() {
    let world = World::start();
    let dialer = Dialer::new(&world);
    let other = [&PREFACE[..PREFACE.len() - 2], b"XX"].concat();
    for (what, bytes) in [
        ("another preface", other),
        ("a request of HTTP/1", b"GET /v1/x HTTP/1.1\r\nhost: raw.test\r\n\r\n".to_vec()),
    ] {
        let mut bot = Http2::dial(&dialer);
        bot.raw(&bytes).unwrap();
        let dealt = bot.dealt(1);
        assert!(matches!(dealt, Dealt::GoneAway(PROTOCOL_ERROR) | Dealt::Closed), "{what}: {dealt:?}");
        bot.tcp().set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        assert!(std::iter::from_fn(|| bot.read()).all(|frame| frame.kind != HEADERS), "{what}");
    }
}
