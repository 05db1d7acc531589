//! Host names in one spelling: what a client, a certificate and a policy call the same host compares equal.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// Why a host was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HostError {
    /// Nothing there.
    #[error("the host is empty")]
    Empty,
    /// `user@host`.
    #[error("the host has user information in front of an @")]
    UserInfo,
    /// Not ASCII.
    #[error("the host is not ASCII: use its punycode form (xn--…)")]
    NotAscii,
    /// A character that host names do not have.
    #[error("the host has a character that host names do not have")]
    Character,
    /// Two dots in a row, or one in front.
    #[error("the host has an empty label")]
    EmptyLabel,
    /// A label of more than 63 or a name of more than 253 bytes.
    #[error("the host or one of its labels is too long")]
    TooLong,
    /// The last label is a number, but the whole is not four decimal bytes; systems disagree about such names.
    #[error("the host looks like a number but is not an IPv4 address in its usual form")]
    BadIpv4,
    /// Not an IPv6 address in brackets.
    #[error("the host is not an IPv6 address in brackets")]
    BadIpv6,
    /// Not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
}

/// What a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Name,
    V4,
    V6,
}

/// A host with an optional port, in normal form.
///
/// Names are lower-case ASCII without the trailing dot; underscores are allowed, because they occur. IPv4 is four
/// decimal bytes, IPv6 is in brackets when written with a port and follows RFC 5952.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    name: String,
    port: Option<u16>,
    kind: Kind,
}

impl Host {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`, as in an HTTP authority or a policy.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if !text.is_ascii() {
            return Err(HostError::NotAscii);
        }
        if text.contains('@') {
            return Err(HostError::UserInfo);
        }
        if let Some(rest) = text.strip_prefix('[') {
            let (inside, after) = rest.split_once(']').ok_or(HostError::BadIpv6)?;
            let address: Ipv6Addr = inside.parse().map_err(|_| HostError::BadIpv6)?;
            let port = match after {
                "" => None,
                _ => Some(parse_port(after.strip_prefix(':').ok_or(HostError::BadIpv6)?)?),
            };
            return Ok(Self { name: address.to_string(), port, kind: Kind::V6 });
        }
        let (name, port) = match text.split_once(':') {
            Some((_, rest)) if rest.contains(':') => return Err(HostError::BadIpv6),
            Some((name, port)) => (name, Some(parse_port(port)?)),
            None => (text, None),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let kind = check_name(name)?;
        Ok(Self { name: name.to_ascii_lowercase(), port, kind })
    }

    /// The name or address in normal form, without brackets and port.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, if one was written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether this is an address and not a name.
    #[must_use]
    pub fn is_address(&self) -> bool {
        self.kind != Kind::Name
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::V6 => write!(f, "[{}]", self.name)?,
            Kind::Name | Kind::V4 => f.write_str(&self.name)?,
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

fn parse_port(text: &str) -> Result<u16, HostError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(HostError::BadPort);
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(HostError::BadPort),
        Ok(port) => Ok(port),
    }
}

fn check_name(name: &str) -> Result<Kind, HostError> {
    if name.is_empty() {
        return Err(HostError::Empty);
    }
    if name.len() > 253 {
        return Err(HostError::TooLong);
    }
    for label in name.split('.') {
        if label.is_empty() {
            return Err(HostError::EmptyLabel);
        }
        if label.len() > 63 {
            return Err(HostError::TooLong);
        }
        if !label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(HostError::Character);
        }
    }
    let last = name.rsplit('.').next().unwrap_or_default().as_bytes();
    let number = last.iter().all(u8::is_ascii_digit)
        || matches!(last, [b'0', b'x' | b'X', rest @ ..] if rest.iter().all(u8::is_ascii_hexdigit));
    match (number, name.parse::<Ipv4Addr>()) {
        (false, _) => Ok(Kind::Name),
        (true, Ok(_)) => Ok(Kind::V4),
        (true, Err(_)) => Err(HostError::BadIpv4),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        for (given, normal) in [
            ("API.Stripe.com", "api.stripe.com"),
            ("api.stripe.com.", "api.stripe.com"),
            ("api.stripe.com.:443", "api.stripe.com:443"),
            ("my_host", "my_host"),
            ("internal:8443", "internal:8443"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]:443", "[::1]:443"),
            ("[2001:DB8::A]", "[2001:db8::a]"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("1password.com", "1password.com"),
        ] {
            assert_eq!(Host::parse(given).map(|h| h.to_string()), Ok(normal.to_owned()), "{given}");
        }
        assert_eq!(
            Host::parse("[::1]:8080").map(|h| (h.name().to_owned(), h.port())),
            Ok(("::1".into(), Some(8080)))
        );
    }

    #[test]
    fn what_systems_read_differently_is_refused() {
        for (given, error) in [
            ("", HostError::Empty),
            (".", HostError::Empty),
            (":443", HostError::Empty),
            ("user@host", HostError::UserInfo),
            ("bücher.example", HostError::NotAscii),
            ("a..b", HostError::EmptyLabel),
            (".a", HostError::EmptyLabel),
            ("a..", HostError::EmptyLabel),
            ("a b", HostError::Character),
            ("a/b", HostError::Character),
            ("a%2eb", HostError::Character),
            ("*.example.com", HostError::Character),
            ("a\0b", HostError::Character),
            ("127.1", HostError::BadIpv4),
            ("2130706433", HostError::BadIpv4),
            ("0x7f.0.0.0x1", HostError::BadIpv4),
            ("010.0.0.1", HostError::BadIpv4),
            ("256.0.0.1", HostError::BadIpv4),
            ("::1", HostError::BadIpv6),
            ("[::1", HostError::BadIpv6),
            ("[::1%eth0]", HostError::BadIpv6),
            ("[::1]x", HostError::BadIpv6),
            ("[127.0.0.1]", HostError::BadIpv6),
            ("a:", HostError::BadPort),
            ("a:0", HostError::BadPort),
            ("a:+1", HostError::BadPort),
            ("a:65536", HostError::BadPort),
        ] {
            assert_eq!(Host::parse(given), Err(error), "{given}");
        }
        assert_eq!(Host::parse(&"a".repeat(64)), Err(HostError::TooLong));
        assert_eq!(Host::parse(&vec!["a".repeat(60); 5].join(".")), Err(HostError::TooLong));
    }

    proptest! {
        #[test]
        fn parsing_is_total_and_its_output_is_a_fixed_point(text in "\\PC{0,40}|[a-zA-Z0-9.:\\[\\]_-]{0,30}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()), Ok(host.clone()));
                prop_assert!(!host.name().bytes().any(|b| b.is_ascii_uppercase()));
            }
        }
    }
}
