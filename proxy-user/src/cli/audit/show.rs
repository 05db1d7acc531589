//! `audit show ID`: the whole story of one call.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::bail;
use clap::Args;
use proxy_journal::archive::{Line, Walk};
use proxy_journal::text::{escape, escape_word};
use proxy_journal::{Archive, Content, Entry, Filter, Place, PolicyResult, Record, Verdict, human};
use serde_json::{Value, json};

use super::{JournalArgs, find_one, story, unreadable, write_json};

/// Arguments of `audit show`.
#[derive(Debug, Args)]
#[command(after_help = "\
The ID is in the header vouchsafe-journal-id of a refusal, in its body (instance), and in `vouchsafe audit tail --json`.
`vouchsafe why ID` says how the same call would be decided today.")]
pub struct ShowArgs {
    /// The id of the call, or its beginning
    #[arg(value_name = "ID")]
    id: String,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) journal: JournalArgs,
}

/// A record, and where it stands.
struct Standing {
    place: Place,
    entry: Entry,
    hash: String,
}

impl Standing {
    fn new(line: &Line) -> Option<Standing> {
        let entry = Entry::parse(&line.text).ok()?;
        // The line ends with it: `"hash":"…"}`.
        let hash = entry.text.get(entry.text.len().checked_sub(66)?..)?.strip_suffix("\"}")?.to_owned();
        Some(Standing { place: line.place, entry, hash })
    }

    fn value(&self) -> Value {
        serde_json::from_str(&self.entry.text).unwrap_or(Value::Null)
    }

    fn json(&self) -> Value {
        json!({
            "segment": self.place.segment,
            "offset": self.place.offset,
            "seq": self.entry.seq,
            "hash": self.hash,
            "record": self.value(),
        })
    }

    fn told(&self) -> String {
        let Place { segment, offset } = self.place;
        format!("segment {segment}, byte {offset}, record {}, {}", self.entry.seq, self.hash)
    }
}

/// What happened around a call.
#[derive(Default)]
struct Around {
    /// The start of the daemon that decided.
    start: Option<Standing>,
    /// When the policy that decided was loaded.
    policy: Option<Standing>,
    /// The first end or start of a daemon after it.
    after: Option<Standing>,
    /// The first checkpoint over the last of its records.
    checkpoint: Option<Standing>,
}

pub(super) fn show(args: &ShowArgs, dir: &Path, out: &mut impl Write) -> anyhow::Result<()> {
    let (mut archive, id, pieces) = find_one(dir, &args.id)?;
    let failed = |error| unreadable(dir, &error);
    let mut standing = |place: Option<Place>| -> anyhow::Result<Option<Standing>> {
        let line = place.map(|place| archive.line(place)).transpose().map_err(failed)?.flatten();
        Ok(line.as_ref().and_then(Standing::new))
    };
    let (decision, outcome) = (standing(pieces.decision)?, standing(pieces.outcome)?);
    let Some(first) = decision.as_ref().or(outcome.as_ref()) else {
        bail!("the records of {id} are not there any more");
    };
    let generation = match &first.entry.content {
        Content::Known(Record::Decision(decision) | Record::Connection(decision)) => {
            Some(decision.generation)
        }
        _ => None,
    };
    let mut around = around(&mut archive, first.place, generation).map_err(failed)?;
    let last = outcome.as_ref().unwrap_or(first);
    around.checkpoint = checkpoint(&mut archive, last).map_err(failed)?;
    if args.json {
        let json = |standing: &Option<Standing>| standing.as_ref().map(Standing::json);
        let told = json!({
            "id": id,
            "decision": json(&decision),
            "outcome": json(&outcome),
            "policy": json(&around.policy),
            "start": json(&around.start),
            "after": json(&around.after),
            "checkpoint": json(&around.checkpoint),
        });
        return write_json(&told, out);
    }
    let mut page = format!("{}  {id}\n", first.entry.time);
    // Writing to a string does not fail.
    let _ = write(&mut page, decision.as_ref(), outcome.as_ref(), &around);
    out.write_all(page.as_bytes())?;
    Ok(())
}

/// The policy that decided.
fn generation(decision: Option<&Standing>) -> Option<u64> {
    match decision.map(|standing| &standing.entry.content) {
        Some(Content::Known(Record::Decision(decision) | Record::Connection(decision))) => {
            Some(decision.generation)
        }
        _ => None,
    }
}

/// The policy that was live already when a daemon began to write.
fn live_at(start: &Standing) -> Option<u64> {
    match &start.entry.content {
        Content::Known(Record::Start(start)) => start.policy_generation,
        _ => None,
    }
}

/// Looks from the newest to the oldest for what happened around a place, no further than the start before it.
fn around(archive: &mut Archive, place: Place, generation: Option<u64>) -> std::io::Result<Around> {
    let kinds = ["start", "stop", "policy"].map(Into::into).to_vec();
    let filter = Filter { kinds, ..Filter::default() };
    let mut walk = Walk::new(archive, filter, true);
    let mut around = Around::default();
    while let Some(batch) = archive.next(&mut walk)? {
        for hit in &batch.hits {
            let Some(line) = archive.line(hit.place)? else { continue };
            let Some(standing) = Standing::new(&line) else { continue };
            let is_later = standing.place > place;
            match &standing.entry.content {
                Content::Known(Record::Start(_) | Record::Stop(_)) if is_later => {
                    around.after = Some(standing)
                }
                Content::Known(Record::Start(_)) => {
                    around.start = Some(standing);
                    return Ok(around);
                }
                Content::Known(Record::Policy(load))
                    if !is_later
                        && around.policy.is_none()
                        && load.result == PolicyResult::Loaded
                        && Some(load.generation) == generation =>
                {
                    around.policy = Some(standing);
                }
                _ => {}
            }
        }
    }
    Ok(around)
}

/// The first checkpoint behind a record, in its segment.
fn checkpoint(archive: &mut Archive, of: &Standing) -> std::io::Result<Option<Standing>> {
    let filter = Filter { kinds: vec!["checkpoint".into()], since: Some(of.entry.time), ..Filter::default() };
    let mut walk = Walk::new(archive, filter, false);
    while let Some(batch) = archive.next(&mut walk)? {
        for hit in &batch.hits {
            if hit.place.segment > of.place.segment {
                return Ok(None);
            }
            if hit.place > of.place {
                return Ok(archive.line(hit.place)?.as_ref().and_then(Standing::new));
            }
        }
    }
    Ok(None)
}

fn write(
    page: &mut String,
    decision: Option<&Standing>,
    outcome: Option<&Standing>,
    around: &Around,
) -> std::fmt::Result {
    let record = decision.map(|standing| &standing.entry.content);
    let ended = match outcome.map(|standing| &standing.entry.content) {
        Some(Content::Known(Record::Outcome(outcome))) => Some(outcome),
        _ => None,
    };
    match record {
        Some(Content::Known(Record::Decision(told) | Record::Connection(told))) => {
            story::write_who(page, told)?;
            story::write_decision(page, told)?;
            if ended.is_none()
                && told.verdict == Verdict::Allow
                && matches!(record, Some(Content::Known(Record::Decision(_))))
            {
                writeln!(page, "outcome     none yet: it is under way, or its end is in no segment here")?;
            }
        }
        Some(_) => {
            if let Some(standing) = decision {
                writeln!(page, "record      {}", human::line(&standing.entry, None, false))?;
            }
        }
        None => writeln!(page, "decision    in no segment here")?,
    }
    if let (Some(outcome), Some(standing)) = (ended, outcome) {
        story::write_outcome(page, outcome, standing.entry.time)?;
    }
    match (&around.policy, &around.start) {
        (Some(policy), _) => {
            if let Content::Known(Record::Policy(load)) = &policy.entry.content {
                let (generation, digest) = (load.generation, escape_word(&load.digest));
                writeln!(
                    page,
                    "policy      generation {generation}, loaded {}, digest {digest}",
                    policy.entry.time
                )?;
            }
        }
        (None, Some(start)) if live_at(start).is_some() && live_at(start) == generation(decision) => {
            let generation = live_at(start).unwrap_or(0);
            writeln!(page, "policy      generation {generation}, live since the daemon started")?;
        }
        (None, _) => {
            let generation = generation(decision).map(|it| format!("generation {it}, "));
            writeln!(page, "policy      {}its load is in no segment here", generation.unwrap_or_default())?;
        }
    }
    if let Some(start) = &around.start
        && let Content::Known(Record::Start(told)) = &start.entry.content
    {
        let (version, pid, boot) = (escape_word(&told.version), told.pid, escape_word(&told.boot_id));
        write!(page, "daemon      {version} (pid {pid}), started {}, boot {boot}", start.entry.time)?;
        if let Some(after) = &around.after {
            let what = match &after.entry.content {
                Content::Known(Record::Stop(stop)) => format!("stopped ({})", escape(&stop.reason)),
                _ => "killed before the next start,".to_owned(),
            };
            write!(page, "; {what} {}", after.entry.time)?;
        }
        writeln!(page)?;
    }
    for (what, standing) in [("decision", decision), ("outcome", outcome)] {
        if let Some(standing) = standing {
            writeln!(page, "{what:<11} stands in {}", standing.told())?;
        }
    }
    match around.checkpoint.as_ref().map(|standing| (standing, &standing.entry.content)) {
        Some((standing, Content::Known(Record::Checkpoint(checkpoint)))) => {
            let signed = if checkpoint.is_signed(standing.entry.time) { "signed" } else { "NOT signed" };
            writeln!(
                page,
                "checkpoint  {signed} by {}, {}, over {} records of segment {}; `vouchsafe audit verify` holds them against it",
                checkpoint.key, standing.entry.time, checkpoint.size, checkpoint.segment
            )?;
        }
        _ => writeln!(page, "checkpoint  none is over it yet, or none is in a segment here")?,
    }
    Ok(())
}
