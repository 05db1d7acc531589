//! Who called: the kernel's capture, told in words that people and policies use, and the identity that it makes.
//!
//! Invariant: identity comes from the capture alone. What is read later (`/proc`, paths) is a label, or is believed
//! only as far as it agrees with the captured start time, device and inode.

mod ancestors;
pub mod conditions;
pub mod container;
pub mod digest;
mod environment;
pub mod evidence;
pub mod files;
pub mod identify;
pub mod inspect;
mod invocation;
mod known;
pub mod process;
pub mod recalled;
mod interpreter;
pub mod script;
pub mod runtime;
pub mod unit;
pub mod writers;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use proxy_common::Facts;
use proxy_policy::IdentityId;

use self::container::Container;
pub use self::known::Workloads;

/// A process, as the kernel saw it when it connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// The boot that start times count from.
    pub boot: Arc<str>,
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// Start, nanoseconds since boot; 0: could not be read, and matches nothing.
    pub start_time_ns: u64,
    /// The path of the executable as `/proc` shows it: a label.
    pub exe: Option<String>,
    /// Device of the executable, kernel encoding.
    pub exe_dev: u64,
    /// Inode of the executable; 0: could not be read, and matches no `exe`.
    pub exe_ino: u64,
    /// Last change of the executable's inode, nanoseconds since the epoch; 0: could not be read.
    pub exe_ctime_ns: u64,
    /// Which of [`proxy_common::LOADER_VARIABLES`] it was started with, a bit for each, and `ENVIRONMENT_*`.
    pub environment: u32,
    /// With `exec_ns`, the one `execve` by which the program came into being.
    pub exec_tgid: u32,
    /// When that was, nanoseconds of the monotonic clock; [`proxy_common::EXEC_UNSEEN`].
    pub exec_ns: u64,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// cgroup v2 id.
    pub cgroup_id: u64,
    /// Path in the cgroup v2 hierarchy; `None` when the cgroup is gone already.
    pub cgroup: Option<String>,
    /// The systemd unit that the cgroup belongs to.
    pub unit: Option<String>,
    /// Which run of that unit: systemd's InvocationID, as it was when the process was first seen.
    pub invocation: Option<String>,
    /// The container that the cgroup belongs to.
    pub container: Option<Arc<Container>>,
    /// Cookie of the network namespace.
    pub netns: u64,
    /// Whether that is another one than the daemon's: addresses mean something else there.
    pub foreign: bool,
    /// Inode number of the mount namespace; 0: could not be read.
    pub mntns: u64,
    /// The executables of its parents up to the leader of its session: labels. Set by [`learn`](Self::learn).
    pub ancestors: OnceLock<Vec<String>>,
    /// The script that its interpreter was started with, as it was written there: a label. Set by the identification.
    pub script: OnceLock<Option<String>>,
    /// What else was found of it. Set by each identification.
    pub evidence: evidence::Latest,
    /// It asked for something over TLS that ends here, so it trusts us.
    pub trusts: OnceLock<()>,
    /// The kernel's `comm`: a label.
    pub comm: String,
}

impl Workload {
    /// Finds out what takes longer than a connection may wait for on its way in: what a runtime's files say of its
    /// container, and its ancestors. Blocks on the disk; once known, it costs nothing.
    pub fn learn(&self) {
        if let Some(container) = &self.container {
            container.ask();
        }
        self.ancestors.get_or_init(|| ancestors::of(self.pid, self.start_time_ns));
    }

    /// What its standing in the kernel depends on.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            exe_ino: self.exe_ino,
            exe_ctime_ns: self.exe_ctime_ns,
            cgroup_id: self.cgroup_id,
            exe_dev: u32::try_from(self.exe_dev).unwrap_or(0),
            uid: self.uid,
            gid: self.gid,
            generation: 0,
            environment: self.environment,
            exec_tgid: self.exec_tgid,
            exec_ns: self.exec_ns,
        }
    }

    /// How it is called in messages: the executable, else `comm`, with the pid.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}[{}]", self.exe.as_deref().unwrap_or(&self.comm), self.pid)
    }
}

/// What the policy knows of a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identified {
    /// Exactly one identity.
    One(IdentityId),
    /// None, and why.
    None(Reason),
    /// Several, by name; ambiguous is refused.
    Ambiguous(Vec<String>),
}

/// Why a workload has no identity. `Display`: in words, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    why: String,
    told: Option<String>,
}

impl Reason {
    /// One of which the workload itself may hear a part: it names nothing but its own executable and who can change it.
    #[must_use]
    pub fn told(why: String, told: String) -> Self {
        Self { why, told: Some(told) }
    }

    /// What the workload itself may hear of it.
    #[must_use]
    pub fn for_the_workload(&self) -> Option<&str> {
        self.told.as_deref()
    }
}

impl<T: Into<String>> From<T> for Reason {
    fn from(why: T) -> Self {
        Self { why: why.into(), told: None }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}
