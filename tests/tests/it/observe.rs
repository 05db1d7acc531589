//! `mode = "observe"` of the whole host: nothing is denied by policy, everything that would be is recorded, nothing of ours is given away.

use serde_json::Value;
use tests::{STOLEN, World, wait_until};

const GRANTS: &str = r#"
[[grant]]
api        = "demo"
allow      = ["GET /v1/**"]
deny       = ["GET /v1/no"]
credential = "demo-key"

[[grant]]
api        = "demo"
allow      = ["GET /limited"]
credential = "demo-key"
limit      = "1/day"
"#;

fn world() -> World {
    let world = World::new();
    world.without_identities();
    world.policy("policies/curl.toml", &format!("[identity]\nexe = \"{{root}}/bots/curl\"\n{GRANTS}"));
    // Both match the one program, by different conditions.
    world.copy("/usr/bin/curl", "bots/several");
    world.policy("policies/one.toml", "[identity]\nexe = \"{root}/bots/*veral\"\n");
    world.policy("policies/two.toml", "[identity]\nexe = \"{root}/bots/sever*\"\n");
    world.set("mode", "\"observe\"");
    world.daemon();
    world
}

#[track_caller]
fn observed(record: &Value, why: &str) {
    assert_eq!((&record["verdict"], &record["observed"]), (&"allow".into(), &true.into()), "{record:#}");
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.starts_with("observed, would be denied: ") && reason.contains(why), "{record:#}");
    assert_eq!(record["basis"]["host_observes"], true, "{record:#}");
}

#[test]
fn calls_that_would_be_denied_go_on_untouched_on_a_host_that_observes_and_the_rest_is_as_ever() {
    let world = world();
    let header = format!("Authorization: Bearer {STOLEN}");
    let ask = |path: &str| world.curl(&["-H", &header, &format!("https://api.test{path}")]);
    let key = |path: &str| ask(path).json()["key"].clone();
    // What is allowed is allowed, with our key.
    assert_eq!(key("/v1/x"), "ours");
    assert_eq!(world.decision(Some("/v1/x"))["observed"], Value::Null);
    // What nothing allows goes on with what the bot brought.
    ask("/other");
    let record = world.decision(Some("/other"));
    observed(&record, "no grant");
    assert_eq!(record["credential"], Value::Null);
    assert_eq!(world.seen_at_least(2)[1]["authorization"], format!("Bearer {STOLEN}"));
    // An allow that a deny stands against keeps its key; so does a call that a limit would refuse.
    assert_eq!(key("/v1/no"), "ours");
    observed(&world.decision(Some("/v1/no")), "denied by");
    assert_eq!(key("/limited"), "ours");
    assert_eq!(world.decision(Some("/limited"))["observed"], Value::Null);
    assert_eq!(key("/limited"), "ours");
    let record = wait_until("the second call", || {
        Some(world.decision(Some("/limited"))).filter(|record| record["observed"] == true)
    });
    observed(&record, "is used up");
    // A workload without an identity, and one with several: nothing of ours, and nothing taken.
    let before = world.seen().len();
    for (program, why) in
        [(world.path("elsewhere/curl"), "no identity matches"), (world.path("bots/several"), "one, two")]
    {
        let url = format!("https://api.test/v1/{}", why.len());
        let answer = world.bot(&program).curl(&["-H", &header, &url]);
        assert_eq!(answer.json()["key"], "stolen", "{answer:?}");
        let record = world.decision(Some(&format!("/v1/{}", why.len())));
        observed(&record, why);
        assert_eq!((&record["identity"], &record["credential"]), (&Value::Null, &Value::Null), "{record:#}");
    }
    for seen in &world.seen_at_least(before + 2)[before..] {
        assert_eq!(seen["authorization"], format!("Bearer {STOLEN}"), "{seen}");
    }
    // Hosts that no API names.
    assert_eq!(world.curl(&["https://other.test/v1/x"]).status, 401);
    observed(
        &world.record("decision", |record| record["host"] == "other.test"),
        "no API of the policy names it",
    );
    // What is no matter of the policy is refused as ever.
    assert_eq!(world.curl(&["--path-as-is", "https://api.test/v1/a%2fb"]).status, 400);
    assert_eq!(world.curl(&["-X", "TRACE", "https://api.test/v1/x"]).status, 405);
}

#[test]
fn a_host_that_observes_says_so_wherever_it_is_asked_and_its_decisions_can_be_replayed() {
    let world = world();
    world.curl(&["https://api.test/v1/x"]);
    world.curl(&["https://api.test/other"]);
    world.curl(&["https://api.test/limited"]);
    world.curl(&["https://api.test/limited"]);
    world.bot(world.path("elsewhere/curl")).curl(&["https://api.test/v1/x"]);
    let status = world.status();
    assert_eq!(
        (&status["observes"], &status["unidentified"]),
        (&true.into(), &"observe".into()),
        "{status:#}"
    );
    assert_eq!(status["policy"]["identities"][0]["mode"], "observe");
    let page = world.vouchsafe(&["status"]);
    assert!(page.stdout.starts_with("problem   mode: nothing is denied by policy on this host"), "{page:?}");
    assert!(world.log().contains("nothing is denied by policy on this host"));
    assert_eq!(world.record("start", |_| true)["observes"], true);
    // After a reload, too.
    world.policy("policies/curl.toml", "[identity]\nexe = \"{root}/bots/curl\"\n");
    world.record("policy", |record| record["generation"] == 2);
    world.curl(&["https://api.test/v1/after"]);
    observed(&world.decision(Some("/v1/after")), "no grant for demo");
    world.policy("policies/curl.toml", &format!("[identity]\nexe = \"{{root}}/bots/curl\"\n{GRANTS}"));
    world.record("policy", |record| record["generation"] == 3);
    let etc = world.path("etc");
    let replayed = world.vouchsafe(&["audit", "replay", "--json", "--policies", etc.to_str().unwrap()]);
    let told: Value = serde_json::from_str(&replayed.stdout).unwrap();
    assert_eq!(told["cannot_be_said"], Value::Array(vec![]), "{told:#}");
    assert_eq!(told["same"], 5, "{told:#}");
    assert_eq!(told["otherwise"][0]["change"], "observe -> allow", "the one after the reload: {told:#}");
}

const SERVER: &str = r"
import socket, threading
def tcp(port):
    server = socket.create_server(('203.0.113.10', port))
    while True:
        stream, _ = server.accept()
        stream.sendall(b'hello'); stream.close()
threading.Thread(target=tcp, args=(5432,), daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(('203.0.113.10', 5353))
threading.Thread(target=tcp, args=(5433,), daemon=True).start()
while True:
    _, who = udp.recvfrom(100)
    udp.sendto(b'hello', who)
";

const CLIENT: &str = r"
import socket, sys, time
for port in (5432, 5433):
    stream = socket.create_connection(('203.0.113.10', port), timeout=5)
    print(stream.recv(5).decode())
for turn in range(50):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.settimeout(0.2)
    try:
        udp.sendto(b'x', ('203.0.113.10', 5353))
        print(udp.recv(5).decode())
        break
    except OSError:
        time.sleep(0.1)
";

#[test]
fn traffic_past_the_proxy_that_would_be_denied_goes_on_and_is_told_on_a_host_that_observes() {
    let world = world();
    world.server("server", "/usr/bin/python3", &["-c", SERVER], "203.0.113.10:5433");
    let said = world.python(CLIENT, &[]);
    assert_eq!(said.stdout.lines().collect::<Vec<_>>(), ["hello"; 3], "{said:?}");
    for port in [5432, 5433, 5353] {
        let record = wait_until("a record of it", || {
            world.journal().into_iter().find(|record| {
                let kind = &record["kind"];
                (kind == "decision" || kind == "connection")
                    && record["dst"] == format!("203.0.113.10:{port}")
                    && record["observed"] == true
            })
        });
        observed(&record, "no identity matches");
    }
    // Another that has an identity.
    let said = world.bot("curl").args(["-sS", "telnet://203.0.113.10:5432"]).run();
    assert_eq!(said.stdout, "hello", "{said:?}");
    let record = wait_until("a record of it", || {
        world.journal().into_iter().find(|record| record["identity"] == "curl" && record["observed"] == true)
    });
    observed(&record, "no network grant allows it");
}
