//! What conditions came to, kept with a decision, so that it can be taken again without what they looked at.
//!
//! Headers, query and body of a call are kept by nobody. Whoever records a decision keeps the [`Answer`]s of the conditions that looked
//! at them ([`Memory::Keep`]); whoever decides the call again has these in their place ([`Memory::Recall`]). An answer is found by its
//! `key`, in which is everything besides the call itself that the condition was given: another condition, or the same one about other
//! values of a role, has another key, and then there is no answer.

use std::cell::RefCell;

use sha2::{Digest as _, Sha256};

use crate::model::When;
use crate::place::Place;
use crate::when::Fault;

/// What a condition came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Where the condition stands.
    pub place: Place,
    /// Names the condition, with all that it was given besides the call.
    pub key: u64,
    /// Whether it holds.
    pub held: Result<bool, Fault>,
}

/// What is done about the answers of conditions that look at headers, query or body.
#[derive(Clone, Copy, Debug, Default)]
pub enum Memory<'a> {
    /// Nothing.
    #[default]
    None,
    /// They are put there, each once.
    Keep(&'a RefCell<Vec<Answer>>),
    /// They are taken from there, and nothing of the request is looked at.
    Recall(&'a Recalled),
}

/// The answers of a call that was recorded.
#[derive(Clone, Debug, Default)]
pub struct Recalled {
    /// Key and answer of each condition.
    pub answers: Vec<(u64, Result<bool, Fault>)>,
    /// Whether there was a query. Without one, a condition that looks at no more than it is evaluated.
    pub has_query: bool,
}

impl Recalled {
    pub(crate) fn of(&self, key: u64) -> Option<Result<bool, Fault>> {
        self.answers.iter().find(|(known, _)| *known == key).map(|(_, held)| *held)
    }
}

/// How many answers of one decision are kept: a refused call costs its sender nothing, and may not fill a record. What hangs on
/// others cannot be said later.
const MOST_KEPT: usize = 64;

pub(crate) fn keep(kept: &RefCell<Vec<Answer>>, answer: Answer) {
    // Nobody else holds it: conditions are asked one after the other.
    if let Ok(mut kept) = kept.try_borrow_mut()
        && kept.len() < MOST_KEPT
        && !kept.contains(&answer)
    {
        kept.push(answer);
    }
}

/// The key of a condition. `view` stands for what is taken out of the headers before a condition sees them.
pub(crate) fn key(when: &When, captures: &[(&str, String)], body_limit: usize, view: u64) -> u64 {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(bytes);
    };
    part(when.condition.as_str().as_bytes());
    for (name, value) in &*when.params {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    part(&[u8::MAX]);
    for (name, value) in captures {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    if when.condition.uses_body() {
        part(b"body");
        part(&u64::try_from(body_limit).unwrap_or(u64::MAX).to_le_bytes());
    }
    if when.condition.uses_headers() {
        part(b"headers");
        part(&view.to_le_bytes());
    }
    first(&hash.finalize())
}

/// What is taken out of the headers of an API's requests before conditions see them, as a number.
pub(crate) fn view(api: &crate::model::Api) -> u64 {
    let text = format!("{:?} {:?} {:?}", api.strip, api.keep, api.inject);
    first(&Sha256::digest(text))
}

/// The first eight bytes of a digest, as a number.
pub(crate) fn first(digest: &[u8]) -> u64 {
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::FileId;

    #[test]
    fn a_call_that_many_conditions_were_asked_for_does_not_fill_its_record() {
        let kept = RefCell::default();
        for key in (0..1000).chain(0..1000) {
            let place = Place { file: FileId(0), line: 1, column: 1 };
            keep(&kept, Answer { place, key, held: Ok(false) });
        }
        assert_eq!(kept.borrow().len(), MOST_KEPT);
        assert_eq!(kept.borrow().last().map(|answer| answer.key), Some(63), "the first ones, each once");
    }
}
