//! The deliberate way off: journalled before anything is taken off, or refused.

use std::fs;

use serde_json::Value;
use tests::{World, daemon_binary};

fn call(world: &World) -> u16 {
    world.curl(&["https://api.test/v1/x"]).status
}

/// What the API answers without a key: nothing is mediated.
const NOT_MEDIATED: u16 = 401;

#[track_caller]
fn detached(world: &World, programs: usize) -> Value {
    let record = world.record("detach", |_| true);
    assert_eq!(record["programs"].as_array().unwrap().len(), programs, "{record}");
    assert_eq!(record["by"]["uid"], 0);
    assert_eq!(record["pin"], world.pins().to_str().unwrap());
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));
    record
}

fn attached(world: &World) -> usize {
    world.status()["kernel"]["programs"].as_array().unwrap().len()
}

#[test]
fn without_a_daemon_it_is_the_last_record_of_the_journal_that_says_who_took_it_off() {
    let world = World::start();
    let programs = attached(&world);
    // Also over what a kill left.
    world.kill9();
    fs::OpenOptions::new()
        .append(true)
        .open(world.path("state/journal/journal-00000001.jsonl"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"{\"v\":1,"))
        .unwrap();
    let mut command = world.vouchsafe_command(&["detach"]);
    let told = command.env("SUDO_UID", "4711").output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains(&format!("took off {programs} programs")), "{told}");
    assert_eq!(call(&world), NOT_MEDIATED);
    let record = detached(&world, programs);
    assert_eq!(record["by"]["sudo_uid"], 4711);
    let records = world.journal();
    let last = records.iter().rfind(|record| record["kind"] != "checkpoint").unwrap();
    assert_eq!(last["kind"], "detach");
    assert!(world.journal().iter().any(|record| record["kind"] == "recovered"));
    let shown = world.vouchsafe(&["audit", "tail"]).stdout;
    assert!(shown.contains("detach by uid 0") && shown.contains("sudo uid 4711"), "{shown}");
    // Nothing is left to take off, and nothing to record.
    assert!(world.vouchsafe(&["detach"]).stdout.contains("nothing was attached"));
    assert_eq!(world.journal().iter().filter(|record| record["kind"] == "detach").count(), 1);
    world.daemon();
    assert_eq!(call(&world), 200);
}

/// The pins are for root to see: whoever is not would find nothing there.
#[test]
fn to_another_user_it_does_not_say_that_nothing_is_attached() {
    let world = World::start();
    let programs = attached(&world);
    // As after a stop; what a kill leaves is not open to others.
    world.terminate();
    let _ = fs::remove_file(world.path("run/control.sock"));
    let program = world.copy(daemon_binary(), "vouchsafe");
    let mut command = world.enter(None);
    command.args(["setpriv", "--clear-groups", "--reuid=4242", "--regid=4242"]);
    command.arg(program).arg("detach").arg("--config").arg(world.config());
    let told = command.output().unwrap();
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(1), "{said}");
    assert!(said.contains("only root can see and take off") && said.contains("use sudo"), "{said}");
    assert!(world.vouchsafe(&["detach"]).stdout.contains(&format!("took off {programs} programs")));
}

#[test]
fn a_running_daemon_is_asked_and_records_it_before_it_takes_anything_off() {
    let world = World::start();
    let programs = attached(&world);
    assert_eq!(call(&world), 200);
    let told = world.vouchsafe(&["detach"]);
    assert!(told.stdout.contains(&format!("took off {programs} programs")), "{told:?}");
    let record = detached(&world, programs);
    assert_ne!(record["by"]["pid"], world.daemon_pid());
    assert_eq!(call(&world), NOT_MEDIATED);
    assert_eq!(attached(&world), 0);
    assert_eq!(world.vouchsafe(&["status"]).code, Some(1), "a daemon that mediates nothing is not well");
    world.restart();
    assert_eq!(attached(&world), programs);
    assert_eq!(call(&world), 200);
}

#[test]
fn what_cannot_be_journalled_is_not_taken_off_unless_it_is_forced() {
    let world = World::start();
    let programs = attached(&world);
    assert_eq!(world.terminate(), Some(0));
    let journal = world.path("state/journal/journal-00000001.jsonl");
    let text = fs::read_to_string(&journal).unwrap().replace("\"kind\":\"start\"", "\"kind\":\"begin\"");
    fs::write(&journal, &text).unwrap();
    let refused = world.vouchsafe(&["detach"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["nothing was taken off", "--force", "broken"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    assert_eq!(call(&world), 0, "it is still mediated");
    let forced = world.vouchsafe(&["detach", "--force"]);
    assert!(forced.stdout.contains(&format!("took off {programs} programs")), "{forced:?}");
    assert!(forced.stderr.contains("not in the journal"), "{forced:?}");
    assert_eq!(call(&world), NOT_MEDIATED);
    assert_eq!(fs::read_to_string(&journal).unwrap(), text, "evidence was changed");
}

#[test]
fn what_another_version_left_attached_gives_way_to_the_next_start_and_to_detach() {
    let world = World::start();
    let programs = attached(&world);
    let layouts = || -> Vec<String> {
        let entries = fs::read_dir(world.pins()).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let ours = layouts();
    let older = |world: &World| {
        assert_eq!(world.terminate(), Some(0));
        fs::rename(world.pins().join(&ours[0]), world.pins().join("v1")).unwrap();
    };
    older(&world);
    world.daemon();
    assert_eq!(layouts(), ours, "both versions are attached");
    assert_eq!(attached(&world), programs);
    assert_eq!(call(&world), 200);
    older(&world);
    assert_eq!(call(&world), 0);
    assert_eq!(world.vouchsafe(&["detach"]).code, Some(0));
    detached(&world, programs);
    assert_eq!(call(&world), NOT_MEDIATED);
}
