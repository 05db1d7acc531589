//! What kinds of addresses there are, and at which of them an API may be: `addresses = ["public", "10.0.0.0/8"]`.
//!
//! | kind | addresses |
//! | --- | --- |
//! | `public` | what is none of the others |
//! | `private` | 10/8, 172.16/12, 192.168/16 (RFC 1918), fc00::/7 (RFC 4193) |
//! | `loopback` | 127/8 (RFC 1122), ::1 (RFC 4291) |
//! | `link-local` | 169.254/16 (RFC 3927), fe80::/10 (RFC 4291) |
//! | `cgnat` | 100.64/10 (RFC 6598) |
//! | reserved | documentation, benchmarks, and what nobody has: the registries of RFC 6890, as IANA keeps them; of IPv6 everything outside of 2000::/3 |
//! | metadata | where clouds give credentials to whoever asks |
//! | none | unspecified (to Linux it is loopback), multicast, broadcast: no server is there |
//!
//! An IPv6 address that stands for an IPv4 address is judged as both: v4-mapped (it is the IPv4 address), NAT64 (RFC 6052), 6to4
//! (RFC 3056), ISATAP (RFC 5214).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::diagnostic::{Problem, quote};
use crate::network::masked;
use crate::suggest;

/// What kind of address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// Of the internet.
    Public,
    /// Of a private network.
    Private,
    /// This host.
    Loopback,
    /// This link.
    LinkLocal,
    /// Shared between a carrier and its customers; also of overlay networks.
    Cgnat,
    /// Nobody has it on the internet; which it is.
    Reserved(&'static str),
    /// A server that gives credentials; whose.
    Metadata(&'static str),
    /// No server can have it; why.
    Nobody(&'static str),
}

use AddressKind::{Cgnat, LinkLocal, Loopback, Metadata, Nobody, Private, Public, Reserved};

/// The words that `addresses` knows.
const WORDS: [(&str, AddressKind); 5] = [
    ("public", Public),
    ("private", Private),
    ("loopback", Loopback),
    ("link-local", LinkLocal),
    ("cgnat", Cgnat),
];

/// Servers that give credentials, or what leads to them, to whoever reaches them.
const METADATA: [(IpAddr, &str); 14] = [
    (v4(169, 254, 169, 254), "AWS, Azure, Google Cloud and others"),
    (v4(169, 254, 170, 2), "AWS ECS"),
    (v4(169, 254, 170, 23), "AWS EKS"),
    (v4(169, 254, 0, 23), "Tencent Cloud"),
    (v4(169, 254, 42, 42), "Scaleway"),
    (v4(168, 63, 129, 16), "Azure"),
    (v4(100, 100, 100, 200), "Alibaba Cloud"),
    (v4(192, 0, 0, 192), "Oracle Cloud"),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]), "AWS"),
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23]), "AWS EKS"),
    (v6([0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]), "Google Cloud"),
    (v6([0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]), "Oracle Cloud"),
    (v6([0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]), "Scaleway"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe]), "OpenStack"),
];

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(segments: [u16; 8]) -> IpAddr {
    let [a, b, c, d, e, f, g, h] = segments;
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

impl AddressKind {
    /// The kind of an address by itself; see [`stands_for`] for what it may lead to.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        if let Some((_, whose)) = METADATA.iter().find(|(metadata, _)| *metadata == address) {
            return Metadata(whose);
        }
        match address {
            IpAddr::V4(v4) => of_v4(v4),
            IpAddr::V6(v6) => of_v6(v6),
        }
    }

    /// The word for it in a policy.
    fn word(self) -> Option<&'static str> {
        WORDS.iter().find(|(_, kind)| *kind == self).map(|(word, _)| *word)
    }
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Public => f.write_str("public"),
            Private => f.write_str("private"),
            Loopback => f.write_str("loopback"),
            LinkLocal => f.write_str("link-local"),
            Cgnat => f.write_str("shared address space (cgnat)"),
            Reserved(which) => write!(f, "reserved ({which})"),
            Metadata(whose) => write!(f, "the metadata server of {whose}, which gives credentials away"),
            Nobody(why) => write!(f, "no address of a server ({why})"),
        }
    }
}

fn of_v4(address: Ipv4Addr) -> AddressKind {
    match address.octets() {
        [0, 0, 0, 0] => Nobody("unspecified"),
        [255, 255, 255, 255] => Nobody("broadcast"),
        [224..=239, ..] => Nobody("multicast"),
        [127, ..] => Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Private,
        [169, 254, ..] => LinkLocal,
        [100, 64..=127, ..] => Cgnat,
        [0, ..] => Reserved("this network"),
        [192, 0, 0, _] => Reserved("protocol assignments"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Reserved("documentation"),
        [192, 88, 99, _] => Reserved("6to4 relays"),
        [198, 18..=19, ..] => Reserved("benchmarks"),
        [240..=255, ..] => Reserved("future use"),
        _ => Public,
    }
}

fn of_v6(address: Ipv6Addr) -> AddressKind {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Nobody("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Loopback,
        [0xff00..=0xffff, ..] => Nobody("multicast"),
        [0xfc00..=0xfdff, ..] => Private,
        [0xfe80..=0xfebf, ..] => LinkLocal,
        // Well-known NAT64: what it stands for decides.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Public,
        [0x64, 0xff9b, 1, ..] => Reserved("NAT64 of a network's own"),
        [0, 0, 0, 0, 0, 0, ..] => Reserved("IPv4-compatible"),
        [0, 0, 0, 0, 0xffff, 0, ..] => Reserved("IPv4-translated"),
        [0x100, 0, 0, 0 | 1, ..] => Reserved("discard"),
        // Teredo, ORCHID, benchmarks and others; no server of the internet.
        [0x2001, 0..=0x1ff, ..] => Reserved("protocol assignments"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reserved("documentation"),
        [0x3ffe, ..] => Reserved("former 6bone"),
        [0x2000..=0x3fff, ..] => Public,
        _ => Reserved("not assigned"),
    }
}

/// The IPv4 address to which packets for this IPv6 address can be led.
#[must_use]
pub fn stands_for(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Some(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] => of(high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => of(high, low),
        [0x2002, high, low, ..] => of(high, low),
        [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => of(high, low),
        _ => None,
    }
}

/// One entry of `addresses`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Entry {
    /// By its position among the words.
    Word(u8),
    /// A network; a single address has all bits.
    Network { address: IpAddr, bits: u8 },
}

impl Entry {
    /// An address alone.
    pub(crate) fn of(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self::Network { address, bits: if address.is_ipv4() { 32 } else { 128 } }
    }

    pub(crate) const LOOPBACK: Self = Self::Word(2);

    /// Reads a word, an address, or a network in CIDR notation.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        if let Some((at, _)) = (0..).zip(WORDS).find(|(_, (word, _))| *word == text) {
            return Ok(Self::Word(at));
        }
        network(text)
    }

    fn is(self, kind: AddressKind) -> bool {
        matches!(self, Self::Word(at) if WORDS.get(usize::from(at)).is_some_and(|(_, word)| *word == kind))
    }

    fn covers(self, ip: IpAddr) -> bool {
        matches!(self, Self::Network { address, bits } if masked(ip, bits) == Some(address) && ip.is_ipv4() == address.is_ipv4())
    }

    fn is_exactly(self, ip: IpAddr) -> bool {
        self == Self::of(ip)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Word(at) => f.write_str(WORDS.get(usize::from(at)).map_or("", |(word, _)| word)),
            Self::Network { address, .. } if *self == Self::of(address) => address.fmt(f),
            Self::Network { address, bits } => write!(f, "{address}/{bits}"),
        }
    }
}

fn network(text: &str) -> Result<Entry, Problem> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        let inside = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let help = match inside.and_then(|inside| inside.parse::<Ipv6Addr>().ok()) {
            Some(v6) => format!("write it without brackets: {v6}"),
            None => match suggest::nearest(&text.to_ascii_lowercase(), WORDS.map(|(word, _)| word)) {
                Some(meant) => format!("did you mean \"{meant}\"?"),
                None => "write an address, a network such as 10.0.0.0/8, or public, private, loopback, link-local or cgnat".to_owned(),
            },
        };
        return Err(Problem::new(format!("{} does not say at which addresses an API is", quote(text)), help));
    };
    let most: u8 = if address.is_ipv4() { 32 } else { 128 };
    let plain = |bits: &&str| !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let bits = match bits {
        None => most,
        Some(bits) => {
            let read = Some(bits).filter(plain).and_then(|bits| bits.parse().ok());
            read.filter(|bits| *bits <= most).ok_or_else(|| {
                let help = format!("write a number from 0 to {most} behind the /");
                Problem::new(format!("{} has no valid prefix length", quote(text)), help)
            })?
        }
    };
    if address.to_canonical() != address {
        let help = format!("write it as IPv4: {}", address.to_canonical());
        return Err(Problem::new(format!("{} is an IPv4 address in disguise", quote(text)), help));
    }
    match masked(address, bits) {
        Some(network) if network == address => Ok(Entry::Network { address, bits }),
        network => {
            let network = network.unwrap_or(address);
            let help = format!("did you mean {network}/{bits}, or the address alone?");
            Err(Problem::new(format!("{} has bits set behind its prefix", quote(text)), help))
        }
    }
}

/// At which addresses an API may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Addresses {
    /// What the policy says; without it, public ones.
    written: Option<Vec<Entry>>,
    /// What its hosts say: those that are addresses, and `localhost`.
    hosts: Vec<Entry>,
}

/// Why an address is none of an API's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The address.
    pub address: IpAddr,
    /// What it is.
    pub kind: AddressKind,
    /// The address that it leads to, where that is another one.
    pub leads_to: Option<Ipv4Addr>,
    /// The line by which a policy permits it, if one can: `addresses = ["public", "10.0.0.5"]`.
    pub line: Option<String>,
}

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if let Some(other) = self.leads_to {
            write!(f, " leads to {other}, which")?;
        }
        write!(f, " is {}", self.kind)
    }
}

impl Default for Addresses {
    fn default() -> Self {
        Self::new(None, Vec::new())
    }
}

impl Addresses {
    pub(crate) fn new(written: Option<Vec<Entry>>, hosts: Vec<Entry>) -> Self {
        Self { written, hosts }
    }

    /// What the policy says of it, as it is written; nothing where it says nothing.
    pub fn written(&self) -> impl Iterator<Item = String> + use<'_> {
        self.written.iter().flatten().map(ToString::to_string)
    }

    fn entries(&self) -> impl Iterator<Item = Entry> + use<'_> {
        const PUBLIC: Entry = Entry::Word(0);
        let unless_written = self.written.is_none().then_some(PUBLIC);
        self.written.iter().flatten().copied().chain(unless_written).chain(self.hosts.iter().copied())
    }

    /// Whether an API may be at an address, and at what it leads to.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, address: IpAddr) -> Result<(), Elsewhere> {
        let address = address.to_canonical();
        let inner = match address {
            IpAddr::V6(v6) => stands_for(v6),
            IpAddr::V4(_) => None,
        };
        for (face, leads_to) in [(Some(address), None), (inner.map(IpAddr::V4), inner)] {
            let Some(face) = face else { continue };
            let kind = AddressKind::of(face);
            let is = match kind {
                Nobody(_) => false,
                // Never as a part of something larger: who wrote that did not think of it.
                Metadata(_) => {
                    self.entries().any(|entry| entry.is_exactly(face) || entry.is_exactly(address))
                }
                _ => self.entries().any(|it| it.is(kind) || it.covers(face) || it.covers(address)),
            };
            if !is {
                let line = (!matches!(kind, Nobody(_))).then(|| self.line(address));
                return Err(Elsewhere { address, kind, leads_to, line });
            }
        }
        Ok(())
    }

    /// The line that permits it besides what is permitted already.
    fn line(&self, address: IpAddr) -> String {
        let mut entries: Vec<String> = match &self.written {
            Some(written) => written.iter().map(|entry| format!("\"{entry}\"")).collect(),
            None => vec!["\"public\"".to_owned()],
        };
        entries.push(format!("\"{address}\""));
        format!("addresses = [{}]", entries.join(", "))
    }
}

impl Elsewhere {
    /// The word by which a policy permits all of its kind.
    #[must_use]
    pub fn word(&self) -> Option<&'static str> {
        self.kind.word()
    }
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
