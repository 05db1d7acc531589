//! The keys of the issuer, and when each is published, signs, and goes. Pure: told what time it is.
//!
//! A key is published before it signs, so that whoever keeps fetched keys for a while has it by then, and until the last
//! token that it signed has ended, so that no token loses its key.

use std::sync::Arc;

use proxy_policy::JwtAlgorithm;
use zeroize::Zeroizing;

use super::super::jws::SigningKey;
use super::super::name::SecretName;
use super::super::secret::Secret;

/// How much longer than its last token a key stays: clocks differ.
const LATER_S: i64 = 60;

/// What the keys are made and turned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turns {
    pub(super) algorithm: JwtAlgorithm,
    pub(super) ttl_s: i64,
    pub(super) rotate_every_s: i64,
    pub(super) publish_ahead_s: i64,
}

/// One key. Times are seconds since the epoch.
pub(super) struct IssuerKey {
    /// In the store.
    pub(super) name: SecretName,
    pub(super) kid: String,
    pub(super) key: Arc<SigningKey>,
    der: Arc<Zeroizing<Vec<u8>>>,
    algorithm: JwtAlgorithm,
    created: i64,
    /// When it was published; 0: not yet.
    published: i64,
    /// From when on it signs, once it is published.
    signs_from: i64,
    /// The longest life of a token that it signed.
    longest_ttl: i64,
}

/// All keys, the oldest first.
#[derive(Clone, Default)]
pub(super) struct Ring(pub(super) Vec<Arc<IssuerKey>>);

/// What must be done in the store.
pub(super) enum Step {
    /// A key that is new, or has other times.
    Store(Arc<IssuerKey>),
    /// A key that is not needed any more.
    Remove(SecretName),
}

impl IssuerKey {
    /// A new one; `None` when the cryptographic library makes none.
    pub(super) fn generate(turns: &Turns, now: i64, signs_from: i64) -> Option<Self> {
        let (key, der) = SigningKey::generate(turns.algorithm)?;
        Some(Self {
            name: format!("key/{}", uuid::Uuid::now_v7().simple()).parse().ok()?,
            kid: key.thumbprint(),
            key: Arc::new(key),
            der: Arc::new(der),
            algorithm: turns.algorithm,
            created: now,
            published: 0,
            signs_from,
            longest_ttl: turns.ttl_s,
        })
    }

    /// As it stands in the store: a line with its times, then the key as PKCS #8.
    pub(super) fn to_secret(&self) -> Secret {
        let head = format!(
            "{} {} {} {} {}\n",
            self.algorithm.as_str(),
            self.created,
            self.published,
            self.signs_from,
            self.longest_ttl
        );
        // At its final size from the start: a buffer that grew would leave a copy behind in freed memory.
        let mut whole = Vec::with_capacity(head.len() + self.der.len());
        whole.extend_from_slice(head.as_bytes());
        whole.extend_from_slice(&self.der);
        Secret::new(whole)
    }

    /// What [`IssuerKey::to_secret`] wrote; `None` when it is damaged.
    pub(super) fn from_secret(name: &SecretName, secret: &Secret) -> Option<Self> {
        let bytes = secret.expose();
        let (head, der) = bytes.split_at_checked(bytes.iter().position(|byte| *byte == b'\n')?)?;
        let der = der.get(1..)?;
        let words: Vec<&str> = std::str::from_utf8(head).ok()?.split(' ').collect();
        let [algorithm, created, published, signs_from, longest_ttl] = *words.as_slice() else { return None };
        let algorithm = JwtAlgorithm::parse(algorithm)?;
        let key = SigningKey::from_pkcs8(algorithm, der)?;
        Some(Self {
            name: name.clone(),
            kid: key.thumbprint(),
            key: Arc::new(key),
            der: Arc::new(Zeroizing::new(der.to_vec())),
            algorithm,
            created: created.parse().ok()?,
            published: published.parse().ok()?,
            signs_from: signs_from.parse().ok()?,
            longest_ttl: longest_ttl.parse().ok()?,
        })
    }

    fn with(&self, change: impl FnOnce(&mut Self)) -> Arc<Self> {
        let mut changed = Self {
            name: self.name.clone(),
            kid: self.kid.clone(),
            key: Arc::clone(&self.key),
            der: Arc::clone(&self.der),
            algorithm: self.algorithm,
            created: self.created,
            published: self.published,
            signs_from: self.signs_from,
            longest_ttl: self.longest_ttl,
        };
        change(&mut changed);
        Arc::new(changed)
    }

    fn may_sign(&self, now: i64) -> bool {
        self.published != 0 && self.signs_from <= now
    }

    /// From when on it signs.
    pub(super) fn signs_from(&self) -> i64 {
        self.signs_from
    }

    /// What it signs with.
    pub(super) fn algorithm(&self) -> JwtAlgorithm {
        self.algorithm
    }
}

impl Ring {
    /// In the order in which they sign.
    pub(super) fn of(mut keys: Vec<Arc<IssuerKey>>) -> Self {
        keys.sort_by_key(|key| (key.published == 0, key.signs_from, key.created));
        Self(keys)
    }

    /// The key that signs now: the newest that is published and whose time has come.
    pub(super) fn signing(&self, now: i64) -> Option<&Arc<IssuerKey>> {
        // After a clock that was set back, none has come yet: then the oldest that is published.
        let published = || self.0.iter().filter(|key| key.published != 0);
        published().rfind(|key| key.may_sign(now)).or_else(|| published().next())
    }

    /// What is due now; `None` for a key that the cryptographic library does not make.
    pub(super) fn due(&self, turns: &Turns, now: i64) -> Option<Vec<Step>> {
        let mut steps = Vec::new();
        match self.0.last() {
            None => steps.push(Step::Store(Arc::new(IssuerKey::generate(turns, now, now)?))),
            // One that is not published yet is waited for.
            Some(newest) if newest.published != 0 => {
                let turn = newest.signs_from.saturating_add(turns.rotate_every_s);
                let earliest = now.saturating_add(turns.publish_ahead_s);
                let signs_from = match newest.algorithm == turns.algorithm {
                    true => turn.max(earliest),
                    false => earliest,
                };
                if signs_from == earliest {
                    steps.push(Step::Store(Arc::new(IssuerKey::generate(turns, now, signs_from)?)));
                }
            }
            Some(_) => {}
        }
        for (key, next) in self.0.iter().zip(self.0.iter().skip(1)) {
            let last_end = next.signs_from.saturating_add(key.longest_ttl).saturating_add(LATER_S);
            if next.may_sign(now) && last_end <= now {
                steps.push(Step::Remove(key.name.clone()));
            }
        }
        // Those that sign now or later.
        let signing = self.signing(now).map(|key| &key.name);
        let from = self.0.iter().position(|key| Some(&key.name) == signing).unwrap_or(0);
        for key in self.0.iter().skip(from).filter(|key| key.longest_ttl < turns.ttl_s) {
            steps.push(Step::Store(key.with(|key| key.longest_ttl = turns.ttl_s)));
        }
        Some(steps)
    }

    /// What changes when all of them are published now for the first time.
    pub(super) fn published(&self, turns: &Turns, now: i64) -> Vec<Step> {
        let any_before = self.0.iter().any(|key| key.published != 0);
        let new = self.0.iter().filter(|key| key.published == 0);
        new.map(|key| {
            Step::Store(key.with(|key| {
                key.published = now;
                // The first one has nobody to wait for; others sign only after they were there for long enough.
                key.signs_from = match any_before {
                    true => key.signs_from.max(now.saturating_add(turns.publish_ahead_s)),
                    false => now,
                };
            }))
        })
        .collect()
    }

    /// After a step that the store has taken.
    pub(super) fn after(&self, step: &Step) -> Self {
        let mut keys = self.0.clone();
        match step {
            Step::Store(new) => {
                keys.retain(|key| key.name != new.name);
                keys.push(Arc::clone(new));
            }
            Step::Remove(name) => keys.retain(|key| key.name != *name),
        }
        Self::of(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURNS: Turns =
        Turns { algorithm: JwtAlgorithm::EdDsa, ttl_s: 300, rotate_every_s: 10_000, publish_ahead_s: 1000 };

    /// What is due, done; and what is new, published, if `publish`.
    fn turn(ring: Ring, turns: &Turns, now: i64, publish: bool) -> Ring {
        let ring = ring.due(turns, now).unwrap().iter().fold(ring, |ring, step| ring.after(step));
        if !publish {
            return ring;
        }
        ring.published(turns, now).iter().fold(ring, |ring, step| ring.after(step))
    }

    fn kids(ring: &Ring) -> Vec<String> {
        ring.0.iter().map(|key| key.kid.clone()).collect()
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_until_its_last_token_has_ended() {
        let mut ring = Ring::default();
        // Each token: until when it lasts, and the key that it needs until then.
        let mut tokens: Vec<(i64, String)> = Vec::new();
        let mut seen: std::collections::HashMap<String, i64> = std::collections::HashMap::new();
        let mut signers = Vec::new();
        for now in (1_000_000..1_060_000).step_by(10) {
            ring = turn(ring, &TURNS, now, true);
            let published = kids(&ring);
            for kid in &published {
                seen.entry(kid.clone()).or_insert(now);
            }
            let signer = ring.signing(now).unwrap().kid.clone();
            if signers.last() != Some(&signer) {
                if !signers.is_empty() {
                    assert!(
                        now - seen[&signer] >= TURNS.publish_ahead_s,
                        "it was not published for long enough"
                    );
                }
                assert!(!signers.contains(&signer), "a key does not come back");
                signers.push(signer.clone());
            }
            tokens.push((now + TURNS.ttl_s, signer));
            tokens.retain(|(end, _)| *end >= now);
            assert!(tokens.iter().all(|(_, kid)| published.contains(kid)), "a token has lost its key");
            assert!(published.len() <= 2, "{}", published.len());
        }
        assert_eq!(signers.len(), 6);
    }

    #[test]
    fn a_key_that_could_not_be_published_does_not_sign_and_the_old_one_goes_on() {
        let ring = turn(Ring::default(), &TURNS, 0, false);
        assert!(ring.signing(0).is_none(), "nobody could check it");
        let mut ring = turn(ring, &TURNS, 50, true);
        let first = ring.signing(50).unwrap().kid.clone();
        assert_eq!(ring.0.len(), 1);
        for now in (60..30_000).step_by(100) {
            ring = turn(ring, &TURNS, now, false);
            assert_eq!(ring.signing(now).unwrap().kid, first);
            assert!(ring.0.len() <= 2, "no more than one waits");
        }
        ring = turn(ring, &TURNS, 30_000, true);
        assert_eq!(ring.signing(30_999).unwrap().kid, first);
        assert_ne!(ring.signing(31_000).unwrap().kid, first);
        let ring = turn(ring, &TURNS, 31_000 + 300, true);
        assert!(kids(&ring).contains(&first));
        let ring = turn(ring, &TURNS, 31_000 + 300 + LATER_S, true);
        assert!(!kids(&ring).contains(&first));
    }

    #[test]
    fn another_algorithm_takes_over_after_its_key_was_published_and_longer_tokens_keep_their_key() {
        let ring = turn(Ring::default(), &TURNS, 1, true);
        let other = Turns { algorithm: JwtAlgorithm::Es256, ttl_s: 900, ..TURNS };
        let ring = turn(ring, &other, 101, true);
        assert_eq!(ring.signing(1100).unwrap().algorithm, JwtAlgorithm::EdDsa);
        assert_eq!(ring.signing(1101).unwrap().algorithm, JwtAlgorithm::Es256);
        let shorter = Turns { ttl_s: 10, ..other };
        assert_eq!(turn(ring.clone(), &shorter, 1101 + 900, true).0.len(), 2);
        assert_eq!(turn(ring, &shorter, 1101 + 900 + LATER_S, true).0.len(), 1);
    }

    #[test]
    fn a_host_that_slept_or_whose_clock_was_set_back_still_has_a_key_that_is_published() {
        let ring = turn(Ring::default(), &TURNS, 1_000_000, true);
        let first = kids(&ring);
        assert_eq!(ring.signing(10).unwrap().kid, first[0]);
        let ring = turn(ring, &TURNS, 9_000_000, true);
        assert_eq!(ring.signing(9_000_000).unwrap().kid, first[0], "the next one is published first");
        assert_ne!(ring.signing(9_001_000).unwrap().kid, first[0]);
    }

    #[test]
    fn a_key_reads_back_as_it_was_stored_and_a_damaged_one_does_not() {
        for algorithm in [JwtAlgorithm::Es256, JwtAlgorithm::EdDsa, JwtAlgorithm::Rs256] {
            let key = IssuerKey::generate(&Turns { algorithm, ..TURNS }, 7, 9).unwrap();
            let secret = key.to_secret();
            let read = IssuerKey::from_secret(&key.name, &secret).unwrap();
            assert_eq!((&read.kid, read.created, read.published), (&key.kid, 7, 0));
            assert_eq!((read.signs_from, read.longest_ttl, read.algorithm), (9, 300, algorithm));
            for cut in 0..secret.len() {
                let cut = Secret::new(secret.expose()[..cut].to_vec());
                assert!(IssuerKey::from_secret(&key.name, &cut).is_none());
            }
        }
    }
}
