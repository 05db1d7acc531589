//! A record on its way to a receiver, and how it is spelled.

use std::borrow::Cow;
use std::sync::Arc;

use proxy_journal::follow::{Cursor, Line};
use proxy_journal::{Blame, Content, Decision, PolicyResult, Record, SecretStep, Verdict, human};

use super::ocsf;
use crate::config::Format;

/// A record.
#[derive(Debug)]
pub(super) struct Message {
    /// As it stands in the journal.
    pub(super) line: Line,
    /// What it says.
    pub(super) content: Content,
    /// Of an outcome: the decision of its call, when that is known.
    pub(super) decision: Option<Arc<Decision>>,
    /// How far the journal is read with it.
    pub(super) after: Cursor,
}

/// How much it matters, as syslog numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

impl Message {
    pub(super) fn severity(&self) -> Severity {
        let Content::Known(record) = &self.content else { return Severity::Info };
        match record {
            Record::Policy(load) if load.result == PolicyResult::Refused => Severity::Error,
            Record::Detach(_) | Record::Bound(_) => Severity::Error,
            Record::Secret(change) if change.change == SecretStep::Failed => Severity::Error,
            Record::Decision(decision) if decision.verdict == Verdict::Deny => Severity::Warning,
            Record::Trace(_) | Record::Recovered(_) => Severity::Warning,
            // Of an earlier run: one that was interrupted.
            Record::Outcome(outcome) if outcome.interrupted => Severity::Warning,
            Record::Outcome(outcome) => match outcome.blame {
                Some(Blame::Us | Blame::Host) => Severity::Error,
                _ if outcome.error.is_some() => Severity::Notice,
                _ => Severity::Info,
            },
            Record::Checkpoint(_) | Record::Segment(_) => Severity::Info,
            Record::Key(_) | Record::Retired(_) => Severity::Notice,
            Record::Start(_) | Record::Stop(_) | Record::Policy(_) | Record::Secret(_) | Record::Ca(_) => {
                Severity::Notice
            }
            Record::Decision(_) | Record::Connection(_) => Severity::Info,
        }
    }

    /// The word for its kind, as in the journal; only letters, digits and `_`.
    pub(super) fn kind(&self) -> Cow<'static, str> {
        match &self.content {
            Content::Known(record) => Cow::Borrowed(match record {
                Record::Start(_) => "start",
                Record::Stop(_) => "stop",
                Record::Policy(_) => "policy",
                Record::Decision(_) => "decision",
                Record::Connection(_) => "connection",
                Record::Trace(_) => "trace",
                Record::Outcome(_) => "outcome",
                Record::Recovered(_) => "recovered",
                Record::Detach(_) => "detach",
                Record::Bound(_) => "bound",
                Record::Secret(_) => "secret",
                Record::Ca(_) => "ca",
                Record::Key(_) => "key",
                Record::Checkpoint(_) => "checkpoint",
                Record::Segment(_) => "segment",
                Record::Retired(_) => "retired",
            }),
            Content::Other(value) => {
                let kind = value.get("kind").and_then(serde_json::Value::as_str);
                let plain = |kind: &&str| {
                    !kind.is_empty()
                        && kind.len() <= 32
                        && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                };
                Cow::Owned(kind.filter(plain).unwrap_or("other").to_owned())
            }
        }
    }

    /// The hash that ends its line: names this record of this journal.
    pub(super) fn hash(&self) -> &str {
        let text = &self.line.text;
        text.len().checked_sub(66).and_then(|at| text.get(at..at + 64)).unwrap_or_default()
    }

    /// One line for a person, without control characters.
    pub(super) fn sentence(&self) -> String {
        match &self.content {
            Content::Known(Record::Outcome(outcome)) if self.decision.is_some() => {
                human::ended(self.decision.as_deref(), outcome, false)
            }
            Content::Known(record) => human::sentence(record, false),
            Content::Other(_) => format!("a record of the kind {}", self.kind()),
        }
    }
}

/// How records are spelled for a receiver.
#[derive(Debug, Clone)]
pub(super) struct Spelling {
    format: Format,
    host: String,
}

impl Spelling {
    pub(super) fn new(format: Format) -> Spelling {
        Spelling { format, host: host_name() }
    }

    /// The record as one line of JSON, without its newline.
    pub(super) fn spell<'a>(&self, message: &'a Message) -> Cow<'a, str> {
        match self.format {
            Format::Native => Cow::Borrowed(&message.line.text),
            Format::Ocsf => Cow::Owned(ocsf::spell(message, &self.host)),
        }
    }

    /// The name of this host.
    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

/// The name of this host: 1 to 255 visible characters, as syslog wants it; `-` when it has none.
fn host_name() -> String {
    let system = rustix::system::uname();
    let name = system.nodename().to_string_lossy();
    let name: String = name.chars().filter(char::is_ascii_graphic).take(255).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}
