//! Decisions of the journal, taken again by the policy of then and by others.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tests::{Finished, World};

const GRANTS: &str = r#"
[[grant]]
api        = "demo"
allow      = ["GET /v1/**"]
credential = "demo-key"
when       = 'request.headers["x-env"] == "canary-of-headers"'

[[grant]]
api        = "demo"
allow      = ["GET /q/**"]
credential = "demo-key"
when       = 'request.query["account"][0] == "canary-of-queries"'

[[grant]]
api        = "demo"
allow      = ["POST /b/**"]
deny       = ["POST /b/no"]
credential = "demo-key"
when       = 'body.name == "canary-of-bodies"'
limit      = "100/min"

[[grant]]
api        = "demo"
allow      = ["websocket /ws"]
credential = "demo-key"

[[grant]]
api        = "demo"
allow      = ["GET /tried"]
credential = "demo-key"
until      = 2020-01-01
mode       = "observe"

[[grant]]
api   = "plain"
allow = ["GET /v1/**"]

[[grant]]
network = ["tcp 203.0.113.10:8080"]
"#;

fn with_grants(grants: &str) -> String {
    format!("unmatched = \"pass\"\n[identity]\nexe = \"{{root}}/bots/curl\"\n{grants}")
}

/// A world in which calls of every kind were made.
fn world() -> World {
    let world = World::new();
    world.policy("policies/curl.toml", &with_grants(GRANTS));
    world.daemon();
    let json = "content-type: application/json";
    let (yes, no) = (r#"{"name": "canary-of-bodies"}"#, r#"{"name": "another"}"#);
    for call in [
        &["-H", "x-env: canary-of-headers", "https://api.test/v1/x"][..],
        &["-H", "x-env: another", "https://api.test/v1/x"],
        &["https://api.test/v1/x"],
        &["https://api.test/q/x?account=canary-of-queries&x=1"],
        &["https://api.test/q/x?account=1"],
        &["https://api.test/q/x"],
        &["-H", json, "-d", yes, "https://api.test/b/x"],
        &["-H", json, "-d", no, "https://api.test/b/x"],
        &["-H", json, "-d", yes, "https://api.test/b/no"],
        &["-d", yes, "https://api.test/b/x"],
        &["--http1.1", "-H", "connection: upgrade", "-H", "upgrade: websocket", "https://api.test/ws"],
        &["https://api.test/ws"],
        &["https://api.test/tried"],
        &["--path-as-is", "https://api.test/v1/a%2fb"],
        &["-X", "TRACE", "https://api.test/v1/x"],
        &["http://plain.test/v1/x"],
        &["-X", "DELETE", "http://plain.test/v1/x"],
        &["https://other.test/v1/x"],
        &["http://other.test/v1/x"],
        &["telnet://203.0.113.10:8080"],
        &["telnet://203.0.113.10:8081"],
        &["--max-time", "1", "tftp://203.0.113.10/x"],
        &["-p", "-x", "http://203.0.113.10:80", "http://other.test:9999/x"],
    ] {
        world.curl(&[&["--max-time", "5"], call].concat());
    }
    world.python(
        "import urllib.request as r\ntry: r.urlopen('https://api.test/v1/x')\nexcept Exception: pass",
        &[],
    );
    world.bot(world.path("elsewhere/curl")).args(["-sS", "https://api.test/v1/x"]).run();
    world.python(
        "import http.client as h\nc = h.HTTPConnection('203.0.113.10', 80)\nc.set_tunnel('other.test', 9999)\n\
         try: c.connect()\nexcept OSError: pass",
        &[],
    );
    assert_eq!(world.terminate(), Some(0));
    world
}

fn replay(world: &World, policies: &Path, more: &[&str]) -> (Finished, Value) {
    let config = world.path("vouchsafe.toml");
    let arguments = ["audit", "replay", "--json", "--policies", policies.to_str().unwrap()];
    let config = ["--config", config.to_str().unwrap()];
    let finished = world.vouchsafe(&[&arguments[..], &config, more].concat());
    let json = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("no JSON: {finished:?}"));
    (finished, json)
}

/// The folder of the live policy, with another text of the bot's.
fn other(world: &World, name: &str, grants: &str) -> std::path::PathBuf {
    let to = world.path(name);
    for folder in ["apis", "credentials", "policies"] {
        fs::create_dir_all(to.join(folder)).unwrap();
        for file in fs::read_dir(world.path("etc").join(folder)).unwrap().map(Result::unwrap) {
            fs::copy(file.path(), to.join(folder).join(file.file_name())).unwrap();
        }
    }
    let text = with_grants(grants).replace("{root}", world.path("").to_str().unwrap().trim_end_matches('/'));
    fs::write(to.join("policies/curl.toml"), text).unwrap();
    to
}

#[test]
fn what_the_live_policy_decided_it_decides_again_from_the_journal_alone() {
    let world = world();
    let records = world.journal();
    let decided = records.iter().filter(|it| it["kind"] == "decision" || it["kind"] == "connection").count();
    let (finished, told) = replay(&world, &world.path("etc"), &[]);
    assert_eq!(finished.code, Some(0), "{told:#}");
    assert_eq!(told["otherwise"], Value::Array(vec![]), "{told:#}");
    assert_eq!(told["cannot_be_said"], Value::Array(vec![]), "{told:#}");
    let number = |key: &str| usize::try_from(told[key].as_u64().unwrap()).unwrap();
    assert_eq!(number("same") + number("not_asked"), decided, "{told:#}");
    assert!(number("same") >= 20, "{told:#}");
    assert_eq!(number("by_this_policy"), decided, "each is tied to the policy that took it: {told:#}");
    // Nothing that a condition looked at is in the journal.
    let text = fs::read_to_string(world.path("state/journal/journal-00000001.jsonl")).unwrap();
    assert!(text.contains("\"conditions\":[{\"at\":\"policies/curl.toml:"), "no condition is recorded");
    let (policy, _) = text.split_once("never").unwrap_or((&text, ""));
    for canary in ["canary-of-headers", "canary-of-queries", "canary-of-bodies", tests::CANARY] {
        assert!(!policy.contains(canary), "{canary} is in the journal");
    }
    let (some, told) = replay(&world, &world.path("etc"), &["--identity", "python"]);
    assert_eq!((some.code, &told["same"]), (Some(0), &2.into()), "{told:#}");
    let (some, told) = replay(&world, &world.path("etc"), &["--since", "2200-01-01"]);
    assert_eq!((some.code, &told["same"]), (Some(0), &0.into()), "{told:#}");
}

#[test]
fn another_policy_is_told_by_what_it_would_decide_otherwise_and_never_by_guesses() {
    let world = world();
    // The first condition asks for something else of the headers; bodies are not allowed; what was tried goes on.
    let grants = GRANTS
        .replace("== \"canary-of-headers\"", "== \"another\"")
        .replace("POST /b/**", "PUT /b/**")
        .replace("until      = 2020-01-01\nmode       = \"observe\"\n", "");
    let (finished, told) = replay(&world, &other(&world, "other", &grants), &[]);
    assert_eq!(finished.code, Some(1), "{told:#}");
    let changes: Vec<(&str, u64, &str)> = told["otherwise"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            assert_eq!(it["identity"], "curl", "{it}");
            let then = it["then"]["rule"].as_str().unwrap();
            (it["change"].as_str().unwrap(), it["count"].as_u64().unwrap(), then.split(' ').next().unwrap())
        })
        .collect();
    assert_eq!(changes, [("allow -> deny", 1, "\"POST"), ("observe -> allow", 1, "\"GET")], "{told:#}");
    let unknown = told["cannot_be_said"].as_array().unwrap();
    let count: u64 = unknown.iter().map(|it| it["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 3, "the three about the header: {told:#}");
    assert!(unknown[0]["why"].as_str().unwrap().contains("not recorded (policies/curl.toml:"), "{told:#}");
    let id = told["otherwise"][0]["examples"][0].as_str().unwrap();
    let record = world.journal().into_iter().find(|it| it["id"] == id && it["kind"] == "decision").unwrap();
    assert_eq!(record["path"], "/b/x");
    // For people, and where only guesses would be left.
    let header = other(&world, "header", &GRANTS.replace("== \"canary-of-headers\"", "== \"another\""));
    let page = world.vouchsafe(&["audit", "replay", "--policies", header.to_str().unwrap()]);
    assert_eq!(page.code, Some(3), "{page:?}");
    assert!(page.stdout.contains("3 decisions: it hangs on a condition that was not asked then"), "{page:?}");
    let broken = world.path("broken");
    let page = world.vouchsafe(&["audit", "replay", "--policies", broken.to_str().unwrap()]);
    assert_eq!(page.code, Some(2), "{page:?}");
}

/// The folder of the live policy, with another file in it.
fn with_file(world: &World, name: &str, file: &str, text: &str) -> std::path::PathBuf {
    let to = other(world, name, GRANTS);
    let root = world.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    fs::write(to.join(file), text.replace("{root}", &root)).unwrap();
    to
}

fn sum(told: &Value, of: &str) -> u64 {
    told[of].as_array().unwrap().iter().map(|it| it["count"].as_u64().unwrap()).sum()
}

#[test]
fn who_would_call_by_another_identity_is_judged_by_what_was_recorded_of_the_process() {
    let world = world();
    let free = "[[grant]]\napi = \"demo\"\nallow = [\"GET /v1/**\"]\ncredential = \"demo-key\"\n";
    // Who is curl now is the one from elsewhere.
    let identity = "[identity]\nexe = \"{root}/elsewhere/curl\"\nuser = \"root\"\n";
    let moved = with_file(&world, "moved", "policies/curl.toml", &format!("{identity}{free}"));
    let (finished, told) = replay(&world, &moved, &[]);
    assert_eq!((finished.code, sum(&told, "cannot_be_said")), (Some(1), 0), "{told:#}");
    assert_eq!(told["judged_as_then"], 0, "{told:#}");
    let all = told["otherwise"].as_array().unwrap();
    let gained: Vec<_> = all.iter().filter(|it| it["change"] == "deny -> allow").collect();
    assert!(gained.len() == 1 && gained[0]["count"] == 1, "{told:#}");
    assert_eq!(
        (&gained[0]["then"]["identity"], &gained[0]["now"]["identity"]),
        (&Value::Null, &"curl".into())
    );
    let lost: Vec<_> = all.iter().filter(|it| it["change"] == "allow -> deny").collect();
    assert!(!lost.is_empty() && lost.iter().all(|it| it["identity"] == "curl"), "{told:#}");
    assert!(lost.iter().all(|it| it["now"]["identity"].is_null() && it["now"]["rule"] == "unknown-workload"));
    let page = world.vouchsafe(&["audit", "replay", "--policies", moved.to_str().unwrap()]).stdout;
    assert!(page.contains("    now  curl by \"GET /v1/**\"") && page.contains("now  nobody by "), "{page}");

    // What asks the same is the same, by whatever name.
    let etc = world.path("etc/policies/curl.toml");
    let renamed = with_file(&world, "renamed", "policies/courier.toml", &fs::read_to_string(etc).unwrap());
    fs::remove_file(renamed.join("policies/curl.toml")).unwrap();
    let (_, told) = replay(&world, &renamed, &[]);
    assert_eq!(sum(&told, "cannot_be_said"), 0, "{told:#}");
    let changed = |it: &Value| it["change"] == "other identity" && it["now"]["identity"] == "courier";
    assert!(told["otherwise"].as_array().unwrap().iter().all(changed), "{told:#}");
    assert!(sum(&told, "otherwise") >= 5, "{told:#}");

    // Nobody asked for the digest then.
    let digest = "a".repeat(64);
    let pinned = with_file(
        &world,
        "pinned",
        "policies/curl.toml",
        &format!("[identity]\nexe = \"{{root}}/bots/curl\"\nsha256 = \"{digest}\"\n{free}"),
    );
    let (finished, told) = replay(&world, &pinned, &[]);
    assert_eq!(finished.code, Some(3), "{told:#}");
    let all = told["cannot_be_said"].as_array().unwrap();
    let why = "whether it would be curl hangs on sha256, which is not recorded (policies/curl.toml)";
    assert!(all.iter().all(|it| it["why"] == why), "{told:#}");
}

#[test]
fn a_tunnel_that_was_refused_by_its_name_is_judged_where_no_address_is_needed() {
    let world = world();
    let tunnels: Vec<Value> = world
        .journal()
        .into_iter()
        .filter(|it| it["method"] == "CONNECT" && it["kind"] == "decision")
        .collect();
    let of = |identity: &str| tunnels.iter().find(|it| it["identity"] == identity).unwrap().clone();
    assert_eq!(
        (&of("python")["basis"]["of"], &of("python")["dst"]),
        (&"network".into(), &"0.0.0.0:9999".into())
    );
    assert_ne!(of("curl")["dst"], "0.0.0.0:9999", "it has network grants, so the address was looked up");
    let python = fs::read_to_string(world.path("etc/policies/python.toml")).unwrap();
    let grant = "\n[[grant]]\nnetwork = [\"tcp 203.0.113.0/24:9999\"]\n";
    let open = with_file(&world, "open", "policies/python.toml", &format!("{python}{grant}"));
    let (finished, told) = replay(&world, &open, &["--identity", "python"]);
    assert_eq!((finished.code, &told["same"]), (Some(3), &1.into()), "{told:#}");
    assert!(
        told["cannot_be_said"][0]["why"].as_str().unwrap().contains("without looking up its host"),
        "{told:#}"
    );
}
