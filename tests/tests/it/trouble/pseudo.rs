//! Requests over HTTP/2 that are none, or would be something else over HTTP/1 (RFC 9113 §8.2, §8.3, §10.3): each is refused, told in
//! the journal, and never comes to an upstream that speaks HTTP/1.
//!
//! The rows are what h2spec has in its section 8, and the published ways of smuggling through a translation to HTTP/1.

use tests::frames::{self, DATA, Dealt, END_HEADERS, END_STREAM, HEADERS, Http2};
use tests::wait_until;

use super::Scene;

type Field<'a> = (&'a [u8], &'a [u8]);

const PROTOCOL_ERROR: u32 = 1;

const METHOD: Field<'static> = (b":method", b"GET");
const SCHEME: Field<'static> = (b":scheme", b"https");
const PATH: Field<'static> = (b":path", b"/v1/x");
const AUTHORITY: Field<'static> = (b":authority", b"raw.test");

/// Says a request of these fields, with a body if there is one. It must be refused, with a record that gives the reason, and not come
/// to the upstream.
#[track_caller]
fn refused(scene: &Scene, what: &str, fields: &[Field<'_>], body: Option<&[u8]>) {
    let before = scene.denials().len();
    let mut bot = Http2::open(&scene.dialer);
    let flags = if body.is_some() { END_HEADERS } else { END_HEADERS | END_STREAM };
    bot.send(HEADERS, flags, 1, &frames::block(fields)).unwrap();
    if let Some(body) = body {
        // It may have been refused by now.
        let _ = bot.send(DATA, END_STREAM, 1, body);
    }
    let dealt = bot.dealt(1);
    let as_expected = matches!(
        dealt,
        Dealt::Answered(400) | Dealt::Reset(PROTOCOL_ERROR) | Dealt::GoneAway(PROTOCOL_ERROR)
    );
    assert!(as_expected, "{what}: {dealt:?}");
    wait_until(&format!("a record of: {what}"), || (scene.denials().len() > before).then_some(()));
    let seen = scene.upstream.seen();
    assert!(seen.is_empty(), "{what}: the upstream saw {seen:?}");
}

#[test]
fn fields_that_no_request_over_http2_may_have_are_refused() {
    let scene = Scene::set();
    let rows: &[(&str, Field<'_>)] = &[
        ("a name in capitals", (b"X-Upper", b"a")),
        ("an empty name", (b"", b"a")),
        ("a name with a colon", (b"x:y", b"a")),
        ("a name with a colon that looks like a line", (b"transfer-encoding: chunked\r\nx", b"a")),
        ("a name with a space", (b"x y", b"a")),
        ("a name with CR LF", (b"x\r\ny", b"a")),
        ("a name with LF", (b"x\ny", b"a")),
        ("a name with a zero byte", (b"x\0", b"a")),
        ("a name with a letter that is none", (b"x\xe9", b"a")),
        ("a value with CR LF", (b"x", b"a\r\ntransfer-encoding: chunked")),
        ("a value with CR LF CR LF", (b"x", b"a\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nhost: raw.test\r\n\r\n")),
        ("a value with LF", (b"x", b"a\ntransfer-encoding: chunked")),
        ("a value with CR", (b"x", b"a\rb")),
        ("a value with a zero byte", (b"x", b"a\0b")),
        ("a value with a space before it", (b"x", b" a")),
        ("a value with a space behind it", (b"x", b"a ")),
        ("a value with a tab before it", (b"x", b"\ta")),
        ("connection", (b"connection", b"close")),
        ("connection that names a field", (b"connection", b"content-length")),
        ("keep-alive", (b"keep-alive", b"timeout=5")),
        ("proxy-connection", (b"proxy-connection", b"close")),
        ("transfer-encoding", (b"transfer-encoding", b"chunked")),
        ("upgrade", (b"upgrade", b"websocket")),
        ("another te than trailers", (b"te", b"chunked")),
        ("te with more than trailers", (b"te", b"trailers, deflate")),
        ("a twin of the coding", (b"transfer_encoding", b"chunked")),
        ("a twin of the length", (b"content_length", b"3")),
        ("another host", (b"host", b"api.test")),
        ("a host that is none", (b"host", b"raw.test/../api.test")),
        ("an unknown pseudo-header", (b":path2", b"/v1/y")),
        ("the pseudo-header of responses", (b":status", b"200")),
        ("a protocol without CONNECT", (b":protocol", b"websocket")),
        ("a length of nothing", (b"content-length", b"3")),
        ("a length that is none", (b"content-length", b"+0")),
        ("an override", (b"x-http-method-override", b"DELETE")),
    ];
    for (what, field) in rows {
        refused(&scene, what, &[METHOD, SCHEME, PATH, AUTHORITY, *field], None);
    }
    let twice: &[(&str, [Field<'_>; 2])] = &[
        ("two hosts", [(b"host", b"raw.test"), (b"host", b"raw.test")]),
        ("two lengths", [(b"content-length", b"0"), (b"content-length", b"0")]),
        ("two lengths that differ", [(b"content-length", b"0"), (b"content-length", b"1")]),
    ];
    for (what, [one, two]) in twice {
        refused(&scene, what, &[METHOD, SCHEME, PATH, AUTHORITY, *one, *two], None);
    }
    scene.still_serves();
}

#[test]
fn pseudo_headers_that_are_missing_repeated_misplaced_or_malformed_are_refused() {
    let scene = Scene::set();
    let rows: &[(&str, &[Field<'_>])] = &[
        ("no method", &[SCHEME, PATH, AUTHORITY]),
        ("no scheme", &[METHOD, PATH, AUTHORITY]),
        ("no path", &[METHOD, SCHEME, AUTHORITY]),
        ("no path, a host", &[METHOD, SCHEME, (b"host", b"raw.test")]),
        ("no authority", &[METHOD, SCHEME, PATH]),
        ("no authority, two hosts", &[METHOD, SCHEME, PATH, (b"host", b"raw.test"), (b"host", b"raw.test")]),
        ("no authority, a host with a user", &[METHOD, SCHEME, PATH, (b"host", b"me@raw.test")]),
        ("no authority, a host with a path", &[METHOD, SCHEME, PATH, (b"host", b"raw.test/v1")]),
        ("no authority, a host with a blank", &[METHOD, SCHEME, PATH, (b"host", b"raw.test ")]),
        (
            "no authority, a host and a path of none",
            &[METHOD, SCHEME, (b":path", b""), (b"host", b"raw.test")],
        ),
        ("no authority, an empty host", &[METHOD, SCHEME, PATH, (b"host", b"")]),
        (
            "no authority, a path without a slash",
            &[METHOD, SCHEME, (b":path", b"?x"), (b"host", b"raw.test")],
        ),
        ("an empty authority", &[METHOD, SCHEME, PATH, (b":authority", b"")]),
        ("two methods", &[METHOD, METHOD, SCHEME, PATH, AUTHORITY]),
        ("two schemes", &[METHOD, SCHEME, SCHEME, PATH, AUTHORITY]),
        ("two paths", &[METHOD, SCHEME, PATH, (b":path", b"/v1/y"), AUTHORITY]),
        ("two authorities", &[METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY]),
        ("a path behind a field", &[METHOD, SCHEME, AUTHORITY, (b"x", b"y"), PATH]),
        ("an empty method", &[(b":method", b""), SCHEME, PATH, AUTHORITY]),
        ("a method with a space", &[(b":method", b"GET /v1/y HTTP/1.1"), SCHEME, PATH, AUTHORITY]),
        ("a method with CR LF", &[(b":method", b"GET\r\nx"), SCHEME, PATH, AUTHORITY]),
        ("an empty path", &[METHOD, SCHEME, (b":path", b""), AUTHORITY]),
        ("a path without a slash", &[METHOD, SCHEME, (b":path", b"v1/x"), AUTHORITY]),
        ("a path that is a host", &[METHOD, SCHEME, (b":path", b"api.test/v1/x"), AUTHORITY]),
        ("a path that is a URL", &[METHOD, SCHEME, (b":path", b"https://api.test/v1/x"), AUTHORITY]),
        ("a path that is a query", &[METHOD, SCHEME, (b":path", b"?x"), AUTHORITY]),
        ("the asterisk", &[METHOD, SCHEME, (b":path", b"*"), AUTHORITY]),
        ("a path with a space", &[METHOD, SCHEME, (b":path", b"/v1/x HTTP/1.1"), AUTHORITY]),
        ("a path with CR LF", &[METHOD, SCHEME, (b":path", b"/v1/x\r\nx: y"), AUTHORITY]),
        (
            "a path with a whole request",
            &[METHOD, SCHEME, (b":path", b"/ HTTP/1.1\r\nhost: raw.test\r\n\r\nGET /v1/y"), AUTHORITY],
        ),
        ("a path with a tab", &[METHOD, SCHEME, (b":path", b"/v1/x\ty"), AUTHORITY]),
        ("a path with a zero byte", &[METHOD, SCHEME, (b":path", b"/v1/x\0"), AUTHORITY]),
        ("a scheme with CR LF", &[METHOD, (b":scheme", b"https\r\nx: y"), PATH, AUTHORITY]),
        ("a scheme that is a URL", &[METHOD, (b":scheme", b"https://api.test/v1/x?"), PATH, AUTHORITY]),
        ("another scheme", &[METHOD, (b":scheme", b"http"), PATH, AUTHORITY]),
        ("an authority with a user", &[METHOD, SCHEME, PATH, (b":authority", b"me@raw.test")]),
        ("an authority with a path", &[METHOD, SCHEME, PATH, (b":authority", b"raw.test/v1")]),
        ("an authority with CR LF", &[METHOD, SCHEME, PATH, (b":authority", b"raw.test\r\nx: y")]),
        ("an authority with a space", &[METHOD, SCHEME, PATH, (b":authority", b"raw.test ")]),
    ];
    for (what, fields) in rows {
        refused(&scene, what, fields, None);
    }
    scene.still_serves();
}

#[test]
fn a_body_that_is_not_as_long_as_its_head_says_is_refused_and_comes_nowhere_as_a_whole() {
    let scene = Scene::set();
    for (what, length, body) in
        [("shorter", b"4", &b"abc"[..]), ("longer", b"2", b"abc"), ("none", b"4", b"")]
    {
        let fields =
            [(&b":method"[..], &b"PUT"[..]), SCHEME, PATH, AUTHORITY, (b"content-length", &length[..])];
        refused(&scene, what, &fields, Some(body));
    }
    // Trailers cannot be a second head.
    let field: &[(&str, Field<'_>)] = &[
        ("a length", (b"content-length", b"3")),
        ("a coding", (b"transfer-encoding", b"chunked")),
        ("a host", (b"host", b"api.test")),
        ("CR LF", (b"x", b"a\r\n\r\nGET /v1/smuggled HTTP/1.1")),
    ];
    for (what, field) in field {
        let mut bot = Http2::open(&scene.dialer);
        let fields = [(&b":method"[..], &b"PUT"[..]), SCHEME, PATH, AUTHORITY];
        bot.send(HEADERS, END_HEADERS, 1, &frames::block(&fields)).unwrap();
        bot.send(DATA, 0, 1, b"abc").unwrap();
        bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block(&[*field])).unwrap();
        let dealt = bot.dealt(1);
        assert!(
            matches!(dealt, Dealt::Answered(400) | Dealt::Reset(_) | Dealt::GoneAway(_)),
            "{what}: {dealt:?}"
        );
        assert!(scene.upstream.seen().is_empty(), "{what}: {:?}", scene.upstream.seen());
    }
    // Without a body by its head, it may have gone on before the data came; never with them.
    let mut bot = Http2::open(&scene.dialer);
    let fields = [(&b":method"[..], &b"PUT"[..]), SCHEME, PATH, AUTHORITY, (b"content-length", b"0")];
    bot.send(HEADERS, END_HEADERS, 1, &frames::block(&fields)).unwrap();
    let _ = bot.send(DATA, END_STREAM, 1, b"GET /v1/smuggled HTTP/1.1\r\nhost: raw.test\r\n\r\n");
    assert!(matches!(bot.dealt(1), Dealt::Answered(200) | Dealt::Reset(PROTOCOL_ERROR)));
    let seen = scene.upstream.seen();
    assert!(
        seen.len() < 2 && seen.iter().all(|seen| seen.target == "/v1/x" && seen.body.is_empty()),
        "{seen:?}"
    );
    scene.still_serves();
}

#[test]
fn a_host_in_its_field_does_for_an_authority() {
    let scene = Scene::set();
    // As the clients of Node send it whose code sets the field.
    let mut bot = Http2::open(&scene.dialer);
    let fields = [METHOD, SCHEME, PATH, (b"host", b"raw.test")];
    bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block(&fields)).unwrap();
    assert!(matches!(bot.dealt(1), Dealt::Answered(200)));
    let seen = scene.upstream.seen();
    assert!(seen.len() == 1 && seen[0].target == "/v1/x", "{seen:?}");
    let mut bot = Http2::open(&scene.dialer);
    let fields = [METHOD, SCHEME, (b":path", b"/v1/other"), (b"host", b"api.test")];
    bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block(&fields)).unwrap();
    assert!(!matches!(bot.dealt(1), Dealt::Answered(200)), "the handshake was for another host");
    assert!(scene.upstream.seen().iter().all(|seen| seen.target != "/v1/other"));
}

#[test]
fn an_honest_request_over_http2_goes_on_as_one_over_http1() {
    let scene = Scene::set();
    let mut bot = Http2::open(&scene.dialer);
    let fields = [
        (&b":method"[..], &b"PUT"[..]),
        SCHEME,
        // The h2 crate drops a fragment, and a pseudo-header in trailers: neither comes to the upstream.
        (b":path", b"/v1/x#/../admin"),
        AUTHORITY,
        (b"host", b"RAW.test:443"),
        (b"te", b"trailers"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"x-empty", b""),
    ];
    bot.send(HEADERS, END_HEADERS, 1, &frames::block(&fields)).unwrap();
    bot.send(DATA, 0, 1, b"0\r\n\r\nGET /v1/smuggled HTTP/1.1\r\nhost: raw.test\r\n\r\n").unwrap();
    bot.send(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block(&[(b":path", b"/v1/y")])).unwrap();
    assert_eq!(bot.dealt(1), Dealt::Answered(200));
    let seen = scene.upstream.seen();
    let [seen] = &seen[..] else { panic!("{seen:?}") };
    assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
    assert_eq!((seen.target.as_str(), seen.header("host")), ("/v1/x", Some("raw.test")));
}
