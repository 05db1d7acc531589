//! `vouchsafe trust`: what trusts the CA of this host, and how the rest comes to.

mod doctor;
mod stores;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::Config;

/// Arguments of `vouchsafe trust`.
#[derive(Debug, Args)]
pub struct TrustArgs {
    #[command(subcommand)]
    command: TrustCommand,
}

#[derive(Debug, Subcommand)]
enum TrustCommand {
    /// Put the CA's roots into stores, and record these so that they are kept current
    Install(stores::ChangeArgs),
    /// Bring all recorded stores to the current roots
    Refresh(stores::RefreshArgs),
    /// Take out of stores what was put in, and nothing else
    Remove(stores::ChangeArgs),
    /// Show how the stores are, and what else is on this host
    Status(stores::StatusArgs),
    /// Print the variables that tell programs what to trust
    Env(stores::EnvArgs),
    /// Find out what running processes trust, why they would refuse, and what mends it
    Doctor(doctor::DoctorArgs),
}

/// Runs `vouchsafe trust`.
///
/// # Errors
/// There is no CA yet, somebody else is at work, or what is recorded cannot be read.
pub fn run(args: &TrustArgs, config: &Config) -> anyhow::Result<ExitCode> {
    match &args.command {
        TrustCommand::Install(args) => stores::install(args, &config.state),
        TrustCommand::Refresh(args) => stores::refresh(args, &config.state),
        TrustCommand::Remove(args) => stores::remove(args, &config.state),
        TrustCommand::Status(args) => stores::status(args, &config.state),
        TrustCommand::Env(args) => stores::env(args),
        TrustCommand::Doctor(args) => doctor::run(args, config),
    }
}
