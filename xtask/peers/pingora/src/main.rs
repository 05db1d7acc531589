//! A reverse proxy on Pingora for the bench: TLS on both legs, one header added, one thread.
//!
//! `peer-pingora CERTIFICATE KEY CA VALUE FRONT…`: files (PEM), the value of `Authorization`, and for each host
//! `LISTEN,HOST,UPSTREAM,http1|http2` with two socket addresses.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::http::RequestHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::prelude::{HttpPeer, ProxyHttp, Server, Session, http_proxy_service};
use pingora::protocols::ALPN;
use pingora::protocols::tls::CaType;
use pingora::tls::x509::X509;

/// One host, and where it is.
struct Front {
    upstream: SocketAddr,
    host: String,
    http2: bool,
    ca: Arc<CaType>,
    value: String,
}

#[async_trait]
impl ProxyHttp for Front {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _context: &mut (),
    ) -> pingora::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, true, self.host.clone());
        peer.options.ca = Some(Arc::clone(&self.ca));
        peer.options.alpn = if self.http2 { ALPN::H2 } else { ALPN::H1 };
        // Pingora's own number is 1: a connection for each stream.
        peer.options.max_h2_streams = 128;
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        _session: &mut Session,
        request: &mut RequestHeader,
        _context: &mut (),
    ) -> pingora::Result<()> {
        request.insert_header("authorization", self.value.as_str())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [certificate, key, ca, value, fronts @ ..] = arguments.as_slice() else {
        return Err("usage: peer-pingora CERTIFICATE KEY CA VALUE LISTEN,HOST,UPSTREAM,http1|http2…".into());
    };
    let ca: Arc<CaType> = Arc::new(X509::stack_from_pem(&std::fs::read(ca)?)?.into_boxed_slice());
    let mut server = Server::new(None)?;
    server.bootstrap();
    for front in fronts {
        let mut fields = front.split(',');
        let (Some(listen), Some(host), Some(upstream), Some(version)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return Err(format!("{front} is not LISTEN,HOST,UPSTREAM,http1|http2").into());
        };
        let front = Front {
            upstream: upstream.parse()?,
            host: host.to_owned(),
            http2: version == "http2",
            ca: Arc::clone(&ca),
            value: value.clone(),
        };
        let mut tls = TlsSettings::intermediate(certificate, key)?;
        if front.http2 {
            tls.enable_h2();
        }
        let mut service = http_proxy_service(&server.configuration, front);
        service.add_tls_with_settings(listen, None, tls);
        server.add_service(service);
    }
    server.run_forever()
}
