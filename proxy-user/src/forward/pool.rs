//! Connections that wait for their next request.
//!
//! Each [`Pool`] has one kind of transport, and a [`Route`] names host and address: a connection that was verified for
//! one host is never used for another, a plain one never where a verified one or one to a loopback address is wanted, and one on which a server knows us
//! by a client certificate never for a call with another credential, or with none.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use proxy_policy::Addresses;
use tokio::time::Instant;

use super::ForwardLimits;
use super::dial::Dialer;
use super::error::{ForwardError, chain};
use super::transport::{Mode, Speaks, Transport};
use crate::base::addr::UpstreamAddr;
use crate::http1::{Io, Lane};
use crate::http2;
use crate::http2::shared::Ended;
use crate::trust::ClientIdentity;
use crate::uplink;

/// Locks are held for some map operations only; this many keep them apart on a busy host.
const SHARDS: usize = 16;

/// Where a request goes: what its connection must have been made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The host that the upstream must prove to be.
    pub host: Arc<str>,
    /// The address.
    pub addr: UpstreamAddr,
    /// Which versions of HTTP will do.
    pub mode: Mode,
    /// Whom the server knows us as, by a client certificate.
    pub(super) client: Option<ClientIdentity>,
    /// At which other addresses the host may be, when the one does not answer; `None`: there is no other.
    pub(super) addresses: Option<Arc<Addresses>>,
    /// Whether a proxy of the site is asked for the host by its name.
    pub(super) by_name: bool,
}

/// By what tells routes apart nearly always: it is asked for twice at each request, and lists of addresses are long.
impl Hash for Route {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.host, self.addr, self.mode, &self.client).hash(state);
    }
}

impl Route {
    /// One where nobody proves who calls; a credential that does makes another one of it.
    #[must_use]
    pub fn new(host: Arc<str>, addr: UpstreamAddr, mode: Mode) -> Self {
        Self { host, addr, mode, client: None, addresses: None, by_name: false }
    }

    /// With other addresses, when the one does not answer. It never shares a connection with one that may be elsewhere.
    #[must_use]
    pub fn or_at(self, addresses: Option<&Arc<Addresses>>) -> Self {
        Self { addresses: addresses.cloned(), ..self }
    }

    /// The same where a proxy of the site may be asked for the host by its name: the upstream proves who it is, or need not.
    #[must_use]
    pub fn named(self) -> Self {
        Self { by_name: true, ..self }
    }

    /// The name, if a proxy of the site may be told it.
    pub(super) fn name(&self) -> Option<&str> {
        self.by_name.then_some(&*self.host)
    }

    /// What a proxy of the site is asked for.
    pub(super) fn target(&self) -> String {
        match self.name() {
            Some(name) => uplink::authority(name, self.addr.port()),
            None => self.addr.0.to_string(),
        }
    }

    pub(super) fn addresses(&self) -> Option<&Addresses> {
        self.addresses.as_deref()
    }
}

/// The handle of one connection.
#[derive(Debug)]
pub(super) enum Sender {
    /// One request at a time.
    Http1(Lane),
    /// Shared by all requests of its route.
    Http2(Shared),
}

/// A connection over HTTP/2.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub(super) handle: http2::Shared,
    /// The same for all handles of one connection.
    number: u64,
    /// Where it leads to.
    pub(super) addr: UpstreamAddr,
}

/// Idle HTTP/1 connections and shared HTTP/2 connections, by route.
#[derive(Debug)]
pub(super) struct Connections {
    shards: [Mutex<Slots>; SHARDS],
    hasher: RandomState,
    idle_time: Duration,
    idle_per_route: usize,
}

type Slots = HashMap<Route, Slot, RandomState>;

#[derive(Debug, Default)]
struct Slot {
    /// The one that was used last is at the end, and is used first.
    idle: Vec<(Lane, Instant)>,
    shared: Option<(Shared, Instant)>,
    /// What the upstream spoke the last time.
    speaks: Option<Speaks>,
    /// Held while an HTTP/2 connection is opened, which all others then share.
    opening: Arc<tokio::sync::Mutex<()>>,
}

impl Sender {
    /// Where it leads to.
    pub(super) fn addr(&self) -> UpstreamAddr {
        match self {
            Self::Http1(lane) => UpstreamAddr(lane.addr()),
            Self::Http2(shared) => shared.addr,
        }
    }

    /// Which connection it is, where others may use it too.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(shared) => Some(shared.number),
        }
    }
}

impl Connections {
    fn new(limits: &ForwardLimits) -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::default(),
            idle_time: limits.idle_time,
            idle_per_route: limits.idle_per_route,
        }
    }

    fn shard(&self, route: &Route) -> MutexGuard<'_, Slots> {
        let index = usize::try_from(self.hasher.hash_one(route) % 16).unwrap_or(0);
        let [first, ..] = &self.shards;
        self.shards.get(index).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that was there already, as far as is known still open.
    pub(super) fn take(&self, route: &Route) -> Option<Sender> {
        let mut shard = self.shard(route);
        let slot = shard.get_mut(route)?;
        if let Some((shared, used)) = &mut slot.shared {
            if shared.handle.closed().is_none() {
                *used = Instant::now();
                return Some(Sender::Http2(shared.clone()));
            }
            slot.shared = None;
        }
        while let Some((mut lane, _)) = slot.idle.pop() {
            if lane.is_open() {
                return Some(Sender::Http1(lane));
            }
        }
        None
    }

    /// Brings an HTTP/1 connection back after the end of its response.
    pub(super) fn give_back(&self, route: &Route, lane: Lane) {
        let mut shard = self.shard(route);
        let Some(slot) = shard.get_mut(route) else { return };
        if slot.idle.len() < self.idle_per_route {
            slot.idle.push((lane, Instant::now()));
        }
    }

    /// Lets go of the shared connection of a route, which did not take a request, unless there is another one by now. Requests
    /// that are on it go on.
    pub(super) fn forget(&self, route: &Route, number: u64) {
        if let Some(slot) = self.shard(route).get_mut(route) {
            slot.shared.take_if(|(shared, _)| shared.number == number);
        }
    }

    fn opened(&self, route: &Route, sender: &Sender) {
        let mut shard = self.shard(route);
        let slot = shard.entry(route.clone()).or_default();
        match sender {
            Sender::Http1(_) => slot.speaks = Some(Speaks::Http1),
            Sender::Http2(shared) => {
                slot.speaks = Some(Speaks::Http2);
                slot.shared.take_if(|(before, _)| before.handle.closed().is_some());
                slot.shared.get_or_insert_with(|| (shared.clone(), Instant::now()));
            }
        }
    }

    /// What to hold while a connection is opened, where one will do for all.
    fn opening(&self, route: &Route) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let shard = self.shard(route);
        let slot = shard.get(route)?;
        (slot.speaks == Some(Speaks::Http2)).then(|| Arc::clone(&slot.opening))
    }

    /// Lets go of what was not used for too long. Requests that are under way go on.
    fn evict(&self, now: Instant) {
        let fresh = |used: &Instant| now.saturating_duration_since(*used) < self.idle_time;
        for shard in &self.shards {
            shard.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, slot| {
                slot.idle.retain_mut(|(lane, used)| fresh(used) && lane.is_open());
                slot.shared.take_if(|(shared, used)| !fresh(used) || shared.handle.closed().is_some());
                !slot.idle.is_empty() || slot.shared.is_some() || Arc::strong_count(&slot.opening) > 1
            });
        }
    }
}

/// Connections of one kind of transport.
#[derive(Debug)]
pub(super) struct Pool<T> {
    transport: T,
    connections: Arc<Connections>,
}

impl<T: Transport> Pool<T> {
    pub(super) fn new(transport: T, limits: &ForwardLimits) -> Arc<Self> {
        Arc::new(Self { transport, connections: Arc::new(Connections::new(limits)) })
    }

    pub(super) fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// Drops connections that nobody used for the idle time, as long as the pool exists.
    pub(super) fn evict_in_background(&self) {
        let connections = Arc::downgrade(&self.connections);
        let period = (self.connections.idle_time / 4).max(Duration::from_millis(100));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(period).await;
                let Some(connections) = connections.upgrade() else { return };
                connections.evict(Instant::now());
            }
        });
    }

    /// A new connection, or one that somebody else opened for all meanwhile.
    pub(super) async fn open(&self, route: &Route, dialer: &Dialer) -> Result<Sender, ForwardError> {
        let gate = self.connections.opening(route);
        let _alone = match &gate {
            Some(gate) => {
                let alone = gate.lock().await;
                if let Some(Sender::Http2(shared)) = self.connections.take(route) {
                    return Ok(Sender::Http2(shared));
                }
                Some(alone)
            }
            None => None,
        };
        let (tcp, addr) = dialer.reach(route).await?;
        let (stream, speaks) = self.transport.establish(tcp, &Route { addr, ..route.clone() }).await?;
        let sender = handshake(stream, speaks, addr).await?;
        self.connections.opened(route, &sender);
        Ok(sender)
    }
}

/// Begins HTTP on a stream. The connection is driven by a task of its own and ends with its last handle.
async fn handshake<S>(stream: S, speaks: Speaks, addr: UpstreamAddr) -> Result<Sender, ForwardError>
where
    S: Io + 'static,
{
    match speaks {
        Speaks::Http1 => Ok(Sender::Http1(Lane::new(stream, addr.0))),
        Speaks::Http2 => {
            let (handle, driving) = http2::Shared::open(stream)
                .await
                .map_err(|source| ForwardError::Broken { addr: addr.0, source: source.into() })?;
            tokio::spawn(async move { note(addr, driving.await) });
            let number = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
            Ok(Sender::Http2(Shared { handle, number, addr }))
        }
    }
}

/// How many over HTTP/2 there were, to tell them apart.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// The calls that were on it say it themselves; this is for whoever looks for the connection.
fn note(addr: UpstreamAddr, ended: Result<(), Ended>) {
    if let Err(error) = ended {
        tracing::debug!(upstream = %addr.0, error = %chain(&error), "connection to an upstream ended");
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::super::transport::Plain;
    use super::*;

    /// A pool of two places for each route, a listener, and a dialer.
    async fn pool() -> (Arc<Pool<Plain>>, TcpListener, Dialer) {
        let limits = ForwardLimits { idle_per_route: 2, ..ForwardLimits::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (Pool::new(Plain, &limits), listener, Dialer::new(Vec::new(), Duration::from_secs(5)))
    }

    fn route(host: &str, addr: std::net::SocketAddr, mode: Mode) -> Route {
        Route::new(host.into(), UpstreamAddr(addr), mode)
    }

    /// Opens a connection of a route and leaves it idle; the upstream's end of it.
    async fn idle(pool: &Pool<Plain>, listener: &TcpListener, dialer: &Dialer, route: &Route) -> TcpStream {
        let (sender, accepted) = tokio::join!(pool.open(route, dialer), listener.accept());
        let Ok(Sender::Http1(lane)) = sender else { panic!("it speaks HTTP/1") };
        pool.connections().give_back(route, lane);
        accepted.unwrap().0
    }

    #[tokio::test]
    async fn a_connection_is_used_again_only_for_its_host_its_addresses_and_its_mode() {
        let (pool, listener, dialer) = pool().await;
        let addr = listener.local_addr().unwrap();
        let own = route("api.test", addr, Mode::Any);
        let _upstream = idle(&pool, &listener, &dialer, &own).await;
        for other in [
            route("other.test", addr, Mode::Any),
            route("api.test", "127.0.0.2:443".parse().unwrap(), Mode::Any),
            route("api.test", addr, Mode::Http1),
            // It may be elsewhere by now, where the policy does not let it be any more.
            own.clone().or_at(Some(&Arc::default())),
        ] {
            assert!(pool.connections().take(&other).is_none(), "{other:?}");
        }
        assert!(pool.connections().take(&own).is_some());
    }

    #[tokio::test]
    async fn a_shared_connection_is_forgotten_by_those_who_used_it_and_not_for_the_next_one() {
        let (pool, listener, dialer) = pool().await;
        let own = route("api.test", listener.local_addr().unwrap(), Mode::Http2);
        let open = || async {
            let (sender, accepted) = tokio::join!(pool.open(&own, &dialer), listener.accept());
            (sender.unwrap().number().unwrap(), accepted.unwrap())
        };
        let (first, _upstream) = open().await;
        pool.connections().forget(&own, first);
        assert!(pool.connections().take(&own).is_none());
        let (second, _upstream) = open().await;
        pool.connections().forget(&own, first);
        assert_eq!(pool.connections().take(&own).and_then(|sender| sender.number()), Some(second));
    }

    #[tokio::test]
    async fn no_more_connections_of_a_route_wait_than_the_limit_says() {
        let (pool, listener, dialer) = pool().await;
        let own = route("api.test", listener.local_addr().unwrap(), Mode::Any);
        let mut upstreams = Vec::new();
        // All are open before one comes back.
        let mut senders = Vec::new();
        for _ in 0..3 {
            let (sender, accepted) = tokio::join!(pool.open(&own, &dialer), listener.accept());
            upstreams.push(accepted.unwrap());
            senders.push(sender.unwrap());
        }
        for sender in senders {
            let Sender::Http1(sender) = sender else { panic!("it speaks HTTP/1") };
            pool.connections().give_back(&own, sender);
        }
        let kept = std::iter::from_fn(|| pool.connections().take(&own)).count();
        assert_eq!(kept, 2);
    }

    #[tokio::test]
    async fn a_connection_that_waited_too_long_or_was_closed_is_let_go() {
        let (pool, listener, dialer) = pool().await;
        let own = route("api.test", listener.local_addr().unwrap(), Mode::Any);
        let idle_time = ForwardLimits::default().idle_time;
        let mut upstream = idle(&pool, &listener, &dialer, &own).await;
        pool.connections().evict(Instant::now() + idle_time / 2);
        let kept = pool.connections().take(&own).expect("it did not wait for long");
        let Sender::Http1(kept) = kept else { panic!("it speaks HTTP/1") };
        pool.connections().give_back(&own, kept);
        pool.connections().evict(Instant::now() + idle_time * 2);
        assert!(pool.connections().take(&own).is_none());
        // The upstream learns of it.
        assert_eq!(tokio::io::AsyncReadExt::read(&mut upstream, &mut [0]).await.unwrap(), 0);

        drop(idle(&pool, &listener, &dialer, &own).await);
        let is_open = || {
            let mut shard = pool.connections().shard(&own);
            shard.get_mut(&own).is_some_and(|slot| slot.idle[0].0.is_open())
        };
        while is_open() {
            tokio::task::yield_now().await;
        }
        assert!(pool.connections().take(&own).is_none(), "the upstream closed it");
    }
}
