//! The commands that explain a policy, against a running daemon: they say what it does.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tests::World;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A copy of the policy in another folder.
fn copy(world: &World) -> String {
    let to = world.path("planned");
    assert!(Command::new("cp").arg("-a").arg(world.path("etc")).arg(&to).status().unwrap().success());
    to.to_str().unwrap().to_owned()
}

#[test]
fn an_explanation_says_what_the_bot_is_told_and_which_credential_goes() {
    let world = World::start();
    let explain = |arguments: &[&str]| {
        let all = [&["policy", "explain", "--as", "curl", "--json"], arguments].concat();
        let told = world.vouchsafe(&all);
        (told.code, json(&told.stdout))
    };
    for (method, path, status) in [
        ("GET", "/v1/x", 200),
        ("DELETE", "/v1/x", 403),
        ("PUT", "/v1/FORBIDDEN;a=b/x", 403),
        ("GET", "/v2/x", 403),
    ] {
        let url = format!("https://api.test{path}");
        let (code, told) = explain(&[method, &url]);
        let answer = world.curl(&["--path-as-is", "-X", method, &url]);
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(code, Some(if status == 200 { 0 } else { 2 }), "{told}");
        if status == 200 {
            assert_eq!(told["credential"]["name"], "demo-key", "{told}");
            assert_eq!(told["credential"]["secret"], "vault:demo-key", "a reference, not the secret");
        } else {
            assert_eq!(told["reason"], answer.json()["detail"], "one meaning for both");
            assert_eq!(told["credential"], Value::Null);
        }
        let record =
            world.record("decision", |record| record["path"].as_str().is_some_and(|it| path.ends_with(it)));
        assert_eq!(told["rule"]["text"], record["rule"]["text"], "{told}");
        assert_eq!(told["rule"]["line"], record["rule"]["line"], "{told}");
        let decides = told["considered"].as_array().unwrap().iter().filter(|it| it["decides"] == true);
        assert_eq!(decides.count(), usize::from(!record["rule"].is_null()), "{told}");
    }
    let told = world.vouchsafe(&["policy", "explain", "--as", "curl", "DELETE", "https://api.test/v1/x"]);
    for part in [
        "deny: curl may not DELETE /v1/x: no grant for demo allows it",
        "    deny  \"* /v1/forbidden/**\" (policies/curl.toml:7): segment 2 of the path is \"x\", not \"forbidden\"",
        "    allow \"GET|PUT|HEAD /v1/**\" (policies/curl.toml:6): the method is \"DELETE\", not GET|PUT|HEAD",
    ] {
        assert!(told.stdout.contains(part), "{part}\nin\n{}", told.stdout);
    }
    let told = world.vouchsafe(&["policy", "explain", "--as", "crul", "GET", "https://api.test/"]);
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("there is no identity crul") && told.stderr.contains("curl"), "{told:?}");
}

#[test]
fn a_running_process_is_explained_as_who_it_is() {
    let world = World::start();
    let mut bot = world.bot("python3").args(["-c", "print('up', flush=True); input()"]).spawn();
    assert_eq!(bot.line(), "up");
    let explain = |pid: u32| {
        let pid = pid.to_string();
        world.vouchsafe(&["policy", "explain", "--pid", &pid, "GET", "https://api.test/v1/x"])
    };
    let told = explain(bot.pid());
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.contains("identity    python\n"), "{told:?}");
    let told = explain(std::process::id());
    assert_eq!(told.code, Some(2), "{told:?}");
    assert!(told.stdout.contains("no identity matches"), "{told:?}");
    assert!(told.stdout.contains("its calls do not come to the daemon"), "{told:?}");
    bot.say("end");
    bot.wait();
    assert_eq!(explain(bot.pid()).code, Some(1), "it is gone");
}

#[test]
fn a_plan_tells_what_a_reload_would_change_and_nothing_once_it_did() {
    let world = World::start();
    let told = world.vouchsafe(&["policy", "plan"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    assert!(told.stdout.ends_with("nothing changes\n"), "{told:?}");
    let planned = copy(&world);
    let file = format!("{planned}/policies/curl.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("# moved\n{}", text.replace("GET|PUT|HEAD", "GET"))).unwrap();
    fs::remove_file(format!("{planned}/policies/actor.toml")).unwrap();
    let told = world.vouchsafe(&["policy", "plan", &planned]);
    assert_eq!(told.code, Some(2), "{told:?}");
    for part in [
        "live: generation 1; would be live: ",
        "identity actor is removed",
        "identity curl is changed",
        "  -     allow     GET|PUT|HEAD /v1/**\n  +     allow     GET /v1/**\n",
    ] {
        assert!(told.stdout.contains(part), "{part}\nin\n{}", told.stdout);
    }
    assert!(!told.stdout.contains("identity python"), "{told:?}");
    let plan = json(&world.vouchsafe(&["policy", "plan", "--json", &planned]).stdout);
    assert_eq!(plan["plan"]["identities"][1]["rules_added"], serde_json::json!(["allow demo GET /v1/**"]));
    let etc = world.path("etc");
    let diff = json(&world.vouchsafe(&["policy", "diff", "--json", etc.to_str().unwrap(), &planned]).stdout);
    assert_eq!(diff["plan"], plan["plan"]);
    // The files are there, and the daemon has read them: nothing is left to change.
    fs::remove_file(etc.join("policies/actor.toml")).unwrap();
    world.policy("policies/curl.toml", &fs::read_to_string(&file).unwrap());
    let changed =
        || world.record("policy", |record| record["result"] == "loaded" && record["identities"] == 2);
    changed();
    tests::wait_until("the plan to be carried out", || {
        (world.vouchsafe(&["policy", "plan", &planned]).code == Some(0)).then_some(())
    });
    world.terminate();
    assert_eq!(world.vouchsafe(&["policy", "plan", &planned]).code, Some(3));
    fs::write(&file, "nonsense").unwrap();
    let told = world.vouchsafe(&["policy", "plan", &planned]);
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("policies/curl.toml:1"), "{told:?}");
}

#[test]
fn why_tells_a_refusal_and_what_became_of_it() {
    let world = World::start();
    let secret = "x-secret: not-for-the-journal";
    let answer =
        world.curl(&["-H", secret, "-X", "DELETE", "https://api.test/v1/x?token=not-for-the-journal"]);
    let id = answer.journal_id().expect("the refusal names its record");
    world.record("decision", |record| record["id"] == id.as_str());
    let told = world.vouchsafe(&["why", &id]);
    assert_eq!(told.code, Some(0), "{told:?}");
    for part in [
        id.as_str(),
        "request     DELETE https://api.test/v1/x?…, to ",
        "identity    curl (policy generation 1)",
        "decided     deny: curl may not DELETE /v1/x: no grant for demo allows it",
        "  deny: curl may not DELETE /v1/x: no grant for demo allows it",
        "the method is \"DELETE\", not GET|PUT|HEAD",
        "that is the answer of then",
        "headers, query and body are not recorded",
    ] {
        assert!(told.stdout.contains(part), "{part}\nin\n{}", told.stdout);
    }
    let text = fs::read_to_string(world.path("etc/policies/curl.toml")).unwrap();
    world.policy("policies/curl.toml", &text.replace("GET|PUT|HEAD", "GET|DELETE"));
    let told = world.vouchsafe(&["why", &format!("urn:uuid:{id}")]);
    assert!(told.stdout.contains("  allow: allowed by \"GET|DELETE /v1/**\""), "{}", told.stdout);
    assert!(told.stdout.contains("that is another answer than then"), "{}", told.stdout);
    let told = json(&world.vouchsafe(&["why", "--json", &id]).stdout);
    assert_eq!((&told["differs"], &told["records"][0]["kind"]), (&true.into(), &"decision".into()), "{told}");
    // What was allowed is told with its end.
    world.curl(&["https://api.test/v1/whole"]);
    let allowed = world.decision(Some("/v1/whole"))["id"].as_str().unwrap().to_owned();
    world.record("outcome", |record| record["id"] == allowed.as_str());
    let told = world.vouchsafe(&["why", &allowed]);
    assert!(told.stdout.contains("outcome     200, "), "{}", told.stdout);
    // What it was besides is recorded, so there is one answer.
    assert!(told.stdout.contains("that is the answer of then"), "{}", told.stdout);
    assert!(!told.stdout.contains("if it was"), "{}", told.stdout);
    let told = world.vouchsafe(&["why", "00000000-0000-7000-8000-000000000000"]);
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("has no decision"), "{told:?}");
    assert_eq!(world.vouchsafe(&["why", "nonsense"]).code, Some(1));
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let world = World::new();
    let explain = world.vouchsafe(&["policy", "explain", "GET", "https://api.test/v1/x"]);
    assert_eq!(explain.code, Some(2));
    assert!(explain.stderr.contains("--as") && explain.stderr.contains("--pid"), "{explain:?}");
    let tail = world.vouchsafe(&["audit", "tail"]);
    assert!(
        tail.stderr.contains("there is no journal in") && tail.stderr.contains("has not run yet"),
        "{tail:?}"
    );
    let nowhere = world.path("nowhere");
    let add = world.vouchsafe(&["policy", "add", "github", "--library", nowhere.to_str().unwrap()]);
    assert!(
        add.stderr.contains("name the folder that it is in") && add.stderr.contains("--library"),
        "{add:?}"
    );
}
