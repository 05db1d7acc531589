//! Calls that go well, and calls that the policy refuses.

use ::http::{Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use proxy_journal::Verdict;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::trust::Trust;
use super::world::{Answer, Client, SECRET, Seen, Upstream, Wishes, World, body, request};
use crate::trust::Alpn;

fn echo(seen: Seen) -> Response<super::world::Body> {
    let mut response = Response::new(body("echo"));
    response.headers_mut().insert("x-saw", seen.target.parse().unwrap());
    response
}

async fn world_with(alpn: Alpn, answer: Answer) -> (World, Upstream) {
    let trust = Trust::new();
    let upstream = Upstream::tls(&trust, "api.test", alpn, answer).await;
    (World::new(upstream.addr, trust, Wishes::default()).await, upstream)
}

fn host(world: &World) -> String {
    format!("api.test:{}", world.upstream.port())
}

#[tokio::test]
async fn a_granted_call_arrives_with_our_credential_in_place_of_the_clients() {
    for upstream_speaks in [Alpn::Http1, Alpn::Http2OrHttp1] {
        let (world, upstream) = world_with(upstream_speaks, echo).await;
        let mut client = world.http1("bot").await;
        let headers = [
            ("host", &*host(&world)),
            ("x-key", "stolen"),
            ("authorization", "Bearer stolen"),
            ("connection", "x-key"),
            ("x-b", "2"),
        ];
        let response = client.get("GET", "/v1//a/../b?q=1", &headers).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.body(), "echo");
        assert!(response.headers()["x-saw"].to_str().unwrap().ends_with("/v1/b?q=1"));
        let seen = upstream.seen();
        assert_eq!(seen[0].headers["x-key"], format!("Bearer {SECRET}"));
        assert!(!seen[0].headers.contains_key("authorization"));
        assert_eq!(seen[0].headers["x-b"], "2");
        let outcomes = world.book.outcomes().await;
        assert_eq!(outcomes.len(), 1);
        assert_eq!(
            (outcomes[0].status, outcomes[0].bytes_received, outcomes[0].error.as_deref()),
            (Some(200), 4, None)
        );
        let (first, all) = (outcomes[0].ttfb_us.expect("the head came"), outcomes[0].duration_us);
        assert!(first > 0 && first <= all, "{first} µs to the head, {all} µs to the end");
        let decision = &world.book.decisions()[0];
        assert_eq!(decision.path.as_deref(), Some("/v1/b"));
        assert_eq!(decision.credential.as_deref(), Some("key"));
        assert!(decision.has_query);
    }
}

#[tokio::test]
async fn the_upstream_gets_the_host_that_was_decided_and_not_the_clients_spelling() {
    let (world, upstream) = world_with(Alpn::Http1, echo).await;
    let spelling = format!("API.Test.:{}", world.upstream.port());
    let response = world.http1("bot").await.get("GET", "/v1/x", &[("host", &spelling)]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(upstream.seen()[0].headers["host"], host(&world));
}

#[tokio::test]
async fn http2_is_served_and_forwarded_in_either_version() {
    for (upstream_speaks, version) in [(Alpn::Http1, Version::HTTP_11), (Alpn::Http2OrHttp1, Version::HTTP_2)]
    {
        let (world, upstream) = world_with(upstream_speaks, echo).await;
        let mut client = Client::http2(world.connect_tls("bot", "api.test", Alpn::Http2OrHttp1).await).await;
        let uri = format!("https://{}/v1/x", host(&world));
        for _ in 0..3 {
            assert_eq!(client.get("GET", &uri, &[("cookie", "a=1"), ("cookie", "b=2")]).await.body(), "echo");
        }
        let seen = upstream.seen();
        assert_eq!(seen[2].version, version);
        assert_eq!(seen[2].headers["cookie"], "a=1; b=2");
        assert_eq!(seen[2].headers["x-key"], format!("Bearer {SECRET}"));
        assert_eq!(upstream.connections(), 1, "the connection is used again");
        assert_eq!(world.book.outcomes().await.len(), 3);
    }
}

#[tokio::test]
async fn connections_to_the_upstream_are_shared_by_clients_and_requests() {
    let (world, upstream) = world_with(Alpn::Http1, echo).await;
    for _ in 0..3 {
        let mut client = world.http1("bot").await;
        for _ in 0..3 {
            client.get("GET", "/v1/x", &[("host", &host(&world))]).await;
        }
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_call_that_is_not_granted_gets_403_with_the_reason_and_never_leaves() {
    let (world, upstream) = world_with(Alpn::Http1, echo).await;
    let mut client = world.http1("bot").await;
    let response = client.get("DELETE", "/v1/x", &[("host", &host(&world))]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let refused = world.book.refusal().await;
    assert_eq!(response.headers()["vouchsafe-journal-id"], refused.id.to_string());
    let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(problem["identity"], "bot");
    assert!(problem["detail"].as_str().unwrap().contains("no grant for stripe allows it"), "{problem}");
    assert!(upstream.seen().is_empty());
    // The connection goes on.
    assert_eq!(client.get("GET", "/v1/x", &[("host", &host(&world))]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_program_that_no_policy_knows_gets_a_readable_403() {
    let (world, upstream) = world_with(Alpn::Http1, echo).await;
    let mut client = world.http1("stranger").await;
    let response = client.get("GET", "/v1/x", &[("host", &host(&world))]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(world.book.refusal().await.identity, None);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_request_for_another_host_than_the_handshake_is_misdirected() {
    let (world, upstream) = world_with(Alpn::Http1, echo).await;
    let mut client = world.http1("bot").await;
    let response = client.get("GET", "/v1/x", &[("host", "evil.test")]).await;
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    let response = client.get("HEAD", "/v1/x%2fy", &[("host", &host(&world))]).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(response.body().is_empty());
    assert!(upstream.seen().is_empty());
    assert_eq!(world.book.decisions().len(), 2);
}

#[tokio::test]
async fn a_reload_counts_for_the_next_request_of_an_open_connection() {
    let (world, _upstream) = world_with(Alpn::Http1, echo).await;
    let mut client = world.http1("bot").await;
    let headers = [("host", &*host(&world))];
    assert_eq!(client.get("PUT", "/new", &headers).await.status(), StatusCode::FORBIDDEN);
    world.reload(", \"PUT /new\"");
    assert_eq!(client.get("PUT", "/new", &headers).await.status(), StatusCode::OK);
    world.reload("");
    assert_eq!(client.get("PUT", "/new", &headers).await.status(), StatusCode::FORBIDDEN);
    let generations: Vec<_> = world.book.decisions().iter().map(|decision| decision.generation).collect();
    assert_eq!(generations, [1, 2, 3]);
}

#[tokio::test]
async fn a_body_goes_up_and_is_counted() {
    let (world, upstream) = world_with(Alpn::Http1, echo).await;
    let mut client = world.http1("bot").await;
    let mut post = request("POST", "/up", &[("host", &host(&world))]);
    *post.body_mut() = body("twelve bytes");
    let response = client.send(post).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(upstream.seen()[0].body, "twelve bytes");
    assert_eq!(world.book.outcomes().await[0].bytes_sent, 12);
}

#[tokio::test]
async fn plain_http_to_an_api_goes_where_its_name_leads_and_without_a_credential() {
    let trust = Trust::new();
    let upstream = Upstream::plain(echo).await;
    let world = World::new(upstream.addr, trust, Wishes::default()).await;
    let mut client = Client::http1(world.connect("bot").await).await;
    let named = format!("localhost:{}", upstream.addr.port());
    let response = client.get("GET", "/a", &[("host", &named), ("authorization", "Bearer stolen")]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!upstream.seen()[0].headers.contains_key("authorization"));
    let response =
        client.get("GET", "/a", &[("host", &format!("other.test:{}", upstream.addr.port()))]).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn plain_http_to_a_host_that_no_api_names_passes_unchanged_for_who_may() {
    let upstream = Upstream::plain(echo).await;
    let world = World::new(upstream.addr, Trust::new(), Wishes::default()).await;
    let mut client = Client::http1(world.connect("walker").await).await;
    let named = format!("other.test:{}", upstream.addr.port());
    let response = client.get("GET", "/a", &[("host", &named), ("authorization", "mine")]).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(upstream.seen()[0].headers["authorization"], "mine");
}

#[tokio::test]
async fn http2_without_tls_is_forwarded_by_prior_knowledge_or_not_at_all() {
    let upstream = Upstream::plain(echo).await;
    let world = World::new(upstream.addr, Trust::new(), Wishes::default()).await;
    let mut client = Client::http2(world.connect("bot").await).await;
    let uri = format!("http://localhost:{}/a", upstream.addr.port());
    // This upstream speaks HTTP/1 only.
    assert_eq!(client.get("GET", &uri, &[]).await.status(), StatusCode::BAD_GATEWAY);
}

fn switch(_: Seen) -> Response<super::world::Body> {
    let mut response = Response::new(body(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    response
}

#[tokio::test]
async fn a_websocket_is_carried_both_ways_and_its_bytes_are_counted() {
    let (world, upstream) = world_with(Alpn::Http2OrHttp1, switch).await;
    let mut client = world.http1("bot").await;
    let ask = [
        ("host", &*host(&world)),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "x"),
    ];
    let mut response = client.send(request("GET", "/v1/ws", &ask)).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut socket = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    socket.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    socket.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    socket.shutdown().await.unwrap();
    assert_eq!(socket.read(&mut back).await.unwrap(), 0);
    drop(socket);
    assert_eq!(upstream.seen()[0].headers["x-key"], format!("Bearer {SECRET}"));
    let outcomes = world.book.outcomes().await;
    assert_eq!((outcomes[0].status, outcomes[0].bytes_sent, outcomes[0].bytes_received), (Some(101), 4, 4));
    assert_eq!(outcomes[0].error, None);
}

#[tokio::test]
async fn an_upgrade_is_not_allowed_by_a_rule_for_get() {
    let (world, upstream) = world_with(Alpn::Http2OrHttp1, switch).await;
    let mut client = world.http1("bot").await;
    let ask = [("host", &*host(&world)), ("connection", "Upgrade"), ("upgrade", "websocket")];
    let response = client.send(request("GET", "/v1/other", &ask)).await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(upstream.seen().is_empty());
    let refused = world.book.refusal().await;
    assert!(refused.reason.contains("\"websocket /v1/other\""), "{}", refused.reason);
}

#[tokio::test]
async fn a_drain_lets_the_call_end_and_closes_the_connection() {
    let (world, _upstream) = world_with(Alpn::Http1, echo).await;
    let mut client = world.http1("bot").await;
    assert_eq!(client.get("GET", "/v1/x", &[("host", &host(&world))]).await.status(), StatusCode::OK);
    world.drain.send(true).unwrap();
    let Client::Http1(sender) = &mut client else { panic!("it speaks HTTP/1") };
    while !sender.is_closed() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_drain_lets_the_calls_of_http2_end_and_closes_the_connection() {
    let (world, _upstream) = world_with(Alpn::Http1, echo).await;
    let mut client = Client::http2(world.connect_tls("bot", "api.test", Alpn::Http2).await).await;
    let uri = format!("https://{}/v1/x", host(&world));
    assert_eq!(client.get("GET", &uri, &[]).await.status(), StatusCode::OK);
    world.drain.send(true).unwrap();
    let Client::Http2(sender) = &mut client else { panic!("it speaks HTTP/2") };
    while !sender.is_closed() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn names_keep_their_spelling_over_http1_and_nothing_is_added() {
    let trust = Trust::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(listener.local_addr().unwrap(), trust.clone(), Wishes::default()).await;
    let acceptor = trust.outside();
    let upstream = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls =
            acceptor.accept(tcp, "api.test", Alpn::Http1, crate::trust::KeyKind::Ecdsa).await.unwrap();
        let mut bytes = vec![0; 4096];
        let count = tls.read(&mut bytes).await.unwrap();
        tls.write_all(b"HTTP/1.1 200 OK\r\nX-Theirs: 1\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    });
    let mut client = world.connect_tls("bot", "api.test", Alpn::Http1).await;
    let ask = format!("GET /v1/x HTTP/1.1\r\nHost: {}\r\nX-Ours: 1\r\n\r\n", host(&world));
    client.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("ok") {
        let mut bytes = [0; 4096];
        let count = client.read(&mut bytes).await.unwrap();
        answer.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nX-Theirs: 1\r\nContent-Length: 2\r\n\r\nok");
    let seen = upstream.await.unwrap();
    assert!(seen.contains("\r\nX-Ours: 1\r\n"), "{seen}");
}

#[tokio::test]
async fn counters_tell_who_was_allowed_and_who_was_not() {
    let (world, _upstream) = world_with(Alpn::Http1, echo).await;
    let headers = [("host", &*host(&world))];
    let mut client = world.http1("bot").await;
    client.get("GET", "/v1/x", &headers).await;
    client.get("DELETE", "/v1/x", &headers).await;
    world.http1("stranger").await.get("GET", "/v1/x", &headers).await;
    let counters = &world.services.counters;
    let identities = counters.identities();
    assert_eq!(identities.len(), 1);
    assert_eq!(
        (identities[0].0.as_str(), identities[0].1.allowed(), identities[0].1.denied()),
        ("bot", 1, 1)
    );
    assert_eq!(counters.unknown().denied(), 1);
    assert_eq!(counters.accepted(), 2);
    let allowed = world.book.decisions().iter().filter(|decision| decision.verdict == Verdict::Allow).count();
    assert_eq!(allowed, 1);
}
