//! AWS Signature Version 4: a request is signed in a header or in the query, and a body in chunks, each after the one before.
//!
//! The signature is our own code, and not that of a library: it is what this program is for, it works on the request in place,
//! and the key stays in memory that is wiped. It is held against the official vectors and the signer of the official SDK.

mod canonical;
mod chunks;
mod claimed;
mod sign;

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::{digest, hmac};
use time::OffsetDateTime;
use zeroize::Zeroizing;

pub use self::chunks::{ChunkError, Chunks};
pub(super) use self::sign::AwsSigner;
use super::secret::Secret;

pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// A pair of keys.
pub(super) struct Keys {
    pub(super) id: Box<str>,
    pub(super) secret: Arc<Secret>,
    /// What temporary keys have besides.
    pub(super) session_token: Option<Arc<Secret>>,
}

/// For which service of which region a signature is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    pub(super) region: Box<str>,
    pub(super) service: Box<str>,
}

impl Scope {
    /// Whether it is the store of objects, whose paths and bodies are signed in another way.
    pub(super) fn is_store(&self) -> bool {
        matches!(&*self.service, "s3" | "s3-object-lambda" | "s3-outposts" | "s3express")
    }
}

/// A moment, as signatures spell it: `20150830T123600Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp([u8; 16]);

impl Stamp {
    pub(super) fn of(at: OffsetDateTime) -> Self {
        let at = at.to_offset(time::UtcOffset::UTC);
        let mut text = [b'0'; 16];
        let year = u32::try_from(at.year()).unwrap_or(0);
        let month = u32::from(u8::from(at.month()));
        let fields = [
            (0, 4, year),
            (4, 2, month),
            (6, 2, at.day().into()),
            (9, 2, at.hour().into()),
            (11, 2, at.minute().into()),
            (13, 2, at.second().into()),
        ];
        for (from, digits, mut value) in fields {
            for place in text.iter_mut().skip(from).take(digits).rev() {
                *place = b'0' + u8::try_from(value % 10).unwrap_or(0);
                value /= 10;
            }
        }
        text[8] = b'T';
        text[15] = b'Z';
        Self(text)
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(super) fn date(&self) -> &str {
        self.text().get(..8).unwrap_or_default()
    }
}

/// The scope as signatures spell it.
fn scope_text(stamp: &Stamp, scope: &Scope) -> String {
    format!("{}/{}/{}/aws4_request", stamp.date(), scope.region, scope.service)
}

/// The key of one day, region and service.
fn signing_key(secret: &Secret, stamp: &Stamp, scope: &Scope) -> hmac::Key {
    let start = Zeroizing::new([b"AWS4", secret.expose()].concat());
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, &start);
    for part in [stamp.date(), &scope.region, &scope.service, "aws4_request"] {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    key
}

/// Keys of days, which are made of a secret; the last one is kept.
#[derive(Default)]
struct DayKeys(ArcSwapOption<DayKey>);

struct DayKey {
    date: Box<str>,
    scope: Scope,
    key: hmac::Key,
}

impl DayKeys {
    fn of(&self, secret: &Secret, stamp: &Stamp, scope: &Scope) -> Arc<DayKey> {
        let kept = self.0.load();
        if let Some(kept) = kept.as_ref().filter(|kept| *kept.date == *stamp.date() && kept.scope == *scope) {
            return Arc::clone(kept);
        }
        let key = signing_key(secret, stamp, scope);
        let made = Arc::new(DayKey { date: stamp.date().into(), scope: scope.clone(), key });
        self.0.store(Some(Arc::clone(&made)));
        made
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    super::hex::encode(bytes).as_str().to_owned()
}

/// What is signed of a canonical request.
fn string_to_sign(stamp: &Stamp, scope: &str, request: &[u8]) -> String {
    format!("{ALGORITHM}\n{}\n{scope}\n{}", stamp.text(), sha256(request))
}

fn signature(key: &hmac::Key, text: &str) -> String {
    hex(hmac::sign(key, text.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests;
