//! The daemon of a world: its configuration, its life, its command line and its journal.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::api::pki;
use crate::bot::{Finished, Running, finish};
use crate::host;
use crate::wait::wait_until;
use crate::world::World;

impl World {
    pub(crate) fn default_settings(&self) {
        let text = |path: PathBuf| format!("\"{}\"", path.display());
        self.write("api-ca.pem", &pki().ca);
        for (key, value) in [
            ("policies", text(self.path("etc"))),
            ("state", text(self.path("state"))),
            ("runtime", text(self.path("run"))),
            ("kernel.cgroup", text(self.governed())),
            ("kernel.unit_root", format!("\"{}\"", self.governed_path())),
            ("kernel.pin", text(self.pins())),
            ("upstream.roots", format!("[{}]", text(self.path("api-ca.pem")))),
            ("upstream.system_roots", "false".into()),
            ("journal.journald", "\"\"".into()),
            // Worlds are many, and some are on small disks.
            ("journal.reserve", "\"64 KiB\"".into()),
            ("control.group", "\"root\"".into()),
            ("log.level", "\"debug,aya=info,aya_obj=info,h2=info\"".into()),
        ] {
            self.set(key, &value);
        }
    }

    /// Sets a key of `vouchsafe.toml` (`log.level`) to a value as TOML writes it; takes effect at the next start.
    pub fn set(&self, key: &str, value: &str) {
        self.settings.borrow_mut().insert(key.into(), value.into());
        let mut top = String::new();
        let mut tables = String::new();
        let mut table = "";
        let settings = self.settings.borrow();
        for (key, value) in settings.iter() {
            match key.split_once('.') {
                None => writeln!(top, "{key} = {value}").unwrap(),
                Some((name, key)) => {
                    if name != table {
                        writeln!(tables, "\n[{name}]").unwrap();
                        table = name;
                    }
                    writeln!(tables, "{key} = {value}").unwrap();
                }
            }
        }
        self.write("vouchsafe.toml", &format!("{top}{tables}"));
    }

    /// Sets a variable of the daemon's environment, as its unit would; takes effect at the next start.
    pub fn variable(&self, name: &str, value: &str) {
        self.variables.borrow_mut().insert(name.into(), value.into());
    }

    /// Takes a variable away again; takes effect at the next start.
    pub fn without_variable(&self, name: &str) {
        self.variables.borrow_mut().remove(name);
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path("vouchsafe.toml")
    }

    /// `vouchsafe run` as this world starts it, without waiting for anything.
    #[must_use]
    pub fn daemon_command(&self) -> Command {
        let mut command = self.enter(Some("daemon"));
        command.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "RUST_BACKTRACE=1"]);
        command.arg(format!("NOTIFY_SOCKET={}", self.path("notify").display()));
        command.args(self.variables.borrow().iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(host::daemon()).args(["run", "--config"]).arg(self.config()).stdin(Stdio::null());
        command
    }

    /// Starts the daemon and waits until it says that it is ready (sd_notify(3)).
    #[track_caller]
    pub fn daemon(&self) {
        assert!(self.child.borrow().is_none(), "the daemon runs already");
        let notify = self.path("notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_nonblocking(true).unwrap();
        let log = fs::File::options().create(true).append(true).open(self.path("daemon.log")).unwrap();
        let mut command = self.daemon_command();
        let mut child = Running::of(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        wait_until("the start of the daemon", || {
            assert!(child.is_alive(), "the daemon ended while it started");
            let mut message = [0; 4096];
            let length = socket.recv(&mut message).unwrap_or(0);
            let message = String::from_utf8_lossy(&message[..length]).into_owned();
            message.lines().any(|line| line == "READY=1").then_some(())
        });
        *self.child.borrow_mut() = Some(child);
        self.trust();
    }

    /// Gives bots what they must trust now, as `vouchsafe trust refresh` does: the proxy; and the server itself, for connections that
    /// pass through.
    #[track_caller]
    pub fn trust(&self) {
        let bundle = self.vouchsafe(&["ca", "export"]);
        assert_eq!(bundle.code, Some(0), "{bundle:?}");
        let whole = format!("{}{}", bundle.stdout, pki().ca);
        if fs::read_to_string(self.path("bots.pem")).is_ok_and(|there| there == whole) {
            return;
        }
        // Whole at once: a bot may just be reading it.
        let new = self.write("bots.pem.new", &whole);
        fs::rename(new, self.path("bots.pem")).unwrap();
    }

    /// Runs a daemon that must not start, and returns what it said.
    #[track_caller]
    pub fn start_fails(&self) -> String {
        let finished = finish(&mut self.daemon_command());
        assert_eq!(finished.code, Some(1), "the daemon should have refused to start: {finished:?}");
        finished.stderr
    }

    /// Process id of the running daemon.
    #[must_use]
    pub fn daemon_pid(&self) -> u32 {
        self.child.borrow().as_ref().expect("no daemon runs").pid()
    }

    /// Sends the daemon a signal.
    pub fn signal(&self, signal: Signal) {
        self.child.borrow().as_ref().expect("no daemon runs").signal(signal);
    }

    /// Kills the daemon with -9 and waits for its end.
    pub fn kill9(&self) {
        let mut child = self.child.borrow_mut().take().expect("no daemon runs");
        child.signal(Signal::SIGKILL);
        child.wait();
    }

    /// Ends the daemon as systemd does, waits for its end, and returns its exit code.
    #[track_caller]
    pub fn terminate(&self) -> Option<i32> {
        let mut child = self.child.borrow_mut().take().expect("no daemon runs");
        child.signal(Signal::SIGTERM);
        child.wait()
    }

    /// Waits for the end of a daemon that ends by itself, and returns its exit code.
    #[track_caller]
    pub fn ended(&self) -> Option<i32> {
        self.child.borrow_mut().take().expect("no daemon runs").wait()
    }

    /// Ends the daemon and starts it again.
    #[track_caller]
    pub fn restart(&self) {
        assert_eq!(self.terminate(), Some(0));
        self.daemon();
    }

    /// SIGHUP, and waits until what it loaded is live: `generation` is what `status` must show then.
    #[track_caller]
    pub fn hangup(&self, generation: u64) {
        self.signal(Signal::SIGHUP);
        self.wait_for_generation(generation);
    }

    /// Waits until this generation of the policy is live.
    #[track_caller]
    pub fn wait_for_generation(&self, generation: u64) {
        wait_until(&format!("generation {generation} of the policy"), || {
            (self.status()["policy"]["generation"] == generation).then_some(())
        });
        self.trust();
    }

    /// `vouchsafe reload`.
    pub fn reload(&self) -> Finished {
        let reloaded = self.vouchsafe(&["reload"]);
        self.trust();
        reloaded
    }

    /// A command of the command line, with this world's configuration or journal, in the world's network.
    #[must_use]
    pub fn vouchsafe_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.enter(None);
        command.arg(host::daemon());
        let journal = self.path("state/journal");
        match arguments {
            ["audit", "key", "rotate"] => command.args(arguments).arg("--config").arg(self.config()),
            // What names its own files.
            ["audit", "verify", "--proof", ..] | ["audit", "verify", "--", ..] => command.args(arguments),
            ["audit", "verify", ..] => command.args(arguments).arg(journal),
            ["audit", "fingerprint"] => command.args(arguments).arg("--config").arg(self.config()),
            ["audit", ..] => command.args(arguments).arg("--dir").arg(journal),
            ["check", ..] | ["policy", "check" | "test" | "add", ..] | [] => command.args(arguments),
            // The option belongs to the first word of `secret set NAME`.
            [first, rest @ ..] => command.arg(first).arg("--config").arg(self.config()).args(rest),
        };
        command
    }

    /// Runs a command of the command line.
    pub fn vouchsafe(&self, arguments: &[&str]) -> Finished {
        finish(&mut self.vouchsafe_command(arguments))
    }

    /// Stores a secret, from standard input.
    #[track_caller]
    pub fn secret(&self, name: &str, value: &str) {
        let mut command = self.vouchsafe_command(&["secret", "set", name]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(value.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// `vouchsafe status --json`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let finished = self.vouchsafe(&["status", "--json"]);
        serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("no status: {finished:?}"))
    }

    /// A counter of the kernel side, by name.
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        let status = self.status();
        let counters = status["kernel"]["counters"].as_array().unwrap();
        let counter = counters.iter().find(|counter| counter[0] == name);
        counter.unwrap_or_else(|| panic!("no counter {name}"))[1].as_u64().unwrap()
    }

    /// What the daemons of this world wrote to stdout and stderr.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }

    /// The records of the journal, in order, as JSON objects with their `seq`, `time`, `kind` and fields.
    #[must_use]
    pub fn journal(&self) -> Vec<Value> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.path("state/journal"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.retain(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("journal-") && name.ends_with(".jsonl")
        });
        files.sort();
        let text: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        // The last line may be in the middle of being written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the last record of this kind that `is_it` holds for.
    #[track_caller]
    pub fn record(&self, kind: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        wait_until(&format!("a record of kind {kind}"), || {
            self.journal().into_iter().rev().find(|record| record["kind"] == kind && is_it(record))
        })
    }

    /// The last decision about this path (of a refused connection: about none), waited for.
    #[track_caller]
    pub fn decision(&self, path: Option<&str>) -> Value {
        self.record("decision", |record| record.get("path").and_then(Value::as_str) == path)
    }
}
