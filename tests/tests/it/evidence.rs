//! The journal as evidence: over a loss of power, with a witness, for somebody who does not trust the host.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::upstream::Upstream;
use tests::{CANARY, Finished, World, wait_until};

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn journal(world: &World) -> PathBuf {
    world.path("state/journal")
}

/// `vouchsafe audit verify` of the world's journal, with these arguments.
fn verify(world: &World, arguments: &[&str]) -> Finished {
    world.vouchsafe(&[&["audit", "verify"], arguments].concat())
}

/// A disk in a file: what has not been written to it is lost when its file is copied, as with a loss of power.
struct Disk {
    image: PathBuf,
    at: PathBuf,
}

impl Disk {
    fn new(world: &World, name: &str, at: PathBuf) -> Disk {
        let image = world.path(name);
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let disk = Disk { image, at };
        disk.mount();
        disk
    }

    fn mount(&self) {
        fs::create_dir_all(&self.at).unwrap();
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at));
        fs::set_permissions(&self.at, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

/// What the upstream had got at each of some losses of power, and which of it the journal on the disk has then.
fn lose_power(durability: &str) -> (usize, usize) {
    let world = World::new();
    let disk = Disk::new(&world, "disk.img", world.path("state"));
    world.set("journal.durability", &format!("\"{durability}\""));
    world.set("journal.reserve", "\"1 MiB\"");
    world.secret("demo-key", CANARY);
    world.daemon();
    assert!(world.status()["journal"].to_string().contains(durability));
    let upstream = Upstream::http1(&world);
    let calls = "https://raw.test/v1/n[1-100000]";
    let mut curl = world
        .bot("curl")
        .args(["-sS", "--parallel", "--parallel-max", "8", "-o", "/dev/null", calls])
        .spawn();
    let pid = Pid::from_raw(i32::try_from(world.daemon_pid()).unwrap());
    let (mut sent, mut lost) = (0, 0);
    for round in 1..=4_u32 {
        let before = upstream.count();
        wait_until("calls that go out", || (upstream.count() > before + 40).then_some(()));
        std::thread::sleep(Duration::from_millis(u64::from(round) * 130));
        kill(pid, Signal::SIGSTOP).unwrap();
        let seen: BTreeSet<String> = upstream.seen().into_iter().map(|seen| seen.target).collect();
        // The power is gone: there is what the disk has.
        let copy = world.path(&format!("after-{round}.img"));
        run(Command::new("cp").arg("--sparse=always").arg(&disk.image).arg(&copy));
        kill(pid, Signal::SIGCONT).unwrap();
        let after = Disk { image: copy.clone(), at: world.path(&format!("after-{round}")) };
        after.mount();
        let dir = after.at.join("journal");
        // A half last line may be there, and nothing else that is wrong.
        let found = world.vouchsafe(&["audit", "verify", "--", dir.to_str().unwrap()]);
        assert!(found.code == Some(0) || found.stdout.contains("HALF LAST LINE"), "{found:?}");
        let text = fs::read_to_string(dir.join("journal-00000001.jsonl")).unwrap();
        let recorded: BTreeSet<String> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|record| record["kind"] == "decision" && record["verdict"] == "allow")
            .filter_map(|record| record["path"].as_str().map(str::to_owned))
            .collect();
        sent += seen.len();
        lost += seen.difference(&recorded).count();
        drop(after);
        fs::remove_file(copy).unwrap();
    }
    curl.signal(Signal::SIGKILL);
    curl.wait();
    world.kill9();
    (sent, lost)
}

#[test]
fn a_loss_of_power_loses_no_call_that_went_out_in_sync_mode_and_in_fast_mode_the_last_second() {
    let (sent, lost) = lose_power("sync");
    assert!(sent > 200, "{sent}");
    assert_eq!(lost, 0, "of {sent} calls that had gone out");
    // That the same would show a loss.
    let (sent, lost) = lose_power("fast");
    assert!(
        lost > 0,
        "nothing of {sent} calls is lost without waiting for the disk: this test shows nothing"
    );
}

/// Answers as a witness that keeps what is posted, and as a time stamp authority.
const RECEIVER: &str = r#"
import http.server, subprocess, sys
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/stamp":
            open("tsa/query.tsq", "wb").write(body)
            subprocess.run(["openssl", "ts", "-reply", "-config", "tsa/openssl.cnf", "-section", "tsa",
                            "-queryfile", "tsa/query.tsq", "-out", "tsa/reply.tsr"], check=True)
            answer = open("tsa/reply.tsr", "rb").read()
        else:
            open("posted.notes", "ab").write(body + b"\n")
            answer = b""
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
http.server.HTTPServer(("127.0.0.1", 8321), Receiver).serve_forever()
"#;

const TSA: &str = "\
[tsa]
serial = tsa/serial
signer_cert = tsa/tsa.pem
certs = tsa/tsa.pem
signer_key = tsa/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ess_cert_id_alg = sha256
";

#[test]
fn what_witnesses_have_kept_shows_that_the_end_was_cut_off() {
    let world = World::new();
    let tsa = world.path("tsa");
    fs::create_dir_all(&tsa).unwrap();
    world.write("tsa/openssl.cnf", TSA);
    world.write("tsa/serial", "01");
    run(Command::new("openssl").current_dir(&tsa).args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "tsa.key",
        "-out",
        "tsa.pem",
        "-days",
        "2",
        "-subj",
        "/CN=stamps",
        "-addext",
        "extendedKeyUsage=critical,timeStamping",
    ]));
    world.server("receiver", "/usr/bin/python3", &["-c", RECEIVER], "127.0.0.1:8321");
    let shelf = world.path("shelf.notes");
    let keep = world.program("keep", &format!("#!/bin/sh\ncat >> {0}\necho >> {0}\n", shelf.display()));
    world.set("journal.checkpoint_within", "\"50ms\"");
    world.set(
        "journal.witness",
        &format!(
            "[{{ name = \"shelf\", command = [{keep:?}], every = \"50ms\" }}, \
             {{ name = \"posted\", url = \"http://127.0.0.1:8321/notes\", every = \"50ms\" }}, \
             {{ name = \"stamps\", timestamp = \"http://127.0.0.1:8321/stamp\", every = \"50ms\" }}]"
        ),
    );
    world.secret("demo-key", CANARY);
    world.daemon();
    let _upstream = Upstream::http1(&world);
    for call in 0..5 {
        assert_eq!(world.curl(&[&format!("https://raw.test/v1/{call}")]).status, 200);
    }
    let last = world.record("outcome", |_| true)["seq"].as_u64().unwrap();
    let status = wait_until("every witness has the last call", || {
        let status = world.status();
        let all = status["journal"]["witnesses"].as_array()?.clone();
        all.iter().all(|it| it["through"].as_u64() >= Some(last)).then_some(status)
    });
    assert_eq!(status["journal"]["witnesses"].as_array().unwrap().len(), 3);
    let key = status["journal"]["key"].as_str().unwrap().to_owned();
    let keys = world.vouchsafe(&["audit", "key"]);
    assert!(keys.stdout.contains(&key) && keys.stdout.contains("verify --key"), "{keys:?}");

    // While it runs, by all that is known.
    for kept in ["shelf.notes", "posted.notes"] {
        let notes = world.path(kept);
        let found = verify(&world, &["--key", &key, "--checkpoint", notes.to_str().unwrap()]);
        assert_eq!(found.code, Some(0), "{kept}: {found:?}");
        assert!(found.stdout.contains("checkpoints of the witness are there"), "{found:?}");
    }
    // The time stamps are those of the authority, over the notes beside them.
    let stamps: Vec<PathBuf> =
        fs::read_dir(journal(&world).join("witness/stamps")).unwrap().map(|it| it.unwrap().path()).collect();
    let answer = stamps.iter().find(|path| path.extension().is_some_and(|it| it == "tsr")).unwrap();
    let said = run(Command::new("openssl")
        .args(["ts", "-verify", "-CAfile"])
        .arg(tsa.join("tsa.pem"))
        .arg("-in")
        .arg(answer)
        .arg("-data")
        .arg(answer.with_extension("note")));
    assert!(said.contains("OK"), "{said}");

    assert_eq!(world.terminate(), Some(0));
    let path = journal(&world).join("journal-00000001.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let cut = whole.lines().position(|line| line.contains(&format!("\"seq\":{last},"))).unwrap();
    let kept: String = whole.split_inclusive('\n').take(cut).collect();
    fs::write(&path, kept).unwrap();
    assert_eq!(verify(&world, &["--key", &key]).code, Some(0), "nothing is there that could tell");
    for kept in ["shelf.notes", "posted.notes"] {
        let notes = world.path(kept);
        let found = verify(&world, &["--checkpoint", notes.to_str().unwrap()]);
        assert_eq!(found.code, Some(1), "{found:?}");
        assert!(found.stdout.contains("the end was cut off"), "{found:?}");
    }
}

#[test]
fn a_witness_that_is_away_is_told_of_and_gets_the_newest_when_it_is_back() {
    let world = World::new();
    world.set("journal.checkpoint_within", "\"50ms\"");
    world.set(
        "journal.witness",
        "[{ name = \"posted\", url = \"http://127.0.0.1:8321/notes\", every = \"50ms\" }]",
    );
    world.secret("demo-key", CANARY);
    world.daemon();
    let _upstream = Upstream::http1(&world);
    assert_eq!(world.curl(&["https://raw.test/v1/away"]).status, 200, "no call waits for a witness");
    wait_until("it is told of", || {
        let status = world.vouchsafe(&["status"]);
        (status.code == Some(1) && status.stdout.contains("the witness posted does not take checkpoints"))
            .then_some(())
    });
    world.server("receiver", "/usr/bin/python3", &["-c", RECEIVER], "127.0.0.1:8321");
    wait_until("it has what there is", || (world.vouchsafe(&["status"]).code == Some(0)).then_some(()));
    assert!(fs::read_to_string(world.path("posted.notes")).unwrap().contains("vouchsafe.journal/"));
}

#[test]
fn a_call_is_proved_without_the_journal_by_the_key_that_the_auditor_has_known_from_the_beginning() {
    let world = World::new();
    world.set("journal.checkpoint_within", "\"20ms\"");
    world.secret("demo-key", CANARY);
    world.daemon();
    let _upstream = Upstream::http1(&world);
    let first = world.status()["journal"]["key"].as_str().unwrap().to_owned();
    let rotated = world.vouchsafe(&["audit", "key", "rotate"]);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    let second = world.status()["journal"]["key"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert_eq!(world.curl(&["https://raw.test/v1/proved"]).status, 200);
    let id = world.decision(Some("/v1/proved"))["id"].as_str().unwrap().to_owned();
    let proof = wait_until("a proof", || {
        let proof = world.vouchsafe(&["audit", "prove", &id]);
        (proof.code == Some(0) && proof.stdout.contains("outcome")).then_some(proof.stdout)
    });
    assert!(!proof.contains(CANARY));
    let path = world.write("proof.json", &proof);
    let path = path.to_str().unwrap();
    let found = world.vouchsafe(&["audit", "verify", "--proof", path, "--key", &first]);
    assert!(found.code == Some(0) && found.stdout.contains("/v1/proved"), "{found:?}");
    world.write("proof.json", &proof.replace("/v1/proved", "/v1/forged"));
    let found = world.vouchsafe(&["audit", "verify", "--proof", path, "--key", &first]);
    assert!(found.code == Some(1) && found.stdout.contains("was changed"), "{found:?}");
    let newest = world.vouchsafe(&["audit", "checkpoint"]);
    assert!(
        newest.stdout.starts_with("vouchsafe.journal/") && newest.stdout.contains("\u{2014} "),
        "{newest:?}"
    );
    assert_eq!(verify(&world, &["--key", &first]).code, Some(0));
    let stranger = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let found = verify(&world, &["--key", stranger]);
    assert!(found.code == Some(1) && found.stdout.contains("did not hand over"), "{found:?}");
}

/// Segments are packed when the host has nothing else to do, and after a while in any case.
const RETIRED_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn segments_are_closed_compressed_and_retired_while_calls_go_on_and_all_of_it_verifies() {
    let world = World::new();
    world.set("journal.segment_size", "\"1 MiB\"");
    world.set("journal.keep_size", "\"300 KiB\"");
    world.secret("demo-key", CANARY);
    world.daemon();
    let _upstream = Upstream::http1(&world);
    let key = world.status()["journal"]["key"].as_str().unwrap().to_owned();
    let (mut round, deadline) = (0, Instant::now() + RETIRED_WITHIN);
    let first = |world: &World| {
        let mut names: Vec<String> = fs::read_dir(journal(world))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".jsonl") || name.ends_with(".zst"))
            .filter(|name| name.starts_with("journal-"))
            .collect();
        names.sort();
        names.swap_remove(0)
    };
    while first(&world).as_str() < "journal-00000003" {
        round += 1;
        assert!(Instant::now() < deadline, "nothing is retired: {}", first(&world));
        let calls = format!("https://raw.test/v1/{round}/[1-200]");
        let done = world.bot("curl").args(["-sS", "--parallel", "-o", "/dev/null", &calls]).run();
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    assert!(first(&world).ends_with(".jsonl.zst"), "{}", first(&world));
    let found = verify(&world, &["--key", &key]);
    assert!(found.code == Some(0) && found.stdout.contains("were retired"), "{found:?}");
    world.kill9();
    world.daemon();
    assert_eq!(world.curl(&["https://raw.test/v1/after"]).status, 200);
    let found = verify(&world, &["--key", &key]);
    assert_eq!(found.code, Some(0), "{found:?}");
    let gone = journal(&world).join(Path::new(&first(&world)));
    fs::remove_file(gone).unwrap();
    let found = verify(&world, &[]);
    assert!(
        found.code == Some(1) && found.stdout.contains("nothing says that they were retired"),
        "{found:?}"
    );
}

/// Has `fdatasync` of the daemon do something else, until it is dropped.
struct Inject(std::process::Child);

impl Inject {
    fn into(world: &World, what: &str) -> Inject {
        let log = world.path("strace.log");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=fdatasync", "-e", &format!("inject=fdatasync:{what}"), "-o"]);
        command.arg(&log).args(["-p", &world.daemon_pid().to_string()]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        let strace = command.spawn().unwrap();
        wait_until("strace traces the daemon", || {
            let status = fs::read_to_string(format!("/proc/{}/status", world.daemon_pid())).unwrap();
            (!status.contains("TracerPid:\t0\n")).then_some(())
        });
        // The threads, too, one after the other.
        std::thread::sleep(Duration::from_millis(300));
        Inject(strace)
    }
}

impl Drop for Inject {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGINT);
        let _ = self.0.wait();
    }
}

#[test]
fn in_sync_mode_a_call_waits_for_a_slow_disk_and_is_refused_by_one_that_fails_and_goes_on_when_it_does_not() {
    let world = World::new();
    world.set("journal.durability", "\"sync\"");
    world.secret("demo-key", CANARY);
    world.daemon();
    let upstream = Upstream::http1(&world);
    let call = |name: &str| world.curl(&[&format!("https://raw.test/v1/{name}")]);
    assert_eq!(call("before").status, 200);
    {
        let _slow = Inject::into(&world, "delay_enter=700000");
        let begin = std::time::Instant::now();
        let mut curl = world.bot("curl").args(["-sS", "-o", "/dev/null", "https://raw.test/v1/slow"]).spawn();
        let written = || world.journal().iter().any(|record| record["path"] == "/v1/slow");
        wait_until("it is written", || written().then_some(()));
        assert!(
            !upstream.seen().iter().any(|seen| seen.target == "/v1/slow"),
            "it went out before it was on the disk"
        );
        assert_eq!(curl.wait(), Some(0));
        assert!(begin.elapsed() >= Duration::from_millis(700));
    }
    {
        let _failing = Inject::into(&world, "error=EIO");
        let refused = call("failing");
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(call("still").status, 503);
        let status = world.vouchsafe(&["status"]);
        assert!(status.code == Some(1) && status.stdout.contains("does not reach its disk"), "{status:?}");
    }
    wait_until("calls go on", || (call("again").status == 200).then_some(()));
    assert!(
        !upstream.seen().iter().any(|seen| seen.target.contains("failing") || seen.target.contains("still"))
    );
    // What is in the journal as allowed, and was not, has an outcome that says so.
    let records = wait_until("an outcome", || {
        let records = world.journal();
        let id = records.iter().find(|record| record["path"] == "/v1/failing")?["id"].clone();
        let outcome = records.iter().find(|record| record["kind"] == "outcome" && record["id"] == id)?;
        Some(outcome["error"].as_str()?.to_owned())
    });
    assert!(records.contains("did not reach the disk"), "{records}");
    assert_eq!(verify(&world, &[]).code, Some(0));
}

#[test]
fn a_member_of_the_sockets_group_cannot_end_the_key_that_auditors_know() {
    let world = World::new();
    world.set("control.group", "\"nogroup\"");
    world.secret("demo-key", CANARY);
    world.daemon();
    let key = world.status()["journal"]["key"].clone();
    let program = world.copy(tests::daemon_binary(), "vouchsafe");
    let run = |arguments: &[&str]| {
        let mut command = world.enter(None);
        command.args(["setpriv", "--reuid=4242", "--regid=nogroup", "--clear-groups"]).arg(&program);
        let output = command.args(arguments).arg("--config").arg(world.config()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, said) = run(&["status"]);
    assert!(code == Some(0) && said.contains("key "), "it may look: {said}");
    let (code, said) = run(&["audit", "key", "rotate"]);
    assert!(code == Some(1) && said.contains("run the command as root"), "{said}");
    // Nor read the journal, or its key.
    for arguments in [&["audit", "verify"][..], &["audit", "tail"]] {
        let (code, said) = run(arguments);
        assert!(code != Some(0) && said.contains("use sudo"), "{said}");
    }
    assert_eq!(world.status()["journal"]["key"], key);
}
