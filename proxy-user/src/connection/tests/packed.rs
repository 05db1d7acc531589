//! Answers that the upstream compresses, and the credential in them.

use ::http::{Response, StatusCode};

use super::trust::Trust;
use super::world::{Answer, Body, Client, SECRET, Seen, Upstream, Wishes, World};
use crate::http::unpack::Coding;
use crate::http::unpack::tests::packed;
use crate::trust::Alpn;

/// Sends back what it got, in gzip, with the status that the path ends with.
fn reflect(seen: Seen) -> Response<Body> {
    let status: u16 = seen.target.rsplit('/').next().unwrap().parse().unwrap();
    let text = format!("you sent {}", seen.headers["x-key"].to_str().unwrap());
    let body = packed(Coding::Gzip, &[text.as_bytes()]).concat();
    let mut response = Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .header("etag", "\"a\"");
    if let Some(asked) = seen.headers.get("accept-encoding") {
        response = response.header("x-asked", asked);
    }
    response.body(whole(body)).unwrap()
}

fn whole(bytes: Vec<u8>) -> Body {
    use http_body_util::{BodyExt as _, Full};
    Full::new(bytes::Bytes::from(bytes)).map_err(|never| match never {}).boxed()
}

async fn world(alpn: Alpn, answer: Answer) -> World {
    let trust = Trust::new();
    let upstream = Upstream::tls(&trust, "api.test", alpn, answer).await;
    World::new(upstream.addr, trust, Wishes::default()).await
}

#[tokio::test]
async fn a_compressed_answer_is_unpacked_and_covered_over_both_versions_of_http() {
    for alpn in [Alpn::Http1, Alpn::Http2OrHttp1] {
        let world = world(alpn, reflect).await;
        let mut client = match alpn {
            Alpn::Http2OrHttp1 => Client::http2(world.connect_tls("bot", "api.test", alpn).await).await,
            _ => world.http1("bot").await,
        };
        let host = format!("api.test:{}", world.upstream.port());
        let uri = match alpn {
            Alpn::Http2OrHttp1 => format!("https://{host}/v1/200"),
            _ => "/v1/200".to_owned(),
        };
        let headers: &[(&str, &str)] = match alpn {
            Alpn::Http2OrHttp1 => &[("accept-encoding", "gzip")],
            _ => &[("accept-encoding", "gzip"), ("host", &host)],
        };
        for _ in 0..2 {
            let response = client.get("GET", &uri, headers).await;
            assert_eq!(response.body(), &format!("you sent Bearer {}", "*".repeat(SECRET.len())));
            assert!(!response.headers().contains_key("content-encoding"));
            assert_eq!(response.headers()["etag"], "W/\"a\"");
            assert_eq!(response.headers()["x-asked"], "gzip");
        }
        let outcomes = world.book.outcomes().await;
        assert_eq!(outcomes.iter().filter(|it| it.reflected && it.error.is_none()).count(), 2);
    }
}

#[tokio::test]
async fn answers_without_a_body_keep_their_heads() {
    let world = world(Alpn::Http1, reflect).await;
    let host = format!("api.test:{}", world.upstream.port());
    let mut client = world.http1("bot").await;
    for (method, path) in [("HEAD", "/v1/200"), ("GET", "/v1/304"), ("GET", "/v1/204")] {
        let response = client.get(method, path, &[("host", &host)]).await;
        assert_eq!(response.headers()["content-encoding"], "gzip", "{method} {path}");
        assert_eq!(response.headers()["etag"], "\"a\"", "{method} {path}");
        assert!(response.body().is_empty());
    }
}

#[tokio::test]
async fn a_range_is_asked_for_without_compression_and_a_compressed_one_does_not_go_on() {
    let world = world(Alpn::Http1, reflect).await;
    let host = format!("api.test:{}", world.upstream.port());
    let headers = [("host", &*host), ("accept-encoding", "gzip"), ("range", "bytes=0-9")];
    let mut client = world.http1("bot").await;
    // The upstream may answer with the whole.
    let response = client.get("GET", "/v1/200", &headers).await;
    assert_eq!(response.headers()["x-asked"], "identity");
    let response = client.get("GET", "/v1/206", &headers).await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("a part of a compressed body"), "{problem}");
    let outcomes = world.book.outcomes().await;
    assert_eq!(outcomes[1].blame, Some(proxy_journal::Blame::Upstream));
}
