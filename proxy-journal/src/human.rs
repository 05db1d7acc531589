//! Records for the eyes of a person: one line for each call, with nothing in it that a terminal could obey.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::reader::{Content, Entry};
use crate::record::{
    Access, Blame, CaChange, Decision, Detach, Outcome, Person, PolicyResult, Record, Rule, SecretChange,
    SecretStep, Trace, Verdict,
};
use crate::text::{escape, escape_word};

/// How many characters a part of a line has at most; `show` has all of it.
const BRIEF: usize = 200;

/// How many open calls a [`Tail`] remembers; the outcome of an older one is shown without its request.
const REMEMBERED: usize = 10_000;

/// Colour a word by ANSI sequences, or leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Green,
    Red,
    Yellow,
    Dim,
}

/// Turns records, in their order, into one line for each call: a denial at its decision, an allowed call at its outcome.
#[derive(Debug, Clone, Default)]
pub struct Tail {
    colour: bool,
    open: HashMap<Uuid, Arc<Decision>>,
    order: VecDeque<Uuid>,
}

impl Tail {
    /// `colour`: with ANSI colours, for a terminal.
    pub fn new(colour: bool) -> Tail {
        Tail { colour, ..Tail::default() }
    }

    /// The line for this record, without a newline; `None` for an allowed call, which is shown when it ends, and for checkpoints.
    pub fn show(&mut self, entry: &Entry) -> Option<String> {
        let decision = match &entry.content {
            Content::Known(Record::Decision(decision)) if decision.verdict == Verdict::Allow => {
                self.remember(decision);
                return None;
            }
            // Of these there are many, and they say nothing of calls.
            Content::Known(Record::Checkpoint(_)) => return None,
            Content::Known(Record::Outcome(outcome)) => self.open.remove(&outcome.id),
            _ => None,
        };
        Some(line(entry, decision.as_deref(), self.colour))
    }

    fn remember(&mut self, decision: &Arc<Decision>) {
        self.open.insert(decision.id, Arc::clone(decision));
        self.order.push_back(decision.id);
        while self.open.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.open.remove(&oldest);
        }
        // Ids of calls that have ended need no place in the order.
        if self.order.len() > 2 * REMEMBERED {
            self.order.retain(|id| self.open.contains_key(id));
        }
    }
}

/// One line for a record and, if it is an outcome, the decision that it belongs to: of a call the time, identity, verdict,
/// method, host and path, status, duration, below each other; then what there is to say of it, and the process.
pub fn line(entry: &Entry, decision: Option<&Decision>, colour: bool) -> String {
    let what = match (&entry.content, decision) {
        (Content::Known(Record::Outcome(outcome)), Some(decision)) => row(decision, Some(outcome), colour),
        (Content::Known(Record::Decision(decision) | Record::Connection(decision)), _) => {
            row(decision, None, colour)
        }
        (Content::Known(record), _) => sentence(record, colour),
        (Content::Other(value), _) => other(value),
    };
    // 2026-11-24T20:00:00.123456Z, to the millisecond.
    let time = entry.time.to_string();
    let time = format!("{}Z", time.get(..23).unwrap_or(&time));
    format!("{} {what}", paint(&time, Paint::Dim, colour))
}

/// The columns of a call.
fn row(decision: &Decision, outcome: Option<&Outcome>, colour: bool) -> String {
    let method = decision.method.as_deref().or(decision.scheme.as_deref()).unwrap_or("-");
    let (verdict, shade) = verdict(decision);
    let told = || brief(&told(decision)).into_owned();
    let mut line = format!(
        "{:<14} {} {:<6} {:<44}",
        brief(&identity(decision)),
        paint(&format!("{verdict:<8}"), shade, colour),
        brief(&escape_word(method)),
        brief(&target(decision))
    );
    match outcome {
        Some(outcome) => {
            let status = outcome.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
            let shade =
                if outcome.status.is_none_or(|status| status < 400) { Paint::Green } else { Paint::Yellow };
            let took = if outcome.interrupted { "-".to_owned() } else { duration(outcome.duration_us) };
            let _ = write!(line, " {} {took:>7}", paint(&format!("{status:>3}"), shade, colour));
            if outcome.interrupted {
                let _ = write!(line, " {}", paint("interrupted", Paint::Yellow, colour));
            }
            if let Some(error) = error(outcome) {
                let _ = write!(line, " {}", paint(&brief(&error), Paint::Red, colour));
            }
            if decision.observed {
                let _ = write!(line, " {}", told());
            }
        }
        None => {
            let _ = write!(line, " {:>3} {:>7} {}", "-", "-", told());
        }
    }
    let _ = write!(line, " {}", brief(&process(decision)));
    line
}

/// A part of a line, so short that what stands around it is seen: whoever chooses a path could push that away. Several blanks, as there
/// are between columns, are not in it.
fn brief(text: &str) -> Cow<'_, str> {
    let text = match text.contains("  ") {
        true => Cow::Owned(text.replace("  ", " \\u{20}")),
        false => Cow::Borrowed(text),
    };
    match text.char_indices().nth(BRIEF) {
        None => text,
        Some(_) => elide(&text, BRIEF).into(),
    }
}

/// The beginning and the end of a text that is longer than so many characters, and an ellipsis between them.
pub fn elide(text: &str, most: usize) -> String {
    let (count, end) = (text.chars().count(), most / 3);
    if count <= most {
        return text.to_owned();
    }
    let begin = most.saturating_sub(end + 1);
    text.chars().take(begin).chain(['…']).chain(text.chars().skip(count - end)).collect()
}

fn other(value: &Value) -> String {
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or("record");
    let mut shown = value.clone();
    if let Some(fields) = shown.as_object_mut() {
        for envelope in ["v", "seq", "time", "prev", "hash", "kind"] {
            fields.remove(envelope);
        }
    }
    format!("{} {}", escape_word(kind), escape(&shown.to_string()))
}

/// One record alone as a sentence, without its time; never more than one line. For a log that has its own times.
pub fn sentence(record: &Record, colour: bool) -> String {
    match record {
        Record::Start(start) => {
            format!("start vouchsafe {} (pid {})", escape_word(&start.version), start.pid)
        }
        Record::Stop(stop) => format!("stop {}", escape(&stop.reason)),
        Record::Policy(load) => match load.result {
            PolicyResult::Loaded => {
                format!("policy {} loaded, {} identities", load.generation, load.identities)
            }
            PolicyResult::Refused => {
                let errors = load.errors.iter().map(|error| escape(error)).collect::<Vec<_>>().join("; ");
                format!("policy {} {}: {errors}", load.generation, paint("refused", Paint::Red, colour))
            }
        },
        Record::Decision(decision) | Record::Connection(decision) => decided(decision, colour),
        Record::Trace(trace) => traced(trace, colour),
        Record::Outcome(outcome) => ended(None, outcome, colour),
        Record::Recovered(repair) => {
            let lost = match repair.lost_bytes {
                0 => String::new(),
                bytes => format!(", {bytes} bytes that a loss of power left kept apart"),
            };
            format!(
                "recovered: {} bytes of a half line dropped{lost}, {} open calls closed as interrupted",
                repair.dropped_bytes, repair.closed
            )
        }
        Record::Detach(detach) => detached(detach, colour),
        Record::Bound(bound) => format!(
            "{}{} {} ({} in all): {}",
            bound.whose().map(|it| format!("{} ", escape_word(it))).unwrap_or_default(),
            paint(&escape_word(&bound.counter), Paint::Red, colour),
            bound.count,
            bound.total,
            escape(&bound.effect)
        ),
        Record::Secret(change) => changed(change, colour),
        Record::Ca(change) => made(change, colour),
        Record::Key(change) => match &change.former {
            Some(former) => format!(
                "key {} signs from here on, and no more {former}: {}",
                change.key,
                escape(&change.reason)
            ),
            None => format!("key {} signs the journal {}", change.key, change.journal),
        },
        Record::Checkpoint(checkpoint) => {
            format!("checkpoint of {} records of segment {}", checkpoint.size, checkpoint.segment)
        }
        Record::Segment(start) => {
            format!("segment {} begins, by {}", start.number, escape_word(&start.reason))
        }
        Record::Retired(retired) => format!(
            "retired: the segments through {} ({} records in all): {}",
            retired.segment,
            retired.through,
            escape(&retired.reason)
        ),
    }
}

/// A new generation of the CA, why, and whose word it was.
fn made(change: &CaChange, colour: bool) -> String {
    let what = paint("new", Paint::Yellow, colour);
    let mut line = format!("ca {what} generation {} for {} hosts", change.generation, change.hosts);
    if let Some(by) = &change.by {
        let _ = write!(line, ", by {}", person(by));
    }
    let _ = write!(line, ": {}", escape(&change.reason));
    if !change.former.is_empty() {
        let former: Vec<_> = change.former.iter().map(u32::to_string).collect();
        let _ = write!(line, "; {} go on for a while", former.join(" "));
    }
    line
}

/// What became of a secret, whose word it was, and why it failed.
fn changed(change: &SecretChange, colour: bool) -> String {
    let (what, shade) = match change.change {
        SecretStep::Set => ("set", Paint::Yellow),
        SecretStep::Removed => ("removed", Paint::Yellow),
        SecretStep::Rotated => ("rotated", Paint::Green),
        SecretStep::Ended => ("ended", Paint::Green),
        SecretStep::Discarded => ("discarded", Paint::Yellow),
        SecretStep::Failed => ("not rotated", Paint::Red),
    };
    let mut line = format!("secret {} {}", escape_word(&change.secret), paint(what, shade, colour));
    if let Some(version) = change.version {
        let _ = write!(line, ", version {version}");
    }
    if !change.tried.is_empty() {
        let _ = write!(line, ", tried with {}", escape(&change.tried.join(" ")));
    }
    if let Some(by) = &change.by {
        let _ = write!(line, ", by {}", person(by));
    }
    if let Some(error) = &change.error {
        let _ = write!(line, ": {}", escape(error));
    }
    line
}

/// Who gave a command.
fn person(by: &Person) -> String {
    let Person { uid, pid, login_uid, sudo_uid } = by;
    let mut text = format!("uid {uid}");
    for (name, id) in [("login", login_uid), ("sudo", sudo_uid)] {
        if let Some(id) = id {
            let _ = write!(text, ", {name} uid {id}");
        }
    }
    let _ = write!(text, " (pid {pid})");
    text
}

fn detached(detach: &Detach, colour: bool) -> String {
    let by = person(&detach.by);
    let (what, programs) = (paint("detach", Paint::Red, colour), detach.programs.join(" "));
    let mut line = format!("{what} by {by}: {} below {}", escape(&programs), escape_word(&detach.pin));
    if let Some(error) = &detach.error {
        let _ = write!(line, ", not all: {}", escape(error));
    }
    line
}

/// A decision as one line: identity, verdict, request, reason, rule, process.
pub fn decided(decision: &Decision, colour: bool) -> String {
    let (verdict, shade) = verdict(decision);
    format!(
        "{} {} {} {} {}",
        identity(decision),
        paint(verdict, shade, colour),
        request(decision),
        told(decision),
        process(decision)
    )
}

fn verdict(decision: &Decision) -> (&'static str, Paint) {
    match decision.verdict {
        Verdict::Allow if decision.observed => ("observed", Paint::Yellow),
        Verdict::Allow => ("allow", Paint::Green),
        Verdict::Deny => ("deny", Paint::Red),
    }
}

/// Why, and by which rule if that is not said there.
fn told(decision: &Decision) -> String {
    let mut line = escape(&decision.reason).into_owned();
    let told = |rule: &Rule| decision.reason.contains(&format!("{}:{}", rule.file, rule.line));
    if let Some(rule) = decision.rule.as_ref().filter(|rule| !told(rule)) {
        let _ = write!(line, " ({}:{})", escape_word(&rule.file), rule.line);
    }
    line
}

/// A refused trace as one line: identity, verdict, what was asked for, of whom, reason, process.
fn traced(trace: &Trace, colour: bool) -> String {
    let what = match trace.access {
        Access::Attach => "trace",
        Access::Inspect => "inspect",
        Access::Traceme => "be traced by",
    };
    let known = trace.target.exe.as_deref().or(trace.target.cgroup_path.as_deref()).unwrap_or("a process");
    format!(
        "{} {} {what} {}[{}] {} {}[{}]",
        escape_word(trace.identity.as_deref().unwrap_or("unknown")),
        paint("deny", Paint::Red, colour),
        escape_word(known),
        trace.target.pid,
        escape(&trace.reason),
        escape_word(&trace.workload.exe),
        trace.workload.pid,
    )
}

/// An outcome as one line, with the request that it belongs to when that is known.
pub fn ended(decision: Option<&Decision>, outcome: &Outcome, colour: bool) -> String {
    let mut line = match decision {
        Some(decision) => {
            let (verdict, shade) = verdict(decision);
            format!("{} {} {}", identity(decision), paint(verdict, shade, colour), request(decision))
        }
        None => format!("call {} ended", outcome.id),
    };
    if let Some(status) = outcome.status {
        let shade = if status < 400 { Paint::Green } else { Paint::Yellow };
        let _ = write!(line, " {}", paint(&status.to_string(), shade, colour));
    }
    if outcome.interrupted {
        let _ = write!(line, " {}", paint("interrupted", Paint::Yellow, colour));
    } else {
        let _ = write!(line, " {}", duration(outcome.duration_us));
    }
    if let Some(error) = error(outcome) {
        let _ = write!(line, " {}", paint(&error, Paint::Red, colour));
    }
    if let Some(decision) = decision {
        let _ = write!(line, " {}", process(decision));
    }
    line
}

/// What went wrong, and by whom.
fn error(outcome: &Outcome) -> Option<String> {
    let blame = match outcome.blame {
        Some(Blame::Client) => "client: ",
        Some(Blame::Upstream) => "upstream: ",
        Some(Blame::Policy) => "policy: ",
        Some(Blame::Host) => "host: ",
        Some(Blame::Us) => "vouchsafe: ",
        None => "",
    };
    outcome.error.as_ref().map(|error| format!("{blame}{}", escape(error)))
}

fn identity(decision: &Decision) -> String {
    escape_word(decision.identity.as_deref().unwrap_or("unknown")).into_owned()
}

fn process(decision: &Decision) -> String {
    format!("{}[{}]", escape_word(&decision.workload.exe), decision.workload.pid)
}

/// `METHOD host/path`, or where the connection went when there is no request.
fn request(decision: &Decision) -> String {
    match &decision.method {
        Some(method) => format!("{} {}", escape_word(method), target(decision)),
        None => target(decision),
    }
}

/// `host/path`, or where the connection went.
fn target(decision: &Decision) -> String {
    let mut line = String::new();
    match &decision.host {
        Some(host) => line.push_str(&escape_word(host)),
        None => {
            let _ = write!(line, "{}", decision.dst);
        }
    }
    if let Some(port) = decision.port.filter(|port| !matches!(port, 80 | 443) && decision.host.is_some()) {
        let _ = write!(line, ":{port}");
    }
    if let Some(path) = &decision.path {
        line.push_str(&escape_word(path));
    }
    if decision.has_query {
        line.push_str("?…");
    }
    if let Some(proxy) = decision.proxy {
        let _ = write!(line, " (by proxy {proxy})");
    }
    line
}

/// A duration with three digits or so: `830us`, `12.3ms`, `4.2s`.
pub fn duration(us: u64) -> String {
    match us {
        0..1_000 => format!("{us}us"),
        1_000..1_000_000 => format!("{}.{}ms", us / 1_000, us % 1_000 / 100),
        _ => format!("{}.{}s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

fn paint(text: &str, shade: Paint, colour: bool) -> String {
    let code = match shade {
        _ if !colour => return text.to_owned(),
        Paint::Green => 32,
        Paint::Red => 31,
        Paint::Yellow => 33,
        Paint::Dim => 2,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}
