//! `insecure = "loopback"`: a credential over plain HTTP, to a server on this host itself and to nobody else.

use std::fs;

use serde_json::Value;
use tests::{CANARY, RAW_ADDRESS, STOLEN, World};

use super::jwt::assert_nowhere;

const RECEIVER: &str = include_str!("receivers/loopback.py");

/// Where there is an API, each with its log: two at loopback addresses, and one that is not although no packet to it leaves the
/// host.
const SERVERS: [(&str, &str); 3] = [("127.0.0.1", "here"), ("::1", "here6"), (RAW_ADDRESS, "away")];

/// A world with these servers, whose bot curl has the key for all of them.
fn world() -> World {
    world_of(&SERVERS)
}

fn world_of(servers: &[(&str, &str)]) -> World {
    let world = World::new();
    world.without_identities();
    world.policy(
        "apis/apis.toml",
        "[api.local]\nscheme = \"http\"\n\
         hosts = [\"127.0.0.1\", \"[::1]\", \"127.0.0.2\", \"local.test\", \"raw.test\", \"203.0.113.11\"]\n\
         inject = { header = \"x-api-key\", value = \"{secret}\" }\n",
    );
    world.policy(
        "credentials/local.toml",
        "[credential.local]\nkind = \"static\"\nsecret = \"vault:demo-key\"\ninsecure = \"loopback\"\napis = [\"local\"]\n",
    );
    grant(&world, "local", "credential = \"local\"");
    world.set("log.level", "\"trace,aya=info,aya_obj=info\"");
    fs::remove_file(world.path("etc/credentials/demo-key.toml")).unwrap();
    points(&world, "127.0.0.1");
    world.write("receiver.py", RECEIVER);
    for &(address, log) in servers {
        let listens = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        world.server(
            log,
            "/usr/bin/python3",
            &["receiver.py", address, CANARY, log],
            &format!("{listens}:80"),
        );
    }
    world
}

/// The identity curl, with these words in its grant.
fn grant(world: &World, api: &str, with: &str) {
    world.policy(
        "policies/curl.toml",
        &format!(
            "[identity]\nexe = \"{{root}}/bots/curl\"\n\n[[grant]]\napi = \"{api}\"\nallow = [\"GET /v1/**\"]\n{with}\n"
        ),
    );
}

/// Has the name `local.test` mean this address.
fn points(world: &World, address: &str) {
    let hosts = fs::read_to_string(world.path("hosts")).unwrap();
    let rest: Vec<&str> = hosts.lines().filter(|line| !line.contains("local.test")).collect();
    // In place: it is mounted over /etc/hosts.
    fs::write(world.path("hosts"), format!("{address} local.test\n{}\n", rest.join("\n"))).unwrap();
}

/// Has the name `local.test` mean both loopback addresses, as `localhost` does nearly everywhere.
fn points_to_both(world: &World) {
    points(world, "127.0.0.1");
    let hosts = fs::read_to_string(world.path("hosts")).unwrap();
    fs::write(world.path("hosts"), format!("::1 local.test\n{hosts}")).unwrap();
}

/// What a server saw.
fn seen(world: &World, log: &str) -> Vec<Value> {
    let text = fs::read_to_string(world.path(log)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[track_caller]
fn assert_refused(answer: &tests::Answer, world: &World) {
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(
        answer.body.contains("the credential local goes over plain HTTP to a loopback address"),
        "{answer:?}"
    );
    assert!(seen(world, "away").is_empty(), "not even connected to: {:?}", seen(world, "away"));
}

#[test]
fn a_server_on_loopback_gets_the_key_that_the_bot_does_not_have() {
    let world = world();
    world.daemon();
    let stolen = format!("x-api-key: {STOLEN}");
    let bearer = format!("authorization: Bearer {STOLEN}");
    for (url, log) in [
        ("http://127.0.0.1/v1/x", "here"),
        ("http://[::1]/v1/x", "here6"),
        ("http://local.test/v1/x", "here"),
    ] {
        let answer = world.curl(&["-H", &stolen, "-H", &bearer, url]);
        assert_eq!(answer.status, 200, "{answer:?}");
        // What the server sends back of it is covered.
        assert!(answer.body.starts_with("key ****") && !answer.body.contains(CANARY), "{answer:?}");
        let seen = seen(&world, log);
        let headers = &seen.last().unwrap()["headers"];
        assert_eq!((&headers["x-api-key"], &headers["authorization"]), (&Value::from(CANARY), &Value::Null));
        let decision = world.decision(Some("/v1/x"));
        assert_eq!((&decision["credential"], &decision["scheme"]), (&"local".into(), &"http".into()));
        let outcome = world.record("outcome", |record| record["id"] == decision["id"]);
        assert_eq!(outcome["reflected"], true, "{outcome}");
        let removed: Vec<_> = outcome["removed"].as_array().unwrap().iter().map(|it| &it["place"]).collect();
        assert_eq!(removed, ["header x-api-key", "header authorization"], "{outcome}");
    }
    // Also over HTTP/2 that begins without TLS the decision is the same: this server does not speak it, and nothing else is tried.
    assert_eq!(world.curl(&["--http2-prior-knowledge", "http://127.0.0.1/v1/x"]).status, 502);
    // Who names another host than the one that is decided on is sent to where that one is.
    let answer = world.curl(&["-H", "host: raw.test", "http://127.0.0.1/v1/x"]);
    assert_refused(&answer, &world);
    assert_nowhere(&world, CANARY);
    assert_nowhere(&world, STOLEN);
}

#[test]
fn no_server_but_one_on_loopback_gets_it_whatever_name_leads_there() {
    let world = world();
    world.daemon();
    for host in ["raw.test", RAW_ADDRESS] {
        assert_refused(&world.curl(&[&format!("http://{host}/v1/x")]), &world);
    }
    // Where the bot believes the host to be does not count.
    assert_refused(&world.curl(&["--resolve", "raw.test:80:127.0.0.1", "http://raw.test/v1/x"]), &world);
    let decision = world.decision(Some("/v1/x"));
    let outcome = world.record("outcome", |record| record["id"] == decision["id"]);
    assert_eq!((&outcome["status"], &outcome["blame"]), (&502.into(), &"host".into()), "{outcome}");
    let told = outcome["error"].as_str().unwrap();
    assert!(told.contains("the credential local") && told.contains("203.0.113.11:80"), "{outcome}");
    // A name that was at home and is so no more: neither a new connection nor one that waits for its next call.
    assert_eq!(world.curl(&["http://local.test/v1/x"]).status, 200);
    points(&world, RAW_ADDRESS);
    assert_refused(&world.curl(&["http://local.test/v1/x"]), &world);
    let answer = world.curl(&["--resolve", "local.test:80:127.0.0.1", "http://local.test/v1/x"]);
    assert_refused(&answer, &world);
    points(&world, "127.0.0.1");
    assert_eq!(world.curl(&["http://local.test/v1/x"]).status, 200);
    assert_nowhere(&world, CANARY);
}

#[test]
fn a_bot_does_not_choose_which_of_the_addresses_of_a_name_gets_the_key() {
    // The server of the API is at one of them; at the other one listens whoever wants to.
    let world = world();
    points_to_both(&world);
    world.daemon();
    for there in ["[::1]", "127.0.0.1"] {
        let answer =
            world.curl(&["--resolve", &format!("local.test:80:{there}"), "http://local.test/v1/chosen"]);
        assert_eq!(answer.status, 502, "{there}: {answer:?}");
        assert!(answer.body.contains("local.test are several; nothing was sent"), "{answer:?}");
    }
    let asked = |log: &str| seen(&world, log).iter().filter(|it| it["path"] == "/v1/chosen").count();
    assert_eq!((asked("here"), asked("here6")), (0, 0));
    let decision = world.decision(Some("/v1/chosen"));
    let outcome = world.record("outcome", |record| record["id"] == decision["id"]);
    let told = outcome["error"].as_str().unwrap();
    assert!(told.contains("127.0.0.1:80") && told.contains("[::1]:80"), "{outcome}");
    // Who says the address says which one.
    assert_eq!(world.curl(&["http://127.0.0.1/v1/x"]).status, 200);
    // One of which leads off this host leads off this host.
    points_to_both(&world);
    let hosts = fs::read_to_string(world.path("hosts")).unwrap();
    fs::write(world.path("hosts"), hosts.replace("::1 local.test", &format!("{RAW_ADDRESS} local.test")))
        .unwrap();
    let answer = world.curl(&["--resolve", "local.test:80:127.0.0.1", "http://local.test/v1/x"]);
    assert_refused(&answer, &world);
}

#[test]
fn a_name_of_two_addresses_leads_to_the_one_that_has_a_server() {
    for server in &SERVERS[..2] {
        let world = world_of(&[*server, SERVERS[2]]);
        points_to_both(&world);
        world.daemon();
        for there in ["127.0.0.1", "[::1]"] {
            let answer =
                world.curl(&["--resolve", &format!("local.test:80:{there}"), "http://local.test/v1/x"]);
            assert_eq!(answer.status, 200, "{server:?} by {there}: {answer:?}");
        }
    }
}

#[test]
fn a_bot_in_another_network_namespace_does_not_get_it_sent_to_the_loopback_of_this_one() {
    let world = world();
    world.daemon();
    let curl = world.path("bots/curl");
    let script = format!(
        "ip link set lo up\n{} -sS -m 10 -w ' %{{http_code}}\\n' http://127.0.0.1/v1/inside\n",
        curl.display()
    );
    let told = world.bot("/usr/bin/unshare").args(["-n", "sh", "-c", &script]).run();
    assert!(told.stdout.ends_with(" 502\n") && told.stdout.contains("the credential local"), "{told:?}");
    assert!(told.stdout.contains("another network namespace"), "{told:?}");
    assert!(seen(&world, "here").is_empty());
    assert_eq!(world.decision(Some("/v1/inside"))["verdict"], "deny");
    assert_eq!(world.curl(&["http://127.0.0.1/v1/home"]).status, 200);
}

#[test]
fn calls_with_it_and_calls_without_share_no_connection() {
    let world = world();
    world.policy("apis/apis.toml", "[api.local]\nscheme = \"http\"\nhosts = [\"127.0.0.1\"]\n");
    // A signature knows its place itself, so that the API says none and others may call it without.
    world.policy(
        "credentials/local.toml",
        "[credential.local]\nkind = \"hmac\"\nsecret = \"vault:demo-key\"\nsign = \"{method} {target}\"\n\
         headers = { x-sign = \"{signature}\" }\ninsecure = \"loopback\"\n",
    );
    let python =
        "[identity]\nexe = \"{root}/bots/python3\"\n\n[[grant]]\napi = \"local\"\nallow = [\"GET /v1/**\"]\n";
    world.policy("policies/python.toml", python);
    world.daemon();
    let without = "import http.client as c\nc = c.HTTPConnection('127.0.0.1')\nc.request('GET', '/v1/without')\n\
                   print(c.getresponse().status)\n";
    for _ in 0..2 {
        assert_eq!(world.python(without, &[]).stdout, "401\n");
        assert_eq!(world.curl(&["http://127.0.0.1/v1/with"]).status, 401);
    }
    let seen = seen(&world, "here");
    let ports = |path: &str| -> Vec<u64> {
        let of = seen.iter().filter(|it| it["path"] == path);
        of.map(|it| it["from"].as_u64().unwrap()).collect()
    };
    let signed = |it: &&Value| it["headers"]["x-sign"].as_str().is_some_and(|sign| sign.len() == 64);
    assert_eq!(seen.iter().filter(signed).count(), 2, "{seen:?}");
    let (with, without) = (ports("/v1/with"), ports("/v1/without"));
    assert!(with[0] == with[1] && without[0] == without[1], "each has one connection: {seen:?}");
    assert_ne!(with[0], without[0], "{seen:?}");
}

#[test]
fn a_policy_that_takes_the_word_back_takes_the_key_back() {
    let world = world();
    world.daemon();
    assert_eq!(world.curl(&["http://127.0.0.1/v1/x"]).status, 200);
    world.policy(
        "credentials/local.toml",
        "[credential.local]\nkind = \"static\"\nsecret = \"vault:demo-key\"\napis = [\"local\"]\n",
    );
    let checked = world.vouchsafe(&["policy", "check", world.path("etc").to_str().unwrap()]);
    assert_eq!(checked.code, Some(1), "{checked:?}");
    let told = format!("{}{}", checked.stdout, checked.stderr);
    assert!(told.contains("the API \"local\" is http, and credentials only go over verified TLS"), "{told}");
    assert!(told.contains("write insecure = \"loopback\" in the credential"), "{told}");
    // The daemon goes on with the policy that was valid.
    assert_ne!(world.reload().code, Some(0));
    assert_eq!(world.curl(&["http://127.0.0.1/v1/x"]).status, 200);
}
