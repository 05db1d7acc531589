//! `kind = "jwt"`: tokens that this host makes, checked by a receiver that knows the public keys alone.

use std::fs;
use std::process::Command;

use serde_json::Value;
use tests::{RAW_ADDRESS, STOLEN, World, wait_until};

const RECEIVER: &str = include_str!("receivers/jwt.js");
/// Whom the receiver takes itself for.
pub(super) const AUDIENCE: &str = "https://raw.test";

/// A world whose bots call `raw.test` with the credential `token`; nothing runs there yet.
pub(super) fn world(definition: &str) -> World {
    let world = World::new();
    world.policy(
        "apis/apis.toml",
        "[api.tokens]\nhosts = [\"raw.test\"]\n[api.demo]\nhosts = [\"api.test\"]\n",
    );
    world.policy("credentials/token.toml", &format!("[credential.token]\n{definition}\n"));
    world.without_identities();
    for (name, program) in [("curl", "curl"), ("python", "python3")] {
        world.policy(
            &format!("policies/{name}.toml"),
            &format!(
                "[identity]\nexe = \"{{root}}/bots/{program}\"\n\n[[grant]]\napi = \"tokens\"\nallow = [\"* /**\"]\n\
                 credential = \"token\"\n"
            ),
        );
    }
    world.set("log.level", "\"trace,aya=info,aya_obj=info\"");
    world
}

/// Starts the receiver, which believes `keys`: a file of the world, or an issuer's URL.
pub(super) fn receiver(world: &World, keys: &str) {
    world.write("receiver.js", RECEIVER);
    let arguments = ["receiver.js", RAW_ADDRESS, "api/server.pem", "api/server.key", AUDIENCE, keys];
    world.server("receiver", "node", &arguments, &format!("{RAW_ADDRESS}:443"));
}

/// What the receiver saw, one object per request.
pub(super) fn received(world: &World) -> Vec<Value> {
    let text = fs::read_to_string(world.path("requests.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The claims that the receiver believed of a call of curl.
#[track_caller]
pub(super) fn told(world: &World) -> Value {
    let answer = world.curl(&["https://raw.test/v1/x"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Makes a private key with OpenSSL, stores it, and writes the set of its public key under the name `kid`.
pub(super) fn make_key(world: &World, algorithm: &str, kid: &str) -> String {
    let (kind, option) = match algorithm {
        "ES256" => ("EC", "ec_paramgen_curve:P-256"),
        "RS256" => ("RSA", "rsa_keygen_bits:2048"),
        _ => ("ED25519", ""),
    };
    let mut command = Command::new("openssl");
    command.args(["genpkey", "-algorithm", kind]);
    if !option.is_empty() {
        command.args(["-pkeyopt", option]);
    }
    let made = command.output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let pem = String::from_utf8(made.stdout).unwrap();
    world.secret("signing-key", &pem);
    let script = "const c = require('crypto'), jwk = c.createPublicKey(require('fs').readFileSync(0)).export({format: 'jwk'});\
                  console.log(JSON.stringify({keys: [{...jwk, kid: process.argv[1], alg: process.argv[2]}]}))";
    let key = fs::File::open(world.write("key.pem", &pem)).unwrap();
    let set = Command::new("node").args(["-e", script, kid, algorithm]).stdin(key).output().unwrap();
    assert!(set.status.success(), "{set:?}");
    // Written aside and renamed: the receiver reads it for each request.
    let aside = world.write("aside.json", std::str::from_utf8(&set.stdout).unwrap());
    fs::rename(aside, world.path("keys.json")).unwrap();
    fs::remove_file(world.path("key.pem")).unwrap();
    pem
}

/// Nothing of a secret is in what the daemon wrote, whichever line of it.
#[track_caller]
pub(super) fn assert_nowhere(world: &World, secret: &str) {
    let (log, journal) = (world.log(), serde_json::to_string(&world.journal()).unwrap());
    for line in secret.lines().filter(|line| line.len() >= 24 && !line.starts_with("-----")) {
        assert!(!log.contains(line), "a secret is in the log");
        assert!(!journal.contains(line), "a secret is in the journal");
    }
}

#[test]
fn a_receiver_believes_each_bot_who_it_is_by_every_algorithm() {
    for algorithm in ["ES256", "EdDSA", "RS256"] {
        let world = world(&format!(
            "kind = \"jwt\"\nkey = \"vault:signing-key\"\nalgorithm = \"{algorithm}\"\nkey_id = \"k1\"\n\
             issuer = \"https://host.test\"\nsubject = \"spiffe://test/{{identity}}\"\naudience = \"{AUDIENCE}\"\n\
             claims = {{ api = \"{{api}}\", host = \"{{host}}\", uid = \"{{workload.uid}}\" }}\nttl = \"60s\""
        ));
        let pem = make_key(&world, algorithm, "k1");
        receiver(&world, "keys.json");
        world.daemon();
        let stolen = format!("authorization: Bearer {STOLEN}");
        for version in ["--http1.1", "--http2"] {
            let answer = world.curl(&[version, "-H", &stolen, "https://raw.test/v1/x"]);
            assert_eq!(answer.status, 200, "{algorithm}: {answer:?}");
            let claims = answer.json();
            assert_eq!(
                (&claims["sub"], &claims["iss"]),
                (&"spiffe://test/curl".into(), &"https://host.test".into())
            );
            assert_eq!(
                (&claims["api"], &claims["host"], &claims["uid"]),
                (&"tokens".into(), &"raw.test".into(), &"0".into())
            );
        }
        let script = "import urllib.request as u; print(u.urlopen('https://raw.test/v1/x').read().decode())";
        let python = world.python(script, &[]);
        assert_eq!(python.json()["sub"], "spiffe://test/python", "{python:?}");
        // The two calls of curl had one token, and python another one.
        let received = received(&world);
        let tokens: Vec<_> = received.iter().map(|it| it["authorization"].as_str().unwrap()).collect();
        assert_eq!((tokens.len(), tokens[0] == tokens[1], tokens[1] == tokens[2]), (3, true, false));
        for token in tokens {
            assert_nowhere(&world, token.trim_start_matches("Bearer "));
        }
        assert_nowhere(&world, &pem);
        let decision = world.decision(Some("/v1/x"));
        assert_eq!(
            decision["credential"]["name"].as_str().or(decision["credential"].as_str()),
            Some("token"),
            "{decision}"
        );
    }
}

#[test]
fn a_new_key_signs_without_a_restart_and_a_key_that_is_not_there_is_502() {
    let world = world(&format!(
        "kind = \"jwt\"\nkey = \"vault:signing-key\"\nalgorithm = \"ES256\"\nkey_id = \"k1\"\naudience = \"{AUDIENCE}\"\nper = \"call\""
    ));
    world.write("keys.json", "{\"keys\": []}");
    receiver(&world, "keys.json");
    world.daemon();
    let refused = world.curl(&["https://raw.test/v1/x"]);
    assert_eq!(
        (refused.status, refused.json()["type"].as_str()),
        (502, Some("urn:vouchsafe:problem:credential-unavailable"))
    );
    assert!(received(&world).is_empty(), "nothing was sent");
    let reason = world.decision(Some("/v1/x"))["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("vouchsafe secret set signing-key"), "{reason}");
    make_key(&world, "ES256", "k1");
    // The command tells the daemon.
    wait_until("a call with the key", || {
        (world.curl(&["https://raw.test/v1/x"]).status == 200).then_some(())
    });
    let first = told(&world);
    assert_ne!(first["jti"], told(&world)["jti"], "each call has its own");
    make_key(&world, "ES256", "k1");
    wait_until("a call with the new key", || {
        (world.curl(&["https://raw.test/v1/x"]).status == 200).then_some(())
    });
    // A key of another algorithm is told by what is wrong with it.
    let pem = make_key(&world, "RS256", "k1");
    wait_until("the refusal", || (world.curl(&["https://raw.test/v1/y"]).status == 502).then_some(()));
    let reason = world.decision(Some("/v1/y"))["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("signing-key") && reason.contains("ES256"), "{reason}");
    assert_nowhere(&world, &pem);
}
