//! Signed, in segments, compressed, retired, spilled; and in both modes of durability.

use std::io::Write as _;

use proxy_journal::archive::{self, index_name, keep_index};
use proxy_journal::{Keys, SignedNote, segment};

use super::*;
use crate::record::{Durability, Receipt};

/// As [`quiet`], with checkpoints whenever there is something new.
fn signing() -> Options {
    Options { checkpoint_within: Duration::from_millis(5), ..quiet() }
}

fn verified(dir: &Path, expected: &Witness) -> proxy_journal::check::Report {
    let report = check(dir, expected).unwrap();
    assert!(report.is_whole(), "{report}");
    report
}

fn files(dir: &Path) -> Vec<String> {
    let listed = segment::list(dir).unwrap().into_iter();
    listed.map(|(_, path)| path.strip_prefix(dir).unwrap().display().to_string()).collect()
}

/// Runs a future to its end on this thread.
pub(super) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Calls until the journal has so many segments.
fn call_until(recorder: &Recorder, segments: u32) {
    let mut calls = 0;
    while recorder.health().segment < segments {
        recorder.begin(allow(&format!("/{calls}"))).unwrap().complete(ok());
        calls += 1;
        assert!(calls < 100_000, "no segment is ever closed");
    }
}

#[test]
fn what_is_new_is_signed_soon_and_at_the_end_by_a_key_that_only_the_daemon_can_read() {
    let (keep, dir) = dir();
    let recorder = Recorder::open(&dir, signing()).unwrap();
    let checkpoints = recorder.checkpoints();
    recorder.begin(allow("/a")).unwrap().complete(ok());
    eventually("it is signed", || checkpoints.borrow().as_ref().is_some_and(|note| note.contains("\n4\n")));
    let key = recorder.health().key;
    recorder.stop("test").unwrap();
    let notes = SignedNote::parse_all(checkpoints.borrow().as_ref().unwrap()).unwrap();
    assert!(notes[0].is_signed_by(&key));
    let report = verified(&dir, &Witness { notes, key: Some(key), ..Witness::default() });
    assert_eq!(report.signed + 1, report.records, "all but the last checkpoint itself");
    let secret = keep.path().join("journal.key");
    assert_eq!(secret.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!all(&dir).iter().any(|record| {
        serde_json::to_string(record).unwrap().contains(fs::read_to_string(&secret).unwrap().trim())
    }));

    // Without its key it is not continued, nor with another.
    drop(recorder);
    let kept = fs::read(&secret).unwrap();
    fs::remove_file(&secret).unwrap();
    let error = Recorder::open(&dir, quiet()).unwrap_err();
    assert!(matches!(error, RecordError::Key { found: None, .. }), "{error}");
    let (_other, elsewhere) = super::dir();
    drop(Recorder::open(&elsewhere, quiet()).unwrap());
    fs::copy(elsewhere.with_file_name("journal.key"), &secret).unwrap();
    let error = Recorder::open(&dir, quiet()).unwrap_err();
    assert!(matches!(error, RecordError::Key { found: Some(_), .. }), "{error}");
    fs::write(&secret, kept).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o622)).unwrap();
    assert!(matches!(Recorder::open(&dir, quiet()), Err(RecordError::Exposed { mode: 0o622, .. })));
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    drop(Recorder::open(&dir, quiet()).unwrap());
    verified(&dir, &Witness { key: Some(key), ..Witness::default() });
}

#[test]
fn a_key_hands_over_to_the_next_and_is_destroyed_and_a_kill_in_between_loses_neither() {
    let (keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    let first = recorder.health().key;
    let secret = fs::read(keep.path().join("journal.key")).unwrap();
    let second = recorder.hand_over("asked").unwrap();
    assert_ne!(first, second);
    assert!(!keep.path().join("journal.key.next").exists());
    let now = fs::read(keep.path().join("journal.key")).unwrap();
    assert_ne!(now, secret, "the former key is gone");
    recorder.stop("test").unwrap();
    assert_eq!(verified(&dir, &Witness { key: Some(first), ..Witness::default() }).key, Some((second, 1)));
    assert_eq!(Keys::read(&dir).unwrap().all().collect::<Vec<_>>(), [first, second]);

    drop(recorder);
    // Killed after the record and before the file had its name: as it was, with the old key in place.
    fs::write(keep.path().join("journal.key.next"), &now).unwrap();
    fs::write(keep.path().join("journal.key"), &secret).unwrap();
    fs::remove_file(dir.join("keys.jsonl")).unwrap();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    assert_eq!(recorder.health().key, second);
    drop(recorder);
    assert_eq!(fs::read(keep.path().join("journal.key")).unwrap(), now);
    assert_eq!(Keys::read(&dir).unwrap().all().collect::<Vec<_>>(), [first, second], "noted again");
    // Killed before the record: the next key was never used.
    fs::write(keep.path().join("journal.key.next"), &secret).unwrap();
    drop(Recorder::open(&dir, quiet()).unwrap());
    assert!(!keep.path().join("journal.key.next").exists());
    verified(&dir, &Witness { key: Some(first), ..Witness::default() });

    // When its time is over it hands over by itself.
    let recorder =
        Recorder::open(&dir, Options { key_lifetime: Duration::from_millis(30), ..quiet() }).unwrap();
    eventually("another key signs", || recorder.health().key != second);
    recorder.stop("test").unwrap();
    verified(&dir, &Witness { key: Some(first), ..Witness::default() });
}

/// A kill can come anywhere between the first byte of a compressed segment and its index.
#[test]
fn what_a_kill_left_of_the_compression_is_done_again_by_the_next_run() {
    let (_keep, dir) = dir();
    let whole = Options { segment_bytes: 20_000, compress: false, ..quiet() };
    let recorder = Recorder::open(&dir, whole.clone()).unwrap();
    call_until(&recorder, 6);
    recorder.stop("test").unwrap();
    drop(recorder);
    let plain = |number| dir.join(segment::file_name(number));
    let packed = |number| dir.join(segment::packed_name(number));
    let new = |number| dir.join(format!("{}.new", segment::packed_name(number)));
    let check = |number| dir.join(format!(".check-{}", segment::packed_name(number)));
    let pack = |number, to: &Path| {
        proxy_journal::packed::pack(
            fs::read(plain(number)).unwrap().as_slice(),
            fs::File::create(to).unwrap(),
        )
        .unwrap()
    };
    fs::write(new(1), b"the beginning").unwrap();
    pack(2, &check(2));
    pack(3, &packed(3));
    pack(4, &packed(4));
    fs::remove_file(plain(4)).unwrap();
    let half = b"half an index";
    fs::write(dir.join(index_name(4)), half).unwrap();
    let recorder = Recorder::open(&dir, Options { compress: true, ..whole }).unwrap();
    eventually("all is compressed and indexed", || {
        let is_indexed = |number| fs::read(dir.join(index_name(number))).is_ok_and(|bytes| bytes != half);
        (1..=5).all(|number| packed(number).exists() && !plain(number).exists() && is_indexed(number))
    });
    recorder.stop("test").unwrap();
    verified(&dir, &Witness::default());
    for number in 1..=5 {
        let kept = keep_index(&packed(number), number, |segment| segment).unwrap();
        assert_eq!(kept, archive::Kept::There, "segment {number}");
        for left in [new(number), check(number)] {
            assert!(!left.exists(), "{} is left", left.display());
        }
    }
}

#[test]
fn segments_end_by_size_are_compressed_and_the_chain_goes_on_over_them_and_over_a_restart() {
    let (_keep, dir) = dir();
    let small = Options { segment_bytes: 20_000, ..quiet() };
    let recorder = Recorder::open(&dir, small.clone()).unwrap();
    let open = recorder.begin(allow("/open over the end")).unwrap();
    let id = open.id();
    call_until(&recorder, 4);
    eventually("closed segments are compressed", || {
        files(&dir).iter().filter(|file| file.ends_with(".zst")).count() == 3
    });
    let plain = files(&dir).into_iter().filter(|file| !file.ends_with(".zst")).collect::<Vec<_>>();
    assert_eq!(plain, ["journal-00000004.jsonl"]);
    // Made from the same reading, and put beside it.
    for number in 1..=3 {
        eventually("a closed segment has its index", || dir.join(index_name(number)).exists());
        let kept = keep_index(&dir.join(segment::packed_name(number)), number, |segment| segment).unwrap();
        assert_eq!(kept, archive::Kept::There, "segment {number}");
    }
    assert!(fs::read_dir(&dir).unwrap().all(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        !name.contains(".new") && !name.contains("check")
    }));
    verified(&dir, &Witness::default());
    // Killed: the call that was open over three ends of segments is closed by the next run.
    let copy = tempfile::tempdir().unwrap();
    let copied = copy.path().join("journal");
    let copies = Command::new("cp").arg("-a").arg(&dir).arg(&copied).status().unwrap();
    assert!(copies.success());
    fs::copy(dir.with_file_name("journal.key"), copied.with_file_name("journal.key")).unwrap();
    let again = Recorder::open(&copied, small).unwrap();
    let interrupted =
        |record: &Record| matches!(record, Record::Outcome(end) if end.interrupted && end.id == id);
    assert!(all(&copied).iter().any(interrupted));
    again.begin(allow("/after")).unwrap().complete(ok());
    drop(again);
    verified(&copied, &Witness::default());
    open.complete(ok());
    recorder.stop("test").unwrap();
    let ended = all(&dir).iter().filter(|record| matches!(record, Record::Outcome(_))).count();
    let begun = all(&dir).iter().filter(|record| matches!(record, Record::Decision(_))).count();
    assert_eq!(ended, begun);
    assert!(recorder.health().head.seq > 30);
}

#[test]
fn a_segment_that_a_kill_left_without_a_record_is_not_missed() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    recorder.refused(deny("/a")).unwrap();
    drop(recorder);
    for rest in ["", "{\"v\":1,\"seq\":9,\"ti"] {
        fs::write(dir.join(segment::file_name(2)), rest).unwrap();
        fs::set_permissions(dir.join(segment::file_name(2)), fs::Permissions::from_mode(0o600)).unwrap();
        drop(Recorder::open(&dir, quiet()).unwrap());
        assert_eq!(files(&dir), ["journal-00000001.jsonl"]);
    }
    assert_eq!(story(&dir), ["start", "deny /a", "start", "start"]);
}

#[test]
fn a_segment_that_is_missing_or_another_one_stops_the_daemon() {
    let (_keep, dir) = dir();
    let recorder =
        Recorder::open(&dir, Options { segment_bytes: 10_000, compress: false, ..quiet() }).unwrap();
    call_until(&recorder, 3);
    drop(recorder);
    let path = |number| dir.join(segment::file_name(number));
    let (second, third) = (fs::read(path(2)).unwrap(), fs::read(path(3)).unwrap());
    fs::remove_file(path(3)).unwrap();
    // The end of the chain is gone: only who kept something can know. One before it, the next start sees.
    fs::write(path(3), &third).unwrap();
    fs::write(path(2), &second[..second.len() - 1]).unwrap();
    let refused = || Recorder::open(&dir, quiet()).unwrap_err();
    assert!(matches!(refused(), RecordError::Apart { .. }), "{}", refused());
    fs::write(path(2), fs::read(path(1)).unwrap()).unwrap();
    assert!(matches!(refused(), RecordError::Apart { .. }), "{}", refused());
    fs::write(path(2), second).unwrap();
    fs::write(path(3), &third[1..]).unwrap();
    assert!(matches!(refused(), RecordError::Broken { .. }), "{}", refused());
}

#[test]
fn segments_whose_time_is_over_go_after_the_journal_says_so() {
    let (_keep, dir) = dir();
    let options = Options { segment_bytes: 10_000, keep_bytes: Some(35_000), compress: false, ..quiet() };
    let recorder = Recorder::open(&dir, options).unwrap();
    let key = Some(recorder.health().key);
    call_until(&recorder, 8);
    eventually("the oldest are gone", || segment::list(&dir).unwrap()[0].0 >= 5);
    recorder.stop("test").unwrap();
    let report = verified(&dir, &Witness { key, ..Witness::default() });
    assert!(report.before.seq > 0 && report.to_string().contains("were retired"), "{report}");
    let first = &segment::list(&dir).unwrap()[0].1;
    fs::remove_file(first).unwrap();
    // One more than the journal says; it may have been the last one.
    assert!(check(&dir, &Witness::default()).map_or(true, |report| !report.is_whole()));
}

#[test]
fn in_sync_mode_a_call_goes_on_when_the_disk_has_it_and_those_that_wait_share_one_sync() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, Options { durability: Durability::Sync, ..quiet() }).unwrap();
    let begin = |path: String| recorder.begin_together(allow(&path));
    let receipts: Vec<Receipt> = wait(async {
        let all = (0..200).map(|n| begin(format!("/{n}")));
        let all = futures_util::future::join_all(all).await;
        all.into_iter().map(Result::unwrap).collect()
    });
    assert_eq!(recorder.health().open, 200);
    // What the last of them waited for was on the disk; nothing has been written since.
    assert_eq!(recorder.health().sync_lag, None);
    for receipt in receipts {
        receipt.complete(ok());
    }
    recorder.begin(allow("/blocking")).unwrap().complete(ok());
    recorder.stop("test").unwrap();
    assert_eq!(story(&dir).iter().filter(|word| word.starts_with("allow")).count(), 201);
    assert_eq!(story(&dir).iter().filter(|word| *word == "200").count(), 201);
}

#[test]
fn a_call_that_is_given_up_while_it_waits_for_the_disk_has_an_outcome() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, Options { durability: Durability::Sync, ..quiet() }).unwrap();
    for n in 0..50 {
        let mut waiting = Box::pin(recorder.begin_together(allow(&format!("/{n}"))));
        let polled = waiting.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        drop(polled);
        drop(waiting);
    }
    recorder.stop("test").unwrap();
    let begun = all(&dir).iter().filter(|record| matches!(record, Record::Decision(_))).count();
    let ended = all(&dir).iter().filter(|record| matches!(record, Record::Outcome(_))).count();
    assert_eq!((begun, ended), (50, 50));
    assert_eq!(recorder.health().open, 0);
}

#[test]
fn a_full_disk_keeps_room_for_the_ends_of_calls_and_for_denials() {
    let keep = tempfile::tempdir().unwrap();
    assert!(small_disk(keep.path(), 256), "this test mounts a file system, which needs root");
    let (dir, filler) = (keep.path().join("journal"), keep.path().join("filler"));
    let soon = Duration::from_millis(10);
    let options = Options { flush_within: soon, reserve: 64 << 10, ..quiet() };
    let recorder = Recorder::open(&dir, options).unwrap();
    let open: Vec<Receipt> = (0..10).map(|n| recorder.begin(allow(&format!("/{n}"))).unwrap()).collect();
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[b'x'; 512]).is_ok() {}
    let refused = (0..64).find_map(|_| match recorder.begin(allow("/no room")) {
        Ok(receipt) => {
            receipt.complete(ok());
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(refused, Some(RecordError::Unwritable { .. })), "{refused:?}");
    // No call, and everything else.
    for receipt in open {
        receipt.complete(ok());
    }
    recorder.refused(deny("/in the reserve")).unwrap();
    eventually("the outcomes are written", || recorder.health().pending == 0);
    assert!(recorder.health().error.is_some_and(|why| why.contains("disk is full")));
    assert!(recorder.begin(allow("/still no room")).is_err());
    assert!(wait(recorder.begin_together(allow("/nor for this"))).is_err());

    drop(file);
    fs::remove_file(&filler).unwrap();
    eventually("there is room again", || recorder.begin(allow("/after")).is_ok());
    assert_eq!(recorder.health().error, None);
    recorder.stop("test").unwrap();
    let story = story(&dir);
    assert!(story.contains(&"deny /in the reserve".to_owned()), "{story:?}");
    for refused in ["allow /still no room", "allow /nor for this"] {
        assert!(!story.contains(&refused.to_owned()), "{story:?}");
    }
    verified(&dir, &Witness::default());
    drop(recorder);
    nix::mount::umount2(keep.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn a_full_disk_lets_the_journal_go_on_where_it_spills_and_it_comes_back() {
    let keep = tempfile::tempdir().unwrap();
    let away = tempfile::tempdir().unwrap();
    fs::set_permissions(away.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert!(small_disk(keep.path(), 256), "this test mounts a file system, which needs root");
    let (dir, filler) = (keep.path().join("journal"), keep.path().join("filler"));
    let spill = Some(away.path().join("spill"));
    let options = Options { reserve: 64 << 10, spill: spill.clone(), ..quiet() };
    let recorder = Recorder::open(&dir, options.clone()).unwrap();
    let mut file = File::create(&filler).unwrap();
    while file.write_all(&[b'x'; 512]).is_ok() {}
    let mut calls = 0;
    while !recorder.health().spilled {
        recorder.begin(allow(&format!("/{calls}"))).unwrap().complete(ok());
        calls += 1;
        assert!(calls < 1000, "it never spills");
    }
    for _ in 0..100 {
        recorder.begin(allow("/away")).unwrap().complete(ok());
    }
    assert_eq!(files(&dir).last().unwrap(), "spill/journal-00000002.jsonl");
    assert_eq!(recorder.health().error, None);
    verified(&dir, &Witness::default());
    // A kill there: the next run goes on there.
    drop(recorder);
    let recorder = Recorder::open(&dir, options).unwrap();
    recorder.begin(allow("/again")).unwrap().complete(ok());
    assert!(recorder.health().spilled, "{:?}", recorder.health());
    let elsewhere = Options { spill: Some(away.path().join("other")), ..quiet() };
    drop(file);
    fs::remove_file(&filler).unwrap();
    eventually("it comes back", || !recorder.health().spilled);
    recorder.begin(allow("/home")).unwrap().complete(ok());
    eventually("so does what spilled", || files(&dir).iter().all(|file| !file.starts_with("spill/")));
    recorder.stop("test").unwrap();
    let story = story(&dir);
    assert_eq!(story.iter().filter(|word| *word == "allow /away").count(), 100);
    assert!(story.contains(&"allow /home".to_owned()));
    verified(&dir, &Witness::default());
    drop(recorder);
    drop(Recorder::open(&dir, elsewhere).unwrap());
    drop(keep);
}

#[test]
fn what_a_loss_of_power_left_is_kept_apart_and_an_attack_is_not_taken_for_one() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    recorder.refused(deny("/a")).unwrap();
    recorder.refused(deny("/b")).unwrap();
    recorder.refused(deny("/c")).unwrap();
    drop(recorder);
    let good = fs::read(segment(&dir)).unwrap();
    let lines: Vec<&[u8]> = good.split_inclusive(|byte| *byte == b'\n').collect();
    // A page in the middle never came to the disk, and what follows did.
    let at = lines[..4].concat().len();
    let mut torn = good.clone();
    torn[at + 10..at + 300].fill(0);
    fs::write(segment(&dir), &torn).unwrap();
    // In the same boot nothing but somebody's hand does that.
    assert!(matches!(Recorder::open(&dir, quiet()), Err(RecordError::Broken { .. })));
    assert_eq!(fs::read(segment(&dir)).unwrap(), torn);
    let mut rebooted = quiet();
    rebooted.start.boot_id = "another".to_owned();
    drop(Recorder::open(&dir, rebooted.clone()).unwrap());
    let kept = dir.join("lost-journal-00000001.jsonl-after-4");
    assert_eq!(fs::read(&kept).unwrap(), torn[at..]);
    assert_eq!(story(&dir), ["start", "deny /a", "deny /b", "recovered 0 0", "start"]);
    let lost = all(&dir).into_iter().find_map(|record| match record {
        Record::Recovered(repair) => Some(repair.lost_bytes),
        _ => None,
    });
    assert_eq!(lost, Some(u64::try_from(torn.len() - at).unwrap()));
    verified(&dir, &Witness::default());
    assert!(records(&dir).len() > 3);

    // What is older than the disk may lag behind was there: it was changed.
    let mut writer = proxy_journal::Writer::new(std::io::Cursor::new(Vec::new()));
    for seconds in [0, 1, 60] {
        let at = proxy_journal::Timestamp::from_micros(1_795_550_400_000_000 + seconds * 1_000_000);
        let start = Start { boot_id: "old".into(), ..Start::default() };
        writer.append(&Record::Start(start), at).unwrap();
    }
    let mut old = writer.into_segment().into_inner();
    let (_other, dir) = super::dir();
    drop(Recorder::open(&dir, quiet()).unwrap());
    let second = old.iter().position(|byte| *byte == b'\n').unwrap() + 30;
    old[second] ^= 1;
    fs::write(segment(&dir), &old).unwrap();
    let error = Recorder::open(&dir, rebooted).unwrap_err();
    assert!(matches!(error, RecordError::Broken { .. }), "{error}");
}

#[test]
fn a_call_that_waits_for_the_disk_when_the_daemon_ends_is_told() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, Options { durability: Durability::Sync, ..quiet() }).unwrap();
    wait(async {
        let mut waiting = Box::pin(recorder.begin_together(allow("/late")));
        let polled = waiting.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        drop(polled);
        recorder.stop("test").unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), waiting).await;
        ended.expect("it waits for ever").unwrap().complete(ok());
    });
    assert!(story(&dir).contains(&"allow /late".to_owned()));
}

#[test]
fn a_daemon_that_starts_on_a_full_disk_says_so_by_the_reserve_of_the_last_run() {
    let keep = tempfile::tempdir().unwrap();
    assert!(small_disk(keep.path(), 512), "this test mounts a file system, which needs root");
    let options = Options { reserve: 64 << 10, ..quiet() };
    // How much room there is in the last page after a run with a path of this length.
    let run = |name: &str, length: usize| {
        let dir = keep.path().join(name).join("journal");
        let recorder = Recorder::open(&dir, options.clone()).unwrap();
        recorder.refused(deny(&"/".repeat(length))).unwrap();
        drop(recorder);
        let room = 4096 - usize::try_from(segment(&dir).metadata().unwrap().len()).unwrap() % 4096;
        (dir, room)
    };
    let (_, room) = run("tried", 1);
    let (dir, room) = run("full", 1 + (room + 4096 - 100) % 4096);
    assert_eq!(room, 100, "less than a start takes");
    let mut file = File::create(keep.path().join("filler")).unwrap();
    while file.write_all(&[b'x'; 512]).is_ok() {}
    let recorder = Recorder::open(&dir, options.clone()).unwrap();
    assert!(recorder.begin(allow("/no room")).is_err());
    assert_eq!(story(&dir).last().unwrap(), "start");
    drop((recorder, file));
    nix::mount::umount2(keep.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn what_a_failed_sync_may_have_dropped_is_written_once_more_unless_it_is_not_what_was_written() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    let place = |recorder: &Recorder| {
        let state = recorder.inner.lock();
        (state.writer.len(), state.writer.head())
    };
    let before = place(&recorder);
    recorder.refused(deny("/a")).unwrap();
    recorder.refused(deny("/b")).unwrap();
    let after = place(&recorder);
    let good = fs::read(segment(&dir)).unwrap();
    recorder.inner.write_again(1, false, before, after).unwrap();
    assert_eq!(fs::read(segment(&dir)).unwrap(), good);
    let mut bad = good.clone();
    let at = usize::try_from(before.0).unwrap() + 40;
    bad[at] ^= 1;
    fs::write(segment(&dir), &bad).unwrap();
    let refused = recorder.inner.write_again(1, false, before, after).unwrap_err();
    assert!(refused.to_string().contains("not there any more"), "{refused}");
}
