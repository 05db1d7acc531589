//! `kind = "hmac"`: calls signed with a shared key, as each API defines it.

use super::SecretRef;

/// How calls are signed with a shared key (RFC 2104).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HmacCredential {
    /// Where the key is.
    pub secret: SecretRef,
    /// How the key is written there.
    pub key_encoding: HmacEncoding,
    /// The hash.
    pub hash: HmacHash,
    /// What is signed.
    pub sign: HmacText,
    /// How the signature is written.
    pub encoding: HmacEncoding,
    /// Headers that are set, in this order; those without the signature before it is made.
    pub headers: Vec<(String, HmacText)>,
    /// Parameters of the query that are added, in this order; those without the signature before it is made.
    pub query: Vec<(String, HmacText)>,
}

/// How bytes are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HmacEncoding {
    /// As they are; for keys only.
    Text,
    /// Hexadecimal, small letters.
    Hex,
    /// Base64 with padding (RFC 4648 §4).
    Base64,
    /// Base64 for URLs, without padding (RFC 4648 §5).
    Base64Url,
}

/// A hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HmacHash {
    /// Old APIs have it; in an HMAC it is not broken.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// A text with places for parts of the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HmacText {
    /// Texts and places in their order.
    pub parts: Vec<HmacPart>,
}

/// A piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HmacPart {
    /// As it stands there.
    Text(String),
    /// `{method}`
    Method,
    /// `{path}`: without the query.
    Path,
    /// `{query}`: without the question mark; nothing when there is none.
    Query,
    /// `{target}`: the path, and the query behind a question mark when there is one.
    Target,
    /// `{host}`: with the port unless it is the scheme's.
    Host,
    /// `{timestamp}`: seconds since the Unix epoch.
    Timestamp,
    /// `{timestamp_ms}`: milliseconds since then.
    TimestampMs,
    /// `{date}`: as in the header `Date` (RFC 9110 §5.6.7).
    HttpDate,
    /// `{datetime}`: as in `2027-01-31T12:00:00Z` (RFC 3339).
    DateTime,
    /// `{nonce}`: 32 hexadecimal digits that come once.
    Nonce,
    /// `{body}`
    Body,
    /// `{body_sha256}` and its like: the digest of the body.
    BodyDigest(HmacHash, HmacEncoding),
    /// `{header.NAME}`: the value of a header of the call; nothing when there is none.
    Header(String),
    /// `{signature}`
    Signature,
}

impl HmacText {
    /// Whether one of its pieces is so.
    pub fn has(&self, is_it: impl Fn(&HmacPart) -> bool) -> bool {
        self.parts.iter().any(is_it)
    }
}

impl HmacCredential {
    /// Whether the body of a call must be there before it is signed.
    #[must_use]
    pub fn reads_body(&self) -> bool {
        let reads =
            |text: &HmacText| text.has(|part| matches!(part, HmacPart::Body | HmacPart::BodyDigest(..)));
        reads(&self.sign) || self.headers.iter().chain(&self.query).any(|(_, text)| reads(text))
    }
}
