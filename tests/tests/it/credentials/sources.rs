//! Secrets that are not in the daemon's own store.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;
use tests::{CANARY, STOLEN, World, wait_until};

/// Puts a key in place as whoever rotates it does: written aside, closed to others, renamed.
fn put(world: &World, key: &str, mode: u32) -> PathBuf {
    let aside = world.write("keys/aside", &format!("{key}\n"));
    fs::set_permissions(&aside, fs::Permissions::from_mode(mode)).unwrap();
    let path = world.path("keys/demo");
    fs::rename(aside, &path).unwrap();
    path
}

/// Which key the API got, of the call that is made now; the refusal's text when there was none.
pub(super) fn call(world: &World) -> String {
    let answer = world.curl(&["https://api.test/v1/x"]);
    match answer.status {
        200 => answer.json()["key"].as_str().unwrap().to_owned(),
        502 => answer.json()["detail"].as_str().unwrap().to_owned(),
        _ => panic!("{answer:?}"),
    }
}

#[test]
fn a_key_in_a_file_is_taken_up_when_it_changes_and_refused_once_others_can_read_it() {
    let world = World::new();
    world.set("log.level", "\"trace,aya=info,aya_obj=info\"");
    let path = put(&world, CANARY, 0o600);
    let definition =
        format!("[credential.demo-key]\nkind = \"static\"\nsecret = \"file:{}\"\n", path.display());
    world.policy("credentials/demo-key.toml", &definition);
    world.daemon();
    let shown = |arguments: &[&str]| {
        let finished = world.vouchsafe(&[&["credential"], arguments].concat());
        assert!(!format!("{finished:?}").contains(CANARY), "{finished:?}");
        (finished.code, finished.stdout)
    };
    let (code, page) = shown(&["show", "demo-key"]);
    assert!(code == Some(0) && page.contains("last used  never"), "{page}");
    assert_eq!(call(&world), "ours");
    let (code, listed) = shown(&["list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(code, Some(0), "{listed}");
    assert_eq!(listed[0]["name"], "demo-key");
    assert_eq!(listed[0]["source"], format!("file:{}", path.display()));
    assert_eq!((&listed[0]["version"], &listed[0]["last_used_by"]), (&1.into(), &"curl".into()), "{listed}");
    assert!(listed[0]["since"].is_string() && listed[0]["last_used"].is_string(), "{listed}");
    assert_eq!(world.vouchsafe(&["credential", "show", "no-such"]).code, Some(1));

    put(&world, STOLEN, 0o600);
    wait_until("the new key", || {
        let key = call(&world);
        assert!(key == "ours" || key == "stolen", "no call fails meanwhile: {key}");
        (key == "stolen").then_some(())
    });

    put(&world, CANARY, 0o644);
    let refusal = wait_until("the refusal", || Some(call(&world)).filter(|said| said != "stolen"));
    assert!(refusal.contains("the credential demo-key is not available"), "{refusal}");
    assert!(!refusal.contains("keys/demo"), "the bot does not learn where it is: {refusal}");
    let decision = world.decision(Some("/v1/x"));
    let reason = decision["reason"].as_str().unwrap();
    assert!(reason.contains("open to everybody") && reason.contains("chmod 0600"), "{reason}");

    let (code, page) = shown(&["show", "demo-key"]);
    assert!(code == Some(1) && page.contains("problem") && page.contains("chmod 0600"), "{page}");

    let status = world.vouchsafe(&["status"]);
    assert!(status.code == Some(1) && status.stdout.contains("credentials demo-key"), "{status:?}");

    fs::remove_file(&path).unwrap();
    wait_until("the end of the key", || call(&world).contains("is not set up").then_some(()));
    put(&world, CANARY, 0o400);
    wait_until("the key again", || (call(&world) == "ours").then_some(()));

    for (place, text) in [("log", world.log()), ("journal", format!("{:?}", world.journal()))] {
        assert!(!text.contains(CANARY) && !text.contains(STOLEN), "a key is in the {place}");
    }
}

#[test]
fn nobody_else_leads_the_path_of_a_key_to_another_secret() {
    let world = World::new();
    // Of root's, closed to everybody else, and for nobody's API.
    let other = world.write("secret/demo", &format!("{STOLEN}\n"));
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let key = world.write("home/app/keys/demo", &format!("{CANARY}\n"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let home = world.path("home");
    std::os::unix::fs::chown(&home, Some(1000), Some(1000)).unwrap();
    let definition =
        format!("[credential.demo-key]\nkind = \"static\"\nsecret = \"file:{}\"\n", key.display());
    world.policy("credentials/demo-key.toml", &definition);
    world.daemon();
    // Whoever owns a folder on the way can exchange what is below it, though not read or write a key.
    let script = "mv app was && mkdir app && ln -s ../../secret app/keys";
    let moved = std::process::Command::new("setpriv")
        .args(["--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", script])
        .current_dir(&home)
        .status()
        .unwrap();
    assert!(moved.success());
    let _ = world.vouchsafe(&["reload"]);
    let said = call(&world);
    assert!(said.contains("the credential demo-key is not available"), "{said}");
    let page = world.vouchsafe(&["credential", "show", "demo-key"]).stdout;
    let why = format!("{} belongs to", home.display());
    assert!(page.contains(&why) && page.contains("who can change it"), "{page}");
}

pub(super) const VAULT: &str = include_str!("receivers/vault.js");

/// Has the credential be at another place, without a restart.
pub(super) fn refer(world: &World, secret: &str) {
    let definition = format!("[credential.demo-key]\nkind = \"static\"\nsecret = \"{secret}\"\n");
    world.policy("credentials/demo-key.toml", &definition);
}

#[test]
fn a_key_comes_from_hashicorp_vault_or_a_program_and_what_was_leased_is_given_back() {
    let world = World::new();
    world.write("vault.js", VAULT);
    let keep = |keys: &[&str]| {
        let versions: Vec<Value> = keys.iter().map(|key| serde_json::json!({ "key": key })).collect();
        world.write("vault.json", &serde_json::json!({ "demo": versions }).to_string());
    };
    keep(&[CANARY]);
    world.server("vault", "node", &["vault.js", "8200", "CANARY-secret-id", CANARY], "127.0.0.1:8200");
    world.secret("vault/secret-id", "CANARY-secret-id");
    let tool = world.program("tool", &format!("#!/bin/sh\necho {STOLEN}\n"));
    world.set("log.level", "\"trace,aya=info,aya_obj=info\"");
    world.set("hashicorp.address", "\"http://127.0.0.1:8200\"");
    world.set("hashicorp.approle", "{ role_id = \"role\", secret_id = \"vault:vault/secret-id\" }");
    world.set("exec.demo", &format!("{{ command = [\"{}\"] }}", tool.display()));
    refer(&world, "hashicorp:secret/demo#key");
    world.daemon();
    let calls = || fs::read_to_string(world.path("vault.calls")).unwrap_or_default();
    assert_eq!(call(&world), "ours");
    keep(&[CANARY, STOLEN]);
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    wait_until("the new version", || (call(&world) == "stolen").then_some(()));
    let listed = world.vouchsafe(&["credential", "list", "--json"]).stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["source"], "hashicorp:secret/demo#key");
    assert_eq!(listed[0]["version"], 2, "{listed}");

    refer(&world, "hashicorp:database/creds/demo#password");
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    assert_eq!(call(&world), "ours");
    refer(&world, "exec:demo");
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    assert_eq!(call(&world), "stolen");
    wait_until("the end of the lease", || calls().contains("PUT sys/leases/revoke 204 0").then_some(()));

    for (secret, says) in [("hashicorp:secret/other#key", "there is nothing"), ("exec:other", "[exec.other]")]
    {
        refer(&world, secret);
        assert_eq!(world.vouchsafe(&["reload"]).code, Some(0), "no error of the policy");
        assert!(call(&world).contains("the credential demo-key is not set up"));
        let shown = world.vouchsafe(&["credential", "show", "demo-key"]);
        assert!(shown.code == Some(1) && shown.stdout.contains(says), "{shown:?}");
    }

    refer(&world, "hashicorp:database/creds/demo#password");
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    assert_eq!(call(&world), "ours");
    assert_eq!(world.terminate(), Some(0));
    let end = calls();
    assert!(end.ends_with("PUT sys/leases/revoke 204 0\nPOST auth/token/revoke-self 204 0\n"), "{end}");
    for (place, text) in [("log", world.log()), ("journal", format!("{:?}", world.journal()))] {
        let secrets = [CANARY, STOLEN, "CANARY-secret-id", "hvs."];
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "a secret is in the {place}");
    }
}
