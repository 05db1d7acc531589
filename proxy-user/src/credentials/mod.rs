//! Credentials: the encrypted store, the secrets in memory, and attaching them to a request.
//!
//! In the order of a secret's way: [`key`] and [`sealed`] (the pure format) under [`store`] (the file), read into `vault`,
//! with files and variables one of the `local` sources; [`hashicorp`] and `printed` lead beyond this host's own. All are `sources` of
//! the [`Credentials`] that the live policy has. Each is of one of the `kinds`, which all are a
//! `provider`: [`Ask`] says for which call, and an [`Attachment`] is the answer, at hand or obtained; `lease` keeps what
//! does not last, `outcall` is the way to those who issue, [`answers`] reads what they say, `program` runs one that prints a credential,
//! `refresh` keeps refresh tokens, `rotation` has secrets of the store made anew by `makers`, and [`issuer`] makes this host one of them. [`strip`] takes out what the client brought, and the attachment
//! goes in.
//!
//! Invariant: bytes of a secret are in [`Secret`] or in the memory of an [`Attachment`], both wiped on drop; only those
//! who make an attachment of them or send them to their issuer look at them ([`Secret::expose`]).
//! Invariant: no error, status or debug print carries a secret; `canary` tests it.

mod about;
pub mod access_key;
pub mod answers;
mod attach;
mod aws_call;
#[cfg(test)]
mod canary;
mod creds;
mod error;
mod escape;
mod files;
pub mod hashicorp;
mod hex;
mod inject;
pub mod issuer;
mod jws;
pub mod key;
mod known;
mod kinds;
pub mod lease;
mod live;
mod local;
mod makers;
mod mask;
mod memory;
mod name;
pub mod outcall;
mod parts;
mod placeholder;
mod probe;
mod printed;
mod program;
mod provider;
mod redaction;
mod refresh;
mod rotation;
pub mod sealed;
mod secret;
mod shared_key;
mod signing;
mod sigv4;
mod source_files;
mod sources;
pub mod store;
pub mod sts_answers;
mod vault;

pub use about::{About, AboutError, Label, Owner};
pub use attach::{Attachment, Head, Misplaced, Removed, strip, strip_head};
pub use creds::{SEALED_KEY, SealKeyError, Sealed};
pub use error::CredentialError;
pub use inject::{Inject, Strip};
pub use issuer::{Documents, Issuer, IssuerError, IssuerSettings};
pub use key::KeySource;
pub use known::Fingerprints;
pub use live::{CredentialState, Credentials, LiveCredential, bound_to};
pub use mask::{Masker, Needles};
pub use memory::{give_back_memory, protect_process_memory};
pub use name::{NameError, SecretName};
pub use outcall::{IssuerAnswer, IssuerUrl, Outcall, OutcallError, Stream};
pub use placeholder::{Stand, Textual};
pub use probe::Probed;
pub use program::{Program, ProgramError};
pub use provider::{Ask, AskedBy, Provided};
pub use redaction::Redaction;
pub use rotation::{Rotated, RotationError, Step};
pub use sealed::{MAX_PAST, MAX_SECRET_BYTES, Past};
pub use secret::Secret;
pub use sigv4::{ChunkError, Chunks};
pub use store::{Listed, Store, StoreError};
pub use vault::Changed;

use std::path::{Path, PathBuf};

/// Where store, key and the daemon's control socket are, for commands that work on them.
#[derive(Debug, Clone)]
pub struct StorePaths {
    /// The store with its key.
    pub store: Store,
    /// The socket on which a running daemon takes commands.
    pub control_socket: PathBuf,
}

impl StorePaths {
    /// The usual names in a state and a runtime directory: `secrets.store`, `store.key`, `control.sock`; the key
    /// comes from systemd when it has one ([`KeySource::for_state`]).
    #[must_use]
    pub fn in_directories(state: &Path, runtime: &Path) -> Self {
        Self {
            store: Store::new(state.join(store::STORE_FILE), KeySource::for_state(state)),
            control_socket: runtime.join("control.sock"),
        }
    }
}
