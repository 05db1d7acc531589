//! `audit show ID`: the whole story of one call.

use std::fmt::Write as _;
use std::io::Write;
use std::path::Path;

use anyhow::bail;
use clap::Args;
use proxy_journal::archive::{Line, Walk};
use proxy_journal::text::{escape, escape_word};
use proxy_journal::{
    Archive, Container, Content, Decision, Entry, Filter, Outcome, Place, PolicyResult, Record, Verdict,
    human,
};
use serde_json::{Value, json};

use super::{JournalArgs, find_one, unreadable, write_json};

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
    let around = around(&mut archive, first.place, generation).map_err(failed)?;
    if args.json {
        let json = |standing: &Option<Standing>| standing.as_ref().map(Standing::json);
        let told = json!({
            "id": id,
            "decision": json(&decision),
            "outcome": json(&outcome),
            "policy": json(&around.policy),
            "start": json(&around.start),
            "after": json(&around.after),
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
            write_who(page, told)?;
            write_decision(page, told)?;
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
        write_outcome(page, outcome, standing)?;
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
        (None, _) => writeln!(page, "policy      its load is in no segment here")?,
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
    Ok(())
}

fn write_who(page: &mut String, decision: &Decision) -> std::fmt::Result {
    let part = |text: &Option<String>| text.as_deref().map(escape_word).unwrap_or_default().into_owned();
    let host =
        decision.host.as_deref().map_or_else(|| decision.dst.to_string(), |host| escape_word(host).into());
    match &decision.method {
        Some(method) => {
            let query = if decision.has_query { "?…" } else { "" };
            let (method, scheme, path) = (escape_word(method), part(&decision.scheme), part(&decision.path));
            write!(page, "request     {method} {scheme}://{host}{path}{query}, to {}", decision.dst)?;
        }
        None => write!(
            page,
            "request     a connection ({}) to {host}, to {}",
            part(&decision.scheme),
            decision.dst
        )?,
    }
    match decision.proxy {
        Some(proxy) => writeln!(page, ", by way of the proxy {proxy}")?,
        None => writeln!(page)?,
    }
    if let Some(api) = &decision.api {
        writeln!(page, "api         {}", escape_word(api))?;
    }
    let identity = decision.identity.as_deref().map_or("none".into(), escape_word);
    writeln!(page, "identity    {identity}")?;
    let workload = &decision.workload;
    let (exe, comm) = (escape_word(&workload.exe), escape_word(&workload.comm));
    writeln!(
        page,
        "process     {} {exe} (thread {comm}), uid {}, gid {}",
        workload.pid, workload.uid, workload.gid
    )?;
    let (dev, ino, start) = (workload.exe_dev, workload.exe_ino, workload.start_time_ns);
    writeln!(page, "            executable: device {dev}, inode {ino}; started {start} ns after boot")?;
    if let Some(script) = &workload.script {
        writeln!(page, "script      {}", escape_word(script))?;
    }
    if let Some(unit) = &workload.unit {
        let run = workload.invocation.as_deref().map(|run| format!(", run {}", escape_word(run)));
        writeln!(page, "unit        {}{}", escape_word(unit), run.unwrap_or_default())?;
    }
    if let Some(cgroup) = &workload.cgroup_path {
        writeln!(page, "cgroup      {}", escape_word(cgroup))?;
    }
    if let Some(container) = &workload.container {
        write_container(page, container)?;
    }
    if !workload.ancestors.is_empty() {
        let ancestors: Vec<_> = workload.ancestors.iter().map(|exe| escape_word(exe)).collect();
        writeln!(page, "started by  {}", ancestors.join(" ← "))?;
    }
    Ok(())
}

fn write_container(page: &mut String, container: &Container) -> std::fmt::Result {
    write!(page, "container   {} {}", escape_word(&container.runtime), escape_word(&container.id))?;
    let told =
        [("name", &container.name), ("image", &container.image), ("claimed by", &container.claimed_by)];
    for (what, text) in told {
        if let Some(text) = text {
            write!(page, ", {what} {}", escape(text))?;
        }
    }
    writeln!(page)?;
    let Some(pod) = &container.kubernetes else { return Ok(()) };
    write!(page, "pod         {}", escape_word(&pod.pod_uid))?;
    let told = [("namespace", &pod.namespace), ("name", &pod.pod), ("service account", &pod.service_account)];
    for (what, text) in told {
        if let Some(text) = text {
            write!(page, ", {what} {}", escape_word(text))?;
        }
    }
    writeln!(page)
}

fn write_decision(page: &mut String, decision: &Decision) -> std::fmt::Result {
    let verdict = match (decision.verdict, decision.observed) {
        (Verdict::Allow, true) => "observed",
        (Verdict::Allow, false) => "allow",
        (Verdict::Deny, _) => "deny",
    };
    writeln!(page, "decided     {verdict}: {}", escape(&decision.reason))?;
    if let Some(rule) = &decision.rule {
        writeln!(page, "rule        \"{}\" ({}:{})", escape(&rule.text), escape_word(&rule.file), rule.line)?;
    }
    if let Some(credential) = &decision.credential {
        writeln!(page, "credential  {}", escape_word(credential))?;
    }
    if let Some(mistrust) = &decision.mistrust {
        let certain = if mistrust.certain { "the client said so" } else { "the client only went away" };
        write!(page, "mistrust    {certain}")?;
        for (what, text) in
            [("runtime", &mistrust.runtime), ("cause", &mistrust.cause), ("to do", &mistrust.mend)]
        {
            if let Some(text) = text {
                write!(page, "; {what}: {}", escape(text))?;
            }
        }
        writeln!(page)?;
    }
    Ok(())
}

fn write_outcome(page: &mut String, outcome: &Outcome, standing: &Standing) -> std::fmt::Result {
    let status = outcome.status.map_or_else(|| "no status".to_owned(), |status| format!("status {status}"));
    let took = human::duration(outcome.duration_us);
    if outcome.interrupted {
        writeln!(
            page,
            "outcome     interrupted: the daemon was stopped in mid-call, told {}",
            standing.entry.time
        )?;
    } else {
        write!(page, "outcome     {status} after {took}")?;
        if let Some(first) = outcome.ttfb_us {
            write!(page, ", first byte after {}", human::duration(first))?;
        }
        let (sent, received) = (outcome.bytes_sent, outcome.bytes_received);
        writeln!(page, "; {sent} bytes sent, {received} received; ended {}", standing.entry.time)?;
    }
    match (outcome.upstream, &outcome.proxied) {
        (Some(upstream), Some(proxied)) => {
            writeln!(page, "upstream    {upstream}, for {}", escape_word(proxied))?
        }
        (Some(upstream), None) => writeln!(page, "upstream    {upstream}")?,
        (None, _) => {}
    }
    if let Some(error) = &outcome.error {
        let blame = outcome.blame.map(|blame| format!(" (blame: {blame:?})").to_lowercase());
        writeln!(page, "error       {}{}", escape(error), blame.unwrap_or_default())?;
    }
    for removed in &outcome.removed {
        let (place, fingerprint) = (escape(&removed.place), escape_word(&removed.fingerprint));
        writeln!(
            page,
            "removed     a credential that the client brought: {place}, fingerprint {fingerprint}"
        )?;
    }
    for (told, what) in [
        (outcome.reflected, "the upstream sent the credential back, and it was covered"),
        (outcome.repeated, "it was sent once more"),
        (outcome.answered, "the proxy answered it itself"),
    ] {
        if told {
            writeln!(page, "            {what}")?;
        }
    }
    Ok(())
}
