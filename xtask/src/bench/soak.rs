//! A load that goes on for long, far below what the daemon can do: memory and descriptors must stay what they are, and every call must be
//! answered well.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::load::{Way, parse_h2load};
use super::usage;
use crate::stage::{Stage, process};

/// How long it goes on.
const LENGTH: Duration = Duration::from_secs(30 * 60);
const QUICK: Duration = Duration::from_secs(60);
/// Connections of each client, and requests in a second on each of them.
const CONNECTIONS: u32 = 16;
const EACH: u32 = 50;
/// Levels that are looked at.
const LOOKS: u32 = 10;
/// What the daemon may have more at the end than after the first look: what allocators keep, in KiB, and descriptors of connections that
/// come and go.
const MAY_GROW: u64 = 4 * 1024;
const MAY_OPEN: usize = 40;

/// How it went.
pub(super) struct Soak {
    length: Duration,
    answered: f64,
    /// Memory in KiB (PSS) and descriptors, look by look.
    levels: Vec<(u64, usize)>,
}

/// Puts the load on, over HTTP/1.1 and HTTP/2, and looks.
pub(super) fn run(stage: &Stage, pid: u32, quick: bool) -> Result<Soak> {
    let length = if quick { QUICK } else { LENGTH };
    let clients =
        [(false, "soak1.log"), (true, "soak2.log")].map(|(http2, log)| client(stage, http2, log, length));
    let mut clients = clients.into_iter().collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let mut levels = Vec::new();
    for look in 1..=LOOKS {
        while begun.elapsed() < length * look / (LOOKS + 1) {
            stage.stop.check()?;
            std::thread::sleep(Duration::from_millis(200));
        }
        levels.push((usage::pss(pid)?, descriptors(pid)?));
    }
    let mut answered = 0.0;
    for (child, log) in &mut clients {
        let until = Instant::now() + length / LOOKS + Duration::from_secs(30);
        while child.0.try_wait()?.is_none() {
            stage.stop.check()?;
            ensure!(Instant::now() < until, "a client of the soak does not end");
            std::thread::sleep(Duration::from_millis(200));
        }
        let path = stage.path(log);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let _ = fs::remove_file(&path);
        let sample = parse_h2load(&text).context("h2load counted nothing")?;
        ensure!(sample.errors < 1.0, "{} of the soak's calls were not answered well", sample.errors);
        answered += sample.requests;
    }
    let wanted = 2.0 * f64::from(CONNECTIONS * EACH) * length.as_secs_f64();
    ensure!(answered > wanted / 2.0, "only {answered:.0} of {wanted:.0} calls were made");
    if let [first, .., last] = levels.as_slice() {
        ensure!(
            last.0 <= first.0 + MAY_GROW,
            "the daemon's memory grew from {} KiB to {} KiB: {levels:?}",
            first.0,
            last.0
        );
        ensure!(last.1 <= first.1 + MAY_OPEN, "descriptors became more: {levels:?}");
    }
    Ok(Soak { length, answered, levels })
}

/// A client that is ended with the bench.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        process::end(&mut self.0, Duration::from_secs(5));
    }
}

fn client(
    stage: &Stage,
    http2: bool,
    log: &'static str,
    length: Duration,
) -> Result<(Running, &'static str)> {
    let mut command: Command = Way::Intercepted.command(stage, "h2load")?;
    if !http2 {
        command.arg("--h1");
    }
    command.args(["-t", "1", "-m", "1", "-c", &CONNECTIONS.to_string(), "--rps", &EACH.to_string()]);
    command.args(["-D", &length.as_secs().to_string()]);
    command.arg(format!("--log-file={}", stage.path(log).display()));
    command.arg(Way::Intercepted.url(http2, "small"));
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok((Running(child.context("cannot start h2load")?), log))
}

fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).context("the daemon ended")?.count())
}

/// The sentence of the report.
pub(super) fn told(soak: &Soak) -> String {
    let mib = |kib: u64| f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0;
    let levels = |level: &(u64, usize)| format!("{:.1} MiB, {} descriptors", mib(level.0), level.1);
    let (first, last) = (soak.levels.first().map(levels), soak.levels.last().map(levels));
    let most = soak.levels.iter().map(|level| level.0).max().unwrap_or(0);
    format!(
        "A load of {:.0} calls in {} minutes was answered well to the last; the daemon had {} at the beginning, {} at the end, {:.1} MiB at \
         most (PSS).\n",
        soak.answered,
        soak.length.as_secs() / 60,
        first.unwrap_or_default(),
        last.unwrap_or_default(),
        mib(most)
    )
}
