//! The proxy on a stage: its configuration, its start, its command line, and its end.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Stage, process};
use crate::sh;

/// A command of the proxy that takes longer than this hangs.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// Waits for a line, and becomes what it is given.
const BECOME: &str = "read _ && exec \"$@\" </dev/null";

/// Where the daemon listens for IPv4, in the stage's network.
pub(crate) const LISTEN: &str = "127.0.0.1:15001";

/// What the daemon is started with. Its policies are in `policies` on the stage.
pub(crate) struct Setup<'a> {
    /// The binary.
    pub(crate) binary: &'a Path,
    /// The directory for journal, CA and secrets.
    pub(crate) state: &'a Path,
    /// The CA of the API server (PEM).
    pub(crate) api_ca: &'a str,
    /// The secret's name in the store, and the secret.
    pub(crate) secret: (&'a str, &'a str),
    /// What every governed program may reach past the proxy.
    pub(crate) network: &'a [String],
}

/// A running daemon.
pub(crate) struct Daemon<'a> {
    stage: &'a Stage,
    binary: PathBuf,
    state: PathBuf,
    pub(crate) config: PathBuf,
    running: Option<Child>,
    /// Where it says that it is ready, until it has: what it says later must not wait for somebody to hear it.
    socket: Option<UnixDatagram>,
}

impl<'a> Daemon<'a> {
    /// Puts the secret into the store, starts the daemon and waits until it says that it is ready. What bots are to trust
    /// is then in `bots.pem`.
    pub(crate) fn start(stage: &'a Stage, setup: &Setup<'_>) -> Result<Self> {
        stage.write("api-ca.pem", setup.api_ca, 0o644)?;
        let config = stage.write("vouchsafe.toml", &configuration(stage, setup), 0o600)?;
        let (binary, state) = (setup.binary.to_path_buf(), setup.state.to_path_buf());
        let mut daemon = Self { stage, binary, state, config, running: None, socket: None };
        let (name, secret) = setup.secret;
        daemon.store(name, secret)?;
        daemon.begin()?;
        daemon.wait()?;
        let bundle = daemon.run(&["ca", "export", "--bundle"])?;
        stage.write("bots.pem", &bundle, 0o644)?;
        Ok(daemon)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Child::id)
    }

    /// A command of the proxy.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        match arguments {
            // The journal is read from its files, without the daemon and its configuration.
            ["audit", "verify"] => command.args(arguments).arg(self.state.join("journal")),
            ["audit", ..] => command.args(arguments).arg("--dir").arg(self.state.join("journal")),
            // The option belongs to the first word of `secret set NAME`.
            [first, rest @ ..] => command.arg(first).arg("--config").arg(&self.config).args(rest),
            [] => &mut command,
        };
        command
    }

    /// Runs a command of the proxy and returns what it prints.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(arguments);
        let finished = process::finish(&mut command, COMMAND_LIMIT, &self.stage.stop)?;
        if !finished.status.success() {
            let said = format!("{}{}", finished.stdout, finished.stderr);
            bail!("`{}` failed ({}): {}", sh::shown(&command), finished.status, said.trim());
        }
        Ok(finished.stdout)
    }

    /// Hands a secret to the store, from standard input: arguments can be seen by everyone.
    fn store(&self, name: &str, secret: &str) -> Result<()> {
        let mut command = self.command(&["secret", "set", name]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(secret.as_bytes()).context("cannot hand the key to the store")?;
        }
        let status = child.wait()?;
        ensure!(status.success(), "`{}` failed ({status}); see above", sh::shown(&command));
        Ok(())
    }

    /// Starts the daemon in its cgroup; the moment is that of its start. To get where it belongs takes longer than a quarter of a start,
    /// so a shell goes there first, and becomes the daemon when it is told to.
    pub(crate) fn begin(&mut self) -> Result<Instant> {
        let log = fs::File::options().create(true).append(true).open(self.stage.path("proxy.log"))?;
        let path = self.stage.path("notify");
        let _ = fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).context("cannot bind the notification socket")?;
        socket.set_nonblocking(true)?;
        self.socket = Some(socket);
        let mut notify = std::ffi::OsString::from("NOTIFY_SOCKET=");
        notify.push(path);
        let mut command = self.stage.enter(Some("proxy"));
        command
            .args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
            .arg(notify)
            .args(["sh", "-c", BECOME, "sh"])
            .arg(&self.binary)
            .args(["run", "--config"])
            .arg(&self.config)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C of the terminal is for us; we end the daemon when its turn comes.
            .process_group(0);
        let child = self.running.insert(command.spawn().context("cannot start the daemon")?);
        let mut input = child.stdin.take().context("the shell that becomes the daemon has no input")?;
        let place = format!("/proc/{}/cmdline", child.id());
        process::wait_for("the place of the daemon", COMMAND_LIMIT, &self.stage.stop, || {
            ensure!(child.try_wait()?.is_none(), "what puts the daemon in its place ended");
            let is_there = |line: &[u8]| line.starts_with(b"sh\0-c\0read");
            Ok(fs::read(&place).is_ok_and(|line| is_there(&line)).then_some(()))
        })?;
        let begun = Instant::now();
        input.write_all(b"\n").context("the shell that becomes the daemon does not listen")?;
        Ok(begun)
    }

    /// Waits for its notification (sd_notify(3)), as systemd would.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let socket = self.socket.take().context("the proxy was not started")?;
        let Self { stage, running, .. } = self;
        process::wait_for("the start of the proxy", Duration::from_secs(30), &stage.stop, || {
            if let Some(child) = running
                && let Some(status) = child.try_wait()?
            {
                bail!("the proxy ended while it started ({status})");
            }
            let mut message = [0; 4096];
            let length = socket.recv(&mut message).unwrap_or(0);
            let message = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
            Ok(message.lines().any(|line| line == "READY=1").then_some(()))
        })
    }

    /// Ends the daemon; what it attached stays.
    pub(crate) fn end(&mut self) {
        if let Some(mut child) = self.running.take() {
            process::end(&mut child, Duration::from_secs(5));
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        self.end();
        // What the daemon pinned outlives it by design; the stage's pins must not.
        let mut command = self.command(&["detach"]);
        if !sh::succeeds(&mut command) {
            println!("`{}` failed; removing the pins by hand", sh::shown(&command));
        }
    }
}

fn configuration(stage: &Stage, setup: &Setup<'_>) -> String {
    let path = |name: &str| stage.path(name).display().to_string();
    format!(
        r#"policies = "{policies}"
state = "{state}"
runtime = "{runtime}"
unidentified = "deny"

[kernel]
cgroup = "{cgroup}"
ports = [80, 443]
pin = "{pin}"

[network]
allow = {network:?}

[listen]
ipv4 = "{LISTEN}"
ipv6 = "[::1]:15001"

[upstream]
roots = ["{roots}"]

[journal]
journald = ""

[control]
group = "root"
"#,
        policies = path("policies"),
        state = setup.state.display(),
        network = setup.network,
        runtime = path("run"),
        cgroup = stage.governed.display(),
        pin = stage.pins().display(),
        roots = path("api-ca.pem"),
    )
}
