//! TLS on both legs: what a scanner and other stacks find, groups that outlast quantum computers, resumption, early data, and
//! hellos without a name, without protocols, or with another name inside.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Arc;

use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, EchConfig, EchMode, Resumption};
use rustls::client::{Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::aws_lc_rs::{default_provider, hpke, kx_group};
use rustls::crypto::hpke::Hpke;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ServerConnection, StreamOwned,
    SupportedProtocolVersion, version,
};
use rustls_pki_types::{EchConfigListBytes, ServerName};
use tests::upstream::{Proof, Upstream, server_config_of};
use tests::wire::{Dialer, Reply, Tls};
use tests::{ADDRESS, RAW_ADDRESS, World, frames, wait_until};

use super::python_packages;

/// A connection of this configuration, after the handshake.
fn connect(dialer: &Dialer, config: &ClientConfig, address: &str, name: &str) -> std::io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let client = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
    let mut stream = StreamOwned::new(client, dialer.dial(&format!("{address}:443")));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// Sends a request and reads to the end: what comes behind the handshake comes, too.
fn ask(stream: &mut Tls, host: &str, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes()).and_then(|()| stream.flush());
    let reply = Reply::read(&mut *stream);
    let _ = stream.read_to_end(&mut Vec::new());
    reply.status
}

/// The dialer's configuration with these groups and versions.
fn with(
    dialer: &Dialer,
    groups: Vec<&'static dyn SupportedKxGroup>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let provider = CryptoProvider { kx_groups: groups, ..default_provider() };
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(dialer.roots())
        .with_no_client_auth()
}

#[test]
fn a_scanner_finds_strong_suites_only_and_nothing_that_was_ever_broken() {
    let world = World::start();
    let scan =
        world.bot("/usr/bin/sslscan").args(["--no-colour", "--no-check-certificate", "api.test"]).run();
    let lines: Vec<&str> = scan.stdout.lines().map(str::trim).collect();
    let protocols: Vec<_> = lines
        .iter()
        .filter(|line| (line.starts_with("SSLv") || line.starts_with("TLSv")) && line.ends_with("abled"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let expected = ["SSLv2 disabled", "SSLv3 disabled", "TLSv1.0 disabled", "TLSv1.1 disabled"];
    let expected = [&expected[..], &["TLSv1.2 enabled", "TLSv1.3 enabled"]].concat();
    assert_eq!(protocols, expected, "{}", scan.stdout);
    let mut suites: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("Preferred ") || line.starts_with("Accepted "))
        .map(|line| line.split_whitespace().nth(4).unwrap())
        .collect();
    suites.sort_unstable();
    let strong = [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        // For clients that verify RSA alone.
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_AES_128_GCM_SHA256",
        "TLS_AES_256_GCM_SHA384",
        "TLS_CHACHA20_POLY1305_SHA256",
    ];
    assert_eq!(suites, strong, "{}", scan.stdout);
    assert!(lines.contains(&"Session renegotiation not supported"), "{}", scan.stdout);
    assert_eq!(lines.iter().filter(|line| line.contains("not vulnerable to heartbleed")).count(), 2);
    // No library of today offers compression: a hello that offers nothing else is not answered.
    let dialer = Dialer::new(&world);
    let mut hello = dialer.hello("raw.test");
    let session = 5 + 4 + 2 + 32;
    let suites = session + 1 + usize::from(hello[session]);
    let length = usize::from(u16::from_be_bytes([hello[suites], hello[suites + 1]]));
    let compression = suites + 2 + length;
    assert_eq!(hello[compression..compression + 2], [1, 0]);
    hello[compression + 1] = 1;
    let mut stream = dialer.dial(&format!("{RAW_ADDRESS}:443"));
    stream.write_all(&hello).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let alert = 21;
    assert_eq!(answer.first(), Some(&alert), "{answer:?}");
}

/// What is in a ClientHello: its suites, its compressions, and its extensions.
struct Hello {
    suites: Vec<u16>,
    compressions: Vec<u8>,
    extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    fn read(mut stream: impl std::io::Read) -> Self {
        let mut head = [0; 5];
        stream.read_exact(&mut head).unwrap();
        let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        stream.read_exact(&mut record).unwrap();
        let mut rest = &record[4 + 2 + 32..];
        let mut take = |wide: usize| {
            let length = rest[..wide].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            let taken = rest[wide..wide + length].to_vec();
            rest = &rest[wide + length..];
            taken
        };
        let _session = take(1);
        let (suites, compressions, all) = (take(2), take(1), take(2));
        let mut extensions = Vec::new();
        let mut all = &all[..];
        while let [a, b, c, d, rest @ ..] = all {
            let (data, rest) = rest.split_at(usize::from(u16::from_be_bytes([*c, *d])));
            extensions.push((u16::from_be_bytes([*a, *b]), data.to_vec()));
            all = rest;
        }
        Self { suites: numbers(&suites), compressions, extensions }
    }

    fn extension(&self, kind: u16) -> Option<&[u8]> {
        self.extensions.iter().find(|(known, _)| *known == kind).map(|(_, data)| &data[..])
    }
}

fn numbers(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect()
}

#[test]
fn upstreams_are_offered_strong_suites_only_a_share_that_outlasts_quantum_computers_and_no_early_data() {
    let world = World::start();
    let listener = frames::listen(&world);
    let mut curl = world.bot("curl").args(["-sS", "https://raw.test/v1/x"]).spawn();
    let (stream, _) = listener.accept().unwrap();
    let hello = Hello::read(&stream);
    drop((stream, listener));
    curl.wait();
    let renegotiation_info = 0x00ff;
    let mut suites = hello.suites.clone();
    suites.retain(|suite| *suite != renegotiation_info);
    suites.sort_unstable();
    // AEADs after an ephemeral exchange (RFC 8446 §B.4, RFC 5289, RFC 7905).
    let strong = [0x1301, 0x1302, 0x1303, 0xc02b, 0xc02c, 0xc02f, 0xc030, 0xcca8, 0xcca9];
    assert_eq!(suites, strong, "{suites:04x?}");
    assert_eq!(hello.compressions, [0]);
    let [versions, groups, shares, early_data, renegotiation, master] = [43, 10, 51, 42, 0xff01, 23];
    assert_eq!(numbers(&hello.extension(versions).unwrap()[1..]), [0x0304, 0x0303]);
    let [hybrid, x25519, p256, p384] = [0x11ec, 29, 23, 24];
    assert_eq!(numbers(&hello.extension(groups).unwrap()[2..]), [hybrid, x25519, p256, p384]);
    assert_eq!(numbers(&hello.extension(shares).unwrap()[2..4]), [hybrid]);
    assert_eq!(hello.extension(early_data), None);
    assert!(hello.suites.contains(&renegotiation_info) || hello.extension(renegotiation).is_some());
    assert!(hello.extension(master).is_some(), "the extended master secret of TLS 1.2 (RFC 7627)");
}

#[test]
fn a_group_that_outlasts_quantum_computers_is_chosen_on_both_legs_and_others_do_where_it_is_not_known() {
    let world = World::start();
    let dialer = Dialer::new(&world);
    let [hybrid, x25519, p256] = [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];
    let all = &[&version::TLS13, &version::TLS12][..];
    for (groups, versions, chosen) in [
        (vec![hybrid, x25519], all, NamedGroup::X25519MLKEM768),
        // Known, without a share for it.
        (vec![x25519, hybrid], all, NamedGroup::X25519),
        (vec![p256], all, NamedGroup::secp256r1),
        (vec![x25519], &[&version::TLS12], NamedGroup::X25519),
    ] {
        let listener = frames::listen(&world);
        let bot = with(&dialer, groups.clone(), versions);
        let mut stream = connect(&dialer, &bot, RAW_ADDRESS, "raw.test").unwrap();
        assert_eq!(stream.conn.negotiated_key_exchange_group().unwrap().name(), chosen);
        // The upstream knows the same as the bot.
        let provider = CryptoProvider { kx_groups: groups, ..default_provider() };
        let tls = server_config_of(Proof::Good, provider, versions);
        let upstream = std::thread::spawn(move || {
            let (tcp, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(tls)).unwrap(), tcp);
            let mut came = [0; 3];
            stream.read_exact(&mut came).unwrap();
            let group = stream.conn.negotiated_key_exchange_group().unwrap().name();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.flush();
            let _ = stream.read_to_end(&mut Vec::new());
            group
        });
        assert_eq!(ask(&mut stream, "raw.test", "/v1/x"), 200);
        drop(stream);
        // We offer it first, so whoever knows it takes it.
        let expected = match chosen {
            NamedGroup::X25519 if versions.len() > 1 => NamedGroup::X25519MLKEM768,
            other => other,
        };
        assert_eq!(upstream.join().unwrap(), expected);
    }
}

/// A bot that offers what any server gave it to every server.
#[derive(Debug)]
struct OneForAll(ClientSessionMemoryCache);

fn any() -> ServerName<'static> {
    ServerName::try_from("any.test").unwrap()
}

impl ClientSessionStore for OneForAll {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(any(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&any())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(any(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&any())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&any());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(any(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&any())
    }
}

/// Adds APIs to those that are there: this one, and one of addresses.
fn with_addresses(world: &World) {
    world.policy(
        "apis/addresses.toml",
        &format!(
            "[api.addresses]\nhosts = [\"{ADDRESS}\", \"{RAW_ADDRESS}\"]\n\
             inject = {{ header = \"authorization\", value = \"Bearer {{secret}}\" }}\n"
        ),
    );
    world.policy(
        "policies/python.toml",
        "[identity]\nexe = \"{root}/bots/python3\"\n\n\
         [[grant]]\napi = \"demo\"\nallow = [\"GET /v1/**\"]\ncredential = \"demo-key\"\n\n\
         [[grant]]\napi = \"addresses\"\nallow = [\"GET /v1/**\"]\ncredential = \"demo-key\"\n",
    );
}

#[test]
fn a_bot_resumes_its_session_at_the_host_that_gave_it_and_at_no_other_named_or_not() {
    let world = World::new();
    with_addresses(&world);
    world.daemon();
    let _upstream = Upstream::http1(&world);
    let dialer = Dialer::new(&world);
    for versions in [&[&version::TLS13], &[&version::TLS12]] {
        for (first, second, enable_sni) in
            [("api.test", "raw.test", true), (ADDRESS, RAW_ADDRESS, true), ("api.test", "raw.test", false)]
        {
            let mut bot = with(&dialer, default_provider().kx_groups, versions);
            bot.resumption = Resumption::store(Arc::new(OneForAll(ClientSessionMemoryCache::new(8))));
            bot.enable_early_data = true;
            bot.enable_sni = enable_sni;
            let at = |name: &str| if [first, ADDRESS].contains(&name) { ADDRESS } else { RAW_ADDRESS };
            // Without a name in the hello, the certificate is for the address.
            let shown = |name: &str| if enable_sni { name.to_owned() } else { at(name).to_owned() };
            let call = |name: &str| {
                let mut stream = connect(&dialer, &bot, at(name), &shown(name)).unwrap();
                assert!(stream.conn.early_data().is_none(), "{name}: early data is offered");
                let kind = stream.conn.handshake_kind();
                let status = ask(&mut stream, &shown(name), "/v1/x");
                assert_eq!(status, 200, "{name}");
                kind.unwrap()
            };
            let kinds = [call(first), call(first), call(second), call(second), call(first)];
            let full = |kind| kind != HandshakeKind::Resumed;
            assert_eq!(kinds.map(full), [true, false, true, false, true], "{first} {second} {versions:?}");
        }
    }
}

#[test]
fn a_session_from_before_a_reload_lets_nobody_past_the_new_policy() {
    let world = World::start();
    let _upstream = Upstream::http1(&world);
    let dialer = Dialer::new(&world);
    let bot = dialer.config(&["http/1.1"]);
    let call = || {
        let mut stream = connect(&dialer, &bot, RAW_ADDRESS, "raw.test")?;
        let kind = stream.conn.handshake_kind();
        std::io::Result::Ok((kind, ask(&mut stream, "raw.test", "/v1/x")))
    };
    assert_eq!(call().unwrap().1, 200);
    assert_eq!(call().unwrap(), (Some(HandshakeKind::Resumed), 200));
    world.policy(
        "policies/python.toml",
        "[identity]\nexe = \"{root}/bots/python3\"\n\n[[grant]]\napi = \"plain\"\nallow = [\"GET /**\"]\n",
    );
    assert_eq!(world.reload().code, Some(0));
    assert_eq!(call().unwrap(), (Some(HandshakeKind::Resumed), 403));
    // A host that is none of ours any more.
    world.policy("apis/apis.toml", "[api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\n");
    for identity in ["curl", "actor"] {
        world.policy(
            &format!("policies/{identity}.toml"),
            &format!("[identity]\nexe = \"{{root}}/bots/{identity}\"\n"),
        );
    }
    let reload = world.reload();
    assert_eq!(reload.code, Some(0), "{reload:?}");
    let error = call().unwrap_err().to_string();
    assert!(error.contains("AccessDenied"), "{error}");
}

#[test]
fn a_second_connection_to_an_upstream_resumes_the_session_of_the_first() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    upstream.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok", true);
    for count in 0..3 {
        let answer = world.curl(&["https://raw.test/v1/say"]);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"), "{answer:?}");
        wait_until("the handshake", || (upstream.handshakes() == count + 1).then_some(()));
        assert_eq!(upstream.resumed(), count);
    }
}

#[test]
fn a_hello_without_protocols_is_http_1_and_one_without_a_name_means_its_address() {
    let world = World::new();
    world.daemon();
    let _upstream = Upstream::http1(&world);
    let dialer = Dialer::new(&world);
    // A name without protocols.
    let mut stream = connect(&dialer, &dialer.config(&[]), RAW_ADDRESS, "raw.test").unwrap();
    assert_eq!(stream.conn.alpn_protocol(), None);
    assert_eq!(ask(&mut stream, "raw.test", "/v1/x"), 200);
    // Without protocols, the preface of HTTP/2 is no request (RFC 9113 §3.2).
    let mut stream = connect(&dialer, &dialer.config(&[]), RAW_ADDRESS, "raw.test").unwrap();
    let _ = stream.write_all(frames::PREFACE).and_then(|()| stream.flush());
    let reply = Reply::read(&mut stream);
    assert!([0, 400, 505].contains(&reply.status), "{reply:?}");
    // Protocols without a name: no API is one of the address.
    for protocol in ["http/1.1", "h2"] {
        let error = connect(&dialer, &dialer.config(&[protocol]), RAW_ADDRESS, RAW_ADDRESS).unwrap_err();
        assert!(error.to_string().contains("AccessDenied"), "{error}");
        let denial = world.record("decision", |record| record["verdict"] == "deny");
        assert_eq!((&denial["host"], &denial["scheme"]), (&RAW_ADDRESS.into(), &"tls".into()), "{denial}");
    }
    // Now one is; and only the address is the host of its requests.
    with_addresses(&world);
    assert_eq!(world.reload().code, Some(0));
    // Who was there before does not know the root that may sign for it.
    let dialer = Dialer::new(&world);
    for (host, status) in [(RAW_ADDRESS, 200), ("raw.test", 421)] {
        let bot = dialer.config(&["h2", "http/1.1"]);
        let mut bot = ClientConfig::clone(&bot);
        bot.alpn_protocols.remove(0);
        let mut stream = connect(&dialer, &bot, RAW_ADDRESS, RAW_ADDRESS).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(ask(&mut stream, host, "/v1/x"), status, "{host}");
    }
    let stream = connect(&dialer, &dialer.config(&["h2", "http/1.1"]), RAW_ADDRESS, RAW_ADDRESS).unwrap();
    assert_eq!(stream.conn.alpn_protocol(), Some(&b"h2"[..]));
}

/// A client with Encrypted Client Hello, whose hello names `outer` where it can be read (RFC 9849).
fn encrypted(dialer: &Dialer, outer: &str) -> ClientConfig {
    let suite = hpke::DH_KEM_X25519_HKDF_SHA256_AES_128;
    let (public, _) = suite.generate_key_pair().unwrap();
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let (number, kem, symmetric) = (&[7][..], &[0, 0x20][..], sized(&[0, 1, 0, 1]));
    let name = [&[64, u8::try_from(outer.len()).unwrap()], outer.as_bytes()].concat();
    let contents = [number, kem, &sized(&public.0), &symmetric, &name, &[0, 0]].concat();
    let list = sized(&[&[0xfe, 0x0d][..], &sized(&contents)].concat());
    let suites: &[&'static dyn Hpke] = &[suite];
    let ech = EchConfig::new(EchConfigListBytes::from(list), suites).unwrap();
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_ech(EchMode::Enable(ech))
        .unwrap()
        .with_root_certificates(dialer.roots())
        .with_no_client_auth()
}

#[test]
fn a_hello_with_another_one_encrypted_inside_is_judged_by_the_name_that_can_be_read() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    let dialer = Dialer::new(&world);
    let last = || world.record("decision", |record| record["verdict"] == "deny");
    // An API inside, and no API outside.
    let error = connect(&dialer, &encrypted(&dialer, "other.test"), RAW_ADDRESS, "raw.test").unwrap_err();
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    assert_eq!((&last()["host"], &last()["ech"]), (&"other.test".into(), &true.into()));
    // An API outside: it is the one that answers, and the client sees that this is not whom it wanted.
    let error = connect(&dialer, &encrypted(&dialer, "raw.test"), RAW_ADDRESS, "other.test").unwrap_err();
    assert!(error.to_string().contains("RejectedEncryptedClientHello"), "{error}");
    wait_until("a record", || (last()["host"] == "raw.test").then_some(()));
    assert!(last()["reason"].as_str().unwrap().contains("EncryptedClientHelloRequired"), "{}", last());
    assert_eq!(upstream.connections(), 0);
}

/// Calls as the browser does whose TLS it is.
const BROWSER: &str = "
import sys
from curl_cffi import requests
for browser in sys.argv[1:]:
    for url in ['https://api.test/v1/a', 'https://api.test/v1/b', 'https://raw.test/v1/c']:
        with requests.Session(impersonate=browser, verify='{bundle}') as session:
            print(browser, url, session.get(url, timeout=20).status_code)
";

#[test]
fn the_hellos_of_browsers_with_unknown_values_and_an_empty_encrypted_hello_get_through() {
    let world = World::start();
    let _upstream = Upstream::http2(&world);
    let script = BROWSER.replace("{bundle}", world.path("bots.pem").to_str().unwrap());
    let packages = python_packages();
    let browsers = ["chrome136", "firefox135", "safari260"];
    let told = world.bot("python3").env("PYTHONPATH", packages.to_str().unwrap());
    let told = told.args(["-c", &script]).args(browsers).run();
    let expected: Vec<String> = browsers
        .iter()
        .flat_map(|browser| {
            ["api.test/v1/a", "api.test/v1/b", "raw.test/v1/c"]
                .map(|url| format!("{browser} https://{url} 200"))
        })
        .collect();
    assert_eq!(told.stdout.lines().collect::<Vec<_>>(), expected, "{told:?}");
}
