//! `vouchsafe policy`: what is known of a policy before it is live.

pub mod check;
pub mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Arguments of `vouchsafe policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Print every error and warning of every policy file, with its place and what to do
    Check(check::CheckArgs),
    /// Decide the calls of *.test.toml and compare with what they expect
    Test(test::TestArgs),
}

/// Runs one of the commands.
///
/// # Errors
/// Those of the command.
pub fn run(args: &PolicyArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        PolicyCommand::Check(args) => check::run(args),
        PolicyCommand::Test(args) => test::run(args),
    }
}
