//! What is probably not meant, in a policy without errors: asked for by `check`, never in the way of a load.
//!
//! | warning | told when |
//! | --- | --- |
//! | an operation is allowed already | an operation of the same grant, or an earlier one of the identity that has no condition and no earlier end, covers it. Of a role only when that holds for all that it allows. |
//! | a grant allows nothing | denies of the identity, which win, cover all that it allows |
//! | everything is allowed | `"* /**"` without a condition |
//! | every program matches | `exe = "/**"` and its like, as the only condition besides |
//! | nothing uses it | a role, API or credential; a role that stands in the file of its API is an offer, and is only missed when nothing of the file is used |
//! | a secret is typed | anywhere in a file, also in a comment |

mod secrets;
mod unused;

use std::sync::Arc;

use crate::diagnostic::{Findings, quote};
use crate::draft::Draft;
use crate::model::{Grant, Identity, Mode};
use crate::names::place_text;
use crate::operation::Operation;
use crate::place::Spanned;

pub(crate) use secrets::scan;

/// Reports what is probably not meant; `files` are the labels of the files.
pub(crate) fn check(draft: &Draft, identities: &[Identity], files: &[String], findings: &mut Findings) {
    unused::check(draft, findings);
    for identity in identities {
        check_width(identity, findings);
        for (at, grant) in identity.grants.iter().enumerate() {
            check_grant(identity, at, grant, files, findings);
        }
    }
}

/// Conditions that every program meets.
fn check_width(identity: &Identity, findings: &mut Findings) {
    let conditions = &identity.conditions;
    let exe = conditions.exe.as_ref().filter(|it| it.as_str() == "/**").map(|it| ("exe", it.place));
    let cgroup = conditions.cgroup.as_ref().filter(|it| it.as_str() == "/**").map(|it| ("cgroup", it.place));
    let unit = conditions.unit.as_ref().filter(|it| it.as_str() == "*").map(|it| ("unit", it.place));
    for (key, place) in [exe, cgroup, unit].into_iter().flatten() {
        findings.warning(
            place,
            format!("this \"{key}\" matches everything that has one"),
            "name what is meant, or remove it if the other conditions say it",
        );
    }
}

/// An operation of a grant, and the grant.
type Allowed<'i> = (&'i Grant, &'i Spanned<Arc<Operation>>);

fn check_grant(identity: &Identity, at: usize, grant: &Grant, files: &[String], findings: &mut Findings) {
    for operation in grant.allow.iter().filter(|it| grant.when.is_empty() && it.allows_everything()) {
        findings.warning(
            operation.place,
            format!("{} allows everything that the credential may do", quote(operation.as_str())),
            "name the operations that are meant, or add a condition",
        );
    }
    let covers: Vec<Option<Allowed<'_>>> =
        grant.allow.iter().map(|operation| allowed_already(identity, at, grant, operation)).collect();
    let denies: Vec<Option<&Spanned<Arc<Operation>>>> =
        grant.allow.iter().map(|operation| denied(identity, grant, operation)).collect();
    let Some(role) = &grant.role else {
        for (operation, (cover, deny)) in grant.allow.iter().zip(covers.iter().zip(&denies)) {
            if let Some(deny) = deny {
                findings.warning(
                    operation.place,
                    format!(
                        "{} is never allowed: {} at {} denies all of it",
                        quote(operation.as_str()),
                        quote(deny.as_str()),
                        place_text(deny.place, files)
                    ),
                    "deny wins: remove the allow, or make the deny narrower",
                );
            } else if let Some((_, cover)) = cover {
                already(operation, cover, files, findings);
            }
        }
        return;
    };
    for (operation, cover) in grant.allow.iter().zip(&covers) {
        if let Some((by, cover)) = cover
            && std::ptr::eq(*by, grant)
        {
            already(operation, cover, files, findings);
        }
    }
    let first = (covers.first(), denies.first());
    let from_others = covers.iter().flatten().filter(|(by, _)| !std::ptr::eq(*by, grant)).count();
    if let (Some(Some((_, cover))), _) = first
        && covers.iter().all(Option::is_some)
        && from_others > 0
    {
        findings.warning(
            grant.place,
            format!(
                "the role {} adds nothing here: all that it allows is already allowed, such as by {} at {}",
                quote(role),
                quote(cover.as_str()),
                place_text(cover.place, files)
            ),
            "remove it, or the grant before it; the first one gives the credential",
        );
    }
    if let (_, Some(Some(deny))) = first
        && denies.iter().all(Option::is_some)
    {
        findings.warning(
            grant.place,
            format!(
                "the role {} allows nothing here: denies of this identity win over all of it, such as {} at {}",
                quote(role),
                quote(deny.as_str()),
                place_text(deny.place, files)
            ),
            "remove the role, or make the denies narrower",
        );
    }
}

fn already(
    operation: &Spanned<Arc<Operation>>,
    cover: &Spanned<Arc<Operation>>,
    files: &[String],
    findings: &mut Findings,
) {
    findings.warning(
        operation.place,
        format!(
            "{} is already allowed by {} at {}",
            quote(operation.as_str()),
            quote(cover.as_str()),
            place_text(cover.place, files)
        ),
        "remove one of the two",
    );
}

/// What allows all of an operation before its grant is asked, or besides it in the same grant.
fn allowed_already<'i>(
    identity: &'i Identity,
    at: usize,
    grant: &'i Grant,
    operation: &Spanned<Arc<Operation>>,
) -> Option<Allowed<'i>> {
    let lasts = |earlier: &Grant| match (&earlier.until, &grant.until) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(earlier), Some(own)) => earlier.end() >= own.end(),
    };
    let before = identity.grants.iter().take(at);
    let before = before.filter(|it| it.api == grant.api && it.when.is_empty() && lasts(it));
    let mut earlier = before.flat_map(|it| it.allow.iter().map(move |cover| (it, cover)));
    if let Some(found) = earlier.find(|(_, cover)| cover.allows_all_of(operation)) {
        return Some(found);
    }
    // Of two that are the same, which is reported where lists are read, none is told here.
    let besides = grant.allow.iter().find(|other| {
        other.place != operation.place
            && other.as_str() != operation.as_str()
            && other.allows_all_of(operation)
            && (!operation.allows_all_of(other) || other.place < operation.place)
    });
    besides.map(|cover| (grant, cover))
}

/// A deny of another grant that wins over all of an operation. Those of the same list are told where it is read.
fn denied<'i>(
    identity: &'i Identity,
    grant: &Grant,
    operation: &Operation,
) -> Option<&'i Spanned<Arc<Operation>>> {
    let enforced = |it: &&Grant| {
        it.api == grant.api && it.when.is_empty() && it.mode == Mode::Enforce && !std::ptr::eq(*it, grant)
    };
    if identity.mode == Mode::Observe {
        return None;
    }
    let mut denies = identity.grants.iter().filter(enforced).flat_map(|it| &it.deny);
    denies.find(|deny| deny.denies_all_of(operation))
}
