//! The machine: QEMU without hardware virtualization, without a disk and without a network.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::sh;
use crate::system::Need;

/// What a machine runs under.
pub(super) const NEEDS: &[Need] = &[
    Need {
        dnf: "qemu-system-x86-core",
        pacman: "qemu-system-x86",
        zypper: "qemu-x86",
        ..Need::same("qemu-system-x86_64", "qemu-system-x86", "other kernels than the running one")
    },
    Need::same("timeout", "coreutils", "an end for every machine"),
];

/// The last line that the machine says.
pub(super) const END: &str = "vm: end";

/// What to boot.
pub(super) struct Boot<'a> {
    /// The kernel's image.
    pub(super) image: &'a Path,
    /// The archives that are its first file system, one after the other.
    pub(super) initrd: &'a Path,
    /// The file that the kernel's console goes to.
    pub(super) console: &'a Path,
    /// The machine is ended after this.
    pub(super) limit: Duration,
}

/// Boots, hands on what the machine says line by line, and ends it. Fails when it did not come to its own end.
pub(super) fn run(boot: &Boot<'_>, mut hear: impl FnMut(&str)) -> Result<()> {
    let mut machine = Machine(start(boot)?);
    let output = machine.0.stdout.take().context("qemu has no output")?;
    let (sender, lines) = mpsc::channel();
    // Ends with the machine's output, so with the machine.
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    let deadline = Instant::now() + boot.limit;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line == END => return Ok(()),
            Ok(line) => hear(&line),
            Err(RecvTimeoutError::Timeout) => {
                bail!("the machine did not come to its end within {} s{}", boot.limit.as_secs(), last(boot))
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the machine ended too early{}", last(boot)),
        }
    }
}

/// QEMU, which is ended when it is dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // `timeout` hands SIGTERM on; SIGKILL would leave QEMU behind.
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

fn start(boot: &Boot<'_>) -> Result<Child> {
    // The limit outside holds also when we are killed.
    let outer = (boot.limit + Duration::from_secs(10)).as_secs().to_string();
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &outer, "qemu-system-x86_64", "-nodefaults", "-no-user-config"]);
    command.args(["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G"]);
    command.args(["-display", "none", "-no-reboot"]);
    command.arg("-serial").arg(format!("file:{}", boot.console.display())).args(["-serial", "stdio"]);
    command.arg("-kernel").arg(boot.image).arg("-initrd").arg(boot.initrd);
    // What guards against speculation only costs time here.
    let parameters = "console=ttyS0 loglevel=4 panic=-1 random.trust_cpu=on mitigations=off";
    command.args(["-append", parameters]);
    println!("$ {}", sh::shown(&command));
    std::io::stdout().flush()?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run qemu-system-x86_64")
}

/// The end of the kernel's console, as the rest of a sentence.
fn last(boot: &Boot<'_>) -> String {
    let text = fs::read(boot.console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n");
    format!("; its console ({}) ends with\n{tail}", boot.console.display())
}
