//! `[credential.NAME]`: a kind over a reference to a secret. No message repeats a value of this table.

use super::CredentialDraft;
use crate::diagnostic::Problem;
use crate::model::{CredentialKind, SecretRef, Store};
use crate::place::Spanned;
use crate::read::{Reader, Section};

pub(super) fn read(name: Spanned<String>, section: &Section<'_>, reader: &mut Reader<'_>) -> CredentialDraft {
    reader.check_keys(section, &["kind", "secret", "apis"], hint);
    let kind = reader.required(section, "kind", "add kind = \"static\"");
    let kind = kind.and_then(|text| reader.parse(&text, parse_kind)).map(|kind| kind.value);
    let secret = reader.required(section, "secret", "name where the secret is: secret = \"vault:NAME\"");
    let secret = secret.and_then(|text| reader.parse(&text, parse_secret)).map(|secret| secret.value);
    let before = reader.findings.len();
    let apis = reader.strings(section, "apis");
    if section.has("apis") && apis.is_empty() && reader.findings.len() == before {
        let place = reader.key_place(section, "apis");
        let help = "name the APIs that it may be used for, or leave \"apis\" out for any";
        reader.findings.error(place, format!("{} is bound to no API", section.what), help);
    }
    CredentialDraft { name, kind, secret, apis }
}

fn hint(key: &str) -> Option<Problem> {
    match key {
        "api" => Some(Problem::new("unknown key \"api\" in a credential", "write apis = [\"…\"]")),
        "value" | "token" | "password" | "key" | "api_key" => Some(Problem::new(
            format!("\"{key}\" does not stand in a credential"),
            "secrets are never typed into a policy: put it into the store and write secret = \"vault:NAME\"",
        )),
        _ => None,
    }
}

fn parse_kind(text: &str) -> Result<CredentialKind, Problem> {
    match text {
        "static" => Ok(CredentialKind::Static),
        _ => Err(Problem::new(
            "unknown kind of credential",
            format!("known kinds: {}", CredentialKind::NAMES.join(", ")),
        )),
    }
}

fn parse_secret(text: &str) -> Result<SecretRef, Problem> {
    let store = match text.split_once(':') {
        Some(("vault", name)) => {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let part =
                |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
            if name.len() <= 256 && name.split('/').all(part) {
                return Ok(SecretRef { store: Store::Vault, name: name.to_owned() });
            }
            return Err(Problem::new(
                "the name after \"vault:\" is not the name of a secret",
                "names have letters, digits, - _ and . with / between parts, such as vault:stripe/restricted",
            ));
        }
        Some(("env" | "file" | "cmd", _)) => true,
        _ => false,
    };
    if store {
        return Err(Problem::new("\"secret\" refers to a store that is not known", "known stores: vault"));
    }
    Err(Problem::new(
        "\"secret\" is not a reference to a store",
        "secrets are never typed into a policy: put it into the store, write secret = \"vault:NAME\", \
         and if this was the real secret, replace it",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_reference() {
        let reference = parse_secret("vault:stripe/restricted").unwrap();
        assert_eq!((reference.store(), reference.name()), (Store::Vault, "stripe/restricted"));
        assert_eq!(reference.to_string(), "vault:stripe/restricted");
    }

    #[test]
    fn a_value_that_was_typed_in_is_never_repeated() {
        for typed in
            ["sk_live_51Hxyz", "vault:sk live 51Hxyz", "env:51Hxyz", "x:51Hxyz", "vault:../51Hxyz", "vault:"]
        {
            let problem = parse_secret(typed).unwrap_err();
            assert!(!format!("{problem:?}").contains("51Hxyz"), "{problem:?}");
        }
    }
}
