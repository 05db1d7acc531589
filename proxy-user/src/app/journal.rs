//! How the journal is kept, as the configuration says.

use crate::config::{self, Config};
use crate::record::{Durability, Options};

/// What the journal is opened with.
#[must_use]
pub fn options(config: &Config) -> Options {
    let journal = &config.journal;
    Options {
        durability: match journal.durability {
            config::Durability::Fast => Durability::Fast,
            config::Durability::Sync => Durability::Sync,
        },
        checkpoint_records: journal.checkpoint_records,
        checkpoint_within: journal.checkpoint_within,
        key_lifetime: journal.key_lifetime,
        segment_bytes: journal.segment_size,
        segment_age: journal.segment_age,
        compress: journal.compress,
        keep_for: journal.keep,
        keep_bytes: journal.keep_size,
        reserve: journal.reserve,
        spill: journal.spill.clone(),
        auditors: journal.auditors.clone(),
        ..Options::new(env!("CARGO_PKG_VERSION"))
    }
}
