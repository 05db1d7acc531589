//! `vouchsafe policy`: what is known of a policy before it is live.

pub mod add;
pub mod check;
pub mod explain;
pub(in crate::cli) mod folder;
pub mod plan;
pub mod table;
pub mod test;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::Config;

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
    /// Take an API with its roles out of the library that ships, or list what is there
    Add(add::AddArgs),
    /// Decide the calls of *.test.toml and compare with what they expect
    Test(test::TestArgs),
    /// Say how a call would be decided, by which rule, and what else was considered
    Explain(explain::ExplainArgs),
    /// Print what a policy means: every identity, API and role, for review
    Table(table::TableArgs),
    /// Say what a reload would change against what is live
    Plan(plan::PlanArgs),
    /// Say what changes from one policy to another
    Diff(plan::DiffArgs),
    /// Print the JSON Schema (draft 2020-12) of policy files, for editors
    Schema,
}

/// Runs one of the commands.
///
/// # Errors
/// Those of the command.
pub fn run(args: &PolicyArgs, config: impl FnOnce() -> anyhow::Result<Config>) -> anyhow::Result<ExitCode> {
    match &args.command {
        PolicyCommand::Check(args) => check::run(args),
        PolicyCommand::Add(args) => add::run(args),
        PolicyCommand::Test(args) => test::run(args),
        PolicyCommand::Explain(args) => explain::run(args, &config()?),
        PolicyCommand::Table(args) => table::run(args, &config()?.policies),
        PolicyCommand::Plan(args) => {
            let config = config()?;
            plan::run(args, &config.policies, &config.control_socket())
        }
        PolicyCommand::Diff(args) => plan::diff(args),
        PolicyCommand::Schema => {
            io::stdout().write_all(proxy_policy::SCHEMA.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
