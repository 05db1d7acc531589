//! Why a credential could not be attached: one text for the operator, one for the client.

use super::sources::SourceError;

/// Why a call gets no credential. `Display` is for the operator (what, where, what to do) and goes into the log and
/// the journal; [`CredentialError::client_text`] is for the bot. Neither carries a secret, nor the text of a
/// reference that might be a secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// There is no such secret.
    #[error("credential {credential}: {problem}")]
    Missing {
        /// The credential of the policy.
        credential: String,
        /// What is missing, and what to do.
        problem: String,
    },
    /// The value cannot stand in a header.
    #[error(
        "credential {credential}: the secret {name}, as the API attaches it, has bytes that {place} cannot carry (a line \
         break, a control character), or lacks what it needs; set it again with `vouchsafe secret set {name}`"
    )]
    Unfit {
        /// The credential of the policy.
        credential: String,
        /// The name of the secret.
        name: String,
        /// The part of the request that it was meant for.
        place: String,
    },
    /// The source of its secret cannot be asked.
    #[error("credential {credential}: {problem}")]
    Unavailable {
        /// The credential of the policy.
        credential: String,
        /// What is wrong with the source, and what to do.
        problem: String,
    },
    /// Whoever issues it did not.
    #[error("credential {credential}: it could not be obtained; {problem}")]
    NotObtained {
        /// The credential of the policy.
        credential: String,
        /// What went wrong with whom, and what to do.
        problem: String,
    },
    /// The policy does not fit: the API does not say how it wants the credential, or is none of the credential's.
    #[error("credential {credential}: {problem}")]
    Misfit {
        /// The credential of the policy.
        credential: String,
        /// What does not fit, and what to do.
        problem: String,
    },
}

impl CredentialError {
    pub(super) fn source(credential: &str, error: SourceError) -> Self {
        let credential = credential.to_owned();
        match error {
            SourceError::Missing { problem } => Self::Missing { credential, problem },
            SourceError::Unavailable { .. } => Self::Unavailable { credential, problem: error.to_string() },
        }
    }

    pub(super) fn no_inject(credential: &str, api: &str) -> Self {
        let problem = format!("the API {api} does not say how to attach it; add `inject` to it");
        Self::Misfit { credential: credential.to_owned(), problem }
    }

    /// The credential of the policy.
    #[must_use]
    pub fn credential(&self) -> &str {
        match self {
            Self::Missing { credential, .. }
            | Self::Unfit { credential, .. }
            | Self::Unavailable { credential, .. }
            | Self::NotObtained { credential, .. }
            | Self::Misfit { credential, .. } => credential,
        }
    }

    /// What the client is told: the credential's name and what is the matter, nothing of where the secret is.
    #[must_use]
    pub fn client_text(&self) -> String {
        let what = match self {
            Self::Missing { .. } | Self::Unfit { .. } => "is not set up on this host",
            Self::Unavailable { .. } => "is not available at the moment: its store cannot be read",
            Self::NotObtained { .. } => "cannot be obtained at the moment from whoever issues it",
            Self::Misfit { .. } => "is not configured for this API on this host",
        };
        format!("the credential {} {what}; the operator has the details", self.credential())
    }
}
