//! Where secrets are: one place that turns a reference of the policy (`vault:NAME`, `file:/PATH` …) into the secret.

use std::sync::Arc;

use proxy_policy::{SecretRef, Store as Place};

use super::secret::Secret;
use super::source_files::Texts;
use super::store::{Store, StoreError};
use super::vault::Vault;

/// A secret at one of its versions. No `Debug`, as [`Secret`] has none.
#[derive(Clone)]
pub(super) struct Held {
    /// The secret.
    pub(super) secret: Arc<Secret>,
    /// Grows whenever the secret changes.
    pub(super) version: u64,
    /// Since when it is this one, in seconds since the Unix epoch, as far as its source knows.
    pub(super) since_s: Option<u64>,
}

/// Why there is no secret. The texts are for the operator: what, where, what to do; never anything of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SourceError {
    /// The source has no such secret.
    #[error("{problem}")]
    Missing {
        /// What is missing, and what to do.
        problem: String,
    },
    /// The source cannot be asked.
    #[error("the secrets could not be read; {problem}")]
    Unavailable {
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// All sources of this host.
pub(super) struct Sources {
    vault: Vault,
    texts: Texts,
}

impl Sources {
    /// With the daemon's own store, which is read now.
    #[must_use]
    pub(super) fn new(store: Store) -> Self {
        Self { vault: Vault::new(store), texts: Texts::of_this_process() }
    }

    /// The daemon's own store.
    #[must_use]
    pub(super) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Reads again everything that is read; returns how many secrets the daemon's own store has. Blocks on files.
    ///
    /// # Errors
    /// The store cannot be read; what was read before goes on.
    pub(super) fn reload(&self) -> Result<usize, StoreError> {
        self.texts.read_again();
        self.vault.reload()
    }

    /// Reads what these references name, so that it is at hand, and forgets what no reference names any more. Blocks on files.
    pub(super) fn prepare(&self, references: &[&SecretRef]) {
        self.texts.prepare(references);
    }

    /// Reads again those files that changed and are whole. Blocks on files.
    pub(super) fn follow(&self) {
        self.texts.follow();
    }

    /// The secret that a reference names, if it is at hand: never waits. `None`: it must be fetched first.
    #[must_use]
    pub(super) fn held(&self, reference: &SecretRef) -> Option<Result<Held, SourceError>> {
        match reference.store() {
            Place::Vault => Some(self.vault.held(reference.name())),
            Place::Systemd | Place::File | Place::Env => self.texts.held(reference),
            _ => Some(Err(unknown(reference))),
        }
    }

    /// The secret that a reference names, fetched if it is not at hand.
    ///
    /// # Errors
    /// There is none, or its source cannot be asked.
    pub(super) async fn fetch(self: &Arc<Self>, reference: &SecretRef) -> Result<Held, SourceError> {
        if let Some(held) = self.held(reference) {
            return held;
        }
        let (this, own) = (Arc::clone(self), reference.clone());
        match tokio::task::spawn_blocking(move || this.texts.read(&own)).await {
            Ok(held) => held,
            Err(_) => Err(unknown(reference)),
        }
    }
}

fn unknown(reference: &SecretRef) -> SourceError {
    let problem =
        format!("this daemon has no source {}:; see docs/credentials.md", reference.store().as_str());
    SourceError::Unavailable { problem }
}
