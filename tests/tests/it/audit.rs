//! Reading the journal of a daemon that runs: what is looked for is found, told and counted, whoever wrote the words.

use std::fs;

use serde_json::Value;
use tests::{World, daemon_binary, wait_until};

/// Waits until so many calls have ended.
#[track_caller]
fn ended(world: &World, calls: usize) {
    wait_until("an outcome for each call", || {
        let records = world.journal();
        (records.iter().filter(|record| record["kind"] == "outcome").count() >= calls).then_some(())
    });
}

#[track_caller]
fn lines(world: &World, options: &[&str]) -> Vec<String> {
    let told = world.vouchsafe(&[&["audit", "tail"][..], options].concat());
    assert_eq!(told.code, Some(0), "{told:?}");
    told.stdout.lines().map(str::to_owned).collect()
}

#[track_caller]
fn json(world: &World, arguments: &[&str]) -> Value {
    let told = world.vouchsafe(arguments);
    assert_eq!(told.code, Some(0), "{told:?}");
    serde_json::from_str(&told.stdout).unwrap()
}

#[test]
fn what_is_looked_for_is_found_told_and_counted() {
    let world = World::start();
    for path in ["one", "two", "three"] {
        assert_eq!(world.curl(&[&format!("https://api.test/v1/{path}")]).status, 200);
    }
    let python = "import urllib.request as u; print(u.urlopen('https://api.test/v1/python').status)";
    assert_eq!(world.bot("python3").args(["-c", python]).run().stdout.trim(), "200");
    let refused = world.curl(&["-X", "DELETE", "https://api.test/v1/one"]);
    assert_eq!(refused.status, 403);
    ended(&world, 4);

    assert_eq!(lines(&world, &["--kind", "call", "--api", "demo"]).len(), 5);
    assert_eq!(lines(&world, &["--identity", "curl", "--api", "demo", "--host", "*.test"]).len(), 4);
    // What the kernel refused (datagrams to the port) has no host.
    let denied = lines(&world, &["--verdict", "deny", "--since", "1h", "--host", "*"]);
    assert!(denied.len() == 1 && denied[0].contains(" DELETE "), "{denied:?}");
    let found =
        lines(&world, &["--where", "path == '/v1/two' && status == 200 && uid == 0 && duration_ms > 0"]);
    assert!(found.len() == 1 && found[0].contains("api.test/v1/two"), "{found:?}");
    let both = lines(&world, &["--json", "--where", "identity == 'python' && method == 'GET'"]);
    assert!(
        both.len() == 2 && both[0].contains("\"decision\"") && both[1].contains("\"outcome\""),
        "{both:?}"
    );
    for (option, value, told) in [
        ("--where", "pathh == ''", "pathh"),
        ("--where", "status == 'x'", "a whole number and text"),
        ("--since", "soon", "--since"),
        ("--status", "7xx", "5xx"),
    ] {
        let wrong = world.vouchsafe(&["audit", "tail", option, value]);
        assert!(wrong.code != Some(0) && wrong.stderr.contains(told) && wrong.stdout.is_empty(), "{wrong:?}");
    }

    let id = refused.journal_id().unwrap();
    let page = world.vouchsafe(&["audit", "show", &id]).stdout;
    for part in [
        &id,
        "request     DELETE https://api.test/v1/one",
        "identity    curl",
        "decided     deny: ",
        "daemon      ",
    ] {
        assert!(page.contains(part), "{part}:\n{page}");
    }
    let allowed = world.decision(Some("/v1/two"))["id"].as_str().unwrap().to_owned();
    let story = json(&world, &["audit", "show", "--json", &format!("urn:uuid:{allowed}")]);
    assert_eq!(
        (&story["decision"]["record"]["path"], &story["outcome"]["record"]["status"]),
        (&"/v1/two".into(), &200.into())
    );
    // The first policy is no load: it was there when the daemon began.
    assert_eq!(
        story["start"]["record"]["policy_generation"], story["decision"]["record"]["generation"],
        "{story}"
    );
    assert_eq!(story["start"]["record"]["pid"], world.daemon_pid());
    let page = world.vouchsafe(&["audit", "show", &allowed]).stdout;
    let (pid, first) = (story["decision"]["record"]["workload"]["pid"].to_string(), "first byte after");
    assert!(page.contains(&format!("process     {pid} ")) && page.contains(first), "{page}");
    assert!(page.contains("policy      generation 1, live since the daemon started"), "{page}");
    // The first eight digits are of the last minute: of all calls here.
    let several = world.vouchsafe(&["audit", "show", &id[..4]]);
    assert!(several.code == Some(1) && several.stderr.contains("more than one id"), "{several:?}");
    assert!(world.vouchsafe(&["why", &id]).stdout.contains("decided     deny"));

    let counted = json(&world, &["audit", "stats", "--json", "--by", "identity", "--host", "api.test"]);
    let group = |name: &str| {
        let groups = counted["groups"].as_array().unwrap();
        groups.iter().find(|group| group["identity"] == name).cloned().unwrap()
    };
    assert_eq!((&group("curl")["calls"], &group("curl")["denied"]), (&4.into(), &1.into()), "{counted}");
    assert_eq!((&group("python")["calls"], &group("python")["denied"]), (&1.into(), &0.into()), "{counted}");
    let (p50, p99) = (group("curl")["p50_us"].as_u64().unwrap(), group("curl")["p99_us"].as_u64().unwrap());
    assert!(0 < p50 && p50 <= p99, "{counted}");
    let table = world.vouchsafe(&["audit", "stats", "--by", "host,path"]).stdout;
    assert!(table.starts_with("HOST") && table.contains("api.test  /v1/three"), "{table}");
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));
}

#[test]
fn tail_follows_what_is_asked_for_from_one_daemon_to_the_next() {
    let world = World::start();
    let journal = world.path("state/journal");
    let refuse = |path: &str| world.curl(&["-X", "DELETE", &format!("https://api.test{path}")]).status;
    assert_eq!(refuse("/v1/before"), 403);
    let options =
        ["audit", "tail", "-f", "--verdict", "deny", "--host", "api.*", "--color", "never", "--dir"];
    let mut tail = world.bot(daemon_binary()).outside().args(options).arg(&journal).spawn();
    let first = tail.line();
    assert!(first.contains(" deny ") && first.contains("/v1/before"), "{first}");
    assert_eq!(world.curl(&["https://api.test/v1/fine"]).status, 200);
    world.restart();
    assert_eq!(refuse("/v1/after"), 403);
    loop {
        let line = tail.line();
        assert!(line.contains(" deny ") && !line.contains("/v1/fine"), "{line}");
        if line.contains("/v1/after") {
            break;
        }
    }
}

#[test]
fn hostile_words_steer_no_terminal_in_stories_and_tables() {
    let world = World::start();
    let hostile = "\u{1b}[2J\u{202e}\u{9b}31m\r\nall   9999";
    let program = world.copy("/usr/bin/curl", &format!("bots/{hostile}"));
    world.bot(&program).curl(&["https://api.test/v1/exe"]);
    world.bot("curl").cgroup("bots\u{1b}[2J\u{7}").curl(&["https://api.test/v1/\u{202e}%1b%5b2J"]);
    world.bot("actor").args(["named", "\u{1b}[31m\nx\u{202e}", "203.0.113.10:80", "/v1/comm"]).run();
    let ids: Vec<_> = wait_until("three decisions", || {
        let of_calls = |record: &Value| record["kind"] == "decision" && record["method"].is_string();
        let records = world.journal().into_iter().filter(of_calls).collect::<Vec<_>>();
        (records.len() >= 3).then(|| records.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect())
    });
    let mut texts = Vec::new();
    for id in &ids {
        texts.push(world.vouchsafe(&["audit", "show", id]).stdout);
        texts.push(world.vouchsafe(&["audit", "show", "--json", id]).stdout);
    }
    for by in ["path", "unit,rule", "identity,api,host,path"] {
        texts.push(world.vouchsafe(&["audit", "stats", "--by", by]).stdout);
        texts.push(world.vouchsafe(&["audit", "stats", "--json", "--by", by]).stdout);
    }
    for text in texts {
        let found = text.chars().find(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}');
        assert_eq!(found, None, "{}", text.escape_debug());
        assert!(text.len() > 20, "{text}");
        assert!(!text.lines().any(|line| line.starts_with("all   9999")), "{text}");
    }
}

#[test]
fn a_journal_is_read_where_it_was_copied_to_and_an_index_that_lies_is_found_out() {
    let world = World::start();
    for path in ["one", "two"] {
        assert_eq!(world.curl(&[&format!("https://api.test/v1/{path}")]).status, 200);
    }
    ended(&world, 2);
    let copy = world.path("copy");
    fs::create_dir(&copy).unwrap();
    let name = |number: u32, end: &str| copy.join(format!("journal-{number:08}.{end}"));
    fs::copy(world.path("state/journal/journal-00000001.jsonl"), name(1, "jsonl")).unwrap();
    // The next one was begun when the first was closed.
    fs::write(name(2, "jsonl"), "").unwrap();
    let audit = |arguments: &[&str]| {
        let mut command = world.vouchsafe_command(&[]);
        let told = command.arg("audit").args(arguments).arg("--dir").arg(&copy).output().unwrap();
        (told.status.code(), String::from_utf8(told.stdout).unwrap(), String::from_utf8(told.stderr).unwrap())
    };
    let (code, found, _) = audit(&["tail", "--api", "demo"]);
    assert!(code == Some(0) && found.lines().count() == 2, "{found}");
    assert!(name(1, "idx").exists(), "the closed segment has an index now");
    let (_, told, _) = audit(&["index"]);
    assert!(told.contains("segment 1: has its index") && told.contains("segment 2: still grows"), "{told}");
    // The rows of another journal, with the footer of this one.
    let whole = fs::read(name(1, "idx")).unwrap();
    let mut lies = whole.clone();
    lies[8..24].fill(0x55);
    fs::write(name(1, "idx"), &lies).unwrap();
    let (code, _, told) = audit(&["tail", "--api", "demo"]);
    assert!(code == Some(1) && told.contains("audit index --rebuild"), "{told}");
    assert_eq!(audit(&["tail", "--api", "demo", "--no-index"]).1, found);
    assert_eq!(audit(&["index"]).0, Some(0));
    assert_eq!(fs::read(name(1, "idx")).unwrap(), whole);
    fs::write(name(1, "idx"), "nothing").unwrap();
    assert_eq!(audit(&["tail", "--api", "demo"]).1, found);
}

#[test]
fn calls_are_found_in_segments_that_the_daemon_has_closed_compressed_and_indexed() {
    let world = World::new();
    world.set("journal.segment_size", "\"1 MiB\"");
    world.daemon();
    let journal = world.path("state/journal");
    let options = ["audit", "tail", "-f", "--where", "path.matches('^/v1/(7|1400|last)$')", "--dir"];
    let mut tail = world.bot(daemon_binary()).outside().args(options).arg(&journal).spawn();
    let (calls, name) = (1500, |number: u32, end: &str| journal.join(format!("journal-{number:08}.{end}")));
    let burst =
        world.bot("curl").args(["-sS", "-o", "/dev/null", &format!("https://api.test/v1/[1-{calls}]")]).run();
    assert_eq!(burst.code, Some(0), "{burst:?}");
    wait_until("a segment that was compressed and indexed", || {
        (name(1, "jsonl.zst").exists() && name(1, "idx").exists() && !name(1, "jsonl").exists()).then_some(())
    });
    assert_eq!(world.curl(&["https://api.test/v1/last"]).status, 200);
    for path in ["/v1/1400", "/v1/last"] {
        let line = loop {
            let line = tail.line();
            if !line.contains("api.test/v1/7 ") {
                break line;
            }
        };
        assert!(line.contains(&format!("api.test{path} ")), "{line}");
    }
    let count = |options: &[&str]| {
        let told = json(
            &world,
            &[&["audit", "stats", "--json", "--by", "api", "--host", "api.test"][..], options].concat(),
        );
        told["total"]["calls"].as_u64().unwrap()
    };
    wait_until("all calls have ended", || (count(&[]) == calls + 1).then_some(()));
    assert_eq!((count(&["--no-index"]), count(&["--where", "status == 200"])), (calls + 1, calls + 1));
    let first = lines(&world, &["--json", "--where", "path == '/v1/7'"]);
    let decision: Value = serde_json::from_str(&first[0]).unwrap();
    let id = decision["id"].as_str().unwrap();
    let story = json(&world, &["audit", "show", "--json", id]);
    assert_eq!(
        (&story["decision"]["segment"], &story["decision"]["record"]["path"]),
        (&1.into(), &"/v1/7".into())
    );
    assert!(story["outcome"]["record"]["status"] == 200 && story["start"]["segment"] == 1, "{story}");
    assert!(world.vouchsafe(&["why", id]).stdout.contains("decided     allow"));
    assert!(world.vouchsafe(&["audit", "index"]).stdout.contains("segment 1: has its index"));
    assert_eq!(world.vouchsafe(&["audit", "verify"]).code, Some(0));
}
