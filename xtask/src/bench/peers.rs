//! `cargo xtask bench peers`: the same loads on the daemon and on what others have built, side by side in one run.
//!
//! Each load is put on all contestants one after the other, round by round, and each round begins with another one. Every
//! contestant ends TLS with the client for the same hosts, adds the same header, verifies the server's certificate and keeps its
//! connections, with one worker. Peers are not transparent: their clients find them by a table of hosts of their own, and say the
//! same URL. Before anything is measured each must get the answer that needs the key, and none may get one from a server with a
//! certificate that it should not trust.
//!
//! [`contestant`] says who takes part, [`install`] brings them, [`start`] and [`envoy`] configure them, [`site`] is the server,
//! [`helper`] what nginx lacks of it, [`load`] the clients, [`results`] the table.

mod contestant;
mod envoy;
pub(crate) mod helper;
mod install;
mod load;
mod results;
mod site;
mod start;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::usage::{self, Watch};
use super::{Disk, Options, placed};
use crate::paths::Paths;
use crate::stage::daemon::{Daemon, Setup};
use crate::stage::process::{self, Stop};
use crate::stage::{Plan, Stage};

pub(super) use contestant::Contestant;
use install::Programs;
use load::{At, Load};
use results::Results;
use site::{Host, Site};

const PLAN: Plan = Plan {
    kind: "bench",
    hosts: site::STAGE_HOSTS,
    programs: &[("wrk", "bots/wrk"), ("h2load", "bots/h2load"), ("/usr/bin/curl", "bots/curl")],
};

/// A peer that is not up after this does not come.
const START: Duration = Duration::from_secs(20);

/// Those that take part beside the daemon: those that were asked for, or all.
fn wanted(options: &Options) -> Vec<Contestant> {
    let all = contestant::ALL.into_iter();
    all.filter(|it| options.peer.is_empty() || options.peer.contains(it)).collect()
}

/// Installs and builds what takes part. What cannot be had is no failure: the table tells it.
pub(super) fn prepare(paths: &Paths, options: &Options) {
    let programs = Programs::of(paths);
    let loads = Load::named(options.only.as_deref().unwrap_or_default());
    if loads.iter().any(|load| load.is_by_own_client())
        && let Err(error) = programs.build_client(paths)
    {
        println!("the client that resumes sessions cannot be built: {error:#}");
    }
    for peer in wanted(options) {
        if let Err(error) = programs.install(peer, options.peer.contains(&peer), paths) {
            println!("{} cannot be installed: {error:#}", peer.name());
        }
    }
}

/// Runs the comparison; fails when it cannot run, or when the daemon's own answers were wrong.
pub(super) fn run(paths: &Paths, options: &Options, stop: &Stop) -> Result<()> {
    let stage = Stage::set(&PLAN, stop)?;
    let outcome = measure(paths, options, &stage);
    if outcome.is_err() {
        stage.show_log();
    }
    drop(stage);
    println!(
        "cleaned up: processes, cgroup, network namespace, pins, journal and files of the bench are gone"
    );
    let text = outcome?.markdown();
    print!("\n{text}");
    let file = paths.target.join("bench-peers.md");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    println!("\nthe same as Markdown: {}", paths.shown(&file));
    Ok(())
}

/// Somebody who is up.
struct Running {
    contestant: Contestant,
    /// None where there is no process.
    pid: Option<u32>,
}

fn measure(paths: &Paths, options: &Options, stage: &Stage) -> Result<Results> {
    let loads = Load::named(options.only.as_deref().unwrap_or_default());
    ensure!(!loads.is_empty(), "no load has that in its name (--only)");
    if options.placed {
        placed::check()?;
        placed::stay_on(placed::OUTSIDE)?;
    }
    let disk = Disk::make(paths.target.join("bench-state"))?;
    let site = Site::start(stage, &disk.0)?;
    let binary = paths.daemon(true);
    let state = disk.0.join("proxy");
    let setup = Setup {
        binary: &binary,
        state: &state,
        api_ca: &site.ca,
        secret: (super::site::SECRET, &site.key),
        network: &[],
    };
    let beside = |what: &mut dyn FnMut() -> Result<u32>| match options.placed {
        true => placed::on(placed::DAEMON, what),
        false => what(),
    };
    let daemon = match options.placed {
        true => placed::on(placed::DAEMON, || Daemon::start(stage, &setup))?,
        false => Daemon::start(stage, &setup)?,
    };
    let pid = daemon.pid().context("the daemon did not start")?;
    // Clients of all contestants load as few roots.
    stage.write("bots.pem", &daemon.run(&["ca", "export"])?, 0o644)?;

    let mut results = Results::new(about(options));
    let programs = Programs::of(paths);
    if programs.client().exists() {
        fs::copy(programs.client(), stage.path("bots").join(install::CLIENT))
            .context("cannot copy the client that resumes sessions")?;
    }
    let mut running = Vec::new();
    for contestant in contestant::ALL {
        stage.stop.check()?;
        let at = At { contestant, stage, site: &site };
        let started = match contestant {
            Contestant::Direct => Ok(None),
            Contestant::Vouchsafe => Ok(Some(pid)),
            peer if !options.peer.is_empty() && !options.peer.contains(&peer) => {
                results.absent(peer, "not asked for (--peer)");
                continue;
            }
            peer => match programs.lacks(peer) {
                Some(why) => {
                    results.absent(peer, &why);
                    continue;
                }
                None => beside(&mut || start::start(peer, stage, &site, &programs)).map(Some),
            },
        };
        println!("starting: {}", contestant.name());
        match started.and_then(|pid| check(&at, pid, &mut results).map(|()| pid)) {
            Ok(pid) => running.push(Running { contestant, pid }),
            // Without these there is nothing to compare.
            Err(error) if matches!(contestant, Contestant::Direct | Contestant::Vouchsafe) => {
                return Err(error);
            }
            Err(error) => {
                stage.stop.check()?;
                let log = fs::read_to_string(start::log(stage, contestant)).unwrap_or_default();
                let said: Vec<&str> = log.lines().rev().take(3).collect();
                println!("{}: {error:#} {}", contestant.name(), said.join(" / "));
                results.absent(contestant, &format!("{error:#} {}", said.join(" / ")));
            }
        }
    }
    for Running { contestant, pid } in &running {
        if let Some(pid) = pid {
            results.idle(*contestant, usage::pss_of_all(&usage::tree(*pid)));
        }
        if let Some(remark) = contestant.remark() {
            results.remark(*contestant, remark);
        }
    }
    put_all(options, &loads, &running, stage, &site, &mut results)?;
    ensure!(daemon.pid().is_some_and(usage::is_alive), "the daemon ended while it was measured");
    Ok(results)
}

/// Waits until a contestant answers, and looks whether it does what is asked of all.
fn check(at: &At<'_>, pid: Option<u32>, results: &mut Results) -> Result<()> {
    let mut last = String::new();
    let up = process::wait_for("an answer through it", START, &at.stage.stop, || {
        if let Some(pid) = pid {
            ensure!(usage::is_alive(pid), "it ended while it started");
        }
        let (answer, said) = at.call(start::FIRST)?;
        last = format!("{answer} {said}");
        Ok((answer == "200 1.1").then_some(()))
    });
    up.with_context(|| format!("the last one was: {last}"))?;
    let at_host =
        |host: Host| at.call(host).map(|(answer, said)| (answer.clone(), format!("{answer} {said}")));
    if at.contestant.speaks_http2() {
        let (answer, all) = at_host(Host::Http2)?;
        if answer != "200 2" {
            let why = format!("should speak HTTP/2 and did not: {all}");
            for load in load::ALL.into_iter().filter(|load| load.is_http2()) {
                results.failed(load, at.contestant, &why);
            }
            results.remark(at.contestant, &why);
        }
    }
    let (_, all) = at_host(Host::Rogue)?;
    // Direct and the relay leave that to the client, which refuses.
    ensure!(!all.starts_with("200"), "it does not verify the server's certificate: {all}");
    Ok(())
}

/// Puts all loads on all that are up, round by round.
fn put_all(
    options: &Options,
    loads: &[Load],
    running: &[Running],
    stage: &Stage,
    site: &Site,
    results: &mut Results,
) -> Result<()> {
    let (rounds, seconds, limit) = extent(options.quick);
    let begun = Instant::now();
    for round in 0..rounds {
        let so_far = begun.elapsed();
        if round > 0 && so_far + so_far / u32::try_from(round)? > limit {
            println!("stopping after {round} rounds: another one would take too long");
            break;
        }
        for &load in loads {
            println!("round {}, {}", round + 1, load.name());
            for turn in 0..running.len() {
                // Another one is first in each round.
                let Some(Running { contestant, pid }) = running.get((turn + round) % running.len()) else {
                    continue;
                };
                stage.stop.check()?;
                if let Some(why) = load.unfit(*contestant) {
                    results.failed(load, *contestant, why);
                    continue;
                }
                let at = At { contestant: *contestant, stage, site };
                let watch = pid.map(|pid| Watch::of_all(usage::tree(pid)));
                let outcome = load.put(&at, seconds);
                let used = watch.map(Watch::end).transpose()?;
                if let Some(used) = &used {
                    results.peak(*contestant, used.peak);
                }
                match outcome {
                    Ok(sample) => results.add(load, *contestant, &sample, used.map(|used| used.cpu)),
                    Err(error) => {
                        stage.stop.check()?;
                        println!("  {}: {error:#}", contestant.name());
                        results.failed(load, *contestant, &format!("{}: {error:#}", load.name()));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Rounds, seconds of a load, and when no further round begins.
fn extent(quick: bool) -> (usize, u64, Duration) {
    if quick { (1, 1, Duration::from_secs(200)) } else { (5, 3, Duration::from_secs(30 * 60)) }
}

fn about(options: &Options) -> String {
    let (rounds, seconds, _) = extent(options.quick);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let who = match options.placed {
        true => "Clients and server (nginx, one worker) are on one processor, all contestants on another",
        false => "Clients, server (nginx, one worker) and contestants share all processors",
    };
    format!(
        "{who}; Linux {}; load average before: {}. Medians of up to {rounds} rounds with {seconds} s for each load; one worker \
         each; the daemon with its journal and a policy of 100 rules.",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split(' ').next().unwrap_or("unknown"),
    )
}
