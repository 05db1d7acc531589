//! How much may be called: over the limit nothing reaches the upstream, and the bot is told when to come back.

use std::time::{Duration, Instant};

use tests::upstream::Upstream;
use tests::{World, wait_until};

/// A world whose curl may call the API under these lines of its policy (`identity`), its grant and its API.
fn world(identity: &str, grant: &str, api: &str) -> World {
    let world = World::new();
    world.without_identities();
    world.policy("apis/apis.toml", &apis(api));
    world.policy("policies/curl.toml", &policy("curl", identity, grant));
    world.policy("policies/python.toml", &policy("python3", "", ""));
    world.daemon();
    world
}

fn apis(limits: &str) -> String {
    format!(
        "[api.demo]\nhosts = [\"api.test\", \"raw.test\"]\n{limits}\n\
         inject = {{ header = \"authorization\", value = \"Bearer {{secret}}\" }}\n"
    )
}

fn policy(program: &str, identity: &str, grant: &str) -> String {
    format!(
        "{identity}\n[identity]\nexe = \"{{root}}/bots/{program}\"\n\
         [[grant]]\napi = \"demo\"\nallow = [\"GET /v1/**\"]\ncredential = \"demo-key\"\n{grant}\n\
         [[grant]]\napi = \"demo\"\nallow = [\"GET /other/**\"]\ncredential = \"demo-key\"\n"
    )
}

/// What curl gets for these paths, one after the other.
fn statuses(world: &World, paths: &[&str]) -> Vec<u16> {
    paths.iter().map(|path| world.curl(&[&format!("https://api.test{path}")]).status).collect()
}

/// What python3, which has no limits of its own, gets: the status, and how long it is to wait.
fn python(world: &World, url: &str) -> String {
    let script = "import sys, urllib.request\n\
                  try: print(urllib.request.urlopen(sys.argv[1]).status)\n\
                  except urllib.error.HTTPError as error: print(error.code, error.headers['retry-after'])";
    world.python(script, &[url]).stdout.trim().to_owned()
}

#[test]
fn over_the_rate_a_bot_is_told_when_to_come_back_and_nothing_is_forwarded() {
    let world = world("", "limit = \"60/h burst 3\"", "");
    assert_eq!(statuses(&world, &["/v1/1", "/v1/2", "/v1/3"]), [200, 200, 200]);
    let answer = world.curl(&["-D", "-", "https://api.test/v1/4"]);
    assert_eq!(answer.status, 429);
    let head = answer.body.to_lowercase();
    let after: u64 =
        head.split("retry-after: ").nth(1).unwrap().lines().next().unwrap().trim().parse().unwrap();
    assert!((1..=60).contains(&after), "{head}");
    assert!(head.contains("ratelimit-policy: \"limit\";q=60;w=3600"), "{head}");
    assert!(head.contains(&format!("ratelimit: \"limit\";r=0;t={after}")), "{head}");
    assert!(head.contains("urn:vouchsafe:problem:limit-exceeded"), "{head}");
    let decided = world.decision(Some("/v1/4"));
    assert_eq!((decided["verdict"].as_str(), decided["identity"].as_str()), (Some("deny"), Some("curl")));
    assert_eq!(decided["rule"]["text"], "60/h burst 3");
    assert!(
        decided["reason"].as_str().unwrap().contains("the grant of curl for demo is used up"),
        "{decided}"
    );
    // Another grant of the same identity, and another identity, have nothing to do with it.
    assert_eq!(statuses(&world, &["/other/1"]), [200]);
    assert_eq!(python(&world, "https://api.test/v1/5"), "200");
    assert_eq!(world.seen_at_least(5).len(), 5, "a call over the limit reached the API");
}

#[test]
fn limits_of_the_identity_the_api_and_the_host_hold_at_once() {
    let world = world("limit = \"3/day\"", "", "limit = \"5/day\"\nhost_limit = \"4/day\"");
    assert_eq!(statuses(&world, &["/v1/1", "/other/2", "/v1/3", "/v1/4"]), [200, 200, 200, 429]);
    let reason = world.decision(Some("/v1/4"))["reason"].clone();
    assert!(reason.as_str().unwrap().contains("identity curl"), "{reason}");
    assert_eq!(python(&world, "https://api.test/v1/5"), "200");
    let refused = python(&world, "https://api.test/v1/6");
    assert!(refused.starts_with("429 "), "{refused}");
    let reason = world.decision(Some("/v1/6"))["reason"].clone();
    assert!(reason.as_str().unwrap().contains("host api.test:443"), "{reason}");
    assert_eq!(world.seen_at_least(4).len(), 4);
}

#[test]
fn a_quota_outlives_the_daemon_and_a_reload() {
    let world = world("limit = \"3/month\"", "", "");
    assert_eq!(statuses(&world, &["/v1/1", "/v1/2"]), [200, 200]);
    world.restart();
    assert_eq!(statuses(&world, &["/v1/3", "/v1/4"]), [200, 429]);
    // A wider limit counts what was used of the narrower one.
    let generation = world.status()["policy"]["generation"].as_u64().unwrap();
    world.policy("policies/curl.toml", &policy("curl", "limit = \"4/month\"", ""));
    world.wait_for_generation(generation + 1);
    assert_eq!(statuses(&world, &["/v1/5", "/v1/6"]), [200, 429]);
    // A crash loses at most what its last second used.
    let written = || std::fs::read_to_string(world.path("state/limits.json")).unwrap_or_default();
    wait_until("the quota on the disk", || written().contains("\"amount\": 4").then_some(()));
    world.kill9();
    world.daemon();
    assert_eq!(statuses(&world, &["/v1/7"]), [429]);
}

#[test]
fn a_quota_file_that_is_something_else_keeps_the_daemon_from_starting() {
    let world = World::new();
    world.write("state/limits.json", "{}");
    let said = world.start_fails();
    assert!(said.contains("limits.json") && said.contains("move it away"), "{said}");
}

#[test]
fn bytes_of_a_day_are_counted_both_ways() {
    let world = world("limit = \"64 KiB/day\"", "", "");
    let file = world.path("api/files/v1/files/large");
    std::fs::write(file, vec![b'x'; 100 * 1024]).unwrap();
    assert_eq!(statuses(&world, &["/v1/1", "/v1/files/large"]), [200, 200]);
    wait_until("the end of the call", || (statuses(&world, &["/v1/2"]) == [429]).then_some(()));
}

#[test]
fn who_may_wait_is_served_later_instead_of_refused() {
    let world = world("", "limit = \"120/min burst 1\"\nwait = \"5s\"", "");
    let began = Instant::now();
    assert_eq!(statuses(&world, &["/v1/1", "/v1/2", "/v1/3"]), [200, 200, 200]);
    // One every half second: the third has waited.
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
}

#[test]
fn only_so_many_calls_are_open_at_once_and_a_place_comes_free_with_the_end_of_a_call() {
    let world = world("", "limit = \"2 at once\"", "");
    let upstream = Upstream::http1(&world);
    let hang = |path: &str| {
        let url = format!("https://raw.test{path}");
        world.bot("curl").args(["-sS", "--max-time", "60", &url]).spawn()
    };
    let (mut one, two) = (hang("/v1/1/slow-head"), hang("/v1/2/slow-head"));
    upstream.wait_for(2);
    assert_eq!(statuses(&world, &["/v1/3"]), [429]);
    let reason = world.decision(Some("/v1/3"))["reason"].clone();
    assert!(reason.as_str().unwrap().contains("free again when a call ends"), "{reason}");
    // One client goes away; its place is free.
    drop(two);
    wait_until("a free place", || (statuses(&world, &["/v1/4"]) == [200]).then_some(()));
    upstream.open_gate(2);
    one.rest();
    one.wait();
}

#[test]
fn what_an_upstream_asks_for_holds_for_everybody_with_the_same_credential() {
    let world = world("", "", "");
    let _upstream = Upstream::http1(&world);
    assert_eq!(world.curl(&["https://raw.test/v1/too-many"]).status, 429);
    let answered = python(&world, "https://raw.test/v1/after");
    assert!(answered.starts_with("429 "), "{answered}");
    let seconds: u64 = answered.split(' ').nth(1).unwrap().parse().unwrap();
    assert!((25..=30).contains(&seconds), "{answered}");
    let decided = world.decision(Some("/v1/after"));
    assert!(decided["reason"].as_str().unwrap().contains("asked for a pause"), "{decided}");
    // Another host of the same API did not ask for anything.
    assert_eq!(statuses(&world, &["/v1/other-host"]), [200]);
}

#[test]
fn what_an_upstream_asks_of_a_bot_with_a_key_of_its_own_is_not_asked_of_others() {
    let world = World::new();
    world.without_identities();
    world.policy("apis/apis.toml", "[api.demo]\nhosts = [\"api.test\", \"raw.test\"]\n");
    for program in ["curl", "python3"] {
        world.policy(
            &format!("policies/{program}.toml"),
            &format!(
                "[identity]\nexe = \"{{root}}/bots/{program}\"\n\
                 [[grant]]\napi = \"demo\"\nallow = [\"GET /v1/**\"]\n"
            ),
        );
    }
    world.daemon();
    let _upstream = Upstream::http1(&world);
    assert_eq!(world.curl(&["https://raw.test/v1/too-many"]).status, 429);
    assert_eq!(python(&world, "https://raw.test/v1/somebody-else"), "200");
    // It is asked of the bot itself.
    assert_eq!(world.curl(&["https://raw.test/v1/again"]).status, 429);
    let decided = world.decision(Some("/v1/again"));
    assert!(decided["reason"].as_str().unwrap().contains("asked for a pause"), "{decided}");
}
