//! `cargo xtask bench`: what the way through the proxy costs, side by side with the way around it.
//!
//! In one run, on the same machine and against the same server: direct (a client that is not governed), passed through
//! (governed, TLS left as it is) and intercepted (TLS ended, decided, recorded, the key injected). Rounds go over all
//! loads, and each load is put on all three ways one after the other, so that what else the machine does meets all of
//! them. The table shows medians over the rounds; numbers tell about this machine, ratios about the proxy.
//!
//! With `--placed`, client and server are on one processor and the daemon is on another: then the ratios do not say who took time from
//! whom.
//!
//! Beside the loads: what the hooks cost, also with many identities; a storm of short processes, of which none may be taken
//! for another; and many connections in a row, with which memory must not grow. `cargo xtask bench storm flat` runs these
//! two only. And what policies cost: decisions, and a reload under load (`cargo xtask bench policy`); and what credentials do
//! (`cargo xtask bench credentials`), the CA (`cargo xtask bench trust`), and the journal (`cargo xtask bench journal`). And what others have built, under the same loads (`cargo xtask bench peers`).
//!
//! [`site`] is the server and the policies, [`load`] runs clients, [`usage`] looks at the daemon, [`connect`] times the
//! hook, [`programs`] asks the kernel for its own count, [`start`], [`storm`], [`flat`], [`idle`], [`soak`] and [`policy`] run clients of their own or of [`calls`], [`example`] runs programs of their own,
//! [`report`] makes the table; [`peers`] is a bench of its own. No time is held against a limit: wrong answers, a wrong attribution, and memory that grows
//! make the bench fail.

pub(crate) mod calls;
pub(crate) mod connect;
mod example;
mod flat;
mod idle;
mod load;
pub(crate) mod peers;
mod placed;
mod policy;
mod programs;
mod report;
mod site;
mod soak;
mod start;
mod storm;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::paths::Paths;
use crate::stage::daemon::{Daemon, Setup};
use crate::stage::process::Stop;
use crate::stage::{self, Plan, Stage};
use crate::system::{self, Need};
use crate::{build, test};

use load::{Load, WAYS};
use report::Report;
use site::Site;
use usage::Watch;

/// What the bench runs beside what the tests need.
const NEEDS: &[Need] = &[
    Need::same("wrk", "wrk", "load over HTTP/1.1"),
    Need {
        dnf: "nghttp2",
        pacman: "nghttp2",
        zypper: "nghttp2",
        ..Need::same("h2load", "nghttp2-client", "load over HTTP/2")
    },
];

const PLAN: Plan = Plan {
    kind: "bench",
    hosts: site::HOSTS,
    programs: &[
        ("wrk", "bots/wrk"),
        ("h2load", "bots/h2load"),
        ("/usr/bin/curl", "bots/curl"),
        ("/usr/bin/python3", "bots/python3"),
        ("wrk", "passed/wrk"),
        ("h2load", "passed/h2load"),
        ("/usr/bin/curl", "passed/curl"),
        ("/usr/bin/python3", "passed/python3"),
    ],
};

/// How to measure, as the command line says it.
#[derive(Args)]
pub(crate) struct Options {
    /// What to measure; all of it when nothing is named.
    parts: Vec<Part>,
    /// Shorter loads and fewer rounds: 90 seconds at most, and less to be trusted.
    #[arg(long)]
    quick: bool,
    /// Client and server on the first processor, the daemon on the second.
    #[arg(long)]
    placed: bool,
    /// Of the loads, those alone that have this in their names, as the table has them.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// With `peers`: those alone beside the daemon, and those of our own sources too, which are built.
    #[arg(long, value_name = "PEER")]
    peer: Vec<peers::Contestant>,
    /// The daemon is built already (set when the bench calls itself through sudo).
    #[arg(long, hide = true)]
    built: bool,
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Requests in many ways: direct, passed through, intercepted.
    Load,
    /// From the start of the daemon to the first call that is answered.
    Start,
    /// What the hooks add to connect(2), also with 1, 1,000 and 10,000 identities.
    Connect,
    /// 2,000 short processes with one call each: is any of them taken for another?
    Storm,
    /// 50,000 connections in a row: does memory grow?
    Flat,
    /// 5,000 connections that rest: what memory does one take?
    Idle,
    /// Decisions, the load of many files, and a reload under load.
    Policy,
    /// What a credential that is at hand adds to a call, by kind and place.
    Credentials,
    /// Generations of the CA, leaves, and what 10,000 hosts take.
    Trust,
    /// What the journal costs: records in both modes, what calls wait for them, verification, a large one.
    Journal,
    /// A load that goes on for 30 minutes: do memory and descriptors stay? Only when named.
    Soak,
    /// The same loads on what others have built; only when named, and alone.
    Peers,
}

/// How long, and how often.
struct Extent {
    rounds: usize,
    /// Of one load.
    seconds: u64,
    /// No round begins that would probably end after this.
    limit: Duration,
}

impl Options {
    fn has(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }

    fn is_peers(&self) -> bool {
        self.parts.contains(&Part::Peers)
    }

    /// The same again for another run of this program.
    fn flags(&self) -> Vec<String> {
        let parts = self.parts.iter().filter_map(Part::to_possible_value);
        let parts = parts.map(|part| part.get_name().to_owned());
        let quick = self.quick.then(|| "--quick".to_owned());
        let only = self.only.iter().flat_map(|text| ["--only".to_owned(), text.clone()]);
        let peers = self.peer.iter().filter_map(peers::Contestant::to_possible_value);
        let peers = peers.flat_map(|peer| ["--peer".to_owned(), peer.get_name().to_owned()]);
        let placed = self.placed.then(|| "--placed".to_owned());
        parts.chain(quick).chain(placed).chain(only).chain(peers).collect()
    }

    fn extent(&self) -> Extent {
        match self.quick {
            true => Extent { rounds: 2, seconds: 1, limit: Duration::from_secs(85) },
            false => Extent { rounds: 3, seconds: 3, limit: Duration::from_secs(340) },
        }
    }
}

/// Installs what the loads run, where it is missing.
pub(crate) fn need() -> Result<()> {
    system::ensure(test::NEEDS)?;
    system::ensure(NEEDS)
}

/// Runs the bench; fails when it cannot run, or when answers were wrong.
pub(crate) fn run(paths: &Paths, options: &Options) -> Result<()> {
    ensure!(!options.is_peers() || options.parts.len() == 1, "`peers` is measured alone: name no other part");
    ensure!(options.is_peers() || options.peer.is_empty(), "--peer belongs to `cargo xtask bench peers`");
    let only = options.only.as_deref().unwrap_or_default();
    ensure!(
        options.is_peers() || !Load::named(only).is_empty(),
        "no load has {only:?} in its name; the names are: {}",
        Load::all().iter().map(|load| load.name()).collect::<Vec<_>>().join("; ")
    );
    if !options.built {
        need()?;
        build::all(paths, true)?;
        if options.has(Part::Policy) {
            policy::build(paths)?;
        }
        if options.has(Part::Credentials) {
            example::build(paths, "credentials")?;
        }
        if options.has(Part::Trust) {
            example::build(paths, "trust")?;
        }
        if options.has(Part::Journal) {
            example::build(paths, "journal")?;
        }
        if options.is_peers() {
            peers::prepare(paths, options);
        }
    }
    if !system::is_root() {
        let flags = options.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        return stage::again_as_root(paths, PLAN.kind, &flags);
    }
    test::require_host()?;
    test::mount_bpffs()?;

    let stop = Stop::on_signals()?;
    if options.is_peers() {
        return peers::run(paths, options, &stop);
    }
    let stage = Stage::set(&PLAN, &stop)?;
    let outcome = measure(paths, options, &stage);
    if outcome.is_err() {
        stage.show_log();
    }
    drop(stage);
    println!(
        "cleaned up: processes, cgroup, network namespace, pins, journal and files of the bench are gone"
    );
    let report = outcome?;
    let text = report.markdown();
    print!("\n{text}");
    let file = paths.target.join("bench.md");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("\nthe same as Markdown: {}", paths.shown(&file));
    Ok(())
}

/// Everything between setting the stage and taking it down.
fn measure(paths: &Paths, options: &Options, stage: &Stage) -> Result<Report> {
    let extent = options.extent();
    if options.placed {
        placed::check()?;
        placed::stay_on(placed::OUTSIDE)?;
    }
    let disk = Disk::make(paths.target.join("bench-state"))?;
    let site = Site::start(stage, &disk.0.join("api"))?;
    storm::prepare(stage)?;
    let binary = paths.daemon(true);
    let state = disk.0.join("proxy");
    let setup = Setup {
        binary: &binary,
        state: &state,
        api_ca: &site.ca,
        secret: (site::SECRET, &site.key),
        // What the probes of the hooks call.
        network: &[format!("udp {}:53", site::ADDRESS), format!("tcp {}:9", site::ADDRESS)],
    };
    let mut daemon = match options.placed {
        true => placed::on(placed::DAEMON, || Daemon::start(stage, &setup))?,
        false => Daemon::start(stage, &setup)?,
    };
    let start = match options.has(Part::Start) {
        true => {
            println!("starts");
            Some(start::run(stage, &mut daemon, options.placed, options.quick)?)
        }
        false => None,
    };
    let pid = daemon.pid().context("the daemon did not start")?;
    let mut report = Report::new(&extent, options.placed, usage::pss(pid)?);
    report.start = start;
    if options.has(Part::Load) {
        let loads = Load::named(options.only.as_deref().unwrap_or_default());
        measure_loads(&extent, &loads, stage, &site, pid, &mut report)?;
    }
    if options.has(Part::Storm) {
        println!("a storm of short processes");
        report.storm = Some(storm::run(stage, &disk, if options.quick { 500 } else { 2_000 })?);
    }
    if options.has(Part::Flat) {
        println!("many connections in a row");
        report.levels = flat::run(stage, &daemon, options.quick)?;
    }
    if options.has(Part::Idle) {
        println!("connections that rest");
        report.resting = Some(idle::run(stage, &site, pid, options.quick)?);
    }
    if options.parts.contains(&Part::Soak) {
        println!("a load that goes on");
        report.soak = Some(soak::run(stage, pid, options.quick)?);
    }
    if options.has(Part::Policy) {
        println!("decisions, and a reload under load");
        report.policy = Some(policy::run(paths, stage, &daemon, options.quick)?);
    }
    if options.has(Part::Credentials) {
        println!("what a credential adds to a call");
        report.credentials = Some(example::run(paths, stage, "credentials")?);
    }
    if options.has(Part::Trust) {
        println!("what the CA costs");
        report.trust = Some(example::run(paths, stage, "trust")?);
    }
    if options.has(Part::Journal) {
        println!("what the journal costs");
        // On the disk that the state of daemons is on, and not in a memory of files.
        let records = if options.quick { "200000" } else { "10000000" };
        let disk = paths.target.join("bench-state");
        let variables = [("JOURNAL_RECORDS", records.as_ref()), ("TMPDIR", disk.as_os_str())];
        report.journal = Some(example::run_with(paths, stage, "journal", &variables)?);
    }
    // Last: a policy of 10,000 identities leaves the daemon more memory than it needs.
    if options.has(Part::Connect) {
        println!("what the hooks cost");
        for (probe, difference) in connect::measure(stage, options.quick)? {
            report.add_connect(probe, difference);
        }
        println!("what a connect costs with more and more identities");
        report.identities = connect::measure_identities(stage, &daemon, options.quick)?;
    }
    ensure!(daemon.pid().is_some_and(usage::is_alive), "the daemon ended while it was measured");
    Ok(report)
}

/// Puts all loads on all ways, round by round.
fn measure_loads(
    extent: &Extent,
    loads: &[Load],
    stage: &Stage,
    site: &Site,
    pid: u32,
    report: &mut Report,
) -> Result<()> {
    load::check(stage, site)?;
    let begun = Instant::now();
    for round in 0..extent.rounds {
        let so_far = begun.elapsed();
        let per_round = so_far / u32::try_from(round.max(1))?;
        if round > 0 && so_far + per_round > extent.limit {
            println!("stopping after {round} rounds: another one would take too long");
            break;
        }
        for &load in loads {
            println!("round {}, {}", round + 1, load.name());
            // Another way is first in each round.
            for turn in 0..WAYS.len() {
                let Some(&way) = WAYS.get((turn + round) % WAYS.len()) else { continue };
                let watch = Watch::begin(pid)?;
                let mut sample = load.put(way, stage, site, extent.seconds)?;
                let used = watch.end()?;
                sample.cpu = way.is_governed().then(|| used.cpu / sample.requests.max(1.0));
                report.peak(used.peak);
                report.add(load, way, sample);
            }
        }
    }
    Ok(())
}

/// What must be on a disk, as in earnest: the journal, and the large file. Removed at the end.
struct Disk(PathBuf);

impl Disk {
    fn make(path: PathBuf) -> Result<Self> {
        // One that was killed may have left it.
        remove(&path);
        fs::create_dir_all(path.join("api")).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            println!("cannot remove {}: {error}; remove it with rm -r", path.display());
        }
        _ => {}
    }
}
