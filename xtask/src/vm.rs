//! `cargo xtask vm`: Debian's kernels, from the oldest that Vouchsafe is meant for to the newest, each in a machine of its own.
//!
//! QEMU emulates the machine in software, so it runs wherever the tests do. In it, as root and without a network: the
//! programs are loaded, and the tests about identity and about ways around the proxy run. What a kernel lacks is known
//! ([`lacks`]), and how many instructions the verifier walks is checked in ([`expected`]); both are held against what came out.
//!
//! Everything that is fetched is kept below `vm` in the target directory.

mod cpio;
mod expected;
mod kernel;
mod lacks;
mod machine;
mod outcome;
mod root;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::paths::Paths;
use crate::{build, sh, system};

use expected::Table;
use kernel::{KERNELS, Kernel, Mirrors};
use machine::Boot;
use outcome::Outcome;

/// The tests that depend on the kernel.
const FILTER: [&str; 4] = ["identity::", "attacks::", "mediation", "protect::"];
/// The table of instructions, below the root of the workspace.
const TABLE: &str = "xtask/src/vm/instructions.txt";

/// Which kernels, as the command line says it.
#[derive(Args)]
pub(crate) struct Options {
    /// Only this kernel: 5.10, 6.1, 6.12, or sid (the newest); may be repeated.
    #[arg(long, value_name = "NAME", value_parser = KERNELS.map(|kernel| kernel.name))]
    kernel: Vec<String>,
    /// Run the tests whose name contains this instead of the usual ones; may be repeated.
    #[arg(long, value_name = "WORD")]
    filter: Vec<String>,
    /// Write the instructions that the verifier walked into the table of expected ones.
    #[arg(long)]
    bless: bool,
    /// End a machine after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    limit: u64,
}

/// What came out on a kernel, and what is wrong with it.
struct Report<'a> {
    kernel: &'a Kernel,
    outcome: Outcome,
    problems: Vec<String>,
    took: Duration,
}

/// Boots the kernels one after the other; fails when anything is not as expected on any of them.
pub(crate) fn run(paths: &Paths, options: &Options) -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the machines are x86_64, and so must this host be");
    ensure!(
        system::is_root(),
        "making a Debian root needs root; run\n    sudo --preserve-env=PATH,HOME cargo xtask vm"
    );
    for needs in [machine::NEEDS, kernel::NEEDS, root::NEEDS] {
        system::ensure(needs)?;
    }
    build::soon(paths)?;
    let tests = build_tests(paths)?;

    let folder = paths.target.join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mirrors = Mirrors::of_host()?;
    let debian = root::debian(&folder, &mirrors.main)?;
    let filter = match options.filter.is_empty() {
        true => FILTER.map(str::to_owned).to_vec(),
        false => options.filter.clone(),
    };
    let programs = root::programs(paths, &folder, &tests, &filter)?;

    let file = paths.root.join(TABLE);
    let mut table = Table::parse(&fs::read_to_string(&file).unwrap_or_default())
        .with_context(|| format!("{TABLE} cannot be read"))?;
    let mut reports = Vec::new();
    for kernel in &KERNELS {
        if !options.kernel.is_empty() && !options.kernel.iter().any(|name| name == kernel.name) {
            continue;
        }
        println!("\n== {}", kernel.name);
        let started = Instant::now();
        let limit = Duration::from_secs(options.limit);
        let mut outcome = Outcome::default();
        let ran = boot(&folder, kernel, &mirrors, [&debian, &programs], limit, &mut outcome);
        let mut problems = Vec::new();
        match ran {
            Err(error) => problems.push(format!("{error:#}")),
            Ok(()) => {
                if options.bless {
                    table.bless(kernel.name, &outcome.programs);
                }
                problems.extend(lacks::problems(&kernel.lacks, &outcome));
                problems.extend(table.problems(kernel.name, &outcome.programs));
            }
        }
        reports.push(Report { kernel, outcome, problems, took: started.elapsed() });
    }
    if options.bless {
        fs::write(&file, table.written(&KERNELS.map(|kernel| kernel.name)))
            .with_context(|| format!("cannot write {TABLE}"))?;
        println!("\nwritten: {TABLE}");
    }
    for report in &reports {
        print!("\n{}", shown(report));
    }
    let bad = reports.iter().filter(|report| !report.problems.is_empty()).count();
    if bad > 0 {
        bail!("{bad} of {} kernels did not do as expected; see above", reports.len());
    }
    Ok(())
}

/// Builds the tests of the whole thing; returns the program.
fn build_tests(paths: &Paths) -> Result<PathBuf> {
    let mut command = sh::cargo();
    // The whole workspace, so that nothing is built twice beside `cargo xtask test`.
    command.args(["test", "--workspace", "--test", "it", "--no-run"]).current_dir(&paths.root);
    command.env("VOUCHSAFE_BPF_OBJECT", paths.bpf_object());
    sh::run(&mut command)?;
    let messages = sh::capture(command.arg("--message-format=json"))?;
    test_program(&messages).context("cargo names no program with the tests")
}

/// The executable of the package `tests` in what cargo says about a build, a JSON object per line.
fn test_program(messages: &str) -> Option<PathBuf> {
    messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()).find_map(
        |message| {
            let is_it = message.pointer("/target/name")? == "it"
                && Path::new(message.get("manifest_path")?.as_str()?).ends_with("tests/Cargo.toml");
            is_it.then(|| message.get("executable")?.as_str().map(PathBuf::from))?
        },
    )
}

/// Gets a kernel, boots it with these archives, and takes down what the machine says.
fn boot(
    folder: &Path,
    kernel: &Kernel,
    mirrors: &Mirrors,
    [debian, programs]: [&Path; 2],
    limit: Duration,
    outcome: &mut Outcome,
) -> Result<()> {
    let fetched = kernel.fetch(folder, mirrors)?;
    let here = folder.join(kernel.name);
    let (initrd, console) = (here.join("initrd"), here.join("console"));
    root::join(&[debian, &fetched.modules, programs], &initrd)?;
    let boot = Boot { image: &fetched.image, initrd: &initrd, console: &console, limit };
    let ran = machine::run(&boot, |line| {
        println!("{line}");
        outcome.hear(line);
    });
    fs::remove_file(&initrd)?;
    ran
}

/// What came out on a kernel, for people.
fn shown(report: &Report<'_>) -> String {
    let outcome = &report.outcome;
    let mut text = format!("{}  ({}, {} s)\n", report.kernel.name, outcome.release, report.took.as_secs());
    let daemon = if outcome.ready { "started" } else { "refused to start" };
    text.push_str(&format!("  daemon {daemon}; {} programs loaded\n", outcome.programs.len()));
    for (program, count) in &outcome.programs {
        text.push_str(&format!("    {program:<16} {:>8} instructions\n", expected::shown(*count)));
    }
    text.push_str(&format!("  tests {} passed, {} failed\n", outcome.passed.len(), outcome.failed.len()));
    let lacks = &report.kernel.lacks;
    for lack in lacks.refuses.iter().chain(lacks.features) {
        text.push_str(&format!("  known lack: {lack}\n"));
    }
    match report.problems.as_slice() {
        [] => text.push_str("  as expected\n"),
        problems => {
            problems.iter().for_each(|problem| text.push_str(&format!("  NOT as expected: {problem}\n")))
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_with_the_tests_is_found_among_what_cargo_says() {
        let line = |package: &str, target: &str, executable: &str| {
            format!(
                "{{\"manifest_path\":\"/w/{package}/Cargo.toml\",\"target\":{{\"name\":\"{target}\"}},\"executable\":{executable}}}\n"
            )
        };
        let messages = [
            line("tests", "it", "null"),
            "noise\n".into(),
            line("tests", "actor", "\"/t/actor\""),
            line("proxy-policy", "it", "\"/t/it-0\""),
            line("tests", "it", "\"/t/it-1\""),
        ];
        let messages = messages.concat();
        assert_eq!(test_program(&messages), Some("/t/it-1".into()));
        assert_eq!(test_program(""), None);
    }

    #[test]
    fn the_checked_in_table_can_be_read() {
        Table::parse(include_str!("vm/instructions.txt")).unwrap();
    }
}
