//! A journal that goes on in new segments, with old ones compressed and removed, while receivers are there, away, and there again.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};

use serde_json::Value;
use tests::upstream::Upstream;
use tests::{World, wait_until};

use super::collectors::collector_command;
use super::{lines, seqs, status};

/// A daemon whose journal goes to a file, and to a collector that is not there yet.
fn world(keep_size: Option<&str>) -> World {
    let world = super::world("native");
    world.set("journal.segment_size", "\"1 MiB\"");
    if let Some(size) = keep_size {
        world.set("journal.keep_size", &format!("\"{size}\""));
    }
    world.set("journal.sinks.otel.kind", "\"otlp\"");
    world.set("journal.sinks.otel.url", "\"http://127.0.0.1:4318/v1/logs\"");
    world.set("journal.sinks.otel.from", "\"start\"");
    world.daemon();
    world
}

fn collector(world: &World) -> Child {
    let mut command = collector_command(world, "http", 4318, "-", &[]);
    let log = fs::File::options().append(true).create(true).open(world.path("collector.log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Numbers of the segments that there are, and whether each is compressed.
fn segments(world: &World) -> Vec<(u32, bool)> {
    let names = fs::read_dir(world.path("state/journal")).unwrap().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut all: Vec<_> = names
        .filter_map(|name| {
            let (number, end) = name.strip_prefix("journal-")?.split_once('.')?;
            let is_one = end == "jsonl" || end == "jsonl.zst";
            is_one.then(|| (number.parse().unwrap(), end == "jsonl.zst"))
        })
        .collect();
    all.sort_unstable();
    all
}

/// Calls until `there` holds.
fn calls_until(world: &World, there: impl Fn() -> bool) {
    let long = "x".repeat(1500);
    for round in 0..60 {
        if there() {
            return;
        }
        let urls = format!("https://raw.test/v1/{long}/{round}/[1-100]");
        let done = world.bot("curl").args(["-sS", "--parallel", "-o", "/dev/null", &urls]).run();
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    panic!("the journal has {:?}", segments(world));
}

/// Whether the records came in order: each one, when it comes first, after all that are before it.
fn assert_in_order(seqs: impl Iterator<Item = u64>) {
    let mut last = 0;
    let mut seen = BTreeSet::new();
    for seq in seqs {
        if seen.insert(seq) {
            assert!(seq > last, "{seq} came first after {last}");
            last = seq;
        }
    }
}

fn seq(record: &Value) -> u64 {
    record["seq"].as_u64().unwrap()
}

/// Waits until both have everything that the journal has now; returns what the collector has.
fn caught_up(world: &World) -> Vec<Value> {
    wait_until("everything arrived", || {
        let there = ["calls", "otel"].map(|name| status(world, name));
        there.iter().all(|sink| sink["behind"] == 0 && sink["health"]["state"] == "ok").then_some(())
    });
    lines(world, "otel.jsonl").iter().map(|record| record["body"].clone()).collect()
}

#[test]
fn no_record_is_missing_and_none_out_of_order_over_segments_that_were_closed_and_compressed_meanwhile() {
    let world = world(None);
    let _upstream = Upstream::http1(&world);
    let first = collector(&world);
    let compressed = |number: u32| segments(&world).contains(&(number, true));
    calls_until(&world, || compressed(1));
    kill(first);
    calls_until(&world, || compressed(3));
    let behind = status(&world, "otel")["behind"].as_u64().unwrap();
    assert!(behind > 300, "{behind}");
    world.kill9();
    world.daemon();
    calls_until(&world, || compressed(4));
    let second = collector(&world);
    // It goes away once more, in the middle of what it gets.
    let before = lines(&world, "otel.jsonl").len();
    wait_until("it gets some", || (lines(&world, "otel.jsonl").len() > before + 100).then_some(()));
    kill(second);
    calls_until(&world, || compressed(5));
    let third = collector(&world);
    let arrived = caught_up(&world);
    kill(third);
    let all = world.vouchsafe(&["audit", "tail", "--json", "-n", "1000000"]).stdout;
    let all: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let journal: std::collections::BTreeMap<u64, &Value> =
        all.iter().map(|record| (seq(record), &record["hash"])).collect();
    let written = lines(&world, "calls.jsonl");
    for (name, records) in [("otel", &arrived), ("calls", &written)] {
        let missing: Vec<u64> = journal.keys().filter(|seq| !seqs(records).contains(seq)).copied().collect();
        // What was written after it was looked at is no matter.
        let last = records.iter().map(seq).max().unwrap();
        assert!(missing.iter().all(|seq| *seq > last), "{name}: {missing:?}");
        assert!(
            records
                .iter()
                .all(|record| journal.get(&seq(record)).is_none_or(|hash| **hash == record["hash"]))
        );
        assert_in_order(records.iter().map(seq));
        assert_eq!(
            (&status(&world, name)["lost"], &status(&world, name)["rejected"]),
            (&0.into(), &0.into())
        );
    }
}

#[test]
fn what_retention_removed_before_a_receiver_came_back_is_counted_and_told_and_the_rest_arrives_in_order() {
    let world = world(Some("64 KiB"));
    let _upstream = Upstream::http1(&world);
    let first = collector(&world);
    calls_until(&world, || lines(&world, "otel.jsonl").len() > 50);
    wait_until("it has them", || (status(&world, "otel")["behind"] == 0).then_some(()));
    kill(first);
    let removed = |number: u32| segments(&world).first().is_some_and(|(first, _)| *first > number);
    calls_until(&world, || removed(3));
    let second = collector(&world);
    let arrived = caught_up(&world);
    kill(second);
    // The file was there all the time.
    let all = seqs(&lines(&world, "calls.jsonl"));
    assert_eq!(status(&world, "calls")["lost"], 0);
    assert!(all.iter().copied().eq(1..=all.len() as u64), "the file has all");
    let arrived_seqs = seqs(&arrived);
    let missing: Vec<u64> =
        all.difference(&arrived_seqs).copied().filter(|seq| Some(seq) < arrived_seqs.last()).collect();
    let lost = status(&world, "otel")["lost"].as_u64().unwrap();
    assert_eq!(lost, missing.len() as u64);
    assert!(lost > 300, "{lost}");
    assert_in_order(arrived.iter().map(seq));
    // One stretch, and its numbers are in the log; what was removed later is told later.
    let (from, to) = (missing[0], missing[missing.len() - 1]);
    assert_eq!(to - from + 1, lost);
    let log = world.log();
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("retention removed records before this sink had sent them"))
        .collect();
    let (first, last) = (told.first().expect("it is told"), told.last().unwrap());
    assert!(first.contains(&format!("first={from}")) && last.contains(&format!("last={to}")), "{told:?}");
}
