//! `kind = "mtls"`: client certificates at a server that demands them and says whom it saw.

use std::collections::HashSet;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tests::{RAW_ADDRESS, STOLEN, World, wait_until};

use super::jwt::{assert_nowhere, received};

const SERVER: &str = include_str!("receivers/mtls.js");

/// Who signs the bots' certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(DnType::CommonName, "CA of the bots");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = ca.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(ca, key), pem }
    }

    /// Certificate and key in one text.
    pub(super) fn issue(&self, name: &str) -> String {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(Vec::new()).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, name);
        format!("{}{}", leaf.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A running world where curl calls `raw.test` with a certificate of the name `a`, and python with one of the name `b`.
fn world(authority: &Authority, server: &[&str]) -> World {
    let world = World::new();
    world.policy(
        "apis/apis.toml",
        "[api.partner]\nhosts = [\"raw.test\"]\n[api.demo]\nhosts = [\"api.test\"]\n",
    );
    world.without_identities();
    for (identity, program, name) in [("curl", "curl", "a"), ("python", "python3", "b")] {
        world.policy(
            &format!("credentials/{name}.toml"),
            &format!("[credential.{name}]\nkind = \"mtls\"\ncertificate = \"vault:{name}\"\n"),
        );
        world.policy(
            &format!("policies/{identity}.toml"),
            &format!(
                "[identity]\nexe = \"{{root}}/bots/{program}\"\n\n[[grant]]\napi = \"partner\"\n\
                 allow = [\"* /**\", \"websocket /**\"]\ncredential = \"{name}\"\n"
            ),
        );
        world.secret(name, &authority.issue(name));
    }
    world.set("log.level", "\"trace,aya=info,aya_obj=info\"");
    world.write("mtls.js", SERVER);
    world.write("bots-ca.pem", &authority.pem);
    let mut arguments = vec!["mtls.js", RAW_ADDRESS, "api/server.pem", "api/server.key", "bots-ca.pem"];
    arguments.extend(server);
    world.server("receiver", "node", &arguments, &format!("{RAW_ADDRESS}:443"));
    world.daemon();
    world
}

/// Calls at the same time, each with its number in the path.
const MANY: &str = "
import sys, threading, urllib.request
def call(number):
    urllib.request.urlopen(f'https://raw.test/{sys.argv[1]}/{number}').read()
for _ in range(3):
    all = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    [thread.start() for thread in all]
    [thread.join() for thread in all]
";

#[test]
fn two_bots_at_the_same_host_at_the_same_time_are_never_taken_for_each_other() {
    for (server, version) in [(&[][..], "2.0"), (&["http1"][..], "1.1")] {
        let authority = Authority::new();
        let world = world(&authority, server);
        let mut python = world.bot("python3").args(["-c", MANY, "b"]).spawn();
        let urls: Vec<String> = (0..8).map(|number| format!("https://raw.test/a/{number}")).collect();
        let stolen = format!("authorization: Bearer {STOLEN}");
        while python.is_alive() {
            let mut arguments = vec!["--parallel", "-H", &stolen];
            arguments.extend(urls.iter().map(String::as_str));
            let answer = world.curl(&arguments);
            assert_eq!(answer.code, Some(0), "{answer:?}");
        }
        assert_eq!(python.wait(), Some(0));
        let received = received(&world);
        let connections = |name: &str| -> HashSet<u64> {
            let of = received.iter().filter(|it| it["name"] == name);
            of.map(|it| it["connection"].as_u64().unwrap()).collect()
        };
        let (of_a, of_b) = (connections("a"), connections("b"));
        assert!(!of_a.is_empty() && !of_b.is_empty() && of_a.is_disjoint(&of_b), "{of_a:?} {of_b:?}");
        if version == "2.0" {
            assert!(received.len() > of_a.len() + of_b.len(), "connections of one identity are shared");
        }
        for seen in received {
            let name = seen["path"].as_str().unwrap().split('/').nth(1).unwrap();
            assert_eq!((&seen["name"], &seen["version"]), (&name.into(), &version.into()), "{seen}");
            assert_eq!((&seen["resumed"], &seen["authorization"]), (&false.into(), &Value::Null), "{seen}");
        }
    }
}

#[test]
fn a_new_certificate_goes_over_a_new_connection_and_the_old_one_is_not_used_any_more() {
    let authority = Authority::new();
    let world = world(&authority, &[]);
    let call = || {
        let answer = world.curl(&["https://raw.test/x"]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let (first, again) = (call(), call());
    assert_eq!((&first["serial"], &first["connection"]), (&again["serial"], &again["connection"]));
    let bundle = authority.issue("a");
    // The command has told the daemon when it ends.
    world.secret("a", &bundle);
    let (second, again) = (call(), call());
    assert_ne!(second["serial"], first["serial"]);
    assert_ne!(second["connection"], first["connection"]);
    assert_eq!((&second["serial"], &second["connection"]), (&again["serial"], &again["connection"]));
    assert_nowhere(&world, bundle.split("-----BEGIN PRIVATE KEY-----").nth(1).unwrap());
    let decision = world.decision(Some("/x"));
    assert!(decision.to_string().contains("\"a\""), "{decision}");
}

const WEBSOCKET: &str = "
import socket, ssl
s = ssl.create_default_context().wrap_socket(socket.create_connection(('raw.test', 443)), server_hostname='raw.test')
s.settimeout(20)
s.sendall(b'GET /socket HTTP/1.1\\r\\nHost: raw.test\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n'
          b'Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n')
head = b''
while b'\\r\\n\\r\\n' not in head:
    head += s.recv(1)
print(head[:12].decode(), s.recv(2).decode().strip())
s.sendall(b'hello')
print(s.recv(5).decode())
";

#[test]
fn a_websocket_is_upgraded_on_a_connection_with_the_certificate() {
    let authority = Authority::new();
    let world = world(&authority, &[]);
    let told = world.python(WEBSOCKET, &[]);
    assert_eq!(told.stdout.trim(), "HTTP/1.1 101 b\nHELLO", "{told:?}");
}

#[test]
fn a_server_that_asks_for_no_certificate_gets_no_call() {
    let authority = Authority::new();
    let world = world(&authority, &["unasked"]);
    let answer = world.curl(&["https://raw.test/x"]);
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(
        answer.json()["detail"].as_str().unwrap().contains("asked for no client certificate"),
        "{answer:?}"
    );
    assert!(received(&world).is_empty(), "nothing was sent");
}

#[test]
fn a_call_that_only_goes_on_because_it_is_observed_goes_on_without_our_certificate() {
    let authority = Authority::new();
    let world = world(&authority, &["unasked"]);
    world.policy(
        "policies/curl.toml",
        "mode = \"observe\"\n[identity]\nexe = \"{root}/bots/curl\"\n\n[[grant]]\napi = \"partner\"\n\
         allow = [\"* /allowed\"]\ncredential = \"a\"\n",
    );
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    // With the certificate there would be no call: this server asks for none.
    assert_eq!(world.curl(&["https://raw.test/allowed"]).status, 502);
    let passed = world.curl(&["https://raw.test/denied"]);
    assert_eq!(passed.status, 200, "{passed:?} {}", world.decision(Some("/denied")));
    let decision = world.decision(Some("/denied"));
    assert_eq!((&decision["observed"], &decision["credential"]), (&true.into(), &Value::Null), "{decision}");
}

#[test]
fn a_certificate_that_the_server_does_not_take_or_that_is_not_there_is_502() {
    let authority = Authority::new();
    let world = world(&authority, &[]);
    world.secret("a", &Authority::new().issue("a"));
    let answer = world.curl(&["https://raw.test/x"]);
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(world.vouchsafe(&["secret", "rm", "a"]).code, Some(0));
    wait_until("the refusal", || {
        let answer = world.curl(&["https://raw.test/x"]);
        (answer.json()["type"] == "urn:vouchsafe:problem:credential-unavailable").then_some(())
    });
    assert!(received(&world).is_empty(), "nothing was sent");
    world.secret("a", &authority.issue("a"));
    assert_eq!(world.curl(&["https://raw.test/x"]).status, 200);
}
