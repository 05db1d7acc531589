//! What calls get: with the credential, by whom, over which protocol, and what is refused how.

use std::fs;

use serde_json::Value;
use tests::{STOLEN, World, wait_until};

const FETCH: &str = "
import sys, urllib.request, urllib.error
request = urllib.request.Request(sys.argv[2], method=sys.argv[1])
try:
    answer = urllib.request.urlopen(request, timeout=20)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.headers['content-type'], answer.read().decode())
";

#[test]
fn a_python_script_gets_200_without_a_key_and_403_with_a_reason_for_what_is_not_granted() {
    let world = World::start();
    let told = world.python(FETCH, &["GET", "https://api.test/v1/x"]);
    assert!(told.stdout.starts_with("200 "), "{told:?}");
    assert!(told.stdout.contains("\"key\":\"ours\""), "{told:?}");
    let told = world.python(FETCH, &["DELETE", "https://api.test/v1/x"]);
    assert!(told.stdout.starts_with("403 application/problem+json"), "{told:?}");
    assert!(told.stdout.contains("python may not DELETE /v1/x"), "{told:?}");
    assert_eq!(world.seen().len(), 1, "the API saw the call that was refused");
}

#[test]
fn a_refusal_names_its_journal_record_and_the_record_the_process() {
    let world = World::start();
    let answer = world.curl(&["-X", "POST", "https://api.test/v1/x?token=not-for-the-journal"]);
    assert_eq!(
        (answer.status, answer.content_type.as_str()),
        (403, "application/problem+json"),
        "{answer:?}"
    );
    let id = answer.journal_id().expect("the refusal names its record");
    let record = world.record("decision", |record| record["id"] == id.as_str());
    assert_eq!((&record["verdict"], &record["identity"]), (&Value::from("deny"), &Value::from("curl")));
    assert_eq!(record["workload"]["exe"], world.path("bots/curl").to_str().unwrap());
    assert_eq!((&record["path"], &record["has_query"]), (&Value::from("/v1/x"), &Value::from(true)));
    assert!(
        !fs::read_to_string(world.path("state/journal/journal-00000001.jsonl"))
            .unwrap()
            .contains("not-for-the")
    );
}

#[test]
fn a_key_that_the_bot_brings_is_replaced_and_reaches_nobody() {
    let world = World::start();
    let header = format!("Authorization: Bearer {STOLEN}");
    for option in ["--http1.1", "--http2"] {
        let answer = world.curl(&[option, "-H", &header, "https://api.test/v1/x"]);
        assert_eq!((answer.status, &answer.json()["key"]), (200, &Value::from("ours")), "{answer:?}");
    }
    for seen in world.seen_at_least(2) {
        assert!(!seen.to_string().contains(STOLEN), "{seen}");
    }
}

#[test]
fn deny_wins_over_the_allow_that_covers_it_in_every_spelling_of_the_path() {
    let world = World::start();
    for path in ["/v1/forbidden/x", "/v1/a/../forbidden/x", "/v1//forbidden/x", "/v1/%66orbidden/x"] {
        let answer = world.curl(&["--path-as-is", &format!("https://api.test{path}")]);
        assert_eq!(answer.status, 403, "{path}: {answer:?}");
    }
    for path in ["/v1/a%2f..%2fforbidden/x", "/v1/..;/x", "/v1/%252e%252e/x", "/v1/%00"] {
        let answer = world.curl(&["--path-as-is", &format!("https://api.test{path}")]);
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
    }
    assert!(world.seen().is_empty());
}

#[test]
fn a_program_that_no_policy_knows_is_denied_with_a_reason_and_recorded() {
    let world = World::start();
    let answer = world.bot(world.path("elsewhere/curl")).curl(&["https://api.test/v1/x"]);
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("no identity"), "{answer:?}");
    assert_eq!(world.decision(Some("/v1/x"))["identity"], Value::Null);
    // To a host that no API names there is not even a certificate.
    let answer = world.bot(world.path("elsewhere/curl")).curl(&["https://other.test/"]);
    assert_eq!((answer.status, answer.code), (0, Some(35)), "{answer:?}");
    assert!(world.seen().is_empty());
}

#[test]
fn unidentified_programs_pass_undecrypted_only_when_the_host_says_so_and_never_with_a_key() {
    let world = World::new();
    world.set("unidentified", "\"pass\"");
    world.daemon();
    let stranger = || world.bot(world.path("elsewhere/curl"));
    assert_eq!(stranger().curl(&["https://other.test/v1/x"]).status, 401, "the server itself, without a key");
    assert_eq!(stranger().curl(&["https://api.test/v1/x"]).status, 403, "never to an API");
    let record = world.record("decision", |record| record["host"] == "other.test");
    assert_eq!(record["verdict"], "allow");
    assert!(world.status()["mode"].as_str().unwrap().contains("PASS"), "status says so loudly");
}

#[test]
fn ipv6_and_v4_mapped_calls_are_mediated_like_ipv4() {
    let world = World::start();
    for address in ["203.0.113.10", "[2001:db8::10]", "[::ffff:203.0.113.10]"] {
        let resolve = format!("api.test:443:{address}");
        let answer = world.curl(&["--resolve", &resolve, "https://api.test/v1/x"]);
        assert_eq!(
            (answer.status, &answer.json()["key"]),
            (200, &Value::from("ours")),
            "{address}: {answer:?}"
        );
    }
}

#[test]
fn a_name_that_disagrees_with_the_handshake_is_421() {
    let world = World::start();
    for host in ["raw.test", "other.test", "api.test:8443"] {
        let answer = world.curl(&["-H", &format!("Host: {host}"), "https://api.test/v1/x"]);
        assert_eq!(answer.status, 421, "{host}: {answer:?}");
    }
    let answer = world.curl(&["-H", "Host: API.TEST.", "https://api.test/v1/x"]);
    assert_eq!(answer.status, 200, "the same name in another spelling: {answer:?}");
}

#[test]
fn a_host_that_no_api_names_is_refused_or_passed_undecrypted_as_the_identity_says() {
    let world = World::start();
    let answer = world.curl(&["https://other.test/v1/x"]);
    assert_eq!((answer.status, answer.code), (0, Some(35)), "a TLS alert: {answer:?}");
    let file = world.path("etc/policies/curl.toml");
    let text = fs::read_to_string(&file).unwrap();
    world.policy("policies/curl.toml", &format!("unmatched = \"pass\"\n{text}"));
    world.wait_for_generation(2);
    let answer = world.curl(&["-v", "https://other.test/v1/x"]);
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!(answer.stderr.contains("CA of the test APIs"), "the server's own certificate: {}", answer.stderr);
    assert!(!answer.stderr.contains("Vouchsafe CA"), "{}", answer.stderr);
    let outcome = world.record("outcome", |record| record["bytes_received"].as_u64() > Some(0));
    assert!(outcome["bytes_sent"].as_u64() > Some(0));
}

#[test]
fn plain_http_is_decided_and_recorded_and_carries_no_credential() {
    let world = World::start();
    let answer = world.curl(&["http://plain.test/v1/x"]);
    assert_eq!((answer.status, &answer.json()["authorization"]), (200, &Value::from("")), "{answer:?}");
    assert_eq!(world.curl(&["-X", "DELETE", "http://plain.test/v1/x"]).status, 403);
    // The name counts, not the address: a call for plain.test cannot be made to go elsewhere.
    let answer = world.curl(&["--resolve", "plain.test:80:203.0.113.11", "http://plain.test/v1/elsewhere"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(world.seen_at_least(2)[1]["local"], "203.0.113.10");
    assert_eq!(world.curl(&["http://api.test/v1/x"]).status, 403, "an API that is https only");
}

#[test]
fn a_policy_is_replaced_as_a_whole_or_not_at_all() {
    let world = World::start();
    let good = fs::read_to_string(world.path("etc/policies/curl.toml")).unwrap();
    world.policy("policies/curl.toml", &good.replace("GET|PUT|HEAD", "PUT|HEAD"));
    world.wait_for_generation(2);
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 403, "the change of the folder was noticed");
    world.policy("policies/curl.toml", &good);
    world.wait_for_generation(3);

    // Two files change, one is wrong: neither counts.
    world.policy("policies/python.toml", "[identity]\nexe = \"/bin/true\"\nnonsense = 1\n");
    world.policy("policies/curl.toml", &good.replace("GET|PUT|HEAD", "PUT|HEAD"));
    let errors = wait_until("the refusal in status", || {
        Some(world.status()["policy"]["last_error"].to_string()).filter(|errors| errors != "null")
    });
    assert!(errors.contains("policies/python.toml:3:1") && errors.contains("nonsense"), "{errors}");
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200, "the old policy goes on");
    let told = world.reload();
    assert_eq!(told.code, Some(1), "{told:?}");
    world.record("policy", |record| record["result"] == "refused");
    let told = world.vouchsafe(&["status"]);
    assert!(told.stdout.contains("python.toml:3:1"), "{told:?}");
}

#[test]
fn a_request_on_a_kept_alive_connection_meets_the_new_policy() {
    let world = World::start();
    let script = world.write(
        "keep.py",
        "
import http.client, ssl, sys
connection = http.client.HTTPSConnection('api.test', context=ssl.create_default_context())
def ask():
    connection.request('GET', '/v1/x')
    answer = connection.getresponse(); answer.read()
    print(answer.status, flush=True)
ask()
sys.stdin.readline()
ask()
",
    );
    let bundle = world.path("bots.pem");
    let mut bot = world
        .bot(world.path("bots/python3"))
        .env("SSL_CERT_FILE", bundle.to_str().unwrap())
        .arg(script)
        .spawn();
    assert_eq!(bot.line(), "200");
    let text = fs::read_to_string(world.path("etc/policies/python.toml")).unwrap();
    world.policy("policies/python.toml", &text.replace("GET|PUT|HEAD", "PUT|HEAD"));
    world.wait_for_generation(2);
    bot.say("again");
    assert_eq!(bot.line(), "403");
}

#[test]
fn large_bodies_go_through_whole_in_both_directions_with_flat_memory() {
    let world = World::start();
    let size = 64 << 20;
    let body: Vec<u8> = (0..size).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(world.path("body"), &body).unwrap();
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{}/status", world.daemon_pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    let before = resident();
    for option in ["--http1.1", "--http2"] {
        let (up, down) = (world.path("body"), world.path("down"));
        let url = format!("https://api.test/v1/files/{}", option.trim_matches('-'));
        let answer = world.curl(&[option, "-T", up.to_str().unwrap(), &url]);
        assert!(matches!(answer.status, 201 | 204), "{answer:?}");
        let answer = world.curl(&[option, "-o", down.to_str().unwrap(), &url]);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(fs::read(&down).unwrap() == body, "{option}: the body came back changed");
    }
    let grown = resident() - before;
    assert!(grown < 32 * 1024, "the daemon grew by {grown} kB for bodies of {} kB", size / 1024);
}
