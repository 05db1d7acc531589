//! Signatures with a shared key (HMAC, RFC 2104), as each API defines them: texts of the policy, filled in for each call.

use std::sync::Arc;

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{HeaderName, HeaderValue};
use proxy_policy::{HmacCredential, HmacEncoding, HmacHash, HmacPart, HmacText};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use super::attach::{Head, Misplaced, is_twin, sensitive};
use super::mask::Needles;
use super::secret::Secret;
use super::signing::{Signer, Signing};
use super::sigv4::Chunks;
use super::{escape, hex, parts};

/// The most bytes of a body that is signed as a whole.
const MOST_BODY: usize = 16 << 20;

/// Signs with one key.
#[derive(Clone)]
pub(super) struct HmacSigner {
    kind: Arc<HmacCredential>,
    key: Arc<hmac::Key>,
}

impl HmacSigner {
    /// Takes the key as it is written in its store; `None` when it is not written so.
    pub(super) fn new(kind: Arc<HmacCredential>, secret: &Secret) -> Option<Self> {
        let key = decoded(kind.key_encoding, secret.expose())?;
        let algorithm = match kind.hash {
            HmacHash::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            HmacHash::Sha256 => hmac::HMAC_SHA256,
            HmacHash::Sha384 => hmac::HMAC_SHA384,
            HmacHash::Sha512 => hmac::HMAC_SHA512,
            _ => return None,
        };
        let key = Arc::new(hmac::Key::new(algorithm, &key));
        Some(Self { kind, key })
    }
}

fn decoded(encoding: HmacEncoding, bytes: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let written = bytes.trim_ascii();
    let key = match encoding {
        HmacEncoding::Text => Some(Zeroizing::new(bytes.to_vec())),
        HmacEncoding::Hex => hex::decode(&Zeroizing::new(written.to_ascii_lowercase())),
        HmacEncoding::Base64 => escape::unbase64(written).map(|key| Zeroizing::new(key.expose().to_vec())),
        HmacEncoding::Base64Url => {
            let padding = written.iter().rev().take_while(|byte| **byte == b'=').count();
            let written = written.get(..written.len() - padding)?;
            URL_SAFE_NO_PAD.decode(written).ok().map(Zeroizing::new)
        }
        _ => None,
    };
    key.filter(|key| !key.is_empty())
}

impl Signer for HmacSigner {
    fn look(&self, _head: &Head<'_>) -> Result<Arc<dyn Signing>, Misplaced> {
        Ok(Arc::new(self.clone()))
    }

    /// Of the key, nothing is in a call.
    fn needles(&self) -> Option<Arc<Needles>> {
        None
    }
}

impl Signing for HmacSigner {
    fn body_limit(&self) -> Option<usize> {
        self.kind.reads_body().then_some(MOST_BODY)
    }

    fn sets(&self, name: &HeaderName) -> bool {
        self.kind
            .headers
            .iter()
            .any(|(ours, _)| HeaderName::from_bytes(ours.as_bytes()).is_ok_and(|ours| is_twin(name, &ours)))
    }

    fn take_out(&self, head: &mut Head<'_>, taken: &mut Vec<(String, Secret)>) -> Result<(), Misplaced> {
        let is_meant = |piece: &str| self.kind.query.iter().any(|(name, _)| parts::is_named(piece, name));
        if head.target.query().is_some_and(|query| parts::has_piece(query, &is_meant)) {
            let left = parts::without(head.target, &is_meant, taken);
            *head.target = left.map_err(|_| Misplaced::Unspeakable)?;
        }
        Ok(())
    }

    fn sign(&self, head: &mut Head<'_>, body: &[u8]) -> Result<Option<Chunks>, Misplaced> {
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Misplaced::Unsigned("this host has no randomness"))?;
        self.sign_at(head, body, OffsetDateTime::now_utc(), &hex::encode(&nonce)).map(|()| None)
    }
}

/// What is known of one call besides its head.
struct Facts<'a> {
    body: &'a [u8],
    now: OffsetDateTime,
    nonce: &'a str,
    signature: &'a str,
}

impl HmacSigner {
    fn sign_at(
        &self,
        head: &mut Head<'_>,
        body: &[u8],
        now: OffsetDateTime,
        nonce: &str,
    ) -> Result<(), Misplaced> {
        let mut facts = Facts { body, now, nonce, signature: "" };
        self.put(head, &facts, false)?;
        let signed = fill(&self.kind.sign, head, &facts)?;
        let signature = written(self.kind.encoding, hmac::sign(&self.key, &signed).as_ref())?;
        facts.signature = &signature;
        self.put(head, &facts, true)
    }

    /// Headers and parameters, before the signature is made, or with it.
    fn put(&self, head: &mut Head<'_>, facts: &Facts<'_>, with_signature: bool) -> Result<(), Misplaced> {
        let is_due = |text: &HmacText| text.has(|part| *part == HmacPart::Signature) == with_signature;
        for (name, text) in self.kind.headers.iter().filter(|(_, text)| is_due(text)) {
            let value = fill(text, head, facts)?;
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Misplaced::Unspeakable)?;
            let value = match with_signature {
                true => sensitive(Secret::new(value)).map_err(|_| Misplaced::Unspeakable)?,
                false => HeaderValue::from_bytes(&value).map_err(|_| Misplaced::Unspeakable)?,
            };
            head.headers.insert(name, value);
        }
        for (name, text) in self.kind.query.iter().filter(|(_, text)| is_due(text)) {
            let value = fill(text, head, facts)?;
            *head.target = parts::with_parameter(head.target, name, escape::percent(&value).expose())
                .map_err(|_| Misplaced::Unspeakable)?;
        }
        Ok(())
    }
}

/// A text with the parts of the call in their places.
fn fill(text: &HmacText, head: &Head<'_>, facts: &Facts<'_>) -> Result<Vec<u8>, Misplaced> {
    let mut out = Vec::with_capacity(64);
    for part in &text.parts {
        match part {
            HmacPart::Text(text) => out.extend_from_slice(text.as_bytes()),
            HmacPart::Method => out.extend_from_slice(head.method.as_str().as_bytes()),
            HmacPart::Path => out.extend_from_slice(head.target.path().as_bytes()),
            HmacPart::Query => out.extend_from_slice(head.target.query().unwrap_or_default().as_bytes()),
            HmacPart::Target => out.extend_from_slice(head.target.as_str().as_bytes()),
            HmacPart::Host => out.extend_from_slice(head.authority.as_str().as_bytes()),
            HmacPart::Timestamp => out.extend(facts.now.unix_timestamp().to_string().into_bytes()),
            HmacPart::TimestampMs => {
                out.extend((facts.now.unix_timestamp_nanos() / 1_000_000).to_string().into_bytes());
            }
            HmacPart::HttpDate => out.extend(httpdate::fmt_http_date(facts.now.into()).into_bytes()),
            HmacPart::DateTime => {
                let whole = facts.now.replace_nanosecond(0).unwrap_or(facts.now);
                out.extend(whole.format(&Rfc3339).map_err(|_| Misplaced::Unspeakable)?.into_bytes());
            }
            HmacPart::Nonce => out.extend_from_slice(facts.nonce.as_bytes()),
            HmacPart::Body => out.extend_from_slice(facts.body),
            HmacPart::BodyDigest(hash, encoding) => {
                out.extend(written(*encoding, &digested(*hash, facts.body)?)?.into_bytes());
            }
            // As it is forwarded; several are joined as one value (RFC 9110 §5.3).
            HmacPart::Header(name) => {
                for (number, value) in head.headers.get_all(name).iter().enumerate() {
                    if number > 0 {
                        out.extend_from_slice(b", ");
                    }
                    out.extend_from_slice(value.as_bytes());
                }
            }
            HmacPart::Signature => out.extend_from_slice(facts.signature.as_bytes()),
            _ => return Err(Misplaced::Unsigned("this daemon does not know a part of what is signed")),
        }
    }
    Ok(out)
}

fn digested(hash: HmacHash, bytes: &[u8]) -> Result<Vec<u8>, Misplaced> {
    let algorithm = match hash {
        HmacHash::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
        HmacHash::Sha256 => &digest::SHA256,
        HmacHash::Sha384 => &digest::SHA384,
        HmacHash::Sha512 => &digest::SHA512,
        _ => return Err(Misplaced::Unsigned("this daemon does not know the hash")),
    };
    Ok(digest::digest(algorithm, bytes).as_ref().to_vec())
}

fn written(encoding: HmacEncoding, bytes: &[u8]) -> Result<String, Misplaced> {
    match encoding {
        HmacEncoding::Hex => Ok(hex::encode(bytes).as_str().to_owned()),
        HmacEncoding::Base64 => Ok(STANDARD.encode(bytes)),
        HmacEncoding::Base64Url => Ok(URL_SAFE_NO_PAD.encode(bytes)),
        _ => Err(Misplaced::Unsigned("this daemon does not know how the signature is written")),
    }
}

#[cfg(test)]
#[path = "shared_key_tests.rs"]
mod tests;
