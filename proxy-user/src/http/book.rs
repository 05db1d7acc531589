//! A journal in a directory of its own, for tests that look at what is recorded.

use std::sync::Arc;
use std::time::Duration;

use proxy_journal::{Content, Decision, Item, Outcome, Reader, Record, Verdict, Workload};

use crate::record::{Options, Receipt, Recorder};

/// A recorder and what it wrote.
pub(crate) struct Book {
    directory: tempfile::TempDir,
    pub(crate) recorder: Arc<Recorder>,
}

impl Book {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = Options::new("test");
        options.flush_within = Duration::from_millis(1);
        let recorder = Arc::new(Recorder::open(directory.path(), options).unwrap());
        Self { directory, recorder }
    }

    /// The receipt of some call.
    pub(crate) fn receipt(&self) -> Receipt {
        let decision = Decision {
            id: uuid::Uuid::nil(),
            workload: Workload::default().into(),
            identity: None,
            dst: "192.0.2.1:443".parse().unwrap(),
            proxy: None,
            scheme: None,
            api: None,
            host: None,
            port: None,
            method: None,
            path: None,
            has_query: false,
            verdict: Verdict::Allow,
            observed: false,
            rule: None,
            reason: "test".into(),
            credential: None,
            mistrust: None,
            capture: None,
            ech: false,
            refusal: None,
            basis: None,
            fingerprints: Vec::new(),
            generation: 1,
        };
        self.recorder.begin(decision).unwrap()
    }

    /// All that is written by now.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for file in std::fs::read_dir(self.directory.path()).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "jsonl") {
                continue;
            }
            for item in Reader::new(std::io::BufReader::new(std::fs::File::open(path).unwrap())) {
                if let Item::Entry(entry) = item.unwrap()
                    && let Content::Known(record) = entry.content
                {
                    records.push(record);
                }
            }
        }
        records
    }

    /// The decisions by now.
    pub(crate) fn decisions(&self) -> Vec<Arc<Decision>> {
        let decision = |record| match record {
            Record::Decision(decision) => Some(decision),
            _ => None,
        };
        self.records().into_iter().filter_map(decision).collect()
    }

    /// The outcomes, once there are as many as open calls; more would be found, too.
    pub(crate) async fn outcomes(&self) -> Vec<Outcome> {
        loop {
            let records = self.records();
            let opened = records
                .iter()
                .filter(|r| matches!(r, Record::Decision(d) if d.verdict == Verdict::Allow))
                .count();
            let outcome = |record| match record {
                Record::Outcome(outcome) => Some(outcome),
                _ => None,
            };
            let outcomes: Vec<Outcome> = records.into_iter().filter_map(outcome).collect();
            if outcomes.len() >= opened {
                return outcomes;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The decisions, once there is one that is refused.
    pub(crate) async fn refusal(&self) -> Arc<Decision> {
        loop {
            if let Some(refused) =
                self.decisions().into_iter().find(|decision| decision.verdict == Verdict::Deny)
            {
                return refused;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
