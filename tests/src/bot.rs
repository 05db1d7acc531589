//! Bots and other programs that a test runs: how they are started, what they said, and that they end.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::wait::{LIMIT, POLL};
use crate::world::World;

/// A bot about to run: an unmodified program with an empty environment but for the roots that it trusts.
pub struct Bot<'a> {
    world: &'a World,
    program: PathBuf,
    arguments: Vec<std::ffi::OsString>,
    environment: Vec<String>,
    cgroup: Option<String>,
    ids: Option<(u32, u32)>,
}

impl<'a> Bot<'a> {
    pub(crate) fn new(world: &'a World, program: &Path) -> Self {
        let program =
            if program.is_absolute() { program.to_owned() } else { world.path("bots").join(program) };
        let roots = world.path("bots.pem");
        let environment = ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"];
        let environment = environment.map(|name| format!("{name}={}", roots.display())).to_vec();
        Self { world, program, arguments: Vec::new(), environment, cgroup: Some("bots".into()), ids: None }
    }

    /// One argument more.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push(format!("{name}={value}"));
        self
    }

    /// Runs in this cgroup below the governed one, which is made when it is not there.
    #[must_use]
    pub fn cgroup(mut self, child: &str) -> Self {
        self.cgroup = Some(child.to_owned());
        self
    }

    /// Runs outside of the governed cgroup, in the same network.
    #[must_use]
    pub fn outside(mut self) -> Self {
        self.cgroup = None;
        self
    }

    /// Runs as this user and group.
    #[must_use]
    pub fn user(mut self, uid: u32, gid: u32) -> Self {
        self.ids = Some((uid, gid));
        self
    }

    /// The command, for what the methods here do not offer.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = self.world.enter(self.cgroup.as_deref());
        if let Some((uid, gid)) = self.ids {
            command.args(["setpriv", "--clear-groups"]);
            command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
        }
        command.args(["env", "-i", "PATH=/usr/bin:/bin"]).args(&self.environment);
        command.arg(&self.program).args(&self.arguments);
        command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Finished {
        finish(&mut self.command())
    }

    /// Starts it, with a pipe to its stdin and one from its stdout.
    #[track_caller]
    pub fn spawn(self) -> Running {
        let mut command = self.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        Running::of(command.spawn().unwrap())
    }

    /// Runs it as a curl with these arguments and reads its answer.
    #[track_caller]
    pub fn curl(self, arguments: &[&str]) -> Answer {
        let shape = "\n%{http_code} %{http_version} %{content_type}";
        let finished = self.args(["-sS", "--max-time", "25", "-w", shape]).args(arguments).run();
        let (body, line) = finished.stdout.rsplit_once('\n').unwrap_or(("", "000 0"));
        let mut words = line.splitn(3, ' ');
        Answer {
            status: words.next().and_then(|word| word.parse().ok()).unwrap_or(0),
            version: words.next().unwrap_or_default().to_owned(),
            content_type: words.next().unwrap_or_default().to_owned(),
            body: body.to_owned(),
            code: finished.code,
            stderr: finished.stderr.clone(),
        }
    }
}

/// What curl got.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status; 0 when there was no answer.
    pub status: u16,
    /// `1.1` or `2`.
    pub version: String,
    /// The type of the body.
    pub content_type: String,
    /// The body, when it is a text.
    pub body: String,
    /// curl's exit code.
    pub code: Option<i32>,
    /// What curl complained about.
    pub stderr: String,
}

impl Answer {
    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The journal id that a refusal names.
    #[must_use]
    pub fn journal_id(&self) -> Option<String> {
        Some(self.json()["instance"].as_str()?.strip_prefix("urn:uuid:")?.to_owned())
    }
}

/// What a program left that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The exit code; None when a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Finished {
    /// Stdout as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_default()
    }
}

/// Runs a command to its end; panics when it hangs.
#[track_caller]
pub fn finish(command: &mut Command) -> Finished {
    // Files, not pipes: a full pipe would need a reader thread each.
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null());
    command.stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    let mut running = Running::of(command.spawn().unwrap());
    let code = running.wait();
    Finished { code, stdout: content(&mut stdout), stderr: content(&mut stderr) }
}

fn content(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program that runs; dropping it ends it.
pub struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn of(mut child: Child) -> Self {
        Self { stdin: child.stdin.take(), stdout: child.stdout.take().map(BufReader::new), child }
    }

    /// Its process id: everything that stands before a bot executes it in the same process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal; one that has ended is no error.
    pub fn signal(&self, signal: Signal) {
        // Not reaped before we do it, so the id is still its own.
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// Writes a line to its stdin.
    pub fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("it has no stdin of ours");
        writeln!(stdin, "{line}").unwrap();
    }

    /// The next line of its stdout; empty at the end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().expect("it has no stdout of ours").read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Everything that is left of its stdout, to the end.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stdin = None;
        self.stdout.as_mut().expect("it has no stdout of ours").read_to_string(&mut rest).unwrap();
        rest
    }

    /// Waits for its end; panics when it hangs. Returns the exit code, None after a signal.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        self.stdin = None;
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "a program did not end within {} s", LIMIT.as_secs());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_alive() {
            return;
        }
        // nginx takes its workers along only when it is asked; what is left after that, the world's cgroup names.
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + std::time::Duration::from_secs(2);
        while self.is_alive() && Instant::now() < deadline {
            std::thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
