//! What a person sees of a journal that grows, is repaired, replaced and changed.

use std::io::Write as _;
use std::sync::Arc;

use proxy_journal::{Decision, Outcome, Record, Stop, Timestamp, Verdict, Workload, Writer, recover};
use uuid::Uuid;

use proxy_journal::check::{Witness, check};

use super::super::evidence::{VerifyArgs, verify};
use super::*;

fn open(path: &Path) -> File {
    File::options().read(true).append(true).create(true).open(path).unwrap()
}

/// Appends as a daemon does after its start.
fn append(path: &Path, records: &[Record]) {
    let mut file = open(path);
    let found = recover(&mut file, 1, None).unwrap();
    let mut writer = Writer::resume(file, &found);
    for record in records {
        writer.append(record, Timestamp::from_micros(1_795_550_400_000_000)).unwrap();
    }
}

fn stop(reason: &str) -> Record {
    Record::Stop(Stop { reason: reason.to_owned() })
}

fn call(number: u128) -> [Record; 2] {
    let decision = Decision {
        id: Uuid::from_u128(number),
        workload: Workload { pid: 7, exe: "/opt/bot".into(), ..Workload::default() }.into(),
        identity: Some("bot".into()),
        dst: ([198, 51, 100, 7], 443).into(),
        proxy: None,
        scheme: None,
        api: None,
        host: Some("api.test".into()),
        port: Some(443),
        method: Some("GET".into()),
        path: Some(format!("/{number}")),
        has_query: false,
        verdict: Verdict::Allow,
        observed: false,
        rule: None,
        reason: "allowed".into(),
        credential: None,
        mistrust: None,
        refusal: None,
        basis: None,
        fingerprints: Vec::new(),
        generation: 1,
    };
    let outcome = Outcome { id: decision.id, status: Some(200), duration_us: 5_000, ..Outcome::default() };
    [Record::Decision(Arc::new(decision)), Record::Outcome(outcome)]
}

fn journal() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(segment::file_name(1));
    (dir, path)
}

fn shower(json: bool) -> Shower {
    Shower { tail: Tail::new(false), json }
}

/// What the follower shows now.
fn look(follower: &mut Follower, shower: &mut Shower) -> Vec<String> {
    let mut out = Vec::new();
    follower.look(shower, &mut out).unwrap();
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| line.replace("2026-11-24T20:00:00.000Z ", ""))
        .collect()
}

fn verified(args: &VerifyArgs) -> (u8, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = verify(args, &mut out, &mut err).unwrap();
    out.extend(err);
    (status, String::from_utf8(out).unwrap())
}

fn of(path: &Path) -> VerifyArgs {
    VerifyArgs {
        paths: vec![path.to_owned()],
        key: None,
        checkpoint: Vec::new(),
        expect_head: None,
        expect_seq: None,
        proof: None,
    }
}

#[test]
fn the_last_lines_are_calls_and_not_records() {
    let (dir, path) = journal();
    let records: Vec<_> = (0..2_000).flat_map(call).collect();
    append(&path, &records);
    assert!(path.metadata().unwrap().len() > 512 << 10, "more than the first window");
    let mut out = Vec::new();
    let mut args = TailArgs { follow: false, json: false, lines: 3, dir: dir.path().to_owned() };
    tail(&args, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let shown: Vec<_> = text.lines().collect();
    assert_eq!(shown.len(), 3, "{text}");
    assert!(shown[0].ends_with("bot allow GET api.test/1997 200 5.0ms /opt/bot[7]"), "{text}");

    args.lines = 1_999;
    let mut out = Vec::new();
    tail(&args, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), 1_999);
    assert!(text.lines().all(|line| line.contains("bot allow GET")), "the windows grew as far as was needed");

    (args.lines, args.json) = (1, true);
    let mut out = Vec::new();
    tail(&args, &mut out).unwrap();
    assert_eq!(
        out,
        std::fs::read(&path).unwrap().split_inclusive(|byte| *byte == b'\n').next_back().unwrap()
    );
}

#[test]
fn what_the_journal_says_cannot_move_the_terminal() {
    let (dir, path) = journal();
    append(&path, &[stop("\u{1b}[2Jevil\nline\u{9b}2J")]);
    for json in [false, true] {
        let mut out = Vec::new();
        tail(&TailArgs { follow: false, json, lines: 10, dir: dir.path().to_owned() }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!((text.lines().count(), text.contains(['\u{1b}', '\u{9b}'])), (1, false), "{text:?}");
    }
}

#[test]
fn following_goes_on_over_a_kill_a_repair_and_a_restart() {
    let (dir, path) = journal();
    append(&path, &[stop("one")]);
    let (mut follower, mut shower) = (Follower::open(dir.path()).unwrap(), shower(false));
    assert_eq!(follower.last(10, &mut shower).unwrap().len(), 1);
    let [decision, outcome] = call(1);
    append(&path, &[decision]);
    assert!(look(&mut follower, &mut shower).is_empty(), "an allowed call is shown when it ends");
    // A half line, as a kill leaves it, which the next daemon cuts off and writes over.
    open(&path).write_all(b"{\"v\":1,\"seq\":3,\"time\":\"2026").unwrap();
    assert!(look(&mut follower, &mut shower).is_empty());
    append(&path, &[outcome, stop("two")]);
    assert_eq!(
        look(&mut follower, &mut shower),
        ["bot allow GET api.test/1 200 5.0ms /opt/bot[7]", "stop two"]
    );
    assert!(look(&mut follower, &mut shower).is_empty());
}

#[test]
fn following_goes_on_in_the_next_segment_and_in_a_new_journal() {
    let (dir, path) = journal();
    append(&path, &[stop("one")]);
    let (mut follower, mut shower) = (Follower::open(dir.path()).unwrap(), shower(false));
    follower.last(0, &mut shower).unwrap();

    std::fs::rename(&path, dir.path().join("evidence")).unwrap();
    assert!(look(&mut follower, &mut shower).is_empty());
    append(&path, &[stop("anew")]);
    let shown = look(&mut follower, &mut shower);
    assert!(shown[0].contains("was replaced") && shown[1] == "stop anew", "{shown:?}");

    append(&path, &[stop("last of the first")]);
    append(&dir.path().join(segment::file_name(2)), &[stop("first of the second")]);
    assert_eq!(look(&mut follower, &mut shower), ["stop last of the first", "stop first of the second"]);
}

#[test]
fn verify_tells_whole_broken_and_unreadable_apart_by_its_status() {
    let (dir, path) = journal();
    append(&path, &[stop("one"), stop("two"), stop("three")]);
    let (status, said) = verified(&of(dir.path()));
    assert!(status == 0 && said.contains("whole, 3 records"), "{said}");
    let head = check(&path, &Witness::default()).unwrap().head;
    assert_eq!(verified(&VerifyArgs { expect_head: Some(head.hash), expect_seq: Some(3), ..of(&path) }).0, 0);

    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"two\"", "\"TWO\"")).unwrap();
    let (status, said) = verified(&of(&path));
    assert!(status == 1 && said.contains("line 2 (byte ") && said.contains("was changed"), "{said}");

    let shorter: String = text.split_inclusive('\n').take(2).collect();
    std::fs::write(&path, shorter).unwrap();
    assert_eq!(verified(&of(&path)).0, 0, "a chain alone does not show that its end is gone");
    let (status, said) = verified(&VerifyArgs { expect_head: Some(head.hash), ..of(&path) });
    assert!(status == 1 && said.contains("the end was cut off"), "{said}");

    open(&path).write_all(b"{\"v\"").unwrap();
    let (status, said) = verified(&of(&path));
    assert!(status == 1 && said.contains("4 bytes after record 2"), "{said}");

    let (status, said) = verified(&of(&dir.path().join("nothing")));
    assert!(status == 2 && said.contains("cannot be read: No such file"), "{said}");
    assert!(
        verify(
            &VerifyArgs {
                paths: vec![path.clone(), path.clone()],
                expect_head: Some(head.hash),
                ..of(&path)
            },
            &mut Vec::new(),
            &mut Vec::new()
        )
        .is_err()
    );
}
