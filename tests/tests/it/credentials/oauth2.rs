//! `kind = "oauth2"`: at a certified authorization server, and an API that asks it about each token.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use tests::{RAW_ADDRESS, STOLEN, World, wait_until};

use super::jwt::{assert_nowhere, make_key, received, told, world as world_of};
use super::mtls::Authority;

const SERVER: &str = include_str!("receivers/authorization/server.mjs");
const PACKAGE: &str = include_str!("receivers/authorization/package.json");
const LOCK: &str = include_str!("receivers/authorization/package-lock.json");

/// Who the bots' host says that it is, and who the authorization server is.
const ISSUER: &str = "http://127.0.0.1:8765";
const SERVER_URL: &str = "https://raw.test";

/// Installs the server as the lock file says, once; returns the script.
fn installed() -> &'static Path {
    static SCRIPT: OnceLock<PathBuf> = OnceLock::new();
    SCRIPT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authorization-server");
        fs::create_dir_all(&folder).unwrap();
        let lock = fs::File::create(folder.join("lock")).unwrap();
        lock.lock().unwrap();
        let done = folder.join("installed");
        if fs::read_to_string(&done).is_ok_and(|text| text == LOCK) {
            // As it was.
        } else {
            fs::write(folder.join("package.json"), PACKAGE).unwrap();
            fs::write(folder.join("package-lock.json"), LOCK).unwrap();
            let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
            let output = Command::new("npm").args(arguments).current_dir(&folder).output().unwrap();
            assert!(output.status.success(), "npm cannot install the server: {output:?}");
            fs::write(done, LOCK).unwrap();
        }
        let script = folder.join("server.mjs");
        fs::write(&script, SERVER).unwrap();
        script
    })
}

/// A world whose credential is of the server; nothing runs there yet.
fn world(definition: &str) -> World {
    world_of(&format!("kind = \"oauth2\"\ntoken_url = \"{SERVER_URL}/token\"\n{definition}"))
}

/// Starts the server, and then the daemon.
fn start(world: &World, settings: &Value) {
    serve(world, settings);
    world.daemon();
}

fn serve(world: &World, settings: &Value) {
    world.write("settings.json", &settings.to_string());
    let script = installed().display().to_string();
    let arguments =
        [script.as_str(), RAW_ADDRESS, "api/server.pem", "api/server.key", "api/ca.pem", "settings.json"];
    world.server("authorization", "node", &arguments, &format!("{RAW_ADDRESS}:443"));
}

/// The host as an issuer.
fn issues(world: &World) {
    world.set("issuer.url", &format!("\"{ISSUER}\""));
    world.set("issuer.listen", "\"127.0.0.1:8765\"");
    world.set("issuer.subject", "\"spiffe://test/{identity}\"");
}

/// The requests for tokens that the server answered.
fn asked(world: &World) -> Vec<Value> {
    let text = fs::read_to_string(world.path("tokens.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Nothing of what was sent to the server or came from it is in what the daemon wrote.
#[track_caller]
fn assert_canary(world: &World) {
    let secret =
        ["refresh_token", "subject_token", "actor_token", "assertion", "client_assertion", "client_secret"];
    for asked in asked(world) {
        let sent = secret.into_iter().map(|name| &asked["params"][name]);
        let came =
            [&asked["answer"]["access_token"], &asked["answer"]["refresh_token"], &asked["authorization"]];
        for text in sent.chain(came).filter_map(Value::as_str) {
            assert_nowhere(world, text.trim_start_matches("Basic "));
        }
    }
}

/// What python is told.
#[track_caller]
fn told_python(world: &World) -> Value {
    let call = "import urllib.request as u; print(u.urlopen('https://raw.test/v1/x').read().decode())";
    world.python(call, &[]).json()
}

#[test]
fn a_client_with_a_secret_gets_a_token_that_the_server_vouches_for() {
    let more =
        "grant = \"client_credentials\"\nscopes = [\"read\", \"write\"]\nresource = \"https://raw.test/v1\"";
    for (id, secret, auth) in
        [("basic bot", "p:ss%w rd+/~*&=", ""), ("post", "secret-of-post-0123456789", "auth = \"post\"\n")]
    {
        let world = world(&format!("client_id = \"{id}\"\nclient_secret = \"vault:client\"\n{auth}{more}"));
        world.secret("client", secret);
        start(&world, &json!({}));
        let stolen = format!("authorization: Bearer {STOLEN}");
        for version in ["--http1.1", "--http2"] {
            let answer = world.curl(&[version, "-H", &stolen, "https://raw.test/v1/x"]);
            assert_eq!(answer.status, 200, "{answer:?} {}", world.decision(Some("/v1/x"))["reason"]);
            let token = answer.json();
            assert_eq!(
                (&token["client_id"], &token["scope"], &token["aud"]),
                (&id.into(), &"read write".into(), &"https://raw.test/v1".into())
            );
        }
        assert_eq!(told_python(&world)["client_id"], id);
        assert_eq!(asked(&world).len(), 1, "one token for all");
        assert_canary(&world);
    }
}

#[test]
fn a_client_with_a_key_signs_for_its_token() {
    for algorithm in ["ES256", "RS256", "EdDSA"] {
        let world = world(&format!(
            "grant = \"client_credentials\"\nclient_id = \"key\"\nclient_key = \"vault:signing-key\"\n\
             client_algorithm = \"{algorithm}\"\nclient_key_id = \"k1\"\nclient_audience = \"{SERVER_URL}\""
        ));
        make_key(&world, algorithm, "k1");
        start(&world, &json!({ "jwks": "keys.json" }));
        assert_eq!(told(&world)["client_id"], "key", "{algorithm}");
        assert_canary(&world);
        // Another key than the server knows: refused, and told so.
        let other = Command::new("openssl").args(["genpkey", "-algorithm", "ED25519"]).output().unwrap();
        world.secret("signing-key", std::str::from_utf8(&other.stdout).unwrap());
        world.policy(
            "credentials/token.toml",
            &format!(
                "[credential.token]\nkind = \"oauth2\"\ntoken_url = \"{SERVER_URL}/token\"\ngrant = \"client_credentials\"\n\
                 client_id = \"key\"\nclient_key = \"vault:signing-key\"\nclient_algorithm = \"EdDSA\"\n"
            ),
        );
        assert_eq!(world.reload().code, Some(0));
        assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 502);
        let reason = world.decision(Some("/v1/x"))["reason"].as_str().unwrap().to_owned();
        assert!(reason.contains("invalid_client"), "{reason}");
    }
}

#[test]
fn a_client_with_a_certificate_is_known_by_its_connection() {
    for id in ["tls", "self"] {
        let world = world(&format!(
            "grant = \"client_credentials\"\nclient_id = \"{id}\"\nclient_certificate = \"vault:client\""
        ));
        let authority = Authority::new();
        let bundle = authority.issue("tls");
        world.write("bots-ca.pem", &authority.pem);
        world.write("self.pem", bundle.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap());
        world.secret("client", &bundle);
        start(&world, &json!({ "clientsCa": "bots-ca.pem", "selfSigned": "self.pem" }));
        assert_eq!(told(&world)["client_id"], id);
        // Of a stranger, under the same name.
        world.secret("client", &Authority::new().issue("tls"));
        world.restart();
        assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 502);
        assert_canary(&world);
        assert_nowhere(&world, bundle.split("-----BEGIN PRIVATE KEY-----").nth(1).unwrap());
    }
}

const REFRESH: &str = "grant = \"refresh_token\"\nclient_id = \"web\"\nclient_secret = \"vault:client\"\n\
                       refresh_token = \"vault:refresh\"";

/// A world with a refresh token whose access tokens end at once.
fn signed_in() -> (World, String) {
    let world = world(REFRESH);
    world.secret("client", "secret-of-web-0123456789");
    serve(&world, &json!({ "ttl": 3 }));
    let first = fs::read_to_string(world.path("refresh-token")).unwrap();
    world.secret("refresh", &first);
    world.daemon();
    (world, first)
}

/// The refresh tokens that were used, each of which must have been used once.
#[track_caller]
fn used(world: &World) -> Vec<String> {
    let asked = asked(world);
    let used: Vec<String> =
        asked.iter().map(|it| it["params"]["refresh_token"].as_str().unwrap().to_owned()).collect();
    assert_eq!(used.iter().collect::<HashSet<_>>().len(), used.len(), "one was used twice: {asked:?}");
    used
}

const MANY: &str = "
import threading, time, urllib.request
seen = set()
def call():
    for _ in range(20):
        try:
            seen.add(urllib.request.urlopen('https://raw.test/v1/x').status)
        except Exception as error:
            seen.add(str(error))
        time.sleep(0.2)
all = [threading.Thread(target=call) for _ in range(6)]
[thread.start() for thread in all]
[thread.join() for thread in all]
print(seen)
";

#[test]
fn refresh_tokens_turn_while_calls_run_and_the_newest_one_outlives_a_killed_daemon() {
    let (world, first) = signed_in();
    let told_all = world.python(MANY, &[]);
    assert_eq!(told_all.stdout.trim(), "{200}", "{told_all:?}");
    assert_eq!(told(&world)["sub"], "alice");
    let before = used(&world);
    assert!(before.len() >= 3 && before[0] == first, "{}", before.len());
    for _ in 0..4 {
        // In the middle of calls, so also in the middle of a refresh.
        let mut calls = world.bot("python3").args(["-c", MANY]).spawn();
        std::thread::sleep(Duration::from_millis(700));
        let stored = || world.vouchsafe(&["secret", "list"]).stdout;
        let version = stored();
        wait_until("another refresh", || (stored() != version).then_some(()));
        world.kill9();
        let _ = calls.wait();
        world.daemon();
        assert_eq!(told(&world)["sub"], "alice", "{:?}", asked(&world).last());
        used(&world);
    }
    assert!(used(&world).len() >= before.len() + 8);
    // Ended as systemd does it, too.
    world.restart();
    assert_eq!(told(&world)["sub"], "alice");
    used(&world);
    assert_canary(&world);
    assert_nowhere(&world, &first);
}

#[test]
fn a_refresh_token_that_somebody_else_used_ends_it_and_the_operator_is_told_until_he_signs_in_again() {
    let (world, first) = signed_in();
    assert_eq!(told(&world)["sub"], "alice");
    // Stolen from a backup, say. The server takes the second use for theft, and ends all that came of it.
    let mut thief = world.enter(None);
    thief.args(["/usr/bin/curl", "-sS", "--cacert"]).arg(world.path("api/ca.pem"));
    thief.args(["-u", "web:secret-of-web-0123456789", "-d", "grant_type=refresh_token", "-d"]);
    thief.arg(format!("refresh_token={first}")).arg("https://raw.test/token");
    let answer: Value = serde_json::from_slice(&thief.output().unwrap().stdout).unwrap();
    assert_eq!(answer["error"], "invalid_grant", "{answer}");
    wait_until("the end of the token", || {
        (world.curl(&["https://raw.test/v1/x"]).status == 502).then_some(())
    });
    let reason = world.decision(Some("/v1/x"))["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("invalid_grant") && reason.contains("sign in again"), "{reason}");
    // Not hammered on.
    let before = asked(&world).len();
    for _ in 0..30 {
        assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 502);
    }
    assert!(asked(&world).len() <= before + 2);
}

#[test]
fn an_assertion_of_this_host_or_of_a_key_gives_each_bot_a_token_of_its_own() {
    let client = "client_id = \"exchanger\"\nclient_secret = \"vault:client\"\ngrant = \"jwt_bearer\"\n";
    let of_key = format!(
        "{{ key = \"vault:signing-key\", algorithm = \"ES256\", key_id = \"k1\", issuer = \"https://signer.test\", \
         subject = \"spiffe://test/{{identity}}\", audience = \"{SERVER_URL}\" }}"
    );
    for assertion in [format!("{{ audience = \"{SERVER_URL}\" }}"), of_key] {
        let world = world(&format!("{client}assertion = {assertion}"));
        issues(&world);
        make_key(&world, "ES256", "k1");
        world.secret("client", "secret-of-exchanger-0123456789");
        // The server finds the issuer when it starts.
        world.daemon();
        serve(&world, &json!({ "issuer": ISSUER, "signer": "keys.json" }));
        for _ in 0..3 {
            assert_eq!(told(&world)["sub"], "spiffe://test/curl");
            assert_eq!(told_python(&world)["sub"], "spiffe://test/python");
        }
        assert_eq!(asked(&world).len(), 2, "one for each");
        assert_canary(&world);
    }
}

/// A token of a client of the server, as somebody else would get it.
fn token_of_post(world: &World) -> String {
    let mut command = world.enter(None);
    command.args(["/usr/bin/curl", "-sS", "--cacert"]).arg(world.path("api/ca.pem"));
    command
        .args(["-d", "grant_type=client_credentials&client_id=post&client_secret=secret-of-post-0123456789"]);
    let output = command.arg("https://raw.test/token").output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    answer["access_token"].as_str().unwrap().to_owned()
}

const EXCHANGE: &str =
    "client_id = \"exchanger\"\nclient_secret = \"vault:client\"\ngrant = \"token_exchange\"\n";

#[test]
fn a_token_of_this_host_is_exchanged_for_one_on_behalf_of_each_bot_with_its_actor() {
    let world = world(&format!(
        "{EXCHANGE}subject_token = \"issuer:{SERVER_URL}\"\nactor_token = \"vault:actor\"\nscopes = \"read\"\n\
         audience = \"https://crm.test\"\nrequested_token_type = \"access_token\""
    ));
    issues(&world);
    world.secret("client", "secret-of-exchanger-0123456789");
    world.daemon();
    serve(&world, &json!({ "issuer": ISSUER }));
    // Without an actor there is no call.
    assert_eq!(world.curl(&["https://raw.test/v1/x"]).status, 502);
    let actor = token_of_post(&world);
    world.secret("actor", &actor);
    for _ in 0..3 {
        for (token, name) in [(told(&world), "curl"), (told_python(&world), "python")] {
            assert_eq!(token["sub"], format!("spiffe://test/{name}"));
            assert_eq!((&token["act"]["sub"], &token["scope"]), (&"post".into(), &"read".into()));
        }
    }
    let exchanged = asked(&world).into_iter().filter(|it| it["client"] == "exchanger").count();
    assert_eq!(exchanged, 2, "one for each");
    assert_canary(&world);
    assert_nowhere(&world, &actor);
}

#[test]
fn what_the_server_does_not_believe_is_502_and_the_reason_repeats_no_token() {
    for (definition, settings, says) in [
        // An audience that is not the server's.
        (
            format!("{EXCHANGE}subject_token = \"issuer:https://other.test\""),
            json!({ "issuer": ISSUER }),
            "subject or actor",
        ),
        // An issuer that the server does not know.
        (format!("{EXCHANGE}subject_token = \"issuer:{SERVER_URL}\""), json!({}), "subject or actor"),
        // A token of another type than was asked for.
        (
            format!(
                "{EXCHANGE}subject_token = \"issuer:{SERVER_URL}\"\nrequested_token_type = \"access_token\""
            ),
            json!({ "issuer": ISSUER, "issued": "urn:ietf:params:oauth:token-type:jwt" }),
            "another type",
        ),
        (
            "client_id = \"post\"\nclient_secret = \"vault:client\"\ngrant = \"client_credentials\""
                .to_owned(),
            json!({}),
            "invalid_client",
        ),
        (
            "client_id = \"exchanger\"\nclient_secret = \"vault:client\"\ngrant = \"client_credentials\""
                .to_owned(),
            json!({}),
            "answered 400",
        ),
    ] {
        let world = world(&definition);
        issues(&world);
        world.secret("client", "secret-of-exchanger-0123456789");
        world.daemon();
        serve(&world, &settings);
        let answer = world.curl(&["https://raw.test/v1/x"]);
        assert_eq!(
            (answer.status, answer.json()["type"].as_str()),
            (502, Some("urn:vouchsafe:problem:credential-unavailable")),
            "{answer:?}"
        );
        assert!(received(&world).is_empty(), "nothing was sent");
        let reason = world.decision(Some("/v1/x"))["reason"].as_str().unwrap().to_owned();
        assert!(reason.starts_with("credential token:") && reason.contains(says), "{definition}: {reason}");
        assert_canary(&world);
    }
}
