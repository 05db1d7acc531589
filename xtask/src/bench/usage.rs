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
    pids: Vec<u32>,
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
        // One that is gone is told at once.
        cpu(pid)?;
        Ok(Self::of_all(vec![pid]))
    }

    /// The same for several processes together; one that ends counts no more.
    pub(super) fn of_all(pids: Vec<u32>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (seen, sampled) = (Arc::clone(&over), pids.clone());
        let sampler = std::thread::spawn(move || {
            let mut peak = 0;
            while !seen.load(Ordering::Relaxed) {
                std::thread::park_timeout(PERIOD);
                peak = peak.max(pss_of_all(&sampled));
            }
            peak
        });
        let cpu = cpu_of_all(&pids);
        Self { pids, cpu, over, sampler }
    }

    pub(super) fn end(self) -> Result<Used> {
        let cpu = (cpu_of_all(&self.pids) - self.cpu).max(0.0);
        self.over.store(true, Ordering::Relaxed);
        self.sampler.thread().unpark();
        Ok(Used { cpu, peak: self.sampler.join().unwrap_or(0) })
    }
}

/// A process, and all that it or its children have started.
pub(super) fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            Some((pid, parse_parent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))
        })
        .collect();
    descendants(root, &parents)
}

/// `parents` are pairs of a process and its parent.
fn descendants(root: u32, parents: &[(u32, u32)]) -> Vec<u32> {
    let mut all = vec![root];
    let mut done = 0;
    while let Some(&parent) = all.get(done) {
        let children = parents.iter().filter(|it| it.1 == parent && !all.contains(&it.0));
        let children: Vec<u32> = children.map(|it| it.0).collect();
        all.extend(children);
        done += 1;
    }
    all
}

fn parse_parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// The memory of processes in KiB, without those that are gone.
pub(super) fn pss_of_all(pids: &[u32]) -> u64 {
    pids.iter().filter_map(|pid| pss(*pid).ok()).sum()
}

fn cpu_of_all(pids: &[u32]) -> f64 {
    pids.iter().filter_map(|pid| cpu(*pid).ok()).sum()
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
        assert_eq!(parse_parent(stat), Some(1));
        assert!(is_alive(std::process::id()));
        assert!(cpu(std::process::id()).is_ok());
    }

    #[test]
    fn a_tree_has_children_of_children_and_no_others() {
        assert_eq!(descendants(2, &[(3, 2), (4, 1), (5, 3), (2, 1), (6, 5)]), [2, 3, 5, 6]);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let ours = tree(std::process::id());
        let _ = child.kill();
        let _ = child.wait();
        assert!(ours.contains(&child.id()), "{ours:?}");
    }
}
