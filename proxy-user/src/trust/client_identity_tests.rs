//! Client certificates at a server that demands them, and at servers that do not.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::super::{Alpn, UpstreamFault, UpstreamTls};
use super::*;

/// A CA, and what it issues.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = ca.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(ca, key), pem }
    }

    /// Certificate and key as PEM.
    fn issue(&self, name: &str, end: OffsetDateTime) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, name);
        leaf.not_after = end;
        (leaf.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn identity(&self, name: &str) -> ClientIdentity {
        let (certificate, key) = self.issue(name, later());
        ClientIdentity::new(certificate.as_bytes(), key.as_bytes()).unwrap()
    }
}

fn later() -> OffsetDateTime {
    now() + Duration::from_secs(3600)
}

type Seen = tokio::sync::mpsc::UnboundedReceiver<(Option<Vec<u8>>, Option<HandshakeKind>)>;

/// A server of `localhost` that demands certificates or asks for none, keeps sessions, and tells whom it saw.
async fn server(authority: &Authority, demands: bool) -> (std::net::SocketAddr, Seen) {
    let (certificate, key) = authority.issue("localhost", later());
    let chain = vec![CertificateDer::from(
        pem::decode(pem::blocks(certificate.as_bytes()).next().unwrap().1).unwrap().to_vec(),
    )];
    let key = PrivateKeyPem::parse(key.as_bytes()).unwrap().for_rustls().clone_key();
    let provider = super::super::provider();
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.unwrap();
    let config = if demands {
        let mut roots = RootCertStore::empty();
        let root = pem::decode(pem::blocks(authority.pem.as_bytes()).next().unwrap().1).unwrap();
        roots.add(CertificateDer::from(root.to_vec())).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(chain, key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, seen) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let session = stream.get_ref().1;
            let certificate = session.peer_certificates().and_then(|all| all.first()).map(|it| it.to_vec());
            let _ = sender.send((certificate, session.handshake_kind()));
            // The tickets go out, and the client hangs up.
            let _ = stream.read_u8().await;
        }
    });
    (address, seen)
}

fn client(authority: &Authority) -> UpstreamTls {
    let root = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path(), &authority.pem).unwrap();
    UpstreamTls::new(&[root.path().to_owned()], false, &[], Duration::from_secs(10)).unwrap()
}

async fn connect(
    client: &UpstreamTls,
    address: std::net::SocketAddr,
    identity: Option<&ClientIdentity>,
) -> Result<(), UpstreamFault> {
    let tcp = TcpStream::connect(address).await.unwrap();
    let stream = client.connect_as(tcp, "localhost", Alpn::Nothing, identity).await;
    let mut stream = stream.map_err(|error| error.fault)?;
    // What the server sends after the handshake: tickets, or its alert.
    let _ = tokio::time::timeout(Duration::from_millis(50), stream.read_u8()).await;
    Ok(())
}

#[tokio::test]
async fn a_server_sees_each_identity_as_itself_and_no_session_is_taken_up_again() {
    let authority = Authority::new();
    let (address, mut seen) = server(&authority, true).await;
    let client = client(&authority);
    let (a, b) = (authority.identity("a"), authority.identity("b"));
    for identity in [&a, &b, &a, &a, &b] {
        connect(&client, address, Some(identity)).await.unwrap();
        let (certificate, kind) = seen.recv().await.unwrap();
        assert_eq!(certificate.unwrap(), identity.0.key.cert[0].to_vec());
        assert_eq!(kind, Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_server_that_asks_for_no_certificate_gets_no_call_with_an_identity() {
    let authority = Authority::new();
    let (address, mut seen) = server(&authority, false).await;
    let client = client(&authority);
    let a = authority.identity("a");
    for _ in 0..2 {
        // Between, a session without an identity is there to be resumed.
        connect(&client, address, None).await.unwrap();
        assert_eq!(connect(&client, address, Some(&a)).await, Err(UpstreamFault::NotAsked));
    }
    while let Ok((certificate, _)) = seen.try_recv() {
        assert_eq!(certificate, None);
    }
}

#[tokio::test]
async fn a_server_that_does_not_prove_its_name_never_sees_the_certificate() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (address, mut seen) = server(&authority, true).await;
    let fault = connect(&client(&other), address, Some(&authority.identity("a"))).await;
    assert!(matches!(fault, Err(UpstreamFault::UnknownIssuer | UpstreamFault::BadCertificate)), "{fault:?}");
    assert!(seen.try_recv().is_err());
}

#[test]
fn certificate_and_key_must_be_of_each_other_and_may_stand_in_one_text() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("a", later());
    let (_, other) = authority.issue("b", later());
    let new = |certificate: &str, key: &str| ClientIdentity::new(certificate.as_bytes(), key.as_bytes());
    let both = format!("{key}{certificate}{}", authority.pem);
    let identity = new(&both, &both).unwrap();
    assert_eq!((identity.0.key.cert.len(), identity.has_ended()), (2, false));
    assert!(identity.subject().contains("CN=a"), "{}", identity.subject());
    assert_ne!(identity, new(&both, &both).unwrap(), "each is one of its own");
    assert_eq!(identity, identity.clone());
    let refused = |certificate: &str, key: &str| new(certificate, key).err().unwrap();
    assert_eq!(refused(&certificate, &other), ClientIdentityError::Mismatch);
    assert_eq!(refused(&key, &key), ClientIdentityError::NoCertificate);
    assert_eq!(refused(&certificate, &certificate), ClientIdentityError::Key(PrivateKeyError::None));
    let damaged = certificate.replace("MII", "AAA");
    assert_eq!(refused(&damaged, &key), ClientIdentityError::Damaged(1));
    let (ended, key) = authority.issue("c", now() - Duration::from_secs(5));
    assert!(new(&ended, &key).unwrap().has_ended());
}
