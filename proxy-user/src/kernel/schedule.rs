//! How a thread stands among the others for the processor.

use std::io;

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

#[cfg(test)]
pub(crate) mod tests {
    /// The policy and the nice value of this thread, as proc(5) has them.
    pub(crate) fn standing() -> (String, String) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        // From the third field on, behind the name in parentheses.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        (fields[41 - 3].to_owned(), fields[19 - 3].to_owned())
    }
}
