//! What a running daemon tells of the sinks of its journal.

use serde::{Deserialize, Serialize};

use super::status::Health;

/// One sink.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SinkStatus {
    /// Its name; `journald` for that of `[journal] journald`.
    pub name: String,
    /// Whom it sends to.
    pub to: String,
    /// Whether the last attempt went well.
    pub health: Health,
    /// Nobody is there who receives, which is no fault: journald on a host without it, a pipe without a reader.
    pub absent: bool,
    /// Records that were taken, in this run.
    pub sent: u64,
    /// Records that the receiver will never take, and lines that are no records.
    pub rejected: u64,
    /// Records that the journal's retention removed before they were sent.
    pub lost: u64,
    /// Records that the receiver does not have yet.
    pub behind: u64,
    /// Age of the oldest of them, in seconds.
    pub behind_s: u64,
    /// What went wrong last, also when it is well again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}
