//! `vouchsafe policy table`: what a policy means, in a form that can be reviewed and committed.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::folder;

/// Arguments of `vouchsafe policy table`.
#[derive(Debug, Args)]
#[command(after_help = "\
The same policy always gives the same table; where things stand in the files, comments and descriptions are not in it. \
A table that is committed makes every change of meaning a visible diff.")]
pub struct TableArgs {
    /// The folder that holds policies/, roles/, apis/ and credentials/; by default the one that the daemon reads
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print one JSON object, for programs
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print tables of Markdown: a row for each identity, API and role
    #[arg(long)]
    markdown: bool,
}

/// Prints the table.
///
/// # Errors
/// The policy has errors, or standard output cannot be written.
pub fn run(args: &TableArgs, configured: &Path) -> anyhow::Result<ExitCode> {
    let table = folder::set_of(&folder::or_configured(args.dir.as_ref(), configured))?.table();
    let text = match (args.json, args.markdown) {
        (true, _) => serde_json::to_string_pretty(&table)? + "\n",
        (false, true) => table.markdown(),
        (false, false) => table.text(),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
