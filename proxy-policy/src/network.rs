//! Network rules: what an identity may reach past the proxy, by protocol, address and port. `"tcp 10.0.0.0/8:5432"`.

use std::fmt;
use std::net::IpAddr;

use crate::diagnostic::{Problem, quote};
use crate::suggest;

/// A transport that can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// As in a rule.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// The addresses of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peers {
    /// Every address.
    Any,
    /// The host's DNS resolvers, as `/etc/resolv.conf` names them.
    Resolvers,
    /// A network; a single address has all bits.
    Network {
        /// The address, without bits behind the prefix.
        address: IpAddr,
        /// Bits of the prefix, of 32 or 128.
        bits: u8,
    },
}

/// One rule: a transport, addresses, and a port. Kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkRule {
    /// `None`: everything, also what is no transport (raw and packet sockets).
    transport: Option<Transport>,
    peers: Peers,
    port: Option<u16>,
    text: String,
}

impl NetworkRule {
    /// Reads `TRANSPORT ADDRESS:PORT`. The address is `*`, `resolver`, an IPv4 or bracketed IPv6 address, or a network in
    /// CIDR notation (`10.0.0.0/8`, `[2001:db8::]/32`); the port is a number or `*`. `any` alone is everything that is not
    /// mediated, raw and packet sockets included: for the programs that make the host's network work.
    ///
    /// # Errors
    /// What is wrong, and what was perhaps meant.
    pub fn parse(text: &str) -> Result<Self, RuleError> {
        parse(text).map_err(RuleError)
    }

    /// The transport; `None`: this is `any`.
    #[must_use]
    pub fn transport(&self) -> Option<Transport> {
        self.transport
    }

    /// The addresses.
    #[must_use]
    pub fn peers(&self) -> Peers {
        self.peers
    }

    /// The port; `None`: every port.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the rule covers a destination. A v4-mapped IPv6 address is the IPv4 address. Without a transport the
    /// question is about something that is neither TCP nor UDP.
    #[must_use]
    pub fn covers(
        &self,
        transport: Option<Transport>,
        address: IpAddr,
        port: u16,
        resolvers: &[IpAddr],
    ) -> bool {
        if self.transport.is_none() {
            return true;
        }
        let address = address.to_canonical();
        self.transport == transport
            && self.port.is_none_or(|only| only == port)
            && match self.peers {
                Peers::Any => true,
                Peers::Resolvers => resolvers.iter().any(|resolver| resolver.to_canonical() == address),
                Peers::Network { address: network, bits } => masked(address, bits) == Some(network),
            }
    }
}

/// Why a rule is none. `Display` says what is wrong and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError(pub(crate) Problem);

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.message, self.0.help)
    }
}

impl std::error::Error for RuleError {}

const SHAPE: &str = "write TRANSPORT ADDRESS:PORT, such as \"tcp 10.0.0.0/8:5432\", \"udp resolver:53\" or \"tcp [2001:db8::1]:*\"";

fn parse(text: &str) -> Result<NetworkRule, Problem> {
    if text == "any" {
        return Ok(NetworkRule { transport: None, peers: Peers::Any, port: None, text: text.to_owned() });
    }
    let (transport, rest) = text
        .split_once(' ')
        .ok_or_else(|| Problem::new(format!("{} is not a network rule", quote(text)), SHAPE))?;
    let transport = match transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        other => {
            let help = suggest::nearest(&other.to_ascii_lowercase(), ["tcp", "udp"])
                .map_or_else(|| SHAPE.to_owned(), |meant| format!("did you mean \"{meant}\"?"));
            return Err(Problem::new(
                format!("{} is not a transport that can be granted", quote(other)),
                help,
            ));
        }
    };
    let (peers, port) =
        rest.rsplit_once(':').ok_or_else(|| Problem::new(format!("{} names no port", quote(text)), SHAPE))?;
    let port = match port {
        "*" => None,
        number => Some(parse_port(number)?),
    };
    let peers = match peers {
        "*" => Peers::Any,
        "resolver" => Peers::Resolvers,
        network => parse_network(network)?,
    };
    Ok(NetworkRule { transport: Some(transport), peers, port, text: text.to_owned() })
}

fn parse_port(text: &str) -> Result<u16, Problem> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| *port != 0 && plain).ok_or_else(|| {
        Problem::new(
            format!("{} is not a port", quote(text)),
            "write a number from 1 to 65535, or * for every port",
        )
    })
}

fn parse_network(text: &str) -> Result<Peers, Problem> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let parsed = match bracketed {
        Some(v6) => v6.parse().ok().map(IpAddr::V6),
        None => address.parse().ok().map(IpAddr::V4),
    };
    let Some(address) = parsed else {
        let help = match address.parse::<std::net::Ipv6Addr>() {
            Ok(_) => format!("write an IPv6 address in brackets: [{address}]"),
            Err(_) => {
                "the kernel knows addresses only: write the address or the network of the host, * or resolver"
                    .into()
            }
        };
        return Err(Problem::new(format!("{} is not an address", quote(text)), help));
    };
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => most,
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(|| {
            Problem::new(
                format!("{} has no valid prefix length", quote(text)),
                format!("write a number from 0 to {most} behind the /"),
            )
        })?,
    };
    if address.to_canonical() != address {
        let help = format!("write it as IPv4: {}", address.to_canonical());
        return Err(Problem::new(format!("{} is an IPv4 address in disguise", quote(text)), help));
    }
    match masked(address, bits) {
        Some(network) if network == address => Ok(Peers::Network { address, bits }),
        Some(network) => Err(Problem::new(
            format!("{} has bits set behind its prefix", quote(text)),
            match network {
                IpAddr::V4(v4) => format!("did you mean {v4}/{bits}, or the address alone?"),
                IpAddr::V6(v6) => format!("did you mean [{v6}]/{bits}, or the address alone?"),
            },
        )),
        None => Err(Problem::new(format!("{} has no valid prefix length", quote(text)), SHAPE)),
    }
}

/// The address with all bits behind the prefix cleared.
pub(crate) fn masked(address: IpAddr, bits: u8) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(u32::from(bits))?).unwrap_or(0);
            Some(IpAddr::V4((u32::from(v4) & mask).into()))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(u32::from(bits))?).unwrap_or(0);
            Some(IpAddr::V6((u128::from(v6) & mask).into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(rule: &str, transport: Transport, to: &str) -> bool {
        let to: std::net::SocketAddr = to.parse().unwrap();
        let resolvers = ["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        NetworkRule::parse(rule).unwrap().covers(Some(transport), to.ip(), to.port(), &resolvers)
    }

    #[test]
    fn a_rule_covers_its_transport_addresses_and_port_only() {
        use Transport::{Tcp, Udp};
        for (rule, transport, to, expected) in [
            ("tcp 10.0.0.0/8:5432", Tcp, "10.200.3.4:5432", true),
            ("tcp 10.0.0.0/8:5432", Tcp, "11.0.0.1:5432", false),
            ("tcp 10.0.0.0/8:5432", Tcp, "10.0.0.1:5433", false),
            ("tcp 10.0.0.0/8:5432", Udp, "10.0.0.1:5432", false),
            ("tcp 10.0.0.0/8:5432", Tcp, "[::ffff:10.0.0.1]:5432", true),
            ("udp resolver:53", Udp, "192.0.2.53:53", true),
            ("udp resolver:53", Udp, "[2001:db8::53]:53", true),
            ("udp resolver:53", Udp, "192.0.2.54:53", false),
            ("tcp [2001:db8::]/32:*", Tcp, "[2001:db8:1::9]:1", true),
            ("tcp [2001:db8::]/32:*", Tcp, "[2001:db9::9]:1", false),
            ("tcp 192.0.2.7:22", Tcp, "192.0.2.7:22", true),
            ("tcp 192.0.2.7:22", Tcp, "192.0.2.6:22", false),
            ("tcp 0.0.0.0/0:22", Tcp, "192.0.2.6:22", true),
            ("tcp 0.0.0.0/0:22", Tcp, "[2001:db8::1]:22", false),
            ("tcp *:22", Tcp, "[2001:db8::1]:22", true),
            ("udp *:*", Udp, "198.51.100.1:4", true),
            ("any", Udp, "198.51.100.1:4", true),
        ] {
            assert_eq!(covers(rule, transport, to), expected, "{rule} {to}");
        }
        for (rule, expected) in [("any", true), ("tcp *:*", false), ("udp *:*", false)] {
            let rule = NetworkRule::parse(rule).unwrap();
            assert_eq!(
                rule.covers(None, "192.0.2.1".parse().unwrap(), 0, &[]),
                expected,
                "{}",
                rule.as_str()
            );
        }
    }

    #[test]
    fn what_is_no_rule_is_refused_and_the_help_fits() {
        for (text, help) in [
            ("", "TRANSPORT ADDRESS:PORT"),
            ("tcp", "TRANSPORT ADDRESS:PORT"),
            ("TCP 10.0.0.1:1", "did you mean \"tcp\""),
            ("sctp 10.0.0.1:1", "tcp"),
            ("tcp 10.0.0.1", "TRANSPORT ADDRESS:PORT"),
            ("tcp 10.0.0.1:", "1 to 65535"),
            ("tcp 10.0.0.1:0", "1 to 65535"),
            ("tcp 10.0.0.1:+1", "1 to 65535"),
            ("tcp 10.0.0.1:65536", "1 to 65535"),
            ("tcp db.internal:5432", "addresses only"),
            ("tcp 10.0.0.1/33:1", "0 to 32"),
            ("tcp 10.0.0.1/8:1", "did you mean 10.0.0.0/8"),
            ("tcp 2001:db8::1:443", "in brackets"),
            ("tcp [2001:db8::1]/32:1", "did you mean [2001:db8::]/32"),
            ("tcp [::ffff:10.0.0.1]:1", "write it as IPv4: 10.0.0.1"),
            ("tcp  10.0.0.1:1", "addresses only"),
        ] {
            let said = NetworkRule::parse(text).unwrap_err().to_string();
            assert!(said.contains(help), "{text}: {said}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_network_covers_an_address_exactly_if_it_shares_the_prefix(a: u32, b: u32, bits in 0_u8..=32) {
            let network = masked(IpAddr::V4(a.into()), bits).unwrap();
            let rule = NetworkRule::parse(&format!("tcp {network}/{bits}:1")).unwrap();
            let shared = (a ^ b).leading_zeros() >= u32::from(bits);
            proptest::prop_assert_eq!(rule.covers(Some(Transport::Tcp), IpAddr::V4(b.into()), 1, &[]), shared);
        }
    }
}
