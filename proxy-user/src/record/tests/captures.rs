//! Bodies that are kept for auditors: what is in their files, and what becomes of a call when they cannot be written.

use std::future::poll_fn;
use std::io::{Read as _, Write as _};

use age::x25519::Identity;
use bytes::Bytes;
use proxy_journal::{CaptureEnd, Part, kept};

use super::evidence::wait;
use super::*;
use crate::record::{Capture, Captures, Durability, NotKept, Receipt};

/// Of the calls of [`allow`].
const IDENTITY: Option<&str> = Some("invoice-bot");

pub(crate) fn keeping(auditor: &Identity) -> Options {
    Options { auditors: vec![auditor.to_public()], ..quiet() }
}

/// A call that keeps at most so much of each body.
pub(crate) fn begin(recorder: &Recorder, most: u64, has_request: bool) -> (Receipt, Captures) {
    let receipt = recorder.begin(allow("/kept")).unwrap();
    let captures = wait(recorder.capture(&receipt, IDENTITY, most, has_request)).unwrap();
    (receipt, captures)
}

fn push(capture: &mut Capture, data: &[u8]) -> Result<(), NotKept> {
    wait(poll_fn(|cx| capture.poll_room(cx)))?;
    capture.push(&Bytes::copy_from_slice(data));
    Ok(())
}

fn end(capture: &mut Capture) -> Result<(), NotKept> {
    wait(poll_fn(|cx| capture.poll_end(cx)))
}

/// The outcomes, each with what it says is kept.
pub(crate) fn kept_of(dir: &Path) -> Vec<Outcome> {
    let outcome = |record| match record {
        Record::Outcome(outcome) => Some(outcome),
        _ => None,
    };
    records(dir).into_iter().filter_map(outcome).collect()
}

pub(crate) fn read(dir: &Path, capture: &proxy_journal::Capture, auditor: &Identity) -> Vec<u8> {
    let file = File::open(dir.join(kept::FOLDER).join(&capture.file)).unwrap();
    let decryptor = age::Decryptor::new(file).unwrap();
    let mut text = Vec::new();
    decryptor.decrypt(std::iter::once(auditor as _)).unwrap().read_to_end(&mut text).unwrap();
    text
}

/// Every file below a directory.
fn everything(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return found,
        entries => entries.unwrap(),
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(everything(&path)) } else { found.push(path) }
    }
    found
}

fn bodies(dir: &Path) -> Vec<String> {
    let folder = dir.join(kept::FOLDER);
    let names = everything(&folder).into_iter();
    names.map(|path| path.strip_prefix(&folder).unwrap().display().to_string()).collect()
}

#[test]
fn what_is_kept_only_the_auditor_reads_and_the_outcome_vouches_for() {
    let (keep, dir) = dir();
    let auditor = Identity::generate();
    let recorder = Recorder::open(&dir, keeping(&auditor)).unwrap();
    let (receipt, Captures { request, mut response, ending }) = begin(&recorder, 1 << 20, true);
    let (mut request, id) = (request.unwrap(), receipt.id());
    let asked = b"{\"amount\": 4711, \"iban\": \"DE02\"}".repeat(5000);
    for piece in asked.chunks(10_000) {
        push(&mut request, piece).unwrap();
    }
    end(&mut request).unwrap();
    assert_eq!(
        bodies(&dir).iter().filter(|name| name.ends_with("request.age")).count(),
        1,
        "before it goes on"
    );
    push(&mut response, b"paid 4711").unwrap();
    end(&mut response).unwrap();
    ending.complete(receipt, ok());
    recorder.stop("test").unwrap();

    let outcome = kept_of(&dir).pop().unwrap();
    let [first, second] = &outcome.captures[..] else { panic!("{outcome:?}") };
    assert_eq!((outcome.status, outcome.id), (Some(200), id));
    assert_eq!((first.part, first.end, first.bytes), (Part::Request, CaptureEnd::Whole, Some(160_000)));
    assert_eq!((second.part, second.end, second.bytes), (Part::Response, CaptureEnd::Whole, Some(9)));
    assert_eq!(read(&dir, first, &auditor), asked);
    assert_eq!(read(&dir, second, &auditor), b"paid 4711");
    for path in everything(keep.path()) {
        let bytes = fs::read(&path).unwrap();
        let holds = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        // Nothing that could stand in a hash.
        assert!(!holds(b"iban") && !holds(b"paid 4711") && !holds(b": 4711"), "{}", path.display());
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
    assert!(check(&dir, &Witness::default()).unwrap().to_string().contains("2 bodies"));
}

#[test]
fn a_body_over_the_limit_is_kept_as_far_as_the_limit_and_an_empty_one_not_at_all() {
    let (_keep, dir) = dir();
    let auditor = Identity::generate();
    let recorder = Recorder::open(&dir, keeping(&auditor)).unwrap();
    for (pieces, bytes, expected) in [
        (&[b"0123456789".as_slice()][..], 10, Some((CaptureEnd::Whole, b"0123456789".as_slice()))),
        (&[b"0123456789", b"a"], 11, Some((CaptureEnd::Limit, b"0123456789"))),
        (&[b"01234", b"56789abc", b"def"], 16, Some((CaptureEnd::Limit, b"0123456789"))),
        (&[], 0, None),
    ] {
        let (receipt, Captures { request, mut response, ending }) = begin(&recorder, 10, false);
        assert!(request.is_none());
        for piece in pieces {
            push(&mut response, piece).unwrap();
        }
        end(&mut response).unwrap();
        ending.complete(receipt, Outcome { bytes_received: bytes, ..ok() });
        recorder.inner.flush();
        let mut outcome = None;
        eventually("the outcome", || {
            recorder.inner.flush();
            outcome = kept_of(&dir).into_iter().find(|it| it.bytes_received == bytes);
            outcome.is_some()
        });
        let captures = outcome.unwrap().captures;
        let found = captures.first().map(|it| (it.end, read(&dir, it, &auditor)));
        assert_eq!(found, expected.map(|(end, text)| (end, text.to_vec())));
    }
    recorder.stop("test").unwrap();
    assert_eq!(bodies(&dir).len(), 3);
}

#[test]
fn a_call_that_breaks_off_keeps_what_came_and_one_that_never_began_nothing() {
    let (_keep, dir) = dir();
    let auditor = Identity::generate();
    let recorder = Recorder::open(&dir, keeping(&auditor)).unwrap();
    // The client goes away: its handler is dropped, the account last or first.
    let (receipt, Captures { request, mut response, ending }) = begin(&recorder, 100, true);
    push(&mut response, b"half").unwrap();
    drop(request);
    ending.complete(receipt, ok());
    drop(response);
    // Another was not begun: what it would have been kept in is not there.
    let (receipt, Captures { request, response, ending }) = begin(&recorder, 100, true);
    drop((request, response, ending));
    drop(receipt);
    // Nor when it is forgotten before its bodies are.
    let (receipt, Captures { request, response, ending }) = begin(&recorder, 100, true);
    drop((ending, receipt));
    drop((request, response));
    recorder.stop("test").unwrap();
    let outcomes = kept_of(&dir);
    let captures: Vec<_> = outcomes.iter().flat_map(|outcome| &outcome.captures).collect();
    let [half] = captures[..] else { panic!("{captures:?}") };
    assert_eq!((half.part, half.end), (Part::Response, CaptureEnd::Broken));
    assert_eq!(read(&dir, half, &auditor), b"half");
    assert_eq!(bodies(&dir), std::slice::from_ref(&half.file));
}

#[test]
fn a_body_does_not_run_away_from_its_file() {
    let (_keep, dir) = dir();
    let auditor = Identity::generate();
    let recorder = Recorder::open(&dir, keeping(&auditor)).unwrap();
    let (receipt, Captures { mut response, ending, .. }) = begin(&recorder, u64::MAX, false);
    let second = recorder.begin(allow("/second")).unwrap();
    let mut opening = Box::pin(recorder.capture(&second, IDENTITY, 10, false));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    // The thread is held up, as by its disk: it asks the journal for the segment.
    let held = recorder.inner.lock();
    assert!(opening.as_mut().poll(&mut cx).is_pending());
    let mut taken = 0;
    while response.poll_room(&mut cx).is_ready() {
        response.push(&Bytes::from(vec![7; 10_000]));
        taken += 10_000;
        assert!(taken < 1 << 20, "it is held back by nothing");
    }
    assert!(taken >= 256 << 10, "{taken}");
    drop(held);
    push(&mut response, b"x").unwrap();
    end(&mut response).unwrap();
    ending.complete(receipt, ok());
    drop((wait(opening).unwrap(), second));
    recorder.stop("test").unwrap();
    let kept = kept_of(&dir).iter().find_map(|outcome| outcome.captures.first().cloned()).unwrap();
    assert_eq!(read(&dir, &kept, &auditor).len(), taken + 1);
}

#[test]
fn on_a_full_disk_no_call_begins_and_one_under_way_is_told() {
    let keep = tempfile::tempdir().unwrap();
    assert!(small_disk(keep.path(), 4096), "this test mounts a file system, which needs root");
    let (dir, filler) = (keep.path().join("journal"), keep.path().join("filler"));
    let auditor = Identity::generate();
    let recorder = Recorder::open(&dir, keeping(&auditor)).unwrap();
    let (receipt, Captures { mut response, ending, .. }) = begin(&recorder, u64::MAX, false);
    // Less room than is left to the journal.
    let mut file = File::create(&filler).unwrap();
    file.write_all(&vec![b'x'; 3 << 20]).unwrap();
    let other = recorder.begin(allow("/no room")).unwrap();
    let refused = wait(recorder.capture(&other, IDENTITY, 100, true)).unwrap_err();
    assert!(matches!(refused, RecordError::Uncaptured { .. }), "{refused}");
    drop(other);
    while file.write_all(&[b'x'; 512]).is_ok() {}
    let error = loop {
        if let Err(error) = push(&mut response, &[b'b'; 20_000]) {
            break error;
        }
    };
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(end(&mut response).is_err());
    ending.complete(receipt, ok());
    drop((response, file));
    fs::remove_file(&filler).unwrap();
    let (receipt, Captures { mut response, ending, .. }) = begin(&recorder, 100, false);
    push(&mut response, b"after").unwrap();
    end(&mut response).unwrap();
    ending.complete(receipt, ok());
    recorder.stop("test").unwrap();
    let outcomes = kept_of(&dir);
    let broken = outcomes.iter().find(|it| it.blame == Some(Blame::Host)).unwrap();
    assert!(broken.error.as_ref().unwrap().contains("kept for auditors"), "{broken:?}");
    assert!(broken.captures.is_empty());
    assert_eq!(bodies(&dir).len(), 1, "{:?}", bodies(&dir));
    drop(recorder);
    nix::mount::umount2(keep.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[test]
fn after_a_kill_the_outcome_names_what_there_is_of_its_bodies() {
    for durability in [Durability::Fast, Durability::Sync] {
        let (keep, dir) = dir();
        let auditor = Identity::generate();
        let recorder = Recorder::open(&dir, Options { durability, ..keeping(&auditor) }).unwrap();
        let (receipt, Captures { request, mut response, ending }) = begin(&recorder, u64::MAX, true);
        let mut request = request.unwrap();
        push(&mut request, b"all of it").unwrap();
        end(&mut request).unwrap();
        push(&mut response, &[b'r'; 200_000]).unwrap();
        // The thread took it when it has written as much as is whole.
        eventually("two chunks are written", || {
            let unfinished =
                everything(&dir).into_iter().find(|path| path.to_string_lossy().ends_with(".part"));
            unfinished.unwrap().metadata().unwrap().len() > 3 * 65_536
        });
        let killed = keep.path().join("killed");
        fs::create_dir(&killed).unwrap();
        let copied =
            Command::new("cp").arg("-a").arg(&dir).arg(keep.path().join("journal.key")).arg(&killed).status();
        assert!(copied.unwrap().success());
        drop((request, response));
        ending.complete(receipt, ok());
        recorder.stop("test").unwrap();

        let dir = killed.join("journal");
        Recorder::open(&dir, keeping(&auditor)).unwrap().stop("test").unwrap();
        let outcome = kept_of(&dir).pop().unwrap();
        assert!(outcome.interrupted);
        let [first, second] = &outcome.captures[..] else { panic!("{outcome:?}") };
        assert_eq!((first.part, first.end, first.bytes), (Part::Request, CaptureEnd::Killed, None));
        assert_eq!(read(&dir, first, &auditor), b"all of it");
        assert_eq!((second.part, second.end), (Part::Response, CaptureEnd::Killed));
        let file = File::open(dir.join(kept::FOLDER).join(&second.file)).unwrap();
        let mut text = Vec::new();
        let cut = age::Decryptor::new(file).unwrap().decrypt(std::iter::once(&auditor as _));
        assert!(cut.unwrap().read_to_end(&mut text).is_err(), "its end is not there, and age says so");
        assert!(text.len() >= 2 * 65_536, "{}", text.len());
    }
}

#[test]
fn a_file_that_is_other_than_its_record_says_is_found_and_one_that_is_gone() {
    let (_keep, dir) = dir();
    let auditor = Identity::generate();
    let recorder = Recorder::open(&dir, keeping(&auditor)).unwrap();
    for _ in 0..3 {
        let (receipt, Captures { mut response, ending, .. }) = begin(&recorder, 100, false);
        push(&mut response, b"body").unwrap();
        end(&mut response).unwrap();
        ending.complete(receipt, ok());
    }
    recorder.stop("test").unwrap();
    let files: Vec<PathBuf> = kept_of(&dir)
        .iter()
        .flat_map(|outcome| &outcome.captures)
        .map(|capture| dir.join(kept::FOLDER).join(&capture.file))
        .collect();
    let told = || check(&dir, &Witness::default()).unwrap();
    assert!(told().is_whole());

    let was = fs::read(&files[1]).unwrap();
    for at in [0, was.len() / 2, was.len() - 1] {
        let mut bytes = was.clone();
        bytes[at] ^= 1;
        fs::write(&files[1], bytes).unwrap();
        assert!(!told().is_whole());
        assert!(told().to_string().contains("is not what was kept"), "{}", told());
    }
    // One that was swapped for another, which any auditor can read.
    fs::copy(&files[0], &files[1]).unwrap();
    assert!(!told().is_whole());
    fs::write(&files[1], &was).unwrap();
    assert!(told().is_whole());

    fs::write(dir.join("captures/00000001/planted.age"), b"x").unwrap();
    assert!(told().is_whole() && told().to_string().contains("planted.age"), "{}", told());
    fs::remove_file(&files[2]).unwrap();
    assert!(!told().is_whole());
    assert!(told().to_string().contains("is missing"), "{}", told());
    // A copy without the bodies is still a journal, of which it is said that they are not there.
    assert!(!told().to_string().contains("is not here"));
    fs::remove_dir_all(dir.join(kept::FOLDER)).unwrap();
    let said =
        format!("Bodies of {} calls are kept for auditors, and captures/ is not here", kept_of(&dir).len());
    assert!(told().is_whole() && told().to_string().contains(&said), "{}", told());
}

#[test]
fn bodies_go_with_their_segment_and_count_as_its_room() {
    let (_keep, dir) = dir();
    let auditor = Identity::generate();
    let sizes = Options { segment_bytes: 20_000, keep_bytes: Some(1_500_000), ..keeping(&auditor) };
    let recorder = Recorder::open(&dir, Options { compress: false, ..sizes }).unwrap();
    let mut calls = 0;
    while recorder.health().segment < 9 {
        let (receipt, Captures { mut response, ending, .. }) = begin(&recorder, u64::MAX, false);
        push(&mut response, &[b'b'; 100_000]).unwrap();
        end(&mut response).unwrap();
        ending.complete(receipt, ok());
        calls += 1;
        assert!(calls < 200, "no segment ends for its bodies");
    }
    // What goes while it is looked at is gone.
    let size = |path: PathBuf| path.metadata().map_or(0, |meta| meta.len());
    let room = |folder: &Path| everything(folder).into_iter().map(size).sum::<u64>();
    eventually("the oldest are removed", || {
        let closed = room(&dir) < 1_500_000 + 500_000;
        closed && !kept::folder(&dir, 1).exists()
    });
    recorder.stop("test").unwrap();
    assert!(calls > 9 * 3, "{calls} calls in 9 segments: their records alone are not it");
    assert!(check(&dir, &Witness::default()).unwrap().is_whole());
    let segments: Vec<u32> = segments_of(&dir);
    assert!(kept::folders(&dir).unwrap().iter().all(|number| segments.contains(number)));
}

fn segments_of(dir: &Path) -> Vec<u32> {
    proxy_journal::segment::list(dir).unwrap().into_iter().map(|(number, _)| number).collect()
}

#[test]
fn without_auditors_nothing_is_kept_and_the_call_does_not_begin() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    let receipt = recorder.begin(allow("/x")).unwrap();
    let refused = wait(recorder.capture(&receipt, IDENTITY, 100, true)).unwrap_err();
    assert!(refused.to_string().contains("no auditors are named"), "{refused}");
}

#[test]
fn only_so_many_bodies_are_kept_at_once_and_others_when_they_have_ended() {
    let (_keep, dir) = dir();
    let auditor = Identity::generate();
    let recorder = Recorder::open(&dir, keeping(&auditor)).unwrap();
    let mut open: Vec<_> = (0..4).map(|_| begin(&recorder, 100, true)).collect();
    let receipt = recorder.begin(allow("/one too many")).unwrap();
    let refused = wait(recorder.capture(&receipt, IDENTITY, 100, true)).unwrap_err();
    assert!(refused.to_string().contains("as many bodies of this identity"), "{refused}");
    // Another identity has places of its own, as long as there are any.
    let of = |number: usize| {
        let receipt = recorder.begin(allow("/other")).unwrap();
        let captures = wait(recorder.capture(&receipt, Some(&format!("bot-{number}")), 100, true));
        (receipt, captures)
    };
    let others: Vec<_> = (0..12)
        .map(|number| {
            let (receipt, captures) = of(number / 4);
            (receipt, captures.unwrap())
        })
        .collect();
    assert!(of(9).1.unwrap_err().to_string().contains("as can be kept"));
    drop(others);
    let (receipt, Captures { request, response, ending }) = open.pop().unwrap();
    drop((request, response));
    ending.complete(receipt, ok());
    drop(begin(&recorder, 100, true));
}

#[test]
fn a_record_that_names_a_file_elsewhere_vouches_for_nothing() {
    let (_keep, dir) = dir();
    let auditor = Identity::generate();
    let recorder = Recorder::open(&dir, keeping(&auditor)).unwrap();
    let (receipt, Captures { mut response, ending, .. }) = begin(&recorder, 100, false);
    push(&mut response, b"body").unwrap();
    end(&mut response).unwrap();
    ending.complete(receipt, ok());
    // Of another call, with the file of the first; and one out of the folder, with a file that is as it says.
    recorder.inner.flush();
    let mut first = None;
    eventually("the outcome", || {
        recorder.inner.flush();
        first = kept_of(&dir).pop();
        first.is_some()
    });
    let captures = first.unwrap().captures;
    recorder.begin(allow("/other")).unwrap().complete(Outcome { captures: captures.clone(), ..ok() });
    let out = dir.join("captures/elsewhere");
    fs::copy(dir.join("captures").join(&captures[0].file), &out).unwrap();
    let elsewhere = proxy_journal::Capture { file: "elsewhere".into(), ..captures[0].clone() };
    recorder.begin(allow("/elsewhere")).unwrap().complete(Outcome { captures: vec![elsewhere], ..ok() });
    recorder.stop("test").unwrap();
    let report = check(&dir, &Witness::default()).unwrap();
    let kept = report.kept.as_ref().unwrap();
    assert_eq!((kept.whole, kept.altered.len(), report.is_whole()), (1, 2, false), "{report}");
}
