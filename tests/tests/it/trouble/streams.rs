//! Bodies that break off, drip, or have no end: what the client sees, and who the journal says was to blame.

use std::fs;

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::upstream::{BIG, Proof, Upstream};
use tests::wire::Dialer;
use tests::{World, wait_until};
use tokio_rustls::TlsConnector;

use super::{RAW, Scene, outcome};

/// What the upstream can speak, and what the client speaks to the proxy.
const PAIRS: [(&str, &str); 4] =
    [("http/1.1", "--http1.1"), ("http/1.1", "--http2"), ("h2", "--http1.1"), ("h2", "--http2")];

fn every_pair(mut play: impl FnMut(&World, &Upstream, &str, &str)) {
    let world = World::start();
    for (upstream, client) in PAIRS {
        let server = Upstream::start(&world, Proof::Good, &[upstream]);
        play(&world, &server, upstream, client);
    }
}

#[test]
fn a_body_that_breaks_off_breaks_off_for_the_client_and_blames_the_upstream() {
    every_pair(|world, upstream, speaks, client| {
        let acts: &[&str] = match speaks {
            "h2" => &["reset"],
            _ => &["reset", "reset-chunked", "truncated", "truncated-chunked"],
        };
        for act in acts {
            let path = format!("/v1/{client}/{act}");
            let url = format!("https://raw.test{path}");
            let mut curl = world.bot("curl").args(["-sSN", client, &url]).spawn();
            // The break comes when the client has what was sent before it.
            assert_eq!(curl.line(), "012345678", "{path}");
            upstream.open_gate(1);
            assert_eq!(curl.rest(), "", "{path}");
            let code = curl.wait();
            assert!(code.is_some_and(|code| code != 0), "{path}: a body that broke off looks whole");
            let outcome = outcome(world, &path);
            assert_eq!(
                (&outcome["blame"], &outcome["status"]),
                (&"upstream".into(), &200.into()),
                "{outcome}"
            );
            assert_eq!(outcome["bytes_received"], 10, "{outcome}");
            assert!(outcome["error"].is_string());
        }
    });
}

#[test]
fn a_slow_body_streams() {
    every_pair(|world, upstream, speaks, client| {
        let mut curl = world.bot("curl").args(["-sSN", client, "https://raw.test/v1/slow-body"]).spawn();
        // The gate is closed: the last part was not sent when the first is here.
        assert_eq!(curl.line(), "first", "{speaks} {client}");
        upstream.open_gate(1);
        assert_eq!(curl.rest(), "last\n", "{speaks} {client}");
        assert_eq!(curl.wait(), Some(0));
    });
}

#[test]
fn a_client_that_goes_away_is_to_blame_and_ends_the_download() {
    every_pair(|world, upstream, speaks, client| {
        let path = format!("/v1/{speaks}/{client}/endless");
        let url = format!("https://raw.test{path}");
        let mut curl = world.bot("curl").args(["-sSN", client, &url]).spawn();
        let line = curl.line().len();
        drop(curl);
        let outcome = outcome(world, &path);
        assert_eq!((&outcome["blame"], &outcome["status"]), (&"client".into(), &200.into()), "{outcome}");
        assert!(outcome["bytes_received"].as_u64().unwrap() > line as u64, "{outcome}");
        wait_until("the end of the upstream's work", || (upstream.broken() >= 1).then_some(()));
    });
}

#[test]
fn a_client_that_goes_away_before_the_answer_is_to_blame() {
    let world = World::start();
    for speaks in ["http/1.1", "h2"] {
        for client in ["--http1.1", "--http2"] {
            let upstream = Upstream::start(&world, Proof::Good, &[speaks]);
            let path = format!("/v1/{speaks}/{client}/never");
            let curl = world.bot("curl").args(["-sSN", client, &format!("https://raw.test{path}")]).spawn();
            upstream.wait_for(1);
            drop(curl);
            let outcome = outcome(&world, &path);
            assert_eq!(outcome["blame"], "client", "{outcome}");
            assert!(outcome["error"].as_str().unwrap().contains("before the response"), "{outcome}");
            wait_until("the end of its connection", || {
                (world.status()["connections_open"] == 0).then_some(())
            });
        }
    }
}

#[test]
fn a_large_body_passes_whole_and_never_lies_in_memory() {
    every_pair(|world, _, speaks, client| {
        let path = format!("/v1/{speaks}/{client}/big");
        let to = world.path("big");
        let url = format!("https://raw.test{path}");
        let answer = world.curl(&[client, "-o", to.to_str().unwrap(), &url]);
        assert_eq!((answer.status, answer.code), (200, Some(0)), "{answer:?}");
        assert_eq!(fs::metadata(&to).unwrap().len(), BIG as u64);
        let outcome = outcome(world, &path);
        assert_eq!((&outcome["bytes_received"], &outcome["error"]), (&BIG.into(), &().into()), "{outcome}");
        fs::remove_file(&to).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", world.daemon_pid())).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim();
        let most: usize = most.strip_suffix(" kB").unwrap().parse().unwrap();
        assert!(most < BIG / 1024, "{most} kB were in memory at most");
    });
}

#[test]
fn an_upload_arrives_whole_with_its_trailers() {
    let world = World::start();
    let dialer = Dialer::new(&world);
    for speaks in ["http/1.1", "h2"] {
        let upstream = Upstream::start(&world, Proof::Good, &[speaks]);
        let request = format!(
            "PUT /v1/{speaks}/up HTTP/1.1\r\nhost: raw.test\r\ntransfer-encoding: chunked\r\n\
             trailer: x-sum, authorization\r\n\r\n\
             5\r\nhello\r\n0\r\nx-sum: 5\r\nauthorization: Bearer mine\r\n\r\n"
        );
        assert_eq!(dialer.say(request.as_bytes()).status, 200);
        let seen = upstream.seen().remove(0);
        assert_eq!(seen.body, b"hello");
        // The credential of a client does not pass in trailers, either.
        assert_eq!(seen.trailers, [("x-sum".to_owned(), "5".to_owned())], "{speaks}");
        assert_eq!(outcome(&world, &format!("/v1/{speaks}/up"))["bytes_sent"], 5);
    }
}

#[test]
fn the_body_of_a_get_passes_also_when_its_length_is_not_known_before() {
    every_pair(|world, upstream, speaks, client| {
        for (header, length) in [("x-length: known", true), ("transfer-encoding: chunked", false)] {
            if client == "--http2" && !length {
                // Over HTTP/2 a length is not known when curl reads from a pipe.
                let url = "https://raw.test/v1/query";
                let mut curl = world.bot("curl").args(["-sS", client, "-X", "GET", "-T", "-", url]).spawn();
                curl.say("asks");
                assert_eq!(curl.wait(), Some(0));
            } else {
                let answer = world.curl(&[
                    client,
                    "-X",
                    "GET",
                    "-H",
                    header,
                    "-d",
                    "asks",
                    "https://raw.test/v1/query",
                ]);
                assert_eq!(answer.status, 200, "{speaks} {client} {header}: {answer:?}");
            }
            let seen = upstream.seen().pop().unwrap();
            assert_eq!(
                (seen.method.as_str(), seen.body.trim_ascii_end()),
                ("GET", &b"asks"[..]),
                "{speaks} {client} {header}"
            );
            if length && speaks == "http/1.1" {
                assert_eq!(seen.header("content-length"), Some("4"), "a known length stays known: {seen:?}");
            }
            let answer = world.curl(&[client, "https://raw.test/v1/query"]);
            assert_eq!(answer.status, 200);
            let seen = upstream.seen().pop().unwrap();
            assert!(
                !seen.headers.iter().any(|(name, _)| name == "transfer-encoding"),
                "no body, no framing: {seen:?}"
            );
        }
    });
}

#[test]
fn trailers_of_the_upstream_pass() {
    let world = World::start();
    let dialer = Dialer::new(&world);
    for speaks in ["http/1.1", "h2"] {
        let _upstream = Upstream::start(&world, Proof::Good, &[speaks]);
        let reply = dialer.say(b"GET /v1/trailers HTTP/1.1\r\nhost: raw.test\r\nte: trailers\r\n\r\n");
        assert!(reply.whole, "{reply:?}");
        assert_eq!(reply.text(), "body");
        assert_eq!(reply.trailers, [("x-checksum".to_owned(), "whole".to_owned())], "{speaks}: {reply:?}");
        let trailers = runtime().block_on(async {
            let mut client = http2(&dialer).await;
            let response = client.send_request(get("/v1/trailers")).await.unwrap();
            response.into_body().collect().await.unwrap().trailers().cloned()
        });
        assert_eq!(trailers.expect("no trailers")["x-checksum"], "whole", "{speaks}");
    }
}

#[test]
fn an_interim_response_does_not_disturb_the_final_one() {
    let scene = Scene::set();
    let reply = scene.dialer.say(b"GET /v1/hints HTTP/1.1\r\nhost: raw.test\r\n\r\n");
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{reply:?}");
    assert!(reply.whole);
}

#[test]
fn two_hundred_requests_at_once_on_one_connection_are_each_answered_and_journalled() {
    const COUNT: usize = 200;
    let world = World::start();
    let dialer = Dialer::new(&world);
    for speaks in ["http/1.1", "h2"] {
        let upstream = Upstream::start(&world, Proof::Good, &[speaks]);
        let path = |number: usize| format!("/v1/{speaks}/{number}/slow-head");
        runtime().block_on(async {
            let client = http2(&dialer).await;
            let calls: Vec<_> = (0..COUNT)
                .map(|number| {
                    let (mut client, request) = (client.clone(), get(&path(number)));
                    tokio::spawn(async move {
                        let response = client.send_request(request).await.unwrap();
                        let status = response.status();
                        (status, response.into_body().collect().await.unwrap().to_bytes())
                    })
                })
                .collect();
            // All of them are under way before the first is answered.
            upstream.wait_for(COUNT);
            upstream.open_gate(COUNT);
            for call in calls {
                let (status, body) = call.await.unwrap();
                assert_eq!((status.as_u16(), &body[..]), (200, &b"late"[..]));
            }
        });
        let mut seen: Vec<String> = upstream.seen().into_iter().map(|seen| seen.target).collect();
        let mut asked: Vec<String> = (0..COUNT).map(path).collect();
        seen.sort();
        asked.sort();
        assert_eq!(seen, asked, "each exactly once");
        for path in asked {
            assert_eq!(outcome(&world, &path)["status"], 200);
        }
    }
    // The client's end is noticed a moment later.
    wait_until("the end of the connection", || (world.status()["connections_open"] == 0).then_some(()));
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(super) type Empties = hyper::client::conn::http2::SendRequest<Empty<bytes::Bytes>>;

/// A connection of the dialer's bot that speaks HTTP/2.
pub(super) async fn http2(dialer: &Dialer) -> Empties {
    let tcp = dialer.dial(RAW);
    tcp.set_nonblocking(true).unwrap();
    let tcp = tokio::net::TcpStream::from_std(tcp).unwrap();
    let name = rustls_pki_types::ServerName::try_from("raw.test").unwrap();
    let tls = TlsConnector::from(dialer.config(&["h2"])).connect(name, tcp).await.unwrap();
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (client, connection) = builder.handshake(TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(super) fn get(path: &str) -> http::Request<Empty<bytes::Bytes>> {
    http::Request::get(format!("https://raw.test{path}")).body(Empty::new()).unwrap()
}
