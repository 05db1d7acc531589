//! What the language of policies says, to live calls: roles with parameters, conditions, ends, upgrades, gRPC, observing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tests::upstream::Upstream;
use tests::{STOLEN, World, wait_until};

const IDENTITY: &str = "[identity]\nexe = \"{root}/bots/curl\"\n";

/// A world whose bot curl has these grants (and what stands above them), and these roles.
fn world(top: &str, grants: &str, roles: &str) -> World {
    let world = World::new();
    world.policy("policies/curl.toml", &format!("{top}{IDENTITY}{grants}"));
    if !roles.is_empty() {
        world.policy("roles/roles.toml", roles);
    }
    world.daemon();
    world
}

fn grant(operations: &str, more: &str) -> String {
    format!("[[grant]]\napi = \"demo\"\nallow = [{operations}]\ncredential = \"demo-key\"\n{more}\n")
}

#[test]
fn a_role_with_a_parameter_is_open_for_that_value_only() {
    let roles = "[role.reader]\nparams = [\"owner\"]\napi = \"demo\"\ncredential = \"demo-key\"\n\
                 allow = [\"GET /repos/${owner}/**\"]\n[role.both]\nparams = [\"team\"]\n\
                 include = [{ role = \"reader\", with = { owner = \"${team}\" } }]\n";
    let world = world("", "[[grant]]\nrole = \"both\"\nwith = { team = \"a*\" }\n", roles);
    let answer = world.curl(&["https://api.test/repos/a*/web"]);
    assert_eq!((answer.status, &answer.json()["key"]), (200, &Value::from("ours")), "{answer:?}");
    for path in ["/repos/acme/web", "/repos/ab/web", "/repos/a/b"] {
        assert_eq!(world.curl(&[&format!("https://api.test{path}")]).status, 403, "{path}");
    }
    let record = world.decision(Some("/repos/a*/web"));
    assert_eq!(record["rule"]["file"], "roles/roles.toml");
}

#[test]
fn a_condition_on_a_header_looks_at_what_goes_on() {
    let when = "when = 'request.headers[\"x-env\"] == \"prod\" && workload.uid == 0'";
    let world = world("", &grant("\"GET /v1/**\"", when), "");
    let ask = |headers: &[&str]| {
        let mut arguments = vec!["--http1.1"];
        headers.iter().for_each(|header| arguments.extend(["-H", header]));
        arguments.push("https://api.test/v1/x");
        world.curl(&arguments)
    };
    assert_eq!(ask(&["X-Env: prod"]).status, 200);
    let refused = ask(&["X-Env: stage"]);
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("does not hold (policies/curl.toml:7)"), "{refused:?}");
    let missing = ask(&[]);
    assert_eq!(missing.status, 403);
    assert!(missing.body.contains("not there"), "{missing:?}");
    for trick in [
        &["X-Env: prod", "X-Env: stage"][..],
        &["X-Env: prod", "X_Env: stage"],
        &["X-Env: prod", "Connection: X-Env"],
    ] {
        assert_eq!(ask(trick).status, 403, "{trick:?}");
    }
    assert_eq!(world.seen_at_least(1).len(), 1);
}

#[test]
fn a_condition_on_the_body_judges_the_bytes_that_go_on() {
    let when = "when = 'body.amount <= 100'\nbody_limit = 2000\n";
    let world = world("", &grant("\"POST /v1/**\"", when), "");
    let upstream = Upstream::http1(&world);
    let send = |kind: &str, body: &str, more: &[&str]| {
        let kind = format!("Content-Type: {kind}");
        let mut arguments = vec!["-H", &kind, "--data-binary", body];
        arguments.extend(more);
        arguments.push("https://raw.test/v1/x");
        world.curl(&arguments)
    };
    let good = "{ \"amount\" : 99,\t\"note\": \"a b\" }";
    assert_eq!(send("application/json", good, &[]).status, 200);
    assert_eq!(send("application/json", good, &["-H", "Transfer-Encoding: chunked"]).status, 200);
    assert_eq!(send("application/json", good, &["--http2"]).status, 200);
    upstream.wait_for(3);
    for seen in upstream.seen() {
        assert_eq!(String::from_utf8(seen.body.clone()).unwrap(), good, "{seen:?}");
        assert!(seen.header("authorization").is_some_and(|value| value.contains(tests::CANARY)));
    }
    let large = format!("{{\"amount\": 1, \"note\": \"{}\"}}", "x".repeat(3000));
    for (kind, body, more, says) in [
        ("application/json", "{\"amount\": 101}", &[][..], "does not hold"),
        ("application/json", "{\"amount\": \"1\"}", &[], "another type"),
        ("application/json", "{}", &[], "not there"),
        ("application/json", "{\"amount\": 1, \"amount\": 1000}", &[], "a key twice"),
        ("application/json", "{\"amount\": 1, \"Amount\": 1000}", &[], "a key twice"),
        ("application/json", "amount=1", &[], "is not JSON"),
        ("application/json", &large, &[], "larger than the 2000 bytes"),
        ("application/json", &large, &["-H", "Transfer-Encoding: chunked"], "larger than the 2000 bytes"),
        ("application/x-www-form-urlencoded", "{\"amount\": 1}", &[], "content type"),
        ("application/json", "{\"amount\": 1}", &["-H", "Content-Encoding: gzip"], "encoded"),
    ] {
        let answer = send(kind, body, more);
        assert_eq!(answer.status, 403, "{body}: {answer:?}");
        assert!(answer.body.contains(says), "{body}: {answer:?}");
    }
    assert_eq!(upstream.count(), 3, "nothing of what was refused went on");
}

#[test]
fn a_body_is_not_waited_for_when_no_condition_asks_for_it() {
    // The grant without a condition allows it, whatever the other one would say of the body.
    let grants = grant("\"POST /v1/**\"", "") + &grant("\"POST /v1/**\"", "when = 'body.a == 1'");
    let world = world("", &grants, "");
    let answer = world.curl(&["-d", "no json", "https://api.test/v1/x"]);
    assert_ne!(answer.status, 403, "{answer:?}");
    assert_eq!(world.decision(Some("/v1/x"))["verdict"], "allow");
}

#[test]
fn a_deny_with_a_condition_that_cannot_be_decided_denies() {
    let grants = grant("\"POST /v1/**\"", "")
        + "[[grant]]\napi = \"demo\"\ndeny = [\"POST /v1/**\"]\nwhen = 'body.amount > 5'\n";
    let world = world("", &grants, "");
    let send = |body: &str| {
        world.curl(&["-H", "Content-Type: application/json", "-d", body, "https://api.test/v1/x"])
    };
    for body in ["{\"amount\": 6}", "{}", "[", "{\"amount\": \"6\"}"] {
        assert_eq!(send(body).status, 403, "{body}");
    }
    assert_ne!(send("{\"amount\": 5}").status, 403);
}

#[test]
fn a_grant_ends_while_the_daemon_runs_and_says_so() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let end = (UNIX_EPOCH + Duration::from_secs(now + 6)).duration_since(UNIX_EPOCH).unwrap().as_secs();
    let text = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{end}"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    let text = String::from_utf8(text.unwrap().stdout).unwrap();
    let world = world("", &grant("\"GET /v1/**\"", &format!("until = {}", text.trim())), "");
    let first = world.curl(&["https://api.test/v1/x"]);
    let over = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() >= end;
    assert!(first.status == 200 || over, "{first:?}");
    let refused = wait_until("the end of the grant", || {
        Some(world.curl(&["https://api.test/v1/x"])).filter(|answer| answer.status == 403)
    });
    assert!(refused.body.contains("expired: "), "{refused:?}");
    assert!(refused.body.contains(&format!("until {}", text.trim())), "{refused:?}");
}

#[test]
fn a_grpc_call_is_an_operation_by_service_and_method() {
    let world = world("", &grant("\"grpc acme.Billing/Get*\"", ""), "");
    let upstream = Upstream::http2(&world);
    let send = |kind: &str, path: &str| {
        let kind = format!("Content-Type: {kind}");
        let url = format!("https://raw.test{path}");
        world.curl(&["--http2", "-H", &kind, "-H", "TE: trailers", "--data-binary", "x", &url])
    };
    assert_eq!(send("application/grpc+proto", "/acme.Billing/GetInvoice").status, 200);
    upstream.wait_for(1);
    for (kind, path) in [
        ("application/grpc", "/acme.Billing/Delete"),
        ("application/json", "/acme.Billing/GetInvoice"),
        ("application/grpc-web", "/acme.Billing/GetInvoice"),
        ("application/grpc", "/acme.Other/GetInvoice"),
    ] {
        assert_eq!(send(kind, path).status, 403, "{kind} {path}");
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn an_upgrade_needs_an_operation_of_its_own() {
    let world = world("", &grant("\"* /v1/**\"", ""), "");
    let upgrade = ["--http1.1", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket"];
    let key = ["-H", "Sec-WebSocket-Version: 13", "-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="];
    let answer = world.curl(&[&upgrade[..], &key, &["https://api.test/v1/ws"]].concat());
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("websocket /v1/ws"), "{answer:?}");
    assert!(world.seen().is_empty());
}

#[test]
fn an_observed_identity_goes_on_with_what_it_brought_and_is_recorded_as_what_would_be_denied() {
    let world = world("mode = \"observe\"\n", &grant("\"GET /v1/**\"", "deny = [\"GET /v1/no\"]"), "");
    let header = format!("Authorization: Bearer {STOLEN}");
    let ask = |method: &str, path: &str| {
        world.curl(&["-X", method, "-H", &header, &format!("https://api.test{path}")])
    };
    // Allowed: as ever, with our key.
    assert_eq!(ask("GET", "/v1/x").json()["key"], "ours");
    assert_eq!(world.decision(Some("/v1/x"))["observed"], Value::Null);
    // Nothing allows it: with what the bot brought, and without ours.
    ask("GET", "/other");
    let record = world.decision(Some("/other"));
    assert_eq!(
        (&record["verdict"], &record["observed"]),
        (&Value::from("allow"), &Value::from(true)),
        "{record}"
    );
    assert_eq!(record["credential"], Value::Null);
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.starts_with("observed, would be denied: ") && reason.contains("no grant"), "{reason}");
    let seen = world.seen_at_least(2);
    assert!(seen[0]["authorization"].as_str().unwrap().contains(tests::CANARY), "{seen:?}");
    assert_eq!(seen[1]["authorization"], format!("Bearer {STOLEN}"), "{seen:?}");
    // A deny that an allow stands against: with the key of the allow.
    assert_eq!(ask("GET", "/v1/no").json()["key"], "ours");
    let reason = world.decision(Some("/v1/no"))["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("denied by"), "{reason}");
    // What is no matter of the policy is refused as ever.
    assert_eq!(world.curl(&["--path-as-is", "https://api.test/v1/a%2fb"]).status, 400);
    // A host that no API names goes through as it is.
    assert_eq!(world.curl(&["https://other.test/v1/x"]).status, 401);
    let record = world.record("decision", |record| record["host"] == "other.test");
    assert_eq!(record["observed"], true);
    let status = world.status();
    let identities = status["policy"]["identities"].as_array().unwrap();
    let mode = |name: &str| identities.iter().find(|it| it["name"] == name).map(|it| it["mode"].clone());
    assert_eq!(mode("curl"), Some("observe".into()));
    assert_eq!(mode("python"), Some("enforce".into()));
}

#[test]
fn an_observed_grant_tries_its_own_restrictions_only() {
    let grants =
        grant("\"GET /v1/**\"", "when = 'request.headers[\"x-env\"] == \"prod\"'\nmode = \"observe\"")
            + &grant("\"GET /v2/**\"", "when = 'request.headers[\"x-env\"] == \"prod\"'");
    let world = world("", &grants, "");
    world.curl(&["https://api.test/v1/x"]);
    let record = world.decision(Some("/v1/x"));
    assert_eq!(
        (&record["verdict"], &record["observed"]),
        (&Value::from("allow"), &Value::from(true)),
        "{record}"
    );
    assert_eq!(
        record["credential"],
        Value::Null,
        "the allow did not hold, so its credential is not attached"
    );
    for path in ["/v2/x", "/v3/x"] {
        assert_eq!(world.curl(&[&format!("https://api.test{path}")]).status, 403, "{path}");
    }
}
#[test]
fn a_body_that_was_looked_at_in_vain_goes_on_whole_when_it_is_observed() {
    let when = "when = 'body.amount <= 100'\nbody_limit = 2000\nmode = \"observe\"";
    let world = world("", &grant("\"POST /v1/**\"", when), "");
    let upstream = Upstream::http1(&world);
    let text = format!("{{\"note\": \"{}\"}}", counted(1_000_000));
    send_in_every_way(&world, &upstream, &text);
    assert!(upstream.seen().iter().all(|seen| seen.header("authorization").is_none()));
    let record = world.decision(Some("/v1/x"));
    assert!(record["reason"].as_str().unwrap().contains("larger than the 2000 bytes"), "{record}");
}

/// Sends a JSON body with its length, in chunks and over HTTP/2; the upstream gets it as it is.
#[track_caller]
fn send_in_every_way(world: &World, upstream: &Upstream, text: &str) {
    let file = world.write("large", text);
    let data = format!("@{}", file.display());
    for more in [&[][..], &["-H", "Transfer-Encoding: chunked"], &["--http2"]] {
        let sent = ["-H", "Content-Type: application/json", "-H", "Expect:", "--data-binary", &data];
        let answer = world.curl(&[more, &sent, &["https://raw.test/v1/x"]].concat());
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    upstream.wait_for(3);
    for seen in upstream.seen() {
        assert!(seen.body == text.as_bytes(), "{} bytes of {} arrived", seen.body.len(), text.len());
    }
}

/// A text of about this length, no piece of which is there twice.
fn counted(length: usize) -> String {
    (0..length / 8).map(|number| format!("{number:07} ")).collect()
}

#[test]
fn a_body_of_many_pieces_goes_on_in_their_order_after_it_was_judged() {
    let when = "when = 'body.amount <= 100'\nbody_limit = 1000000";
    let world = world("", &grant("\"POST /v1/**\"", when), "");
    let upstream = Upstream::http1(&world);
    let text = format!("{{\"amount\": 1, \"note\": \"{}\"}}", counted(900_000));
    send_in_every_way(&world, &upstream, &text);
}

#[test]
fn policy_test_says_of_every_call_what_the_daemon_did_with_it() {
    let grants = grant("\"GET /v1/**\", \"POST /up\"", "deny = [\"* /v1/secret/**\"]")
        + &grant("\"GET /env\"", "when = 'request.headers[\"x-env\"] == \"prod\"'")
        + &grant("\"PUT /body\"", "when = 'body.amount <= 100'")
        + &grant("\"GET /old\"", "until = 2020-01-01")
        + "[[grant]]\napi = \"demo\"\nmode = \"observe\"\nallow = [\"GET /tried\"]\ncredential = \"demo-key\"\nuntil = 2020-01-01\n";
    let world = world("", &grants, "");
    /// Method, path, headers, body.
    type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)], Option<&'static str>);
    const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];
    let cases: [Case; 16] = [
        ("GET", "/v1/a?x=/v1/secret", &[], None),
        ("GET", "//v1/./%61", &[], None),
        ("GET", "/v1/Secret/a", &[], None),
        ("GET", "/v1/secret;x/a", &[], None),
        ("GET", "/v1/../up", &[], None),
        ("GET", "/v1%2Fa", &[], None),
        ("POST", "/up", &[], None),
        ("PATCH", "/up", &[], None),
        ("GET", "/v1/a", &[("X-HTTP-Method-Override", "DELETE")], None),
        ("GET", "/env", &[("X-Env", "prod")], None),
        ("GET", "/env", &[("X_Env", "prod")], None),
        ("GET", "/env", &[], None),
        ("PUT", "/body", JSON, Some("{\"amount\": 7}")),
        ("PUT", "/body", JSON, Some("{\"amount\": 700}")),
        ("GET", "/old", &[], None),
        ("GET", "/tried", &[], None),
    ];
    let mut tests = String::new();
    for (at, (method, path, headers, body)) in cases.into_iter().enumerate() {
        let url = format!("https://api.test{path}");
        let lines: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut arguments = vec!["--http1.1", "--path-as-is", "-X", method];
        lines.iter().for_each(|line| arguments.extend(["-H", line]));
        body.iter().for_each(|body| arguments.extend(["--data-binary", body]));
        arguments.push(&url);
        let answer = world.curl(&arguments);
        let id = answer.journal_id();
        let record = wait_until("the call is in the journal", || {
            world
                .journal()
                .into_iter()
                .filter(|it| it["kind"] == "decision" && it["method"].is_string())
                .nth(at)
        });
        assert!(id.is_none_or(|id| record["id"] == id.as_str()), "{record}");
        let verdict = match (&record["observed"], record["verdict"].as_str().expect("a verdict")) {
            (Value::Bool(true), _) => "observe",
            (_, verdict) => verdict,
        };
        let headers: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
        tests += &format!(
            "[[call]]\nas = \"curl\"\nrequest = \"{method} {url}\"\nheaders = {{ {} }}\nexpect = {verdict:?}\n\
             rule = {}\ncredential = {}\nreason = {}\n",
            headers.join(", "),
            record["rule"]["text"].as_str().map_or("\"\"".into(), |text| format!("{text:?}")),
            record["credential"].as_str().map_or("\"\"".into(), |text| format!("{text:?}")),
            record["reason"],
        );
        tests += &body.map(|body| format!("body = '{body}'\n")).unwrap_or_default();
    }
    for (verdict, least) in [("allow", 4), ("deny", 8), ("observe", 1)] {
        let count = tests.matches(&format!("expect = {verdict:?}")).count();
        assert!(count >= least, "{count} times {verdict}:\n{tests}");
    }
    world.policy("policies/curl.test.toml", &tests);
    let root = world.path("etc").display().to_string();
    let finished = world.vouchsafe(&["policy", "test", &root]);
    assert_eq!(finished.code, Some(0), "{finished:?}\n{tests}");
    assert!(finished.stdout.contains("16 calls decided as expected"), "{finished:?}");
}

#[test]
fn a_body_is_judged_from_its_beginning_when_another_policy_comes_while_the_call_waits() {
    let when = "when = 'body.amount <= 100'\nlimit = \"30/min burst 1\"\nwait = \"20s\"";
    let of = |when: &str| grant("\"POST /v1/**\"", when);
    let world = world("", &of(when), "");
    let upstream = Upstream::http1(&world);
    let send = |amount: u32| {
        let body = format!("{{\"amount\": {amount}}}");
        let arguments =
            ["-sS", "-o", "/dev/null", "-w", "%{http_code}\n", "-H", "Content-Type: application/json"];
        world.bot("curl").args(arguments).args(["-d", &body, "https://raw.test/v1/x"]).spawn()
    };
    assert_eq!(send(50).line(), "200");
    let mut waits = send(50);
    let mut waits_in_vain = send(99);
    std::thread::sleep(Duration::from_millis(700));
    world.policy("policies/curl.toml", &format!("{IDENTITY}{}", of(&when.replace("100", "60"))));
    world.wait_for_generation(2);
    assert_eq!((waits.line(), waits_in_vain.line()), ("200".into(), "403".into()));
    assert_eq!(upstream.seen().last().unwrap().body, b"{\"amount\": 50}");
}
