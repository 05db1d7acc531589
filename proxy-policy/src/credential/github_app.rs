//! `kind = "github-app"`: tokens of an installation of a GitHub App, narrowed.

use super::SecretRef;

/// An installation of a GitHub App.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GithubAppCredential {
    /// The App: its number, or its client id.
    pub app_id: String,
    /// Where its private key is.
    pub private_key: SecretRef,
    /// The installation.
    pub installation_id: u64,
    /// The repositories that a token is for, without their owner; `None`: all of the installation.
    pub repositories: Option<Vec<String>>,
    /// What a token may do there, by the name of the permission.
    pub permissions: Vec<(String, GithubLevel)>,
    /// Where the API is, without a slash at the end.
    pub api_url: String,
}

/// How much of a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GithubLevel {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
    /// All of it.
    Admin,
}

impl GithubLevel {
    /// From the word that GitHub has for it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Write, Self::Admin].into_iter().find(|level| level.as_str() == text)
    }

    /// The word that GitHub has for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}
