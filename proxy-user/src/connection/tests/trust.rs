//! The two trusts of a test: the proxy's CA towards clients, another CA towards upstreams.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::doctor::Doctor;
use crate::trust::{Alpn, BotTls, Ca, ConnectError, UpstreamTls};

const DEADLINE: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Trust {
    inside: Arc<tempfile::TempDir>,
    outside: Arc<tempfile::TempDir>,
    deadline: Duration,
}

impl Trust {
    pub(super) fn new() -> Self {
        Self::patient_for(DEADLINE)
    }

    /// The proxy waits so long for the upstream's side of TLS.
    pub(super) fn patient_for(deadline: Duration) -> Self {
        let directory = || {
            let directory = tempfile::tempdir().unwrap();
            Ca::for_tests(directory.path());
            Arc::new(directory)
        };
        Self { inside: directory(), outside: directory(), deadline }
    }

    /// The proxy's side towards clients.
    pub(super) fn bot_tls(&self) -> BotTls {
        server(&self.inside)
    }

    /// Who knows its CA.
    pub(super) fn doctor(&self) -> Doctor {
        Doctor::new(self.inside.path().to_owned())
    }

    /// The proxy's side towards upstreams.
    pub(super) fn upstream_tls(&self) -> UpstreamTls {
        client(&self.outside, self.deadline)
    }

    /// An upstream's side.
    pub(super) fn outside(&self) -> Arc<BotTls> {
        Arc::new(server(&self.outside))
    }

    /// A client that trusts the proxy's CA and no other.
    pub(super) async fn client(
        &self,
        tcp: TcpStream,
        host: &str,
        alpn: Alpn,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        client(&self.inside, DEADLINE).connect(tcp, host, alpn).await
    }

    /// A client that trusts the upstreams' CA and no other.
    pub(super) async fn outside_client(
        &self,
        tcp: TcpStream,
        host: &str,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        client(&self.outside, DEADLINE).connect(tcp, host, Alpn::Nothing).await
    }
}

fn server(state: &tempfile::TempDir) -> BotTls {
    BotTls::new(Arc::new(Ca::for_tests(state.path())), DEADLINE).unwrap()
}

fn client(state: &tempfile::TempDir, deadline: Duration) -> UpstreamTls {
    UpstreamTls::new(&[state.path().join("ca/ca.pem")], false, &[], deadline).unwrap()
}
