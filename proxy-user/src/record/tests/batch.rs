//! Calls that are decided at the same time, written together.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::record::Receipt;

type Beginning<'a> = Pin<Box<dyn Future<Output = Result<Receipt, RecordError>> + 'a>>;

fn beginning<'a>(recorder: &'a Recorder, path: &str) -> Beginning<'a> {
    Box::pin(recorder.begin_together(allow(path)))
}

fn poll(beginning: &mut Beginning<'_>) -> Poll<Result<Receipt, RecordError>> {
    beginning.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// The receipt of a call whose turn has come.
fn begun(mut beginning: Beginning<'_>) -> Receipt {
    match poll(&mut beginning) {
        Poll::Ready(receipt) => receipt.unwrap(),
        Poll::Pending => panic!("it still waits"),
    }
}

#[test]
fn a_call_that_is_alone_does_not_wait() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    begun(beginning(&recorder, "/a")).complete(ok());
    begun(beginning(&recorder, "/b")).complete(ok());
    assert_eq!(story(&dir), ["start", "allow /a", "200", "allow /b"]);
    assert_eq!((recorder.health().allowed, recorder.health().open), (2, 0));
}

#[test]
fn calls_that_are_ready_together_are_written_together_and_none_goes_on_before() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    let open = begun(beginning(&recorder, "/open"));
    let (mut a, mut b) = (beginning(&recorder, "/a"), beginning(&recorder, "/b"));
    assert!(poll(&mut a).is_pending() && poll(&mut b).is_pending());
    assert!(poll(&mut b).is_pending(), "it goes on when it is written, and not when it is asked again");
    open.complete(ok());
    assert_eq!(story(&dir), ["start", "allow /open"]);
    assert_eq!(recorder.health().open, 0, "they are not open before they are written");
    let a = begun(a);
    assert_eq!(story(&dir), ["start", "allow /open", "allow /a", "allow /b", "200"]);
    assert_eq!((recorder.health().allowed, recorder.health().open), (3, 2));
    begun(b).complete(ok());
    a.complete(ok());
    recorder.stop("test").unwrap();
    assert_eq!(story(&dir)[4..], ["200", "200", "200", "stop test"]);
}

#[test]
fn whoever_writes_first_takes_the_waiting_decisions_along() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    let _open = begun(beginning(&recorder, "/open"));
    let (mut a, mut b) = (beginning(&recorder, "/a"), beginning(&recorder, "/b"));
    assert!(poll(&mut a).is_pending() && poll(&mut b).is_pending());
    recorder.refused(deny("/c")).unwrap();
    assert_eq!(story(&dir), ["start", "allow /open", "allow /a", "allow /b", "deny /c"]);
    let (_a, _b) = (begun(a), begun(b));
    assert_eq!(story(&dir).len(), 5, "nothing is written twice");
}

#[test]
fn a_call_that_nobody_waits_for_any_more_holds_up_nobody_and_has_its_end() {
    let (_keep, dir) = dir();
    let recorder = Recorder::open(&dir, quiet()).unwrap();
    let open = begun(beginning(&recorder, "/open"));
    let gone = "the client went away before the call was sent";
    // The one that would write, and one that waits for it.
    let (mut a, mut b, mut c) =
        (beginning(&recorder, "/a"), beginning(&recorder, "/b"), beginning(&recorder, "/c"));
    assert!(poll(&mut a).is_pending() && poll(&mut b).is_pending() && poll(&mut c).is_pending());
    drop(c);
    drop(a);
    begun(b).complete(ok());
    open.complete(ok());
    recorder.stop("test").unwrap();
    let expected = ["start", "allow /open", "allow /a", "allow /b", "allow /c", gone, gone, "200", "200"];
    assert_eq!(story(&dir)[..9], expected);
    assert_eq!(recorder.health().open, 0);
}

#[test]
fn a_batch_that_cannot_be_written_refuses_all_of_its_calls_and_is_not_written_later() {
    let keep = tempfile::tempdir().unwrap();
    assert!(small_disk(keep.path(), 64), "this test mounts a file system, which needs root");
    let (dir, filler) = (keep.path().join("journal"), keep.path().join("filler"));
    let recorder = Recorder::open(&dir, Options { reserve: 0, ..quiet() }).unwrap();
    let open = begun(beginning(&recorder, "/open"));
    let _ = std::io::copy(&mut std::io::repeat(b'x'), &mut File::create(&filler).unwrap());
    // To the last byte of the last page. Without a reserve it is tried again after a while, and nothing is known of it before.
    while recorder.refused(deny("/filling")).is_ok() {}
    eventually("it is tried again", || recorder.health().error.is_none());
    let (mut a, mut b) = (beginning(&recorder, "/a"), beginning(&recorder, "/b"));
    assert!(poll(&mut a).is_pending() && poll(&mut b).is_pending());
    open.complete(ok());
    for mut beginning in [a, b] {
        let Poll::Ready(Err(error)) = poll(&mut beginning) else { panic!("it is not refused") };
        assert!(matches!(error, RecordError::Unwritable { .. }), "{error}");
    }
    assert_eq!(recorder.health().open, 0);
    fs::remove_file(&filler).unwrap();
    eventually("there is room", || recorder.health().error.is_none());
    begun(beginning(&recorder, "/after")).complete(ok());
    recorder.stop("test").unwrap();
    let story = story(&dir);
    assert!(story.ends_with(&["allow /after".into(), "200".into(), "stop test".into()]));
    assert_eq!(story.iter().filter(|word| *word == "200").count(), 2, "the outcome was kept");
    assert!(!story.iter().any(|word| word == "allow /a" || word == "allow /b"), "{story:?}");
    drop(recorder);
    nix::mount::umount2(keep.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_calls_at_once_have_each_its_decision_and_its_outcome() {
    let (_keep, dir) = dir();
    let recorder = std::sync::Arc::new(Recorder::open(&dir, quiet()).unwrap());
    let callers: Vec<_> = (0..40)
        .map(|caller| {
            let recorder = std::sync::Arc::clone(&recorder);
            tokio::spawn(async move {
                for call in 0..50 {
                    let receipt = recorder.begin_together(allow(&format!("/{caller}/{call}"))).await.unwrap();
                    if call % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                    receipt.complete(ok());
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    recorder.stop("test").unwrap();
    let mut open = HashSet::new();
    let mut calls = 0;
    for record in records(&dir) {
        match record {
            Record::Decision(decision) => {
                assert!(open.insert(decision.id));
                calls += 1;
            }
            Record::Outcome(outcome) => assert!(open.remove(&outcome.id), "an outcome before its decision"),
            _ => {}
        }
    }
    assert_eq!((calls, open.len(), recorder.health().open), (2000, 0, 0));
}
