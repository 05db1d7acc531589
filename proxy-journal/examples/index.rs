//! Measures the index: `cargo run --release -p proxy-journal --example index DIR [RECORDS]`.
//!
//! Writes a journal of that many records (10 million) into DIR, unless there is one already, segment after segment of 64 MiB, each of
//! which is compressed and indexed before the next one is begun; then asks it what `vouchsafe audit` asks.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Cursor};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proxy_journal::archive::{Counted, IdPrefix, Walk, index_name};
use proxy_journal::{
    Archive, Decision, Filter, Indexes, Outcome, Prepared, Record, Rule, Ruling, SegmentStart, Source,
    Timestamp, Verdict, Workload, Writer, index, packed, segment,
};
use uuid::{Timestamp as UuidTime, Uuid};

const SEGMENT: u64 = 64 << 20;
const BEGIN: u64 = 1_795_550_400_000_000;

/// Time since then, on the clock and on a core: what others do on the machine does not count.
struct Clock(Instant, Duration);

impl Clock {
    fn now() -> Clock {
        Clock(Instant::now(), Clock::cpu())
    }

    /// Of the first thread, the only one.
    fn cpu() -> Duration {
        let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
        Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
    }

    fn elapsed(&self) -> Spent {
        Spent(self.0.elapsed(), Clock::cpu().saturating_sub(self.1))
    }
}

#[derive(Debug, Default)]
struct Spent(Duration, Duration);

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, more: Spent) {
        self.0 += more.0;
        self.1 += more.1;
    }
}

impl std::fmt::Display for Spent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ms ({} ms on a core)", self.0.as_millis(), self.1.as_millis())
    }
}

/// Numbers that look like chance, and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn call(dice: &mut Dice, at: u64) -> (Uuid, Record, Option<(u64, Record)>) {
    let bytes = (u128::from(dice.roll(u64::MAX)) << 64 | u128::from(dice.roll(u64::MAX))).to_be_bytes();
    let random = Uuid::new_v7(UuidTime::from_unix_time(
        at / 1_000_000,
        u32::try_from(at % 1_000_000 * 1_000).unwrap_or(0),
        0,
        0,
    ));
    let id = Uuid::from_u128(
        random.as_u128() >> 80 << 80 | 7 << 76 | (u128::from_be_bytes(bytes) & ((1 << 76) - 1)),
    );
    let (bot, api) = (dice.roll(40), dice.roll(12));
    let denied = dice.roll(50) == 0;
    let decision = Decision {
        id,
        workload: Workload {
            pid: 1000 + u32::try_from(bot).unwrap_or(0),
            start_time_ns: 81_234_567_890 + bot,
            exe: format!("/opt/bots/bot-{bot}"),
            exe_dev: 2049,
            exe_ino: 1_234_567 + bot,
            uid: 991,
            gid: 991,
            cgroup: 8123,
            cgroup_path: Some(format!("/system.slice/bot-{bot}.service")),
            unit: Some(format!("bot-{bot}.service")),
            netns: 4_026_531_840,
            comm: format!("bot-{bot}"),
            ..Workload::default()
        }
        .into(),
        identity: Some(format!("bot-{bot}")),
        dst: ([198, 51, 100, 7], 443).into(),
        proxy: None,
        scheme: Some("https".into()),
        api: Some(format!("api-{api}")),
        host: Some(format!("api-{api}.example.com")),
        port: Some(443),
        method: Some("GET".into()),
        path: Some(format!("/v1/invoices/in_{:016x}", dice.roll(u64::MAX))),
        has_query: false,
        verdict: if denied { Verdict::Deny } else { Verdict::Allow },
        observed: false,
        rule: Some(Rule {
            file: format!("roles/reader-{api}.toml"),
            line: 4,
            text: "GET /v1/invoices/**".into(),
        }),
        reason: "allowed by the role reader".into(),
        credential: Some(format!("key-{api}")),
        mistrust: None,
        capture: None,
        ech: false,
        basis: None,
        fingerprints: Vec::new(),
        refusal: None,
        generation: 3,
    };
    let scale = 8 + dice.roll(10);
    let took = 800 + dice.roll(1 << scale);
    let status = if dice.roll(200) == 0 { 500 } else { 200 };
    let outcome = Outcome {
        id,
        status: Some(status),
        bytes_received: dice.roll(20_000),
        duration_us: took,
        ttfb_us: Some(took / 2),
        upstream: Some(([198, 51, 100, 7], 443).into()),
        ..Outcome::default()
    };
    let ended = (!denied).then_some((at + took, Record::Outcome(outcome)));
    (id, Record::Decision(Arc::new(decision)), ended)
}

/// Writes the journal; bytes of lines, of segments and of indexes, and time for indexing.
fn write(dir: &Path, records: u64) -> Result<([u64; 3], Spent), Box<dyn Error>> {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut sizes, mut indexing) = ([0; 3], Spent::default());
    let mut at = BEGIN;
    let mut open = BinaryHeap::new();
    let mut waiting = HashMap::new();
    let mut writer = Writer::new(Cursor::new(Vec::new()));
    while writer.head().seq < records {
        while writer.len() < SEGMENT && writer.head().seq < records {
            at += dice.roll(2_000);
            while let Some((Reverse(end), id)) = open.pop() {
                if end > at {
                    open.push((Reverse(end), id));
                    break;
                }
                if let Some(outcome) = waiting.remove(&id) {
                    writer.append(&outcome, Timestamp::from_micros(end))?;
                }
            }
            let (id, decision, ended) = call(&mut dice, at);
            writer.append(&decision, Timestamp::from_micros(at))?;
            if let Some((end, outcome)) = ended {
                waiting.insert(id, outcome);
                open.push((Reverse(end), id));
            }
        }
        let number = writer.number();
        let first = Record::Segment(SegmentStart {
            number: number + 1,
            journal: None,
            key: None,
            reason: "size".into(),
            boot_id: String::new(),
            open: Vec::new(),
        });
        let next = Cursor::new(Vec::with_capacity(80 << 20));
        let closed = writer.rotate(next, &Prepared::new(&first, Timestamp::from_micros(at))?);
        let lines = closed.map_err(|(error, _)| error)?.into_inner();
        let (path, beside) = (dir.join(segment::packed_name(number)), dir.join(index_name(number)));
        packed::pack(lines.as_slice(), BufWriter::new(File::create(&path)?))?;
        let begun = Clock::now();
        index::build(Source::open(&path)?, BufWriter::new(File::create(&beside)?))?;
        indexing += begun.elapsed();
        let lengths = [u64::try_from(lines.len())?, path.metadata()?.len(), beside.metadata()?.len()];
        for (size, more) in sizes.iter_mut().zip(lengths) {
            *size += more;
        }
    }
    Ok((sizes, indexing))
}

fn ask(dir: &Path, name: &str, filter: Filter, most: usize) -> Result<(), Box<dyn Error>> {
    let begun = Clock::now();
    let mut archive = Archive::open(dir, Indexes::Read)?;
    let mut walk = Walk::new(&archive, filter, true);
    let (mut found, mut read) = (0, 0);
    while let Some(batch) = archive.next(&mut walk)? {
        found += batch.hits.len();
        for hit in &batch.hits {
            if read < most && archive.read(hit, walk.filter())?.is_some() {
                read += 1;
            }
        }
    }
    println!("{name}: {found} found, {read} read in {}", begun.elapsed());
    Ok(())
}

fn count(dir: &Path) -> Result<(), Box<dyn Error>> {
    let begun = Clock::now();
    let mut archive = Archive::open(dir, Indexes::Read)?;
    let filter = Filter { kinds: vec!["call".into()], ..Filter::default() };
    let mut walk = Walk::new(&archive, filter, false);
    let mut counted = Counted::default();
    while let Some(batch) = archive.next(&mut walk)? {
        for hit in &batch.hits {
            if let Some(at) = counted.of_row(&batch.words, hit, &[index::IDENTITY, index::API]) {
                counted.add(at, hit, hit.row.ruling);
            } else if let Some(call) = archive.read(hit, walk.filter())? {
                let at = counted.group(vec![call.facts.identity, call.facts.api]);
                counted.add(at, hit, call.facts.ruling);
            }
        }
    }
    let (groups, total) = counted.sorted();
    println!("stats of everything: {} calls in {} groups in {}", total.calls, groups.len(), begun.elapsed());
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args_os().skip(1);
    let dir: PathBuf = args.next().ok_or("give an empty directory")?.into();
    let records = args.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(10_000_000);
    if dir.read_dir()?.next().is_none() {
        let begun = Clock::now();
        let ([lines, packed, indexes], indexing) = write(&dir, records)?;
        println!("written in {}, of which {indexing} for indexes", begun.elapsed());
        println!(
            "{records} records: {} bytes a record, {} compressed, {} in the index; {} MB of lines, {} MB of indexes",
            lines / records,
            packed / records,
            indexes / records,
            lines / 1_000_000,
            indexes / 1_000_000,
        );
    }
    let mut archive = Archive::open(&dir, Indexes::Read)?;
    let since = Some(Timestamp::from_micros(BEGIN + records * 250));
    let mut walk = Walk::new(&archive, Filter { since, ..Filter::default() }, false);
    let batch = archive.next(&mut walk)?.ok_or("a call in the middle")?;
    let call = batch.hits.first().map(|hit| archive.read(hit, walk.filter())).transpose()?.flatten();
    let id = call.and_then(|call| call.facts.id).ok_or("its id")?;
    drop(archive);
    let bot: Vec<_> = vec!["bot-7".into()];
    let text: fn(&str) -> Vec<proxy_journal::Pattern> = |text| vec![text.into()];
    for round in ["first", "again"] {
        println!("-- {round}");
        ask(&dir, "everything, all rows", Filter::default(), 10)?;
        ask(&dir, "--identity bot-7", Filter { identities: bot.clone(), ..Filter::default() }, 10)?;
        ask(
            &dir,
            "--verdict deny --api api-3",
            Filter { rulings: vec![Ruling::Deny], apis: text("api-3"), ..Filter::default() },
            10,
        )?;
        ask(
            &dir,
            "--status 5xx --unit bot-1*",
            Filter { statuses: vec!["5xx".parse()?], units: text("bot-1*"), ..Filter::default() },
            10,
        )?;
        ask(&dir, "--host nowhere", Filter { hosts: text("nowhere"), ..Filter::default() }, 10)?;
        let since = Some(Timestamp::from_micros(BEGIN + records * 400));
        ask(&dir, "--since (the last fifth)", Filter { since, ..Filter::default() }, 10)?;
        count(&dir)?;
        let begun = Clock::now();
        let wanted = IdPrefix::parse(&id.to_string()).ok_or("an id")?;
        let found = Archive::open(&dir, Indexes::Read)?.find(&wanted, 20)?;
        println!("show {id}: {} found in {}", found.len(), begun.elapsed());
    }
    Ok(())
}
