//! The host: which distribution, what is installed, and how to install what is missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::sh;

/// Whether we run as root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program that a task needs, and the package that carries it in each family of distributions.
#[derive(Clone, Copy)]
pub(crate) struct Need {
    /// The program looked for, or an absolute path of a file.
    pub(crate) program: &'static str,
    /// What it is needed for, for people.
    pub(crate) why: &'static str,
    /// Its package on Debian and Ubuntu.
    pub(crate) apt: &'static str,
    /// Its package on Fedora and RHEL.
    pub(crate) dnf: &'static str,
    /// Its package on Arch.
    pub(crate) pacman: &'static str,
    /// Its package on SUSE.
    pub(crate) zypper: &'static str,
}

impl Need {
    /// A program whose package has the same name everywhere.
    pub(crate) const fn same(program: &'static str, package: &'static str, why: &'static str) -> Self {
        Self { program, why, apt: package, dnf: package, pacman: package, zypper: package }
    }

    fn is_met(&self) -> bool {
        if self.program.starts_with('/') {
            Path::new(self.program).exists()
        } else {
            sh::find_program(self.program).is_some()
        }
    }
}

/// Packages that start a server when they are installed, and its unit.
const SERVERS: [(&str, &str); 3] =
    [("nginx", "nginx.service"), ("haproxy", "haproxy.service"), ("squid-openssl", "squid.service")];

/// How a distribution installs packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Debian,
    Fedora,
    Arch,
    Suse,
    Other,
}

impl Family {
    /// Reads the family from `/etc/os-release` (see os-release(5)).
    pub(crate) fn of_host() -> Self {
        let text = fs::read_to_string("/etc/os-release")
            .or_else(|_| fs::read_to_string("/usr/lib/os-release"))
            .unwrap_or_default();
        Self::parse(&text)
    }

    fn parse(os_release: &str) -> Self {
        let words = os_release
            .lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
            .flat_map(|(_, value)| value.trim_matches(['"', '\'']).split_whitespace());
        for word in words {
            match word {
                "debian" | "ubuntu" => return Self::Debian,
                "fedora" | "rhel" | "centos" => return Self::Fedora,
                "arch" => return Self::Arch,
                "suse" | "opensuse" | "sles" => return Self::Suse,
                _ => {}
            }
        }
        Self::Other
    }

    /// The command that installs `needs` on this family, for a person to run.
    pub(crate) fn install_command(self, needs: &[Need]) -> String {
        let names = |of: fn(&Need) -> &'static str| {
            needs.iter().map(of).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
        };
        match self {
            Self::Debian => format!("sudo apt-get install -y {}", names(|need| need.apt)),
            Self::Fedora => format!("sudo dnf install -y {}", names(|need| need.dnf)),
            Self::Arch => format!("sudo pacman -S --needed {}", names(|need| need.pacman)),
            Self::Suse => format!("sudo zypper install -y {}", names(|need| need.zypper)),
            Self::Other => format!("install with your package manager: {}", names(|need| need.program)),
        }
    }
}

/// Makes sure that all `needs` are met: installs what is missing where apt can, else says what to run and fails.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        println!("missing: {} ({})", need.program, need.why);
    }
    let family = Family::of_host();
    if family != Family::Debian {
        bail!(
            "this task cannot install packages on this distribution; run\n    {}\nand try again",
            family.install_command(&missing)
        );
    }
    let packages: BTreeSet<&str> = missing.iter().map(|need| need.apt).collect();
    let packages: Vec<&str> = packages.into_iter().collect();
    // These packages would start servers; we only want their programs.
    let servers = SERVERS.iter().filter(|(package, _)| packages.contains(package));
    let units: Vec<&str> = match Path::new("/run/systemd/system").is_dir() {
        true => servers.map(|(_, unit)| *unit).collect(),
        false => Vec::new(),
    };
    if !units.is_empty() {
        sh::run(as_root("systemctl").arg("mask").args(&units))?;
    }
    let installed = apt_install(&packages, &[]);
    if !units.is_empty() {
        sh::run(as_root("systemctl").arg("unmask").args(&units))?;
        sh::run(as_root("systemctl").arg("disable").args(&units))?;
    }
    installed?;
    match missing.iter().find(|need| !need.is_met()) {
        Some(need) => {
            bail!("{} is still missing after installing the package {}", need.program, need.apt)
        }
        None => Ok(()),
    }
}

/// The newest version that apt would install of `package`, with an index refreshed when it knows none.
pub(crate) fn apt_candidate(package: &str) -> Option<String> {
    let output = sh::capture(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C")).ok()?;
    parse_candidate(&output)
}

fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?.trim();
    (version != "(none)" && !version.is_empty()).then(|| version.to_owned())
}

/// Refreshes apt's index.
pub(crate) fn apt_update() -> Result<()> {
    sh::run(apt_get()?.arg("update"))
}

/// Installs `packages`, with a fresh index when the first attempt fails.
pub(crate) fn apt_install(packages: &[&str], options: &[&str]) -> Result<()> {
    let install = || -> Result<()> {
        sh::run(apt_get()?.args(["install", "-y", "--no-install-recommends"]).args(options).args(packages))
    };
    if install().is_ok() {
        return Ok(());
    }
    apt_update()?;
    install().with_context(|| format!("apt-get cannot install {}", packages.join(", ")))
}

/// Whether apt-get is here.
pub(crate) fn has_apt() -> bool {
    sh::find_program("apt-get").is_some()
}

fn apt_get() -> Result<Command> {
    if !is_root() && sh::find_program("sudo").is_none() {
        bail!("installing packages needs root, and sudo is not installed; run this task as root");
    }
    let mut command = as_root("env");
    // Through `env`, because sudo drops variables.
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]);
    Ok(command)
}

/// A command that runs `program` as root: directly, or through sudo.
pub(crate) fn as_root(program: &str) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// Where the cgroup v2 hierarchy is mounted (its first mount that shows the root of what we may see).
pub(crate) fn cgroup2_mount() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    mount_of(&text, "cgroup2").context(
        "no cgroup v2 hierarchy is mounted; mount one with \
         `mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified`",
    )
}

/// The mount point of the first file system of type `kind` in the text of a mountinfo file (proc_pid_mountinfo(5)).
pub(crate) fn mount_of(mountinfo: &str, kind: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let is_kind = rest.split(' ').next() == Some(kind);
        // The kernel writes blanks in a path as octal escapes; no path that we want has one.
        is_kind.then(|| fields.split(' ').nth(4).map(PathBuf::from))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_of_a_derivative_is_the_one_it_is_like() {
        assert_eq!(Family::parse("ID=debian\n"), Family::Debian);
        assert_eq!(Family::parse("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Family::Debian);
        assert_eq!(Family::parse("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), Family::Fedora);
        assert_eq!(Family::parse("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n"), Family::Suse);
        assert_eq!(Family::parse("ID=nixos\n"), Family::Other);
        assert_eq!(Family::parse(""), Family::Other);
    }

    #[test]
    fn other_distributions_are_told_the_exact_command() {
        let needs = [
            Need { dnf: "iproute", ..Need::same("ip", "iproute2", "namespaces") },
            Need::same("curl", "curl", "a client"),
        ];
        assert_eq!(Family::Fedora.install_command(&needs), "sudo dnf install -y curl iproute");
        assert_eq!(Family::Arch.install_command(&needs), "sudo pacman -S --needed curl iproute2");
    }

    #[test]
    fn a_candidate_is_what_apt_would_install() {
        assert_eq!(
            parse_candidate("rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0\n"),
            Some("1.96.0".into())
        );
        assert_eq!(parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None);
    }

    #[test]
    fn the_cgroup_v2_mount_is_found_wherever_it_is() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_of(hybrid, "cgroup2"), Some(PathBuf::from("/sys/fs/cgroup/unified")));
        assert_eq!(mount_of(hybrid, "bpf"), None);
    }
}
