//! `audit index`: makes the indexes of closed segments.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use proxy_journal::Indexes;
use proxy_journal::archive::Kept;

use super::{open, unreadable};

/// Arguments of `audit index`.
#[derive(Debug, Args)]
pub struct IndexArgs {
    /// Make all of them anew
    #[arg(long)]
    rebuild: bool,
    /// Directory of the journal; by default the daemon's
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl IndexArgs {
    pub(super) fn dir(&self, journal: &dyn Fn() -> anyhow::Result<PathBuf>) -> anyhow::Result<PathBuf> {
        self.dir.clone().map_or_else(journal, Ok)
    }
}

pub(super) fn index(args: &IndexArgs, dir: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let mut archive = open(dir, Indexes::Keep)?;
    let shown = archive.make_indexes(args.rebuild, |number, kept, summary| {
        let what = match kept {
            Kept::There => "has its index",
            Kept::Written => "index written",
            Kept::NotWritten => "index cannot be written here",
            Kept::Open => "still grows, has no index",
        };
        let records = summary.records;
        match records {
            0 => writeln!(out, "segment {number}: {what}, no records"),
            _ => writeln!(
                out,
                "segment {number}: {what}, {records} records, {} to {}",
                summary.first_seq, summary.last_seq
            ),
        }
    });
    shown.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => error.into(),
        _ => unreadable(dir, &error),
    })
}
