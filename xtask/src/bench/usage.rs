//! What the daemon uses while it is under load: memory and processor time, as the kernel counts them.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Looking at memory takes the kernel a millisecond or so.
const PERIOD: Duration = Duration::from_millis(250);
/// The kernel shows times in this unit, whatever its own clock is (proc_pid_stat(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Looks at the daemon from `begin` to `end`.
pub(super) struct Watch {
    pid: u32,
    cpu: f64,
    over: Arc<AtomicBool>,
    sampler: JoinHandle<u64>,
}

/// What was used meanwhile.
pub(super) struct Used {
    /// Seconds of processor time.
    pub(super) cpu: f64,
    /// The most memory that was seen, in KiB (PSS).
    pub(super) peak: u64,
}

impl Watch {
    pub(super) fn begin(pid: u32) -> Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let sampler = std::thread::spawn(move || {
            let mut peak = 0;
            while !seen.load(Ordering::Relaxed) {
                std::thread::park_timeout(PERIOD);
                peak = peak.max(pss(pid).unwrap_or(0));
            }
            peak
        });
        Ok(Self { pid, cpu: cpu(pid)?, over, sampler })
    }

    pub(super) fn end(self) -> Result<Used> {
        let cpu = cpu(self.pid)? - self.cpu;
        self.over.store(true, Ordering::Relaxed);
        self.sampler.thread().unpark();
        Ok(Used { cpu, peak: self.sampler.join().unwrap_or(0) })
    }
}

/// The memory of a process in KiB: its own, and its share of what it shares.
pub(super) fn pss(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_pss(&text).with_context(|| format!("{path} names no Pss"))
}

fn parse_pss(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

/// Whether the process is there and no zombie.
pub(super) fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// Seconds of processor time that a process has used.
fn cpu(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    parse_cpu(&text).with_context(|| format!("{path} is not what it should be"))
}

fn parse_cpu(stat: &str) -> Option<f64> {
    // The name of the program may have blanks and parentheses; utime and stime are the 12th and 13th after it.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11).map(str::parse::<f64>);
    Some((fields.next()?.ok()? + fields.next()?.ok()?) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_shows_is_read() {
        assert_eq!(parse_pss("Rss:  9 kB\nPss:      4567 kB\nPss_Dirty: 1 kB\n"), Some(4567));
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 99 1 2";
        assert_eq!(parse_cpu(stat), Some(2.0));
        assert!(is_alive(std::process::id()));
        assert!(cpu(std::process::id()).is_ok());
    }
}
