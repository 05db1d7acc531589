//! What changes between two tables: identities, grants and rules, APIs and credentials, before and after.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::table::{GrantRow, IdentityRows, Table};

/// All differences between two policies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// By name.
    pub identities: Vec<Change<IdentityChange>>,
    /// By name.
    pub apis: Vec<Change<()>>,
    /// By name.
    pub credentials: Vec<Change<()>>,
}

/// One thing that is there on one side only, or differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change<T> {
    /// Its name.
    pub name: String,
    /// What happens to it.
    pub kind: ChangeKind,
    /// Its lines of the table before.
    pub before: Vec<String>,
    /// Its lines of the table after.
    pub after: Vec<String>,
    /// More about it.
    #[serde(flatten)]
    pub more: T,
}

/// What happens to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It has another meaning.
    Changed,
}

/// What changes for an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IdentityChange {
    /// Grants that are there on one side only, as `API by role NAME`.
    pub grants_added: Vec<String>,
    /// The same, of those that go.
    pub grants_removed: Vec<String>,
    /// Grants of the same API and role that differ.
    pub grants_changed: Vec<String>,
    /// `allow stripe GET /v1/**`: rules that it has after and not before, network grants among them.
    pub rules_added: Vec<String>,
    /// Rules that it had before and has not after.
    pub rules_removed: Vec<String>,
}

impl Plan {
    /// What leads from one table to the other.
    #[must_use]
    pub fn between(before: &Table, after: &Table) -> Self {
        Self {
            identities: changes(
                &before.identities,
                &after.identities,
                |it| &it.identity,
                IdentityRows::lines,
                identity_change,
            ),
            apis: changes(&before.apis, &after.apis, |it| &it.api, |it| it.lines(), |_, _| ()),
            credentials: changes(
                &before.credentials,
                &after.credentials,
                |it| &it.credential,
                |it| it.lines(),
                |_, _| (),
            ),
        }
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty() && self.apis.is_empty() && self.credentials.is_empty()
    }

    /// For people: what happens to each, and its lines of the table with `-` (before) and `+` (after).
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut write = |what: &str, change: &dyn Told| {
            let kind = match change.kind() {
                ChangeKind::Added => "added",
                ChangeKind::Removed => "removed",
                ChangeKind::Changed => "changed",
            };
            out.push_str(&format!("{what} {} is {kind}\n", change.name()));
            for (sign, line) in lines_between(change.before(), change.after()) {
                out.push_str(&format!("  {sign} {line}\n"));
            }
            out.push('\n');
        };
        self.identities.iter().for_each(|change| write("identity", change));
        self.apis.iter().for_each(|change| write("API", change));
        self.credentials.iter().for_each(|change| write("credential", change));
        out.push_str(&self.summary());
        out.push('\n');
        out
    }

    /// `2 identities, 1 API and 0 credentials change: 3 rules more, 1 less`.
    #[must_use]
    pub fn summary(&self) -> String {
        if self.is_empty() {
            return "nothing changes".to_owned();
        }
        let number =
            |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        let rules = |pick: fn(&IdentityChange) -> usize| {
            self.identities.iter().map(|change| pick(&change.more)).sum::<usize>()
        };
        format!(
            "changes: {}, {}, {}; {} more, {} less",
            number(self.identities.len(), "identity", "identities"),
            number(self.apis.len(), "API", "APIs"),
            number(self.credentials.len(), "credential", "credentials"),
            number(rules(|change| change.rules_added.len()), "rule", "rules"),
            number(rules(|change| change.rules_removed.len()), "rule", "rules"),
        )
    }
}

/// A change without what is more about it.
trait Told {
    fn name(&self) -> &str;
    fn kind(&self) -> ChangeKind;
    fn before(&self) -> &[String];
    fn after(&self) -> &[String];
}

impl<T> Told for Change<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> ChangeKind {
        self.kind
    }

    fn before(&self) -> &[String] {
        &self.before
    }

    fn after(&self) -> &[String] {
        &self.after
    }
}

fn changes<R: PartialEq, T>(
    before: &[R],
    after: &[R],
    name: impl Fn(&R) -> &String,
    lines: impl Fn(&R) -> Vec<String>,
    more: impl Fn(Option<&R>, Option<&R>) -> T,
) -> Vec<Change<T>> {
    let names: BTreeSet<&String> = before.iter().chain(after).map(&name).collect();
    let find = |rows: &'_ [R], wanted: &String| rows.iter().position(|row| name(row) == wanted);
    let change = |wanted: &&String| {
        let old = find(before, wanted).and_then(|at| before.get(at));
        let new = find(after, wanted).and_then(|at| after.get(at));
        let kind = match (old, new) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            (Some(old), Some(new)) if old == new => return None,
            _ => ChangeKind::Changed,
        };
        let told = |row: Option<&R>| row.map(&lines).unwrap_or_default();
        let name = (*wanted).clone();
        Some(Change { name, kind, before: told(old), after: told(new), more: more(old, new) })
    };
    names.iter().filter_map(change).collect()
}

fn identity_change(before: Option<&IdentityRows>, after: Option<&IdentityRows>) -> IdentityChange {
    let name = |grant: &GrantRow| match &grant.role {
        Some(role) => format!("{} by role {role}", grant.api),
        None => grant.api.clone(),
    };
    // Several of one name are told apart by their number.
    let named = |rows: Option<&IdentityRows>| -> Vec<(String, GrantRow)> {
        let mut seen: Vec<String> = Vec::new();
        let grants = rows.map(|rows| rows.grants.as_slice()).unwrap_or_default();
        let numbered = grants.iter().map(|grant| {
            let name = name(grant);
            let number = seen.iter().filter(|known| **known == name).count();
            seen.push(name.clone());
            let name = if number == 0 { name } else { format!("{name} ({})", number + 1) };
            (name, grant.clone())
        });
        numbered.collect()
    };
    let (old, new) = (named(before), named(after));
    let missing = |from: &[(String, GrantRow)], other: &[(String, GrantRow)]| -> Vec<String> {
        let names = from.iter().map(|(name, _)| name);
        names.filter(|name| !other.iter().any(|(it, _)| it == *name)).cloned().collect()
    };
    let differs = |(name, grant): &&(String, GrantRow)| {
        new.iter().any(|(other, after)| other == name && after != grant)
    };
    let (rules_old, rules_new) = (rules(before), rules(after));
    IdentityChange {
        grants_added: missing(&new, &old),
        grants_removed: missing(&old, &new),
        grants_changed: old.iter().filter(differs).map(|(name, _)| name.clone()).collect(),
        rules_added: rules_new.difference(&rules_old).cloned().collect(),
        rules_removed: rules_old.difference(&rules_new).cloned().collect(),
    }
}

fn rules(rows: Option<&IdentityRows>) -> BTreeSet<String> {
    let Some(rows) = rows else { return BTreeSet::new() };
    let of_grant = |grant: &GrantRow| -> Vec<String> {
        let told = |effect: &str, rule: &String| format!("{effect} {} {rule}", grant.api);
        let allows = grant.allow.iter().map(|rule| told("allow", rule));
        allows.chain(grant.deny.iter().map(|rule| told("deny", rule))).collect()
    };
    let network = rows.network.iter().map(|rule| format!("allow network {rule}"));
    let whole = rows.whole.iter().map(|api| format!("allow {api} undecrypted"));
    rows.grants.iter().flat_map(of_grant).chain(network).chain(whole).collect()
}

/// More lines than this on a side are shown whole, before and after.
const MAX_LINES: usize = 2000;

/// The lines of both sides in one order: ' ' in both, '-' before only, '+' after only (by a longest common subsequence).
fn lines_between<'l>(before: &'l [String], after: &'l [String]) -> Vec<(char, &'l str)> {
    let (n, m) = (before.len(), after.len());
    if n > MAX_LINES || m > MAX_LINES {
        let old = before.iter().map(|line| ('-', line.as_str()));
        return old.chain(after.iter().map(|line| ('+', line.as_str()))).collect();
    }
    let width = m + 1;
    let mut lengths = vec![0u16; (n + 1) * width];
    let at = |lengths: &[u16], i: usize, j: usize| lengths.get(i * width + j).copied().unwrap_or(0);
    for (i, old) in before.iter().enumerate().rev() {
        for (j, new) in after.iter().enumerate().rev() {
            let length = match old == new {
                true => at(&lengths, i + 1, j + 1) + 1,
                false => at(&lengths, i + 1, j).max(at(&lengths, i, j + 1)),
            };
            if let Some(slot) = lengths.get_mut(i * width + j) {
                *slot = length;
            }
        }
    }
    let (mut i, mut j, mut out) = (0, 0, Vec::with_capacity(n + m));
    loop {
        match (before.get(i), after.get(j)) {
            (Some(old), Some(new)) if old == new => {
                out.push((' ', old.as_str()));
                (i, j) = (i + 1, j + 1);
            }
            (Some(old), new) if new.is_none() || at(&lengths, i + 1, j) >= at(&lengths, i, j + 1) => {
                out.push(('-', old.as_str()));
                i += 1;
            }
            (_, Some(new)) => {
                out.push(('+', new.as_str()));
                j += 1;
            }
            (_, None) => return out,
        }
    }
}
