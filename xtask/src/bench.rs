//! `cargo xtask bench`: what the way through the proxy costs, side by side with the way around it.
//!
//! In one run, on the same machine and against the same server: direct (a client that is not governed), passed through
//! (governed, TLS left as it is) and intercepted (TLS ended, decided, recorded, the key injected). Rounds go over all
//! loads, and each load is put on all three ways one after the other, so that what else the machine does meets all of
//! them. The table shows medians over the rounds; numbers tell about this machine, ratios about the proxy.
//!
//! [`site`] is the server and the policies, [`load`] runs clients, [`usage`] looks at the daemon, [`connect`] times the
//! hook, [`programs`] asks the kernel for its own count, [`report`] makes the table. No figure is held against a limit: only wrong answers make the bench fail.

pub(crate) mod connect;
mod load;
mod programs;
mod report;
mod site;
mod usage;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

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
        ("wrk", "passed/wrk"),
        ("h2load", "passed/h2load"),
        ("/usr/bin/curl", "passed/curl"),
    ],
};

/// How to measure, as the command line says it.
#[derive(Args)]
pub(crate) struct Options {
    /// Shorter loads and fewer rounds: 90 seconds at most, and less to be trusted.
    #[arg(long)]
    quick: bool,
    /// The daemon is built already (set when the bench calls itself through sudo).
    #[arg(long, hide = true)]
    built: bool,
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
    fn extent(&self) -> Extent {
        match self.quick {
            true => Extent { rounds: 2, seconds: 1, limit: Duration::from_secs(85) },
            false => Extent { rounds: 3, seconds: 3, limit: Duration::from_secs(340) },
        }
    }
}

/// Runs the bench; fails when it cannot run, or when answers were wrong.
pub(crate) fn run(paths: &Paths, options: &Options) -> Result<()> {
    if !options.built {
        system::ensure(test::NEEDS)?;
        system::ensure(NEEDS)?;
        build::all(paths, true)?;
    }
    if !system::is_root() {
        let flags: &[&str] = if options.quick { &["--quick"] } else { &[] };
        return stage::again_as_root(paths, PLAN.kind, flags);
    }
    test::require_host()?;
    test::mount_bpffs()?;

    let stop = Stop::on_signals()?;
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
    let disk = Disk::make(paths.target.join("bench-state"))?;
    let site = Site::start(stage, &disk.0.join("api"))?;
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
    let daemon = Daemon::start(stage, &setup)?;
    let pid = daemon.pid().context("the daemon did not start")?;
    let mut report = Report::new(&extent, usage::pss(pid)?);
    load::check(stage, &site)?;

    let begun = Instant::now();
    for round in 0..extent.rounds {
        let so_far = begun.elapsed();
        let per_round = so_far / u32::try_from(round.max(1))?;
        if round > 0 && so_far + per_round > extent.limit {
            println!("stopping after {round} rounds: another one would take too long");
            break;
        }
        for load in Load::all() {
            println!("round {}, {}", round + 1, load.name());
            // Another way is first in each round.
            for turn in 0..WAYS.len() {
                let Some(&way) = WAYS.get((turn + round) % WAYS.len()) else { continue };
                let watch = Watch::begin(pid)?;
                let mut sample = load.put(way, stage, &site, extent.seconds)?;
                let used = watch.end()?;
                sample.cpu = way.is_governed().then(|| used.cpu / sample.requests.max(1.0));
                report.peak(used.peak);
                report.add(load, way, sample);
            }
        }
        println!("round {}, what the hook costs", round + 1);
        for (probe, difference) in connect::measure(stage, options.quick)? {
            report.add_connect(probe, difference);
        }
    }
    ensure!(daemon.pid().is_some_and(usage::is_alive), "the daemon ended while it was measured");
    Ok(report)
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
