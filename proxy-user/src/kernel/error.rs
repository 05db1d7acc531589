//! What can stand between the daemon and the kernel, and what to do about it.
pub(super) use crate::base::causes::chain;
use std::path::PathBuf;

use thiserror::Error;

use super::btf::BtfError;

/// Why the kernel side could not be put in place.
#[derive(Debug, Error)]
pub enum KernelError {
    /// No cgroup v2 anywhere.
    #[error(
        "no cgroup v2 file system is mounted, and processes are governed by their cgroup\n  help: boot with systemd.unified_cgroup_hierarchy=1, or mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NoCgroup2,
    /// The configured cgroup cannot be used.
    #[error("kernel.cgroup {path}: {what}\n  help: name a folder below the cgroup v2 mount{mount}", path = path.display())]
    Cgroup {
        /// As configured.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// Where cgroup v2 is mounted, for the help.
        mount: String,
    },
    /// The kernel does not describe itself.
    #[error(
        "the kernel shows no BTF at {path} ({why})\n  help: needs a kernel built with CONFIG_DEBUG_INFO_BTF=y: Debian 11, Ubuntu 20.10, RHEL 8.2 and later have it"
    )]
    NoBtf {
        /// Where it was looked for.
        path: String,
        /// Why not.
        why: std::io::Error,
    },
    /// The kernel's description lacks something.
    #[error("{0}\n  help: this kernel is not known to vouchsafe; report its version (uname -r)")]
    Btf(#[from] BtfError),
    /// Pins need a bpffs.
    #[error("kernel.pin {path} is not on a bpf file system\n  help: mount -t bpf bpf /sys/fs/bpf", path = path.display())]
    NoBpffs {
        /// As configured.
        path: PathBuf,
    },
    /// Not allowed to use BPF.
    #[error(
        "no permission to {what}\n  help: run as root, or with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_ADMIN; inside a container also allow the bpf system call"
    )]
    Permission {
        /// What was tried.
        what: String,
    },
    /// A feature is missing.
    #[error("this kernel has no {feature}; it is there from Linux {since}\n  help: the kernel said: {said}")]
    Missing {
        /// The feature by name.
        feature: &'static str,
        /// The first kernel that has it.
        since: &'static str,
        /// The kernel's own words.
        said: String,
    },
    /// The verifier refuses a program.
    #[error(
        "this kernel does not take the program {program}: its verifier says\n{said}\n  help: report this with the kernel's version (uname -r); a newer kernel may take it (docs/kernels.md); log.level = \"debug\" shows all that it says"
    )]
    Unverified {
        /// Its name.
        program: &'static str,
        /// The end of the verifier's own words.
        said: String,
    },
    /// The object inside this binary is damaged.
    #[error("the kernel-side object inside this binary does not load: {0}\n  help: reinstall vouchsafe")]
    Object(String),
    /// A pin or map could not be used.
    #[error("{what}: {said}")]
    Io {
        /// What was tried.
        what: String,
        /// The kernel's own words.
        said: String,
    },
    /// More network rules than the map holds.
    #[error(
        "the policy has {found} network rules, and the kernel side holds {most}\n  help: write networks instead of single addresses"
    )]
    TooManyRules {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// What the programs capture does not agree with what the daemon knows of itself.
    #[error(
        "the kernel side captures this daemon wrongly ({what}); it would take one process for another, so nothing is attached\n  help: report the kernel's version (uname -r)"
    )]
    SelfTest {
        /// Which fact, as captured and as known.
        what: String,
    },
}

impl KernelError {
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission { what },
            _ => Self::Io { what, said: error.to_string() },
        }
    }

    pub(super) fn other<E: std::error::Error + 'static>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |error| {
            if os_error(&error) == Some(libc::EPERM) {
                return Self::Permission { what };
            }
            Self::Io { what, said: chain(&error) }
        }
    }
}

/// Lines of the verifier that say why: the last ones, before it counts what it did.
const SAID: usize = 6;

/// Why the verifier refuses a program, from all that it says; `None`: it says nothing, so it was not asked.
pub(super) fn verdict(log: &str) -> Option<String> {
    let counts = |line: &&str| {
        ["processed ", "verification time ", "stack depth "].iter().any(|count| line.starts_with(count))
    };
    let lines: Vec<&str> =
        log.lines().map(str::trim_end).filter(|line| !line.is_empty() && !counts(line)).collect();
    let said = lines.get(lines.len().saturating_sub(SAID)..).filter(|said| !said.is_empty())?;
    Some(said.iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n"))
}

/// The number of the system error at the bottom of a chain.
pub(super) fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.raw_os_error();
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_that_the_verifier_says_the_end_is_told_which_says_why() {
        // Linux 6.1, shortened.
        let log = "Validating capture_current() func#2...\n1: R1=mem(off=0,imm=0) R10=fp0\n2: (b7) r1 = 0\n3: (7b) *(u64 *)(r10 -8) = r1\n\
                   ; PROGRAMS.get(&into.tgid)\n4: (bf) r2 = r7\n5: (07) r2 += 24\n6: (85) call bpf_map_lookup_elem#1\n\
                   R2 type=mem expected=fp, pkt, pkt_meta, map_key, map_value\n\nprocessed 912 insns (limit 1000000) max_states_per_insn 1\n";
        let said = verdict(log).unwrap();
        assert!(said.ends_with("    R2 type=mem expected=fp, pkt, pkt_meta, map_key, map_value"), "{said}");
        assert!(said.starts_with("    3: ") && said.lines().count() == SAID, "{said}");
        assert_eq!(verdict("short\n").unwrap(), "    short");
        assert_eq!(verdict(""), None, "a kernel that does not know the kind of program asks no verifier");
        assert_eq!(verdict("\nprocessed 0 insns\n"), None);
    }
}
