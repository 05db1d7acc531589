//! The linker of the kernel side: bpf-linker, which must have the LLVM of the compiler.
//!
//! bpf-linker reads the compiler's bitcode, so its LLVM must be of the compiler's major version. How it comes to one:
//!
//! * for Debian's compiler: bpf-linker 0.13 against Debian's `llvm-N-dev` (features `llvm-21` to `llvm-23`);
//! * for rustup's nightly: bpf-linker 0.10, the last series with `rust-llvm-22`, which loads the libLLVM that the
//!   toolchain itself carries. Later ones want an LLVM of the system, which Ubuntu 24.04 does not have in version 22.
//!
//! A bpf-linker that is in PATH is taken when it fits, else one is built into the target directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::toolchain::{Source, Toolchain};
use crate::paths::Paths;
use crate::{sh, system};

/// For Debian's compiler.
const WITH_SYSTEM_LLVM: &str = "0.13.0";
/// The versions of LLVM that [`WITH_SYSTEM_LLVM`] can be built against.
const KNOWN_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// For rustup's compiler.
const WITH_RUSTC_LLVM: &str = "0.10.3";
/// The LLVM that [`WITH_RUSTC_LLVM`] can load.
const RUSTC_LLVM: u32 = 22;

/// How a bpf-linker comes to its LLVM.
#[derive(Debug, PartialEq, Eq)]
enum Llvm {
    /// It is linked against the shared library of this major version.
    Shared(u32),
    /// It loads the library that rustup's toolchain carries.
    OfRustc,
    /// It brings its own; the version cannot be seen from outside.
    Own,
}

/// The bpf-linker to use with `toolchain`; builds one when none fits.
pub(crate) fn ensure(paths: &Paths, toolchain: &Toolchain) -> Result<PathBuf> {
    let (root, kind) = match toolchain.source {
        Source::Debian => (paths.tools().join(format!("llvm-{}", toolchain.llvm)), "Debian's LLVM"),
        Source::Rustup(_) => (paths.tools().join("rustc-llvm"), "the compiler's own LLVM"),
    };
    let ours = root.join("bin/bpf-linker");
    let found = sh::find_program("bpf-linker").into_iter().chain([ours.clone()]);
    if let Some(fitting) = found.into_iter().find(|path| fits(path, toolchain)) {
        return Ok(fitting);
    }
    println!("missing: a bpf-linker with LLVM {}; building one with {kind}", toolchain.llvm);
    let mut command = match toolchain.source {
        Source::Debian => against_debian(toolchain)?,
        Source::Rustup(_) => against_rustc(toolchain)?,
    };
    command.arg("--root").arg(&root).arg("--target-dir").arg(root.join("build"));
    sh::run(&mut command)?;
    // Only the program is wanted; what was built on the way is a few hundred megabytes.
    let _ = fs::remove_dir_all(root.join("build"));
    ensure!(fits(&ours, toolchain), "{} was built, but has another LLVM than the compiler", ours.display());
    Ok(ours)
}

/// Whether a linker for `toolchain` is in PATH or can be built.
pub(crate) fn is_obtainable(toolchain: &Toolchain) -> bool {
    match toolchain.source {
        Source::Debian => KNOWN_LLVM.contains(&toolchain.llvm),
        Source::Rustup(_) => {
            (toolchain.llvm == RUSTC_LLVM && cfg!(target_arch = "x86_64"))
                || sh::find_program("bpf-linker").is_some_and(|path| fits(&path, toolchain))
        }
    }
}

/// How to install the linker for rustup's nightly by hand.
pub(crate) fn instructions() -> String {
    format!(
        "cargo +{} install bpf-linker --version {WITH_RUSTC_LLVM} --locked",
        super::toolchain::PINNED_NIGHTLY
    )
}

fn against_debian(toolchain: &Toolchain) -> Result<Command> {
    let llvm = toolchain.llvm;
    if !is_obtainable(toolchain) {
        bail!(
            "Debian's Rust compiler has LLVM {llvm}, and bpf-linker {WITH_SYSTEM_LLVM} knows {KNOWN_LLVM:?} only; run\n    \
             rustup toolchain install {} --profile minimal --component rust-src\nand try again",
            super::toolchain::PINNED_NIGHTLY
        );
    }
    let prefix = format!("/usr/lib/llvm-{llvm}");
    if !Path::new(&prefix).join("bin/llvm-config").exists() || sh::find_program("g++").is_none() {
        // g++ for libstdc++, which LLVM needs and a plain C compiler does not bring.
        system::apt_install(&[&format!("llvm-{llvm}-dev"), "g++"], &["--no-remove"])?;
    }
    let mut command = toolchain.cargo()?;
    command.args(["install", "bpf-linker", "--locked", "--version", WITH_SYSTEM_LLVM]);
    command.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    command.env("LLVM_PREFIX", prefix);
    // The programs that cargo builds for this host need no unstable features.
    command.env_remove("RUSTC_BOOTSTRAP");
    Ok(command)
}

fn against_rustc(toolchain: &Toolchain) -> Result<Command> {
    if !is_obtainable(toolchain) {
        bail!(
            "{} has LLVM {}, and no bpf-linker can be built for it on this machine; put a bpf-linker with that LLVM \
             into PATH (https://github.com/aya-rs/bpf-linker), or on x86-64 run\n    \
             rustup toolchain install {} --profile minimal --component rust-src\nand try again",
            toolchain.described(),
            toolchain.llvm,
            super::toolchain::PINNED_NIGHTLY
        );
    }
    let mut command = toolchain.cargo()?;
    command.args(["install", "bpf-linker", "--locked", "--version", WITH_RUSTC_LLVM]);
    command.args(["--no-default-features", "--features", &format!("rust-llvm-{RUSTC_LLVM}")]);
    Ok(command)
}

fn fits(linker: &Path, toolchain: &Toolchain) -> bool {
    let Ok(bytes) = fs::read(linker) else { return false };
    let of_rustup = matches!(toolchain.source, Source::Rustup(_));
    match llvm_of(&bytes) {
        Llvm::Shared(version) => version == toolchain.llvm,
        Llvm::OfRustc => of_rustup && toolchain.llvm == RUSTC_LLVM,
        Llvm::Own => true,
    }
}

/// Reads from a linker's bytes how it comes to its LLVM.
fn llvm_of(bytes: &[u8]) -> Llvm {
    let text = String::from_utf8_lossy(bytes);
    // As the crate aya-rustc-llvm-proxy says it when it finds none.
    if text.contains("unable to find LLVM shared lib") {
        return Llvm::OfRustc;
    }
    // Names of the library: libLLVM.so.22.1 (from LLVM 18 on), libLLVM-22.so (Debian's alias).
    ["libLLVM.so.", "libLLVM-"]
        .into_iter()
        .flat_map(|name| text.match_indices(name).filter_map(|(at, found)| text.get(at + found.len()..)))
        .find_map(|rest| {
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest.get(..end)?.parse().ok()
        })
        .map_or(Llvm::Own, Llvm::Shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_linker_is_read_from_its_bytes() {
        assert_eq!(llvm_of(b"\0libc.so.6\0libLLVM.so.22.1\0"), Llvm::Shared(22));
        assert_eq!(llvm_of(b"\0libLLVM-19.so.1\0"), Llvm::Shared(19));
        assert_eq!(llvm_of(b"libLLVM\0unable to find LLVM shared lib\0"), Llvm::OfRustc);
        assert_eq!(llvm_of(b"nothing of the kind"), Llvm::Own);
        assert_eq!(llvm_of(b""), Llvm::Own);
    }
}
