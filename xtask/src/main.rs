//! The project's own tasks, run as `cargo xtask …`.
//!
//! Each task is one module; this file only names them and turns a failure into an exit code.

mod bench;
mod build;
mod demo;
mod install;
mod lint;
mod paths;
mod sh;
mod stage;
mod system;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the Vouchsafe workspace.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the kernel side and the daemon; install the eBPF toolchain when it is missing.
    Build(build::Options),
    /// Run all tests against the running kernel; needs root.
    Test(test::Options),
    /// Run the tests that depend on the kernel on Debian's kernels, in emulated machines; needs root.
    Vm(vm::Options),
    /// Check formatting, clippy, the house rules and the licences of dependencies.
    Lint,
    /// Check the house rules only.
    Tidy,
    /// Show the whole product at work, in a cgroup and a network namespace of its own; needs root.
    Demo(demo::Options),
    /// Measure direct, passed through and intercepted side by side; needs root.
    Bench(bench::Options),
    /// Time connect(2) where we are; the bench runs it in several places.
    #[command(hide = true)]
    BenchConnect(bench::connect::Options),
    /// Call over plain HTTP where we are; the bench runs it in several places.
    #[command(hide = true)]
    BenchCall(bench::calls::Options),
    /// Serve what the bench's peers are measured with; the bench runs it in its own network.
    #[command(hide = true)]
    BenchPeer(bench::peers::helper::Options),
    /// Put binary, unit, configuration and directories in place.
    Install(install::Options),
    /// Remove what `install` put in place.
    Uninstall(install::RemoveOptions),
}

fn main() -> ExitCode {
    let outcome = paths::Paths::find().and_then(|paths| match Cli::parse().task {
        Task::Build(options) => build::run(&paths, &options),
        Task::Test(options) => test::run(&paths, &options),
        Task::Vm(options) => vm::run(&paths, &options),
        Task::Lint => lint::run(&paths),
        Task::Tidy => tidy::run(&paths),
        Task::Demo(options) => demo::run(&paths, &options),
        Task::Bench(options) => bench::run(&paths, &options),
        Task::BenchConnect(options) => bench::connect::run(&options),
        Task::BenchCall(options) => bench::calls::run(&options),
        Task::BenchPeer(options) => bench::peers::helper::run(&options),
        Task::Install(options) => install::run(&paths, &options),
        Task::Uninstall(options) => install::remove(&paths, &options),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
