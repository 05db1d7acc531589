//! `vouchsafe who`: a running process, judged by the policy that is live and by the code that decides.
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::{Gid, Group, Uid, User};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    authorize::{LivePolicy, PolicyStore, entry},
    control::{
        Failure,
        status::Treatment,
        who::{ConditionReport, IdentityReport, ProcessReport, Target, WhoReport},
    },
    kernel::{Programs, clock_ticks},
    workload::{
        Identified, Workload, Workloads,
        conditions::Check,
        files,
        identify::{Judged, Matcher},
        inspect::{self, Inspected, NoWorkload},
    },
};

/// How many processes of a unit are told.
const MOST_PROCESSES: usize = 64;

/// How long a unit is looked at: whoever asked must not be kept from an answer by large executables.
const PATIENCE: Duration = Duration::from_secs(15);

/// Says who processes are.
pub(super) struct Who<'a> {
    pub(super) matcher: &'a Matcher,
    pub(super) programs: &'a Programs,
    pub(super) workloads: &'a Workloads,
    pub(super) policy: &'a PolicyStore,
    pub(super) unidentified: Treatment,
}

impl Who<'_> {
    /// Looks at a process or at a unit. Blocks on the file system.
    pub(super) fn tell(&self, target: &Target) -> Result<WhoReport, Failure> {
        let live = self.policy.live();
        let mut report = WhoReport {
            generation: live.generation(),
            unidentified: self.unidentified,
            unit: None,
            processes: Vec::new(),
            omitted: 0,
            not_shown: Vec::new(),
        };
        match target {
            Target::Process(pid) => {
                let seen = inspect::process(*pid, self.workloads).map_err(no_workload)?;
                report.processes.push(self.process(&seen, &live));
            }
            Target::Unit(name) => {
                self.unit(name, &live, &mut report)?;
                report.unit = Some(name.clone());
            }
        }
        Ok(report)
    }

    fn unit(&self, name: &str, live: &LivePolicy, report: &mut WhoReport) -> Result<(), Failure> {
        let nothing_runs = |why: &str| {
            let help = format!("see `systemctl status {name}`, or name a process by its id");
            Failure::new("no-process", format!("no process of the unit {name} is running: {why}"), help)
        };
        let root = self.workloads.cgroups().unit_root();
        let pids = inspect::processes_of_unit(name, self.workloads.cgroups())
            .ok_or_else(|| nothing_runs(&format!("it has no cgroup below {root}")))?;
        let begun = Instant::now();
        for pid in &pids {
            if report.processes.len() >= MOST_PROCESSES || begun.elapsed() > PATIENCE {
                report.omitted += 1;
                continue;
            }
            match inspect::process(*pid, self.workloads) {
                Ok(seen) => report.processes.push(self.process(&seen, live)),
                // It was in the list a moment ago.
                Err(NoWorkload::Gone(_)) => {}
                Err(other) => report.not_shown.push(other.to_string()),
            }
        }
        if report.processes.is_empty() && report.not_shown.is_empty() {
            return Err(nothing_runs("its cgroup is empty"));
        }
        Ok(())
    }

    fn process(&self, seen: &Inspected, live: &LivePolicy) -> ProcessReport {
        let workload = &as_started(seen.workload.clone(), self.programs);
        let (identified, judged) = self.matcher.explain(workload, live.set());
        let (mut identity, mut ambiguous, mut reason) = (None, Vec::new(), None);
        match identified {
            Identified::One(id) => identity = live.set().identity(id).map(|found| found.name.clone()),
            Identified::None(why) => reason = Some(why.to_string()),
            Identified::Ambiguous(names) => ambiguous = names,
        }
        let not_governed = self.not_governed(seen);
        let (major, minor) = files::major_minor(workload.exe_dev);
        let own = inspect::process(std::process::id(), self.workloads).map_or(0, |own| own.netns_ino);
        ProcessReport {
            pid: workload.pid,
            started: started(workload.start_time_ns),
            start_time_ns: workload.start_time_ns,
            exe: workload.exe.clone(),
            exe_device: format!("{major}:{minor}"),
            exe_inode: workload.exe_ino,
            uid: workload.uid,
            user: User::from_uid(Uid::from_raw(workload.uid)).ok().flatten().map(|user| user.name),
            gid: workload.gid,
            group: Group::from_gid(Gid::from_raw(workload.gid)).ok().flatten().map(|group| group.name),
            cgroup: workload.cgroup.clone(),
            unit: workload.unit.clone(),
            boot: workload.boot.to_string(),
            invocation: workload.invocation.clone(),
            container: workload.container.as_deref().map(entry::container),
            container_problem: workload.container.as_ref().and_then(|known| known.told().problem.clone()),
            ancestors: workload.ancestors.get().cloned().unwrap_or_default(),
            netns: seen.netns_ino,
            netns_is_the_daemons: seen.netns_ino != 0 && seen.netns_ino == own,
            mntns: workload.mntns,
            governed: not_governed.is_none(),
            not_governed,
            identity,
            ambiguous,
            reason,
            identities: judged.iter().map(identity_report).collect(),
        }
    }

    /// Why the calls of a process do not come to us.
    fn not_governed(&self, seen: &Inspected) -> Option<String> {
        if seen.workload.pid == std::process::id() {
            return Some("it is the daemon itself, whose connections are not turned".into());
        }
        let governed = self.workloads.cgroups().governed().display();
        match &seen.workload.cgroup {
            Some(path) if self.workloads.cgroups().governs(path) => None,
            Some(path) => Some(format!(
                "its cgroup {path} is not below {governed}, so nothing is attached to its connections"
            )),
            None => Some(format!("its cgroup is gone, so nobody can say whether it was below {governed}")),
        }
    }
}

/// A running process with what the programs saw of its start.
fn as_started(workload: Workload, programs: &Programs) -> Workload {
    let tick = 1_000_000_000 / clock_ticks();
    let seen = programs.of(workload.pid).filter(|program| {
        program.start_time_ns / tick == workload.start_time_ns / tick
            && (u64::from(program.exe_dev), program.exe_ino) == (workload.exe_dev, workload.exe_ino)
    });
    match seen {
        Some(program) => Workload {
            environment: program.environment,
            exec_tgid: program.exec_tgid,
            exec_ns: program.exec_ns,
            ..workload
        },
        None => workload,
    }
}

fn no_workload(why: NoWorkload) -> Failure {
    let (code, help) = match why {
        NoWorkload::Gone(_) => ("no-process", "look its id up again, as with `pgrep -a`"),
        NoWorkload::Ended(_) | NoWorkload::KernelThread(_) => ("no-workload", ""),
        NoWorkload::Thread(..) | NoWorkload::Changing(_) => ("no-process", ""),
    };
    Failure::new(code, why.to_string(), help)
}

fn identity_report(judged: &Judged<'_>) -> IdentityReport {
    let condition = |check: &Check| ConditionReport {
        condition: check.condition.as_str().to_owned(),
        holds: check.miss.is_none(),
        wanted: check.wanted.clone(),
        found: check.found.clone(),
        why: check.miss.as_ref().map(|miss| miss.why.clone()),
    };
    IdentityReport {
        name: judged.identity.name.clone(),
        holds: judged.holds(),
        conditions: judged.checks.iter().map(condition).collect(),
    }
}

/// Nanoseconds since boot as a time of day.
fn started(since_boot: u64) -> String {
    let boot = procfs::boot_time_secs().unwrap_or_default();
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(boot) + Duration::from_nanos(since_boot);
    OffsetDateTime::from(at)
        .replace_millisecond(0)
        .map_or_else(|_| String::new(), |at| at.format(&Rfc3339).unwrap_or_default())
}
