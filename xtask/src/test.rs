//! `cargo xtask test`: every test of the workspace, as root, against the running kernel.
//!
//! Nothing is skipped: what the tests need is installed or named, and a test that is ignored counts as failed. The last
//! line is for machines: `N passed, N failed`.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::paths::Paths;
use crate::system::{self, Need};
use crate::{build, sh};

const BPFFS: &str = "/sys/fs/bpf";

/// What the tests run beside the daemon.
pub(crate) const NEEDS: &[Need] = &[
    Need::same("/usr/bin/curl", "curl", "an unmodified client, also copied as a bot of its own"),
    Need { pacman: "python", ..Need::same("/usr/bin/python3", "python3", "bots in a script language") },
    Need::same("nginx", "nginx", "a real TLS API server, of another TLS implementation than ours"),
    Need { dnf: "iproute", ..Need::same("ip", "iproute2", "network namespaces of their own for the tests") },
    Need::same("nsenter", "util-linux", "entering these namespaces"),
    Need::same(
        "node",
        "nodejs",
        "servers that check tokens and client certificates, of another implementation than ours",
    ),
    Need::same("npm", "npm", "an authorization server of somebody else's, as its lock file says"),
    Need {
        pacman: "python-pip",
        ..Need::same(
            "/usr/bin/pip3",
            "python3-pip",
            "the SDK of AWS, and a server that checks its signatures",
        )
    },
    Need::same("openssl", "openssl", "certificates of test servers, and a second opinion on ours"),
    Need::same("sslscan", "sslscan", "a scanner of TLS"),
    Need {
        dnf: "nghttp2",
        pacman: "nghttp2",
        zypper: "nghttp2",
        ..Need::same("h2load", "nghttp2-client", "clients of HTTP/2 of another implementation than ours")
    },
    Need {
        dnf: "nghttp2",
        pacman: "nghttp2",
        zypper: "nghttp2",
        ..Need::same("nghttpd", "nghttp2-server", "a server of HTTP/2 of another implementation than ours")
    },
    Need {
        apt: "squid-openssl",
        ..Need::same("squid", "squid", "the proxy of a site, as companies have it")
    },
    Need {
        dnf: "nss-tools",
        pacman: "nss",
        zypper: "mozilla-nss-tools",
        ..Need::same("certutil", "libnss3-tools", "the trust store of browsers")
    },
    Need {
        dnf: "p11-kit-trust",
        pacman: "p11-kit",
        zypper: "p11-kit-tools",
        ..Need::same("trust", "p11-kit", "what Fedora, Arch and SUSE make their trust stores with")
    },
    Need::same("strace", "strace", "a kill at each point of a command"),
    Need {
        dnf: "perl-IO-Socket-SSL",
        pacman: "perl-io-socket-ssl",
        zypper: "perl-IO-Socket-SSL",
        ..Need::same("/usr/share/perl5/IO/Socket/SSL.pm", "libio-socket-ssl-perl", "a client in Perl")
    },
    Need::same("/usr/bin/wget", "wget", "a client with GnuTLS, which verifies after the handshake"),
    Need::same("/usr/bin/git", "git", "a client with libcurl"),
    Need {
        dnf: "golang",
        pacman: "go",
        zypper: "go",
        ..Need::same("/usr/bin/go", "golang-go", "a client in Go")
    },
    Need {
        apt: "default-jdk-headless",
        dnf: "java-latest-openjdk-devel",
        pacman: "jdk-openjdk",
        zypper: "java-devel",
        ..Need::same("/usr/bin/javac", "default-jdk-headless", "a client in Java")
    },
    Need::same("/usr/bin/ruby", "ruby", "a client in Ruby"),
    Need {
        dnf: "php-cli",
        pacman: "php",
        zypper: "php-cli",
        ..Need::same("/usr/bin/php", "php-cli", "a client in PHP")
    },
    Need {
        dnf: "perl-LWP-Protocol-https",
        pacman: "perl-lwp-protocol-https",
        zypper: "perl-LWP-Protocol-https",
        ..Need::same(
            "/usr/share/perl5/LWP/Protocol/https.pm",
            "liblwp-protocol-https-perl",
            "a client in Perl",
        )
    },
    Need::same("mmdebstrap", "mmdebstrap", "a Debian root for the packaged unit"),
    Need {
        dnf: "systemd-container",
        ..Need::same("systemd-nspawn", "systemd-container", "systemd as PID 1")
    },
    Need::same("/lib/systemd/systemd-journald", "systemd", "the journal that the records are copied to"),
    Need::same("/usr/sbin/rsyslogd", "rsyslog", "a syslog server that records are sent to"),
    Need {
        pacman: "rsyslog",
        zypper: "rsyslog-module-gtls",
        ..Need::same("/usr/share/doc/rsyslog-gnutls", "rsyslog-gnutls", "its TLS")
    },
    Need::same("age", "age", "what an auditor reads the bodies with that are kept"),
    Need::same("/etc/ssl/certs", "ca-certificates", "the system's roots, which the daemon reads"),
];

/// A browser, where the distribution has one that is not a container of its own.
const BROWSER: &[Need] =
    &[Need::same("/usr/lib/chromium/chromium", "chromium", "a browser, which has a trust store of its own")];

/// What only tests with containers run.
pub(crate) const CONTAINERS: &[Need] = &[
    Need::same("podman", "podman", "containers of a real runtime"),
    Need::same("crun", "crun", "what starts them"),
    Need {
        dnf: "glibc-common",
        pacman: "glibc",
        zypper: "glibc",
        ..Need::same("ldd", "libc-bin", "their image")
    },
];

/// What to test, as the command line says it.
#[derive(Args)]
pub(crate) struct Options {
    /// Run only tests whose name contains one of these.
    filter: Vec<String>,
}

/// Runs the tests; fails when one does, when nothing ran, or when this host cannot run them.
pub(crate) fn run(paths: &Paths, options: &Options) -> Result<()> {
    let (tally, outcome) = match count(paths, options) {
        Ok(tally) => {
            let outcome = verdict(&tally, &options.filter);
            (tally, outcome)
        }
        // What keeps the tests from running is a failure, and the last line says so too.
        Err(error) => (Tally { failed: 1, ..Tally::default() }, Err(error)),
    };
    if let Err(error) = &outcome {
        println!("error: {error:#}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if outcome.is_err() {
        // Nothing may follow the line above; the exit code says the rest.
        io::stdout().flush()?;
        std::process::exit(1);
    }
    Ok(())
}

/// Prepares the host, builds, runs all tests and adds them up.
fn count(paths: &Paths, options: &Options) -> Result<Tally> {
    require_host()?;
    system::ensure(NEEDS)?;
    system::ensure(CONTAINERS)?;
    if system::apt_candidate("chromium").is_some() {
        system::ensure(BROWSER)?;
    }
    mount_bpffs()?;
    let daemon = build::all(paths, false)?;

    let mut command = sh::cargo();
    command.args(["test", "--workspace", "--no-fail-fast", "--"]).args(&options.filter);
    command.current_dir(&paths.root);
    command.env("PATH", sh::full_path()?);
    command.env("VOUCHSAFE_BIN", &daemon).env("VOUCHSAFE_BPF_OBJECT", paths.bpf_object());
    let (mut tally, status_ok) = stream(&mut command, &mut io::stdout())?;
    if !status_ok && tally.failed == 0 {
        // A test program that did not compile or was killed leaves no result line.
        println!("cargo test failed without naming a test (see above); counted as one failure");
        tally.failed = 1;
    }
    if tally.ignored > 0 {
        println!("{} tests are ignored; that counts as failed: run them or remove them", tally.ignored);
        tally.failed += tally.ignored;
    }
    Ok(tally)
}

/// Checks that this host can load and attach BPF programs, and says what to do when it cannot.
pub(crate) fn require_host() -> Result<()> {
    if !system::is_root() {
        bail!(
            "the tests load BPF programs into the running kernel and need root; run\n    \
             sudo --preserve-env=PATH,HOME cargo xtask test"
        );
    }
    let status = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let missing = missing_capabilities(&status);
    if !missing.is_empty() {
        bail!(
            "root here lacks {}: this looks like a container; give it these capabilities (docker: --privileged) \
             or run the tests on the host",
            missing.join(", ")
        );
    }
    let types = fs::read_to_string("/proc/filesystems").context("cannot read /proc/filesystems")?;
    for (kind, option) in [("bpf", "CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF"), ("cgroup2", "CONFIG_CGROUPS")]
    {
        if !types.lines().any(|line| line.split_whitespace().next_back() == Some(kind)) {
            bail!("this kernel has no {kind} file system; it needs {option} (Linux 5.10 or newer)");
        }
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!(
            "this kernel has no type information at /sys/kernel/btf/vmlinux; it needs CONFIG_DEBUG_INFO_BTF"
        );
    }
    system::cgroup2_mount().map(drop)
}

/// Mounts the BPF file system where pins go, unless it is mounted.
pub(crate) fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    if system::mount_of(&mounts, "bpf").is_some() {
        return Ok(());
    }
    println!("mounting the BPF file system on {BPFFS}");
    nix::mount::mount(Some("bpf"), BPFFS, Some("bpf"), nix::mount::MsFlags::empty(), None::<&str>)
        .with_context(|| format!("cannot mount the BPF file system on {BPFFS}"))
}

/// The capabilities that loading and attaching needs and that a process does not have, from its `/proc/…/status`.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    // Numbers: linux/capability.h. CAP_BPF is part of CAP_SYS_ADMIN for the kernel.
    const NEEDED: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED.iter().filter(|(bit, _)| effective >> bit & 1 == 0).map(|(_, name)| *name).collect()
}

/// What the result lines of all test programs add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Tally {
    /// Adds `line` when it is a result line: `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(number) = number.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

fn verdict(tally: &Tally, filter: &[String]) -> Result<()> {
    if tally.failed > 0 {
        bail!("tests failed");
    }
    if tally.passed == 0 {
        bail!("no test ran{}", if filter.is_empty() { "" } else { ": no name contains the filter" });
    }
    Ok(())
}

/// Runs `command`, passes its output on line by line and counts; also returns whether it succeeded.
fn stream(command: &mut Command, out: &mut dyn io::Write) -> Result<(Tally, bool)> {
    println!("$ {}", sh::shown(command));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let mut tally = Tally::default();
    if let Some(output) = child.stdout.take() {
        let mut line = Vec::new();
        let mut output = BufReader::new(output);
        // Bytes, not text: a test may print anything.
        while output.read_until(b'\n', &mut line)? > 0 {
            out.write_all(&line)?;
            tally.add(&String::from_utf8_lossy(&line));
            line.clear();
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    Ok((tally, status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_of_all_programs_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s",
            "test result: FAILED. 10 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        ] {
            tally.add(line);
        }
        assert_eq!(tally, Tally { passed: 12, failed: 3, ignored: 1 });
    }

    #[test]
    fn nothing_run_is_no_success() {
        assert!(verdict(&Tally::default(), &[]).is_err());
        assert!(verdict(&Tally { passed: 1, ..Tally::default() }, &[]).is_ok());
        assert!(verdict(&Tally { passed: 1, failed: 1, ignored: 0 }, &[]).is_err());
    }

    #[test]
    fn capabilities_that_are_missing_are_named() {
        assert_eq!(missing_capabilities("CapEff:\t000001ffffffffff\n"), Vec::<&str>::new());
        assert_eq!(missing_capabilities("CapEff:\t00000000a80425fb\n"), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert_eq!(missing_capabilities(""), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
    }

    #[test]
    fn output_passes_through_and_is_counted_also_when_it_is_no_text() {
        let script = r"printf 'test result: ok. 1 passed; 0 failed\n\377\n'; exit 3";
        let mut out = Vec::new();
        let (tally, success) = stream(Command::new("sh").args(["-c", script]), &mut out).unwrap();
        assert_eq!((tally.passed, success), (1, false));
        assert!(out.ends_with(b"\n\xff\n"));
    }
}
