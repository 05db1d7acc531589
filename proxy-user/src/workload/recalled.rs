//! Whether a workload of the journal meets the conditions of an identity, by what its record has.
//!
//! What the record has as the daemon saw it (user, group, unit, cgroup, container) is asked by the code that asks it of a process
//! ([`conditions`](super::conditions)); of what is at paths, the record has what was found then ([`Known`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::{Group, User};
use proxy_journal::{Footing, Known};
use proxy_policy::{Conditions, ContainerRuntime, ExePattern};

use super::Workload;
use super::conditions::{Common, Condition, Examination, Lookups};
use super::container::{Container, Maker};
use super::files::{self, FileId};
use super::runtime::Told;

/// Whether a condition is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// This condition hangs on what is not recorded.
    Unknown(Condition),
}

/// Asks workloads of the journal, and remembers what it looked up.
#[derive(Default)]
pub struct Recaller {
    lookups: Lookups,
    /// Where a pattern leads to a file today, by pattern, file and the path that was recorded.
    leads: RefCell<HashMap<Question, Leads>>,
}

type Question = (String, FileId, String);

/// Where a pattern leads today.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Leads {
    /// To the very file, by this path.
    To(String),
    /// To what is at the recorded path now, another file.
    Near,
    /// To neither.
    Nowhere,
}

/// The workload of a record, as the daemon has one.
#[must_use]
pub fn workload(recorded: &proxy_journal::Workload) -> Workload {
    Workload {
        pid: recorded.pid,
        start_time_ns: recorded.start_time_ns,
        exe: Some(recorded.exe.clone()).filter(|exe| !exe.is_empty()),
        exe_dev: recorded.exe_dev,
        exe_ino: recorded.exe_ino,
        uid: recorded.uid,
        gid: recorded.gid,
        cgroup_id: recorded.cgroup,
        cgroup: recorded.cgroup_path.clone(),
        unit: recorded.unit.clone(),
        invocation: recorded.invocation.clone(),
        container: recorded.container.as_ref().and_then(container).map(Arc::new),
        netns: recorded.netns,
        foreign: recorded.foreign,
        mntns: recorded.mntns.unwrap_or(0),
        comm: recorded.comm.clone(),
        ..Workload::default()
    }
}

fn container(recorded: &proxy_journal::Container) -> Option<Container> {
    let runtime = ContainerRuntime::ALL.into_iter().find(|it| it.as_str() == recorded.runtime)?;
    let pod = recorded.kubernetes.as_ref();
    let told = Told {
        name: recorded.name.clone(),
        image: recorded.image.clone(),
        namespace: pod.and_then(|pod| pod.namespace.clone()),
        pod: pod.and_then(|pod| pod.pod.clone()),
        account: pod.and_then(|pod| pod.service_account.clone()),
        ..Told::default()
    };
    // Whose it is, if it is not root's, makes no difference here.
    let maker = if recorded.claimed_by.is_none() { Maker::Root } else { Maker::Anybody };
    Some(Container::recorded(runtime, recorded.id.clone(), maker, told))
}

impl Recaller {
    /// Whether a recorded workload meets the conditions of an identity. Blocks on the file system.
    #[must_use]
    pub fn meets(
        &self,
        recorded: &proxy_journal::Workload,
        workload: &Workload,
        conditions: &Conditions,
    ) -> Met {
        let common = Common::unknown();
        let mut examination = Examination::new(&self.lookups, workload, conditions, &common);
        let mut unknown = None;
        for condition in Condition::ALL {
            let met = match condition {
                Condition::Exe => conditions.exe.as_ref().map(|exe| self.exe(recorded, exe, conditions)),
                Condition::Sha256 => conditions.sha256.as_ref().map(|wanted| {
                    let digest = recorded.known.as_ref().and_then(|known| known.sha256.as_deref());
                    same_digest(digest, &wanted.value)
                }),
                Condition::CleanEnvironment => {
                    conditions.want_clean_environment().then(|| clean(recorded.known.as_ref()))
                }
                Condition::Script => {
                    conditions.script.as_ref().map(|wanted| self.script(recorded, wanted, conditions))
                }
                Condition::ScriptSha256 => conditions.script_sha256.as_ref().map(|wanted| {
                    match counting_script(recorded.known.as_ref(), conditions) {
                        Some("") => Some(false),
                        _ => {
                            let known = recorded.known.as_ref();
                            same_digest(known.and_then(|known| known.script_sha256.as_deref()), &wanted.value)
                        }
                    }
                }),
                Condition::User
                    if is_nobody_here(conditions.user.as_deref(), |name| {
                        User::from_name(name).is_ok_and(|user| user.is_some())
                    }) =>
                {
                    Some(None)
                }
                Condition::Group
                    if is_nobody_here(conditions.group.as_deref(), |name| {
                        Group::from_name(name).is_ok_and(|group| group.is_some())
                    }) =>
                {
                    Some(None)
                }
                Condition::User
                | Condition::Group
                | Condition::Unit
                | Condition::Cgroup
                | Condition::Container
                | Condition::Kubernetes => {
                    examination.check(condition).map(|check| Some(check.miss.is_none()))
                }
            };
            match met {
                None | Some(Some(true)) => {}
                Some(Some(false)) => return Met::No,
                Some(None) => unknown = unknown.or(Some(condition)),
            }
        }
        unknown.map_or(Met::Yes, Met::Unknown)
    }

    /// `None`: it hangs on what is not recorded.
    fn exe(
        &self,
        recorded: &proxy_journal::Workload,
        wanted: &ExePattern,
        conditions: &Conditions,
    ) -> Option<bool> {
        if recorded.exe_ino == 0 {
            return Some(false);
        }
        let known = recorded.known.as_ref()?;
        let file = FileId { dev: recorded.exe_dev, ino: recorded.exe_ino };
        let own = (recorded.exe.as_str(), known.exe);
        let others = known.paths.iter().map(|it| (it.path.as_str(), it.is));
        let named: Vec<(&str, Footing)> =
            std::iter::once(own).chain(others).filter(|(path, _)| wanted.matches(path)).collect();
        let leads = self.leads(wanted, file, &recorded.exe);
        let counts = |(_, is): &(&str, Footing)| match is {
            Footing::Own => true,
            Footing::Shared => conditions.are_pinned(),
            Footing::Others | Footing::Elsewhere => false,
        };
        match (named.as_slice(), wanted.is_literal()) {
            ([], _) => (leads == Leads::Nowhere).then_some(false),
            ([one, ..], true) => Some(counts(one)),
            // Of several paths that a pattern names, another one may be the one that was found.
            (all, false) => match leads {
                Leads::To(path) if all.iter().all(|(known, _)| *known != path) => None,
                Leads::Near => None,
                _ if all.iter().all(counts) => Some(true),
                Leads::Nowhere if all.iter().all(|(_, is)| *is == Footing::Elsewhere) => Some(false),
                _ => None,
            },
        }
    }

    fn script(
        &self,
        recorded: &proxy_journal::Workload,
        wanted: &ExePattern,
        conditions: &Conditions,
    ) -> Option<bool> {
        match counting_script(recorded.known.as_ref(), conditions)? {
            "" => Some(false),
            path if wanted.matches(path) => Some(true),
            path => {
                let file = files::named_by(Path::new(path));
                let leads = file.is_some_and(|file| self.leads(wanted, file, path) != Leads::Nowhere);
                (!leads).then_some(false)
            }
        }
    }

    fn leads(&self, pattern: &ExePattern, file: FileId, recorded: &str) -> Leads {
        let question = (pattern.as_str().to_owned(), file, recorded.to_owned());
        let mut known = self.leads.borrow_mut();
        let found = known.entry(question).or_insert_with(|| {
            // What was replaced since then is at the same path, by the same links.
            let same_path =
                |path: &str| Path::new(path).canonicalize().is_ok_and(|path| path == Path::new(recorded));
            match (files::find(pattern, file), pattern.literal()) {
                (Some(path), _) => Leads::To(path.display().to_string()),
                (None, Some(literal)) if same_path(literal) => Leads::Near,
                (None, _) => Leads::Nowhere,
            }
        });
        found.clone()
    }
}

/// The script that counts for an identity, empty if there is none; `None`: it is not recorded.
fn counting_script<'a>(known: Option<&'a Known>, conditions: &Conditions) -> Option<&'a str> {
    let known = known?;
    let script = known.script.as_deref()?;
    Some(if known.script_shared && !conditions.are_pinned() { "" } else { script })
}

fn clean(known: Option<&Known>) -> Option<bool> {
    Some(known?.environment.is_empty())
}

fn same_digest(recorded: Option<&str>, wanted: &[u8; 32]) -> Option<bool> {
    let wanted: String = wanted.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(recorded? == wanted)
}

/// Whether a name of a policy is of nobody on this host, which may not be the one that the journal is of.
fn is_nobody_here(name: Option<&String>, exists: impl Fn(&str) -> bool) -> bool {
    name.is_some_and(|name| name.parse::<u32>().is_err() && !exists(name))
}
