//! What a part of the daemon costs by itself: examples of its own crate, because they need no other process.

use std::ffi::OsStr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::paths::Paths;
use crate::sh;
use crate::stage::{Stage, process};

/// Builds a program that measures.
pub(super) fn build(paths: &Paths, name: &str) -> Result<()> {
    let mut command = sh::cargo();
    command.args(["build", "--release", "--package", "vouchsafe", "--example", name]);
    command.env("VOUCHSAFE_BPF_OBJECT", paths.bpf_object());
    sh::run(command.current_dir(&paths.root))
}

/// The table that it prints, as Markdown.
pub(super) fn run(paths: &Paths, stage: &Stage, name: &str) -> Result<String> {
    run_with(paths, stage, name, &[])
}

/// The same with these variables.
pub(super) fn run_with(
    paths: &Paths,
    stage: &Stage,
    name: &str,
    variables: &[(&str, &OsStr)],
) -> Result<String> {
    let mut command = Command::new(paths.target.join("release/examples").join(name));
    command.envs(variables.iter().copied());
    let measured = process::finish(&mut command, Duration::from_secs(600), &stage.stop)?;
    ensure!(measured.status.success(), "the measurement failed: {}", measured.stderr.trim());
    Ok(measured.stdout)
}
