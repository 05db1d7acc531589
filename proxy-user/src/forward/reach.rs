//! The address that the bot chose; and when nobody answers there, the others of its host (Happy Eyeballs, RFC 8305).
//!
//! The bot was connected at once, to us: what it would have done about an address that does not answer, it cannot do any more. So it is
//! done here, in its place. As long as the chosen address answers within [`ATTEMPT_DELAY`], nothing is resolved.
//!
//! Names are resolved by the system (`getaddrinfo`), as for every other program of the host: hosts file, nsswitch, split DNS and the
//! order of RFC 6724 are those that its operator knows. A resolver of our own would have to be told of each.
//!
//! Invariant: what a name resolves to is held against what the API's policy says of addresses. Whether it is the host, its certificate
//! proves: a wrong answer costs the call, and nothing else.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use proxy_policy::{Addresses, Elsewhere};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};

use super::dial::{Dialer, resolve_all, resolves_to_nothing};
use super::error::{ForwardError, chain};
use super::pool::Route;
use crate::base::addr::UpstreamAddr;
use crate::uplink::Uplink;

/// How long an attempt is alone before the next one begins beside it (RFC 8305 section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses that are tried besides the chosen one.
const MOST_OTHERS: usize = 7;
/// Names that are resolved at once. Each takes a thread, until the resolver gives up.
const MOST_LOOKUPS: usize = 64;

static LOOKUPS: Semaphore = Semaphore::const_new(MOST_LOOKUPS);

impl Dialer {
    /// Connects for a route; with the address that it is in the end.
    ///
    /// # Errors
    /// Nobody answers in time at any address that may be tried, or the route leads to this proxy.
    pub(super) async fn reach(&self, route: &Route) -> Result<(TcpStream, UpstreamAddr), ForwardError> {
        if let Some(uplink) = self.uplink(route.name(), route.addr.ip()) {
            return self.reach_through(uplink, route).await;
        }
        let Some(addresses) = route.addresses() else {
            return Ok((self.dial(route.addr).await?, route.addr));
        };
        let deadline = Instant::now() + self.limit();
        let mut chosen = pin!(self.dial(route.addr));
        let mut first = match timeout(ATTEMPT_DELAY, chosen.as_mut()).await {
            Ok(Ok(stream)) => return Ok((stream, route.addr)),
            Ok(Err(error @ ForwardError::Loop { .. })) => return Err(error),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        let mut looking = true;
        let mut lookup = pin!(lookup(&route.host, route.addr.port()));
        let mut left = VecDeque::new();
        let mut attempts = FuturesUnordered::new();
        let mut next = Instant::now();
        let mut tried: Vec<String> = Vec::new();
        while first.is_none() || looking || !left.is_empty() || !attempts.is_empty() {
            tokio::select! {
                biased;
                ended = chosen.as_mut(), if first.is_none() => match ended {
                    Ok(stream) => return Ok((stream, route.addr)),
                    Err(error) => (first, next) = (Some(error), Instant::now()),
                },
                Some((addr, ended)) = attempts.next(), if !attempts.is_empty() => match ended {
                    Ok(stream) => {
                        tracing::debug!(host = &*route.host, chosen = %route.addr, upstream = %addr,
                            "the address that was chosen does not answer; another one does");
                        return Ok((stream, addr));
                    }
                    Err(error) => {
                        tried.push(chain(&error));
                        next = Instant::now();
                    }
                },
                found = lookup.as_mut(), if looking => {
                    looking = false;
                    match found {
                        Ok(answers) => {
                            let refused;
                            (left, refused) = others(route.addr.0, &answers, addresses);
                            let told = |elsewhere: &Elsewhere| format!("{elsewhere}, so it was not tried");
                            tried.extend(refused.iter().map(told));
                        }
                        Err(error) => tried.push(format!("they cannot be resolved: {error}")),
                    }
                }
                () = sleep_until(next), if !left.is_empty() => {
                    let Some(addr) = left.pop_front().map(UpstreamAddr) else { continue };
                    attempts.push(async move { (addr, self.dial(addr).await) });
                    next = Instant::now() + ATTEMPT_DELAY;
                }
                () = sleep_until(deadline) => break,
            }
        }
        let first = first.unwrap_or(ForwardError::ConnectTimeout { addr: route.addr.0, limit: self.limit() });
        if tried.is_empty() {
            return Err(first);
        }
        let (host, others) = (route.host.to_string(), tried.join("; "));
        Err(ForwardError::Nowhere { host, first: Box::new(first), others })
    }
}

impl Dialer {
    /// The same through the proxy of the site.
    ///
    /// The proxy looks the name up for itself. So that it does not lead to an address at which the API may not be, as far as this host
    /// can tell, all of what it resolves to here must be such that it may.
    async fn reach_through(
        &self,
        uplink: &Uplink,
        route: &Route,
    ) -> Result<(TcpStream, UpstreamAddr), ForwardError> {
        if let (Some(name), Some(addresses)) = (route.name(), route.addresses()) {
            check_name(uplink, name, route.addr.port(), addresses).await?;
        }
        self.tunnel(uplink, &route.target()).await
    }
}

/// Whether all that a name leads to, as far as this host can tell, is where its API may be.
async fn check_name(
    uplink: &Uplink,
    name: &str,
    port: u16,
    addresses: &Addresses,
) -> Result<(), ForwardError> {
    let is_literal = name.parse::<IpAddr>().is_ok();
    if uplink.resolves() && !is_literal {
        // What the operator wrote cannot be kept, so nothing goes there; of what holds where nothing is written, he said that it need not be.
        return match addresses.written().next() {
            Some(_) => Err(ForwardError::Unchecked { host: name.to_owned(), proxy: uplink.told() }),
            None => Ok(()),
        };
    }
    let unknown = |error| ForwardError::UnknownHere { source: Box::new(error) };
    let all = resolve_all(name, port, uplink.limit()).await.map_err(unknown)?;
    if all.is_empty() {
        return Err(unknown(resolves_to_nothing(name)));
    }
    match all.iter().find_map(|addr| addresses.check(addr.ip()).err()) {
        Some(elsewhere) => {
            Err(ForwardError::Elsewhere { host: name.to_owned(), elsewhere: Box::new(elsewhere) })
        }
        None => Ok(()),
    }
}

/// What is tried besides the chosen address, in this order: each family in the order of the resolver, one after the other, the
/// family that was not chosen first. With those that may not be tried.
fn others(
    chosen: SocketAddr,
    answers: &[SocketAddr],
    addresses: &Addresses,
) -> (VecDeque<SocketAddr>, Vec<Elsewhere>) {
    let chosen = chosen.ip().to_canonical();
    let mut refused = Vec::new();
    let (mut same, mut other) = (VecDeque::new(), VecDeque::new());
    for answer in answers.iter().filter(|answer| answer.ip() != chosen) {
        if let Err(elsewhere) = addresses.check(answer.ip()) {
            if refused.len() < MOST_OTHERS {
                refused.push(elsewhere);
            }
            continue;
        }
        let family = if answer.is_ipv4() == chosen.is_ipv4() { &mut same } else { &mut other };
        if !family.contains(answer) {
            family.push_back(*answer);
        }
    }
    let mut order = VecDeque::new();
    while order.len() < MOST_OTHERS && !(same.is_empty() && other.is_empty()) {
        order.extend(other.pop_front());
        order.extend(same.pop_front());
    }
    order.truncate(MOST_OTHERS);
    (order, refused)
}

/// All addresses of a name, each once, as the system resolves it.
pub(super) async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let place = LOOKUPS.acquire().await.map_err(io::Error::other)?;
    let host = host.to_owned();
    // It goes on in its thread when nobody waits for it any more, and keeps its place.
    let resolving = tokio::spawn(async move {
        let _place = place;
        tokio::net::lookup_host((host, port)).await.map(Iterator::collect::<Vec<_>>)
    });
    let mut all = Vec::new();
    for answer in resolving.await.map_err(io::Error::other)?? {
        let addr = SocketAddr::new(answer.ip().to_canonical(), port);
        if !all.contains(&addr) {
            all.push(addr);
        }
    }
    Ok(all)
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
