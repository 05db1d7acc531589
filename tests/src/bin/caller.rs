//! A caller: a correct client over kept-alive connections that counts what becomes of each of its requests.
//!
//! ```text
//! caller --to ADDRESS:PORT --host HOST --roots PEM --seconds N|stdin --rate N --downloads 0|1
//! ```
//!
//! It calls for so many seconds, or until its stdin ends. Half of the rate goes over HTTP/1.1, half over HTTP/2, and beside them one slow download after the other over each; then
//! one line of JSON tells of each way. A request that got no byte of its response on a connection that had served before is asked
//! again on a new one, as RFC 9110 (9.2.2) lets a client do, and so is one that the server says it did not process (RFC 9113, 8.7); a connection attempt that fails, a request that fails on its
//! new connection, and a response that broke off are *lost*, and told with what was wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a caller that cannot call says so"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Workers of each version; each has one connection.
const WORKERS: u32 = 8;
/// Longer than any restart; what takes longer is lost.
const LIMIT: Duration = Duration::from_secs(20);

struct Site {
    to: String,
    host: String,
    http1: TlsConnector,
    http2: TlsConnector,
}

/// What became of the requests of one way.
#[derive(Default)]
struct Tally {
    answered: u64,
    connections: u64,
    retried: u64,
    longest: Duration,
    lost: Vec<String>,
}

impl Tally {
    fn add(&mut self, outcome: Result<(), String>, took: Duration) {
        match outcome {
            Ok(()) => {
                self.answered += 1;
                self.longest = self.longest.max(took);
            }
            Err(error) => self.lost.push(error),
        }
    }
}

enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// A connection, and whether it has served a request.
struct Connection {
    sender: Sender,
    used: bool,
}

/// What is wrong with one try.
enum Trouble {
    /// The server refused the stream, or went away before it.
    Unprocessed,
    /// No byte of a response came.
    Unanswered(String),
    /// A response began, or is not the right one.
    Lost(String),
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).unwrap_or_else(|| panic!("{name} is missing")).clone()
    };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(option("--roots")).unwrap() {
        roots.add(root.unwrap()).unwrap();
    }
    let connector = |version: &str| {
        let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots.clone()).with_no_client_auth();
        config.alpn_protocols = vec![version.as_bytes().to_vec()];
        TlsConnector::from(Arc::new(config))
    };
    let site = Site {
        to: option("--to"),
        host: option("--host"),
        http1: connector("http/1.1"),
        http2: connector("h2"),
    };
    let rate: u32 = option("--rate").parse().unwrap();
    let downloads: u32 = option("--downloads").parse().unwrap();
    let site = Arc::new(site);
    let begun = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&over);
    let seconds = option("--seconds");
    std::thread::spawn(move || {
        match seconds.parse() {
            Ok(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
            Err(_) => drop(std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())),
        }
        end.store(true, Ordering::SeqCst);
    });
    let pause = Duration::from_secs(1) * (2 * WORKERS) / rate;
    let mut ways = Vec::new();
    for (name, http2, path, workers, pause) in [
        ("http1", false, "/v1/short", WORKERS, pause),
        ("http2", true, "/v1/short", WORKERS, pause),
        ("long1", false, "/v1/slowly/file", downloads, Duration::ZERO),
        ("long2", true, "/v1/slowly/file", downloads, Duration::ZERO),
    ] {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let tasks: Vec<_> = (0..workers)
            .map(|_| {
                tokio::spawn(work(
                    Arc::clone(&site),
                    http2,
                    path,
                    pause,
                    Arc::clone(&over),
                    Arc::clone(&tally),
                ))
            })
            .collect();
        ways.push((name, tally, tasks));
    }
    let mut told = serde_json::Map::new();
    for (name, tally, tasks) in ways {
        for task in tasks {
            task.await.unwrap();
        }
        let tally = tally.lock().unwrap();
        let way = json!({
            "answered": tally.answered, "connections": tally.connections, "retried": tally.retried,
            "longest_ms": u64::try_from(tally.longest.as_millis()).unwrap(), "lost": tally.lost,
        });
        told.insert(name.to_owned(), way);
    }
    told.insert("seconds".to_owned(), json!(begun.elapsed().as_secs_f64()));
    println!("{}", serde_json::Value::Object(told));
}

/// Asks again and again, at its pace, until the end.
async fn work(
    site: Arc<Site>,
    http2: bool,
    path: &'static str,
    pause: Duration,
    over: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
) {
    let mut connection = None;
    let mut next = Instant::now();
    while !over.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let outcome =
            match tokio::time::timeout(LIMIT, ask(&site, http2, path, &mut connection, &tally)).await {
                Ok(outcome) => outcome,
                Err(_) => Err("no answer came in time".to_owned()),
            };
        if outcome.is_err() {
            connection = None;
        }
        tally.lock().unwrap().add(outcome, begun.elapsed());
        // What was held up is not asked for in a burst afterwards.
        next = (next + pause).max(Instant::now());
        tokio::time::sleep_until(next.into()).await;
    }
}

/// One request to its whole response: again, where that is allowed, on a new connection.
async fn ask(
    site: &Site,
    http2: bool,
    path: &str,
    connection: &mut Option<Connection>,
    tally: &Mutex<Tally>,
) -> Result<(), String> {
    loop {
        if connection.as_ref().is_some_and(|open| !open.sender.is_open()) {
            *connection = None;
        }
        let mut open = match connection.take() {
            Some(open) => open,
            None => {
                tally.lock().unwrap().connections += 1;
                connect(site, http2).await.map_err(|error| format!("a connection attempt: {error}"))?
            }
        };
        let used = std::mem::replace(&mut open.used, true);
        match open.sender.send(site, path).await {
            Ok(()) => {
                *connection = Some(open);
                return Ok(());
            }
            // The server says that it did nothing with it, which every client may ask again (RFC 9113, section 8.7).
            Err(Trouble::Unprocessed) => tally.lock().unwrap().retried += 1,
            Err(Trouble::Unanswered(_)) if used => tally.lock().unwrap().retried += 1,
            Err(Trouble::Unanswered(error)) => {
                return Err(format!("the first request of a connection: {error}"));
            }
            Err(Trouble::Lost(error)) => return Err(error),
        }
    }
}

async fn connect(site: &Site, http2: bool) -> Result<Connection, String> {
    let tcp = TcpStream::connect(&site.to).await.map_err(|error| error.to_string())?;
    tcp.set_nodelay(true).unwrap();
    let name = ServerName::try_from(site.host.clone()).unwrap();
    let connector = if http2 { &site.http2 } else { &site.http1 };
    let tls = connector.connect(name, tcp).await.map_err(|error| format!("TLS: {error}"))?;
    let stream = TokioIo::new(tls);
    let sender = if http2 {
        let (sender, driver) =
            http2::handshake(TokioExecutor::new(), stream).await.map_err(|error| said(&error))?;
        tokio::spawn(driver);
        Sender::Http2(sender)
    } else {
        let (sender, driver) = http1::handshake(stream).await.map_err(|error| said(&error))?;
        tokio::spawn(driver);
        Sender::Http1(sender)
    };
    Ok(Connection { sender, used: false })
}

impl Sender {
    fn is_open(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }

    async fn send(&mut self, site: &Site, path: &str) -> Result<(), Trouble> {
        let response = match self {
            Self::Http1(sender) => match sender.ready().await {
                Ok(()) => {
                    let request = Request::get(path).header("host", &site.host).body(Empty::new());
                    sender.send_request(request.unwrap()).await
                }
                Err(error) => Err(error),
            },
            Self::Http2(sender) => match sender.ready().await {
                Ok(()) => {
                    let request = Request::get(format!("https://{}{path}", site.host)).body(Empty::new());
                    sender.send_request(request.unwrap()).await
                }
                Err(error) => Err(error),
            },
        };
        let response = response.map_err(|error| match self {
            // hyper says so when the connection ended before, or in the middle of, the head of the response.
            Self::Http1(_) if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
                Trouble::Unanswered(said(&error))
            }
            Self::Http1(_) if reset(&error) => Trouble::Unanswered(said(&error)),
            Self::Http2(_) if refused_stream(&error) => Trouble::Unprocessed,
            Self::Http2(_) if error.is_canceled() || error.is_closed() => Trouble::Unanswered(said(&error)),
            _ => Trouble::Lost(format!("no response: {}", said(&error))),
        })?;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body
            .map_err(|error| Trouble::Lost(format!("a response broke off: {}", said(&error))))?
            .to_bytes();
        if status != StatusCode::OK || body.is_empty() {
            return Err(Trouble::Lost(format!("answered {status}: {}", String::from_utf8_lossy(&body))));
        }
        Ok(())
    }
}

/// Whether the connection was reset or closed below HTTP: nothing of a response was there.
fn reset(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|io| {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
        matches!(io.kind(), ConnectionReset | BrokenPipe | UnexpectedEof)
    })
}

/// Whether the server said that it did not, and will not, look at the request (RFC 9113, 8.7).
fn refused_stream(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
    })
}

fn said(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
