//! The compiler of the kernel side.
//!
//! BPF is a tier 3 target: no stable toolchain of rustup carries a `core` for it. There are two ways, tried in this order:
//!
//! 1. a nightly of rustup that already has `rust-src`: builds `core` itself (`-Z build-std=core`);
//! 2. the packages of Debian 12, 13 and later: a compiler with a prebuilt `core` for BPF
//!    (`rustc-web` in stable suites, where it follows the browsers; `rustc` in testing), used with
//!    `RUSTC_BOOTSTRAP=1` because the BPF crates use unstable features;
//! 3. else (Ubuntu, older Debian) the nightly of way 1 is installed. It is pinned: bpf-linker must have the LLVM of
//!    the compiler, and this is a nightly with LLVM 22, which [`super::linker`] has a linker for.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::sh;
use crate::system::{self, Family, Need};

/// The nightly that is installed when there is none that serves (rustc 1.97, LLVM 22.1).
pub(crate) const PINNED_NIGHTLY: &str = "nightly-2026-05-20";

/// The oldest compiler of a distribution that is taken: the workspace's `rust-version`.
const OLDEST_RUSTC: (u32, u32) = (1, 90);

/// Debian's packages with a BPF `core`: compiler, cargo, `core`.
const DEBIAN_SETS: [[&str; 3]; 2] =
    [["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"], ["rustc", "cargo", "libstd-rust-dev-bpf"]];

/// A compiler that can build the kernel side.
pub(crate) struct Toolchain {
    pub(crate) source: Source,
    /// The major version of its LLVM.
    pub(crate) llvm: u32,
    /// Its version line, for people.
    version: String,
}

/// Where a compiler comes from.
pub(crate) enum Source {
    /// rustup's toolchain of this name, which has `rust-src`.
    Rustup(String),
    /// Debian's, in `/usr/bin`.
    Debian,
}

impl Toolchain {
    /// The compiler to use; installs one when none is here.
    pub(crate) fn ensure() -> Result<Self> {
        if let Some(found) = Self::in_rustup()? {
            return Ok(found);
        }
        if let Some(found) = Self::of_debian()? {
            return Ok(found);
        }
        if !system::has_apt() {
            bail!("{}", instructions(Family::of_host()));
        }
        Self::install_debian().transpose().unwrap_or_else(Self::install_nightly)
    }

    /// One line on which way was taken.
    pub(crate) fn described(&self) -> String {
        match &self.source {
            Source::Rustup(name) => format!("rustup's {name} with build-std ({})", self.version),
            Source::Debian => format!("Debian's packages ({})", self.version),
        }
    }

    /// Extra arguments of `cargo build`.
    pub(crate) fn build_std(&self) -> &'static [&'static str] {
        match self.source {
            Source::Rustup(_) => &["-Z", "build-std=core"],
            Source::Debian => &[],
        }
    }

    /// A cargo of this toolchain, in surroundings where nothing of another toolchain is left.
    pub(crate) fn cargo(&self) -> Result<Command> {
        let mut command = match &self.source {
            Source::Rustup(name) => {
                let mut command = Command::new("rustup");
                command.args(["run", name.as_str(), "cargo"]);
                command
            }
            Source::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                let path = env::var_os("PATH").unwrap_or_default();
                let path = env::join_paths(
                    std::iter::once(Path::new("/usr/bin").to_path_buf()).chain(env::split_paths(&path)),
                )
                .context("PATH cannot be extended")?;
                // rustup's proxies are called `rustc` and `cargo` too: Debian's must be found first.
                command.env("PATH", path).env("RUSTC_BOOTSTRAP", "1");
                command
            }
        };
        clear_cargo_environment(&mut command);
        if let Source::Rustup(name) = &self.source {
            // bpf-linker looks for the compiler's own libLLVM here.
            command.env("LD_LIBRARY_PATH", sysroot(name)?.join("lib"));
        }
        Ok(command)
    }

    fn in_rustup() -> Result<Option<Self>> {
        let Ok(installed) = sh::capture(Command::new("rustup").args(["toolchain", "list"])) else {
            return Ok(None);
        };
        for name in [PINNED_NIGHTLY, "nightly"] {
            let prefix = format!("{name}-");
            // `nightly-x86_64-…` is the floating nightly; `nightly-2026-…` must not match it.
            let is_named = |line: &str| {
                let rest = line.strip_prefix(&prefix);
                rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
            };
            if !installed.lines().any(is_named) {
                continue;
            }
            if !sysroot(name)?.join("lib/rustlib/src/rust/library/core").is_dir() {
                continue;
            }
            let found = Self::from_rustup(name)?;
            if super::linker::is_obtainable(&found) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn from_rustup(name: &str) -> Result<Self> {
        let text = sh::capture(Command::new("rustup").args(["run", name, "rustc", "-vV"]))?;
        let (llvm, version) = parse_version(&text)
            .with_context(|| format!("`rustup run {name} rustc -vV` names no LLVM version"))?;
        Ok(Self { source: Source::Rustup(name.to_owned()), llvm, version })
    }

    fn of_debian() -> Result<Option<Self>> {
        if !Path::new("/usr/bin/cargo").exists()
            || !Path::new("/usr/lib/rustlib").join(super::BPF_TARGET).is_dir()
        {
            return Ok(None);
        }
        let mut command = Command::new("/usr/bin/rustc");
        clear_cargo_environment(&mut command);
        let text = sh::capture(command.arg("-vV"))?;
        let (llvm, version) = parse_version(&text).context("`/usr/bin/rustc -vV` names no LLVM version")?;
        Ok(Some(Self { source: Source::Debian, llvm, version }))
    }

    /// Installs Debian's packages where its suite has them and nothing must be removed for them.
    fn install_debian() -> Result<Option<Self>> {
        let usable = |set: &&[&str; 3]| {
            let [compiler, _, core] = *set;
            let version = system::apt_candidate(compiler).and_then(|version| parse_rustc(&version));
            system::apt_candidate(core).is_some() && version >= Some(OLDEST_RUSTC)
        };
        let find = || DEBIAN_SETS.iter().find(usable);
        let set = match find() {
            Some(set) => Some(set),
            None => {
                system::apt_update()?;
                find()
            }
        };
        let Some(set) = set else {
            println!("this suite has no compiler with a core for BPF; taking {PINNED_NIGHTLY} from rustup");
            return Ok(None);
        };
        println!("missing: a Rust compiler for BPF; installing Debian's");
        if let Err(error) = system::apt_install(set, &["--no-remove"]) {
            println!("that did not work ({error:#}); taking {PINNED_NIGHTLY} from rustup");
            return Ok(None);
        }
        Self::of_debian()
    }

    fn install_nightly() -> Result<Self> {
        if sh::find_program("rustup").is_none() {
            bail!(
                "the kernel side needs a nightly compiler; install rustup (https://rustup.rs) and try again"
            );
        }
        sh::run(
            Command::new("rustup")
                .args(["toolchain", "install", PINNED_NIGHTLY, "--profile", "minimal"])
                .args(["--component", "rust-src", "--no-self-update"]),
        )?;
        Self::from_rustup(PINNED_NIGHTLY)
    }
}

/// Drops what a surrounding cargo or rustup has set, and keeps what people set (home, network, registries).
fn clear_cargo_environment(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_of_another_toolchain) {
            command.env_remove(name);
        }
    }
}

fn is_of_another_toolchain(name: &str) -> bool {
    const KEPT: [&str; 5] = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_TERM_"];
    let of_cargo = name == "CARGO" || name.starts_with("CARGO_");
    let of_rust = name.starts_with("RUSTC") || matches!(name, "RUSTFLAGS" | "RUSTDOC" | "RUSTUP_TOOLCHAIN");
    let cleared = of_cargo || of_rust || name == "LD_LIBRARY_PATH";
    cleared && !KEPT.iter().any(|kept| name.starts_with(kept))
}

fn sysroot(toolchain: &str) -> Result<std::path::PathBuf> {
    let mut command = Command::new("rustup");
    clear_cargo_environment(&mut command);
    let text = sh::capture(command.args(["run", toolchain, "rustc", "--print", "sysroot"]))?;
    Ok(text.trim().into())
}

/// The major version of LLVM and the first line, from the output of `rustc -vV`.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.lines().next()?.to_owned();
    let llvm = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    Some((llvm.split('.').next()?.parse().ok()?, version))
}

/// Major and minor version from a Debian version such as `1.96.0+dfsg1-1~deb12u2`.
fn parse_rustc(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '+', '~', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What to run on a distribution that this task does not serve.
fn instructions(family: Family) -> String {
    let needs = [Need { apt: "gcc", ..Need::same("gcc", "gcc", "links the build tools") }];
    format!(
        "no Rust compiler for BPF is here, and this task can install one on Debian and Ubuntu only. Run\n    \
         {}\n    \
         rustup toolchain install {PINNED_NIGHTLY} --profile minimal --component rust-src\n    \
         {}\nand try again",
        family.install_command(&needs),
        super::linker::instructions()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_rustc_and_apt_print() {
        let text =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(parse_version(text), Some((22, "rustc 1.96.0 (ac68faa20 2026-05-25)".into())));
        assert_eq!(parse_version("rustc 1.0\n"), None);
        assert_eq!(parse_rustc("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(parse_rustc("unknown"), None);
    }

    #[test]
    fn only_what_another_toolchain_set_is_dropped() {
        for name in ["RUSTUP_TOOLCHAIN", "RUSTC", "RUSTFLAGS", "CARGO", "CARGO_TARGET_DIR", "RUSTC_WRAPPER"] {
            assert!(is_of_another_toolchain(name), "{name}");
        }
        for name in ["PATH", "CARGO_HOME", "RUSTUP_HOME", "CARGO_NET_OFFLINE", "RUST_BACKTRACE", "HOME"] {
            assert!(!is_of_another_toolchain(name), "{name}");
        }
    }

    #[test]
    fn a_distribution_without_apt_is_told_every_command() {
        let text = instructions(Family::Fedora);
        for part in ["sudo dnf install -y gcc", PINNED_NIGHTLY, "rust-src", "bpf-linker"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}
