//! Where secrets are: one place that turns a reference of the policy (`vault:NAME`) into the secret.

use std::sync::Arc;

use proxy_policy::{SecretRef, Store as Place};

use super::secret::Secret;
use super::store::{Store, StoreError};
use super::vault::Vault;

/// A secret at one of its versions. No `Debug`, as [`Secret`] has none.
#[derive(Clone)]
pub(super) struct Held {
    /// The secret.
    pub(super) secret: Arc<Secret>,
    /// Grows whenever the secret changes.
    pub(super) version: u64,
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
}

impl Sources {
    /// With the daemon's own store, which is read now.
    #[must_use]
    pub(super) fn new(store: Store) -> Self {
        Self { vault: Vault::new(store) }
    }

    /// The daemon's own store.
    #[must_use]
    pub(super) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Reads again what changes only when an operator says so; returns how many secrets the daemon's own store has.
    ///
    /// # Errors
    /// The store cannot be read; what was read before goes on.
    pub(super) fn reload(&self) -> Result<usize, StoreError> {
        self.vault.reload()
    }

    /// The secret that a reference names, if it is at hand: never waits. `None`: it must be fetched first.
    #[must_use]
    pub(super) fn held(&self, reference: &SecretRef) -> Option<Result<Held, SourceError>> {
        match reference.store() {
            Place::Vault => Some(self.vault.held(reference.name())),
            _ => Some(Err(unknown(reference))),
        }
    }

    /// The secret that a reference names, fetched if it is not at hand.
    ///
    /// # Errors
    /// There is none, or its source cannot be asked.
    pub(super) async fn fetch(&self, reference: &SecretRef) -> Result<Held, SourceError> {
        match self.held(reference) {
            Some(held) => held,
            None => Err(unknown(reference)),
        }
    }
}

fn unknown(reference: &SecretRef) -> SourceError {
    let problem =
        format!("this daemon has no source {}:; see docs/credentials.md", reference.store().as_str());
    SourceError::Unavailable { problem }
}
