//! `cargo xtask lint`: formatting, clippy, the house rules, and the licences of dependencies.

use std::process::Command;

use anyhow::Result;

use crate::paths::Paths;
use crate::{build, sh, tidy};

/// Runs every check and fails at the first that does.
pub(crate) fn run(paths: &Paths) -> Result<()> {
    sh::run(sh::cargo().args(["fmt", "--all", "--check"]).current_dir(&paths.root))?;
    let kernel_manifest = paths.root.join("proxy-ebpf/Cargo.toml");
    sh::run(sh::cargo().args(["fmt", "--check", "--manifest-path"]).arg(&kernel_manifest))?;

    // The daemon embeds the kernel side, so it must be there for clippy too.
    if !paths.bpf_object().is_file() {
        build::kernel_side(paths)?;
    }
    sh::run(
        sh::cargo()
            .args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
            .current_dir(&paths.root)
            .env("VOUCHSAFE_BPF_OBJECT", paths.bpf_object()),
    )?;
    tidy::run(paths)?;
    licences(paths, &kernel_manifest)
}

/// Licences, banned crates and sources of all dependencies. Advisories need a database from the network, and change
/// without us: they are a job of their own (`cargo deny check advisories`).
fn licences(paths: &Paths, kernel_manifest: &std::path::Path) -> Result<()> {
    if sh::find_program("cargo-deny").is_none() {
        println!(
            "not checked: licences and sources of dependencies; \
             `cargo install cargo-deny --locked` (some minutes) makes this task check them"
        );
        return Ok(());
    }
    for manifest in [&paths.root.join("Cargo.toml"), kernel_manifest] {
        let mut command = Command::new("cargo-deny");
        command.arg("--manifest-path").arg(manifest).arg("--config").arg(paths.root.join("deny.toml"));
        command.args(["check", "--hide-inclusion-graph", "licenses", "bans", "sources"]);
        sh::run(&mut command)?;
    }
    Ok(())
}
