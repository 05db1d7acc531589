//! What a process was started by, as far as its session goes: labels for people, never identity.
use procfs::process::Process;

use super::process::is_same;

/// How many are told.
const MOST: usize = 16;

/// How many bytes of a path are told.
const LONGEST: usize = 256;

/// The executables of the parent, its parent, and so on up to the leader of the session; none when the process leads its
/// session itself, as a service does, or is gone. A parent that ended is not told: its children got another one.
#[must_use]
pub(super) fn of(pid: u32, start_time_ns: u64) -> Vec<String> {
    let mut told = Vec::new();
    // A Process is an open folder: what is read through it is of one process for ever.
    let Some(mut process) = i32::try_from(pid).ok().and_then(|pid| Process::new(pid).ok()) else {
        return told;
    };
    let Ok(mut stat) = process.stat() else { return told };
    if !is_same(&process, start_time_ns) {
        return told;
    }
    let session = stat.session;
    while told.len() < MOST && stat.pid != session && stat.ppid > 0 {
        let Ok(parent) = Process::new(stat.ppid) else { break };
        let (Ok(its), Ok(exe)) = (parent.stat(), parent.exe()) else { break };
        // Read after the parent was opened: had that id gone to another process in between, the child would say so.
        let still = process.stat().is_ok_and(|now| now.ppid == stat.ppid);
        if !still || its.starttime > stat.starttime {
            break;
        }
        let path = exe.to_string_lossy();
        told.push(path.get(..path.floor_char_boundary(LONGEST)).unwrap_or_default().to_owned());
        (process, stat) = (parent, its);
    }
    told
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Command, Stdio},
    };

    use super::*;

    /// A session of its own: two shells, and below them a program that sleeps.
    #[test]
    fn the_executables_up_to_the_leader_of_the_session_are_told_and_none_beyond() {
        let script = "sh -c 'sleep 600 & echo $!; wait'; true";
        let mut session = Command::new("setsid")
            .args(["--wait", "bash", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(session.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid: u32 = line.trim().parse().unwrap();
        let process = Process::new(pid.cast_signed()).unwrap();
        let stat = process.stat().unwrap();
        let start = stat.starttime * (1_000_000_000 / crate::kernel::clock_ticks());
        let told = of(pid, start);
        let leader = Process::new(stat.session).unwrap().exe().unwrap();
        let strangers = (of(pid, start + 1_000_000_000), of(stat.session.cast_unsigned(), 0));
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(-stat.session),
            nix::sys::signal::Signal::SIGKILL,
        );
        session.wait().unwrap();
        assert!(matches!(told.len(), 1 | 2), "{told:?}");
        assert_eq!(told.last().map(String::as_str), leader.to_str(), "{told:?}");
        assert!(told.iter().all(|exe| exe.contains("sh")), "{told:?}");
        assert_eq!(strangers, (Vec::new(), Vec::new()), "another process of that id");
    }

    #[test]
    fn the_leader_of_a_session_has_no_ancestors() {
        let mut child = Command::new("setsid").args(["sleep", "60"]).spawn().unwrap();
        let process = Process::new(child.id().cast_signed()).unwrap();
        // setsid makes the session before it executes the program, unless it has to fork for it.
        let leads = (0..1_000_000).any(|_| process.stat().is_ok_and(|stat| stat.session == stat.pid));
        let start = process.stat().unwrap().starttime * (1_000_000_000 / crate::kernel::clock_ticks());
        let told = of(child.id(), start);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(leads);
        assert_eq!(told, Vec::<String>::new());
    }
}
