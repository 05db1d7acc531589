//! Clients that take only the API's own certificate: recognized, and let through undecrypted where the policy says so.

use std::fs;

use serde_json::Value;
use tests::{Answer, STOLEN, World};

/// curl as a client that pins the key of the server, and brings a key of its own to it.
fn pinned(world: &World, more: &[&str]) -> Answer {
    let certificate = world.path("api/server.pem");
    let digest = format!(
        "openssl x509 -in {} -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64",
        certificate.display()
    );
    let digest = std::process::Command::new("sh").args(["-c", &digest]).output().unwrap();
    let pin = format!("sha256//{}", String::from_utf8(digest.stdout).unwrap().trim());
    let key = format!("authorization: Bearer {STOLEN}");
    let bot = world.bot("curl").cgroup("pinned.service");
    bot.curl(&[&["--pinnedpubkey", &pin, "-H", &key], more].concat())
}

/// What the identity may do, and by which line.
fn grant(world: &World, grant: &str) {
    let before = world.status()["policy"]["generation"].as_u64().unwrap();
    world.policy("policies/curl.toml", &format!("[identity]\nexe = \"{{root}}/bots/curl\"\n\n{grant}"));
    world.wait_for_generation(before + 1);
}

#[test]
fn a_pinned_client_is_refused_nothing_of_ours_and_told_apart_until_the_policy_lets_it_through() {
    let world = World::start();
    let refused = pinned(&world, &["https://api.test/v1/x"]);
    assert_eq!(refused.status, 0, "{refused:?}");
    let record = world.record("decision", |record| record["mistrust"].is_object());
    let mistrust = &record["mistrust"];
    // Whether it is there to be looked at any more is a matter of luck.
    let causes = ["trusts", "unknown"];
    assert!(mistrust["runtime"] == "curl" && causes.iter().any(|it| mistrust["cause"] == *it), "{record}");
    assert!(world.seen().is_empty(), "nothing was sent");

    grant(&world, "[[grant]]\napi = \"demo\"\nintercept = false\n");
    let answer = pinned(&world, &["https://api.test/v1/x"]);
    assert_eq!(
        (answer.status, &answer.json()["key"]),
        (200, &"stolen".into()),
        "its own key, and none of ours"
    );
    let record = world.record("decision", |record| record["verdict"] == "allow");
    assert_eq!((&record["scheme"], &record["api"]), (&"tls".into(), &"demo".into()), "{record}");
    assert_eq!((&record["method"], &record["credential"]), (&Value::Null, &Value::Null), "{record}");
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains("undecrypted") && reason.contains("pinned"), "{reason}");
    assert_eq!(record["rule"]["file"], "policies/curl.toml");
    let outcome = world.record("outcome", |outcome| outcome["id"] == record["id"]);
    assert!(outcome["bytes_received"].as_u64().unwrap() > 0, "{outcome}");

    // Another identity goes on to be looked into.
    let other =
        "import urllib.request; print(urllib.request.urlopen('https://api.test/v1/x').read().decode())";
    let told = world.python(other, &[]);
    assert_eq!(told.json()["key"], "ours", "{told:?}");
}

#[test]
fn a_client_that_refuses_although_what_it_reads_has_our_roots_is_told_to_be_pinned() {
    let world = World::start();
    let roots = world.path("api/ca.pem").display().to_string();
    let call = "
import ssl, sys, urllib.request
urllib.request.urlopen('https://api.test/v1/x', context=ssl.create_default_context(cafile=sys.argv[1]))
";
    assert_eq!(world.python(call, &[&roots]).code, Some(1));
    let record = world.record("decision", |record| record["mistrust"].is_object());
    assert_eq!(
        (&record["mistrust"]["cause"], &record["mistrust"]["certain"]),
        (&"pinned".into(), &true.into())
    );
    let mend = record["mistrust"]["mend"].as_str().unwrap();
    assert!(mend.contains("intercept = false"), "{record}");
}

#[test]
fn what_goes_through_undecrypted_goes_only_where_the_api_may_be_and_only_by_its_name() {
    let world = World::start();
    grant(&world, "[[grant]]\napi = \"demo\"\nintercept = false\n");
    let roots = world.path("api/ca.pem");
    let roots = ["--cacert", roots.to_str().unwrap()];
    assert_eq!(pinned(&world, &[&roots[..], &["https://api.test/v1/x"]].concat()).status, 200);
    // By a name that no API has, the same address stays closed.
    assert_eq!(pinned(&world, &[&roots[..], &["https://other.test/v1/x"]].concat()).status, 0);
    let apis = fs::read_to_string(world.path("etc/apis/apis.toml")).unwrap();
    let generation = world.status()["policy"]["generation"].as_u64().unwrap();
    world.policy("apis/apis.toml", &apis.replacen(tests::ADDRESSES, "addresses = [\"public\"]", 1));
    world.wait_for_generation(generation + 1);
    assert_eq!(pinned(&world, &[&roots[..], &["https://api.test/v1/x"]].concat()).status, 0);
    let record = world.record("decision", |record| record["api"] == "demo" && record["verdict"] == "deny");
    assert!(record["reason"].as_str().unwrap().contains("calls to demo do not go there"), "{record}");
}

#[test]
fn a_connection_that_went_through_is_cut_when_the_policy_wants_to_look_into_it_again() {
    let world = World::start();
    let python = "[identity]\nexe = \"{root}/bots/python3\"\n\n[[grant]]\napi = \"demo\"\n";
    let generation = world.status()["policy"]["generation"].as_u64().unwrap();
    world.policy("policies/python.toml", &format!("{python}intercept = false\n"));
    world.wait_for_generation(generation + 1);
    let hold = "
import socket, ssl
s = ssl.create_default_context().wrap_socket(socket.create_connection(('api.test', 443)), server_hostname='api.test')
print(dict(s.getpeercert()['subject'][0])['commonName'], flush=True)
print(s.recv(1), flush=True)
";
    let mut bot = world.bot("python3").args(["-c", hold]).spawn();
    assert_eq!(bot.line(), "server of the test APIs", "it is the API's own certificate");
    world.policy(
        "policies/python.toml",
        &format!("{python}allow = [\"GET /v1/**\"]\ncredential = \"demo-key\"\n"),
    );
    world.wait_for_generation(generation + 2);
    let outcome = world.record("outcome", |_| true);
    assert!(outcome["error"].as_str().unwrap().contains("looked into now"), "{outcome}");
    bot.wait();
}
