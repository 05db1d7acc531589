//! `vouchsafe audit verify`, `prove`, `checkpoint` and `key`: the journal as evidence. Only to have another key sign is the daemon needed.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use proxy_journal::ChainHash;
use proxy_journal::check::{CheckError, Report, Witness, check};
use proxy_journal::proof::{self, Proof};
use proxy_journal::{
    Checkpoint, Content, Item, Keys, PublicKey, Reader, Record, SignedNote, Source, Timestamp, keys,
};
use uuid::Uuid;

use super::audit::{DirArgs, journal_segments};
use crate::control::client;
use crate::control::journal::{ROTATE_KEY_COMMAND, RotateKeyReport};

/// A half last line may be a write that we saw in its middle: how long until we look once more.
const SETTLE: Duration = Duration::from_millis(200);

/// Arguments of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Journals to verify: files, or directories of segments; by default the daemon's
    #[arg(value_name = "FILE|DIR")]
    pub paths: Vec<PathBuf>,
    /// Its checkpoints must be signed by this key, or by one that it handed over to
    #[arg(long, value_name = "KEY")]
    pub key: Option<PublicKey>,
    /// What the checkpoints in this file are over must be there: what a witness has kept
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Vec<PathBuf>,
    /// The record with this hash must be there: the head of an earlier verification
    #[arg(long, value_name = "HASH")]
    pub expect_head: Option<ChainHash>,
    /// At least so many records must be there
    #[arg(long, value_name = "N")]
    pub expect_seq: Option<u64>,
    /// Instead of a journal: the proof of one call, as `vouchsafe audit prove` wrote it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["paths", "checkpoint", "expect_head", "expect_seq"])]
    pub proof: Option<PathBuf>,
}

/// Arguments of `audit prove`.
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// The id of the call
    #[arg(value_name = "ID")]
    pub id: String,
    /// Which journal.
    #[command(flatten)]
    pub(super) dir: DirArgs,
}

/// Arguments of `audit checkpoint`.
#[derive(Debug, Args)]
pub struct CheckpointArgs {
    /// All that are in the journal, and not only the newest
    #[arg(long)]
    pub all: bool,
    /// Which journal.
    #[command(flatten)]
    pub(super) dir: DirArgs,
}

/// Arguments of `audit key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// What to do; without it the keys are shown.
    #[command(subcommand)]
    pub command: Option<KeyCommand>,
    /// Which journal.
    #[command(flatten)]
    pub(super) dir: DirArgs,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Have another key sign from now on, and destroy the one that did
    Rotate,
}

/// Verifies all paths and returns the worst status.
///
/// # Errors
/// The arguments do not fit together, or what was found cannot be written.
pub fn verify(
    args: &VerifyArgs,
    paths: &[PathBuf],
    out: &mut impl Write,
    err: &mut impl Write,
) -> anyhow::Result<u8> {
    if let Some(path) = &args.proof {
        return verify_proof(path, args.key, out);
    }
    let mut notes = Vec::new();
    for path in &args.checkpoint {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        notes.extend(SignedNote::parse_all(&text).with_context(|| path.display().to_string())?);
    }
    let expected = Witness { head: args.expect_head, seq: args.expect_seq, notes, key: args.key };
    if paths.len() > 1 && expected != Witness::default() {
        bail!("--key, --checkpoint, --expect-head and --expect-seq belong to one journal: give one path");
    }
    let mut worst = 0;
    for path in paths {
        match check_settled(path, &expected) {
            Ok(report) => {
                writeln!(out, "{report}")?;
                worst = worst.max(u8::from(!report.is_whole()));
            }
            Err(error) => {
                let denied = matches!(&error, CheckError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied);
                let help = if denied {
                    "; a journal is for its owner and root to read: use sudo, or verify a copy"
                } else {
                    ""
                };
                writeln!(err, "{:#}{help}", anyhow::Error::from(error))?;
                worst = 2;
            }
        }
    }
    Ok(worst)
}

/// What is broken may be a write that we saw in its middle, or a segment that was closed meanwhile: looks once more before saying so.
fn check_settled(path: &Path, expected: &Witness) -> Result<Report, CheckError> {
    match check(path, expected) {
        Ok(report) if report.is_whole() => Ok(report),
        Err(CheckError::Empty(path)) => Err(CheckError::Empty(path)),
        _ => {
            std::thread::sleep(SETTLE);
            check(path, expected)
        }
    }
}

fn verify_proof(path: &Path, key: Option<PublicKey>, out: &mut impl Write) -> anyhow::Result<u8> {
    let text = proof::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    match Proof::parse(&text).and_then(|proof| proof.verify(key)) {
        Ok(shown) => {
            write!(out, "{shown}")?;
            Ok(0)
        }
        Err(error) => {
            writeln!(out, "{}: PROVES NOTHING: {error}", path.display())?;
            Ok(1)
        }
    }
}

/// Writes the proof of a call.
///
/// # Errors
/// There is no such call, or it is not signed yet.
pub fn prove(args: &ProveArgs, dir: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let text = args.id.trim().trim_start_matches("urn:uuid:");
    let id = Uuid::try_parse(text).with_context(|| {
        format!("{text:?} is no id of a journal entry, as 01a210ed-2479-71f9-8e05-0f31b1b0c8cf")
    })?;
    journal_segments(dir)?;
    let proof = proof::prove(dir, id)?;
    writeln!(out, "{}", proof.to_text())?;
    Ok(())
}

/// Prints checkpoints as signed notes, oldest first: for somebody who keeps them elsewhere.
///
/// # Errors
/// There is none.
pub fn checkpoint(args: &CheckpointArgs, dir: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let mut newest: Option<(Checkpoint, Timestamp)> = None;
    for (_, path) in journal_segments(dir)?.into_iter().rev() {
        for item in
            Reader::new(Source::open(&path).with_context(|| format!("{} cannot be read", path.display()))?)
        {
            if let Item::Entry(entry) = item?
                && let Content::Known(Record::Checkpoint(checkpoint)) = entry.content
            {
                if args.all {
                    writeln!(out, "{}", checkpoint.signed_note(entry.time))?;
                }
                newest = Some((*checkpoint, entry.time));
            }
        }
        if newest.is_some() && !args.all {
            break;
        }
    }
    let (checkpoint, time) = newest.ok_or_else(|| {
        anyhow!(
            "the journal in {} has no checkpoint; the daemon makes one within some seconds",
            dir.display()
        )
    })?;
    if !args.all {
        write!(out, "{}", checkpoint.signed_note(time))?;
    }
    Ok(())
}

/// Has the next key sign.
///
/// # Errors
/// The daemon does not run, or refuses.
pub fn rotate_key(socket: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let RotateKeyReport { key } = client::call(socket, ROTATE_KEY_COMMAND)?;
    writeln!(out, "{key} signs from now on; the one before is destroyed, and what it signed stays valid")?;
    Ok(())
}

/// Shows the keys of the journal.
///
/// # Errors
/// They cannot be read.
pub fn keys(dir: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    journal_segments(dir)?;
    let path = dir.join(keys::FILE);
    let keys = Keys::read(dir).with_context(|| path.display().to_string())?;
    let all: Vec<PublicKey> = keys.all().collect();
    let Some((live, former)) = all.split_last() else {
        bail!("{}: nothing signs this journal yet; start the daemon", dir.display());
    };
    for key in former {
        writeln!(out, "{key}  handed over")?;
    }
    writeln!(out, "{live}  signs")?;
    if let Some(first) = all.first() {
        writeln!(
            out,
            "\nKeep the first one where this host cannot change it: vouchsafe audit verify --key {first}"
        )?;
    }
    Ok(())
}
