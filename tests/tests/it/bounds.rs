//! The tables of the kernel side at their bound: closed, told in the status and the journal, and well again afterwards.

use std::fs;

use nix::sys::signal::Signal;
use proxy_common::{Facts, MAX_NETWORK_RULES, MAX_STANDINGS, Origin, OriginKey, Program, Standing, names};
use serde_json::Value;
use tests::fill::{self, Filled, size};
use tests::{Running, World, wait_until};

const VALUE_OF_SERVED: usize = size::<u32>();

fn call(world: &World) -> u16 {
    world.curl(&["--max-time", "5", "https://api.test/v1/x"]).status
}

/// The record that tells of the bound, whose counter the status shows as well.
#[track_caller]
fn told(world: &World, counter: &str) -> Value {
    assert!(world.counter(counter) > 0, "{counter} is not in the status");
    let record = world.record("bound", |record| record["counter"] == counter);
    assert!(record["count"].as_u64().unwrap() > 0, "{record}");
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));
    assert!(world.vouchsafe(&["audit", "tail"]).stdout.contains(counter));
    record
}

/// A bot that sends a datagram for each line that it gets and says what became of it.
const SENDER: &str = r"
import socket, sys
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for line in sys.stdin:
    address, port, count = line.split()
    refused = 0
    for _ in range(int(count)):
        try:
            here.sendto(b'hello', (address, int(port)))
        except PermissionError:
            refused += 1
    print('refused', refused, flush=True)
";

/// Sends so many datagrams; returns how many were refused.
fn send(bot: &mut Running, port: u16, count: u32) -> u32 {
    bot.say(&format!("203.0.113.10 {port} {count}"));
    let told = bot.line();
    told.strip_prefix("refused ").and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{told:?}"))
}

const OPEN: u16 = 5353;

/// A world whose python may send datagrams to one port.
fn with_a_grant() -> World {
    let world = World::new();
    world.policy(
        "policies/python.toml",
        &format!("[identity]\nexe = \"{{root}}/bots/python3\"\n\n[[grant]]\nnetwork = [\"udp 203.0.113.10:{OPEN}\"]\n"),
    );
    world.daemon();
    world
}

fn sender(world: &World, program: &str) -> Running {
    world.bot(world.path(program)).args(["-c", SENDER]).spawn()
}

#[test]
fn a_connection_that_finds_the_table_of_origins_full_is_closed() {
    let world = World::start();
    assert_eq!(call(&world), 200);
    let nobody = |number: u32| OriginKey {
        netns_cookie: u64::MAX,
        port: 1,
        addr: wide(number),
        ..OriginKey::default()
    };
    let full = Filled::to_the_bound::<_, { size::<Origin>() }>(&world, names::ORIGINS, nobody);
    assert_eq!(call(&world), 0);
    told(&world, "origin_lost");
    assert!(world.counter("accepted_without_origin") > 0);
    drop(full);
    assert_eq!(call(&world), 200);
}

fn wide(number: u32) -> [u8; 16] {
    u128::from(number).to_be_bytes()
}

#[test]
fn a_process_that_finds_the_table_of_programs_full_has_no_executable_and_no_identity() {
    let world = World::start();
    assert_eq!(call(&world), 200);
    // Beyond all process ids (PID_MAX_LIMIT is 1 << 22).
    let nobody = |number: u32| (1 << 24) + number;
    let full = Filled::to_the_bound::<_, { size::<Program>() }>(&world, names::PROGRAMS, nobody);
    // What else ends on this host makes room now and then, for a moment.
    wait_until("a call by a process that is not known", || (call(&world) == 403).then_some(()));
    let record = world.record("decision", |record| record["verdict"] == "deny");
    assert_eq!(record["identity"], Value::Null, "{record}");
    told(&world, "programs_lost");
    drop(full);
    assert_eq!(call(&world), 200);
}

/// What its memory names as its executable may be what it made of itself by then.
#[test]
fn a_process_that_found_the_table_full_stays_unknown_to_the_next_daemon_too() {
    let world = World::start();
    let nobody = |number: u32| (1 << 24) + number;
    let full = Filled::to_the_bound::<_, { size::<Program>() }>(&world, names::PROGRAMS, nobody);
    let waits = "import sys, urllib.request\n\
                 print('up', flush=True)\n\
                 for line in sys.stdin:\n    \
                     try: print(urllib.request.urlopen('http://plain.test' + line.strip()).status, flush=True)\n    \
                     except urllib.error.HTTPError as error: print(error.code, flush=True)";
    let start = || {
        let mut bot = world.bot("python3").args(["-c", waits]).spawn();
        assert_eq!(bot.line(), "up");
        bot
    };
    let asked = |bot: &mut Running, path: &str| {
        bot.say(path);
        bot.line()
    };
    let mut lost = start();
    // Another process that ends on this host may make room, for a moment.
    while asked(&mut lost, "/v1/lost") == "200" {
        lost = start();
    }
    drop(full);
    world.restart();
    assert_eq!(asked(&mut lost, "/v1/still-lost"), "403");
    assert_eq!(asked(&mut start(), "/v1/known"), "200");
    lost.rest();
    lost.wait();
}

#[test]
fn who_is_refused_too_often_has_its_refusals_counted_and_fills_no_journal() {
    const RECORDED: u64 = 5;
    let world = World::new();
    world.set("limits.refusals_per_identity", &format!("\"1/h burst {RECORDED}\""));
    world.daemon();
    let script = "import http.client, sys\n\
                  bot = http.client.HTTPConnection('plain.test')\n\
                  for path in sys.argv[1:]:\n    \
                      bot.request('GET', path)\n    \
                      answer = bot.getresponse()\n    \
                      answer.read()\n    \
                      print(answer.status, answer.headers['vouchsafe-journal-id'] is not None)";
    let forbidden: Vec<String> = (0..30).map(|number| format!("/no/{number}")).collect();
    let paths: Vec<&str> = forbidden.iter().map(String::as_str).chain(["/v1/x"]).collect();
    let told = world.python(script, &paths).stdout;
    let expected = [vec!["403 True"; 5], vec!["403 False"; 25], vec!["200 False"]].concat();
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    // Of a program that no policy knows.
    for _ in 0..8 {
        assert_eq!(world.bot("/usr/bin/curl").args(["-skf", "https://api.test/v1/x"]).run().code, Some(22));
    }
    // Datagrams that the kernel refuses.
    let mut bot = sender(&world, "bots/python3");
    for port in 1001..1021 {
        assert_eq!(send(&mut bot, port, 1), 1);
    }
    wait_until("datagrams that are counted", || {
        (world.counter("refusals_unrecorded") >= 25 + 3 + 10).then_some(())
    });
    // Others go on, and are told of each refusal.
    assert_eq!(call(&world), 200);
    assert_eq!(world.curl(&["https://api.test/v1/forbidden/x"]).status, 403);
    assert_eq!(world.decision(Some("/v1/forbidden/x"))["identity"], "curl");
    world.terminate();
    for (identity, least) in [(Value::from("python"), 25 + 10), (Value::Null, 3)] {
        let whose = |record: &&Value| record["identity"] == identity;
        let journal = world.journal();
        let denied = |field: &str, value: &str| {
            let denied = journal.iter().filter(whose).filter(|record| record["verdict"] == "deny");
            denied.filter(|record| record[field] == value).count() as u64
        };
        assert_eq!(denied("method", "GET"), RECORDED, "{identity}");
        // Refused calls do not use up what is for the kernel's.
        if !identity.is_null() {
            assert_eq!(denied("scheme", "udp"), RECORDED, "{identity}");
        }
        let bounds: Vec<_> = journal
            .iter()
            .filter(whose)
            .filter(|record| record["counter"] == "refusals_unrecorded")
            .collect();
        let counts = bounds.iter().map(|bound| bound["count"].as_u64().unwrap());
        let (total, counted) = (bounds.last().unwrap()["total"].as_u64().unwrap(), counts.sum::<u64>());
        assert!(total >= least && counted == total, "{identity}: {bounds:?}");
    }
    let shown = world.vouchsafe(&["audit", "tail", "--identity", "python", "--kind", "bound"]);
    assert!(shown.stdout.contains("python refusals_unrecorded "), "{shown:?}");
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));
}

#[test]
fn a_network_namespace_that_finds_the_table_full_is_held_back_until_there_is_room() {
    let world = World::start();
    // A cookie of nobody; cookies count up from 1.
    let full = Filled::to_the_bound::<_, VALUE_OF_SERVED>(&world, names::SERVED, |number| {
        u64::MAX - u64::from(number)
    });
    let curl = |seconds: u32| {
        let (program, roots) = (world.path("bots/curl"), world.path("bots.pem"));
        let (program, roots) = (program.display(), roots.display());
        format!(
            "{program} -sS -o /dev/null --cacert {roots} -m {seconds} -w '%{{http_code}}\\n' https://api.test/v1/x\n"
        )
    };
    // The same namespace, before and after there is room.
    let script = format!("ip link set lo up\n{}read _\n{}", curl(4), curl(20));
    let mut inside = world.bot("/usr/bin/unshare").args(["-n", "sh", "-c", &script]).spawn();
    assert_eq!(inside.line(), "000");
    told(&world, "namespaces_refused");
    assert_eq!(world.counter("namespaces_served"), 0);
    drop(full);
    inside.say("");
    assert_eq!(inside.line(), "200");
}

#[test]
fn a_standing_that_was_forgotten_for_others_is_asked_for_again_and_opens_nothing_meanwhile() {
    let world = with_a_grant();
    let mut bot = sender(&world, "bots/python3");
    let passes =
        |bot: &mut Running| wait_until("a datagram that passes", || (send(bot, OPEN, 1) == 0).then_some(()));
    // It asks, and the answer is there but was not looked at yet: what was used lately is forgotten last.
    assert_eq!(send(&mut bot, OPEN, 1), 1);
    let standings = || fill::count::<Facts, { size::<Standing>() }>(&world, names::STANDINGS);
    wait_until("an answer", || (standings() > 0).then_some(()));
    // What was used lately stays longer, so it may take more than one filling.
    let forgotten =
        (0_u64..4).any(|round| {
            let unknown = world.counter("refused_unknown");
            fill::put::<_, { size::<Standing>() }>(&world, names::STANDINGS, 2 * MAX_STANDINGS, |number| {
                Facts { exe_ino: (round << 32) | u64::from(number), exe_dev: u32::MAX, ..Facts::default() }
            });
            let refused = send(&mut bot, OPEN, 1);
            assert_eq!(world.counter("refused_unknown"), unknown + u64::from(refused));
            refused == 1
        });
    assert!(forgotten, "it was not forgotten, so this test shows nothing");
    assert_eq!(send(&mut bot, 9, 20), 20, "nothing else is open");
    passes(&mut bot);
    assert_eq!(send(&mut bot, 9, 20), 20);
}

#[test]
fn a_policy_with_more_network_rules_than_the_kernel_holds_is_refused_as_a_whole() {
    let world = with_a_grant();
    let mut bot = sender(&world, "bots/python3");
    wait_until("a datagram that passes", || (send(&mut bot, OPEN, 1) == 0).then_some(()));
    // A new set and the one before are in the table together for a moment.
    let each = MAX_NETWORK_RULES / 2 / 256 + 1;
    for identity in 0..256 {
        let rules: Vec<String> = (0..each).map(|rule| format!("\"udp 10.{identity}.0.{rule}:53\"")).collect();
        let text = format!(
            "[identity]\nexe = \"/bin/x{identity}\"\n\n[[grant]]\nnetwork = [{}]\n",
            rules.join(", ")
        );
        // Read when all of them are there.
        world.write(&format!("many/{identity}.toml"), &text);
    }
    let policies = world.path("etc/policies");
    fs::copy(policies.join("python.toml"), world.path("many/python.toml")).unwrap();
    fs::rename(&policies, world.path("few")).unwrap();
    fs::rename(world.path("many"), &policies).unwrap();
    let refused = world.record("policy", |record| record["result"] == "refused");
    assert!(refused["errors"].to_string().contains("network rules"), "{refused}");
    let reload = world.reload();
    assert_eq!(reload.code, Some(1), "{reload:?}");
    assert!(!world.status()["policy"]["last_error"].to_string().is_empty());
    assert_eq!(world.status()["policy"]["generation"], 1);
    assert_eq!(send(&mut bot, OPEN, 20), 0, "the rules before go on");
}

#[test]
fn events_that_find_the_ring_full_are_counted_and_who_was_not_heard_is_asked_again() {
    const FLOOD: u32 = 20_000;
    let world = with_a_grant();
    world.copy("/usr/bin/python3", "elsewhere/stranger");
    let mut bot = sender(&world, "bots/python3");
    let mut stranger = sender(&world, "elsewhere/stranger");
    world.signal(Signal::SIGSTOP);
    assert_eq!(send(&mut stranger, 9, FLOOD), FLOOD);
    assert_eq!(send(&mut bot, OPEN, 1), 1, "nobody has said who it is");
    world.signal(Signal::SIGCONT);
    wait_until("a datagram that passes", || (send(&mut bot, OPEN, 1) == 0).then_some(()));
    let record = told(&world, "events_lost");
    assert!(record["total"].as_u64().unwrap() > u64::from(FLOOD) / 4, "{record}");
    // Not one for each of them.
    let bounds = world.journal().iter().filter(|record| record["kind"] == "bound").count();
    assert!(bounds <= 2, "{bounds}");
    assert_eq!(call(&world), 200);
    // What was lost while no daemon is there is told by the next.
    let known = record["total"].as_u64().unwrap();
    assert_eq!(world.terminate(), Some(0));
    assert_eq!(send(&mut stranger, 9, FLOOD), FLOOD);
    world.daemon();
    world.record("bound", |record| record["total"].as_u64().unwrap() > known + u64::from(FLOOD) / 4);
}
