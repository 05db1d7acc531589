//! Answers of upstreams that two readers would frame in two ways: 502, the upstream to blame, and never part of another answer.

use tests::World;
use tests::frames::{self, DATA, END_HEADERS, END_STREAM, HEADERS, Origin};

use super::{Scene, outcome};

const OK: &str = "HTTP/1.1 200 OK\r\n";

#[test]
fn an_answer_whose_head_can_be_read_in_two_ways_is_502() {
    let scene = Scene::set();
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".repeat(40);
    let many = "x-many: y\r\n".repeat(600);
    let long = "a".repeat(1 << 20);
    for (what, answer, reason) in [
        (
            "a length and chunks",
            format!("{OK}content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            "both",
        ),
        (
            "chunks and a length",
            format!("{OK}transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n"),
            "both",
        ),
        ("two lengths", format!("{OK}content-length: 2\r\ncontent-length: 3\r\n\r\nok!"), "more than one"),
        (
            "the same length twice",
            format!("{OK}content-length: 2\r\ncontent-length: 2\r\n\r\nok"),
            "more than one",
        ),
        ("a list of lengths", format!("{OK}content-length: 2, 2\r\n\r\nok"), "content-length"),
        ("a length with a sign", format!("{OK}content-length: +2\r\n\r\nok"), "content-length"),
        ("a negative length", format!("{OK}content-length: -2\r\n\r\nok"), "content-length"),
        ("a length in hexadecimal", format!("{OK}content-length: 0x2\r\n\r\nok"), "content-length"),
        (
            "chunks twice",
            format!("{OK}transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
            "more than one",
        ),
        (
            "a coding below the chunks",
            format!("{OK}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
            "transfer-encoding",
        ),
        (
            "chunked that is not last",
            format!("{OK}transfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
            "transfer-encoding",
        ),
        ("identity", format!("{OK}transfer-encoding: identity\r\n\r\nok"), "transfer-encoding"),
        (
            "an unknown coding",
            format!("{OK}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
            "transfer-encoding",
        ),
        (
            "chunks over HTTP/1.0",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
            "HTTP/1.0",
        ),
        ("a line that ends with LF", format!("{OK}x-a: b\ncontent-length: 2\r\n\r\nok"), "LF alone"),
        (
            "a start line that ends with LF",
            "HTTP/1.1 200 OK\ncontent-length: 2\r\n\r\nok".to_owned(),
            "LF alone",
        ),
        ("a head that ends with LF LF", format!("{OK}content-length: 2\n\nok"), "LF alone"),
        ("a CR in a value", format!("{OK}x-a: b\rset-cookie: c\r\ncontent-length: 2\r\n\r\nok"), "CR"),
        ("empty lines before it", format!("\r\n{OK}content-length: 2\r\n\r\nok"), "empty lines"),
        ("a folded line", format!("{OK}x-a: b\r\n c\r\ncontent-length: 2\r\n\r\nok"), ""),
        ("a space before the colon", format!("{OK}content-length : 2\r\n\r\nok"), ""),
        ("a zero byte", format!("{OK}x-a: b\0c\r\ncontent-length: 2\r\n\r\nok"), ""),
        ("a line without a colon", format!("{OK}x-a\r\ncontent-length: 2\r\n\r\nok"), ""),
        ("a status of two digits", "HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), ""),
        ("a status of four digits", "HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), ""),
        ("another version", "HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned(), ""),
        ("a flood of interim answers", format!("{hints}{OK}content-length: 2\r\n\r\nok"), "interim"),
        ("interim answers without an end", hints.repeat(1000), "interim"),
        ("too many fields", format!("{OK}{many}content-length: 2\r\n\r\nok"), ""),
        ("a long field", format!("{OK}x-a: {long}\r\ncontent-length: 2\r\n\r\nok"), ""),
    ] {
        for version in ["--http1.1", "--http2"] {
            scene.upstream.say(answer.as_bytes(), false);
            let path = format!("/v1/{version}/{}/say", what.replace(' ', "-"));
            let answer = scene.world.curl(&[version, &format!("https://raw.test{path}")]);
            assert_eq!(answer.status, 502, "{what}: {answer:?}");
            assert_eq!(answer.json()["type"], "urn:vouchsafe:problem:upstream-failed", "{what}: {answer:?}");
            let outcome = outcome(&scene.world, &path);
            assert_eq!(outcome["blame"], "upstream", "{what}: {outcome}");
            assert!(outcome["error"].as_str().unwrap().contains(reason), "{what}: {outcome}");
        }
    }
    scene.upstream.say(format!("{OK}Content-Length: 2 \r\n\r\nok").as_bytes(), false);
    assert_eq!(scene.world.curl(&["https://raw.test/v1/say"]).body, "ok");
}

#[test]
fn an_answer_whose_chunks_can_be_read_in_two_ways_breaks_off() {
    let scene = Scene::set();
    for (number, chunks) in [
        "zz\r\n",
        " 1\r\nx\r\n",
        "+1\r\nx\r\n",
        "0x1\r\nx\r\n",
        "1\nx\r\n",
        "1\r\nxy\r\n",
        "ffffffffffffffffff\r\nx",
        "0;a\nb\r\n\r\n",
    ]
    .iter()
    .enumerate()
    {
        scene
            .upstream
            .say(format!("{OK}transfer-encoding: chunked\r\n\r\n4\r\nokay\r\n{chunks}").as_bytes(), false);
        let path = format!("/v1/{number}/say");
        let answer = scene.world.curl(&[&format!("https://raw.test{path}")]);
        assert_ne!(answer.code, Some(0), "{chunks:?}: {answer:?}");
        let outcome = outcome(&scene.world, &path);
        assert_eq!(outcome["blame"], "upstream", "{chunks:?}: {outcome}");
    }
}

#[test]
fn what_an_upstream_sends_behind_its_answer_is_nobodys_answer() {
    let scene = Scene::set();
    let poison = format!("{OK}content-length: 6\r\n\r\npoison");
    for first in [
        format!("{OK}content-length: 2\r\n\r\nok"),
        format!("{OK}transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n".to_owned(),
    ] {
        scene.upstream.say(format!("{first}{poison}").as_bytes(), false);
        for _ in 0..3 {
            let answer = scene.world.curl(&["https://raw.test/v1/say", "https://raw.test/v1/other"]);
            assert!(!answer.body.contains("poison"), "{answer:?}");
            assert!(answer.body.contains("GET /v1/other"), "{answer:?}");
        }
    }
}

#[test]
fn an_answer_over_http2_that_would_have_two_lengths_over_http1_is_502() {
    let world = World::start();
    let lengths = frames::block(&[(b"content-length", b"2"), (b"content-length", b"2")]);
    let origin = Origin::start(&world, move |_, connection| {
        while let Some((stream, _)) = connection.request() {
            let _ = connection.send(HEADERS, END_HEADERS, stream, &[&[0x88], &lengths[..]].concat());
            let _ = connection.send(DATA, END_STREAM, stream, b"ok");
        }
    });
    for version in ["--http1.1", "--http2"] {
        let answer = world.curl(&[version, "https://raw.test/v1/x"]);
        assert_eq!(answer.status, 502, "{answer:?}");
        assert_eq!(outcome(&world, "/v1/x")["blame"], "upstream");
    }
    assert_eq!(origin.connections(), 1);
}
