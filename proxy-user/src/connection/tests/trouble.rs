//! Upstreams and clients that do not behave, and a host that cannot do its part.

use std::error::Error as _;
use std::time::Duration;

use ::http::{Response, StatusCode};
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use proxy_journal::{Blame, Verdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::trust::Trust;
use super::world::{Answer, Client, Seen, Upstream, Wishes, World, body, request};
use crate::config::Rate;
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
        let mut tls =
            acceptor.accept(tcp, "api.test", Alpn::Http1, crate::trust::KeyKind::Ecdsa).await.unwrap();
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
    assert!(refused.rule.is_some(), "the rule that names the credential is told: {refused:?}");
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

/// A request of `/up` whose body has these parts.
async fn upload(
    world: &World,
    parts: impl Stream<Item = &'static str> + Send + Sync + 'static,
) -> Result<Response<hyper::body::Incoming>, hyper::Error> {
    let frame =
        |part: &'static str| Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(part.as_bytes())));
    let frames = Box::pin(futures_util::StreamExt::map(parts, frame));
    let mut post = request("POST", "/up", &[("host", &host(world))]);
    *post.body_mut() = StreamBody::new(frames).boxed();
    world.http1("bot").await.send(post).await
}

/// One part, and then nothing, without an end.
fn a_part_and_silence() -> impl Stream<Item = &'static str> + Send + Sync {
    stream::unfold(true, |first| async move {
        if !first {
            std::future::pending::<()>().await;
        }
        Some(("part", false))
    })
}

fn patient_for_an_answer(response_time: Duration) -> Wishes {
    let forward = ForwardLimits { response_time, ..ForwardLimits::default() };
    Wishes { forward, ..Wishes::default() }
}

#[tokio::test]
async fn an_upload_that_takes_longer_than_an_answer_may_goes_on_as_long_as_it_moves() {
    for alpn in [Alpn::Http1, Alpn::Http2OrHttp1] {
        let wishes = patient_for_an_answer(SOON * 4);
        let (world, upstream) = world_with(alpn, |_| Response::new(body("")), wishes).await;
        let parts = stream::unfold(0, |part| async move {
            tokio::time::sleep(SOON).await;
            (part < 12).then_some(("part ", part + 1))
        });
        assert_eq!(upload(&world, parts).await.unwrap().status(), StatusCode::OK, "{alpn:?}");
        assert_eq!(upstream.seen()[0].body.len(), 60);
    }
}

#[tokio::test]
async fn an_upload_that_stands_still_is_408_and_the_clients_fault() {
    for alpn in [Alpn::Http1, Alpn::Http2OrHttp1] {
        let wishes = patient_for_an_answer(SOON);
        let (world, _upstream) = world_with(alpn, |_| Response::new(body("")), wishes).await;
        assert_eq!(
            upload(&world, a_part_and_silence()).await.unwrap().status(),
            StatusCode::REQUEST_TIMEOUT,
            "{alpn:?}"
        );
        assert_eq!(world.book.outcomes().await[0].blame, Some(Blame::Client));
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_in_its_request_is_to_blame() {
    for alpn in [Alpn::Http1, Alpn::Http2OrHttp1] {
        let (world, _upstream) = world_with(alpn, |_| Response::new(body("")), Wishes::default()).await;
        let mut client = world.connect_tls("bot", "api.test", Alpn::Http1).await;
        let head = format!("POST /up HTTP/1.1\r\nhost: {}\r\ncontent-length: 9\r\n\r\nhalf", host(&world));
        client.write_all(head.as_bytes()).await.unwrap();
        while world.book.decisions().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        client.shutdown().await.unwrap();
        let outcome = world.book.outcomes().await.remove(0);
        assert_eq!(outcome.blame, Some(Blame::Client), "{outcome:?}");
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_does_not_bring_its_connection_back_unfinished() {
    let trust = Trust::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(listener.local_addr().unwrap(), trust.clone(), Wishes::default()).await;
    let acceptor = trust.outside();
    // Answers each request at its head.
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut tls = acceptor
                    .accept(tcp, "api.test", Alpn::Http1, crate::trust::KeyKind::Ecdsa)
                    .await
                    .unwrap();
                let mut bytes = [0; 4096];
                let _ = tls.read(&mut bytes).await.unwrap();
                tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await.unwrap();
                // The rest of that request, and whatever else comes here.
                while tls.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    let mut early = upload(&world, a_part_and_silence()).await.unwrap();
    assert_eq!(early.frame().await.unwrap().unwrap().into_data().unwrap(), "early");
    // Over the same connection, this one would be waiting for the end of the first.
    let other = async { world.http1("bot").await.get("GET", "/v1/x", &[("host", &host(&world))]).await };
    let other =
        tokio::time::timeout(Duration::from_secs(5), other).await.expect("it got an occupied connection");
    assert_eq!(other.body(), "early");
}

#[tokio::test]
async fn a_client_of_http2_gets_no_more_requests_at_a_time_than_the_limit_says() {
    let http = HttpLimits { streams: 1, ..HttpLimits::default() };
    let wishes = Wishes { settings: Settings { http, ..Settings::default() }, ..Wishes::default() };
    let (world, upstream) = world_with(Alpn::Http1, endless, wishes).await;
    let mut client = Client::http2(world.connect_tls("bot", "api.test", Alpn::Http2).await).await;
    let uri = format!("https://{}/v1/x", host(&world));
    let first = client.send(request("GET", &uri, &[])).await.unwrap();
    let second = client.send(request("GET", &uri, &[]));
    assert!(tokio::time::timeout(SOON * 4, second).await.is_err());
    assert_eq!(upstream.seen().len(), 1);
    drop(first);
    assert_eq!(client.send(request("GET", &uri, &[])).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn http2_that_breaks_the_rules_is_recorded() {
    let (world, upstream) = world_with(Alpn::Http1, |_| Response::new(body("")), Wishes::default()).await;
    let mut client = world.connect_tls("bot", "api.test", Alpn::Http2).await;
    // SETTINGS on a stream (RFC 9113 §6.5 wants stream 0).
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\x01").await.unwrap();
    let _ = client.read_to_end(&mut Vec::new()).await;
    let refused =
        tokio::time::timeout(Duration::from_secs(5), world.book.refusal()).await.expect("no record");
    assert!(refused.reason.contains("not a request"), "{}", refused.reason);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn an_upstream_that_hangs_up_in_the_handshake_failed_and_is_not_called_untrusted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(listener.local_addr().unwrap(), Trust::new(), Wishes::default()).await;
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let (status, problem, _) = trouble(&world).await;
    assert_eq!(
        (status, problem.as_str()),
        (StatusCode::BAD_GATEWAY, "urn:vouchsafe:problem:upstream-failed")
    );
}

#[tokio::test]
async fn a_client_that_is_refused_in_its_upload_can_send_on_without_a_reset() {
    let (world, upstream) = world_with(Alpn::Http1, |_| Response::new(body("")), Wishes::default()).await;
    let mut client = world.connect_tls("bot", "api.test", Alpn::Http1).await;
    let head = format!("POST /no HTTP/1.1\r\nhost: {}\r\ncontent-length: 4194304\r\n\r\n", host(&world));
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 4096];
    let count = client.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 403 "), "{}", String::from_utf8_lossy(&answer[..count]));
    // Many clients read nothing before they have sent all; a reset would take the answer from them.
    client.write_all(&vec![b'u'; 4 << 20]).await.expect("it was reset");
    client.flush().await.expect("it was reset");
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn a_call_whose_connection_ends_in_the_moment_it_is_taken_goes_over_another() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(listener.local_addr().unwrap(), Trust::new(), Wishes::default()).await;
    let mut client = world.connect("walker").await;
    let ask = format!("GET / HTTP/1.1\r\nhost: other.test:{}\r\n\r\n", world.upstream.port());
    let mut bytes = [0; 4096];
    let mut before: Option<tokio::net::TcpStream> = None;
    for _ in 0..3 {
        // Request and end arrive together, the request first: nothing else runs between these two lines.
        assert_eq!(client.try_write(ask.as_bytes()).unwrap(), ask.len());
        drop(before.take());
        let accepted = tokio::time::timeout(Duration::from_secs(5), listener.accept());
        let (mut upstream, _) = accepted.await.expect("the call did not come").unwrap();
        let count = upstream.read(&mut bytes).await.unwrap();
        assert!(bytes[..count].starts_with(b"GET / "));
        upstream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        let count = client.read(&mut bytes).await.unwrap();
        assert!(bytes[..count].starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&bytes[..count]));
        before = Some(upstream);
        client.writable().await.unwrap();
    }
}

/// Sends GOAWAY (RFC 9113 §6.8) on the connections that are open.
static LEAVE: tokio::sync::Notify = tokio::sync::Notify::const_new();

#[tokio::test]
async fn calls_go_over_another_connection_after_a_goaway_while_older_ones_end_on_theirs() {
    let trust = Trust::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(listener.local_addr().unwrap(), trust.clone(), Wishes::default()).await;
    let acceptor = trust.outside();
    let connections = tokio::spawn(async move {
        for number in 0.. {
            let (tcp, _) = listener.accept().await.unwrap();
            let tls = acceptor
                .accept(tcp, "api.test", Alpn::Http2OrHttp1, crate::trust::KeyKind::Ecdsa)
                .await
                .unwrap();
            tokio::spawn(async move {
                let service = hyper::service::service_fn(move |_| async move {
                    let mut response = endless_body();
                    response.headers_mut().insert("x-connection", number.into());
                    Ok::<_, std::convert::Infallible>(response)
                });
                let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
                let connection = builder.serve_connection(hyper_util::rt::TokioIo::new(tls), service);
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = LEAVE.notified() => connection.as_mut().graceful_shutdown(),
                }
                let _ = connection.await;
            });
        }
    });
    let ask =
        || async { world.http1("bot").await.send(request("GET", "/v1/x", &[("host", &host(&world))])).await };
    let mut first = ask().await.unwrap();
    assert_eq!(first.headers()["x-connection"], "0");
    LEAVE.notify_waiters();
    // It is on its way for as long as calls still go there.
    let second = loop {
        let second = ask().await.unwrap();
        assert_eq!(second.status(), StatusCode::OK, "{second:?}");
        if second.headers()["x-connection"] != "0" {
            break second;
        }
    };
    assert_eq!(second.headers()["x-connection"], "1");
    first.frame().await.unwrap().expect("the first one was broken off");
    connections.abort();
}

fn endless_body() -> Response<super::world::Body> {
    let frames = stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[b'x'; 4096]))));
    Response::new(StreamBody::new(frames).boxed())
}

fn endless(_: Seen) -> Response<super::world::Body> {
    endless_body()
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
            let mut tls =
                acceptor.accept(tcp, "api.test", Alpn::Http1, crate::trust::KeyKind::Ecdsa).await.unwrap();
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

#[tokio::test]
async fn what_is_refused_too_often_is_refused_without_a_record_and_counted() {
    let refusals = Rate { number: 1, per: Duration::from_secs(3600), burst: 2 };
    let wishes = Wishes { refusals, ..Wishes::default() };
    let (world, _upstream) = world_with(Alpn::Http1, |_| Response::new(body("")), wishes).await;
    let headers = [("host", &*host(&world))];
    let mut client = world.http1("bot").await;
    let mut named = Vec::new();
    for _ in 0..5 {
        let answer = client.get("DELETE", "/v1/x", &headers).await;
        assert_eq!(answer.status(), 403);
        named.push(answer.headers().contains_key("vouchsafe-journal-id"));
    }
    assert_eq!(named, [true, true, false, false, false]);
    // Neither others nor what is permitted.
    assert_eq!(client.get("GET", "/v1/x", &headers).await.status(), 200);
    let other = world.http1("stranger").await.get("GET", "/v1/x", &headers).await;
    assert!(other.headers().contains_key("vouchsafe-journal-id"));
    let counters = &world.services.counters;
    let (_, bot) = counters.identities().swap_remove(0);
    assert_eq!((bot.denied(), bot.unrecorded(), counters.unknown().unrecorded()), (5, 3, 0));
    assert_eq!(counters.unrecorded(), 3);
    let denied = world.book.decisions().iter().filter(|decision| decision.verdict == Verdict::Deny).count();
    assert_eq!(denied, 3);
}

#[tokio::test]
async fn what_is_refused_while_the_journal_cannot_be_written_is_counted_to_be_told_later() {
    let (world, _upstream) = world_with(Alpn::Http1, |_| Response::new(body("")), Wishes::default()).await;
    let headers = [("host", &*host(&world))];
    let mut client = world.http1("bot").await;
    assert_eq!(client.get("GET", "/v1/x", &headers).await.status(), 200);
    world.book.recorder.stop("it is broken").unwrap();
    for (method, status) in [("DELETE", 403), ("GET", 503), ("DELETE", 403)] {
        let answer = client.get(method, "/v1/x", &headers).await;
        assert_eq!(answer.status(), status);
        assert!(!answer.headers().contains_key("vouchsafe-journal-id"));
    }
    let (_, bot) = world.services.counters.identities().swap_remove(0);
    assert_eq!((bot.allowed(), bot.denied(), bot.unrecorded()), (1, 3, 3));
}

#[tokio::test]
async fn a_method_as_long_as_all_headers_together_is_refused_and_its_record_is_short() {
    let (world, _upstream) = world_with(Alpn::Http1, |_| Response::new(body("")), Wishes::default()).await;
    let long = "M".repeat(500_000);
    let mut client = Client::http2(world.connect_tls("bot", "api.test", Alpn::Http2).await).await;
    let answer = client.get(&long, &format!("https://{}/v1/x", host(&world)), &[]).await;
    assert!(answer.status().is_client_error(), "{answer:?}");
    let denied = world.book.decisions();
    let denied: Vec<_> = denied.iter().filter(|decision| decision.verdict == Verdict::Deny).collect();
    assert_eq!(denied.len(), 1);
    assert_eq!(denied[0].method.as_deref(), Some(&long[..64]));
}
