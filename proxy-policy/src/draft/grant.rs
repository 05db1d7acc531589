//! `[[grant]]` and `[role.NAME]`: operations of one API and the credential for them.

use super::{GrantBody, GrantDraft, not_supported_yet};
use crate::diagnostic::{Problem, quote};
use crate::network::NetworkRule;
use crate::operation::Operation;
use crate::place::Spanned;
use crate::read::{Reader, Section};

/// Reads a `[[grant]]`.
pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> GrantDraft {
    reader.check_keys(section, &["role", "api", "allow", "deny", "credential", "network"], grant_hint);
    if section.has("network") {
        return read_network(section, reader);
    }
    let role = reader.string(section, "role");
    if section.has("role") {
        for key in ["api", "allow", "deny"].into_iter().filter(|key| section.has(key)) {
            reader.findings.error(
                reader.key_place(section, key),
                format!("a grant has either \"role\" or \"{key}\", not both"),
                "the role says all of it: remove this, or write a second [[grant]] for it",
            );
        }
    }
    let body = read_body(section, reader);
    if !section.has("role") {
        check_complete(section, "name a role, or an api with allow or deny", reader);
    }
    GrantDraft { role, body, network: Vec::new() }
}

/// Reads a `[[grant]]` of traffic that does not go through the proxy.
fn read_network(section: &Section<'_>, reader: &mut Reader<'_>) -> GrantDraft {
    for key in ["role", "api", "allow", "deny", "credential"].into_iter().filter(|key| section.has(key)) {
        reader.findings.error(
            reader.key_place(section, key),
            format!("a grant has either \"network\" or \"{key}\", not both"),
            "what goes past the proxy has no operations and no credential: write a second [[grant]] for it",
        );
    }
    let before = reader.findings.len();
    let texts = reader.strings(section, "network");
    if texts.is_empty() && reader.findings.len() == before {
        allows_nothing(section, reader);
    }
    let mut network: Vec<Spanned<NetworkRule>> = Vec::new();
    for text in &texts {
        let parsed = reader.parse(text, |text| NetworkRule::parse(text).map_err(|error| error.0));
        let Some(rule) = parsed else { continue };
        if network.contains(&rule) {
            let message = format!("{} is in the list twice", quote(rule.as_str()));
            reader.findings.warning(rule.place, message, "remove one");
            continue;
        }
        network.push(rule);
    }
    let body = GrantBody {
        place: section.place,
        api: None,
        allow: Vec::new(),
        deny: Vec::new(),
        allows: false,
        credential: None,
    };
    GrantDraft { role: None, body, network }
}

/// Reads a `[role.NAME]`.
pub(super) fn read_role(section: &Section<'_>, reader: &mut Reader<'_>) -> GrantBody {
    reader.check_keys(section, &["api", "allow", "deny", "credential"], role_hint);
    let body = read_body(section, reader);
    check_complete(section, "name the api that the operations belong to", reader);
    body
}

fn read_body(section: &Section<'_>, reader: &mut Reader<'_>) -> GrantBody {
    let api = reader.string(section, "api");
    let before = reader.findings.len();
    let allow = reader.strings(section, "allow");
    let deny = reader.strings(section, "deny");
    let written = section.has("allow") || section.has("deny");
    if written && allow.is_empty() && deny.is_empty() && reader.findings.len() == before {
        allows_nothing(section, reader);
    }
    let credential = reader.string(section, "credential");
    let body = GrantBody {
        place: section.place,
        api,
        allows: !allow.is_empty(),
        allow: operations(&allow, reader),
        deny: operations(&deny, reader),
        credential,
    };
    for allow in &body.allow {
        if let Some(deny) = body.deny.iter().find(|deny| deny.denies_all_of(allow)) {
            reader.findings.warning(
                allow.place,
                format!(
                    "{} is never allowed: {} denies all of it",
                    quote(allow.as_str()),
                    quote(deny.as_str())
                ),
                "deny wins: remove the allow, or make the deny narrower",
            );
        }
    }
    body
}

fn check_complete(section: &Section<'_>, help: &str, reader: &mut Reader<'_>) {
    let written = section.has("allow") || section.has("deny");
    if !section.has("api") {
        reader.missing(section, "api", help);
    } else if !written {
        allows_nothing(section, reader);
    }
}

fn allows_nothing(section: &Section<'_>, reader: &mut Reader<'_>) {
    let message = format!("{} allows and denies nothing", section.what);
    reader.findings.error(
        section.place,
        message,
        "add allow = [\"GET /path\"], with the operations that are meant",
    );
}

fn operations(texts: &[Spanned<String>], reader: &mut Reader<'_>) -> Vec<Spanned<Operation>> {
    let mut operations: Vec<Spanned<Operation>> = Vec::new();
    for text in texts {
        let Some(operation) = reader.parse(text, Operation::parse) else { continue };
        if operations.contains(&operation) {
            let message = format!("{} is in the list twice", quote(operation.as_str()));
            reader.findings.warning(operation.place, message, "remove one");
            continue;
        }
        if let Some((method, meant)) = operation.method_slip() {
            let message = format!("{} is not a usual method", quote(method));
            reader.findings.warning(operation.place, message, format!("did you mean \"{meant}\"?"));
        }
        operations.push(operation);
    }
    operations
}

fn grant_hint(key: &str) -> Option<Problem> {
    match key {
        "limit" | "when" => Some(not_supported_yet(key, "[[grant]]")),
        "description" | "unmatched" => Some(Problem::new(
            format!("{} does not stand in a [[grant]]", quote(key)),
            "move it to the top of the file, above every [table]",
        )),
        _ => None,
    }
}

fn role_hint(key: &str) -> Option<Problem> {
    match key {
        "limit" | "when" => Some(not_supported_yet(key, "a role")),
        "role" => Some(Problem::new(
            "a role cannot name another role",
            "write the operations here, or name both roles in grants",
        )),
        _ => None,
    }
}
