//! Upstreams that are down, not who they should be, slow, or break off before their answer.

use serde_json::Value;
use tests::upstream::{HUGE, Proof, Upstream};
use tests::{Answer, World};

use super::outcome;

/// Both versions that a client may speak.
const VERSIONS: [&str; 2] = ["--http1.1", "--http2"];

/// Asks `raw.test`, which must end in this problem, with the upstream to blame and a journal id that both sides know.
#[track_caller]
fn fails(world: &World, version: &str, path: &str, status: u16, problem: &str) -> (Answer, Value) {
    let answer = world.curl(&[version, &format!("https://raw.test{path}")]);
    assert_eq!(answer.status, status, "{path}: {answer:?}");
    assert_eq!(answer.content_type, "application/problem+json");
    assert_eq!(answer.json()["type"], format!("urn:vouchsafe:problem:{problem}"), "{path}: {answer:?}");
    let outcome = outcome(world, path);
    assert_eq!(outcome["id"].as_str(), answer.journal_id().as_deref());
    assert_eq!((&outcome["status"], &outcome["blame"]), (&status.into(), &"upstream".into()), "{outcome}");
    assert!(!answer.body.contains("203.0.113."), "addresses are for the journal: {}", answer.body);
    (answer, outcome)
}

#[test]
fn an_upstream_that_is_down_is_502_and_works_when_it_is_up_again() {
    let world = World::start();
    for version in VERSIONS {
        let (answer, outcome) = fails(&world, version, "/v1/down", 502, "upstream-unreachable");
        assert!(answer.body.contains("raw.test does not accept the connection"), "{answer:?}");
        assert!(outcome["error"].as_str().unwrap().contains("refused"), "{outcome}");
    }
    let _upstream = Upstream::http1(&world);
    assert_eq!(world.curl(&["https://raw.test/v1/up"]).status, 200);
}

#[test]
fn an_upstream_that_does_not_prove_its_name_is_502_and_gets_nothing() {
    let world = World::new();
    // The certificate of the upstream names raw.test, and not this host.
    world.policy(
        "apis/wrong.toml",
        "[api.wrong]\nhosts = [\"wrong.test\"]\n\
         inject = { header = \"authorization\", value = \"Bearer {secret}\" }\n",
    );
    world.policy(
        "policies/curl.toml",
        "[identity]\nexe = \"{root}/bots/curl\"\n\n\
         [[grant]]\napi = \"demo\"\nallow = [\"GET /v1/**\"]\ncredential = \"demo-key\"\n\n\
         [[grant]]\napi = \"wrong\"\nallow = [\"GET /v1/**\"]\ncredential = \"demo-key\"\n",
    );
    world.daemon();
    for (proof, host) in [(Proof::SelfSigned, "raw.test"), (Proof::Good, "wrong.test")] {
        for versions in [&["http/1.1"] as &[_], &["h2"]] {
            let upstream = Upstream::start(&world, proof, versions);
            let url = format!("https://{host}/v1/secret");
            let answer = world.curl(&["--connect-to", "::raw.test:", &url]);
            assert_eq!(answer.status, 502, "{answer:?}");
            assert_eq!(answer.json()["type"], "urn:vouchsafe:problem:upstream-untrusted");
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.starts_with(host) && detail.contains("nothing was sent"), "{detail}");
            assert_eq!(outcome(&world, "/v1/secret")["blame"], "upstream");
            assert_eq!((upstream.count(), upstream.handshakes()), (0, 0));
            assert!(upstream.connections() > 0, "it was not even tried");
        }
    }
    // The same upstream under its name gets the call: it was the proof that failed.
    let upstream = Upstream::http1(&world);
    assert_eq!(world.curl(&["https://raw.test/v1/secret"]).status, 200);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn an_upstream_that_does_not_answer_in_time_is_504() {
    let world = World::new();
    world.set("upstream.response_timeout", "\"1s\"");
    world.daemon();
    for versions in [&["http/1.1"] as &[_], &["h2"]] {
        let upstream = Upstream::start(&world, Proof::Good, versions);
        for version in VERSIONS {
            for act in ["never", "slow-head"] {
                fails(&world, version, &format!("/v1/{act}"), 504, "upstream-timeout");
            }
        }
        assert_eq!(upstream.count(), 4, "nothing is sent twice");
        // One that stays below the limit is waited for; those that were given up may still stand at the gate.
        upstream.open_gate(3);
        assert_eq!(world.curl(&["https://raw.test/v1/slow-head"]).body, "late");
    }
}

#[test]
fn an_upstream_that_answers_with_something_else_is_502() {
    let world = World::start();
    let upstream = Upstream::http1(&world);
    for version in VERSIONS {
        for act in ["close", "garbage", "two-lengths", "switch"] {
            let before = upstream.count();
            fails(&world, version, &format!("/v1/{act}"), 502, "upstream-failed");
            assert_eq!(
                upstream.count(),
                before + 1,
                "{act}: a request is not sent again when it may have been done"
            );
        }
    }
}

#[test]
fn a_header_of_a_megabyte_from_the_upstream_is_502_and_the_daemon_lives() {
    let world = World::start();
    for versions in [&["http/1.1"] as &[_], &["h2"]] {
        let upstream = Upstream::start(&world, Proof::Good, versions);
        for version in VERSIONS {
            let (answer, _) = fails(&world, version, "/v1/huge-header", 502, "upstream-failed");
            assert!(answer.body.len() < HUGE);
            assert_eq!(world.curl(&[version, "https://raw.test/v1/after"]).status, 200);
        }
        drop(upstream);
    }
}

#[test]
fn a_name_that_leads_back_to_the_proxy_is_refused() {
    let world = World::new();
    world.daemon();
    // The bot asks for the listener itself: its connection has no origin and is closed.
    let answer = world.curl(&["--connect-to", "::127.0.0.1:15001", "https://raw.test/v1/loop"]);
    assert_ne!(answer.status, 200);
    assert_eq!(world.curl(&["https://api.test/v1/after"]).status, 200);
}
