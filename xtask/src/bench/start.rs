//! From the start of the daemon to the first call that it answers, in the place of one that has just ended: for so long, workloads have no
//! network.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::placed;
use super::report::median;
use super::site::Site;
use crate::stage::daemon::Daemon;
use crate::stage::{Stage, process};

/// Starts; some of a quick run.
const STARTS: usize = 15;
const QUICK: usize = 5;

/// For each line of its input, calls until it is answered well, and says that it was. Nobody listens while no daemon is there, so that a
/// try takes no time; it does little, for the daemon starts on the same processors.
const CLIENT: &str = r#"
import socket, ssl, sys, time
host, roots = sys.argv[1], sys.argv[2]
context = ssl.create_default_context(cafile=roots)
request = f"GET /v1/small HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
address = (socket.gethostbyname(host), 443)
def call():
    with socket.socket() as tcp:
        tcp.settimeout(10)
        tcp.connect(address)
        with context.wrap_socket(tcp, server_hostname=host) as stream:
            stream.sendall(request)
            return stream.recv(4096).startswith(b"HTTP/1.1 200 ")
print("ready", flush=True)
for _ in sys.stdin:
    end = time.monotonic() + 20
    answered = False
    while not answered and time.monotonic() < end:
        try:
            answered = call()
        except OSError:
            pass
        if not answered:
            time.sleep(0.0005)
    print("answered" if answered else "nobody answers", flush=True)
"#;

/// How long it took, in seconds; the median.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) starts: usize,
    pub(super) answered: f64,
}

/// Restarts the daemon again and again.
pub(super) fn run(stage: &Stage, daemon: &mut Daemon<'_>, placed: bool, quick: bool) -> Result<Start> {
    let mut client = Client::start(stage)?;
    let starts = if quick { QUICK } else { STARTS };
    let mut times = Vec::with_capacity(starts);
    for _ in 0..starts {
        daemon.end();
        client.ask()?;
        let begun = match placed {
            true => placed::on(placed::DAEMON, || daemon.begin())?,
            false => daemon.begin()?,
        };
        client.wait("answered")?;
        times.push(begun.elapsed().as_secs_f64());
        daemon.wait()?;
    }
    Ok(Start { starts, answered: median(&times) })
}

struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    fn start(stage: &Stage) -> Result<Self> {
        let mut command = stage.enter(Some("bots"));
        command.args(["env", "-i"]).arg(stage.path("bots/python3")).args(["-c", CLIENT]);
        command.arg(Site::host(false, false)).arg(stage.path("bots.pem"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().context("Python has no input")?;
        let output = BufReader::new(child.stdout.take().context("Python has no output")?);
        let mut client = Self { child, input, output };
        client.wait("ready")?;
        Ok(client)
    }

    fn ask(&mut self) -> Result<()> {
        self.input.write_all(b"call\n").context("Python does not listen")
    }

    fn wait(&mut self, for_what: &str) -> Result<()> {
        let mut said = String::new();
        self.output.read_line(&mut said)?;
        ensure!(said.trim() == for_what, "the client said {said:?} instead of {for_what:?}");
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        process::end(&mut self.child, Duration::from_secs(5));
    }
}

/// The table of the report.
pub(super) fn table(start: &Start) -> String {
    let Start { starts, answered } = start;
    format!(
        "From the start of the daemon, in the place of one that has ended, to the first call that is answered: {:.0} ms (median of {starts}).\n",
        answered * 1e3
    )
}
