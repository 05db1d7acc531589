//! Upstreams and clients that do not behave, and a host that cannot do its part.

use std::error::Error as _;
use std::time::Duration;

use ::http::{Response, StatusCode};
use bytes::Bytes;
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use proxy_journal::{Blame, Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::trust::Trust;
use super::world::{Answer, Client, Seen, Upstream, Wishes, World, body, request};
use crate::connection::Settings;
use crate::forward::ForwardLimits;
use crate::http::HttpLimits;
use crate::trust::Alpn;

const SOON: Duration = Duration::from_millis(50);

fn host(world: &World) -> String {
    format!("api.test:{}", world.upstream.port())
}

async fn world_with(alpn: Alpn, answer: Answer, wishes: Wishes) -> (World, Upstream) {
    let trust = Trust::new();
    let upstream = Upstream::tls(&trust, "api.test", alpn, answer).await;
    (World::new(upstream.addr, trust, wishes).await, upstream)
}

/// The status and the problem of a GET, and what the journal says of it.
async fn trouble(world: &World) -> (StatusCode, String, proxy_journal::Outcome) {
    let response = world.http1("bot").await.get("GET", "/v1/x", &[("host", &host(world))]).await;
    let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    let outcome = world.book.outcomes().await.remove(0);
    assert_eq!(response.headers()["vouchsafe-journal-id"], outcome.id.to_string());
    assert_eq!(outcome.status, Some(response.status().as_u16()));
    (response.status(), problem["type"].as_str().unwrap().to_owned(), outcome)
}

#[tokio::test]
async fn an_upstream_that_is_down_is_502() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let world = World::new(addr, Trust::new(), Wishes::default()).await;
    let (status, problem, outcome) = trouble(&world).await;
    assert_eq!(
        (status, problem.as_str()),
        (StatusCode::BAD_GATEWAY, "urn:vouchsafe:problem:upstream-unreachable")
    );
    assert_eq!(outcome.blame, Some(Blame::Upstream));
    assert!(outcome.error.unwrap().contains("refused"));
}

#[tokio::test]
async fn an_upstream_with_the_wrong_certificate_gets_nothing() {
    let trust = Trust::new();
    for (host, theirs) in [("other.test", trust.clone()), ("api.test", Trust::new())] {
        let upstream = Upstream::tls(&theirs, host, Alpn::Http1, |_| Response::new(body("got it"))).await;
        let world = World::new(upstream.addr, trust.clone(), Wishes::default()).await;
        let (status, problem, outcome) = trouble(&world).await;
        assert_eq!(
            (status, problem.as_str()),
            (StatusCode::BAD_GATEWAY, "urn:vouchsafe:problem:upstream-untrusted")
        );
        assert_eq!(outcome.blame, Some(Blame::Upstream));
        assert!(upstream.seen().is_empty());
    }
}

#[tokio::test]
async fn an_upstream_that_accepts_and_stays_silent_is_504() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trust = Trust::patient_for(SOON);
    let world = World::new(listener.local_addr().unwrap(), trust, Wishes::default()).await;
    let (status, problem, _) = trouble(&world).await;
    assert_eq!(
        (status, problem.as_str()),
        (StatusCode::GATEWAY_TIMEOUT, "urn:vouchsafe:problem:upstream-timeout")
    );
}

#[tokio::test]
async fn an_upstream_that_takes_the_request_and_does_not_answer_is_504() {
    let trust = Trust::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forward = ForwardLimits { response_time: SOON, ..ForwardLimits::default() };
    let wishes = Wishes { forward, ..Wishes::default() };
    let world = World::new(listener.local_addr().unwrap(), trust.clone(), wishes).await;
    let acceptor = trust.outside();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls = acceptor.accept(tcp, "api.test", Alpn::Http1).await.unwrap();
        // Reads all that comes, until the proxy gives up.
        let _ = tokio::io::copy(&mut tls, &mut tokio::io::sink()).await;
    });
    let (status, problem, outcome) = trouble(&world).await;
    assert_eq!(
        (status, problem.as_str()),
        (StatusCode::GATEWAY_TIMEOUT, "urn:vouchsafe:problem:upstream-timeout")
    );
    assert_eq!(outcome.blame, Some(Blame::Upstream));
}

/// Set off by the client that has read the first frame.
static BREAK: tokio::sync::Notify = tokio::sync::Notify::const_new();

fn break_off(_: Seen) -> Response<super::world::Body> {
    let frames = stream::unfold(true, |first| async move {
        if first {
            return Some((Ok(Frame::data(Bytes::from_static(b"some"))), false));
        }
        BREAK.notified().await;
        Some((Err(std::io::Error::other("broken")), false))
    });
    Response::new(StreamBody::new(Box::pin(frames)).boxed())
}

#[tokio::test]
async fn an_upstream_that_breaks_off_in_the_body_breaks_off_the_clients() {
    for alpn in [Alpn::Http1, Alpn::Http2OrHttp1] {
        let (world, _upstream) = world_with(alpn, break_off, Wishes::default()).await;
        for http2 in [false, true] {
            let mut client = match http2 {
                true => Client::http2(world.connect_tls("bot", "api.test", Alpn::Http2).await).await,
                false => world.http1("bot").await,
            };
            let uri = if http2 { format!("https://{}/v1/x", host(&world)) } else { "/v1/x".to_owned() };
            let hosts = [("host", &*host(&world))];
            let headers: &[(&str, &str)] = if http2 { &[] } else { &hosts };
            let mut response = client.send(request("GET", &uri, headers)).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "some");
            BREAK.notify_one();
            let rest = response.into_body().collect().await;
            assert!(rest.is_err(), "whole to the client (upstream {alpn:?}, HTTP/2 client: {http2})");
        }
        let outcomes = world.book.outcomes().await;
        assert!(outcomes.iter().all(|outcome| outcome.blame == Some(Blame::Upstream)), "{outcomes:#?}");
    }
}

#[tokio::test]
async fn a_secret_that_is_missing_is_502_and_nothing_leaves() {
    let wishes = Wishes { with_secret: false, ..Wishes::default() };
    let (world, upstream) = world_with(Alpn::Http1, |_| Response::new(body("")), wishes).await;
    let response = world.http1("bot").await.get("GET", "/v1/x", &[("host", &host(&world))]).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(String::from_utf8_lossy(response.body()).contains("credential-unavailable"));
    let refused = world.book.refusal().await;
    assert!(refused.reason.contains("key"), "{}", refused.reason);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_is_503_and_nothing_leaves() {
    let (world, upstream) = world_with(Alpn::Http1, |_| Response::new(body("")), Wishes::default()).await;
    world.book.recorder.stop("test").unwrap();
    let response = world.http1("bot").await.get("GET", "/v1/x", &[("host", &host(&world))]).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!response.headers().contains_key("vouchsafe-journal-id"));
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_header_of_a_megabyte_is_431_and_recorded() {
    let (world, _upstream) = world_with(Alpn::Http1, |_| Response::new(body("")), Wishes::default()).await;
    let mut stream = world.connect_tls("bot", "api.test", Alpn::Http1).await;
    let huge = format!("GET /v1/x HTTP/1.1\r\nhost: api.test\r\nx: {}\r\n\r\n", "a".repeat(1 << 20));
    let _ = stream.write_all(huge.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 431 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert!(world.book.refusal().await.reason.contains("larger"));
}

#[tokio::test]
async fn a_request_that_is_none_is_400_and_recorded() {
    let (world, upstream) = world_with(Alpn::Http1, |_| Response::new(body("")), Wishes::default()).await;
    for bad in [
        "GET /v1/x HTTP/1.1\r\nhost: api.test\r\nbad header\r\n\r\n",
        "GET /v1/x HTTP/1.1\r\nhost: api.test\r\n folded: x\r\n\r\n",
        "POST /up HTTP/1.1\r\nhost: api.test\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "POST /up HTTP/1.1\r\nhost: api.test\r\ntransfer-encoding: gzip\r\n\r\nab",
    ] {
        let mut stream = world.connect_tls("bot", "api.test", Alpn::Http1).await;
        stream.write_all(bad.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 400 "), "{bad}");
        world.book.refusal().await;
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_header_that_does_not_end_is_408() {
    let http = HttpLimits { header_time: SOON, ..HttpLimits::default() };
    let wishes = Wishes { settings: Settings { http, ..Settings::default() }, ..Wishes::default() };
    let (world, _upstream) = world_with(Alpn::Http1, |_| Response::new(body("")), wishes).await;
    let mut stream = world.connect_tls("bot", "api.test", Alpn::Http1).await;
    stream.write_all(b"GET /v1/x HTTP/1.1\r\nhost: a").await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(String::from_utf8_lossy(&answer).starts_with("HTTP/1.1 408 "));
    assert!(world.book.refusal().await.reason.contains("in time"));
}

#[tokio::test]
async fn a_client_that_sends_nothing_is_closed_and_recorded() {
    let settings = Settings { sniff_time: SOON, ..Settings::default() };
    let (world, _upstream) =
        world_with(Alpn::Http1, |_| Response::new(body("")), Wishes { settings, ..Wishes::default() }).await;
    let mut client = world.connect("bot").await;
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert!(world.book.refusal().await.reason.contains("0 bytes"));
}

fn endless(_: Seen) -> Response<super::world::Body> {
    let frames = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 4096]))));
    Response::new(StreamBody::new(frames).boxed())
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_response_is_to_blame_and_ends_the_call() {
    for alpn in [Alpn::Http1, Alpn::Http2OrHttp1] {
        let (world, _upstream) = world_with(alpn, endless, Wishes::default()).await;
        let mut client = world.http1("bot").await;
        let mut response = client.send(request("GET", "/v1/x", &[("host", &host(&world))])).await.unwrap();
        response.frame().await.unwrap().unwrap();
        drop((response, client));
        let outcomes = world.book.outcomes().await;
        assert_eq!(outcomes[0].blame, Some(Blame::Client));
        assert_eq!(outcomes[0].status, Some(200));
    }
}

#[tokio::test]
async fn a_connection_that_went_stale_in_the_pool_is_replaced() {
    let trust = Trust::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(listener.local_addr().unwrap(), trust.clone(), Wishes::default()).await;
    // An upstream that closes after each response without saying so.
    let acceptor = trust.outside();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut tls = acceptor.accept(tcp, "api.test", Alpn::Http1).await.unwrap();
            let mut bytes = [0; 4096];
            let _ = tls.read(&mut bytes).await.unwrap();
            tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            tls.shutdown().await.unwrap();
        }
    });
    let mut client = world.http1("bot").await;
    for _ in 0..5 {
        let response = client.get("GET", "/v1/x", &[("host", &host(&world))]).await;
        assert_eq!(response.status(), StatusCode::OK, "{response:?}");
        // The end of the connection has to arrive before the next request for this to be about the pool.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(world.book.decisions().iter().all(|decision| decision.verdict == Verdict::Allow));
    assert_eq!(world.book.outcomes().await.len(), 5);
}

#[tokio::test]
async fn a_header_of_http2_that_is_too_large_is_431_and_the_connection_goes_on() {
    let (world, upstream) = world_with(Alpn::Http1, |_| Response::new(body("fine")), Wishes::default()).await;
    let mut client = Client::http2(world.connect_tls("bot", "api.test", Alpn::Http2).await).await;
    let uri = format!("https://{}/v1/x", host(&world));
    let huge = "a".repeat(15 * 1024);
    let headers: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| (*name, &*huge)).collect();
    // A client that knows our limit does not even send it.
    match client.send(request("GET", &uri, &headers)).await {
        Ok(response) => assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        Err(error) => assert!(error.is_user() || error.source().is_some(), "{error:?}"),
    }
    assert!(upstream.seen().is_empty());
    assert_eq!(client.get("GET", &uri, &[]).await.status(), StatusCode::OK);
}
