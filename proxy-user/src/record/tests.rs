//! The recorder over real files: what is written before what, and what a kill leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use proxy_journal::{Blame, Content, Decision, Item, Outcome, Reader, Record, Verdict, Verifier, Workload};

use super::{Options, RecordError, Recorder};

fn options() -> Options {
    Options { journald: None, ..Options::new("test") }
}

fn decision(verdict: Verdict) -> Decision {
    Decision {
        id: uuid::Uuid::nil(),
        workload: Workload { pid: 7, exe: "/opt/bot".into(), ..Workload::default() },
        identity: Some("bot".into()),
        dst: "192.0.2.1:443".parse().unwrap(),
        scheme: Some("https".into()),
        api: Some("api".into()),
        host: Some("api.test".into()),
        port: Some(443),
        method: Some("GET".into()),
        path: Some("/x".into()),
        has_query: false,
        verdict,
        rule: None,
        reason: "test".into(),
        credential: None,
        generation: 1,
    }
}

fn segment(dir: &Path) -> std::path::PathBuf {
    dir.join("journal-00000001.jsonl")
}

fn records(dir: &Path) -> Vec<Record> {
    let bytes = fs::read(segment(dir)).unwrap();
    Reader::new(&*bytes)
        .map(|item| item.unwrap())
        .filter_map(|item| match item {
            Item::Entry(entry) => match entry.content {
                Content::Known(record) => Some(record),
                _ => None,
            },
            _ => None,
        })
        .collect()
}

fn is_whole(dir: &Path) -> bool {
    let bytes = fs::read(segment(dir)).unwrap();
    Verifier::new().run(&*bytes).unwrap().is_whole()
}

#[test]
fn a_decision_is_in_the_file_before_the_receipt_is_there_and_its_outcome_after() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::open(dir.path(), options()).unwrap();
    let receipt = recorder.begin(decision(Verdict::Allow)).unwrap();
    let id = receipt.id();
    assert!(records(dir.path()).iter().any(|record| matches!(record, Record::Decision(d) if d.id == id)));
    receipt.complete(Outcome { status: Some(200), ..Outcome::default() });
    recorder.stop("test").unwrap();
    let all = records(dir.path());
    assert!(all.iter().any(|r| matches!(r, Record::Outcome(o) if o.id == id && o.status == Some(200))));
    assert!(matches!(all.last(), Some(Record::Stop(stop)) if stop.reason == "test"));
    assert!(is_whole(dir.path()));
}

#[test]
fn a_receipt_that_is_dropped_is_recorded_as_abandoned_by_us() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::open(dir.path(), options()).unwrap();
    drop(recorder.begin(decision(Verdict::Allow)).unwrap());
    recorder.stop("test").unwrap();
    let abandoned = |r: &Record| matches!(r, Record::Outcome(o) if o.error.as_deref() == Some("abandoned") && o.blame == Some(Blame::Us));
    assert_eq!(records(dir.path()).iter().filter(|record| abandoned(record)).count(), 1);
}

#[test]
fn a_denial_has_no_receipt_and_an_allowance_is_no_denial() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::open(dir.path(), options()).unwrap();
    assert!(matches!(recorder.begin(decision(Verdict::Deny)), Err(RecordError::Misuse(_))));
    assert!(matches!(recorder.refused(decision(Verdict::Allow)), Err(RecordError::Misuse(_))));
    recorder.refused(decision(Verdict::Deny)).unwrap();
    assert_eq!(recorder.health().denied, 1);
}

#[test]
fn after_a_kill_the_torn_line_is_cut_and_the_open_call_is_closed_as_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::open(dir.path(), options()).unwrap();
    let open = recorder.begin(decision(Verdict::Allow)).unwrap();
    let id = open.id();
    let killed = tempfile::tempdir().unwrap();
    // What a kill leaves is what is in the file at that instant; half a line stands for a write that was cut.
    let mut bytes = fs::read(segment(dir.path())).unwrap();
    bytes.extend_from_slice(br#"{"v":1,"seq":9"#);
    fs::write(segment(killed.path()), bytes).unwrap();
    fs::set_permissions(segment(killed.path()), fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(killed.path(), fs::Permissions::from_mode(0o700)).unwrap();

    let next = Recorder::open(killed.path(), options()).unwrap();
    next.stop("test").unwrap();
    let all = records(killed.path());
    assert!(all.iter().any(|r| matches!(r, Record::Recovered(r) if r.dropped_bytes == 14 && r.closed == 1)));
    assert!(all.iter().any(|r| matches!(r, Record::Outcome(o) if o.id == id && o.interrupted)));
    assert!(is_whole(killed.path()));
}

#[test]
fn a_second_daemon_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let first = Recorder::open(dir.path(), options()).unwrap();
    assert!(matches!(Recorder::open(dir.path(), options()), Err(RecordError::Locked(_))));
    drop(first);
    assert!(Recorder::open(dir.path(), options()).is_ok());
}

#[test]
fn a_journal_that_was_changed_is_not_continued() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::open(dir.path(), options()).unwrap();
    recorder.refused(decision(Verdict::Deny)).unwrap();
    recorder.stop("test").unwrap();
    drop(recorder);
    let text = fs::read_to_string(segment(dir.path())).unwrap();
    fs::write(segment(dir.path()), text.replace("/opt/bot", "/opt/bat")).unwrap();
    assert!(matches!(Recorder::open(dir.path(), options()), Err(RecordError::Broken { .. })));
}

#[test]
fn a_journal_that_others_may_write_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Recorder::open(dir.path(), options()).unwrap());
    fs::set_permissions(segment(dir.path()), fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(Recorder::open(dir.path(), options()), Err(RecordError::Exposed { mode: 0o666, .. })));
}

#[test]
fn the_chain_goes_on_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let recorder = Recorder::open(dir.path(), options()).unwrap();
        recorder.refused(decision(Verdict::Deny)).unwrap();
        recorder.stop("test").unwrap();
    }
    assert_eq!(records(dir.path()).iter().filter(|r| matches!(r, Record::Start(_))).count(), 3);
    assert!(is_whole(dir.path()));
}

#[test]
fn nothing_is_begun_after_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::open(dir.path(), options()).unwrap();
    recorder.stop("test").unwrap();
    assert!(matches!(recorder.begin(decision(Verdict::Allow)), Err(RecordError::Stopped)));
}

#[test]
fn calls_of_many_threads_make_one_whole_chain_with_an_outcome_each() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::open(dir.path(), options()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    recorder.begin(decision(Verdict::Allow)).unwrap().complete(Outcome::default());
                }
            });
        }
    });
    recorder.stop("test").unwrap();
    let all = records(dir.path());
    let decided: std::collections::HashSet<_> =
        all.iter().filter_map(|r| if let Record::Decision(d) = r { Some(d.id) } else { None }).collect();
    let ended: std::collections::HashSet<_> =
        all.iter().filter_map(|r| if let Record::Outcome(o) = r { Some(o.id) } else { None }).collect();
    assert_eq!((decided.len(), &decided), (400, &ended));
    assert!(is_whole(dir.path()));
}
