//! Why a credential could not be attached: one text for the operator, one for the client.

/// The reference of a secret in the store starts with this.
pub(super) const VAULT: &str = "vault";

/// Why a call gets no credential. `Display` is for the operator (what, where, what to do) and goes into the log and
/// the journal; [`CredentialError::client_text`] is for the bot. Neither carries a secret, nor the text of a
/// reference that might be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The reference has no kind, or its name is none.
    #[error(
        "credential {credential}: its `secret` is not a reference; write secret = \"vault:NAME\", and store the value \
         with `vouchsafe secret set NAME`"
    )]
    NotAReference {
        /// The credential of the policy.
        credential: String,
    },
    /// The reference names a kind of store that does not exist.
    #[error(
        "credential {credential}: unknown kind of secret store \"{kind}\"; known is: vault (as in vault:NAME)"
    )]
    UnknownStore {
        /// The credential of the policy.
        credential: String,
        /// The kind that was named, at most sixteen lower-case letters.
        kind: String,
    },
    /// The store has no secret of this name.
    #[error(
        "credential {credential}: there is no secret {name} in the store; run `vouchsafe secret set {name}`"
    )]
    Missing {
        /// The credential of the policy.
        credential: String,
        /// The name of the secret.
        name: String,
    },
    /// The value cannot stand in a header.
    #[error(
        "credential {credential}: the secret {name}, as the API attaches it, has bytes that the header {header} cannot \
         carry (a line break, a control character); set it again with `vouchsafe secret set {name}`"
    )]
    NotForAHeader {
        /// The credential of the policy.
        credential: String,
        /// The name of the secret.
        name: String,
        /// The header it was meant for.
        header: String,
    },
    /// No store was ever read.
    #[error("credential {credential}: the secrets could not be read; {problem}")]
    Unavailable {
        /// The credential of the policy.
        credential: String,
        /// What is wrong with the store, and what to do.
        problem: String,
    },
}

impl CredentialError {
    /// What the client is told. It names nothing of the configuration.
    #[must_use]
    pub fn client_text(&self) -> &'static str {
        match self {
            Self::NotAReference { .. } | Self::UnknownStore { .. } => {
                "the credential for this API is not configured correctly on this host; its operator has the details"
            }
            Self::Missing { .. } | Self::NotForAHeader { .. } => {
                "the credential for this API is not set up on this host; its operator has the details"
            }
            Self::Unavailable { .. } => {
                "the credentials of this host are not available at the moment; its operator has the details"
            }
        }
    }
}
