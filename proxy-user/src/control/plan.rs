//! What the daemon says of the policy that is live: its table, to compare with a folder.

use proxy_policy::Table;
use serde::{Deserialize, Serialize};

/// The name of the command.
pub const COMMAND: &str = "policy-table";

/// The policy that is live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveTable {
    /// Counts the policies that went live.
    pub generation: u64,
    /// What it means.
    pub table: Table,
}
