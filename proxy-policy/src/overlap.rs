//! Finds identities that cannot be told apart: every workload of one is certainly one of the other, too.
//!
//! What cannot be proven here (two patterns that happen to match the same path, say) shows at run time: a workload that
//! matches two identities has none.

use std::collections::HashMap;

use crate::diagnostic::{Findings, quote};
use crate::draft::IdentityDraft;
use crate::names::place_text;

/// Reports every pair, at both places.
pub(crate) fn check(identities: &[IdentityDraft], files: &[String], findings: &mut Findings) {
    let comparable: Vec<&IdentityDraft> =
        identities.iter().filter(|identity| identity.comparable && !identity.conditions.is_empty()).collect();
    // Of two that each name another user, neither can cover the other: those are not compared.
    let mut by_user: HashMap<Option<&str>, Vec<usize>> = HashMap::new();
    for (i, identity) in comparable.iter().enumerate() {
        by_user.entry(user(identity)).or_default().push(i);
    }
    let anybody = by_user.get(&None).map(Vec::as_slice).unwrap_or_default();
    for (i, a) in comparable.iter().enumerate() {
        let mut others: Vec<usize> = match user(a) {
            None => (i + 1..comparable.len()).collect(),
            named => {
                by_user.get(&named).into_iter().flatten().chain(anybody).copied().filter(|j| *j > i).collect()
            }
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

fn user(identity: &IdentityDraft) -> Option<&str> {
    identity.conditions.user.as_ref().map(|user| user.value.as_str())
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
