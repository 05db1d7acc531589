//! Credentials that cannot be had: the call is refused with what to do, and goes through once that is done.

use std::fs;

use serde_json::Value;
use tests::{CANARY, World, wait_until};

/// The refusal that a call gets while its credential cannot be had.
#[track_caller]
fn refused(world: &World) -> String {
    let answer = world.curl(&["https://api.test/v1/x"]);
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(answer.json()["type"], "urn:vouchsafe:problem:credential-unavailable", "{answer:?}");
    assert!(world.seen().is_empty(), "the call must not leave");
    answer.json()["detail"].as_str().unwrap().to_owned()
}

fn problem(world: &World) -> Value {
    world.status()["secrets"].clone()
}

/// The call gets through with the key of the store.
#[track_caller]
fn served(world: &World) {
    wait_until("a call with the credential", || {
        let answer = world.curl(&["https://api.test/v1/x"]);
        (answer.status == 200 && answer.json()["key"] == "ours").then_some(())
    });
}

#[test]
fn a_missing_secret_is_502_and_the_journal_says_what_to_set_until_it_is_set() {
    let world = World::new();
    assert_eq!(world.vouchsafe(&["secret", "rm", "demo-key"]).code, Some(0));
    world.daemon();
    let detail = refused(&world);
    assert!(detail.contains("not set up on this host"), "{detail}");
    let decision = world.decision(Some("/v1/x"));
    assert_eq!(decision["verdict"], "deny");
    let reason = decision["reason"].as_str().unwrap();
    assert!(reason.starts_with("credential demo-key:"), "{reason}");
    assert!(reason.contains("run `vouchsafe secret set demo-key`"), "{reason}");
    world.secret("demo-key", CANARY);
    // The command tells the daemon.
    served(&world);
}

#[test]
fn a_damaged_store_lets_the_daemon_start_refuse_and_say_so_until_it_is_replaced() {
    let world = World::new();
    let store = fs::read_dir(world.path("state")).unwrap().flatten().map(|entry| entry.path());
    let store = store
        .filter(|path| path.is_file())
        .find(|path| path.extension().is_none_or(|extension| extension != "key" && extension != "lock"))
        .expect("there is no store");
    let good = fs::read(&store).unwrap();
    let mut damaged = good.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&store, &damaged).unwrap();
    world.daemon();
    refused(&world);
    assert!(world.log().contains(store.to_str().unwrap()), "{}", world.log());
    let secrets = problem(&world);
    assert!(secrets.to_string().contains(store.to_str().unwrap()), "{secrets}");
    let page = world.vouchsafe(&["status"]);
    assert_eq!(page.code, Some(1), "not all is well: {page:?}");
    assert!(page.stdout.starts_with("problem   "), "{}", page.stdout);

    // A command does not write over it.
    let value = fs::File::open(world.write("value", "another")).unwrap();
    let set = world.vouchsafe_command(&["secret", "set", "demo-key"]).stdin(value).output().unwrap();
    assert_eq!(set.status.code(), Some(1), "{set:?}");
    let said = String::from_utf8(set.stderr).unwrap();
    assert!(said.contains(store.to_str().unwrap()), "refused for the damage, and for nothing else: {said}");
    assert_eq!(fs::read(&store).unwrap(), damaged);

    // The advice that it gives: away with it, and set again.
    fs::remove_file(&store).unwrap();
    world.secret("demo-key", CANARY);
    served(&world);
    assert_eq!(world.vouchsafe(&["status"]).code, Some(0));

    // What is damaged later does not take away what is in memory.
    fs::write(&store, &damaged).unwrap();
    let reloaded = world.reload();
    assert_eq!(reloaded.code, Some(1), "{reloaded:?}");
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    assert_eq!(world.vouchsafe(&["status"]).code, Some(1));
    fs::write(&store, &good).unwrap();
    assert_eq!(world.reload().code, Some(0));
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
}
