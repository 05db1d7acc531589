//! What is unusual and legitimate gets through: nothing of what is refused as ambiguous may take it along.

use std::io::Write as _;

use tests::CANARY;
use tests::wire::Reply;

use super::{RAW, Scene, outcome};

const OK: &str = "HTTP/1.1 200 OK\r\n";

#[test]
fn unusual_answers_reach_the_client_and_the_next_ones_too() {
    let scene = Scene::set();
    let long = "c".repeat(30_000);
    let extension = "e".repeat(2000);
    for (what, method, answer, close, status, body) in [
        ("by its end", "GET", format!("{OK}\r\nok"), true, 200, "ok"),
        ("by its end, said", "GET", format!("{OK}connection: close\r\n\r\nok"), true, 200, "ok"),
        ("HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\n\r\nok".to_owned(), true, 200, "ok"),
        ("HTTP/1.0, sized", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(), true, 200, "ok"),
        ("HTTP/1.0, kept", "GET", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok".to_owned(), false, 200, "ok"),
        ("a length for HEAD", "HEAD", format!("{OK}content-length: 5000\r\n\r\n"), false, 200, ""),
        ("chunks for HEAD", "HEAD", format!("{OK}transfer-encoding: chunked\r\n\r\n"), false, 200, ""),
        ("204", "GET", "HTTP/1.1 204 No Content\r\n\r\n".to_owned(), false, 204, ""),
        ("204 with a length", "GET", "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n".to_owned(), false, 204, ""),
        ("304 with a length", "GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 77\r\netag: \"a\"\r\n\r\n".to_owned(), false, 304, ""),
        ("304 with chunks", "GET", "HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(), false, 304, ""),
        ("no chunks", "GET", format!("{OK}transfer-encoding: chunked\r\n\r\n0\r\n\r\n"), false, 200, ""),
        ("odd case", "GET", format!("{OK}TRANSFER-encoding: Chunked\r\n\r\n2\r\nok\r\n000\r\n\r\n"), false, 200, "ok"),
        ("blanks", "GET", format!("{OK}Content-Length:\t 2 \t\r\nx-e:\r\nx-f: \r\n\r\nok"), false, 200, "ok"),
        ("a long extension", "GET", format!("{OK}transfer-encoding: chunked\r\n\r\n2;{extension}\r\nok\r\n0;a=\"b\"\r\n\r\n"), false, 200, "ok"),
        ("zeros before a size", "GET", format!("{OK}transfer-encoding: chunked\r\n\r\n000000002\r\nok\r\n0\r\n\r\n"), false, 200, "ok"),
        ("a blank behind a size", "GET", format!("{OK}transfer-encoding: chunked\r\n\r\n2 \r\nok\r\n0\r\n\r\n"), false, 200, "ok"),
        ("no reason", "GET", "HTTP/1.1 200 \r\ncontent-length: 2\r\n\r\nok".to_owned(), false, 200, "ok"),
        ("no blank for the reason", "GET", "HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok".to_owned(), false, 200, "ok"),
        ("a reason in UTF-8", "GET", "HTTP/1.1 200 Très bien\r\ncontent-length: 2\r\n\r\nok".to_owned(), false, 200, "ok"),
        ("UTF-8", "GET", format!("{OK}x-name: Grüße\r\ncontent-length: 2\r\n\r\nok"), false, 200, "ok"),
        ("a long field", "GET", format!("{OK}set-cookie: {long}\r\ncontent-length: 2\r\n\r\nok"), false, 200, "ok"),
        ("interim answers", "GET", format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n{OK}content-length: 2\r\n\r\nok"), false, 200, "ok"),
        ("an upgrade that is offered", "GET", format!("{OK}upgrade: h2,h2c\r\nconnection: Upgrade\r\ncontent-length: 2\r\n\r\nok"), false, 200, "ok"),
        ("an upgrade that is demanded", "GET", "HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: Upgrade\r\ncontent-length: 2\r\n\r\nok".to_owned(), false, 426, "ok"),
        ("a fragment in a location", "GET", "HTTP/1.1 302 Found\r\nlocation: /x#y\r\ncontent-length: 0\r\n\r\n".to_owned(), false, 302, ""),
    ] {
        scene.upstream.say(answer.as_bytes(), close);
        for version in ["--http1.1", "--http2"] {
            let head: &[&str] = if method == "HEAD" { &["--head"] } else { &[] };
            // Twice, the second one over the connection that the first one left.
            for _ in 0..2 {
                let answer =
                    scene.world.curl(&[&[version, "https://raw.test/v1/say"], head].concat());
                assert_eq!((answer.status, answer.code), (status, Some(0)), "{what}: {answer:?}");
                if method == "GET" {
                    assert_eq!(answer.body, body, "{what}: {answer:?}");
                }
            }
        }
    }
}

#[test]
fn unusual_requests_reach_the_upstream_and_the_next_ones_too() {
    let scene = Scene::set();
    let next =
        "PUT /v1/next HTTP/1.1\r\nhost: raw.test\r\nconnection: close\r\ncontent-length: 4\r\n\r\nnext";
    let long = "c".repeat(20_000);
    for (what, request, body) in [
        ("GET with a length of nothing", "GET /v1/x HTTP/1.1\r\nhost: raw.test\r\ncontent-length: 0\r\n\r\n".to_owned(), ""),
        ("GET with a body", "GET /v1/x HTTP/1.1\r\nhost: raw.test\r\ncontent-length: 4\r\n\r\nbody".to_owned(), "body"),
        ("Chunked", "PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\nTransfer-Encoding: Chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n".to_owned(), "body"),
        ("extensions", "PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\nTransfer-Encoding: chunked\r\n\r\n0004;a;b=c;d=\"e f\"\r\nbody\r\n00;x\r\nx-t: u\r\n\r\n".to_owned(), "body"),
        ("no chunks", "PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), ""),
        ("blanks", "PUT /v1/x HTTP/1.1\r\nHOST:raw.test \r\ncOnTeNt-LeNgTh:\t 4 \t\r\nx-e:\r\nx-f: \r\nx-u: Gr\u{fc}\u{df}e\r\n\r\nbody".to_owned(), "body"),
        ("an empty line before it", "\r\nPUT /v1/x HTTP/1.1\r\nhost: raw.test\r\ncontent-length: 4\r\n\r\nbody".to_owned(), "body"),
        ("an empty line behind it", "PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\ncontent-length: 4\r\n\r\nbody\r\n".to_owned(), "body"),
        ("an absolute form", "PUT https://raw.test/v1/x HTTP/1.1\r\nhost: raw.test\r\ncontent-length: 4\r\n\r\nbody".to_owned(), "body"),
        ("a long field", format!("PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\ncookie: {long}\r\ncontent-length: 4\r\n\r\nbody"), "body"),
        ("h2c", "PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\ncontent-length: 4\r\n\r\nbody".to_owned(), "body"),
        ("TLS", "PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\nconnection: Upgrade\r\nupgrade: TLS/1.2, HTTP/1.1\r\ncontent-length: 4\r\n\r\nbody".to_owned(), "body"),
        ("continue", "PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\nexpect: 100-Continue\r\ncontent-length: 4\r\n\r\nbody".to_owned(), "body"),
        ("te", "PUT /v1/x HTTP/1.1\r\nhost: raw.test\r\nte: trailers, gzip\r\nconnection: te\r\ncontent-length: 4\r\n\r\nbody".to_owned(), "body"),
        ("a refusal", "PUT /v1/forbidden/x HTTP/1.1\r\nhost: raw.test\r\ncontent-length: 4\r\n\r\nbody".to_owned(), ""),
        ("HEAD", "HEAD /v1/x HTTP/1.1\r\nhost: raw.test\r\n\r\n".to_owned(), ""),
    ] {
        let bytes = [request.as_bytes(), next.as_bytes()].concat();
        // However it is cut.
        for size in [1, 7, bytes.len()] {
            let before = scene.upstream.count();
            let mut stream = scene.dialer.tls(RAW, "raw.test");
            for piece in bytes.chunks(size) {
                if size > 1 || bytes.len() < 1000 {
                    stream.write_all(piece).unwrap();
                    stream.flush().unwrap();
                } else {
                    stream.write_all(piece).unwrap();
                }
            }
            let mut came = Vec::new();
            let _ = std::io::Read::read_to_end(&mut stream, &mut came);
            let text = String::from_utf8_lossy(&came).into_owned();
            let seen = scene.upstream.seen().split_off(before);
            if what == "HEAD" {
                // The upstream of the tests answers with a body that is none.
                assert_eq!(seen[0].method, "HEAD", "{what}/{size}: {seen:?}");
                continue;
            }
            let mut rest = &came[..];
            let first = Reply::read_one(&mut rest);
            let second = Reply::read_one(&mut rest);
            let expected = if what == "a refusal" { 403 } else { 200 };
            assert_eq!((first.status, second.status), (expected, 200), "{what}/{size}: {text}");
            let bodies: Vec<_> = seen.iter().map(|seen| String::from_utf8_lossy(&seen.body)).collect();
            if expected == 200 {
                assert_eq!(bodies, [body, "next"], "{what}/{size}");
            } else {
                assert_eq!(bodies, ["next"], "{what}/{size}");
            }
        }
    }
}

#[test]
fn an_answer_with_trailers_is_whole_in_the_journal_and_leaves_its_connection() {
    let scene = Scene::set();
    for version in ["--http1.1", "--http2"] {
        for _ in 0..2 {
            let path = format!("/v1/{version}/trailers");
            let answer = scene.world.curl(&[version, &format!("https://raw.test{path}")]);
            assert_eq!((answer.status, answer.body.as_str()), (200, "body"), "{answer:?}");
            let outcome = outcome(&scene.world, &path);
            assert!(outcome["blame"].is_null() && outcome["error"].is_null(), "{outcome}");
        }
    }
    // The first one finds out what the upstream speaks.
    assert_eq!(scene.upstream.connections(), 1);
}

#[test]
fn a_client_of_http_1_0_is_answered_over_tls() {
    let scene = Scene::set();
    for (path, body) in [("slow-not", "GET /v1/slow-not"), ("trailers", "body")] {
        let answer = scene.world.curl(&["--http1.0", &format!("https://raw.test/v1/{path}")]);
        assert_eq!((answer.status, answer.code), (200, Some(0)), "{answer:?}");
        assert!(answer.body.starts_with(body), "{answer:?}");
    }
}

#[test]
fn a_secret_in_the_words_behind_a_status_or_in_the_name_of_a_field_does_not_get_through() {
    let scene = Scene::set();
    for (what, answer) in [
        ("reason", format!("HTTP/1.1 401 no such key {CANARY}\r\ncontent-length: 2\r\n\r\nok")),
        ("name", format!("{OK}X-{CANARY}: 1\r\nx-y: z\r\ncontent-length: 2\r\n\r\nok")),
        (
            "name of a trailer",
            format!("{OK}transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-{CANARY}: 1\r\n\r\n"),
        ),
    ] {
        scene.upstream.say(answer.as_bytes(), false);
        for version in ["--http1.1", "--http2"] {
            let answer = scene.world.curl(&["-i", version, "https://raw.test/v1/say"]);
            assert!(answer.body.contains("ok"), "{what}: {answer:?}");
            assert!(!answer.body.to_lowercase().contains(CANARY), "{what} {version}: {answer:?}");
        }
        let last = scene.world.journal().into_iter().rfind(|record| record["kind"] == "outcome");
        assert_eq!(last.unwrap()["reflected"], true, "{what}");
    }
}
