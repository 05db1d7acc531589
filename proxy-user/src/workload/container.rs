//! The container of a cgroup, from the path of the cgroup, and whether that path can be believed.
//!
//! Runtimes name the cgroup of a container after its id. Such a name says as much as who can make it: whoever owns a cgroup
//! (systemd's `Delegate=` with `User=`, the tree of a user manager) makes children of any name. So a name counts as root's
//! only when every cgroup above it is root's, and writable by nobody else. Below the outermost container its own names
//! begin, which say nothing.
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use proxy_policy::{ContainerRuntime, is_container_id};

use super::runtime::{Runtimes, Told};

/// What a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<'p> {
    /// By the spelling of the name.
    pub runtime: ContainerRuntime,
    /// 64 hexadecimal digits.
    pub id: &'p str,
    /// The pod of Kubernetes that it is part of.
    pub pod: Option<String>,
    /// The path of the container's own cgroup.
    pub folder: &'p str,
}

/// The outermost container in a path of the cgroup v2 hierarchy, counted from its root (`/system.slice/docker-….scope`).
#[must_use]
pub fn named(path: &str) -> Option<Named<'_>> {
    let mut pod: Option<String> = None;
    let mut below_kubepods = false;
    let mut parent = "";
    let mut end = 0;
    for (index, part) in path.split('/').enumerate() {
        end += part.len() + usize::from(index > 0);
        if part.is_empty() {
            continue;
        }
        let found = scope(part).or_else(|| plain(part, parent, pod.is_some()));
        if let Some((runtime, id)) = found {
            return Some(Named { runtime, id, pod, folder: path.get(..end)? });
        }
        if let Some(uid) = pod_uid(part, below_kubepods) {
            pod = Some(uid);
        }
        below_kubepods |= part == "kubepods" || part.ends_with("-kubepods");
        parent = part;
    }
    None
}

/// A scope of systemd, or its like: the runtime's prefix, the id, and mostly `.scope`.
fn scope(part: &str) -> Option<(ContainerRuntime, &str)> {
    let stem = part.strip_suffix(".scope");
    let name = stem.unwrap_or(part);
    let prefixes = [
        ("docker-", ContainerRuntime::Docker, true),
        ("libpod-payload-", ContainerRuntime::Podman, false),
        ("libpod-", ContainerRuntime::Podman, false),
        ("cri-containerd-", ContainerRuntime::Containerd, true),
        ("crio-", ContainerRuntime::Crio, false),
        ("nerdctl-", ContainerRuntime::Nerdctl, true),
    ];
    prefixes
        .into_iter()
        .filter(|(_, _, only_scope)| stem.is_some() || !only_scope)
        .find_map(|(prefix, runtime, _)| Some((runtime, name.strip_prefix(prefix)?)))
        .filter(|(_, id)| is_container_id(id))
}

/// Without systemd: the id alone, in a cgroup that says whose it is.
fn plain<'p>(part: &'p str, parent: &str, in_pod: bool) -> Option<(ContainerRuntime, &'p str)> {
    if !is_container_id(part) {
        return None;
    }
    match parent {
        "docker" => Some((ContainerRuntime::Docker, part)),
        "k8s.io" => Some((ContainerRuntime::Containerd, part)),
        _ if in_pod => Some((ContainerRuntime::Containerd, part)),
        _ => None,
    }
}

/// The uid of a pod: `kubepods-burstable-pod12ab_….slice`, or `pod12ab-…` somewhere below `kubepods`.
fn pod_uid(part: &str, below_kubepods: bool) -> Option<String> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => {
            let (before, uid) = slice.rsplit_once("-pod")?;
            let is_kubelets = before.split('-').any(|word| word == "kubepods");
            is_kubelets.then(|| uid.replace('_', "-"))?
        }
        None => part.strip_prefix("pod").filter(|_| below_kubepods)?.to_owned(),
    };
    // A UUID, or the digest that stands for it with static pods. It becomes part of a path.
    let known = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    (matches!(uid.len(), 32 | 36) && uid.bytes().all(known)).then_some(uid)
}

/// Who could make a cgroup of this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Nobody but root.
    Root,
    /// This user, too: a rootless container of his, or what he calls so.
    User(u32),
    /// Whoever is in some group, or everybody.
    Anybody,
}

/// Who could make this cgroup: whose the cgroups above are. `mount` is where the hierarchy is mounted.
///
/// # Errors
/// One of them cannot be looked at.
pub fn maker(mount: &Path, folder: &str) -> io::Result<Maker> {
    let mut maker = Maker::Root;
    let parent = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
    let mut at = mount.to_owned();
    for part in std::iter::once("").chain(parent.split('/').filter(|part| !part.is_empty())) {
        if !part.is_empty() {
            at.push(part);
        }
        let meta = fs::symlink_metadata(&at)?;
        maker = match (maker, meta.uid()) {
            (Maker::Anybody, _) => Maker::Anybody,
            _ if meta.mode() & 0o022 != 0 => Maker::Anybody,
            (Maker::Root, 0) => Maker::Root,
            (Maker::User(user), 0) => Maker::User(user),
            (Maker::Root, user) => Maker::User(user),
            (Maker::User(one), other) if one == other => Maker::User(one),
            (Maker::User(_), _) => Maker::Anybody,
        };
    }
    Ok(maker)
}

/// How long what is missing is not looked for again, while a container is young, and later.
const AGAIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];

/// How long a container is young: what its runtime writes of it may not be there yet.
const YOUNG: Duration = Duration::from_secs(30);

/// A container: the same one for all of its processes.
#[derive(Debug)]
pub struct Container {
    /// What runs it.
    pub runtime: ContainerRuntime,
    /// 64 hexadecimal digits.
    pub id: String,
    /// The uid of its pod.
    pub pod: Option<String>,
    /// Who could have given its cgroup this name.
    pub maker: Maker,
    runtimes: Arc<Runtimes>,
    seen: Instant,
    told: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    asked: Option<Instant>,
    told: Arc<Told>,
    /// When that was asked which `told` answers.
    of: Option<Instant>,
}

impl PartialEq for Container {
    fn eq(&self, other: &Self) -> bool {
        let what = |it: &Self| (it.runtime, it.id.clone(), it.pod.clone(), it.maker);
        what(self) == what(other)
    }
}

impl Eq for Container {}

impl Container {
    /// One that was just seen.
    #[must_use]
    pub fn new(named: &Named<'_>, maker: Maker, runtimes: Arc<Runtimes>) -> Self {
        Self {
            runtime: named.runtime,
            id: named.id.to_owned(),
            pod: named.pod.clone(),
            maker,
            runtimes,
            seen: Instant::now(),
            told: Mutex::default(),
        }
    }

    /// One of a record: nothing more becomes known of it.
    #[must_use]
    pub fn recorded(runtime: ContainerRuntime, id: String, maker: Maker, told: Told) -> Self {
        let told = State { told: Arc::new(Told { complete: true, ..told }), ..State::default() };
        let (runtimes, seen) = (Arc::default(), Instant::now());
        Self { runtime, id, pod: None, maker, runtimes, seen, told: Mutex::new(told) }
    }

    /// What its runtime said of it when it was last asked. Does not wait.
    #[must_use]
    pub fn told(&self) -> Arc<Told> {
        Arc::clone(&self.told.lock().unwrap_or_else(PoisonError::into_inner).told)
    }

    /// Asks the runtime's files, unless they were asked a moment ago or said everything. Blocks on the disk.
    pub fn ask(&self) {
        // What a user calls his own says nothing, and his files are not root's.
        if self.maker != Maker::Root {
            return;
        }
        let asked = {
            let mut state = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let again = if self.is_young() { AGAIN[0] } else { AGAIN[1] };
            if state.told.complete || state.asked.is_some_and(|at| at.elapsed() < again) {
                return;
            }
            *state.asked.insert(Instant::now())
        };
        self.answered(asked, self.runtimes.ask(self.runtime, &self.id, self.pod.as_deref()));
    }

    /// Takes an answer to what was asked then, unless who asked later has had one meanwhile that is as whole.
    fn answered(&self, asked: Instant, told: Told) {
        let mut state = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_newer = state.of.is_none_or(|of| of <= asked);
        let takes = match (told.complete, state.told.complete) {
            (true, false) => true,
            (false, true) => false,
            _ => is_newer,
        };
        if takes {
            (state.of, state.told) = (Some(asked), Arc::new(told));
        }
    }

    /// Whether nothing more can become known of it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.maker != Maker::Root || self.told().complete
    }

    /// Whether more may become known of it soon: what it is not now, it may be then.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.maker == Maker::Root && self.is_young() && !self.told().complete
    }

    fn is_young(&self) -> bool {
        self.seen.elapsed() < YOUNG
    }

    /// For people: `podman:web-1`, else `podman:` and the id; and whose it is when it is not root's.
    #[must_use]
    pub fn label(&self) -> String {
        let told = self.told();
        let label = format!("{}:{}", self.runtime.as_str(), told.name.as_deref().unwrap_or(&self.id));
        match self.maker {
            Maker::Root => label,
            Maker::User(user) => format!("{label} (rootless, of uid {user})"),
            Maker::Anybody => format!("{label} (in a cgroup that others can write)"),
        }
    }
}

#[cfg(test)]
#[path = "container_tests.rs"]
mod tests;
