//! `audit tail`: the last calls, and those that come.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, Write};
use std::path::Path;
use std::time::Duration;

use clap::Args;
use proxy_journal::archive::Call;
use proxy_journal::follow::Follower;
use proxy_journal::{Entry, Place, Source, segment, text};

use super::filter::{FilterArgs, Wanted};
use super::follow::{self, Shower};
use super::search::search;
use super::{Colour, JournalArgs, human_line, json_lines, open, unreadable};

/// How often `tail -f` looks: a person does not see the difference, and five looks in a second cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How many lines there are to begin with, when nothing else is said.
const LINES: usize = 10;

/// Arguments of `audit tail`.
#[derive(Debug, Args, Default)]
pub struct TailArgs {
    /// Go on with calls as they end
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Show the records as they stand in the journal; with options that say which, those of the calls that they say
    #[arg(long)]
    pub(super) json: bool,
    /// How many lines to begin with: 10, or all since --since
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) lines: Option<usize>,
    /// Colour
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    pub(super) color: Colour,
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    #[command(flatten)]
    pub(super) journal: JournalArgs,
}

pub(super) fn tail(args: &TailArgs, dir: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let wanted = args.filter.wanted()?;
    let colour = args.color.is_wanted();
    let lines = args.lines.unwrap_or(if args.filter.has_beginning() { usize::MAX } else { LINES });
    let raw = args.json && wanted.is_everything();
    let end = if raw {
        last_records(dir, lines, out)?
    } else {
        last_calls(args, &wanted, dir, lines, colour, out)?
    };
    out.flush()?;
    wanted.tell();
    let (true, Some(end)) = (args.follow, end) else { return Ok(()) };
    let failed = |error| unreadable(dir, &error);
    let mut follower = Follower::from_place(dir, end.segment, end.offset).map_err(failed)?;
    let mut shower = if raw {
        Shower::raw()
    } else {
        Shower::new(open(dir, args.journal.indexes())?, wanted, args.json, colour)
    };
    loop {
        follow::look(&mut follower, &mut shower, out)?;
        out.flush()?;
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What went wrong while calls were shown.
enum Failed {
    Reading(io::Error),
    Writing(io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Reading(error)
    }
}

/// Shows the last calls that are wanted; where the journal ends.
fn last_calls(
    args: &TailArgs,
    wanted: &Wanted,
    dir: &Path,
    lines: usize,
    colour: bool,
    out: &mut impl Write,
) -> anyhow::Result<Option<Place>> {
    let failed = |error| unreadable(dir, &error);
    let mut archive = open(dir, args.journal.indexes())?;
    let newest_first = lines < usize::MAX;
    let make = |call: &Call| if args.json { json_lines(call) } else { vec![human_line(call, colour)] };
    let mut last = Vec::new();
    let each = |shown: Vec<String>| {
        if newest_first {
            last.push(shown);
            return Ok(());
        }
        shown.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(Failed::Writing)
    };
    search(&archive, wanted, newest_first, lines, make, each).map_err(|error| match error {
        Failed::Reading(error) => failed(error),
        Failed::Writing(error) => error.into(),
    })?;
    last.iter().rev().flatten().try_for_each(|line| writeln!(out, "{line}"))?;
    archive.end().map_err(failed)
}

/// Shows the last records as they stand there; where the journal ends.
fn last_records(dir: &Path, lines: usize, out: &mut impl Write) -> anyhow::Result<Option<Place>> {
    open(dir, proxy_journal::Indexes::Ignore)?;
    let (mut last, mut end) = (VecDeque::<Vec<u8>>::new(), None);
    for (number, path) in segment::list(dir).map_err(|error| unreadable(dir, &error))?.into_iter().rev() {
        let (mut here, mut offset) = (VecDeque::new(), 0);
        let mut source = match Source::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            source => source.map_err(|error| unreadable(dir, &error))?,
        };
        loop {
            let mut line = Vec::new();
            let read = source.read_until(b'\n', &mut line).map_err(|error| unreadable(dir, &error))?;
            if line.pop() != Some(b'\n') {
                break;
            }
            offset += u64::try_from(read).unwrap_or(0);
            here.push_back(line);
            if here.len() + last.len() > lines {
                here.pop_front();
            }
        }
        end.get_or_insert(Place { segment: number, offset });
        here.append(&mut last);
        last = here;
        if last.len() >= lines {
            break;
        }
    }
    for entry in last.iter().filter_map(|line| Entry::parse(line).ok()) {
        writeln!(out, "{}", text::escape_json(&entry.text))?;
    }
    Ok(end)
}
