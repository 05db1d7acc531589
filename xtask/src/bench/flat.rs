//! Many connections in a row, one call on each: what memory the daemon and the kernel have before, on the way and at the end.
//! Memory that grows with the number of connections fails the bench.

use std::env;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{site, usage};
use crate::stage::daemon::Daemon;
use crate::stage::{Stage, process};

/// Connections until memory is looked at.
pub(super) const STEPS: [u32; 3] = [1_000, 10_000, 50_000];
/// What the daemon may have more at the last step than at the one before: a fifth of it, and what allocators keep.
const MAY_GROW: (u64, u64) = (5, 4 * 1024);

/// Memory after so many connections.
#[derive(Clone, Copy)]
pub(super) struct Level {
    pub(super) connections: u32,
    /// Of the daemon, in KiB (PSS).
    pub(super) daemon: u64,
    /// Of its control group, where that counts memory, in KiB.
    pub(super) cgroup: Option<u64>,
    /// Of the whole kernel, in KiB: other work on the host is in it, too.
    pub(super) kernel: u64,
    /// Origins that wait for their accept.
    pub(super) origins: u64,
    /// For each second since the level before.
    pub(super) rate: f64,
}

/// Makes the connections and looks.
pub(super) fn run(stage: &Stage, daemon: &Daemon<'_>, quick: bool) -> Result<Vec<Level>> {
    let pid = daemon.pid().context("the daemon ended")?;
    let mut levels: Vec<Level> = Vec::new();
    let mut done = 0;
    for step in STEPS.map(|step| if quick { step / 10 } else { step }) {
        let seconds = row(stage, step - done)?;
        let rate = f64::from(step - done) / seconds.max(1e-9);
        done = step;
        let origins = origins(daemon)?;
        let cgroup = fs::read_to_string(stage.governed.join("proxy/memory.current"));
        levels.push(Level {
            connections: done,
            daemon: usage::pss(pid)?,
            cgroup: cgroup.ok().and_then(|text| text.trim().parse::<u64>().ok()).map(|bytes| bytes / 1024),
            kernel: unreclaimable()?,
            origins,
            rate,
        });
    }
    if let [.., before, last] = levels.as_slice() {
        let most = before.daemon + before.daemon / MAY_GROW.0 + MAY_GROW.1;
        ensure!(
            last.daemon <= most,
            "the daemon's memory grew from {} KiB after {} connections to {} KiB after {}",
            before.daemon,
            before.connections,
            last.daemon,
            last.connections
        );
        ensure!(last.origins == 0, "{} origins are left of connections that are over", last.origins);
    }
    Ok(levels)
}

fn row(stage: &Stage, count: u32) -> Result<f64> {
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    // The program has an identity: it is one of the storm's.
    let program = stage.path("storm/ant");
    ensure!(program.exists(), "{} is not there, a copy of {}", program.display(), ourselves.display());
    let mut command = stage.enter(Some("bots"));
    command.arg(program).args(["bench-call", "row", &site::plain_address(), &count.to_string()]);
    let finished = process::finish(&mut command, Duration::from_secs(300), &stage.stop)?;
    finished.stdout.trim().parse().with_context(|| {
        format!("a connection of the row failed: {}{}", finished.stdout, finished.stderr.trim())
    })
}

fn origins(daemon: &Daemon<'_>) -> Result<u64> {
    let status: Value = serde_json::from_str(&daemon.run(&["status", "--json"])?)?;
    status.pointer("/kernel/origins_in_map").and_then(Value::as_u64).context("the status names no origins")
}

/// Memory of the kernel that it cannot give back, in KiB (proc_meminfo(5)).
fn unreclaimable() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("SUnreclaim:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok())
        .context("/proc/meminfo has no SUnreclaim")
}
