//! What becomes of a secret whose rotation breaks off at any step.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::super::live::tests::World;
use super::*;

/// A program that only we can change, below a folder of root.
fn script(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    path.to_str().unwrap().to_owned()
}

struct Scene {
    world: World,
    folder: tempfile::TempDir,
    rotation: Rotation,
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
    Scene { world, folder, rotation }
}

impl Scene {
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
    let error = credentials.rotate("key", &scene.rotation, &set).await.unwrap_err().to_string();
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
        let error = credentials.rotate("key", &scene.rotation, &set).await.unwrap_err().to_string();
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
    assert!(credentials.end_due("key", &scene.rotation).await.unwrap(), "it is old enough");
    assert_eq!((scene.stored(), scene.revoked()), (pairs(&[("key", "one")]), vec!["made".to_owned()]));
    // As somebody set it by hand.
    scene.set("key.next", "one", now_s());
    credentials.reload().unwrap();
    credentials.end_due("key", &scene.rotation).await.unwrap();
    assert_eq!((scene.stored(), scene.revoked().len()), (pairs(&[("key", "one")]), 1));
}

#[tokio::test]
async fn the_one_before_ends_after_the_overlap_and_until_then_there_is_no_other() {
    let scene = scene("echo two");
    let credentials = scene.world.credentials();
    let half = now_s() - 1800;
    scene.set("key.previous", "zero", half);
    credentials.reload().unwrap();
    assert!(!credentials.end_due("key", &scene.rotation).await.unwrap());
    let set = super::super::live::tests::policy("kind = \"static\"\nsecret = \"vault:key\"");
    let error = credentials.rotate("key", &scene.rotation, &set).await.unwrap_err().to_string();
    assert!(error.contains("not ended yet"), "{error}");
    assert_eq!(scene.stored(), pairs(&[("key", "one"), ("key.previous", "zero")]));
    scene.set("key.previous", "zero", half - 1801);
    credentials.reload().unwrap();
    assert!(!credentials.end_due("key", &scene.rotation).await.unwrap());
    assert_eq!((scene.stored(), scene.revoked()), (pairs(&[("key", "one")]), vec!["zero".to_owned()]));
}

#[tokio::test]
async fn what_cannot_be_ended_stays_and_is_tried_again() {
    let mut scene = scene("echo two");
    scene.rotation.revoke = Some(vec![script(scene.folder.path(), "fails", "exit 1")]);
    scene.set("key.previous", "zero", 1);
    let credentials = scene.world.credentials();
    let error = credentials.end_due("key", &scene.rotation).await.unwrap_err().to_string();
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
    let error = credentials.rotate("key", &scene.rotation, &set).await.unwrap_err().to_string();
    assert!(error.contains("write the secret store"), "{error}");
    assert_eq!((scene.stored(), scene.revoked()), (pairs(&[("key", "one")]), vec!["two".to_owned()]));
}
