//! `vouchsafe audit`: shows and proves the journal. Works on the files alone, without the daemon.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, Subcommand};
use proxy_journal::human::Tail;
use proxy_journal::{Item, Reader, segment, text};

use super::evidence;

/// Where the daemon keeps its journal.
pub const DEFAULT_DIR: &str = "/var/lib/vouchsafe/journal";

/// How often `tail -f` looks: a person does not see the difference, and five looks in a second cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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
    Tail(TailArgs),
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

/// Arguments of `audit tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// Go on with calls as they end
    #[arg(short, long)]
    pub follow: bool,
    /// Show the records as they stand in the journal
    #[arg(long)]
    pub json: bool,
    /// How many lines to begin with
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    pub lines: usize,
    /// Directory of the journal
    #[arg(long, default_value = DEFAULT_DIR)]
    pub dir: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// The journal cannot be shown. What `verify` finds is not an error but the exit status.
pub fn run(args: &AuditArgs, socket: impl FnOnce() -> anyhow::Result<PathBuf>) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match &args.command {
        AuditCommand::Prove(args) => evidence::prove(args, &mut out).map(|()| ExitCode::SUCCESS),
        AuditCommand::Checkpoint(args) => evidence::checkpoint(args, &mut out).map(|()| ExitCode::SUCCESS),
        AuditCommand::Key(args) => evidence::key(args, &socket()?, &mut out).map(|()| ExitCode::SUCCESS),
        AuditCommand::Tail(args) => match tail(args, &mut out) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            // The reader, `head` say, has seen enough.
            Err(error) if is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(error),
        },
        AuditCommand::Verify(args) => {
            Ok(ExitCode::from(evidence::verify(args, &mut out, &mut io::stderr())?))
        }
        AuditCommand::Fingerprint(args) => super::fingerprint::run(args),
        AuditCommand::Replay(args) => super::replay::run(args),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn tail(args: &TailArgs, out: &mut impl Write) -> anyhow::Result<()> {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut shower = Shower { tail: Tail::new(colour), json: args.json };
    let mut follower = Follower::open(&args.dir)?;
    for line in follower.last(args.lines, &mut shower)? {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    if !args.follow {
        return Ok(());
    }
    loop {
        std::thread::sleep(LOOK_EVERY);
        follower.look(&mut shower, out)?;
        out.flush()?;
    }
}

/// Turns what stands in the journal into lines for the screen.
struct Shower {
    tail: Tail,
    json: bool,
}

impl Shower {
    fn show(&mut self, item: &Item) -> Option<String> {
        match item {
            Item::Entry(entry) if self.json => Some(text::escape_json(&entry.text).into_owned()),
            Item::Entry(entry) => self.tail.show(entry),
            Item::Unreadable { line, fault } if !self.json => {
                Some(format!("!! line {line} from here: {fault}"))
            }
            Item::Unreadable { .. } | Item::Torn { .. } => None,
        }
    }
}

/// The segments of the journal in this folder, oldest first.
///
/// # Errors
/// They cannot be listed, and what to do.
pub(super) fn journal_segments(dir: &Path) -> anyhow::Result<Vec<(u32, PathBuf)>> {
    segment::list(dir).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => anyhow!(
            "there is no journal in {}: the daemon has not run yet, or --config names another state directory",
            dir.display()
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!("the journal in {} is for its owner and root to read; use sudo", dir.display())
        }
        _ => anyhow!("the journal in {} cannot be read: {error}", dir.display()),
    })
}

/// Reads a journal on as it grows: over restarts of the daemon, a repair of its end, and into the next segment.
struct Follower {
    dir: PathBuf,
    number: u32,
    file: File,
    /// End of the last whole line that was read: a half line is read again when it is whole, or was replaced.
    offset: u64,
}

impl Follower {
    /// Begins with the last segment.
    fn open(dir: &Path) -> anyhow::Result<Follower> {
        let segments = journal_segments(dir)?;
        let Some((number, path)) = segments.into_iter().next_back() else {
            bail!("{}: there is no journal here (no file like {})", dir.display(), segment::file_name(1));
        };
        let file = File::open(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(Follower { dir: dir.to_owned(), number, file, offset: 0 })
    }

    /// The last `count` lines for the screen; reads no more of the file than it needs.
    fn last(&mut self, count: usize, shower: &mut Shower) -> anyhow::Result<VecDeque<String>> {
        let length = self.file.metadata()?.len();
        let fresh = Shower { tail: std::mem::take(&mut shower.tail), json: shower.json };
        let mut window: u64 = 256 << 10;
        loop {
            let from = self.line_after(length.saturating_sub(window))?;
            self.offset = from;
            shower.tail = fresh.tail.clone();
            let (mut shown, mut all) = (VecDeque::new(), 0);
            self.read(|item| {
                if let Some(line) = shower.show(item) {
                    all += 1;
                    shown.push_back(line);
                    if shown.len() > count {
                        shown.pop_front();
                    }
                }
                Ok(())
            })?;
            if all >= count || from == 0 {
                return Ok(shown);
            }
            window = window.saturating_mul(4);
        }
    }

    /// The first beginning of a line at or after this offset.
    fn line_after(&mut self, offset: u64) -> io::Result<u64> {
        let Some(before) = offset.checked_sub(1) else { return Ok(0) };
        self.file.seek(SeekFrom::Start(before))?;
        let skipped = BufReader::new(&self.file).skip_until(b'\n')?;
        Ok(before + u64::try_from(skipped).unwrap_or(0))
    }

    /// Shows what was written since the last look.
    fn look(&mut self, shower: &mut Shower, out: &mut impl Write) -> anyhow::Result<()> {
        loop {
            // What follows is looked for first: when it is there, nothing more is written to this segment.
            let next = segment::list(&self.dir).unwrap_or_default();
            let mut emit = |item: &Item| match shower.show(item) {
                Some(line) => writeln!(out, "{line}"),
                None => Ok(()),
            };
            self.read(&mut emit)?;
            let path = self.dir.join(segment::file_name(self.number));
            if let Some((number, path)) = next.into_iter().find(|(number, _)| *number > self.number) {
                (self.number, self.file, self.offset) = (number, File::open(path)?, 0);
            } else if self.was_replaced(&path)? {
                let Ok(file) = File::open(&path) else { return Ok(()) };
                (self.file, self.offset) = (file, 0);
                if !shower.json {
                    writeln!(out, "!! {} was replaced; it is shown from its beginning", path.display())?;
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Whether another file has this name now, or this one lost lines that were read. A file that was moved away for good
    /// is not replaced (yet).
    fn was_replaced(&self, path: &Path) -> io::Result<bool> {
        let mine = self.file.metadata()?;
        let Ok(named) = path.metadata() else { return Ok(false) };
        Ok((named.dev(), named.ino()) != (mine.dev(), mine.ino()) || mine.len() < self.offset)
    }

    /// Reads whole lines from the offset on.
    fn read(&mut self, mut each: impl FnMut(&Item) -> io::Result<()>) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = Reader::new(BufReader::new(&self.file));
        for item in reader.by_ref() {
            each(&item?)?;
        }
        self.offset += reader.offset();
        Ok(())
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
