//! What the kernel itself counts for BPF programs: their runs, and the time in them (bpf_stats_enabled, Linux 5.1).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::sh;

/// Whether the kernel counts; it is off by default because counting itself takes some 20 ns for each run.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// By name of the program: ns in it, and runs.
pub(super) type Counts = BTreeMap<String, (f64, f64)>;

/// The kernel counts until this is dropped.
pub(super) struct Counting {
    before: String,
}

impl Counting {
    /// Switches counting on; none where the kernel cannot, or where nothing is installed that reads it.
    pub(super) fn begin() -> Option<Self> {
        sh::find_program("bpftool")?;
        let before = fs::read_to_string(SWITCH).ok()?;
        fs::write(SWITCH, "1").ok()?;
        Some(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim()) {
            println!("cannot set {SWITCH} back to {}: {error}", self.before.trim());
        }
    }
}

/// What is counted by now for the programs attached to `cgroup`.
pub(super) fn counts(cgroup: &Path) -> Result<Counts> {
    let attached = bpftool(&["cgroup".as_ref(), "show".as_ref(), cgroup.as_os_str()])?;
    let ids = attached.as_array().into_iter().flatten().filter_map(|program| program.get("id")?.as_u64());
    let mut counts = Counts::new();
    for id in ids {
        let program = bpftool(&["prog".as_ref(), "show".as_ref(), "id".as_ref(), id.to_string().as_ref()])?;
        let Some(name) = program.get("name").and_then(Value::as_str) else { continue };
        // Not there as long as it is zero.
        let number = |key: &str| program.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        counts.insert(name.to_owned(), (number("run_time_ns"), number("run_cnt")));
    }
    Ok(counts)
}

fn bpftool(arguments: &[&std::ffi::OsStr]) -> Result<Value> {
    let program = sh::find_program("bpftool").context("bpftool is not installed")?;
    let mut command = Command::new(program);
    let text = sh::capture(command.arg("--json").args(arguments))?;
    serde_json::from_str(&text).with_context(|| format!("`{}` printed no JSON", sh::shown(&command)))
}
