//! Who called: the kernel's capture, told in words that people and policies use, and the identity that it makes.
//!
//! Invariant: identity comes from the capture alone. What is read later (`/proc`, paths) is a label, or is believed
//! only as far as it agrees with the captured start time, device and inode.

pub mod conditions;
pub mod digest;
mod environment;
pub mod files;
pub mod identify;
pub mod inspect;
pub mod process;
pub mod script;
mod interpreter;
pub mod unit;
pub mod writers;

use std::{fmt, sync::Arc};

use proxy_common::{Capture, Facts};
use proxy_policy::IdentityId;

use crate::kernel::Cgroups;

/// A process, as the kernel saw it when it connected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
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
    /// Cookie of the network namespace.
    pub netns: u64,
    /// Whether that is another one than the daemon's: addresses mean something else there.
    pub foreign: bool,
    /// The kernel's `comm`: a label.
    pub comm: String,
}

impl Workload {
    /// Tells a capture in words. Looks at `/proc` and the cgroup file system, which are memory: it does not wait.
    #[must_use]
    pub fn of(capture: &Capture, cgroups: &Cgroups, foreign: bool) -> Arc<Self> {
        let cgroup = cgroups.path_of(capture.cgroup_id);
        let unit = cgroup.as_deref().and_then(|path| unit::of_cgroup(path, cgroups.unit_root()));
        let length = capture.comm.iter().position(|byte| *byte == 0).unwrap_or(capture.comm.len());
        let comm = capture.comm.get(..length).unwrap_or_default();
        let file = files::FileId { dev: u64::from(capture.exe_dev), ino: capture.exe_ino };
        Arc::new(Self {
            pid: capture.tgid,
            start_time_ns: capture.start_time_ns,
            exe: process::executable_label(capture.tgid, capture.start_time_ns, file),
            exe_dev: u64::from(capture.exe_dev),
            exe_ino: capture.exe_ino,
            exe_ctime_ns: capture.exe_ctime_ns,
            environment: capture.environment,
            exec_tgid: capture.exec_tgid,
            exec_ns: capture.exec_ns,
            uid: capture.uid,
            gid: capture.gid,
            cgroup_id: capture.cgroup_id,
            cgroup,
            unit,
            netns: capture.netns_cookie,
            foreign,
            comm: String::from_utf8_lossy(comm).into_owned(),
        })
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
