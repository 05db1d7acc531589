//! Gives signed checkpoints to those who keep them where this host cannot change them.
//!
//! Each witness gets the newest one, at most as often as it says; one that fails gets the newest again a little later. What a time stamp
//! authority answers is kept beside the journal, with the checkpoint that it is about.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderName, HeaderValue, Method, header};
use proxy_journal::SignedNote;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config;
use crate::control::status::WitnessStatus;
use crate::credentials::outcall::IssuerUrl;
use crate::credentials::{Outcall, Program, Secret};
use crate::record::Recorder;

/// How soon one that failed is tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// How long all together may take at the daemon's end.
const LAST: Duration = Duration::from_secs(5);

type Newest = watch::Receiver<Option<Arc<str>>>;

/// All witnesses.
pub(super) struct Witnesses {
    all: Vec<Arc<Witness>>,
    newest: Newest,
}

struct Witness {
    name: String,
    way: Way,
    every: Duration,
    /// Where answers are kept.
    dir: PathBuf,
    state: Mutex<WitnessStatus>,
}

enum Way {
    Command(Program),
    Url(IssuerUrl, Outcall),
    Timestamp(IssuerUrl, Outcall),
}

impl Witnesses {
    /// Those of the configuration.
    ///
    /// # Errors
    /// An address is none.
    pub(super) fn new(
        config: &config::Config,
        recorder: &Recorder,
        outcall: &Outcall,
    ) -> anyhow::Result<Self> {
        let make = |witness: &config::Witness| -> anyhow::Result<Arc<Witness>> {
            let url = |text: &str| {
                let url = text.parse::<IssuerUrl>();
                url.with_context(|| format!("{text:?} of the witness {} of the journal", witness.name))
            };
            let way = match (&witness.url, &witness.timestamp) {
                (Some(text), _) => Way::Url(url(text)?, outcall.clone()),
                (_, Some(text)) => Way::Timestamp(url(text)?, outcall.clone()),
                _ => Way::Command(Program::new(&witness.command)),
            };
            let state = WitnessStatus { name: witness.name.clone(), ..WitnessStatus::default() };
            let dir = config.journal_dir().join("witness").join(&witness.name);
            let (name, every) = (witness.name.clone(), witness.every);
            Ok(Arc::new(Witness { name, way, every, dir, state: Mutex::new(state) }))
        };
        let all = config.journal.witness.iter().map(make).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { all, newest: recorder.checkpoints() })
    }

    /// How they are.
    pub(super) fn status(&self) -> Vec<WitnessStatus> {
        let states =
            self.all.iter().map(|it| it.state.lock().unwrap_or_else(PoisonError::into_inner).clone());
        states.collect()
    }

    /// Gives them what there is, until dropped.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        for witness in &self.all {
            tasks.spawn(Arc::clone(witness).keep(self.newest.clone()));
        }
        while tasks.join_next().await.is_some() {}
    }

    /// Gives each the last checkpoint, when the journal is closed.
    pub(super) async fn end(&self) {
        let newest = self.newest.borrow().clone();
        let Some(note) = newest else { return };
        let mut tasks = JoinSet::new();
        for witness in &self.all {
            let (witness, note) = (Arc::clone(witness), Arc::clone(&note));
            tasks.spawn(async move { witness.give(&note).await });
        }
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST, all).await.is_err() {
            tracing::warn!("not every witness of the journal took its last checkpoint in time");
        }
    }
}

impl Witness {
    async fn keep(self: Arc<Self>, mut newest: Newest) {
        loop {
            if newest.changed().await.is_err() {
                return;
            }
            let note = newest.borrow_and_update().clone();
            let Some(note) = note else { continue };
            match self.give(&note).await {
                true => tokio::time::sleep(self.every).await,
                false => {
                    newest.mark_changed();
                    tokio::time::sleep(AGAIN.min(self.every)).await;
                }
            }
        }
    }

    /// Gives it a note, and whether it took it.
    async fn give(&self, note: &Arc<str>) -> bool {
        let through = SignedNote::parse_all(note).ok().and_then(|all| Some(all.first()?.note.through()));
        let through = through.unwrap_or_default();
        {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.through == through && state.problem.is_none() && through > 0 {
                return true;
            }
        }
        let given = match &self.way {
            Way::Command(program) => {
                let run = program.run(Some(Secret::new(note.as_bytes().to_vec()))).await;
                run.map(drop).map_err(|error| error.to_string())
            }
            Way::Url(url, outcall) => {
                post(outcall, url, "text/plain; charset=utf-8", note.as_bytes()).await.map(drop)
            }
            Way::Timestamp(url, outcall) => self.stamp(outcall, url, note, through).await,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match given {
            Ok(()) => {
                if state.problem.take().is_some() {
                    tracing::info!(witness = self.name, "the witness of the journal takes checkpoints again");
                }
                (state.through, state.at) = (through, Some(super::handler::rfc3339(SystemTime::now())));
                true
            }
            Err(problem) => {
                if state.problem.as_ref() != Some(&problem) {
                    tracing::error!(
                        witness = self.name,
                        problem,
                        "the witness of the journal did not take a checkpoint; it is tried again"
                    );
                }
                state.problem = Some(problem);
                false
            }
        }
    }

    async fn stamp(
        &self,
        outcall: &Outcall,
        url: &IssuerUrl,
        note: &str,
        through: u64,
    ) -> Result<(), String> {
        let hash = digest(&SHA256, note.as_bytes());
        let mut nonce = [0; 8];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| "there is no randomness".to_owned())?;
        // Positive, and in its shortest form.
        let [first, ..] = &mut nonce;
        *first = *first & 0x3f | 0x40;
        let request = timestamp_request(hash.as_ref(), &nonce);
        let answer = post(outcall, url, "application/timestamp-query", &request).await?;
        granted(answer.expose(), hash.as_ref(), &nonce)?;
        let (dir, note) = (self.dir.clone(), note.to_owned());
        let kept = tokio::task::spawn_blocking(move || keep(&dir, through, &note, answer.expose())).await;
        kept.map_err(|error| error.to_string())?
            .map_err(|error| format!("its answer cannot be kept: {error}"))
    }
}

async fn post(outcall: &Outcall, url: &IssuerUrl, kind: &'static str, body: &[u8]) -> Result<Secret, String> {
    let headers: [(HeaderName, HeaderValue); 1] = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
    let answer = outcall.call(Method::POST, url, &headers, Secret::new(body.to_vec())).await;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.status.is_success() {
        true => Ok(answer.body),
        false => Err(format!("it answered {}", answer.status)),
    }
}

/// `TimeStampReq` (RFC 3161, 2.4.1): version 1, the hash by SHA-256, a nonce, and the certificate of who signs.
fn timestamp_request(hash: &[u8], nonce: &[u8; 8]) -> Vec<u8> {
    // SEQUENCE { SEQUENCE { OID 2.16.840.1.101.3.4.2.1, NULL }, OCTET STRING of 32 bytes }
    const IMPRINT: [u8; 19] = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
        0x04, 0x20,
    ];
    let mut request = vec![0x30, 0x43, 0x02, 0x01, 0x01];
    request.extend_from_slice(&IMPRINT);
    request.extend_from_slice(hash);
    request.extend_from_slice(&[0x02, 0x08]);
    request.extend_from_slice(nonce);
    request.extend_from_slice(&[0x01, 0x01, 0xff]);
    request
}

/// Whether a `TimeStampResp` says that it was granted, and is about this. That the token is signed by the authority is for the auditor to
/// verify (`openssl ts -verify`), who knows whose it must be.
fn granted(answer: &[u8], hash: &[u8], nonce: &[u8]) -> Result<(), String> {
    use x509_parser::der_parser::asn1_rs::{FromDer as _, Integer, Sequence};
    let no = || "it answered with something that is no time stamp".to_owned();
    let (_, response) = Sequence::from_der(answer).map_err(|_| no())?;
    let (_, status) = Sequence::from_der(response.content.as_ref()).map_err(|_| no())?;
    let (_, status) = Integer::from_der(status.content.as_ref()).map_err(|_| no())?;
    match status.as_u32() {
        Ok(0 | 1) => {}
        Ok(status) => return Err(format!("it did not grant a time stamp (status {status})")),
        Err(_) => return Err(no()),
    }
    let has = |what: &[u8]| answer.windows(what.len()).any(|part| part == what);
    (has(hash) && has(nonce))
        .then_some(())
        .ok_or_else(|| "it answered with a time stamp of something else".to_owned())
}

fn keep(dir: &Path, through: u64, note: &str, answer: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for (kind, bytes) in [("note", note.as_bytes()), ("tsr", answer)] {
        let path = dir.join(format!("{through:020}.{kind}"));
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_stamp_is_asked_for_as_openssl_asks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.tsq");
        std::fs::write(&path, timestamp_request(&[7; 32], &[0x41, 2, 3, 4, 5, 6, 7, 8])).unwrap();
        let shown =
            std::process::Command::new("openssl").args(["ts", "-query", "-text", "-in"]).arg(&path).output();
        let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
        for part in
            ["Version: 1", "Hash Algorithm: sha256", "Nonce: 0x4102030405060708", "Certificate required: yes"]
        {
            assert!(shown.contains(part), "{shown}");
        }
    }

    #[test]
    fn an_answer_that_is_refused_or_about_something_else_is_none() {
        let granted_of = |status: u8, rest: &[u8]| {
            let mut answer =
                vec![0x30, u8::try_from(5 + rest.len()).unwrap(), 0x30, 0x03, 0x02, 0x01, status];
            answer.extend_from_slice(rest);
            granted(&answer, &[7; 32], &[9; 8])
        };
        let about = [[7; 32].as_slice(), &[9; 8]].concat();
        assert_eq!(granted_of(0, &about), Ok(()));
        assert!(granted_of(2, &about).unwrap_err().contains("status 2"));
        assert!(granted_of(0, &[7; 32]).unwrap_err().contains("something else"));
        assert!(granted(b"<html>", &[7; 32], &[9; 8]).unwrap_err().contains("no time stamp"));
    }
}
