//! Host names as TLS sees them: one spelling for each host.

use rustls::pki_types::{DnsName, ServerName};

/// A name that can be neither certified nor verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a DNS name nor an IP address")]
pub struct BadHost(pub String);

/// `host` in lower case and without a trailing dot, as a DNS name or an IP address (without brackets).
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, BadHost> {
    let bad = || BadHost(host.to_owned());
    let name = ServerName::try_from(host.strip_suffix('.').unwrap_or(host)).map_err(|_| bad())?;
    match name {
        ServerName::DnsName(name) => {
            let name = DnsName::try_from(name.as_ref().to_ascii_lowercase()).map_err(|_| bad())?;
            Ok(ServerName::DnsName(name))
        }
        ServerName::IpAddress(address) => Ok(ServerName::IpAddress(address)),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_spelling() {
        let expected = server_name("api.example.com").unwrap();
        for spelling in ["API.example.COM", "api.example.com.", "Api.Example.Com."] {
            assert_eq!(server_name(spelling), Ok(expected.clone()));
        }
        assert_eq!(server_name("2001:DB8::1"), server_name("2001:db8:0::1"));
    }

    #[test]
    fn what_cannot_be_certified_is_refused() {
        for host in ["", ".", "a b", "*.example.com", "[::1]", "a..b", "bücher.example"] {
            assert_eq!(server_name(host), Err(BadHost(host.to_owned())));
        }
    }
}
