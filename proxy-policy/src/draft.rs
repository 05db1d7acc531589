//! What the files say, before names are resolved: each table is read on its own.

mod api;
mod credential;
mod inject;
mod grant;
mod identity;
mod limits;
mod token_endpoint;

pub(crate) use credential::parse_reference;

use std::sync::Arc;

use toml::de::DeTable;

use crate::address::Addresses;
use crate::conditions::Conditions;
use crate::credential::{CredentialKind, Insecure};
use crate::diagnostic::{Findings, Problem, quote};
use crate::inject::Inject;
use crate::limit::Limits;
use crate::model::{ApiHost, Mask, Mode, Scheme, Unmatched};
use crate::network::NetworkRule;
use crate::operation::Template;
use crate::place::{FileId, Lines, Place, Spanned};
use crate::read::Reader;
use crate::rehearsal::{self, Rehearsal, Spoken};
use crate::source::SourceFile;
use crate::token_endpoint::TokenEndpoint;
use crate::until::Until;
use crate::when::Condition;

pub(crate) use grant::read as read_grant;
pub(crate) use identity::{read_mode, read_unmatched};

/// An `[api.NAME]` table.
pub(crate) struct ApiDraft {
    pub(crate) name: Spanned<String>,
    pub(crate) scheme: Scheme,
    pub(crate) hosts: Vec<Spanned<ApiHost>>,
    pub(crate) addresses: Addresses,
    /// Where `inject` was written, even if it could not be read.
    pub(crate) injects: Option<Place>,
    pub(crate) inject: Option<Inject>,
    pub(crate) strip: Vec<String>,
    pub(crate) keep: Vec<String>,
    pub(crate) mask: Mask,
    pub(crate) token_endpoint: Option<TokenEndpoint>,
    pub(crate) limits: Limits,
    pub(crate) host_limits: Limits,
}

/// A `[credential.NAME]` table.
pub(crate) struct CredentialDraft {
    pub(crate) name: Spanned<String>,
    pub(crate) kind: Option<CredentialKind>,
    pub(crate) apis: Vec<Spanned<String>>,
    pub(crate) insecure: Option<Insecure>,
    pub(crate) probe: Option<Spanned<Spoken>>,
}

/// What roles and grants have in common.
pub(crate) struct GrantBody {
    pub(crate) place: Place,
    pub(crate) api: Option<Spanned<String>>,
    pub(crate) allow: Vec<Spanned<Template>>,
    pub(crate) deny: Vec<Spanned<Template>>,
    /// Whether something was written under `allow`, even if it could not be read.
    pub(crate) allows: bool,
    pub(crate) when: Option<Spanned<Arc<Condition>>>,
    pub(crate) body_limit: Option<usize>,
    pub(crate) capture: Option<Spanned<u64>>,
    pub(crate) limits: Limits,
    pub(crate) credential: Option<Spanned<String>>,
}

/// A `[role.NAME]` table.
pub(crate) struct RoleDraft {
    pub(crate) name: Spanned<String>,
    /// What a grant says of it by `with`.
    pub(crate) parameters: Vec<String>,
    pub(crate) include: Vec<RoleUse>,
    pub(crate) body: GrantBody,
}

/// A role that is named, with the values of its parameters.
pub(crate) struct RoleUse {
    pub(crate) role: Spanned<String>,
    pub(crate) with: Vec<(Spanned<String>, Spanned<String>)>,
}

/// A `[[grant]]`: by role, with a credential or without, or spelled out.
pub(crate) struct GrantDraft {
    pub(crate) role: Option<RoleUse>,
    pub(crate) body: GrantBody,
    /// When what it allows ends, or what of the network it opens.
    pub(crate) until: Option<Until>,
    pub(crate) mode: Mode,
    /// What may be reached past the proxy; a grant has either this, or operations.
    pub(crate) network: Vec<Spanned<NetworkRule>>,
    /// Connections to the API go through as they are (`intercept = false`).
    pub(crate) is_whole: bool,
}

/// A file with an `[identity]`.
pub(crate) struct IdentityDraft {
    pub(crate) name: Spanned<String>,
    pub(crate) description: Option<String>,
    pub(crate) conditions: Conditions,
    /// Whether every condition could be read: only then they can be compared with others.
    pub(crate) comparable: bool,
    pub(crate) unmatched: Unmatched,
    pub(crate) mode: Mode,
    pub(crate) limits: Limits,
    pub(crate) grants: Vec<GrantDraft>,
}

/// Everything of every file.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) identities: Vec<IdentityDraft>,
    pub(crate) roles: Vec<RoleDraft>,
    pub(crate) apis: Vec<ApiDraft>,
    pub(crate) credentials: Vec<CredentialDraft>,
    /// Names defined in files with a syntax error: using them is not an error on top.
    pub(crate) broken_roles: Vec<String>,
    pub(crate) broken_apis: Vec<String>,
    pub(crate) broken_credentials: Vec<String>,
}

/// What a file may hold, by the folder that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Folder {
    /// `policies/`: one identity.
    Policies,
    /// `roles/`, `apis/`, `credentials/`: no identity.
    Parts,
    /// No folder of ours: the content decides.
    Other,
}

/// Folder and stem of a file's label.
fn place_of(path: &str) -> (Folder, &str) {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    let folder = match folder.rsplit('/').next() {
        Some("policies") => Folder::Policies,
        Some("roles" | "apis" | "credentials") => Folder::Parts,
        _ => Folder::Other,
    };
    (folder, file.strip_suffix(".toml").unwrap_or(file))
}

impl Draft {
    /// Reads one file and adds what is in it.
    pub(crate) fn read(&mut self, id: FileId, file: &SourceFile, findings: &mut Findings) {
        let lines = Lines::new(id, &file.text);
        let (table, whole) = parse(&lines, &file.text, findings);
        if whole {
            self.read_table(&file.path, table.get_ref(), &mut Reader::new(&lines, findings));
            return;
        }
        let mut rest = Self::default();
        let mut ignored = Findings::default();
        rest.read_table(&file.path, table.get_ref(), &mut Reader::new(&lines, &mut ignored));
        self.broken_roles.extend(rest.roles.into_iter().map(|role| role.name.value));
        self.broken_apis.extend(rest.apis.into_iter().map(|api| api.name.value));
        self.broken_credentials.extend(rest.credentials.into_iter().map(|credential| credential.name.value));
    }

    /// Reads a file of tests: adds the identities and credentials that are only for them, and returns the calls.
    pub(crate) fn read_test(
        &mut self,
        id: FileId,
        file: &SourceFile,
        findings: &mut Findings,
    ) -> Vec<Rehearsal> {
        let lines = Lines::new(id, &file.text);
        let (table, whole) = parse(&lines, &file.text, findings);
        if !whole {
            return Vec::new();
        }
        let mut reader = Reader::new(&lines, findings);
        let root = reader.root(table.get_ref());
        reader.check_keys(&root, &["given", "credential", "call"], test_hint);
        for (name, section) in reader.named(&root, "credential") {
            self.credentials.push(credential::read(name, &section, &mut reader));
        }
        self.identities.extend(rehearsal::read_given(&root, &mut reader));
        rehearsal::read_calls(&root, &file.path, &mut reader)
    }

    fn read_table<'t>(&mut self, path: &str, table: &'t DeTable<'t>, reader: &mut Reader<'_>) {
        const KEYS: [&str; 10] = [
            "description",
            "mode",
            "unmatched",
            "limit",
            "wait",
            "identity",
            "grant",
            "role",
            "api",
            "credential",
        ];
        const IDENTITY: [&str; 7] =
            ["description", "mode", "unmatched", "limit", "wait", "identity", "grant"];
        let root = reader.root(table);
        let (folder, stem) = place_of(path);
        reader.check_keys(&root, &KEYS, top_hint);
        let of_identity = IDENTITY.iter().find(|key| root.has(key));
        match (folder, of_identity) {
            (Folder::Parts, Some(key)) => reader.findings.error(
                reader.key_place(&root, key),
                format!("\"{key}\" belongs to an identity, and identities are files in policies/"),
                format!("move it to policies/{stem}.toml, or to the file of the identity that is meant"),
            ),
            (Folder::Policies, _) | (Folder::Other, Some(_)) => {
                self.identities.extend(identity::read(&root, stem, reader));
            }
            (Folder::Parts | Folder::Other, None) => {}
        }
        for (name, section) in reader.named(&root, "role") {
            self.roles.push(grant::read_role(name, &section, reader));
        }
        for (name, section) in reader.named(&root, "api") {
            self.apis.push(api::read(name, &section, reader));
        }
        for (name, section) in reader.named(&root, "credential") {
            self.credentials.push(credential::read(name, &section, reader));
        }
    }
}

/// What a text says as TOML, and whether it could be read as a whole; what is wrong is reported.
fn parse<'t>(
    lines: &Lines<'_>,
    text: &'t str,
    findings: &mut Findings,
) -> (toml::Spanned<DeTable<'t>>, bool) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut last_line = 0;
    for error in &errors {
        let place = error.span().map_or_else(|| lines.top(), |span| lines.place(span.start));
        // What follows on the same line is mostly a consequence.
        if place.line != last_line {
            let message = syntax_message(error.message());
            findings.error(place, format!("not TOML: {message}"), syntax_help(&message));
        }
        last_line = place.line;
    }
    (table, errors.is_empty())
}

/// Keys that do not stand at the top of a file of tests.
fn test_hint(key: &str) -> Option<Problem> {
    let help = match key {
        "as" | "request" | "expect" | "headers" | "body" | "time" | "rule" | "reason" => {
            "move it below [[call]]"
        }
        "calls" => "write each call as [[call]]",
        "identity" | "grant" => {
            "an identity that is only for tests is [[given]] with a name, and its grants are [[given.grant]]"
        }
        "role" | "api" => "files that end in .test.toml are no part of the policy: move it to a file that is",
        _ => return None,
    };
    Some(Problem::new(format!("{} does not stand at the top of a file of tests", quote(key)), help))
}

/// Keys that are known, but not at the top of a file.
fn top_hint(key: &str) -> Option<Problem> {
    let table = match key {
        "exe" | "sha256" | "user" | "group" | "unit" | "cgroup" => "[identity]",
        "allow" | "deny" | "when" | "body_limit" | "capture" | "until" | "with" | "network" | "intercept" => {
            "[[grant]]"
        }
        "include" | "params" => "[role.NAME]",
        "hosts" | "scheme" | "addresses" | "inject" | "strip" | "keep" | "mask" | "token_endpoint" => {
            "[api.NAME]"
        }
        "kind" | "secret" | "insecure" | "probe" => "[credential.NAME]",
        _ => return None,
    };
    let message = format!("{} does not stand at the top of a file", quote(key));
    Some(Problem::new(message, format!("move it below {table}")))
}

/// What keys of later versions say: they are refused, because ignoring them would grant more than was meant.
fn not_supported_yet(key: &str, what: &str) -> Problem {
    Problem::new(
        format!("\"{key}\" is not supported yet in {what}"),
        "remove it: this version could not enforce it, and will not ignore it",
    )
}

/// A message of the TOML parser on one line. It never quotes the file.
fn syntax_message(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(", ")
}

fn syntax_help(message: &str) -> &'static str {
    if message.contains("must be quoted") {
        "write a text in quotes: key = \"text\""
    } else if message.contains("duplicate key") {
        "each key and table stands once in a file: remove one"
    } else {
        "the format is TOML: see https://toml.io"
    }
}
