//! `cargo xtask build`: the kernel side first, then the daemon that embeds it.
//!
//! Invariant: the object that the daemon embeds changes only when its bytes do, so that nothing is built again for nothing.

mod linker;
mod toolchain;
mod trained;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::paths::Paths;
use crate::{bench, sh};

use toolchain::Toolchain;

/// The crate of the kernel side; its package and its binary have the same name.
const KERNEL_CRATE: &str = "proxy-ebpf";
const BPF_TARGET: &str = "bpfel-unknown-none";

/// What to build, as the command line says it.
#[derive(Args)]
pub(crate) struct Options {
    /// Build the daemon with optimizations (the kernel side always is).
    #[arg(long)]
    release: bool,
    /// Put a release under the loads of the bench first, and optimize it by what it did there: takes a few builds' time, and makes calls a
    /// fifth to a third cheaper. Later release builds go by the same profile. Needs root, and llvm-profdata of the compiler's LLVM.
    #[arg(long)]
    trained: bool,
}

/// Builds everything that a host needs.
pub(crate) fn run(paths: &Paths, options: &Options) -> Result<()> {
    if options.trained {
        // Before it is built for minutes.
        bench::need()?;
        kernel_side(paths)?;
        trained::train(paths)?;
    }
    let daemon = all(paths, options.release || options.trained)?;
    println!("built: {}", paths.shown(&daemon));
    Ok(())
}

/// Builds the kernel side and the daemon; returns the daemon's binary.
pub(crate) fn all(paths: &Paths, release: bool) -> Result<PathBuf> {
    kernel_side(paths)?;
    if release && trained::build(paths)? {
        return Ok(paths.daemon(true));
    }
    daemon(paths, release, &[])
}

/// The same, optimized as far as takes no time: for tests that need a fast daemon, and not the fastest.
pub(crate) fn soon(paths: &Paths) -> Result<PathBuf> {
    kernel_side(paths)?;
    daemon(
        paths,
        true,
        &[("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")],
    )
}

fn daemon(paths: &Paths, release: bool, profile: &[(&str, &str)]) -> Result<PathBuf> {
    let mut command = sh::cargo();
    command.args(["build", "--package", "vouchsafe"]).current_dir(&paths.root);
    command.env("VOUCHSAFE_BPF_OBJECT", paths.bpf_object()).envs(profile.iter().copied());
    if release {
        command.arg("--release");
    }
    sh::run(&mut command)?;
    let daemon = paths.daemon(release);
    ensure!(
        sh::is_executable(&daemon),
        "cargo built the daemon, but {} does not exist; a `build.target` or `build.target-dir` in cargo's \
         configuration moves it: set CARGO_TARGET_DIR instead",
        daemon.display()
    );
    Ok(daemon)
}

/// Builds the kernel side into [`Paths::bpf_object`], installing the toolchain when there is none.
pub(crate) fn kernel_side(paths: &Paths) -> Result<()> {
    let toolchain = Toolchain::ensure()?;
    let linker = linker::ensure(paths, &toolchain)?;
    println!("kernel side: {}, {}", toolchain.described(), paths.shown(&linker));

    let source = paths.root.join(KERNEL_CRATE);
    let build_dir = paths.target.join("bpf/build");
    let mut command = toolchain.cargo()?;
    command.args(["build", "--release", "--target", BPF_TARGET, "--target-dir"]).arg(&build_dir);
    command.args(toolchain.build_std()).current_dir(&source);
    // `--btf` keeps the type information that the loader and bpftool read; it is made from debug information.
    let linker_flag = format!("linker={}", linker.display());
    let flags = ["-C", &linker_flag, "-C", "debuginfo=2", "-C", "link-arg=--btf"];
    match linker_flag.contains(' ') {
        // The plain variable is cut at blanks.
        true => command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}")),
        false => command.env("RUSTFLAGS", flags.join(" ")),
    };
    sh::run(&mut command).context("the kernel side does not build")?;

    let built = build_dir.join(BPF_TARGET).join("release").join(KERNEL_CRATE);
    publish(&built, &paths.bpf_object())
}

/// Copies `built` to `object` when they differ.
fn publish(built: &std::path::Path, object: &std::path::Path) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("the build left no {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(parent) = object.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    fs::write(object, bytes).with_context(|| format!("cannot write {}", object.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_object_is_not_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let (built, object) = (dir.path().join("built"), dir.path().join("bpf/object"));
        fs::write(&built, b"one").unwrap();
        publish(&built, &object).unwrap();
        let first = object.metadata().unwrap().modified().unwrap();
        publish(&built, &object).unwrap();
        assert_eq!(object.metadata().unwrap().modified().unwrap(), first);
        fs::write(&built, b"two").unwrap();
        publish(&built, &object).unwrap();
        assert_eq!(fs::read(&object).unwrap(), b"two");
    }
}
