//! The daemon's own store of secrets as it has it in memory: read once, swapped as a whole.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwapOption, Guard};

use super::about::About;
use super::name::SecretName;
use super::sealed::{Entry, Secrets};
use super::secret::Secret;
use super::sources::{Held, SourceError};
use super::store::{Store, StoreError};
use crate::base::clock;

/// The encrypted store. Every lookup sees one reading of it, whole.
pub(super) struct Vault {
    store: Store,
    /// `None` until the store could be read for the first time.
    secrets: ArcSwapOption<Secrets>,
    problem: ArcSwapOption<String>,
    reloading: Mutex<()>,
    /// What somebody changed since it was taken last.
    changed: Mutex<Changed>,
}

/// Secrets by name that were set, each with the version that it has then, or removed; in the order in which that was seen.
pub type Changed = Vec<(String, Option<u64>)>;

impl Vault {
    /// Reads the store. When that fails the daemon can start all the same: each call that needs a secret is refused
    /// with the reason, which [`Vault::problem`] tells too, until a [`Vault::reload`] succeeds.
    #[must_use]
    pub(super) fn new(store: Store) -> Self {
        let vault = Self {
            store,
            secrets: ArcSwapOption::empty(),
            problem: ArcSwapOption::empty(),
            reloading: Mutex::new(()),
            changed: Mutex::default(),
        };
        // The problem is kept, and told by whoever asks for a secret or for the status.
        drop(vault.reload());
        vault
    }

    /// Reads the store again and swaps all secrets at once; returns how many there are. Blocks on files.
    ///
    /// # Errors
    /// Those of [`Store::read`]. The secrets that were read before go on, and [`Vault::problem`] says why.
    pub(super) fn reload(&self) -> Result<usize, StoreError> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        self.read_again(&[])
    }

    /// Changes the store and takes up what it is then. `edit` says what it changed itself: that is told to nobody, and all else that
    /// is new then is somebody's. Blocks on files.
    ///
    /// # Errors
    /// Those of `edit`, and of [`Vault::reload`].
    pub(super) fn change<T>(
        &self,
        edit: impl FnOnce(&Store) -> Result<(T, Changed), StoreError>,
    ) -> Result<T, StoreError> {
        // Nobody else reads in between, who would take it for somebody's.
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, own) = edit(&self.store)?;
        self.read_again(&own)?;
        Ok(done)
    }

    fn read_again(&self, own: &[(String, Option<u64>)]) -> Result<usize, StoreError> {
        match self.store.read() {
            Ok(mut secrets) => {
                let count = secrets.len();
                // What is as it was stays the same object: what was made of it, or obtained with it, goes on.
                if let Some(before) = self.secrets().as_ref() {
                    for (name, entry) in &mut secrets {
                        let same = before.get(name).filter(|before| {
                            before.version == entry.version && before.secret.expose() == entry.secret.expose()
                        });
                        if let Some(same) = same {
                            entry.secret = Arc::clone(&same.secret);
                        }
                    }
                    self.note_changes(before, &secrets, own);
                }
                self.secrets.store(Some(Arc::new(secrets)));
                self.problem.store(None);
                Ok(count)
            }
            Err(error) => {
                self.problem.store(Some(Arc::new(error.to_string())));
                Err(error)
            }
        }
    }

    fn note_changes(&self, before: &Secrets, now: &Secrets, own: &[(String, Option<u64>)]) {
        let is_new = |(name, entry): &(&SecretName, &Entry)| {
            before.get(*name).is_none_or(|before| !Arc::ptr_eq(&before.secret, &entry.secret))
        };
        let set = now.iter().filter(is_new).map(|(name, entry)| (name.to_string(), Some(entry.version)));
        let gone = before.keys().filter(|name| !now.contains_key(*name)).map(|name| (name.to_string(), None));
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        changed.extend(set.chain(gone).filter(|change| !own.contains(change)));
    }

    /// What somebody changed since this was asked last. What the daemon did itself is not in it.
    pub(super) fn take_changed(&self) -> Changed {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a secret in the place of the one that has this version, in the store and here; whether it still had it. Blocks on files.
    ///
    /// # Errors
    /// Those of [`Store::set`]; then nothing has changed.
    pub(super) fn replace(&self, name: &str, version: u64, secret: Arc<Secret>) -> Result<bool, StoreError> {
        let Ok(parsed) = name.parse::<SecretName>() else { return Ok(false) };
        let now = u64::try_from(clock::now().0).unwrap_or(0);
        self.change(|store| {
            let replaced = store.replace(&parsed, version, secret, now)?;
            let own = replaced.map(|version| (name.to_owned(), Some(version)));
            Ok((replaced.is_some(), own.into_iter().collect()))
        })
    }

    /// The same with another secret under a name, in memory only, to try it.
    pub(super) fn with_candidate(&self, name: &SecretName, secret: &Arc<Secret>) -> Self {
        let mut secrets = Secrets::new();
        for (known, entry) in self.secrets().iter().flat_map(|secrets| secrets.iter()) {
            secrets.insert(known.clone(), entry.share());
        }
        let version = secrets.get(name).map_or(0, |entry| entry.version).saturating_add(1);
        secrets.insert(name.clone(), Entry::new(Arc::clone(secret), version, 0));
        Self {
            store: self.store.clone(),
            secrets: ArcSwapOption::from_pointee(secrets),
            problem: ArcSwapOption::empty(),
            reloading: Mutex::new(()),
            changed: Mutex::default(),
        }
    }

    /// Why the last reading of the store failed, and what to do; `None` when it did not.
    #[must_use]
    pub(super) fn problem(&self) -> Option<String> {
        self.problem.load().as_deref().cloned()
    }

    /// How many secrets are in memory.
    #[must_use]
    pub(super) fn count(&self) -> usize {
        self.secrets().as_ref().map_or(0, |secrets| secrets.len())
    }

    /// The secret of a name.
    ///
    /// # Errors
    /// There is none, or the store was never readable.
    pub(super) fn held(&self, name: &str) -> Result<Held, SourceError> {
        let secrets = self.secrets();
        let Some(secrets) = secrets.as_ref() else {
            let problem = self.problem().unwrap_or_else(|| "the store was not read yet".to_owned());
            return Err(SourceError::Unavailable { problem });
        };
        match secrets.get(name) {
            Some(entry) => Ok(Held {
                secret: Arc::clone(&entry.secret),
                version: entry.version,
                since_s: Some(entry.created_s),
            }),
            None => Err(SourceError::Missing {
                problem: format!("there is no secret {name} in the store; run `vouchsafe secret set {name}`"),
            }),
        }
    }

    /// What people say of a secret, if there is one of this name and they say something.
    pub(super) fn about(&self, name: &str) -> Option<About> {
        let secrets = self.secrets();
        let entry = secrets.as_ref()?.get(name)?;
        (!entry.about.is_empty()).then(|| entry.about.clone())
    }

    fn secrets(&self) -> Guard<Option<Arc<Secrets>>> {
        self.secrets.load()
    }
}
