//! TLS to hosts that no API names, and TLS that does not come to a request.

use ::http::Response;
use proxy_journal::Blame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::trust::Trust;
use super::world::{Client, Upstream, Wishes, World, body};
use crate::trust::Alpn;

async fn world(trust: &Trust, host: &str) -> World {
    let upstream = Upstream::tls(trust, host, Alpn::Http1, |_| Response::new(body("direct"))).await;
    World::new(upstream.addr, trust.clone(), Wishes::default()).await
}

#[tokio::test]
async fn tls_to_a_host_that_no_api_names_passes_undecrypted_for_who_may() {
    let trust = Trust::new();
    let world = world(&trust, "other.test").await;
    let tls = trust.outside_client(world.connect("walker").await, "other.test").await.unwrap();
    let mut client = Client::http1(tls).await;
    assert_eq!(client.get("GET", "/", &[("host", "other.test")]).await.body(), "direct");
    drop(client);
    let outcomes = world.book.outcomes().await;
    assert!(outcomes[0].bytes_sent > 0 && outcomes[0].bytes_received > 0, "{outcomes:?}");
    let decision = &world.book.decisions()[0];
    assert_eq!((decision.host.as_deref(), decision.scheme.as_deref()), (Some("other.test"), Some("tls")));
    assert_eq!(decision.method, None);
}

#[tokio::test]
async fn tls_to_a_host_that_no_api_names_is_refused_otherwise() {
    let trust = Trust::new();
    let world = world(&trust, "other.test").await;
    for exe in ["bot", "stranger"] {
        let refused = trust.outside_client(world.connect(exe).await, "other.test").await.unwrap_err();
        assert!(refused.to_string().contains("AccessDenied"), "{refused}");
    }
    let decisions = world.book.decisions();
    assert_eq!(decisions.len(), 2);
    assert!(decisions[0].reason.contains("no API of the policy names it"), "{}", decisions[0].reason);
}

#[tokio::test]
async fn a_client_that_does_not_trust_our_ca_is_recorded_with_what_to_do() {
    let trust = Trust::new();
    let world = world(&trust, "api.test").await;
    assert!(trust.outside_client(world.connect("bot").await, "api.test").await.is_err());
    let refused = world.book.refusal().await;
    assert!(refused.reason.contains("vouchsafe trust install"), "{}", refused.reason);
    assert!(refused.mistrust.as_deref().is_some_and(|mistrust| mistrust.certain), "{refused:?}");
}

#[tokio::test]
async fn a_client_that_goes_away_after_the_handshake_is_recorded_as_one_that_may_not_trust_us() {
    let trust = Trust::new();
    let world = world(&trust, "api.test").await;
    for (count, alpn) in [Alpn::Http1, Alpn::Http2OrHttp1].into_iter().enumerate() {
        drop(world.connect_tls("bot", "api.test", alpn).await);
        while world.book.decisions().len() <= count {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let decisions = world.book.decisions();
        let hint = &decisions[count];
        assert!(hint.reason.contains("asked for nothing"), "{}", hint.reason);
        assert!(hint.mistrust.as_deref().is_some_and(|mistrust| !mistrust.certain), "{hint:?}");
    }
    let mut client = world.http1("bot").await;
    client.get("GET", "/v1/x", &[("host", "api.test")]).await;
    drop(client);
    assert_eq!(world.book.decisions().len(), 3, "who asked for something trusts us");
}

#[tokio::test]
async fn tls_cut_at_any_length_is_recorded() {
    let trust = Trust::new();
    let world = world(&trust, "api.test").await;
    let hello = hello(&trust).await;
    for (count, length) in (0..hello.len()).step_by(7).enumerate() {
        let mut client = world.connect("bot").await;
        client.write_all(&hello[..length]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
        assert_eq!(world.book.decisions().len(), count + 1, "cut at {length}");
    }
}

/// The first bytes of a client.
async fn hello(trust: &Trust) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let trust = trust.clone();
    let client =
        tokio::spawn(async move { trust.client(tcp, "api.test", Alpn::Http2OrHttp1).await.map(drop) });
    let (mut server, _) = listener.accept().await.unwrap();
    let mut bytes = vec![0; 4096];
    let count = server.read(&mut bytes).await.unwrap();
    bytes.truncate(count);
    client.abort();
    bytes
}

#[tokio::test]
async fn bytes_of_no_known_protocol_pass_only_for_who_may() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new(listener.local_addr().unwrap(), Trust::new(), Wishes::default()).await;
    let mut client = world.connect("walker").await;
    client.write_all(b"\0binary").await.unwrap();
    client.shutdown().await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"\0binary");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    let mut got = Vec::new();
    client.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"answer");
    let outcome = &world.book.outcomes().await[0];
    assert_eq!((outcome.bytes_sent, outcome.bytes_received), (7, 6));
    let mut client = world.connect("bot").await;
    client.write_all(b"\0binary").await.unwrap();
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got).await;
    assert!(got.is_empty());
    world.book.refusal().await;
}

#[tokio::test]
async fn a_passage_to_a_dead_upstream_is_recorded_with_the_blame() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let world = World::new(addr, Trust::new(), Wishes::default()).await;
    let mut client = world.connect("walker").await;
    client.write_all(b"\0binary").await.unwrap();
    let mut got = Vec::new();
    let _ = client.read_to_end(&mut got).await;
    let outcome = &world.book.outcomes().await[0];
    assert_eq!(outcome.blame, Some(Blame::Upstream));
    assert_eq!(outcome.upstream, Some(addr));
}
