//! References to secrets, as in `secret = "vault:stripe/restricted"`. No message repeats what was written.
//!
//! `hashicorp:PATH#FIELD` has a path as `vault read` and `vault kv get` take it, and a field of what is there.

use crate::credential::{SecretRef, Store};
use crate::diagnostic::Problem;

pub(crate) fn parse(text: &str) -> Result<SecretRef, Problem> {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(plain);
    let (store, fits, problem, help) = match text.split_once(':') {
        Some(("vault", name)) => (
            Store::Vault,
            name.len() <= 256 && name.split('/').all(is_part),
            "the name after \"vault:\" is not the name of a secret",
            "names have letters, digits, - _ and . with / between parts, such as vault:stripe/restricted",
        ),
        Some(("systemd", name)) => (
            Store::Systemd,
            name.len() <= 255 && is_part(name),
            "what stands after \"systemd:\" is not the name of a credential",
            "write the name that LoadCredential= gives it in the daemon's unit, such as systemd:stripe",
        ),
        Some(("file", path)) => (
            Store::File,
            is_plain_path(path),
            "what stands after \"file:\" is not an absolute path",
            "write a path from / on, without . and .. in it, such as file:/etc/vouchsafe/keys/stripe",
        ),
        Some(("env", name)) => (
            Store::Env,
            is_variable(name),
            "what stands after \"env:\" is not the name of a variable",
            "names of variables have letters, digits and _, and start with no digit, such as env:STRIPE_KEY",
        ),
        Some(("hashicorp", place)) => (
            Store::Hashicorp,
            is_field_at_path(place, is_part),
            "what stands after \"hashicorp:\" is not a path with a field",
            "write the path as for `vault read` or `vault kv get`, with / between parts of letters, digits, - _ and ., and \
             the field after #, such as hashicorp:secret/stripe#key",
        ),
        Some(("exec", name)) => (
            Store::Exec,
            name.len() <= 64 && is_part(name),
            "what stands after \"exec:\" is not the name of a program",
            "write the name that [exec.NAME] gives it in vouchsafe.toml, such as exec:pass-stripe; its path stands there",
        ),
        Some(("cmd", _)) => {
            return Err(Problem::new("\"secret\" refers to a store that is not known", KNOWN));
        }
        _ => {
            return Err(Problem::new(
                "\"secret\" is not a reference to a store",
                "secrets are never typed into a policy: put it into the store, write secret = \"vault:NAME\", \
                 and if this was the real secret, replace it",
            ));
        }
    };
    let name = text.split_once(':').map_or("", |(_, name)| name).to_owned();
    if fits { Ok(SecretRef { store, name }) } else { Err(Problem::new(problem, help)) }
}

const KNOWN: &str = "known stores: vault, systemd, file, env, hashicorp, exec";

fn is_field_at_path(place: &str, is_part: impl Fn(&str) -> bool) -> bool {
    let Some((path, field)) = place.split_once('#') else { return false };
    // What the server says of itself and of who logs in is no secret of an engine: the daemon's own token is there.
    if matches!(path.split('/').next(), Some("sys" | "auth")) {
        return false;
    }
    // Without a mount and something below it there is nothing to read.
    let fits = path.len() <= 512 && path.contains('/') && path.split('/').all(&is_part);
    fits && field.len() <= 128 && is_part(field)
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

pub(super) fn is_plain_path(path: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
    path.len() < 4096 && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part))
}

pub(super) fn is_variable(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.len() <= 255 && name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// Where a token is that somebody is exchanged for: a secret, or `issuer:AUDIENCE`, which this host issues for that audience.
pub(super) fn parse_subject(text: &str) -> Result<SecretRef, Problem> {
    let Some(audience) = text.strip_prefix("issuer:") else { return parse(text) };
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '{' | '}' | '"' | '\\');
    if !audience.is_empty() && audience.len() <= 256 && audience.chars().all(plain) {
        return Ok(SecretRef { store: Store::Issuer, name: audience.to_owned() });
    }
    Err(Problem::new(
        "what stands after \"issuer:\" is no audience",
        "write whom the token is for, in visible characters, such as issuer:https://sts.example.com",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_reference() {
        let reference = parse("vault:stripe/restricted").unwrap();
        assert_eq!((reference.store(), reference.name()), (Store::Vault, "stripe/restricted"));
        assert_eq!(reference.to_string(), "vault:stripe/restricted");
    }

    #[test]
    fn a_secret_may_be_in_a_file_a_variable_or_a_credential_of_the_unit() {
        for (text, store, name) in [
            ("file:/etc/keys/stripe key", Store::File, "/etc/keys/stripe key"),
            ("systemd:stripe.key-1", Store::Systemd, "stripe.key-1"),
            ("env:STRIPE_KEY_2", Store::Env, "STRIPE_KEY_2"),
            ("hashicorp:secret/app/stripe#api_key", Store::Hashicorp, "secret/app/stripe#api_key"),
            ("exec:pass-stripe", Store::Exec, "pass-stripe"),
        ] {
            let reference = parse(text).unwrap();
            assert_eq!((reference.store(), reference.name()), (store, name));
            assert_eq!(reference.to_string(), text);
        }
        for bad in [
            "file:keys/stripe",
            "file:",
            "file:/",
            "file:/etc/../srv/x",
            "file:/etc/./x",
            "file://x",
            "file:/a/",
            "file:/a\nb",
            "systemd:",
            "systemd:a/b",
            "systemd:..",
            "systemd:a b",
            "env:",
            "env:2A",
            "env:A-B",
            "env:A=B",
            "hashicorp:",
            "hashicorp:secret/app",
            "hashicorp:secret#key",
            "hashicorp:secret/app#",
            "hashicorp:/secret/app#key",
            "hashicorp:secret//app#key",
            "hashicorp:secret/../app#key",
            "hashicorp:secret/a?b#key",
            "hashicorp:secret/a%2fb#key",
            "hashicorp:secret/app#a#b",
            "hashicorp:secret/app#a b",
            "hashicorp:auth/token/lookup-self#id",
            "hashicorp:sys/wrapping/lookup#x",
            "exec:",
            "exec:a/b",
            "exec:/usr/bin/pass",
            "exec:..",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_of_this_host_stands_only_where_a_token_is_exchanged() {
        let reference = parse_subject("issuer:https://sts.test/x").unwrap();
        assert_eq!((reference.store(), reference.name()), (Store::Issuer, "https://sts.test/x"));
        assert_eq!(reference.to_string(), "issuer:https://sts.test/x");
        assert_eq!(parse_subject("vault:a").unwrap(), parse("vault:a").unwrap());
        assert!(parse("issuer:https://sts.test/x").is_err());
        for bad in ["issuer:", "issuer:a b", "issuer:{identity}", "issuer:\u{e9}"] {
            assert!(parse_subject(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reference_has_bounds() {
        let (part, field) = ("a".repeat(255), "f".repeat(128));
        assert!(parse(&format!("hashicorp:{part}/{part}#{field}")).is_ok());
        for bad in [
            format!("hashicorp:{part}/{part}/{part}#{field}"),
            format!("hashicorp:{part}/{part}#{field}f"),
            format!("exec:{}", "e".repeat(65)),
            format!("vault:{part}/{part}"),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_that_was_typed_in_is_never_repeated() {
        for typed in [
            "sk_live_51Hxyz",
            "vault:sk live 51Hxyz",
            "env:51Hxyz",
            "x:51Hxyz",
            "vault:../51Hxyz",
            "file:51Hxyz",
            "systemd:a/51Hxyz",
            "hashicorp:51Hxyz",
            "exec:a/51Hxyz",
        ] {
            let problem = parse(typed).unwrap_err();
            assert!(!format!("{problem:?}").contains("51Hxyz"), "{problem:?}");
            assert!(!SecretRef::parse(typed).unwrap_err().contains("51Hxyz"));
        }
    }
}
