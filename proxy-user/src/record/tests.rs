//! The recorder on a real disk: full, locked, killed, changed behind its back.

use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proxy_journal::check::{Witness, check};
use proxy_journal::{
    Blame, Content, Decision, Item, Outcome, Reader, Record, Source, Start, Verdict, Workload,
};
use tempfile::TempDir;
use uuid::Uuid;

use super::{Options, RecordError, Recorder};

mod batch;
pub(crate) mod captures;
mod evidence;

/// A decision to allow a call to this path.
pub(crate) fn allow(path: &str) -> Decision {
    Decision {
        id: Uuid::nil(),
        workload: Workload {
            pid: 4242,
            exe: "/opt/bots/invoice-bot".into(),
            unit: Some("invoice-bot.service".into()),
            ..Workload::default()
        }
        .into(),
        identity: Some("invoice-bot".into()),
        dst: ([198, 51, 100, 7], 443).into(),
        proxy: None,
        scheme: Some("https".into()),
        api: Some("stripe".into()),
        host: Some("api.stripe.com".into()),
        port: Some(443),
        method: Some("GET".into()),
        path: Some(path.to_owned()),
        has_query: false,
        verdict: Verdict::Allow,
        observed: false,
        rule: None,
        reason: "allowed".into(),
        credential: Some("stripe-restricted".into()),
        mistrust: None,
        capture: None,
        ech: false,
        refusal: None,
        basis: None,
        fingerprints: Vec::new(),
        generation: 1,
    }
}

pub(crate) fn deny(path: &str) -> Decision {
    Decision { verdict: Verdict::Deny, reason: "no rule allows it".into(), ..allow(path) }
}

/// With nothing that happens by itself: tests that want it set the times.
fn quiet() -> Options {
    let hour = Duration::from_secs(3600);
    let never =
        Options { flush_within: hour, sync_within: hour, checkpoint_within: hour, ..Options::new("0.1.0") };
    Options { reserve: 4096, checkpoint_records: u64::MAX, ..never }
}

pub(crate) fn dir() -> (TempDir, PathBuf) {
    let keep = tempfile::tempdir().unwrap();
    let dir = keep.path().join("journal");
    (keep, dir)
}

fn segment(dir: &Path) -> PathBuf {
    dir.join("journal-00000001.jsonl")
}

/// What the journal says, after it was proved.
fn records(dir: &Path) -> Vec<Record> {
    let report = check(dir, &Witness::default()).unwrap();
    assert!(report.is_whole(), "{report}");
    let about_itself = |record: &Record| {
        matches!(record, Record::Key(_) | Record::Checkpoint(_) | Record::Segment(_) | Record::Retired(_))
    };
    all(dir).into_iter().filter(|record| !about_itself(record)).collect()
}

/// Every record of every segment.
fn all(dir: &Path) -> Vec<Record> {
    let segments = proxy_journal::segment::list(dir).unwrap();
    let items = segments.iter().flat_map(|(_, path)| Reader::new(Source::open(path).unwrap()));
    items
        .map(|item| match item.unwrap() {
            Item::Entry(entry) => match entry.content {
                Content::Known(record) => record,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        })
        .collect()
}

/// One word for each record.
fn story(dir: &Path) -> Vec<String> {
    let path = |decision: &Decision| decision.path.clone().unwrap_or_default();
    let word = |record: &Record| match record {
        Record::Start(_) => "start".to_owned(),
        Record::Stop(stop) => format!("stop {}", stop.reason),
        Record::Policy(_) => "policy".to_owned(),
        Record::Decision(call) if call.verdict == Verdict::Allow => format!("allow {}", path(call)),
        Record::Decision(call) => format!("deny {}", path(call)),
        Record::Outcome(end) if end.interrupted => "interrupted".to_owned(),
        Record::Outcome(end) => end.error.clone().unwrap_or_else(|| format!("{}", end.status.unwrap_or(0))),
        Record::Connection(_) => "connection".to_owned(),
        Record::Trace(_) => "trace".to_owned(),
        Record::Recovered(repair) => format!("recovered {} {}", repair.dropped_bytes, repair.closed),
        Record::Detach(detach) => format!("detach {}", detach.programs.len()),
        Record::Bound(bound) => format!("bound {} {}", bound.counter, bound.count),
        Record::Secret(change) => format!("secret {} {:?}", change.secret, change.change),
        Record::Ca(change) => format!("ca {}", change.generation),
        Record::Key(_) | Record::Checkpoint(_) | Record::Segment(_) | Record::Retired(_) => {
            unreachable!("left out")
        }
    };
    records(dir).iter().map(word).collect()
}

pub(crate) fn ok() -> Outcome {
    Outcome { status: Some(200), ..Outcome::default() }
}

/// Waits for a condition, and fails when it does not come true.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_decision_is_in_the_file_before_begin_returns() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    let receipt = recorder.begin(allow("/a")).unwrap();
    assert_eq!(story(&dir), ["start", "allow /a"]);
    assert_eq!(receipt.id().get_version_num(), 7);
    receipt.complete(ok());
    recorder.refused(deny("/b")).unwrap();
    assert_eq!(
        story(&dir),
        ["start", "allow /a", "200", "deny /b"],
        "the outcome goes with the next decision"
    );
    let health = recorder.health();
    assert_eq!((health.allowed, health.denied, health.open, health.pending), (1, 1, 0, 0));
    assert_eq!((health.error, health.head.seq), (None, 5));
    assert!(health.sync_lag.is_some(), "nothing was synced yet");
}

#[test]
fn an_outcome_is_written_and_synced_when_no_other_call_comes() {
    let (_keep, dir) = dir();
    let soon = Duration::from_millis(10);
    let recorder =
        Recorder::open(&dir, Options { flush_within: soon, sync_within: soon, ..quiet() }).unwrap();
    recorder.begin(allow("/a")).unwrap().complete(ok());
    eventually("the outcome is written", || story(&dir) == ["start", "allow /a", "200"]);
    eventually("all is synced", || recorder.health().sync_lag.is_none());
}

#[test]
fn a_receipt_that_is_dropped_is_an_abandoned_call_and_our_fault() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    let receipt = recorder.begin(allow("/a")).unwrap();
    let id = receipt.id();
    drop(receipt);
    recorder.stop("test").unwrap();
    let Record::Outcome(outcome) = &records(&dir)[2] else { panic!() };
    assert_eq!((outcome.id, outcome.blame, outcome.interrupted), (id, Some(Blame::Us), false));
    assert_eq!(outcome.error.as_deref(), Some("abandoned"));
}

#[test]
fn there_is_no_receipt_for_a_denial_and_no_way_around_the_receipt() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    assert!(matches!(recorder.begin(deny("/a")), Err(RecordError::Misuse(_))));
    assert!(matches!(recorder.refused(allow("/a")), Err(RecordError::Misuse(_))));
    assert!(matches!(recorder.note(Record::Outcome(ok())), Err(RecordError::Misuse(_))));
    assert!(matches!(recorder.note(Record::Decision(allow("/a").into())), Err(RecordError::Misuse(_))));
    assert_eq!(story(&dir), ["start"]);
    recorder.note(Record::Start(Start::default())).unwrap();
    assert_eq!(story(&dir), ["start", "start"]);
}

#[test]
fn an_ended_recorder_begins_nothing_and_still_takes_the_outcome_of_an_open_call() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    let (early, late) = (recorder.begin(allow("/a")).unwrap(), recorder.begin(allow("/b")).unwrap());
    early.complete(ok());
    recorder.stop("SIGTERM").unwrap();
    recorder.stop("again").unwrap();
    assert!(matches!(recorder.begin(allow("/c")), Err(RecordError::Stopped)));
    late.complete(ok());
    assert_eq!(story(&dir), ["start", "allow /a", "allow /b", "200", "stop SIGTERM", "200"]);
}

#[test]
fn a_second_daemon_is_refused_until_the_first_has_ended() {
    let (_keep, dir) = dir();
    let first = Recorder::open(&dir, quiet()).unwrap();
    let second = Recorder::open(&dir, quiet()).unwrap_err();
    assert!(
        matches!(second, RecordError::Locked(_)) && second.to_string().contains("stop it first"),
        "{second}"
    );
    drop(first);
    // A child of another test, between its fork and its exec, has the lock for a moment, too.
    eventually("it ended", || Recorder::open(&dir, quiet()).is_ok());
    assert_eq!(story(&dir), ["start", "start"], "the refused one wrote nothing");
}

#[test]
fn nobody_else_can_read_the_journal_and_one_that_others_may_write_is_not_used() {
    let (_keep, dir) = dir();
    drop(Recorder::open(&dir, quiet()).unwrap());
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&dir), mode(&segment(&dir)), mode(&dir.join("lock"))), (0o700, 0o600, 0o600));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o770)).unwrap();
    let error = Recorder::open(&dir, quiet()).unwrap_err();
    assert!(matches!(error, RecordError::Exposed { mode: 0o770, .. }), "{error}");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(segment(&dir), fs::Permissions::from_mode(0o622)).unwrap();
    assert!(matches!(Recorder::open(&dir, quiet()), Err(RecordError::Exposed { .. })));
}

#[test]
fn a_journal_that_is_a_link_to_another_file_is_not_followed() {
    let (keep, dir) = dir();
    drop(Recorder::open(&dir, quiet()).unwrap());
    fs::remove_file(segment(&dir)).unwrap();
    fs::write(keep.path().join("victim"), "").unwrap();
    std::os::unix::fs::symlink(keep.path().join("victim"), segment(&dir)).unwrap();
    assert!(matches!(Recorder::open(&dir, quiet()), Err(RecordError::Open { .. })));
}

#[test]
fn after_a_crash_a_half_line_is_dropped_and_open_calls_are_closed_as_interrupted() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    let closed = recorder.begin(allow("/closed")).unwrap();
    let open = recorder.begin(allow("/open")).unwrap();
    let id = open.id();
    closed.complete(ok());
    recorder.refused(deny("/denied")).unwrap();
    // As a kill leaves it: nobody writes the outcome, and the last line is cut.
    let mut crashed = fs::read(segment(&dir)).unwrap();
    open.complete(ok());
    drop(recorder);
    crashed.extend_from_slice(b"{\"v\":1,\"seq\":");
    fs::write(segment(&dir), crashed).unwrap();

    drop(Recorder::open(&dir, quiet()).unwrap());
    let expected = [
        "start",
        "allow /closed",
        "allow /open",
        "200",
        "deny /denied",
        "recovered 13 1",
        "interrupted",
        "start",
    ];
    assert_eq!(story(&dir), expected);
    assert!(matches!(&records(&dir)[6], Record::Outcome(end) if end.id == id && end.interrupted));
    drop(Recorder::open(&dir, quiet()).unwrap());
    assert_eq!(story(&dir).len(), expected.len() + 1, "what was closed is not closed again");
}

#[test]
fn the_chain_goes_on_over_a_restart() {
    let (_keep, dir) = dir();
    for _ in 0..3 {
        let recorder = Recorder::open(&dir, quiet()).unwrap();
        recorder.refused(deny("/a")).unwrap();
        recorder.stop("SIGTERM").unwrap();
    }
    assert_eq!(story(&dir), ["start", "deny /a", "stop SIGTERM"].repeat(3));
}

#[test]
fn a_journal_that_was_changed_stops_the_daemon_with_the_place_and_what_to_do() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    recorder.refused(deny("/a")).unwrap();
    recorder.refused(deny("/b")).unwrap();
    drop(recorder);
    let text = fs::read_to_string(segment(&dir)).unwrap().replace("\"/a\"", "\"/x\"");
    fs::write(segment(&dir), &text).unwrap();
    let error = Recorder::open(&dir, quiet()).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(matches!(error, RecordError::Broken { .. }), "{error}");
    assert!(
        why.contains("line 3 ") && why.contains("was changed") && why.contains("keep it as evidence"),
        "{why}"
    );
    assert_eq!(fs::read_to_string(segment(&dir)).unwrap(), text);
}

#[test]
fn many_threads_write_one_chain() {
    let (_keep, dir) = dir();
    let short = Duration::from_millis(1);
    let recorder =
        Recorder::open(&dir, Options { flush_within: short, sync_within: short, ..quiet() }).unwrap();
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let recorder = &recorder;
            threads.spawn(move || {
                for call in 0..200 {
                    let path = format!("/{thread}/{call}");
                    if call % 5 == 0 {
                        recorder.refused(deny(&path)).unwrap();
                    } else {
                        recorder.begin(allow(&path)).unwrap().complete(ok());
                    }
                }
            });
        }
    });
    let health = recorder.health();
    assert_eq!((health.allowed, health.denied, health.open), (8 * 160, 8 * 40, 0));
    recorder.stop("test").unwrap();
    let all = records(&dir);
    assert_eq!(all.len(), 2 + 8 * (2 * 160 + 40));
    let allowed = |record: &Record| match record {
        Record::Decision(call) if call.verdict == Verdict::Allow => Some(call.id),
        _ => None,
    };
    let ended = |record: &Record| match record {
        Record::Outcome(end) => Some(end.id),
        _ => None,
    };
    let decided: HashSet<Uuid> = all.iter().filter_map(allowed).collect();
    assert_eq!(decided, all.iter().filter_map(ended).collect(), "each call has its own outcome");
    assert_eq!(decided.len(), 8 * 160);
}

/// Records until it is killed.
fn act(dir: &Path) {
    let short = Duration::from_millis(1);
    let recorder = Recorder::open(dir, Options { flush_within: short, ..quiet() }).unwrap();
    let mut open = Vec::new();
    for call in 0_u64.. {
        open.push(recorder.begin(allow(&format!("/{call}"))).unwrap());
        // "Forwarded": whoever sees this line may look for the decision in the journal.
        println!("forwarded /{call}.");
        if open.len() > 5 {
            open.remove(0).complete(ok());
        }
    }
}

#[test]
fn a_daemon_killed_at_any_instant_leaves_every_forwarded_call_recorded_and_a_chain_that_goes_on() {
    // The test runs itself once more as the daemon that is killed.
    if let Some(dir) = std::env::var_os("JOURNAL_OF_THE_ACTOR") {
        act(Path::new(&dir));
    }
    let (_keep, dir) = dir();
    let module = module_path!().split_once("::").unwrap().1;
    for round in 1..=12_u64 {
        let mut actor = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                &format!("{module}::a_daemon_killed_at_any_instant_leaves_every_forwarded_call_recorded_and_a_chain_that_goes_on"),
            ])
            .env("JOURNAL_OF_THE_ACTOR", &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let before = segment(&dir).metadata().map_or(0, |meta| meta.len());
        eventually("the actor records", || {
            segment(&dir).metadata().is_ok_and(|meta| meta.len() > before + 4_000 * round)
        });
        actor.kill().unwrap();
        let said = actor.wait_with_output().unwrap().stdout;
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rfind(|line| line.starts_with("forwarded") && line.ends_with('.')).unwrap();
        let path = last.trim_start_matches("forwarded ").trim_end_matches('.').to_owned();

        drop(Recorder::open(&dir, quiet()).unwrap());
        let records = records(&dir);
        let decided = |record: &&Record| matches!(record, Record::Decision(call) if call.path.as_deref() == Some(&path));
        assert!(records.iter().filter(decided).count() >= 1, "{path} was forwarded and is not recorded");
        let decisions = records.iter().filter(|record| matches!(record, Record::Decision(_))).count();
        let outcomes = records.iter().filter(|record| matches!(record, Record::Outcome(_))).count();
        assert_eq!(decisions, outcomes, "every call is closed, as interrupted if need be");
        assert!(records.iter().any(|record| matches!(record, Record::Outcome(end) if end.interrupted)));
    }
}

#[test]
fn a_full_disk_refuses_calls_and_loses_no_outcome_and_calls_go_on_when_there_is_room() {
    let keep = tempfile::tempdir().unwrap();
    assert!(small_disk(keep.path(), 64), "this test mounts a file system, which needs root");
    let (dir, filler) = (keep.path().join("journal"), keep.path().join("filler"));
    let soon = Duration::from_millis(10);
    let recorder = Recorder::open(&dir, Options { flush_within: soon, ..quiet() }).unwrap();
    let open = recorder.begin(allow("/before")).unwrap();
    // To the last byte of the last page, so that the next line is written in part.
    let _ = std::io::copy(&mut std::io::repeat(b'x'), &mut File::create(&filler).unwrap());
    let error = loop {
        match recorder.refused(deny("/filling")) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, RecordError::Unwritable { .. }) && error.to_string().contains("refused"),
        "{error}"
    );
    assert!(recorder.begin(allow("/refused")).is_err());
    let proved = check(&dir, &Witness::default()).unwrap();
    assert!(proved.is_whole(), "a failed write leaves no half line: {proved}");

    open.complete(ok());
    eventually("the flusher has tried", || recorder.health().pending == 1);
    let why = recorder.health().error.unwrap();
    assert!(why.contains("No space left") || why.contains("disk is full"), "{why}");

    fs::remove_file(&filler).unwrap();
    eventually("the outcome is written", || recorder.health().pending == 0);
    eventually("there is room", || recorder.health().error.is_none());
    recorder.begin(allow("/after")).unwrap().complete(ok());
    recorder.stop("test").unwrap();
    let story = story(&dir);
    assert!(
        story.ends_with(&["200".into(), "allow /after".into(), "200".into(), "stop test".into()]),
        "{story:?}"
    );
    assert!(!story.contains(&"allow /refused".to_owned()));
    drop(recorder);
    nix::mount::umount2(keep.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

/// Mounts a file system of this size here, for this thread and its children only.
fn small_disk(at: &Path, kib: u32) -> bool {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).is_ok()
        && mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).is_ok()
        && mount(
            Some("tmpfs"),
            at,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(format!("size={kib}k,mode=0700").as_str()),
        )
        .is_ok()
}
