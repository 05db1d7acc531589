//! Workload → identity: every condition of every identity, and a reason when none matches.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use proxy_common::ENVIRONMENT_TRACED;
use proxy_policy::{Identity, PolicySet};

use super::{
    Identified, Reason, Workload,
    conditions::{Check, Common, Condition, Examination, Lookups, Miss},
};
use crate::kernel::Programs;

/// How long an answer is believed. It can only change by files being replaced; a policy reload has its own key.
const ANSWER_LIFE: Duration = Duration::from_millis(250);

/// How many answers are kept; beyond, all are forgotten and found again.
const MOST_ANSWERS: usize = 16_384;

/// Why a process is nobody that others could trace, with `protect`.
const TRACED: &str = "others than root traced it, or could, when it was executed; start it within the governed cgroup and \
                      not under a debugger";

/// The facts that an answer depends on, besides the files.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Question {
    generation: u64,
    pid: u32,
    start_time_ns: u64,
    exe_dev: u64,
    exe_ino: u64,
    environment: u32,
    exec: (u64, u32),
    uid: u32,
    gid: u32,
    cgroup_id: u64,
}

/// Who a workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which identity.
    pub identified: Identified,
    /// Whether that was a question of its script: another start of the same program may be somebody else.
    pub by_start: bool,
}

/// Finds identities, and remembers for a moment what it found.
#[derive(Default)]
pub struct Matcher {
    lookups: Lookups,
    answers: Mutex<HashMap<Question, (Instant, Identified)>>,
}

/// One identity, held against a workload.
#[derive(Debug)]
pub struct Judged<'p> {
    /// The identity.
    pub identity: &'p Identity,
    /// Its conditions: all of them when they were to be explained, else up to the first that does not hold.
    pub checks: Vec<Check>,
}

impl Judged<'_> {
    /// Whether every condition holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.miss().is_none()
    }

    fn miss(&self) -> Option<&Miss> {
        self.checks.iter().find_map(|check| check.miss.as_ref())
    }
}

/// How much is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// What is needed to decide.
    Decide,
    /// Every condition.
    Explain,
}

impl Matcher {
    /// One that knows how processes were started.
    #[must_use]
    pub fn new(programs: Arc<Programs>) -> Self {
        Self { lookups: Lookups::new(programs), answers: Mutex::default() }
    }

    /// The answer that was found a moment ago, if any. Does not wait.
    #[must_use]
    pub fn remembered(&self, workload: &Workload, generation: u64) -> Option<Identified> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = answers.get(&question(workload, generation))?;
        (at.elapsed() < ANSWER_LIFE).then(|| answer.clone())
    }

    /// Looks at everything that the conditions ask. Blocks on the file system.
    #[must_use]
    pub fn find(&self, workload: &Workload, set: &PolicySet, generation: u64) -> Answer {
        let (answer, judged) = self.judge(workload, set, Depth::Decide);
        let by_start = judged
            .iter()
            .any(|judged| judged.checks.last().is_some_and(|check| check.condition.is_of_the_start()));
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST_ANSWERS {
            answers.clear();
        }
        answers.insert(question(workload, generation), (Instant::now(), answer.clone()));
        Answer { identified: answer, by_start }
    }

    /// The answer of [`find`](Self::find) as it is now, with every condition of every identity. Blocks on the file
    /// system.
    #[must_use]
    pub fn explain<'p>(&self, workload: &Workload, set: &'p PolicySet) -> (Identified, Vec<Judged<'p>>) {
        self.judge(workload, set, Depth::Explain)
    }

    fn judge<'p>(
        &self,
        workload: &Workload,
        set: &'p PolicySet,
        depth: Depth,
    ) -> (Identified, Vec<Judged<'p>>) {
        workload.learn();
        workload.script.get_or_init(|| self.lookups.script_label(workload));
        if workload.start_time_ns == 0 && depth == Depth::Decide {
            return (decide(workload, &[]), Vec::new());
        }
        let common = Common::of(workload);
        let judged: Vec<Judged<'p>> = set
            .identities()
            .filter_map(|identity| self.examine(workload, identity, depth, &common))
            .collect();
        workload.evidence.set(common.into_known());
        (decide(workload, &judged), judged)
    }

    /// `None`: it counts for no decision.
    fn examine<'p>(
        &self,
        workload: &Workload,
        identity: &'p Identity,
        depth: Depth,
        common: &Common,
    ) -> Option<Judged<'p>> {
        let mut examination = Examination::new(&self.lookups, workload, &identity.conditions, common);
        if depth == Depth::Decide && examination.is_far() {
            return None;
        }
        let mut checks = Vec::new();
        for check in Condition::ALL.into_iter().filter_map(|condition| examination.check(condition)) {
            let missed = check.miss.is_some();
            checks.push(check);
            if missed && depth == Depth::Decide {
                break;
            }
        }
        Some(Judged { identity, checks })
    }
}

/// What the workload is, from what came out for each identity.
fn decide(workload: &Workload, judged: &[Judged<'_>]) -> Identified {
    if workload.start_time_ns == 0 {
        return Identified::None("the kernel could not say when the process started".into());
    }
    if workload.environment & ENVIRONMENT_TRACED != 0 {
        let why = format!("{} is nobody: {TRACED}", workload.label());
        return Identified::None(Reason::told(why, TRACED.to_owned()));
    }
    let matching: Vec<&Judged<'_>> = judged.iter().filter(|judged| judged.holds()).collect();
    let near = || {
        judged.iter().find_map(|judged| {
            judged.miss().filter(|miss| miss.near).map(|miss| (&judged.identity.name, miss))
        })
    };
    match matching.as_slice() {
        [one] => Identified::One(one.identity.id),
        [] => Identified::None(match near() {
            Some((name, miss)) => {
                let why = format!("{} is not {name}: {}", workload.label(), miss.why);
                if miss.told { Reason::told(why, miss.why.clone()) } else { why.into() }
            }
            None => format!("no policy knows {} (uid {})", workload.label(), workload.uid).into(),
        }),
        several => Identified::Ambiguous(several.iter().map(|judged| judged.identity.name.clone()).collect()),
    }
}

fn question(workload: &Workload, generation: u64) -> Question {
    Question {
        generation,
        pid: workload.pid,
        start_time_ns: workload.start_time_ns,
        exe_dev: workload.exe_dev,
        exe_ino: workload.exe_ino,
        environment: workload.environment,
        exec: (workload.exec_ns, workload.exec_tgid),
        uid: workload.uid,
        gid: workload.gid,
        cgroup_id: workload.cgroup_id,
    }
}

#[cfg(test)]
#[path = "identify_tests.rs"]
mod tests;
