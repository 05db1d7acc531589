//! The proxy of the demo: its configuration, its start, and its command line.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::process;
use super::server::{HOST, Server};
use super::stage::Stage;
use crate::sh;

/// The name of the secret; the credential in `policies/demo` names it.
const SECRET: &str = "demo-key";
/// A command of the proxy that takes longer than this hangs.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// A running proxy.
pub(super) struct Proxy<'a> {
    stage: &'a Stage,
    daemon: PathBuf,
    pub(super) config: PathBuf,
    running: Option<Child>,
}

impl<'a> Proxy<'a> {
    /// Puts the key into the store, starts the daemon and waits until it says that it is ready.
    pub(super) fn start(stage: &'a Stage, daemon: &Path, policies: &Path, server: &Server) -> Result<Self> {
        ensure!(
            policies.is_dir(),
            "{} is missing; the demo needs its policies: take a complete clone",
            policies.display()
        );
        // A copy: the daemon takes policies only from files that nobody but root can write.
        copy_tree(policies, &stage.path("policies"))?;
        stage.write("api-ca.pem", &server.ca, 0o644)?;
        let config = stage.write("vouchsafe.toml", &configuration(stage), 0o600)?;
        let mut proxy = Self { stage, daemon: daemon.to_path_buf(), config, running: None };
        proxy.store(&server.key)?;
        proxy.launch()?;
        let bundle = proxy.run(&["ca", "export", "--bundle"])?;
        stage.write("bots.pem", &bundle, 0o644)?;
        Ok(proxy)
    }

    /// Shows a command of the proxy and what it prints.
    pub(super) fn show(&self, title: &str, arguments: &[&str]) -> Result<()> {
        println!("\n{title}");
        println!("  $ {}", self.shown(arguments));
        let output = self.run(arguments)?;
        output.lines().for_each(|line| println!("  {line}"));
        Ok(())
    }

    /// A command of the proxy as one would type it.
    pub(super) fn shown(&self, arguments: &[&str]) -> String {
        sh::shown(&self.command(arguments))
    }

    /// Waits until the journal shows `calls` calls: an outcome is recorded after the bot has its answer.
    pub(super) fn wait_for_records(&self, calls: usize) -> Result<()> {
        process::wait_for(
            "a line in the journal for each call",
            Duration::from_secs(5),
            &self.stage.stop,
            || {
                let shown = self.run(&["audit", "tail"])?;
                let found = shown.lines().filter(|line| line.contains(HOST)).count();
                Ok((found >= calls).then_some(()))
            },
        )
    }

    /// Fails when the key is in anything that the daemon wrote.
    pub(super) fn search_for_key(&self, server: &Server) -> Result<()> {
        let mut files = vec![self.stage.path("proxy.log")];
        for directory in ["state", "run"] {
            collect(&self.stage.path(directory), &mut files)?;
        }
        let mut read = 0;
        for path in files {
            // Sockets and what is gone by now cannot be read.
            let Ok(bytes) = fs::read(&path) else { continue };
            read += 1;
            let found = bytes.windows(server.key.len()).any(|part| part == server.key.as_bytes());
            ensure!(!found, "the key stands in clear text in {}", path.display());
        }
        println!("\nthe key is in none of the {read} files that the proxy wrote (log, journal, store, CA)");
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.daemon);
        match arguments {
            // The journal is read from its files, without the daemon and its configuration.
            ["audit", "verify"] => command.args(arguments).arg(self.stage.path("state/journal")),
            ["audit", ..] => command.args(arguments).arg("--dir").arg(self.stage.path("state/journal")),
            // The option belongs to the first word of `secret set NAME`.
            [first, rest @ ..] => command.arg(first).arg("--config").arg(&self.config).args(rest),
            [] => &mut command,
        };
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(arguments);
        let finished = process::finish(&mut command, COMMAND_LIMIT, &self.stage.stop)?;
        if !finished.status.success() {
            let said = format!("{}{}", finished.stdout, finished.stderr);
            bail!("`{}` failed ({}): {}", sh::shown(&command), finished.status, said.trim());
        }
        Ok(finished.stdout)
    }

    /// Hands the key to the store, from standard input: arguments can be seen by everyone.
    fn store(&self, key: &str) -> Result<()> {
        let mut command = self.command(&["secret", "set", SECRET]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", self.daemon.display()))?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(key.as_bytes()).context("cannot hand the key to the store")?;
        }
        let status = child.wait()?;
        ensure!(status.success(), "`{}` failed ({status}); see above", sh::shown(&command));
        Ok(())
    }

    /// Starts the daemon in its cgroup and waits for its notification (sd_notify(3)), as systemd would.
    fn launch(&mut self) -> Result<()> {
        let socket_path = self.stage.path("notify");
        let socket = UnixDatagram::bind(&socket_path).context("cannot bind the notification socket")?;
        socket.set_nonblocking(true)?;
        let log = fs::File::create(self.stage.path("proxy.log"))?;
        let mut notify = std::ffi::OsString::from("NOTIFY_SOCKET=");
        notify.push(&socket_path);
        let mut child = self
            .stage
            .enter(Some("proxy"))
            .args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
            .arg(notify)
            .arg(&self.daemon)
            .args(["run", "--config"])
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C of the terminal is for us; we end the daemon when its turn comes.
            .process_group(0)
            .spawn()
            .context("cannot start the daemon")?;
        let started =
            process::wait_for("the start of the proxy", Duration::from_secs(30), &self.stage.stop, || {
                if let Some(status) = child.try_wait()? {
                    bail!("the proxy ended while it started ({status})");
                }
                let mut message = [0; 4096];
                let length = socket.recv(&mut message).unwrap_or(0);
                let message = String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned();
                Ok(message.lines().any(|line| line == "READY=1").then_some(()))
            });
        self.running = Some(child);
        started
    }
}

impl Drop for Proxy<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.running {
            process::end(child, Duration::from_secs(5));
        }
        // What the daemon pinned outlives it by design; the demo's pins must not.
        let mut command = self.command(&["detach"]);
        if !sh::succeeds(&mut command) {
            println!("`{}` failed; removing the pins by hand", sh::shown(&command));
        }
    }
}

fn configuration(stage: &Stage) -> String {
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

[listen]
ipv4 = "127.0.0.1:15001"
ipv6 = "[::1]:15001"

[upstream]
roots = ["{roots}"]

[journal]
journald = ""

[control]
group = "root"
"#,
        policies = path("policies"),
        state = path("state"),
        runtime = path("run"),
        cgroup = stage.governed.display(),
        pin = stage.pins().display(),
        roots = path("api-ca.pem"),
    )
}

/// Copies a directory; what is made belongs to us and is written by nobody else.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                copy_tree(&entry.path(), &target).map_err(std::io::Error::other)?;
            } else {
                fs::write(&target, fs::read(entry.path())?)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o644))?;
            }
        }
        Ok(())
    };
    make().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// All files below `directory`.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_tree_is_written_by_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("apis")).unwrap();
        fs::write(from.join("apis/demo.toml"), "a").unwrap();
        fs::set_permissions(from.join("apis/demo.toml"), fs::Permissions::from_mode(0o666)).unwrap();
        copy_tree(&from, &to).unwrap();
        let copy = to.join("apis/demo.toml");
        assert_eq!(fs::read(&copy).unwrap(), b"a");
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }
}
