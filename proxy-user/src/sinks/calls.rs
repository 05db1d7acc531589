//! Gives each outcome the decision of its call, from a bounded memory of the last ones.

use std::collections::{HashMap, VecDeque};
use std::io::BufRead as _;
use std::path::Path;
use std::sync::Arc;

use proxy_journal::follow::Place;
use proxy_journal::{Content, Decision, Entry, Record, Source, Verdict, segment};
use uuid::Uuid;

/// Calls that are open, at most; of those that began before, outcomes go without a decision.
const MOST_OPEN: usize = 8192;
/// Calls that have ended, whose outcome may be sent once more.
const MOST_ENDED: usize = 1024;
/// How much of the journal before the cursor is read at a start, for the decisions of calls that were open then.
const LOOK_BACK: u64 = 4 << 20;

/// The calls that are known.
#[derive(Debug, Default)]
pub(super) struct Calls {
    known: HashMap<Uuid, Call>,
    /// In the order in which they began; some of them have ended.
    begun: VecDeque<Uuid>,
    /// In the order in which they ended.
    ended: VecDeque<Uuid>,
}

#[derive(Debug)]
struct Call {
    decision: Arc<Decision>,
    ended: bool,
}

impl Calls {
    /// What stands before a place, as far as it is near.
    pub(super) fn before(journal: &Path, place: &Place) -> Calls {
        let mut calls = Calls::default();
        // Without it some outcomes go without the fields of their decisions.
        if let Err(error) = calls.look_back(journal, place) {
            tracing::debug!(%error, "the journal cannot be read before the place of a sink");
        }
        calls
    }

    fn look_back(&mut self, journal: &Path, place: &Place) -> std::io::Result<()> {
        let all = segment::list(journal)?;
        let Some((_, path)) = all.iter().find(|(number, _)| *number == place.segment) else { return Ok(()) };
        let begin = place.offset.saturating_sub(LOOK_BACK);
        let source = Source::open_at(path, begin)?;
        let mut source = std::io::Read::take(source, place.offset - begin);
        let mut line = Vec::new();
        // The first one may be half of a line, which is none.
        while source.read_until(b'\n', &mut line)? > 0 {
            line.pop();
            if let Ok(Entry { content: Content::Known(record), .. }) = Entry::parse(&line) {
                self.see(&record);
            }
            line.clear();
        }
        Ok(())
    }

    /// Takes a record in; of an outcome, returns its decision.
    pub(super) fn see(&mut self, record: &Record) -> Option<Arc<Decision>> {
        match record {
            Record::Decision(decision) if decision.verdict == Verdict::Allow => {
                let call = Call { decision: Arc::clone(decision), ended: false };
                if self.known.contains_key(&decision.id) {
                    return None;
                }
                self.known.insert(decision.id, call);
                self.begun.push_back(decision.id);
                if self.begun.len() > MOST_OPEN
                    && let Some(oldest) = self.begun.pop_front()
                    && self.known.get(&oldest).is_some_and(|call| !call.ended)
                {
                    self.known.remove(&oldest);
                }
                None
            }
            Record::Outcome(outcome) => {
                let call = self.known.get_mut(&outcome.id)?;
                let decision = Arc::clone(&call.decision);
                if !std::mem::replace(&mut call.ended, true) {
                    self.ended.push_back(outcome.id);
                }
                if self.ended.len() > MOST_ENDED
                    && let Some(oldest) = self.ended.pop_front()
                {
                    self.known.remove(&oldest);
                }
                Some(decision)
            }
            _ => None,
        }
    }
}
