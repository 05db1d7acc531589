//! What is a credential by its name or its shape, wherever a client has it from; and fingerprints of what was taken out.

use std::fmt;
use std::path::Path;

use aws_lc_rs::hmac;

use super::escape;
use super::key::KeySource;
use super::store::StoreError;

/// The key of the fingerprints, beside the store.
const KEY_FILE: &str = "fingerprint.key";

/// How many bytes of a fingerprint are kept: enough to tell keys apart, too few to be taken for one.
const KEPT_BYTES: usize = 12;

/// Headers that carry nothing but a key at some well-known API. `_` counts as `-`.
pub(super) fn is_key_header(name: &str) -> bool {
    let folded;
    let name = match name.contains('_') {
        true => {
            folded = name.replace('_', "-");
            folded.as_str()
        }
        false => name,
    };
    matches!(
        name,
        "api-key"
            | "apikey"
            | "api-token"
            | "authorization"
            | "circle-token"
            | "dd-api-key"
            | "dd-application-key"
            | "deploy-token"
            | "job-token"
            | "ocp-apim-subscription-key"
            | "private-token"
            | "proxy-authorization"
            | "x-access-token"
            | "x-algolia-api-key"
            | "x-api-key"
            | "x-api-token"
            | "x-auth-key"
            | "x-auth-token"
            | "x-figma-token"
            | "x-goog-api-key"
            | "x-rapidapi-key"
            | "x-shopify-access-token"
            | "x-vault-token"
            | "xi-api-key"
    )
}

/// Query parameters that carry nothing but a key.
fn is_key_parameter(name: &[u8]) -> bool {
    const NAMES: [&[u8]; 8] = [
        b"access_token",
        b"api-key",
        b"api_key",
        b"apikey",
        b"auth_token",
        b"client_secret",
        b"private_token",
        b"x-api-key",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// How the tokens of well-known issuers begin, and how many characters follow at least.
const TOKENS: [(&[u8], usize); 30] = [
    (b"AIza", 30),
    (b"AKIA", 16),
    (b"ASIA", 16),
    (b"SG.", 30),
    (b"dop_v1_", 30),
    (b"figd_", 20),
    (b"gho_", 30),
    (b"ghp_", 30),
    (b"ghr_", 30),
    (b"ghs_", 30),
    (b"ghu_", 30),
    (b"github_pat_", 30),
    (b"glpat-", 16),
    (b"hf_", 30),
    (b"lin_api_", 30),
    (b"npm_", 30),
    (b"pypi-", 50),
    (b"rk_live_", 20),
    (b"rk_test_", 20),
    (b"shpat_", 30),
    (b"sk-", 20),
    (b"sk_live_", 20),
    (b"sk_test_", 20),
    (b"sq0atp-", 20),
    (b"xapp-", 20),
    (b"xoxa-", 20),
    (b"xoxb-", 20),
    (b"xoxp-", 20),
    (b"xoxs-", 20),
    (b"ya29.", 30),
];

/// Whether a value is a token by its shape: one of a well-known issuer, or a signed JWT (RFC 7519).
pub(super) fn is_token(value: &[u8]) -> bool {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let known = |(start, more): &(&[u8], usize)| {
        value.strip_prefix(*start).is_some_and(|rest| rest.len() >= *more && rest.iter().all(part))
    };
    let is_jwt = || {
        let mut parts = value.split(|byte| *byte == b'.');
        let full = |it: Option<&[u8]>| it.is_some_and(|it| it.len() >= 8);
        // `{"`, in base64url.
        value.starts_with(b"eyJ")
            && value.iter().all(part)
            && full(parts.next())
            && full(parts.next())
            && full(parts.next())
            && parts.next().is_none()
    };
    TOKENS.iter().any(known) || is_jwt()
}

/// Whether a piece of a query (`name=value`) is a credential by its name or its shape.
pub(super) fn is_key_piece(piece: &str) -> bool {
    let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
    // Nearly all have nothing that is escaped.
    let plain = |text: &str| !text.contains(['%', '+']);
    match plain(name) && plain(value) {
        true => is_key_parameter(name.as_bytes()) || is_token(value.as_bytes()),
        false => {
            is_key_parameter(&escape::unpercent(name.as_bytes()))
                || is_token(&escape::unpercent(value.as_bytes()))
        }
    }
}

/// Tells what was taken out apart without telling it: under a key of this host, so that nobody else can try values out.
#[derive(Clone)]
pub struct Fingerprints(hmac::Key);

impl Fingerprints {
    /// With the key in this folder, which is made when there is none.
    ///
    /// # Errors
    /// The key cannot be read or made, or others can read it.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        let source = KeySource::file(state.join(KEY_FILE));
        let key = match source.read()? {
            Some(key) => key,
            None => source.create()?,
        };
        Ok(Self::new(key.bytes()))
    }

    /// With the key in this folder; nothing when there is none yet.
    ///
    /// # Errors
    /// The key cannot be read, or others can read it.
    pub fn read(state: &Path) -> Result<Option<Self>, StoreError> {
        Ok(KeySource::file(state.join(KEY_FILE)).read()?.map(|key| Self::new(key.bytes())))
    }

    /// With this key.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// Of a value: the same for the same value on this host, in hexadecimal digits.
    #[must_use]
    pub fn of(&self, value: &[u8]) -> String {
        let tag = hmac::sign(&self.0, value);
        tag.as_ref().iter().take(KEPT_BYTES).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprints")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJib3QifQ.c2lnbmF0dXJlLW9mLWl0";

    #[test]
    fn what_is_a_key_by_name_or_shape_is_told_apart_from_what_only_looks_a_little_so() {
        for piece in [
            "access_token=1",
            "API_KEY=1",
            "api%5Fkey=1",
            "apikey",
            "q=ghp_0123456789abcdefghijABCDEFGHIJ012345",
            "q=%67hp_0123456789abcdefghijABCDEFGHIJ012345",
            "x=AKIAIOSFODNN7EXAMPLE",
            "x=sk_live_0123456789abcdefghij",
        ] {
            assert!(is_key_piece(piece), "{piece}");
        }
        assert!(is_key_piece(&format!("t={JWT}")));
        for piece in [
            "page_token=1",
            "key=value",
            "token=CAUQAA",
            "q=sk-8",
            "q=ghp_short",
            "q=hello+world",
            "q=AKIA+IOSFODNN7EXAMPLE",
            "q=eyJhIjoxfQ",
            "",
        ] {
            assert!(!is_key_piece(piece), "{piece}");
        }
    }

    #[test]
    fn headers_are_known_in_both_spellings() {
        assert!(is_key_header("x-api-key") && is_key_header("x_api_key") && is_key_header("private-token"));
        assert!(!is_key_header("x-request-id") && !is_key_header("x-csrf-token") && !is_key_header("dpop"));
    }

    #[test]
    fn a_fingerprint_is_the_same_for_the_same_value_under_the_same_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (one, again) = (Fingerprints::open(dir.path()).unwrap(), Fingerprints::open(dir.path()).unwrap());
        assert_eq!(one.of(b"ghp_a"), again.of(b"ghp_a"));
        assert_ne!(one.of(b"ghp_a"), one.of(b"ghp_b"));
        assert_ne!(one.of(b"ghp_a"), Fingerprints::new(&[7; 32]).of(b"ghp_a"));
        assert_eq!(one.of(b"ghp_a").len(), 2 * KEPT_BYTES);
        assert!(!format!("{one:?}").contains(&one.of(b"")));
    }
}
