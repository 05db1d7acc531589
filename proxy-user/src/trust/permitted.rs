//! The names that a CA may sign for, as X.509 name constraints say it (RFC 5280 section 4.2.1.10).

use std::collections::BTreeSet;
use std::net::IpAddr;

use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Stands for the hosts of a policy that has none: a CA without a permitted name would be one for every name
/// (RFC 2606 section 2: nobody can have it).
const NOBODY: &str = "vouchsafe.invalid";

/// A set of domains, each with all that is below it, and of addresses.
///
/// Smallest form: no domain is below another one of the set, so that equal sets compare equal. What X.509 can say is "this name and
/// all below it", so a policy's `*.example.com` permits `example.com`, and `api.example.com` also what is below that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permitted {
    /// In lower case, without a dot at either end.
    domains: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Permitted {
    /// The set of these hosts: DNS names, or IP addresses without brackets. What is neither permits nothing.
    pub fn new<'h>(hosts: impl IntoIterator<Item = &'h str>) -> Self {
        let (mut domains, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for host in hosts {
            match host.parse::<IpAddr>() {
                Ok(address) => drop(addresses.insert(address.to_canonical())),
                Err(_) => {
                    let name = host.trim_matches('.').to_ascii_lowercase();
                    if !name.is_empty() && name.is_ascii() {
                        domains.insert(name);
                    }
                }
            }
        }
        Self::smallest(domains, addresses)
    }

    fn smallest(mut domains: BTreeSet<String>, addresses: BTreeSet<IpAddr>) -> Self {
        if domains.is_empty() && addresses.is_empty() {
            domains.insert(NOBODY.to_owned());
        }
        let kept = domains.iter().filter(|name| !above(name).any(|domain| domains.contains(domain)));
        let kept = kept.cloned().collect();
        Self { domains: kept, addresses }
    }

    /// The set in parts of at most `most` names each, so that no certificate becomes larger than clients take.
    pub(super) fn parts(&self, most: usize) -> Vec<Self> {
        if self.len() <= most {
            return vec![self.clone()];
        }
        let domains: Vec<&String> = self.domains.iter().collect();
        let addresses: Vec<&IpAddr> = self.addresses.iter().collect();
        let of_domains = domains.chunks(most).map(|part| Self {
            domains: part.iter().copied().cloned().collect(),
            addresses: BTreeSet::new(),
        });
        let of_addresses = addresses.chunks(most).map(|part| Self {
            domains: BTreeSet::new(),
            addresses: part.iter().copied().copied().collect(),
        });
        of_domains.chain(of_addresses).collect()
    }

    /// What parts permit together.
    pub(super) fn all<'p>(parts: impl IntoIterator<Item = &'p Self>) -> Self {
        let (mut domains, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for part in parts {
            domains.extend(part.domains.iter().cloned());
            addresses.extend(part.addresses.iter().copied());
        }
        Self::smallest(domains, addresses)
    }

    /// How many domains and addresses it has.
    pub(super) fn len(&self) -> usize {
        self.domains.len() + self.addresses.len()
    }

    /// Whether a certificate for `name` is within the set.
    pub(super) fn permits(&self, name: &ServerName<'_>) -> bool {
        match name {
            ServerName::IpAddress(address) => self.addresses.contains(&IpAddr::from(*address).to_canonical()),
            name => self.permits_domain(&name.to_str()),
        }
    }

    fn permits_domain(&self, name: &str) -> bool {
        self.domains.contains(name) || above(name).any(|domain| self.domains.contains(domain))
    }

    /// Whether all that `other` permits is within this set.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.addresses.is_subset(&self.addresses)
            && other.domains.iter().all(|name| name == NOBODY || self.permits_domain(name))
    }

    /// Every domain and address, for people.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        let addresses = self.addresses.iter().map(ToString::to_string);
        self.domains.iter().filter(|name| *name != NOBODY).cloned().chain(addresses)
    }

    /// As the extension of a CA's certificate. A kind of name of which nothing is permitted is excluded as a whole: without that,
    /// constraints say nothing about it.
    pub(super) fn constraints(&self) -> NameConstraints {
        let domains = self.domains.iter().cloned().map(GeneralSubtree::DnsName);
        let whole = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let one = |address: &IpAddr| {
            GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(*address, whole(address)))
        };
        let mut excluded = Vec::new();
        if self.domains.is_empty() {
            excluded.push(GeneralSubtree::DnsName(String::new()));
        }
        if self.addresses.is_empty() {
            excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
            excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
        }
        NameConstraints {
            permitted_subtrees: domains.chain(self.addresses.iter().map(one)).collect(),
            excluded_subtrees: excluded,
        }
    }

    /// What the certificate of a CA permits; `None` when it is damaged, has no constraints, or others than we write.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let constraints =
            parsed.extensions().iter().find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::NameConstraints(constraints) => Some((extension.critical, constraints)),
                _ => None,
            });
        let (true, constraints) = constraints? else { return None };
        let (mut domains, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for subtree in constraints.permitted_subtrees.iter().flatten() {
            match &subtree.base {
                GeneralName::DNSName(name) => drop(domains.insert((*name).to_owned())),
                GeneralName::IPAddress(network) => drop(addresses.insert(alone(network)?)),
                _ => return None,
            }
        }
        let read = Self { domains, addresses };
        // Only what this code wrote is taken for what it says.
        let excluded = constraints.excluded_subtrees.as_ref().map_or(0, Vec::len);
        let is_ours = excluded == read.constraints().excluded_subtrees.len()
            && !(read.domains.is_empty() && read.addresses.is_empty());
        is_ours.then_some(read)
    }
}

/// The domains that `name` is below, nearest first.
fn above(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').filter_map(|(at, _)| name.get(at + 1..))
}

/// The address of a network of one: address and mask, one after the other.
fn alone(network: &[u8]) -> Option<IpAddr> {
    let (address, mask) = network.split_at_checked(network.len() / 2)?;
    if mask.iter().any(|byte| *byte != 0xff) {
        return None;
    }
    match address.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(address).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(address).ok()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trust::names::server_name;

    fn permits(set: &Permitted, host: &str) -> bool {
        set.permits(&server_name(host).unwrap())
    }

    #[test]
    fn a_name_permits_itself_and_all_below_it_and_nothing_else() {
        let set = Permitted::new(["API.Example.com.", "192.0.2.1", "2001:db8::1", "internal"]);
        for host in ["api.example.com", "v1.api.example.com", "192.0.2.1", "2001:db8::1", "internal"] {
            assert!(permits(&set, host), "{host}");
        }
        for host in ["example.com", "xapi.example.com", "www.example.com", "com", "192.0.2.2", "2001:db8::2"]
        {
            assert!(!permits(&set, host), "{host}");
        }
    }

    #[test]
    fn what_is_below_another_name_is_not_said_twice() {
        let both = Permitted::new(["a.example.com", "example.com", "b.a.example.com"]);
        assert_eq!(both, Permitted::new(["example.com"]));
        assert_eq!(both.names().collect::<Vec<_>>(), ["example.com"]);
    }

    #[test]
    fn a_policy_without_hosts_permits_nobody() {
        let nobody = Permitted::new([]);
        assert!(!permits(&nobody, "example.com") && !permits(&nobody, "192.0.2.1"));
        assert_eq!(nobody.names().count(), 0);
        assert!(Permitted::new(["example.com"]).covers(&nobody));
        assert!(!nobody.covers(&Permitted::new(["example.com"])));
    }

    #[test]
    fn one_set_covers_another_when_it_permits_each_of_its_names() {
        let wide = Permitted::new(["example.com", "192.0.2.1"]);
        assert!(wide.covers(&Permitted::new(["a.example.com"])));
        assert!(wide.covers(&Permitted::new(["example.com", "192.0.2.1"])));
        assert!(!wide.covers(&Permitted::new(["example.org"])));
        assert!(!wide.covers(&Permitted::new(["192.0.2.2"])));
        assert!(!Permitted::new(["a.example.com"]).covers(&wide));
    }

    proptest! {
        #[test]
        fn a_certificate_says_what_the_set_permits(
            hosts in proptest::collection::vec("[a-c]{1,2}(\\.[a-c]{1,2}){0,2}|[12]\\.0\\.0\\.[12]|::[12]", 0..6),
        ) {
            let set = Permitted::new(hosts.iter().map(String::as_str));
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
            params.name_constraints = Some(set.constraints());
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            prop_assert_eq!(Permitted::of(certificate.der()), Some(set));
        }
    }

    proptest! {
        #[test]
        fn parts_permit_together_what_the_whole_does(
            hosts in proptest::collection::vec("[a-c]{1,2}\\.[a-c]|[12]\\.0\\.0\\.[1-9]", 0..12),
            most in 1..5_usize,
        ) {
            let set = Permitted::new(hosts.iter().map(String::as_str));
            let parts = set.parts(most);
            prop_assert!(parts.iter().all(|part| part.len() <= most && set.covers(part)));
            prop_assert_eq!(Permitted::all(&parts), set);
        }
    }

    #[test]
    fn a_certificate_without_our_constraints_is_not_read_as_one_that_permits() {
        let key = rcgen::KeyPair::generate().unwrap();
        let with = |constraints| {
            let mut params = rcgen::CertificateParams::default();
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
            params.name_constraints = constraints;
            Permitted::of(params.self_signed(&key).unwrap().der())
        };
        assert_eq!(with(None), None);
        let domain = || vec![GeneralSubtree::DnsName("example.com".to_owned())];
        // Every address would be permitted.
        assert_eq!(
            with(Some(NameConstraints { permitted_subtrees: domain(), excluded_subtrees: vec![] })),
            None
        );
        let network = vec![GeneralSubtree::IpAddress(CidrSubnet::V4([10, 0, 0, 0], [255, 0, 0, 0]))];
        assert_eq!(
            with(Some(NameConstraints { permitted_subtrees: network, excluded_subtrees: vec![] })),
            None
        );
    }
}
