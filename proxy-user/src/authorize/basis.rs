//! What a decision is taken on, in the spelling of the journal: enough to take it again (`app::recall`).

use std::cell::RefCell;

use proxy_journal::{Basis, Condition, Held, Question, RequestKind};
use proxy_policy::{Answer, CallKind, Memory, Moment, PolicySet, Recalled};

use super::asked::Seen;

/// What is known of a request besides its facts.
#[derive(Clone, Copy, Debug, Default)]
pub enum Look<'a> {
    /// Nothing yet: an answer may be that it is needed.
    #[default]
    Nothing,
    /// What conditions look at.
    Seen(&'a Seen),
    /// What conditions came to when the call was made.
    Recalled(&'a Recalled),
}

impl<'a> From<Option<&'a Seen>> for Look<'a> {
    fn from(seen: Option<&'a Seen>) -> Self {
        seen.map_or(Self::Nothing, Self::Seen)
    }
}

/// The answers of conditions, as they come.
#[derive(Debug, Default)]
pub(super) struct Kept(RefCell<Vec<Answer>>);

impl Kept {
    pub(super) fn memory<'a>(&'a self, look: Look<'a>) -> Memory<'a> {
        match look {
            Look::Nothing => Memory::None,
            Look::Seen(_) => Memory::Keep(&self.0),
            Look::Recalled(recalled) => Memory::Recall(recalled),
        }
    }

    pub(super) fn told(self, set: &PolicySet) -> Vec<Condition> {
        self.0.into_inner().iter().map(|answer| told(answer, set)).collect()
    }
}

fn told(answer: &Answer, set: &PolicySet) -> Condition {
    let file = set.file_name(answer.place.file).unwrap_or_default();
    Condition {
        at: format!("{file}:{}", answer.place.line),
        key: format!("{:016x}", answer.key),
        held: match answer.held {
            Ok(held) => Held::Is(held),
            Err(fault) => Held::Fault(fault.slug().into()),
        },
    }
}

/// The answers that a record has, by their keys.
///
/// # Errors
/// Something in it is not understood.
pub fn recalled(basis: &Basis, has_query: bool) -> Result<Recalled, String> {
    let answer = |condition: &Condition| {
        let unknown = || format!("what is recorded of the condition at {} is not understood", condition.at);
        let key = u64::from_str_radix(&condition.key, 16).map_err(|_| unknown())?;
        let held = match &condition.held {
            Held::Is(held) => Ok(*held),
            Held::Fault(word) => Err(proxy_policy::Fault::of_slug(word).ok_or_else(unknown)?),
        };
        Ok((key, held))
    };
    let answers = basis.conditions.iter().map(answer).collect::<Result<_, String>>()?;
    Ok(Recalled { answers, has_query })
}

/// What is asked, and when.
pub(super) fn of(of: Question, now: Moment) -> Basis {
    Basis { of, now: now.0, ..Basis::default() }
}

/// What a request is besides.
pub(super) fn kind(kind: CallKind) -> Option<RequestKind> {
    match kind {
        CallKind::Plain => None,
        CallKind::Grpc => Some(RequestKind::Grpc),
        CallKind::WebSocket => Some(RequestKind::Websocket),
    }
}

/// The same, read.
#[must_use]
pub fn call_kind(kind: Option<RequestKind>) -> CallKind {
    match kind {
        None => CallKind::Plain,
        Some(RequestKind::Grpc) => CallKind::Grpc,
        Some(RequestKind::Websocket) => CallKind::WebSocket,
    }
}
