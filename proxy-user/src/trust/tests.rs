//! Both legs over real sockets, against rustls and against openssl.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, ClientConfig, HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

/// A host with a CA and the server that bots talk to.
struct Host {
    state: tempfile::TempDir,
    ca: Arc<Ca>,
    tls: Arc<BotTls>,
}

impl Host {
    fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let ca = Arc::new(Ca::for_tests(state.path()));
        let tls = Arc::new(BotTls::new(ca.clone(), DEADLINE).unwrap());
        Self { state, ca, tls }
    }

    fn ca_file(&self) -> PathBuf {
        self.state.path().join("ca/ca.pem")
    }

    /// Accepts connections as `host`, sends each the word `hello` and closes; hands out what each became.
    async fn serve(&self, host: &'static str, offer: Alpn) -> (SocketAddr, Outcomes) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        let tls = self.tls.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let outcome = match tls.accept(tcp, host, offer, KeyKind::Ecdsa).await {
                    Err(error) => Err(error),
                    Ok(mut stream) => {
                        let _ = stream.write_all(b"hello").await;
                        let _ = stream.shutdown().await;
                        Ok(stream.get_ref().1.handshake_kind())
                    }
                };
                let _ = sender.send(outcome);
            }
        });
        (address, receiver)
    }

    /// A bot that trusts this host's CA.
    fn bot(&self, alpn: &[&[u8]]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        for root in self.ca.roots() {
            roots.add(root.der().clone()).unwrap();
        }
        bot(roots, alpn)
    }
}

type Outcomes = tokio::sync::mpsc::UnboundedReceiver<Result<Option<HandshakeKind>, AcceptError>>;

fn bot(roots: RootCertStore, alpn: &[&[u8]]) -> TlsConnector {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// Calls `host` at `address` and reads to the end; returns what was negotiated and how.
async fn call(
    bot: &TlsConnector,
    address: SocketAddr,
    host: &'static str,
) -> std::io::Result<(Option<Vec<u8>>, Option<HandshakeKind>)> {
    let tcp = TcpStream::connect(address).await?;
    let mut stream = bot.connect(host.try_into().unwrap(), tcp).await?;
    let mut read = String::new();
    stream.read_to_string(&mut read).await?;
    assert_eq!(read, "hello");
    let connection = stream.get_ref().1;
    Ok((connection.alpn_protocol().map(<[u8]>::to_vec), connection.handshake_kind()))
}

#[tokio::test]
async fn a_bot_that_trusts_the_ca_gets_through_by_name_and_by_address() {
    let host = Host::new();
    for name in ["api.example.com", "127.0.0.1", "2001:db8::1"] {
        let (address, mut outcomes) = host.serve(name, Alpn::Nothing).await;
        call(&host.bot(&[]), address, name).await.unwrap();
        outcomes.recv().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn alpn_is_what_both_sides_offer() {
    let host = Host::new();
    let cases = [
        (vec![], None),
        (vec![&b"http/1.1"[..]], Some(&b"http/1.1"[..])),
        (vec![b"h2"], Some(b"h2")),
        (vec![b"http/1.1", b"h2"], Some(b"h2")),
    ];
    for (offered, expected) in cases {
        let offer = Alpn::mirror(&offered.iter().map(|name| name.to_vec()).collect::<Vec<_>>());
        let (address, _outcomes) = host.serve("api.example.com", offer).await;
        let (negotiated, _) = call(&host.bot(&offered), address, "api.example.com").await.unwrap();
        assert_eq!(negotiated.as_deref(), expected);
    }
    let (address, mut outcomes) = host.serve("api.example.com", Alpn::mirror(&[b"smtp".to_vec()])).await;
    call(&host.bot(&[b"smtp"]), address, "api.example.com").await.unwrap_err();
    let error = outcomes.recv().await.unwrap().unwrap_err();
    assert!(matches!(error, AcceptError::Incompatible(rustls::Error::NoApplicationProtocol)), "{error}");
}

#[tokio::test]
async fn a_bot_resumes_its_session() {
    let host = Host::new();
    let (address, mut outcomes) = host.serve("api.example.com", Alpn::Nothing).await;
    let bot = host.bot(&[]);
    for expected in [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed] {
        let (_, kind) = call(&bot, address, "api.example.com").await.unwrap();
        assert_eq!(kind, Some(expected));
        assert_eq!(outcomes.recv().await.unwrap().unwrap(), Some(expected));
    }
}

#[tokio::test]
async fn a_bot_that_does_not_trust_the_ca_is_told_apart_from_other_failures() {
    let (host, stranger) = (Host::new(), Host::new());
    let (address, mut outcomes) = host.serve("api.example.com", Alpn::Nothing).await;
    call(&stranger.bot(&[]), address, "api.example.com").await.unwrap_err();
    let error = outcomes.recv().await.unwrap().unwrap_err();
    assert!(matches!(error, AcceptError::Untrusted { alert: AlertDescription::UnknownCA }), "{error}");

    drop(TcpStream::connect(address).await.unwrap());
    let error = outcomes.recv().await.unwrap().unwrap_err();
    assert!(matches!(error, AcceptError::Closed), "{error}");

    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = outcomes.recv().await.unwrap().unwrap_err();
    assert!(matches!(error, AcceptError::Incompatible(_)), "{error}");
}

#[tokio::test]
async fn a_bot_that_stops_within_the_handshake_times_out() {
    let host = Host::new();
    let tls = BotTls::new(host.ca.clone(), Duration::from_millis(20)).unwrap();
    let (_far, near) = tokio::io::duplex(64);
    let error = tls.accept(near, "api.example.com", Alpn::Nothing, KeyKind::Ecdsa).await.unwrap_err();
    assert!(matches!(error, AcceptError::Timeout(_)), "{error}");
}

/// `openssl s_client` against `address`: whether it succeeded, and what it printed.
async fn s_client(address: SocketAddr, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-verify_return_error"]).args(arguments);
    let output = tokio::task::spawn_blocking(move || {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"Q\n").ok();
        child.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn openssl_gets_through_with_the_ca_and_refuses_without() {
    let host = Host::new();
    let (address, mut outcomes) = host.serve("api.example.com", Alpn::Http2OrHttp1).await;
    let ca = host.ca_file();
    let name = ["-servername", "api.example.com", "-verify_hostname", "api.example.com"];
    for version in ["-tls1_2", "-tls1_3"] {
        let with_ca = [&name[..], &["-CAfile", ca.to_str().unwrap(), "-alpn", "h2", version]].concat();
        let (good, text) = s_client(address, &with_ca).await;
        assert!(good && text.contains("Verify return code: 0 (ok)"), "{text}");
        assert!(text.contains("ALPN protocol: h2"), "{text}");
        outcomes.recv().await.unwrap().unwrap();

        let (good, text) =
            s_client(address, &[&name[..], &["-no-CAfile", "-no-CApath", version]].concat()).await;
        assert!(!good, "{text}");
        let error = outcomes.recv().await.unwrap().unwrap_err();
        assert!(matches!(error, AcceptError::Untrusted { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_refusal_reaches_openssl_as_the_alert_it_is() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let sniffed = crate::sniff::Sniffer::new(DEADLINE).finish(&mut tcp).await.unwrap();
        assert!(matches!(sniffed.protocol, crate::sniff::Protocol::Tls(_)));
        refuse(&mut tcp, Alert::AccessDenied).await;
    });
    let (good, text) = s_client(address, &["-servername", "api.example.com"]).await;
    assert!(!good && text.contains("access denied"), "{text}");
}

#[tokio::test]
async fn what_was_sniffed_is_replayed_into_the_handshake() {
    let host = Host::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = host.tls.clone();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let sniffed = crate::sniff::Sniffer::new(DEADLINE).finish(&mut tcp).await.unwrap();
        let crate::sniff::Protocol::Tls(hello) = sniffed.protocol else { panic!("not TLS") };
        let (name, offer) = (hello.server_name.unwrap(), Alpn::mirror(&hello.alpn));
        let stream = crate::sniff::Prefixed::new(sniffed.prefix, tcp);
        let mut stream = tls.accept(stream, &name, offer, KeyKind::Ecdsa).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let (negotiated, _) = call(&host.bot(&[b"h2", b"http/1.1"]), address, "api.example.com").await.unwrap();
    assert_eq!(negotiated.as_deref(), Some(&b"h2"[..]));
}

/// An upstream server with a certificate of its own making; accepts for ever and says hello.
async fn upstream(certificate: CertificateDer<'static>, key: &KeyPair) -> SocketAddr {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                let _ = stream.write_all(b"hello").await;
                let _ = stream.shutdown().await;
            }
        }
    });
    address
}

/// A self-signed certificate for `names`, changed by `change`, and a PEM file of it below `directory`.
fn self_signed(
    directory: &Path,
    names: &[&str],
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, KeyPair, PathBuf) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let file = directory.join("root.pem");
    std::fs::write(&file, certificate.pem()).unwrap();
    (certificate.der().clone(), key, file)
}

fn client(extra: &[PathBuf]) -> UpstreamTls {
    UpstreamTls::new(extra, false, &[], DEADLINE).unwrap()
}

async fn fault(client: &UpstreamTls, address: SocketAddr, host: &str) -> UpstreamFault {
    let error =
        client.connect(TcpStream::connect(address).await.unwrap(), host, Alpn::Http1).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("`{host}`")) && text.contains("; "), "{text}");
    error.fault
}

#[tokio::test]
async fn an_upstream_is_verified_for_exactly_the_name_called() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key, root) = self_signed(directory.path(), &["api.example.com", "127.0.0.1"], |_| ());
    let (address, client) = (upstream(certificate, &key).await, client(&[root]));
    for host in ["api.example.com", "API.Example.com.", "127.0.0.1"] {
        let tcp = TcpStream::connect(address).await.unwrap();
        let stream = client.connect(tcp, host, Alpn::Http1).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
    for host in ["www.example.com", "example.com", "127.0.0.2", "x.api.example.com"] {
        assert_eq!(fault(&client, address, host).await, UpstreamFault::NameMismatch, "{host}");
    }
    assert_eq!(fault(&client, address, "a b").await, UpstreamFault::BadName);
}

#[tokio::test]
async fn an_upstream_of_an_unknown_authority_or_out_of_time_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let named = |name: &'static str| {
        move |params: &mut CertificateParams| {
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
        }
    };
    let (_, _, known) = self_signed(directory.path(), &["api.example.com"], named("known"));
    let client_of_known = client(&[known]);
    let (certificate, key, _) = self_signed(directory.path(), &["api.example.com"], named("stranger"));
    let address = upstream(certificate, &key).await;
    assert_eq!(fault(&client_of_known, address, "api.example.com").await, UpstreamFault::UnknownIssuer);
    let (certificate, key, _) = self_signed(directory.path(), &["api.example.com"], named("known"));
    let address = upstream(certificate, &key).await;
    assert_eq!(fault(&client_of_known, address, "api.example.com").await, UpstreamFault::BadCertificate);

    let day = time::Duration::days(1);
    let (certificate, key, root) =
        self_signed(directory.path(), &["api.example.com"], |params| params.not_after = now() - day);
    let address = upstream(certificate, &key).await;
    assert_eq!(fault(&client(&[root]), address, "api.example.com").await, UpstreamFault::Expired);

    let (certificate, key, root) =
        self_signed(directory.path(), &["api.example.com"], |params| params.not_before = now() + day);
    let address = upstream(certificate, &key).await;
    assert_eq!(fault(&client(&[root]), address, "api.example.com").await, UpstreamFault::NotYetValid);
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_or_nothing_or_hangs_up_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let (_, _, root) = self_signed(directory.path(), &["api.example.com"], |_| ());
    let client = UpstreamTls::new(&[root], false, &[], Duration::from_millis(200)).unwrap();
    for (answer, hold, expected) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], true, UpstreamFault::Handshake),
        (b"", false, UpstreamFault::Closed),
        (b"", true, UpstreamFault::Timeout),
    ] {
        let (mut far, near) = tokio::io::duplex(4096);
        far.write_all(answer).await.unwrap();
        let far = hold.then_some(far);
        let error = client.connect(near, "api.example.com", Alpn::Http1).await.unwrap_err();
        assert_eq!(error.fault, expected, "{error}");
        drop(far);
    }
}

#[tokio::test]
async fn an_upstream_session_is_resumed_whatever_alpn_is_offered() {
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key, root) = self_signed(directory.path(), &["api.example.com"], |_| ());
    let (address, client) = (upstream(certificate, &key).await, client(&[root]));
    let mut kinds = Vec::new();
    for offer in [Alpn::Http2OrHttp1, Alpn::Http2OrHttp1, Alpn::Http1] {
        let tcp = TcpStream::connect(address).await.unwrap();
        let mut stream = client.connect(tcp, "api.example.com", offer).await.unwrap();
        let mut read = String::new();
        stream.read_to_string(&mut read).await.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed, HandshakeKind::Resumed]);
}

#[tokio::test]
async fn our_own_ca_is_no_root_for_upstreams() {
    let host = Host::new();
    let (address, _outcomes) = host.serve("api.example.com", Alpn::Http1).await;
    let directory = tempfile::tempdir().unwrap();
    let (_, _, other) = self_signed(directory.path(), &["x.example"], |_| ());
    let roots = [host.ca_file(), other];
    let tls = UpstreamTls::new(&roots, false, &host.ca.roots(), DEADLINE).unwrap();
    assert_eq!(fault(&tls, address, "api.example.com").await, UpstreamFault::UnknownIssuer);
    let only_own = UpstreamTls::new(&roots[..1], false, &host.ca.roots(), DEADLINE);
    assert!(matches!(only_own, Err(RootsError::Nothing)));
}

#[test]
fn root_files_that_are_missing_empty_or_damaged_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let refused = |name: &str, content: Option<&str>| {
        let path = directory.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = UpstreamTls::new(&[path], false, &[], DEADLINE).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        error
    };
    assert!(matches!(refused("missing.pem", None), RootsError::Unreadable { .. }));
    assert!(matches!(refused("empty.pem", Some("# nothing\n")), RootsError::Empty { .. }));
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(matches!(refused("damaged.pem", Some(damaged)), RootsError::Damaged { number: 1, .. }));
    assert!(matches!(UpstreamTls::new(&[], false, &[], DEADLINE), Err(RootsError::Nothing)));
}
