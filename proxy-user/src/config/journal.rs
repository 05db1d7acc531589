//! `[journal]`: how the journal is kept, and where its records go besides.

use std::path::PathBuf;

use serde::Deserialize;

/// `[journal]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// journald's socket; empty: off.
    pub journald: PathBuf,
}

impl Default for Journal {
    fn default() -> Self {
        Self { journald: PathBuf::from("/run/systemd/journal/socket") }
    }
}
