//! At which address an API is: the one that the bot chose, as far as the policy lets it be there; and others of its host when nobody
//! answers.

use std::fs;
use std::time::Instant;

use serde_json::Value;
use tests::upstream::{Proof, Upstream};
use tests::{ADDRESS, ADDRESS6, CANARY, RAW_ADDRESS, World, wait_until};

use super::trouble::outcome;

/// An address at which nobody is.
const NOBODY: &str = "203.0.113.12";
/// The same over IPv6.
const NOBODY6: &str = "2001:db8::12";
/// A private address.
const PRIVATE: &str = "10.9.8.7";
/// The metadata server of most clouds.
const METADATA: &str = "169.254.169.254";
/// The problem of a call that may not go where it was to go.
const REFUSED: &str = "urn:vouchsafe:problem:address-refused";

/// Brings up an address and starts a server there, which notes what it gets in `log`.
fn serve(world: &World, address: &str, port: u16, log: &str) {
    if address != RAW_ADDRESS {
        let added =
            world.enter(None).args(["ip", "addr", "add", &format!("{address}/32"), "dev", "lo"]).status();
        assert!(added.unwrap().success(), "{address}");
    }
    world.write("server.py", include_str!("addresses/server.py"));
    let arguments = ["server.py", address, &port.to_string(), log];
    world.server(&format!("{log}-server"), "/usr/bin/python3", &arguments, &format!("{address}:{port}"));
}

/// What a server noted.
fn seen(world: &World, log: &str) -> Vec<Value> {
    let text = fs::read_to_string(world.path(log)).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Has a name mean these addresses alone.
fn points(world: &World, name: &str, addresses: &[&str]) {
    let hosts = fs::read_to_string(world.path("hosts")).unwrap();
    let mut lines: Vec<String> = addresses.iter().map(|address| format!("{address} {name}")).collect();
    for line in hosts.lines() {
        let words: Vec<&str> = line.split_whitespace().filter(|word| *word != name).collect();
        if words.len() > 1 {
            lines.push(words.join(" "));
        }
    }
    // In place: it is mounted over /etc/hosts.
    fs::write(world.path("hosts"), lines.join("\n") + "\n").unwrap();
}

/// The APIs of the world, which say this of their addresses.
fn apis(world: &World, addresses: &str) {
    world.policy(
        "apis/apis.toml",
        &format!(
            "[api.demo]\nhosts = [\"api.test\", \"raw.test\"]\n{addresses}\n\
             inject = {{ header = \"authorization\", value = \"Bearer {{secret}}\" }}\n\n\
             [api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\n{addresses} # addresses = said\n"
        ),
    );
}

/// A world with a running daemon whose APIs say this.
fn world(addresses: &str) -> World {
    let world = World::new();
    apis(&world, addresses);
    world.daemon();
    world
}

/// Calls an API with its name pinned to this address, as a hosts file of the bot would do it.
fn call(world: &World, name: &str, address: &str, path: &str) -> tests::Answer {
    let resolve = format!("{name}:443:{address}");
    world.curl(&["--resolve", &resolve, &format!("https://{name}{path}")])
}

#[test]
fn an_api_at_a_private_address_is_refused_until_its_policy_says_so_by_the_line_that_the_refusal_names() {
    let world = world("");
    serve(&world, PRIVATE, 443, "private");
    for address in [PRIVATE, &format!("[::ffff:{PRIVATE}]")] {
        let answer = call(&world, "api.test", address, "/v1/private");
        assert_eq!((answer.status, &answer.json()["type"]), (403, &Value::from(REFUSED)), "{answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        let line = "addresses = [\"public\", \"10.9.8.7\"]";
        let told = format!(
            "calls to demo do not go there: 10.9.8.7 is private; if it is there, write {line} below [api.demo] \
             (apis/apis.toml:1), or \"private\" for all such addresses"
        );
        assert_eq!(detail, told);
        let decision = world.decision(Some("/v1/private"));
        let (verdict, reason) = (&decision["verdict"], decision["reason"].as_str().unwrap());
        assert_eq!((verdict, reason), (&"deny".into(), detail.as_str()), "{decision}");
        assert_eq!((&decision["dst"], &decision["credential"]), (&"10.9.8.7:443".into(), &Value::Null));
    }
    assert!(seen(&world, "private").is_empty());
    let id = world.decision(Some("/v1/private"))["id"].as_str().unwrap().to_owned();
    let told = world.vouchsafe(&["why", &id]).stdout;
    assert!(told.contains("  deny: calls to demo do not go there: 10.9.8.7 is private"), "{told}");
    assert!(told.contains("that is the answer of then"), "{told}");

    apis(&world, "addresses = [\"public\", \"10.9.8.7\"]");
    world.wait_for_generation(2);
    let answer = call(&world, "api.test", PRIVATE, "/v1/permitted");
    assert_eq!((answer.status, answer.body.as_str()), (200, "here"), "{answer:?}");
    let bearer = format!("Bearer {CANARY}");
    assert_eq!(seen(&world, "private")[0]["authorization"], bearer);
    let told = world.vouchsafe(&["why", &id]).stdout;
    assert!(
        told.contains("allow: allowed by") && told.contains("that is another answer than then"),
        "{told}"
    );

    // Taken back, it counts for connections that are open as well.
    apis(&world, "addresses = [\"public\"]");
    world.wait_for_generation(3);
    assert_eq!(call(&world, "api.test", PRIVATE, "/v1/again").status, 403);
    assert_eq!(seen(&world, "private").len(), 1);
}

#[test]
fn a_metadata_server_is_refused_although_its_network_is_permitted_and_is_named_by_its_own_address_alone() {
    let world =
        world("addresses = [\"private\", \"link-local\", \"cgnat\", \"loopback\", \"169.254.0.0/16\"]");
    serve(&world, METADATA, 443, "metadata");
    let answer = call(&world, "api.test", METADATA, "/v1/token");
    assert_eq!((answer.status, &answer.json()["type"]), (403, &Value::from(REFUSED)), "{answer:?}");
    assert!(answer.body.contains("metadata server of AWS"), "{answer:?}");
    assert!(!answer.body.contains("for all such addresses"), "{answer:?}");
    assert!(seen(&world, "metadata").is_empty());
    apis(&world, "addresses = [\"169.254.169.254\"]");
    world.wait_for_generation(2);
    assert_eq!(call(&world, "api.test", METADATA, "/v1/token").status, 200);
}

#[test]
fn no_other_kind_of_address_that_is_not_of_the_internet_gets_a_call() {
    let world = world("");
    for address in [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.1.1",
        "172.16.0.1",
        "192.168.1.1",
        "198.18.0.1",
        ADDRESS,
        "[::1]",
        "[fd00::1]",
        "[2001:db8::10]",
        "[64:ff9b::a00:1]",
        "[2002:a00:1::1]",
    ] {
        let answer = call(&world, "api.test", address, "/v1/x");
        assert_eq!(
            (answer.status, &answer.json()["type"]),
            (403, &Value::from(REFUSED)),
            "{address}: {answer:?}"
        );
    }
    assert!(world.seen().is_empty());
}

#[test]
fn plain_http_goes_to_no_address_that_its_api_does_not_name() {
    let world = world("addresses = [\"203.0.113.0/24\"]");
    serve(&world, PRIVATE, 80, "private");
    let resolve = format!("plain.test:80:{PRIVATE}");
    let answer = world.curl(&["--resolve", &resolve, "http://plain.test/v1/chosen"]);
    assert_eq!((answer.status, &answer.json()["type"]), (403, &Value::from(REFUSED)), "{answer:?}");
    // What the name means to the proxy is looked at, too; the address is for the journal.
    points(&world, "plain.test", &[PRIVATE]);
    let resolve = format!("plain.test:80:{ADDRESS}");
    let answer = world.curl(&["--resolve", &resolve, "http://plain.test/v1/resolved"]);
    assert_eq!((answer.status, &answer.json()["type"]), (403, &Value::from(REFUSED)), "{answer:?}");
    assert!(!answer.body.contains(PRIVATE), "{answer:?}");
    let outcome = outcome(&world, "/v1/resolved");
    let error = outcome["error"].as_str().unwrap();
    assert!(error.contains("10.9.8.7 is private") && error.contains("write addresses = ["), "{error}");
    assert_eq!(outcome["blame"], "policy");
    assert!(seen(&world, "private").is_empty());
}

#[test]
fn a_connection_that_passes_through_goes_where_the_bot_wants_it() {
    let world = world("");
    serve(&world, PRIVATE, 443, "private");
    let file = world.path("etc/policies/curl.toml");
    let text = fs::read_to_string(&file).unwrap();
    world.policy("policies/curl.toml", &format!("unmatched = \"pass\"\n{text}"));
    world.wait_for_generation(2);
    assert_eq!(call(&world, "other.test", PRIVATE, "/v1/passed").status, 200);
    assert_eq!(seen(&world, "private")[0]["authorization"], Value::Null);
}

#[test]
fn what_is_only_observed_goes_on_to_a_private_address_with_nothing_of_ours() {
    let world = world("");
    serve(&world, PRIVATE, 443, "private");
    let text = fs::read_to_string(world.path("etc/policies/curl.toml")).unwrap();
    world.policy("policies/curl.toml", &format!("mode = \"observe\"\n{text}"));
    world.wait_for_generation(2);
    assert_eq!(call(&world, "api.test", PRIVATE, "/v1/observed").status, 200);
    let decision = world.decision(Some("/v1/observed"));
    let reason = decision["reason"].as_str().unwrap();
    assert_eq!((&decision["verdict"], &decision["observed"]), (&"allow".into(), &true.into()), "{decision}");
    assert!(reason.contains("would be denied: calls to demo do not go there: 10.9.8.7"), "{reason}");
    assert_eq!(
        (&decision["credential"], &seen(&world, "private")[0]["authorization"]),
        (&Value::Null, &Value::Null)
    );
}

#[test]
fn when_the_chosen_address_is_dead_another_one_of_the_host_serves_and_the_journal_names_it() {
    let world = World::start();
    // Refused, unreachable, and over either family.
    let v6 = format!("[{NOBODY6}]");
    for (at, chosen) in [RAW_ADDRESS, NOBODY, &v6].into_iter().enumerate() {
        let path = format!("/v1/elsewhere{at}");
        let answer = call(&world, "api.test", chosen, &path);
        assert_eq!(
            (answer.status, &answer.json()["key"]),
            (200, &Value::from("ours")),
            "{chosen}: {answer:?}"
        );
        let outcome = outcome(&world, &path);
        // The other family is first.
        let expected = if chosen == v6 { format!("{ADDRESS}:443") } else { format!("[{ADDRESS6}]:443") };
        assert_eq!(outcome["upstream"], expected, "{outcome}");
        assert_eq!(world.decision(Some(&path))["dst"], format!("{chosen}:443"));
    }
    let locals: Vec<Value> = world.seen_at_least(3).iter().map(|seen| seen["local"].clone()).collect();
    assert_eq!(locals, [ADDRESS6, ADDRESS6, ADDRESS]);
}

#[test]
fn a_bot_whose_ipv6_leads_nowhere_is_served_over_ipv4() {
    let world = World::start();
    points(&world, "api.test", &[NOBODY6, ADDRESS]);
    points(&world, "plain.test", &[NOBODY6, ADDRESS]);
    // As the bot does by itself: it takes the first address, and is connected at once.
    for url in ["https://api.test/v1/tls", "http://plain.test/v1/plain"] {
        assert_eq!(world.curl(&["-6", url]).status, 200, "{url}");
    }
    assert_eq!(outcome(&world, "/v1/tls")["upstream"], format!("{ADDRESS}:443"));
    assert_eq!(outcome(&world, "/v1/plain")["upstream"], format!("{ADDRESS}:80"));
}

#[test]
fn an_address_that_answers_nothing_costs_a_moment_and_not_the_call() {
    let world = World::start();
    world.write("server.py", include_str!("addresses/server.py"));
    let arguments = ["server.py", RAW_ADDRESS, "443", "silent", "silent"];
    world.server("silent-server", "/usr/bin/python3", &arguments, &format!("{RAW_ADDRESS}:443"));
    wait_until("a full queue", || world.path("silent.full").exists().then_some(()));
    let began = Instant::now();
    let answer = call(&world, "api.test", RAW_ADDRESS, "/v1/silent");
    assert_eq!(answer.status, 200, "{answer:?}");
    // The limit of connecting is 10 s, and the kernel would go on for minutes.
    assert!(began.elapsed().as_secs() < 8, "{:?}", began.elapsed());
    assert_eq!(outcome(&world, "/v1/silent")["upstream"], format!("[{ADDRESS6}]:443"));
}

#[test]
fn a_connection_to_another_address_is_used_again_by_those_who_chose_the_same() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    for path in ["/v1/one", "/v1/two"] {
        assert_eq!(call(&world, "raw.test", NOBODY, path).status, 200);
        assert_eq!(outcome(&world, path)["upstream"], format!("{RAW_ADDRESS}:443"));
    }
    assert_eq!((upstream.count(), upstream.connections()), (2, 1));
}

#[test]
fn the_address_that_the_bot_chose_counts_while_somebody_answers_there_whatever_the_name_means_to_us() {
    let world = World::start();
    let elsewhere = Upstream::http1(&world);
    points(&world, "api.test", &[RAW_ADDRESS]);
    let answer = call(&world, "api.test", ADDRESS, "/v1/pinned");
    assert_eq!((answer.status, &answer.json()["key"]), (200, &Value::from("ours")), "{answer:?}");
    assert_eq!(outcome(&world, "/v1/pinned")["upstream"], format!("{ADDRESS}:443"));
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn a_name_that_resolves_to_somebody_else_costs_the_call_and_nothing_of_it_is_sent() {
    let world = World::start();
    let stranger = Upstream::start(&world, Proof::SelfSigned, &["http/1.1"]);
    points(&world, "api.test", &[RAW_ADDRESS]);
    let answer = call(&world, "api.test", NOBODY, "/v1/wrong");
    assert_eq!(answer.json()["type"], "urn:vouchsafe:problem:upstream-untrusted", "{answer:?}");
    let outcome = outcome(&world, "/v1/wrong");
    assert_eq!(outcome["upstream"], format!("{RAW_ADDRESS}:443"), "{outcome}");
    assert!(stranger.connections() > 0, "it was not even tried");
    assert_eq!((stranger.handshakes(), stranger.count()), (0, 0));
}

#[test]
fn a_name_that_resolves_to_a_private_or_a_metadata_address_is_not_followed_there() {
    let world = World::start();
    serve(&world, PRIVATE, 443, "private");
    serve(&world, METADATA, 443, "metadata");
    points(&world, "api.test", &[PRIVATE, METADATA, "127.0.0.1"]);
    let answer = call(&world, "api.test", NOBODY, "/v1/rebound");
    assert_eq!(answer.json()["type"], "urn:vouchsafe:problem:upstream-unreachable", "{answer:?}");
    assert!(!answer.body.contains(PRIVATE), "{answer:?}");
    let error = outcome(&world, "/v1/rebound")["error"].as_str().unwrap().to_owned();
    assert!(error.contains(NOBODY) && error.contains("10.9.8.7 is private, so it was not tried"), "{error}");
    assert!(seen(&world, "private").is_empty() && seen(&world, "metadata").is_empty());
}

#[test]
fn every_request_of_a_connection_names_the_host_of_its_handshake() {
    let world = World::start();
    for version in ["--http1.1", "--http2"] {
        let before = world.seen().len();
        let shape = "%{num_connects} %{http_code} %{http_version}\n";
        let good = ["-sS", "-o", "/dev/null", "-w", shape, version, "https://api.test/v1/good"];
        let other = ["-H", "Host: raw.test", "https://api.test/v1/other"];
        let arguments = good.iter().chain(&["--next"]).chain(&good[..6]).chain(&other);
        let told = world.bot("curl").args(arguments.chain(&["--next"]).chain(&good)).run();
        let lines: Vec<&str> = told.stdout.lines().collect();
        let http = if version == "--http2" { "2" } else { "1.1" };
        // On one connection; raw.test is a host of the same API, and this is not its certificate.
        let expected = [format!("1 200 {http}"), format!("0 421 {http}"), format!("0 200 {http}")];
        assert_eq!(lines, expected, "{told:?}");
        world.seen_at_least(before + 2);
    }
    assert!(world.seen().iter().all(|seen| seen["uri"] != "/v1/other"));
}

#[test]
fn a_handshake_without_a_name_is_for_the_address_and_the_upstream_must_prove_that() {
    let world = World::new();
    world.policy(
        "apis/apis.toml",
        &format!(
            "[api.demo]\nhosts = [\"{ADDRESS}\", \"{NOBODY}\"]\n\
             inject = {{ header = \"authorization\", value = \"Bearer {{secret}}\" }}\n\
             [api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\n"
        ),
    );
    world.daemon();
    serve(&world, NOBODY, 443, "stranger");
    // The certificate of the servers names the one address, and not the other.
    let answer = world.curl(&[&format!("https://{ADDRESS}/v1/x")]);
    assert_eq!((answer.status, &answer.json()["key"]), (200, &Value::from("ours")), "{answer:?}");
    let answer = world.curl(&[&format!("https://{NOBODY}/v1/x")]);
    assert_eq!(answer.json()["type"], "urn:vouchsafe:problem:upstream-untrusted", "{answer:?}");
    assert!(seen(&world, "stranger").is_empty());
}
