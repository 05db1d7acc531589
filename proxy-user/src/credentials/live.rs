//! The secrets of the running daemon: read once, swapped as a whole, composed into headers once per use.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::header::HeaderName;

use super::attach::{Attachment, Inject};
use super::error::{CredentialError, VAULT};
use super::key::KeySource;
use super::name::SecretName;
use super::sealed::Secrets;
use super::store::{Store, StoreError};

/// How many composed headers are kept. Credentials times APIs of any real policy are far below.
const MAX_COMPOSED: usize = 4096;

/// The store as the daemon has it in memory. Every lookup sees one reading of the store, whole.
pub struct Credentials {
    store: Store,
    live: ArcSwap<Live>,
    problem: ArcSwapOption<String>,
    reloading: Mutex<()>,
}

/// One reading of the store; what was composed from it goes with it.
struct Live {
    /// `None` until the store could be read for the first time.
    secrets: Option<Secrets>,
    composed: RwLock<Composed>,
}

#[derive(Default)]
struct Composed {
    by_secret: HashMap<SecretName, Vec<Prepared>>,
    count: usize,
}

struct Prepared {
    prefix: Box<str>,
    suffix: Box<str>,
    attachment: Attachment,
}

impl Prepared {
    fn serves(&self, inject: &Inject<'_>) -> bool {
        *self.attachment.header() == inject.header
            && *self.prefix == *inject.prefix
            && *self.suffix == *inject.suffix
    }
}

impl Live {
    fn of(secrets: Option<Secrets>) -> Arc<Self> {
        Arc::new(Self { secrets, composed: RwLock::default() })
    }
}

impl Credentials {
    /// Reads the store. When that fails the daemon can start all the same: each call that needs a secret is refused
    /// with the reason, which [`Credentials::problem`] tells too, until a [`Credentials::reload`] succeeds.
    #[must_use]
    pub fn new(store_path: impl Into<PathBuf>, key: KeySource) -> Self {
        let credentials = Self {
            store: Store::new(store_path, key),
            live: ArcSwap::new(Live::of(None)),
            problem: ArcSwapOption::empty(),
            reloading: Mutex::new(()),
        };
        // The problem is kept, and told by whoever asks for a credential or for the status.
        drop(credentials.reload());
        credentials
    }

    /// Reads the store again and swaps all secrets at once; returns how many there are. Blocks on files.
    ///
    /// # Errors
    /// Those of [`Store::read`]. The secrets that were read before go on, and [`Credentials::problem`] says why.
    pub fn reload(&self) -> Result<usize, StoreError> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        match self.store.read() {
            Ok(secrets) => {
                let count = secrets.len();
                self.live.store(Live::of(Some(secrets)));
                self.problem.store(None);
                Ok(count)
            }
            Err(error) => {
                self.problem.store(Some(Arc::new(error.to_string())));
                Err(error)
            }
        }
    }

    /// Why the last reading of the store failed, and what to do; `None` when it did not.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        self.problem.load().as_deref().cloned()
    }

    /// How many secrets are in memory.
    #[must_use]
    pub fn count(&self) -> usize {
        self.live.load().secrets.as_ref().map_or(0, Secrets::len)
    }

    /// Whether the store has a secret for this reference, so that a policy check can warn ahead of the first call.
    ///
    /// # Errors
    /// The same as those of [`Credentials::attachment`], apart from a value that no header can carry.
    pub fn check(&self, credential: &str, secret_ref: &str) -> Result<(), CredentialError> {
        let name = secret_name(credential, secret_ref)?;
        let live = self.live.load();
        let secrets = live.secrets.as_ref().ok_or_else(|| self.unavailable(credential))?;
        secrets.get(&name).map(drop).ok_or_else(|| missing(credential, &name))
    }

    /// The header to attach for a credential of the policy. `secret_ref` is its reference, `vault:NAME`; `inject` is
    /// how its API wants it. The first call composes the value, later ones get a clone that shares its memory.
    ///
    /// # Errors
    /// The reference is none or names an unknown store, the secret is missing or cannot stand in a header, or the
    /// store was never readable.
    pub fn attachment(
        &self,
        credential: &str,
        secret_ref: &str,
        inject: &Inject<'_>,
    ) -> Result<Attachment, CredentialError> {
        let name = secret_name(credential, secret_ref)?;
        let live = self.live.load();
        let secrets = live.secrets.as_ref().ok_or_else(|| self.unavailable(credential))?;
        let entry = secrets.get(&name).ok_or_else(|| missing(credential, &name))?;
        if let Some(attachment) = live.composed(&name, inject) {
            return Ok(attachment);
        }
        let attachment = Attachment::compose(inject, &entry.secret, name.as_str(), entry.version)
            .map_err(|_| not_for_a_header(credential, &name, &inject.header))?;
        live.keep(name, inject, &attachment);
        Ok(attachment)
    }

    fn unavailable(&self, credential: &str) -> CredentialError {
        let problem = self.problem().unwrap_or_else(|| "the store was not read yet".to_owned());
        CredentialError::Unavailable { credential: credential.to_owned(), problem }
    }
}

impl Live {
    fn composed(&self, name: &SecretName, inject: &Inject<'_>) -> Option<Attachment> {
        let composed = self.composed.read().unwrap_or_else(PoisonError::into_inner);
        let prepared = composed.by_secret.get(name)?.iter().find(|prepared| prepared.serves(inject))?;
        Some(prepared.attachment.clone())
    }

    fn keep(&self, name: SecretName, inject: &Inject<'_>, attachment: &Attachment) {
        let mut composed = self.composed.write().unwrap_or_else(PoisonError::into_inner);
        if composed.count >= MAX_COMPOSED {
            *composed = Composed::default();
        }
        let of_secret = composed.by_secret.entry(name).or_default();
        if of_secret.iter().any(|prepared| prepared.serves(inject)) {
            return;
        }
        of_secret.push(Prepared {
            prefix: inject.prefix.into(),
            suffix: inject.suffix.into(),
            attachment: attachment.clone(),
        });
        composed.count += 1;
    }
}

/// The name in `vault:NAME`. What is no reference is not repeated in the error: somebody may have put the secret
/// itself there.
fn secret_name(credential: &str, reference: &str) -> Result<SecretName, CredentialError> {
    let not_a_reference = || CredentialError::NotAReference { credential: credential.to_owned() };
    let (kind, name) = reference.split_once(':').ok_or_else(not_a_reference)?;
    if kind == VAULT {
        return name.parse().map_err(|_| not_a_reference());
    }
    let looks_like_a_kind = (1..=16).contains(&kind.len()) && kind.bytes().all(|b| b.is_ascii_lowercase());
    if looks_like_a_kind {
        Err(CredentialError::UnknownStore { credential: credential.to_owned(), kind: kind.to_owned() })
    } else {
        Err(not_a_reference())
    }
}

fn missing(credential: &str, name: &SecretName) -> CredentialError {
    CredentialError::Missing { credential: credential.to_owned(), name: name.to_string() }
}

fn not_for_a_header(credential: &str, name: &SecretName, header: &HeaderName) -> CredentialError {
    CredentialError::NotForAHeader {
        credential: credential.to_owned(),
        name: name.to_string(),
        header: header.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use http::HeaderMap;
    use http::header::AUTHORIZATION;

    use super::super::{Secret, strip_and_attach};
    use super::*;

    struct World {
        _directory: tempfile::TempDir,
        store: Store,
        key: KeySource,
    }

    impl World {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let key = KeySource::file(directory.path().join("store.key"));
            let store = Store::new(directory.path().join("secrets.store"), key.clone());
            Self { _directory: directory, store, key }
        }

        fn set(&self, name: &str, value: &[u8]) {
            self.store.set(&name.parse().unwrap(), Secret::new(value.to_vec()), 1).unwrap();
        }

        fn credentials(&self) -> Credentials {
            Credentials::new(self.store.path(), self.key.clone())
        }
    }

    fn bearer() -> Inject<'static> {
        Inject::from_template(AUTHORIZATION, "Bearer {secret}").unwrap()
    }

    fn sent(credentials: &Credentials) -> Result<String, CredentialError> {
        let attachment = credentials.attachment("stripe", "vault:a", &bearer())?;
        let mut headers = HeaderMap::new();
        strip_and_attach(&mut headers, Some(&attachment), &[]);
        Ok(headers[AUTHORIZATION].to_str().unwrap().to_owned())
    }

    #[test]
    fn a_secret_is_attached_as_the_api_wants_it() {
        let world = World::new();
        world.set("a", b"one");
        let credentials = world.credentials();
        assert_eq!(credentials.count(), 1);
        assert_eq!(sent(&credentials).unwrap(), "Bearer one");
        let other = Inject { header: AUTHORIZATION, prefix: "token ", suffix: "!" };
        let attachment = credentials.attachment("stripe", "vault:a", &other).unwrap();
        let mut headers = HeaderMap::new();
        strip_and_attach(&mut headers, Some(&attachment), &[]);
        assert_eq!(headers[AUTHORIZATION], "token one!");
    }

    #[test]
    fn apis_that_differ_in_header_prefix_or_suffix_only_get_each_its_own() {
        let world = World::new();
        world.set("a", b"one");
        let credentials = world.credentials();
        let key = HeaderName::from_static("x-key");
        let ways = [
            (AUTHORIZATION, "p ", "."),
            (key, "p ", "."),
            (AUTHORIZATION, "q ", "."),
            (AUTHORIZATION, "p ", "!"),
        ];
        // Twice: composed, and kept.
        for (header, prefix, suffix) in ways.iter().chain(&ways) {
            let inject = Inject { header: header.clone(), prefix, suffix };
            let attachment = credentials.attachment("stripe", "vault:a", &inject).unwrap();
            let mut headers = HeaderMap::new();
            strip_and_attach(&mut headers, Some(&attachment), &[]);
            assert_eq!(headers.len(), 1);
            assert_eq!(headers[header], format!("{prefix}one{suffix}"));
        }
    }

    #[test]
    fn what_is_composed_does_not_grow_without_end() {
        let world = World::new();
        world.set("a", b"one");
        let credentials = world.credentials();
        for number in 0..MAX_COMPOSED + 10 {
            let suffix = number.to_string();
            let inject = Inject { header: AUTHORIZATION, prefix: "", suffix: &suffix };
            credentials.attachment("stripe", "vault:a", &inject).unwrap();
        }
        let live = credentials.live.load();
        let composed = live.composed.read().unwrap();
        assert_eq!(composed.count, composed.by_secret.values().map(Vec::len).sum::<usize>());
        assert!(composed.count <= MAX_COMPOSED, "{}", composed.count);
    }

    #[test]
    fn the_value_is_composed_once_and_shared_until_the_store_changes() {
        let world = World::new();
        world.set("a", b"one");
        let credentials = world.credentials();
        let address = || {
            let attachment = credentials.attachment("stripe", "vault:a", &bearer()).unwrap();
            let mut headers = HeaderMap::new();
            strip_and_attach(&mut headers, Some(&attachment), &[]);
            (headers[AUTHORIZATION].as_bytes().as_ptr() as usize, attachment.secret_version())
        };
        let first = address();
        assert_eq!(first, address());
        world.set("a", b"two");
        assert_eq!(first, address(), "nothing changes before the reload");
        assert_eq!(credentials.reload().unwrap(), 1);
        assert_eq!(address().1, 2);
        assert_eq!(sent(&credentials).unwrap(), "Bearer two");
    }

    #[test]
    fn a_missing_secret_says_which_command_sets_it() {
        let world = World::new();
        let error = sent(&world.credentials()).unwrap_err();
        assert!(error.to_string().contains("`vouchsafe secret set a`"), "{error}");
        assert!(!error.client_text().contains("vouchsafe"), "the bot learns nothing of the configuration");
        assert_eq!(world.credentials().check("stripe", "vault:a"), Err(error));
    }

    #[test]
    fn a_store_that_was_never_readable_refuses_every_call_and_says_why() {
        let world = World::new();
        world.set("a", b"one");
        fs::write(world.store.path(), b"garbage").unwrap();
        let credentials = world.credentials();
        let error = sent(&credentials).unwrap_err();
        assert!(matches!(error, CredentialError::Unavailable { .. }), "{error}");
        assert!(error.to_string().contains("secrets.store"), "{error}");
        assert!(credentials.problem().is_some());
    }

    #[test]
    fn a_reload_that_fails_keeps_the_old_secrets_and_reports() {
        let world = World::new();
        world.set("a", b"one");
        let credentials = world.credentials();
        let good = fs::read(world.store.path()).unwrap();
        fs::write(world.store.path(), &good[..good.len() - 1]).unwrap();
        assert!(credentials.reload().is_err());
        assert_eq!(sent(&credentials).unwrap(), "Bearer one");
        assert!(credentials.problem().is_some());
        fs::write(world.store.path(), &good).unwrap();
        credentials.reload().unwrap();
        assert_eq!(credentials.problem(), None);
    }

    #[test]
    fn a_secret_that_was_removed_is_gone_after_the_reload() {
        let world = World::new();
        world.set("a", b"one");
        let credentials = world.credentials();
        world.store.remove(&"a".parse().unwrap()).unwrap();
        credentials.reload().unwrap();
        assert!(matches!(sent(&credentials), Err(CredentialError::Missing { .. })));
    }

    #[test]
    fn a_value_in_place_of_a_reference_is_not_repeated() {
        let credentials = World::new().credentials();
        for reference in ["sk_live_CANARY", "vault:sk_live_CANARY", "CANARY:x", "user:CANARY", "vault:"] {
            let error = credentials.attachment("stripe", reference, &bearer()).unwrap_err();
            assert!(!format!("{error} {error:?} {}", error.client_text()).contains("CANARY"), "{error}");
        }
        let error = credentials.check("stripe", "awssm:x").unwrap_err();
        assert!(matches!(error, CredentialError::UnknownStore { .. }), "{error}");
    }

    #[test]
    fn a_secret_with_a_line_break_inside_is_refused_when_it_is_attached() {
        let world = World::new();
        world.set("a", b"one\r\nx-evil: 1");
        let error = sent(&world.credentials()).unwrap_err();
        assert!(matches!(error, CredentialError::NotForAHeader { .. }), "{error}");
    }
}
