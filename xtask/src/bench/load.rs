//! Loads: which client runs on which way, and what it says about it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::site::{LARGE, Site};
use crate::sh;
use crate::stage::Stage;
use crate::stage::process::{self, Finished};

/// How a client is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Not governed, brings the key.
    Direct,
    /// Governed, brings the key; its TLS is left as it is.
    Passed,
    /// Governed, has no key.
    Intercepted,
}

/// All ways, as the table has them.
pub(super) const WAYS: [Way; 3] = [Way::Direct, Way::Passed, Way::Intercepted];

impl Way {
    /// Whether the daemon has to do with it.
    pub(super) fn is_governed(self) -> bool {
        self != Self::Direct
    }

    /// A command that runs `client` on this way.
    pub(super) fn command(self, stage: &Stage, client: &str) -> Result<Command> {
        let (child, program) = match self {
            Self::Direct => {
                (None, sh::find_program(client).with_context(|| format!("{client} is not installed"))?)
            }
            Self::Passed => (Some("bots"), stage.path("passed").join(client)),
            Self::Intercepted => (Some("bots"), stage.path("bots").join(client)),
        };
        let mut command = stage.enter(child);
        command.args(["env", "-i"]).arg(program);
        Ok(command)
    }

    /// The header by which the client shows the key, where it has one.
    fn key(self, site: &Site) -> Option<String> {
        (self != Self::Intercepted).then(|| format!("Authorization: Bearer {}", site.key))
    }

    pub(super) fn url(self, http2: bool, path: &str) -> String {
        format!("https://{}/v1/{path}", Site::host(http2, self == Self::Passed))
    }
}

/// What is put on each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Kept-alive HTTP/1.1 on so many connections; the server may speak HTTP/2 too.
    Http1 { connections: u32, server_http2: bool },
    /// HTTP/2 on so many connections, one request at a time on each.
    Http2 { connections: u32 },
    /// A new connection for each request.
    New,
    /// A large body.
    Large { http2: bool },
}

/// Connections at a time when each has one request only.
const NEW_CONNECTIONS: u32 = 16;
/// Longest time for the large body, in seconds.
const LARGE_LIMIT: u64 = 5;

/// What one load on one way gave.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// Requests (or MB) that were answered well.
    pub(super) requests: f64,
    /// The same for each second.
    pub(super) rate: f64,
    /// In seconds.
    pub(super) p50: f64,
    pub(super) p99: f64,
    /// Requests that failed.
    pub(super) errors: f64,
    /// Seconds of processor time that the daemon used for each request, where it had to do with it.
    pub(super) cpu: Option<f64>,
}

impl Load {
    /// All loads, as the table has them.
    pub(super) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        all.extend([1, 16, 64].map(|connections| Self::Http1 { connections, server_http2: false }));
        all.extend([1, 16, 64].map(|connections| Self::Http2 { connections }));
        all.push(Self::Http1 { connections: 16, server_http2: true });
        all.push(Self::New);
        all.extend([false, true].map(|http2| Self::Large { http2 }));
        all
    }

    /// Those of [`Load::all`] whose names contain `text`.
    pub(super) fn named(text: &str) -> Vec<Self> {
        Self::all().into_iter().filter(|load| load.name().contains(text)).collect()
    }

    pub(super) fn name(self) -> String {
        let connections = |number: u32| match number {
            1 => "1 connection".to_owned(),
            number => format!("{number} connections"),
        };
        let mb = LARGE >> 20;
        match self {
            Self::Http1 { connections: number, server_http2: false } => {
                format!("HTTP/1.1, {}", connections(number))
            }
            Self::Http1 { connections: number, server_http2: true } => {
                format!("HTTP/1.1, server offers HTTP/2, {}", connections(number))
            }
            Self::Http2 { connections: number } => format!("HTTP/2, {}", connections(number)),
            Self::New => format!("HTTP/1.1, new connection for each request, {NEW_CONNECTIONS} at a time"),
            Self::Large { http2: false } => format!("HTTP/1.1, body of {mb} MiB"),
            Self::Large { http2: true } => format!("HTTP/2, body of {mb} MiB"),
        }
    }

    /// Whether the rate is in MB.
    pub(super) fn is_large(self) -> bool {
        matches!(self, Self::Large { .. })
    }

    /// Whether the client measures each request from its beginning: not when connecting is what takes the time.
    pub(super) fn has_latency(self) -> bool {
        matches!(self, Self::Http1 { .. } | Self::Http2 { .. })
    }

    /// Puts the load on `way` for so many seconds. Fails when answers are wrong.
    pub(super) fn put(self, way: Way, stage: &Stage, site: &Site, seconds: u64) -> Result<Sample> {
        let sample = match self {
            Self::Http1 { connections, server_http2 } => {
                wrk(way, stage, site, seconds, connections, &way.url(server_http2, "small"), &[])?
            }
            Self::New => {
                let close = ["-H", "Connection: close"];
                wrk(way, stage, site, seconds, NEW_CONNECTIONS, &way.url(false, "small"), &close)?
            }
            Self::Http2 { connections } => h2load(way, stage, site, seconds, connections)?,
            Self::Large { http2 } => large(way, stage, site, http2)?,
        };
        ensure!(
            sample.requests > 0.0 && sample.errors <= sample.requests / 100.0,
            "{} of {} requests failed ({way:?}, {}): there is nothing to measure",
            sample.errors,
            sample.requests + sample.errors,
            self.name()
        );
        Ok(sample)
    }
}

/// Fails unless each way to each host gets the right answer.
pub(super) fn check(stage: &Stage, site: &Site) -> Result<()> {
    for way in WAYS {
        for http2 in [false, true] {
            let mut command = curl(way, stage, site, http2, "small")?;
            let finished = process::finish(&mut command, Duration::from_secs(20), &stage.stop)?;
            let version = if http2 { "2" } else { "1.1" };
            ensure!(
                finished.stdout.starts_with("200 ")
                    && finished.stdout.trim().ends_with(&format!(" {version}")),
                "{way:?} over HTTP/{version} should have been 200, got: {} {}",
                finished.stdout.trim(),
                finished.stderr.trim()
            );
        }
    }
    Ok(())
}

/// Prints `@ requests µs errors p50 p99`.
pub(super) const WRK_REPORT: &str = r#"done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("@ %d %d %d %d %d\n", summary.requests, summary.duration,
        e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50), latency:percentile(99)))
end
"#;

fn wrk(
    way: Way,
    stage: &Stage,
    site: &Site,
    seconds: u64,
    connections: u32,
    url: &str,
    more: &[&str],
) -> Result<Sample> {
    let script = stage.write("report.lua", WRK_REPORT, 0o644)?;
    let mut command = way.command(stage, "wrk")?;
    command.args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "-s"]);
    command.arg(script).args(more);
    if let Some(key) = way.key(site) {
        command.args(["-H", &key]);
    }
    command.arg(url);
    let finished = run(&mut command, stage, seconds)?;
    parse_wrk(&finished.stdout).with_context(|| format!("wrk said nothing that helps: {}", finished.stdout))
}

pub(super) fn parse_wrk(output: &str) -> Option<Sample> {
    let line = output.lines().find_map(|line| line.strip_prefix("@ "))?;
    let mut numbers = line.split(' ').map(str::parse::<f64>);
    let mut next = || numbers.next()?.ok();
    let (all, micros, errors, p50, p99) = (next()?, next()?, next()?, next()?, next()?);
    let requests = (all - errors).max(0.0);
    let rate = requests / (micros / 1e6).max(1e-6);
    Some(Sample { requests, rate, p50: p50 / 1e6, p99: p99 / 1e6, errors, cpu: None })
}

fn h2load(way: Way, stage: &Stage, site: &Site, seconds: u64, connections: u32) -> Result<Sample> {
    let log = stage.path("h2load.log");
    let mut command = way.command(stage, "h2load")?;
    command.args(["-t", "1", "-m", "1", "-c", &connections.to_string(), "-D", &seconds.to_string()]);
    command.arg(format!("--log-file={}", log.display()));
    if let Some(key) = way.key(site) {
        command.args(["-H", &key]);
    }
    command.arg(way.url(true, "small"));
    let finished = run(&mut command, stage, seconds)?;
    let text = fs::read_to_string(&log).unwrap_or_default();
    let _ = fs::remove_file(&log);
    parse_h2load(&text).with_context(|| format!("h2load counted nothing: {}", finished.stdout))
}

/// The lines of a log: start in µs since the epoch, status, µs until the end of the response.
pub(super) fn parse_h2load(log: &str) -> Option<Sample> {
    let (mut first, mut last, mut errors) = (u64::MAX, 0, 0.0);
    let mut times = Vec::new();
    for line in log.lines() {
        let mut fields = line.split('\t');
        let (start, status, time) = (fields.next()?, fields.next()?, fields.next()?);
        let (Ok(start), Ok(time)) = (start.parse::<u64>(), time.parse::<u32>()) else { continue };
        if status != "200" {
            errors += 1.0;
            continue;
        }
        first = first.min(start);
        last = last.max(start + u64::from(time));
        times.push(time);
    }
    times.sort_unstable();
    let percentile = |percent: usize| {
        let place = (times.len() * percent / 100).min(times.len().checked_sub(1)?);
        times.get(place).map(|micros| f64::from(*micros) / 1e6)
    };
    let requests = f64::from(u32::try_from(times.len()).ok()?);
    let rate = requests / Duration::from_micros(last.checked_sub(first)?).as_secs_f64().max(1e-6);
    Some(Sample { requests, rate, p50: percentile(50)?, p99: percentile(99)?, errors, cpu: None })
}

fn large(way: Way, stage: &Stage, site: &Site, http2: bool) -> Result<Sample> {
    let mut command = curl(way, stage, site, http2, "large")?;
    let finished = process::finish(&mut command, Duration::from_secs(LARGE_LIMIT + 15), &stage.stop)?;
    // What a slow way got until its time was over counts, too.
    const TIMED_OUT: i32 = 28;
    if !matches!(finished.status.code(), Some(0 | TIMED_OUT)) || !finished.stdout.starts_with("200 ") {
        bail!("curl got no large body ({way:?}): {} {}", finished.stdout.trim(), finished.stderr.trim());
    }
    parse_curl(&finished.stdout).with_context(|| format!("curl said nothing that helps: {}", finished.stdout))
}

fn parse_curl(output: &str) -> Option<Sample> {
    let mut fields = output.split_whitespace().skip(1).map(str::parse::<f64>);
    let (bytes, seconds) = (fields.next()?.ok()?, fields.next()?.ok()?);
    let requests = bytes / 1e6;
    Some(Sample { requests, rate: requests / seconds.max(1e-6), ..Sample::default() })
}

/// A curl that prints `status bytes seconds version`.
fn curl(way: Way, stage: &Stage, site: &Site, http2: bool, path: &str) -> Result<Command> {
    let mut command = way.command(stage, "curl")?;
    let roots = if way == Way::Intercepted { "bots.pem" } else { "outside.pem" };
    command.args(["-q", "-sS", "-o", "/dev/null", "--max-time", &LARGE_LIMIT.to_string(), "--cacert"]);
    command.arg(stage.path(roots)).arg(if http2 { "--http2" } else { "--http1.1" });
    command.args(["-w", "%{http_code} %{size_download} %{time_total} %{http_version}"]);
    if let Some(key) = way.key(site) {
        command.args(["-H", &key]);
    }
    command.arg(way.url(http2, path));
    Ok(command)
}

fn run(command: &mut Command, stage: &Stage, seconds: u64) -> Result<Finished> {
    let finished = process::finish(command, Duration::from_secs(seconds + 10), &stage.stop)?;
    if !finished.status.success() {
        let said = format!("{}{}", finished.stdout, finished.stderr);
        bail!("`{}` failed ({}): {}", sh::shown(command), finished.status, said.trim());
    }
    Ok(finished)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_each_client_are_read() {
        let sample = parse_wrk("Running 1s test\n@ 1010 2000000 10 1500 9000\n").unwrap();
        assert_eq!((sample.requests, sample.rate, sample.errors), (1000.0, 500.0, 10.0));
        assert_eq!((sample.p50, sample.p99), (0.0015, 0.009));
        let sample = parse_h2load("0\t200\t500000\n500000\t200\t500000\n7\t-1\t3\n").unwrap();
        assert_eq!((sample.requests, sample.rate, sample.errors), (2.0, 2.0, 1.0));
        assert_eq!(sample.p99, 0.5);
        let sample = parse_curl("200 2000000 0.5 2").unwrap();
        assert_eq!((sample.requests, sample.rate), (2.0, 4.0));
    }

    #[test]
    fn nothing_said_is_nothing_measured() {
        assert!(parse_wrk("unable to connect\n").is_none());
        assert!(parse_h2load("").is_none());
        assert!(parse_curl("200").is_none());
    }
}
