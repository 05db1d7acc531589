//! The journal over kills, damage, a full disk and hostile words: nothing goes out unrecorded, and what is there is proved.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use tests::upstream::Upstream;
use tests::wire::{Dialer, Reply};
use tests::{CANARY, Finished, Running, World, daemon_binary, wait_until};

const RAW: &str = "203.0.113.11:443";

fn file(world: &World) -> PathBuf {
    world.path("state/journal/journal-00000001.jsonl")
}

#[track_caller]
fn verified(world: &World) -> Finished {
    let verified = world.vouchsafe(&["audit", "verify"]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    verified
}

fn of_kind<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["kind"] == kind).collect()
}

/// Appends bytes to the journal, as a write that a kill cut short.
fn append(world: &World, bytes: &[u8]) {
    fs::OpenOptions::new().append(true).open(file(world)).unwrap().write_all(bytes).unwrap();
}

/// A call that was let go has one decision and, by now, one outcome. Returns the paths of those that were allowed.
#[track_caller]
fn each_has_an_outcome(world: &World) -> BTreeMap<String, Value> {
    wait_until("an outcome for each call", || {
        let records = world.journal();
        let outcomes: BTreeSet<&str> =
            of_kind(&records, "outcome").iter().map(|outcome| outcome["id"].as_str().unwrap()).collect();
        let allowed = of_kind(&records, "decision").into_iter().filter(|record| record["verdict"] == "allow");
        allowed
            .map(|decision| {
                let known = outcomes.contains(decision["id"].as_str()?);
                known.then(|| (decision["path"].as_str().unwrap_or_default().to_owned(), decision.clone()))
            })
            .collect()
    })
}

#[test]
fn a_call_that_was_open_at_a_kill_is_closed_as_interrupted_by_the_next_start() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    let mut curl = world.bot("curl").args(["-sSN", "https://raw.test/v1/endless"]).spawn();
    assert!(!curl.line().is_empty());
    let id = world.decision(Some("/v1/endless"))["id"].clone();
    world.kill9();
    curl.rest();
    assert!(curl.wait().is_some_and(|code| code != 0), "the download looks whole");
    verified(&world);
    // Closed while it is down: the call does not go around.
    let before = upstream.count();
    assert_eq!(world.curl(&["https://raw.test/v1/meanwhile"]).status, 0);
    assert_eq!(upstream.count(), before);

    world.daemon();
    verified(&world);
    let records = world.journal();
    let recovered = of_kind(&records, "recovered");
    assert_eq!(recovered.len(), 1, "{recovered:?}");
    assert_eq!((&recovered[0]["closed"], &recovered[0]["dropped_bytes"]), (&1.into(), &0.into()));
    let outcomes = of_kind(&records, "outcome");
    assert_eq!(outcomes.len(), 1);
    assert_eq!((&outcomes[0]["id"], &outcomes[0]["interrupted"]), (&id, &true.into()));
    assert_eq!(of_kind(&records, "start").len(), 2);
    assert!(world.vouchsafe(&["audit", "tail"]).stdout.contains("interrupted"));
    assert_eq!(world.curl(&["https://raw.test/v1/after"]).status, 200);
    // Once, not at every start.
    world.restart();
    assert_eq!(of_kind(&world.journal(), "recovered").len(), 1);
}

#[test]
fn half_a_last_line_is_cut_off_at_the_start_and_the_repair_is_recorded() {
    let world = World::start();
    let whole = fs::read_to_string(file(&world)).unwrap();
    let line = whole.lines().next().unwrap().to_owned();
    for (count, half) in
        [&line.as_bytes()[..1], &line.as_bytes()[..line.len() / 2], b"\0\0\0\0"].iter().enumerate()
    {
        world.kill9();
        append(&world, half);
        world.daemon();
        verified(&world);
        let records = world.journal();
        let recovered = of_kind(&records, "recovered");
        assert_eq!(recovered.len(), count + 1);
        assert_eq!(recovered[count]["dropped_bytes"], half.len());
    }
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    each_has_an_outcome(&world);
    verified(&world);
}

#[test]
fn a_journal_that_was_edited_is_not_continued_and_verify_names_the_place() {
    let world = World::start();
    for number in 0..3 {
        assert_eq!(world.curl(&[&format!("https://api.test/v1/{number}")]).status, 200);
    }
    each_has_an_outcome(&world);
    assert_eq!(world.terminate(), Some(0));
    let good = fs::read_to_string(file(&world)).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    assert!(lines.len() >= 8, "{good}");
    let all = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let mut edited = lines.clone();
    let changed = lines[3].replace("\"kind\":\"", "\"kind\":\"x");
    edited[3] = &changed;
    let mut moved = lines.clone();
    moved.swap(3, 4);
    let mut twice = lines.clone();
    twice.insert(3, lines[2]);
    let mut foreign = lines.clone();
    foreign.insert(3, "not a record");
    for (what, text) in [
        ("edited", all(&edited)),
        ("moved", all(&moved)),
        ("removed", all(&[&lines[..3], &lines[4..]].concat())),
        ("inserted", all(&twice)),
        ("foreign", all(&foreign)),
        ("first line removed", all(&lines[1..])),
    ] {
        fs::write(file(&world), &text).unwrap();
        let verified = world.vouchsafe(&["audit", "verify"]);
        assert_eq!(verified.code, Some(1), "{what}: {verified:?}");
        let place = if what == "first line removed" { "line 1" } else { "line 4" };
        assert!(verified.stdout.contains(place), "{what}: {verified:?}");
        let said = world.start_fails();
        for part in [file(&world).to_str().unwrap(), "broken", place, "move the file out"] {
            assert!(said.contains(part), "{what}: {part:?} is not in {said}");
        }
        assert_eq!(fs::read_to_string(file(&world)).unwrap(), text, "{what}: evidence was changed");
        // Closed: what was attached stays, and nobody answers.
        assert_eq!(world.curl(&["https://api.test/v1/closed"]).status, 0);
    }
    // The advice that it gives.
    fs::rename(file(&world), world.path("evidence.jsonl")).unwrap();
    world.daemon();
    verified(&world);
    assert_eq!(world.curl(&["https://api.test/v1/after"]).status, 200);
}

#[test]
fn records_that_were_cut_off_the_end_are_found_with_what_an_earlier_verification_said() {
    let world = World::start();
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    each_has_an_outcome(&world);
    assert_eq!(world.terminate(), Some(0));
    let good = fs::read_to_string(file(&world)).unwrap();
    let count = good.lines().count();
    let head: Value = serde_json::from_str(good.lines().last().unwrap()).unwrap();
    let head = head["hash"].as_str().unwrap();
    let seq = count.to_string();
    let expect = ["audit", "verify", "--expect-head", head, "--expect-seq", &seq];
    assert_eq!(world.vouchsafe(&expect).code, Some(0));
    let shorter: String = good.lines().take(count - 1).map(|line| format!("{line}\n")).collect();
    fs::write(file(&world), shorter).unwrap();
    assert_eq!(world.vouchsafe(&expect).code, Some(1));
}

#[test]
fn a_second_daemon_does_not_write_to_the_same_journal() {
    let world = World::start();
    let said = world.start_fails();
    assert!(said.contains(world.path("state/journal").to_str().unwrap()), "{said}");
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    each_has_an_outcome(&world);
    verified(&world);
}

/// A small file system over a folder of the world.
struct Small(PathBuf);

impl Small {
    fn over(path: PathBuf, size: &str) -> Self {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        let options = format!("mode=0700,size={size}");
        mount(Some("small"), &path, Some("tmpfs"), flags, Some(options.as_str())).unwrap();
        Self(path)
    }

    /// Fills it to the last byte and returns the file that does.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("fill");
        let mut file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path).unwrap();
        for size in [4096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn with_a_full_disk_calls_are_refused_before_they_leave_and_go_on_when_there_is_room() {
    let world = World::new();
    let small = Small::over(world.path("state"), "1m");
    world.secret("demo-key", CANARY);
    world.daemon();
    let upstream = Upstream::http1(&world);
    let call = |name: &str| world.curl(&[&format!("https://raw.test/v1/{name}")]);
    assert_eq!(call("before").status, 200);
    each_has_an_outcome(&world);
    let fill = small.fill();
    // The last page of the journal takes some records more.
    let mut served = 1;
    let refused = wait_until("a call that is refused for the full disk", || {
        let answer = call(&format!("filling/{served}"));
        served += usize::from(answer.status == 200);
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.json()["type"], "urn:vouchsafe:problem:journal-unwritable");
    assert_eq!(refused.journal_id(), None, "there is no entry to name");
    for number in 0..5 {
        assert_eq!(call(&format!("full/{number}")).status, 503);
    }
    // What is refused by policy stays refused, too.
    assert_eq!(world.curl(&["-X", "DELETE", "https://raw.test/v1/full"]).status, 403);
    let targets = |of: &str| upstream.seen().iter().filter(|seen| seen.target.contains(of)).count();
    assert_eq!((upstream.count(), targets("full/")), (served, 0), "a call left unrecorded");
    let status = world.status();
    assert!(status["journal"].to_string().contains("the disk is full"), "{}", status["journal"]);
    assert_eq!(world.vouchsafe(&["status"]).code, Some(1));
    verified(&world);

    fs::remove_file(fill).unwrap();
    wait_until("there is room again", || (call("again").status == 200).then_some(()));
    assert_eq!(call("after").status, 200);
    let allowed = each_has_an_outcome(&world);
    for seen in upstream.seen() {
        assert!(allowed.contains_key(&seen.target), "{} is not in the journal", seen.target);
    }
    assert_eq!(world.vouchsafe(&["status"]).code, Some(0));
    verified(&world);
    world.restart();
    verified(&world);
}

#[test]
fn a_change_of_a_secret_names_whom_sudo_ran_it_for() {
    let world = World::start();
    let mut remove = world.vouchsafe_command(&["secret", "rm", "demo-key"]);
    let finished = remove.env("SUDO_UID", "4711").output().unwrap();
    assert!(finished.status.success(), "{finished:?}");
    let record = world.record("secret", |record| record["change"] == "removed");
    assert_eq!(
        (&record["secret"], &record["by"]["sudo_uid"]),
        (&"demo-key".into(), &4711.into()),
        "{record}"
    );
}

#[test]
fn what_somebody_sets_while_the_journal_cannot_be_written_is_taken_down_when_it_can() {
    let world = World::new();
    fs::create_dir_all(world.path("state/journal")).unwrap();
    let small = Small::over(world.path("state/journal"), "256k");
    // A reserve would take them, for a while.
    world.set("journal.reserve", "\"0\"");
    world.daemon();
    let fill = small.fill();
    let call = || world.curl(&["https://api.test/v1/x"]).status;
    wait_until("a call that is refused for the full disk", || (call() == 503).then_some(()));
    let mut version = 0;
    wait_until("a change that has no room", || {
        version += 1;
        world.secret("late", &format!("{CANARY}-{version}"));
        world.log().contains("a change of a secret is not in the journal yet").then_some(())
    });
    world.secret("late", CANARY);
    fs::remove_file(fill).unwrap();
    // Each of them, and whose word it was, although nobody says anything more.
    world.record("secret", |record| record["version"] == version + 1);
    let all = world.journal().into_iter().filter(|it| it["kind"] == "secret");
    let told: Vec<u64> =
        all.filter(|it| it["by"]["uid"] == 0).map(|it| it["version"].as_u64().unwrap()).collect();
    assert_eq!(told, (1..=version + 1).collect::<Vec<_>>());
    verified(&world);
}

#[test]
fn in_a_storm_with_a_kill_in_its_middle_nothing_is_forwarded_without_a_record() {
    const CALLS: usize = 500;
    let world = World::start();
    let upstream = Upstream::http1(&world);
    let dialer = Mutex::new(Dialer::new(&world));
    let next = AtomicUsize::new(0);
    let answered = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= CALLS {
                        return;
                    }
                    let path = format!("/v1/storm/{number}");
                    // Nobody answers while the daemon is dead; the call waits for the next one.
                    let (tcp, tls) = wait_until("a connection", || {
                        let dialer = dialer.lock().unwrap();
                        Some((dialer.try_dial(RAW)?, dialer.client("raw.test", &["http/1.1"])))
                    });
                    let mut stream = rustls::StreamOwned::new(tls, tcp);
                    let ask = format!("GET {path} HTTP/1.1\r\nhost: raw.test\r\nconnection: close\r\n\r\n");
                    if stream.write_all(ask.as_bytes()).and_then(|()| stream.flush()).is_err() {
                        continue;
                    }
                    let reply = Reply::read(&mut stream);
                    if reply.status == 200 && reply.whole {
                        answered.lock().unwrap().insert(path);
                    }
                }
            });
        }
        upstream.wait_for(CALLS / 2);
        world.kill9();
        world.daemon();
    });
    verified(&world);
    let allowed = each_has_an_outcome(&world);
    let records = world.journal();
    let forwarded: Vec<String> = upstream.seen().into_iter().map(|seen| seen.target).collect();
    let distinct: BTreeSet<&String> = forwarded.iter().collect();
    assert_eq!(distinct.len(), forwarded.len(), "a call went out twice");
    for path in distinct {
        assert!(allowed.contains_key(path), "{path} was forwarded without a record");
    }
    for path in answered.lock().unwrap().iter() {
        assert!(forwarded.contains(path));
    }
    let outcomes = of_kind(&records, "outcome");
    let ids: BTreeSet<&str> = outcomes.iter().map(|outcome| outcome["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), outcomes.len()), (allowed.len(), allowed.len()), "one outcome for each decision");
    let interrupted = outcomes.iter().filter(|outcome| outcome["interrupted"] == true).count();
    let recovered = of_kind(&records, "recovered");
    let closed = recovered.first().map_or(0, |repair| repair["closed"].as_u64().unwrap());
    assert_eq!(closed, interrupted as u64);
    // The storm went on on both sides of the kill.
    let generations = records.iter().rposition(|record| record["kind"] == "start").unwrap();
    let decided = |records: &[Value]| of_kind(records, "decision").len();
    assert!(decided(&records[..generations]) > 0 && decided(&records[generations..]) > 0);
    assert!(answered.lock().unwrap().len() > CALLS / 2, "{}", answered.lock().unwrap().len());
}

/// `audit tail -f` of the world.
fn follow(world: &World) -> Running {
    let journal = world.path("state/journal");
    world.bot(daemon_binary()).outside().args(["audit", "tail", "-f", "--dir"]).arg(journal).spawn()
}

/// The next line that has this word.
#[track_caller]
fn line_with(tail: &mut Running, word: &str) -> String {
    loop {
        let line = tail.line();
        assert!(!line.is_empty(), "it ended before a line with {word}");
        if line.contains(word) {
            return line;
        }
    }
}

#[test]
fn tail_follows_over_a_kill_a_repair_and_a_restart() {
    let world = World::start();
    let mut tail = follow(&world);
    line_with(&mut tail, "start vouchsafe");
    assert_eq!(world.curl(&["https://api.test/v1/before"]).status, 200);
    let line = line_with(&mut tail, "/v1/before");
    let words: Vec<_> = line.split_whitespace().skip(1).take(5).collect();
    assert_eq!(words, ["curl", "allow", "GET", "api.test/v1/before", "200"], "{line}");
    world.kill9();
    append(&world, b"{\"v\":1,\"seq\":");
    world.daemon();
    assert!(line_with(&mut tail, "recovered").contains("13 bytes of a half line dropped"));
    let start = line_with(&mut tail, "start vouchsafe");
    assert!(start.contains(&format!("pid {}", world.daemon_pid())), "{start}");
    assert_eq!(world.curl(&["-X", "DELETE", "https://api.test/v1/after"]).status, 403);
    let line = line_with(&mut tail, "/v1/after");
    let words: Vec<_> = line.split_whitespace().skip(1).take(3).collect();
    assert_eq!(words, ["curl", "deny", "DELETE"], "{line}");
}

#[test]
fn hostile_names_of_programs_threads_and_cgroups_steer_no_terminal_and_fake_no_line() {
    const FAKE: &str = "2026-11-24T00:00:00.000Z curl allow GET";
    let world = World::start();
    let hostile = format!("\u{1b}[2J\u{1b}]0;x\u{7}\r\n{FAKE}\u{202e}\u{9b}31m");
    let program = world.copy("/usr/bin/curl", &format!("bots/{hostile}"));
    let answer = world.bot(&program).curl(&["https://api.test/v1/exe"]);
    assert_eq!(answer.status, 403, "{answer:?}");
    let comm = "\u{1b}[31m\nx\u{202e}";
    world.bot("actor").args(["named", comm, "203.0.113.10:80", "/v1/comm"]).run();
    world.bot("curl").cgroup("bots\u{1b}[2J\u{7}").curl(&["https://api.test/v1/cgroup"]);
    for path in ["/v1/%1b%5b2J", "/v1/x%0aFAKE", "/v1/\u{202e}", "/v1/%e2%80%ae"] {
        world.curl(&["--path-as-is", &format!("https://api.test{path}")]);
    }
    each_has_an_outcome(&world);
    assert!(world.decision(Some("/v1/comm"))["workload"]["comm"].as_str().unwrap().contains('\u{1b}'));
    assert!(world.decision(Some("/v1/exe"))["workload"]["exe"].as_str().unwrap().contains(FAKE));

    let records = world.journal().len();
    let lines = world.vouchsafe(&["audit", "tail", "-n", "1000"]).stdout;
    let json = world.vouchsafe(&["audit", "tail", "-n", "1000", "--json"]).stdout;
    let file = fs::read_to_string(file(&world)).unwrap();
    let status = world.vouchsafe(&["status"]).stdout;
    for (what, text) in [("tail", &lines), ("tail --json", &json), ("the file", &file), ("status", &status)] {
        let hostile = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(hostile, None, "in {what}:\n{}", text.escape_debug());
        assert!(!text.lines().any(|line| line.starts_with(FAKE)), "a faked line in {what}");
    }
    assert_eq!(json.lines().count(), records);
    assert!(lines.lines().all(|line| line.as_bytes().get(4) == Some(&b'-')), "{lines}");
    assert!(!world.log().contains('\u{1b}'), "the log");
    verified(&world);
}

#[test]
fn every_load_of_a_policy_is_recorded_once() {
    let world = World::start();
    let loads = || of_kind(&world.journal(), "policy").into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(world.record("start", |_| true)["policy_generation"], 1);
    assert!(loads().is_empty());
    // Nothing has changed.
    assert_eq!(world.reload().code, Some(0));
    assert!(loads().is_empty());

    world.identity("robot", "exe = \"{root}/bots/robot\"");
    world.wait_for_generation(2);
    let loaded = world.record("policy", |record| record["generation"] == 2);
    assert_eq!((&loaded["result"], &loaded["identities"]), (&"loaded".into(), &4.into()), "{loaded}");
    assert_eq!(loaded["digest"].as_str().unwrap().len(), 64);
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200);
    assert_eq!(world.decision(Some("/v1/x"))["generation"], 2);

    world.policy("policies/robot.toml", "[identity]\nexee = \"/x\"\n");
    let refused = world.record("policy", |record| record["result"] == "refused");
    let errors = refused["errors"].to_string();
    assert!(errors.contains("policies/robot.toml:2:1: error: unknown key"), "{refused}");
    assert_eq!(refused["generation"], 3);
    assert_eq!(world.reload().code, Some(1));
    assert_eq!(loads().len(), 2, "the same mistake is recorded once");
    fs::remove_file(world.path("etc/policies/robot.toml")).unwrap();
    world.wait_for_generation(3);
    assert_eq!(loads().len(), 3);
    let shown = world.vouchsafe(&["audit", "tail"]).stdout;
    for part in ["policy 2 loaded, 4 identities", "policy 3 refused: ", "policy 3 loaded, 3 identities"] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
    assert!(Path::new(&world.path("state/journal")).is_dir());
    verified(&world);
}
