//! The main job: unmodified bots call APIs with a credential that they never hold.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::upstream::Upstream;
use tests::{CANARY, STOLEN, World, wait_until};

#[test]
fn curl_gets_200_over_http1_and_http2_without_a_key() {
    let world = World::start();
    for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answer = world.curl(&[option, "https://api.test/v1/invoices/7"]);
        assert_eq!((answer.status, answer.version.as_str()), (200, version), "{answer:?}");
        assert_eq!(answer.json()["key"], "ours");
    }
}

#[test]
fn clients_on_other_tls_and_http_implementations_get_200_without_a_change() {
    let world = World::new();
    let fetch = "fetch(process.argv[1]).then(r => r.text()).then(t => console.log(t))";
    let roots = format!("--ca-certificate={}", world.path("bots.pem").display());
    let url = "https://api.test/v1/x";
    let clients = [("node", vec!["-e", fetch, url]), ("wget", vec![&roots, "-qO-", url])];
    // Not every host has them; curl and python, which the tests need, have tests of their own.
    let installed: Vec<_> =
        clients.into_iter().filter(|(name, _)| Path::new("/usr/bin").join(name).exists()).collect();
    for (name, _) in &installed {
        world.identity(name, &format!("exe = \"/usr/bin/{name}\""));
    }
    world.daemon();
    for (name, arguments) in installed {
        let told = world.bot(Path::new("/usr/bin").join(name)).args(arguments).run();
        assert_eq!(told.json()["key"], "ours", "{name}: {told:?}");
    }
}

#[test]
fn exactly_one_key_reaches_the_server_however_many_the_bot_sends() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    let stolen = format!("authorization: Bearer {STOLEN}");
    for version in ["--http1.1", "--http2"] {
        let answer = world.curl(&[
            version,
            "-H",
            &stolen,
            "-H",
            "AUTHORIZATION: Basic c3RvbGVuOmtleQ==",
            "-H",
            &format!("Proxy-Authorization: Bearer {STOLEN}"),
            "https://raw.test/v1/x",
        ]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    upstream.wait_for(2);
    for seen in upstream.seen() {
        let keys: Vec<_> =
            seen.headers.iter().filter(|(name, _)| name.to_lowercase().contains("authorization")).collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!(keys[0].1, format!("Bearer {CANARY}"));
    }
}

#[test]
fn what_the_bot_sends_as_a_key_over_plain_http_goes_nowhere() {
    let world = World::start();
    let stolen = format!("Authorization: Bearer {STOLEN}");
    let answer = world.curl(&["-H", &stolen, "http://plain.test/v1/x"]);
    assert_eq!((answer.status, &answer.json()["authorization"]), (200, &Value::from("")), "{answer:?}");
}

#[test]
fn a_websocket_is_upgraded_with_the_credential_and_carries_both_directions() {
    let world = World::start();
    let server = world.write("websocket.py", WEBSOCKET_SERVER);
    let arguments = [server.to_str().unwrap(), "203.0.113.11", "api/server.pem", "api/server.key", "head"];
    world.server("websocket", "/usr/bin/python3", &arguments, "203.0.113.11:443");
    let told = world.python(WEBSOCKET_CLIENT, &[]);
    assert_eq!(told.stdout.trim(), "HTTP/1.1 101\nHELLO\nAGAIN", "{told:?}");
    let head = fs::read_to_string(world.path("head")).unwrap();
    assert!(head.contains(CANARY), "the server saw no credential: {head}");
    let decision = world.decision(Some("/v1/socket"));
    let outcome = world.record("outcome", |record| record["id"] == decision["id"]);
    assert_eq!(outcome["status"], 101, "{outcome}");
    assert_eq!((&outcome["bytes_sent"], &outcome["bytes_received"]), (&Value::from(10), &Value::from(10)));
}

/// Upgrades every connection and answers in capitals.
const WEBSOCKET_SERVER: &str = "
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
listener = socket.create_server((sys.argv[1], 443))
while True:
    raw, _ = listener.accept()
    try:
        s = context.wrap_socket(raw, server_side=True)
        head = b''
        while b'\\r\\n\\r\\n' not in head:
            head += s.recv(4096)
        open(sys.argv[4], 'wb').write(head)
        s.sendall(b'HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n\\r\\n')
        while data := s.recv(4096):
            s.sendall(data.upper())
        s.close()
    except OSError as error:
        print(error, flush=True)
";

const WEBSOCKET_CLIENT: &str = "
import socket, ssl
s = ssl.create_default_context().wrap_socket(socket.create_connection(('raw.test', 443)), server_hostname='raw.test')
s.settimeout(20)
s.sendall(b'GET /v1/socket HTTP/1.1\\r\\nHost: raw.test\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n'
          b'Sec-WebSocket-Version: 13\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n\\r\\n')
head = b''
while b'\\r\\n\\r\\n' not in head:
    head += s.recv(1)
print(head[:12].decode())
for word in (b'hello', b'again'):
    s.sendall(word)
    print(s.recv(5).decode())
s.close()
";

#[test]
fn sighup_reads_policies_and_secrets_again() {
    let world = World::new();
    // What the watch of the folder does not see, and what `secret set` cannot tell this daemon, only the signal brings.
    let link = |to: &str| {
        symlink(world.path(to), world.path("link.new")).unwrap();
        fs::rename(world.path("link.new"), world.path("link")).unwrap();
    };
    link("etc");
    world.set("policies", &format!("\"{}\"", world.path("link").display()));
    world.daemon();
    let copied = Command::new("cp").arg("-a").args([world.path("etc"), world.path("new")]).status().unwrap();
    assert!(copied.success());
    let text = fs::read_to_string(world.path("new/policies/curl.toml")).unwrap();
    world.write("new/policies/curl.toml", &text.replace("GET|PUT|HEAD", "GET"));
    link("new");
    world.set("runtime", &format!("\"{}\"", world.path("run-of-nobody").display()));
    world.secret("demo-key", STOLEN);
    world.set("runtime", &format!("\"{}\"", world.path("run").display()));
    let (get, put) = (["https://api.test/v1/x"], ["-X", "PUT", "https://api.test/v1/x"]);
    assert_eq!((world.curl(&get).json()["key"].clone(), world.curl(&put).status), (Value::from("ours"), 200));
    world.hangup(2);
    assert_eq!(
        (world.curl(&get).json()["key"].clone(), world.curl(&put).status),
        (Value::from("stolen"), 403)
    );

    world.write("new/policies/curl.toml", "nonsense");
    world.signal(Signal::SIGHUP);
    wait_until("the refusal in status", || world.status()["policy"]["last_error"].is_array().then_some(()));
    assert_eq!((world.curl(&get).status, world.curl(&put).status), (200, 403), "the old policy goes on");
}

#[test]
fn the_daemons_own_connections_are_not_turned_although_it_is_in_the_governed_cgroup() {
    let world = World::start();
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", world.daemon_pid())).unwrap();
    assert!(cgroup.contains(&world.governed_path()), "{cgroup}");
    let (own, turned) = (world.counter("own_connection"), world.counter("redirected"));
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    assert_eq!(world.counter("redirected"), turned + 1, "the bot's connection, and no other");
    assert!(world.counter("own_connection") > own);
}
