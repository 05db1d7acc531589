//! Secrets that the daemon's unit hands to it: credentials of systemd, and variables.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tests::{CANARY, STOLEN, World, wait_until};

use super::sources::{call, refer};

/// Puts a credential where systemd puts those of a unit: in a folder of root's, readable by the unit's user alone.
fn hand_over(world: &World, key: &str, mode: u32) {
    let aside = world.write("unit/.aside", key);
    fs::set_permissions(&aside, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(aside, world.path("unit/demo")).unwrap();
    fs::set_permissions(world.path("unit"), fs::Permissions::from_mode(0o500)).unwrap();
}

/// Why calls are refused, as the operator is told; the bot is told nothing of it.
#[track_caller]
fn refused(world: &World) -> String {
    let said = wait_until("a refusal", || Some(call(world)).filter(|it| it != "ours" && it != "stolen"));
    assert!(said.contains("the credential demo-key is not"), "{said}");
    assert!(!said.contains("unit") && !said.contains("DEMO"), "{said}");
    let status = world.vouchsafe(&["status"]);
    assert!(status.code == Some(1) && status.stdout.contains("credentials demo-key"), "{status:?}");
    let shown = world.vouchsafe(&["credential", "show", "demo-key", "--json"]);
    assert_eq!(shown.code, Some(1), "{shown:?}");
    shown.json()["problem"].as_str().unwrap().to_owned()
}

#[test]
fn a_credential_of_the_unit_is_followed_while_the_daemon_runs_and_refused_where_others_could_have_read_it() {
    let world = World::new();
    refer(&world, "systemd:demo");
    hand_over(&world, &format!("{CANARY}\n"), 0o400);
    world.variable("CREDENTIALS_DIRECTORY", world.path("unit").to_str().unwrap());
    world.daemon();
    assert_eq!(call(&world), "ours");
    let shown = world.vouchsafe(&["credential", "show", "demo-key", "--json"]).json();
    assert_eq!((&shown["source"], &shown["version"]), (&"systemd:demo".into(), &1.into()), "{shown}");

    // Handed over anew, as by `systemctl restart` of what writes it, or by hand: no call fails meanwhile.
    hand_over(&world, STOLEN, 0o440);
    wait_until("the new one", || match call(&world).as_str() {
        "stolen" => Some(()),
        other => {
            assert_eq!(other, "ours");
            None
        }
    });
    for (mode, says) in [(0o444, "open to everybody (mode 0444)"), (0o420, "writable by its group")] {
        hand_over(&world, CANARY, mode);
        let problem = refused(&world);
        assert!(problem.contains("unit/demo") && problem.contains(says), "{problem}");
        hand_over(&world, CANARY, 0o400);
        wait_until("the key again", || (call(&world) == "ours").then_some(()));
    }
    fs::remove_file(world.path("unit/demo")).unwrap();
    let problem = refused(&world);
    assert!(problem.contains("there is no file") && problem.contains("unit/demo"), "{problem}");

    // Where others can put files, one could be led to another secret.
    hand_over(&world, CANARY, 0o400);
    fs::set_permissions(world.path("unit"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    let problem = refused(&world);
    assert!(problem.contains("is no secret"), "{problem}");
    fs::set_permissions(world.path("unit"), fs::Permissions::from_mode(0o500)).unwrap();
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    assert_eq!(call(&world), "ours");

    // A unit without any.
    assert_eq!(world.terminate(), Some(0));
    world.without_variable("CREDENTIALS_DIRECTORY");
    world.daemon();
    let problem = refused(&world);
    assert!(problem.contains("add LoadCredential=demo:PATH to its unit, and restart it"), "{problem}");
    let log = world.log();
    assert!(!log.contains(CANARY) && !log.contains(STOLEN));
}

#[test]
fn a_variable_is_read_at_the_start_alone_and_goes_to_no_program() {
    let world = World::new();
    let seen = world.path("seen").display().to_string();
    let tool = world.program(
        "tool",
        &format!("#!/bin/sh\nenv >>{seen}\ncat /proc/self/environ >>{seen}\necho x-{CANARY}\n"),
    );
    world.set("exec.demo", &format!("{{ command = [\"{}\"] }}", tool.display()));
    refer(&world, "env:DEMO_KEY");
    let start = |value: Option<&str>| {
        match value {
            Some(value) => world.variable("DEMO_KEY", value),
            None => world.without_variable("DEMO_KEY"),
        }
        world.daemon();
    };
    start(Some(CANARY));
    assert_eq!(call(&world), "ours");
    // What the unit says by now counts at the next start.
    world.variable("DEMO_KEY", STOLEN);
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    assert_eq!(call(&world), "ours");
    let shown = world.vouchsafe(&["credential", "show", "demo-key", "--json"]).json();
    assert_eq!((&shown["source"], &shown["version"]), (&"env:DEMO_KEY".into(), &1.into()), "{shown}");
    world.restart();
    assert_eq!(call(&world), "stolen");

    // A program of the configuration has an environment of its own.
    refer(&world, "exec:demo");
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    wait_until("a run of the program", || fs::read_to_string(&seen).ok().filter(|it| it.contains("PWD=")));
    assert!(!fs::read_to_string(&seen).unwrap().contains("DEMO_KEY"));
    refer(&world, "env:DEMO_KEY");

    for (value, says) in [
        (None, "no variable DEMO_KEY in its environment; set it in its unit"),
        (Some(""), "the secret is empty"),
    ] {
        assert_eq!(world.terminate(), Some(0));
        start(value);
        let problem = refused(&world);
        assert!(problem.contains(says), "{problem}");
    }
    let log = world.log();
    assert!(!log.contains(CANARY) && !log.contains(STOLEN));
}
