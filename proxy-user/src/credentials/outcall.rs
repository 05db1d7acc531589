//! Calls of the daemon itself to those who issue credentials: bounded, over verified TLS, never redirected.
//!
//! They do not go through ourselves, but through the proxy of the site where there is one. `http` only goes to a loopback address, where nobody else listens in.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::trust::{Alpn, ClientIdentity, UpstreamTls};
use crate::uplink::{self, Uplink};

/// The whole call, from the name to the last byte.
const TIME: Duration = Duration::from_secs(15);
/// What an answer may have at most. Tokens are a few KiB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Header fields of an answer.
const MAX_HEADERS: usize = 100;

/// Where an issuer is: an `https` URL, or an `http` one of a loopback address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IssuerUrl(Uri);

/// The URL cannot be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not an https URL (http is for 127.0.0.1, [::1] and localhost only) without user, password and fragment"
)]
pub struct BadUrl;

impl std::str::FromStr for IssuerUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let uri: Uri = text.parse().map_err(|_| BadUrl)?;
        let authority = uri.authority().ok_or(BadUrl)?;
        let host = authority.host();
        if host.is_empty() || authority.as_str().contains('@') || text.contains('#') {
            return Err(BadUrl);
        }
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => Ok(Self(uri)),
            Some(scheme) if *scheme == Scheme::HTTP && is_loopback(host) => Ok(Self(uri)),
            _ => Err(BadUrl),
        }
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl IssuerUrl {
    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
    }

    /// The URL.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    fn is_plain(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTP)
    }

    fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(if self.is_plain() { 80 } else { 443 })
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// What came back.
pub struct IssuerAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, which may have a secret in it.
    pub body: Secret,
}

/// Why there is no answer. For the operator: whom, what, what to do; nothing of what was sent or received.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {what}")]
pub struct OutcallError {
    /// Who was called, without its query.
    pub url: String,
    /// What went wrong.
    pub what: String,
}

/// The way to issuers. Clones share everything.
#[derive(Clone)]
pub struct Outcall {
    tls: UpstreamTls,
    client: Option<ClientIdentity>,
    uplink: Option<Arc<Uplink>>,
}

impl Outcall {
    /// Over the trust that calls to APIs have.
    #[must_use]
    pub fn new(tls: UpstreamTls) -> Self {
        Self { tls, client: None, uplink: None }
    }

    /// The same through the proxy of the site, if there is one.
    #[must_use]
    pub fn through(self, uplink: Option<Arc<Uplink>>) -> Self {
        Self { uplink, ..self }
    }

    /// The same way, on which each issuer must ask for this certificate. Plain HTTP is none then.
    #[must_use]
    pub fn presenting(&self, client: ClientIdentity) -> Self {
        Self { client: Some(client), ..self.clone() }
    }

    /// One call. `body` is wiped after it was sent, as far as it is ours.
    ///
    /// # Errors
    /// The issuer cannot be reached, does not prove its name, breaks off, says too much or takes too long.
    pub async fn call(
        &self,
        method: Method,
        url: &IssuerUrl,
        headers: &[(HeaderName, HeaderValue)],
        body: Secret,
    ) -> Result<IssuerAnswer, OutcallError> {
        let target = url.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        self.call_at(method, url, target, headers, body).await
    }

    /// The same with another target than that of the URL, which errors do not tell.
    ///
    /// # Errors
    /// As for [`Outcall::call`].
    pub async fn call_at(
        &self,
        method: Method,
        url: &IssuerUrl,
        target: PathAndQuery,
        headers: &[(HeaderName, HeaderValue)],
        body: Secret,
    ) -> Result<IssuerAnswer, OutcallError> {
        let failed = |what: String| OutcallError { url: without_query(url), what };
        match tokio::time::timeout(TIME, self.exchange(method, url, target, headers, body)).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(failed(format!("no answer within {} s", TIME.as_secs()))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        url: &IssuerUrl,
        target: PathAndQuery,
        headers: &[(HeaderName, HeaderValue)],
        body: Secret,
    ) -> Result<IssuerAnswer, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, url.uri().authority().map_or("", |authority| authority.as_str()))
            .header(header::USER_AGENT, concat!("vouchsafe/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let body = Full::new(Bytes::from_owner(Sent(body)));
        let request = request.body(body).map_err(|error| format!("the call cannot be spelled: {error}"))?;
        exchange_over(self.stream(url, Alpn::Http1).await?, request).await
    }

    /// A connection on which `alpn` is spoken, for calls that share one. It is verified as for [`Outcall::call`].
    ///
    /// # Errors
    /// The server cannot be reached, does not prove its name, or is not one that takes calls in that protocol.
    pub async fn open(&self, url: &IssuerUrl, alpn: Alpn) -> Result<Box<dyn Stream>, OutcallError> {
        let failed = |what: String| OutcallError { url: without_query(url), what };
        match tokio::time::timeout(TIME, self.stream(url, alpn)).await {
            Ok(stream) => stream.map_err(failed),
            Err(_) => Err(failed(format!("no connection within {} s", TIME.as_secs()))),
        }
    }

    async fn stream(&self, url: &IssuerUrl, alpn: Alpn) -> Result<Box<dyn Stream>, String> {
        if url.is_plain() && self.client.is_some() {
            return Err("it is called over http, and a client certificate needs https".to_owned());
        }
        let tcp = self.connect(url).await?;
        if url.is_plain() {
            return Ok(Box::new(tcp));
        }
        let connected = self.tls.connect_as(tcp, url.host(), alpn, self.client.as_ref()).await;
        let connected = connected.map_err(|error| error.to_string())?;
        // HTTP/1.1 is what a server speaks that has no ALPN.
        if alpn == Alpn::Http2 && connected.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("it does not speak HTTP/2 there (its TLS offers no h2)".to_owned());
        }
        Ok(Box::new(connected))
    }
}

/// A connection that stands.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Outcall {
    /// A connection to an issuer: directly, or through the proxy of the site.
    async fn connect(&self, url: &IssuerUrl) -> Result<TcpStream, String> {
        let (host, port) = (url.host(), url.port());
        let taken =
            |uplink: &&Arc<Uplink>| !url.is_plain() && uplink.takes(Some(host), Ipv4Addr::UNSPECIFIED.into());
        let Some(uplink) = self.uplink.as_ref().filter(taken) else {
            return connect(host, port, url.is_plain()).await;
        };
        let (proxy, proxy_port) = uplink.place();
        let connected = connect(proxy, proxy_port, false).await;
        let mut tcp = connected.map_err(|why| format!("the proxy {} of [upstream]: {why}", uplink.told()))?;
        uplink.ask(&mut tcp, &uplink::authority(host, port)).await.map_err(|error| error.to_string())?;
        Ok(tcp)
    }
}

/// Wipes a request's body with its last clone.
struct Sent(Secret);

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        self.0.expose()
    }
}

async fn connect(host: &str, port: u16, loopback_alone: bool) -> Result<TcpStream, String> {
    let looked_up = tokio::net::lookup_host((host, port)).await;
    let all: Vec<SocketAddr> =
        looked_up.map_err(|error| format!("its name does not resolve: {error}"))?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for addr in all {
        if loopback_alone && !addr.ip().is_loopback() {
            last = io::Error::other("http is for loopback addresses only, and its name resolves to another");
            continue;
        }
        match TcpStream::connect(addr).await {
            Ok(tcp) => {
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(format!("no connection: {last}"))
}

async fn exchange_over(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
) -> Result<IssuerAnswer, String> {
    let broke = |error: hyper::Error| format!("it broke off: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(broke)?;
    // Ends with the sender, at the end of this call.
    let connection = tokio::spawn(connection);
    let answer = async {
        let (head, mut body) = sender.send_request(request).await.map_err(broke)?.into_parts();
        // At its final size from the start: a buffer that grew would leave copies behind in freed memory.
        let mut whole = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES.min(64 * 1024)));
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broke)?.into_data() else { continue };
            if whole.len() + data.len() > MAX_ANSWER_BYTES {
                return Err(format!("its answer has more than {MAX_ANSWER_BYTES} bytes"));
            }
            if whole.len() + data.len() > whole.capacity() {
                let mut larger = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
                larger.extend_from_slice(&whole);
                whole = larger;
            }
            whole.extend_from_slice(&data);
        }
        Ok(IssuerAnswer { status: head.status, headers: head.headers, body: Secret::from(whole) })
    };
    let answer = answer.await;
    connection.abort();
    answer
}

fn without_query(url: &IssuerUrl) -> String {
    let uri = url.uri();
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}{}", uri.scheme_str().unwrap_or("https"), uri.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_verified_tls_or_loopback_is_called() {
        for good in [
            "https://idp.test/token",
            "http://127.0.0.1:3000/token",
            "http://[::1]/t",
            "http://localhost:1/x",
        ] {
            assert!(good.parse::<IssuerUrl>().is_ok(), "{good}");
        }
        for bad in [
            "http://idp.test/token",
            "http://10.0.0.1/token",
            "http://localhost.evil.test/",
            "ftp://127.0.0.1/",
            "/token",
            "https://user:CANARY@idp.test/",
            "https://idp.test/#x",
            "https:///token",
        ] {
            let error = bad.parse::<IssuerUrl>().unwrap_err();
            assert!(!error.to_string().contains("CANARY"));
        }
    }

    #[tokio::test]
    async fn who_proves_himself_by_a_certificate_does_not_call_over_http() {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
        let root = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(root.path(), &pem).unwrap();
        let tls = UpstreamTls::new(&[root.path().to_owned()], false, &[], TIME).unwrap();
        let client = ClientIdentity::new(pem.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url: IssuerUrl = format!("http://{}/t", listener.local_addr().unwrap()).parse().unwrap();
        let body = Secret::new(b"CANARY".to_vec());
        let called = Outcall::new(tls).presenting(client).call(Method::POST, &url, &[], body).await;
        let error = called.err().unwrap().to_string();
        assert!(error.contains("needs https") && !error.contains("CANARY"), "{error}");
        assert!(listener.accept().is_err(), "nobody connected");
    }

    #[tokio::test]
    async fn an_issuer_is_called_through_the_proxy_of_the_site_by_its_name_and_this_host_directly() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let text =
            format!("[upstream]\nproxy = \"http://127.0.0.1:{port}\"\nno_proxy = [\"direct.invalid\"]\n");
        let config = crate::config::Config::parse(std::path::Path::new("v.toml"), &text).unwrap();
        let uplink = Uplink::new(&config.upstream).map(Arc::new);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
        let root = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(root.path(), &pem).unwrap();
        let tls = UpstreamTls::new(&[root.path().to_owned()], false, &[], TIME).unwrap();
        let outcall = Outcall::new(tls).through(uplink);
        let call = |url: String| {
            let (outcall, url) = (outcall.clone(), url.parse::<IssuerUrl>().unwrap());
            async move {
                let called = outcall.call(Method::POST, &url, &[], Secret::new(b"CANARY".to_vec())).await;
                called.err().map(|error| error.to_string()).unwrap_or_default()
            }
        };
        let proxy = async {
            let (mut there, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let count = there.read(&mut asked).await.unwrap();
            there.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&asked[..count]).into_owned()
        };
        let (error, asked) = tokio::join!(call("https://idp.invalid/token".to_owned()), proxy);
        assert_eq!(asked, "CONNECT idp.invalid:443 HTTP/1.1\r\nHost: idp.invalid:443\r\n\r\n");
        assert!(error.contains("refuses a tunnel to idp.invalid:443 (403)"), "{error}");
        assert!(call("https://direct.invalid/token".to_owned()).await.contains("does not resolve"));
        let own = async { listener.accept().await.unwrap().0.read_u8().await.unwrap() };
        let direct = call(format!("http://127.0.0.1:{port}/token"));
        let (_, first) = tokio::join!(
            async { tokio::time::timeout(std::time::Duration::from_secs(5), direct).await },
            own
        );
        assert_eq!(first, b'P', "POST, and no CONNECT");
    }

    #[test]
    fn an_error_names_the_issuer_but_nothing_of_the_query() {
        let url: IssuerUrl = "https://idp.test:8443/token?key=CANARY".parse().unwrap();
        assert_eq!(without_query(&url), "https://idp.test:8443/token");
        assert_eq!((url.host(), url.port()), ("idp.test", 8443));
    }
}
