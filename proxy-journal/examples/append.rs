//! Measures what a record costs: `cargo run --release -p proxy-journal --example append [DIR]`.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, Cursor};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use proxy_journal::{
    Decision, Outcome, Prepared, Record, Rule, Segment, Timestamp, Verdict, Verifier, Workload, Writer,
    recover,
};
use uuid::Uuid;

const CALLS: u32 = 100_000;

fn decision(id: Uuid) -> Record {
    Record::Decision(Arc::new(Decision {
        id,
        workload: Workload {
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
        .into(),
        identity: Some("invoice-bot".into()),
        dst: ([198, 51, 100, 7], 443).into(),
        proxy: None,
        scheme: Some("https".into()),
        api: Some("stripe".into()),
        host: Some("api.stripe.com".into()),
        port: Some(443),
        method: Some("GET".into()),
        path: Some("/v1/invoices/in_1MtHbELkdIwHu7ixl4OzzPMv".into()),
        has_query: false,
        verdict: Verdict::Allow,
        observed: false,
        rule: Some(Rule {
            file: "roles/stripe-invoice-reader.toml".into(),
            line: 4,
            text: "GET /v1/invoices/**".into(),
        }),
        reason: "allowed by the role stripe-invoice-reader".into(),
        credential: Some("stripe-restricted".into()),
        mistrust: None,
        refusal: None,
        basis: None,
        fingerprints: Vec::new(),
        generation: 3,
    }))
}

fn outcome(id: Uuid) -> Record {
    Record::Outcome(Outcome {
        id,
        status: Some(200),
        bytes_sent: 0,
        bytes_received: 5312,
        duration_us: 43_210,
        ttfb_us: Some(41_000),
        upstream: Some(([198, 51, 100, 7], 443).into()),
        ..Outcome::default()
    })
}

/// One outcome and the next decision in one write, as the daemon does; nanoseconds for such a pair.
fn measure<S: Segment>(name: &str, segment: S) -> Result<S, Box<dyn Error>> {
    let mut writer = Writer::new(segment);
    let (mut spelling, begun) = (0, Instant::now());
    for call in 0..CALLS {
        let id = Uuid::from_u128(call.into());
        let from = Instant::now();
        let now = Timestamp::from(SystemTime::now());
        let pair = [Prepared::new(&outcome(id), now)?, Prepared::new(&decision(id), now)?];
        spelling += from.elapsed().as_nanos();
        writer.append_all(&pair)?;
    }
    let (all, calls) = (begun.elapsed().as_nanos(), u128::from(CALLS));
    println!(
        "{name}: {} ns per call (outcome and decision), of which {} ns are outside the lock; {} ns per record; {} bytes per call",
        all / calls,
        spelling / calls,
        all / calls / 2,
        u128::from(writer.len()) / calls
    );
    Ok(writer.into_segment())
}

fn main() -> Result<(), Box<dyn Error>> {
    measure("memory", Cursor::new(Vec::new()))?;
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let path = dir.join(format!("append-{}.jsonl", std::process::id()));
    let open = || File::options().read(true).append(true).create(true).open(&path);
    measure("file", open()?)?;

    let megabytes = path.metadata()?.len() / 1_000_000;
    let begun = Instant::now();
    let found = Verifier::new().run(BufReader::with_capacity(256 << 10, open()?))?;
    println!("verify: {} records, {megabytes} MB in {:?}", found.records, begun.elapsed());
    let begun = Instant::now();
    let found = recover(&mut open()?, 1, None)?;
    println!("recover: {} open calls, {megabytes} MB in {:?}", found.open.len(), begun.elapsed());
    std::fs::remove_file(&path)?;
    Ok(())
}
