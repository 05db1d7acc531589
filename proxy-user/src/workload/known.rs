//! Workloads that were seen: what is true of a cgroup or a process for ever is found out once.
//!
//! A cgroup id is never used again, and a cgroup cannot be renamed, so its path, its unit and its container stay. A process
//! is known by its whole capture, which differs as soon as it executes something else or changes its user. Both maps are
//! bounded; at the bound all is forgotten and found out again.
use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use proxy_common::{COMM_LEN, Capture};

use super::evidence::Latest;
use super::{
    Workload,
    container::{self, Container},
    files, invocation, process,
    runtime::Runtimes,
    unit,
};
use crate::{config::Containers, kernel::Cgroups};

/// How many processes are remembered.
const MOST_PROCESSES: usize = 16_384;

/// How many cgroups, and how many containers.
const MOST_CGROUPS: usize = 16_384;

/// What is known of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its path in the hierarchy.
    pub path: String,
    /// The system's unit that it belongs to.
    pub unit: Option<String>,
    /// The container that it belongs to.
    pub container: Option<Arc<Container>>,
}

/// What makes a capture that of a process that was seen: all but the thread that called, and its name.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    capture: Capture,
    foreign: bool,
}

#[derive(Default)]
struct Memory {
    processes: HashMap<(u32, u64), (Seen, Arc<Workload>)>,
    cgroups: HashMap<u64, Place>,
    containers: HashMap<u64, Arc<Container>>,
}

/// Tells captures in words, and remembers.
pub struct Workloads {
    cgroups: Arc<Cgroups>,
    runtimes: Arc<Runtimes>,
    boot: Arc<str>,
    memory: Mutex<Memory>,
}

impl Workloads {
    /// Nobody was seen yet.
    #[must_use]
    pub fn new(cgroups: Arc<Cgroups>, containers: Containers) -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            cgroups,
            runtimes: Arc::new(Runtimes(containers)),
            boot: boot.trim().into(),
            memory: Mutex::default(),
        }
    }

    /// The hierarchy of cgroups.
    #[must_use]
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// The id of this boot, from which times since boot count.
    #[must_use]
    pub fn boot(&self) -> &Arc<str> {
        &self.boot
    }

    /// Tells a capture in words; the same process is told once. Looks at `/proc` and the cgroup file system, which are
    /// memory: it does not wait. The rest is found out by [`Workload::learn`], at the identification.
    #[must_use]
    pub fn of(&self, capture: &Capture, foreign: bool) -> Arc<Workload> {
        let seen = Seen { capture: Capture { tid: 0, comm: [0; COMM_LEN], ..*capture }, foreign };
        let key = (capture.tgid, capture.start_time_ns);
        {
            let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((before, workload)) = memory.processes.get(&key)
                && *before == seen
            {
                return Arc::clone(workload);
            }
        }
        let workload = Arc::new(self.tell(capture, foreign));
        // Without a start time it could be two, and without its cgroup too little is known of it.
        if capture.start_time_ns != 0 && workload.cgroup.is_some() {
            let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
            if memory.processes.len() >= MOST_PROCESSES {
                memory.processes.clear();
            }
            memory.processes.insert(key, (seen, Arc::clone(&workload)));
        }
        workload
    }

    fn tell(&self, capture: &Capture, foreign: bool) -> Workload {
        let place = self.place(capture.cgroup_id);
        let length = capture.comm.iter().position(|byte| *byte == 0).unwrap_or(capture.comm.len());
        let comm = capture.comm.get(..length).unwrap_or_default();
        let file = files::FileId { dev: u64::from(capture.exe_dev), ino: capture.exe_ino };
        Workload {
            boot: Arc::clone(&self.boot),
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
            invocation: place.as_ref().and_then(|place| self.invocation(place, capture.cgroup_id)),
            container: place.as_ref().and_then(|place| place.container.clone()),
            unit: place.as_ref().and_then(|place| place.unit.clone()),
            cgroup: place.map(|place| place.path),
            netns: capture.netns_cookie,
            foreign,
            mntns: u64::from(capture.mntns_ino),
            ancestors: OnceLock::new(),
            trusts: OnceLock::new(),
            script: OnceLock::new(),
            evidence: Latest::default(),
            comm: String::from_utf8_lossy(comm).into_owned(),
        }
    }

    /// What is known of the cgroup with this id; `None` when it is gone and was not seen before.
    #[must_use]
    pub fn place(&self, id: u64) -> Option<Place> {
        if let Some(known) = self.memory.lock().unwrap_or_else(PoisonError::into_inner).cgroups.get(&id) {
            return Some(known.clone());
        }
        let path = self.cgroups.path_of(id)?;
        let unit = unit::of_cgroup(&path, self.cgroups.unit_root());
        let container = self.container(&path, id);
        let place = Place { path, unit, container };
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.cgroups.len() >= MOST_CGROUPS {
            memory.cgroups.clear();
        }
        memory.cgroups.insert(id, place.clone());
        Some(place)
    }

    fn container(&self, path: &str, id: u64) -> Option<Arc<Container>> {
        let named = container::named(path)?;
        let maker = container::maker(&self.cgroups.folder_of("/"), named.folder).ok()?;
        let own = inode(&self.cgroups.folder_of(named.folder))?;
        // While a cgroup stands those above it stand, too: had they been other ones, this would not be it.
        if inode(&self.cgroups.folder_of(path)) != Some(id) {
            return None;
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.containers.len() >= MOST_CGROUPS {
            memory.containers.clear();
        }
        let new = || Arc::new(Container::new(&named, maker, Arc::clone(&self.runtimes)));
        Some(Arc::clone(memory.containers.entry(own).or_insert_with(new)))
    }

    /// The run of the unit of a process that is in this cgroup. Not remembered with the cgroup, which can outlive a run.
    #[must_use]
    pub fn invocation(&self, place: &Place, id: u64) -> Option<String> {
        let folder = unit::folder_of_cgroup(&place.path, self.cgroups.unit_root())?;
        let found = invocation::of(place.unit.as_deref()?, &self.cgroups.folder_of(folder))?;
        (inode(&self.cgroups.folder_of(&place.path)) == Some(id)).then_some(found)
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|meta| meta.ino())
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
