//! `[credential.NAME]`: a kind over references to secrets. No message repeats a value of this table.

mod aws;
mod exec;
mod github_app;
mod hmac;
mod jwt;
mod mtls;
mod oauth2;
mod reference;
mod static_secret;

pub(super) use jwt::time as parse_time;
pub(crate) use reference::parse as parse_reference;

use super::CredentialDraft;
use crate::credential::{CredentialKind, Insecure};
use crate::diagnostic::Problem;
use crate::model::Scheme;
use crate::place::Spanned;
use crate::read::{Reader, Section};
use crate::rehearsal::Spoken;

/// The keys that every kind has.
const KEYS: [&str; 4] = ["kind", "apis", "insecure", "probe"];

pub(super) fn read(name: Spanned<String>, section: &Section<'_>, reader: &mut Reader<'_>) -> CredentialDraft {
    let kind = reader.required(section, "kind", "add kind = \"static\"");
    let kind = match kind.and_then(|text| reader.parse(&text, known)).map(|kind| kind.value) {
        // What is written under a kind that is not known is still looked through for typed secrets.
        Some("static") | None => static_secret::read(section, reader).map(CredentialKind::Static),
        Some("jwt") => jwt::read(section, reader).map(|kind| CredentialKind::Jwt(Box::new(kind))),
        Some("mtls") => mtls::read(section, reader).map(CredentialKind::Mtls),
        Some("github-app") => {
            github_app::read(section, reader).map(|kind| CredentialKind::GithubApp(Box::new(kind)))
        }
        Some("oauth2") => oauth2::read(section, reader).map(|kind| CredentialKind::Oauth2(Box::new(kind))),
        Some("exec") => exec::read(section, reader).map(|kind| CredentialKind::Exec(Box::new(kind))),
        Some("aws") => aws::read(section, reader).map(|kind| CredentialKind::Aws(Box::new(kind))),
        Some("hmac") => hmac::read(section, reader).map(|kind| CredentialKind::Hmac(Box::new(kind))),
        Some(_) => None,
    };
    let before = reader.findings.len();
    let apis = reader.strings(section, "apis");
    if section.has("apis") && apis.is_empty() && reader.findings.len() == before {
        let place = reader.key_place(section, "apis");
        let help = "name the APIs that it may be used for, or leave \"apis\" out for any";
        reader.findings.error(place, format!("{} is bound to no API", section.what), help);
    }
    let insecure = reader.parsed(section, "insecure", insecure);
    if let (Some(insecure), Some(CredentialKind::Mtls(_))) = (&insecure, &kind) {
        let help = "a client certificate is shown in the handshake of TLS: remove \"insecure\"";
        reader.findings.error(insecure.place, "a client certificate cannot go without TLS", help);
    }
    let insecure = insecure.map(|it| it.value);
    let probe = reader.parsed(section, "probe", probe);
    CredentialDraft { name, kind, apis, insecure, probe }
}

/// A call like those of tests, over TLS.
fn probe(text: &str) -> Result<Spoken, Problem> {
    let request = Spoken::read(text)?;
    match request.scheme == Scheme::Https && request.besides.is_none() {
        true => Ok(request),
        false => Err(Problem::new(
            "a credential is tried by a plain call over https",
            "write a call that does no harm, such as probe = \"GET https://api.example.com/v1/me\"",
        )),
    }
}

/// Where a credential may go without TLS.
fn insecure(text: &str) -> Result<Insecure, Problem> {
    match text {
        "loopback" => Ok(Insecure::Loopback),
        // The value is not repeated: no value of a credential is.
        _ => Err(Problem::new(
            "a credential goes without TLS only to a server on this host itself",
            "write insecure = \"loopback\", or leave it out: then it only goes over verified TLS",
        )),
    }
}

/// The keys of a kind besides those of all kinds; anything else is an error.
fn check_keys(section: &Section<'_>, keys: &[&str], reader: &mut Reader<'_>) {
    reader.check_keys(section, &[&KEYS, keys].concat(), hint);
}

fn hint(key: &str) -> Option<Problem> {
    match key {
        "api" => Some(Problem::new("unknown key \"api\" in a credential", "write apis = [\"…\"]")),
        "tls" | "verify" | "plain" => Some(Problem::new(
            format!("unknown key \"{key}\" in a credential"),
            "a credential only goes over verified TLS; to a server on this host itself also without: insecure = \"loopback\"",
        )),
        "value" | "token" | "password" | "key" | "api_key" => Some(Problem::new(
            format!("\"{key}\" does not stand in a credential"),
            "secrets are never typed into a policy: put it into the store and write secret = \"vault:NAME\"",
        )),
        _ => None,
    }
}

fn known(text: &str) -> Result<&'static str, Problem> {
    CredentialKind::NAMES.iter().find(|name| **name == text).copied().ok_or_else(|| {
        Problem::new(
            "unknown kind of credential",
            format!("known kinds: {}", CredentialKind::NAMES.join(", ")),
        )
    })
}
