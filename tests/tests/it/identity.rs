//! Identity when the order of events is the worst: the daemon is held up until the process has executed another program,
//! is gone, or has left its process id or its address to somebody else.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Running, World, wait_until};

/// `plain.test`: it takes anybody's call, so whether one arrives is the proxy's doing.
const PLAIN: &str = "203.0.113.10:80";

/// A world whose policies do not know `elsewhere/stranger`, a copy of the actor.
fn world() -> World {
    let world = World::start();
    world.copy(world.path("bots/actor"), "elsewhere/stranger");
    world
}

/// Waits until a process runs this file.
#[track_caller]
fn wait_for_exe(process: &Running, exe: &Path) {
    wait_until("the execution of the other program", || {
        let now = fs::read_link(format!("/proc/{}/exe", process.pid())).unwrap();
        (now == exe).then_some(())
    });
}

/// The decision about a path: its verdict, its identity, and the executable that it names.
#[track_caller]
fn decided(world: &World, path: &str) -> (String, Value, String) {
    let record = world.decision(Some(path));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&record["verdict"]), record["identity"].clone(), text(&record["workload"]["exe"]))
}

#[test]
fn what_is_executed_before_the_accept_gives_and_takes_nothing() {
    let world = world();
    let (bot, stranger) = (world.path("bots/actor"), world.path("elsewhere/stranger"));
    for (first, then, path, status, identity) in [
        (&stranger, &bot, "/v1/became-bot", "403", Value::Null),
        (&bot, &stranger, "/v1/was-bot", "200", Value::from("actor")),
    ] {
        world.signal(Signal::SIGSTOP);
        let mut process = world.bot(first).args(["exec", PLAIN]).arg(then).args(["speak", path]).spawn();
        wait_for_exe(&process, then);
        world.signal(Signal::SIGCONT);
        let told = process.rest();
        assert!(told.contains(&format!("HTTP/1.1 {status}")), "{path}: {told}");
        let (_, who, exe) = decided(&world, path);
        assert_eq!(who, identity, "{path}");
        assert_ne!(exe, then.to_str().unwrap(), "{path}: the record blames a program that did not connect");
    }
    assert_eq!(world.seen().len(), 1, "the API saw the call of a stranger");
}

#[test]
fn a_process_that_is_gone_before_the_accept_is_judged_by_what_the_kernel_captured() {
    let world = world();
    let (bot, stranger) = (world.path("bots/actor"), world.path("elsewhere/stranger"));
    for (first, heir, path, verdict, identity) in [
        (&bot, &stranger, "/v1/of-a-bot", "allow", Value::from("actor")),
        (&stranger, &bot, "/v1/of-a-stranger", "deny", Value::Null),
    ] {
        world.signal(Signal::SIGSTOP);
        let mut process = world.bot(first).args(["leave", PLAIN]).arg(heir).args(["speak", path]).spawn();
        let pid = process.pid();
        assert_eq!(process.wait(), Some(0));
        world.signal(Signal::SIGCONT);
        process.rest();
        let (decision, who, exe) = decided(&world, path);
        assert_eq!((decision.as_str(), who), (verdict, identity), "{path}");
        assert_ne!(exe, heir.to_str().unwrap(), "{path}: the record blames the heir");
        assert_eq!(world.decision(Some(path))["workload"]["pid"], pid, "{path}");
    }
}

/// Starts programs until one has this process id. None when somebody else has it.
fn take_pid(pid: u32, program: &Path) -> Option<Child> {
    for _ in 0..50 {
        // The next process gets the next free id (proc_sys_kernel(5), ns_last_pid).
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let mut command = Command::new(program);
        command.args(["wait", PLAIN, "/"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        if child.id() == pid {
            return Some(child);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    None
}

#[test]
fn who_gets_the_pid_of_a_process_gets_neither_its_identity_nor_its_blame() {
    let world = world();
    let (bot, stranger) = (world.path("bots/actor"), world.path("elsewhere/stranger"));
    for (first, next, path, verdict, identity) in [
        (&stranger, &bot, "/v1/pid-of-bot", "deny", Value::Null),
        (&bot, &stranger, "/v1/pid-of-stranger", "allow", Value::from("actor")),
    ] {
        // Another process of the host may be quicker; then it is played again, on another path.
        let mut round = 0;
        let path = wait_until("the second use of a process id", || {
            round += 1;
            let path = format!("{path}/{round}");
            world.signal(Signal::SIGSTOP);
            let heir = world.bot(first).args(["leave", PLAIN]).arg(&stranger).args(["speak", &path]);
            let mut process = heir.spawn();
            assert_eq!(process.wait(), Some(0));
            let second = take_pid(process.pid(), next);
            world.signal(Signal::SIGCONT);
            process.rest();
            let decision = second.is_some().then(|| world.decision(Some(&path)));
            if let Some(mut second) = second {
                second.kill().unwrap();
                second.wait().unwrap();
            }
            decision.map(|_| path)
        });
        let (decision, who, exe) = decided(&world, &path);
        assert_eq!((decision.as_str(), who), (verdict, identity), "{path}");
        assert_ne!(exe, next.to_str().unwrap(), "{path}: the record blames the process that came later");
    }
}

#[test]
fn a_child_that_executes_nothing_else_is_what_its_parent_is() {
    let world = World::start();
    let script = "
import os, sys, urllib.request
print(os.getpid(), flush=True)
child = os.fork()
if child == 0:
    print(os.getpid(), urllib.request.urlopen(sys.argv[1], timeout=20).status, flush=True)
    os._exit(0)
os.waitpid(child, 0)
";
    let told = world.python(script, &["https://api.test/v1/forked"]);
    let mut lines = told.stdout.lines();
    let parent = lines.next().unwrap_or_default().to_owned();
    let (child, status) = lines.next().and_then(|line| line.split_once(' ')).unwrap_or_default();
    assert_eq!(status, "200", "{told:?}");
    let record = world.decision(Some("/v1/forked"));
    assert_eq!(record["identity"], "python");
    assert_eq!(record["workload"]["pid"].to_string(), child, "the child called, not its parent");
    assert_ne!(child, parent);
}

/// Connects from the port 40001 and breaks off at once, so that the port is free again.
const BREAK_OFF: &str = "
import socket, struct, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('', 40001))
s.connect((sys.argv[1], int(sys.argv[2])))
if len(sys.argv) > 3:
    s.send(b'GET /v1/served HTTP/1.1\\r\\nHost: plain.test\\r\\n\\r\\n')
    print(s.recv(12).decode())
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
s.close()
";

/// Calls the proxy itself from the same port, and prints how much comes back.
const KNOCK: &str = "
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('', 40001))
s.settimeout(20)
s.connect((sys.argv[1], int(sys.argv[2])))
print('connected', flush=True)
try:
    s.send(b'GET /v1/borrowed HTTP/1.1\\r\\nHost: plain.test\\r\\nConnection: close\\r\\n\\r\\n')
    print(len(s.recv(1000)))
except (ConnectionResetError, BrokenPipeError):
    print(0)
";

#[test]
fn an_origin_is_not_inherited_by_whoever_calls_from_the_same_address() {
    let world = world();
    let listener = world.status()["listeners"][0].as_str().unwrap().to_owned();
    let (host, port) = listener.rsplit_once(':').unwrap();
    let knock = || world.bot("/usr/bin/python3").outside().args(["-c", KNOCK, host, port]).spawn();

    // The origin was taken by an accept, and is gone with it.
    let told = world.python(BREAK_OFF, &["203.0.113.10", "80", "serve"]);
    assert_eq!(told.stdout.trim(), "HTTP/1.1 200", "{told:?}");
    let mut heir = knock();
    assert_eq!((heir.line().as_str(), heir.line().as_str()), ("connected", "0"));

    // The one broke off before the accept; the daemon wakes when both connections wait for it.
    world.signal(Signal::SIGSTOP);
    let told = world.python(BREAK_OFF, &["203.0.113.10", "80"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let mut heir = knock();
    assert_eq!(heir.line(), "connected");
    world.signal(Signal::SIGCONT);
    assert_eq!(heir.line(), "0", "the heir of the address was served");

    // Nobody was there to accept: the map outlives the daemon, and the origin must not wait in it for the next one.
    world.kill9();
    let told = world.python(BREAK_OFF, &["203.0.113.10", "80"]);
    assert!(told.stderr.contains("ConnectionRefusedError"), "{told:?}");
    world.daemon();
    let mut heir = knock();
    assert_eq!((heir.line().as_str(), heir.line().as_str()), ("connected", "0"));
    assert_eq!(world.seen_at_least(1).len(), 1, "somebody's call went under the name of another");
    assert_eq!(world.status()["kernel"]["origins_in_map"], 0);
}

#[test]
fn code_that_others_put_into_a_bot_as_it_starts_makes_it_nobody_where_a_clean_environment_is_wanted() {
    let world = World::new();
    let bot = world.path("bots/actor");
    let digest = sha256(&bot);
    let conditions = [
        ("pinned", format!("sha256 = \"{digest}\""), true),
        ("unpinned", format!("sha256 = \"{digest}\"\nclean_environment = false"), false),
        ("wanted", "exe = \"{root}/bots/actor\"\nclean_environment = true".to_owned(), true),
        ("by-path", "exe = \"{root}/bots/actor\"".to_owned(), false),
    ];
    world.without_identities();
    world.identity("pinned", &conditions[0].1);
    world.daemon();
    let mut generation = 1;
    for (name, condition, wants) in conditions {
        if name != "pinned" {
            world.identity("pinned", &condition);
            generation += 1;
            wait_until("the policy", || (world.status()["policy"]["generation"] == generation).then_some(()));
        }
        let get = |variable: Option<(&str, &str)>, path: &str| {
            let mut bot = world.bot(&bot).args(["get", PLAIN, path]);
            if let Some((name, value)) = variable {
                bot = bot.env(name, value);
            }
            bot.run().stdout
        };
        let clean = get(None, &format!("/v1/{name}/clean"));
        assert!(clean.contains("HTTP/1.1 200"), "{name}: {clean}");
        let long = "x".repeat(10_000);
        for variable in ["LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "NODE_OPTIONS"] {
            let path = format!("/v1/{name}/{variable}");
            let told = get(Some((variable, "/nonexistent")), &path);
            assert_eq!(told.contains("HTTP/1.1 403"), wants, "{name} {variable}: {told}");
            if wants {
                let reason = world.decision(Some(&path))["reason"].as_str().unwrap().to_owned();
                assert!(reason.contains(variable), "{reason}");
            }
        }
        // Long values hide nothing, and names that only look alike are no reason.
        let told = get(Some(("XLD_PRELOAD", &long)), &format!("/v1/{name}/alike"));
        assert!(told.contains("HTTP/1.1 200"), "{name}: {told}");
    }
}

#[test]
fn a_variable_is_found_wherever_it_stands_and_more_than_are_looked_at_are_a_reason_of_their_own() {
    /// How many strings the kernel side looks at, and how many of them in one loop.
    const MOST: usize = 512;
    const AT_ONCE: usize = 16;
    let world = World::new();
    world.without_identities();
    world.identity("actor", "exe = \"{root}/bots/actor\"\nclean_environment = true");
    world.daemon();
    let get = |before: usize, variable: Option<&str>, path: &str| {
        let others = (0..before).map(|number| format!("V{number}=x"));
        let environment = others.chain(variable.map(str::to_owned));
        let actor = world.path("bots/actor").display().to_string();
        let bot =
            world.bot("/usr/bin/env").arg("-i").args(environment).arg(&actor).args(["get", PLAIN, path]);
        let told = bot.run().stdout;
        let reason = world.decision(Some(path))["reason"].as_str().unwrap_or_default().to_owned();
        (told.contains("HTTP/1.1 200"), reason)
    };
    for before in [0, 1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, MOST - AT_ONCE, MOST - 2, MOST - 1] {
        let (served, reason) = get(before, Some("LD_PRELOAD=/nonexistent"), &format!("/v1/{before}/behind"));
        assert!(!served && reason.contains("LD_PRELOAD"), "behind {before}: {reason}");
    }
    for before in [AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, MOST - 1, MOST] {
        let (served, reason) = get(before, None, &format!("/v1/{before}/alone"));
        assert!(served, "{before} variables: {reason}");
    }
    let hidden = get(MOST, Some("LD_PRELOAD=/nonexistent"), "/v1/hidden");
    let many = get(MOST + 1, None, "/v1/many");
    // A string of several chunks counts as several.
    let long = format!("LONG={}", "x".repeat(20_000));
    let longer = get(MOST - 2, Some(&long), "/v1/long");
    for (served, reason) in [hidden, many, longer] {
        assert!(!served && reason.contains("more variables"), "{reason}");
    }
}

#[test]
fn what_a_bot_changes_in_its_environment_after_its_start_changes_nothing() {
    let world = World::new();
    world.without_identities();
    world.identity("python", "exe = \"{root}/bots/python3\"\nclean_environment = true");
    world.daemon();
    let script = "import os, socket\n\
                  os.environ['LD_PRELOAD'] = '/nonexistent'\n\
                  if os.fork() == 0:\n    \
                      s = socket.create_connection(('203.0.113.10', 80))\n    \
                      s.sendall(b'GET /v1/forked HTTP/1.1\\r\\nHost: plain.test\\r\\nConnection: close\\r\\n\\r\\n')\n    \
                      print(s.recv(15).decode(), flush=True)\n    \
                      os._exit(0)\n\
                  os.wait()";
    let told = world.python(script, &[]);
    assert!(told.stdout.contains("HTTP/1.1 200"), "{told:?}");
    // A daemon that comes later sees what the process shows.
    let mut dirty =
        world.bot("python3").env("PYTHONPATH", "/x").args(["-c", "print('up', flush=True); input()"]).spawn();
    assert_eq!(dirty.line(), "up");
    let who = world.vouchsafe(&["who", &dirty.pid().to_string()]);
    assert!(who.stdout.contains("PYTHONPATH"), "{who:?}");
    dirty.say("end");
    dirty.wait();
}

fn sha256(file: &Path) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(fs::read(file).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_journal_says_what_a_program_was_started_by_up_to_the_leader_of_its_session() {
    let world = World::start();
    let curl = world.path("bots/curl");
    let script = format!(
        "{} -sS -m 10 --cacert {} https://api.test/v1/child; true",
        curl.display(),
        world.path("bots.pem").display()
    );
    let told = world.bot("/usr/bin/setsid").args(["--wait", "sh", "-c", &script]).run();
    assert_eq!(told.code, Some(0), "{told:?}");
    let workload = &world.decision(Some("/v1/child"))["workload"];
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    assert_eq!(workload["ancestors"], serde_json::json!([shell.to_str().unwrap()]), "{workload}");
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let mntns = workload["mntns"].as_u64().unwrap();
    assert!(
        mntns > 0 && own.to_str() != Some(&format!("mnt:[{mntns}]")),
        "bots have mount namespaces of their own"
    );
}
