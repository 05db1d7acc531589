//! Bodies that are kept for auditors: what bots and APIs say, readable to nobody on the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;
use tests::upstream::{BIG, Upstream};
use tests::{CANARY, World, wait_until};

/// A world whose curl may call the API with its bodies kept, and the auditor's key, as `age-keygen` makes it.
fn world(capture: &str) -> (World, PathBuf) {
    let world = World::new();
    let key = world.path("auditor.key");
    let made = Command::new("age-keygen").arg("-o").arg(&key).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = fs::read_to_string(&key).unwrap();
    let public = text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap();
    world.set("journal.auditors", &format!("[\"{public}\"]"));
    grant(&world, &format!("capture = \"{capture}\""));
    (world, key)
}

fn grant(world: &World, capture: &str) {
    let grant =
        "api = \"demo\"\nallow = [\"GET|POST|PUT /v1/**\", \"websocket /v1/**\"]\ncredential = \"demo-key\"";
    let text = format!("[identity]\nexe = \"{{root}}/bots/curl\"\n\n[[grant]]\n{grant}\n{capture}\n");
    world.policy("policies/curl.toml", &text);
}

/// The outcome of the newest call to this path.
fn outcome(world: &World, path: &str) -> Value {
    let id = world.decision(Some(path))["id"].clone();
    world.record("outcome", |record| record["id"] == id)
}

/// What `age` reads of a body with the auditor's key.
fn open(world: &World, key: &Path, outcome: &Value, part: &str) -> Option<Vec<u8>> {
    let captures = outcome["captures"].as_array().map(Vec::as_slice).unwrap_or_default();
    let capture = captures.iter().find(|capture| capture["part"] == part)?;
    let file = world.path("state/journal/captures").join(capture["file"].as_str().unwrap());
    let read = Command::new("age").args(["--decrypt", "--identity"]).arg(key).arg(file).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    assert!(capture["bytes"].is_null() || capture["bytes"] == read.stdout.len(), "{capture}");
    Some(read.stdout)
}

fn end<'a>(outcome: &'a Value, part: &str) -> &'a str {
    let captures = outcome["captures"].as_array().unwrap();
    captures.iter().find(|capture| capture["part"] == part).unwrap()["end"].as_str().unwrap()
}

/// That a text is in no file of the host's state.
#[track_caller]
fn assert_nowhere(world: &World, text: &str) {
    let found = Command::new("grep").args(["-rlaF", text]).arg(world.path("state")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{text} is in the state");
}

#[test]
fn what_a_bot_and_its_api_say_is_kept_for_the_auditor_and_for_nobody_on_the_host() {
    for versions in [["http/1.1"], ["h2"]] {
        let (world, key) = world("1 MiB");
        world.daemon();
        let upstream = Upstream::start(&world, tests::upstream::Proof::Good, &versions);
        let said = "account=canary-of-the-body&".repeat(4000);
        let body = world.write("body", &said);
        let data = format!("@{}", body.display());
        // Over HTTP/2 from the bot, and over HTTP/1.1 with a length and without one.
        for (n, more) in
            [&["--http2"][..], &["--http1.1"], &["--http1.1", "-H", "transfer-encoding: chunked"]]
                .into_iter()
                .enumerate()
        {
            let path = format!("/v1/say{n}");
            let url = format!("https://raw.test{path}");
            let answer = world.curl(&[more, &["--data-binary", &data, &url]].concat());
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(upstream.seen().last().unwrap().body, said.as_bytes());
            let outcome = outcome(&world, &path);
            assert_eq!(open(&world, &key, &outcome, "request").unwrap(), said.as_bytes());
            // The API says back what it got, and the secret with it: what the bot got is what is kept.
            let got = open(&world, &key, &outcome, "response").unwrap();
            assert_eq!(String::from_utf8(got).unwrap(), answer.body);
            assert_eq!((end(&outcome, "request"), end(&outcome, "response")), ("whole", "whole"));
            assert_eq!(outcome["reflected"], true);
            assert_eq!(world.decision(Some(&path))["capture"], 1 << 20);
        }
        let call = world.curl(&["https://raw.test/v1/nothing-sent"]);
        assert_eq!(call.status, 200);
        let outcome = outcome(&world, "/v1/nothing-sent");
        assert_eq!(outcome["captures"].as_array().unwrap().len(), 1, "an empty body is none: {outcome}");
        assert_nowhere(&world, "canary-of-the-body");
        assert_nowhere(&world, CANARY);
        let told = world.vouchsafe(&["audit", "verify"]);
        assert_eq!(told.code, Some(0), "{told:?}");
        assert!(
            told.stdout.contains("7 bodies that are kept for auditors are as their records say"),
            "{told:?}"
        );
    }
}

#[test]
fn without_a_word_of_the_grant_nothing_of_a_body_is_kept() {
    let (world, _) = world("1 MiB");
    grant(&world, "");
    world.daemon();
    let _upstream = Upstream::http1(&world);
    assert_eq!(world.curl(&["-d", "canary-of-the-body", "https://raw.test/v1/x"]).status, 200);
    let outcome = outcome(&world, "/v1/x");
    assert!(outcome["captures"].is_null() && world.decision(Some("/v1/x"))["capture"].is_null());
    assert!(!world.path("state/journal/captures").exists());
    assert_nowhere(&world, "canary-of-the-body");
}

#[test]
fn a_body_in_which_the_secret_was_put_is_kept_as_the_bot_sent_it() {
    let (world, key) = world("1 MiB");
    world.policy(
        "apis/apis.toml",
        "[api.demo]\nhosts = [\"raw.test\"]\ninject = { placeholder = \"vouchsafe-demo\", in = [\"body\"] }\n",
    );
    for name in ["python", "actor"] {
        fs::remove_file(world.path("etc/policies").join(format!("{name}.toml"))).unwrap();
    }
    world.daemon();
    let upstream = Upstream::http1(&world);
    assert_eq!(world.curl(&["-d", "a=1&key=vouchsafe-demo", "https://raw.test/v1/x"]).status, 200);
    assert_eq!(upstream.seen().last().unwrap().body, format!("a=1&key={CANARY}").as_bytes());
    let outcome = outcome(&world, "/v1/x");
    assert_eq!(open(&world, &key, &outcome, "request").unwrap(), b"a=1&key=vouchsafe-demo");
    assert_eq!(end(&outcome, "request"), "whole");
    let got = open(&world, &key, &outcome, "response").unwrap();
    assert!(!String::from_utf8_lossy(&got).contains(CANARY), "as the bot got it: covered");
    assert_nowhere(&world, CANARY);
}

#[test]
fn of_larger_bodies_the_beginning_is_kept_and_all_of_them_goes_on() {
    let (world, key) = world("10 KiB");
    world.daemon();
    let upstream = Upstream::http1(&world);
    let body = world.path("body");
    fs::write(&body, vec![b'u'; 3 << 20]).unwrap();
    let size = world.path("got");
    let arguments = ["--data-binary", &format!("@{}", body.display()), "https://raw.test/v1/big"];
    let answer = world.curl(&[&["-o", size.to_str().unwrap()], &arguments[..]].concat());
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.seen().last().unwrap().body.len(), 3 << 20);
    assert_eq!(fs::metadata(size).unwrap().len(), u64::try_from(BIG).unwrap());
    let outcome = outcome(&world, "/v1/big");
    assert_eq!((end(&outcome, "request"), end(&outcome, "response")), ("limit", "limit"));
    assert_eq!(open(&world, &key, &outcome, "request").unwrap(), vec![b'u'; 10 << 10]);
    assert_eq!(open(&world, &key, &outcome, "response").unwrap().len(), 10 << 10);
}

#[test]
fn a_stream_is_kept_as_it_passes_and_is_not_held_up() {
    let (world, key) = world("1 MiB");
    world.daemon();
    let upstream = Upstream::http1(&world);
    let mut curl = world.bot("curl").args(["-sSN", "https://raw.test/v1/slow-body"]).spawn();
    assert_eq!(curl.line(), "first", "before there is more");
    upstream.open_gate(1);
    assert_eq!(curl.rest(), "last\n");
    curl.wait();
    let whole = outcome(&world, "/v1/slow-body");
    assert_eq!(open(&world, &key, &whole, "response").unwrap(), b"first\nlast\n");
    // A bot that goes away has got what is kept.
    let mut curl = world.bot("curl").args(["-sSN", "https://raw.test/v1/away/slow-body"]).spawn();
    assert_eq!(curl.line(), "first");
    curl.signal(nix::sys::signal::Signal::SIGKILL);
    curl.wait();
    let broken = outcome(&world, "/v1/away/slow-body");
    assert_eq!(open(&world, &key, &broken, "response").unwrap(), b"first\n");
    assert_eq!(end(&broken, "response"), "broken");
}

#[test]
fn a_request_that_is_sent_twice_is_kept_once() {
    let (world, key) = world("1 MiB");
    world.daemon();
    let upstream = Upstream::http1(&world);
    let first = "https://raw.test/v1/first";
    let again = ["-X", "PUT", "-d", "only once", "https://raw.test/v1/close-kept"];
    let arguments = [&[first, "-o", "/dev/null", "--next", "-sS"][..], &again].concat();
    assert_eq!(world.curl(&arguments).code, Some(0));
    let seen = upstream.seen();
    let sent = seen.iter().filter(|seen| seen.target.ends_with("close-kept"));
    assert_eq!(sent.map(|seen| seen.body.clone()).collect::<Vec<_>>(), [b"only once", b"only once"]);
    let outcome = outcome(&world, "/v1/close-kept");
    assert_eq!(outcome["repeated"], true);
    assert_eq!(open(&world, &key, &outcome, "request").unwrap(), b"only once");
}

#[test]
fn a_policy_that_says_capture_is_refused_on_a_host_that_names_no_auditor() {
    let world = World::new();
    grant(&world, "capture = \"1 MiB\"");
    let said = world.start_fails();
    assert!(said.contains("policies/curl.toml:8:11: error: \"capture\"") && said.contains("age1"), "{said}");
    grant(&world, "");
    world.daemon();
    let _upstream = Upstream::http1(&world);
    grant(&world, "capture = \"1 MiB\"");
    let reloaded = world.reload();
    assert_ne!(reloaded.code, Some(0));
    assert!(reloaded.stderr.contains("policies/curl.toml:8:11"), "{reloaded:?}");
    assert_eq!(world.curl(&["-d", "x", "https://raw.test/v1/x"]).status, 200, "the old policy goes on");
    // A key that is none, and one that this host must not have.
    let secret = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQQ";
    world.terminate();
    for (written, word) in [("age1nothing", "no public key"), (secret, "secret key")] {
        world.set("journal.auditors", &format!("[\"{written}\"]"));
        let said = world.start_fails();
        assert!(said.contains(word) && said.contains("vouchsafe.toml:"), "{said}");
        assert!(!said.contains(&secret[15..]), "{said}");
    }
}

#[test]
fn what_is_no_body_does_not_pass_where_bodies_are_kept() {
    let (world, _) = world("1 MiB");
    world.daemon();
    let upstream = Upstream::http1(&world);
    let headers = ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"];
    let mut arguments: Vec<&str> = headers.iter().flat_map(|header| ["-H", header]).collect();
    arguments.extend([
        "--http1.1",
        "-H",
        "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
        "https://raw.test/v1/x",
    ]);
    let answer = world.curl(&arguments);
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("capture"), "{answer:?}");
    assert_eq!(upstream.count(), 0);
    let policies = world.path("etc");
    let replayed = world.vouchsafe(&["audit", "replay", "--policies", policies.to_str().unwrap(), "--json"]);
    assert_eq!(replayed.code, Some(0), "decided as it was then: {replayed:?}");
}

#[test]
fn a_kill_leaves_the_whole_of_a_request_that_went_out_and_the_outcome_vouches_for_it() {
    let (world, key) = world("1 MiB");
    world.daemon();
    let upstream = Upstream::http1(&world);
    let said = "went out ".repeat(20_000);
    let data = format!("@{}", world.write("body", &said).display());
    let url = "https://raw.test/v1/never";
    let mut curl = world.bot("curl").args(["-sS", "--data-binary", &data, url]).spawn();
    upstream.wait_for(1);
    world.kill9();
    curl.signal(nix::sys::signal::Signal::SIGKILL);
    curl.wait();
    world.daemon();
    let outcome = outcome(&world, "/v1/never");
    assert_eq!(outcome["interrupted"], true);
    assert_eq!(end(&outcome, "request"), "killed");
    assert_eq!(open(&world, &key, &outcome, "request").unwrap(), said.as_bytes());
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));
}

/// Unmounts at the end.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_body_for_which_there_is_no_room_breaks_off_and_no_other_call_begins() {
    let (world, _) = world("1 GiB");
    let state = world.path("state");
    fs::create_dir_all(&state).unwrap();
    let size = Some("size=8m,mode=0700");
    mount(Some("tmpfs"), &state, Some("tmpfs"), MsFlags::empty(), size).unwrap();
    let mounted = Mounted(state);
    world.secret("demo-key", CANARY);
    world.daemon();
    let upstream = Upstream::http1(&world);
    let body = world.path("body");
    fs::write(&body, vec![b'u'; 30 << 20]).unwrap();
    let data = format!("@{}", body.display());
    let answer = world.curl(&["--data-binary", &data, "https://raw.test/v1/x"]);
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("kept for auditors"), "{answer:?}");
    assert_eq!(upstream.count(), 0, "the upstream never had all of it");
    // The same for what the API says.
    let got = world.path("got");
    let answer = world.curl(&["-o", got.to_str().unwrap(), "https://raw.test/v1/big"]);
    assert_ne!(answer.code, Some(0), "{answer:?}");
    assert!(fs::metadata(got).unwrap().len() < 10 << 20);
    let outcome = wait_until("the outcome", || {
        let outcomes = world.journal().into_iter().filter(|record| record["kind"] == "outcome");
        outcomes.rev().find(|record| record["status"] == 200)
    });
    assert_eq!(outcome["blame"], "host", "{outcome}");
    assert!(outcome["error"].as_str().unwrap().contains("kept for auditors"), "{outcome}");
    // What could not be kept leaves nothing: there is room again.
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(world.curl(&["-d", "x", "https://raw.test/v1/after"]).status, 200);
    world.terminate();
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));
    drop(mounted);
}

#[test]
fn a_request_that_breaks_off_and_another_user_get_nothing_out_of_what_is_kept() {
    let (world, key) = world("1 MiB");
    world.daemon();
    let upstream = Upstream::http1(&world);
    // Some of it, and gone before its end.
    let half = ["-T", "-", "https://raw.test/v1/half"];
    let mut curl = world.bot("curl").args(["-sS", "--http1.1", "-H", "expect:"]).args(half).spawn();
    curl.say(&"half-canary ".repeat(100));
    wait_until("it has begun", || {
        world.journal().iter().any(|record| record["path"] == "/v1/half").then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    curl.signal(nix::sys::signal::Signal::SIGKILL);
    curl.wait();
    let broken = outcome(&world, "/v1/half");
    assert_eq!(upstream.count(), 0, "nobody had a whole request: {broken}");
    assert!(broken["captures"][0]["end"] == "broken", "{broken}");
    assert!(
        String::from_utf8(open(&world, &key, &broken, "request").unwrap())
            .unwrap()
            .starts_with("half-canary")
    );
    assert_nowhere(&world, "half-canary");
    // What the files are called is known to who reads an id in an answer.
    let file = world.path("state/journal/captures").join(broken["captures"][0]["file"].as_str().unwrap());
    let copy = world.copy("/bin/cat", "bots/cat");
    let read = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(copy)
        .arg(&file)
        .output()
        .unwrap();
    assert!(!read.status.success() && read.stdout.is_empty(), "{read:?}");
    assert!(String::from_utf8_lossy(&read.stderr).contains("Permission denied"), "{read:?}");
}
