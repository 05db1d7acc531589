//! What calls are looked for by: one meaning of a record for the filters, whether it is read or stands in an index.

use uuid::Uuid;

use crate::brief::{Brief, Text};
use crate::line;
use crate::scan;
use crate::timestamp::Timestamp;
use crate::verify::Fault;

/// The kind of a line that is a call: its decision, and its outcome if it was let go.
pub const CALL: &str = "call";
/// The kind of a line that is no record.
pub const UNREADABLE: &str = "unreadable";

/// What became of a call, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Ruling {
    /// It was let go.
    Allow = 1,
    /// It was refused.
    Deny = 2,
    /// It was let go only because its identity or grant is in `mode = "observe"`.
    Observed = 3,
}

impl Ruling {
    /// As it is shown.
    pub const fn word(self) -> &'static str {
        match self {
            Ruling::Allow => "allow",
            Ruling::Deny => "deny",
            Ruling::Observed => "observed",
        }
    }

    /// Every one.
    pub const ALL: [Ruling; 3] = [Ruling::Allow, Ruling::Deny, Ruling::Observed];

    pub(crate) fn of_number(number: u8) -> Option<Ruling> {
        Ruling::ALL.into_iter().find(|ruling| *ruling as u8 == number)
    }
}

/// One line for a person, and what it can be looked for by: a call as a whole, or another record.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// [`CALL`], or the kind of the record.
    pub kind: String,
    /// When it ended; of a refused call when it was refused.
    pub time: Timestamp,
    /// Its id.
    pub id: Option<Uuid>,
    /// Who called.
    pub identity: Option<String>,
    /// The API that was called.
    pub api: Option<String>,
    /// The unit of systemd that called.
    pub unit: Option<String>,
    /// The host that was called.
    pub host: Option<String>,
    /// `FILE:LINE` of the rule that decided.
    pub rule: Option<String>,
    /// What was decided.
    pub ruling: Option<Ruling>,
    /// What the client was answered.
    pub status: Option<u16>,
    /// How long it took, in microseconds.
    pub duration_us: Option<u64>,
    /// Bytes of the body that was sent.
    pub sent: u64,
    /// Bytes of the body that was received.
    pub received: u64,
    /// It ended with an error.
    pub error: bool,
    /// How it ended is not known.
    pub interrupted: bool,
    /// The method.
    pub method: Option<String>,
    /// The path.
    pub path: Option<String>,
    /// Why it was decided so.
    pub reason: Option<String>,
    /// The name of the credential.
    pub credential: Option<String>,
    /// The executable that called.
    pub exe: Option<String>,
    /// The user that called.
    pub uid: Option<u32>,
    /// The process that called.
    pub pid: Option<u32>,
}

/// What a line is to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The decision of a call that goes on: an outcome follows.
    Opens(Uuid),
    /// The outcome of a call.
    Ends(Uuid),
    /// It stands alone.
    Alone,
}

impl Part {
    /// Of a line without its newline.
    pub fn of(line: &[u8]) -> Part {
        let Ok((_, brief)) = Brief::of_line(line) else { return Part::Alone };
        match brief.id() {
            Some(id) if brief.is_opening() => Part::Opens(id),
            Some(id) if brief.is_outcome() => Part::Ends(id),
            _ => Part::Alone,
        }
    }
}

impl Facts {
    /// Of a line that is a record, and of the decision that it is the outcome of. Lines are without their newline.
    ///
    /// # Errors
    /// The line is no record.
    pub fn of(line: &[u8], decision: Option<&[u8]>) -> Result<Facts, Fault> {
        let (parts, brief) = Brief::of_line(line)?;
        let decision = decision.map(Brief::of_line).transpose()?.map(|(_, brief)| brief);
        Ok(brief.facts(parts.time, decision.as_ref()))
    }

    /// Of a line that is no record.
    pub(crate) fn unreadable(time: Timestamp) -> Facts {
        Brief::of_kind(UNREADABLE.into()).facts(time, None)
    }

    /// The status class, 1 to 5; 0 without a status, 6 for what is none.
    pub fn status_class(&self) -> u8 {
        status_class(self.status)
    }
}

pub(crate) fn status_class(status: Option<u16>) -> u8 {
    status.map_or(0, |status| u8::try_from((status / 100).clamp(1, 6)).unwrap_or(6))
}

impl<'a> Brief<'a> {
    /// Reads a line.
    pub(crate) fn of_line(line: &'a [u8]) -> Result<(line::Parts<'a>, Brief<'a>), Fault> {
        let parts = line::split(line)?;
        let brief = scan::brief(parts.members).map_or_else(|| Brief::parse(parts.text), Ok)?;
        Ok((parts, brief))
    }

    /// Whether it is a decision after which an outcome follows.
    pub(crate) fn is_opening(&self) -> bool {
        self.kind.0 == "decision" && matches!(self.ruling(), Some(Ruling::Allow | Ruling::Observed))
    }

    /// Whether it is the outcome of a call.
    pub(crate) fn is_outcome(&self) -> bool {
        self.kind.0 == "outcome"
    }

    /// Whether it ended with an error.
    pub(crate) fn is_error(&self) -> bool {
        self.is_outcome() && self.error.is_some()
    }

    pub(crate) fn id(&self) -> Option<Uuid> {
        self.id.as_ref().and_then(|id| Uuid::try_parse(&id.0).ok())
    }

    pub(crate) fn ruling(&self) -> Option<Ruling> {
        if self.kind.0 == "trace" {
            return Some(Ruling::Deny);
        }
        match (self.verdict.as_ref().map(|verdict| &*verdict.0), self.observed) {
            (Some("allow"), true) => Some(Ruling::Observed),
            (Some("allow"), false) => Some(Ruling::Allow),
            (Some("deny"), _) => Some(Ruling::Deny),
            _ => None,
        }
    }

    pub(crate) fn unit(&self) -> Option<&str> {
        self.workload.as_ref()?.unit.as_ref().map(|unit| &*unit.0)
    }

    pub(crate) fn method(&self) -> Option<&str> {
        self.method.as_ref().map(|text| &*text.0)
    }

    pub(crate) fn path(&self) -> Option<&str> {
        self.path.as_ref().map(|text| &*text.0)
    }

    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.as_ref().map(|text| &*text.0)
    }

    pub(crate) fn credential(&self) -> Option<&str> {
        self.credential.as_ref().map(|text| &*text.0)
    }

    pub(crate) fn exe(&self) -> Option<&str> {
        self.workload.as_ref()?.exe.as_ref().map(|exe| &*exe.0)
    }

    pub(crate) fn uid(&self) -> Option<u32> {
        self.workload.as_ref()?.uid
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.workload.as_ref()?.pid
    }

    pub(crate) fn rule(&self) -> Option<String> {
        self.rule.as_ref().map(|rule| format!("{}:{}", rule.file.0, rule.line))
    }

    /// The kind of the line that this is, or ends.
    pub(crate) fn shown_kind(&self) -> &str {
        match &*self.kind.0 {
            "decision" | "outcome" => CALL,
            kind => kind,
        }
    }

    pub(crate) fn facts(&self, time: Timestamp, decision: Option<&Brief<'_>>) -> Facts {
        let owned = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.0.clone().into_owned());
        let who = decision.unwrap_or(self);
        Facts {
            kind: self.shown_kind().to_owned(),
            time,
            id: self.id(),
            identity: owned(&who.identity),
            api: owned(&who.api),
            unit: who.unit().map(str::to_owned),
            host: owned(&who.host),
            rule: who.rule(),
            ruling: who.ruling(),
            status: self.status,
            duration_us: self.duration_us,
            sent: self.bytes_sent,
            received: self.bytes_received,
            error: self.is_error(),
            interrupted: self.interrupted,
            method: owned(&who.method),
            path: owned(&who.path),
            reason: owned(&who.reason),
            credential: owned(&who.credential),
            exe: who.exe().map(str::to_owned),
            uid: who.uid(),
            pid: who.pid(),
        }
    }
}
