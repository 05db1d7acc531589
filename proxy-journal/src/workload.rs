//! Who called, as a record tells it: what the kernel captured, what is known of it, and what identities ask of it.

use serde::{Deserialize, Serialize};

/// The process that called, as the kernel captured it when it connected.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Workload {
    /// Process id (thread group) in the host's namespace.
    pub pid: u32,
    /// Start of the process in nanoseconds since boot; with the pid it names one process of one boot.
    pub start_time_ns: u64,
    /// Path of the executable: a label, the file is named by device and inode.
    pub exe: String,
    /// Device of the executable, as the kernel numbers it.
    pub exe_dev: u64,
    /// Inode of the executable.
    pub exe_ino: u64,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Id of the control group (version 2).
    pub cgroup: u64,
    /// Path of the control group below its mount, when it could still be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_path: Option<String>,
    /// Unit of systemd that the control group belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Inode of the network namespace.
    pub netns: u64,
    /// It is another one than the host's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// Name of the thread, which the process chooses itself: a label only.
    pub comm: String,
    /// The run of the unit: systemd's InvocationID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<String>,
    /// Inode of the mount namespace, when it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mntns: Option<u64>,
    /// The container that the control group belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The script that its interpreter was started with, as it was written there: a label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// The executables of its parents up to the leader of its session: labels only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<String>,
    /// What identities ask of it besides; absent: of an older version, or nobody could look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Known>,
}

/// What was found of a workload when it was last identified, so that it can be held against other identities later.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Known {
    /// What is at the path of the executable.
    pub exe: Footing,
    /// Other paths by which identities name the executable: through a link, or where its own path could not be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<NamedPath>,
    /// The SHA-256 of the executable, in hexadecimal, if an identity asked and nobody else could write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Variables by which code gets into programs that it was started with; `?`: that could not be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// Others than root traced it, or could, when it was executed: it is nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub traced: bool,
    /// The file that its interpreter took for the script, if an identity asked; empty: there is none that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<String>,
    /// It counts only for an identity that says who the user is, as with [`Footing::Shared`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub script_shared: bool,
    /// The SHA-256 of the script, in hexadecimal, if an identity asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_sha256: Option<String>,
}

/// A path that led to the executable.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NamedPath {
    /// The path.
    pub path: String,
    /// What is there.
    pub is: Footing,
}

/// What is at the path that a workload's executable shows, for the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Footing {
    /// The executable; only root and its user can change it or put another there.
    Own,
    /// The same, in a folder where everybody can put files: it counts only for an identity that says who the user is.
    Shared,
    /// The executable, which others can change, or put another there.
    Others,
    /// Another file, or none.
    #[default]
    Elsewhere,
}

/// A container, and what its runtime said of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Container {
    /// `docker`, `podman`, `containerd`, `crio` or `nerdctl`.
    pub runtime: String,
    /// Its full id.
    pub id: String,
    /// Its name; `namespace/pod/container` in Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Who beside root could have made it up: `uid 1000` for a rootless one, `anybody`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_by: Option<String>,
    /// Its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Kubernetes {
    /// Its uid.
    pub pod_uid: String,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
}
