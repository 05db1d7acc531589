//! Listeners, and the origin of what they accept. No origin, no service.
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::{
    base::addr::{ClientAddr, ListenAddr, OriginalDst},
    kernel::{OriginTable, is_closed, netns_cookie},
    workload::{Workload, Workloads},
};

/// Who opened a connection, and where to.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The process.
    pub workload: Arc<Workload>,
    /// Where it asked to go.
    pub dst: OriginalDst,
}

/// A connection from a governed workload.
#[derive(Debug)]
pub struct Accepted {
    /// The connection.
    pub stream: TcpStream,
    /// The bot's end of it.
    pub client: ClientAddr,
    /// What the kernel says of it.
    pub origin: Origin,
    /// Its place among the connections that may be open at once.
    pub place: OwnedSemaphorePermit,
}

/// A connection that was accepted, and of which nothing else is known yet.
#[derive(Debug)]
pub struct Arrived {
    stream: TcpStream,
    client: ClientAddr,
}

/// What all listeners count together.
#[derive(Clone, Debug)]
pub struct Places {
    /// Bounds the connections that are open at once.
    pub places: Arc<Semaphore>,
    /// Counts connections without an origin.
    pub unknown: Arc<AtomicU64>,
}

/// One listener of the proxy.
pub struct Listener {
    socket: TcpListener,
    netns: u64,
    /// Whether it is in another network namespace than the daemon.
    foreign: bool,
    origins: Arc<OriginTable>,
    workloads: Arc<Workloads>,
    places: Places,
}

impl Listener {
    /// Takes a bound socket; `home` is the cookie of the daemon's own network namespace.
    ///
    /// # Errors
    /// The kernel's own, when it cannot name the socket's network namespace (before Linux 5.14).
    pub fn new(
        socket: TcpListener,
        origins: Arc<OriginTable>,
        workloads: Arc<Workloads>,
        places: Places,
        home: u64,
    ) -> io::Result<Self> {
        let netns = netns_cookie(&socket)?;
        crate::base::socket::prepare_local(&socket);
        Ok(Self { socket, netns, foreign: netns != home, origins, workloads, places })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The kernel's own.
    pub fn address(&self) -> io::Result<ListenAddr> {
        self.socket.local_addr().map(ListenAddr)
    }

    /// The next connection; `None` when somebody took the socket down (`ss -K` and its like): it will never accept again.
    /// May be dropped while it waits: no connection is lost then.
    pub async fn next(&self) -> Option<Arrived> {
        loop {
            match self.socket.accept().await {
                Ok((stream, client)) => return Some(Arrived { stream, client: ClientAddr(client) }),
                Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => return None,
                Err(error) => {
                    // Out of descriptors or memory: pause instead of spinning; the backlog waits.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Gives a connection its place and its origin. `None`: it has none, and is closed and counted: somebody outside the
    /// governed cgroup called the listener itself.
    pub async fn admit(&self, Arrived { stream, client }: Arrived) -> Option<Accepted> {
        // Not before it came: a listener that nobody calls must not hold a place.
        let place = match Arc::clone(&self.places.places).acquire_owned().await {
            Ok(place) => place,
            // Never closed; waiting for ever is the closed answer.
            Err(_) => std::future::pending().await,
        };
        // A connection that broke off while it waited gave its address free: the origin that stands under it may be
        // another's, which must neither be taken away nor believed.
        if is_closed(&stream) {
            return None;
        }
        let origin = self.origins.take(self.netns, client);
        if is_closed(&stream) {
            return None;
        }
        let Some(origin) = origin else {
            self.places.unknown.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%client, "closed a connection to the listener that has no origin");
            return None;
        };
        let ip = std::net::Ipv6Addr::from(origin.dst_addr).to_canonical();
        let dst = OriginalDst((ip, origin.dst_port).into());
        let workload = self.workloads.of(&origin.capture, self.foreign);
        Some(Accepted { stream, client, origin: Origin { workload, dst }, place })
    }
}
