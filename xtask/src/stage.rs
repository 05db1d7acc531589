//! The place where a demo or a bench happens: a directory, a cgroup, a network namespace, and how all of it goes away.
//!
//! * The directory is a tmpfs: policies name the bots in it by path, and `/run` itself is often mounted without
//!   execution.
//! * The network namespace is held by a file in it, so the host's list of named namespaces is left alone.
//! * The cgroup has two children: the daemon attaches to `governed`, which holds `proxy` (the daemon) and `bots`; the API
//!   server and the client that is not governed are in `outside`.
//! * Pins of the daemon go below a directory with the same name as the cgroup.
//!
//! [`process`] runs programs in bounded time, [`nginx`] is the API server, [`daemon`] the proxy.
//!
//! Invariant: [`tear_down`] needs only the name, so the next one also removes what a killed one left.

pub(crate) mod daemon;
pub(crate) mod nginx;
pub(crate) mod process;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use crate::paths::Paths;
use crate::{sh, system};

use process::Stop;

const PINS: &str = "/sys/fs/bpf";
/// Where certificates of the system's roots are, on the distributions that we know.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// What a stage is for, and what is on it.
pub(crate) struct Plan {
    /// `demo` or `bench`; the directory of the stage is [`root`] of it.
    pub(crate) kind: &'static str,
    /// Addresses of API servers and their hosts, one to one.
    pub(crate) hosts: &'static [(&'static str, &'static str)],
    /// Programs that are copied to the stage: (name or path, path on the stage). A copy has policies of its own.
    pub(crate) programs: &'static [(&'static str, &'static str)],
}

/// The stage; dropping it takes everything down.
pub(crate) struct Stage {
    kind: &'static str,
    /// `vouchsafe-<kind>-<pid>`.
    name: String,
    root: PathBuf,
    /// The cgroup that the daemon attaches to.
    pub(crate) governed: PathBuf,
    /// The cgroup of what the daemon must not see.
    outside: PathBuf,
    pub(crate) stop: Stop,
    /// Started last, ended first.
    children: std::cell::RefCell<Vec<Child>>,
}

impl Stage {
    /// Sets the stage. What one that was killed has left is removed first.
    pub(crate) fn set(plan: &Plan, stop: &Stop) -> Result<Self> {
        let kind = plan.kind;
        remove_leftovers(kind)?;
        let name = format!("vouchsafe-{kind}-{}", std::process::id());
        let cgroup = system::cgroup2_mount()?.join(&name);
        let (governed, outside) = (cgroup.join("governed"), cgroup.join("outside"));
        // From here on, dropping it cleans up.
        let (stop, children) = (stop.clone(), Vec::new().into());
        let stage = Self { kind, name, root: root(kind), governed, outside, stop, children };
        fs::create_dir_all(&stage.root).with_context(|| format!("cannot create {}", stage.root.display()))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("vouchsafe"), &stage.root, Some("tmpfs"), flags, Some("mode=0755,size=256m"))
            .with_context(|| format!("cannot mount a tmpfs on {}", stage.root.display()))?;
        stage.write("owner", &format!("{} {}\n", std::process::id(), stage.name), 0o644)?;
        for path in [&stage.governed.join("proxy"), &stage.governed.join("bots"), &stage.outside] {
            fs::create_dir_all(path)
                .with_context(|| format!("cannot create the cgroup {}", path.display()))?;
        }
        stage.make_network(plan.hosts)?;
        stage.make_scripts()?;
        stage.copy_programs(plan.programs)?;
        Ok(stage)
    }

    /// A path on the stage.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Writes a file on the stage.
    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf> {
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
    pub(crate) fn pins(&self) -> PathBuf {
        Path::new(PINS).join(&self.name)
    }

    /// A command that runs in the stage's network and in this child of the governed cgroup, or (None) outside of it.
    pub(crate) fn enter(&self, child: Option<&str>) -> Command {
        let mut command = Command::new(self.path("enter"));
        command.arg(child.map_or_else(|| self.outside.clone(), |child| self.governed.join(child)));
        command
    }

    /// Makes sure that `child` is ended when the stage is taken down.
    pub(crate) fn adopt(&self, child: Child) {
        self.children.borrow_mut().push(child);
    }

    /// Prints the end of the daemon's and the server's logs, for what failed.
    pub(crate) fn show_log(&self) {
        for name in ["proxy.log", nginx::ERRORS] {
            let Ok(text) = fs::read_to_string(self.path(name)) else { continue };
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default();
            if !last.is_empty() {
                println!("\nthe end of {}:", self.path(name).display());
                last.iter().for_each(|line| println!("  {line}"));
            }
        }
    }

    fn make_network(&self, hosts: &[(&str, &str)]) -> Result<()> {
        let holder = self.write("net", "", 0o600)?;
        let mut net = std::ffi::OsString::from("--net=");
        net.push(&holder);
        quietly(Command::new("unshare").arg(&net).arg("true"))?;
        let inside =
            |arguments: &[&str]| quietly(Command::new("nsenter").arg(&net).arg("ip").args(arguments));
        inside(&["link", "set", "lo", "up"])?;
        let mut table = "127.0.0.1 localhost\n".to_owned();
        for (address, host) in hosts {
            inside(&["addr", "add", &format!("{address}/32"), "dev", "lo"])?;
            table.push_str(&format!("{address} {host}\n"));
        }
        self.write("hosts", &table, 0o644)?;
        Ok(())
    }

    /// The scripts that put programs where they belong; a person can use them too (`demo --keep`).
    fn make_scripts(&self) -> Result<()> {
        let root = self.root.display();
        let enter = format!(
            r#"#!/bin/sh
# enter CGROUP PROGRAM…: run a program in a cgroup and in the network of the stage.
set -e
echo $$ > "$1/cgroup.procs"
shift
exec nsenter --net={root}/net unshare --mount --propagation slave \
    sh -c 'mount --bind {root}/hosts /etc/hosts && exec "$@"' sh "$@"
"#
        );
        self.write("enter", &enter, 0o755)?;
        // A bot is not changed; like a drop-in of an operator, its surroundings name the roots to trust.
        for (name, cgroup, path, roots) in [
            ("as-bot", self.governed.join("bots"), format!("{root}/bots:"), "bots.pem"),
            ("outside", self.outside.clone(), String::new(), "outside.pem"),
        ] {
            let script = format!(
                "#!/bin/sh\n# {name} PROGRAM…: run a program with an empty environment but for its roots.\n\
                 exec {root}/enter {} env -i PATH={path}/usr/bin:/bin CURL_HOME={root} \\\n    \
                 SSL_CERT_FILE={root}/{roots} CURL_CA_BUNDLE={root}/{roots} \"$@\"\n",
                cgroup.display()
            );
            self.write(name, &script, 0o755)?;
        }
        // So that curl's command lines can be as short as a person would type them.
        let curlrc = "silent\nshow-error\nmax-time = 20\nwrite-out = \" [%{http_code}]\\n\"\n";
        self.write(".curlrc", curlrc, 0o644)?;
        Ok(())
    }

    fn copy_programs(&self, programs: &[(&str, &str)]) -> Result<()> {
        for (program, to) in programs {
            let from = sh::find_program(program).with_context(|| format!("{program} is not installed"))?;
            let to = self.path(to);
            if let Some(parent) = to.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::copy(&from, &to)
                .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
        Ok(())
    }

    /// Writes the roots that programs trust: the system's and `ours` (PEM).
    pub(crate) fn write_roots(&self, name: &str, ours: &str) -> Result<()> {
        let system = SYSTEM_ROOTS.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        self.write(name, &format!("{system}\n{ours}\n"), 0o644).map(drop)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        while let Some(mut child) = self.children.borrow_mut().pop() {
            process::end(&mut child, Duration::from_secs(5));
        }
        for problem in tear_down(self.kind, &self.name) {
            println!("cannot clean up: {problem}");
        }
    }
}

/// The directory of the stage for `kind`.
fn root(kind: &str) -> PathBuf {
    PathBuf::from(format!("/run/vouchsafe-{kind}"))
}

/// Removes what one that was killed has left; fails when one is running.
fn remove_leftovers(kind: &str) -> Result<()> {
    let root = root(kind);
    let Ok(owner) = fs::read_to_string(root.join("owner")) else { return Ok(()) };
    let Some((pid, name)) = owner.trim().split_once(' ') else { return Ok(()) };
    let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    if program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("xtask")) {
        bail!("another {kind} is running (pid {pid}); end it first: kill {pid}");
    }
    if !name.starts_with(&format!("vouchsafe-{kind}-")) || name.contains('/') {
        bail!("{0}/owner names no {kind}; remove {0} and try again", root.display());
    }
    println!("removing what the {kind} with pid {pid} has left");
    match tear_down(kind, name).first() {
        Some(problem) => bail!("cannot remove it: {problem}"),
        None => Ok(()),
    }
}

/// Removes cgroup, pins, network namespace and directory of the stage `name`; returns what could not be removed.
fn tear_down(kind: &str, name: &str) -> Vec<String> {
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
    let root = root(kind);
    for path in [&root.join("net"), &root] {
        let _ = umount2(path, MntFlags::MNT_DETACH);
    }
    if let Err(error) = remove_if_there(fs::remove_dir(&root)) {
        problems.push(format!("{}: {error}; unmount it and remove it with rmdir", root.display()));
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

/// Runs `cargo xtask <kind> --built …` through sudo: the build belongs to the user, the kernel to root.
pub(crate) fn again_as_root(paths: &Paths, kind: &str, options: &[&str]) -> Result<()> {
    if sh::find_program("sudo").is_none() {
        bail!("the {kind} loads BPF programs and needs root, and sudo is not installed; run it as root");
    }
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    let mut target = OsString::from("CARGO_TARGET_DIR=");
    target.push(&paths.target);
    let mut command = Command::new("sudo");
    sh::run(command.arg("env").arg(target).arg(ourselves).args([kind, "--built"]).args(options))
}

/// Runs a command of the stage without showing it.
pub(crate) fn quietly(command: &mut Command) -> Result<()> {
    sh::capture(command).map(drop)
}
