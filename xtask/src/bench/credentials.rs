//! What a credential that is at hand adds to a call: an example of the daemon's own crate, because it needs no other process.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::paths::Paths;
use crate::sh;
use crate::stage::{Stage, process};

/// Builds the program that measures.
pub(super) fn build(paths: &Paths) -> Result<()> {
    let mut command = sh::cargo();
    command.args(["build", "--release", "--package", "vouchsafe", "--example", "credentials"]);
    command.env("VOUCHSAFE_BPF_OBJECT", paths.bpf_object());
    sh::run(command.current_dir(&paths.root))
}

/// The table that it prints, as Markdown.
pub(super) fn run(paths: &Paths, stage: &Stage) -> Result<String> {
    let mut command = Command::new(paths.target.join("release/examples/credentials"));
    let measured = process::finish(&mut command, Duration::from_secs(300), &stage.stop)?;
    ensure!(measured.status.success(), "the measurement failed: {}", measured.stderr.trim());
    Ok(measured.stdout)
}
