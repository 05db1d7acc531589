//! `[[grant]]` and `[role.NAME]`: operations of one API and the credential for them.

use std::collections::HashSet;
use std::sync::Arc;

use super::{GrantBody, GrantDraft, RoleDraft, RoleUse, identity, limits};
use crate::diagnostic::{Problem, quote};
use crate::limit::Limits;
use crate::model::Mode;
use crate::network::NetworkRule;
use crate::operation::{Operation, Template, is_name};
use crate::place::Spanned;
use crate::read::{Reader, Section};
use crate::size::parse_size;
use crate::until::Until;
use crate::when::Condition;

/// What a grant may say, in the order of the documentation.
const GRANT: [&str; 15] = [
    "role",
    "with",
    "api",
    "allow",
    "deny",
    "credential",
    "when",
    "body_limit",
    "capture",
    "limit",
    "wait",
    "until",
    "mode",
    "network",
    "intercept",
];
/// What a role may say.
const ROLE: [&str; 11] = [
    "params",
    "include",
    "api",
    "allow",
    "deny",
    "credential",
    "when",
    "body_limit",
    "capture",
    "limit",
    "wait",
];
/// Bytes of a body that conditions look at, unless the grant or role says otherwise, and at most.
const MAX_BODY: usize = 1024 * 1024;
/// Bytes of a body that are kept for auditors, at most.
const MAX_CAPTURE: u64 = 1 << 30;

/// Reads a `[[grant]]`.
pub(crate) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> GrantDraft {
    reader.check_keys(section, &GRANT, grant_hint);
    if section.has("network") {
        return read_network(section, reader);
    }
    if reader.boolean(section, "intercept").is_some_and(|intercept| !intercept.value) {
        return read_whole(section, reader);
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
    let with = reader.string_table(section, "with");
    if section.has("with") && !section.has("role") {
        reader.findings.error(
            reader.key_place(section, "with"),
            "\"with\" gives the parameters of a role, and this grant names none",
            "add role = \"…\", or write the values into the operations",
        );
    }
    let until = read_until(section, reader);
    let mode = identity::read_mode(section, reader);
    let body = read_body(section, &[], reader);
    if !section.has("role") {
        check_complete(section, "name a role, or an api with allow or deny", reader);
        if until.is_some() && !section.has("allow") && section.has("deny") {
            reader.findings.error(
                reader.key_place(section, "until"),
                "\"until\" ends what a grant allows, and this one only denies",
                "remove it: a deny holds as long as it stands here",
            );
        }
        if let Some(capture) = &body.capture
            && !section.has("allow")
            && section.has("deny")
        {
            reader.findings.error(
                capture.place,
                "\"capture\" keeps bodies of what a grant allows, and this one only denies",
                "remove it, or write it into the grant that allows",
            );
        }
    }
    let role = role.map(|role| RoleUse { role, with });
    GrantDraft { role, body, until, mode, network: Vec::new(), is_whole: false }
}

fn read_until(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<Until> {
    let value = reader.datetime(section, "until")?;
    match Until::of(&value) {
        Ok(until) => Some(until),
        Err(problem) => {
            reader.findings.problem(value.place, problem);
            None
        }
    }
}

/// Reads a `[[grant]]` of traffic that does not go through the proxy.
fn read_network(section: &Section<'_>, reader: &mut Reader<'_>) -> GrantDraft {
    let foreign = |key: &&str| !matches!(*key, "network" | "until");
    for key in GRANT.into_iter().filter(foreign).filter(|key| section.has(key)) {
        let help =
            "what goes past the proxy has no operations and no credential: write a second [[grant]] for it";
        reader.findings.error(
            reader.key_place(section, key),
            format!("a grant has either \"network\" or \"{key}\", not both"),
            help,
        );
    }
    let before = reader.findings.len();
    let texts = reader.strings(section, "network");
    if texts.is_empty() && reader.findings.len() == before {
        allows_nothing(section, reader);
    }
    let mut network: Vec<Spanned<NetworkRule>> = Vec::new();
    let mut seen: HashSet<&str> = HashSet::new();
    for text in &texts {
        let parsed = reader.parse(text, |text| NetworkRule::parse(text).map_err(|error| error.0));
        let Some(rule) = parsed else { continue };
        if !seen.insert(&text.value) {
            let message = format!("{} is in the list twice", quote(rule.as_str()));
            reader.findings.warning(rule.place, message, "remove one");
            continue;
        }
        network.push(rule);
    }
    let until = read_until(section, reader);
    let body = no_operations(section, None);
    GrantDraft { role: None, body, until, mode: Mode::Enforce, network, is_whole: false }
}

fn no_operations(section: &Section<'_>, api: Option<Spanned<String>>) -> GrantBody {
    GrantBody {
        place: section.place,
        api,
        allow: Vec::new(),
        deny: Vec::new(),
        allows: false,
        when: None,
        body_limit: None,
        capture: None,
        limits: Limits::default(),
        credential: None,
    }
}

/// Reads a `[[grant]]` of connections to an API that are not looked into.
fn read_whole(section: &Section<'_>, reader: &mut Reader<'_>) -> GrantDraft {
    let foreign = |key: &&str| !matches!(*key, "api" | "intercept" | "until");
    for key in GRANT.into_iter().filter(foreign).filter(|key| section.has(key)) {
        reader.findings.error(
            reader.key_place(section, key),
            format!("a grant with intercept = false cannot have \"{key}\""),
            "of a connection that is not looked into nothing is decided but that it may be, and no credential goes \
             with it: remove this",
        );
    }
    let api = reader.required(section, "api", "name the API whose hosts the connections may go to");
    let (until, body) = (read_until(section, reader), no_operations(section, api));
    GrantDraft { role: None, body, until, mode: Mode::Enforce, network: Vec::new(), is_whole: true }
}

/// Reads a `[role.NAME]`.
pub(super) fn read_role(name: Spanned<String>, section: &Section<'_>, reader: &mut Reader<'_>) -> RoleDraft {
    reader.check_keys(section, &ROLE, role_hint);
    let mut parameters: Vec<String> = Vec::new();
    for parameter in reader.strings(section, "params") {
        let message = if !is_name(&parameter) {
            format!("{} is not a name for a parameter", quote(&parameter))
        } else if parameters.contains(&parameter.value) {
            format!("the parameter {} is there twice", quote(&parameter))
        } else {
            parameters.push(parameter.value);
            continue;
        };
        let help = "a name has small letters, digits and _, and begins with a letter; each stands once";
        reader.findings.error(parameter.place, message, help);
    }
    let before = reader.findings.errors();
    let include = read_include(section, reader);
    let includes_nothing = include.is_empty() && reader.findings.errors() == before;
    let body = read_body(section, &parameters, reader);
    if includes_nothing || section.has("api") || section.has("allow") || section.has("deny") {
        check_complete(section, "name the api that the operations belong to", reader);
    }
    RoleDraft { name, parameters, include, body }
}

fn read_include(section: &Section<'_>, reader: &mut Reader<'_>) -> Vec<RoleUse> {
    let mut include = Vec::new();
    for item in reader.strings_or_tables(section, "include", "\"include\"") {
        match item {
            Ok(role) => include.push(RoleUse { role, with: Vec::new() }),
            Err(table) => {
                reader.check_keys(&table, &["role", "with"], |_| None);
                let role = reader.required(&table, "role", "name the role that is included");
                let with = reader.string_table(&table, "with");
                include.extend(role.map(|role| RoleUse { role, with }));
            }
        }
    }
    include
}

fn read_body(section: &Section<'_>, parameters: &[String], reader: &mut Reader<'_>) -> GrantBody {
    let api = reader.string(section, "api");
    let before = reader.findings.len();
    let allow = reader.strings(section, "allow");
    let deny = reader.strings(section, "deny");
    let written = section.has("allow") || section.has("deny");
    if written && allow.is_empty() && deny.is_empty() && reader.findings.len() == before {
        allows_nothing(section, reader);
    }
    limits::check_wait(section, &["limit"], reader);
    let credential = reader.string(section, "credential");
    let body = GrantBody {
        place: section.place,
        api,
        allows: !allow.is_empty(),
        allow: operations(&allow, parameters, reader),
        deny: operations(&deny, parameters, reader),
        when: read_when(section, parameters, reader),
        body_limit: read_body_limit(section, reader),
        capture: read_capture(section, reader),
        limits: limits::read(section, "limit", reader),
        credential,
    };
    let fixed = |list: &'_ [Spanned<Template>]| -> Vec<Spanned<Operation>> {
        let fixed = list.iter().filter(|template| !template.is_parametric());
        fixed.map(|template| Spanned::new(template.sample().clone(), template.place)).collect()
    };
    let (allows, denies) = (fixed(&body.allow), fixed(&body.deny));
    for allow in &allows {
        if let Some(deny) = denies.iter().find(|deny| deny.denies_all_of(allow)) {
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

fn read_when(
    section: &Section<'_>,
    parameters: &[String],
    reader: &mut Reader<'_>,
) -> Option<Spanned<Arc<Condition>>> {
    let text = reader.string(section, "when")?;
    match Condition::parse(&text, parameters) {
        Ok(condition) => Some(Spanned::new(Arc::new(condition), text.place)),
        Err((at, problem)) => {
            let place = reader.place_within(section, "when", at);
            reader.findings.problem(place, problem);
            None
        }
    }
}

fn read_body_limit(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<usize> {
    let limit = reader.integer(section, "body_limit")?;
    match usize::try_from(limit.value).ok().filter(|limit| (1..=MAX_BODY).contains(limit)) {
        Some(limit) => Some(limit),
        None => {
            let help = format!("write a number of bytes from 1 to {MAX_BODY}; without it, it is 65536");
            reader.findings.error(limit.place, format!("\"body_limit\" cannot be {}", limit.value), help);
            None
        }
    }
}

fn read_capture(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<Spanned<u64>> {
    let text = reader.string(section, "capture")?;
    let help = "write how much of each body is kept, from \"1 B\" to \"1 GiB\": capture = \"1 MiB\"";
    match parse_size(&text) {
        Ok(bytes) if (1..=MAX_CAPTURE).contains(&bytes) => Some(Spanned::new(bytes, text.place)),
        Ok(_) => {
            let message = format!("\"capture\" cannot be {}", quote(&text));
            reader.findings.error(text.place, message, help);
            None
        }
        Err(why) => {
            reader.findings.error(text.place, why, help);
            None
        }
    }
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

fn operations(
    texts: &[Spanned<String>],
    parameters: &[String],
    reader: &mut Reader<'_>,
) -> Vec<Spanned<Template>> {
    let mut operations: Vec<Spanned<Template>> = Vec::new();
    let mut seen: HashSet<&str> = HashSet::new();
    for text in texts {
        let Some(template) = reader.parse(text, |text| Template::parse(text, parameters)) else { continue };
        if !seen.insert(&text.value) {
            let message = format!("{} is in the list twice", quote(text));
            reader.findings.warning(template.place, message, "remove one");
            continue;
        }
        if let Some((method, meant)) = template.sample().method_slip() {
            let message = format!("{} is not a usual method", quote(method));
            reader.findings.warning(template.place, message, format!("did you mean \"{meant}\"?"));
        }
        operations.push(template);
    }
    operations
}

fn grant_hint(key: &str) -> Option<Problem> {
    match key {
        "params" | "include" => Some(Problem::new(
            format!("{} does not stand in a [[grant]]", quote(key)),
            "roles have parameters and include others; a grant names one role, role = \"…\"",
        )),
        "description" | "unmatched" => Some(Problem::new(
            format!("{} does not stand in a [[grant]]", quote(key)),
            "move it to the top of the file, above every [table]",
        )),
        _ => None,
    }
}

fn role_hint(key: &str) -> Option<Problem> {
    match key {
        "intercept" => Some(Problem::new(
            "\"intercept\" does not stand in a role",
            "which client is pinned is a matter of the identity: write a [[grant]] with api and intercept = false",
        )),
        "role" => Some(Problem::new("a role includes others by \"include\"", "write include = [\"…\"]")),
        "with" => Some(Problem::new(
            "\"with\" stands where a role is used",
            "name the parameters here, params = [\"…\"], and their values in the grant",
        )),
        "mode" => Some(Problem::new(
            "a role has no mode",
            "write mode = \"observe\" in the [[grant]] that uses it, or at the top of the identity's file",
        )),
        "until" => Some(Problem::new("a role does not end", "write until = … in the [[grant]] that uses it")),
        _ => None,
    }
}
