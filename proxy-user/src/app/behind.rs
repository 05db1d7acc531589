//! Long work that the calls go before: a large policy takes a processor for a while, and nobody shall wait for that.
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use crate::kernel;

/// How long work may find no processor before a thread does it that gets its share: what a policy takes away must not stay
/// for as long as a host is busy.
const PATIENCE: Duration = Duration::from_secs(1);

/// The share of that thread, as a nice value.
const NICE: i32 = 10;

/// Works on a thread that runs when no other has anything to do; if that does not come soon, on one that goes behind the
/// calls, and whichever is done first has done it. The work may be done twice: it must look, and change nothing.
pub(super) fn behind_the_calls<T, W>(work: W) -> T
where
    T: Send + 'static,
    W: Fn() -> T + Send + Sync + 'static,
{
    with_patience(PATIENCE, work)
}

fn with_patience<T, W>(patience: Duration, work: W) -> T
where
    T: Send + 'static,
    W: Fn() -> T + Send + Sync + 'static,
{
    let work = Arc::new(work);
    let (done, first) = mpsc::channel();
    let begin = |stand: fn()| {
        let (work, done) = (Arc::clone(&work), done.clone());
        let whole = move || {
            stand();
            // Whoever comes second is not waited for.
            let _ = done.send(catch_unwind(AssertUnwindSafe(|| work())));
        };
        thread::Builder::new().spawn(whole).is_ok()
    };
    // A host that has no thread left still gets its new policy: it is done here then.
    let result = match begin(last_of_all) {
        true => first.recv_timeout(patience).ok(),
        false => None,
    };
    let result = result.or_else(|| if begin(behind) { first.recv().ok() } else { None });
    result.unwrap_or_else(|| Ok(work())).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Drops what is large on a thread that runs when no other has anything to do.
pub(super) fn let_go<T: Send + 'static>(large: T) {
    // Without a thread it is dropped here, with the closure.
    let _ = thread::Builder::new().spawn(move || {
        last_of_all();
        drop(large);
    });
}

/// Begins a thread of its own that stands behind the calls, and hands out what `begin` makes on it: threads inherit that.
pub(super) fn started_behind<T: Send>(begin: impl FnOnce() -> T + Send) -> T {
    let begin = || {
        behind();
        begin()
    };
    thread::scope(|scope| scope.spawn(begin).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// Without it the work is only less polite.
fn last_of_all() {
    let _ = kernel::stand_last();
}

/// Of this thread alone (setpriority(2), "C library/kernel differences").
fn behind() {
    let _ = rustix::process::setpriority_process(None, NICE);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;
    use crate::kernel::standing;

    #[test]
    fn work_stands_last_of_all_and_so_does_what_is_let_go() {
        struct Large(mpsc::Sender<(String, String)>);
        impl Drop for Large {
            fn drop(&mut self) {
                self.0.send(standing()).unwrap();
            }
        }
        let idle = libc::SCHED_IDLE.to_string();
        assert_ne!(standing().0, idle);
        assert_eq!(behind_the_calls(standing).0, idle);
        let (sender, receiver) = mpsc::channel();
        let_go(Large(sender));
        assert_eq!(receiver.recv().unwrap().0, idle);
        assert_ne!(standing().0, idle, "who asked stands where it stood");
    }

    #[test]
    fn work_that_finds_no_processor_is_done_by_a_thread_that_has_its_share() {
        let begun = AtomicUsize::new(0);
        let work = move || {
            if begun.fetch_add(1, Ordering::SeqCst) == 0 {
                thread::sleep(Duration::from_secs(60));
            }
            standing()
        };
        let started = Instant::now();
        let (policy, nice) = with_patience(Duration::from_millis(20), work);
        assert_eq!((policy.as_str(), nice.as_str()), ("0", "10"));
        assert!(started.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn a_panic_of_the_work_is_one_of_who_asked_for_it() {
        let caught = std::panic::catch_unwind(|| behind_the_calls(|| -> u8 { panic!("the work failed") }));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"the work failed"));
    }
}
