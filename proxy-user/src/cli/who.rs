//! `vouchsafe who PID|UNIT`: which identity a running process has under the live policy, and why.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::audit::write_json;
use super::status::{DEGRADED, NOT_RUNNING, safe};
use crate::control::client::{self, ClientError};
use crate::control::who::{COMMAND, ConditionReport, IdentityReport, ProcessReport, Target, WhoReport};

/// Arguments of `vouchsafe who`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 every process is governed and has one identity, 1 one is or has not, or cannot be \
                        looked at, 3 the daemon is not running."
)]
pub struct WhoArgs {
    /// The id of a process, or a systemd unit for all of its processes
    #[arg(value_name = "PID|UNIT")]
    target: String,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// Asks the daemon on `socket`, which judges by its live policy, and prints what it says.
///
/// # Errors
/// The daemon does not admit us, or there is no such process or unit.
pub fn run(args: &WhoArgs, socket: &Path) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let target = Target::of(&args.target);
    let report: WhoReport = match client::call_with(socket, COMMAND, target.arguments()) {
        Ok(report) => report,
        Err(ClientError::NotRunning { .. }) => {
            if args.json {
                writeln!(out, "{}", json!({ "running": false }))?;
            } else {
                out.write_all(not_running(socket).as_bytes())?;
            }
            return Ok(ExitCode::from(NOT_RUNNING));
        }
        Err(error) => return Err(error.into()),
    };
    if args.json {
        write_json(&report, &mut out)?;
    } else {
        out.write_all(page(&report).as_bytes())?;
    }
    let all = report.not_shown.is_empty()
        && report.processes.iter().all(|process| process.governed && process.identity.is_some());
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
}

fn not_running(socket: &Path) -> String {
    format!(
        "vouchsafe is not running (nobody answers on {}), so no policy is live and nobody has an identity.\n\
         Start it with `systemctl start vouchsafe`; `journalctl -u vouchsafe` says why it stopped.\n",
        socket.display()
    )
}

fn page(report: &WhoReport) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_page(&mut page, report);
    page
}

fn write_page(page: &mut String, report: &WhoReport) -> std::fmt::Result {
    for (index, process) in report.processes.iter().enumerate() {
        if index > 0 {
            writeln!(page)?;
        }
        write_process(page, process, report)?;
    }
    for line in &report.not_shown {
        writeln!(page, "\nnot shown  {}", safe(line))?;
    }
    if report.omitted > 0 {
        let (shown, unit) = (report.processes.len(), report.unit.as_deref().unwrap_or("the unit"));
        writeln!(
            page,
            "\n{} more processes of {} are not shown, only the first {shown}; name one by its id",
            report.omitted,
            safe(unit)
        )?;
    }
    Ok(())
}

fn write_process(page: &mut String, process: &ProcessReport, report: &WhoReport) -> std::fmt::Result {
    let none = || "unknown".to_owned();
    let named = |name: &Option<String>, kind: &str, number: u32| match name {
        Some(name) => format!("{} ({kind} {number})", safe(name)),
        None => format!("{kind} {number} (without a name)"),
    };
    let exe = process.exe.as_deref().map_or_else(none, safe);
    writeln!(page, "process     {}, started {}", process.pid, safe(&process.started))?;
    writeln!(page, "executable  {exe} (device {}, inode {})", safe(&process.exe_device), process.exe_inode)?;
    let user = named(&process.user, "uid", process.uid);
    writeln!(page, "user        {user}, group {}", named(&process.group, "gid", process.gid))?;
    writeln!(page, "cgroup      {}", process.cgroup.as_deref().map_or_else(none, safe))?;
    writeln!(page, "unit        {}", process.unit.as_deref().map_or_else(|| "none".to_owned(), safe))?;
    if let Some(invocation) = &process.invocation {
        writeln!(page, "invocation  {}", safe(invocation))?;
    }
    write_container(page, process)?;
    if !process.ancestors.is_empty() {
        let chain: Vec<String> = process.ancestors.iter().map(|exe| safe(exe)).collect();
        writeln!(page, "started by  {}", chain.join(" < "))?;
    }
    let inode = |inode: u64| if inode == 0 { none() } else { inode.to_string() };
    let whose = match (process.netns, process.netns_is_the_daemons) {
        (0, _) => "",
        (_, true) => " (the daemon's)",
        (_, false) => " (not the daemon's)",
    };
    writeln!(page, "namespaces  network {}{whose}, mount {}", inode(process.netns), inode(process.mntns))?;
    if let Some(why) = &process.not_governed {
        writeln!(page, "governed    no: {}", safe(why))?;
    }
    let generation = report.generation;
    let fate = report.unidentified.as_str();
    match (&process.identity, &process.ambiguous, &process.reason) {
        (Some(name), ..) => writeln!(page, "identity    {} (policy generation {generation})", safe(name))?,
        (None, several, None) => {
            let names = safe(&several.join(", "));
            writeln!(page, "identity    none (policy generation {generation}): more than one: {names}")?;
        }
        (None, _, Some(why)) => {
            writeln!(page, "identity    none (policy generation {generation}): {}", safe(why))?;
            writeln!(page, "            what has no identity: {fate}")?;
        }
    }
    process.identities.iter().try_for_each(|identity| write_identity(page, identity))
}

fn write_container(page: &mut String, process: &ProcessReport) -> std::fmt::Result {
    let Some(container) = &process.container else { return Ok(()) };
    let unknown = "a name that is not known";
    let name = container.name.as_deref().map_or_else(|| unknown.to_owned(), safe);
    writeln!(page, "container   {} {name} ({})", safe(&container.runtime), safe(&container.id))?;
    if let Some(image) = &container.image {
        writeln!(page, "image       {}", safe(image))?;
    }
    if let Some(who) = &container.claimed_by {
        writeln!(page, "            its cgroup could be made by {}, so no `container` matches", safe(who))?;
    }
    if let Some(pod) = &container.kubernetes {
        let part = |text: &Option<String>| text.as_deref().map_or_else(|| "?".to_owned(), safe);
        let (namespace, name) = (part(&pod.namespace), part(&pod.pod));
        let account = part(&pod.service_account);
        writeln!(page, "pod         {namespace}/{name} ({}), service account {account}", safe(&pod.pod_uid))?;
    }
    if let Some(why) = &process.container_problem {
        writeln!(page, "            {}", safe(why))?;
    }
    Ok(())
}

fn write_identity(page: &mut String, identity: &IdentityReport) -> std::fmt::Result {
    let holds = if identity.holds { "holds" } else { "does not hold" };
    writeln!(page, "\n  {} {holds}", safe(&identity.name))?;
    for ConditionReport { condition, holds, wanted, found, why } in &identity.conditions {
        let (condition, wanted, found) = (safe(condition), safe(wanted), safe(found));
        match (holds, why) {
            (true, _) if *wanted == found => writeln!(page, "    yes  {condition:6}  {wanted}")?,
            (true, _) => writeln!(page, "    yes  {condition:6}  {wanted}: is {found}")?,
            (false, why) => {
                writeln!(page, "    no   {condition:6}  {wanted}: is {found}")?;
                if let Some(why) = why {
                    writeln!(page, "                 {}", safe(why))?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "who_tests.rs"]
mod tests;
