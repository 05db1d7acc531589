//! Policy files that cannot go live: refused as a whole, with the place and what to do.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use tests::World;

const STRIPE: &str = "[api.stripe]\nhosts = [\"api.stripe.com\"]\n\
                      inject = { header = \"authorization\", value = \"Bearer {secret}\" }\n\
                      [credential.key]\nkind = \"static\"\nsecret = \"vault:key\"\n";
const BOT: &str = "[identity]\nexe = \"/opt/bot\"\nuser = \"bot\"\n\n[[grant]]\napi = \"stripe\"\nallow = [\"GET /v1/**\"]\n\
                   credential = \"key\"\n";

/// What `vouchsafe check` says of a folder: its exit code and its complaints.
fn check(world: &World, folder: &Path) -> (Option<i32>, String) {
    let finished = world.vouchsafe(&["check", folder.to_str().unwrap()]);
    (finished.code, finished.stderr)
}

#[test]
fn check_names_file_line_column_and_help_for_every_kind_of_mistake() {
    let world = World::new();
    let cases: [(&str, String, &str, &str); 5] = [
        ("sound", BOT.into(), "", ""),
        (
            "unknown-key",
            BOT.replace("exe =", "exee = \"/x\"\nexe ="),
            ":2:1: error: unknown key \"exee\" in [identity]",
            "help: did you mean \"exe\"?",
        ),
        (
            "wrong-type",
            BOT.replace("[\"GET /v1/**\"]", "\"GET /v1/**\""),
            ":7:9: error: \"allow\" in [[grant]] must be a list of strings, not a string",
            "help: write allow = [\"…\"]",
        ),
        (
            "unknown-role",
            BOT.replace(
                "api = \"stripe\"\nallow = [\"GET /v1/**\"]\ncredential = \"key\"",
                "role = \"readr\"",
            ),
            ":6:8: error: unknown role \"readr\"",
            "help:",
        ),
        ("not-toml", BOT.replace("[[grant]]", "[[grant]"), ":5:", "error"),
    ];
    for (name, bot, place, help) in cases {
        let folder = world.path(name);
        world.write(&format!("{name}/policies/bot.toml"), &bot);
        let (apis, credentials) = STRIPE.split_once("[credential").unwrap();
        world.write(&format!("{name}/apis/stripe.toml"), apis);
        world.write(&format!("{name}/credentials/key.toml"), &format!("[credential{credentials}"));
        let (code, said) = check(&world, &folder);
        if place.is_empty() {
            assert_eq!((code, said.as_str()), (Some(0), ""), "{name}");
            continue;
        }
        assert_eq!(code, Some(1), "{name}: {said}");
        let place = format!("{}/policies/bot.toml{place}", folder.display());
        assert!(said.contains(&place) && said.contains(help), "{name}: {said}");
    }
}

#[test]
fn a_mistake_anywhere_keeps_the_daemon_from_starting_and_a_running_one_on_its_old_policy() {
    let world = World::start();
    // Two identities for the same program: neither may win.
    let exe = format!("exe = \"{}\"", world.path("bots/curl").display());
    world.identity("twin", &exe);
    let reloaded = world.reload();
    assert_eq!(reloaded.code, Some(1), "{reloaded:?}");
    for part in ["policies/curl.toml:1:2: error: overlapping identities", "policies/twin.toml:1:2", "help:"] {
        assert!(reloaded.stderr.contains(part), "{part}: {}", reloaded.stderr);
    }
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200, "the old policy goes on");
    assert_eq!(world.status()["policy"]["generation"], 1);
    let (code, said) = check(&world, &world.path("etc"));
    assert_eq!(code, Some(1));
    assert!(said.contains("this policy would be refused as a whole"), "{said}");
    assert_eq!(world.terminate(), Some(0));
    let said = world.start_fails();
    assert!(said.contains("policies/twin.toml:1:2: error: overlapping identities"), "{said}");
    assert!(said.contains("nothing is served"), "{said}");
}

/// Check, reload and start refuse the policy of the world and say these words.
#[track_caller]
fn refused_everywhere(world: &World, words: &[&str]) {
    let (code, said) = check(world, &world.path("etc"));
    let reloaded = world.reload();
    assert_eq!((code, reloaded.code), (Some(1), Some(1)), "{said}\n{reloaded:?}");
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200, "the old policy goes on");
    assert_eq!(world.terminate(), Some(0));
    for text in [said, reloaded.stderr, world.start_fails()] {
        for word in words {
            assert!(text.contains(word), "{word:?} is not in: {text}");
        }
    }
}

#[test]
fn a_policy_file_that_others_can_write_is_refused_by_check_reload_and_start() {
    for (mode, name) in [(0o666, "policies/curl.toml"), (0o620, "apis/apis.toml"), (0o777, "credentials")] {
        let world = World::start();
        let path = world.path("etc").join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let shown = path.to_str().unwrap();
        refused_everywhere(&world, &[&format!("{shown}: error: "), &format!("chmod go-w {shown}")]);
        fs::set_permissions(&path, fs::Permissions::from_mode(if path.is_dir() { 0o755 } else { 0o644 }))
            .unwrap();
        world.daemon();
        assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    }
}

#[test]
fn a_policy_file_of_another_user_is_refused() {
    let world = World::start();
    let path = world.path("etc/policies/curl.toml");
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    refused_everywhere(&world, &[path.to_str().unwrap(), "help: chown root "]);
}

#[test]
fn a_policy_file_that_cannot_be_read_is_refused_and_named() {
    // Root reads whatever its mode is: a link to nowhere, a folder, and a file that is no text.
    for case in ["link", "folder", "binary"] {
        let world = World::start();
        let path = world.path("etc/policies/unreadable.toml");
        match case {
            "link" => symlink("/nonexistent/policy.toml", &path).unwrap(),
            "folder" => fs::create_dir(&path).unwrap(),
            _ => fs::write(&path, [0xff, 0xfe, 0x00]).unwrap(),
        }
        refused_everywhere(&world, &[&format!("{}: error: ", path.display())]);
        // Not once with half of the policy.
        assert_eq!(world.journal().iter().filter(|record| record["result"] == "loaded").count(), 0, "{case}");
    }
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let world = World::new();
    let log = world.path("daemon.log");
    assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
    let reader = fs::File::options().read(true).write(true).open(&log).unwrap();
    world.daemon();
    // Nobody takes the log any more.
    drop(reader);
    fs::remove_file(&log).unwrap();
    world.write("etc/policies/odd.toml", "[identity]\nexe = \"/opt/odd\"\n");
    // The warning about this identity has nowhere to go.
    let reloaded = world.vouchsafe(&["reload"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    assert!(reloaded.stderr.contains("warning"), "{reloaded:?}");
    assert_eq!(world.status()["journal"]["health"]["state"], "ok", "{}", world.status()["journal"]);
}
