//! The format of the secret store: a header in the clear, and one encrypted JSON map.
//!
//! | offset | bytes | meaning                                                                             |
//! | ------ | ----- | ----------------------------------------------------------------------------------- |
//! | 0      | 8     | magic, `VSSTORE` and a line end (text-mode damage shows)                            |
//! | 8      | 4     | version of the format, big endian: 1                                                |
//! | 12     | 16    | which key: first half of HMAC-SHA-256(key, `vouchsafe store key id v1`)             |
//! | 28     | 8     | length of what follows the header, big endian                                       |
//! | 36     | 12    | nonce, random, new at each write                                                    |
//! | 48     | n     | AES-256-GCM ciphertext and, at its end, the 16-byte tag; the bytes 0..36 are AAD    |
//!
//! The plaintext is a JSON object `{"NAME": {"secret": "<hexadecimal>", "version": 1, "created": <Unix seconds>}}`.
//! Hexadecimal, because each value then has one spelling and needs no escape: it is read straight from the
//! decrypted buffer, without a copy that would have to be wiped.
//!
//! [`seal`] and [`open`] are pure; no input makes `open` panic, and every damage is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::hex;
use super::key::{KEY_ID_BYTES, StoreKey};
use super::name::SecretName;
use super::secret::Secret;

/// The version of the format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u32 = 1;
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
        "it has format version {found}, and this program reads version {FORMAT_VERSION}; use the program that wrote it, or a newer one"
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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadEntry<'a> {
    secret: &'a str,
    version: u64,
    created: u64,
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
    const ENTRY_OVERHEAD: usize = 128;
    let mut room = 2 + TAG_BYTES;
    for (name, entry) in secrets {
        if entry.secret.is_empty() || entry.secret.len() > MAX_SECRET_BYTES {
            return Err(SealError::ValueLength { found: entry.secret.len() });
        }
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
            (name.as_str(), WrittenEntry { secret: value, version: entry.version, created: entry.created_s })
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
    contents(plain)
}

struct Sealed<'a> {
    authenticated: &'a [u8],
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
    if version != FORMAT_VERSION {
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
    Ok(Sealed { authenticated, key_id: *key_id, nonce: *nonce, body })
}

/// Reads the JSON map. The reasons are fixed texts: an error of the JSON parser quotes what it read.
fn contents(plain: &[u8]) -> Result<Secrets, SealError> {
    let map: BTreeMap<&str, ReadEntry<'_>> =
        serde_json::from_slice(plain).map_err(|_| SealError::Content("not the map of version 1"))?;
    let mut secrets = Secrets::new();
    for (name, entry) in map {
        let name = name.parse().map_err(|_| SealError::Content("a name that is not one"))?;
        let value =
            hex::decode(entry.secret.as_bytes()).ok_or(SealError::Content("a value that is not hex"))?;
        if value.is_empty() || value.len() > MAX_SECRET_BYTES {
            return Err(SealError::ValueLength { found: value.len() });
        }
        let secret = Arc::new(Secret::from(value));
        secrets.insert(name, Entry { secret, version: entry.version, created_s: entry.created });
    }
    Ok(secrets)
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    use super::*;

    fn key() -> StoreKey {
        StoreKey::new([42; 32])
    }

    fn entry(value: &[u8]) -> Entry {
        Entry { secret: Arc::new(Secret::new(value.to_vec())), version: 3, created_s: 1_700_000_000 }
    }

    fn one() -> Secrets {
        Secrets::from([("stripe/restricted".parse().unwrap(), entry(b"rk_test_canary"))])
    }

    /// What can be compared and printed, unlike the secrets themselves.
    fn plain(secrets: &Secrets) -> Vec<(String, Vec<u8>, u64, u64)> {
        secrets
            .iter()
            .map(|(name, entry)| {
                (name.to_string(), entry.secret.expose().to_vec(), entry.version, entry.created_s)
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_map_of_secrets_comes_back_as_it_was(
            map in btree_map("[a-z0-9][a-z0-9._/-]{0,127}", (vec(any::<u8>(), 1..300), any::<u64>(), any::<u64>()), 0..12)
        ) {
            let secrets: Secrets = map
                .into_iter()
                .map(|(name, (value, version, created_s))| {
                    (name.parse().unwrap(), Entry { version, created_s, ..entry(&value) })
                })
                .collect();
            let file = seal(&secrets, &key()).unwrap();
            prop_assert_eq!(plain(&open(&file, &key()).ok().unwrap()), plain(&secrets));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            prop_assert!(open(&bytes, &key()).is_err());
        }

        #[test]
        fn no_bytes_after_a_good_header_make_it_panic(bytes in vec(any::<u8>(), 0..200)) {
            let mut file = seal(&one(), &key()).unwrap();
            file.truncate(28);
            file.extend(bytes);
            prop_assert!(open(&file, &key()).is_err());
        }
    }

    #[test]
    fn any_flipped_bit_is_found() {
        let file = seal(&one(), &key()).unwrap();
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&damaged, &key()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_is_found_and_called_one() {
        let file = seal(&one(), &key()).unwrap();
        for length in 0..file.len() {
            let error = open(&file[..length], &key()).err().unwrap();
            assert!(matches!(error, SealError::Length { .. }), "{length}: {error}");
        }
    }

    #[test]
    fn an_appended_byte_is_found() {
        let mut file = seal(&one(), &key()).unwrap();
        file.push(0);
        assert!(matches!(open(&file, &key()).err().unwrap(), SealError::Length { .. }));
    }

    #[test]
    fn another_key_another_version_and_another_file_are_told_apart() {
        let file = seal(&one(), &key()).unwrap();
        assert_eq!(open(&file, &StoreKey::new([43; 32])).err(), Some(SealError::OtherKey));
        let mut newer = file.clone();
        newer[11] = 2;
        assert_eq!(open(&newer, &key()).err(), Some(SealError::Version { found: 2 }));
        assert_eq!(open(b"-----BEGIN", &key()).err(), Some(SealError::NotAStore));
        let mut damaged = file;
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(open(&damaged, &key()).err(), Some(SealError::Damaged));
    }

    #[test]
    fn the_same_secrets_are_never_written_with_the_same_nonce() {
        let (first, second) = (seal(&one(), &key()).unwrap(), seal(&one(), &key()).unwrap());
        assert_ne!(first[36..48], second[36..48]);
        assert_ne!(first[48..], second[48..]);
    }

    #[test]
    fn the_plaintext_never_outgrows_its_buffer() {
        let many: Secrets = (0..50)
            .map(|number| {
                let name = format!("{number}{}", "x".repeat(100)).parse().unwrap();
                (name, Entry { version: u64::MAX, created_s: u64::MAX, ..entry(&[255; 100]) })
            })
            .collect();
        let buffer = plaintext(&many).unwrap();
        let before = buffer.capacity();
        assert!(buffer.len() + TAG_BYTES <= before);
    }

    #[test]
    fn a_value_too_long_and_a_store_too_large_are_refused() {
        let secrets = |count: usize, bytes: usize| -> Secrets {
            (0..count).map(|number| (format!("n{number}").parse().unwrap(), entry(&vec![1; bytes]))).collect()
        };
        assert_eq!(seal(&secrets(1, 65_537), &key()).err(), Some(SealError::ValueLength { found: 65_537 }));
        assert_eq!(seal(&secrets(1, 0), &key()).err(), Some(SealError::ValueLength { found: 0 }));
        assert!(seal(&secrets(1, 65_536), &key()).is_ok());
        assert_eq!(seal(&secrets(130, 65_536), &key()).err(), Some(SealError::TooLarge));
    }

    #[test]
    fn an_error_about_the_content_does_not_quote_it() {
        for plain in [
            r#"{"a":{"secret":"canary","version":1,"created":1}}"#,
            r#"{"a":{"secret":"6361","version":"canary","created":1}}"#,
            r#"{"a":"canary"}"#,
            r#"{"CANARY":{"secret":"6361","version":1,"created":1}}"#,
        ] {
            let error = contents(plain.as_bytes()).err().unwrap().to_string();
            assert!(!error.to_lowercase().contains("canary"), "{error}");
        }
    }
}
