//! Which rules decided some call: an allow that allowed one, a deny that denied one.

use std::collections::BTreeMap;

use proxy_policy::PolicySet;

use crate::app::rehearse::Decided;

/// The rules of a set by where they stand, and whether each decided a call. A rule of a role counts once, whoever has it.
#[derive(Debug, Default)]
pub(super) struct Coverage {
    rules: BTreeMap<(String, u32, u32), Rule>,
}

/// A rule, and whether it decided a call.
#[derive(Debug)]
pub(super) struct Rule {
    /// `allow` or `deny`.
    pub(super) kind: &'static str,
    /// The operation, with the values of the first grant that has it.
    pub(super) text: String,
    decided: bool,
}

impl Coverage {
    pub(super) fn of(set: &PolicySet) -> Self {
        let mut rules = BTreeMap::new();
        for grant in set.identities().flat_map(|identity| &identity.grants) {
            for (kind, operations) in [("allow", &grant.allow), ("deny", &grant.deny)] {
                for operation in operations {
                    let file = set.file_name(operation.place.file).unwrap_or_default().to_owned();
                    let place = (file, operation.place.line, operation.place.column);
                    let rule = || Rule { kind, text: operation.as_str().to_owned(), decided: false };
                    rules.entry(place).or_insert_with(rule);
                }
            }
        }
        Self { rules }
    }

    pub(super) fn count(&mut self, decided_by: &[Decided]) {
        for Decided { file, line, column, .. } in decided_by {
            if let Some(rule) = self.rules.get_mut(&(file.clone(), *line, *column)) {
                rule.decided = true;
            }
        }
    }

    /// How many rules there are.
    pub(super) fn rules(&self) -> usize {
        self.rules.len()
    }

    /// How many of them decided a call.
    pub(super) fn decided(&self) -> usize {
        self.rules.values().filter(|rule| rule.decided).count()
    }

    /// Those that decided none, by file, line and column.
    pub(super) fn missing(&self) -> impl Iterator<Item = (&str, u32, u32, &Rule)> {
        let missing = self.rules.iter().filter(|(_, rule)| !rule.decided);
        missing.map(|((file, line, column), rule)| (file.as_str(), *line, *column, rule))
    }

    /// The share that decided a call, rounded down: 100 is all of them.
    pub(super) fn percent(&self) -> u8 {
        let percent = (self.decided() * 100).checked_div(self.rules()).unwrap_or(100);
        u8::try_from(percent).unwrap_or(100)
    }
}
