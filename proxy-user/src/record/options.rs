//! How the journal is kept.

use std::path::PathBuf;
use std::time::Duration;

use age::x25519::Recipient;
use proxy_journal::{IdentityKeys, Record, Start};

/// When a decision counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// When it is in the kernel's page cache: it survives the process, and not a loss of power.
    #[default]
    Fast,
    /// When it is on the disk.
    Sync,
}

/// How the journal is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the `start` record says.
    pub start: Start,
    /// What a command that is no daemon writes instead of `start`.
    pub instead: Option<Record>,
    /// An outcome is written with the next decision, and after this time at the latest.
    pub flush_within: Duration,
    /// What is written reaches the disk after this time at the latest.
    pub sync_within: Duration,
    /// When a call may go on.
    pub durability: Durability,
    /// After so many records there is a checkpoint,
    pub checkpoint_records: u64,
    /// and after this time at the latest, if there was any.
    pub checkpoint_within: Duration,
    /// Another key signs after this time.
    pub key_lifetime: Duration,
    /// A segment ends when it has so many bytes,
    pub segment_bytes: u64,
    /// or this age.
    pub segment_age: Duration,
    /// Whether closed segments are compressed.
    pub compress: bool,
    /// Closed segments whose last record is older than this are removed.
    pub keep_for: Option<Duration>,
    /// The oldest closed segments are removed as long as all together have more bytes on the disk than this.
    pub keep_bytes: Option<u64>,
    /// Bytes of the disk that are kept for the ends of calls when there is no room for more.
    pub reserve: u64,
    /// Where the journal goes on when its own disk is full; `None`: calls are refused then.
    pub spill: Option<PathBuf>,
    /// Whom bodies are kept for; none: none are.
    pub auditors: Vec<Recipient>,
}

impl Options {
    /// The settings of a daemon of this version when the configuration says nothing.
    pub fn new(version: &str) -> Options {
        // Without /proc the boot is unknown, which is no reason to write nothing.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let day = Duration::from_secs(24 * 60 * 60);
        Options {
            start: Start {
                version: version.to_owned(),
                boot_id: boot_id.trim().to_owned(),
                pid: std::process::id(),
                policy_generation: None,
                policy_digest: None,
                identity_keys: IdentityKeys::new(),
                observes: false,
            },
            instead: None,
            flush_within: Duration::from_millis(50),
            sync_within: Duration::from_secs(1),
            durability: Durability::Fast,
            checkpoint_records: 1000,
            checkpoint_within: Duration::from_secs(10),
            key_lifetime: day * 30,
            segment_bytes: 64 << 20,
            segment_age: day,
            compress: true,
            keep_for: None,
            keep_bytes: None,
            reserve: 16 << 20,
            spill: None,
            auditors: Vec::new(),
        }
    }
}
