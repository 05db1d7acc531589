//! Processes that end: bounded in time, stopped by Ctrl-C, killed by their id only.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sh;

const POLL: Duration = Duration::from_millis(10);

/// Whether a person has asked us to end (Ctrl-C, SIGTERM, SIGHUP).
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes over these signals for the rest of the program.
    pub(crate) fn on_signals() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        let set = Arc::clone(&flag);
        ctrlc::set_handler(move || set.store(true, Ordering::SeqCst)).context("cannot handle Ctrl-C")?;
        Ok(Self(flag))
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Fails when we are to end.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_wanted() {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// What a finished program left.
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` to its end, at most for `limit`.
pub(crate) fn finish(command: &mut Command, limit: Duration, stop: &Stop) -> Result<Finished> {
    // Files, not pipes: a full pipe would need a reader thread each.
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("cannot run `{}`", sh::shown(command)))?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if stop.is_wanted() || Instant::now() >= deadline {
            end(&mut child, Duration::from_secs(1));
            stop.check()?;
            bail!("`{}` did not end within {} s", sh::shown(command), limit.as_secs());
        }
        std::thread::sleep(POLL);
    };
    Ok(Finished { status, stdout: content(&mut stdout)?, stderr: content(&mut stderr)? })
}

/// Waits until `done` gives a value, at most for `limit`; `what` completes the sentence "… did not happen".
pub(crate) fn wait_for<T>(
    what: &str,
    limit: Duration,
    stop: &Stop,
    mut done: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        stop.check()?;
        if let Some(value) = done()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("{what} did not happen within {} s", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// Ends `child`: asks it first, and kills it after `grace`. A child of ours that was not reaped before has its id still.
pub(crate) fn end(child: &mut Child, grace: Duration) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    signal(child.id(), Signal::SIGTERM);
    let deadline = Instant::now() + grace;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(POLL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Sends `signal` to the process `pid`; one that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

fn content(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never() -> Stop {
        Stop(Arc::new(AtomicBool::new(false)))
    }

    #[test]
    fn a_program_is_run_to_its_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let finished = finish(&mut command, Duration::from_secs(10), &never()).unwrap();
        assert_eq!((finished.stdout.as_str(), finished.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(finished.status.code(), Some(3));
    }

    #[test]
    fn a_program_that_does_not_end_is_ended() {
        let mut command = Command::new("sleep");
        let outcome = finish(command.arg("60"), Duration::from_millis(50), &never());
        assert!(outcome.is_err());
        let stopped = Stop(Arc::new(AtomicBool::new(true)));
        let mut command = Command::new("sleep");
        let error = finish(command.arg("60"), Duration::from_secs(60), &stopped).err().unwrap();
        assert_eq!(error.to_string(), "interrupted");
    }
}
