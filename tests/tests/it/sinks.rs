//! What leaves the host: the real daemon, killed and restarted, to files and to a collector; its events held against their schema.

mod authority;
mod collectors;
mod rotation;
mod syslog_ng;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tests::upstream::Upstream;
use tests::{CANARY, World, wait_until};

use super::credentials::packages;

fn python() -> PathBuf {
    packages::install("sinks", include_str!("sinks/requirements.txt"))
}

/// A world without a running daemon, whose journal also goes to `PATH` of it.
fn world(format: &str) -> World {
    let world = World::new();
    world.set("journal.sinks.calls.kind", "\"file\"");
    world.set("journal.sinks.calls.path", &format!("\"{}\"", world.path("calls.jsonl").display()));
    world.set("journal.sinks.calls.format", &format!("\"{format}\""));
    world.set("journal.sinks.calls.from", "\"start\"");
    world
}

fn lines(world: &World, name: &str) -> Vec<Value> {
    let text = fs::read_to_string(world.path(name)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn seqs<'a>(records: impl IntoIterator<Item = &'a Value>) -> BTreeSet<u64> {
    records.into_iter().map(|record| record["seq"].as_u64().unwrap()).collect()
}

/// What `status` tells of a sink.
fn status(world: &World, name: &str) -> Value {
    let status = world.status();
    status["sinks"].as_array().unwrap().iter().find(|sink| sink["name"] == name).unwrap().clone()
}

#[test]
fn no_record_is_missing_from_a_file_over_kills_of_the_daemon_in_the_middle_of_calls() {
    let world = world("native");
    let _upstream = Upstream::http1(&world);
    world.daemon();
    for round in 0..3 {
        let urls: Vec<String> = (0..20).map(|n| format!("https://raw.test/v1/{round}/{n}")).collect();
        let calls: Vec<_> =
            urls.iter().map(|url| world.bot("curl").args(["-sS", "-o", "/dev/null", url]).spawn()).collect();
        wait_until("some calls", || (lines(&world, "calls.jsonl").len() > round * 20 + 5).then_some(()));
        world.kill9();
        drop(calls);
        world.daemon();
    }
    assert_eq!(world.curl(&["https://raw.test/v1/last"]).status, 200);
    let last = world.decision(Some("/v1/last"))["id"].clone();
    world.record("outcome", |outcome| outcome["id"] == last);
    let all = wait_until("all records in the file", || {
        let there = lines(&world, "calls.jsonl");
        (seqs(&there) == seqs(&world.journal())).then_some(there)
    });
    // What came twice is the same record.
    let journal = world.journal();
    for record in &all {
        let seq = usize::try_from(record["seq"].as_u64().unwrap()).unwrap();
        assert_eq!(record["hash"], journal[seq - 1]["hash"]);
    }
    let sink = status(&world, "calls");
    assert_eq!(
        (&sink["behind"], &sink["lost"], &sink["health"]["state"]),
        (&0.into(), &0.into(), &"ok".into())
    );
    assert!(world.vouchsafe(&["status"]).stdout.contains("sink      calls to /"));
    assert!(!fs::read_to_string(world.path("calls.jsonl")).unwrap().contains(CANARY));
}

#[test]
fn a_collector_gets_every_record_as_the_official_types_read_it_and_its_key_is_nowhere_else() {
    const PLACE: &str = "127.0.0.1:4318";
    let world = World::new();
    let packages = python();
    world.secret("otel-key", "sesame-CANARY");
    world.set("journal.sinks.otel.kind", "\"otlp\"");
    world.set("journal.sinks.otel.url", &format!("\"http://{PLACE}/v1/logs\""));
    world.set("journal.sinks.otel.protocol", "\"http/json\"");
    world.set("journal.sinks.otel.headers", "{ x-key = \"vault:otel-key\" }");
    world.daemon();
    // Nobody is there at first.
    assert_eq!(world.curl(&["https://api.test/v1/early"]).status, 200);
    wait_until("it is told", || {
        let page = world.vouchsafe(&["status"]).stdout;
        page.contains("sink otel: http://127.0.0.1:4318/v1/logs: no connection").then_some(())
    });
    let script = world.write("collector.py", include_str!("sinks/collector.py"));
    let out = world.path("otel.jsonl");
    let (path, script) = (format!("PYTHONPATH={}", packages.display()), script.display().to_string());
    let collector = ["/usr/bin/python3", &script, "http", "4318", out.to_str().unwrap(), "sesame-CANARY"];
    world.server("collector", "env", &[&[path.as_str()], &collector[..]].concat(), PLACE);
    assert_eq!(world.curl(&["https://api.test/v1/late"]).status, 200);
    world.kill9();
    world.daemon();
    let denied = world.bot(world.path("elsewhere/curl")).curl(&["https://api.test/v1/denied"]);
    assert_ne!(denied.status, 200);
    let records = wait_until("all records at the collector", || {
        let (there, journal) = (lines(&world, "otel.jsonl"), world.journal());
        let bodies = seqs(there.iter().map(|record| &record["body"]));
        // A new sink begins with the run that it was there in first.
        (bodies == seqs(&journal) && status(&world, "otel")["behind"] == 0).then_some(there)
    });
    let ended = records.iter().find(|record| record["event"] == "vouchsafe.outcome").unwrap();
    let attributes = &ended["attributes"];
    assert_eq!(
        (&attributes["http.response.status_code"], &attributes["vouchsafe.identity"]),
        (&200.into(), &"curl".into())
    );
    assert_eq!(
        (&attributes["url.path"], &ended["about"]["service.name"]),
        (&"/v1/early".into(), &"vouchsafe".into())
    );
    assert_eq!(attributes["log.record.uid"], ended["body"]["hash"]);
    let denied = records.iter().find(|record| record["attributes"]["vouchsafe.verdict"] == "deny").unwrap();
    assert_eq!(denied["severity"], 13);
    for place in ["daemon.log", "vouchsafe.toml", "otel.jsonl", "state/sinks/otel.cursor"] {
        assert!(!fs::read_to_string(world.path(place)).unwrap().contains("sesame"), "{place}");
    }
}

/// Lines of a journal with these records.
fn chained(records: &[&str]) -> String {
    let (mut text, mut prev) = (String::new(), "0".repeat(64));
    for (record, seq) in records.iter().zip(1..) {
        let line = format!(
            "{{\"v\":1,\"seq\":{seq},\"time\":\"2026-11-24T20:00:00.123456Z\",\"prev\":\"{prev}\",{record}"
        );
        prev = Sha256::digest(&line).iter().map(|byte| format!("{byte:02x}")).collect();
        text.push_str(&format!("{line},\"hash\":\"{prev}\"}}\n"));
    }
    text
}

#[test]
fn the_events_of_every_kind_are_what_the_schema_of_ocsf_says() {
    let world = world("ocsf");
    let packages = python();
    let workload = "{\"pid\":7,\"start_time_ns\":1,\"exe\":\"/opt/bot\",\"exe_dev\":1,\"exe_ino\":2,\"uid\":1000,\"gid\":1000,\"cgroup\":3,\
                    \"netns\":4,\"comm\":\"bot\",\"container\":{\"runtime\":\"docker\",\"id\":\"abc\"}}";
    let trace = format!(
        "\"kind\":\"trace\",\"workload\":{workload},\"access\":\"attach\",\"target\":{{\"pid\":8,\"start_time_ns\":1,\"exe\":\"/opt/x\",\
         \"cgroup\":3}},\"reason\":\"no\",\"generation\":1"
    );
    let connection = format!(
        "\"kind\":\"connection\",\"id\":\"0190163d-8694-739b-aea5-966c26f8ad91\",\"workload\":{workload},\"dst\":\"[2001:db8::1]:5432\",\
         \"has_query\":false,\"verdict\":\"allow\",\"reason\":\"network\",\"generation\":1"
    );
    let old = chained(&[
        &trace,
        &connection,
        "\"kind\":\"bound\",\"counter\":\"full\",\"count\":1,\"total\":2,\"effect\":\"refused\"",
        "\"kind\":\"detach\",\"by\":{\"uid\":0,\"pid\":5,\"login_uid\":1000},\"pin\":\"/p\",\"programs\":[\"a\"],\"error\":\"no\"",
        "\"kind\":\"secret\",\"secret\":\"a\",\"change\":\"rotated\",\"version\":2,\"tried\":[\"b\"]",
        "\"kind\":\"secret\",\"secret\":\"a\",\"change\":\"removed\",\"by\":{\"uid\":0,\"pid\":5}",
        "\"kind\":\"policy\",\"generation\":2,\"digest\":\"ab\",\"identities\":0,\"result\":\"refused\",\"errors\":[\"a:1:1: b\"]",
        "\"kind\":\"of_a_later_version\",\"x\":{\"y\":[1]}",
    ]);
    let journal = world.path("state/journal");
    fs::create_dir_all(&journal).unwrap();
    fs::set_permissions(&journal, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(journal.join("journal-00000001.jsonl"), &old).unwrap();
    fs::set_permissions(journal.join("journal-00000001.jsonl"), fs::Permissions::from_mode(0o600)).unwrap();
    let _upstream = Upstream::http1(&world);
    world.daemon();
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"] {
        world.curl(&["-X", method, "https://raw.test/v1/some?with=query"]);
    }
    world.bot(world.path("elsewhere/curl")).curl(&["https://api.test/v1/denied"]);
    let mut endless = world.bot("curl").args(["-sSN", "https://raw.test/v1/endless"]).spawn();
    assert!(!endless.line().is_empty());
    world.kill9();
    world.daemon();
    assert_eq!(world.terminate(), Some(0));
    let records = world.journal();
    let events = lines(&world, "calls.jsonl");
    let sent: BTreeSet<u64> =
        events.iter().map(|event| event["metadata"]["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sent, seqs(&records));
    let script = world.write("validate.py", include_str!("sinks/validate.py"));
    let mut validate = std::process::Command::new("/usr/bin/python3");
    validate.env("PYTHONPATH", packages).arg(script).arg(world.path("calls.jsonl"));
    let output = validate.output().unwrap();
    let (classes, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{wrong}");
    for class in [
        "api_activity",
        "network_activity",
        "process_activity",
        "entity_management",
        "application_lifecycle",
        "base_event",
    ] {
        assert!(classes.contains(class), "{classes}");
    }
    let calls: Vec<&Value> = events.iter().filter(|event| event["class_uid"] == 6003).collect();
    let activities: BTreeSet<u64> =
        calls.iter().map(|event| event["activity_id"].as_u64().unwrap()).collect();
    assert_eq!(activities, BTreeSet::from([1, 2, 3, 4, 99]));
    // A decision and its outcome are told to be of one call.
    let ended = calls.iter().find(|event| event["http_response"]["code"] == 200).unwrap();
    let of_one: BTreeSet<u64> = calls
        .iter()
        .filter(|event| event["metadata"]["correlation_uid"] == ended["metadata"]["correlation_uid"])
        .map(|event| event["metadata"]["sequence"].as_u64().unwrap())
        .collect();
    assert_eq!(of_one.len(), 2, "what came twice is counted once");
    assert_eq!(ended["actor"]["user"]["name"], "curl");
}
