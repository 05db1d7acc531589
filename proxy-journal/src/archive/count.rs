//! Counts calls by who and what, from the rows of indexes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Batch, Hit, Words};
use crate::facts::Ruling;
use crate::index::{DICTIONARIES, number};

/// Groups that are told apart; what bots make up (hosts, paths) must not fill the memory of those who look.
const MOST_GROUPS: usize = 20_000;

/// The texts that a group has in common, in the order of what is counted by.
pub type Key = Vec<Option<String>>;

/// Calls that are counted together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Group {
    /// How many there are.
    pub calls: u64,
    /// How many were refused.
    pub denied: u64,
    /// How many would have been refused.
    pub observed: u64,
    /// How many ended with an error, with a status from 500 on, or in a way that is not known.
    pub errors: u64,
    /// Bytes that were sent.
    pub sent: u64,
    /// Bytes that were received.
    pub received: u64,
    /// How long they took.
    durations: Durations,
}

impl Group {
    fn add(&mut self, hit: &Hit, ruling: Option<Ruling>) {
        let row = &hit.row;
        self.calls += 1;
        self.denied += u64::from(ruling == Some(Ruling::Deny));
        self.observed += u64::from(ruling == Some(Ruling::Observed));
        let failed = row.error || row.interrupted || row.status.is_some_and(|status| status >= 500);
        self.errors += u64::from(failed);
        self.sent = self.sent.saturating_add(row.sent);
        self.received = self.received.saturating_add(row.received);
        // How long a call took that a stop of the daemon ended is not known.
        if let Some(duration) = row.duration.filter(|_| !row.interrupted) {
            self.durations.add(duration >> COARSER, 1);
        }
    }

    fn merge(&mut self, other: &Group) {
        self.calls += other.calls;
        self.denied += other.denied;
        self.observed += other.observed;
        self.errors += other.errors;
        self.sent = self.sent.saturating_add(other.sent);
        self.received = self.received.saturating_add(other.received);
        for (duration, count) in other.durations.all() {
            self.durations.add(duration, count);
        }
    }

    /// The duration, in microseconds, that this share (in a hundred) of the calls did not exceed.
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let all: u64 = self.durations.all().map(|(_, count)| u64::from(count)).sum();
        let rank = all.saturating_mul(percent).div_ceil(100).max(1);
        let mut seen = 0;
        self.durations.all().find_map(|(duration, count)| {
            seen += u64::from(count);
            (seen >= rank).then(|| number::of_short(duration << COARSER))
        })
    }
}

/// How many calls took so long, by the short numbers of microseconds, without their last bits: to less than a hundredth.
#[derive(Debug, Clone, Default, PartialEq)]
struct Durations {
    /// While there are few, as most groups of many are: it takes little memory.
    few: BTreeMap<u16, u32>,
    /// Then: it takes little time.
    many: Vec<u32>,
}

/// Bits of a short number that are left out.
const COARSER: u32 = 3;

/// How many different durations are few.
const FEW: usize = 64;

impl Durations {
    fn add(&mut self, duration: u16, count: u32) {
        if self.many.is_empty() {
            let known = self.few.entry(duration).or_default();
            *known = known.saturating_add(count);
            if self.few.len() > FEW {
                for (duration, count) in std::mem::take(&mut self.few) {
                    self.add_many(duration, count);
                }
            }
        } else {
            self.add_many(duration, count);
        }
    }

    fn add_many(&mut self, duration: u16, count: u32) {
        let at = usize::from(duration);
        if at >= self.many.len() {
            self.many.resize(at + 1, 0);
        }
        if let Some(known) = self.many.get_mut(at) {
            *known = known.saturating_add(count);
        }
    }

    /// All that there are, the shortest first.
    fn all(&self) -> impl Iterator<Item = (u16, u32)> {
        let many = (0..).zip(self.many.iter().copied()).filter(|(_, count)| *count > 0);
        self.few.iter().map(|(duration, count)| (*duration, *count)).chain(many)
    }
}

/// All groups.
#[derive(Default)]
pub struct Counted {
    groups: Vec<Group>,
    numbers: HashMap<Key, usize>,
    /// Calls of groups that are too many.
    rest: Option<usize>,
    /// The groups of rows with these words of the index that was read last.
    known: HashMap<[u16; DICTIONARIES], usize>,
    words: Option<Words>,
}

impl Counted {
    /// The group with these texts.
    pub fn group(&mut self, key: Key) -> usize {
        if let Some(at) = self.numbers.get(&key) {
            return *at;
        }
        if self.numbers.len() >= MOST_GROUPS {
            return self.others();
        }
        self.groups.push(Group::default());
        let at = self.groups.len() - 1;
        self.numbers.insert(key, at);
        at
    }

    /// The group of a row, if its index knows.
    pub fn of_row(&mut self, words: &Words, hit: &Hit, columns: &[usize]) -> Option<usize> {
        if self.words.as_ref().is_none_or(|known| !Arc::ptr_eq(known, words)) {
            self.known.clear();
            self.words = Some(Arc::clone(words));
        }
        let mut numbers = [0; DICTIONARIES];
        for column in columns {
            if let Some(number) = numbers.get_mut(*column) {
                *number = hit.row.word(*column);
            }
        }
        if hit.row.unpaired {
            return None;
        }
        if let Some(at) = self.known.get(&numbers) {
            return Some(*at);
        }
        let key = columns.iter().map(|column| Batch::word(words, &hit.row, *column)).collect::<Option<Key>>();
        let at = self.group(key?);
        self.known.insert(numbers, at);
        Some(at)
    }

    /// Counts a call into a group.
    pub fn add(&mut self, at: usize, hit: &Hit, ruling: Option<Ruling>) {
        if let Some(group) = self.groups.get_mut(at) {
            group.add(hit, ruling);
        }
    }

    /// Takes in what was counted elsewhere.
    pub fn merge(&mut self, other: Counted) {
        let Counted { mut groups, numbers, rest, .. } = other;
        let mut keys: Vec<(Option<Key>, usize)> =
            numbers.into_iter().map(|(key, at)| (Some(key), at)).collect();
        // In the order in which they came, as if they had been counted here.
        keys.sort_unstable_by_key(|(_, at)| *at);
        keys.extend(rest.map(|at| (None, at)));
        for (key, at) in keys {
            let group = groups.get_mut(at).map(std::mem::take).unwrap_or_default();
            let here = match key {
                Some(key) => self.group(key),
                None => self.others(),
            };
            if let Some(known) = self.groups.get_mut(here) {
                known.merge(&group);
            }
        }
    }

    /// The group of calls whose own one would be one too many.
    fn others(&mut self) -> usize {
        let groups = &mut self.groups;
        *self.rest.get_or_insert_with(|| {
            groups.push(Group::default());
            groups.len() - 1
        })
    }

    /// The groups, the most calls first, and all together.
    pub fn sorted(mut self) -> (Vec<(Option<Key>, Group)>, Group) {
        let mut total = Group::default();
        self.groups.iter().for_each(|group| total.merge(group));
        let mut take = |at: usize| self.groups.get_mut(at).map(std::mem::take).unwrap_or_default();
        let mut groups: Vec<_> = self.numbers.drain().map(|(key, at)| (Some(key), take(at))).collect();
        groups.sort_by(|(a, left), (b, right)| right.calls.cmp(&left.calls).then_with(|| a.cmp(b)));
        groups.extend(self.rest.map(|at| (None, take(at))));
        (groups, total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_counted_in_shares_is_what_is_counted_at_once() {
        let key = |number: usize| vec![Some(number.to_string())];
        let count = |counted: &mut Counted, range: std::ops::Range<usize>| {
            for number in range {
                let at = counted.group(key(number % (MOST_GROUPS + 10)));
                counted.groups[at].calls += 1;
            }
        };
        for (all, cut) in [(100, 40), (2 * MOST_GROUPS + 50, MOST_GROUPS + 15)] {
            let (mut once, mut first, mut second) = Default::default();
            count(&mut once, 0..all);
            count(&mut first, 0..cut);
            count(&mut second, cut..all);
            first.merge(second);
            let (mut groups, total) = first.sorted();
            let (mut expected, expected_total) = once.sorted();
            groups.sort_by(|(a, _), (b, _)| a.cmp(b));
            expected.sort_by(|(a, _), (b, _)| a.cmp(b));
            assert!(total == expected_total && total.calls == all as u64);
            // Beyond the bound, which ones are told apart hangs on who came first in each share.
            assert!(groups.len() == expected.len() && (groups == expected || all > MOST_GROUPS));
        }
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_sorted_durations_to_a_hundredth(mut all in prop::collection::vec(0..10_000_000_u64, 1..300)) {
            let mut group = Group::default();
            for duration in &all {
                group.durations.add(number::short(*duration) >> COARSER, 1);
            }
            let mut twice = Group::default();
            twice.merge(&group);
            prop_assert_eq!(&twice, &group);
            all.sort_unstable();
            for percent in [1, 50, 99, 100] {
                let rank = (all.len() * percent).div_ceil(100).max(1);
                let (exact, told) = (all[rank - 1], group.percentile(percent as u64).unwrap());
                prop_assert!(told <= exact && exact - told <= exact / 100 + 7, "{percent}: {exact} {told}");
            }
        }
    }
}
