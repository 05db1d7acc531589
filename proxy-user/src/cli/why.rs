//! `vouchsafe why ID`: a call of the journal, and how it would be decided today.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use proxy_journal::{Content, Decision, Entry, Outcome, Place, Record, Timestamp, Verdict};
use serde_json::{Value, json};

use super::audit::{find_one, write_json};
use super::policy::{explain, folder};
use super::status::safe;
use crate::app::recall::{Judgement, Recalled, Settings, When, Who, recall, weigh};
use crate::app::rehearse::{Decided, Weighed};
use crate::authorize::{LivePolicy, Unidentified};
use crate::base::clock;
use crate::config::{self, Config};

/// Arguments of `vouchsafe why`.
#[derive(Debug, Args)]
#[command(after_help = "\
The ID is in the header vouchsafe-journal-id of a refusal, in its body (instance), and in `vouchsafe audit tail --json`.
Exit code: 0 it is told, 1 it cannot be: there is no such entry, or the policy has errors.")]
pub struct WhyArgs {
    /// The id of the journal entry, or its beginning
    #[arg(value_name = "ID")]
    id: String,
    /// Directory of the journal; by default the daemon's
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The folder of the policy of today; by default the one that the daemon reads
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// What the journal has of a call.
struct Found {
    at: Timestamp,
    decision: Arc<Decision>,
    /// As they stand in the journal.
    texts: Vec<Value>,
    outcome: Option<Outcome>,
}

/// What today's policy says.
struct Today {
    judged: Recalled,
    /// For each judgement the rule that decides, and all that were asked.
    weighed: Vec<(Option<Decided>, Vec<Weighed>)>,
}

/// Prints the entry and what today's policy says.
///
/// # Errors
/// The journal cannot be read or has no such entry, or the policy has errors.
pub fn run(args: &WhyArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let dir = args.dir.clone().unwrap_or_else(|| config.journal_dir());
    let found = find(&dir, &args.id)?;
    let root = folder::or_configured(args.policies.as_ref(), &config.policies);
    let live = Arc::new(LivePolicy::new(folder::set_of(&root)?, 0));
    let unidentified = match config.unidentified {
        config::Unidentified::Deny => Unidentified::Deny,
        config::Unidentified::Pass => Unidentified::Pass,
    };
    let settings = Settings { unidentified, ports: &config.ports() };
    let status = found.outcome.as_ref().and_then(|outcome| outcome.status);
    let when = When::At(clock::now());
    let judged = recall(&live, &found.decision, status, settings, when, Who::AsThen);
    let weighed = match &judged {
        Recalled::Decided(all) => {
            all.iter().map(|it| weigh(&live, &found.decision, settings, when, it.kind)).collect()
        }
        Recalled::Not(_) => Vec::new(),
    };
    let today = Today { judged, weighed };
    let mut out = io::stdout().lock();
    match args.json {
        true => write_json(&as_json(&found, &today), &mut out)?,
        false => out.write_all(page(&found, &today, &root).as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The decision with this id, and its outcome.
fn find(dir: &Path, id: &str) -> anyhow::Result<Found> {
    let (mut archive, id, pieces) = find_one(dir, id)?;
    let mut texts = Vec::new();
    let mut entry = |place: Option<Place>| -> anyhow::Result<Option<Entry>> {
        let Some(line) = place.map(|place| archive.line(place)).transpose()?.flatten() else {
            return Ok(None);
        };
        let entry = Entry::parse(&line.text)?;
        texts.push(serde_json::from_str(&entry.text).unwrap_or(Value::Null));
        Ok(Some(entry))
    };
    let (decision, outcome) = (entry(pieces.decision)?, entry(pieces.outcome)?);
    let outcome = match outcome.map(|entry| entry.content) {
        Some(Content::Known(Record::Outcome(outcome))) => Some(outcome),
        _ => None,
    };
    match decision.map(|entry| (entry.time, entry.content)) {
        Some((at, Content::Known(Record::Decision(decision) | Record::Connection(decision)))) => {
            Ok(Found { at, decision, texts, outcome })
        }
        _ => bail!(
            "the journal in {} has the decision {id} no more, or not in a form that is known here",
            dir.display()
        ),
    }
}

/// What the journal does not have, so that today's answer does not know it.
const NOT_RECORDED: &str = "headers, query and body are not recorded, and who the process would be today is not asked: the \
                            identity is the one that it had";

fn word(judgement: &Judgement) -> &'static str {
    match (judgement.allowed, judgement.observed) {
        (Some(true), true) => "observe",
        (Some(true), false) => "allow",
        (Some(false), _) => "deny",
        (None, _) => "cannot be said",
    }
}

/// Whether today's answer is another one than then; nothing, if it is not certain.
fn differs(then: &Decision, today: &Recalled) -> Option<bool> {
    let Recalled::Decided(judged) = today else { return None };
    let was = match (then.verdict, then.observed) {
        (Verdict::Allow, true) => "observe",
        (Verdict::Allow, false) => "allow",
        (Verdict::Deny, _) => "deny",
    };
    let mut all = judged.iter().map(|it| it.allowed.map(|_| word(it) != was));
    let first = all.next()??;
    all.all(|it| it == Some(first)).then_some(first)
}

fn page(found: &Found, today: &Today, root: &Path) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, found, today, root);
    page
}

fn write(page: &mut String, found: &Found, today: &Today, root: &Path) -> std::fmt::Result {
    let Found { at, decision, outcome, .. } = found;
    let part = |text: &Option<String>| text.as_deref().map_or_else(String::new, safe);
    let request = match (&decision.method, &decision.host) {
        (Some(method), host) => {
            let query = if decision.has_query { "?…" } else { "" };
            let host = host.as_deref().map_or_else(|| decision.dst.to_string(), safe);
            format!("{} {}://{host}{}{query}", safe(method), part(&decision.scheme), part(&decision.path))
        }
        (None, Some(host)) => format!("a connection to {} ({})", safe(host), part(&decision.scheme)),
        (None, None) => format!("a connection ({})", part(&decision.scheme)),
    };
    let workload = &decision.workload;
    let verdict = match (decision.verdict, decision.observed) {
        (Verdict::Allow, true) => "observe",
        (Verdict::Allow, false) => "allow",
        (Verdict::Deny, _) => "deny",
    };
    writeln!(page, "{at}  {}", decision.id)?;
    match decision.proxy {
        Some(proxy) => {
            writeln!(page, "request     {request}, to {}, by way of the proxy {proxy}", decision.dst)?
        }
        None => writeln!(page, "request     {request}, to {}", decision.dst)?,
    }
    let unit = workload.unit.as_deref().map(|unit| format!(", unit {}", safe(unit))).unwrap_or_default();
    writeln!(page, "process     {} ({}), uid {}{unit}", workload.pid, safe(&workload.exe), workload.uid)?;
    let identity = decision.identity.as_deref().map_or_else(|| "none".to_owned(), safe);
    writeln!(page, "identity    {identity} (policy generation {})", decision.generation)?;
    writeln!(page, "decided     {verdict}: {}", safe(&decision.reason))?;
    if let Some(rule) = &decision.rule {
        writeln!(page, "rule        \"{}\" ({}:{})", safe(&rule.text), safe(&rule.file), rule.line)?;
    }
    if let Some(credential) = &decision.credential {
        writeln!(page, "credential  {}", safe(credential))?;
    }
    match outcome {
        Some(outcome) => {
            let status = outcome.status.map_or_else(|| "no status".to_owned(), |status| status.to_string());
            let (sent, received) = (outcome.bytes_sent, outcome.bytes_received);
            let ms = outcome.duration_us / 1000;
            let status = if outcome.answered { format!("{status} of the proxy itself") } else { status };
            writeln!(page, "outcome     {status}, {sent} bytes sent and {received} received in {ms} ms")?;
            if let Some(error) = &outcome.error {
                let blame = outcome.blame.map(|blame| format!(" (blame: {blame:?})").to_lowercase());
                writeln!(page, "            {}{}", safe(error), blame.unwrap_or_default())?;
            }
        }
        None if decision.verdict == Verdict::Allow => {
            writeln!(page, "outcome     none yet: it is under way, or its end is in no segment here")?;
        }
        None => {}
    }
    writeln!(page, "\ntoday, by {}", root.display())?;
    let judged = match &today.judged {
        Recalled::Decided(judged) => judged,
        Recalled::Not(why) => {
            writeln!(page, "  cannot be said: {}", safe(why))?;
            return writeln!(page, "  {NOT_RECORDED}");
        }
    };
    for (at, judgement) in judged.iter().enumerate() {
        let was =
            if judged.len() > 1 { format!("if it was {}: ", judgement.if_it_was) } else { String::new() };
        writeln!(page, "  {was}{}: {}", word(judgement), safe(&judgement.reason))?;
        if let Some(credential) = &judgement.credential {
            writeln!(page, "  credential  {}", safe(credential))?;
        }
        let Some((rule, weighed)) = today.weighed.get(at) else { continue };
        for it in weighed.iter().filter(|it| it.counts || it.outcome != "other-path") {
            explain::write_weighed(page, it, rule.as_ref())?;
        }
    }
    match differs(decision, &today.judged) {
        Some(true) => writeln!(page, "  that is another answer than then")?,
        Some(false) => writeln!(page, "  that is the answer of then")?,
        None => writeln!(page, "  whether that is the answer of then hangs on what is not recorded")?,
    }
    writeln!(page, "  {NOT_RECORDED}")
}

fn as_json(found: &Found, today: &Today) -> Value {
    let judgement = |(at, it): (usize, &Judgement)| {
        let (rule, weighed) =
            today.weighed.get(at).map_or((None, &[] as &[_]), |(rule, all)| (rule.as_ref(), all));
        json!({
            "if_it_was": it.if_it_was,
            "decision": it.allowed.map(|_| word(it)),
            "reason": it.reason,
            "credential": it.credential,
            "considered": weighed.iter()
                .map(|weighed| explain::weighed_json(weighed, rule))
                .collect::<Vec<_>>(),
        })
    };
    let (judged, why_not) = match &today.judged {
        Recalled::Decided(judged) => (judged.iter().enumerate().map(judgement).collect::<Vec<_>>(), None),
        Recalled::Not(why) => (Vec::new(), Some(why)),
    };
    json!({
        "records": found.texts,
        "today": judged,
        "not_judged": why_not,
        "differs": differs(&found.decision, &today.judged),
        "not_known": NOT_RECORDED,
    })
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
