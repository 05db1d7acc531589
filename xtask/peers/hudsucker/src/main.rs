//! An intercepting proxy on hudsucker for the bench: it takes CONNECT, mints certificates, adds one header; one thread.
//!
//! `peer-hudsucker LISTEN CA CA-KEY UPSTREAM-CA VALUE`: a socket address, files (PEM), and the value of `Authorization`.

use std::error::Error;
use std::sync::Arc;

use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::hyper::Request;
use hudsucker::hyper::header::{AUTHORIZATION, HeaderValue};
use hudsucker::rcgen::{Issuer, KeyPair};
use hudsucker::rustls::crypto::aws_lc_rs;
use hudsucker::rustls::pki_types::CertificateDer;
use hudsucker::rustls::pki_types::pem::PemObject as _;
use hudsucker::rustls::{ClientConfig, RootCertStore};
use hudsucker::{Body, HttpContext, HttpHandler, Proxy, RequestOrResponse};
use hyper_rustls::HttpsConnectorBuilder;

/// Adds the header.
#[derive(Clone)]
struct Add(HeaderValue);

impl HttpHandler for Add {
    async fn handle_request(
        &mut self,
        _context: &HttpContext,
        mut request: Request<Body>,
    ) -> RequestOrResponse {
        request.headers_mut().insert(AUTHORIZATION, self.0.clone());
        request.into()
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, ca, ca_key, upstream_ca, value] = arguments.as_slice() else {
        return Err("usage: peer-hudsucker LISTEN CA CA-KEY UPSTREAM-CA VALUE".into());
    };
    let key = KeyPair::from_pem(&std::fs::read_to_string(ca_key)?)?;
    let issuer = Issuer::from_ca_cert_pem(&std::fs::read_to_string(ca)?, key)?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(upstream_ca)? {
        roots.add(root?)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(client).https_only().enable_http1().enable_http2().build();
    let proxy = Proxy::builder()
        .with_addr(listen.parse()?)
        .with_ca(RcgenAuthority::new(issuer, 1_000, aws_lc_rs::default_provider()))
        .with_http_connector(connector)
        .with_http_handler(Add(value.parse()?))
        .build()?;
    Ok(proxy.start().await?)
}
