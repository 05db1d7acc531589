//! Bots that already use a proxy: what they ask it for is decided as if they had gone there themselves, and the proxy is never called.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use rustls::StreamOwned;
use serde_json::Value;
use tests::wire::{Dialer, Reply};
use tests::{ADDRESS, CANARY, RAW_ADDRESS, World, finish, wait_until};

use super::credentials::packages;
use super::trouble::outcome;
use super::trust::java_store;

mod tunnels;

/// Where the bots believe a proxy to be: nobody is there.
const PROXY: &str = "203.0.113.77:3128";
/// The same as clients write it.
const URL: &str = "http://203.0.113.77:3128";

/// A world that mediates the port of the proxy.
fn world() -> World {
    let world = World::new();
    world.set("kernel.ports", "[80, 443, 3128]");
    world.daemon();
    world
}

/// Gives an identity more, above its conditions.
fn also(world: &World, identity: &str, more: &str) {
    let file = world.path("etc").join(format!("policies/{identity}.toml"));
    let text = fs::read_to_string(file).unwrap();
    world.policy(&format!("policies/{identity}.toml"), &format!("{more}\n{text}"));
}

/// What the journal says of where a call went: destination and proxy.
fn way(decision: &Value) -> (String, String) {
    let text = |key: &str| decision[key].as_str().unwrap_or_default().to_owned();
    (text("dst"), text("proxy"))
}

#[test]
fn a_bot_that_has_a_proxy_in_its_environment_calls_as_ever_and_gets_the_credential() {
    let world = world();
    let login = "http://me:CANARY-OF-THE-PROXY@203.0.113.77:3128";
    for (at, (name, proxy)) in
        [("HTTPS_PROXY", URL), ("https_proxy", URL), ("ALL_PROXY", URL), ("HTTPS_PROXY", login)]
            .into_iter()
            .enumerate()
    {
        let path = format!("/v1/tunnel{at}");
        let answer = world.bot("curl").env(name, proxy).curl(&["-4", &format!("https://api.test{path}")]);
        assert_eq!((answer.status, &answer.json()["key"]), (200, &Value::from("ours")), "{name}: {answer:?}");
        assert_eq!(answer.version, "2", "what is within is negotiated as ever");
        let decision = world.decision(Some(&path));
        assert_eq!(decision["credential"], "demo-key");
        assert_eq!((&decision["host"], &decision["identity"]), (&"api.test".into(), &"curl".into()));
        let (dst, proxy) = way(&decision);
        assert!([format!("{ADDRESS}:443"), "[2001:db8::10]:443".into()].contains(&dst), "{decision}");
        assert_eq!(proxy, PROXY);
        assert_eq!(outcome(&world, &path)["status"], 200);
    }
    let everything = format!("{:?}{}", world.journal(), world.log());
    assert!(!everything.contains("CANARY-OF-THE-PROXY") && !everything.contains(CANARY));
    // What is denied is denied within.
    let answer = world.bot("curl").env("HTTPS_PROXY", URL).curl(&["https://api.test/v1/forbidden/x"]);
    assert_eq!(answer.status, 403, "{answer:?}");
    assert_eq!(world.decision(Some("/v1/forbidden/x"))["verdict"], "deny");
    assert!(world.seen().iter().all(|seen| seen["uri"] != "/v1/forbidden/x"));
}

#[test]
fn a_plain_request_by_way_of_a_proxy_is_one_to_the_host_that_it_names() {
    let world = world();
    for (at, name) in ["http_proxy", "ALL_PROXY"].into_iter().enumerate() {
        let path = format!("/v1/plain{at}");
        let bot = world.bot("curl").env(name, "http://me:CANARY-OF-THE-PROXY@203.0.113.77:3128");
        let answer =
            bot.curl(&["-H", "Proxy-Authorization: Basic CANARY", &format!("http://plain.test{path}?a=b")]);
        assert_eq!(answer.status, 200, "{answer:?}");
        let target = format!("{path}?a=b");
        assert_eq!(
            (&answer.json()["uri"], &answer.json()["authorization"]),
            (&Value::from(target), &"".into())
        );
        let decision = world.decision(Some(&path));
        assert_eq!(way(&decision), (format!("{ADDRESS}:80"), PROXY.to_owned()), "{decision}");
        assert_eq!((&decision["api"], &decision["port"]), (&"plain".into(), &80.into()));
    }
    // Several hosts over one connection, each decided for itself.
    let bot = world.bot("curl").env("http_proxy", URL);
    let answer = bot
        .args(["http://plain.test/v1/one", "http://other.test/v1/two"])
        .curl(&["http://plain.test/v1/three"]);
    assert!(answer.body.contains("/v1/one") && answer.body.contains("/v1/three"), "{answer:?}");
    assert_eq!(world.decision(Some("/v1/two"))["verdict"], "deny");
    assert!(world.seen().iter().all(|seen| seen["uri"] != "/v1/two"));
    let told = world.vouchsafe(&["audit", "tail"]).stdout;
    assert!(told.contains(&format!(" plain.test/v1/one (by proxy {PROXY})")), "{told}");
}

#[test]
fn python_and_node_reach_apis_by_the_proxy_that_they_were_given() {
    let world = world();
    let packages = packages::install("proxied", include_str!("proxied/requirements.txt"));
    let urllib = "import json, urllib.request as r\n\
                  print(json.load(r.urlopen('https://api.test/v1/urllib'))['key'])\n\
                  print(json.load(r.urlopen('http://plain.test/v1/urllib-plain'))['uri'])\n";
    let requests = "import requests\n\
                    s = requests.Session()\n\
                    for n in '12': print(s.get('https://api.test/v1/requests' + n).json()['key'])\n\
                    print(s.get('http://plain.test/v1/requests-plain').json()['uri'])\n";
    for (script, expected) in
        [(urllib, "ours\n/v1/urllib-plain\n"), (requests, "ours\nours\n/v1/requests-plain\n")]
    {
        let roots = world.path("bots.pem");
        let bot = world.bot("python3").env("http_proxy", URL).env("https_proxy", URL);
        let bot = bot
            .env("PYTHONPATH", packages.to_str().unwrap())
            .env("REQUESTS_CA_BUNDLE", roots.to_str().unwrap());
        let finished = bot.args(["-c", script]).run();
        assert_eq!(finished.stdout, expected, "{finished:?}");
    }
    world.identity("node", "exe = \"{root}/bots/node\"");
    let node = Command::new("sh").args(["-c", "readlink -f $(command -v node)"]).output().unwrap();
    world.copy(String::from_utf8(node.stdout).unwrap().trim(), "bots/node");
    world.wait_for_generation(2);
    let script = world.write("tunnel.js", include_str!("proxied/tunnel.js"));
    let finished = world.bot("node").arg(script).args(["203.0.113.77", "3128", "api.test", "/v1/node"]).run();
    assert_eq!(finished.stdout.trim(), "200 ours", "{finished:?}");
    for path in ["/v1/urllib", "/v1/urllib-plain", "/v1/requests2", "/v1/requests-plain", "/v1/node"] {
        assert_eq!(way(&world.decision(Some(path))).1, PROXY, "{path}");
    }
}

#[test]
fn go_and_java_reach_apis_by_the_proxy_that_they_were_given() {
    let world = World::new();
    world.set("kernel.ports", "[80, 443, 3128]");
    let program = world.path("bots/client").display().to_string();
    let mut build = Command::new("/usr/bin/go");
    build.args(["build", "-o", &program]).arg(world.write("client.go", include_str!("proxied/client.go")));
    build.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("proxied-go"));
    let built = finish(&mut build);
    assert_eq!(built.code, Some(0), "{built:?}");
    world.identity("go", "exe = \"{root}/bots/client\"");
    let java = fs::canonicalize("/usr/bin/java").unwrap();
    world.identity("java", &format!("exe = \"{}\"", java.display()));
    world.daemon();
    let go = world.bot(&program).env("HTTPS_PROXY", URL).env("HTTP_PROXY", URL);
    let told = go.args(["https://api.test/v1/go", "http://plain.test/v1/go-plain"]).run();
    assert_eq!(told.stdout, "HTTP/2.0 200 ours\nHTTP/1.1 200 /v1/go-plain\n", "{told:?}");

    java_store(&world, world.path("bots.pem").to_str().unwrap());
    let client = world.write("Client.java", include_str!("proxied/Client.java"));
    let host =
        |scheme: &str| [format!("-D{scheme}.proxyHost=203.0.113.77"), format!("-D{scheme}.proxyPort=3128")];
    let store = format!("-Djavax.net.ssl.trustStore={}", world.path("java.p12").display());
    let bot = world.bot(java.to_str().unwrap()).args(host("https")).args(host("http")).arg(store);
    let bot = bot.args(["-Djavax.net.ssl.trustStorePassword=changeit", "-Xint"]).arg(client);
    let told = bot.args(["https://api.test/v1/java", "http://plain.test/v1/java-plain"]).run();
    let expected = "HttpClient HTTP_2 200 ours\nHttpURLConnection 200 ours\n\
                    HttpClient HTTP_1_1 200 /v1/java-plain\nHttpURLConnection 200 /v1/java-plain-old\n";
    assert_eq!(told.stdout, expected, "{told:?}");
    for (identity, ends) in [("go", &["", "-plain"][..]), ("java", &["", "-old", "-plain", "-plain-old"])] {
        for end in ends {
            let decision = world.decision(Some(&format!("/v1/{identity}{end}")));
            let asked = (way(&decision).1, decision["identity"].as_str().unwrap_or_default());
            assert_eq!(asked, (PROXY.to_owned(), identity), "{decision}");
        }
    }
}

#[test]
fn a_tunnel_to_a_host_that_the_policy_does_not_let_through_is_refused_by_a_403_that_says_why() {
    let world = world();
    let answer = world.bot("curl").env("HTTPS_PROXY", URL).curl(&["-v", "https://other.test/v1/x"]);
    assert_eq!((answer.status, answer.code), (0, Some(56)), "{answer:?}");
    assert!(answer.stderr.contains("< HTTP/1.1 403 Forbidden"), "{answer:?}");
    let is_it = |record: &Value| record["method"] == "CONNECT" && record["host"] == "other.test";
    let decision = world.record("decision", is_it);
    assert_eq!(decision["verdict"], "deny");
    let reason = decision["reason"].as_str().unwrap();
    assert!(reason.contains("may not call other.test:443: no API of the policy names it"), "{reason}");
    assert_eq!(way(&decision), ("0.0.0.0:443".to_owned(), PROXY.to_owned()), "it was not even looked up");
    let told = world.vouchsafe(&["why", decision["id"].as_str().unwrap()]).stdout;
    assert!(
        told.contains("by way of the proxy 203.0.113.77:3128") && told.contains("that is the answer of then"),
        "{told}"
    );
    // The refusal is as any other, for those who read it.
    let reply = Dialer::new(&world).ask("CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n");
    assert_eq!((reply.status, reply.header("proxy-authenticate")), (403, None), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    let problem: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(problem["type"], "urn:vouchsafe:problem:unknown-host");

    also(&world, "curl", "unmatched = \"pass\"");
    world.wait_for_generation(2);
    let answer = world.bot("curl").env("HTTPS_PROXY", URL).curl(&["https://other.test/v1/passed"]);
    assert_eq!(answer.status, 401, "the server itself, without a key: {answer:?}");
    let decision =
        world.record("decision", |record| record["host"] == "other.test" && record["verdict"] == "allow");
    assert_eq!(way(&decision), (format!("{ADDRESS}:443"), PROXY.to_owned()));
    assert_eq!(
        world.record("outcome", |record| record["id"] == decision["id"])["upstream"],
        format!("{ADDRESS}:443")
    );
}

#[test]
fn https_in_absolute_form_is_refused_with_what_to_do_and_never_sent_without_tls() {
    let world = world();
    let dialer = Dialer::new(&world);
    let reply = dialer.ask("GET https://api.test/v1/clear HTTP/1.1\r\nHost: api.test\r\n\r\n");
    assert_eq!(reply.status, 400, "{reply:?}");
    assert!(reply.text().contains("ask a proxy for a tunnel (CONNECT)"), "{}", reply.text());
    assert!(world.seen().is_empty());
}

#[test]
fn a_port_that_is_not_mediated_is_reached_by_a_tunnel_where_a_network_grant_has_it_and_not_otherwise() {
    let world = world();
    let to = |host: &str| {
        world.bot("curl").env("HTTPS_PROXY", URL).env("http_proxy", URL).curl(&[
            "-4",
            "-k",
            &format!("https://{host}:8443/v1/x"),
        ])
    };
    assert_eq!(to("api.test").code, Some(56));
    let decision = world.record("decision", |record| record["method"] == "CONNECT" && record["port"] == 8443);
    assert!(decision["reason"].as_str().unwrap().contains("no network grant allows it"), "{decision}");
    let file = world.path("etc/policies/curl.toml");
    let text = fs::read_to_string(file).unwrap();
    world
        .policy("policies/curl.toml", &format!("{text}\n[[grant]]\nnetwork = [\"tcp {ADDRESS}/32:8443\"]\n"));
    world.wait_for_generation(2);
    for host in ["api.test", "203.0.113.10"] {
        assert_eq!(to(host).status, 401, "{host}: the server, without a key");
    }
    let decision = world
        .record("decision", |record| record["dst"] == "203.0.113.10:8443" && record["verdict"] == "allow");
    assert_eq!(way(&decision).1, PROXY);
    // At another address it is not granted, and no request in absolute form goes to such a port.
    assert_eq!(to("raw.test").code, Some(56));
    let answer = world.bot("curl").env("http_proxy", URL).curl(&["http://plain.test:8443/v1/x"]);
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("not mediated"), "{answer:?}");
}

trait Ask {
    /// Sends this to the proxy and returns the one answer, after which the connection ends.
    fn ask(&self, request: &str) -> Reply;
}

impl Ask for Dialer {
    #[track_caller]
    fn ask(&self, request: &str) -> Reply {
        let mut stream = self.dial(PROXY);
        stream.write_all(request.as_bytes()).unwrap();
        let mut came = Vec::new();
        stream.read_to_end(&mut came).unwrap();
        let mut rest = &came[..];
        let reply = Reply::read_one(&mut rest);
        assert!(rest.is_empty(), "{request:?}: it went on: {}", String::from_utf8_lossy(&came));
        reply
    }
}

/// A tunnel, once the proxy said that it stands.
#[track_caller]
fn tunnel(dialer: &Dialer, host: &str) -> TcpStream {
    let mut stream = dialer.dial(PROXY);
    write!(stream, "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    established(&mut stream);
    stream
}

/// Reads the head that says so, and nothing behind it.
#[track_caller]
fn established(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    assert_eq!(String::from_utf8(head).unwrap(), "HTTP/1.1 200 Connection established\r\n\r\n");
}
