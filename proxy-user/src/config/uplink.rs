//! `[upstream] proxy`: the proxy of the site through which upstreams are reached, and what is reached without it.

use std::net::IpAddr;

use proxy_policy::{Host, SecretRef};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::hashicorp::Reference;

/// Where the proxy of the site is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteProxy {
    /// Its name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl SiteProxy {
    fn parse(text: &str) -> Result<Self, &'static str> {
        const HELP: &str = "upstream.proxy is http://HOST:PORT, without user, path and anything else; what it wants to know of this \
                            host is upstream.proxy_credential";
        if text.starts_with("https://") {
            return Err("TLS to the proxy itself is not spoken; write upstream.proxy = \"http://HOST:PORT\"");
        }
        let rest = text.strip_prefix("http://").ok_or(HELP)?;
        let host = Host::parse(rest.strip_suffix('/').unwrap_or(rest)).map_err(|_| HELP)?;
        let unspecified = host.name().parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_unspecified());
        match host.port() {
            Some(port) if !unspecified => Ok(Self { host: host.name().to_owned(), port }),
            _ => Err(HELP),
        }
    }
}

impl<'de> Deserialize<'de> for SiteProxy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Somebody may have written a password into it: no error repeats it.
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// What is reached without the proxy of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Direct {
    /// This name.
    Name(String),
    /// The names below this one, and itself.
    Domain(String),
    /// The addresses that have so many bits in common with this one.
    Network(IpAddr, u8),
}

impl Direct {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} in upstream.no_proxy is no name, no domain with a dot before it, no address and no network; write for \
                 example \"vault.corp.example\", \".corp.example\", \"10.1.2.3\" or \"10.0.0.0/8\""
            )
        };
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| wrong())?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits: u8 = bits.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?;
            if address.to_canonical() != address || masked(address, bits) != bits_of(address) {
                return Err(format!("{text:?} in upstream.no_proxy has bits set behind its prefix"));
            }
            return Ok(Self::Network(address, bits));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            let address = address.to_canonical();
            return Ok(Self::Network(address, if address.is_ipv4() { 32 } else { 128 }));
        }
        let domain = text.strip_prefix("*.").or_else(|| text.strip_prefix('.'));
        let host = Host::parse(domain.unwrap_or(text)).map_err(|_| wrong())?;
        if host.port().is_some() || host.is_address() {
            return Err(wrong());
        }
        let name = host.name().to_owned();
        Ok(if domain.is_some() { Self::Domain(name) } else { Self::Name(name) })
    }

    /// Whether it is said of a name, in normal form.
    #[must_use]
    pub fn is_name(&self, name: &str) -> bool {
        match self {
            Self::Name(known) => known == name,
            Self::Domain(domain) => name
                .strip_suffix(domain.as_str())
                .is_some_and(|before| before.is_empty() || before.ends_with('.')),
            Self::Network(..) => false,
        }
    }

    /// Whether it is said of an address.
    #[must_use]
    pub fn is_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        matches!(self, Self::Network(network, bits)
            if network.is_ipv4() == address.is_ipv4() && masked(address, *bits) == masked(*network, *bits))
    }
}

impl<'de> Deserialize<'de> for Direct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// An address as a number, from the left.
fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Its first bits.
fn masked(address: IpAddr, bits: u8) -> u128 {
    bits_of(address) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

/// Reads a reference to a secret of this host.
pub(super) fn reference<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretRef>, D::Error> {
    Reference::deserialize(deserializer).map(|reference| Some(reference.0))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn parsed(upstream: &str) -> Result<Config, String> {
        Config::parse(Path::new("v.toml"), &format!("[upstream]\n{upstream}"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_proxy_of_a_site_is_a_host_and_a_port_and_its_port_is_mediated_too() {
        for (text, host, port) in [
            ("http://proxy.corp.example:3128", "proxy.corp.example", 3128),
            ("http://Proxy.corp.example:3128/", "proxy.corp.example", 3128),
            ("http://192.0.2.1:8080", "192.0.2.1", 8080),
            ("http://[2001:db8::1]:8080", "2001:db8::1", 8080),
        ] {
            let config = parsed(&format!("proxy = {text:?}")).unwrap();
            assert_eq!(config.upstream.proxy, Some(SiteProxy { host: host.into(), port }));
            assert_eq!(config.ports(), [80, 443, port]);
        }
        assert_eq!(parsed("proxy = \"http://a:443\"").unwrap().ports(), [80, 443]);
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_a_password_in_it_is_not_repeated() {
        for bad in [
            "proxy.corp.example:3128",
            "http://proxy.corp.example",
            "http://me:CANARY@proxy.corp.example:3128",
            "http://proxy.corp.example:3128/CANARY",
            "http://proxy.corp.example:0",
            "http://0.0.0.0:3128",
            "https://proxy.corp.example:3128",
            "socks5://proxy.corp.example:1080",
            "",
        ] {
            let error = parsed(&format!("proxy = {bad:?}")).unwrap_err();
            assert!(error.starts_with("v.toml:2:9: error: ") && !error.contains("CANARY"), "{bad}: {error}");
            assert!(error.contains("upstream.proxy"), "{error}");
        }
        let proxy = "proxy = \"http://proxy.test:3128\"\n";
        let typed = parsed(&format!("{proxy}proxy_credential = \"me:CANARY\"")).unwrap_err();
        assert!(typed.contains("never typed in") && !typed.contains("CANARY"), "{typed}");
        for (alone, key) in [
            ("no_proxy = [\"a\"]", "no_proxy"),
            ("proxy_credential = \"vault:a\"", "proxy_credential"),
            ("proxy_resolves = true", "proxy_resolves"),
        ] {
            let error = parsed(alone).unwrap_err();
            assert!(error.contains(&format!("upstream.{key} is for upstream.proxy")), "{error}");
        }
        let own = parsed("proxy = \"http://127.0.0.1:15001\"").unwrap_err();
        assert!(own.contains("mediated itself"), "{own}");
    }

    #[test]
    fn what_is_reached_directly_is_named_by_name_domain_address_or_network() {
        let direct = |text: &str| Direct::parse(text).unwrap();
        let name = direct("Vault.corp.example");
        assert!(name.is_name("vault.corp.example"));
        assert!(!name.is_name("a.vault.corp.example") && !name.is_name("xvault.corp.example"));
        for text in [".corp.example", "*.corp.example"] {
            let domain = direct(text);
            assert!(domain.is_name("corp.example") && domain.is_name("a.b.corp.example"));
            assert!(!domain.is_name("xcorp.example") && !domain.is_name("corp.example.org"));
        }
        for (network, address, is) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.0/8", "a00::1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db9::1", true),
        ] {
            assert_eq!(direct(network).is_address(address.parse().unwrap()), is, "{network} {address}");
        }
        for bad in [
            "",
            "a b",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/",
            "host:80",
            "*",
            "*.*.x",
            "https://x",
            "10.0.0",
        ] {
            assert!(Direct::parse(bad).is_err(), "{bad}");
        }
    }
}
