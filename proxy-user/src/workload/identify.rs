//! Workload → identity: every condition of every identity, and a reason when none matches.
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::unistd::{Group, User};
use proxy_policy::{Identity, PolicySet};

use super::{
    Identified, Workload,
    digest::Digests,
    files::{self, FileId},
};

/// How long a name of a user or group is believed.
const NAME_LIFE: Duration = Duration::from_secs(10);

/// How long an answer is believed. It can only change by files being replaced; a policy reload has its own key.
const ANSWER_LIFE: Duration = Duration::from_millis(250);

/// How many answers are kept; beyond, all are forgotten and found again.
const MOST_ANSWERS: usize = 16_384;

/// The facts that an answer depends on, besides the files.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    generation: u64,
    pid: u32,
    start_time_ns: u64,
    exe_dev: u64,
    exe_ino: u64,
    uid: u32,
    gid: u32,
    cgroup_id: u64,
}

/// Finds identities, and remembers for a moment what it found.
#[derive(Default)]
pub struct Matcher {
    digests: Digests,
    users: Mutex<HashMap<String, (Instant, Option<u32>)>>,
    groups: Mutex<HashMap<String, (Instant, Option<u32>)>>,
    answers: Mutex<HashMap<Question, (Instant, Identified)>>,
}

impl Matcher {
    /// The answer that was found a moment ago, if any. Does not wait.
    #[must_use]
    pub fn remembered(&self, workload: &Workload, generation: u64) -> Option<Identified> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = answers.get(&question(workload, generation))?;
        (at.elapsed() < ANSWER_LIFE).then(|| answer.clone())
    }

    /// Looks at everything that the conditions ask. Blocks on the file system.
    #[must_use]
    pub fn find(&self, workload: &Workload, set: &PolicySet, generation: u64) -> Identified {
        let answer = self.search(workload, set);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST_ANSWERS {
            answers.clear();
        }
        answers.insert(question(workload, generation), (Instant::now(), answer.clone()));
        answer
    }

    fn search(&self, workload: &Workload, set: &PolicySet) -> Identified {
        if workload.start_time_ns == 0 {
            return Identified::None("the kernel could not say when the process started".into());
        }
        let mut matching = Vec::new();
        let mut near: Option<(String, String)> = None;
        for identity in set.identities() {
            match self.misses(workload, identity) {
                Ok(()) => matching.push(identity),
                Err(Miss { near: true, why }) if near.is_none() => near = Some((identity.name.clone(), why)),
                Err(_) => {}
            }
        }
        match matching.as_slice() {
            [one] => Identified::One(one.id),
            [] => Identified::None(match near {
                Some((name, why)) => format!("{} is not {name}: {why}", workload.label()),
                None => format!("no policy knows {} (uid {})", workload.label(), workload.uid),
            }),
            several => Identified::Ambiguous(several.iter().map(|identity| identity.name.clone()).collect()),
        }
    }

    /// `Ok` if every condition holds. Cheap conditions come first.
    fn misses(&self, workload: &Workload, identity: &Identity) -> Result<(), Miss> {
        let conditions = &identity.conditions;
        let file = FileId { dev: workload.exe_dev, ino: workload.exe_ino };
        let mut path: Option<PathBuf> = None;
        let miss = |near: bool, why: String| Err(Miss { near, why });

        // The executable decides whether a miss is worth telling.
        let near = conditions.exe.is_some();
        if let Some(exe) = &conditions.exe {
            if workload.exe_ino == 0 {
                return miss(false, "its executable could not be read".into());
            }
            path = files::find(exe, file);
            if path.is_none() {
                let label = workload.exe.as_deref().unwrap_or("");
                let replaced = label.strip_suffix(" (deleted)").is_some_and(|old| exe.matches(old));
                return match replaced {
                    true => miss(
                        true,
                        "the file at its path was replaced since it started; restart the process".into(),
                    ),
                    false => miss(false, format!("it is not {}", exe.as_str())),
                };
            }
        }
        if let Some(user) = &conditions.user {
            let wanted = number(user).or_else(|| self.user(user));
            if wanted != Some(workload.uid) {
                return miss(
                    near,
                    format!("it must run as user {}, and runs as uid {}", user.value, workload.uid),
                );
            }
        }
        if let Some(group) = &conditions.group {
            let wanted = number(group).or_else(|| self.group(group));
            if wanted != Some(workload.gid) {
                return miss(
                    near,
                    format!("it must run as group {}, and runs as gid {}", group.value, workload.gid),
                );
            }
        }
        if let Some(unit) = &conditions.unit
            && !workload.unit.as_deref().is_some_and(|name| unit.matches(name))
        {
            let has = workload.unit.as_deref().unwrap_or("no unit");
            return miss(near, format!("it must be of unit {}, and is of {has}", unit.as_str()));
        }
        if let Some(cgroup) = &conditions.cgroup
            && !workload.cgroup.as_deref().is_some_and(|path| cgroup.matches(path))
        {
            let has = workload.cgroup.as_deref().unwrap_or("one that is gone");
            return miss(near, format!("it must be in cgroup {}, and is in {has}", cgroup.as_str()));
        }
        if let Some(sha256) = &conditions.sha256 {
            match self.digests.of(workload, path.as_deref()) {
                Some(digest) if digest == sha256.value => {}
                Some(_) => {
                    return miss(near, "its executable has another SHA-256 than the policy names".into());
                }
                None => {
                    return miss(
                        near,
                        "its executable cannot be read any more, so its SHA-256 is unknown".into(),
                    );
                }
            }
        }
        Ok(())
    }

    fn user(&self, name: &str) -> Option<u32> {
        lookup(&self.users, name, |name| User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()))
    }

    fn group(&self, name: &str) -> Option<u32> {
        lookup(&self.groups, name, |name| {
            Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw())
        })
    }
}

/// Why an identity is not the workload's.
struct Miss {
    /// Whether this identity is the one that a person would have expected.
    near: bool,
    why: String,
}

fn question(workload: &Workload, generation: u64) -> Question {
    Question {
        generation,
        pid: workload.pid,
        start_time_ns: workload.start_time_ns,
        exe_dev: workload.exe_dev,
        exe_ino: workload.exe_ino,
        uid: workload.uid,
        gid: workload.gid,
        cgroup_id: workload.cgroup_id,
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

fn lookup(
    names: &Mutex<HashMap<String, (Instant, Option<u32>)>>,
    name: &str,
    ask: impl Fn(&str) -> Option<u32>,
) -> Option<u32> {
    if let Some((at, id)) = names.lock().unwrap_or_else(PoisonError::into_inner).get(name)
        && at.elapsed() < NAME_LIFE
    {
        return *id;
    }
    let id = ask(name);
    names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), (Instant::now(), id));
    id
}
