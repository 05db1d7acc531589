//! This host as an issuer: short-lived tokens about its identities, signed with keys that it makes, turns and publishes.
//!
//! The keys are in a store of their own beside that of the secrets, under the same key and lock, so that no policy can name
//! them. Whoever publishes says so ([`Issuer::published`]): a key that nobody can find does not sign.

mod ring;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use proxy_policy::{ClaimText, JwtAlgorithm, Variable};
use serde_json::{Map, Value, json};

use self::ring::{IssuerKey, Ring, Step, Turns};
use super::secret::Secret;
use super::store::{Store, StoreError};
use crate::base::clock;

/// Where the discovery stands below the URL (OpenID Connect Discovery 1.0, section 4).
pub const DISCOVERY: &str = ".well-known/openid-configuration";
/// Where the keys stand below the URL.
pub const KEYS: &str = ".well-known/jwks.json";
/// What distinguishes the store of the keys from that of the secrets: `secrets.issuer`.
const STORE_EXTENSION: &str = "issuer";
/// A token holds from a moment before now: clocks differ.
const EARLIER_S: i64 = 10;

/// What an issuer says of itself, and how its keys turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// Who it is (`iss`), without a slash at the end.
    pub url: String,
    /// Whom a token is about: a text with `{identity}`.
    pub subject: ClaimText,
    /// How long a token lasts at most.
    pub ttl: Duration,
    /// How long a key signs.
    pub rotate_every: Duration,
    /// How long a key is published before it signs.
    pub publish_ahead: Duration,
    /// What new keys sign with.
    pub algorithm: JwtAlgorithm,
}

/// Why there is no issuer, or no turn of its keys. Nothing of a key is in it.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// The keys cannot be read or written.
    #[error("the keys of the issuer: {0}")]
    Store(#[from] StoreError),
    /// What is stored is no key.
    #[error(
        "the key {name} in {store} is damaged; put the file back from your backup, or move it away: then new keys \
             are made, and tokens that are out cannot be checked any more"
    )]
    Damaged {
        /// The name of the key in its store.
        name: String,
        /// The store.
        store: String,
    },
    /// The cryptographic library failed.
    #[error("the cryptographic library made no key for the issuer")]
    Cryptography,
}

/// What is published. Equal ones are published already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// The discovery, JSON.
    pub discovery: String,
    /// The keys, a JSON Web Key Set (RFC 7517). Public halves only.
    pub keys: String,
}

/// An issuer at work.
pub struct Issuer {
    settings: IssuerSettings,
    turns: Turns,
    store: Store,
    ring: ArcSwap<Ring>,
    turning: Mutex<()>,
}

/// A token of this host, and of which key it is.
pub(super) struct Issued {
    pub(super) token: Secret,
    /// From when on its key signs, seconds since the epoch: grows with each key.
    pub(super) version: u64,
}

impl Issuer {
    /// Reads the keys that are stored beside the secrets, or makes the first one. Blocks on files.
    ///
    /// # Errors
    /// [`IssuerError`].
    pub fn open(settings: IssuerSettings, secrets: &Store) -> Result<Self, IssuerError> {
        let store = secrets.beside(STORE_EXTENSION)?;
        let seconds = |time: Duration| i64::try_from(time.as_secs().max(1)).unwrap_or(i64::MAX);
        let turns = Turns {
            algorithm: settings.algorithm,
            ttl_s: seconds(settings.ttl),
            rotate_every_s: seconds(settings.rotate_every),
            publish_ahead_s: seconds(settings.publish_ahead),
        };
        let mut keys = Vec::new();
        for (name, entry) in store.read()? {
            let damaged =
                || IssuerError::Damaged { name: name.to_string(), store: store.path().display().to_string() };
            keys.push(Arc::new(IssuerKey::from_secret(&name, &entry.secret).ok_or_else(damaged)?));
        }
        let ring = ArcSwap::from_pointee(Ring::of(keys));
        let issuer = Self { settings, turns, store, ring, turning: Mutex::new(()) };
        issuer.turn()?;
        Ok(issuer)
    }

    /// Makes the keys that are due, and lets go of those that are not needed any more. Blocks on files.
    ///
    /// # Errors
    /// The store does not take it; what was before goes on, and the next turn tries again.
    pub fn turn(&self) -> Result<(), IssuerError> {
        let _one_at_a_time = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        let steps = self.ring.load().due(&self.turns, clock::now().0).ok_or(IssuerError::Cryptography)?;
        self.take(&steps)
    }

    /// All keys of `documents` can be found by others now. Blocks on files.
    ///
    /// # Errors
    /// The store does not take it, and new keys do not sign yet.
    pub fn published(&self, documents: &Documents) -> Result<(), IssuerError> {
        let _one_at_a_time = self.turning.lock().unwrap_or_else(PoisonError::into_inner);
        if *documents != self.documents() {
            return Ok(());
        }
        let steps = self.ring.load().published(&self.turns, clock::now().0);
        self.take(&steps)
    }

    /// In the store first: a key that could be lost does not sign.
    fn take(&self, steps: &[Step]) -> Result<(), IssuerError> {
        for step in steps {
            match step {
                Step::Store(key) => {
                    let now = u64::try_from(clock::now().0).unwrap_or(0);
                    self.store.set(&key.name, key.to_secret(), now)?;
                }
                Step::Remove(name) => self.store.remove(name)?,
            }
            self.ring.store(Arc::new(self.ring.load().after(step)));
        }
        Ok(())
    }

    /// What is to be published now.
    #[must_use]
    pub fn documents(&self) -> Documents {
        let ring = self.ring.load();
        let keys: Vec<Value> = ring
            .0
            .iter()
            .map(|key| {
                let mut jwk = key.key.public_jwk();
                jwk.insert("alg".to_owned(), key.algorithm().as_str().into());
                jwk.insert("kid".to_owned(), key.kid.clone().into());
                jwk.insert("use".to_owned(), "sig".into());
                Value::Object(jwk)
            })
            .collect();
        let mut algorithms: Vec<&str> = ring.0.iter().map(|key| key.algorithm().as_str()).collect();
        algorithms.sort_unstable();
        algorithms.dedup();
        let url = &self.settings.url;
        let discovery = json!({
            "issuer": url,
            "jwks_uri": format!("{url}/{KEYS}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
            "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"],
        });
        Documents { discovery: discovery.to_string(), keys: json!({ "keys": keys }).to_string() }
    }

    /// For how long others may keep what they fetched: a new key signs later than that.
    #[must_use]
    pub fn may_be_kept(&self) -> Duration {
        self.settings.publish_ahead / 2
    }

    /// A token about an identity for these audiences, with further claims. It lasts for `ttl`, and for no longer than the
    /// settings say. `None` when no key is published yet.
    pub(super) fn issue(
        &self,
        identity: &str,
        audience: Value,
        mut claims: Map<String, Value>,
        ttl: Duration,
    ) -> Option<Issued> {
        let now = clock::now().0;
        let ring = self.ring.load();
        let key = ring.signing(now)?;
        let place = |variable| (variable == Variable::Identity).then_some(identity);
        let lasts = i64::try_from(self.lasts(ttl).as_secs()).ok()?;
        // After those of the policy: what the issuer says of itself and of whom stands.
        claims.insert("iss".to_owned(), self.settings.url.clone().into());
        claims.insert("sub".to_owned(), self.settings.subject.fill(place)?.into());
        claims.insert("aud".to_owned(), audience);
        claims.insert("iat".to_owned(), now.into());
        claims.insert("nbf".to_owned(), now.saturating_sub(EARLIER_S).into());
        claims.insert("exp".to_owned(), now.saturating_add(lasts).into());
        claims.insert("jti".to_owned(), uuid::Uuid::now_v7().to_string().into());
        let token = key.key.sign(Some(&key.kid), &claims)?;
        Some(Issued { token, version: u64::try_from(key.signs_from()).unwrap_or(0) })
    }

    /// How long a token lasts that should last for `ttl`.
    pub(super) fn lasts(&self, ttl: Duration) -> Duration {
        ttl.min(self.settings.ttl)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
