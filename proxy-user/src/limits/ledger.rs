//! Quotas outlive the daemon: what was used is in a file of the state directory.
//!
//! Written once a second while anything changes, and at the stop. A crash forgets what was used in its last second.
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use proxy_policy::Period;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::quota::{Quota, Used};

/// The name of the file.
pub const FILE: &str = "limits.json";

/// Version of the file's format.
const VERSION: u32 = 1;

/// Why the file cannot be used. Without it nobody knows what was used, so nothing starts.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// It cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error(
        "{path} does not hold what was used of the limits: {why}\n  help: move it away to begin at nothing used"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    days: BTreeMap<String, Used>,
    months: BTreeMap<String, Used>,
}

/// All quotas of the host, by whose they are.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    quotas: Mutex<BTreeMap<(Period, String), Arc<Quota>>>,
    written: Mutex<Vec<u8>>,
}

impl Ledger {
    /// Reads the file in a folder; none is one in which nothing was used.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(folder: &Path) -> Result<Self, LedgerError> {
        let path = folder.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(LedgerError::Io { what: "read", path, source }),
        };
        let mut quotas = BTreeMap::new();
        if !text.is_empty() {
            let content: Content = serde_json::from_slice(&text)
                .map_err(|error| LedgerError::Damaged { path: path.clone(), why: error.to_string() })?;
            if content.version != VERSION {
                let why = format!("its version is {}, and this program knows {VERSION}", content.version);
                return Err(LedgerError::Damaged { path, why });
            }
            for (per, of) in [(Period::Day, content.days), (Period::Month, content.months)] {
                quotas.extend(
                    of.into_iter().map(|(whose, used)| ((per, whose), Arc::new(Quota::new(per, used)))),
                );
            }
        }
        Ok(Self { path, quotas: Mutex::new(quotas), written: Mutex::new(text) })
    }

    /// One in which nothing was used, for who only asks which limits there are: it has no file, and is never written.
    #[must_use]
    pub fn nowhere() -> Self {
        Self { path: PathBuf::new(), quotas: Mutex::default(), written: Mutex::default() }
    }

    /// The quota with this name; it is the same one for the same name.
    #[must_use]
    pub fn quota(&self, whose: &str, per: Period) -> Arc<Quota> {
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Quota::new(per, Used::default()));
        Arc::clone(quotas.entry((per, whose.to_owned())).or_insert_with(new))
    }

    /// Writes the file if anything changed. Blocks on the disk.
    ///
    /// # Errors
    /// [`LedgerError::Io`].
    pub fn write(&self, now: SystemTime) -> Result<(), LedgerError> {
        let mut content = Content { version: VERSION, days: BTreeMap::new(), months: BTreeMap::new() };
        for ((per, whose), quota) in self.quotas.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let used = quota.used(now);
            // What is over, or was never used, needs no remembering.
            if used.amount > 0 {
                let of = if *per == Period::Day { &mut content.days } else { &mut content.months };
                of.insert(whose.clone(), used);
            }
        }
        let mut text = serde_json::to_vec_pretty(&content).unwrap_or_default();
        text.push(b'\n');
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let nothing = content.days.is_empty() && content.months.is_empty() && written.is_empty();
        if *written == text || nothing {
            return Ok(());
        }
        let failed = |what| move |source| LedgerError::Io { what, path: self.path.clone(), source };
        let aside = self.path.with_extension("json.new");
        let write = || {
            use std::os::unix::fs::OpenOptionsExt as _;
            let mut file =
                fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
            io::Write::write_all(&mut file, &text)?;
            file.sync_all()
        };
        write().map_err(failed("write"))?;
        fs::rename(&aside, &self.path).map_err(failed("replace"))?;
        *written = text;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_used_is_still_used_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.write(now).unwrap();
        assert!(!dir.path().join(FILE).exists(), "nothing was used, so nothing is written");
        ledger.quota("identity/bot", Period::Day).add(3, now);
        ledger.quota("identity/bot", Period::Month).add(7, now);
        ledger.write(now).unwrap();
        let again = Ledger::open(dir.path()).unwrap();
        assert_eq!(again.quota("identity/bot", Period::Day).used(now).amount, 3);
        assert_eq!(again.quota("identity/bot", Period::Month).used(now).amount, 7);
        assert_eq!(again.quota("identity/other", Period::Day).used(now).amount, 0);
        // What is over is forgotten.
        let later = now + Duration::from_secs(40 * 86_400);
        again.write(later).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!text.contains("bot"), "{text}");
    }

    #[test]
    fn a_file_that_is_something_else_is_an_error_and_not_a_fresh_start() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "x",
            "{}",
            r#"{"version":2,"days":{},"months":{}}"#,
            r#"{"version":1,"days":{"a":1},"months":{}}"#,
        ] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let error = Ledger::open(dir.path()).unwrap_err().to_string();
            assert!(error.contains("move it away"), "{text}: {error}");
        }
    }
}
