//! How a thread stands among the others for the processor.

use std::io;
use std::time::Duration;

/// Lets every other thread of the host go before this one, at once and whenever it has something to do (`SCHED_IDLE`,
/// sched(7)). Without privileges there is no way back.
///
/// # Errors
/// The kernel does not take it.
pub fn stand_last() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread; the structure lives over the call, which only reads it.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// As [`stand_last`], and gives the processor up. Whoever has it keeps it until the next tick, milliseconds later, whatever he has become;
/// when he is woken he stands behind. For what nobody waits for: on a busy host it takes a while until it has its turn.
///
/// # Errors
/// The kernel does not take it.
pub fn step_back() -> io::Result<()> {
    stand_last()?;
    std::thread::sleep(Duration::from_micros(1));
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn who_steps_back_stands_last_and_gives_the_processor_up_once() {
        let slept = || -> u64 {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            line.unwrap().trim().parse().unwrap()
        };
        let thread = thread::spawn(move || {
            // Whether a sleep is counted hangs on when its timer goes off.
            let before = slept();
            (0..8).for_each(|_| step_back().unwrap());
            (slept() - before, standing().0)
        });
        let (slept, policy) = thread.join().unwrap();
        assert!(slept > 0, "it never slept");
        assert_eq!(policy, libc::SCHED_IDLE.to_string());
    }

    /// The policy and the nice value of this thread, as proc(5) has them.
    pub(crate) fn standing() -> (String, String) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // From the third field on, behind the name in parentheses.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        (fields[41 - 3].to_owned(), fields[19 - 3].to_owned())
    }
}
