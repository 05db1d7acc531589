//! Requests that can be read in more than one way, or not at all: refused, journalled, and never at the upstream.

use tests::wait_until;
use tests::wire::Reply;

use super::Scene;
use super::streams::{get, http2, runtime};

/// Says something that must be refused with one of `statuses` (0: closed without an answer), leave one record, and not
/// come to the upstream.
#[track_caller]
fn refused(scene: &Scene, what: &str, request: &str, statuses: &[u16]) -> Reply {
    let before = scene.denials().len();
    let reply = scene.dialer.say(request.as_bytes());
    assert!(statuses.contains(&reply.status), "{what}: {reply:?}");
    wait_until(&format!("a record of: {what}"), || (scene.denials().len() > before).then_some(()));
    let seen = scene.upstream.seen();
    assert!(seen.is_empty(), "{what}: the upstream saw {seen:?}");
    reply
}

#[test]
fn a_request_names_exactly_one_host_and_it_is_the_one_of_the_handshake() {
    let scene = Scene::set();
    for (what, request, status) in [
        ("no host", "GET /v1/x HTTP/1.1\r\n\r\n", 400),
        ("an empty host", "GET /v1/x HTTP/1.1\r\nhost:\r\n\r\n", 400),
        ("two hosts", "GET /v1/x HTTP/1.1\r\nhost: raw.test\r\nhost: raw.test\r\n\r\n", 400),
        ("two different hosts", "GET /v1/x HTTP/1.1\r\nhost: raw.test\r\nhost: api.test\r\n\r\n", 400),
        ("hosts in one field", "GET /v1/x HTTP/1.1\r\nhost: raw.test, api.test\r\n\r\n", 400),
        ("a host with a user", "GET /v1/x HTTP/1.1\r\nhost: me@raw.test\r\n\r\n", 400),
        ("a host with a path", "GET /v1/x HTTP/1.1\r\nhost: raw.test/v1\r\n\r\n", 400),
        ("another host", "GET /v1/x HTTP/1.1\r\nhost: api.test\r\n\r\n", 421),
        ("another port", "GET /v1/x HTTP/1.1\r\nhost: raw.test:8443\r\n\r\n", 421),
        ("another host in the target", "GET https://api.test/v1/x HTTP/1.1\r\nhost: raw.test\r\n\r\n", 421),
        ("another host than the target", "GET https://raw.test/v1/x HTTP/1.1\r\nhost: api.test\r\n\r\n", 400),
        ("another scheme", "GET http://raw.test/v1/x HTTP/1.1\r\nhost: raw.test\r\n\r\n", 400),
        ("CONNECT", "CONNECT raw.test:443 HTTP/1.1\r\nhost: raw.test\r\n\r\n", 405),
        ("the asterisk", "GET * HTTP/1.1\r\nhost: raw.test\r\n\r\n", 400),
    ] {
        let reply = refused(&scene, what, request, &[status]);
        assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}: {reply:?}");
    }
    scene.still_serves();
}

#[test]
fn headers_that_ask_for_another_method_or_path_are_400() {
    let scene = Scene::set();
    for name in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
        "x_http_method_override",
        "x-original_url",
    ] {
        let request = format!("GET /v1/x HTTP/1.1\r\nhost: raw.test\r\n{name}: DELETE\r\n\r\n");
        let reply = refused(&scene, name, &request, &[400]);
        let text = reply.text();
        assert!(text.contains(&name.to_ascii_lowercase()), "the refusal does not name {name}: {text}");
    }
    let answer =
        scene.world.curl(&["--http2", "-H", "x-http-method-override: DELETE", "https://api.test/v1/x"]);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(scene.world.seen().is_empty());
}

#[test]
fn a_path_that_upstreams_read_differently_is_refused() {
    let scene = Scene::set();
    for (path, status) in [
        ("/v1/invoices%2f..%2fadmin", 400),
        ("/v1/invoices/..%2fadmin", 400),
        ("/v1/invoices\\..\\admin", 400),
        ("/v1/invoices%5c..%5cadmin", 400),
        ("/v1/..;/admin", 400),
        ("/v1/%2e%2e%3b/admin", 400),
        ("/v1/%252e%252e/admin", 400),
        ("/v1/a%00b", 400),
        ("/v1/a%0d%0ax-injected:%20y", 400),
        ("/v1/a%zz", 400),
        ("/v1/%c0%ae%c0%ae/admin", 400),
        ("/../v1/x", 400),
        ("/v1/\u{e9}", 400),
        // These have one meaning, and it is not granted.
        ("/v1/../admin", 403),
        ("/v1/x/%2e%2e/%2E./admin", 403),
        ("/v1//../admin", 403),
        ("/v1/forbidden/x", 403),
        ("/v1//forbidden//x", 403),
        ("/v1/%66orbidden/x", 403),
        ("/v1/y/../forbidden/x", 403),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: raw.test\r\n\r\n");
        refused(&scene, path, &request, &[status]);
    }
}

#[test]
fn the_upstream_gets_the_path_that_was_decided() {
    let scene = Scene::set();
    for (asked, got) in [
        ("/v1/invoices/%2e%2e/admin", "/v1/admin"),
        ("//v1//invoices", "/v1/invoices"),
        ("/v1/./a/../b/", "/v1/b/"),
        ("/v1/%41%7e", "/v1/A~"),
        ("/v1/a;x=1/b", "/v1/a;x=1/b"),
        ("/v1/a%3ab", "/v1/a%3Ab"),
        ("/v1/a?next=/../admin&%2f=//", "/v1/a?next=/../admin&%2f=//"),
        ("https://raw.test/v1/./absolute", "/v1/absolute"),
    ] {
        let request = format!("GET {asked} HTTP/1.1\r\nhost: raw.test\r\n\r\n");
        assert_eq!(scene.dialer.say(request.as_bytes()).status, 200, "{asked}");
        assert_eq!(scene.upstream.seen().last().unwrap().target, got, "{asked}");
        let decided = got.split('?').next();
        assert_eq!(scene.world.decision(decided)["has_query"], got.contains('?'));
    }
}

#[test]
fn a_header_of_a_megabyte_is_431_over_either_version() {
    let scene = Scene::set();
    let huge = "a".repeat(1 << 20);
    let many = "x-many: y\r\n".repeat(1000);
    for (what, request) in [
        ("a value", format!("GET /v1/x HTTP/1.1\r\nhost: raw.test\r\nx-huge: {huge}\r\n\r\n")),
        ("a name", format!("GET /v1/x HTTP/1.1\r\nhost: raw.test\r\n{huge}: x\r\n\r\n")),
        ("a target", format!("GET /v1/{huge} HTTP/1.1\r\nhost: raw.test\r\n\r\n")),
        ("a method", format!("{huge} /v1/x HTTP/1.1\r\nhost: raw.test\r\n\r\n")),
        ("a thousand fields", format!("GET /v1/x HTTP/1.1\r\nhost: raw.test\r\n{many}\r\n")),
        ("a line without end", format!("GET /v1/x HTTP/1.1\r\nhost: raw.test\r\nx-huge: {huge}")),
    ] {
        refused(&scene, what, &request, &[431]);
    }
    // Over HTTP/2 what exceeds the limit is answered, and what exceeds it by far ends the connection (RFC 9113 §10.5.1).
    for (bytes, status) in [(80 << 10, Some(431)), (400 << 10, Some(431)), (1 << 20, Some(431))] {
        let before = scene.denials().len();
        let mut request = get("/v1/x");
        let line = http::HeaderValue::from_str(&"a".repeat(16 << 10)).unwrap();
        for number in 0..bytes / line.len() {
            let name = http::HeaderName::try_from(format!("x-huge-{number}")).unwrap();
            request.headers_mut().insert(name, line.clone());
        }
        let answer = runtime().block_on(async { http2(&scene.dialer).await.send_request(request).await });
        assert_eq!(
            answer.as_ref().ok().map(|answer| answer.status().as_u16()),
            status,
            "{bytes}: {answer:?}"
        );
        wait_until("a record of it", || (scene.denials().len() > before).then_some(()));
    }
    assert_eq!(scene.upstream.count(), 0);
    scene.still_serves();
}

#[test]
fn an_upload_that_is_refused_early_still_gets_its_answer() {
    let scene = Scene::set();
    let body = scene.world.path("upload");
    std::fs::write(&body, vec![b'u'; 30 << 20]).unwrap();
    let (body, data) = (body.to_str().unwrap(), format!("@{}", body.display()));
    for version in ["--http1.1", "--http2"] {
        for how in [["-T", body], ["--data-binary", &data]] {
            for url in ["https://api.test/v1/forbidden/x", "https://raw.test/v2/x"] {
                // Without `Expect: 100-continue`, curl sends all that it has.
                let answer = scene.world.curl(&[&[version, "-H", "expect:"][..], &how, &[url]].concat());
                assert_eq!(answer.status, 403, "{url}: {answer:?}");
                assert_eq!(answer.json()["type"], "urn:vouchsafe:problem:not-granted", "{answer:?}");
            }
        }
    }
    assert!(scene.world.seen().is_empty());
}
