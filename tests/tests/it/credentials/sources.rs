//! Secrets that are not in the daemon's own store.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tests::{CANARY, STOLEN, World, wait_until};

/// Puts a key in place as whoever rotates it does: written aside, closed to others, renamed.
fn put(world: &World, key: &str, mode: u32) -> PathBuf {
    let aside = world.write("keys/aside", &format!("{key}\n"));
    fs::set_permissions(&aside, fs::Permissions::from_mode(mode)).unwrap();
    let path = world.path("keys/demo");
    fs::rename(aside, &path).unwrap();
    path
}

/// Which key the API got, of the call that is made now; the refusal's text when there was none.
fn call(world: &World) -> String {
    let answer = world.curl(&["https://api.test/v1/x"]);
    match answer.status {
        200 => answer.json()["key"].as_str().unwrap().to_owned(),
        502 => answer.json()["detail"].as_str().unwrap().to_owned(),
        _ => panic!("{answer:?}"),
    }
}

#[test]
fn a_key_in_a_file_is_taken_up_when_it_changes_and_refused_once_others_can_read_it() {
    let world = World::new();
    world.set("log.level", "\"trace,aya=info,aya_obj=info\"");
    let path = put(&world, CANARY, 0o600);
    let definition =
        format!("[credential.demo-key]\nkind = \"static\"\nsecret = \"file:{}\"\n", path.display());
    world.policy("credentials/demo-key.toml", &definition);
    world.daemon();
    assert_eq!(call(&world), "ours");

    put(&world, STOLEN, 0o600);
    wait_until("the new key", || {
        let key = call(&world);
        assert!(key == "ours" || key == "stolen", "no call fails meanwhile: {key}");
        (key == "stolen").then_some(())
    });

    put(&world, CANARY, 0o644);
    let refusal = wait_until("the refusal", || Some(call(&world)).filter(|said| said != "stolen"));
    assert!(refusal.contains("the credential demo-key is not available"), "{refusal}");
    assert!(!refusal.contains("keys/demo"), "the bot does not learn where it is: {refusal}");
    let decision = world.decision(Some("/v1/x"));
    let reason = decision["reason"].as_str().unwrap();
    assert!(reason.contains("open to everybody") && reason.contains("chmod 0600"), "{reason}");

    fs::remove_file(&path).unwrap();
    wait_until("the end of the key", || call(&world).contains("is not set up").then_some(()));
    put(&world, CANARY, 0o400);
    wait_until("the key again", || (call(&world) == "ours").then_some(()));

    for (place, text) in [("log", world.log()), ("journal", format!("{:?}", world.journal()))] {
        assert!(!text.contains(CANARY) && !text.contains(STOLEN), "a key is in the {place}");
    }
}
