//! The network rules of a policy and of the host, spelled for the kernel.
use std::net::IpAddr;

use proxy_common::mapped;
use proxy_policy::{Moment, NetworkRule, Peers, PolicySet};

use crate::kernel::KernelRule;

/// Where the host names its DNS resolvers (resolv.conf(5)), and where those stand that systemd-resolved asks itself.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// The addresses behind `nameserver`; none when the files cannot be read.
pub(super) fn resolvers() -> Vec<IpAddr> {
    let text: String = RESOLV_CONF.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    parse_resolvers(&text)
}

fn parse_resolvers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        // An address may carry its interface (`fe80::1%eth0`), which the kernel does not compare.
        words.next()?.split('%').next()?.parse().ok()
    });
    let mut servers: Vec<IpAddr> = servers.collect();
    servers.sort_unstable();
    servers.dedup();
    servers
}

/// Every rule of the host and of every identity that is not over.
pub(super) fn kernel_rules(
    set: &PolicySet,
    host: &[NetworkRule],
    resolvers: &[IpAddr],
    now: Moment,
) -> Vec<KernelRule> {
    let mut rules = Vec::new();
    for rule in host {
        rules.extend(spelled(None, rule, resolvers));
    }
    for identity in set.identities() {
        for rule in identity.network.iter().filter(|rule| rule.holds(now)) {
            rules.extend(spelled(Some(identity.id.0), rule, resolvers));
        }
    }
    rules
}

fn spelled(identity: Option<u32>, rule: &NetworkRule, resolvers: &[IpAddr]) -> Vec<KernelRule> {
    // `any` is no rule of the kernel's: it is a standing.
    let Some(transport) = rule.transport() else { return Vec::new() };
    let one = |addr: [u8; 16], bits: u8| KernelRule {
        identity,
        protocol: transport.number(),
        addr,
        bits,
        port: rule.port(),
    };
    match rule.peers() {
        Peers::Any => vec![one([0; 16], 0)],
        Peers::Resolvers => resolvers.iter().map(|resolver| one(bytes(*resolver), 128)).collect(),
        Peers::Network { address: address @ IpAddr::V4(_), bits } => {
            vec![one(bytes(address), bits.saturating_add(96))]
        }
        Peers::Network { address, bits } => vec![one(bytes(address), bits)],
    }
}

fn bytes(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_the_addresses_behind_nameserver() {
        let text = "# nameserver 192.0.2.1\nsearch example.com\nnameserver 192.0.2.53\n\
                    nameserver fe80::1%eth0\nnameserver nonsense\nnameserver 192.0.2.53\n";
        assert_eq!(
            parse_resolvers(text),
            ["192.0.2.53".parse::<IpAddr>().unwrap(), "fe80::1".parse().unwrap()]
        );
        assert!(parse_resolvers("").is_empty());
    }

    #[test]
    fn an_ipv4_network_is_a_prefix_of_its_mapped_addresses() {
        let rule = NetworkRule::parse("tcp 10.0.0.0/8:5432").unwrap();
        let [kernel] = spelled(Some(3), &rule, &[])[..] else { panic!("one rule") };
        assert_eq!(
            (kernel.identity, kernel.protocol, kernel.bits, kernel.port),
            (Some(3), 6, 104, Some(5432))
        );
        assert_eq!(kernel.addr, mapped([10, 0, 0, 0]));
        let rule = NetworkRule::parse("udp resolver:53").unwrap();
        assert!(spelled(None, &rule, &[]).is_empty(), "without resolvers the rule opens nothing");
        assert!(spelled(Some(1), &NetworkRule::parse("any").unwrap(), &[]).is_empty());
    }
}
