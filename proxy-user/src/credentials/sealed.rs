//! The format of the secret store: a header in the clear, and one encrypted JSON map.
//!
//! | offset | bytes | meaning                                                                             |
//! | ------ | ----- | ----------------------------------------------------------------------------------- |
//! | 0      | 8     | magic, `VSSTORE` and a line end (text-mode damage shows)                            |
//! | 8      | 4     | version of the format, big endian: 2; 1 is read, too                                |
//! | 12     | 16    | which key: first half of HMAC-SHA-256(key, `vouchsafe store key id v1`)             |
//! | 28     | 8     | length of what follows the header, big endian                                       |
//! | 36     | 12    | nonce, random, new at each write                                                    |
//! | 48     | n     | AES-256-GCM ciphertext and, at its end, the 16-byte tag; the bytes 0..36 are AAD    |
//!
//! The plaintext is a JSON object `{"NAME": {"secret": "<hexadecimal>", "version": 3, "created": <Unix seconds>, "labels":
//! {"team": "billing"}, "owner": "…", "before": [[1, <Unix seconds>], [2, <Unix seconds>]]}}`. The last three may be missing, and
//! in version 1 they are. `before` says when the versions before this one were set; their values are gone.
//! Hexadecimal, because each value then has one spelling and needs no escape: it is read straight from the
//! decrypted buffer, without a copy that would have to be wiped.
//!
//! [`seal`] and [`open`] are pure; no input makes `open` panic, and every damage is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::about::About;
use super::hex;
use super::key::{KEY_ID_BYTES, StoreKey};
use super::name::SecretName;
use super::secret::Secret;

/// The version of the format that this code writes.
pub const FORMAT_VERSION: u32 = 2;
/// The version before it, which is read.
const WITHOUT_ABOUT: u32 = 1;
/// How many versions before the current one are remembered, without their values.
pub const MAX_PAST: usize = 10;
/// How many bytes a secret may have; it has at least one.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;
/// How many bytes the file may have.
pub const MAX_STORE_BYTES: usize = 16 * 1024 * 1024;

const MAGIC: [u8; 8] = *b"VSSTORE\n";
const AUTHENTICATED: usize = 36;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// One secret of the store. It has no `Debug`, as [`Secret`] has none.
pub struct Entry {
    /// The value.
    pub secret: Arc<Secret>,
    /// 1 for the first value of this name, one more each time it is set.
    pub version: u64,
    /// When this value was set, in seconds since the Unix epoch.
    pub created_s: u64,
    /// What people say of it; of all its versions.
    pub about: About,
    /// The versions before this one, the oldest first, at most [`MAX_PAST`].
    pub before: Vec<Past>,
}

/// A version that a secret once had. Its value is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// The version.
    pub version: u64,
    /// When it was set, in seconds since the Unix epoch.
    pub created_s: u64,
}

impl Entry {
    /// A secret of which nothing else is known.
    #[must_use]
    pub fn new(secret: Arc<Secret>, version: u64, created_s: u64) -> Self {
        Self { secret, version, created_s, about: About::default(), before: Vec::new() }
    }

    /// The next version takes its place; what is said of the secret stays. Returns the value that it had.
    pub(super) fn succeed(&mut self, secret: Arc<Secret>, now_s: u64) -> Arc<Secret> {
        let Self { version, created_s, .. } = *self;
        self.before.push(Past { version, created_s });
        let most = self.before.len().saturating_sub(MAX_PAST);
        self.before.drain(..most);
        self.version = version.saturating_add(1);
        self.created_s = now_s;
        std::mem::replace(&mut self.secret, secret)
    }

    /// The same value under the same version, for another reader. It is not copied.
    #[must_use]
    pub(super) fn share(&self) -> Self {
        let Self { secret, version, created_s, about, before } = self;
        Self {
            secret: Arc::clone(secret),
            version: *version,
            created_s: *created_s,
            about: about.clone(),
            before: before.clone(),
        }
    }
}

/// All secrets of a store, by name.
pub type Secrets = BTreeMap<SecretName, Entry>;

/// Why bytes could not be sealed into a store or opened as one. No variant carries anything of the content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The magic is not there.
    #[error("it is not a secret store of Vouchsafe (the first bytes are others)")]
    NotAStore,
    /// Another version of the format.
    #[error(
        "it has format version {found}, and this program reads versions up to {FORMAT_VERSION}; use the program that wrote it, or a newer one"
    )]
    Version {
        /// The version that the header names.
        found: u32,
    },
    /// The file is shorter or longer than its header says.
    #[error("it has {found} bytes where its header says {expected}: it was cut or something was appended")]
    Length {
        /// The length that the header gives, in bytes; of the header itself when not even that is complete.
        expected: u64,
        /// The length that was found, in bytes.
        found: u64,
    },
    /// It was written with another key, or the header is damaged.
    #[error("it was written with another key than the one at hand")]
    OtherKey,
    /// The content does not agree with its authentication tag.
    #[error("it is damaged: the content does not agree with its authentication tag")]
    Damaged,
    /// The content is authentic and still not understood.
    #[error("its content is authentic but not understood ({0}); it was written by another program")]
    Content(&'static str),
    /// A value has no bytes or too many.
    #[error("a secret has 1 to {MAX_SECRET_BYTES} bytes, and this one has {found}")]
    ValueLength {
        /// How many bytes it has.
        found: usize,
    },
    /// Everything together would be larger than a store may be.
    #[error("the store would have more than {MAX_STORE_BYTES} bytes")]
    TooLarge,
    /// The cryptographic library failed, which it does only without randomness or memory.
    #[error("the cryptographic library failed")]
    Cryptography,
}

#[derive(Serialize)]
struct WrittenEntry<'a> {
    secret: &'a str,
    version: u64,
    created: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    before: Vec<(u64, u64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadEntry<'a> {
    secret: &'a str,
    version: u64,
    created: u64,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    owner: Option<String>,
    #[serde(default)]
    before: Vec<(u64, u64)>,
}

/// Encrypts the secrets into the bytes of a store, under a fresh random nonce.
///
/// # Errors
/// [`SealError::ValueLength`], [`SealError::TooLarge`] and [`SealError::Cryptography`].
pub fn seal(secrets: &Secrets, key: &StoreKey) -> Result<Vec<u8>, SealError> {
    let mut body = plaintext(secrets)?;
    let mut file = Vec::with_capacity(AUTHENTICATED + NONCE_BYTES + body.len() + TAG_BYTES);
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&FORMAT_VERSION.to_be_bytes());
    file.extend_from_slice(&key.id());
    file.extend_from_slice(&((body.len() + TAG_BYTES) as u64).to_be_bytes());
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key.bytes()).map_err(|_| SealError::Cryptography)?;
    let nonce =
        cipher.seal_in_place_append_tag(Aad::from(&file), &mut *body).map_err(|_| SealError::Cryptography)?;
    file.extend_from_slice(nonce.as_ref());
    file.extend_from_slice(&body);
    Ok(file)
}

/// The JSON map, in a buffer that has room for all of it and for the tag from the start: one that grew would leave
/// copies of secrets behind in freed memory.
fn plaintext(secrets: &Secrets) -> Result<Zeroizing<Vec<u8>>, SealError> {
    const ENTRY_OVERHEAD: usize = 192;
    // Two numbers of 20 digits, in brackets.
    const PAST: usize = 44;
    let mut room = 2 + TAG_BYTES;
    for (name, entry) in secrets {
        if entry.secret.is_empty() || entry.secret.len() > MAX_SECRET_BYTES {
            return Err(SealError::ValueLength { found: entry.secret.len() });
        }
        // A quote or a backslash becomes two characters.
        let labels = entry.about.labels().iter().map(|(name, value)| name.len() + 2 * value.len() + 6);
        room +=
            labels.sum::<usize>() + 2 * entry.about.owner().map_or(0, str::len) + PAST * entry.before.len();
        room += 2 * entry.secret.len() + name.as_str().len() + ENTRY_OVERHEAD;
    }
    if room + AUTHENTICATED + NONCE_BYTES > MAX_STORE_BYTES {
        return Err(SealError::TooLarge);
    }
    let mut buffer = Zeroizing::new(Vec::with_capacity(room));
    let values: Vec<_> = secrets.values().map(|entry| hex::encode(entry.secret.expose())).collect();
    let map: BTreeMap<&str, WrittenEntry<'_>> = secrets
        .iter()
        .zip(&values)
        .map(|((name, entry), value)| {
            let written = WrittenEntry {
                secret: value,
                version: entry.version,
                created: entry.created_s,
                labels: entry.about.labels(),
                owner: entry.about.owner(),
                before: entry.before.iter().map(|past| (past.version, past.created_s)).collect(),
            };
            (name.as_str(), written)
        })
        .collect();
    serde_json::to_writer(&mut *buffer, &map).map_err(|_| SealError::Content("JSON"))?;
    Ok(buffer)
}

/// Decrypts the bytes of a store.
///
/// # Errors
/// Everything that [`SealError`] lists for a file that cannot be trusted or understood. Any changed bit and any
/// missing or additional byte is found.
pub fn open(file: &[u8], key: &StoreKey) -> Result<Secrets, SealError> {
    let sealed = header(file)?;
    if sealed.key_id != key.id() {
        return Err(SealError::OtherKey);
    }
    let cipher = RandomizedNonceKey::new(&AES_256_GCM, key.bytes()).map_err(|_| SealError::Cryptography)?;
    let mut buffer = Zeroizing::new(sealed.body.to_vec());
    let nonce = Nonce::assume_unique_for_key(sealed.nonce);
    let plain = cipher
        .open_in_place(nonce, Aad::from(sealed.authenticated), &mut buffer)
        .map_err(|_| SealError::Damaged)?;
    contents(plain, sealed.version)
}

struct Sealed<'a> {
    authenticated: &'a [u8],
    version: u32,
    key_id: [u8; KEY_ID_BYTES],
    nonce: [u8; NONCE_BYTES],
    body: &'a [u8],
}

fn header(file: &[u8]) -> Result<Sealed<'_>, SealError> {
    let cut = SealError::Length {
        expected: (AUTHENTICATED + NONCE_BYTES + TAG_BYTES) as u64,
        found: file.len() as u64,
    };
    let Some((magic, rest)) = file.split_first_chunk::<8>() else {
        return Err(if MAGIC.starts_with(file) { cut } else { SealError::NotAStore });
    };
    if *magic != MAGIC {
        return Err(SealError::NotAStore);
    }
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(|| cut.clone())?;
    let version = u32::from_be_bytes(*version);
    if ![WITHOUT_ABOUT, FORMAT_VERSION].contains(&version) {
        return Err(SealError::Version { found: version });
    }
    let (key_id, rest) = rest.split_first_chunk::<KEY_ID_BYTES>().ok_or_else(|| cut.clone())?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(|| cut.clone())?;
    let (nonce, body) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(|| cut.clone())?;
    let length = u64::from_be_bytes(*length);
    if body.len() as u64 != length {
        let expected = length.saturating_add((AUTHENTICATED + NONCE_BYTES) as u64);
        return Err(SealError::Length { expected, found: file.len() as u64 });
    }
    let authenticated = file.get(..AUTHENTICATED).ok_or(cut)?;
    Ok(Sealed { authenticated, version, key_id: *key_id, nonce: *nonce, body })
}

/// Reads the JSON map. The reasons are fixed texts: an error of the JSON parser quotes what it read.
fn contents(plain: &[u8], version: u32) -> Result<Secrets, SealError> {
    let map: BTreeMap<&str, ReadEntry<'_>> =
        serde_json::from_slice(plain).map_err(|_| SealError::Content("not the map of this version"))?;
    let mut secrets = Secrets::new();
    for (name, entry) in map {
        let name = name.parse().map_err(|_| SealError::Content("a name that is not one"))?;
        let value =
            hex::decode(entry.secret.as_bytes()).ok_or(SealError::Content("a value that is not hex"))?;
        if value.is_empty() || value.len() > MAX_SECRET_BYTES {
            return Err(SealError::ValueLength { found: value.len() });
        }
        let about = About::of(entry.labels, entry.owner)
            .map_err(|_| SealError::Content("a label or an owner that is none"))?;
        let past = |(version, created_s)| Past { version, created_s };
        let before: Vec<_> = entry.before.into_iter().map(past).collect();
        if before.len() > MAX_PAST {
            return Err(SealError::Content("more versions before than are remembered"));
        }
        if version == WITHOUT_ABOUT && !(about.is_empty() && before.is_empty()) {
            return Err(SealError::Content("more than version 1 has"));
        }
        let secret = Arc::new(Secret::from(value));
        let entry = Entry { secret, version: entry.version, created_s: entry.created, about, before };
        secrets.insert(name, entry);
    }
    Ok(secrets)
}

#[cfg(test)]
#[path = "sealed_tests.rs"]
mod tests;
