//! Following the journal for people: what comes is shown as calls, and what becomes of the journal meanwhile is told.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Write};

use proxy_journal::archive::{Call, Line};
use proxy_journal::facts::Part;
use proxy_journal::follow::{Follower, Step};
use proxy_journal::{Archive, Facts, Place, text};
use uuid::Uuid;

use super::filter::Wanted;
use super::{human_line, json_lines};

/// How many open calls are remembered; the outcome of an older one is shown without its request.
const REMEMBERED: usize = 10_000;

/// Shows what was written since the last look.
pub(super) fn look(follower: &mut Follower, shower: &mut Shower, out: &mut impl Write) -> anyhow::Result<()> {
    loop {
        match follower.next()? {
            Step::End => return Ok(()),
            Step::Line(line) => {
                let after = &follower.cursor().place;
                let length = u64::try_from(line.text.len()).unwrap_or(u64::MAX);
                let offset = after.offset.saturating_sub(length.saturating_add(1));
                let place = Place { segment: after.segment, offset };
                shower.show(Line { place, text: line.text.into_bytes() }, out)?;
            }
            Step::Unreadable(fault) => {
                let after = &follower.cursor().place;
                shower
                    .say(out, &format!("segment {}, before byte {}: {fault}", after.segment, after.offset))?;
            }
            Step::Lost { first, last } => {
                shower
                    .say(out, &format!("the records {first} to {last} have gone before they were shown"))?;
            }
            Step::Changed { back_to: 0, .. } => {
                shower.say(out, "the journal was replaced; what is there is shown from its beginning")?;
            }
            Step::Changed { back_to, .. } => {
                let told =
                    format!("not all after record {back_to} is what it was; what is there now is shown");
                shower.say(out, &told)?;
            }
        }
    }
}

/// Turns what comes into lines for the screen: a call when it has ended.
pub(super) struct Shower {
    /// `None`: records are shown as they come.
    calls: Option<Calls>,
}

struct Calls {
    wanted: Wanted,
    json: bool,
    colour: bool,
    /// For the decisions of calls that were open when following began.
    archive: Archive,
    open: HashMap<Uuid, Line>,
    order: VecDeque<Uuid>,
}

impl Shower {
    /// Every record as it stands there.
    pub(super) fn raw() -> Shower {
        Shower { calls: None }
    }

    /// The calls that are wanted.
    pub(super) fn new(archive: Archive, wanted: Wanted, json: bool, colour: bool) -> Shower {
        let (open, order) = (HashMap::new(), VecDeque::new());
        Shower { calls: Some(Calls { wanted, json, colour, archive, open, order }) }
    }

    /// Says something of the journal itself, to people.
    fn say(&self, out: &mut impl Write, what: &str) -> io::Result<()> {
        if self.calls.as_ref().is_some_and(|calls| !calls.json) {
            writeln!(out, "!! {}", text::escape(what))?;
        }
        Ok(())
    }

    fn show(&mut self, line: Line, out: &mut impl Write) -> anyhow::Result<()> {
        let Some(calls) = &mut self.calls else {
            writeln!(out, "{}", text::escape_json(&String::from_utf8_lossy(&line.text)))?;
            return Ok(());
        };
        let Some(call) = calls.call(line)? else { return Ok(()) };
        if !calls.wanted.matches(&call.facts) {
            return Ok(());
        }
        let shown = if calls.json { json_lines(&call) } else { vec![human_line(&call, calls.colour)] };
        Ok(shown.iter().try_for_each(|line| writeln!(out, "{line}"))?)
    }
}

impl Calls {
    /// The call that this line ends; `None` for a decision whose outcome follows.
    fn call(&mut self, line: Line) -> anyhow::Result<Option<Call>> {
        let decision = match Part::of(&line.text) {
            Part::Opens(id) => {
                self.remember(id, line);
                return Ok(None);
            }
            Part::Ends(id) => match self.open.remove(&id) {
                Some(decision) => Some(decision),
                // What is older can be gone, or cannot be read: then the outcome stands alone.
                None => self
                    .archive
                    .decision_before(id, line.place)
                    .ok()
                    .flatten()
                    .and_then(|place| self.archive.line(place).ok().flatten()),
            },
            Part::Alone => None,
        };
        let facts = Facts::of(&line.text, decision.as_ref().map(|line| line.text.as_slice()))?;
        Ok(Some(Call { facts, decision, line }))
    }

    fn remember(&mut self, id: Uuid, line: Line) {
        self.open.insert(id, line);
        self.order.push_back(id);
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
