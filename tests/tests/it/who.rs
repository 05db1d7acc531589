//! `vouchsafe who`: what it says of a process is what the next call of that process gets.

use std::fs;

use serde_json::Value;
use tests::{CANARY, Running, World};

/// `plain.test`, which takes anybody's call: whether one arrives is the proxy's doing.
const PLAIN: &str = "203.0.113.10:80";

/// `who --json` of a process, with its exit code.
#[track_caller]
fn who(world: &World, target: &str) -> (Option<i32>, Value) {
    let told = world.vouchsafe(&["who", "--json", target]);
    let report = serde_json::from_str(&told.stdout).unwrap_or_else(|_| panic!("no report: {told:?}"));
    (told.code, report)
}

/// The only process of a report.
#[track_caller]
fn only(report: &Value) -> Value {
    assert_eq!(report["processes"].as_array().unwrap().len(), 1, "{report}");
    report["processes"][0].clone()
}

#[track_caller]
fn waiting(mut process: Running) -> Running {
    assert_eq!(process.line(), "waiting");
    process
}

/// The condition of an identity in the report of a process.
fn condition(process: &Value, identity: &str, condition: &str) -> Value {
    let identities = process["identities"].as_array().unwrap();
    let identity = identities.iter().find(|found| found["name"] == identity).unwrap();
    let conditions = identity["conditions"].as_array().unwrap();
    conditions.iter().find(|found| found["condition"] == condition).unwrap().clone()
}

#[test]
fn what_it_says_of_a_process_is_what_the_call_of_the_process_gets() {
    let world = World::new();
    world.without_identities();
    world.identity("bot", "exe = \"{root}/bots/actor\"\nuser = \"4242\"");
    world.identity("billing", "unit = \"billing.service\"");
    world.identity("anything-of-11", "user = \"11\"");
    world.daemon();
    let (actor, copy) =
        (world.path("bots/actor"), world.copy(world.path("bots/actor"), "elsewhere/stranger"));
    for (program, uid, cgroup, path, identity) in [
        (&actor, 4242, "bots", "/v1/bot", Some("bot")),
        (&actor, 7, "bots", "/v1/wrong-user", None),
        (&copy, 4242, "bots", "/v1/copy", None),
        (&copy, 7, "system.slice/billing.service", "/v1/unit", Some("billing")),
        (&copy, 11, "system.slice/billing.service", "/v1/several", None),
    ] {
        let bot = world.bot(program).user(uid, 1).cgroup(cgroup).args(["wait", PLAIN, path]);
        let mut bot = waiting(bot.spawn());
        let (code, report) = who(&world, &bot.pid().to_string());
        let process = only(&report);
        bot.say("go");
        bot.rest();
        let decided = world.decision(Some(path));
        assert_eq!(process["identity"], decided["identity"], "{path}: {process}");
        assert_eq!(process["identity"], identity.map_or(Value::Null, Value::from), "{path}");
        assert_eq!(code, Some(if identity.is_some() { 0 } else { 1 }), "{path}");
        for (told, recorded) in
            [("pid", "pid"), ("exe", "exe"), ("exe_inode", "exe_ino"), ("uid", "uid"), ("gid", "gid")]
        {
            assert_eq!(process[told], decided["workload"][recorded], "{path}: {told}");
        }
        assert_eq!(process["cgroup"], decided["workload"]["cgroup_path"], "{path}");
        assert_eq!(process["governed"], true, "{path}");
        let reason = decided["reason"].as_str().unwrap();
        if path == "/v1/several" {
            assert_eq!(process["ambiguous"], serde_json::json!(["anything-of-11", "billing"]));
        } else if identity.is_none() {
            assert!(reason.contains(process["reason"].as_str().unwrap()), "{path}: {reason} of {process}");
        }
    }
}

#[test]
fn each_condition_says_what_was_wanted_and_what_it_is_under_the_policy_that_is_live() {
    let world = World::new();
    world.without_identities();
    world.identity("bot", "exe = \"{root}/bots/actor\"\nuser = \"4242\"\nunit = \"billing.service\"");
    world.daemon();
    let bot = waiting(world.bot("actor").user(4242, 1).args(["wait", PLAIN, "/v1/x"]).spawn());
    let pid = bot.pid().to_string();
    let process = only(&who(&world, &pid).1);
    assert_eq!(condition(&process, "bot", "exe")["holds"], true);
    assert_eq!(condition(&process, "bot", "user")["holds"], true);
    let unit = condition(&process, "bot", "unit");
    assert_eq!((unit["holds"].clone(), unit["wanted"].clone()), (false.into(), "billing.service".into()));
    assert_eq!((unit["found"].clone(), process["identity"].clone()), ("no unit".into(), Value::Null));

    world.identity("bot", "exe = \"{root}/bots/actor\"\nuser = \"4242\"");
    world.wait_for_generation(2);
    let (code, report) = who(&world, &pid);
    assert_eq!(
        (code, report["generation"].clone(), only(&report)["identity"].clone()),
        (Some(0), 2.into(), "bot".into())
    );
    let page = world.vouchsafe(&["who", &pid]).stdout;
    assert!(page.contains("identity    bot (policy generation 2)\n"), "{page}");
}

#[test]
fn a_unit_is_all_of_its_processes_and_what_is_left_out_is_said() {
    let world = World::start();
    let nobody = world.vouchsafe(&["who", "crowd"]);
    assert_eq!(nobody.code, Some(1));
    assert!(nobody.stderr.contains("no process of the unit crowd.service is running"), "{nobody:?}");
    // A cgroup of that name that is not the system's unit does not count, for who as for calls.
    let _fake = waiting(world.bot("actor").cgroup("bots/crowd.service").args(["wait", PLAIN, "/"]).spawn());
    assert_eq!(world.vouchsafe(&["who", "crowd"]).code, Some(1));

    let unit = "system.slice/crowd.service";
    let one = waiting(world.bot("actor").cgroup(unit).args(["wait", PLAIN, "/"]).spawn());
    let below = format!("{unit}/worker");
    let stranger = world.copy(world.path("bots/actor"), "elsewhere/stranger");
    let other = waiting(world.bot(stranger).cgroup(&below).args(["wait", PLAIN, "/"]).spawn());
    let (code, report) = who(&world, "crowd");
    let found: Vec<(u64, Value)> = report["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| (process["pid"].as_u64().unwrap(), process["identity"].clone()))
        .collect();
    assert_eq!(found, [(one.pid().into(), "actor".into()), (other.pid().into(), Value::Null)]);
    assert_eq!((code, report["omitted"].clone()), (Some(1), 0.into()), "one of them has no identity");

    let many = "i=0; while [ $i -lt 70 ]; do sleep 100 & i=$((i+1)); done; echo waiting; wait";
    let _crowd = waiting(world.bot("/bin/sh").cgroup(unit).args(["-c", many]).spawn());
    let (_, report) = who(&world, "crowd.service");
    assert_eq!(report["processes"].as_array().unwrap().len(), 64);
    assert_eq!(report["omitted"], 73 - 64, "two actors, a shell and its 70 children");
    let page = world.vouchsafe(&["who", "crowd.service"]).stdout;
    assert!(page.contains("9 more processes of crowd.service are not shown"), "{page}");
}

#[test]
fn who_is_not_governed_or_no_workload_is_told_with_the_reason() {
    let world = World::start();
    let outside = waiting(world.bot("actor").outside().args(["wait", PLAIN, "/"]).spawn());
    let (code, report) = who(&world, &outside.pid().to_string());
    let process = only(&report);
    assert_eq!((code, process["governed"].clone()), (Some(1), false.into()));
    assert!(process["not_governed"].as_str().unwrap().contains("is not below"), "{process}");
    let page = world.vouchsafe(&["who", &outside.pid().to_string()]).stdout;
    assert!(page.contains("governed    no: its cgroup /vouchsafe-test-"), "{page}");

    let daemon = only(&who(&world, &world.daemon_pid().to_string()).1);
    assert!(daemon["not_governed"].as_str().unwrap().contains("the daemon itself"), "{daemon}");

    let gone = world.vouchsafe(&["who", "4194304"]);
    assert_eq!((gone.code, gone.stdout.as_str()), (Some(1), ""));
    assert!(gone.stderr.contains("there is no process 4194304; look its id up again"), "{gone:?}");
    if let Some(thread) = kernel_thread() {
        let told = world.vouchsafe(&["who", &thread]);
        assert_eq!(told.code, Some(1));
        assert!(told.stderr.contains("is a kernel thread"), "{told:?}");
    }

    assert_eq!(world.terminate(), Some(0));
    let told = world.vouchsafe(&["who", "1"]);
    assert_eq!(told.code, Some(3));
    assert!(told.stdout.contains("vouchsafe is not running") && told.stdout.contains("systemctl start"));
    assert_eq!(world.vouchsafe(&["who", "--json", "1"]).json()["running"], false);
}

/// The id of a thread of the kernel; none in a pid namespace.
fn kernel_thread() -> Option<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let flags = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(6)?.parse().ok());
        flags.is_some_and(|flags: u32| flags & 0x0020_0000 != 0)
    })
}

#[test]
fn it_tells_nothing_of_what_a_process_was_started_with_and_no_secret() {
    let world = World::start();
    let bot = world.bot("actor").env("TOKEN", "from-the-environment").args(["wait", PLAIN, "/argument"]);
    let bot = waiting(bot.spawn());
    let pid = bot.pid().to_string();
    let told =
        format!("{:?}{:?}", world.vouchsafe(&["who", &pid]), world.vouchsafe(&["who", "--json", &pid]));
    assert!(told.contains("bots/actor"), "{told}");
    for secret in [CANARY, "from-the-environment", "/argument"] {
        assert!(!told.contains(secret), "{secret} is in {told}");
    }
}
