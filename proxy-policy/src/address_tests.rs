//! Every kind of address, both families, and all ways in which one stands for another.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(entries: &[&str]) -> Addresses {
    let written: Vec<Entry> = entries.iter().map(|entry| Entry::parse(entry).unwrap()).collect();
    Addresses::new((!entries.is_empty()).then_some(written), Vec::new())
}

fn may(entries: &[&str], address: &str) -> bool {
    addresses(entries).check(ip(address)).is_ok()
}

/// First and last address of each kind, and their neighbours.
const KINDS: &[(&str, AddressKind)] = &[
    ("0.0.0.0", Nobody("unspecified")),
    ("0.0.0.1", Reserved("this network")),
    ("0.255.255.255", Reserved("this network")),
    ("1.0.0.0", Public),
    ("9.255.255.255", Public),
    ("10.0.0.0", Private),
    ("10.255.255.255", Private),
    ("11.0.0.0", Public),
    ("100.63.255.255", Public),
    ("100.64.0.0", Cgnat),
    ("100.127.255.255", Cgnat),
    ("100.128.0.0", Public),
    ("126.255.255.255", Public),
    ("127.0.0.0", Loopback),
    ("127.255.255.255", Loopback),
    ("128.0.0.0", Public),
    ("169.253.255.255", Public),
    ("169.254.0.0", LinkLocal),
    ("169.254.255.255", LinkLocal),
    ("169.255.0.0", Public),
    ("172.15.255.255", Public),
    ("172.16.0.0", Private),
    ("172.31.255.255", Private),
    ("172.32.0.0", Public),
    ("192.0.0.0", Reserved("protocol assignments")),
    ("192.0.0.255", Reserved("protocol assignments")),
    ("192.0.1.0", Public),
    ("192.0.2.0", Reserved("documentation")),
    ("192.0.3.0", Public),
    ("192.88.99.1", Reserved("6to4 relays")),
    ("192.167.255.255", Public),
    ("192.168.0.0", Private),
    ("192.168.255.255", Private),
    ("192.169.0.0", Public),
    ("198.17.255.255", Public),
    ("198.18.0.0", Reserved("benchmarks")),
    ("198.19.255.255", Reserved("benchmarks")),
    ("198.20.0.0", Public),
    ("198.51.100.255", Reserved("documentation")),
    ("203.0.113.0", Reserved("documentation")),
    ("223.255.255.255", Public),
    ("224.0.0.0", Nobody("multicast")),
    ("239.255.255.255", Nobody("multicast")),
    ("240.0.0.0", Reserved("future use")),
    ("255.255.255.254", Reserved("future use")),
    ("255.255.255.255", Nobody("broadcast")),
    ("::", Nobody("unspecified")),
    ("::1", Loopback),
    ("::2", Reserved("IPv4-compatible")),
    ("::10.0.0.1", Reserved("IPv4-compatible")),
    ("::ffff:10.0.0.1", Private),
    ("::ffff:127.0.0.1", Loopback),
    ("::ffff:0.0.0.0", Nobody("unspecified")),
    ("::ffff:8.8.8.8", Public),
    ("::ffff:0:8.8.8.8", Reserved("IPv4-translated")),
    ("64:ff9b::8.8.8.8", Public),
    ("64:ff9b:0:1::8.8.8.8", Reserved("not assigned")),
    ("64:ff9b:1::1", Reserved("NAT64 of a network's own")),
    ("100::1", Reserved("discard")),
    ("1fff::1", Reserved("not assigned")),
    ("2000::1", Public),
    ("2001::1", Reserved("protocol assignments")),
    ("2001:1ff::1", Reserved("protocol assignments")),
    ("2001:200::1", Public),
    ("2001:db7::1", Public),
    ("2001:db8::1", Reserved("documentation")),
    ("2001:db9::1", Public),
    ("2606:4700::1111", Public),
    ("3ffe::1", Reserved("former 6bone")),
    ("3fff:fff::1", Reserved("documentation")),
    ("3fff:1000::1", Public),
    ("4000::1", Reserved("not assigned")),
    ("5f00::1", Reserved("not assigned")),
    ("fbff::1", Reserved("not assigned")),
    ("fc00::", Private),
    ("fd12:3456::1", Private),
    ("fe00::1", Reserved("not assigned")),
    ("fe80::1", LinkLocal),
    ("febf::1", LinkLocal),
    ("fec0::1", Reserved("not assigned")),
    ("ff02::1", Nobody("multicast")),
];

#[test]
fn every_address_has_its_kind_up_to_the_borders() {
    for (address, kind) in KINDS {
        assert_eq!(AddressKind::of(ip(address)), *kind, "{address}");
    }
}

#[test]
fn only_public_addresses_are_an_apis_unless_it_says_otherwise() {
    for (address, kind) in KINDS {
        let is = matches!(kind, Public);
        assert_eq!(may(&[], address), is, "{address}");
        for (word, of) in WORDS {
            assert_eq!(may(&[word], address), *kind == of, "{address} with {word}");
        }
    }
    for (_, whose) in METADATA {
        assert!(!whose.is_empty());
    }
}

#[test]
fn a_metadata_server_is_permitted_by_its_own_address_and_by_nothing_wider() {
    let wide =
        ["public", "private", "loopback", "link-local", "cgnat", "0.0.0.0/0", "::/0", "169.254.169.254/31"];
    for (address, _) in METADATA {
        assert!(addresses(&wide).check(address).is_err(), "{address}");
        assert!(addresses(&[]).check(address).is_err(), "{address}");
        assert!(may(&[&address.to_string()], &address.to_string()), "{address}");
    }
    assert!(may(&["169.254.169.254/32"], "169.254.169.254"));
    assert!(!may(&["169.254.169.254"], "169.254.170.2"));
}

#[test]
fn to_unspecified_multicast_and_broadcast_addresses_nothing_leads() {
    for address in ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"] {
        let elsewhere = addresses(&["0.0.0.0/0", "::/0"]).check(ip(address)).unwrap_err();
        assert_eq!(elsewhere.line, None, "{address}");
    }
}

#[test]
fn a_network_permits_its_addresses_and_what_is_written_is_all() {
    for (entries, address, permitted) in [
        (&["10.0.0.0/8"][..], "10.1.2.3", true),
        (&["10.0.0.0/8"], "11.0.0.1", false),
        (&["10.0.0.0/8"], "::ffff:10.1.2.3", true),
        (&["10.0.0.0/8"], "64:ff9b::10.1.2.3", false),
        (&["10.0.0.0/8", "public"], "64:ff9b::10.1.2.3", true),
        (&["64:ff9b::/96"], "64:ff9b::10.1.2.3", true),
        (&["64:ff9b::/96"], "64:ff9b::169.254.169.254", false),
        (&["64:ff9b::a9fe:a9fe"], "64:ff9b::169.254.169.254", true),
        (&["fd00::/8"], "fd12::1", true),
        (&["fd00::/8"], "10.0.0.1", false),
        (&["10.0.0.1"], "10.0.0.1", true),
        (&["10.0.0.1"], "10.0.0.2", false),
        (&["private"], "8.8.8.8", false),
        (&["8.8.8.0/24"], "8.8.8.8", true),
        (&["8.8.8.0/24"], "8.8.9.8", false),
        (&["203.0.113.0/24"], "203.0.113.10", true),
        (&["0.0.0.0/0"], "2606:4700::1111", false),
    ] {
        assert_eq!(may(entries, address), permitted, "{address} with {entries:?}");
    }
}

#[test]
fn who_is_refused_is_told_the_address_its_kind_and_the_line_that_permits_it() {
    for (entries, address, told, line) in [
        (&[][..], "10.0.0.5", "10.0.0.5 is private", Some("addresses = [\"public\", \"10.0.0.5\"]")),
        (
            &["private", "10.0.0.0/8"],
            "127.0.0.1",
            "127.0.0.1 is loopback",
            Some("addresses = [\"private\", \"10.0.0.0/8\", \"127.0.0.1\"]"),
        ),
        (&["private"], "8.8.8.8", "8.8.8.8 is public", Some("addresses = [\"private\", \"8.8.8.8\"]")),
        (
            &[],
            "64:ff9b::169.254.169.254",
            "64:ff9b::a9fe:a9fe leads to 169.254.169.254, which is the metadata server of AWS, Azure, Google Cloud and \
             others, which gives credentials away",
            Some("addresses = [\"public\", \"64:ff9b::a9fe:a9fe\"]"),
        ),
        (&[], "::", ":: is no address of a server (unspecified)", None),
    ] {
        let elsewhere = addresses(entries).check(ip(address)).unwrap_err();
        assert_eq!(elsewhere.to_string(), told);
        assert_eq!(elsewhere.line.as_deref(), line, "{address}");
        // The line does what it says.
        if let Some(line) = line {
            let inside = line.trim_start_matches("addresses = [").trim_end_matches(']');
            let entries: Vec<&str> = inside.split(", ").map(|entry| entry.trim_matches('"')).collect();
            assert!(may(&entries, address), "{line}");
        }
    }
}

#[test]
fn what_is_no_address_is_refused_and_the_help_fits() {
    for (text, help) in [
        ("privat", "did you mean \"private\""),
        ("Loopback", "did you mean \"loopback\""),
        ("metadata", "write an address, a network"),
        ("10.0.0.0/33", "0 to 32"),
        ("10.0.0.0/+8", "0 to 32"),
        ("10.0.0.1/8", "did you mean 10.0.0.0/8"),
        ("fd00::1/8", "did you mean fd00::/8"),
        ("[fd00::1]", "write it without brackets: fd00::1"),
        ("::ffff:10.0.0.1", "write it as IPv4: 10.0.0.1"),
        ("db.internal", "write an address, a network"),
        ("10.0.0.1:443", "write an address, a network"),
        ("", "write an address, a network"),
        ("*", "write an address, a network"),
    ] {
        let problem = Entry::parse(text).unwrap_err();
        assert!(problem.help.contains(help), "{text}: {}", problem.help);
    }
}

/// All spellings in IPv6 that lead to an IPv4 address.
fn spellings(v4: Ipv4Addr, more: u64) -> Vec<Ipv6Addr> {
    let low = u128::from(u32::from(v4));
    let prefix = |bits: u128| Ipv6Addr::from(bits | low);
    // A prefix of the internet, with anything behind it.
    let global = (0x2606_u128 << 112) | (u128::from(more & 0xffff_ffff_ffff) << 64);
    vec![
        v4.to_ipv6_mapped(),
        prefix(0x64_ff9b << 96),
        prefix((0x64_ff9b_0001_u128 << 80) | (u128::from(more & 0xffff_ffff) << 32)),
        Ipv6Addr::from((0x2002_u128 << 112) | (low << 80) | u128::from(more)),
        prefix(global | (0x5efe_u128 << 32)),
        prefix(global | (0x0200_5efe_u128 << 32)),
        prefix(0xffff_u128 << 48),
        prefix(0),
        // Teredo, the client's address turned round.
        Ipv6Addr::from((0x2001_u128 << 112) | u128::from(!u32::from(v4))),
    ]
}

fn inner() -> impl Strategy<Value = Ipv4Addr> {
    let table: Vec<Ipv4Addr> = KINDS.iter().filter_map(|(address, _)| address.parse().ok()).collect();
    let metadata: Vec<Ipv4Addr> =
        METADATA.iter().filter_map(|(address, _)| address.to_string().parse().ok()).collect();
    prop_oneof![
        any::<u32>().prop_map(Ipv4Addr::from),
        proptest::sample::select(table),
        proptest::sample::select(metadata),
        any::<u32>().prop_map(|it| Ipv4Addr::from(0x0a00_0000 | (it >> 8))),
    ]
}

proptest! {
    #[test]
    fn no_spelling_in_ipv6_permits_what_the_ipv4_address_is_refused(v4 in inner(), more: u64) {
        for entries in [&[][..], &["public", "private"], &["public", "link-local", "cgnat", "0.0.0.0/0"]] {
            let addresses = addresses(entries);
            let itself = addresses.check(IpAddr::V4(v4)).is_ok();
            for spelled in spellings(v4, more) {
                let permitted = addresses.check(IpAddr::V6(spelled)).is_ok();
                prop_assert!(itself || !permitted, "{spelled} for {v4} with {entries:?}");
            }
        }
    }

    #[test]
    fn what_is_permitted_of_ipv6_unasked_is_of_the_internet(address: u128) {
        let v6 = Ipv6Addr::from(address);
        let permitted = Addresses::default().check(IpAddr::V6(v6)).is_ok();
        let of_the_internet = address >> 125 == 1 || address >> 96 == 0x64_ff9b || address >> 32 == 0xffff;
        prop_assert!(!permitted || of_the_internet, "{v6}");
    }

    #[test]
    fn what_is_written_reads_as_it_was(address: u128, bits in 0_u8..=128) {
        let network = masked(IpAddr::V6(address.into()), bits).unwrap();
        if let Ok(entry) = Entry::parse(&format!("{network}/{bits}")) {
            prop_assert_eq!(Entry::parse(&entry.to_string()).unwrap(), entry);
        }
    }
}
