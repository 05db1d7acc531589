//! The daemon, optimized by how it is used (`cargo xtask build --trained`): built so that it counts what it does, put under the loads of the
//! bench, and built again by what it counted. From then on every release build goes by that, as long as the compiler is the same.
//!
//! A profile that is older than the source serves the functions that did not change. One that is older than a dependency, or than which of its
//! features are on, serves neither that crate nor any that is built on it: the names of all their functions are others then. That is said.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::paths::Paths;
use crate::sh;

/// What the compiler was when the profile was made, and what it must be to use it.
struct Compiler {
    /// All that it says of itself.
    about: String,
    host: String,
    /// The major version of its LLVM.
    llvm: String,
    sysroot: String,
}

impl Compiler {
    fn of(paths: &Paths) -> Result<Self> {
        let rustc = || {
            let mut command = Command::new("rustc");
            command.current_dir(&paths.root);
            command
        };
        let about = sh::capture(rustc().arg("-vV"))?;
        let told = |name: &str| {
            let line = about.lines().find_map(|line| line.strip_prefix(name));
            line.map(|rest| rest.trim().to_owned())
                .with_context(|| format!("rustc -vV does not say its {name}"))
        };
        let llvm = told("LLVM version:")?;
        let llvm = llvm.split('.').next().unwrap_or_default().to_owned();
        let host = told("host:")?;
        let sysroot = sh::capture(rustc().args(["--print", "sysroot"]))?.trim().to_owned();
        Ok(Self { about, host, llvm, sysroot })
    }

    /// The tool that merges what was counted, of the same LLVM.
    fn profdata(&self) -> Result<PathBuf> {
        let Self { host, llvm, sysroot, .. } = self;
        let places = [
            PathBuf::from(format!("{sysroot}/lib/rustlib/{host}/bin/llvm-profdata")),
            PathBuf::from(format!("/usr/lib/llvm-{llvm}/bin/llvm-profdata")),
        ];
        let found = places.into_iter().find(|path| sh::is_executable(path));
        found.or_else(|| sh::find_program(&format!("llvm-profdata-{llvm}"))).with_context(|| {
            format!(
                "there is no llvm-profdata of LLVM {llvm}; install it with `rustup component add llvm-tools`, or the package llvm-{llvm}"
            )
        })
    }
}

/// Where a profile and what belongs to it are.
fn place(paths: &Paths) -> PathBuf {
    paths.target.join("trained")
}

/// The profile, if there is one of this compiler.
fn profile(paths: &Paths, compiler: &Compiler) -> Option<PathBuf> {
    let place = place(paths);
    let is_same = fs::read_to_string(place.join("compiler")).is_ok_and(|about| about == compiler.about);
    Some(place.join("profile")).filter(|profile| is_same && profile.is_file())
}

/// Which crates the daemon is made of and built with, with their versions and features, one in each line.
fn crates(paths: &Paths) -> Result<String> {
    let mut command = sh::cargo();
    command.args(["tree", "--package", "vouchsafe", "--edges", "normal,build", "--prefix", "none"]);
    // Without what says only that it was listed before.
    command.args(["--no-dedupe", "--format", "{p} {f}"]).current_dir(&paths.root);
    let told = sh::capture(&mut command)?;
    let mut lines: Vec<_> = told.lines().map(without_place).collect();
    lines.sort_unstable();
    lines.dedup();
    Ok(lines.join("\n"))
}

/// A crate of ours without where it is.
fn without_place(line: &str) -> String {
    match line.split_once(" (").and_then(|(crate_, rest)| Some((crate_, rest.split_once(')')?.1))) {
        Some((crate_, features)) => format!("{crate_}{features}"),
        None => line.to_owned(),
    }
}

/// The crates that are others than those a profile was made with, by their names.
fn changed<'a>(before: &'a str, now: &'a str) -> BTreeSet<&'a str> {
    let (before, now): (BTreeSet<_>, BTreeSet<_>) = (before.lines().collect(), now.lines().collect());
    before.symmetric_difference(&now).filter_map(|line| line.split(' ').next()).collect()
}

/// The first of them, and how many more there are.
fn some_of(crates: &BTreeSet<&str>) -> String {
    const SHOWN: usize = 6;
    let shown = crates.iter().take(SHOWN).copied().collect::<Vec<_>>().join(", ");
    match crates.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Builds the release by the profile, if there is one; whether it did.
pub(super) fn build(paths: &Paths) -> Result<bool> {
    if !place(paths).join("profile").exists() {
        return Ok(false);
    }
    let compiler = Compiler::of(paths)?;
    let Some(profile) = profile(paths, &compiler) else {
        println!("the profile in {} is another compiler's, and is not used", paths.shown(&place(paths)));
        return Ok(false);
    };
    println!("optimized by {}", paths.shown(&profile));
    // Where there is none, the profile is from before they were noted.
    let now = crates(paths)?;
    let before = fs::read_to_string(place(paths).join("crates")).unwrap_or_else(|_| now.clone());
    let changed = changed(&before, &now);
    if !changed.is_empty() {
        println!(
            "the profile was made with other versions or features of {}; it knows nothing of their functions, and of those of all that is \
             built on them: `cargo xtask build --trained` makes one anew",
            some_of(&changed)
        );
    }
    let flags = [
        format!("-Cprofile-use={}", profile.display()),
        // Of functions that are new, nothing was counted.
        "-Cllvm-args=-pgo-warn-missing-function=false".to_owned(),
        // What runs often stands together, and apart from what does not.
        "-Clink-arg=-Wl,-z,keep-text-section-prefix".to_owned(),
    ];
    compile(paths, &compiler, &flags)?;
    Ok(true)
}

/// Makes a profile: counts under load.
pub(super) fn train(paths: &Paths) -> Result<()> {
    let compiler = Compiler::of(paths)?;
    let profdata = compiler.profdata()?;
    let place = place(paths);
    let counts = place.join("counts");
    let _ = fs::remove_dir_all(&counts);
    for made in ["profile", "compiler", "crates"] {
        let _ = fs::remove_file(place.join(made));
    }
    fs::create_dir_all(&counts).with_context(|| format!("cannot create {}", counts.display()))?;
    compile(paths, &compiler, &[format!("-Cprofile-generate={}", counts.display())])?;
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    sh::run(Command::new(ourselves).args(["bench", "load", "--quick", "--built"]).current_dir(&paths.root))
        .context("the loads to count under failed")?;
    let counted: Vec<PathBuf> = fs::read_dir(&counts)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|it| it == "profraw"))
        .collect();
    ensure!(!counted.is_empty(), "the daemon left no counts in {}", counts.display());
    sh::run(Command::new(profdata).args(["merge", "-o"]).arg(place.join("profile")).args(counted))?;
    fs::write(place.join("crates"), crates(paths)?).context("cannot write what the profile is of")?;
    fs::write(place.join("compiler"), &compiler.about).context("cannot write whose profile it is")
}

/// Builds the release with flags of its own, in a directory of its own, and puts it where releases are.
fn compile(paths: &Paths, compiler: &Compiler, flags: &[String]) -> Result<()> {
    let build_dir = place(paths).join("build");
    let mut command = sh::cargo();
    // With `--target` the flags are not for build scripts and macros.
    command.args([
        "build",
        "--package",
        "vouchsafe",
        "--release",
        "--target",
        &compiler.host,
        "--target-dir",
    ]);
    command.arg(&build_dir).current_dir(&paths.root);
    command.env("VOUCHSAFE_BPF_OBJECT", paths.bpf_object());
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    sh::run(&mut command)?;
    let built = build_dir.join(&compiler.host).join("release/vouchsafe");
    put(&built, &paths.daemon(true))
}

/// Puts a program in the place of another, which may be running.
fn put(built: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let beside = to.with_extension("new");
    fs::copy(built, &beside).with_context(|| format!("the build left no {}", built.display()))?;
    fs::rename(&beside, to).with_context(|| format!("cannot write {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_of_another_version_or_with_other_features_is_named_once() {
        let before = "h2 v0.4.1 default\nring v1.0.0 \nrustix v1.1.0 fs,net\nserde v1.0.0 std";
        let now = "h2 v0.4.2 default\nrustix v1.1.0 fs,net,time\nserde v1.0.0 std\nzstd v0.13.0 ";
        assert_eq!(changed(before, now), BTreeSet::from(["h2", "ring", "rustix", "zstd"]));
        assert!(changed(before, before).is_empty());
        assert_eq!(some_of(&changed(before, now)), "h2, ring, rustix, zstd");
        let many = BTreeSet::from(["a", "b", "c", "d", "e", "f", "g", "h"]);
        assert_eq!(some_of(&many), "a, b, c, d, e, f and 2 more");
    }

    #[test]
    fn the_crates_of_the_daemon_are_listed_with_their_features_wherever_they_are() {
        let listed = crates(&Paths::find().unwrap()).unwrap();
        let has = |begin: &str, feature: &str| {
            listed.lines().any(|line| line.starts_with(begin) && line.contains(feature))
        };
        assert!(has("rustls v", "aws_lc_rs") && has("cc v", "") && has("proxy-common v", "user"), "{listed}");
        assert!(!listed.contains('/'), "{listed}");
    }
}
