//! Roles, APIs and credentials that nothing uses.

use std::collections::{HashMap, HashSet};

use crate::diagnostic::{Findings, quote};
use crate::draft::{Draft, GrantBody};
use crate::place::{FileId, Place, Spanned};

/// Reports them; nothing while there is no identity that could use anything.
pub(super) fn check(draft: &Draft, findings: &mut Findings) {
    if draft.identities.is_empty() {
        return;
    }
    let grants = || draft.identities.iter().flat_map(|identity| &identity.grants);
    let roles = used_roles(draft);
    let bodies = || grants().map(|grant| &grant.body).chain(draft.roles.iter().map(|role| &role.body));
    let named = |pick: fn(&GrantBody) -> Option<&Spanned<String>>| -> HashSet<&str> {
        bodies().filter_map(pick).map(|name| name.value.as_str()).collect()
    };
    let apis = named(|body| body.api.as_ref());
    let credentials = named(|body| body.credential.as_ref());

    // The files of the library have an API and several roles for it, of which a host uses some.
    let offers: HashSet<FileId> = draft.apis.iter().map(|api| api.name.place.file).collect();
    let mut by_file: HashMap<FileId, (Place, bool)> = HashMap::new();
    for role in &draft.roles {
        let used = roles.contains(role.name.value.as_str());
        let place = role.name.place;
        if !offers.contains(&place.file) {
            if !used {
                unused("role", &role.name, "grant it to an identity, or remove it", findings);
            }
            continue;
        }
        let known = by_file.entry(place.file).or_insert((place, false));
        known.1 |= used;
    }
    for (place, _) in by_file.into_values().filter(|(_, used)| !used) {
        findings.warning(place, "nothing uses the roles of this file", "grant one, or remove the file");
    }
    for api in draft.apis.iter().filter(|api| !apis.contains(api.name.value.as_str())) {
        unused("API", &api.name, "grant operations of it, or remove it", findings);
    }
    for credential in draft.credentials.iter().filter(|it| !credentials.contains(it.name.value.as_str())) {
        unused("credential", &credential.name, "name it in a grant or role, or remove it", findings);
    }
}

fn unused(kind: &str, name: &Spanned<String>, help: &str, findings: &mut Findings) {
    findings.warning(name.place, format!("nothing uses the {kind} {}", quote(name)), help);
}

/// The roles that identities have, with all that these include.
fn used_roles(draft: &Draft) -> HashSet<&str> {
    let by_name: HashMap<&str, _> = draft.roles.iter().map(|role| (role.name.value.as_str(), role)).collect();
    let granted = draft.identities.iter().flat_map(|identity| &identity.grants);
    let mut open: Vec<&str> =
        granted.filter_map(|grant| grant.role.as_ref()).map(|used| used.role.value.as_str()).collect();
    let mut used = HashSet::new();
    while let Some(name) = open.pop() {
        if used.insert(name)
            && let Some(role) = by_name.get(name)
        {
            open.extend(role.include.iter().map(|used| used.role.value.as_str()));
        }
    }
    used
}
