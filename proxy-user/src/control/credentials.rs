//! What the daemon says of the credentials of the policy that is live. Nothing of a secret.

use serde::{Deserialize, Serialize};

/// The name of the command.
pub const COMMAND: &str = "credentials";

/// One credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialReport {
    /// Its name in the policy.
    pub name: String,
    /// How it authenticates.
    pub kind: String,
    /// Where its secrets are, as in the policy: references, never values.
    pub source: String,
    /// The only APIs that it may go to; empty: any that a grant names it for.
    pub apis: Vec<String>,
    /// The version of its secret; of the first one when it has several.
    pub version: Option<u64>,
    /// Since when the secret is this one (RFC 3339).
    pub since: Option<String>,
    /// When it last went into a call (RFC 3339), to the second.
    pub last_used: Option<String>,
    /// Whose call that was: the identity.
    pub last_used_by: Option<String>,
    /// Why no call can have it, and what to do.
    pub problem: Option<String>,
}
