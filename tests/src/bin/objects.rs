//! `objects ADDRESS CERTIFICATE KEY ROOT ID SECRET`: a server of objects (S3) over TLS that takes what this key has signed.
//!
//! Somebody else's implementation of the protocol; TLS and the place to listen are ours.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a server that cannot start says so")]

use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, certificate, key, root, id, secret] = &arguments[..] else {
        panic!("objects ADDRESS CERTIFICATE KEY ROOT ID SECRET");
    };
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).unwrap());
    builder.set_auth(SimpleAuth::from_single(id.as_str(), secret.as_str()));
    let service = builder.build();
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let mut tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        let (acceptor, service) = (acceptor.clone(), service.clone());
        tokio::spawn(async move {
            if let Ok(tls) = acceptor.accept(tcp).await {
                let connection = Builder::new(TokioExecutor::new());
                let _ = connection.serve_connection(TokioIo::new(tls), service).await;
            }
        });
    }
}
