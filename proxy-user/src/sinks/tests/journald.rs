//! What systemd's journal is shown: by a socket of our own, and by a real journald when the host has one.

use std::collections::HashMap;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command};

use proxy_journal::{Access, PolicyLoad, PolicyResult, Record, Target, Trace};

use proxy_journal::Outcome;

use super::*;

/// Takes a datagram apart as journald does; fails on what journald would not take.
fn fields(mut datagram: &[u8]) -> HashMap<String, String> {
    let mut found = HashMap::new();
    while !datagram.is_empty() {
        let end = datagram.iter().position(|byte| *byte == b'\n').unwrap();
        let (line, rest) = (&datagram[..end], &datagram[end + 1..]);
        let (name, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                datagram = rest;
                (&line[..at], &line[at + 1..])
            }
            None => {
                let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
                assert_eq!(rest[8 + length], b'\n');
                datagram = &rest[8 + length + 1..];
                (line, &rest[8..8 + length])
            }
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        assert!(name.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_'), "{}", text(name));
        assert_eq!(found.insert(text(name), text(value)), None, "one value for each field");
    }
    found
}

/// A host that shows its records at a socket.
fn showing(socket: &str) -> Host {
    let mut host = Host::new("");
    host.config.journal.journald = if socket.starts_with('/') { socket.into() } else { host.path(socket) };
    host
}

#[test]
fn a_call_is_shown_with_fields_that_its_own_text_cannot_forge() {
    let host = showing("socket");
    let journald = UnixDatagram::bind(host.path("socket")).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut next = || {
        let length = journald.recv(&mut buffer).unwrap();
        fields(&buffer[..length])
    };

    let running = host.start();
    let recorder = &running.recorder;
    let started = next();
    assert_eq!((&*started["VOUCHSAFE_KIND"], &*started["VOUCHSAFE_SEQ"]), ("key", "1"));
    assert_eq!(next()["VOUCHSAFE_KIND"], "start");
    let mut hostile = deny("/a\nIDENTITY=admin\nVERDICT=allow\n");
    let exe = "/tmp/\u{1b}[2J\nPRIORITY=0\nx=y".into();
    hostile.workload = proxy_journal::Workload { exe, ..(*hostile.workload).clone() }.into();
    let id = recorder.refused(hostile.clone()).unwrap();
    let shown = next();
    assert_eq!((&*shown["IDENTITY"], &*shown["VERDICT"], &*shown["PRIORITY"]), ("invoice-bot", "deny", "4"));
    assert_eq!((&shown["PATH"], &shown["EXE"]), (hostile.path.as_ref().unwrap(), &hostile.workload.exe));
    assert_eq!((&shown["CALL_ID"], &*shown["BOT_PID"]), (&id.to_string(), "4242"));
    assert!(!shown["MESSAGE"].contains(['\n', '\u{1b}']), "{}", shown["MESSAGE"]);

    let receipt = recorder.begin(allow("/v1/invoices")).unwrap();
    assert_eq!(next()["VERDICT"], "allow");
    receipt.complete(Outcome { status: Some(201), duration_us: 12_345, ..Outcome::default() });
    let shown = next();
    assert_eq!(
        (&*shown["VOUCHSAFE_KIND"], &*shown["STATUS"], &*shown["DURATION_US"]),
        ("outcome", "201", "12345")
    );
    assert_eq!((&*shown["IDENTITY"], &*shown["API"], &*shown["METHOD"]), ("invoice-bot", "stripe", "GET"));
    assert_eq!((&*shown["UNIT"], &*shown["HOST"]), ("invoice-bot.service", "api.stripe.com"));

    let (digest, errors) = (String::new(), vec!["policies/a.toml:3:1: unknown key".to_owned()]);
    let (result, identity_keys) = (PolicyResult::Refused, Default::default());
    let load = PolicyLoad { generation: 2, digest, identities: 0, result, errors, identity_keys };
    recorder.note(Record::Policy(load)).unwrap();
    let shown = next();
    assert_eq!((&*shown["PRIORITY"], shown["MESSAGE"].contains("a.toml:3:1")), ("3", true));
    let trace = Trace {
        workload: (*deny("/").workload).clone(),
        identity: None,
        access: Access::Attach,
        target: Target { pid: 812, exe: Some("/opt/bot".into()), ..Target::default() },
        reason: "only root may".into(),
        generation: 2,
    };
    recorder.note(Record::Trace(trace.into())).unwrap();
    let shown = next();
    assert_eq!(
        (&*shown["VOUCHSAFE_KIND"], &*shown["VERDICT"], &*shown["TARGET_PID"]),
        ("trace", "deny", "812")
    );
    assert!(
        shown["MESSAGE"].contains("unknown deny trace /opt/bot[812] only root may"),
        "{}",
        shown["MESSAGE"]
    );
    for (identity, shown_as) in [(Some("invoice-bot"), "invoice-bot"), (None, "unknown")] {
        recorder.note(refusals_without_record(identity)).unwrap();
        let shown = next();
        assert_eq!((&*shown["VOUCHSAFE_KIND"], &*shown["IDENTITY"]), ("bound", shown_as));
        assert_eq!((&*shown["COUNTER"], &*shown["COUNT"]), ("refusals_unrecorded", "7"));
        assert!(shown["MESSAGE"].contains(&format!("{shown_as} refusals_unrecorded 7 ")), "{shown:?}");
    }
    recorder.stop("test").unwrap();
    assert_eq!(next()["VOUCHSAFE_KIND"], "stop");
    eventually("all is sent", || running.health().sent == 11);
    assert_eq!((running.health().rejected, running.health().lost), (0, 0));
}

#[test]
fn an_outcome_has_the_fields_of_a_decision_that_an_earlier_run_has_shown() {
    let host = showing("socket");
    let journald = UnixDatagram::bind(host.path("socket")).unwrap();
    let running = host.start();
    let open = running.recorder.begin(allow("/v1/long")).unwrap();
    eventually("the decision is shown", || running.health().sent == 3);
    // As a kill leaves it: the call is open in the journal.
    running.sinks.stop();
    let segment = host.config.journal_dir().join("journal-00000001.jsonl");
    let left = std::fs::read(&segment).unwrap();
    drop(open);
    drop(running);
    std::fs::write(&segment, left).unwrap();
    let running = host.start();
    eventually("the rest is shown", || running.health().behind == 0 && running.health().sent >= 3);
    let mut buffer = vec![0; 1 << 20];
    let all: Vec<_> = std::iter::from_fn(|| {
        journald.set_nonblocking(true).unwrap();
        journald.recv(&mut buffer).ok().map(|length| fields(&buffer[..length]))
    })
    .collect();
    let ended = all.iter().find(|shown| shown["VOUCHSAFE_KIND"] == "outcome").unwrap();
    assert_eq!((&*ended["PATH"], &*ended["INTERRUPTED"], &*ended["PRIORITY"]), ("/v1/long", "1", "4"));
}

#[test]
fn a_journald_that_hangs_holds_up_no_call_and_gets_everything_when_it_reads_again() {
    let host = showing("socket");
    // Bound, and not read.
    let journald = UnixDatagram::bind(host.path("socket")).unwrap();
    let running = host.start();
    let begun = Instant::now();
    running.deny(10_000);
    let took = begun.elapsed();
    let failing = || matches!(running.health().state, SinkState::Failing(_));
    eventually("it is seen to hang", failing);
    assert!(running.health().behind > 5000 && took < Duration::from_secs(10), "{took:?}");
    let mut buffer = vec![0; 1 << 20];
    let mut seqs = Vec::new();
    journald.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while seqs.last() != Some(&10_002) {
        let length = journald.recv(&mut buffer).unwrap();
        seqs.push(fields(&buffer[..length])["VOUCHSAFE_SEQ"].parse().unwrap());
    }
    assert!(seqs.iter().copied().eq(1..=10_002_u64), "each once, and in order");
}

#[test]
fn a_host_without_journald_is_told_by_health_alone_and_one_that_comes_later_gets_everything() {
    let host = showing("socket");
    let running = host.start();
    eventually("journald is absent", || running.health().state == SinkState::Absent);
    running.deny(1);
    let journald = UnixDatagram::bind(host.path("socket")).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let length = journald.recv(&mut buffer).unwrap();
    assert_eq!(fields(&buffer[..length])["VOUCHSAFE_KIND"], "key");
    journald.recv(&mut buffer).unwrap();
    let length = journald.recv(&mut buffer).unwrap();
    assert_eq!(fields(&buffer[..length])["PATH"], "/call/0");
    eventually("journald is there", || running.health().state == SinkState::Ok);
}

/// A journald of its own, in a mount namespace of its own.
struct Journald(Child);

impl Journald {
    fn start() -> Option<Journald> {
        let program = ["/usr/lib/systemd/systemd-journald", "/lib/systemd/systemd-journald"];
        let program = program.into_iter().find(|path| Path::new(path).exists())?;
        if !nix::unistd::geteuid().is_root() || !Path::new("/etc/machine-id").exists() {
            return None;
        }
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal && exec {program}"
        );
        let child = Command::new("unshare").args(["--mount", "sh", "-c", &script]).spawn().ok()?;
        Some(Journald(child))
    }

    fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.0.id()))
    }

    /// What `journalctl` finds for these matches, one JSON object for each.
    fn find(&self, matches: &[&str]) -> Vec<serde_json::Value> {
        let output = Command::new("journalctl")
            .arg("--directory")
            .arg(self.path("/run/log/journal"))
            .args(["--output=json", "--all"])
            .args(matches)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn journalctl_finds_the_calls_of_an_identity() {
    let journald = Journald::start().expect("this test needs root, systemd-journald and a machine id");
    let socket = journald.path("/run/systemd/journal/socket");
    eventually("journald listens", || socket.exists());
    let host = showing(socket.to_str().unwrap());
    let running = host.start();
    let recorder = &running.recorder;
    recorder.begin(allow("/v1/invoices")).unwrap().complete(ok());
    let mut hostile = deny("/a\nIDENTITY=invoice-bot\n");
    hostile.identity = None;
    recorder.refused(hostile.clone()).unwrap();
    recorder.stop("test").unwrap();
    running.sinks.stop();
    assert_eq!(running.health().sent, 7);

    eventually("journalctl finds the call", || {
        journald.find(&["IDENTITY=invoice-bot", "STATUS=200"]).len() == 1
    });
    let calls = journald.find(&["SYSLOG_IDENTIFIER=vouchsafe", "IDENTITY=invoice-bot"]);
    assert_eq!(calls.len(), 2, "the decision and the outcome, and nothing forged: {calls:?}");
    let message = calls[1]["MESSAGE"].as_str().unwrap();
    assert!(message.starts_with("invoice-bot allow GET api.stripe.com/v1/invoices 200 "), "{message}");
    let denied = journald.find(&["VERDICT=deny", "IDENTITY=unknown"]);
    assert_eq!(denied[0]["PATH"].as_str(), hostile.path.as_deref());
}
