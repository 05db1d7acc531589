//! `vouchsafe trust`: what trusts the CA of this host, and how the rest comes to.

mod doctor;

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
    /// Find out what running processes trust, why they would refuse, and what mends it
    Doctor(doctor::DoctorArgs),
}

/// Runs `vouchsafe trust`.
///
/// # Errors
/// There is no CA yet, or what was asked for cannot be done.
pub fn run(args: &TrustArgs, config: &Config) -> anyhow::Result<ExitCode> {
    match &args.command {
        TrustCommand::Doctor(args) => doctor::run(args, config),
    }
}
