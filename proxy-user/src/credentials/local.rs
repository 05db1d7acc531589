//! Secrets of this host itself: the daemon's own store, files, credentials of its unit, and its environment.
//!
//! Nothing of it needs anybody else, so the logins to other places are here.

use std::sync::Arc;

use proxy_policy::{SecretRef, Store as Place};

use super::name::SecretName;
use super::secret::Secret;
use super::source_files::Texts;
use super::sources::{Held, SourceError};
use super::store::{Store, StoreError};
use super::vault::Vault;

/// All that this host has itself.
pub(super) struct Local {
    vault: Vault,
    texts: Texts,
}

impl Local {
    /// With the daemon's own store, which is read now.
    pub(super) fn new(store: Store) -> Self {
        Self { vault: Vault::new(store), texts: Texts::of_this_process() }
    }

    /// The same with another secret in the store, in memory only, to try it.
    pub(super) fn with_candidate(&self, name: &SecretName, secret: &Arc<Secret>) -> Self {
        Self { vault: self.vault.with_candidate(name, secret), texts: Texts::of_this_process() }
    }

    /// The daemon's own store.
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

    /// Reads what these references name, and forgets all others. Blocks on files.
    pub(super) fn prepare(&self, references: &[&SecretRef]) {
        self.texts.prepare(references);
    }

    /// Reads again those files that changed and are whole. Blocks on files.
    pub(super) fn follow(&self) {
        self.texts.follow();
    }

    /// The secret that a reference names, if it is at hand: never waits.
    pub(super) fn held(&self, reference: &SecretRef) -> Option<Result<Held, SourceError>> {
        match reference.store() {
            Place::Vault => Some(self.vault.held(reference.name())),
            Place::Systemd | Place::File | Place::Env => self.texts.held(reference),
            _ => Some(Err(SourceError::unknown(reference))),
        }
    }

    /// The same, read if it is not at hand.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub(super) async fn fetch(self: &Arc<Self>, reference: &SecretRef) -> Result<Held, SourceError> {
        if let Some(held) = self.held(reference) {
            return held;
        }
        let (this, own) = (Arc::clone(self), reference.clone());
        match tokio::task::spawn_blocking(move || this.texts.read(&own)).await {
            Ok(held) => held,
            Err(_) => Err(SourceError::unknown(reference)),
        }
    }
}
