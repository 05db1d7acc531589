//! Clients of the bench that are this program itself, started again where they belong: plain HTTP, one call for each
//! connection.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};

use super::site;

/// What the hidden task `bench-call` does.
#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// One call; the exit code says whether it was answered well.
    Once { to: SocketAddrV4, path: String },
    /// So many calls one after the other, each on a connection of its own. Prints the seconds that they took.
    Row { to: SocketAddrV4, count: u32 },
    /// Calls at a steady pace on one connection for so many seconds. Prints how many calls there were, and of the times from when
    /// each was due until its answer was there the median, the 99th percentile and the longest, in seconds.
    Paced { to: SocketAddrV4, seconds: u64 },
    /// Executes so many programs, several at a time, each for one call of `/v1/storm/PROGRAM/NUMBER`. Prints the number and
    /// the process of each, and whether it was answered well; then the seconds that they took.
    Storm { to: SocketAddrV4, count: usize, programs: Vec<PathBuf> },
}

/// Longer than any answer takes.
const LIMIT: Duration = Duration::from_secs(20);
/// Programs of a storm that run at a time.
const AT_A_TIME: usize = 16;
/// From one call of the steady pace to the next.
const PACE: Duration = Duration::from_millis(2);

/// The path that a call of the storm asks for.
pub(super) fn storm_path(program: &str, number: usize) -> String {
    format!("/v1/storm/{program}/{number}")
}

/// Does what the hidden task is told to.
pub(crate) fn run(options: &Options) -> Result<()> {
    match &options.task {
        Task::Once { to, path } => call(*to, path),
        Task::Row { to, count } => {
            let begun = Instant::now();
            for number in 0..*count {
                call(*to, "/v1/row").with_context(|| format!("call {number}"))?;
            }
            println!("{}", begun.elapsed().as_secs_f64());
            Ok(())
        }
        Task::Paced { to, seconds } => paced(*to, Duration::from_secs(*seconds)),
        Task::Storm { to, count, programs } => storm(*to, *count, programs),
    }
}

fn call(to: SocketAddrV4, path: &str) -> Result<()> {
    let mut stream = TcpStream::connect(to).context("cannot connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", site::PLAIN.1)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).context("the answer broke off")?;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(site::BODY),
        "not answered well: {answer}"
    );
    Ok(())
}

fn paced(to: SocketAddrV4, length: Duration) -> Result<()> {
    let mut stream = TcpStream::connect(to).context("cannot connect")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    let request = format!("GET /v1/paced HTTP/1.1\r\nHost: {}\r\n\r\n", site::PLAIN.1);
    let mut answer = [0; 4096];
    let begun = Instant::now();
    let mut due = begun;
    let mut times: Vec<f64> = Vec::new();
    // Calls that are slower than the pace leave it behind; it ends all the same.
    while due.duration_since(begun) < length && begun.elapsed() < length * 3 {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request.as_bytes()).context("cannot send")?;
        let mut length = 0;
        while !answer.get(..length).is_some_and(|it| it.ends_with(site::BODY.as_bytes())) {
            let read =
                stream.read(answer.get_mut(length..).unwrap_or_default()).context("the answer broke off")?;
            ensure!(read > 0, "the connection was closed after {} calls", times.len());
            length += read;
        }
        let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
        ensure!(text.starts_with("HTTP/1.1 200 "), "not answered well: {text}");
        times.push(due.elapsed().as_secs_f64());
        due += PACE;
    }
    times.sort_by(f64::total_cmp);
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len() - 1)).copied().unwrap_or(0.0);
    println!("{} {} {} {}", times.len(), at(50), at(99), at(100));
    Ok(())
}

fn storm(to: SocketAddrV4, count: usize, programs: &[PathBuf]) -> Result<()> {
    let mut running: VecDeque<(usize, Child)> = VecDeque::new();
    let begun = Instant::now();
    for number in 0..=count {
        while running.len() >= AT_A_TIME || (number == count && !running.is_empty()) {
            let Some((number, mut child)) = running.pop_front() else { break };
            let (pid, status) = (child.id(), child.wait()?);
            println!("{number} {pid} {}", status.success());
        }
        if number == count {
            break;
        }
        let Some(program) = programs.get(number % programs.len().max(1)) else { bail!("no programs") };
        let mut command = Command::new(program);
        command.args(["bench-call", "once", &to.to_string(), &storm_path(&name(program), number)]);
        running.push_back((number, command.stdin(Stdio::null()).spawn()?));
    }
    println!("{}", begun.elapsed().as_secs_f64());
    Ok(())
}

/// The name of a program of the storm, which is its identity's too.
pub(super) fn name(program: &Path) -> String {
    program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
