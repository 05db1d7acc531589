//! Connections that are open and rest after a call each: what memory the daemon has for one of them.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::site::Site;
use super::usage;
use crate::stage::{Stage, process};

/// Connections that rest at a time.
const CONNECTIONS: u32 = 5_000;
/// Of those that are passed through, besides them: this part. The daemon takes 10,000 in all.
const PASSED: u32 = 2;
/// Until what a burst of handshakes used is given back.
const REST: Duration = Duration::from_secs(2);

/// Opens its connections, asks once on each, says how many are open, and waits for the end of its input.
const CLIENT: &str = r#"
import socket, ssl, sys
host, roots, key, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
context = ssl.create_default_context(cafile=roots)
context.set_alpn_protocols(["http/1.1"])
request = f"GET /v1/small HTTP/1.1\r\nHost: {host}\r\n{key}\r\n".encode()
opened = []
for _ in range(count):
    stream = context.wrap_socket(socket.create_connection((host, 443)), server_hostname=host)
    stream.sendall(request)
    answer = b""
    while not answer.endswith(b"}"):
        piece = stream.recv(4096)
        if not piece:
            raise SystemExit(f"it was closed: {answer}")
        answer += piece
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"not answered well: {answer}")
    opened.append(stream)
print(len(opened), flush=True)
sys.stdin.read()
"#;

/// What so many resting connections take, in KiB (PSS).
#[derive(Clone, Copy)]
pub(super) struct Resting {
    pub(super) connections: u32,
    pub(super) before: u64,
    pub(super) intercepted: u64,
    pub(super) passed: u64,
}

/// Opens the connections, intercepted and then passed through, and looks.
pub(super) fn run(stage: &Stage, site: &Site, pid: u32, quick: bool) -> Result<Resting> {
    let connections = if quick { CONNECTIONS / 10 } else { CONNECTIONS };
    // What the first ones make once for all.
    drop(Client::start(stage, site, false, 20)?);
    drop(Client::start(stage, site, true, 20)?);
    let settled = || {
        std::thread::sleep(REST);
        usage::pss(pid)
    };
    // All stay open: what is given back of one kind would be used again by the other.
    let before = settled()?;
    let _intercepted = Client::start(stage, site, false, connections)?;
    let between = settled()?;
    let _passed = Client::start(stage, site, true, connections / PASSED)?;
    let after = settled()?;
    Ok(Resting {
        connections,
        before,
        intercepted: between.saturating_sub(before),
        passed: after.saturating_sub(between) * u64::from(PASSED),
    })
}

/// The client with its connections open.
struct Client(Child);

impl Client {
    fn start(stage: &Stage, site: &Site, passed: bool, connections: u32) -> Result<Self> {
        let (program, roots) = match passed {
            false => ("bots/python3", "bots.pem"),
            true => ("passed/python3", "outside.pem"),
        };
        let key = format!("Authorization: Bearer {}\r\n", site.key);
        let mut command = stage.enter(Some("bots"));
        command.args(["env", "-i"]).arg(stage.path(program)).args(["-c", CLIENT, Site::host(false, passed)]);
        command.arg(stage.path(roots)).arg(if passed { &key } else { "" }).arg(connections.to_string());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut client = Self(child.context("cannot start Python")?);
        let mut said = String::new();
        let output = client.0.stdout.take().context("Python has no output")?;
        BufReader::new(output).read_line(&mut said)?;
        ensure!(said.trim() == connections.to_string(), "not all connections are open: {said:?}");
        Ok(client)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        process::end(&mut self.0, Duration::from_secs(5));
    }
}

/// The table of the report.
pub(super) fn table(resting: &Resting) -> String {
    let each = |kib: u64| {
        let (kib, connections) = (u32::try_from(kib).unwrap_or(u32::MAX), resting.connections);
        format!("{:.1} KiB", f64::from(kib) / f64::from(connections.max(1)))
    };
    format!(
        "{} connections that rest after a call each (the daemon had {:.1} MiB before): {} for each that is intercepted, {} for each that \
         is passed through (PSS).\n",
        resting.connections,
        f64::from(u32::try_from(resting.before).unwrap_or(u32::MAX)) / 1024.0,
        each(resting.intercepted),
        each(resting.passed)
    )
}
