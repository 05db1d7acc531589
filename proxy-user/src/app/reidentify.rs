//! Which identity a recorded workload would have by another policy than the one that decided.
//!
//! Identities that ask the same as one of then ([`proxy_policy::Conditions::key`]) are met as they were then: the record says by whom.
//! The others are held against what the record has of the workload ([`Recaller`]); what it does not have is not guessed.

use std::collections::HashMap;

use proxy_journal::{Decision, IdentityKeys};
use proxy_policy::{IdentityId, PolicySet};

use crate::workload::Identified;
use crate::workload::recalled::{Met, Recaller, workload};

/// More identities than this have no keys in the journal: a record has bounds.
const MOST: usize = 4096;

/// What the identities of a policy ask, for the journal.
pub(super) fn keys(set: &PolicySet) -> IdentityKeys {
    if set.identities().count() > MOST {
        return IdentityKeys::new();
    }
    set.identities().map(|it| (it.name.clone(), format!("{:016x}", it.conditions.key()))).collect()
}

/// The identities of a policy, held against those of the policy that decided.
#[derive(Debug)]
pub struct Identities {
    /// Those that ask what one of then asked, by the name of that one.
    same: HashMap<String, Vec<IdentityId>>,
    /// Those that ask something else.
    other: Vec<IdentityId>,
}

impl Identities {
    /// `then`: what the policy asked that decided; `set`: the one that is to decide.
    #[must_use]
    pub fn new(then: &IdentityKeys, set: &PolicySet) -> Self {
        let (mut same, mut other) = (HashMap::<String, Vec<IdentityId>>::new(), Vec::new());
        for identity in set.identities() {
            let key = format!("{:016x}", identity.conditions.key());
            let mut found = then.iter().filter(|(_, of)| **of == key).map(|(name, _)| name).peekable();
            if found.peek().is_none() {
                other.push(identity.id);
            }
            for name in found {
                same.entry(name.clone()).or_default().push(identity.id);
            }
        }
        Self { same, other }
    }

    /// Who the workload of a decision would be. Blocks on the file system.
    ///
    /// # Errors
    /// It hangs on what is not recorded; in words.
    pub fn identify(
        &self,
        set: &PolicySet,
        entry: &Decision,
        recaller: &Recaller,
    ) -> Result<Identified, String> {
        let recorded = &entry.workload;
        let traced = recorded.known.as_ref().is_some_and(|known| known.traced);
        if recorded.start_time_ns == 0 || traced {
            return Ok(Identified::None("it is nobody, as it was then".to_owned().into()));
        }
        let several = entry.basis.iter().flat_map(|basis| &basis.several);
        let then = entry.identity.iter().chain(several);
        let mut met: Vec<IdentityId> =
            then.filter_map(|name| self.same.get(name)).flatten().copied().collect();
        let mut unknown = None;
        let workload = workload(recorded);
        for identity in self.other.iter().filter_map(|id| set.identity(*id)) {
            match recaller.meets(recorded, &workload, &identity.conditions) {
                Met::Yes => met.push(identity.id),
                Met::No => {}
                Met::Unknown(condition) => unknown = unknown.or(Some((identity, condition))),
            }
        }
        met.sort_unstable();
        met.dedup();
        match (met.as_slice(), unknown) {
            ([_, _, ..], _) => {
                let names = met.iter().filter_map(|id| set.identity(*id)).map(|it| it.name.clone());
                Ok(Identified::Ambiguous(names.collect()))
            }
            (_, Some((identity, condition))) => Err(format!(
                "whether it would be {} hangs on {}, which is not recorded ({})",
                identity.name,
                condition.as_str(),
                identity.file
            )),
            ([one], None) => Ok(Identified::One(*one)),
            ([], None) => Ok(Identified::None("no identity of the policy is met by it".to_owned().into())),
        }
    }
}

#[cfg(test)]
#[path = "reidentify_tests.rs"]
mod tests;
