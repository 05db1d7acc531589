//! `vouchsafe policy check DIR`: every error of every policy file.
use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use proxy_policy::Severity;

use crate::app::policies::Loaded;

/// Arguments of `vouchsafe policy check`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 the policy can go live, 1 it cannot.")]
pub struct CheckArgs {
    /// The folder that holds policies/, roles/, apis/ and credentials/
    #[arg(value_name = "DIR", default_value = "/etc/vouchsafe")]
    dir: PathBuf,
}

/// Prints errors and warnings to standard error and a summary to standard output.
///
/// # Errors
/// None: what is wrong with the files is the exit code.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let loaded = Loaded::read(&args.dir);
    let warnings = loaded.lines(Severity::Warning);
    for warning in &warnings {
        eprintln!("{warning}");
    }
    match loaded.into_set() {
        Ok(set) => {
            println!("{}: ok: {}", args.dir.display(), set.summary());
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            eprintln!("{errors}");
            eprintln!(
                "{}: {} errors; this policy would be refused as a whole",
                args.dir.display(),
                errors.0.len()
            );
            Ok(ExitCode::FAILURE)
        }
    }
}
