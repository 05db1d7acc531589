//! Keys that change while calls run: an API that takes the old one until it does not.

use std::fs;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use tests::{RAW_ADDRESS, World, built};

use super::jwt::{received, world as world_of};

const RECEIVER: &str = include_str!("receivers/keys.js");

/// The API takes these keys from now on.
fn takes(world: &World, keys: &[&str]) {
    // Written aside and renamed: it is read for each request.
    let aside = world.write("aside.json", &serde_json::to_string(keys).unwrap());
    fs::rename(aside, world.path("keys.json")).unwrap();
}

fn start() -> World {
    let world = world_of("kind = \"static\"\nsecret = \"vault:key\"");
    world.policy(
        "apis/apis.toml",
        "[api.tokens]\nhosts = [\"raw.test\"]\ninject = { header = \"x-key\", value = \"{secret}\" }\n\
         [api.demo]\nhosts = [\"api.test\"]\n",
    );
    world.write("receiver.js", RECEIVER);
    takes(&world, &["key-one-0123456789"]);
    let arguments = ["receiver.js", RAW_ADDRESS, "api/server.pem", "api/server.key"];
    world.server("receiver", "node", &arguments, &format!("{RAW_ADDRESS}:443"));
    world.secret("key", "key-one-0123456789");
    world.daemon();
    world
}

/// The status of a slow call during which the key changes, and the API takes the new one alone.
fn across_a_change(world: &World, arguments: &[&str], new: &str) -> String {
    let arguments =
        [&["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"], arguments].concat();
    let mut curl = world.bot("curl").args(arguments).spawn();
    thread::sleep(Duration::from_millis(400));
    world.secret("key", new);
    takes(world, &[new]);
    let status = curl.rest();
    assert_eq!(curl.wait(), Some(0), "{status}");
    status
}

#[test]
fn a_call_whose_key_changed_meanwhile_is_made_once_more_with_the_new_one() {
    let world = start();
    for (number, version) in ["--http1.1", "--http2"].into_iter().enumerate() {
        let (path, new) = (format!("/slow/{number}"), format!("key-{number}-9876543210"));
        let url = format!("https://raw.test{path}");
        assert_eq!(across_a_change(&world, &[version, &url], &new), "200");
        let of_it: Vec<_> = received(&world).into_iter().filter(|it| it["path"] == path.as_str()).collect();
        let statuses: Vec<_> = of_it.iter().map(|it| it["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [401, 200], "{of_it:?}");
        let id = world.decision(Some(&path))["id"].clone();
        let outcome = world.record("outcome", |record| record["id"] == id);
        assert_eq!((&outcome["repeated"], &outcome["status"]), (&true.into(), &200.into()), "{outcome}");
    }
}

#[test]
fn a_key_that_is_not_taken_and_a_body_that_is_gone_are_not_repeated() {
    let world = start();
    takes(&world, &["another"]);
    let answer = world.curl(&["https://raw.test/v1/x"]);
    assert_eq!((answer.status, answer.body.as_str()), (401, "who are you?"), "{answer:?}");
    assert_eq!(received(&world).len(), 1, "it is the current one");
    takes(&world, &["key-one-0123456789"]);
    let upload = ["-d", "a body that is gone", "https://raw.test/slow/upload"];
    assert_eq!(across_a_change(&world, &upload, "key-two-0123456789"), "401");
    assert_eq!(received(&world).len(), 2);
    let outcome = world.record("outcome", |record| record["status"] == 401);
    assert_eq!(outcome["repeated"], Value::Null);
}

#[test]
fn a_change_of_the_key_costs_no_call_of_a_load() {
    let world = start();
    world.copy(built("caller"), "bots/caller");
    world.policy(
        "policies/caller.toml",
        "[identity]\nexe = \"{root}/bots/caller\"\n\n[[grant]]\napi = \"tokens\"\nallow = [\"* /**\"]\ncredential = \"token\"\n",
    );
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    let roots = world.vouchsafe(&["ca", "export"]);
    let roots = world.write("bots.pem", &roots.stdout);
    let caller = world.bot("caller").args(["--to", &format!("{RAW_ADDRESS}:443"), "--host", "raw.test"]);
    let caller = caller.arg("--roots").arg(roots).args(["--downloads", "0"]);
    let mut caller = caller.args(["--seconds", "stdin", "--rate", "500"]).spawn();
    let mut before = "key-one-0123456789".to_owned();
    for number in 0..6 {
        thread::sleep(Duration::from_millis(600));
        let new = format!("key-{number}-0123456789");
        // As one changes a key without an overlap: the API takes both, the host gets the new one, the old one goes at once.
        takes(&world, &[&before, &new]);
        world.secret("key", &new);
        takes(&world, &[&new]);
        before = new;
    }
    let said = caller.rest();
    assert_eq!(caller.wait(), Some(0), "{said}");
    let told: Value = serde_json::from_str(&said).unwrap();
    let mut answered = 0;
    for way in ["http1", "http2"] {
        assert_eq!(told[way]["lost"].as_array().map(Vec::len), Some(0), "{told:#}");
        answered += told[way]["answered"].as_u64().unwrap();
    }
    assert!(answered > 500, "{told:#}");
}

/// A world whose daemon makes the key anew by programs: `make` has the API take what it prints, `revoke` has it not taken any more.
pub(super) fn with_programs(make: &str, more: &str) -> World {
    let world = start();
    world.policy(
        "credentials/token.toml",
        "[credential.token]\nkind = \"static\"\nsecret = \"vault:key\"\nprobe = \"GET https://raw.test/v1/me\"\n",
    );
    let keys = world.path("keys.json").display().to_string();
    let edit = |what: &str| {
        format!(
            "#!/usr/bin/python3\nimport json, os, sys\nkey = sys.stdin.read()\nkeys = json.load(open({keys:?}))\n{what}\n\
             json.dump(keys, open({keys:?} + '.new', 'w'))\nos.rename({keys:?} + '.new', {keys:?})\n"
        )
    };
    let programs = [("make", edit(make)), ("revoke", edit("keys.remove(key)"))];
    for (name, text) in programs {
        world.program(&format!("programs/{name}"), &text);
    }
    let program = |name: &str| format!("[\"{}\"]", world.path(&format!("programs/{name}")).display());
    world.set("rotation.key.make", &program("make"));
    world.set("rotation.key.revoke", &program("revoke"));
    world.set("rotation.key.overlap", "\"2s\"");
    if !more.is_empty() {
        world.set("rotation.key.every", more);
    }
    world.restart();
    world
}

fn taken(world: &World) -> Vec<String> {
    serde_json::from_str(&fs::read_to_string(world.path("keys.json")).unwrap()).unwrap()
}

pub(super) const MAKE: &str = "new = 'key-' + os.urandom(8).hex()\nkeys.append(new)\nprint(new)";

#[test]
fn a_secret_is_made_anew_tried_made_current_and_the_one_before_ended() {
    let world = with_programs(MAKE, "");
    let rotated = world.vouchsafe(&["secret", "rotate", "key"]);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    assert!(rotated.stdout.starts_with("key is version 2 now, tried with token;"), "{rotated:?}");
    let both = taken(&world);
    assert!(both.len() == 2 && both[0] == "key-one-0123456789", "the one before is still taken: {both:?}");
    let answer = world.curl(&["https://raw.test/v1/x"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    let given = received(&world).pop().unwrap()["given"].clone();
    assert_eq!(given, both[1].as_str());
    // After the overlap.
    tests::wait_until("the end of the one before", || (taken(&world) == [both[1].clone()]).then_some(()));
    let listed = world.vouchsafe(&["secret", "list"]);
    tests::wait_until("a store without it", || {
        (!world.vouchsafe(&["secret", "list"]).stdout.contains("key.previous")).then_some(())
    });
    assert!(listed.stdout.contains("key "), "{listed:?}");
    let log = world.log();
    assert!(both.iter().all(|key| !log.contains(key.as_str())), "a key is in the log");
}

#[test]
fn a_new_one_that_the_api_does_not_take_never_becomes_current() {
    let world = with_programs("new = 'key-that-is-none'\nprint(new)", "");
    world.program("programs/revoke", "#!/bin/sh\ncat > /dev/null\n");
    let rotated = world.vouchsafe(&["secret", "rotate", "key"]);
    assert_eq!(rotated.code, Some(1), "{rotated:?}");
    assert!(
        rotated.stderr.contains("does not take the new one") && rotated.stderr.contains("401"),
        "{rotated:?}"
    );
    assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 200);
    let listed = world.vouchsafe(&["secret", "list"]);
    assert!(!listed.stdout.contains("key.next") && !listed.stdout.contains("key.previous"), "{listed:?}");
    // Somebody else of this host has no say in it.
    let config = world.config();
    let mut other = world.enter(None);
    other.args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]).arg(tests::daemon_binary());
    let other = other.args(["secret", "--config"]).arg(&config).args(["rotate", "key"]).output().unwrap();
    let told = String::from_utf8_lossy(&other.stderr).into_owned();
    println!("somebody else is told: {told}");
    assert!(!other.status.success(), "{told}");
    let unknown = world.vouchsafe(&["secret", "rotate", "other"]);
    assert!(unknown.code == Some(1) && unknown.stderr.contains("[rotation."), "{unknown:?}");
}

#[test]
fn a_daemon_that_is_killed_before_a_new_one_is_current_ends_it_after_its_start() {
    let world = with_programs(MAKE, "");
    // The probe waits, so that the new one is made and not current yet.
    world.policy(
        "credentials/token.toml",
        "[credential.token]\nkind = \"static\"\nsecret = \"vault:key\"\nprobe = \"GET https://raw.test/slow/me\"\n",
    );
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    let mut command = world.vouchsafe_command(&["secret", "rotate", "key"]);
    let mut rotate = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let listed = || world.vouchsafe(&["secret", "list"]).stdout;
    tests::wait_until("a new one", || listed().contains("key.next").then_some(()));
    world.kill9();
    assert!(!rotate.wait().unwrap().success());
    assert!(listed().contains("key.next") && taken(&world).len() == 2, "what was made is known");
    world.daemon();
    tests::wait_until("the end of what was made", || (!listed().contains("key.next")).then_some(()));
    assert_eq!(taken(&world), ["key-one-0123456789"]);
    assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 200);
}
