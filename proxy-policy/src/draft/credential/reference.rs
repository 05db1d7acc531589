//! References to secrets, as in `secret = "vault:stripe/restricted"`. No message repeats what was written.

use crate::credential::{SecretRef, Store};
use crate::diagnostic::Problem;

pub(super) fn parse(text: &str) -> Result<SecretRef, Problem> {
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

/// Where a token is that somebody is exchanged for: a secret, or `issuer:AUDIENCE`, which this host issues for that audience.
#[cfg_attr(not(test), expect(dead_code, reason = "the kinds that exchange a token read it"))]
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
    fn a_value_that_was_typed_in_is_never_repeated() {
        for typed in
            ["sk_live_51Hxyz", "vault:sk live 51Hxyz", "env:51Hxyz", "x:51Hxyz", "vault:../51Hxyz", "vault:"]
        {
            let problem = parse(typed).unwrap_err();
            assert!(!format!("{problem:?}").contains("51Hxyz"), "{problem:?}");
        }
    }
}
