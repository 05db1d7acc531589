//! `vouchsafe status`: what a running daemon is doing, on one page, problems first.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use proxy_journal::text::escape;
use serde_json::json;

use super::audit::write_json;
use crate::control::ca::CaStatus;
use crate::control::client::{self, ClientError};
use crate::control::peer::said_of_this_process;
use crate::control::sinks::SinkStatus;
use crate::control::status::{IdentityStatus, JournalStatus, Protect};
use crate::control::{ReloadReport, Status};

/// The exit code when something is not as it should be.
pub const DEGRADED: u8 = 1;
/// The exit code when no daemon is running.
pub const NOT_RUNNING: u8 = 3;

/// Arguments of `vouchsafe status`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 all is well, 1 something is not, 3 the daemon is not running.")]
pub struct StatusArgs {
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

/// Tells the daemon on `socket` to read policies and secrets again, and prints what became of it.
///
/// # Errors
/// The daemon does not answer, or refuses what it read: every reason is in the error.
pub fn reload(socket: &Path) -> anyhow::Result<ExitCode> {
    let report: ReloadReport = match client::call_with(socket, "reload", said_of_this_process()) {
        Err(ClientError::Refused(failure)) => {
            failure.problems.iter().for_each(|problem| eprintln!("{problem}"));
            return Err(failure.into());
        }
        report => report?,
    };
    for warning in &report.warnings {
        eprintln!("{warning}");
    }
    let what = if report.changed { "is live" } else { "was live already" };
    println!("generation {} with {} identities {what}", report.generation, report.identities);
    Ok(ExitCode::SUCCESS)
}

/// Asks the daemon on `socket` and prints what it says. The exit code is 0 when all is well, [`DEGRADED`], or
/// [`NOT_RUNNING`].
///
/// # Errors
/// The daemon answers and does not admit us, or its reply is not understood.
pub fn run(args: &StatusArgs, socket: &Path) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let status = match client::status(socket) {
        Ok(status) => status,
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
        write_json(&status, &mut out)?;
    } else {
        let coloured = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        out.write_all(page(&status, coloured).as_bytes())?;
    }
    Ok(if status.problems().is_empty() { ExitCode::SUCCESS } else { ExitCode::from(DEGRADED) })
}

fn not_running(socket: &Path) -> String {
    format!(
        "vouchsafe is not running (nobody answers on {}).\n\
         Governed workloads have no network as long as its programs are pinned in the kernel.\n\
         Start it with `systemctl start vouchsafe`; `journalctl -u vouchsafe` says why it stopped.\n",
        socket.display()
    )
}

/// The only codes that a terminal gets; empty for anything else.
#[derive(Clone, Copy)]
struct Colours {
    red: &'static str,
    plain: &'static str,
}

impl Colours {
    fn new(coloured: bool) -> Self {
        if coloured { Self { red: "\x1b[31m", plain: "\x1b[0m" } } else { Self { red: "", plain: "" } }
    }
}

/// The page for people. Nothing in it moves a terminal but the colours of our own.
fn page(status: &Status, coloured: bool) -> String {
    let mut page = String::new();
    let colours = Colours::new(coloured);
    // Writing to a string does not fail.
    let _ = write_page(&mut page, status, colours);
    page
}

fn write_page(page: &mut String, status: &Status, Colours { red, plain }: Colours) -> std::fmt::Result {
    let Status { kernel, policy, journal, secrets, .. } = status;
    for problem in status.problems() {
        writeln!(page, "{red}problem   {}{plain}", safe(&problem))?;
    }
    let (version, pid, up) = (safe(&status.version), status.pid, duration(status.uptime_s));
    writeln!(page, "vouchsafe {version}, pid {pid}, up {up} (since {})", safe(&status.started))?;
    writeln!(page, "mode      {}", safe(&status.mode))?;

    let attached = if kernel.programs.is_empty() { "nothing".to_owned() } else { kernel.programs.join(" ") };
    writeln!(page, "kernel    {} attached to {}", safe(&attached), safe(&kernel.attached_cgroup))?;
    let ports: Vec<_> = kernel.ports.iter().map(u16::to_string).collect();
    let origins = kernel.origins_in_map;
    writeln!(
        page,
        "          ports {}; {origins} origins; pins in {}",
        ports.join(" "),
        safe(&kernel.pin_dir)
    )?;
    let counted: Vec<_> = kernel
        .counters
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if !counted.is_empty() {
        writeln!(page, "          {}", safe(&counted.join(", ")))?;
    }
    for lack in &kernel.lacks {
        writeln!(page, "          {}", safe(lack))?;
    }
    let protect = match &kernel.protect {
        Protect::On => "on: only root may trace governed workloads and the daemon",
        Protect::Off => "off (protect = false)",
        // Why is among the problems.
        Protect::Unavailable { .. } => "off",
    };
    writeln!(page, "protect   {protect}")?;
    writeln!(page, "listening {}", safe(&status.listeners.join(" ")))?;
    writeln!(page, "open      {} connections from workloads", status.connections_open)?;
    writeln!(page, "policy    generation {}, loaded {}", policy.generation, safe(&policy.loaded_at))?;
    let (apis, roles, credentials, rules) = (policy.apis, policy.roles, policy.credentials, policy.rules);
    writeln!(page, "          {apis} APIs, {roles} roles, {credentials} credentials, {rules} rules")?;
    writeln!(page, "secrets   {} in memory", secrets.count)?;
    let CaStatus { generation, permits, until, former } = &status.ca;
    let until = until.split('T').next().unwrap_or_default();
    writeln!(
        page,
        "ca        generation {generation} for {permits} hosts, until {}; {former} former",
        safe(until)
    )?;
    write_journal(page, journal)?;
    for sink in &status.sinks {
        write_sink(page, sink)?;
    }
    writeln!(page)?;
    write_identities(page, &policy.identities)?;
    writeln!(page, "any other workload: {}", status.unidentified.as_str())
}

fn write_journal(page: &mut String, journal: &JournalStatus) -> std::fmt::Result {
    writeln!(page, "journal   {} records in {}", journal.records, safe(&journal.path))?;
    let durability = match journal.durability.as_str() {
        "sync" => "sync: a call goes on when the disk has its record",
        _ => "fast: a record survives the daemon, and reaches the disk within a second",
    };
    writeln!(page, "          {durability}")?;
    let (segment, unsigned, key) = (journal.segment, journal.unsigned, safe(&journal.key));
    let away = if journal.spilled { ", where it spills because its disk is full" } else { "" };
    writeln!(page, "          segment {segment}{away}; {unsigned} records not signed yet; key {key}")?;
    for witness in &journal.witnesses {
        let at = witness.at.as_deref().unwrap_or("never");
        writeln!(
            page,
            "          witness {}: through record {}, {}",
            safe(&witness.name),
            witness.through,
            safe(at)
        )?;
    }
    Ok(())
}

fn write_sink(page: &mut String, sink: &SinkStatus) -> std::fmt::Result {
    write!(page, "sink      {} to {}: {} sent", safe(&sink.name), safe(&sink.to), sink.sent)?;
    for (count, what) in [(sink.behind, "behind"), (sink.rejected, "rejected"), (sink.lost, "LOST")] {
        if count > 0 {
            write!(page, ", {count} {what}")?;
        }
    }
    if sink.behind > 0 && sink.behind_s > 0 {
        write!(page, " ({})", duration(sink.behind_s))?;
    }
    writeln!(page, "{}", if sink.absent { "; nobody is there" } else { "" })
}

fn write_identities(page: &mut String, identities: &[IdentityStatus]) -> std::fmt::Result {
    if identities.is_empty() {
        return writeln!(page, "no identities: no policy file governs a workload");
    }
    let longest = identities.iter().map(|identity| safe(&identity.name).chars().count()).max().unwrap_or(0);
    let width = longest.max("IDENTITY".len());
    writeln!(page, "{:width$}  MODE     UNMATCHED  ALLOWED  DENIED", "IDENTITY")?;
    for identity in identities {
        writeln!(
            page,
            "{:width$}  {:7}  {:9}  {:7}  {:6}",
            safe(&identity.name),
            identity.mode.as_str(),
            identity.unmatched.as_str(),
            identity.calls_allowed,
            identity.calls_denied,
        )?;
    }
    Ok(())
}

/// The text with every character spelled out that could move the terminal, or hide something from who reads it.
pub(super) fn safe(text: &str) -> String {
    escape(text).into_owned()
}

/// The two largest units, as in `1 d 2 h`.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::Health;
    use crate::control::status::tests::healthy;

    #[test]
    fn the_page_shows_what_is_attached_which_generation_and_each_identity() {
        let page = page(&healthy(), false);
        for part in [
            "vouchsafe 0.1.0, pid 812, up 1 d 2 h",
            "connect4 connect6 attached to /sys/fs/cgroup",
            "generation 7",
            "redirected 41",
            "invoice-bot  enforce  deny            40       1",
            "any other workload: deny",
        ] {
            assert!(page.contains(part), "{part} is not in\n{page}");
        }
        assert!(!page.contains("origin_lost"), "counters that are zero are left out");
        assert!(!page.contains('\x1b'));
    }

    #[test]
    fn each_sink_has_a_line_with_what_is_not_there_yet() {
        let mut status = healthy();
        let (name, to) = ("siem".to_owned(), "syslog at tls://siem:6514".to_owned());
        let siem =
            SinkStatus { name, to, sent: 7, behind: 3, behind_s: 65, lost: 2, ..SinkStatus::default() };
        let pipe = SinkStatus {
            name: "pipe".into(),
            to: "/run/a\x1b".into(),
            absent: true,
            ..SinkStatus::default()
        };
        status.sinks = vec![siem, pipe];
        let page = page(&status, false);
        let line = "sink      siem to syslog at tls://siem:6514: 7 sent, 3 behind, 2 LOST (1 min 5 s)\n";
        assert!(page.contains(line), "{page}");
        assert!(page.contains("sink      pipe to /run/a\\u{1b}: 0 sent; nobody is there\n"), "{page}");
    }

    #[test]
    fn whether_it_protects_is_on_the_page_and_why_not_among_the_problems() {
        let mut status = healthy();
        assert!(page(&status, false).contains("protect   off (protect = false)\n"));
        status.kernel.protect = Protect::On;
        assert!(page(&status, false).contains("protect   on: only root"));
        status.kernel.protect = Protect::Unavailable { problem: "no BPF LSM".into() };
        let page = page(&status, false);
        assert!(
            page.starts_with("problem   protect: it is off, though protect = true: no BPF LSM\n"),
            "{page}"
        );
        assert!(page.contains("protect   off\n"), "{page}");
    }

    #[test]
    fn problems_come_first_and_red_on_a_terminal_only() {
        let mut status = healthy();
        status.secrets.health = Health::Failed { problem: "the store is damaged".into() };
        assert!(page(&status, false).starts_with("problem   secrets: the store is damaged\n"));
        assert!(page(&status, true).starts_with("\x1b[31mproblem   secrets: the store is damaged\x1b[0m\n"));
    }

    #[test]
    fn a_host_on_which_nothing_is_denied_says_so_first_and_in_red() {
        let status = Status { observes: true, ..healthy() };
        let page = page(&status, true);
        assert!(
            page.starts_with("\x1b[31mproblem   mode: nothing is denied by policy on this host"),
            "{page}"
        );
    }

    #[test]
    fn names_cannot_move_the_terminal() {
        let mut status = healthy();
        status.policy.last_error = Some(vec!["a\x1b[2J\n.toml:1:1: x".into()]);
        let page = page(&status, false);
        assert!(page.contains(r"a\u{1b}[2J\u{a}.toml:1:1"), "{page}");
    }

    #[test]
    fn durations_show_their_two_largest_units() {
        let shown: Vec<_> = [5, 65, 3_700, 90_000].into_iter().map(duration).collect();
        assert_eq!(shown, ["5 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn without_a_daemon_it_says_what_that_means_for_workloads() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let code = run(&StatusArgs { json: false }, &socket).unwrap();
        assert_eq!(code, ExitCode::from(3));
        assert!(not_running(&socket).contains("have no network"));
    }
}
