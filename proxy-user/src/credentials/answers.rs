//! Reads what those who give tokens say: the answer of a token endpoint, and what a program prints.
//!
//! Both are strict about what is used and blind to the rest. No error repeats anything of what was read.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Unexpected, Visitor};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::sealed::MAX_SECRET_BYTES;
use super::secret::Secret;

/// What a token may have. Those of large directories have some KiB.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Nothing is kept longer than this, whatever is said.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// What is shown of a description.
const MAX_TEXT_BYTES: usize = 200;

/// A token, and for how long it lasts; `None` when that is not said.
pub struct Given {
    /// The token: visible ASCII.
    pub token: Secret,
    /// For how long it lasts from now on.
    pub lasts: Option<Duration>,
}

/// What a token endpoint gave (RFC 6749 §5.1). No `Debug`.
pub struct TokenAnswer {
    /// The access token.
    pub access: Given,
    /// What the token is (RFC 8693 §2.2.1).
    pub issued_type: Option<String>,
}

/// Why a token endpoint gave nothing (RFC 6749 §5.2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenRefusal {
    /// The code, if it is one that is known.
    pub code: Option<&'static str>,
    /// What it says to people, bounded, in visible characters. It can repeat what was sent.
    pub description: Option<String>,
}

/// The codes of RFC 6749, 6750, 8628, 8693, 8707, 9126, 9396 and 9449, and of OpenID Connect.
const CODES: [&str; 17] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
    "invalid_target",
    "invalid_token",
    "invalid_authorization_details",
    "invalid_dpop_proof",
    "use_dpop_nonce",
    "access_denied",
    "interaction_required",
    "consent_required",
    "slow_down",
    "server_error",
    "temporarily_unavailable",
];

/// A text that is wiped.
pub(super) struct Text(Zeroizing<String>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Text;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text::from(text))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }
}

impl Text {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn secret(&self) -> Secret {
        Secret::new(self.0.as_bytes().to_vec())
    }
}

/// Seconds: a number, or the same as text, as some servers write it.
struct Seconds(u64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl Visitor<'_> for Read {
            type Value = Seconds;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("seconds")
            }
            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Seconds, E> {
                Ok(Seconds(seconds))
            }
            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Seconds, E> {
                // It has ended.
                Ok(Seconds(0))
            }
            fn visit_f64<E: serde::de::Error>(self, seconds: f64) -> Result<Seconds, E> {
                match Duration::try_from_secs_f64(seconds) {
                    Ok(seconds) => Ok(Seconds(seconds.as_secs())),
                    Err(_) => Err(E::invalid_value(Unexpected::Other("a number"), &self)),
                }
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Seconds, E> {
                match text.parse() {
                    Ok(seconds) => Ok(Seconds(seconds)),
                    // Not repeated.
                    Err(_) => Err(E::invalid_value(Unexpected::Other("a text"), &self)),
                }
            }
        }
        deserializer.deserialize_any(Read)
    }
}

pub(super) fn token(text: &Text) -> Option<Secret> {
    let fits = !text.0.is_empty() && text.0.len() <= MAX_TOKEN_BYTES;
    (fits && text.0.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.secret())
}

/// For how long something lasts; an error when it has ended.
fn lasts(seconds: u64) -> Result<Duration, &'static str> {
    match seconds {
        0 => Err("the token ended before it came; check the clock of this host"),
        // Whoever counts whole seconds may have counted one that was nearly over.
        seconds => Ok(Duration::from_secs(seconds.saturating_sub(1).max(1)).min(LONGEST)),
    }
}

fn until(at: &str, now: OffsetDateTime) -> Result<Duration, &'static str> {
    let at = OffsetDateTime::parse(at, &Rfc3339)
        .map_err(|_| "the time of its end is none of RFC 3339, such as 2027-01-31T12:00:00Z")?;
    lasts(u64::try_from((at - now).whole_seconds()).unwrap_or(0))
}

/// Reads a successful answer of a token endpoint.
///
/// # Errors
/// It is none, or has no bearer token that a header can carry, or one that has ended.
pub fn token_answer(body: &[u8]) -> Result<TokenAnswer, &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        access_token: Text,
        token_type: String,
        #[serde(default)]
        expires_in: Option<Seconds>,
        #[serde(default)]
        issued_token_type: Option<String>,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "its answer is not one with a token")?;
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err("its token is none of the type Bearer; it is not used");
    }
    let secret = token(&answer.access_token).ok_or("its answer has no token that a header can carry")?;
    let lasts = answer.expires_in.map(|it| lasts(it.0)).transpose()?;
    Ok(TokenAnswer { access: Given { token: secret, lasts }, issued_type: answer.issued_token_type })
}

/// The refresh token of an answer, whatever else is wrong with it: the one that was sent may not be good any more.
///
/// # Errors
/// What is there cannot be kept.
pub fn refresh_token(body: &[u8]) -> Result<Option<Secret>, &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        refresh_token: Option<Text>,
    }
    let unusable = "its answer has a refresh token that cannot be kept, or is none; sign in again if the one before is not taken";
    let answer: Answer = serde_json::from_slice(body).map_err(|_| unusable)?;
    match answer.refresh_token.filter(|text| !text.0.is_empty()) {
        Some(text) if text.0.len() > MAX_SECRET_BYTES => Err(unusable),
        text => Ok(text.map(|text| text.secret())),
    }
}

/// Reads a refusal; whatever is not understood is not there.
#[must_use]
pub fn token_refusal(body: &[u8]) -> TokenRefusal {
    let Ok(Value::Object(answer)) = serde_json::from_slice(body) else { return TokenRefusal::default() };
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    let code = text("error").and_then(|code| CODES.into_iter().find(|known| *known == code));
    let description = text("error_description").map(shown).filter(|text| !text.is_empty());
    TokenRefusal { code, description }
}

/// Bounded, and without anything that drives a terminal or ends a line.
fn shown(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(MAX_TEXT_BYTES).collect()
}

/// Reads what a program prints: `{"credential": …}` or `{"token": …}`, with `expires_at` or `expires_in`; or an
/// `ExecCredential` as kubectl takes it.
///
/// # Errors
/// It is none of these, or says something twice, or has no credential that a header can carry, or one that has ended.
pub fn program_output(output: &[u8]) -> Result<Given, &'static str> {
    output_at(output, OffsetDateTime::now_utc())
}

fn output_at(output: &[u8], now: OffsetDateTime) -> Result<Given, &'static str> {
    #[derive(Deserialize)]
    struct Output {
        #[serde(default)]
        kind: Option<String>,
        #[serde(default)]
        credential: Option<Text>,
        #[serde(default)]
        token: Option<Text>,
        #[serde(default)]
        expires_at: Option<String>,
        #[serde(default)]
        expires_in: Option<Seconds>,
        #[serde(default)]
        status: Option<Status>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        #[serde(default)]
        token: Option<Text>,
        #[serde(default)]
        expiration_timestamp: Option<String>,
    }
    let output: Output = serde_json::from_slice(output).map_err(|_| {
        "what it prints is not JSON with a credential; it prints {\"credential\": \"…\", \"expires_in\": 300}"
    })?;
    let of_kubectl = output.kind.as_deref() == Some("ExecCredential");
    let (said, at) = match (of_kubectl, output.credential, output.token, output.status) {
        (true, None, None, Some(status)) => (status.token, status.expiration_timestamp),
        (false, Some(said), None, None) | (false, None, Some(said), None) => (Some(said), output.expires_at),
        _ => return Err("what it prints has no credential, or more than one"),
    };
    let said = said.ok_or("what it prints has no token; certificates are for kind = \"mtls\"")?;
    let token = token(&said).ok_or("what it prints is no credential that a header can carry")?;
    let lasts = match (at, output.expires_in) {
        (Some(_), Some(_)) => return Err("what it prints says twice when the credential ends"),
        (Some(at), None) => Some(until(&at, now)?),
        (None, Some(seconds)) => Some(lasts(seconds.0)?),
        (None, None) => None,
    };
    Ok(Given { token, lasts })
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
