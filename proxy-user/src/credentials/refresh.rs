//! Refresh tokens: each is used by one at a time, and the next one is in the store before anything that came with it is used.
//!
//! A server that gives a new one with each use takes a second use of the old one for theft. So they are taken in turn by the
//! name of the secret, across credentials and policies, and read from the store each time. A new one that cannot be stored is kept here,
//! and nothing is asked for until it is stored.
//!
//! Invariant: no refresh token is sent again after a server gave another one for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use proxy_policy::SecretRef;
use tokio::sync::OwnedMutexGuard;

use super::secret::Secret;
use super::sources::{Held, SourceError, Sources};
use super::store::StoreError;

/// All refresh tokens of the daemon's own store that are in use.
pub(super) struct RefreshTokens {
    sources: Arc<Sources>,
    turns: Mutex<HashMap<String, Turn>>,
}

type Turn = Arc<tokio::sync::Mutex<State>>;

/// What is known of a refresh token between its uses.
#[derive(Default)]
struct State {
    /// What came for the one of this version, and is not in the store yet.
    unsaved: Option<(u64, Arc<Secret>)>,
}

/// A refresh token in use: nobody else has it meanwhile.
pub(super) struct InUse {
    pub(super) held: Held,
    reference: SecretRef,
    sources: Arc<Sources>,
    state: OwnedMutexGuard<State>,
}

impl RefreshTokens {
    pub(super) fn new(sources: Arc<Sources>) -> Self {
        Self { sources, turns: Mutex::default() }
    }

    /// The newest one, when it is our turn.
    ///
    /// # Errors
    /// There is none, or the store cannot be read or written.
    pub(super) async fn take(&self, reference: &SecretRef) -> Result<InUse, SourceError> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(reference.name().to_owned()).or_default())
        };
        let mut state = turn.lock_owned().await;
        save(&mut state, &self.sources, reference).await?;
        // Somebody may have set another one, and not said so yet.
        let sources = Arc::clone(&self.sources);
        blocking(move || sources.vault().reload().map(drop)).await?;
        let held = self.sources.fetch(reference).await?;
        Ok(InUse { held, reference: reference.clone(), sources: Arc::clone(&self.sources), state })
    }

    /// Waits until none is in use.
    pub(super) async fn settle(&self) {
        let turns: Vec<Turn> = {
            let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.values().cloned().collect()
        };
        for turn in turns {
            drop(turn.lock().await);
        }
    }
}

impl InUse {
    /// Stores what the server gave in its place.
    ///
    /// # Errors
    /// The store does not take it: it is kept in memory, and is stored before anything else is asked for.
    pub(super) async fn replace(&mut self, next: Secret) -> Result<(), SourceError> {
        if next.expose() == self.held.secret.expose() {
            return Ok(());
        }
        self.state.unsaved = Some((self.held.version, Arc::new(next)));
        save(&mut self.state, &self.sources, &self.reference).await
    }
}

/// Stores what is not stored yet. If somebody set another one meanwhile, that one stands.
async fn save(state: &mut State, sources: &Arc<Sources>, reference: &SecretRef) -> Result<(), SourceError> {
    let Some((version, next)) = state.unsaved.clone() else { return Ok(()) };
    let (sources, name) = (Arc::clone(sources), reference.name().to_owned());
    blocking(move || sources.vault().replace(&name, version, next).map(drop)).await.map_err(|error| {
        let name = reference.name();
        let problem = format!(
            "the new refresh token {name} is in memory alone, because it could not be stored; {error}; until it can be, the \
             daemon must not end, or somebody has to sign in again"
        );
        SourceError::Unavailable { problem }
    })?;
    state.unsaved = None;
    Ok(())
}

async fn blocking(work: impl FnOnce() -> Result<(), StoreError> + Send + 'static) -> Result<(), SourceError> {
    let unavailable = |problem: String| SourceError::Unavailable { problem };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| unavailable(error.to_string())),
        Err(_) => Err(unavailable("the daemon ends".to_owned())),
    }
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;
