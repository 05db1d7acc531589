//! `kind = "exec"`: a program prints the credential.

use std::time::Duration;

use super::claims::{ClaimText, Variable};

/// A program that prints a credential, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExecCredential {
    /// The absolute path of the program.
    pub program: String,
    /// Its arguments, which may have places for the identity.
    pub arguments: Vec<ClaimText>,
    /// The variables of the daemon that it gets. It has no others.
    pub env: Vec<String>,
    /// For how long it may run.
    pub timeout: Duration,
    /// The user as whom it runs; `None`: as the daemon.
    pub user: Option<String>,
}

impl ExecCredential {
    /// Whether what it prints is for one identity alone.
    #[must_use]
    pub fn is_for_identity(&self) -> bool {
        self.arguments.iter().flat_map(ClaimText::variables).any(|it| it == Variable::Identity)
    }
}
