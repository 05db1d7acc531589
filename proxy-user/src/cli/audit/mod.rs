//! `vouchsafe audit`: shows and proves the journal. Works on the files alone, without the daemon.

mod condition;
mod filter;
mod follow;
mod index;
mod search;
mod show;
mod stats;
mod story;
mod tail;

use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand, ValueEnum};
use proxy_journal::archive::{Call, IdPrefix, Pieces};
use proxy_journal::{Archive, Content, Entry, Indexes, human, segment, text};
use uuid::Uuid;

use super::evidence;
use crate::config::Config;

/// Show and prove the journal of decisions and outcomes
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What to do with the journal.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show the last calls, one line for each
    Tail(tail::TailArgs),
    /// Show the whole story of one call
    Show(show::ShowArgs),
    /// Count calls, denials and errors, and how long calls took
    Stats(stats::StatsArgs),
    /// Make the indexes of closed segments that are missing
    ///
    /// Every command makes them as it needs them. They are a cache: verification does not look at them.
    Index(index::IndexArgs),
    /// Prove that no record was changed, removed, inserted or moved
    ///
    /// Exit status: 0 whole, 1 broken, 2 cannot be read.
    Verify(evidence::VerifyArgs),
    /// Write a proof that the records of one call are in the journal, which proves it without the journal
    ///
    /// `vouchsafe audit verify --proof` and `vouchsafe-verify --proof` verify it.
    Prove(evidence::ProveArgs),
    /// Print the newest signed checkpoint, for somebody who keeps it elsewhere
    Checkpoint(evidence::CheckpointArgs),
    /// Show the keys that sign the journal
    Key(evidence::KeyArgs),
    /// Decide recorded calls again, by a policy of today, and show what would be decided otherwise
    Replay(super::replay::ReplayArgs),
    /// Print the fingerprint that the journal has of a value
    Fingerprint(super::fingerprint::FingerprintArgs),
}

/// Which journal, and by which means.
#[derive(Debug, Args, Default)]
struct JournalArgs {
    /// Directory of the journal; by default the daemon's
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Read every record, and neither use nor write the indexes beside the segments
    #[arg(long)]
    no_index: bool,
}

impl JournalArgs {
    fn dir(&self, journal: &dyn Fn() -> anyhow::Result<PathBuf>) -> anyhow::Result<PathBuf> {
        self.dir.clone().map_or_else(journal, Ok)
    }

    fn indexes(&self) -> Indexes {
        if self.no_index { Indexes::Ignore } else { Indexes::Keep }
    }
}

/// Which journal.
#[derive(Debug, Args, Default)]
pub(super) struct DirArgs {
    /// Directory of the journal; by default the daemon's
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl DirArgs {
    fn dir(&self, journal: &dyn Fn() -> anyhow::Result<PathBuf>) -> anyhow::Result<PathBuf> {
        self.dir.clone().map_or_else(journal, Ok)
    }
}

/// When there is colour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Colour {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Colour {
    fn is_wanted(self) -> bool {
        match self {
            Colour::Auto => {
                let asked_not = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                io::stdout().is_terminal() && !asked_not
            }
            Colour::Always => true,
            Colour::Never => false,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The journal cannot be shown. What `verify` finds is not an error but the exit status.
pub fn run(args: &AuditArgs, load: impl Fn() -> anyhow::Result<Config>) -> anyhow::Result<ExitCode> {
    let journal = || Ok(load()?.journal_dir());
    let mut out = io::stdout().lock();
    let done = match &args.command {
        AuditCommand::Tail(args) => tail::tail(args, &args.journal.dir(&journal)?, &mut out),
        AuditCommand::Show(args) => show::show(args, &args.journal.dir(&journal)?, &mut out),
        AuditCommand::Stats(args) => stats::stats(args, &args.journal.dir(&journal)?, &mut out),
        AuditCommand::Index(args) => index::index(args, &args.dir(&journal)?, &mut out),
        AuditCommand::Prove(args) => evidence::prove(args, &args.dir.dir(&journal)?, &mut out),
        AuditCommand::Checkpoint(args) => evidence::checkpoint(args, &args.dir.dir(&journal)?, &mut out),
        AuditCommand::Key(evidence::KeyArgs { command: Some(evidence::KeyCommand::Rotate), .. }) => {
            evidence::rotate_key(&load()?.control_socket(), &mut out)
        }
        AuditCommand::Key(args) => evidence::keys(&args.dir.dir(&journal)?, &mut out),
        AuditCommand::Verify(args) => {
            let paths = match args.paths.is_empty() && args.proof.is_none() {
                true => vec![journal()?],
                false => args.paths.clone(),
            };
            match evidence::verify(args, &paths, &mut out, &mut io::stderr()) {
                Ok(status) => return Ok(ExitCode::from(status)),
                Err(error) => Err(error),
            }
        }
        AuditCommand::Replay(args) => return super::replay::run(args, &load),
        AuditCommand::Fingerprint(_) => return super::fingerprint::run(&load()?),
    };
    match done {
        // The reader, `head` say, has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        done => done.map(|()| ExitCode::SUCCESS),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The journal in this folder.
///
/// # Errors
/// There is none, or it cannot be read, and what to do.
fn open(dir: &Path, indexes: Indexes) -> anyhow::Result<Archive> {
    let archive = Archive::open(dir, indexes).map_err(|error| unreadable(dir, &error))?;
    if archive.is_empty() {
        bail!("{}: there is no journal here (no file like {})", dir.display(), segment::file_name(1));
    }
    Ok(archive)
}

/// The segments of the journal in this folder, oldest first.
///
/// # Errors
/// They cannot be listed, and what to do.
pub(super) fn journal_segments(dir: &Path) -> anyhow::Result<Vec<(u32, PathBuf)>> {
    segment::list(dir).map_err(|error| unreadable(dir, &error))
}

fn unreadable(dir: &Path, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "there is no journal in {}: the daemon has not run yet, or --config names another state directory",
            dir.display()
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!("the journal in {} is for its owner and root to read; use sudo", dir.display())
        }
        _ => anyhow!("the journal in {} cannot be read: {error}", dir.display()),
    }
}

/// A call as one line for a person.
fn human_line(call: &Call, colour: bool) -> String {
    let entry = match Entry::parse(&call.line.text) {
        Ok(entry) => entry,
        Err(fault) => {
            let place = call.line.place;
            return format!("!! segment {}, byte {}: {fault}", place.segment, place.offset);
        }
    };
    let decision = call.decision.as_ref().and_then(|line| Entry::parse(&line.text).ok());
    let decision = match decision.map(|entry| entry.content) {
        Some(Content::Known(proxy_journal::Record::Decision(decision))) => Some(decision),
        _ => None,
    };
    human::line(&entry, decision.as_deref(), colour)
}

/// The records of a call as they stand in the journal, each a line.
fn json_lines(call: &Call) -> Vec<String> {
    let lines = call.decision.iter().chain([&call.line]);
    let entries = lines.filter_map(|line| Entry::parse(&line.text).ok());
    entries.map(|entry| text::escape_json(&entry.text).into_owned()).collect()
}

/// One object for programs, which does nothing to a terminal either.
pub(super) fn write_json(value: &impl serde::Serialize, out: &mut impl Write) -> anyhow::Result<()> {
    for line in serde_json::to_string_pretty(value)?.lines() {
        writeln!(out, "{}", text::escape_json(line))?;
    }
    Ok(())
}

/// The one call whose id begins so.
///
/// # Errors
/// There is none, or there are several.
pub(super) fn find_one(dir: &Path, id: &str) -> anyhow::Result<(Archive, Uuid, Pieces)> {
    const SHOWN: usize = 10;
    let wanted = IdPrefix::parse(id).with_context(|| {
        format!("{id:?} is no id of a journal entry, as 01a210ed-2479-71f9-8e05-0f31b1b0c8cf")
    })?;
    let mut archive = open(dir, Indexes::Keep)?;
    let mut found = archive.find(&wanted, SHOWN).map_err(|error| unreadable(dir, &error))?;
    if found.len() > 1 {
        let ids: Vec<_> = found.keys().take(SHOWN).map(Uuid::to_string).collect();
        bail!("more than one id begins with {id}: {}", ids.join(", "));
    }
    let Some((id, pieces)) = found.pop_first() else {
        bail!(
            "the journal in {} has no decision {id}; segments that were moved away are read with --dir",
            dir.display()
        );
    };
    Ok((archive, id, pieces))
}

#[cfg(test)]
mod tests;
