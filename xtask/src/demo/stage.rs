//! The place where the demo happens: a directory, a cgroup, a network namespace, and how all of it goes away again.
//!
//! * [`ROOT`] is a tmpfs: policies name the bots in it by path, and `/run` itself is often mounted without execution.
//! * The network namespace is held by a file in it, so the host's list of named namespaces is left alone.
//! * The cgroup has two children: the daemon attaches to `governed`, which holds `proxy` (the daemon) and `bots`; the API
//!   server and the client that is not governed are in `outside`.
//! * Pins of the daemon go below a directory with the same name as the cgroup.
//!
//! Invariant: [`tear_down`] needs only the name, so the next demo also removes what a killed one left.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use super::process::{self, Stop};
use super::server;
use crate::{sh, system};

/// The directory of the demo; the policies in `policies/demo` name it.
pub(super) const ROOT: &str = "/run/vouchsafe-demo";
const PINS: &str = "/sys/fs/bpf";
/// Where certificates of the system's roots are, on the distributions that we know.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// The stage; dropping it takes everything down.
pub(super) struct Stage {
    /// `vouchsafe-demo-<pid>`.
    name: String,
    /// The cgroup that the daemon attaches to.
    pub(super) governed: PathBuf,
    /// The cgroup of what the daemon must not see.
    outside: PathBuf,
    pub(super) stop: Stop,
    /// Started last, ended first.
    children: std::cell::RefCell<Vec<Child>>,
}

impl Stage {
    /// Sets the stage. What a demo that was killed has left is removed first.
    pub(super) fn set(stop: &Stop) -> Result<Self> {
        remove_leftovers()?;
        let name = format!("vouchsafe-demo-{}", std::process::id());
        let cgroup = system::cgroup2_mount()?.join(&name);
        let (governed, outside) = (cgroup.join("governed"), cgroup.join("outside"));
        // From here on, dropping it cleans up.
        let stage = Self { name, governed, outside, stop: stop.clone(), children: Vec::new().into() };
        fs::create_dir_all(ROOT).with_context(|| format!("cannot create {ROOT}"))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("vouchsafe-demo"), ROOT, Some("tmpfs"), flags, Some("mode=0755,size=256m"))
            .with_context(|| format!("cannot mount a tmpfs on {ROOT}"))?;
        stage.write("owner", &format!("{} {}\n", std::process::id(), stage.name), 0o644)?;
        for path in [&stage.governed.join("proxy"), &stage.governed.join("bots"), &stage.outside] {
            fs::create_dir_all(path)
                .with_context(|| format!("cannot create the cgroup {}", path.display()))?;
        }
        stage.make_network()?;
        stage.make_scripts()?;
        stage.make_bots()?;
        Ok(stage)
    }

    /// A path on the stage.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        Path::new(ROOT).join(name)
    }

    /// Writes a file on the stage.
    pub(super) fn write(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf> {
        let path = self.path(name);
        let write = || -> std::io::Result<()> {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Where the daemon pins its programs and maps.
    pub(super) fn pins(&self) -> PathBuf {
        Path::new(PINS).join(&self.name)
    }

    /// A command that runs in the demo's network and in this child of the governed cgroup, or (None) outside of it.
    pub(super) fn enter(&self, child: Option<&str>) -> Command {
        let mut command = Command::new(self.path("enter"));
        command.arg(child.map_or_else(|| self.outside.clone(), |child| self.governed.join(child)));
        command
    }

    /// Makes sure that `child` is ended when the stage is taken down.
    pub(super) fn adopt(&self, child: Child) {
        self.children.borrow_mut().push(child);
    }

    /// Prints the end of the daemon's and the server's logs, for a demo that failed.
    pub(super) fn show_log(&self) {
        for name in ["proxy.log", "nginx-error.log"] {
            let Ok(text) = fs::read_to_string(self.path(name)) else { continue };
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default();
            if !last.is_empty() {
                println!("\nthe end of {ROOT}/{name}:");
                last.iter().for_each(|line| println!("  {line}"));
            }
        }
    }

    fn make_network(&self) -> Result<()> {
        let holder = self.write("net", "", 0o600)?;
        let mut net = std::ffi::OsString::from("--net=");
        net.push(&holder);
        quietly(Command::new("unshare").arg(&net).arg("true"))?;
        let address = format!("{}/32", server::ADDRESS);
        for arguments in [vec!["link", "set", "lo", "up"], vec!["addr", "add", &address, "dev", "lo"]] {
            quietly(Command::new("nsenter").arg(&net).arg("ip").args(arguments))?;
        }
        self.write("hosts", &format!("127.0.0.1 localhost\n{} {}\n", server::ADDRESS, server::HOST), 0o644)?;
        Ok(())
    }

    /// The scripts that put programs where they belong; a person can use them too (`demo --keep`).
    fn make_scripts(&self) -> Result<()> {
        let enter = format!(
            r#"#!/bin/sh
# enter CGROUP PROGRAM…: run a program in a cgroup and in the demo's network.
set -e
echo $$ > "$1/cgroup.procs"
shift
exec nsenter --net={ROOT}/net unshare --mount --propagation slave \
    sh -c 'mount --bind {ROOT}/hosts /etc/hosts && exec "$@"' sh "$@"
"#
        );
        self.write("enter", &enter, 0o755)?;
        // A bot is not changed; like a drop-in of an operator, its surroundings name the roots to trust.
        for (name, cgroup, path, roots) in [
            ("as-bot", self.governed.join("bots"), format!("{ROOT}/bots:"), "bots.pem"),
            ("outside", self.outside.clone(), String::new(), "outside.pem"),
        ] {
            let script = format!(
                "#!/bin/sh\n# {name} PROGRAM…: run a program with an empty environment but for its roots.\n\
                 exec {ROOT}/enter {} env -i PATH={path}/usr/bin:/bin CURL_HOME={ROOT} \\\n    \
                 SSL_CERT_FILE={ROOT}/{roots} CURL_CA_BUNDLE={ROOT}/{roots} \"$@\"\n",
                cgroup.display()
            );
            self.write(name, &script, 0o755)?;
        }
        // So that curl's command lines can be as short as a person would type them.
        let curlrc = "silent\nshow-error\nmax-time = 20\nwrite-out = \" [%{http_code}]\\n\"\n";
        self.write(".curlrc", curlrc, 0o644)?;
        Ok(())
    }

    /// The programs of the bots: copies, so that policies can name programs that nothing else runs.
    fn make_bots(&self) -> Result<()> {
        for (from, to) in [
            ("/usr/bin/curl", "bots/curl"),
            ("/usr/bin/python3", "bots/python3"),
            ("/usr/bin/curl", "elsewhere/curl"),
        ] {
            let to = self.path(to);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(from, &to).with_context(|| format!("cannot copy {from} to {}", to.display()))?;
        }
        self.write("invoices.py", include_str!("invoices.py"), 0o755)?;
        Ok(())
    }

    /// Writes the roots that programs trust: the system's and `ours` (PEM).
    pub(super) fn write_roots(&self, name: &str, ours: &str) -> Result<()> {
        let system = SYSTEM_ROOTS.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        self.write(name, &format!("{system}\n{ours}\n"), 0o644).map(drop)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        while let Some(mut child) = self.children.borrow_mut().pop() {
            process::end(&mut child, Duration::from_secs(5));
        }
        for problem in tear_down(&self.name) {
            println!("cannot clean up: {problem}");
        }
    }
}

/// Removes what a demo that was killed has left; fails when one is running.
fn remove_leftovers() -> Result<()> {
    let Ok(owner) = fs::read_to_string(Path::new(ROOT).join("owner")) else { return Ok(()) };
    let Some((pid, name)) = owner.trim().split_once(' ') else { return Ok(()) };
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    if program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("xtask")) {
        bail!("another demo is running (pid {pid}); end it first: kill {pid}");
    }
    if !name.starts_with("vouchsafe-demo-") || name.contains('/') {
        bail!("{ROOT}/owner names no demo; remove {ROOT} and try again");
    }
    println!("removing what the demo with pid {pid} has left");
    match tear_down(name).first() {
        Some(problem) => bail!("cannot remove it: {problem}"),
        None => Ok(()),
    }
}

/// Removes cgroup, pins, network namespace and directory of the demo `name`; returns what could not be removed.
fn tear_down(name: &str) -> Vec<String> {
    let mut problems = Vec::new();
    if let Ok(mount) = system::cgroup2_mount() {
        let cgroup = mount.join(name);
        for child in ["governed/bots", "governed/proxy", "governed", "outside", ""] {
            let path = cgroup.join(child);
            if let Err(error) = remove_cgroup(&path) {
                problems.push(format!("the cgroup {}: {error}; remove it with rmdir", path.display()));
            }
        }
    }
    let pins = Path::new(PINS).join(name);
    if let Err(error) = remove_if_there(fs::remove_dir_all(&pins)) {
        problems.push(format!("the pins {}: {error}; remove them with rm -r", pins.display()));
    }
    // Whatever still holds them lets go by itself: its processes are gone.
    for path in [Path::new(ROOT).join("net"), PathBuf::from(ROOT)] {
        let _ = umount2(&path, MntFlags::MNT_DETACH);
    }
    if let Err(error) = remove_if_there(fs::remove_dir(ROOT)) {
        problems.push(format!("{ROOT}: {error}; unmount it and remove it with rmdir"));
    }
    problems
}

/// Kills what is in a cgroup of ours and removes it.
fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    let mut last = remove_if_there(fs::remove_dir(path));
    for _ in 0..300 {
        if last.is_ok() {
            break;
        }
        for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
            if let Ok(pid) = pid.parse() {
                process::signal(pid, Signal::SIGKILL);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
        last = remove_if_there(fs::remove_dir(path));
    }
    last
}

fn remove_if_there(outcome: std::io::Result<()>) -> std::io::Result<()> {
    match outcome {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Runs a command of the stage without showing it.
pub(super) fn quietly(command: &mut Command) -> Result<()> {
    sh::capture(command).map(drop)
}
