//! Runs a program of the operator for what it prints: no shell, nothing inherited, bounded in time and size.
//!
//! For everything that gets a secret from a program:
//! `Program::new(command).passing(&variables).within(timeout).running_as(user).run(None).await`, which gives what it printed.
//!
//! It is started from a thread of its own, which first gives up for itself what the program must not have: capabilities, and
//! the way to new ones (`no_new_privs`). The other threads keep theirs.
//!
//! Invariant: only root (and the user whom the daemon runs as) can change the program, what its `#!` names, or what stands at
//! these paths.
//! Invariant: when it has ended, was too slow or said too much, it is reaped, and nothing of its process group runs on.
//! Invariant: what it writes to its standard error is counted, and nobody sees it: it may have secrets in it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, User, geteuid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use tokio::sync::{Semaphore, oneshot};
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::kernel::keep_from_programs;
use crate::workload::writers;

/// How long a program may take unless something else is said.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// How much it may print unless something else is said.
pub(super) const MAX_OUTPUT_BYTES: usize = 64 * 1024;
/// How many run at the same time.
const MOST_AT_ONCE: usize = 16;
/// Links from one to the next, and interpreters of interpreters.
const MOST_STEPS: usize = 8;
/// What the kernel reads of a `#!` line (include/uapi/linux/binfmts.h).
const SCRIPT_LINE_BYTES: u64 = 256;
/// What is read at once.
const CHUNK_BYTES: usize = 4096;
/// Until a program that was killed is given up: one that hangs in the kernel.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(2);
/// How many lines of its standard error are counted.
const MOST_LINES: usize = 1000;

/// Those that run.
static AT_ONCE: Semaphore = Semaphore::const_new(MOST_AT_ONCE);

/// A program with its arguments, and what it is given. No `Debug`: an argument can be about somebody.
#[derive(Clone)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, OsString)>,
    timeout: Duration,
    most_bytes: usize,
    user: Option<String>,
}

/// Why a program gave nothing. For the operator: which one, what, what to do; nothing of what it printed, and no argument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Others could change it.
    #[error("the program {} is not run: {why}; only root may be able to change it", path.display())]
    NotTrusted {
        /// Which one.
        path: PathBuf,
        /// Who can, and how.
        why: String,
    },
    /// There is no such user, or the daemon may not become it.
    #[error("the program {} is not run: {why}", path.display())]
    NotAs {
        /// Which one.
        path: PathBuf,
        /// Whom, and what to do.
        why: String,
    },
    /// The system did not start it.
    #[error("the program {} could not be started: {why}", path.display())]
    NotStarted {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It took too long.
    #[error("the program {} took longer than {seconds} s and was ended", path.display())]
    TooSlow {
        /// Which one.
        path: PathBuf,
        /// How long it might have taken.
        seconds: u64,
    },
    /// It said too much.
    #[error("the program {} printed more than {bytes} bytes and was ended", path.display())]
    TooMuch {
        /// Which one.
        path: PathBuf,
        /// How much it might have said.
        bytes: usize,
    },
    /// It said that it failed.
    #[error("the program {} ended with {how}; it wrote {lines} to its standard error, which may have secrets in it \
             and is kept nowhere: run it by hand to see why", path.display())]
    Failed {
        /// Which one.
        path: PathBuf,
        /// Its status, or the signal.
        how: String,
        /// How much it wrote to its standard error.
        lines: String,
    },
}

impl Program {
    /// The first of `command` is the absolute path of the program; no shell reads the others.
    #[must_use]
    pub fn new(command: &[String]) -> Self {
        let (path, arguments) = command
            .split_first()
            .map_or((PathBuf::new(), Vec::new()), |(path, rest)| (PathBuf::from(path), rest.to_vec()));
        let (timeout, most_bytes) = (TIMEOUT, MAX_OUTPUT_BYTES);
        Self { path, arguments, environment: Vec::new(), timeout, most_bytes, user: None }
    }

    /// Passes on these variables of the daemon's environment, as far as they are there. It has no others.
    #[must_use]
    pub fn passing(mut self, variables: &[String]) -> Self {
        let there = variables.iter().filter_map(|name| Some((name.clone(), std::env::var_os(name)?)));
        self.environment.extend(there);
        self
    }

    /// Ends it after this.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Runs it as this user, by name, with the user's group and no others. Without one it runs as the daemon does; in both
    /// cases without any capability.
    #[must_use]
    pub fn running_as(self, user: Option<&str>) -> Self {
        Self { user: user.map(str::to_owned), ..self }
    }

    /// Runs it, gives `input` to its standard input (otherwise there is nothing in it), and returns what it printed. It ends
    /// also when nobody waits for it any more.
    ///
    /// # Errors
    /// [`ProgramError`].
    pub async fn run(&self, input: Option<Secret>) -> Result<Secret, ProgramError> {
        // The semaphore is never closed. Programs that hang in the kernel must not make all others wait for ever.
        let permit = tokio::time::timeout(self.timeout, AT_ONCE.acquire()).await;
        let permit = permit.map_err(|_| self.too_slow())?.ok();
        let (sender, receiver) = oneshot::channel();
        let (this, too_slow) = (self.clone(), self.too_slow());
        let thread = std::thread::Builder::new().name("vouchsafe-program".to_owned());
        let started = thread.spawn(move || {
            // Nobody waits when the caller has gone.
            drop(sender.send(this.execute(input.as_ref())));
            drop(permit);
        });
        started.map_err(|error| self.not_started(&error))?;
        match tokio::time::timeout(self.timeout + GIVEN_UP_AFTER, receiver).await {
            Ok(Ok(result)) => result,
            _ => Err(too_slow),
        }
    }

    /// In a thread that does nothing after this.
    fn execute(&self, input: Option<&Secret>) -> Result<Secret, ProgramError> {
        let user = self.user.as_deref().map(|name| self.known(name)).transpose()?;
        trusted(&self.path).map_err(|why| ProgramError::NotTrusted { path: self.path.clone(), why })?;
        // Root is who we are anyway, and needs no power to become it.
        let user = user.filter(|user| user.uid != geteuid());
        self.give_up_powers(user.is_some())?;
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).env_clear().envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.current_dir("/").process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        if let Some(user) = user {
            // Leaves all supplementary groups, too, when root sets it.
            command.gid(user.gid.as_raw()).uid(user.uid.as_raw());
        }
        keep_from_programs().map_err(|error| self.not_started(&error))?;
        let child = command.spawn().map_err(|error| self.not_started(&error))?;
        // Our own place before the out-of-memory killer is not its.
        drop(fs::write(format!("/proc/{}/oom_score_adj", child.id()), "0"));
        let mut running = Running { child, reaped: false };
        let (output, lines) = self.listen(&mut running, input)?;
        let status = running.reap().map_err(|error| self.not_started(&error))?;
        match status.success() {
            true => Ok(output),
            false => Err(self.failed(status, lines)),
        }
    }

    fn known(&self, name: &str) -> Result<User, ProgramError> {
        let not_as = |why: String| ProgramError::NotAs { path: self.path.clone(), why };
        let user = User::from_name(name).ok().flatten();
        let user = user.ok_or_else(|| not_as(format!("this host has no user {name}")))?;
        if user.uid != geteuid() && !geteuid().is_root() {
            return Err(not_as(format!("only root could run it as {name}, and the daemon is not root")));
        }
        Ok(user)
    }

    /// Takes from this thread, and so from what it starts, all capabilities but those that are needed to become somebody else;
    /// becoming somebody else takes these. With `no_new_privs` root does not get them back by executing something.
    fn give_up_powers(&self, becomes_other: bool) -> Result<(), ProgramError> {
        let failed = |error: rustix::io::Errno| self.not_started(&error.into());
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL;
        let kept = if becomes_other { needed } else { CapabilitySet::empty() };
        let had = capabilities(None).map_err(failed)?.permitted;
        if !had.contains(kept) {
            let why = "to run it as another user, the daemon needs CAP_SETUID, CAP_SETGID and CAP_KILL; add \
                       CapabilityBoundingSet=CAP_SETUID CAP_SETGID CAP_KILL to a drop-in of its unit";
            return Err(ProgramError::NotAs { path: self.path.clone(), why: why.to_owned() });
        }
        set_no_new_privs(true).map_err(failed)?;
        // Where memory is locked by that power and not by a limit, not even a stack can be had without it. What is not in the
        // bounding set of this thread is not in the program either.
        let locks = CapabilitySet::IPC_LOCK;
        let unlimited = getrlimit(Resource::RLIMIT_MEMLOCK).is_ok_and(|(soft, _)| soft == RLIM_INFINITY);
        let kept = match unlimited || !had.contains(locks) {
            true => kept,
            false => {
                // Only who has CAP_SETPCAP may; without it, a program that runs as root could lock memory, and no more.
                let _ = remove_capability_from_bounding_set(locks);
                kept | locks
            }
        };
        let inheritable = CapabilitySet::empty();
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
        set_capabilities(None, sets).map_err(failed)
    }

    /// Reads what it prints until it has ended, and counts the lines of its standard error.
    fn listen(&self, running: &mut Running, input: Option<&Secret>) -> Result<(Secret, usize), ProgramError> {
        let broke = |error: io::Error| self.not_started(&error);
        let deadline = Instant::now() + self.timeout;
        let ended = running.pidfd().map_err(broke)?;
        let mut stdout = running.child.stdout.take().map(OwnedFd::from).map(File::from);
        let mut stderr = running.child.stderr.take().map(OwnedFd::from).map(File::from);
        let mut stdin = running.child.stdin.take().zip(input.map(Secret::expose));
        for pipe in [&stdout, &stderr].into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true).map_err(|error| broke(error.into()))?;
        }
        if let Some((pipe, _)) = &stdin {
            rustix::io::ioctl_fionbio(pipe, true).map_err(|error| broke(error.into()))?;
        }
        // At its final size from the start: a buffer that grew would leave copies behind in freed memory.
        let mut output = Zeroizing::new(Vec::with_capacity(self.most_bytes.saturating_add(CHUNK_BYTES)));
        let mut chunk = Zeroizing::new([0; CHUNK_BYTES]);
        let mut lines = 0_usize;
        let mut has_ended = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.too_slow());
            }
            let mut any = false;
            if let Some(pipe) = &mut stdout {
                match read(pipe, &mut *chunk).map_err(broke)? {
                    Some([]) => stdout = None,
                    Some(bytes) => {
                        output.extend_from_slice(bytes);
                        any = true;
                    }
                    None => {}
                }
            }
            if output.len() > self.most_bytes {
                return Err(ProgramError::TooMuch { path: self.path.clone(), bytes: self.most_bytes });
            }
            if let Some(pipe) = &mut stderr {
                match read(pipe, &mut *chunk).map_err(broke)? {
                    Some([]) => stderr = None,
                    Some(bytes) => {
                        lines = lines.saturating_add(bytes.iter().filter(|byte| **byte == b'\n').count());
                        any = true;
                    }
                    None => {}
                }
            }
            stdin = stdin.and_then(|(mut pipe, rest)| write(&mut pipe, rest).map(|rest| (pipe, rest)));
            if any {
                continue;
            }
            if has_ended {
                // Whoever holds the pipes still has left its process group.
                return Ok((Secret::from(output), lines));
            }
            wait(&ended, stdout.as_ref(), stderr.as_ref(), stdin.as_ref().map(|(pipe, _)| pipe), left)
                .map_err(broke)?;
            if wait(&ended, None, None, None, Duration::ZERO).map_err(broke)? {
                has_ended = true;
                running.end_others();
            }
        }
    }

    fn not_started(&self, error: &io::Error) -> ProgramError {
        ProgramError::NotStarted { path: self.path.clone(), why: error.to_string() }
    }

    fn too_slow(&self) -> ProgramError {
        ProgramError::TooSlow { path: self.path.clone(), seconds: self.timeout.as_secs() }
    }

    fn failed(&self, status: ExitStatus, lines: usize) -> ProgramError {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        };
        let lines = match lines {
            0 => "no line".to_owned(),
            1 => "one line".to_owned(),
            lines if lines >= MOST_LINES => format!("{MOST_LINES} lines or more"),
            lines => format!("{lines} lines"),
        };
        ProgramError::Failed { path: self.path.clone(), how, lines }
    }
}

/// A program that runs, at the head of a process group of its own. Ends with all of it when it is dropped.
struct Running {
    child: Child,
    reaped: bool,
}

impl Running {
    /// Becomes readable when it has ended.
    fn pidfd(&self) -> io::Result<OwnedFd> {
        Ok(pidfd_open(rustix::process::Pid::from_child(&self.child), PidfdFlags::empty())?)
    }

    /// Ends its whole group. Until it is reaped nothing else can have its number.
    fn end_others(&self) {
        if let Ok(pid) = i32::try_from(self.child.id())
            && !self.reaped
        {
            // None is left when there is an error.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait()?;
        self.reaped = true;
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.end_others();
            drop(self.reap());
        }
    }
}

/// What can be read now: nothing more to come when it is empty, `None` when there is nothing yet.
fn read<'c>(pipe: &mut File, chunk: &'c mut [u8]) -> io::Result<Option<&'c [u8]>> {
    match pipe.read(chunk) {
        Ok(count) => Ok(Some(chunk.get(..count).unwrap_or_default())),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Writes what can be written now; `None` when all is written, or nobody reads it.
fn write<'i>(pipe: &mut ChildStdin, rest: &'i [u8]) -> Option<&'i [u8]> {
    match pipe.write(rest) {
        Ok(count) => rest.get(count..).filter(|rest| !rest.is_empty()),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Some(rest)
        }
        Err(_) => None,
    }
}

/// Waits until there is something to do; whether there is.
fn wait(
    ended: &OwnedFd,
    stdout: Option<&File>,
    stderr: Option<&File>,
    stdin: Option<&ChildStdin>,
    most: Duration,
) -> io::Result<bool> {
    let mut all = vec![PollFd::new(ended, PollFlags::IN)];
    all.extend([stdout, stderr].into_iter().flatten().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    all.extend(stdin.map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
    let timeout = Timespec::try_from(most).map_err(io::Error::other)?;
    match poll(&mut all, Some(&timeout)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Why others than root and the daemon's own user could have something else run in place of this program.
fn trusted(path: &Path) -> Result<(), String> {
    let mut path = path.to_owned();
    for _ in 0..MOST_STEPS {
        let Some(folder) = path.parent().filter(|_| path.is_absolute()) else {
            return Err(format!("{} is no absolute path", path.display()));
        };
        let us = geteuid().as_raw();
        if let Some(why) = writers::of_folder(folder, us) {
            return Err(why);
        }
        let cannot = |error: io::Error| format!("{} cannot be looked at: {error}", path.display());
        let meta = fs::symlink_metadata(&path).map_err(cannot)?;
        if meta.is_symlink() {
            path = folder.join(fs::read_link(&path).map_err(cannot)?);
            continue;
        }
        if !meta.is_file() || meta.mode() & 0o111 == 0 {
            return Err(format!("{} is not a program", path.display()));
        }
        let file = File::open(&path).map_err(cannot)?;
        if let Some(why) = writers::of_file(&file, &path, us) {
            return Err(why);
        }
        match interpreter(file).map_err(cannot)? {
            None => return Ok(()),
            Some(interpreter) => path = interpreter,
        }
    }
    Err(format!("{} leads too far", path.display()))
}

/// What the first line of a script names.
fn interpreter(file: File) -> io::Result<Option<PathBuf>> {
    let mut head = Vec::new();
    file.take(SCRIPT_LINE_BYTES).read_to_end(&mut head)?;
    let line = head.split(|byte| *byte == b'\n').next().and_then(|line| line.strip_prefix(b"#!"));
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let named = line.and_then(|line| line.split(blank).find(|word| !word.is_empty()));
    Ok(named.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned())))
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
