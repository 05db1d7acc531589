//! A proxy without a kernel: services over loopback, an upstream that plays along, and clients.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::trust::Trust;
use crate::accept::{Accepted, Origin};
use crate::authorize::tests::{live, workload};
use crate::authorize::{Identifier, LivePolicy, PolicyStore};
use crate::base::addr::{ClientAddr, OriginalDst};
use crate::config::{QueryNames, Rate};
use crate::connection::{Counters, OpenConnection, Services, Settings, serve};
use crate::credentials::{Credentials, Fingerprints, KeySource, Outcall, Redaction, Secret, Store};
use crate::forward::{Dialer, ForwardLimits, Forwarder};
use crate::http::book::Book;
use crate::limits::Backoff;
use crate::trust::Alpn;
use crate::workload::{Identified, Workload};

pub(super) const SECRET: &str = "canary-sk-live-1234";
pub(super) type Body = BoxBody<Bytes, std::io::Error>;

/// What an upstream saw of a request.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) version: http::Version,
}

/// Finds the identity that has the name of the executable.
struct ByName;

impl Identifier for ByName {
    fn identify<'a>(
        &'a self,
        workload: &'a Arc<Workload>,
        live: &'a Arc<LivePolicy>,
    ) -> Pin<Box<dyn Future<Output = Identified> + Send + 'a>> {
        Box::pin(std::future::ready(self.find(workload, live)))
    }

    fn find(&self, workload: &Arc<Workload>, live: &Arc<LivePolicy>) -> Identified {
        let found = workload.exe.as_deref().and_then(|name| live.set().identity_named(name));
        match found {
            Some(identity) => Identified::One(identity.id),
            None => Identified::None("nobody has this name".into()),
        }
    }
}

/// The proxy, its journal, and the upstream that it calls.
pub(super) struct World {
    pub(super) services: Arc<Services>,
    pub(super) book: Book,
    pub(super) trust: Trust,
    pub(super) upstream: SocketAddr,
    pub(super) drain: watch::Sender<bool>,
    generation: AtomicUsize,
    places: Arc<Semaphore>,
    _state: tempfile::TempDir,
}

/// What a test wants to be different.
pub(super) struct Wishes {
    pub(super) forward: ForwardLimits,
    pub(super) settings: Settings,
    pub(super) refusals: Rate,
    pub(super) with_secret: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        let refusals = Rate { number: 1000, per: Duration::from_secs(1), burst: 1000 };
        let (forward, settings) = (ForwardLimits::default(), Settings::default());
        Self { forward, settings, refusals, with_secret: true }
    }
}

impl World {
    /// In front of an upstream at this address. `api.test` is an API over TLS, `plain.test` one without.
    pub(super) async fn new(upstream: SocketAddr, trust: Trust, wishes: Wishes) -> Self {
        let state = tempfile::tempdir().unwrap();
        let key = KeySource::file(state.path().join("store.key"));
        let store = Store::new(state.path().join("secrets.store"), key);
        if wishes.with_secret {
            store.set(&"key".parse().unwrap(), Secret::new(SECRET.into()), 0).unwrap();
        }
        let credentials = Credentials::new(store, Outcall::new(trust.upstream_tls()));
        let first = policy(upstream.port(), "", 1).with_credentials(&credentials);
        let book = Book::new();
        let (drain, draining) = watch::channel(false);
        let limit = Duration::from_secs(10);
        let services = Services {
            policy: Arc::new(PolicyStore::new(first)),
            identifier: Arc::new(ByName),
            callers: Arc::default(),
            recorder: Arc::clone(&book.recorder),
            credentials: Arc::new(credentials),
            bot_tls: trust.bot_tls(),
            doctor: trust.doctor(),
            forward: Forwarder::new(
                Dialer::new(Vec::new(), limit),
                trust.upstream_tls(),
                Fingerprints::new(&[1; 32]),
                wishes.forward,
            ),
            redaction: Redaction::new(Fingerprints::new(&[1; 32]), Vec::new(), QueryNames::None),
            settings: Settings { ports: vec![upstream.port()], ..wishes.settings },
            backoff: Backoff::default(),
            counters: Counters::new(wishes.refusals),
            drain: draining,
        };
        let generation = AtomicUsize::new(1);
        Self {
            services: Arc::new(services),
            book,
            trust,
            upstream,
            drain,
            generation,
            places: Arc::new(Semaphore::new(100)),
            _state: state,
        }
    }

    /// Another policy goes live, with more rules for `bot`.
    pub(super) fn reload(&self, more: &str) {
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) + 1;
        let next = policy(self.upstream.port(), more, generation as u64);
        let next = Arc::new(next.with_credentials(&self.services.credentials));
        self.services.policy.swap(&next, || {});
    }

    /// A connection of the workload with this executable, which the proxy serves.
    pub(super) async fn connect(&self, exe: &str) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (stream, peer) = accepted.unwrap();
        let place = Arc::clone(&self.places).acquire_owned().await.unwrap();
        let origin = Origin { workload: workload(exe), dst: OriginalDst(self.upstream) };
        tokio::spawn(serve(
            Accepted { stream, client: ClientAddr(peer), origin, place },
            Arc::clone(&self.services),
            OpenConnection::count(&self.services),
        ));
        client.unwrap()
    }

    /// The same, inside of TLS with the proxy.
    pub(super) async fn connect_tls(
        &self,
        exe: &str,
        host: &str,
        alpn: Alpn,
    ) -> impl AsyncRead + AsyncWrite + Send + Unpin + 'static {
        self.trust.client(self.connect(exe).await, host, alpn).await.unwrap()
    }

    /// An HTTP/1 client over TLS to `api.test`.
    pub(super) async fn http1(&self, exe: &str) -> Client {
        Client::http1(self.connect_tls(exe, "api.test", Alpn::Http1).await).await
    }
}

fn policy(port: u16, more: &str, generation: u64) -> LivePolicy {
    let bot = format!(
        "[identity]\nexe = \"/opt/bot\"\n[[grant]]\napi = \"stripe\"\n\
         allow = [\"GET|HEAD /v1/**\", \"POST /up\", \"websocket /v1/ws\"{more}]\ncredential = \"key\"\n\
         [[grant]]\napi = \"plain\"\nallow = [\"* /**\"]\n"
    );
    let stripe = format!(
        "[api.stripe]\nhosts = [\"api.test:{port}\"]\naddresses = [\"loopback\"]\n\
         inject = {{ header = \"x-key\", value = \"Bearer {{secret}}\" }}\n"
    );
    let plain = format!("[api.plain]\nscheme = \"http\"\nhosts = [\"localhost:{port}\"]\n");
    live(
        &[("policies/bot.toml", &bot), ("apis/stripe.toml", &stripe), ("apis/plain.toml", &plain)],
        generation,
    )
}

/// One HTTP client connection.
pub(super) enum Client {
    Http1(hyper::client::conn::http1::SendRequest<Body>),
    Http2(hyper::client::conn::http2::SendRequest<Body>),
}

impl Client {
    pub(super) async fn http1(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Self::Http1(sender)
    }

    pub(super) async fn http2(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self::Http2(sender)
    }

    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }

    /// Sends a request without a body and reads the response to its end.
    pub(super) async fn get(&mut self, method: &str, uri: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        let response = self.send(request(method, uri, headers)).await.unwrap();
        let (parts, body) = response.into_parts();
        Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
    }
}

pub(super) fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body("")).unwrap()
}

pub(super) fn body(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {}).boxed()
}

/// What an upstream answers.
pub(super) type Answer = fn(Seen) -> Response<Body>;

/// An HTTP server that notes what it sees.
pub(super) struct Upstream {
    pub(super) addr: SocketAddr,
    seen: Arc<std::sync::Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Serves HTTPS as `host`.
    pub(super) async fn tls(trust: &Trust, host: &str, alpn: Alpn, answer: Answer) -> Self {
        let (acceptor, host) = (trust.outside(), host.to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self::noting(&listener);
        let (seen, connections) = (Arc::clone(&upstream.seen), Arc::clone(&upstream.connections));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, host, seen) = (Arc::clone(&acceptor), host.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    if let Ok(tls) = acceptor.accept(tcp, &host, alpn, crate::trust::KeyKind::Ecdsa).await {
                        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                        respond(tls, http2, seen, answer).await;
                    }
                });
            }
        });
        upstream
    }

    /// Serves HTTP.
    pub(super) async fn plain(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = Self::noting(&listener);
        let (seen, connections) = (Arc::clone(&upstream.seen), Arc::clone(&upstream.connections));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(respond(tcp, false, Arc::clone(&seen), answer));
            }
        });
        upstream
    }

    fn noting(listener: &TcpListener) -> Self {
        Self { addr: listener.local_addr().unwrap(), seen: Arc::default(), connections: Arc::default() }
    }
}

async fn respond<S>(stream: S, http2: bool, seen: Arc<std::sync::Mutex<Vec<Seen>>>, answer: Answer)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        let seen = Arc::clone(&seen);
        async move {
            let upgrade = request.headers().contains_key("upgrade").then(|| hyper::upgrade::on(&mut request));
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let what =
                Seen { target: parts.uri.to_string(), headers: parts.headers, body, version: parts.version };
            seen.lock().unwrap().push(what.clone());
            let response = answer(what);
            if let Some(upgrade) = upgrade.filter(|_| response.status() == 101) {
                tokio::spawn(async move {
                    let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                    tokio::io::copy(&mut from, &mut to).await.unwrap();
                    tokio::io::AsyncWriteExt::shutdown(&mut to).await.unwrap();
                });
            }
            Ok::<_, Infallible>(response)
        }
    });
    let io = TokioIo::new(stream);
    let _ = if http2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
    } else {
        hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await
    };
}
