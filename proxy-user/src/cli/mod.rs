//! The command line.

pub mod audit;
pub mod ca;
pub mod credential;
pub mod detach;
pub mod evidence;
pub mod fingerprint;
pub mod policy;
pub mod replay;
pub mod secret;
pub mod status;
pub mod trust;
pub mod who;
pub mod why;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    app::daemon,
    config::{Config, DEFAULT_PATH},
    credentials::StorePaths,
};

/// Lets services, bots, scripts and AI agents call APIs without ever holding a credential
#[derive(Debug, Parser)]
#[command(name = "vouchsafe", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Where the daemon's settings are.
#[derive(Debug, Args)]
struct ConfigArg {
    /// The daemon's configuration
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(ConfigArg),
    /// The same as `vouchsafe policy check`
    Check(policy::check::CheckArgs),
    /// Check, test, explain, review and compare policies
    Policy {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: policy::PolicyArgs,
    },
    /// Show an entry of the journal, and how its call would be decided today
    Why {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: why::WhyArgs,
    },
    /// Store, list and remove secrets
    Secret {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: secret::SecretArgs,
    },
    /// Show the credentials of the policy that is live: kind, source, version, last use
    Credential {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: credential::CredentialArgs,
    },
    /// Show and export the host's CA, and make a new one
    Ca {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: ca::CaArgs,
    },
    /// Put the CA's roots into trust stores, keep them current, and find out who does not trust them
    Trust {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: trust::TrustArgs,
    },
    /// Show, search and verify the journal
    Audit {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: audit::AuditArgs,
    },
    /// Show what is attached, which policy is live, and what it does
    Status {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: status::StatusArgs,
    },
    /// Show which identity a running process or unit has, condition by condition
    Who {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: who::WhoArgs,
    },
    /// Read policies and secrets again
    Reload(ConfigArg),
    /// Take the kernel side off, deliberately: workloads are governed no more
    Detach {
        #[command(flatten)]
        config: ConfigArg,
        #[command(flatten)]
        args: detach::DetachArgs,
    },
}

/// Runs the command that the arguments name. Errors go to standard error, for people.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vouchsafe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => daemon::run(&args.config),
        Command::Check(args) => policy::check::run(&args),
        Command::Policy { config, args } => policy::run(&args, || load(&config.config)),
        Command::Why { config, args } => why::run(&args, &load(&config.config)?),
        Command::Secret { config, args } => {
            let config = load(&config.config)?;
            secret::run(args, &StorePaths::in_directories(&config.state, &config.runtime))
        }
        Command::Credential { config, args } => {
            credential::run(&args, &load(&config.config)?.control_socket())
        }
        Command::Ca { config, args } => ca::run(args, &load(&config.config)?),
        Command::Trust { config, args } => trust::run(&args, &load(&config.config)?),
        Command::Audit { config, args } => audit::run(&args, || load(&config.config)),
        Command::Status { config, args } => status::run(&args, &load(&config.config)?.control_socket()),
        Command::Who { config, args } => who::run(&args, &load(&config.config)?.control_socket()),
        Command::Reload(args) => status::reload(&load(&args.config)?.control_socket()),
        Command::Detach { config, args } => detach::run(&args, &load(&config.config)?),
    }
}

/// The configuration; the packaged default when the usual file is not there.
fn load(path: &Path) -> anyhow::Result<Config> {
    if path == Path::new(DEFAULT_PATH) && !path.exists() {
        return Ok(Config::default());
    }
    Ok(Config::load(path)?)
}
