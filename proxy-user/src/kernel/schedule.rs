//! How a thread stands among the others for the processor.

use std::io;
use std::time::Duration;

/// Lets every other thread of the host go before this one, at once and whenever it has something to do (`SCHED_IDLE`,
/// sched(7)). Without privileges there is no way back. Whoever has the processor keeps it until the next tick,
/// milliseconds later, whatever he has become, so it sleeps for a moment: when it is woken it stands behind.
///
/// # Errors
/// The kernel does not take it.
pub fn stand_last() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; the structure lives over the call, which only reads it.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } {
        0 => {
            std::thread::sleep(Duration::from_micros(1));
            Ok(())
        }
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::thread;

    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn who_stands_last_gives_way_at_once() {
        let all = sched_getaffinity(Pid::from_raw(0)).unwrap();
        let one = (0..CpuSet::count()).find(|at| all.is_set(*at).unwrap()).unwrap();
        let stay = move || {
            let mut set = CpuSet::new();
            set.set(one).unwrap();
            sched_setaffinity(Pid::from_raw(0), &set).unwrap();
        };
        let (rounds, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let busy = {
            let (rounds, over) = (Arc::clone(&rounds), Arc::clone(&over));
            thread::spawn(move || {
                stay();
                while !over.load(Ordering::Relaxed) {
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let last = thread::spawn(move || {
            stay();
            while rounds.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            let before = rounds.load(Ordering::Relaxed);
            stand_last().unwrap();
            (before, rounds.load(Ordering::Relaxed))
        });
        let (before, after) = last.join().unwrap();
        over.store(true, Ordering::Relaxed);
        busy.join().unwrap();
        assert!(after > before, "the busy one did not run meanwhile");
    }

    /// The policy and the nice value of this thread, as proc(5) has them.
    pub(crate) fn standing() -> (String, String) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // From the third field on, behind the name in parentheses.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        (fields[41 - 3].to_owned(), fields[19 - 3].to_owned())
    }
}
