//! What the journal costs: `cargo run --release -p vouchsafe --example journal`.
//!
//! A table in Markdown: how many records one processor writes in both modes, what a call waits for its record at 1,000 calls in a second,
//! what records and indexes take on the disk, how fast a journal is verified, and how long the daemon needs to open it. `JOURNAL_RECORDS`
//! says how large the journal of the last rows is (10 million by default); `TMPDIR` on which disk it is.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a measurement fails by panicking")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_journal::check::{Witness, check};
use proxy_journal::{Decision, Outcome, Rule, Source, Verdict, Workload, index, segment};
use uuid::Uuid;
use vouchsafe::record::{Durability, Options, Recorder};

/// How long each way of writing is measured.
const TIME: Duration = Duration::from_secs(3);

/// Calls of one process have their workload in common, as in the daemon.
fn decision(workload: &Arc<Workload>, call: u64) -> Decision {
    Decision {
        id: Uuid::nil(),
        workload: workload.clone(),
        identity: Some(format!("bot-{}", call % 20)),
        dst: ([198, 51, 100, 7], 443).into(),
        proxy: None,
        scheme: Some("https".into()),
        api: Some("stripe".into()),
        host: Some("api.stripe.com".into()),
        port: Some(443),
        method: Some("GET".into()),
        path: Some(format!("/v1/invoices/in_{call:016x}")),
        has_query: false,
        verdict: Verdict::Allow,
        observed: false,
        rule: Some(Rule {
            file: "roles/stripe-invoice-reader.toml".into(),
            line: 4,
            text: "GET /v1/invoices/**".into(),
        }),
        reason: "allowed by \"GET /v1/invoices/**\" (roles/stripe-invoice-reader.toml:4)".into(),
        credential: Some("stripe-restricted".into()),
        mistrust: None,
        capture: None,
        ech: false,
        basis: None,
        fingerprints: Vec::new(),
        refusal: None,
        generation: 3,
    }
}

fn workload() -> Arc<Workload> {
    Workload {
        pid: 4242,
        start_time_ns: 81_234_567_890,
        exe: "/opt/bots/invoice-bot".into(),
        exe_dev: 2049,
        exe_ino: 1_234_567,
        uid: 991,
        gid: 991,
        cgroup: 8123,
        cgroup_path: Some("/system.slice/invoice-bot.service".into()),
        unit: Some("invoice-bot.service".into()),
        netns: 4_026_531_840,
        comm: "invoice-bot".into(),
        ..Workload::default()
    }
    .into()
}

fn ok() -> Outcome {
    Outcome {
        status: Some(200),
        bytes_received: 4321,
        duration_us: 38_000,
        ttfb_us: Some(37_000),
        ..Outcome::default()
    }
}

fn options(durability: Durability) -> Options {
    Options { durability, ..Options::new("bench") }
}

/// Processor time of this process, in seconds.
fn processor() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / 100.0
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Records in a second, and in a second of processor time, when so many calls are open at once.
fn throughput(dir: &Path, durability: Durability, at_once: u64) -> (f64, f64) {
    let recorder = Arc::new(Recorder::open(dir, options(durability)).unwrap());
    let shared = workload();
    let (begin, used) = (Instant::now(), processor());
    let calls = runtime().block_on(async {
        let each = (0..at_once).map(|caller| {
            let (recorder, shared) = (Arc::clone(&recorder), shared.clone());
            tokio::spawn(async move {
                let mut calls = 0_u64;
                while begin.elapsed() < TIME {
                    let receipt =
                        recorder.begin_together(decision(&shared, caller << 32 | calls)).await.unwrap();
                    receipt.complete(ok());
                    calls += 1;
                    if calls.is_multiple_of(64) {
                        tokio::task::yield_now().await;
                    }
                }
                calls
            })
        });
        let mut all = 0;
        for each in each.collect::<Vec<_>>() {
            all += each.await.unwrap();
        }
        all
    });
    recorder.stop("bench").unwrap();
    let records = calls as f64 * 2.0;
    (records / begin.elapsed().as_secs_f64(), records / (processor() - used))
}

/// What calls wait for their record, one begun each millisecond: median and 99th percentile, in microseconds.
fn latency(dir: &Path, durability: Durability) -> (f64, f64) {
    let recorder = Arc::new(Recorder::open(dir, options(durability)).unwrap());
    let shared = workload();
    let mut waited = runtime().block_on(async {
        let mut each = tokio::time::interval(Duration::from_millis(1));
        each.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
        let mut calls = Vec::new();
        for call in 0..3000_u64 {
            each.tick().await;
            let (recorder, decision) = (Arc::clone(&recorder), decision(&shared, call));
            calls.push(tokio::spawn(async move {
                let begin = Instant::now();
                let receipt = recorder.begin_together(decision).await.unwrap();
                let waited = begin.elapsed();
                receipt.complete(ok());
                waited
            }));
        }
        let mut waited = Vec::new();
        for call in calls {
            waited.push(call.await.unwrap());
        }
        waited
    });
    recorder.stop("bench").unwrap();
    waited.sort_unstable();
    let at = |part: usize| waited[waited.len() * part / 1000].as_secs_f64() * 1e6;
    (at(500), at(990))
}

fn bytes(dir: &Path, wanted: impl Fn(&str) -> bool) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    let wanted = entries.filter(|entry| wanted(&entry.file_name().to_string_lossy()));
    wanted.map(|entry| entry.metadata().unwrap().len()).sum()
}

fn main() {
    let at = tempfile::tempdir().unwrap();
    let dir = |name: &str| {
        fs::create_dir_all(at.path().join(name)).unwrap();
        at.path().join(name).join("journal")
    };
    let records: u64 = std::env::var("JOURNAL_RECORDS").map_or(10_000_000, |text| text.parse().unwrap());
    println!("| the journal | fast | sync |\n|---|---|---|");
    for at_once in [1, 64, 1024] {
        let fast = throughput(&dir(&format!("fast-{at_once}")), Durability::Fast, at_once);
        let sync = throughput(&dir(&format!("sync-{at_once}")), Durability::Sync, at_once);
        println!(
            "| records in a second, {at_once} calls at once (for each second of processor time) | {:.0} ({:.0}) | {:.0} ({:.0}) |",
            fast.0, fast.1, sync.0, sync.1
        );
    }
    let (fast, sync) =
        (latency(&dir("wait-fast"), Durability::Fast), latency(&dir("wait-sync"), Durability::Sync));
    println!(
        "| what a call waits at 1,000 calls in a second: p50, p99 | {:.0} us, {:.0} us | {:.0} us, {:.0} us |",
        fast.0, fast.1, sync.0, sync.1
    );

    // A large one, which is compressed while it is written.
    let large = dir("large");
    let (shared, begin) = (workload(), Instant::now());
    let recorder = Recorder::open(&large, options(Durability::Fast)).unwrap();
    for call in 0..records / 2 {
        recorder.begin(decision(&shared, call)).unwrap().complete(ok());
    }
    recorder.stop("bench").unwrap();
    let wrote = begin.elapsed();
    drop(recorder);
    let begin = Instant::now();
    let again = Recorder::open(&large, options(Durability::Fast)).unwrap();
    let opened = begin.elapsed();
    // The keeper has closed segments to compress, if it is behind.
    let live = again.health().segment;
    let closed = |(number, path): &(u32, std::path::PathBuf)| {
        *number < live && !path.to_string_lossy().ends_with(".zst")
    };
    while segment::list(&large).unwrap().iter().any(closed) {
        std::thread::sleep(Duration::from_millis(100));
    }
    again.stop("bench").unwrap();
    drop(again);
    let packed = bytes(&large, |name| name.ends_with(".zst"));
    let mut plain = 0_u64;
    let mut indexed = 0_u64;
    let begin = Instant::now();
    for (_, path) in segment::list(&large).unwrap() {
        let mut made = std::io::Cursor::new(Vec::new());
        index::build(Source::open(&path).unwrap(), &mut made).unwrap();
        indexed += u64::try_from(made.get_ref().len()).unwrap();
    }
    let indexing = begin.elapsed();
    for (_, path) in segment::list(&large).unwrap() {
        plain += std::io::copy(&mut Source::open(&path).unwrap(), &mut std::io::sink()).unwrap();
    }
    let begin = Instant::now();
    let report = check(&large, &Witness::default()).unwrap();
    let verified = begin.elapsed();
    assert!(report.is_whole(), "{report}");
    let all = report.records as f64;
    println!("\n| a journal of {:.1} million records, in segments of 64 MiB | |\n|---|---|", all / 1e6);
    println!(
        "| written and signed, compressed beside it | {:.0} records in a second |",
        all / wrote.as_secs_f64()
    );
    println!("| bytes of a record; compressed | {:.0}; {:.0} |", plain as f64 / all, packed as f64 / all);
    println!(
        "| index, bytes of a record; made with | {:.1}; {:.0} MB/s |",
        indexed as f64 / all,
        plain as f64 / 1e6 / indexing.as_secs_f64()
    );
    println!(
        "| verified (compressed, on all processors) | {:.0} MB/s of records, {:.1} s |",
        plain as f64 / 1e6 / verified.as_secs_f64(),
        verified.as_secs_f64()
    );
    let last = segment::list(&large).unwrap().pop().unwrap().1;
    let begin = Instant::now();
    let alone = check(&last, &Witness::default()).unwrap();
    println!(
        "| verified (one segment, one processor) | {:.0} MB/s |",
        fs::metadata(&last).unwrap().len() as f64 / 1e6 / begin.elapsed().as_secs_f64()
    );
    assert!(alone.first_break.is_none());
    println!("| opened by the daemon | {:.0} ms |", opened.as_secs_f64() * 1e3);
}
