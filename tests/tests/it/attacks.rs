//! Attempts to borrow an identity, and to get around a proxy that is down.

use std::fs;
use std::os::unix::fs::symlink;

use tests::{CANARY, World};

/// `plain.test`, which takes anybody's call: whether one arrives is the proxy's doing.
const PLAIN: &str = "203.0.113.10:80";

/// Puts a second copy of the actor where no policy knows it.
fn stranger(world: &World) -> std::path::PathBuf {
    world.copy(world.path("bots/actor"), "elsewhere/stranger")
}

fn identity_of_last(world: &World, path: &str) -> serde_json::Value {
    world.decision(Some(path))["identity"].clone()
}

#[test]
fn a_stranger_that_connects_and_then_executes_the_bot_stays_a_stranger() {
    let world = World::start();
    let bot = world.path("bots/actor");
    let told = world.bot(stranger(&world)).arg("exec").arg(PLAIN).arg(&bot).args(["speak", "/v1/exec"]).run();
    assert!(told.stdout.contains("403"), "{told:?}");
    assert_eq!(identity_of_last(&world, "/v1/exec"), serde_json::Value::Null);
    assert!(world.seen().is_empty(), "the API saw the call of a stranger");
}

#[test]
fn a_bot_that_connects_and_then_executes_another_program_is_judged_as_the_bot() {
    let world = World::start();
    let other = stranger(&world);
    let told = world
        .bot(world.path("bots/actor"))
        .arg("exec")
        .arg(PLAIN)
        .arg(&other)
        .args(["speak", "/v1/kept"])
        .run();
    assert!(told.stdout.contains("200"), "{told:?}");
    assert_eq!(identity_of_last(&world, "/v1/kept"), "actor");
}

#[test]
fn a_socket_that_a_stranger_hands_to_a_bot_stays_the_strangers_also_when_the_stranger_is_gone() {
    let world = World::start();
    let bot = world.path("bots/actor");
    let _ = world.bot(stranger(&world)).arg("leave").arg(PLAIN).arg(&bot).args(["speak", "/v1/left"]).run();
    assert_eq!(identity_of_last(&world, "/v1/left"), serde_json::Value::Null);
    assert!(world.seen().is_empty(), "the API saw the call of a stranger");
}

#[test]
fn a_link_is_the_file_a_copy_is_not_and_a_faked_name_is_nothing() {
    let world = World::start();
    let bot = world.path("bots/actor");
    symlink(&bot, world.path("elsewhere/symlink")).unwrap();
    fs::hard_link(&bot, world.path("elsewhere/hardlink")).unwrap();
    let copy = stranger(&world);
    for (program, status) in [
        (world.path("elsewhere/symlink"), "200"),
        (world.path("elsewhere/hardlink"), "200"),
        (copy.clone(), "403"),
    ] {
        let told = world.bot(&program).args(["get", PLAIN, "/v1/link"]).run();
        assert!(told.stdout.contains(&format!("HTTP/1.1 {status}")), "{}: {told:?}", program.display());
    }
    let told = world.bot(&copy).args(["named", "actor", PLAIN, "/v1/named"]).run();
    assert!(told.stdout.contains("HTTP/1.1 403"), "{told:?}");
    assert_eq!(world.decision(Some("/v1/named"))["workload"]["comm"], "actor");
}

#[test]
fn a_process_that_makes_the_kernel_name_the_bot_as_its_executable_is_not_the_bot() {
    let world = World::start();
    let stranger = world.copy(world.path("bots/actor"), "elsewhere/stranger");
    let bot = world.path("bots/actor");
    for ids in [(4242, 4242), (0, 0)] {
        let path = format!("/v1/disguised-{}", ids.0);
        let told = world
            .bot(&stranger)
            .user(ids.0, ids.1)
            .args(["disguise", bot.to_str().unwrap(), PLAIN, &path])
            .run();
        assert_eq!(told.stdout.lines().next(), bot.to_str(), "the kernel names the bot: {told:?}");
        assert!(told.stdout.contains("HTTP/1.1 403"), "{told:?}");
        assert_eq!(world.decision(Some(&path))["identity"], serde_json::Value::Null);
    }
    assert!(world.counter("program_disguised") >= 2);
    // The bot itself is known as before.
    let told = world.bot(&bot).args(["get", PLAIN, "/v1/itself"]).run();
    assert!(told.stdout.contains("HTTP/1.1 200"), "{told:?}");
}

#[test]
fn after_the_path_was_replaced_the_old_process_is_out_and_the_new_file_is_the_bot() {
    let world = World::start();
    let bot = world.path("bots/actor");
    let mut old = world.bot(&bot).args(["wait", PLAIN, "/v1/old"]).spawn();
    assert_eq!(old.line(), "waiting");
    let new = world.copy(world.path("elsewhere/curl"), "bots/new");
    fs::rename(&new, &bot).unwrap();
    old.say("go");
    let told = old.rest();
    assert!(told.contains("HTTP/1.1 403"), "{told}");
    let reason = world.decision(Some("/v1/old"))["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("replaced"), "{reason}");
    // The new file at that path, which happens to be a curl.
    let told = world
        .bot(&bot)
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "http://plain.test/v1/new"])
        .run();
    assert_eq!(told.stdout, "200", "{told:?}");
}

#[test]
fn user_group_cgroup_unit_and_digest_each_tell_bots_apart() {
    let world = World::new();
    world.without_identities();
    world.set("kernel.unit_root", &format!("\"{}\"", world.governed_path()));
    let digest = |path: &std::path::Path| {
        let told = std::process::Command::new("sha256sum").arg(path).output().unwrap();
        String::from_utf8(told.stdout).unwrap()[..64].to_owned()
    };
    let sha256 = digest(&world.path("bots/actor"));
    world.identity("by-user", "exe = \"{root}/bots/actor\"\nuser = \"4242\"");
    world.identity("by-group", "exe = \"{root}/bots/actor\"\ngroup = \"4343\"\nuser = \"7\"");
    world.identity("by-unit", "unit = \"invoice.service\"\nuser = \"8\"");
    world.identity("by-cgroup", &format!("cgroup = \"{}/special/**\"\nuser = \"9\"", world.governed_path()));
    world.identity("by-digest", &format!("sha256 = \"{sha256}\"\nuser = \"10\""));
    world.identity("by-pattern", "exe = \"{root}/bots/a*r\"\nuser = \"11\"");
    world.daemon();
    let who = |uid, gid, cgroup: &str, program: &std::path::Path, path: &str| {
        let bot = world.bot(program).user(uid, gid);
        let bot = if cgroup.is_empty() { bot } else { bot.cgroup(cgroup) };
        let told = bot.args(["get", PLAIN, path]).run();
        let identity = identity_of_last(&world, path);
        assert_eq!(told.stdout.contains("HTTP/1.1 200"), identity.is_string(), "{path}: {told:?}");
        identity.as_str().unwrap_or("nobody").to_owned()
    };
    let actor = world.path("bots/actor");
    let copy = stranger(&world);
    assert_eq!(who(4242, 1, "", &actor, "/v1/user"), "by-user");
    assert_eq!(who(4243, 1, "", &actor, "/v1/not-user"), "nobody");
    assert_eq!(who(7, 4343, "", &actor, "/v1/group"), "by-group");
    assert_eq!(who(7, 4344, "", &actor, "/v1/not-group"), "nobody");
    assert_eq!(who(8, 1, "system.slice/invoice.service", &copy, "/v1/unit"), "by-unit");
    assert_eq!(who(8, 1, "bots/invoice.service", &copy, "/v1/not-unit"), "nobody");
    assert_eq!(who(9, 1, "special/one", &copy, "/v1/cgroup"), "by-cgroup");
    assert_eq!(who(9, 1, "other", &copy, "/v1/not-cgroup"), "nobody");
    assert_eq!(who(10, 1, "", &copy, "/v1/digest"), "by-digest");
    let mut changed = fs::read(&copy).unwrap();
    changed.push(0);
    fs::write(world.path("elsewhere/changed"), changed).unwrap();
    fs::set_permissions(world.path("elsewhere/changed"), fs::metadata(&copy).unwrap().permissions()).unwrap();
    assert_eq!(who(10, 1, "", &world.path("elsewhere/changed"), "/v1/not-digest"), "nobody");
    assert_eq!(who(11, 1, "", &actor, "/v1/pattern"), "by-pattern");
    assert_eq!(who(11, 1, "", &world.path("elsewhere/stranger"), "/v1/not-pattern"), "nobody");
}

#[test]
fn a_workload_that_two_identities_know_is_refused_and_both_are_named() {
    let world = World::new();
    world.without_identities();
    world.identity("one", "exe = \"{root}/bots/actor\"");
    world.identity("two", "user = \"4242\"");
    world.daemon();
    let told = world.bot(world.path("bots/actor")).user(4242, 1).args(["get", PLAIN, "/v1/both"]).run();
    assert!(told.stdout.contains("HTTP/1.1 403"), "{told:?}");
    let reason = world.decision(Some("/v1/both"))["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("one") && reason.contains("two"), "{reason}");
}

#[test]
fn the_proxys_own_port_serves_nobody_who_calls_it_directly() {
    let world = World::start();
    let port = world.status()["listeners"][0].as_str().unwrap().to_owned();
    let inside = world.bot(world.path("bots/actor")).arg("knock").arg(&port).run();
    assert!(inside.stdout.contains("not permitted"), "{inside:?}");
    for other in ["0.0.0.0", "127.9.9.9", "[::]", "[::ffff:127.0.0.1]"] {
        let port = port.rsplit_once(':').unwrap().1;
        let told = world.bot(world.path("bots/actor")).arg("knock").arg(format!("{other}:{port}")).run();
        assert!(told.stdout.contains("not permitted"), "{other}: {told:?}");
    }
    let outside = world.bot(world.path("bots/actor")).outside().arg("knock").arg(&port).run();
    assert_eq!(outside.stdout.trim(), "connected, 0 bytes");
    assert!(world.counter("accepted_without_origin") >= 1);
    assert!(world.counter("refused_proxy_address") >= 1);
}

#[test]
fn datagrams_to_a_mediated_port_are_refused_so_quic_falls_back() {
    let world = World::start();
    for mode in ["udp-connect", "udp-send"] {
        for address in ["203.0.113.10:443", "[::1]:443"] {
            let told = world.bot(world.path("bots/actor")).args([mode, address]).run();
            assert!(told.stdout.contains("not permitted"), "{mode} {address}: {told:?}");
        }
    }
}

#[test]
fn the_bot_sees_the_address_that_it_asked_for() {
    let world = World::start();
    for address in ["203.0.113.10:443", "[2001:db8::10]:443", "[::ffff:203.0.113.10]:443"] {
        let told = world.bot(world.path("bots/actor")).args(["peer", address]).run();
        assert_eq!(told.stdout.trim(), address, "{told:?}");
    }
    assert!(world.counter("redirected") >= 3, "they were turned all the same");
}

#[test]
fn a_killed_daemon_leaves_bots_without_network_and_the_next_one_takes_over() {
    let world = World::start();
    assert_eq!(world.curl(&["https://api.test/v1/before"]).status, 200);
    let seen = world.seen_at_least(1).len();
    world.kill9();
    for url in ["https://api.test/v1/down", "http://plain.test/v1/down", "https://other.test/"] {
        let answer = world.curl(&[url]);
        assert_eq!((answer.status, answer.code), (0, Some(7)), "connection refused for {url}: {answer:?}");
    }
    assert_eq!(world.seen().len(), seen, "a call went around the dead daemon");
    assert!(world.pins().exists(), "the programs stay attached");

    world.daemon();
    let programs = world.status()["kernel"]["programs"].as_array().unwrap().len();
    assert!(programs >= 9 && world.log().contains(&format!("taken_over={programs}")), "{}", world.log());
    assert_eq!(world.curl(&["https://api.test/v1/after"]).status, 200);
    assert_eq!(
        world.vouchsafe(&["audit", "verify", world.path("state/journal").to_str().unwrap()]).code,
        Some(0)
    );
}

#[test]
fn detach_takes_everything_off_deliberately() {
    let world = World::start();
    let programs = world.status()["kernel"]["programs"].as_array().unwrap().len();
    assert_eq!(world.terminate(), Some(0));
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 0, "stopping is not detaching");
    let told = world.vouchsafe(&["detach"]);
    assert!(told.stdout.contains(&format!("took off {programs} programs")), "{told:?}");
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 401, "the API itself, without a key");
    assert!(!world.pins().exists());
}

#[test]
fn the_secret_is_in_nothing_that_the_daemon_ever_wrote() {
    let world = World::new();
    world.set("log.level", "\"trace\"");
    world.daemon();
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    assert_eq!(world.curl(&["--http2", "https://api.test/v1/y"]).status, 200);
    assert_eq!(world.curl(&["-X", "DELETE", "https://api.test/v1/x"]).status, 403);
    // Where things go wrong, more is told, and others tell it.
    assert_eq!(world.curl(&["https://raw.test/v1/down"]).status, 502);
    world.secret("demo-key", CANARY);
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    let told = ["check", "list"].map(|word| match word {
        "check" => world.vouchsafe(&["check", world.path("etc").to_str().unwrap()]),
        _ => world.vouchsafe(&["secret", "list"]),
    });
    assert!(!format!("{told:?}").contains(CANARY), "{told:?}");
    let status = world.vouchsafe(&["status"]);
    assert!(!format!("{status:?}{:?}", world.status()).contains(CANARY));
    let pid = world.daemon_pid();
    for file in ["environ", "cmdline"] {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains(CANARY), "{file}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "no core dump: {core}");
    let memory = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let locked = memory.lines().find(|line| line.starts_with("VmLck")).unwrap();
    assert_ne!(locked.split_whitespace().nth(1), Some("0"), "may be swapped: {locked}");
    assert_eq!(world.terminate(), Some(0));
    let told = std::process::Command::new("grep")
        .args(["-rlaF", CANARY])
        .args([world.path("state"), world.path("run"), world.path("daemon.log"), world.path("etc")])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout), "", "files with the secret in the clear");
    assert!(world.log().len() > 1000, "the trace log was written");
}
