//! `kind = "github-app"`: at an API that verifies the App's signature and narrows what it gives.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tests::{RAW_ADDRESS, STOLEN, World, wait_until};

use super::jwt::{assert_nowhere, received, world as world_of};

const API: &str = include_str!("receivers/github.js");

/// A running world with the App 77 and the installation 42, unless `more` says otherwise.
fn world(more: &str, api: &[&str]) -> (World, String) {
    let mut definition =
        String::from("kind = \"github-app\"\nprivate_key = \"vault:app\"\napi_url = \"https://raw.test\"\n");
    for (key, value) in [
        ("app_id", "77"),
        ("installation_id", "42"),
        ("repositories", "[\"site\"]"),
        ("permissions", "{ contents = \"read\" }"),
    ] {
        if !more.contains(key) {
            definition.push_str(&format!("{key} = {value}\n"));
        }
    }
    let world = world_of(&format!("{definition}{more}"));
    let pem = app_key();
    world.secret("app", &pem);
    let key = fs::File::open(world.write("key.pem", &pem)).unwrap();
    let public = Command::new("openssl").args(["pkey", "-pubout"]).stdin(key).output().unwrap();
    world.write("app.pem", std::str::from_utf8(&public.stdout).unwrap());
    fs::remove_file(world.path("key.pem")).unwrap();
    world.write("github.js", API);
    let mut arguments = vec!["github.js", RAW_ADDRESS, "api/server.pem", "api/server.key", "app.pem"];
    arguments.extend(api);
    world.server("receiver", "node", &arguments, &format!("{RAW_ADDRESS}:443"));
    world.daemon();
    (world, pem)
}

/// A key of an App, as GitHub hands it out: PKCS #1.
fn app_key() -> String {
    let made = Command::new("openssl").args(["genrsa", "-traditional", "2048"]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let pem = String::from_utf8(made.stdout).unwrap();
    assert!(pem.starts_with("-----BEGIN RSA PRIVATE KEY-----"));
    pem
}

/// The requests for tokens.
fn asked(world: &World) -> Vec<Value> {
    received(world).into_iter().filter(|it| it["path"].as_str().unwrap().starts_with("/app/")).collect()
}

const TOGETHER: &str = "
import threading, urllib.request
def call():
    print(urllib.request.urlopen('https://raw.test/repos/acme/site').status, flush=True)
all = [threading.Thread(target=call) for _ in range(10)]
[thread.start() for thread in all]
[thread.join() for thread in all]
";

#[test]
fn bots_get_a_token_that_is_narrowed_and_wait_for_it_once_together() {
    let (world, pem) = world("", &[]);
    let told = world.python(TOGETHER, &[]);
    assert_eq!(told.stdout.split_whitespace().collect::<Vec<_>>(), ["200"; 10], "{told:?}");
    let stolen = format!("authorization: Bearer {STOLEN}");
    let answer = world.curl(&["-H", &stolen, "https://raw.test/repos/acme/site"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["repositories"], serde_json::json!(["site"]));
    assert_eq!(answer.json()["permissions"], serde_json::json!({ "contents": "read" }));
    assert_eq!(world.curl(&["https://raw.test/repos/acme/payroll"]).status, 404);
    assert_eq!(world.curl(&["-X", "PUT", "https://raw.test/repos/acme/site/contents/x"]).status, 403);
    let asked = asked(&world);
    assert_eq!(asked.len(), 1, "{asked:?}");
    let wanted: Value = serde_json::from_str(asked[0]["wanted"].as_str().unwrap()).unwrap();
    assert_eq!(
        wanted,
        serde_json::json!({ "repositories": ["site"], "permissions": { "contents": "read" } })
    );
    assert_nowhere(&world, asked[0]["token"].as_str().unwrap());
    assert_nowhere(&world, asked[0]["authorization"].as_str().unwrap().trim_start_matches("Bearer "));
    assert_nowhere(&world, &pem);
    let decision = world.decision(Some("/repos/acme/site"));
    assert!(decision.to_string().contains("\"token\""), "{decision}");
}

/// The reason of a call that must be refused without having been sent.
#[track_caller]
fn refused(world: &World) -> String {
    let answer = world.curl(&["https://raw.test/repos/acme/site"]);
    let kind = answer.json()["type"].as_str().map(str::to_owned);
    assert_eq!(
        (answer.status, kind.as_deref()),
        (502, Some("urn:vouchsafe:problem:credential-unavailable")),
        "{answer:?}"
    );
    let seen = received(world).into_iter().filter(|it| !it["path"].as_str().unwrap().starts_with("/app/"));
    assert_eq!(seen.count(), 0, "nothing was sent");
    world.decision(Some("/repos/acme/site"))["reason"].as_str().unwrap().to_owned()
}

#[test]
fn what_github_refuses_is_502_and_says_what_to_check() {
    for (more, says) in [
        ("app_id = 78", "check app_id"),
        ("installation_id = 43", "check installation_id"),
        ("repositories = [\"other\"]", "repositories and permissions"),
        ("permissions = { administration = \"read\" }", "repositories and permissions"),
    ] {
        let (world, _) = world(more, &[]);
        let reason = refused(&world);
        assert!(reason.starts_with("credential token:") && reason.contains(says), "{more}: {reason}");
    }
}

#[test]
fn a_key_of_another_app_is_502_until_the_right_one_is_stored() {
    let (world, pem) = world("", &[]);
    world.secret("app", &app_key());
    assert!(refused(&world).contains("private_key"));
    world.secret("app", &pem);
    wait_until("a call with the right key", || {
        (world.curl(&["https://raw.test/repos/acme/site"]).status == 200).then_some(())
    });
    world.secret("app", "no key at all");
    wait_until("the refusal", || {
        (world.curl(&["https://raw.test/repos/acme/site"]).status == 502).then_some(())
    });
    let reason = world.decision(Some("/repos/acme/site"))["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("vouchsafe secret set app"), "{reason}");
}

#[test]
fn a_token_that_may_do_more_than_was_asked_for_is_never_used() {
    let (world, _) = world("", &["wide"]);
    let reason = refused(&world);
    assert!(reason.contains("not used"), "{reason}");
    assert_nowhere(&world, asked(&world)[0]["token"].as_str().unwrap());
}
