//! `[issuer]`: the host says who its bots are, and a receiver that found its keys by discovery believes it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{World, wait_until};

use super::jwt::{AUDIENCE, assert_nowhere, received, receiver, told, world as world_of};

/// In the world's own network.
const URL: &str = "http://127.0.0.1:8765";

fn world(per: &str) -> World {
    let world = world_of(&format!("kind = \"jwt\"\naudience = \"{AUDIENCE}\"\nper = \"{per}\""));
    world.set("issuer.url", &format!("\"{URL}\""));
    world.set("issuer.listen", "\"127.0.0.1:8765\"");
    world.set("issuer.subject", "\"spiffe://test/{identity}\"");
    world.set("issuer.publish", &format!("\"{}\"", world.path("www").display()));
    world
}

fn published(world: &World) -> Value {
    serde_json::from_str(&fs::read_to_string(world.path("www/.well-known/jwks.json")).unwrap()).unwrap()
}

/// An HTTP request of somebody on this host.
fn get(world: &World, arguments: &[&str]) -> (u16, String) {
    let mut command = world.enter(None);
    command.args(["/usr/bin/curl", "-sS", "--max-time", "10", "-w", "\n%{http_code}"]).args(arguments);
    let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let (body, status) = told.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

#[test]
fn a_receiver_that_knows_only_the_url_believes_each_bot_who_it_is_without_any_stored_secret() {
    let world = world("ttl");
    receiver(&world, URL);
    world.daemon();
    let claims = told(&world);
    assert_eq!(
        (&claims["sub"], &claims["iss"], &claims["aud"]),
        (&"spiffe://test/curl".into(), &URL.into(), &AUDIENCE.into())
    );
    let script = "import urllib.request as u; print(u.urlopen('https://raw.test/v1/x').read().decode())";
    assert_eq!(world.python(script, &[]).json()["sub"], "spiffe://test/python");
    for seen in received(&world) {
        assert_nowhere(&world, seen["authorization"].as_str().unwrap().trim_start_matches("Bearer "));
    }
    // What stands in the folder is what is served.
    for name in ["openid-configuration", "jwks.json"] {
        let path = world.path("www/.well-known").join(name);
        let (status, body) = get(&world, &[&format!("{URL}/.well-known/{name}")]);
        assert_eq!((status, body), (200, fs::read_to_string(&path).unwrap()));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o755);
    }
    assert!(published(&world)["keys"][0].get("d").is_none(), "public halves only");
    assert_eq!(get(&world, &[&format!("{URL}/.well-known/other")]).0, 404);
    assert_eq!(get(&world, &["-X", "POST", &format!("{URL}/.well-known/jwks.json")]).0, 405);
    let keys = fs::metadata(world.path("state/secrets.issuer")).unwrap();
    assert_eq!(keys.permissions().mode() & 0o777, 0o600);
    // A token from before a restart is checked after it, by the same key.
    let (before, token) = (published(&world), received(&world)[0]["authorization"].clone());
    world.restart();
    assert_eq!(published(&world), before);
    let mut command = world.enter(None);
    command.args(["/usr/bin/curl", "-sS", "--cacert"]).arg(world.path("api/ca.pem"));
    command.arg("-H").arg(format!("authorization: {}", token.as_str().unwrap())).arg("https://raw.test/v1/y");
    let answer: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!(answer["sub"], "spiffe://test/curl");
    assert_eq!(told(&world)["sub"], "spiffe://test/curl");
}

#[test]
fn keys_turn_while_calls_run_and_no_call_fails() {
    let world = world("call");
    world.set("issuer.ttl", "\"5s\"");
    world.set("issuer.publish_ahead", "\"3s\"");
    world.set("issuer.rotate_every", "\"6s\"");
    receiver(&world, URL);
    world.daemon();
    let (began, mut signers) = (Instant::now(), BTreeSet::new());
    while signers.len() < 3 {
        assert!(began.elapsed() < Duration::from_secs(60), "the keys do not turn: {signers:?}");
        told(&world);
        let seen = received(&world).pop().unwrap();
        let token = seen["authorization"].as_str().unwrap().to_owned();
        // The header is the same text for all tokens of a key.
        signers.insert(token.split('.').next().unwrap().to_owned());
    }
    let keys = published(&world)["keys"].as_array().unwrap().len();
    assert!(keys >= 3, "the old ones stay until their tokens have ended: {keys}");
}

#[test]
fn keys_that_cannot_be_published_sign_nothing_until_they_can() {
    let world = world("ttl");
    // A file where the folder should be.
    world.write("www", "in the way");
    receiver(&world, URL);
    world.daemon();
    let refused = world.curl(&["https://raw.test/v1/x"]);
    assert_eq!(refused.json()["type"], "urn:vouchsafe:problem:credential-unavailable", "{refused:?}");
    assert!(received(&world).is_empty(), "nothing was sent");
    assert!(world.log().contains("cannot be published"), "{}", world.log());
    assert!(world.decision(Some("/v1/x"))["reason"].as_str().unwrap().contains("not published"));
    fs::remove_file(world.path("www")).unwrap();
    // A folder where others could put keys of their own.
    fs::create_dir(world.path("www")).unwrap();
    fs::set_permissions(world.path("www"), fs::Permissions::from_mode(0o777)).unwrap();
    wait_until("the second reason in the log", || world.log().contains("chmod go-w").then_some(()));
    assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 502);
    fs::set_permissions(world.path("www"), fs::Permissions::from_mode(0o755)).unwrap();
    wait_until("a call with a token", || {
        (world.curl(&["https://raw.test/v1/x"]).status == 200).then_some(())
    });
}

#[test]
fn a_host_that_is_no_issuer_gives_no_token_and_one_whose_keys_are_damaged_does_not_start() {
    let world = world("ttl");
    world.daemon();
    assert_eq!(world.terminate(), Some(0));
    let keys = world.path("state/secrets.issuer");
    let mut damaged = fs::read(&keys).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&keys, &damaged).unwrap();
    let said = world.start_fails();
    assert!(said.contains(keys.to_str().unwrap()), "{said}");
    let other = world_of(&format!("kind = \"jwt\"\naudience = \"{AUDIENCE}\""));
    other.daemon();
    assert_eq!(other.curl(&["https://raw.test/v1/x"]).status, 502);
    let reason = other.decision(Some("/v1/x"))["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("[issuer]"), "{reason}");
}
