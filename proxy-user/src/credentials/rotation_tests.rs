//! What becomes of a secret whose rotation breaks off at any step.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use super::super::hashicorp::server::{SECRET_ID, Server};
use super::super::live::tests::World;
use super::*;
use crate::config::Maker;

/// A program that only we can change, below a folder of root.
fn script(folder: &Path, name: &str, text: &str) -> String {
    super::super::live::tests::script(&folder.join(name), text)
}

struct Scene {
    world: World,
    folder: tempfile::TempDir,
    rotation: Rotation,
    /// What was to be taken down, and whether it could be.
    noted: Mutex<Vec<String>>,
    takes_down: bool,
}

fn scene(make: &str) -> Scene {
    let (world, folder) = (World::new(), tempfile::tempdir().unwrap());
    let revoked = folder.path().join("revoked");
    let make = script(folder.path(), "make", make);
    let revoke = script(
        folder.path(),
        "revoke",
        &format!("cat >> {}; echo >> {}", revoked.display(), revoked.display()),
    );
    let text = format!(
        "[rotation.key]\nmake = [\"{make}\"]\nrevoke = [\"{revoke}\"]\nevery = \"1h\"\noverlap = \"1h\""
    );
    let config = crate::config::Config::parse(Path::new("v.toml"), &text).unwrap();
    let rotation = config.rotation["key"].clone();
    world.set("key", b"one");
    Scene { world, folder, rotation, noted: Mutex::default(), takes_down: true }
}

impl Scene {
    fn note(&self, step: Step<'_>) -> Result<(), String> {
        self.noted.lock().unwrap().push(format!("{step:?}"));
        self.takes_down.then_some(()).ok_or("the journal is full".to_owned())
    }

    async fn rotate(&self, credentials: &Credentials, set: &PolicySet) -> Result<Rotated, RotationError> {
        credentials.rotate("key", &self.rotation, set, &|step| self.note(step)).await
    }

    async fn end_due(&self, credentials: &Credentials) -> Result<bool, RotationError> {
        credentials.end_due("key", &self.rotation, &|step| self.note(step)).await
    }

    fn noted(&self) -> Vec<String> {
        std::mem::take(&mut *self.noted.lock().unwrap())
    }

    fn stored(&self) -> Vec<(String, String)> {
        let secrets = self.world.store.read().unwrap();
        let text = |secret: &Secret| String::from_utf8(secret.expose().to_vec()).unwrap();
        secrets.iter().map(|(name, entry)| (name.to_string(), text(&entry.secret))).collect()
    }

    fn revoked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("revoked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn set(&self, name: &str, value: &str, created_s: u64) {
        let secret = Secret::new(value.as_bytes().to_vec());
        self.world.store.set(&name.parse().unwrap(), secret, created_s).unwrap();
    }
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[tokio::test]
async fn what_is_tried_by_nobody_does_not_become_current_and_is_ended() {
    let scene = scene("cat >/dev/null; echo two-CANARY");
    let credentials = scene.world.credentials();
    let set = super::super::live::tests::policy("kind = \"static\"\nsecret = \"vault:key\"");
    let error = scene.rotate(&credentials, &set).await.unwrap_err().to_string();
    assert!(error.contains("has a probe") && !error.contains("CANARY"), "{error}");
    assert_eq!(scene.stored(), pairs(&[("key", "one")]));
    assert_eq!(scene.revoked(), ["two-CANARY"]);
}

#[tokio::test]
async fn a_program_that_makes_nothing_new_changes_nothing() {
    for (make, words) in
        [("cat", "nothing, or the current one"), ("cat >/dev/null", "nothing"), ("exit 3", "ended with")]
    {
        let scene = scene(make);
        let credentials = scene.world.credentials();
        let set = super::super::live::tests::policy("kind = \"static\"\nsecret = \"vault:key\"");
        let error = scene.rotate(&credentials, &set).await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        assert_eq!((scene.stored(), scene.revoked()), (pairs(&[("key", "one")]), Vec::new()));
    }
}

#[tokio::test]
async fn what_a_rotation_left_that_broke_off_is_ended_and_never_the_current_one() {
    let scene = scene("echo two");
    // After it was made, and before it was current.
    scene.set("key.next", "made", now_s());
    let credentials = scene.world.credentials();
    assert!(scene.end_due(&credentials).await.unwrap(), "it is old enough");
    assert_eq!((scene.stored(), scene.revoked()), (pairs(&[("key", "one")]), vec!["made".to_owned()]));
    // As somebody set it by hand.
    scene.set("key.next", "one", now_s());
    credentials.reload().unwrap();
    scene.end_due(&credentials).await.unwrap();
    assert_eq!((scene.stored(), scene.revoked().len()), (pairs(&[("key", "one")]), 1));
    assert_eq!(scene.noted(), ["Discarded"], "the one that goes on has not ended");
}

#[tokio::test]
async fn the_one_before_ends_after_the_overlap_and_until_then_there_is_no_other() {
    let scene = scene("echo two");
    let credentials = scene.world.credentials();
    let half = now_s() - 1800;
    scene.set("key.previous", "zero", half);
    credentials.reload().unwrap();
    assert!(!scene.end_due(&credentials).await.unwrap());
    let set = super::super::live::tests::policy("kind = \"static\"\nsecret = \"vault:key\"");
    let error = scene.rotate(&credentials, &set).await.unwrap_err().to_string();
    assert!(error.contains("not ended yet"), "{error}");
    assert_eq!(scene.stored(), pairs(&[("key", "one"), ("key.previous", "zero")]));
    scene.set("key.previous", "zero", half - 1801);
    credentials.reload().unwrap();
    assert!(!scene.end_due(&credentials).await.unwrap());
    assert_eq!((scene.stored(), scene.revoked()), (pairs(&[("key", "one")]), vec!["zero".to_owned()]));
    assert_eq!(scene.noted(), ["Ended { version: 2 }"]);
}

#[tokio::test]
async fn what_cannot_be_ended_stays_and_is_tried_again() {
    let mut scene = scene("echo two");
    let fails = script(scene.folder.path(), "fails", "exit 1");
    let Maker::Programs { revoke, .. } = &mut scene.rotation.maker else { panic!() };
    *revoke = Some(vec![fails]);
    scene.set("key.previous", "zero", 1);
    let credentials = scene.world.credentials();
    let error = scene.end_due(&credentials).await.unwrap_err().to_string();
    assert!(error.contains("key.previous could not be ended"), "{error}");
    assert_eq!(scene.stored(), pairs(&[("key", "one"), ("key.previous", "zero")]));
}

#[test]
fn a_secret_is_promoted_in_one_step_or_not_at_all() {
    let scene = scene("echo two");
    let (name, next, previous) =
        ("key".parse().unwrap(), "key.next".parse().unwrap(), "key.previous".parse().unwrap());
    let store = &scene.world.store;
    assert_eq!(store.promote(&name, 1, &next, &previous, 9).unwrap(), None, "nothing is next");
    scene.set("key.next", "two", 5);
    assert_eq!(store.promote(&name, 7, &next, &previous, 9).unwrap(), None, "it was set meanwhile");
    assert_eq!(scene.stored(), pairs(&[("key", "one"), ("key.next", "two")]));
    assert_eq!(store.promote(&name, 1, &next, &previous, 9).unwrap(), Some(2));
    assert_eq!(scene.stored(), pairs(&[("key", "two"), ("key.previous", "one")]));
    let secrets = store.read().unwrap();
    assert_eq!(
        (secrets["key"].version, secrets["key"].created_s, secrets["key.previous"].version),
        (2, 9, 1)
    );
}

#[tokio::test]
async fn what_was_made_is_ended_when_the_store_cannot_be_written() {
    let scene = scene("cat >/dev/null; echo two");
    let credentials = scene.world.credentials();
    let set = super::super::live::tests::policy("kind = \"static\"\nsecret = \"vault:key\"");
    // The store writes beside itself and renames: as on a disk that is full, that is not possible.
    let aside = scene.world.store.path().with_file_name("secrets.store.new");
    fs::create_dir_all(aside.join("in the way")).unwrap();
    let error = scene.rotate(&credentials, &set).await.unwrap_err().to_string();
    assert!(error.contains("write the secret store"), "{error}");
    assert_eq!((scene.stored(), scene.revoked()), (pairs(&[("key", "one")]), vec!["two".to_owned()]));
}

const APPROLE: &str = "[hashicorp.approle]\nrole_id = \"role-1\"\nsecret_id = \"vault:key\"";

/// A daemon that logs in at a server with the secret id that is rotated.
async fn with_secret_id() -> (Scene, Server, Credentials) {
    let (mut scene, server) = (scene("exit 1"), Server::start().await);
    scene.rotation.maker = Maker::Hashicorp { role_name: "vouchsafe".to_owned() };
    scene.set("key", SECRET_ID, now_s());
    let credentials = scene.world.credentials();
    let credentials = credentials.reaching(Some(&server.settings(APPROLE)), crate::config::Programs::new());
    (scene, server, credentials)
}

#[tokio::test]
async fn a_secret_id_is_made_tried_by_a_login_and_the_one_before_destroyed() {
    let (scene, server, credentials) = with_secret_id().await;
    let set = super::super::live::tests::policy("kind = \"static\"\nsecret = \"vault:other\"");
    let rotated = scene.rotate(&credentials, &set).await.unwrap();
    assert_eq!(rotated, Rotated { version: 3, tried: vec!["[hashicorp]".to_owned()] });
    let made = server.state().secret_ids.clone();
    assert_eq!(scene.stored(), pairs(&[("key", &made[0]), ("key.previous", SECRET_ID)]));
    assert_eq!(scene.noted(), ["Rotated { version: 3, tried: [\"[hashicorp]\"] }"]);
    assert_eq!(server.state().secret_id, SECRET_ID, "it is still taken");
    scene.set("key.previous", SECRET_ID, 1);
    credentials.reload().unwrap();
    scene.end_due(&credentials).await.unwrap();
    assert_eq!((scene.stored(), server.state().secret_id.as_str()), (pairs(&[("key", &made[0])]), ""));
}

#[tokio::test]
async fn a_secret_id_that_does_not_log_in_or_that_nobody_may_know_of_is_destroyed() {
    let (mut scene, server, credentials) = with_secret_id().await;
    let set = super::super::live::tests::policy("kind = \"static\"\nsecret = \"vault:other\"");
    server.state().makes_bad_ones = true;
    let error = scene.rotate(&credentials, &set).await.unwrap_err().to_string();
    assert!(error.contains("400") && error.contains("a login with the new one"), "{error}");
    assert!(!error.contains("CANARY"), "{error}");
    assert_eq!((scene.stored(), server.state().secret_ids.len()), (pairs(&[("key", SECRET_ID)]), 0));
    assert_eq!(scene.noted(), ["Discarded"]);
    server.state().makes_bad_ones = false;
    scene.takes_down = false;
    let error = scene.rotate(&credentials, &set).await.unwrap_err().to_string();
    assert!(error.contains("the journal is full"), "{error}");
    assert_eq!((scene.stored(), server.state().secret_ids.len()), (pairs(&[("key", SECRET_ID)]), 0));
}

#[test]
fn what_somebody_changes_in_the_store_is_told_once_and_what_the_daemon_does_is_not() {
    let scene = scene("exit 1");
    let credentials = scene.world.credentials();
    scene.set("other", "a", 1);
    scene.set("key", "two", 1);
    credentials.reload().unwrap();
    let told = |names: &[(&str, Option<u64>)]| -> super::super::vault::Changed {
        names.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect()
    };
    assert_eq!(credentials.take_changed(), told(&[("key", Some(2)), ("other", Some(1))]));
    credentials.reload().unwrap();
    scene.world.store.remove(&"other".parse().unwrap()).unwrap();
    let sets = |value: &'static [u8]| {
        move |store: &Store| {
            let version = store.set(&"key".parse().unwrap(), Secret::new(value.to_vec()), 1)?;
            Ok((version, vec![("key".to_owned(), Some(version))]))
        }
    };
    let vault = credentials.tools().sources.vault();
    assert_eq!(vault.change(sets(b"three")).unwrap(), 3);
    assert_eq!(credentials.take_changed(), told(&[("other", None)]));
    assert_eq!(credentials.take_changed(), told(&[]));
    // What somebody set, and what came upon it before anybody asked.
    scene.set("key", "four", 1);
    credentials.reload().unwrap();
    assert_eq!(vault.change(sets(b"five")).unwrap(), 5);
    assert_eq!(credentials.take_changed(), told(&[("key", Some(4))]));
}

#[tokio::test]
async fn what_somebody_sets_while_it_is_made_anew_goes_on_and_is_told() {
    let (scene, server, credentials) = with_secret_id().await;
    let set = super::super::live::tests::policy("kind = \"static\"\nsecret = \"vault:other\"");
    let sets = |step: Step<'_>| {
        if let Step::Rotated { .. } = step {
            scene.set("key", SECRET_ID, now_s());
        }
        Ok(())
    };
    let error = credentials.rotate("key", &scene.rotation, &set, &sets).await.unwrap_err().to_string();
    assert!(error.contains("somebody else set it meanwhile"), "{error}");
    assert_eq!(scene.stored(), pairs(&[("key", SECRET_ID)]));
    assert!(server.state().secret_ids.is_empty(), "what was made is destroyed");
    credentials.reload().unwrap();
    assert_eq!(credentials.take_changed(), [("key".to_owned(), Some(3))]);
}

#[tokio::test]
async fn a_secret_id_that_its_trial_would_use_up_does_not_become_current() {
    let (scene, server, credentials) = with_secret_id().await;
    let set = super::super::live::tests::policy("kind = \"static\"\nsecret = \"vault:other\"");
    server.state().logins = 1;
    let error = scene.rotate(&credentials, &set).await.unwrap_err().to_string();
    assert!(error.contains("secret_id_num_uses") && !error.contains("CANARY"), "{error}");
    assert_eq!((scene.stored(), server.state().secret_ids.len()), (pairs(&[("key", SECRET_ID)]), 0));
}

/// What IAM was asked, as the id of the key that signed it and the form; what it says to each is `says`.
struct Iam(std::sync::Arc<Mutex<Vec<(String, String)>>>);

impl Iam {
    async fn start(scene: &mut Scene, says: fn(&str, &str) -> (u16, String)) -> Self {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        scene.rotation.maker = Maker::Aws { url };
        let asked = std::sync::Arc::default();
        let log: std::sync::Arc<Mutex<Vec<_>>> = std::sync::Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (mut text, mut piece) = (String::new(), [0; 4096]);
                // The form of every action ends so, or with the id of a key.
                let whole = |text: &str| {
                    let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
                    body.filter(|body| !body.is_empty())
                };
                while whole(&text).is_none() {
                    let read = stream.read(&mut piece).await.unwrap();
                    assert!(read > 0, "half a request");
                    text.push_str(std::str::from_utf8(&piece[..read]).unwrap());
                }
                let signer = text.split("Credential=").nth(1).unwrap().split('/').next().unwrap().to_owned();
                let form = whole(&text).unwrap();
                let (status, body) = says(&signer, &form);
                log.lock().unwrap().push((signer, form));
                let answer = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Self(asked)
    }

    fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

fn refusal(code: &str) -> (u16, String) {
    (403, format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>"))
}

fn key(id: &str) -> String {
    format!("{{\"AccessKeyId\": \"{id}\", \"SecretAccessKey\": \"CANARY{id}\"}}")
}

#[tokio::test]
async fn an_access_key_that_is_current_is_not_deleted_however_it_is_spelled() {
    let mut scene = scene("exit 1");
    let iam = Iam::start(&mut scene, |_, _| (200, String::new())).await;
    // Somebody set the one before again, as AWS prints it.
    let printed = format!("{{\"AccessKey\": {}}}\n", key("OLD"));
    scene.set("key", &printed, now_s());
    for beside in ["key.previous", "key.next"] {
        scene.set(beside, &key("OLD"), 1);
        let credentials = scene.world.credentials();
        scene.end_due(&credentials).await.unwrap();
        assert_eq!((iam.asked(), scene.stored()), (Vec::new(), pairs(&[("key", &printed)])), "{beside}");
    }
    // It was set again, and the daemon was not told so yet.
    scene.set("key", &key("NEW"), now_s());
    scene.set("key.previous", &key("OLD"), 1);
    let credentials = scene.world.credentials();
    scene.set("key", &printed, now_s());
    scene.end_due(&credentials).await.unwrap();
    assert_eq!((iam.asked(), scene.stored()), (Vec::new(), pairs(&[("key", &printed)])));
    assert_eq!(scene.noted(), [""; 0], "it has not ended");
}

#[tokio::test]
async fn a_server_that_gives_the_current_access_key_out_again_does_not_have_it_deleted() {
    let mut scene = scene("exit 1");
    let iam = Iam::start(&mut scene, |_, _| {
        let key =
            "<AccessKey><AccessKeyId>OLD</AccessKeyId><SecretAccessKey>other</SecretAccessKey></AccessKey>";
        (200, key.to_owned())
    })
    .await;
    scene.set("key", &key("OLD"), now_s());
    let credentials = scene.world.credentials();
    let set = super::super::live::tests::policy("kind = \"static\"\nsecret = \"vault:key\"");
    let error = scene.rotate(&credentials, &set).await.unwrap_err().to_string();
    assert!(error.contains("the current one"), "{error}");
    assert_eq!(scene.stored(), pairs(&[("key", &key("OLD"))]));
    let asked = iam.asked();
    assert!(asked.len() == 1 && asked[0].1.starts_with("Action=CreateAccessKey&"), "{asked:?}");
}

#[tokio::test]
async fn an_access_key_that_somebody_made_inactive_is_deleted_all_the_same() {
    let mut scene = scene("exit 1");
    let iam = Iam::start(&mut scene, |signer, _| match signer {
        "OLD" => refusal("InvalidClientTokenId"),
        "MAY" => (200, String::new()),
        "OTHER" => refusal("NoSuchEntity"),
        _ => refusal("AccessDenied"),
    })
    .await;
    for (current, ends) in [("MAY", true), ("OTHER", true), ("MAYNOT", false)] {
        scene.set("key", &key(current), now_s());
        scene.set("key.previous", &key("OLD"), 1);
        let credentials = scene.world.credentials();
        let ended = scene.end_due(&credentials).await;
        assert_eq!(ended.is_ok(), ends, "{current}: {ended:?}");
        let asked = iam.asked();
        let signers: Vec<&str> = asked.iter().map(|(signer, _)| signer.as_str()).collect();
        assert_eq!(signers, ["OLD", current]);
        assert!(asked.iter().all(|(_, form)| form.ends_with("&AccessKeyId=OLD")), "{asked:?}");
        assert_eq!(scene.stored().len(), if ends { 1 } else { 2 }, "{current}");
        assert_eq!(scene.noted().len(), usize::from(ends), "{current}");
        assert!(!format!("{ended:?}").contains("CANARY"));
    }
}
