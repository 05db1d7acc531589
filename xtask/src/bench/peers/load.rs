//! What every contestant is asked for, by which client, and what is counted of it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::contestant::Contestant;
use super::helper::{EVENTS, now};
use super::install::CLIENT;
use super::site::{Host, LARGE, Site};
use super::start::value;
use crate::bench::load::{WRK_REPORT, parse_h2load, parse_wrk};
use crate::sh;
use crate::stage::Stage;
use crate::stage::process::{self, Finished};

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// HTTP/1.1 on so many connections that are kept.
    Http1 { connections: u32 },
    /// HTTP/2 on [`CONNECTIONS`] connections with [`STREAMS`] requests at a time on each.
    Http2,
    /// HTTP/1.1, a connection for each request.
    New,
    /// The same, with the TLS session of an earlier one.
    Resumed,
    /// The first call to a name.
    First,
    /// A large answer.
    Get { http2: bool },
    /// A large request.
    Post,
    /// Events, one at a time.
    Events,
    /// A program for each call, and a server that is far away.
    Far,
    /// The same after a while without any. It takes minutes, so it is one of [`LONG`].
    Rested,
}

const CONNECTIONS: u32 = 16;
const STREAMS: u32 = 4;
/// Programs in a row of [`Load::Far`].
const CALLS: usize = 5;
/// Calls of [`Load::First`], each to another name.
const NAMES: u32 = 200;
/// How long nobody calls before [`Load::Rested`]: longer than what closes connections after a minute.
const REST: Duration = Duration::from_secs(65);
/// No large body takes longer, in seconds; what came until then counts.
const LARGE_LIMIT: u64 = 8;

/// All, as the table has them.
pub(super) const ALL: [Load; 12] = [
    Load::Http1 { connections: 1 },
    Load::Http1 { connections: 16 },
    Load::Http1 { connections: 64 },
    Load::Http2,
    Load::New,
    Load::Resumed,
    Load::First,
    Load::Get { http2: false },
    Load::Get { http2: true },
    Load::Post,
    Load::Events,
    Load::Far,
];

/// Those that take part only when they are named.
pub(super) const LONG: [Load; 1] = [Load::Rested];

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    /// Requests in a second.
    Rate,
    /// Seconds.
    P50,
    P99,
    /// Seconds from the first packet until TLS is up; the median.
    TlsUp,
    /// Seconds of processor time for 1,000 requests; none for direct.
    Cpu,
    /// MB in a second.
    Throughput,
    /// Seconds of processor time for a GB; none for direct.
    CpuOfGb,
}

/// What one load gave.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) figures: Vec<(Figure, f64)>,
    /// What processor time is for: thousands of requests, or GB.
    pub(super) amount: Option<(Figure, f64)>,
}

impl Load {
    /// Those whose names contain `text`; of [`ALL`], when there is none.
    pub(super) fn named(text: &str) -> Vec<Self> {
        let of = |loads: &[Self]| loads.iter().copied().filter(|load| load.name().contains(text)).collect();
        let all: Vec<Self> = of(&ALL);
        if all.is_empty() { of(&LONG) } else { all }
    }

    /// Whether it needs the client that is built for it.
    pub(super) fn is_by_own_client(self) -> bool {
        matches!(self, Self::Resumed | Self::First)
    }

    pub(super) fn name(self) -> String {
        match self {
            Self::Http1 { connections: 1 } => "HTTP/1.1, 1 connection".to_owned(),
            Self::Http1 { connections } => format!("HTTP/1.1, {connections} connections"),
            Self::Http2 => format!("HTTP/2, {CONNECTIONS} connections × {STREAMS} streams"),
            Self::New => format!("HTTP/1.1, new connection for each request, {CONNECTIONS} at a time"),
            Self::Resumed => {
                format!("HTTP/1.1, resumed connection for each request, {CONNECTIONS} at a time")
            }
            Self::First => "first contact with a host name".to_owned(),
            Self::Get { http2: false } => "HTTP/1.1, GET of 100 MB".to_owned(),
            Self::Get { http2: true } => "HTTP/2, GET of 100 MB".to_owned(),
            Self::Post => "HTTP/1.1, POST of 100 MB".to_owned(),
            Self::Events => "server-sent events, delay".to_owned(),
            Self::Far => "one curl, server 20 ms away".to_owned(),
            Self::Rested => format!("one curl, server 20 ms away, after {} s of rest", REST.as_secs()),
        }
    }

    pub(super) fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Get { http2: true })
    }

    /// Why a contestant cannot be asked for it, if so.
    pub(super) fn unfit(self, contestant: Contestant) -> Option<&'static str> {
        let by_curl = matches!(self, Self::Get { .. } | Self::Post | Self::Events | Self::Far | Self::Rested);
        if contestant.takes_connect() && !by_curl {
            return Some("only curl asks with CONNECT");
        }
        let knows_names = contestant.injects() && contestant != Contestant::Vouchsafe;
        if self == Self::First && knows_names {
            return Some("has one certificate for all names, and makes none");
        }
        (self.is_http2() && !contestant.speaks_http2()).then_some("speaks no HTTP/2 with clients")
    }

    /// Puts the load on a contestant for so many seconds. Fails when answers are wrong.
    pub(super) fn put(self, at: &At<'_>, seconds: u64) -> Result<Sample> {
        match self {
            Self::Http1 { connections } => at.wrk(connections, seconds, &[]),
            Self::New => at.wrk(CONNECTIONS, seconds, &["-H", "Connection: close"]),
            Self::Http2 => at.h2load(seconds),
            Self::Get { http2 } => at.large(http2, false),
            Self::Post => at.large(false, true),
            Self::Events => at.events(),
            Self::Far => at.far(CALLS),
            Self::Rested => at.rested(),
            Self::Resumed => at.resumed(seconds),
            Self::First => at.first(),
        }
    }
}

/// A contestant, and where its clients run.
pub(super) struct At<'a> {
    pub(super) contestant: Contestant,
    pub(super) stage: &'a Stage,
    pub(super) site: &'a Site,
}

impl At<'_> {
    /// A command that runs `client` where its calls go to the contestant.
    fn client(&self, client: &str) -> Result<Command> {
        let ours = self.contestant == Contestant::Vouchsafe;
        let mut command = self.stage.enter(ours.then_some("bots"));
        if self.contestant.injects() && !ours && !self.contestant.takes_connect()
            || self.contestant == Contestant::Relay
        {
            let hosts = Site::hosts_for(self.stage, self.contestant)?;
            command.args(["sh", "-ec", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]).arg(hosts);
        }
        command.args(["env", "-i"]);
        match ours {
            true => command.arg(self.stage.path("bots").join(client)),
            false => {
                command.arg(sh::find_program(client).with_context(|| format!("{client} is not installed"))?)
            }
        };
        Ok(command)
    }

    /// Has the client bring the key where nobody adds it.
    fn show_key(&self, command: &mut Command) {
        if !self.contestant.injects() {
            command.args(["-H", &format!("Authorization: {}", value(self.site))]);
        }
    }

    fn wrk(&self, connections: u32, seconds: u64, more: &[&str]) -> Result<Sample> {
        let script = self.stage.write("report.lua", WRK_REPORT, 0o644)?;
        let mut command = self.client("wrk")?;
        command.args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s"), "-s"]);
        command.arg(script).args(more);
        self.show_key(&mut command);
        command.arg(url(Host::Http1, "small"));
        let finished = self.run(&mut command, seconds + 10)?;
        let sample = parse_wrk(&finished.stdout)
            .with_context(|| format!("wrk said nothing that helps: {}", finished.stdout))?;
        counted(&sample, more.is_empty())
    }

    fn h2load(&self, seconds: u64) -> Result<Sample> {
        let log = self.stage.path("h2load.log");
        let (connections, streams) = (CONNECTIONS.to_string(), STREAMS.to_string());
        let mut command = self.client("h2load")?;
        command.args(["-t", "1", "-m", &streams, "-c", &connections, "-D", &seconds.to_string()]);
        command.arg(format!("--log-file={}", log.display()));
        self.show_key(&mut command);
        command.arg(url(Host::Http2, "small"));
        let finished = self.run(&mut command, seconds + 10);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        let finished = finished?;
        let sample = parse_h2load(&text)
            .with_context(|| format!("h2load counted nothing: {}", finished.stdout.trim()))?;
        counted(&sample, true)
    }

    /// A curl that takes `limit` seconds at most; the caller adds what it prints, and the URL.
    fn curl(&self, http2: bool, limit: u64) -> Result<Command> {
        let mut command = self.client("curl")?;
        let roots = if self.contestant == Contestant::Vouchsafe { "bots.pem" } else { "outside.pem" };
        command.args(["-q", "-sS", "--max-time", &limit.to_string(), "--cacert"]);
        command.arg(self.stage.path(roots)).arg(if http2 { "--http2" } else { "--http1.1" });
        if self.contestant.takes_connect() {
            command.args(["--proxy", &format!("http://{}", self.contestant.connect_address())]);
        }
        self.show_key(&mut command);
        Ok(command)
    }

    /// One call; returns `status version` as curl has them.
    pub(super) fn call(&self, host: Host) -> Result<(String, String)> {
        let mut command = self.curl(host.speaks_http2(), 10)?;
        command.args(["-o", "/dev/null", "-w", "%{http_code} %{http_version}"]).arg(url(host, "small"));
        let limit = Duration::from_secs(15);
        let finished = process::finish(&mut command, limit, &self.stage.stop)?;
        Ok((finished.stdout.trim().to_owned(), finished.stderr.trim().to_owned()))
    }

    fn large(&self, http2: bool, post: bool) -> Result<Sample> {
        let mut command = self.curl(http2, LARGE_LIMIT)?;
        let host = if http2 { Host::Http2 } else { Host::Http1 };
        if post {
            // Without a body that curl would read into memory first, and without a second of waiting for 100.
            command.args(["-X", "POST", "-H", "Expect:", "-T"]).arg(&self.site.body);
        }
        let size = if post { "%{size_upload}" } else { "%{size_download}" };
        command.args([
            "-o",
            "/dev/null",
            "-w",
            &format!("%{{http_code}} {size} %{{time_total}} %{{http_version}}"),
        ]);
        command.arg(url(host, if post { "own/sink" } else { "large" }));
        let limit = Duration::from_secs(LARGE_LIMIT + 10);
        let finished = process::finish(&mut command, limit, &self.stage.stop)?;
        let said = format!("{} {}", finished.stdout.trim(), finished.stderr.trim());
        let (bytes, seconds) = parse_large(&finished.stdout, http2, post)
            .with_context(|| format!("curl's large body did not go well: {said}"))?;
        // A whole body, or one that was still on its way when the time was over.
        const TIMED_OUT: i32 = 28;
        match finished.status.code() {
            Some(0) => ensure!(bytes >= LARGE as f64, "curl's large body was cut: {said}"),
            Some(TIMED_OUT) => {}
            _ => bail!("curl's large body did not go well: {said}"),
        }
        let amount = bytes / 1e6;
        Ok(Sample {
            figures: vec![(Figure::Throughput, amount / seconds.max(1e-6))],
            amount: Some((Figure::CpuOfGb, amount / 1e3)),
        })
    }

    /// Each event says when the server sent it; this program reads it from curl's standard output.
    fn events(&self) -> Result<Sample> {
        let mut command = self.curl(false, 20)?;
        command.args(["-N", "-f"]).arg(url(Host::Http1, "own/events"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("cannot run curl")?;
        let mut delays = Vec::new();
        if let Some(output) = child.stdout.take() {
            for line in BufReader::new(output).lines() {
                let (line, now) = (line?, now());
                delays.extend(parse_event(&line).map(|sent| now.saturating_sub(sent) as f64 / 1e9));
            }
        }
        let status = child.wait()?;
        self.stage.stop.check()?;
        let whole = usize::try_from(EVENTS)?;
        ensure!(
            status.success() && delays.len() == whole,
            "{} of {whole} events came ({status})",
            delays.len()
        );
        delays.sort_by(f64::total_cmp);
        let at = |percent: usize| delays.get((delays.len() * percent / 100).min(delays.len() - 1));
        let figure = |percent, figure| at(percent).map(|delay| (figure, *delay));
        let figures = [figure(50, Figure::P50), figure(99, Figure::P99)];
        Ok(Sample { figures: figures.into_iter().flatten().collect(), amount: None })
    }

    fn far(&self, calls: usize) -> Result<Sample> {
        let mut times = Vec::new();
        for _ in 0..calls {
            let mut command = self.curl(false, 10)?;
            command
                .args(["-o", "/dev/null", "-w", "%{http_code} %{time_total}"])
                .arg(url(Host::Far, "small"));
            let finished = self.run(&mut command, 15)?;
            let time = finished.stdout.trim().strip_prefix("200 ").and_then(|time| time.parse().ok());
            times.push(time.with_context(|| format!("the far server answered {}", finished.stdout))?);
        }
        Ok(Sample { figures: vec![(Figure::P50, crate::bench::report::median(&times))], amount: None })
    }

    fn rested(&self) -> Result<Sample> {
        self.far(1)?;
        let until = Instant::now() + REST;
        while Instant::now() < until {
            self.stage.stop.check()?;
            std::thread::sleep(Duration::from_millis(200));
        }
        self.far(1)
    }

    /// Our own client, with what it is told; it knows the address of the contestant.
    fn own_client(&self, task: &str, host: Host, name: &str, more: &[String]) -> Result<Finished> {
        let program = self.stage.path("bots").join(CLIENT);
        ensure!(program.exists(), "the client that resumes sessions was not built; see above");
        let ours = self.contestant == Contestant::Vouchsafe;
        let address = match self.contestant {
            Contestant::Direct | Contestant::Vouchsafe => host.upstream().to_owned(),
            peer => peer.address(host),
        };
        let roots = self.stage.path(if ours { "bots.pem" } else { "outside.pem" });
        let key = if self.contestant.injects() { "-".to_owned() } else { value(self.site) };
        let mut command = self.stage.enter(ours.then_some("bots"));
        command.args(["env", "-i"]).arg(program).args([task, &format!("{address}:443"), name]);
        command.arg(roots).args(["/v1/small", &key]).args(more);
        self.run(&mut command, 30)
    }

    fn resumed(&self, seconds: u64) -> Result<Sample> {
        let more = [CONNECTIONS.to_string(), seconds.to_string()];
        let finished = self.own_client("resumed", Host::Http1, Host::Http1.name(), &more)?;
        let (sample, resumed) = parse_resumed(&finished.stdout)
            .with_context(|| format!("the client said {} {}", finished.stdout, finished.stderr))?;
        ensure!(
            // Those that begin together have no session yet.
            resumed + f64::from(CONNECTIONS) >= sample.requests * 0.9,
            "{resumed} of {} connections were resumed",
            sample.requests
        );
        counted(&sample, false)
    }

    fn first(&self) -> Result<Sample> {
        let suffix = Host::Fresh.name().trim_start_matches("*.");
        let finished = self.own_client("first", Host::Fresh, suffix, &[NAMES.to_string()])?;
        let times: Vec<(f64, f64)> = finished.stdout.lines().filter_map(parse_first).collect();
        ensure!(times.len() == usize::try_from(NAMES)?, "the client said {}", finished.stdout);
        let (up, answered): (Vec<f64>, Vec<f64>) = times.into_iter().unzip();
        let figures = [(Figure::TlsUp, up), (Figure::P50, answered)];
        let figures = figures.map(|(figure, times)| (figure, crate::bench::report::median(&times)));
        Ok(Sample { figures: figures.to_vec(), amount: None })
    }

    fn run(&self, command: &mut Command, limit: u64) -> Result<Finished> {
        let finished = process::finish(command, Duration::from_secs(limit), &self.stage.stop)?;
        if !finished.status.success() {
            let said = format!("{} {}", finished.stdout.trim(), finished.stderr.trim());
            let name = self.contestant.name();
            bail!("a client of {name} failed ({}): {}", finished.status, said.trim());
        }
        Ok(finished)
    }
}

fn url(host: Host, path: &str) -> String {
    format!("https://{}/v1/{path}", host.name())
}

/// What a client of many requests counted. Fails when more than one in a hundred was answered wrongly.
fn counted(sample: &crate::bench::load::Sample, latency: bool) -> Result<Sample> {
    ensure!(
        sample.requests > 0.0 && sample.errors <= sample.requests / 100.0,
        "{} of {} requests failed",
        sample.errors,
        sample.requests + sample.errors
    );
    let mut figures = vec![(Figure::Rate, sample.rate)];
    if latency {
        figures.extend([(Figure::P50, sample.p50), (Figure::P99, sample.p99)]);
    }
    Ok(Sample { figures, amount: Some((Figure::Cpu, sample.requests / 1e3)) })
}

/// `status bytes seconds version`: the bytes and the seconds, when the status is good and the version the one that was asked for.
/// A request that was cut by time has no status yet.
fn parse_large(output: &str, http2: bool, post: bool) -> Option<(f64, f64)> {
    let mut fields = output.split_whitespace();
    let (status, bytes, seconds, version) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let unanswered = post && status == "000";
    let good = status == "200" && version == if http2 { "2" } else { "1.1" };
    (good || unanswered).then(|| Some((bytes.parse().ok()?, seconds.parse().ok()?)))?
}

/// `requests errors resumed seconds`, and of how many requests the connection was resumed.
fn parse_resumed(output: &str) -> Option<(crate::bench::load::Sample, f64)> {
    let numbers: Vec<f64> = output.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [requests, errors, resumed, seconds] = numbers[..] else { return None };
    let rate = requests / seconds.max(1e-6);
    Some((crate::bench::load::Sample { requests, errors, rate, ..Default::default() }, resumed))
}

/// Seconds until TLS was up, and until the answer was there.
fn parse_first(line: &str) -> Option<(f64, f64)> {
    let (up, answered) = line.split_once(' ')?;
    Some((up.parse().ok()?, answered.parse().ok()?))
}

/// When an event was sent, in nanoseconds since the epoch.
fn parse_event(line: &str) -> Option<u128> {
    line.strip_prefix("data: ")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_counts_when_it_was_answered_well_in_the_version_asked_for() {
        assert_eq!(parse_large("200 100000000 0.5 1.1", false, false), Some((1e8, 0.5)));
        assert_eq!(parse_large("200 100000000 0.5 1.1", true, false), None);
        assert_eq!(parse_large("401 100000000 0.5 1.1", false, true), None);
        assert_eq!(parse_large("000 5000 8.0 0", false, true), Some((5e3, 8.0)));
        assert_eq!(parse_large("000 0 8.0 0", false, false), None);
        assert_eq!(parse_large("200 1", false, false), None);
    }

    #[test]
    fn an_event_says_when_it_was_sent() {
        assert_eq!(parse_event("data: 1700000000000000001"), Some(1_700_000_000_000_000_001));
        assert_eq!(parse_event(""), None);
        assert_eq!(parse_event("data: soon"), None);
    }

    #[test]
    fn the_words_of_our_own_client_are_read() {
        let (sample, resumed) = parse_resumed("300 1 299 2.0\n").unwrap();
        assert_eq!((sample.requests, sample.errors, sample.rate, resumed), (300.0, 1.0, 150.0, 299.0));
        assert!(parse_resumed("300 1 299\n").is_none());
        assert_eq!(parse_first("0.001 0.002"), Some((0.001, 0.002)));
        assert_eq!(parse_first("no answer"), None);
    }

    #[test]
    fn loads_are_found_by_a_part_of_their_names() {
        assert_eq!(Load::named("100 MB").len(), 3);
        assert_eq!(Load::named("").len(), ALL.len());
        assert_eq!(Load::named("of rest"), [Load::Rested]);
        assert_eq!(Load::named("20 ms"), [Load::Far]);
        assert!(Load::named("gopher").is_empty());
    }

    #[test]
    fn a_client_that_cannot_ask_says_so_and_one_that_can_does_not() {
        assert!(Load::New.unfit(Contestant::Hudsucker).is_some());
        assert!(Load::Post.unfit(Contestant::Hudsucker).is_none());
        assert!(Load::Http2.unfit(Contestant::Squid).is_some());
        assert!(Load::Http2.unfit(Contestant::Nginx).is_none());
    }

    #[test]
    fn many_wrong_answers_are_no_measurement() {
        let sample = crate::bench::load::Sample { requests: 100.0, errors: 2.0, ..Default::default() };
        assert!(counted(&sample, true).is_err());
        let sample = crate::bench::load::Sample { requests: 2000.0, errors: 2.0, ..Default::default() };
        assert_eq!(counted(&sample, false).unwrap().amount, Some((Figure::Cpu, 2.0)));
    }
}
