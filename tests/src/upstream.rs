//! An upstream at `raw.test` that behaves as the last segment of the path says: well, badly, or not at all.
//!
//! | path ends in | HTTP/1.1 | HTTP/2 | what it does |
//! | --- | --- | --- | --- |
//! | anything else | ✓ | ✓ | answers 200 with the request as it came: head, then body |
//! | `never` | ✓ | ✓ | takes the request and does not answer |
//! | `slow-head` | ✓ | ✓ | waits at the gate, then answers |
//! | `slow-body` | ✓ | ✓ | sends `first`, waits at the gate, sends `last` |
//! | `reset` | ✓ | ✓ | sends a line of 10 of 1000 bytes, waits at the gate, resets the connection (the stream) |
//! | `reset-chunked` | ✓ | | the same with a chunked body |
//! | `truncated` | ✓ | | the same, but closes the connection in order |
//! | `truncated-chunked` | ✓ | | the same with a chunked body |
//! | `close` | ✓ | | closes before the head |
//! | `close-kept` | ✓ | | closes before the head if it is not the first request of its connection |
//! | `reset-kept`, `cut-kept` | ✓ | | the same by a reset, or without the end of TLS |
//! | `half-kept` | ✓ | | the same, in the middle of the head |
//! | `trailers` | ✓ | ✓ | sends the trailer `x-checksum: whole` |
//! | `hints` | ✓ | | sends 103 before 200 |
//! | `huge-header` | ✓ | ✓ | sends a header field of 1 MB |
//! | `big` | ✓ | ✓ | sends 100 MB |
//! | `endless` | ✓ | ✓ | sends lines of 64 KiB without end |
//! | `garbage` | ✓ | | answers with something else than HTTP |
//! | `two-lengths` | ✓ | | sends two values of `content-length` |
//! | `switch` | ✓ | | switches protocols unasked |
//! | `say` | ✓ | | sends the bytes of [`Upstream::say`], as they are |
//!
//! It has a thread of its own; dropping it ends it and breaks what is open.

use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::api::pki;
use crate::wait::wait_until;
use crate::world::{RAW_ADDRESS, World};

/// Bytes of a `big` body.
pub const BIG: usize = 100 << 20;
/// Bytes of a `huge-header`.
pub const HUGE: usize = 1 << 20;

/// What the upstream proves itself with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A certificate for `raw.test` and the other hosts of a world, by the CA that the daemon trusts.
    Good,
    /// A certificate for its name that it signed itself.
    SelfSigned,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Start line and header fields as they came; over HTTP/2 spelled in the same manner.
    pub head: String,
    /// The method.
    pub method: String,
    /// The target.
    pub target: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers.
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    /// The first value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

struct Shared {
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
    resumed: AtomicUsize,
    broken: AtomicUsize,
    gate: Semaphore,
    said: Mutex<(Vec<u8>, bool)>,
}

impl Shared {
    fn note(&self, seen: Seen) {
        self.seen.lock().unwrap().push(seen);
    }

    /// Waits until a test opens the gate for one more.
    async fn wait_at_gate(&self) {
        self.gate.acquire().await.unwrap().forget();
    }
}

/// A running upstream at [`RAW_ADDRESS`], port 443.
pub struct Upstream {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upstream {
    /// One that speaks HTTP/1.1 and proves its name.
    #[must_use]
    pub fn http1(world: &World) -> Self {
        Self::start(world, Proof::Good, &["http/1.1"])
    }

    /// One that speaks HTTP/2 and HTTP/1.1 and proves its name.
    #[must_use]
    pub fn http2(world: &World) -> Self {
        Self::start(world, Proof::Good, &["h2", "http/1.1"])
    }

    /// Starts one in the world's network; it listens when this returns.
    #[must_use]
    pub fn start(world: &World, proof: Proof, versions: &[&str]) -> Self {
        let net = std::fs::File::open(world.path("net")).unwrap();
        let mut tls = server_config(proof);
        tls.alpn_protocols = versions.iter().map(|version| version.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            connections: AtomicUsize::new(0),
            handshakes: AtomicUsize::new(0),
            resumed: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            gate: Semaphore::new(0),
            said: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let (up, is_up) = std::sync::mpsc::channel();
        let all = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            // Of this thread only.
            nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let address: SocketAddr = format!("{RAW_ADDRESS}:443").parse().unwrap();
            // A process that another test is just starting has what was open here, until it executes its program.
            let bind = || match TcpListener::bind(address) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => None,
                bound => Some(bound),
            };
            let listener = wait_until("the address of the upstream before", bind).unwrap();
            listener.set_nonblocking(true).unwrap();
            up.send(()).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, acceptor, all) => {}
                    _ = stopped => {}
                }
            });
        });
        is_up.recv().expect("the upstream did not start");
        Self { shared, stop: Some(stop), thread: Some(thread) }
    }

    /// The requests so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many requests there were so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// Waits until so many requests have come.
    #[track_caller]
    pub fn wait_for(&self, count: usize) {
        wait_until("a request at the upstream", || (self.count() >= count).then_some(()));
    }

    /// Lets `count` answers pass the gate, now or when they come to it.
    pub fn open_gate(&self, count: usize) {
        self.shared.gate.add_permits(count);
    }

    /// What `say` sends from now on, and whether it closes the connection then.
    pub fn say(&self, bytes: &[u8], close: bool) {
        *self.shared.said.lock().unwrap() = (bytes.to_vec(), close);
    }

    /// TCP connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// TLS handshakes that the other side completed.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        self.shared.handshakes.load(Ordering::SeqCst)
    }

    /// How many of them resumed a session.
    #[must_use]
    pub fn resumed(&self) -> usize {
        self.shared.resumed.load(Ordering::SeqCst)
    }

    /// Answers that nobody took to their end.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.shared.broken.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A server's side of TLS.
#[must_use]
pub fn server_config(proof: Proof) -> ServerConfig {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    server_config_of(proof, provider, rustls::ALL_VERSIONS)
}

/// The same with what this provider knows, and these versions.
#[must_use]
pub fn server_config_of(
    proof: Proof,
    provider: rustls::crypto::CryptoProvider,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ServerConfig {
    let (certificate, key) = match proof {
        Proof::Good => (pki().certificate.clone(), pki().key.clone()),
        Proof::SelfSigned => {
            let key = KeyPair::generate().unwrap();
            let leaf = CertificateParams::new(vec!["raw.test".to_owned()]).unwrap();
            (leaf.self_signed(&key).unwrap().pem(), key.serialize_pem())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(versions);
    builder.unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap()
}

async fn accept(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        shared.connections.fetch_add(1, Ordering::SeqCst);
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(tcp).await else { return };
            shared.handshakes.fetch_add(1, Ordering::SeqCst);
            if stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed) {
                shared.resumed.fetch_add(1, Ordering::SeqCst);
            }
            if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                http2(stream, shared).await;
            } else if http1(BufStream::new(stream), &shared).await.is_err() {
                shared.broken.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
}

type Stream = BufStream<TlsStream<TcpStream>>;

/// What becomes of the connection after an answer.
enum Next {
    Keep,
    Close,
    Reset,
}

async fn http1(mut stream: Stream, shared: &Shared) -> io::Result<()> {
    let mut kept = false;
    while let Some(seen) = request(&mut stream).await? {
        shared.note(seen.clone());
        let next = match act(&seen.target) {
            "close-kept" if kept => Next::Close,
            "reset-kept" if kept => Next::Reset,
            "cut-kept" if kept => return Err(io::Error::other("cut by the script")),
            "half-kept" if kept => {
                stream.write_all(b"HTTP/1.1 2").await?;
                Next::Close
            }
            _ => answer(&mut stream, shared, &seen).await?,
        };
        kept = true;
        stream.flush().await?;
        match next {
            Next::Keep => {}
            Next::Close => return stream.shutdown().await,
            Next::Reset => return stream.get_ref().get_ref().0.set_zero_linger(),
        }
    }
    Ok(())
}

async fn answer(stream: &mut Stream, shared: &Shared, seen: &Seen) -> io::Result<Next> {
    const SIZED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n012345678\n";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let act = act(&seen.target);
    match act {
        "never" => {
            let _ = stream.read_u8().await;
            return Ok(Next::Close);
        }
        "slow-head" => {
            shared.wait_at_gate().await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate").await?;
        }
        "slow-body" => {
            stream.write_all(CHUNKED).await?;
            stream.write_all(b"6\r\nfirst\n\r\n").await?;
            stream.flush().await?;
            shared.wait_at_gate().await;
            stream.write_all(b"5\r\nlast\n\r\n0\r\n\r\n").await?;
        }
        "reset" | "truncated" | "reset-chunked" | "truncated-chunked" => {
            if act.ends_with("chunked") {
                stream.write_all(CHUNKED).await?;
                stream.write_all(b"a\r\n012345678\n\r\n").await?;
            } else {
                stream.write_all(SIZED).await?;
            }
            stream.flush().await?;
            shared.wait_at_gate().await;
            return Ok(if act.starts_with("reset") { Next::Reset } else { Next::Close });
        }
        "close" => return Ok(Next::Close),
        "trailers" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n").await?;
            stream
                .write_all(b"trailer: x-checksum\r\n\r\n4\r\nbody\r\n0\r\nx-checksum: whole\r\n\r\n")
                .await?;
        }
        "hints" => {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n").await?;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
        }
        "huge-header" => {
            let field = "h".repeat(HUGE);
            let head = format!("HTTP/1.1 200 OK\r\nx-huge: {field}\r\ncontent-length: 2\r\n\r\nok");
            stream.write_all(head.as_bytes()).await?;
        }
        "big" => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n").as_bytes()).await?;
            for _ in 0..BIG / BLOCK.len() {
                stream.write_all(&BLOCK).await?;
            }
        }
        "endless" => {
            stream.write_all(CHUNKED).await?;
            loop {
                stream.write_all(format!("{:x}\r\n", BLOCK.len()).as_bytes()).await?;
                stream.write_all(&BLOCK).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        "garbage" => {
            stream.write_all(b"220 mail.test ESMTP\r\n").await?;
            return Ok(Next::Close);
        }
        "two-lengths" => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 5\r\n\r\nok";
            stream.write_all(head).await?;
            return Ok(Next::Close);
        }
        "too-many" => {
            stream
                .write_all(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n")
                .await?;
        }
        "say" => {
            let (bytes, close) = shared.said.lock().unwrap().clone();
            stream.write_all(&bytes).await?;
            return Ok(if close { Next::Close } else { Next::Keep });
        }
        "switch" => {
            let head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n";
            stream.write_all(head).await?;
            return Ok(Next::Close);
        }
        _ => {
            let body = [seen.head.as_bytes(), &seen.body].concat();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await?;
        }
    }
    Ok(Next::Keep)
}

/// One line.
static BLOCK: [u8; 64 << 10] = {
    let mut block = [b'b'; 64 << 10];
    block[block.len() - 1] = b'\n';
    block
};

fn act(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

/// Reads one request to its end; `None` when the connection ends before one. What is not a request is an error, and
/// noted nevertheless: tests want to know what came.
async fn request(stream: &mut Stream) -> io::Result<Option<Seen>> {
    let mut head = Vec::new();
    loop {
        let length = head.len();
        // TLS that ends without a word has ended all the same.
        if stream.read_until(b'\n', &mut head).await.unwrap_or(0) == 0 {
            return Ok(None);
        }
        if head.get(length..) == Some(b"\r\n") {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let headers: Vec<_> = lines.filter_map(field).collect();
    let mut seen = Seen { head, method, target, headers, body: Vec::new(), trailers: Vec::new() };
    if let Some(length) = seen.header("content-length").map(|length| length.parse().unwrap()) {
        seen.body = vec![0; length];
        stream.read_exact(&mut seen.body).await?;
    } else if seen.header("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(line(stream).await?.trim(), 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            let begin = seen.body.len();
            seen.body.resize(begin + size, 0);
            stream.read_exact(&mut seen.body[begin..]).await?;
            line(stream).await?;
        }
        while let Some(trailer) = field(line(stream).await?.trim_end()) {
            seen.trailers.push(trailer);
        }
    }
    Ok(Some(seen))
}

async fn line(stream: &mut Stream) -> io::Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    Ok(line)
}

fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    Some((name.to_ascii_lowercase(), value.trim().to_owned()))
}

type Body = Channel<Bytes, io::Error>;

async fn http2(stream: TlsStream<TcpStream>, shared: Arc<Shared>) {
    let service = hyper::service::service_fn(move |request| play(request, Arc::clone(&shared)));
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(4 << 20);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn play(
    request: http::Request<hyper::body::Incoming>,
    shared: Arc<Shared>,
) -> io::Result<http::Response<Body>> {
    let (parts, body) = request.into_parts();
    let pairs = |headers: &http::HeaderMap| -> Vec<(String, String)> {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    };
    let target = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let headers = pairs(&parts.headers);
    let mut head = format!("{} {target} HTTP/2\r\n", parts.method);
    for (name, value) in &headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    let collected = body.collect().await.map_err(io::Error::other)?;
    let trailers = collected.trailers().map(pairs).unwrap_or_default();
    let body = collected.to_bytes().to_vec();
    let act = act(&target).to_owned();
    let seen = Seen { head, method: parts.method.to_string(), target, headers, body, trailers };
    shared.note(seen.clone());
    let (sender, body) = Channel::new(1);
    let mut response = http::Response::new(body);
    match act.as_str() {
        "never" => std::future::pending().await,
        "slow-head" => shared.wait_at_gate().await,
        "trailers" => {
            // What HTTP/1.1 can pass on must be announced.
            response.headers_mut().insert("trailer", http::HeaderValue::from_static("x-checksum"));
        }
        "huge-header" => {
            let field = http::HeaderValue::from_bytes(&[b'h'; HUGE]).map_err(io::Error::other)?;
            response.headers_mut().insert("x-huge", field);
        }
        _ => {}
    }
    tokio::spawn(async move {
        if send(sender, &act, &seen, &shared).await.is_none() {
            shared.broken.fetch_add(1, Ordering::SeqCst);
        }
    });
    Ok(response)
}

/// Sends a body over HTTP/2; `None` when the other side does not want it any more.
async fn send(mut sender: Sender<Bytes, io::Error>, act: &str, seen: &Seen, shared: &Shared) -> Option<()> {
    let block = || Bytes::from_static(&BLOCK);
    match act {
        "slow-body" => {
            sender.send_data(Bytes::from_static(b"first\n")).await.ok()?;
            shared.wait_at_gate().await;
            sender.send_data(Bytes::from_static(b"last\n")).await.ok()
        }
        "reset" => {
            sender.send_data(Bytes::from_static(b"012345678\n")).await.ok()?;
            shared.wait_at_gate().await;
            sender.abort(io::Error::other("reset by the script"));
            Some(())
        }
        "trailers" => {
            sender.send_data(Bytes::from_static(b"body")).await.ok()?;
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-checksum", http::HeaderValue::from_static("whole"));
            sender.send_trailers(trailers).await.ok()
        }
        "big" => {
            for _ in 0..BIG / BLOCK.len() {
                sender.send_data(block()).await.ok()?;
            }
            Some(())
        }
        "endless" => loop {
            sender.send_data(block()).await.ok()?;
        },
        "slow-head" => sender.send_data(Bytes::from_static(b"late")).await.ok(),
        _ => sender.send_data([seen.head.as_bytes(), &seen.body].concat().into()).await.ok(),
    }
}
