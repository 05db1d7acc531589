//! Where APIs want a secret: each place at a server that looks there and nowhere else, over both versions of HTTP.

use tests::{RAW_ADDRESS, World, wait_until};

use super::jwt::received;

const SERVER: &str = include_str!("receivers/places.js");
/// Of characters that each place spells in its own way.
const SECRET: &str = "s3cr/t+a&b=c%d";
const HTTP: [&str; 2] = ["--http1.1", "--http2"];

/// A running world where curl calls `raw.test`, which has the secret as `inject` says.
fn world(inject: &str, secret: &str) -> World {
    let world = World::new();
    world.policy("apis/apis.toml", &format!("[api.demo]\nhosts = [\"raw.test\"]\ninject = {inject}\n"));
    world.without_identities();
    world.policy(
        "credentials/demo-key.toml",
        "[credential.demo-key]\nkind = \"static\"\nsecret = \"vault:demo\"\n",
    );
    world.policy(
        "policies/curl.toml",
        "[identity]\nexe = \"{root}/bots/curl\"\n\n[[grant]]\napi = \"demo\"\nallow = [\"* /**\"]\n\
         credential = \"demo-key\"\n",
    );
    world.secret("demo", secret);
    world.set("log.level", "\"trace,aya=info,aya_obj=info\"");
    world.write("places.js", SERVER);
    let arguments = ["places.js", RAW_ADDRESS, "api/server.pem", "api/server.key", secret];
    world.server("receiver", "node", &arguments, &format!("{RAW_ADDRESS}:443"));
    world.daemon();
    world
}

/// Has curl call, with both versions of HTTP.
#[track_caller]
fn assert_status(world: &World, arguments: &[&str], expected: u16) {
    for version in HTTP {
        let answer = world.curl(&[&[version], arguments].concat());
        assert_eq!(
            answer.status,
            expected,
            "{version} {arguments:?}: {answer:?} {:?}",
            received(world).last()
        );
    }
}

/// Neither log nor journal has this in them.
#[track_caller]
fn assert_nowhere(world: &World, text: &str) {
    assert!(!world.log().contains(text), "a secret is in the log");
    assert!(!serde_json::to_string(&world.journal()).unwrap().contains(text), "a secret is in the journal");
}

/// The last request that the server saw.
fn last(world: &World) -> serde_json::Value {
    received(world).pop().unwrap()
}

#[test]
fn basic_authentication_is_user_and_secret_in_the_place_of_the_clients() {
    let world = world("{ basic = \"me:{secret}\" }", SECRET);
    assert_status(&world, &["-u", "stolen:stolen", "https://raw.test/basic/x"], 200);
    assert_nowhere(&world, SECRET);
    assert_nowhere(&world, "czNjci90K2EmYj1jJWQ");
}

#[test]
fn a_query_parameter_is_escaped_and_the_only_one_of_its_name() {
    let world = world("{ query = \"key\" }", SECRET);
    assert_status(&world, &["https://raw.test/query/x"], 200);
    let own = "https://raw.test/query/x?a=1&key=stolen&KEY=stolen&k%65y=stolen&b=%20;key=stolen";
    assert_status(&world, &[own], 200);
    let path = last(&world)["path"].as_str().unwrap().to_owned();
    assert!(path.starts_with("/query/x?a=1&b=%20&key=s3cr%2F"), "{path}");
    assert_nowhere(&world, SECRET);
    assert_nowhere(&world, "s3cr%2Ft");
}

#[test]
fn what_a_client_brings_as_a_key_goes_out_and_the_journal_tells_keys_apart_without_telling_them() {
    let world = world("{ header = \"x-key\", value = \"{secret}\" }", "s3cr/t+a&b=c%d");
    let token = "ghp_stolen0123456789ABCDEFGHIJabcdefghij";
    let header = format!("authorization: Bearer {token}");
    let url = format!("https://raw.test/header/x?a=1&api_key=stolen&q={token}&b=2");
    assert_status(
        &world,
        &["-H", &header, "-H", "private-token: stolen", "-H", "x_api_key: stolen", &url],
        200,
    );
    assert_eq!(last(&world)["path"], "/header/x?a=1&b=2");
    let of = |world: &World| {
        let journal = world.journal();
        let outcome = journal.iter().rev().find(|it| it["kind"] == "outcome").unwrap();
        let removed = outcome["removed"].as_array().cloned().unwrap_or_default();
        let text = |it: &serde_json::Value, key: &str| it[key].as_str().unwrap().to_owned();
        let mut removed: Vec<_> =
            removed.iter().map(|it| (text(it, "place"), text(it, "fingerprint"))).collect();
        removed.sort();
        removed
    };
    wait_until("the outcome of the call", || (of(&world).len() == 5).then_some(()));
    let removed = of(&world);
    let places: Vec<_> = removed.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(
        places,
        ["header authorization", "header private-token", "header x_api_key", "query api_key", "query q"]
    );
    assert_eq!(removed[0].1, removed[4].1, "the same token in two places");
    assert_eq!(removed[1].1, removed[3].1);
    assert_ne!(removed[0].1, removed[1].1);
    assert_nowhere(&world, token);
    // The key of the fingerprints outlives the daemon.
    world.restart();
    assert_status(&world, &["-H", &header, "https://raw.test/header/x"], 200);
    wait_until("the outcome of the call", || (of(&world).len() == 1).then_some(()));
    assert_eq!(of(&world)[0], removed[0]);
}

#[test]
fn what_a_server_sends_back_of_the_secret_is_covered_wherever_it_cuts_its_answer() {
    let secret = "s3cr/t+a&b=c%d";
    let world = world("{ header = \"x-key\", value = \"{secret}\" }", secret);
    let covered = format!("you sent {} and I keep it, gzip\n", "*".repeat(secret.len())).repeat(3);
    for step in [1000, 31, 10, 7, 5] {
        for version in HTTP {
            let url = format!("https://raw.test/echo?step={step}");
            let answer = world.curl(&[version, "-i", "-H", "accept-encoding: gzip", &url]);
            let (head, body) = answer.body.split_once("\r\n\r\n").unwrap();
            assert!(head.to_lowercase().contains(&format!("x-got: {}", "*".repeat(secret.len()))), "{head}");
            assert!(!body.contains(&secret[3..]), "{step}: {body}");
            assert_eq!(body.len(), covered.len(), "{step}");
            if step == 1000 {
                assert_eq!(body, covered);
            }
        }
    }
    let recorded = || world.journal().iter().filter(|it| it["reflected"] == true).count();
    wait_until("the outcomes of the calls", || (recorded() == 10).then_some(()));
    // What is no text goes on as it is, but for its head.
    let answer = world.curl(&["https://raw.test/echo?step=1000&type=image/png"]);
    assert!(answer.body.contains(secret), "{answer:?}");
    world.policy(
        "apis/apis.toml",
        "[api.demo]\nhosts = [\"raw.test\"]\ninject = { header = \"x-key\", value = \"{secret}\" }\nmask = \"all\"\n",
    );
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    let url = "https://raw.test/echo?step=1000&type=image/png";
    let answer = world.curl(&["-H", "accept-encoding: gzip", url]);
    assert_eq!(answer.body, covered.replace("gzip", "identity"));
}

#[test]
fn what_a_server_sends_back_compressed_is_unpacked_and_covered_wherever_it_cuts_its_answer() {
    let secret = "s3cr/t+a&b=c%d";
    let world = world("{ header = \"x-key\", value = \"{secret}\" }", secret);
    let covered = format!("you sent {} and I keep it, ", "*".repeat(secret.len()));
    let mut calls = 0;
    for codings in ["gzip", "deflate", "br", "gzip,br"] {
        for step in [1000, 7, 1] {
            for version in HTTP {
                let url = format!("https://raw.test/echo?step={step}&codings={codings}");
                let answer = world.curl(&[version, "--compressed", "-i", &url]);
                let (head, body) = answer.body.split_once("\r\n\r\n").unwrap();
                let head = head.to_lowercase();
                assert!(!head.contains("content-encoding") && !head.contains("content-length"), "{head}");
                assert!(head.contains("etag: w/\"a\""), "{head}");
                assert!(!body.contains(&secret[3..]), "{codings} {step}: {body}");
                assert_eq!(body.lines().count(), 3);
                if step == 1000 {
                    assert!(body.lines().all(|line| line.starts_with(&covered)), "{codings}: {body}");
                }
                calls += 1;
            }
        }
    }
    let recorded = || world.journal().iter().filter(|it| it["reflected"] == true).count();
    wait_until("the outcomes of the calls", || (recorded() == calls).then_some(()));
    // What is no text stays as it was packed; a head tells of the packed body; a part of it does not go on.
    let image = "https://raw.test/echo?step=1000&codings=gzip&type=image/png";
    let answer = world.curl(&["--compressed", "-D", "-", image]);
    assert!(answer.body.to_lowercase().contains("content-encoding: gzip"), "{answer:?}");
    assert!(answer.body.contains(secret), "{answer:?}");
    let head = world.curl(&["--compressed", "-I", "https://raw.test/echo?step=1000&codings=gzip"]);
    assert!(head.body.to_lowercase().contains("content-encoding: gzip"), "{head:?}");
    let part = "https://raw.test/echo?step=1000&codings=gzip&status=206";
    assert_status(&world, &["-r", "0-99", part], 502);
}

#[test]
fn a_cookie_stands_among_those_of_the_client() {
    let secret = "s3cr/t+a&b=c%d";
    let world = world("{ cookie = \"sid\" }", secret);
    assert_status(&world, &["-b", "a=1; sid=stolen; b=2", "https://raw.test/cookie/x"], 200);
    assert_eq!(last(&world)["cookie"], format!("a=1; b=2; sid={secret}"));
    assert_status(&world, &["https://raw.test/cookie/x"], 200);
    assert_nowhere(&world, secret);
}

#[test]
fn what_a_cookie_cannot_carry_is_502_and_nothing_is_sent() {
    let world = world("{ cookie = \"sid\" }", "a;admin=1");
    assert_status(&world, &["https://raw.test/cookie/x"], 502);
    assert!(received(&world).is_empty());
}

#[test]
fn a_placeholder_in_the_path_is_what_policy_and_journal_see() {
    let world = world("{ placeholder = \"vouchsafe-demo\", in = [\"path\"] }", SECRET);
    let url = "https://raw.test/path/botvouchsafe-demo/send?note=vouchsafe-demo";
    assert_status(&world, &[url], 200);
    assert!(last(&world)["path"].as_str().unwrap().ends_with("/send?note=vouchsafe-demo"));
    assert_eq!(world.decision(Some("/path/botvouchsafe-demo/send"))["credential"], "demo-key");
    let sent = received(&world).len();
    for bad in ["https://raw.test/path/bot123:mine/send", "https://raw.test/vouchsafe-demo/vouchsafe-demo"] {
        assert_status(&world, &[bad], 400);
    }
    assert_status(&world, &["-H", "x-key: vouchsafe-demo", "https://raw.test/path/send"], 400);
    assert_eq!(received(&world).len(), sent, "nothing was sent without the credential");
    assert_nowhere(&world, SECRET);
    assert_nowhere(&world, "s3cr%2Ft");
}

#[test]
fn a_placeholder_in_a_header_or_a_body_is_exchanged_in_its_spelling() {
    let world =
        world("{ placeholder = \"vouchsafe-demo\", in = [\"headers\", \"body\"] }", "s3\"cr/t+a&b=c%d");
    assert_status(&world, &["-H", "x-key: vouchsafe-demo", "https://raw.test/header/x"], 200);
    assert_status(&world, &["-u", "me:vouchsafe-demo", "https://raw.test/basic/x"], 200);
    assert_status(&world, &["-d", "a=1&key=vouchsafe-demo&b=2", "https://raw.test/body/x"], 200);
    let json = ["-H", "content-type: application/json", "-d", "{\"key\": \"vouchsafe-demo\", \"a\": 1}"];
    assert_status(&world, &[&json[..], &["https://raw.test/body/x"]].concat(), 200);
    // Without a length that is known before.
    let chunked = ["-H", "transfer-encoding: chunked", "-d", "key=vouchsafe-demo", "https://raw.test/body/x"];
    assert_status(&world, &chunked, 200);
    let sent = received(&world).len();
    let twice = ["-d", "key=vouchsafe-demo&comment=vouchsafe-demo", "https://raw.test/body/x"];
    assert_status(&world, &twice, 400);
    assert_status(&world, &["-d", "key=mine", "https://raw.test/body/x"], 400);
    let other =
        ["-H", "content-type: application/octet-stream", "-d", "vouchsafe-demo", "https://raw.test/body/x"];
    assert_status(&world, &other, 400);
    assert_eq!(received(&world).len(), sent, "nothing was sent without the credential");
    assert_nowhere(&world, "s3\"cr/t+a");
    assert_nowhere(&world, "cr%2Ft");
}

#[test]
fn a_key_of_the_fingerprints_that_is_not_ours_alone_or_is_none_is_told_with_its_path() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new();
    let path = world.path("state/fingerprint.key");
    for (content, mode) in [("07".repeat(32), 0o644), ("nothing of a key".to_owned(), 0o600)] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let said = world.start_fails();
        assert!(said.contains("state/fingerprint.key") && said.contains("remove it"), "{said}");
    }
}
