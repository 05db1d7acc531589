//! What the journal tells apart without telling it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;
use tests::World;

/// What `vouchsafe audit fingerprint` says of a value.
fn fingerprint(world: &World, value: &str) -> String {
    let mut command = world.vouchsafe_command(&["audit", "fingerprint"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn told(record: &Value) -> BTreeSet<(String, String)> {
    let all = record["fingerprints"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    all.iter().map(|it| (text(&it["place"]), text(&it["fingerprint"]))).collect()
}

#[test]
fn which_calls_were_about_one_account_is_answered_without_its_number_in_the_journal() {
    let world = World::new();
    world.set("journal.fingerprint_query", "[\"account\"]");
    world.set("journal.fingerprint_headers", "[\"X-Request-Id\", \"x-api-key\"]");
    world.daemon();
    let get = |path: &str, headers: &[&str]| {
        let mut arguments: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
        let url = format!("https://api.test{path}");
        arguments.push(&url);
        world.curl(&arguments)
    };
    // One that is allowed, one that is refused, and one about another account.
    get(
        "/v1/one?account=acct-canary-42&page=2",
        &["x-request-id: request-canary-7", "x-api-key: key-canary-1"],
    );
    get("/v2/two?x=1&account=acct%2Dcanary%2D42", &[]);
    get(
        "/v1/three?account=acct-canary-43",
        &["authorization: Bearer own-canary-2", "cookie: sid=cookie-canary-3"],
    );
    let wanted = ("query account".to_owned(), fingerprint(&world, "acct-canary-42\n"));
    let one = told(&world.decision(Some("/v1/one")));
    assert!(one.contains(&wanted), "{one:?}");
    let request = ("header x-request-id".to_owned(), fingerprint(&world, "request-canary-7"));
    assert!(one.contains(&request) && one.len() == 2, "no fingerprint of a key: {one:?}");
    assert_eq!(told(&world.decision(Some("/v2/two"))), BTreeSet::from([wanted.clone()]));
    let three = told(&world.decision(Some("/v1/three")));
    assert!(!three.contains(&wanted) && three.len() == 1, "{three:?}");
    let text = fs::read_to_string(world.path("state/journal/journal-00000001.jsonl")).unwrap();
    assert!(!text.contains("canary"), "a value is in the journal");
    // Another host has another key.
    let other = World::start();
    assert_ne!(fingerprint(&other, "acct-canary-42"), wanted.1);
    other.curl(&["https://api.test/v1/one?account=1"]);
    assert_eq!(other.decision(Some("/v1/one"))["fingerprints"], Value::Null, "nothing was asked for");
}
