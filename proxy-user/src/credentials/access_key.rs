//! An access key of AWS in one text, both parts: JSON as AWS prints it (`aws iam create-access-key`, `credential_process`).

use std::sync::Arc;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::answers::{Text, token};
use super::secret::Secret;
use super::sigv4::Keys;

/// A pair of keys. No `Debug`.
pub struct AccessKey {
    /// The public part: letters, digits, `-`, `_`, `.`.
    pub id: String,
    /// The secret part: visible ASCII.
    pub secret: Secret,
    /// What temporary keys have besides.
    pub session_token: Option<Secret>,
}

/// The three texts, where AWS has them: at the top, or in `AccessKey` (IAM) or `Credentials` (STS).
#[derive(Deserialize)]
struct Written {
    #[serde(rename = "AccessKeyId")]
    id: Option<Text>,
    #[serde(rename = "SecretAccessKey")]
    secret: Option<Text>,
    #[serde(rename = "SessionToken")]
    session_token: Option<Text>,
    #[serde(rename = "AccessKey", alias = "Credentials")]
    inner: Option<Box<Written>>,
}

/// Whether AWS names its keys so.
pub(super) fn is_key_id(text: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    (1..=128).contains(&text.len()) && text.iter().all(plain)
}

impl From<AccessKey> for Keys {
    fn from(key: AccessKey) -> Self {
        let AccessKey { id, secret, session_token } = key;
        Self { id: id.into(), secret: Arc::new(secret), session_token: session_token.map(Arc::new) }
    }
}

impl AccessKey {
    /// Reads the text.
    ///
    /// # Errors
    /// What is wrong with it, and what to do; nothing of it.
    pub fn read(text: &[u8]) -> Result<Self, &'static str> {
        const WRONG: &str =
            "its access key is none: set {\"AccessKeyId\": …, \"SecretAccessKey\": …}, as AWS prints it";
        let written: Written = serde_json::from_slice(text).map_err(|_| WRONG)?;
        let written = match written {
            Written { id: None, secret: None, session_token: None, inner: Some(inner) } => *inner,
            written => written,
        };
        let Written { id: Some(id), secret: Some(secret), session_token, inner: None } = written else {
            return Err(WRONG);
        };
        let id = id.secret();
        let id = std::str::from_utf8(id.expose()).ok().filter(|id| is_key_id(id.as_bytes())).ok_or(WRONG)?;
        let session_token = match session_token {
            Some(text) => Some(token(&text).ok_or(WRONG)?),
            None => None,
        };
        Ok(Self { id: id.to_owned(), secret: token(&secret).ok_or(WRONG)?, session_token })
    }

    /// The text that it is read from.
    #[must_use]
    pub fn text(&self) -> Secret {
        let texts = [
            ("AccessKeyId", Some(self.id.as_bytes())),
            ("SecretAccessKey", Some(self.secret.expose())),
            ("SessionToken", self.session_token.as_ref().map(Secret::expose)),
        ];
        let most: usize = texts.iter().map(|(name, it)| name.len() + 6 * it.map_or(0, <[u8]>::len) + 6).sum();
        // At its final size from the start: a buffer that grew would leave copies behind in freed memory.
        let mut text = Zeroizing::new(Vec::with_capacity(most + 2));
        for (name, value) in texts {
            let Some(value) = value.and_then(|it| std::str::from_utf8(it).ok()) else { continue };
            let before = if text.is_empty() { b'{' } else { b',' };
            text.push(before);
            // Into memory, and of what is text: it cannot fail.
            let _ = serde_json::to_writer(&mut *text, name);
            text.push(b':');
            let _ = serde_json::to_writer(&mut *text, value);
        }
        text.push(b'}');
        Secret::from(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(text: &str) -> Option<(String, Vec<u8>, Option<Vec<u8>>)> {
        let key = AccessKey::read(text.as_bytes()).ok()?;
        Some((key.id, key.secret.expose().to_vec(), key.session_token.map(|it| it.expose().to_vec())))
    }

    #[test]
    fn a_key_is_read_as_aws_prints_it() {
        let plain = r#"{"Version": 1, "AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "a/b+c"}"#;
        assert_eq!(parts(plain), Some(("AKIDEXAMPLE".into(), b"a/b+c".to_vec(), None)));
        let of_iam = r#"{"AccessKey": {"UserName": "bot", "Status": "Active", "CreateDate": "2026-11-24T12:00:00Z",
            "SecretAccessKey": "s", "AccessKeyId": "AKIDEXAMPLE"}}"#;
        assert_eq!(parts(of_iam), Some(("AKIDEXAMPLE".into(), b"s".to_vec(), None)));
        let of_sts =
            r#"{"Credentials": {"AccessKeyId": "A", "SecretAccessKey": "s", "SessionToken": "t=="}}"#;
        assert_eq!(parts(of_sts), Some(("A".into(), b"s".to_vec(), Some(b"t==".to_vec()))));
    }

    #[test]
    fn what_is_no_key_is_refused_without_a_word_of_it() {
        for bad in [
            "",
            "CANARY",
            "{}",
            "[]",
            r#"{"AccessKeyId": "CANARY"}"#,
            r#"{"AccessKeyId": "CANARY", "SecretAccessKey": ""}"#,
            r#"{"AccessKeyId": "CANARY", "SecretAccessKey": 5}"#,
            r#"{"AccessKeyId": "CANARY", "SecretAccessKey": "a b"}"#,
            r#"{"AccessKeyId": "CAN/ARY", "SecretAccessKey": "a"}"#,
            r#"{"AccessKeyId": "CANARY", "SecretAccessKey": "a", "SecretAccessKey": "b"}"#,
            r#"{"AccessKeyId": "CANARY", "SecretAccessKey": "a", "SessionToken": ""}"#,
            r#"{"AccessKeyId": "CANARY", "SecretAccessKey": "a", "AccessKey": {"AccessKeyId": "B", "SecretAccessKey": "b"}}"#,
            r#"{"AccessKey": {"AccessKey": {"AccessKeyId": "CANARY", "SecretAccessKey": "a"}}}"#,
        ] {
            let error = AccessKey::read(bad.as_bytes()).err();
            assert!(error.is_some_and(|error| !error.contains("CANARY")), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_it_was(id in "[A-Z0-9_.-]{1,40}", secret in "[!-~]{1,60}", session in proptest::option::of("[!-~]{1,60}")) {
            let secret_of = |text: &String| Secret::new(text.clone().into_bytes());
            let key = AccessKey { id: id.clone(), secret: secret_of(&secret), session_token: session.as_ref().map(secret_of) };
            let text = String::from_utf8(key.text().expose().to_vec()).unwrap();
            prop_assert_eq!(parts(&text), Some((id, secret.into_bytes(), session.map(String::into_bytes))));
        }
    }
}
