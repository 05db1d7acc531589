//! What policies cost: single decisions, the load of many files, and whether callers notice that the policy is loaded anew.
//!
//! Decisions are measured in a program of their own (an example of `proxy-policy`). For the reload a client calls at a steady
//! pace, on one connection, with 10,000 identities in the policy: in turns while nothing changes, while the policy changes
//! once, and while it changes again and again. Its times count from the moment at which a call was due, so that a pause is seen in every call
//! that it holds up.

use std::env;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::site;
use crate::paths::Paths;
use crate::sh;
use crate::stage::daemon::Daemon;
use crate::stage::{Stage, process};

/// Identities of the policy that is loaded anew.
const IDENTITIES: usize = 10_000;

/// What came of it.
pub(super) struct Findings {
    /// The table of the decisions, as Markdown.
    pub(super) decisions: String,
    pub(super) identities: usize,
    /// Seconds of each reload.
    pub(super) reloads: Vec<f64>,
    /// While nothing changed, while the policy was loaded once, and again and again; by round.
    pub(super) still: Vec<Latency>,
    pub(super) once: Vec<Latency>,
    pub(super) reloading: Vec<Latency>,
}

/// Times of calls, in seconds.
#[derive(Clone, Copy)]
pub(super) struct Latency {
    pub(super) calls: f64,
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) most: f64,
}

fn example(paths: &Paths) -> std::path::PathBuf {
    paths.target.join("release/examples/bench")
}

/// Builds the program that measures decisions.
pub(super) fn build(paths: &Paths) -> Result<()> {
    let mut command = sh::cargo();
    command.args(["build", "--release", "--package", "proxy-policy", "--example", "bench"]);
    sh::run(command.current_dir(&paths.root))
}

/// Measures all of it.
pub(super) fn run(paths: &Paths, stage: &Stage, daemon: &Daemon<'_>, quick: bool) -> Result<Findings> {
    let decisions =
        process::finish(&mut Command::new(example(paths)), Duration::from_secs(120), &stage.stop)?;
    ensure!(decisions.status.success(), "the decisions failed: {}", decisions.stderr.trim());
    let identities = if quick { IDENTITIES / 10 } else { IDENTITIES };
    let many = |number: usize| format!("policies/policies/many-{number}.toml");
    let policy = |number: usize| site::plain_identity(&stage.path(&format!("many/program-{number}")));
    for number in 0..identities {
        stage.write(&many(number), &policy(number), 0o644)?;
    }
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    let known = stage.path("paced/probe");
    fs::create_dir_all(stage.path("paced"))?;
    fs::copy(&ourselves, &known).with_context(|| format!("cannot copy to {}", known.display()))?;
    stage.write("policies/policies/paced.toml", &site::plain_identity(&known), 0o644)?;
    daemon.run(&["reload"])?;
    let seconds: u64 = if quick { 2 } else { 6 };
    let start = || -> Result<Child> {
        let mut command = stage.enter(Some("bots"));
        command.arg(&known).args(["bench-call", "paced", &site::plain_address(), &seconds.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the client")
    };
    let (mut reloads, mut still, mut once, mut reloading) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut reload = || -> Result<()> {
        let text = format!("description = \"change {}\"\n{}", reloads.len(), policy(0));
        stage.write(&many(0), &text, 0o644)?;
        let begun = Instant::now();
        daemon.run(&["reload"])?;
        reloads.push(begun.elapsed().as_secs_f64());
        Ok(())
    };
    for _ in 0..if quick { 2 } else { 4 } {
        still.push(Latency::of(start()?)?);
        // A client that is left ends by itself, soon.
        let client = start()?;
        thread::sleep(Duration::from_secs(seconds / 2));
        reload()?;
        once.push(Latency::of(client)?);
        let mut client = start()?;
        while client.try_wait()?.is_none() {
            reload()?;
            thread::sleep(Duration::from_millis(300));
        }
        reloading.push(Latency::of(client)?);
    }
    for number in 0..identities {
        fs::remove_file(stage.path(&many(number)))?;
    }
    daemon.run(&["reload"])?;
    Ok(Findings { decisions: decisions.stdout, identities, reloads, still, once, reloading })
}

impl Latency {
    /// What a client measures, once it ends.
    fn of(client: Child) -> Result<Self> {
        let output = client.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        Self::read(said.trim()).with_context(|| format!("the calls failed: {said}"))
    }

    /// `CALLS P50 P99 MOST`, as the client prints it.
    fn read(text: &str) -> Option<Self> {
        let numbers: Vec<f64> = text.split(' ').map_while(|word| word.parse().ok()).collect();
        match numbers[..] {
            [calls, p50, p99, most] => Some(Self { calls, p50, p99, most }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_prints_is_read_whole_or_not_at_all() {
        let found = Latency::read("1000 0.0005 0.002 0.1").unwrap();
        assert_eq!((found.calls, found.p50, found.p99, found.most), (1000.0, 0.0005, 0.002, 0.1));
        assert!(
            Latency::read("1000 0.0005 0.002").is_none() && Latency::read("the answer broke off").is_none()
        );
    }
}
