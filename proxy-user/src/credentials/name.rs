//! The name of a secret in the store, as in `vault:stripe/restricted`.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

/// How many bytes a name may have.
const MAX_NAME_BYTES: usize = 128;

/// A name that was checked: `[a-z0-9][a-z0-9._/-]{0,127}`. It is a key in the store, never a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

/// What was given is not a name. The text is not repeated: it may be the secret itself, in the wrong place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not the name of a secret; a name has 1 to 128 characters out of a-z 0-9 . _ / - and starts with a \
     letter or a digit, as in stripe/restricted"
)]
pub struct NameError;

impl SecretName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let starts_well = text.as_bytes().first().is_some_and(plain);
        let goes_on_well = text.bytes().all(|byte| plain(&byte) || matches!(byte, b'.' | b'_' | b'/' | b'-'));
        if starts_well && goes_on_well && text.len() <= MAX_NAME_BYTES {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError)
        }
    }
}

impl Borrow<str> for SecretName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_documented_shape_are_taken() {
        for name in ["a", "0", "stripe/restricted", "a.b_c-d/e", &"x".repeat(128)] {
            assert_eq!(name.parse::<SecretName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn anything_else_is_refused_and_not_repeated() {
        for name in ["", "/a", ".a", "-a", "A", "sk_live_ABC", "a b", "a\n", "é", &"x".repeat(129)] {
            let error = name.parse::<SecretName>().unwrap_err();
            assert!(name.len() < 3 || !error.to_string().contains(name), "{name}");
        }
    }
}
