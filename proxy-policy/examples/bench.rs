//! How long decisions take: `cargo run --release -p proxy-policy --example bench`.
//!
//! A table in Markdown, one line per case: identities, rules of the asking identity, what is asked, nanoseconds per decision
//! (median of rounds), the 99th percentile of rounds of 100 decisions, and decisions in a second; then how long sets took to
//! load.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

use proxy_policy::{
    Body, BodyState, Call, CallPath, Facts, IdentityId, Moment, PolicySet, Source, SourceFile, compile,
};

const ROUNDS: usize = 2000;
const EACH: usize = 100;

/// What the loads took.
static LOADS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn set(identities: usize, rules: usize, when: &str) -> PolicySet {
    let mut files = vec![SourceFile::new(
        "apis/x.toml",
        "[api.x]\nhosts = [\"x.example\"]\ninject = { header = \"x-key\", value = \"{secret}\" }\n\
         [credential.k]\nkind = \"static\"\nsecret = \"vault:k\"\n",
    )];
    for identity in 0..identities {
        let mut allow = String::new();
        for rule in 0..rules {
            allow += &format!("\"GET /v1/things/t{rule}/*\",\n");
        }
        files.push(SourceFile::new(
            format!("policies/bot-{identity:05}.toml"),
            format!(
                "[identity]\nuser = \"u{identity}\"\n[[grant]]\napi = \"x\"\nallow = [{allow}]\n\
                 deny = [\"* /v1/things/*/secret\"]\ncredential = \"k\"\n{when}\n"
            ),
        ));
    }
    load(&format!("{} files of {rules} rules", files.len()), &files)
}

fn load(name: &str, files: &[SourceFile]) -> PolicySet {
    let started = Instant::now();
    let compiled = compile(files);
    LOADS.lock().unwrap().push(format!("- {name}: {:.0} ms", started.elapsed().as_secs_f64() * 1e3));
    compiled.set.unwrap()
}

fn measure(name: &str, set: &PolicySet, path: &str, facts: Option<&Facts<'_>>, allowed: bool) {
    let path = CallPath::normalize(path).unwrap();
    let api = set.apis().next().unwrap().id;
    let last = IdentityId(u32::try_from(set.identities().count() - 1).unwrap());
    let call = Call { facts, ..Call::plain(api, "GET", &path, Moment(1_798_761_600)) };
    assert_eq!(set.decide(last, &call).is_allowed(), allowed, "{name}");
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for _ in 0..EACH {
            black_box(set.decide(black_box(last), black_box(&call)).is_allowed());
        }
        rounds.push(started.elapsed().as_nanos() / EACH as u128);
    }
    rounds.sort_unstable();
    let (middle, p99) = (rounds[ROUNDS / 2], rounds[ROUNDS * 99 / 100]);
    println!("| {name} | {middle} ns | {p99} ns | {} |", 1_000_000_000 / middle.max(1));
}

fn main() {
    let headers = [("x-env".to_owned(), "prod".to_owned()), ("accept".to_owned(), "*/*".to_owned())];
    let body = Body::parse(b"{\"amount\": 7, \"currency\": \"eur\"}").unwrap();
    let facts = Facts {
        host: "x.example",
        query: Some("limit=3"),
        headers: &headers,
        workload: Source { pid: 1, uid: 1000, gid: 1000, exe: Some("/opt/bot"), unit: None, cgroup: None },
        body: BodyState::Json(&body),
    };
    println!("| decision | median | p99 | in a second |\n| --- | ---: | ---: | ---: |");
    for identities in [1, 100, 10_000] {
        let plain = set(identities, 10, "");
        measure(&format!("{identities} identities, 10 rules"), &plain, "/v1/things/t9/x", None, true);
        let path = "/v1/things/t9/secret";
        measure(&format!("{identities} identities, 10 rules, denied"), &plain, path, None, false);
        let when = set(identities, 10, "when = 'request.headers[\"x-env\"] == \"prod\"'");
        let name = format!("{identities} identities, 10 rules, with a condition on a header");
        measure(&name, &when, "/v1/things/t9/x", Some(&facts), true);
    }
    let many = set(1, 100_000, "");
    measure("1 identity, 100000 rules, the last", &many, "/v1/things/t99999/x", None, true);
    measure("1 identity, 100000 rules, none", &many, "/v1/things/other/x", None, false);
    for (name, when) in [
        ("a number", "when = 'workload.uid == 1000'"),
        ("the body", "when = 'body.amount < 100 && body.currency == \"eur\"'"),
        ("a regular expression", "when = 'request.path.matches(\"^/v1/[a-z]+/t[0-9]+/\")'"),
        ("the hour", "when = 'now.getHours() < 18'"),
    ] {
        let set = set(1, 10, when);
        measure(&format!("a condition on {name}"), &set, "/v1/things/t9/x", Some(&facts), true);
    }
    let rules: String = (0..100_000).map(|rule| format!("\"GET /v1/things/t{rule}/*\",")).collect();
    let text = format!("[identity]\nuser = \"u\"\n[[grant]]\napi = \"x\"\nallow = [{rules}]\n");
    let api = SourceFile::new("apis/x.toml", "[api.x]\nhosts = [\"x.example\"]\n");
    load("100000 rules on one line", &[api, SourceFile::new("policies/u.toml", text)]);
    let rules: String =
        (0..50_000).map(|rule| format!("\"tcp 10.0.{}.{}:1\",", rule / 200, rule % 200)).collect();
    let text = format!("[identity]\nuser = \"u\"\n[[grant]]\nnetwork = [{rules}]\n");
    load("50000 network rules", &[SourceFile::new("policies/u.toml", text)]);
    let identity = |number| format!("[identity]\nexe = \"/opt/bots/b{number}\"\n");
    let files = (0..10_000).map(|it| SourceFile::new(format!("policies/b{it}.toml"), identity(it)));
    load("10000 identities without a user", &files.collect::<Vec<_>>());
    println!("\nLoads:\n\n{}", LOADS.lock().unwrap().join("\n"));
}
