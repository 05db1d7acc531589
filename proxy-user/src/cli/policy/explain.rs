//! `vouchsafe policy explain`: how a call would be decided, by which rule, and what else was considered.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args};
use nix::unistd::{Group, User};
use proxy_policy::{Conditions, Effect, Expect, IdentityId, Moment, Spoken};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::folder;
use crate::app::rehearse::{Decided, Outcome, Question, Weighed, judge_as};
use crate::authorize::{LivePolicy, Subject};
use crate::base::clock;
use crate::cli::status::safe;
use crate::config::Config;
use crate::control::client;
use crate::control::who::{self, ProcessReport, Target, WhoReport};
use crate::workload::{Identified, Workload};

/// Arguments of `vouchsafe policy explain`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("caller").args(["identity", "pid"]).required(true)), after_help = "\
Examples:
  vouchsafe policy explain --as invoice-bot GET https://api.stripe.com/v1/invoices
  vouchsafe policy explain --pid 4711 POST https://api.openai.com/v1/responses --body '{\"model\":\"gpt-5\"}'
  vouchsafe policy explain --as bot websocket https://api.example.com/v1/stream
Exit code: 0 the call is allowed (or only observed), 2 it is denied, 1 it cannot be said.")]
pub struct ExplainArgs {
    /// The identity that would make the call
    #[arg(long = "as", value_name = "IDENTITY")]
    identity: Option<String>,
    /// A running process that would make it; the daemon says who it is
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The method; `websocket` for an upgrade, `grpc` for a gRPC call
    #[arg(value_name = "METHOD")]
    method: String,
    /// The URL
    #[arg(value_name = "URL")]
    url: String,
    /// A header of the request, as in 'x-env: prod'; several are possible
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// The body, or @FILE; JSON unless a content-type says otherwise
    #[arg(long, value_name = "BODY|@FILE")]
    body: Option<String>,
    /// When the call is made, as in 2027-01-31T12:00:00Z; by default now
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// The folder that holds policies/, roles/, apis/ and credentials/; by default the one that the daemon reads
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// The call is denied.
const DENIED: u8 = 2;

/// Who would make the call.
struct Caller {
    /// The identity, or why there is none.
    identified: Identified,
    workload: Workload,
    notes: Vec<String>,
}

/// Prints the decision and why.
///
/// # Errors
/// The policy has errors, the identity or the process is not known, or the arguments are none of a request.
pub fn run(args: &ExplainArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let spoken = Spoken::parse(&format!("{} {}", args.method, args.url))
        .map_err(|(message, help)| anyhow::anyhow!("{message}; {help}"))?;
    let headers = args.headers.iter().map(|header| split(header)).collect::<anyhow::Result<Vec<_>>>()?;
    let body = args.body.as_deref().map(read_body).transpose()?;
    let now = args.at.as_deref().map_or_else(|| Ok(clock::now()), moment)?;
    let root = folder::or_configured(args.policies.as_ref(), &config.policies);
    let live = Arc::new(LivePolicy::new(folder::set_of(&root)?, 0));
    let Caller { identified, workload, mut notes } = match args.pid {
        Some(pid) => by_pid(pid, &live, &root, config)?,
        None => by_name(args.identity.as_deref().unwrap_or_default(), &live, &root)?,
    };
    let identity = match identified {
        Identified::One(id) => id,
        // Nobody asks for it: without an identity the call is refused before.
        _ => IdentityId(u32::MAX),
    };
    let subject = Subject::new(Arc::new(workload), Arc::clone(&live), identified);
    let question = Question { identity, request: &spoken, headers: &headers, body: body.as_deref(), now };
    let outcome = judge_as(&subject, &question);
    notes.extend(about_port(&spoken, &outcome, config));
    if outcome.verdict != Expect::Deny && outcome.considered.iter().any(|it| it.outcome == "unknown") {
        notes.push("some conditions look at what was not given: see -H and --body".to_owned());
    }
    let facts = Facts { subject: &subject, spoken: &spoken, outcome: &outcome, notes: &notes, now };
    let mut out = io::stdout().lock();
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&facts.json())?)?,
        false => out.write_all(facts.page().as_bytes())?,
    }
    Ok(if outcome.verdict == Expect::Deny { ExitCode::from(DENIED) } else { ExitCode::SUCCESS })
}

/// Everything that is told.
struct Facts<'a> {
    subject: &'a Subject,
    spoken: &'a Spoken,
    outcome: &'a Outcome,
    notes: &'a [String],
    now: Moment,
}

impl Facts<'_> {
    fn credential(&self) -> Option<(String, String, String)> {
        let set = self.subject.live().set();
        let name = self.outcome.credential.as_ref()?;
        let credential = set.credentials().find(|it| it.name == *name)?;
        let api = set.apis().find(|api| Some(&api.name) == self.outcome.api.as_ref())?;
        let header = api.inject.as_ref().map(|inject| inject.place().to_string())?;
        Some((name.clone(), credential.kind.source(), header))
    }

    /// The limits that the call would have to keep, each with whose it is.
    fn limits(&self) -> Vec<String> {
        let mut allows = self.outcome.considered.iter().filter(|it| it.effect == Effect::Allow);
        let allowed = allows.find(|it| it.counts && decides(it, self.outcome));
        let (Some(identity), Some(_)) = (self.subject.identity(), allowed) else { return Vec::new() };
        let api = self.outcome.api.as_deref();
        let place = allowed.map(|it| (it.grant.line, it.role.as_deref()));
        self.subject.live().set().limits_of(identity, api, place)
    }

    fn json(&self) -> Value {
        let outcome = self.outcome;
        json!({
            "decision": outcome.verdict.as_str(),
            "reason": outcome.reason,
            "identity": self.subject.identity().map(|identity| &identity.name),
            "request": self.spoken.text,
            "at": told_moment(self.now),
            "api": outcome.api,
            "role": outcome.role,
            "rule": outcome.rule.as_ref().map(rule_json),
            "credential": self.credential().map(|(name, secret, header)| {
                json!({ "name": name, "secret": secret, "header": header })
            }),
            "limits": self.limits(),
            "considered": outcome.considered.iter().map(|it| weighed_json(it, outcome.rule.as_ref())).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut page);
        page
    }

    fn write(&self, page: &mut String) -> std::fmt::Result {
        let outcome = self.outcome;
        let none = || "none".to_owned();
        let who = self.subject.identity().map_or_else(none, |identity| safe(&identity.name));
        writeln!(page, "{}: {}", outcome.verdict.as_str(), safe(&outcome.reason))?;
        writeln!(page, "identity    {who}")?;
        writeln!(page, "request     {}, at {}", safe(&self.spoken.text), told_moment(self.now))?;
        writeln!(page, "api         {}", outcome.api.as_deref().map_or_else(none, safe))?;
        if let Some(rule) = &outcome.rule {
            let role = outcome.role.as_ref().map(|role| format!(", by role {}", safe(role)));
            let role = role.unwrap_or_default();
            writeln!(
                page,
                "rule        \"{}\" ({}:{}){role}",
                safe(&rule.text),
                safe(&rule.file),
                rule.line
            )?;
        }
        match self.credential() {
            Some((name, secret, header)) => {
                writeln!(page, "credential  {} ({}), as {}", safe(&name), safe(&secret), safe(&header))?;
            }
            None => writeln!(page, "credential  none")?,
        }
        for limit in self.limits() {
            writeln!(page, "limit       {}", safe(&limit))?;
        }
        if !outcome.considered.is_empty() {
            writeln!(page, "considered")?;
        }
        outcome.considered.iter().try_for_each(|it| write_weighed(page, it, outcome.rule.as_ref()))?;
        self.notes.iter().try_for_each(|note| writeln!(page, "note        {}", safe(note)))
    }
}

/// Whether this is the rule that decided.
fn decides(it: &Weighed, outcome: &Outcome) -> bool {
    outcome.rule.as_ref() == Some(&it.rule)
}

/// A rule that was considered, on one line; the one that decided has a sign.
pub(in crate::cli) fn write_weighed(
    page: &mut String,
    it: &Weighed,
    decided: Option<&Decided>,
) -> std::fmt::Result {
    let sign = if decided == Some(&it.rule) { ">" } else { " " };
    let effect = if it.effect == Effect::Deny { "deny " } else { "allow" };
    let role = it.role.as_ref().map(|role| format!(", role {}", safe(role))).unwrap_or_default();
    let observes = if it.observes { ", only observes" } else { "" };
    let (text, file) = (safe(&it.rule.text), safe(&it.rule.file));
    writeln!(
        page,
        "  {sign} {effect} \"{text}\" ({file}:{}{role}{observes}): {}",
        it.rule.line,
        safe(&it.why)
    )
}

fn rule_json(rule: &Decided) -> Value {
    json!({ "file": rule.file, "line": rule.line, "column": rule.column, "text": rule.text })
}

/// A rule that was considered, for programs.
pub(in crate::cli) fn weighed_json(it: &Weighed, decided: Option<&Decided>) -> Value {
    json!({
        "effect": it.effect,
        "rule": rule_json(&it.rule),
        "grant": { "file": it.grant.file, "line": it.grant.line },
        "role": it.role,
        "mode": if it.observes { "observe" } else { "enforce" },
        "outcome": it.outcome,
        "why": it.why,
        "counts": it.counts,
        "decides": decided == Some(&it.rule),
    })
}

fn split(header: &str) -> anyhow::Result<(String, String)> {
    let (name, value) =
        header.split_once(':').with_context(|| format!("{header:?} is not a header: write 'name: value'"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A larger body than any that a policy looks at is not read.
const MOST_BODY: u64 = 16 * 1024 * 1024;

fn read_body(text: &str) -> anyhow::Result<String> {
    let Some(path) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    let length = fs::metadata(path).with_context(|| format!("the body {path} cannot be read"))?.len();
    if length > MOST_BODY {
        bail!("the body {path} has {length} bytes; more than {MOST_BODY} are not read");
    }
    fs::read_to_string(path).with_context(|| format!("the body {path} cannot be read"))
}

fn moment(text: &str) -> anyhow::Result<Moment> {
    let at = OffsetDateTime::parse(text, &Rfc3339)
        .with_context(|| format!("{text:?} is not a moment: write it as 2027-01-31T12:00:00Z"))?;
    Ok(Moment(at.unix_timestamp()))
}

fn told_moment(at: Moment) -> String {
    let at = OffsetDateTime::from_unix_timestamp(at.0).ok().and_then(|at| at.format(&Rfc3339).ok());
    at.unwrap_or_else(|| "a time that cannot be told".to_owned())
}

fn by_name(name: &str, live: &LivePolicy, root: &Path) -> anyhow::Result<Caller> {
    let Some(identity) = live.set().identity_named(name) else {
        let known: Vec<&str> = live.set().identities().map(|identity| identity.name.as_str()).collect();
        let place = root.join("policies").join(format!("{name}.toml"));
        bail!("there is no identity {name} (it would be {}); known: {}", place.display(), known.join(", "));
    };
    let conditions = &identity.conditions;
    let workload = as_described(conditions);
    let looks = identity
        .grants
        .iter()
        .flat_map(|grant| &grant.when)
        .any(|when| when.condition.as_str().contains("workload"));
    let notes = looks.then(|| {
        "conditions look at the process: it was taken as [identity] describes it, and the rest as not there; \
         --pid takes a running one"
            .to_owned()
    });
    let identified = Identified::One(identity.id);
    Ok(Caller { identified, workload, notes: notes.into_iter().collect() })
}

/// A process as the conditions of an identity describe it, as far as they do.
fn as_described(conditions: &Conditions) -> Workload {
    let literal = |text: Option<&str>| text.map(str::to_owned);
    let user = conditions.user.as_ref().and_then(|user| match user.parse() {
        Ok(uid) => Some(uid),
        Err(_) => User::from_name(user).ok().flatten().map(|user| user.uid.as_raw()),
    });
    let group = conditions.group.as_ref().and_then(|group| match group.parse() {
        Ok(gid) => Some(gid),
        Err(_) => Group::from_name(group).ok().flatten().map(|group| group.gid.as_raw()),
    });
    const NOBODY: u32 = 65534;
    Workload {
        exe: literal(conditions.exe.as_ref().and_then(|exe| exe.literal())),
        unit: literal(conditions.unit.as_ref().and_then(|unit| unit.literal())),
        cgroup: literal(conditions.cgroup.as_ref().and_then(|cgroup| cgroup.literal())),
        // Not 0: that would be root.
        uid: user.unwrap_or(NOBODY),
        gid: group.unwrap_or(NOBODY),
        ..Workload::default()
    }
}

fn by_pid(pid: u32, live: &LivePolicy, root: &Path, config: &Config) -> anyhow::Result<Caller> {
    let arguments = Target::Process(pid).arguments();
    let report: WhoReport = client::call_with(&config.control_socket(), who::COMMAND, arguments)?;
    let Some(process) = report.processes.into_iter().next() else {
        bail!("the daemon tells nothing of process {pid}")
    };
    let mut notes = vec![format!(
        "process {pid} was identified by the policy that is live (generation {}), and the call is judged by {}; `vouchsafe \
         policy plan` tells whether they differ",
        report.generation,
        root.display()
    )];
    if let Some(why) = &process.not_governed {
        notes.push(format!("its calls do not come to the daemon: {why}"));
    }
    let identified = match (&process.identity, process.ambiguous.as_slice()) {
        (Some(name), _) => match live.set().identity_named(name) {
            Some(identity) => Identified::One(identity.id),
            None => {
                notes.push(format!("it is {name}, which is not in {}", root.display()));
                Identified::None(format!("{name} is not in the policy").into())
            }
        },
        (None, []) => {
            let why = process.reason.clone().unwrap_or_else(|| "nobody says why".to_owned());
            Identified::None(why.into())
        }
        (None, several) => Identified::Ambiguous(several.to_vec()),
    };
    Ok(Caller { identified, workload: as_it_runs(process), notes })
}

fn as_it_runs(process: ProcessReport) -> Workload {
    Workload {
        pid: process.pid,
        start_time_ns: process.start_time_ns,
        exe: process.exe,
        exe_ino: process.exe_inode,
        uid: process.uid,
        gid: process.gid,
        cgroup: process.cgroup,
        unit: process.unit,
        foreign: !process.netns_is_the_daemons,
        ..Workload::default()
    }
}

/// Where requests are not seen at all.
fn about_port(spoken: &Spoken, outcome: &Outcome, config: &Config) -> Option<String> {
    let port = spoken.port();
    if outcome.api.is_some() || config.ports().contains(&port) {
        return None;
    }
    let address = spoken.host.name().parse::<IpAddr>().is_ok();
    let more = if address { "" } else { ", which know addresses and no names" };
    Some(format!(
        "port {port} is not mediated (kernel.ports): connections to it are decided by network grants{more}, and not by this"
    ))
}
