//! What the hook adds to connect(2): the same calls in a cgroup with the programs attached and in one without.
//!
//! The calls are made by this program itself, started again in each place as the hidden task `bench-connect`. What is
//! turned to the proxy is compared with a call to the proxy's listener from outside, so that both wake the same process.
//! [`super::programs`] adds what the kernel itself counts for the programs.

use std::env;
use std::fs;
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, bind, connect, send, sendto, setsockopt, socket,
    sockopt,
};

use super::programs::{self, Counting, Counts};
use super::report::median;
use super::site;
use crate::stage::{Stage, daemon, process};

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Probe {
    /// A datagram socket to a port that is not mediated.
    Datagram,
    /// TCP to a port that is not mediated and on which nobody listens.
    Closed,
    /// TCP to a mediated port: turned to the proxy, or not.
    Turned,
    /// A packet of a vetted socket: `send` of a datagram.
    Send,
    /// A datagram to an address that is named with it: `sendto`.
    SendTo,
}

/// All probes, as the table has them.
pub(super) const PROBES: [Probe; 5] =
    [Probe::Datagram, Probe::Closed, Probe::Turned, Probe::Send, Probe::SendTo];

impl Probe {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Datagram => "connect: UDP, port not mediated",
            Self::Closed => "connect: TCP refused, port not mediated",
            Self::Turned => "connect: TCP, mediated port, turned to the proxy",
            Self::Send => "send: a packet of a vetted socket (egress)",
            Self::SendTo => "sendto: a datagram, vetted each time",
        }
    }

    /// Where to.
    fn target(self, governed: bool) -> String {
        match self {
            Self::Datagram | Self::Send | Self::SendTo => format!("{}:53", site::ADDRESS),
            Self::Closed => format!("{}:9", site::ADDRESS),
            Self::Turned if governed => format!("{}:443", site::ADDRESS),
            Self::Turned => daemon::LISTEN.to_owned(),
        }
    }
}

/// What `bench-connect` does, as the command line says it.
#[derive(Args)]
pub(crate) struct Options {
    probe: Probe,
    /// Where to.
    #[arg(long)]
    to: SocketAddrV4,
}

/// Calls at most, and the time that they may take at most.
const CALLS: u32 = 50_000;
const LIMIT: Duration = Duration::from_millis(250);

/// The median of one call in both places, in ns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Difference {
    pub(super) without: f64,
    pub(super) with: f64,
    /// By the kernel's own count, where it can be had: what one run of `on_connect4` takes, and what all programs
    /// together take for one call.
    pub(super) counted: Option<(f64, f64)>,
}

/// The median of one call of the same program in three places, in ns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Governed {
    /// Outside of the governed cgroup.
    pub(super) outside: f64,
    /// Inside, without an identity.
    pub(super) unknown: f64,
    /// Inside, with one.
    pub(super) identified: f64,
    /// One run of `on_connect4` then, by the kernel's own count.
    pub(super) counted: Option<f64>,
}

/// How many identities the policy has when connects are measured.
const IDENTITIES: [usize; 3] = [1, 1_000, 10_000];

/// A copy of this program that has an identity.
const KNOWN: &str = "known/probe";

/// Measures connects under policies with more and more identities. Those that are added have programs of their own, beside
/// those that the site has.
pub(super) fn measure_identities(
    stage: &Stage,
    daemon: &daemon::Daemon<'_>,
    quick: bool,
) -> Result<Vec<(usize, Probe, Governed)>> {
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    let known = stage.path(KNOWN);
    fs::create_dir_all(stage.path("known"))?;
    fs::copy(&ourselves, &known).with_context(|| format!("cannot copy to {}", known.display()))?;
    stage.write("policies/policies/known.toml", &site::plain_identity(&known), 0o644)?;
    let mut found = Vec::new();
    let mut made = 1;
    for identities in IDENTITIES.map(|count| if quick { count.div_ceil(10) } else { count }) {
        for number in made..identities {
            let policy = site::plain_identity(&stage.path(&format!("many/program-{number}")));
            stage.write(&format!("policies/policies/many-{number}.toml"), &policy, 0o644)?;
        }
        made = identities;
        daemon.run(&["reload"])?;
        for probe in [Probe::Datagram, Probe::Turned] {
            let places = [(false, &ourselves), (true, &ourselves), (true, &known)];
            let mut times = [const { Vec::new() }; 3];
            // In turns, so that what else the machine does meets all of them.
            for _ in 0..if quick { 2 } else { 5 } {
                for ((governed, program), times) in places.iter().zip(&mut times) {
                    times.push(call_by(stage, program, *governed, probe)?.0);
                }
            }
            let [outside, unknown, identified] = times.map(|times| median(&times));
            let counted = count(stage, &known, probe)?.map(|(connect, _)| connect);
            found.push((identities, probe, Governed { outside, unknown, identified, counted }));
        }
    }
    for number in 1..made {
        fs::remove_file(stage.path(&format!("policies/policies/many-{number}.toml")))?;
    }
    daemon.run(&["reload"])?;
    Ok(found)
}

/// Measures all probes once in both places, in turns.
pub(super) fn measure(stage: &Stage, quick: bool) -> Result<Vec<(Probe, Difference)>> {
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    let mut found = Vec::new();
    let turns = if quick { 2 } else { 3 };
    for probe in PROBES {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..turns {
            without.push(call_by(stage, &ourselves, false, probe)?.0);
            with.push(call_by(stage, &ourselves, true, probe)?.0);
        }
        let (without, with) = (median(&without), median(&with));
        found.push((probe, Difference { without, with, counted: count(stage, &ourselves, probe)? }));
    }
    Ok(found)
}

/// Makes the calls once more while the kernel counts: counting costs time itself.
fn count(stage: &Stage, program: &Path, probe: Probe) -> Result<Option<(f64, f64)>> {
    let Some(_counting) = Counting::begin() else { return Ok(None) };
    let before = programs::counts(&stage.governed)?;
    let (_, calls) = call_by(stage, program, true, probe)?;
    let after = programs::counts(&stage.governed)?;
    let difference = |name: Option<&str>| {
        let sum = |counts: &Counts| {
            let wanted = counts.iter().filter(|(program, _)| name.is_none_or(|name| name == *program));
            wanted.fold((0.0, 0.0), |(time, runs), (_, (more, again))| (time + more, runs + again))
        };
        let (before, after) = (sum(&before), sum(&after));
        (after.0 - before.0, after.1 - before.1)
    };
    let (connect_time, connect_runs) = difference(Some("on_connect4"));
    let (all_time, _) = difference(None);
    Ok(Some((connect_time / connect_runs.max(1.0), all_time / calls.max(1.0))))
}

/// Runs `bench-connect` by a copy of this program; returns the median of one call in ns, and how many calls there were.
fn call_by(stage: &Stage, program: &Path, governed: bool, probe: Probe) -> Result<(f64, f64)> {
    let name = probe.to_possible_value().context("a probe without a name")?;
    let mut command = stage.enter(governed.then_some("bots"));
    command.arg(program).args(["bench-connect", name.get_name(), "--to", &probe.target(governed)]);
    let finished = process::finish(&mut command, Duration::from_secs(10), &stage.stop)?;
    let read = || {
        let (time, calls) = finished.stdout.trim().split_once(' ')?;
        Some((time.parse().ok()?, calls.parse().ok()?))
    };
    read().with_context(|| {
        format!("bench-connect failed: {}{}", finished.stdout.trim(), finished.stderr.trim())
    })
}

/// Makes the calls and prints the median of one in ns, and their number.
pub(crate) fn run(options: &Options) -> Result<()> {
    let target = SockaddrIn::from(options.to);
    let deadline = Instant::now() + LIMIT;
    let (mut times, mut calls) = (Vec::new(), 0);
    while calls < CALLS && Instant::now() < deadline {
        let (time, more) = match options.probe {
            Probe::Datagram => datagrams(&target)?,
            Probe::Send | Probe::SendTo => packets(options.probe, &target)?,
            Probe::Closed | Probe::Turned => (stream(options.probe, &target)?, 1),
        };
        times.push(time);
        calls += more;
    }
    println!("{:.0} {calls}", median(&times));
    Ok(())
}

/// Connects a datagram socket some times: once is too short for the clock. Returns the time of one call.
fn datagrams(target: &SockaddrIn) -> Result<(f64, u32)> {
    const TIMES: u32 = 20;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let begun = Instant::now();
    for _ in 0..TIMES {
        connect(socket.as_raw_fd(), target)?;
    }
    Ok((begun.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES), TIMES))
}

/// Sends some datagrams to a socket of our own that nobody reads. Returns the time of one call.
fn packets(probe: Probe, target: &SockaddrIn) -> Result<(f64, u32)> {
    const TIMES: u32 = 200;
    let datagram = || socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    let (sink, socket) = (datagram()?, datagram()?);
    bind(sink.as_raw_fd(), target)?;
    if probe == Probe::Send {
        connect(socket.as_raw_fd(), target)?;
    }
    let begun = Instant::now();
    for _ in 0..TIMES {
        match probe {
            Probe::Send => send(socket.as_raw_fd(), b"datagram", MsgFlags::empty())?,
            _ => sendto(socket.as_raw_fd(), b"datagram", target, MsgFlags::empty())?,
        };
    }
    Ok((begun.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES), TIMES))
}

/// Opens a stream, and closes it at once without a rest in the kernel that would take up a port.
fn stream(probe: Probe, target: &SockaddrIn) -> Result<f64> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    let begun = Instant::now();
    let outcome = connect(socket.as_raw_fd(), target);
    let time = begun.elapsed().as_secs_f64() * 1e9;
    match (probe, outcome) {
        (Probe::Turned, Ok(())) => {
            drop(socket);
            // What the accepting side does with it is over before the next call.
            std::thread::sleep(Duration::from_micros(250));
        }
        (Probe::Closed, Err(Errno::ECONNREFUSED)) => {}
        (_, outcome) => bail!("connect to {target} gave {outcome:?}"),
    }
    Ok(time)
}
