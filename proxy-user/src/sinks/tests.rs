//! Sinks with receivers that come, go, hang, lie and are killed.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proxy_journal::{Bound, Record};
use serde_json::Value;
use tempfile::TempDir;

use super::{Around, Plan, SinkHealth, SinkState, Sinks};
use crate::config::Config;
use crate::record::tests::{allow, deny, eventually, ok};
use crate::record::{Options, Recorder};

mod collector;
mod file;
mod journald;
mod ocsf;
mod otlp;
mod otlp_grpc;
mod syslog;

/// A host with a journal; what is in it stays over restarts.
struct Host {
    keep: TempDir,
    config: Config,
}

/// It while its daemon runs.
struct Running {
    recorder: Recorder,
    sinks: Sinks,
}

impl Host {
    /// With these settings below `[journal]`, where `STATE` is its folder.
    fn new(journal: &str) -> Host {
        Host::of(tempfile::tempdir().unwrap(), journal)
    }

    /// The same host with other settings.
    fn with(self, journal: &str) -> Host {
        Host::of(self.keep, journal)
    }

    fn of(keep: TempDir, journal: &str) -> Host {
        let state = keep.path().display().to_string();
        let text =
            format!("state = {state:?}\n[journal]\njournald = \"\"\n{}", journal.replace("STATE", &state));
        Host { config: Config::parse(Path::new("v.toml"), &text).unwrap(), keep }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.keep.path().join(name)
    }

    fn start(&self) -> Running {
        let plan = Plan::new(&self.config).unwrap();
        // Nothing is written by itself: a journal begins with its key, and ends with a checkpoint.
        let (flush_within, checkpoint_within) = (Duration::from_millis(5), Duration::from_secs(3600));
        let never = Options { checkpoint_within, checkpoint_records: u64::MAX, ..Options::new("0.1.0") };
        let options = Options { flush_within, reserve: 4096, ..never };
        let recorder = Recorder::open(&self.config.journal_dir(), options).unwrap();
        let around = Around { config: &self.config, own_roots: Vec::new(), uplink: None, credentials: None };
        let sinks = plan.start(&around, &recorder.signal()).unwrap();
        Running { recorder, sinks }
    }

    /// The lines of the journal.
    fn journal(&self) -> Vec<String> {
        let path = self.config.journal_dir().join("journal-00000001.jsonl");
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Running {
    fn health(&self) -> SinkHealth {
        self.sinks.health().pop().unwrap()
    }

    /// So many denials.
    fn deny(&self, count: usize) {
        for call in 0..count {
            self.recorder.refused(deny(&format!("/call/{call}"))).unwrap();
        }
    }

    fn stop(self) {
        self.recorder.stop("test").unwrap();
        self.sinks.stop();
    }
}

/// The numbers of the records in lines of JSON, as they came.
fn seqs<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<u64> {
    let seq = |line: &str| serde_json::from_str::<Value>(line).unwrap()["seq"].as_u64().unwrap();
    lines.into_iter().map(seq).collect()
}

/// Whether all records up to this one came, each at least once.
fn has_all(mut seqs: Vec<u64>, last: u64) -> bool {
    seqs.sort_unstable();
    seqs.dedup();
    seqs == (1..=last).collect::<Vec<_>>()
}

/// As of a bot that was refused too often.
fn refusals_without_record(identity: Option<&str>) -> Record {
    Record::Bound(Bound {
        identity: identity.map(str::to_owned),
        counter: Bound::REFUSALS.to_owned(),
        count: 7,
        total: 9,
        effect: "refused without a record".to_owned(),
    })
}
