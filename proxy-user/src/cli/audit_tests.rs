//! `audit` over a journal on disk.

use std::os::unix::fs::PermissionsExt as _;

use proxy_journal::{Record, Start, Timestamp, Writer};

use super::*;

/// A journal with some starts, in a directory as the daemon makes it.
fn journal() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let options = crate::record::Options { journald: None, ..crate::record::Options::new("9.9.9") };
    for _ in 0..3 {
        crate::record::Recorder::open(dir.path(), options.clone()).unwrap().stop("test").unwrap();
    }
    dir
}

fn verified(args: &VerifyArgs) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = verify(args, &mut out, &mut err).unwrap();
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn args(path: &Path) -> VerifyArgs {
    VerifyArgs { paths: vec![path.to_owned()], expect_head: None, expect_seq: None }
}

#[test]
fn a_whole_journal_is_status_0_and_says_how_many_records() {
    let dir = journal();
    let (status, out, _) = verified(&args(dir.path()));
    assert_eq!(status, 0, "{out}");
    assert!(out.contains("whole, 6 records"), "{out}");
}

#[test]
fn a_changed_journal_is_status_1_and_says_where() {
    let dir = journal();
    let path = dir.path().join("journal-00000001.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("9.9.9", "9.9.8", 1)).unwrap();
    let (status, out, _) = verified(&args(dir.path()));
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("line 1"), "{out}");
}

#[test]
fn a_journal_that_lost_its_end_is_found_by_the_head_that_was_kept() {
    let dir = journal();
    let path = dir.path().join("journal-00000001.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let head: ChainHash = text.trim_end().rsplit('"').nth(1).unwrap().parse().unwrap();
    let expecting = VerifyArgs { expect_head: Some(head), ..args(dir.path()) };
    assert_eq!(verified(&expecting).0, 0);
    let cut = text.trim_end().rfind('\n').unwrap() + 1;
    std::fs::write(&path, text.get(..cut).unwrap()).unwrap();
    assert_eq!(verified(&args(dir.path())).0, 0, "without a witness the cut cannot be seen");
    assert_eq!(verified(&expecting).0, 1);
}

#[test]
fn a_journal_that_is_not_there_is_status_2() {
    let (status, _, err) = verified(&args(Path::new("/nonexistent/journal")));
    assert_eq!(status, 2);
    assert!(err.contains("/nonexistent/journal"), "{err}");
}

#[test]
fn tail_shows_the_last_lines_and_cannot_be_made_to_move_the_terminal() {
    let dir = journal();
    let path = dir.path().join("journal-00000001.jsonl");
    std::fs::remove_file(&path).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = Writer::new(file);
    let version = "\u{1b}[2Jevil\nline".to_owned();
    let start = Start { version, boot_id: String::new(), pid: 1, policy_generation: None };
    writer.append(&Record::Start(start), Timestamp::from(std::time::SystemTime::now())).unwrap();
    let mut out = Vec::new();
    let args = TailArgs { follow: false, json: false, lines: 10, dir: dir.path().to_owned() };
    tail(&args, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_eq!(text.lines().count(), 1, "{text:?}");
}
