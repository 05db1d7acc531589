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
    fn a_value_that_was_typed_in_is_never_repeated() {
        for typed in
            ["sk_live_51Hxyz", "vault:sk live 51Hxyz", "env:51Hxyz", "x:51Hxyz", "vault:../51Hxyz", "vault:"]
        {
            let problem = parse(typed).unwrap_err();
            assert!(!format!("{problem:?}").contains("51Hxyz"), "{problem:?}");
        }
    }
}
