//! What is open when the policy changes, or when a grant ends: it goes on if it is still permitted, and is cut otherwise.

use std::fs;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;
use tests::upstream::{Proof, Upstream};
use tests::{Running, World};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const PAIRS: [(&str, &str); 4] =
    [("http/1.1", "--http1.1"), ("http/1.1", "--http2"), ("h2", "--http1.1"), ("h2", "--http2")];

/// The identity of curl, which may call everything below `/v1/`, with more lines in its grant.
fn curl(world: &World, more: &str) {
    world.policy(
        "policies/curl.toml",
        &format!(
            "[identity]\nexe = \"{{root}}/bots/curl\"\n[[grant]]\napi = \"demo\"\nallow = [\"* /v1/**\"]\n\
             credential = \"demo-key\"\n{more}"
        ),
    );
}

fn generation(world: &World) -> u64 {
    world.status()["policy"]["generation"].as_u64().unwrap()
}

/// The end of the call of a path, as the journal tells it.
#[track_caller]
fn cut(world: &World, path: &str, words: &str) -> Value {
    let decision = world.record("decision", |record| record["path"] == path && record["verdict"] == "allow");
    let outcome = world.record("outcome", |record| record["id"] == decision["id"]);
    let error = outcome["error"].as_str().unwrap_or_default();
    assert!(error.starts_with("cut, not permitted any more: ") && error.contains(words), "{outcome}");
    assert_eq!(outcome["blame"], "policy", "{outcome}");
    outcome
}

#[track_caller]
fn ends_in_a_second(since: Instant, curl: &mut Running, what: &str) {
    curl.rest();
    let code = curl.wait();
    assert!(since.elapsed() < Duration::from_secs(1), "{what}: cut after {:?}", since.elapsed());
    assert!(code.is_some_and(|code| code != 0), "{what}: what was cut looks whole");
}

#[test]
fn a_stream_that_the_new_policy_denies_is_cut_within_a_second_and_its_neighbour_goes_on() {
    let world = World::start();
    for (speaks, client) in PAIRS {
        let upstream = Upstream::start(&world, Proof::Good, &[speaks]);
        let before = generation(&world);
        curl(&world, "");
        world.wait_for_generation(before + 1);
        let path = |name: &str| format!("/v1/{speaks}/{client}/{name}/slow-body");
        let open = |name: &str| {
            let url = format!("https://raw.test{}", path(name));
            let mut curl = world.bot("curl").args(["-m20", "-sSN", client, &url]).spawn();
            assert_eq!(curl.line(), "first");
            curl
        };
        let (mut denied, mut allowed) = (open("denied"), open("allowed"));
        let endless = format!("/v1/{speaks}/{client}/denied/endless");
        let url = format!("https://raw.test{endless}");
        let mut always = world.bot("curl").args(["-m20", "-sSN", client, &url]).spawn();
        always.line();
        curl(&world, "deny = [\"* /v1/*/*/denied/**\", \"* /v1/*/*/*/denied/**\"]\n");
        world.wait_for_generation(before + 2);
        let since = Instant::now();
        ends_in_a_second(since, &mut denied, &path("denied"));
        ends_in_a_second(since, &mut always, &endless);
        let outcome = cut(&world, &path("denied"), "denied by \"* /v1/*");
        assert_eq!((&outcome["status"], &outcome["bytes_received"]), (&200.into(), &6.into()), "{outcome}");
        cut(&world, &endless, "policies/curl.toml");
        assert!(allowed.is_alive());
        upstream.open_gate(2);
        assert_eq!(allowed.rest(), "last\n", "{speaks} {client}: what is still permitted is left alone");
        assert_eq!(allowed.wait(), Some(0));
    }
}

#[test]
fn a_call_that_waits_for_its_answer_is_refused_when_the_policy_denies_it() {
    let world = World::start();
    for speaks in ["http/1.1", "h2"] {
        let upstream = Upstream::start(&world, Proof::Good, &[speaks]);
        let before = generation(&world);
        curl(&world, "");
        world.wait_for_generation(before + 1);
        let path = format!("/v1/{speaks}/never");
        let url = format!("https://raw.test{path}");
        let mut waiting =
            world.bot("curl").args(["-m20", "-sS", "-w", "\n%{http_code}\n", "-d", "x=1", &url]).spawn();
        upstream.wait_for(1);
        curl(&world, "deny = [\"POST /**\"]\n");
        let told = waiting.rest();
        assert!(told.ends_with("\n403\n"), "{told}");
        assert!(told.contains("curl may not POST") && told.contains("policies/curl.toml:7"), "{told}");
        cut(&world, &path, "denied by \"POST /**\"");
    }
}

#[test]
fn a_stream_ends_when_its_grant_does() {
    let world = World::start();
    let _upstream = Upstream::http2(&world);
    let end = OffsetDateTime::from(SystemTime::now() + Duration::from_secs(5)).replace_nanosecond(0).unwrap();
    curl(&world, &format!("until = {}\n", end.format(&Rfc3339).unwrap()));
    world.wait_for_generation(2);
    let mut streaming =
        world.bot("curl").args(["-m20", "-sSN", "--http2", "https://raw.test/v1/ends/slow-body"]).spawn();
    assert_eq!(streaming.line(), "first");
    streaming.rest();
    let late = OffsetDateTime::now_utc() - end;
    assert!(late >= time::Duration::ZERO, "it was cut before its time: {late}");
    assert!(late < time::Duration::SECOND, "it was cut {late} after its time");
    assert_ne!(streaming.wait(), Some(0));
    cut(&world, "/v1/ends/slow-body", "was granted until");
    assert_eq!(generation(&world), 2);
}

#[test]
fn a_stream_is_judged_again_by_the_headers_and_the_body_that_it_began_with() {
    let world = World::start();
    let upstream = Upstream::http2(&world);
    let models = |allowed: &str| format!("when = 'body.model in [{allowed}]'\n");
    curl(&world, &models("\"small\", \"large\""));
    world.wait_for_generation(2);
    let ask = |model: &str| {
        let url = format!("https://raw.test/v1/{model}/slow-body");
        let body = format!("{{\"model\":\"{model}\"}}");
        let json = "content-type: application/json";
        let mut curl = world
            .bot("curl")
            .args(["-m20", "-sSN", "-H", json, "-H", &format!("x-size: {model}"), "-d", &body, &url])
            .spawn();
        assert_eq!(curl.line(), "first");
        curl
    };
    let (mut small, mut large) = (ask("small"), ask("large"));
    curl(&world, &models("\"small\""));
    assert_eq!(large.rest(), "");
    assert_ne!(large.wait(), Some(0));
    cut(&world, "/v1/large/slow-body", "the condition of");
    assert!(small.is_alive());
    // No condition asked for a header until now.
    let mut large = {
        curl(&world, "");
        world.wait_for_generation(4);
        ask("large")
    };
    curl(&world, "when = 'request.headers[\"x-size\"] == \"small\"'\n");
    assert_eq!(large.rest(), "");
    assert_ne!(large.wait(), Some(0));
    assert!(small.is_alive());
    // What nobody kept cannot be judged.
    let mut unread = ask("small");
    curl(&world, &models("\"small\""));
    assert_eq!(unread.rest(), "");
    assert_ne!(unread.wait(), Some(0));
    cut(&world, "/v1/small/slow-body", "looks at the body now");
    upstream.open_gate(2);
    assert_eq!(small.rest(), "last\n");
}

#[test]
fn a_stream_does_not_keep_a_credential_that_was_taken_from_its_grant() {
    let world = World::start();
    let _upstream = Upstream::http1(&world);
    world.secret("other", "another-secret");
    world.policy(
        "credentials/other.toml",
        "[credential.other]\nkind = \"static\"\nsecret = \"vault:other\"\n",
    );
    curl(&world, "");
    world.vouchsafe(&["reload"]);
    let mut streaming = world.bot("curl").args(["-m20", "-sSN", "https://raw.test/v1/key/slow-body"]).spawn();
    assert_eq!(streaming.line(), "first");
    let text = fs::read_to_string(world.path("etc/policies/curl.toml")).unwrap();
    world.policy("policies/curl.toml", &text.replace("\"demo-key\"", "\"other\""));
    streaming.rest();
    assert_ne!(streaming.wait(), Some(0));
    cut(&world, "/v1/key/slow-body", "it went with the credential demo-key, and the policy gives other now");
}

const ECHO: &str = r"
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(('203.0.113.11', 443))
while True:
    s = context.wrap_socket(listener.accept()[0], server_side=True)
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        head += s.recv(1)
    s.sendall(b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n')
    while data := s.recv(100):
        s.sendall(data.upper())
";

const SOCKET: &str = r"
import socket, ssl, sys
s = ssl.create_default_context().wrap_socket(socket.create_connection(('raw.test', 443)), server_hostname='raw.test')
s.sendall(b'GET /v1/socket HTTP/1.1\r\nHost: raw.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
          b'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n')
s.settimeout(20)
head = b''
while not head.endswith(b'\r\n\r\n'):
    head += s.recv(1)
def say(text):
    s.sendall(text)
    print(s.recv(100).decode(), flush=True)
say(b'hello')
sys.stdin.readline()
say(b'again')
try:
    print('END', s.recv(100), flush=True)
except OSError as error:
    print('END', error, flush=True)
";

#[test]
fn a_websocket_that_is_not_granted_any_more_is_cut_and_one_that_is_goes_on() {
    let world = World::new();
    let script = world.write("echo.py", ECHO);
    let (certificate, key) = (world.path("api/server.pem"), world.path("api/server.key"));
    world.daemon();
    let arguments = [script.to_str().unwrap(), certificate.to_str().unwrap(), key.to_str().unwrap()];
    world.server("echo", "/usr/bin/python3", &arguments, "203.0.113.11:443");
    let mut bot = world.bot("python3").args(["-c", SOCKET]).spawn();
    assert_eq!(bot.line(), "HELLO");
    let text = fs::read_to_string(world.path("etc/policies/python.toml")).unwrap();
    world.policy("policies/python.toml", &text.replace("GET|PUT|HEAD", "GET"));
    world.wait_for_generation(2);
    bot.say("go on");
    assert_eq!(bot.line(), "AGAIN", "the policy changed, and not for this");
    world.policy("policies/python.toml", &text.replace(", \"websocket /v1/**\"", ""));
    world.wait_for_generation(3);
    let since = Instant::now();
    assert!(bot.line().starts_with("END"));
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    let outcome = cut(&world, "/v1/socket", "an upgrade is an operation of its own");
    assert_eq!((&outcome["status"], &outcome["bytes_sent"]), (&101.into(), &10.into()), "{outcome}");
}

const THROUGH: &str = r"
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
s = context.wrap_socket(socket.create_connection(('other.test', 443)), server_hostname='other.test')
def ask():
    s.sendall(b'GET /v1/x HTTP/1.1\r\nHost: other.test\r\n\r\n')
    print(s.recv(12).decode(), flush=True)
    s.settimeout(1)
    try:
        while s.recv(10000): pass
    except TimeoutError: pass
    s.settimeout(20)
ask()
sys.stdin.readline()
try:
    print('END', s.recv(100), flush=True)
except OSError as error:
    print('END', error, flush=True)
";

#[test]
fn a_connection_that_passes_through_is_cut_when_unmatched_hosts_are_denied_again() {
    let world = World::start();
    let text = fs::read_to_string(world.path("etc/policies/python.toml")).unwrap();
    world.policy("policies/python.toml", &format!("unmatched = \"pass\"\n{text}"));
    world.wait_for_generation(2);
    let mut bot = world.bot("python3").args(["-c", THROUGH]).spawn();
    assert_eq!(bot.line(), "HTTP/1.1 401");
    world.policy("policies/python.toml", &text);
    world.wait_for_generation(3);
    let since = Instant::now();
    bot.say("look");
    assert!(bot.line().starts_with("END"));
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
    let outcome = world.record("outcome", |record| record["blame"] == "policy");
    assert!(outcome["error"].as_str().unwrap().contains("no API of the policy names it"), "{outcome}");
}

#[test]
fn a_workload_that_lost_its_identity_loses_what_it_has_open() {
    let world = World::start();
    let _upstream = Upstream::http1(&world);
    let mut streaming =
        world.bot("curl").args(["-m20", "-sSN", "https://raw.test/v1/gone/slow-body"]).spawn();
    assert_eq!(streaming.line(), "first");
    fs::remove_file(world.path("etc/policies/curl.toml")).unwrap();
    streaming.rest();
    assert_ne!(streaming.wait(), Some(0));
    cut(&world, "/v1/gone/slow-body", "no identity matches");
}
