//! `vouchsafe trust doctor [PID|UNIT]`: what running processes trust, why they would refuse, and what mends it.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use crate::cli::audit::write_json;
use crate::cli::status::{DEGRADED, safe};
use crate::config::Config;
use crate::control::who::Target;
use crate::doctor::{Diagnosis, Examiner, Holds, Kind, OurRoots, Patient, Store, Verdict};
use crate::kernel::Cgroups;
use crate::trust::CaCertificate;
use crate::workload::{Workloads, inspect};

/// How many processes are told.
const MOST_PROCESSES: usize = 256;

/// Arguments of `vouchsafe trust doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 every process trusts this host's CA, 1 one does not, or it cannot be told."
)]
pub(super) struct DoctorArgs {
    /// The id of a process, or a systemd unit for all of its processes; without it all governed processes that could speak TLS
    #[arg(value_name = "PID|UNIT")]
    target: Option<String>,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// What is told of them.
#[derive(Debug, Default, Serialize)]
struct Report {
    processes: Vec<Process>,
    /// Those that could not be looked at, and why.
    not_shown: Vec<String>,
    /// Those that were too many.
    omitted: usize,
}

#[derive(Debug, Serialize)]
struct Process {
    pid: u32,
    exe: Option<String>,
    unit: Option<String>,
    runtime: String,
    verdict: Verdict,
    why: String,
    mend: Option<String>,
    reads: Vec<Reads>,
}

#[derive(Debug, Serialize)]
struct Reads {
    who: &'static str,
    place: String,
    variable: Option<&'static str>,
    /// `all`, `some` or `none` of our roots; absent when it cannot be told.
    holds: Option<&'static str>,
    too_new: bool,
}

/// Looks at processes and prints what it finds. Needs no daemon, but the right to look at them.
///
/// # Errors
/// There is no CA yet, it may not be read, or there is no such process or unit.
pub(super) fn run(args: &DoctorArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let roots = CaCertificate::all(&config.state).context("the roots of this host cannot be had")?;
    let cgroups = Cgroups::open(config.kernel.cgroup.as_deref(), config.kernel.unit_root.as_deref())?;
    let workloads = Workloads::new(Arc::new(cgroups), config.containers.clone());
    let target = args.target.as_deref().map(Target::of);
    let report = examine(target.as_ref(), &workloads, &OurRoots::new(roots))?;
    let mut out = io::stdout().lock();
    if args.json {
        write_json(&report, &mut out)?;
    } else {
        out.write_all(page(&report).as_bytes())?;
    }
    let all = report.not_shown.is_empty() && report.omitted == 0;
    let all = all && report.processes.iter().all(|process| process.verdict == Verdict::Trusts);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
}

fn examine(target: Option<&Target>, workloads: &Workloads, roots: &OurRoots) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let pids = match target {
        Some(Target::Process(pid)) => vec![*pid],
        Some(Target::Unit(name)) => inspect::processes_of_unit(name, workloads.cgroups())
            .filter(|pids| !pids.is_empty())
            .with_context(|| {
                format!("no process of the unit {name} is running: see `systemctl status {name}`")
            })?,
        None => inspect::governed_processes(workloads.cgroups()),
    };
    let examiner = Examiner::default();
    for pid in pids {
        if report.processes.len() >= MOST_PROCESSES {
            report.omitted += 1;
            continue;
        }
        let found = inspect::process(pid, workloads).map_err(anyhow::Error::from).and_then(|seen| {
            let patient = Patient::from(&seen.workload);
            let diagnosis = examiner.examine(&patient, roots, None);
            let diagnosis = diagnosis.with_context(|| format!("process {pid} cannot be looked at"))?;
            Ok((patient, diagnosis))
        });
        match (found, target) {
            // Of all that runs, most speaks no TLS, and some of it is the kernel's.
            (Ok((_, diagnosis)), None) if diagnosis.runtime.kind == Kind::Unknown => {}
            (Ok((patient, diagnosis)), _) => report.processes.push(told(patient, diagnosis)),
            (Err(error), Some(Target::Process(_))) => bail!(error),
            (Err(_), None) => {}
            (Err(error), _) => report.not_shown.push(format!("{error:#}")),
        }
    }
    Ok(report)
}

fn told(patient: Patient, diagnosis: Diagnosis) -> Process {
    let Diagnosis { runtime, stores, verdict, why, mend } = diagnosis;
    let reads = |Store { who, place, variable, holds, too_new }: Store| {
        let holds = match holds {
            Holds::All => Some("all"),
            Holds::Some => Some("some"),
            Holds::None => Some("none"),
            Holds::Unknown(_) => None,
        };
        Reads { who, place, variable, holds, too_new }
    };
    let reads = stores.into_iter().map(reads).collect();
    let Patient { pid, exe, unit, .. } = patient;
    Process { pid, exe, unit, runtime: runtime.to_string(), verdict, why, mend, reads }
}

fn page(report: &Report) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_page(&mut page, report);
    page
}

fn write_page(page: &mut String, report: &Report) -> std::fmt::Result {
    for (index, process) in report.processes.iter().enumerate() {
        if index > 0 {
            writeln!(page)?;
        }
        let exe = process.exe.as_deref().unwrap_or("unknown");
        writeln!(page, "process  {} {}", process.pid, safe(exe))?;
        if let Some(unit) = &process.unit {
            writeln!(page, "unit     {}", safe(unit))?;
        }
        writeln!(page, "runtime  {}", safe(&process.runtime))?;
        for reads in &process.reads {
            let holds = match (reads.holds, reads.too_new) {
                (Some("all" | "some"), true) => "has it, since after the process started",
                (Some("all"), false) => "has this host's CA",
                (Some("some"), false) => "has only some of this host's roots",
                (Some(_), _) => "does not have this host's CA",
                (None, _) => "cannot be told",
            };
            let by = reads.variable.map(|name| format!(" ({name})")).unwrap_or_default();
            writeln!(page, "reads    {}: {}{by} {holds}", reads.who, safe(&reads.place))?;
        }
        let verdict = match process.verdict {
            Verdict::Trusts => "trusts this host's CA",
            Verdict::Restart => "does not trust it until it is started again",
            Verdict::Lacks | Verdict::CompiledIn | Verdict::Pinned => "does not trust this host's CA",
            Verdict::Unknown => "cannot be told",
        };
        writeln!(page, "verdict  {verdict}: {}", safe(&process.why))?;
        if let Some(mend) = &process.mend {
            writeln!(page, "mend     {}", safe(mend))?;
        }
    }
    for line in &report.not_shown {
        writeln!(page, "\nnot shown  {}", safe(line))?;
    }
    if report.omitted > 0 {
        writeln!(page, "\n{} more processes are not shown; name one, or a unit", report.omitted)?;
    }
    if report.processes.is_empty() && report.not_shown.is_empty() {
        writeln!(page, "no governed process that could speak TLS is running")?;
    }
    Ok(())
}
