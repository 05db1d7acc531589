//! Ties segments together that were proved apart: one chain, one line of keys, a beginning that is accounted for.

use uuid::Uuid;

use crate::chain::Head;
use crate::key::PublicKey;
use crate::keys::Keys;
use crate::sealed::{Mark, Marked, Sealed};
use crate::signed::Retired;
use crate::verify::{Break, Fault, SealFault};

/// What is known of the journal up to the end of a segment.
#[derive(Debug, Default)]
pub(crate) struct Stitch {
    /// Where the next segment must go on; `None` before the first one.
    pub(crate) head: Option<Head>,
    /// The record before the first one that is there.
    pub(crate) before: Head,
    pub(crate) records: u64,
    pub(crate) journal: Option<Uuid>,
    /// The key whose turn it is.
    pub(crate) key: Option<PublicKey>,
    pub(crate) keys: Keys,
    /// Sequence number of the last record that a checkpoint is over.
    pub(crate) signed: u64,
    /// What says that older segments are gone on purpose.
    retired: Vec<Retired>,
    /// The last record of each segment, and the one before the first.
    ends: Vec<Head>,
    sealed: bool,
}

impl Stitch {
    pub(crate) fn new(keys: Keys) -> Stitch {
        Stitch { keys, ..Stitch::default() }
    }

    /// Goes on with the next segment. Returns its first break.
    pub(crate) fn add(&mut self, segment: &Sealed) -> Option<Break> {
        let begins =
            |what| Some(Break { seq: segment.before.seq.saturating_add(1), line: 1, byte_offset: 0, what });
        // One without a record in it says nothing, whatever is wrong with its first line.
        if segment.records == 0 {
            return segment.first_break;
        }
        match self.head {
            None => {
                self.before = segment.before;
                self.ends.push(segment.before);
            }
            Some(head) if head.seq != segment.before.seq => {
                let (expected, found) = (head.seq.saturating_add(1), segment.before.seq.saturating_add(1));
                return begins(Fault::Seq { expected, found });
            }
            Some(head) if head.hash != segment.before.hash => return begins(Fault::Prev),
            // Before there were keys, nothing was sealed.
            Some(_) if self.key.is_some() && !self.sealed => {
                return begins(Fault::Seal(SealFault::Unsealed));
            }
            Some(_) => {}
        }
        if let Some(start) = &segment.start {
            if self.journal.is_some() && start.journal != self.journal {
                return begins(Fault::Seal(SealFault::Journal));
            }
            if let (Some(expected), Some(found)) = (self.key, start.key)
                && expected != found
            {
                return begins(Fault::Seal(SealFault::Stranger { expected, found }));
            }
            (self.journal, self.key) = (start.journal, start.key);
        }
        for marked in &segment.marks {
            if let Err(what) = self.mark(marked) {
                return Some(marked.broken(what));
            }
        }
        self.head = Some(segment.head);
        self.ends.push(segment.head);
        self.records += segment.records;
        self.sealed = segment.ends_sealed;
        segment.first_break
    }

    fn mark(&mut self, marked: &Marked) -> Result<(), SealFault> {
        match &marked.mark {
            Mark::Key(change) => {
                if self.journal.is_some_and(|journal| journal != change.journal) {
                    return Err(SealFault::Journal);
                }
                if change.former != self.key {
                    return Err(SealFault::Usurper);
                }
                (self.journal, self.key) = (Some(change.journal), Some(change.key));
                self.keys.learn(change);
            }
            Mark::Checkpoint(checkpoint) => {
                let Some(expected) = self.key else { return Err(SealFault::Usurper) };
                if checkpoint.key != expected {
                    return Err(SealFault::Stranger { expected, found: checkpoint.key });
                }
                if Some(checkpoint.journal) != self.journal {
                    return Err(SealFault::Journal);
                }
                self.signed = marked.seq - 1;
            }
            Mark::Retired(retired) => self.retired.push(retired.clone()),
        }
        Ok(())
    }

    /// Whether what is missing at the beginning was retired: a record says so, and names a head that is the one here.
    pub(crate) fn begins_well(&self) -> bool {
        let first = self.before;
        if first == Head::GENESIS {
            return true;
        }
        self.retired.iter().any(|retired| {
            let there = self.ends.iter().find(|end| end.seq == retired.through);
            retired.through >= first.seq && there.is_some_and(|end| end.hash == retired.head)
        })
    }
}
