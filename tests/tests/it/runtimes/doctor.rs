//! The doctor of running processes: what it says of them, without the daemon and without their secrets.

use std::fs;

use serde_json::Value;
use tests::{CANARY, Finished, Running, World};

const WAIT: &str = "import ssl; print('up', flush=True); input()";
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A Python that runs in this cgroup, with roots by this file.
fn python(world: &World, cgroup: &str, roots: &str) -> Running {
    let bot = world.bot("python3").args(["-c", WAIT]).cgroup(cgroup).env("API_KEY", CANARY);
    let mut bot = bot.env("SSL_CERT_FILE", roots).env("SSL_CERT_DIR", "/nonexistent").spawn();
    assert_eq!(bot.line(), "up");
    bot
}

fn doctor(world: &World, arguments: &[&str]) -> Finished {
    let told = world.vouchsafe(&[&["trust", "doctor"], arguments].concat());
    assert!(!told.stdout.contains(CANARY) && !told.stderr.contains(CANARY), "{told:?}");
    told
}

fn report(world: &World, target: &str) -> (Option<i32>, Vec<Value>) {
    let told = doctor(world, &["--json", target]);
    let processes = told.json()["processes"].as_array().cloned();
    (told.code, processes.unwrap_or_else(|| panic!("no report: {told:?}")))
}

#[test]
fn a_process_is_told_what_it_reads_whether_ours_is_there_and_what_mends_it() {
    let world = World::start();
    let with = python(&world, "good.service", world.path("bots.pem").to_str().unwrap());
    let without = python(&world, "bad.service", SYSTEM);
    let (code, processes) = report(&world, &with.pid().to_string());
    assert_eq!((code, &processes[0]["verdict"]), (Some(0), &Value::from("trusts")), "{processes:?}");
    let runtime = processes[0]["runtime"].as_str().unwrap();
    assert!(runtime.starts_with("Python 3."), "{runtime}");
    let reads = &processes[0]["reads"][0];
    assert_eq!((&reads["variable"], &reads["holds"]), (&"SSL_CERT_FILE".into(), &"all".into()), "{reads}");

    let (code, processes) = report(&world, "bad");
    assert_eq!((code, processes.len()), (Some(1), 1), "a unit is all of its processes: {processes:?}");
    assert_eq!((&processes[0]["pid"], &processes[0]["verdict"]), (&without.pid().into(), &"lacks".into()));
    assert_eq!(processes[0]["mend"], "vouchsafe trust install");
    let page = doctor(&world, &["bad.service"]).stdout;
    for line in ["unit     bad.service", "does not have this host's CA", "mend     vouchsafe trust install"] {
        assert!(page.contains(line), "{line} in {page}");
    }
}

#[test]
fn without_a_target_all_governed_processes_that_could_speak_tls_are_looked_at_also_without_the_daemon() {
    let world = World::start();
    let with = python(&world, "good.service", world.path("bots.pem").to_str().unwrap());
    let without = python(&world, "bots", SYSTEM);
    let idle = world.bot("/bin/sleep").arg("60").spawn();
    assert_eq!(world.terminate(), Some(0));
    let told = doctor(&world, &["--json"]);
    let found = told.json();
    let verdict = |of: &Running| {
        let mut all = found["processes"].as_array().unwrap().iter();
        all.find(|process| process["pid"] == of.pid()).map(|process| process["verdict"].clone())
    };
    assert_eq!(
        (verdict(&with), verdict(&without)),
        (Some("trusts".into()), Some("lacks".into())),
        "{told:?}"
    );
    assert_eq!((verdict(&idle), told.code), (None, Some(1)));
}

#[test]
fn a_process_that_read_its_roots_before_ours_came_is_to_be_started_again() {
    let world = World::start();
    let extra = world.write("extra.pem", &fs::read_to_string(SYSTEM).unwrap());
    let wait = "console.log('up'); process.stdin.resume()";
    let bot = world.bot("/usr/bin/node").args(["-e", wait]).cgroup("node.service");
    let mut bot = bot.env("NODE_EXTRA_CA_CERTS", extra.to_str().unwrap()).spawn();
    assert_eq!(bot.line(), "up");
    let (_, processes) = report(&world, "node");
    let expected =
        format!("vouchsafe trust install --file {} && systemctl restart node.service", extra.display());
    assert_eq!((&processes[0]["verdict"], &processes[0]["mend"]), (&"lacks".into(), &expected.into()));
    let ours = fs::read_to_string(world.path("state/ca/ca.pem")).unwrap();
    world.write("extra.pem", &ours);
    let (code, processes) = report(&world, "node");
    assert_eq!((code, &processes[0]["verdict"]), (Some(1), &Value::from("restart")), "{processes:?}");
    assert_eq!(processes[0]["mend"], "systemctl restart node.service");
}

#[test]
fn what_is_no_process_or_unit_is_an_error_that_says_so() {
    let world = World::start();
    let told = doctor(&world, &["nobody.service"]);
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("no process of the unit nobody.service is running"), "{told:?}");
    assert!(doctor(&world, &["4194304"]).stderr.contains("there is no process"));
}

#[test]
fn a_refusal_in_the_journal_names_process_unit_runtime_and_command_and_no_secret() {
    let world = World::start();
    let call = "import urllib.request; urllib.request.urlopen('https://api.test/v1/x')";
    let bot = world.bot("python3").args(["-c", call]).cgroup("bot.service").env("API_KEY", CANARY);
    let told = bot.env("SSL_CERT_FILE", SYSTEM).env("SSL_CERT_DIR", "/nonexistent").run();
    assert_eq!(told.code, Some(1));
    let record = world.record("decision", |record| record["mistrust"].is_object());
    let mistrust = &record["mistrust"];
    assert_eq!((&mistrust["certain"], &mistrust["cause"]), (&true.into(), &"lacks".into()), "{record}");
    let reason = record["reason"].as_str().unwrap();
    let exe = world.path("bots/python3").display().to_string();
    for word in [&exe, "unit bot.service", "Python 3.", SYSTEM, "vouchsafe trust install"] {
        assert!(reason.contains(word), "{word} in {reason}");
    }
    let journal = world.journal().iter().map(Value::to_string).collect::<String>();
    assert!(!journal.contains(CANARY) && !world.log().contains(CANARY));
}

#[test]
fn a_spare_connection_of_a_process_that_has_asked_before_is_no_hint() {
    let world = World::start();
    let calls = "
import socket, ssl
def connect():
    context = ssl.create_default_context()
    return context.wrap_socket(socket.create_connection(('api.test', 443)), server_hostname='api.test')
def ask(path):
    s = connect()
    s.sendall(b'GET ' + path + b' HTTP/1.1\\r\\nHost: api.test\\r\\nConnection: close\\r\\n\\r\\n')
    while s.recv(4096): pass
ask(b'/v1/first')
connect().close()
ask(b'/v1/last')
";
    assert_eq!(world.python(calls, &[]).code, Some(0));
    world.decision(Some("/v1/last"));
    assert!(world.journal().iter().all(|record| record["mistrust"].is_null()));
    let once = format!("{}connect().close()", calls.split("ask(b'/v1/first')").next().unwrap());
    assert_eq!(world.python(&once, &[]).code, Some(0));
    let hint = world.record("decision", |record| record["mistrust"].is_object());
    assert_eq!(
        (&hint["mistrust"]["certain"], &hint["mistrust"]["cause"]),
        (&false.into(), &"trusts".into()),
        "{hint}"
    );
}
