//! Messages that two readers would frame in two ways: what is known of request smuggling, refused before anything acts on it.
//!
//! The rows are the classes of what is published of it: RFC 9112 §11.2, RFC 9113 §8.2 and §8.3, the mutations of smuggling
//! scanners (spaces, control characters and twins around `Transfer-Encoding`), the differences between servers that HTTP Garden
//! collects, what the tests of llhttp and h2spec refuse.

use tests::wait_until;
use tests::wire::Reply;

use super::Scene;

/// What would be smuggled: granted, so that nothing but the framing keeps it from the upstream.
const SMUGGLED: &str = "GET /v1/smuggled HTTP/1.1\r\nhost: raw.test\r\n\r\n";

/// Says `request` and behind it what would be smuggled. It must be refused with `status`, once, with a record that gives the reason,
/// and the connection closed; the upstream must not have been called at all.
#[track_caller]
fn refused(scene: &Scene, what: &str, request: &[u8], status: u16, reason: &str) {
    let (before, connections) = (scene.denials().len(), scene.upstream.connections());
    let came = scene.dialer.exchange(&[request, SMUGGLED.as_bytes()].concat());
    let mut rest = &came[..];
    let reply = Reply::read_one(&mut rest);
    assert_eq!(reply.status, status, "{what}: {}", String::from_utf8_lossy(&came));
    assert!(rest.is_empty(), "{what}: it went on after the refusal: {}", String::from_utf8_lossy(&came));
    wait_until(&format!("a record of: {what}"), || (scene.denials().len() > before).then_some(()));
    let record = scene.denials().pop().unwrap();
    let told = record["reason"].as_str().unwrap_or_default();
    assert!(told.contains(reason), "{what}: {record}");
    assert_eq!(scene.denials().len(), before + 1, "{what}: one record");
    let seen = scene.upstream.seen();
    assert!(seen.is_empty(), "{what}: the upstream saw {seen:?}");
    assert_eq!(scene.upstream.connections(), connections, "{what}: the upstream was called");
}

/// Fields behind `host`, with their end and a body.
fn fields(scene: &Scene, rows: &[(&str, &str, &str)]) {
    for (what, rest, reason) in rows {
        let request = format!("POST /v1/x HTTP/1.1\r\nhost: raw.test\r\n{rest}");
        refused(scene, what, request.as_bytes(), 400, reason);
    }
}

#[test]
fn lengths_and_codings_that_can_be_read_in_two_ways_are_400_and_nothing_behind_them_is_read() {
    let scene = Scene::set();
    let padded =
        format!("upgrade:{:120}websocket\r\nconnection: upgrade\r\ncontent-length: 5\r\n\r\nabcde", "");
    let digits = format!("content-length: {}\r\n\r\nabc", "9".repeat(400));
    fields(
        &scene,
        &[
            (
                "a length and chunks",
                "content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                "both",
            ),
            (
                "chunks and a length",
                "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
                "both",
            ),
            (
                "chunks and no length",
                "transfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n",
                "both",
            ),
            ("two lengths", "content-length: 3\r\ncontent-length: 4\r\n\r\nabc", "more than one"),
            ("the same length twice", "content-length: 3\r\ncontent-length: 3\r\n\r\nabc", "more than one"),
            ("a list of lengths", "content-length: 3, 3\r\n\r\nabc", "content-length"),
            ("a list of a length and nothing", "content-length: 3,\r\n\r\nabc", "content-length"),
            ("a length with a sign", "content-length: +3\r\n\r\nabc", "content-length"),
            ("a negative length", "content-length: -3\r\n\r\nabc", "content-length"),
            ("a length that overflows", "content-length: 18446744073709551619\r\n\r\nabc", "content-length"),
            ("a length of many digits", &digits, "content-length"),
            ("a length in hexadecimal", "content-length: 0x3\r\n\r\nabc", "content-length"),
            ("a length that looks octal", "content-length: 03\r\n\r\nabc", "content-length"),
            ("a length with a fraction", "content-length: 3.0\r\n\r\nabc", "content-length"),
            ("a length with an exponent", "content-length: 3e0\r\n\r\nabc", "content-length"),
            ("a length with an underscore", "content-length: 1_0\r\n\r\nabcdefghij", "content-length"),
            ("a quoted length", "content-length: \"3\"\r\n\r\nabc", "content-length"),
            ("two numbers", "content-length: 3 4\r\n\r\nabc", "content-length"),
            ("an empty length", "content-length:\r\n\r\nabc", "content-length"),
            ("a length behind a vertical tab", "content-length: \u{b}3\r\n\r\nabc", ""),
            ("a length behind a no-break space", "content-length: \u{a0}3\r\n\r\nabc", "content-length"),
            (
                "chunks twice",
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                "more than one",
            ),
            (
                "chunks and identity",
                "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
                "more than one",
            ),
            (
                "identity and chunks",
                "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                "transfer-encoding",
            ),
            (
                "chunked that is not last",
                "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
                "transfer-encoding",
            ),
            (
                "a coding below the chunks",
                "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
                "transfer-encoding",
            ),
            (
                "chunked twice in one",
                "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
                "transfer-encoding",
            ),
            ("an empty element", "transfer-encoding: , chunked\r\n\r\n0\r\n\r\n", "transfer-encoding"),
            ("a coding that is unknown", "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", "transfer-encoding"),
            (
                "a coding with more behind it",
                "transfer-encoding: chunkedx\r\n\r\n0\r\n\r\n",
                "transfer-encoding",
            ),
            (
                "a coding with a parameter",
                "transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
                "transfer-encoding",
            ),
            ("a quoted coding", "transfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n", "transfer-encoding"),
            ("a coding before a vertical tab", "transfer-encoding: chunked\u{b}\r\n\r\n0\r\n\r\n", ""),
            ("a coding behind a form feed", "transfer-encoding: \u{c}chunked\r\n\r\n0\r\n\r\n", ""),
            ("a coding behind a zero byte", "transfer-encoding: \0chunked\r\n\r\n0\r\n\r\n", ""),
            (
                "a coding behind a no-break space",
                "transfer-encoding: \u{a0}chunked\r\n\r\n0\r\n\r\n",
                "transfer-encoding",
            ),
            (
                "a coding with the dot of another alphabet",
                "transfer-encoding: chun\u{212a}ed\r\n\r\n0\r\n\r\n",
                "transfer-encoding",
            ),
            ("an empty coding", "transfer-encoding:\r\n\r\n0\r\n\r\n", "transfer-encoding"),
            ("a twin of the length", "content_length: 3\r\n\r\n", "content_length"),
            ("a twin of the coding", "transfer_encoding: chunked\r\n\r\n", "transfer_encoding"),
            (
                "a WebSocket with a body",
                "upgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 5\r\n\r\nabcde",
                "WebSocket",
            ),
            ("a WebSocket with a body, behind many blanks", &padded, "upgrade"),
            (
                "a WebSocket with chunks",
                "upgrade: websocket\r\nconnection: upgrade\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                "WebSocket",
            ),
        ],
    );
    scene.still_serves();
}

#[test]
fn lines_that_can_be_divided_in_two_ways_are_400_and_nothing_behind_them_is_read() {
    let scene = Scene::set();
    fields(
        &scene,
        &[
            ("a space before the colon", "content-length : 3\r\n\r\nabc", ""),
            ("a tab before the colon", "transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n", ""),
            ("a vertical tab before the colon", "transfer-encoding\u{b}: chunked\r\n\r\n0\r\n\r\n", ""),
            ("a zero byte before the colon", "transfer-encoding\0: chunked\r\n\r\n0\r\n\r\n", ""),
            ("a space before the name", " transfer-encoding: chunked\r\n\r\n0\r\n\r\n", ""),
            ("a folded line", "x-folded: a\r\n b\r\n\r\n", ""),
            ("a line folded by a tab", "x-folded: a\r\n\tb\r\n\r\n", ""),
            ("a folded coding", "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n", ""),
            ("a folded empty line", "x-folded: a\r\n \r\n\r\n", ""),
            ("a zero byte in a value", "x-zero: a\0b\r\n\r\n", ""),
            ("a zero byte in a name", "x-ze\0ro: a\r\n\r\n", ""),
            ("an escape in a value", "x-escape: a\u{1b}b\r\n\r\n", ""),
            ("a delete in a value", "x-delete: a\u{7f}b\r\n\r\n", ""),
            ("a letter that is none in a name", "x-\u{e9}: a\r\n\r\n", ""),
            ("a bracket in a name", "transfer-encoding(: chunked\r\n\r\n0\r\n\r\n", ""),
            ("a CR in a value", "x-return: a\rb\r\n\r\n", ""),
            (
                "a CR in a value and a header behind it",
                "x-return: a\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
                "",
            ),
            ("a CR too many", "x-return: a\r\r\n\r\n", ""),
            ("a CR in a name", "x-\rreturn: a\r\n\r\n", ""),
            ("a head that ends with CR CR LF", "x-return: a\r\n\r\r\n", ""),
            ("a line that ends with LF", "x-feed: a\nx-other: b\r\n\r\n", "LF alone"),
            ("a header behind LF", "x-feed: a\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "LF alone"),
            ("a head that ends with LF LF", "x-feed: a\n\n", "LF alone"),
            ("a head that ends with CR LF LF", "x-feed: a\r\n\n", "LF alone"),
            ("a head that ends with LF CR LF", "x-feed: a\n\r\n", "LF alone"),
            ("a line without a colon", "x-nothing\r\n\r\n", ""),
            ("a line without a name", ": nothing\r\n\r\n", ""),
        ],
    );
    scene.still_serves();
}

#[test]
fn start_lines_that_can_be_read_in_two_ways_are_400_and_nothing_behind_them_is_read() {
    let scene = Scene::set();
    let host = "host: raw.test\r\n\r\n";
    for (what, start, reason) in [
        ("LF behind the start line", "GET /v1/x HTTP/1.1\n", "LF alone"),
        ("CR CR LF behind the start line", "GET /v1/x HTTP/1.1\r\r\n", ""),
        ("CR behind the start line", "GET /v1/x HTTP/1.1\r", ""),
        ("a space before the first field", "GET /v1/x HTTP/1.1\r\n ", ""),
        ("a fragment", "GET /v1/x#/../admin HTTP/1.1\r\n", "fragment"),
        ("a space too many", "GET  /v1/x HTTP/1.1\r\n", ""),
        ("a space too many before the version", "GET /v1/x  HTTP/1.1\r\n", ""),
        ("a space behind the version", "GET /v1/x HTTP/1.1 \r\n", ""),
        ("tabs", "GET\t/v1/x\tHTTP/1.1\r\n", ""),
        ("a tab before the target", "GET \t/v1/x HTTP/1.1\r\n", ""),
        ("a vertical tab", "GET /v1/x\u{b}HTTP/1.1\r\n", ""),
        ("a space in the target", "GET /v1/x /y HTTP/1.1\r\n", ""),
        ("a whole request in the target", "GET /v1/x HTTP/1.1 HTTP/1.1\r\n", ""),
        ("a zero byte in the target", "GET /v1/\0x HTTP/1.1\r\n", ""),
        ("a method that is none", "GE(T /v1/x HTTP/1.1\r\n", ""),
        ("a space before the method", " GET /v1/x HTTP/1.1\r\n", ""),
        ("HTTP/1.2", "GET /v1/x HTTP/1.2\r\n", ""),
        ("HTTP/1.9", "GET /v1/x HTTP/1.9\r\n", ""),
        ("HTTP/1.01", "GET /v1/x HTTP/1.01\r\n", ""),
        ("HTTP/1.10", "GET /v1/x HTTP/1.10\r\n", ""),
        ("HTTP/2.0 in text", "GET /v1/x HTTP/2.0\r\n", ""),
        ("HTTP/2 in text", "GET /v1/x HTTP/2\r\n", ""),
        ("HTTP/0.9 with a version", "GET /v1/x HTTP/0.9\r\n", ""),
        ("a version in small letters", "GET /v1/x http/1.1\r\n", ""),
        ("another protocol", "GET /v1/x HTTPS/1.1\r\n", ""),
        ("HTTP/0.9", "GET /v1/x\r\n", ""),
        ("LF before it", "\nGET /v1/x HTTP/1.1\r\n", "LF alone"),
        ("two empty lines before it", "\r\n\r\nGET /v1/x HTTP/1.1\r\n", "empty lines"),
        ("CR before it", "\rGET /v1/x HTTP/1.1\r\n", ""),
        ("a target without a slash", "GET v1/x HTTP/1.1\r\n", ""),
        ("an absolute form without a host", "GET https:///v1/x HTTP/1.1\r\n", ""),
        ("an absolute form with a user", "GET https://me@raw.test/v1/x HTTP/1.1\r\n", ""),
    ] {
        refused(&scene, what, format!("{start}{host}").as_bytes(), 400, reason);
    }
    let old = "POST /v1/x HTTP/1.0\r\nhost: raw.test\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    refused(&scene, "chunks over HTTP/1.0", old.as_bytes(), 400, "");
    scene.still_serves();
}

#[test]
fn what_is_refused_behind_a_good_request_takes_nothing_from_it() {
    let scene = Scene::set();
    let good = "GET /v1/good HTTP/1.1\r\nhost: raw.test\r\n\r\n";
    let bad =
        "POST /v1/bad HTTP/1.1\r\nhost: raw.test\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n";
    let all = format!("{good}\r\n{good}{bad}0\r\n\r\n{SMUGGLED}");
    let came = scene.dialer.exchange(all.as_bytes());
    let mut rest = &came[..];
    let statuses: Vec<u16> = (0..3).map(|_| Reply::read_one(&mut rest).status).collect();
    assert_eq!(statuses, [200, 200, 400], "{}", String::from_utf8_lossy(&came));
    assert!(rest.is_empty());
    let seen: Vec<_> = scene.upstream.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(seen, ["/v1/good", "/v1/good"]);
    // Of a method that is read as it is, and is not granted.
    for method in ["get", "Get", "PROPFIND"] {
        let came = scene.dialer.say(format!("{method} /v1/x HTTP/1.1\r\nhost: raw.test\r\n\r\n").as_bytes());
        assert_eq!(came.status, 403, "{method}");
    }
    for method in ["TRACE", "TRACK"] {
        let came = scene.dialer.say(format!("{method} /v1/x HTTP/1.1\r\nhost: raw.test\r\n\r\n").as_bytes());
        assert_eq!(came.status, 405, "{method}");
    }
    assert_eq!(scene.upstream.count(), 2);
}

#[test]
fn a_body_whose_chunks_can_be_read_in_two_ways_breaks_off_and_smuggles_nothing() {
    let scene = Scene::set();
    for (what, body) in [
        ("a size that is none", "zz\r\nabc\r\n0\r\n\r\n"),
        ("no size", "\r\nabc\r\n0\r\n\r\n"),
        ("a size that overflows", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
        ("a size that overflows to a small one", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
        ("a size with a prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("a size with a sign", "+3\r\nabc\r\n0\r\n\r\n"),
        ("a negative size", "-3\r\nabc\r\n0\r\n\r\n"),
        ("a size behind a space", " 3\r\nabc\r\n0\r\n\r\n"),
        ("a size before a space", "3 \r\nabc\r\n0\r\n\r\n"),
        ("a size with an underscore", "0_3\r\nabc\r\n0\r\n\r\n"),
        ("a size with a zero byte", "3\0\r\nabc\r\n0\r\n\r\n"),
        ("a size before LF", "3\nabc\r\n0\r\n\r\n"),
        ("a chunk longer than its size", "1\r\nabc\r\n0\r\n\r\n"),
        ("a chunk shorter than its size", "4\r\nabc\r\n0\r\n\r\n"),
        ("a chunk without an end", "3\r\nabc0\r\n\r\n"),
        ("a chunk that ends with LF", "3\r\nabc\n0\r\n\r\n"),
        ("a chunk that ends with CR", "3\r\nabc\r0\r\n\r\n"),
        ("an extension of nothing", "3;\r\nabc\r\n0\r\n\r\n"),
        ("an extension with LF", "0;a\n\r\n\r\n"),
        ("an extension with CR", "0;a\rb\r\n\r\n"),
        ("an extension with a zero byte", "0;a\0b\r\n\r\n"),
        ("an end with LF", "0\r\n\n"),
        ("a trailer with LF", "0\r\nx-a: b\n\r\n"),
        ("trailers that end with LF", "0\r\nx-a: b\r\n\n"),
        ("trailers behind the end of LF LF", "0\r\nx-a: b\n\nx-c: d\r\n\r\n"),
        ("a trailer with CR", "0\r\nx-a: b\rc\r\n\r\n"),
        ("a trailer with a zero byte", "0\r\nx-a: b\0c\r\n\r\n"),
        ("a folded trailer", "0\r\nx-a: b\r\n c\r\n\r\n"),
        ("a trailer with a space before the colon", "0\r\nx-a : b\r\n\r\n"),
        ("a trailer without a colon", "0\r\nx-a\r\n\r\n"),
    ] {
        let path = format!("/v1/chunks/{}", what.replace(' ', "-"));
        let request = format!(
            "PUT {path} HTTP/1.1\r\nhost: raw.test\r\ntransfer-encoding: chunked\r\n\r\n{body}{SMUGGLED}"
        );
        let came = scene.dialer.exchange(request.as_bytes());
        let mut rest = &came[..];
        let reply = Reply::read_one(&mut rest);
        assert!([0, 400].contains(&reply.status), "{what}: {reply:?}");
        assert!(rest.is_empty(), "{what}: {}", String::from_utf8_lossy(&came));
        // Its head may have been there already; a whole request may not.
        let seen = scene.upstream.seen();
        assert!(seen.is_empty(), "{what}: the upstream saw {seen:?}");
        let outcome = super::outcome(&scene.world, &path);
        assert_eq!(outcome["blame"], "client", "{what}: {outcome}");
    }
    // What may stand in a trailer, but not if a server takes it for a field of the head.
    for field in [
        "Content-Length: 3",
        "Transfer-Encoding: chunked",
        "Transfer_Encoding: chunked",
        "Host: api.test",
        "Connection: close",
        "Content-Type: text/plain",
        "Content-Encoding: gzip",
        "Expect: 100-continue",
        "X-HTTP-Method-Override: DELETE",
        "TE: trailers",
    ] {
        let name = field.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let path = format!("/v1/trailer/{name}");
        let request = format!(
            "PUT {path} HTTP/1.1\r\nhost: raw.test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{field}\r\n\r\n"
        );
        let came = scene.dialer.exchange(format!("{request}{SMUGGLED}").as_bytes());
        let mut rest = &came[..];
        assert_eq!(Reply::read_one(&mut rest).status, 400, "{field}: {}", String::from_utf8_lossy(&came));
        assert!(rest.is_empty(), "{field}: {}", String::from_utf8_lossy(&came));
        let outcome = super::outcome(&scene.world, &path);
        assert_eq!(outcome["blame"], "client", "{field}: {outcome}");
        assert!(outcome["error"].as_str().unwrap().contains(&name), "{field}: {outcome}");
        assert!(scene.upstream.seen().is_empty(), "{field}: {:?}", scene.upstream.seen());
    }
    // What may stand there goes on, without the extension.
    let body = "3;name=\"value\"\r\nabc\r\n00\r\nx-a: b\r\n\r\n";
    let request = format!(
        "PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\ntrailer: x-a\r\ntransfer-encoding: chunked\r\n\r\n{body}{SMUGGLED}"
    );
    assert_eq!(scene.dialer.say(request.as_bytes()).status, 200);
    scene.upstream.wait_for(2);
    let seen = scene.upstream.seen();
    assert_eq!(&seen[0].body, b"abc");
    assert_eq!(seen[0].trailers, [("x-a".to_owned(), "b".to_owned())]);
    assert_eq!(seen[1].target, "/v1/smuggled", "it is a request of its own then");
}

#[test]
fn a_websocket_that_is_not_given_ends_the_connection_with_what_came_behind_it() {
    let scene = Scene::set();
    let ask = "GET /v1/x HTTP/1.1\r\nhost: raw.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
               sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let came = scene.dialer.exchange(format!("{ask}{SMUGGLED}\n\n\0").as_bytes());
    let mut rest = &came[..];
    let reply = Reply::read_one(&mut rest);
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{reply:?}");
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&came));
    assert_eq!(scene.upstream.count(), 1, "{:?}", scene.upstream.seen());
}

/// The mutations that scanners try: a byte at each place around `Transfer-Encoding`, beside an honest length. To some server each of
/// them is the coding; so it goes on as one message of that length without anything that could be one, or not at all.
#[test]
fn whatever_stands_around_a_coding_it_is_refused_or_goes_on_as_one_message_without_it() {
    const PLACES: [(&[u8], &[u8]); 12] = [
        (b"Transfer-Encoding:", b"chunked"),
        (b"Transfer-Encoding", b": chunked"),
        (b"Transfer-Encoding", b"chunked"),
        (b"", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b""),
        (b"Transfer-Encoding: chunk", b"ed"),
        (b"Transfer", b"-Encoding: chunked"),
        (b"Transfer", b"Encoding: chunked"),
        (b"X: X", b"Transfer-Encoding: chunked"),
        (b"X: X\r", b"Transfer-Encoding: chunked"),
        (b"X: X", b"\rTransfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"X: X"),
    ];
    const BYTES: [u8; 21] = [
        0x00, 0x01, 0x04, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x1f, 0x20, 0x22, 0x27, 0x2c, 0x3b, 0x5c, 0x5f,
        0x7f, 0x85, 0xa0, 0xff,
    ];
    let scene = Scene::set();
    let (mut refused, mut passed) = (0, 0);
    for (before, behind) in PLACES {
        for byte in BYTES {
            let body = b"0\r\n\r\n";
            let head = format!("PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\ncontent-length: {}\r\n", body.len());
            let line = [before, &[byte], behind, b"\r\n"].concat();
            let what = String::from_utf8_lossy(&line).into_owned();
            let request =
                [head.as_bytes(), &line, b"connection: close\r\n\r\n", body, SMUGGLED.as_bytes()].concat();
            let count = scene.upstream.count();
            let came = scene.dialer.exchange(&request);
            let mut rest = &came[..];
            let reply = Reply::read_one(&mut rest);
            assert!(rest.is_empty(), "{what:?}: {}", String::from_utf8_lossy(&came));
            let seen = scene.upstream.seen().split_off(count);
            match reply.status {
                400 => {
                    refused += 1;
                    assert!(seen.is_empty(), "{what:?}: {seen:?}");
                }
                200 => {
                    passed += 1;
                    let [seen] = &seen[..] else { panic!("{what:?}: {seen:?}") };
                    assert_eq!(
                        (&seen.body[..], seen.header("content-length")),
                        (&body[..], Some("5")),
                        "{what:?}"
                    );
                    let coding = |name: &str| name.replace('_', "-") == "transfer-encoding";
                    assert!(!seen.headers.iter().any(|(name, _)| coding(name)), "{what:?}: {:?}", seen.head);
                    assert!(
                        !seen.head.replace("\r\n", "").contains(['\r', '\n', '\0']),
                        "{what:?}: {:?}",
                        seen.head
                    );
                }
                other => panic!("{what:?}: {other} {}", String::from_utf8_lossy(&came)),
            }
        }
    }
    // Most of them; what goes on has it in the middle of another field's value or name.
    assert!(refused > 200 && passed > 5, "{refused} refused, {passed} passed");
}
