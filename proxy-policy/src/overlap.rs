//! Finds identities that cannot be told apart: every workload of one is certainly one of the other, too.
//!
//! What cannot be proven here (two patterns that happen to match the same path, say) shows at run time: a workload that
//! matches two identities has none.

use std::collections::HashMap;

use crate::conditions::Conditions;
use crate::diagnostic::{Findings, quote};
use crate::draft::IdentityDraft;
use crate::names::place_text;

/// Reports every pair, at both places.
pub(crate) fn check(identities: &[IdentityDraft], files: &[String], findings: &mut Findings) {
    let comparable: Vec<&IdentityDraft> =
        identities.iter().filter(|identity| identity.comparable && !identity.conditions.is_empty()).collect();
    let by_value: Vec<ByValue<'_>> = EXACT.iter().map(|value| ByValue::of(&comparable, *value)).collect();
    for (i, a) in comparable.iter().enumerate() {
        let mut others: Vec<usize> = match by_value.iter().filter_map(|by| by.near(a)).min_by_key(Near::len) {
            None => (i + 1..comparable.len()).collect(),
            Some(near) => near.positions().filter(|j| *j > i).collect(),
        };
        others.sort_unstable();
        for b in others.into_iter().filter_map(|j| comparable.get(j)) {
            let (forth, back) = (a.conditions.cover(&b.conditions), b.conditions.cover(&a.conditions));
            match (forth, back) {
                (true, true) => {
                    for (here, there) in [(a, b), (b, a)] {
                        report(here, there, "has the same conditions as", files, findings);
                    }
                }
                (true, false) => {
                    report(a, b, "matches every workload of", files, findings);
                    report(b, a, "has only workloads that are also", files, findings);
                }
                (false, true) => {
                    report(b, a, "matches every workload of", files, findings);
                    report(a, b, "has only workloads that are also", files, findings);
                }
                (false, false) => {}
            }
        }
    }
}

/// What a condition names exactly, if it does.
type Exact = for<'d> fn(&'d Conditions) -> Option<&'d str>;

/// Of two identities that each name another one of these, neither can cover the other.
const EXACT: [Exact; 5] = [
    |it| it.user.as_ref().map(|user| user.value.as_str()),
    |it| it.exe.as_ref()?.literal(),
    |it| it.script.as_ref()?.literal(),
    |it| it.unit.as_ref()?.literal(),
    |it| it.cgroup.as_ref()?.literal(),
];

/// The positions of identities by what one condition names.
struct ByValue<'d> {
    value: Exact,
    positions: HashMap<Option<&'d str>, Vec<usize>>,
}

impl<'d> ByValue<'d> {
    fn of(identities: &[&'d IdentityDraft], value: Exact) -> Self {
        let mut positions: HashMap<Option<&str>, Vec<usize>> = HashMap::new();
        for (i, identity) in identities.iter().enumerate() {
            positions.entry(value(&identity.conditions)).or_default().push(i);
        }
        Self { value, positions }
    }

    /// Those that may overlap with this one; nothing if this condition does not say.
    fn near<'b>(&'b self, identity: &'d IdentityDraft) -> Option<Near<'b>> {
        let named = Some((self.value)(&identity.conditions)?);
        let of = |name| self.positions.get(&name).map(Vec::as_slice).unwrap_or_default();
        Some(Near { same: of(named), any: of(None) })
    }
}

/// Those that name the same, and those that name nothing exactly.
struct Near<'b> {
    same: &'b [usize],
    any: &'b [usize],
}

impl Near<'_> {
    fn len(&self) -> usize {
        self.same.len() + self.any.len()
    }

    fn positions(&self) -> impl Iterator<Item = usize> {
        self.same.iter().chain(self.any).copied()
    }
}

fn report(here: &IdentityDraft, there: &IdentityDraft, how: &str, files: &[String], findings: &mut Findings) {
    findings.error(
        here.name.place,
        format!(
            "overlapping identities: {} {how} {} at {}",
            quote(&here.name),
            quote(&there.name),
            place_text(there.name.place, files)
        ),
        "add a condition that tells them apart to both, such as user, unit or sha256",
    );
}
