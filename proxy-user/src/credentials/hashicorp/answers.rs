//! Reads what HashiCorp Vault and OpenBao answer: <https://developer.hashicorp.com/vault/api-docs>, <https://openbao.org/api-docs>.
//!
//! Strict about what is used and blind to the rest. No error repeats anything of what was read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::answers::{LONGEST, Text, token};
use super::super::sealed::MAX_SECRET_BYTES;
use super::super::secret::Secret;

/// What a secret may have of fields.
const MAX_FIELDS: usize = 1000;
/// What an identifier of a lease may have. It has the path in it.
const MAX_ID_BYTES: usize = 2048;

/// An engine, by where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its path, with a slash at its end.
    pub path: String,
    /// Whether it is KV, version 2: it has its secrets below `data/`, and keeps versions of them.
    pub is_versioned: bool,
}

/// How the fields stand in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// In `data`.
    Plain,
    /// In `data.data`, beside `data.metadata`: KV, version 2.
    Versioned,
    /// Nobody said which engine it is: versioned if it looks exactly so.
    Either,
}

/// A secret. No `Debug`.
pub struct SecretAnswer {
    /// Its fields by name; `None` for one that is no text.
    pub fields: BTreeMap<String, Option<Secret>>,
    /// Its version where the engine keeps versions.
    pub version: Option<Version>,
    /// What it is leased for; `None`: it is not.
    pub lease: Option<LeaseAnswer>,
}

/// A version of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// From 1.
    pub number: u64,
    /// When it was written, in seconds since the Unix epoch, if that was said.
    pub created_s: Option<u64>,
}

/// A lease of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseAnswer {
    /// By which it is renewed and revoked.
    pub id: String,
    /// For how long it lasts; `None` when that is not said.
    pub lasts: Option<Duration>,
    /// Whether it can be renewed.
    pub is_renewable: bool,
}

/// For how long a token lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenTerm {
    /// From now on; `None`: it does not end.
    pub lasts: Option<Duration>,
    /// Whether it can be renewed.
    pub is_renewable: bool,
}

/// What a login gave. No `Debug`.
pub struct LoginAnswer {
    /// The token: visible ASCII.
    pub token: Secret,
    /// For how long.
    pub term: TokenTerm,
}

/// Fields by name. A name that is there twice is an error: which one counts?
struct Fields(BTreeMap<String, Field>);

/// A value: a text, or something else.
struct Field(Option<Text>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("fields")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                use serde::de::Error as _;
                let mut fields = BTreeMap::new();
                while let Some((name, field)) = map.next_entry::<String, Field>()? {
                    if fields.len() >= MAX_FIELDS || fields.insert(name, field).is_some() {
                        return Err(A::Error::custom("too many fields, or one twice"));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Field;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Field, E> {
                Ok(Field(Some(Text::from(text))))
            }
            fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Field, E> {
                Ok(Field(None))
            }
            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Field, E> {
                Ok(Field(None))
            }
            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Field, E> {
                Ok(Field(None))
            }
            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Field, E> {
                Ok(Field(None))
            }
            fn visit_unit<E: serde::de::Error>(self) -> Result<Field, E> {
                Ok(Field(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Field(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Field(None))
            }
        }
        deserializer.deserialize_any(Read)
    }
}

/// The head that all answers of engines have.
#[derive(Deserialize)]
struct Whole<D> {
    #[serde(default)]
    lease_id: String,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
    data: Option<D>,
    #[serde(default)]
    wrap_info: Option<IgnoredAny>,
}

/// KV, version 2.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Versioned {
    data: Option<Fields>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
    #[serde(default)]
    created_time: String,
}

fn lasts(seconds: u64) -> Option<Duration> {
    // Whoever counts whole seconds may have counted one that was nearly over.
    (seconds > 0).then(|| Duration::from_secs(seconds.saturating_sub(1).max(1)).min(LONGEST))
}

/// Whether a renewal gave so little that it is the end of all renewals, near which they become shorter and shorter.
#[must_use]
pub fn is_short(renewed: Option<Duration>, first: Option<Duration>) -> bool {
    match (renewed, first) {
        (Some(renewed), Some(first)) => renewed <= first / 2,
        (renewed, _) => renewed.is_none(),
    }
}

fn lease(id: String, seconds: u64, is_renewable: bool) -> Result<Option<LeaseAnswer>, &'static str> {
    if id.is_empty() {
        // KV, version 1, says how often to read it again, which is no lease.
        return Ok(None);
    }
    if id.len() > MAX_ID_BYTES || !id.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        return Err("its lease has an identifier that cannot be used");
    }
    Ok(Some(LeaseAnswer { id, lasts: lasts(seconds), is_renewable }))
}

/// Reads what an engine answered to a read.
///
/// # Errors
/// It is none, or has no secret.
pub fn secret(body: &[u8], shape: Shape) -> Result<SecretAnswer, &'static str> {
    let unusable = "its answer is not one with a secret";
    let versioned = match shape {
        Shape::Plain => None,
        Shape::Versioned => Some(serde_json::from_slice(body).map_err(|_| unusable)?),
        Shape::Either => serde_json::from_slice(body).ok().filter(|it: &Whole<Versioned>| it.data.is_some()),
    };
    let (whole, fields, version) = match versioned {
        Some(Whole { lease_id, lease_duration, renewable, data, wrap_info }) => {
            let Some(Versioned { data: Some(fields), metadata }) = data else { return Err(unusable) };
            let created = OffsetDateTime::parse(&metadata.created_time, &Rfc3339).ok();
            let created_s = created.and_then(|at| u64::try_from(at.unix_timestamp()).ok());
            let version = Version { number: metadata.version, created_s };
            ((lease_id, lease_duration, renewable, wrap_info), fields, Some(version))
        }
        None => {
            let whole: Whole<Fields> = serde_json::from_slice(body).map_err(|_| unusable)?;
            let fields = whole.data.ok_or(unusable)?;
            ((whole.lease_id, whole.lease_duration, whole.renewable, whole.wrap_info), fields, None)
        }
    };
    let (id, seconds, is_renewable, wrapped) = whole;
    if wrapped.is_some() {
        return Err("its answer is wrapped, and only what is not is read");
    }
    let read = |(name, Field(text)): (String, Field)| match text {
        Some(text) if text.len() > MAX_SECRET_BYTES => Err("it has a field of more than 65536 bytes"),
        text => Ok((name, text.map(|text| text.secret()))),
    };
    let fields = fields.0.into_iter().map(read).collect::<Result<_, _>>()?;
    Ok(SecretAnswer { fields, version, lease: lease(id, seconds, is_renewable)? })
}

/// Whether an answer that there is nothing says that there was something: a version that was deleted (KV, version 2).
#[must_use]
pub fn is_deleted(body: &[u8]) -> bool {
    serde_json::from_slice(body).is_ok_and(|it: Whole<Versioned>| it.data.is_some_and(|it| it.data.is_none()))
}

/// Reads which engine a path is in (`sys/internal/ui/mounts/PATH`).
///
/// # Errors
/// It is none, or says nothing that can be used.
pub fn mount(body: &[u8]) -> Result<Mount, &'static str> {
    #[derive(Deserialize)]
    struct Engine {
        path: String,
        #[serde(default, rename = "type")]
        kind: String,
        #[serde(default)]
        options: Option<Options>,
    }
    #[derive(Deserialize)]
    struct Options {
        #[serde(default)]
        version: Option<String>,
    }
    let unusable = "its answer does not say which engine the path is in";
    let whole: Whole<Engine> = serde_json::from_slice(body).map_err(|_| unusable)?;
    let engine = whole.data.ok_or(unusable)?;
    if engine.path.len() < 2 || !engine.path.ends_with('/') || engine.path.starts_with('/') {
        return Err(unusable);
    }
    let version = engine.options.and_then(|options| options.version);
    let is_versioned = matches!(engine.kind.as_str(), "kv" | "generic") && version.as_deref() == Some("2");
    Ok(Mount { path: engine.path, is_versioned })
}

/// Reads what a login gave.
///
/// # Errors
/// It is none, or has no token that a header can carry.
pub fn login(body: &[u8]) -> Result<LoginAnswer, &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        auth: Auth,
    }
    #[derive(Deserialize)]
    struct Auth {
        client_token: Text,
        #[serde(default)]
        lease_duration: u64,
        #[serde(default)]
        renewable: bool,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "its answer is not one to a login")?;
    let auth = answer.auth;
    let token = token(&auth.client_token).ok_or(
        "its answer has no token that a header can carry; logins with a second factor are not supported",
    )?;
    Ok(LoginAnswer {
        token,
        term: TokenTerm { lasts: lasts(auth.lease_duration), is_renewable: auth.renewable },
    })
}

/// Reads a secret id that was made (`auth/approle/role/NAME/secret-id`), and how many logins it is good for; 0: for any number.
///
/// # Errors
/// It is no such answer.
pub fn secret_id(body: &[u8]) -> Result<(Secret, u64), &'static str> {
    #[derive(Deserialize)]
    struct Made {
        secret_id: Text,
        #[serde(default)]
        secret_id_num_uses: u64,
    }
    let unusable = "its answer is not one with a secret id";
    let answer: Whole<Made> = serde_json::from_slice(body).map_err(|_| unusable)?;
    let made = answer.data.ok_or(unusable)?;
    Ok((token(&made.secret_id).ok_or(unusable)?, made.secret_id_num_uses))
}

/// Reads for how long a token lasts that was renewed (`auth/token/renew-self`).
///
/// # Errors
/// It is no such answer.
pub fn renewed_token(body: &[u8]) -> Result<TokenTerm, &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        auth: Auth,
    }
    #[derive(Deserialize)]
    struct Auth {
        lease_duration: u64,
        #[serde(default)]
        renewable: bool,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "its answer is not one to a renewal")?;
    Ok(TokenTerm { lasts: lasts(answer.auth.lease_duration), is_renewable: answer.auth.renewable })
}

/// Reads for how long a token lasts (`auth/token/lookup-self`).
///
/// # Errors
/// It is no such answer.
pub fn known_token(body: &[u8]) -> Result<TokenTerm, &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        data: Known,
    }
    #[derive(Deserialize)]
    struct Known {
        ttl: u64,
        #[serde(default)]
        renewable: bool,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(|_| "its answer is not one about a token")?;
    Ok(TokenTerm { lasts: lasts(answer.data.ttl), is_renewable: answer.data.renewable })
}

/// Reads for how long a lease lasts that was renewed (`sys/leases/renew`).
///
/// # Errors
/// It is no such answer.
pub fn renewed_lease(body: &[u8]) -> Result<LeaseAnswer, &'static str> {
    #[derive(Deserialize)]
    struct Answer {
        lease_id: String,
        lease_duration: u64,
        #[serde(default)]
        renewable: bool,
    }
    let unusable = "its answer is not one to a renewal";
    let answer: Answer = serde_json::from_slice(body).map_err(|_| unusable)?;
    lease(answer.lease_id, answer.lease_duration, answer.renewable)?.ok_or(unusable)
}

/// What a refusal says, if it is one of what is known: `errors` can repeat what was sent.
#[must_use]
pub fn refusal(body: &[u8]) -> Option<&'static str> {
    const KNOWN: [&str; 13] = [
        "permission denied",
        "invalid role or secret ID",
        "invalid secret id",
        "invalid role ID",
        "unknown role",
        "role could not be found",
        "error validating token",
        "invalid certificate or no client certificate supplied",
        "no handler for route",
        "lease not found",
        "namespace not found",
        "Vault is sealed",
        "unsupported operation",
    ];
    #[derive(Deserialize)]
    struct Refusal {
        errors: Vec<String>,
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    KNOWN.into_iter().find(|known| refusal.errors.iter().any(|said| said.contains(known)))
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
