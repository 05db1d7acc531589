//! `audit stats`: who calls what, how often, how long it takes, and what goes wrong.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;

use clap::{Args, ValueEnum};
use proxy_journal::archive::{Batch, Counted, Group, Hit, Key, Walk};
use proxy_journal::index;
use proxy_journal::text::escape_word;
use proxy_journal::{Archive, Facts, facts, human};
use serde_json::{Value, json};

use super::filter::{FilterArgs, Wanted};
use super::search::threads;
use super::{Colour, JournalArgs, open, unreadable};

/// How many characters of a name are shown; `--json` has all of it.
const CELL: usize = 80;

/// Cells of a bar.
const BAR: u64 = 16;

/// Arguments of `audit stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// What is counted by; several, with commas, give a row for each combination
    #[arg(long, value_name = "WHAT", value_enum, value_delimiter = ',', default_values = ["identity", "api"])]
    by: Vec<By>,
    /// How many rows, the most calls first; 0 for all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 30)]
    lines: usize,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
    /// Bars and colour
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    color: Colour,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    pub(super) journal: JournalArgs,
}

/// What calls are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Identity,
    Api,
    Host,
    Unit,
    Path,
    Rule,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Identity => "identity",
            By::Api => "api",
            By::Host => "host",
            By::Unit => "unit",
            By::Path => "path",
            By::Rule => "rule",
        }
    }

    /// Its column in the index.
    fn column(self) -> Option<usize> {
        match self {
            By::Identity => Some(index::IDENTITY),
            By::Api => Some(index::API),
            By::Host => Some(index::HOST),
            By::Unit => Some(index::UNIT),
            By::Path => None,
            By::Rule => Some(index::RULE),
        }
    }

    /// What a row has of it, if its index knows.
    fn of_row(self, batch: &Batch, hit: &Hit) -> Option<Option<String>> {
        match self.column() {
            Some(column) => Batch::word(&batch.words, &hit.row, column),
            None => batch.path(hit).map(|path| path.map(str::to_owned)),
        }
    }

    fn of(self, facts: &Facts) -> Option<String> {
        match self {
            By::Identity => facts.identity.clone(),
            By::Api => facts.api.clone(),
            By::Host => facts.host.clone(),
            By::Unit => facts.unit.clone(),
            By::Path => facts.path.clone(),
            By::Rule => facts.rule.clone(),
        }
    }
}

fn json_of(group: &Group) -> Value {
    json!({
            "calls": group.calls,
            "denied": group.denied,
            "observed": group.observed,
            "errors": group.errors,
            "p50_us": group.percentile(50),
            "p99_us": group.percentile(99),
            "bytes_sent": group.sent,
            "bytes_received": group.received,
    })
}

/// Counts what is wanted of some segments.
fn count(args: &StatsArgs, wanted: &Wanted, mut archive: Archive, mut walk: Walk) -> io::Result<Counted> {
    let columns = args.by.iter().map(|by| by.column()).collect::<Option<Vec<_>>>();
    let mut counted = Counted::default();
    while let Some(batch) = archive.next(&mut walk)? {
        for hit in &batch.hits {
            if hit.certain
                && columns.is_none()
                && let Some(key) = args.by.iter().map(|by| by.of_row(&batch, hit)).collect()
            {
                let at = counted.group(key);
                counted.add(at, hit, hit.row.ruling);
                continue;
            }
            if hit.certain
                && let Some(columns) = &columns
                && let Some(at) = counted.of_row(&batch.words, hit, columns)
            {
                counted.add(at, hit, hit.row.ruling);
                continue;
            }
            let Some(call) = archive.read(hit, &wanted.filter)? else { continue };
            if hit.certain || wanted.holds(&call) {
                let at = counted.group(args.by.iter().map(|by| by.of(&call.facts)).collect());
                counted.add(at, hit, call.facts.ruling);
            }
        }
    }
    Ok(counted)
}

pub(super) fn stats(args: &StatsArgs, dir: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let mut wanted = args.filter.wanted()?;
    if wanted.filter.kinds.is_empty() {
        wanted.filter.kinds = vec![facts::CALL.into()];
    }
    let archive = open(dir, args.journal.indexes())?;
    let mut counted = Counted::default();
    std::thread::scope(|scope| {
        let shares: Vec<_> = Walk::shares(&archive, &wanted.filter, threads())
            .into_iter()
            .map(|walk| {
                let (archive, wanted) = (archive.again(), &wanted);
                let walk = walk.sifted(wanted.sieve());
                let walk = if args.by.contains(&By::Path) { walk.with_paths() } else { walk };
                scope.spawn(move || count(args, wanted, archive, walk))
            })
            .collect();
        for share in shares {
            match share.join() {
                Ok(share) => counted.merge(share.map_err(|error| unreadable(dir, &error))?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        anyhow::Ok(())
    })?;
    wanted.tell();
    let (groups, total) = counted.sorted();
    if args.json {
        return write_groups(args, &groups, &total, out);
    }
    let bars = match args.color {
        Colour::Auto => io::stdout().is_terminal(),
        Colour::Always => true,
        Colour::Never => false,
    };
    Ok(write_table(args, &groups, &total, bars, args.color.is_wanted(), out)?)
}

fn write_groups(
    args: &StatsArgs,
    groups: &[(Option<Key>, Group)],
    total: &Group,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let groups: Vec<_> = groups
        .iter()
        .map(|(key, group)| {
            let names = args.by.iter().map(|by| by.name().to_owned());
            let names = names.zip(key.iter().flatten().map(|text| json!(text)));
            // Calls of groups that are too many have none.
            let names = names.chain(key.is_none().then(|| ("others".to_owned(), json!(true))));
            let counts = json_of(group).as_object().cloned().unwrap_or_default();
            Value::Object(names.chain(counts).collect())
        })
        .collect();
    let by: Vec<_> = args.by.iter().map(|by| by.name()).collect();
    super::write_json(&json!({ "by": by, "total": json_of(total), "groups": groups }), out)
}

fn write_table(
    args: &StatsArgs,
    groups: &[(Option<Key>, Group)],
    total: &Group,
    bars: bool,
    colour: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    let shown = if args.lines == 0 { groups.len() } else { args.lines.min(groups.len()) };
    let (first, rest) = groups.split_at_checked(shown).unwrap_or((groups, &[]));
    let mut rows = vec![args.by.iter().map(|by| by.name().to_uppercase()).collect::<Vec<_>>()];
    let names = |key: &Option<Key>| match key {
        Some(key) => {
            let cell = |text: &str| human::elide(&escape_word(text), CELL);
            key.iter().map(|text| text.as_deref().map_or_else(|| "-".to_owned(), cell)).collect()
        }
        None => vec!["(others)".to_owned(); args.by.len()],
    };
    rows.extend(first.iter().map(|(key, _)| names(key)));
    rows.push((0..args.by.len()).map(|at| if at == 0 { "all".to_owned() } else { String::new() }).collect());
    for column in 0..args.by.len() {
        let cells = || rows.iter().filter_map(|row| row.get(column));
        let width = cells().map(|cell| cell.chars().count()).max().unwrap_or(0);
        for row in &mut rows {
            if let Some(cell) = row.get_mut(column) {
                *cell = format!("{cell:<width$}");
            }
        }
    }
    let most = first.iter().map(|(_, group)| group.calls).max().unwrap_or(0);
    let head = "     CALLS    DENIED    ERRORS      P50      P99      SENT  RECEIVED  SHARE";
    let mut rows = rows.into_iter().map(|row| row.join("  "));
    writeln!(out, "{}{head}", rows.next().unwrap_or_default())?;
    let groups = first.iter().map(|(_, group)| (group, most)).chain([(total, 0)]);
    for (name, (group, most)) in rows.zip(groups) {
        let time = |percent| group.percentile(percent).map_or_else(|| "-".to_owned(), human::duration);
        let red = |count: u64| match (colour && count > 0, format!("{count:>10}")) {
            (true, text) => format!("\u{1b}[31m{text}\u{1b}[0m"),
            (false, text) => text,
        };
        let share = group.calls.saturating_mul(1000).checked_div(total.calls).unwrap_or(0);
        let bar = if bars && most > 0 { format!(" {}", bar(group.calls, most)) } else { String::new() };
        writeln!(
            out,
            "{name}{:>10}{}{} {:>8} {:>8}{:>10}{:>10} {:>3}.{}%{bar}",
            group.calls,
            red(group.denied),
            red(group.errors),
            time(50),
            time(99),
            bytes(group.sent),
            bytes(group.received),
            share / 10,
            share % 10,
        )?;
    }
    if !rest.is_empty() {
        writeln!(out, "{} more rows: -n 0 shows all", rest.len())?;
    }
    Ok(())
}

/// A bar of at most [`BAR`] cells, by eighths of a cell.
fn bar(count: u64, most: u64) -> String {
    let eighths = (u128::from(count) * u128::from(BAR * 8)).div_ceil(u128::from(most.max(1)));
    let eighths = usize::try_from(eighths).unwrap_or(0);
    let part = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied().unwrap_or_default();
    format!("{}{part}", "█".repeat(eighths / 8))
}

/// Bytes with three digits or so: `812 B`, `1.4 MB`.
fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let mut tenths = u128::from(count) * 10;
    if count < 1000 {
        return format!("{count} B");
    }
    for unit in units {
        tenths /= 1000;
        if tenths < 10_000 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{} EB", tenths / 10)
}
