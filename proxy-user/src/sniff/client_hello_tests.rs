//! ClientHellos of real clients, whole, cut, split and damaged.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::*;

/// `openssl s_client -servername Api.Example.com -alpn h2,http/1.1` of OpenSSL 3.0.
const OPENSSL_TLS13: &str = "\
160301014e0100014a030394db7790971d95ffe775ccefa26ba2437c0956a9e0b55320949c6057c97ec2f420ecece7385086\
cb34b08681ed154effe204f537adcb0ee687d4a8acc8905d5dff003e130213031301c02cc030009fcca9cca8ccaac02bc02f\
009ec024c028006bc023c0270067c00ac0140039c009c0130033009d009c003d003c0035002f00ff010000c3000000140012\
00000f4170692e4578616d706c652e636f6d000b000403000102000a00160014001d0017001e001900180100010101020103\
0104002300000010000e000c02683208687474702f312e310016000000170000000d002a0028040305030603080708080809\
080a080b080408050806040105010601030303010302040205020602002b0009080304030303020301002d00020101003300\
260024001d002017bf9f2a7df5aecbec13b8df7249edfd1fcc0e206560f067d3a27a03bbd11614";

/// `openssl s_client -tls1_2 -noservername` of OpenSSL 3.0.
const OPENSSL_TLS12: &str = "\
16030100b7010000b30303b749689d8e9c47b525fba5d28e815ade1b563036f8115f55fa895c57a6ce1686000038c02cc030\
009fcca9cca8ccaac02bc02f009ec024c028006bc023c0270067c00ac0140039c009c0130033009d009c003d003c0035002f\
00ff01000052000b000403000102000a000c000a001d0017001e00190018002300000016000000170000000d002a00280403\
05030603080708080809080a080b080408050806040105010601030303010302040205020602";

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap() as u8;
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// The first flight of a rustls client that wants `host` and offers `alpn`.
pub(in crate::sniff) fn rustls_hello(host: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), host.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

fn done(bytes: &[u8]) -> ClientHello {
    match parse(bytes) {
        Progress::Done(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn samples() -> Vec<Vec<u8>> {
    vec![
        unhex(OPENSSL_TLS13),
        unhex(OPENSSL_TLS12),
        rustls_hello("api.example.com", &[b"h2", b"http/1.1"]),
        rustls_hello("127.0.0.1", &[]),
        built(&[sni(b"api.example.com")]),
    ]
}

/// Puts `message` into records of the given payload sizes, the last of which takes what is left.
fn records(message: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), message);
    for size in sizes.iter().copied().chain([usize::MAX]) {
        let (payload, left) = rest.split_at(size.min(rest.len()));
        if !payload.is_empty() {
            bytes.extend_from_slice(&[22, 3, 1]);
            bytes.extend_from_slice(&(payload.len() as u16).to_be_bytes());
            bytes.extend_from_slice(payload);
        }
        rest = left;
    }
    bytes
}

fn vector16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes()[..], content].concat()
}

/// A ClientHello in one record with the given extensions.
fn built(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let list: Vec<u8> = extensions
        .iter()
        .flat_map(|(kind, data)| [&kind.to_be_bytes()[..], &vector16(data)].concat())
        .collect();
    built_with(&vector16(&list))
}

/// A ClientHello in one record that ends with `tail` after the compression methods.
fn built_with(tail: &[u8]) -> Vec<u8> {
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 1], &[1, 0], tail].concat();
    let length = (body.len() as u32).to_be_bytes();
    records(&[&[1], &length[1..], &body].concat(), &[])
}

fn sni(name: &[u8]) -> (u16, Vec<u8>) {
    (0, vector16(&[&[0], &vector16(name)[..]].concat()))
}

fn assert_malformed(bytes: &[u8]) {
    let answer = parse(bytes);
    assert!(matches!(answer, Progress::NotThis(Why::Malformed(_))), "{answer:?}");
}

#[test]
fn what_openssl_asks_for_is_read() {
    let hello = done(&unhex(OPENSSL_TLS13));
    assert_eq!(hello.server_name.as_deref(), Some("api.example.com"));
    assert_eq!(hello.alpn, [&b"h2"[..], b"http/1.1"]);
    assert!(hello.offers(b"h2") && !hello.offers(b"h3"));
    assert_eq!((hello.max_version, hello.ech), (0x0304, false));

    let hello = done(&unhex(OPENSSL_TLS12));
    assert_eq!(
        hello,
        ClientHello { server_name: None, alpn: vec![], max_version: 0x0303, ech: false, ecdsa: true }
    );
}

#[test]
fn what_rustls_asks_for_is_read() {
    let hello = done(&rustls_hello("api.example.com", &[b"http/1.1"]));
    assert_eq!(hello.server_name.as_deref(), Some("api.example.com"));
    assert_eq!(hello.alpn, [b"http/1.1"]);
    assert_eq!(done(&rustls_hello("192.0.2.1", &[])).server_name, None);
}

#[test]
fn every_proper_prefix_needs_more_and_more_bytes_change_nothing() {
    for bytes in samples() {
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Progress::More, "{length} of {}", bytes.len());
        }
        let whole = done(&bytes);
        assert_eq!(done(&[&bytes[..], &[20, 3, 3, 0, 1, 1]].concat()), whole);
    }
}

#[test]
fn a_hello_split_over_records_anywhere_is_the_same_hello() {
    for bytes in samples() {
        let (message, whole) = (&bytes[5..], done(&bytes));
        for first in 1..message.len() {
            let split = records(message, &[first]);
            assert_eq!(done(&split), whole, "split at {first}");
            assert_eq!(parse(&split[..split.len() - 1]), Progress::More, "split at {first}");
        }
        // With a share that outlasts quantum computers, a record for each byte would be too many.
        assert_eq!(
            done(&records(message, &vec![2; message.len() / 2])),
            whole,
            "a record for each two bytes"
        );
    }
}

#[test]
fn a_hello_in_too_many_records_is_refused() {
    let hello = built(&[(0xabcd, vec![0; 2000])]);
    assert_malformed(&records(&hello[5..], &vec![1; hello.len()]));
}

#[test]
fn records_against_the_rules_are_refused() {
    let hello = built(&[]);
    let split = records(&hello[5..], &[10]);
    let mut interrupted = split.clone();
    interrupted[15] = 21;
    assert_malformed(&interrupted);
    assert_malformed(&[22, 3, 1, 0, 0]);
    assert_malformed(&[22, 3, 1, 0x40, 1]);
    assert_malformed(&[22, 3, 1, 0, 4, 2, 0, 0, 0]);
}

#[test]
fn what_is_not_tls_is_left_to_other_parsers() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[22, 2], &[23, 3, 3], &[0x80, 0x2e, 1, 3, 1], b"\0"] {
        assert_eq!(parse(bytes), Progress::NotThis(Why::OtherProtocol), "{bytes:?}");
    }
}

#[test]
fn a_hello_of_more_than_64_kib_is_refused_by_its_header() {
    assert_eq!(
        parse(&[22, 3, 1, 0x40, 0, 1, 1, 0, 1]),
        Progress::NotThis(Why::TooLarge { limit: MAX_BYTES })
    );
    // The message itself would fit, but not with the headers of its records.
    let message = [&[1, 0, 0xff, 0xff][..], &[0; 0xffff]].concat();
    let bytes = records(&message, &[8192; 9]);
    assert_eq!(parse(&bytes[..MAX_BYTES - 1]), Progress::More);
    assert_eq!(parse(&bytes[..MAX_BYTES]), Progress::NotThis(Why::TooLarge { limit: MAX_BYTES }));
    assert_eq!(parse(&bytes), Progress::NotThis(Why::TooLarge { limit: MAX_BYTES }));
}

#[test]
fn a_hello_without_extensions_asks_for_nothing() {
    let nothing =
        ClientHello { server_name: None, alpn: vec![], max_version: 0x0303, ech: false, ecdsa: false };
    assert_eq!(done(&built_with(&[])), nothing);
    assert_eq!(done(&built(&[])), nothing);
}

#[test]
fn encrypted_client_hello_and_greased_versions_are_seen() {
    let hello = done(&built(&[(0xfe0d, vec![0, 1, 2]), (43, vec![6, 0x7a, 0x7a, 3, 3, 3, 4])]));
    assert_eq!((hello.ech, hello.max_version), (true, 0x0304));
}

#[test]
fn an_extension_that_comes_twice_is_refused() {
    assert_malformed(&built(&[sni(b"a.example"), (23, vec![]), sni(b"b.example")]));
}

#[test]
fn damaged_extensions_are_refused() {
    let damaged = [
        (0, vec![]),
        (0, vector16(&[])),
        (0, vector16(&[1, 0, 1, b'a'])),
        (0, vector16(&[0, 0, 9, b'a'])),
        (0, [vector16(&[0, 0, 1, b'a']), vec![0]].concat()),
        (0, vector16(&[0, 0, 1, b'a', 0, 0, 1, b'b'])),
        (16, vector16(&[])),
        (16, vector16(&[0])),
        (16, vector16(&[3, b'h', b'2'])),
        (16, [vector16(&[2, b'h', b'2']), vec![0]].concat()),
        (43, vec![]),
        (43, vec![2, 0x7a, 0x7a]),
        (43, vec![3, 3, 4, 3]),
        (43, vec![2, 3, 4, 0]),
    ];
    for extension in damaged {
        assert_malformed(&built(&[extension]));
    }
    assert_malformed(&built_with(&[0, 9, 0, 0]));
    assert_malformed(&built_with(&[0, 0, 0]));
    assert_malformed(&built_with(&[0]));
}

#[test]
fn only_dns_host_names_are_server_names() {
    let good: [(&[u8], &str); 6] = [
        (b"API.Example.com", "api.example.com"),
        (b"api.example.com.", "api.example.com"),
        (b"localhost", "localhost"),
        (b"_dmarc.x-1.example", "_dmarc.x-1.example"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"1.2.3.4.example", "1.2.3.4.example"),
    ];
    for (sent, expected) in good {
        assert_eq!(done(&built(&[sni(sent)])).server_name.as_deref(), Some(expected));
    }
    let (label, name) = ([b'a'; 64], [&b"a"[..]; 128].join(&b'.'));
    let bad: [&[u8]; 17] = [
        b"",
        b".",
        b"..",
        b"a..b",
        b".a",
        b"a.b..",
        b"-a.example",
        b"a-.example",
        b"a b.example",
        b"a\0.example",
        b"192.0.2.1",
        b"0x7f.0x1",
        b"2001:db8::1",
        b"[::1]",
        "bücher.example".as_bytes(),
        &label,
        &name,
    ];
    for sent in bad {
        assert_eq!(parse(&built(&[sni(sent)])), Progress::NotThis(Why::BadServerName), "{sent:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic_and_an_answer_never_changes(
        bytes in proptest::collection::vec(any::<u8>(), 0..256),
        start in prop_oneof![Just(vec![]), Just(vec![22, 3, 1]), Just(vec![22, 3, 1, 0, 90, 1, 0, 0, 80])],
    ) {
        let bytes = [start, bytes].concat();
        let mut decided = None;
        for length in 0..=bytes.len() {
            let answer = parse(&bytes[..length]);
            if let Some(decided) = &decided {
                prop_assert_eq!(decided, &answer);
            } else if answer != Progress::More {
                decided = Some(answer);
            }
        }
    }

    #[test]
    fn a_real_hello_with_changed_bytes_never_panics(changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8)) {
        for mut bytes in [unhex(OPENSSL_TLS13), unhex(OPENSSL_TLS12)] {
            for (at, value) in &changes {
                let at = at % bytes.len();
                bytes[at] = *value;
            }
            if let Progress::Done(ClientHello { server_name: Some(name), .. }) = parse(&bytes) {
                prop_assert_eq!(host_name(name.as_bytes()), Some(name));
            }
        }
    }
}
