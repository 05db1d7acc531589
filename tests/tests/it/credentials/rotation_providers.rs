//! Keys that their own provider makes anew: access keys at IAM, secret ids at HashiCorp Vault.

use std::fs;

use serde_json::Value;
use tests::{Finished, RAW_ADDRESS, World, wait_until};

use super::aws::{self, assert_ok, sdk};
use super::jwt::{assert_nowhere, world as world_of};

/// A world with an access key in one text, whose rotation asks the server that checks signatures.
fn with_access_key() -> (World, aws::Key) {
    let (world, key) = aws::start(|_| {
        "access_key = \"vault:key\"\nregion = \"eu-central-1\"\nservice = \"s3\"\nprobe = \"GET https://raw.test/bucket\"".to_owned()
    });
    world.secret(
        "key",
        &format!("{{\"AccessKeyId\": \"{}\", \"SecretAccessKey\": \"{}\"}}", key.id, key.secret),
    );
    world.set("rotation.key.provider", "\"aws\"");
    world.set("rotation.key.url", "\"https://raw.test/\"");
    world.set("rotation.key.overlap", "\"2s\"");
    world.set("rotation.key.timeout", "\"4s\"");
    world.set("log.level", "\"trace,aya=info,aya_obj=info\"");
    world.restart();
    (world, key)
}

fn assert_no_canary(world: &World) {
    let journal = serde_json::to_string(&world.journal()).unwrap();
    assert!(!world.log().contains("CANARY") && !journal.contains("CANARY"));
}

const STORE: &str = "s3 = client('s3')\ns3.put_object(Bucket='bucket', Key='x', Body=b'hello')\n";

/// The changes of secrets in the journal: what became of which.
fn changes(world: &World) -> Vec<(String, Option<u64>)> {
    let is_change = |record: &Value| (record["kind"] == "secret").then(|| record.clone());
    let all = world.journal().into_iter().filter_map(|record| is_change(&record));
    all.map(|it| {
        (
            format!("{} {}", it["secret"].as_str().unwrap(), it["change"].as_str().unwrap()),
            it["version"].as_u64(),
        )
    })
    .collect()
}

/// The ids of the access keys that the server knows, as its owner sees them.
fn known(world: &World) -> Vec<String> {
    // Another credential of the same key, for IAM.
    let finished = sdk(
        world,
        "for key in client('iam').list_access_keys(UserName='host')['AccessKeyMetadata']: print(key['AccessKeyId'])\n",
    );
    assert_ok(&finished);
    finished.stdout.lines().map(str::to_owned).collect()
}

/// Has calls signed for the service that the client signs for.
fn for_any_service(world: &World) {
    world
        .policy("credentials/token.toml", "[credential.token]\nkind = \"aws\"\naccess_key = \"vault:key\"\n");
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
}

#[test]
fn an_access_key_makes_its_successor_at_iam_and_is_deleted_after_the_overlap() {
    let (world, key) = with_access_key();
    assert_ok(&sdk(&world, STORE));
    let rotated = world.vouchsafe(&["secret", "rotate", "key"]);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    assert!(rotated.stdout.starts_with("key is version 2 now, tried with token;"), "{rotated:?}");
    assert_ok(&sdk(&world, STORE));
    let ended = || changes(&world).contains(&("key ended".to_owned(), Some(1)));
    wait_until("the end of the first one", || ended().then_some(()));
    assert_ok(&sdk(&world, STORE));
    for_any_service(&world);
    let left = known(&world);
    assert!(left.len() == 1 && left[0] != key.id, "{left:?}");
    let set_and_rotated = [
        ("key set".to_owned(), Some(1)),
        ("key rotated".to_owned(), Some(2)),
        ("key ended".to_owned(), Some(1)),
    ];
    assert_eq!(
        changes(&world).iter().filter(|it| it.0.starts_with("key ")).cloned().collect::<Vec<_>>(),
        set_and_rotated
    );
    let record = world.record("secret", |record| record["change"] == "rotated");
    assert_eq!((&record["tried"][0], &record["by"]["uid"]), (&"token".into(), &0.into()), "{record}");
    let shown = world.vouchsafe(&["audit", "tail"]).stdout;
    assert!(shown.contains("secret key rotated, version 2, tried with token, by uid 0"), "{shown}");
    assert_nowhere(&world, &key.secret);
}

#[test]
fn a_new_access_key_that_is_not_taken_or_cannot_be_made_changes_nothing() {
    let (world, key) = with_access_key();
    // What the probe asks for is not there.
    world.policy(
        "credentials/token.toml",
        "[credential.token]\nkind = \"aws\"\naccess_key = \"vault:key\"\nregion = \"eu-central-1\"\nservice = \"s3\"\n\
         probe = \"GET https://raw.test/no-such-bucket\"\n",
    );
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    let rotated = world.vouchsafe(&["secret", "rotate", "key"]);
    assert!(rotated.code == Some(1) && rotated.stderr.contains("answered by 404"), "{rotated:?}");
    assert_eq!(changes(&world).last().unwrap().0, "key failed");
    for_any_service(&world);
    assert_eq!(known(&world), [key.id.as_str()]);
    // AWS lets a user have two.
    assert_ok(&sdk(&world, "client('iam').create_access_key(UserName='host')\n"));
    let rotated = world.vouchsafe(&["secret", "rotate", "key"]);
    assert!(rotated.code == Some(1), "{rotated:?}");
    assert!(
        rotated.stderr.contains("LimitExceeded") && rotated.stderr.contains("delete the one"),
        "{rotated:?}"
    );
    assert_eq!(known(&world).len(), 2);
    // One that is none.
    world.secret("key", "{\"AccessKeyId\": \"CANARY\"}");
    let rotated = world.vouchsafe(&["secret", "rotate", "key"]);
    assert!(rotated.code == Some(1) && rotated.stderr.contains("its access key is none"), "{rotated:?}");
    assert_no_canary(&world);
}

const SLOW_IAM: &str = include_str!("receivers/slow_iam.py");

/// A world whose IAM is slow: a new key is refused so many times by each service.
fn with_slow_iam(times: &str) -> World {
    let world = world_of("kind = \"static\"\nsecret = \"vault:key\"");
    world.policy(
        "apis/apis.toml",
        "[api.tokens]\nhosts = [\"raw.test\"]\n[api.demo]\nhosts = [\"api.test\"]\n",
    );
    world.write("slow_iam.py", SLOW_IAM);
    let arguments = ["slow_iam.py", RAW_ADDRESS, "api/server.pem", "api/server.key", times];
    world.server("iam", "/usr/bin/python3", &arguments, &format!("{RAW_ADDRESS}:443"));
    // One refuses the key itself, with 400; of the other one, the keys of its role are refused.
    let credential = |more: &str| {
        format!("kind = \"aws\"\naccess_key = \"vault:key\"\nregion = \"eu-central-1\"\n{more}\n")
    };
    let direct = credential("service = \"dynamodb\"\nprobe = \"GET https://raw.test/tables\"");
    let of_role = credential(
        "service = \"s3\"\nprobe = \"GET https://raw.test/bucket\"\nrole_arn = \"arn:aws:iam::123456789012:role/reports\"\n\
         sts_url = \"https://raw.test/\"",
    );
    world.policy(
        "credentials/token.toml",
        &format!("[credential.token]\n{direct}\n[credential.of-role]\n{of_role}"),
    );
    world.secret("key", "{\"AccessKeyId\": \"OLD\", \"SecretAccessKey\": \"CANARY\"}");
    world.set("rotation.key.provider", "\"aws\"");
    world.set("rotation.key.url", "\"https://raw.test/\"");
    world.set("rotation.key.overlap", "\"2s\"");
    world.daemon();
    world
}

#[test]
fn a_new_access_key_is_waited_for_by_whichever_service_does_not_know_it_yet() {
    let world = with_slow_iam("1");
    let rotated = world.vouchsafe(&["secret", "rotate", "key"]);
    assert!(rotated.code == Some(0) && rotated.stdout.contains("key is version 2 now"), "{rotated:?}");
    assert!(rotated.stdout.contains("token") && rotated.stdout.contains("of-role"), "{rotated:?}");
    assert_no_canary(&world);
    // Killed between that and the end of the one before, the daemon ends it all the same.
    world.kill9();
    world.daemon();
    wait_until("the end of the first one", || {
        calls(&world).contains("OLD DeleteAccessKey OLD").then_some(())
    });
}

fn calls(world: &World) -> String {
    fs::read_to_string(world.path("iam.calls")).unwrap_or_default()
}

#[test]
fn an_access_key_that_was_made_before_the_daemon_was_killed_is_deleted_after_its_start() {
    let world = with_slow_iam("1000");
    let listed = || world.vouchsafe(&["secret", "list"]).stdout;
    let mut command = world.vouchsafe_command(&["secret", "rotate", "key"]);
    let mut rotate = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    wait_until("a new one", || listed().contains("key.next").then_some(()));
    world.kill9();
    assert!(!rotate.wait().unwrap().success());
    assert!(!calls(&world).contains("DeleteAccessKey"), "nobody has ended it yet");
    world.daemon();
    wait_until("the end of what was made", || (!listed().contains("key.next")).then_some(()));
    assert_eq!(calls(&world), "OLD CreateAccessKey -\nOLD DeleteAccessKey NEW\n");
    world.record("secret", |record| record["change"] == "discarded");
}

const VAULT: &str = include_str!("receivers/vault.js");

fn at_vault(world: &World, id: &str) -> Finished {
    let body = format!("{{\"role_id\": \"role\", \"secret_id\": \"{id}\"}}");
    let script = "import json, sys, urllib.request as u\nu.urlopen(u.Request('http://127.0.0.1:8200/v1/auth/approle/login', \
                  data=sys.argv[1].encode(), method='POST'))\n";
    let output = world.enter(None).args(["/usr/bin/python3", "-c", script, &body]).output().unwrap();
    Finished {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn the_secret_id_of_the_daemon_is_made_anew_by_vault_and_logins_go_on() {
    let world = World::new();
    world.write("vault.js", VAULT);
    world.write("vault.json", &serde_json::json!({ "demo": [{ "key": "one" }] }).to_string());
    world.server("vault", "node", &["vault.js", "8200", "CANARY-first-id", "x"], "127.0.0.1:8200");
    world.secret("vault/secret-id", "CANARY-first-id");
    world.set("hashicorp.address", "\"http://127.0.0.1:8200\"");
    world.set("hashicorp.approle", "{ role_id = \"role\", secret_id = \"vault:vault/secret-id\" }");
    world.set("rotation.\"vault/secret-id\".provider", "\"hashicorp\"");
    world.set("rotation.\"vault/secret-id\".role_name", "\"vouchsafe\"");
    world.set("rotation.\"vault/secret-id\".overlap", "\"2s\"");
    world.set("log.level", "\"trace,aya=info,aya_obj=info\"");
    world.policy(
        "credentials/demo-key.toml",
        "[credential.demo-key]\nkind = \"static\"\nsecret = \"hashicorp:secret/demo#key\"\n",
    );
    world.daemon();
    let rotated = world.vouchsafe(&["secret", "rotate", "vault/secret-id"]);
    assert_eq!(rotated.code, Some(0), "{rotated:?}");
    assert!(rotated.stdout.contains("version 2 now, tried with [hashicorp];"), "{rotated:?}");
    wait_until("the end of the first one", || {
        (at_vault(&world, "CANARY-first-id").code == Some(1)).then_some(())
    });
    world.write(
        "vault.json",
        &serde_json::json!({ "demo": [{ "key": "one" }, { "key": "two" }] }).to_string(),
    );
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    let version = || world.vouchsafe(&["credential", "list", "--json"]).stdout;
    wait_until("the new version of the key", || version().contains("\"version\": 2").then_some(()));
    // With the first one destroyed, only the new one logs in.
    world.restart();
    wait_until("a login with the new one", || version().contains("\"version\": 2").then_some(()));
    assert_no_canary(&world);
    let calls = fs::read_to_string(world.path("vault.calls")).unwrap();
    assert!(calls.contains("POST auth/approle/role/vouchsafe/secret-id/destroy 204"), "{calls}");
}
