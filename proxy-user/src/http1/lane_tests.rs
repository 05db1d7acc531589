//! Exchanges with servers that answer early, late, twice and not at all.

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 443);

/// Frames that come when the channel gives them.
struct Frames(tokio::sync::mpsc::Receiver<Bytes>);

impl futures_util::Stream for Frames {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data))))
    }
}

fn asking<'a>(method: &'a Method, headers: &'a HeaderMap) -> Asking<'a> {
    Asking { method, target: "/a", headers, spelling: None }
}

fn fed() -> (tokio::sync::mpsc::Sender<Bytes>, StreamBody<Frames>) {
    let (give, take) = tokio::sync::mpsc::channel(4);
    (give, StreamBody::new(Frames(take)))
}

/// What the server has read up to `end`.
async fn until(server: &mut DuplexStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        read.push(server.read_u8().await.unwrap());
    }
    String::from_utf8(read).unwrap()
}

async fn body<B>(exchange: &mut Exchange<B>) -> Result<Vec<u8>, Error>
where
    B: Body<Data = Bytes, Error: std::error::Error> + Unpin,
{
    let mut all = Vec::new();
    while let Some(frame) = poll_fn(|cx| exchange.poll_frame(cx)).await? {
        all.extend_from_slice(frame.data_ref().unwrap());
    }
    Ok(all)
}

#[tokio::test]
async fn a_lane_is_used_again_when_both_messages_are_over_and_not_before() {
    let headers = HeaderMap::new();
    for (method, answer, again) in [
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
        (Method::GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
        (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n", true),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n", true),
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", false),
        (Method::GET, "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
        (Method::GET, "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", true),
        // What else comes is nobody's.
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", false),
    ] {
        let (ours, mut server) = duplex(4096);
        let mut exchange = Lane::new(ours, SERVER).send(&asking(&method, &headers), Full::new(Bytes::new()));
        server.write_all(answer.as_bytes()).await.unwrap();
        exchange.head(|_| {}).await.unwrap();
        body(&mut exchange).await.unwrap();
        assert_eq!(until(&mut server, "\r\n\r\n").await, format!("{method} /a HTTP/1.1\r\n\r\n"));
        let lane = exchange.finish();
        assert_eq!(lane.is_some(), again, "{answer:?}");
        if let Some(mut lane) = lane {
            assert!(lane.is_open());
            server.write_all(b"x").await.unwrap();
            assert!(!lane.is_open(), "something came unasked");
        }
    }
    let (ours, server) = duplex(4096);
    let mut lane = Lane::new(ours, SERVER);
    assert!(lane.is_open());
    drop(server);
    assert!(!lane.is_open());
}

#[tokio::test]
async fn a_body_goes_on_while_the_answer_comes() {
    let (ours, mut server) = duplex(4096);
    let (give, fed) = fed();
    let headers = HeaderMap::new();
    let mut exchange = Lane::new(ours, SERVER).send(&asking(&Method::POST, &headers), fed);
    give.send(Bytes::from_static(b"one")).await.unwrap();
    server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n").await.unwrap();
    exchange.head(|_| {}).await.unwrap();
    assert!(until(&mut server, "3\r\none\r\n").await.contains("transfer-encoding: chunked\r\n"));
    give.send(Bytes::from_static(b"two")).await.unwrap();
    drop(give);
    server.write_all(b"o").await.unwrap();
    assert_eq!(poll_fn(|cx| exchange.poll_frame(cx)).await.unwrap().unwrap().into_data().unwrap(), "o");
    server.write_all(b"k").await.unwrap();
    assert_eq!(body(&mut exchange).await.unwrap(), b"k");
    assert_eq!(until(&mut server, "0\r\n\r\n").await, "3\r\ntwo\r\n0\r\n\r\n");
    assert!(exchange.finish().is_some());
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_costs_the_lane() {
    let (ours, mut server) = duplex(4096);
    let (_give, fed) = fed();
    let headers = HeaderMap::new();
    let mut exchange = Lane::new(ours, SERVER).send(&asking(&Method::POST, &headers), fed);
    server.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    assert_eq!(exchange.head(|_| {}).await.unwrap().status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body(&mut exchange).await.unwrap().is_empty());
    assert!(exchange.finish().is_none());
}

#[tokio::test]
async fn what_a_server_says_before_it_closes_is_read_although_it_takes_no_more() {
    let (ours, mut server) = duplex(64);
    let headers = HeaderMap::new();
    let large = Full::new(Bytes::from(vec![b'x'; 100_000]));
    let mut exchange = Lane::new(ours, SERVER).send(&asking(&Method::POST, &headers), large);
    server.write_all(b"HTTP/1.1 413 x\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
    drop(server);
    assert_eq!(exchange.head(|_| {}).await.unwrap().status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(body(&mut exchange).await.unwrap(), b"no");
    assert!(exchange.finish().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_body_waits_for_100_where_the_client_does_and_not_for_ever() {
    let mut headers = HeaderMap::new();
    headers.insert(EXPECT, http::HeaderValue::from_static("100-continue"));
    for (answer, sends) in [
        (Some("HTTP/1.1 100 Continue\r\n\r\n"), true),
        (None, true),
        (Some("HTTP/1.1 417 x\r\ncontent-length: 0\r\n\r\n"), false),
    ] {
        let (ours, mut server) = duplex(4096);
        let full = Full::new(Bytes::from_static(b"abc"));
        let mut exchange = Lane::new(ours, SERVER).send(&asking(&Method::POST, &headers), full);
        let begun = tokio::time::Instant::now();
        let serve = async {
            let head = until(&mut server, "\r\n\r\n").await;
            assert!(
                head.contains("expect: 100-continue\r\n") && head.contains("content-length: 3\r\n"),
                "{head}"
            );
            if let Some(answer) = answer {
                server.write_all(answer.as_bytes()).await.unwrap();
            }
            if sends {
                let mut read = [0; 3];
                server.read_exact(&mut read).await.unwrap();
                assert_eq!(&read, b"abc");
                server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
            server
        };
        let (head, _server) = tokio::join!(exchange.head(|_| {}), serve);
        assert_eq!(head.unwrap().status.as_u16(), if sends { 200 } else { 417 });
        assert_eq!(begun.elapsed() >= CONTINUE, answer.is_none());
        assert_eq!(
            exchange.finish().is_some(),
            sends,
            "a server that refused the body cannot know that none follows"
        );
    }
}

#[tokio::test]
async fn a_body_that_is_not_what_the_head_says_breaks_the_exchange() {
    for (said, data) in [("4", "abc"), ("2", "abc")] {
        let (ours, _server) = duplex(4096);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, said.parse().unwrap());
        let mut exchange =
            Lane::new(ours, SERVER).send(&asking(&Method::POST, &headers), Full::new(Bytes::from(data)));
        assert!(matches!(exchange.head(|_| {}).await, Err(Error::Body(_))), "{said}");
    }
}

#[tokio::test]
async fn an_end_is_told_from_an_answer() {
    let headers = HeaderMap::new();
    for (answer, answered) in [("", false), ("HTTP/1.1 2", true), ("HTTP/1.1 102 x\r\n\r\n", true)] {
        let (ours, mut server) = duplex(4096);
        let mut exchange = Lane::new(ours, SERVER)
            .send(&asking(&Method::GET, &headers), Full::new(Bytes::new()).boxed_unsync());
        server.write_all(answer.as_bytes()).await.unwrap();
        drop(server);
        let error = exchange.head(|_| {}).await.unwrap_err();
        assert!(error.is_ended(), "{error}");
        assert_eq!(exchange.is_answered(), answered, "{answer:?}");
    }
}
