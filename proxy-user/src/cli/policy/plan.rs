//! `vouchsafe policy plan` and `policy diff`: what changes between two policies, of which one may be the one that is live.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use proxy_policy::{Plan, Table};
use serde_json::json;

use super::folder;
use crate::cli::status::NOT_RUNNING;
use crate::control::client::{self, ClientError};
use crate::control::plan::{COMMAND, LiveTable};

/// Something changes.
const CHANGES: u8 = 2;

/// Arguments of `vouchsafe policy plan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 nothing changes, 2 something changes, 1 the policy has errors, 3 the daemon is not running.")]
pub struct PlanArgs {
    /// The folder that would go live; by default the one that the daemon reads
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// Arguments of `vouchsafe policy diff`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 both mean the same, 2 they do not, 1 one of them has errors.")]
pub struct DiffArgs {
    /// The folder of the policy before
    #[arg(value_name = "BEFORE")]
    before: PathBuf,
    /// The folder of the policy after
    #[arg(value_name = "AFTER")]
    after: PathBuf,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// Compares the folder with what is live.
///
/// # Errors
/// The policy has errors, or the daemon does not admit us.
pub fn run(args: &PlanArgs, configured: &Path, socket: &Path) -> anyhow::Result<ExitCode> {
    let root = folder::or_configured(args.dir.as_ref(), configured);
    let after = folder::set_of(&root)?.table();
    let live: LiveTable = match client::call(socket, COMMAND) {
        Ok(live) => live,
        Err(ClientError::NotRunning { .. }) => {
            if args.json {
                writeln!(io::stdout(), "{}", json!({ "running": false }))?;
            }
            eprintln!(
                "vouchsafe is not running (nobody answers on {}), so no policy is live; `vouchsafe policy diff` compares \
                 two folders",
                socket.display()
            );
            return Ok(ExitCode::from(NOT_RUNNING));
        }
        Err(error) => return Err(error.into()),
    };
    let told = format!("live: generation {}; would be live: {}", live.generation, root.display());
    tell(&live.table, &after, args.json, Some(live.generation), &told)
}

/// Compares two folders.
///
/// # Errors
/// One of them has errors.
pub fn diff(args: &DiffArgs) -> anyhow::Result<ExitCode> {
    let (before, after) = (folder::set_of(&args.before)?.table(), folder::set_of(&args.after)?.table());
    let told = format!("before: {}; after: {}", args.before.display(), args.after.display());
    tell(&before, &after, args.json, None, &told)
}

fn tell(
    before: &Table,
    after: &Table,
    as_json: bool,
    generation: Option<u64>,
    told: &str,
) -> anyhow::Result<ExitCode> {
    let plan = Plan::between(before, after);
    let mut out = io::stdout().lock();
    if as_json {
        let plan = json!({ "changes": !plan.is_empty(), "generation": generation, "plan": plan });
        writeln!(out, "{}", serde_json::to_string_pretty(&plan)?)?;
    } else {
        write!(out, "{told}\n\n{}", plan.text())?;
    }
    Ok(if plan.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(CHANGES) })
}
