//! Refresh tokens over a store that sometimes cannot be written.

use std::fs;
use std::time::Duration;

use super::super::live::tests::World;
use super::super::sources::Sources;
use super::*;

fn tokens(world: &World) -> Arc<RefreshTokens> {
    Arc::new(RefreshTokens::new(Arc::new(Sources::new(world.store.clone()))))
}

fn stored(world: &World) -> (String, u64) {
    let secrets = world.store.read().ok().unwrap();
    let entry = &secrets["r"];
    (text(&entry.secret), entry.version)
}

fn text(secret: &Secret) -> String {
    String::from_utf8(secret.expose().to_vec()).unwrap()
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

#[tokio::test]
async fn those_who_use_a_refresh_token_take_turns_and_each_gets_the_newest() {
    let world = World::new();
    world.set("r", b"0");
    let tokens = tokens(&world);
    let all = (0..20).map(|_| {
        let tokens = Arc::clone(&tokens);
        tokio::spawn(async move {
            let mut in_use = tokens.take(&SecretRef::vault("r")).await.ok().unwrap();
            let number: u32 = text(&in_use.held.secret).parse().unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            in_use.replace(secret(&(number + 1).to_string())).await.unwrap();
            number
        })
    });
    let mut seen = Vec::new();
    for each in all.collect::<Vec<_>>() {
        seen.push(each.await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
    assert_eq!(stored(&world), ("20".to_owned(), 21));
}

#[tokio::test]
async fn the_same_one_again_changes_nothing() {
    let world = World::new();
    world.set("r", b"0");
    let mut in_use = tokens(&world).take(&SecretRef::vault("r")).await.ok().unwrap();
    in_use.replace(secret("0")).await.unwrap();
    assert_eq!(stored(&world), ("0".to_owned(), 1));
}

#[tokio::test]
async fn one_that_somebody_set_meanwhile_stands() {
    let world = World::new();
    world.set("r", b"0");
    let tokens = tokens(&world);
    let mut in_use = tokens.take(&SecretRef::vault("r")).await.ok().unwrap();
    world.set("r", b"of a new login");
    in_use.replace(secret("of the old login")).await.unwrap();
    drop(in_use);
    assert_eq!(stored(&world), ("of a new login".to_owned(), 2));
    let in_use = tokens.take(&SecretRef::vault("r")).await.ok().unwrap();
    assert_eq!(text(&in_use.held.secret), "of a new login", "also without a reload");
}

#[tokio::test]
async fn one_that_cannot_be_stored_is_kept_and_stored_before_anything_else_is_asked_for() {
    let world = World::new();
    world.set("r", b"0");
    let tokens = tokens(&world);
    let mut in_use = tokens.take(&SecretRef::vault("r")).await.ok().unwrap();
    // A folder where the new file would be: also root cannot write it.
    let aside = world.store.path().with_file_name("secrets.store.new");
    fs::create_dir(&aside).unwrap();
    let error = in_use.replace(secret("CANARY")).await.unwrap_err().to_string();
    assert!(error.contains("in memory alone") && !error.contains("CANARY"), "{error}");
    drop(in_use);
    assert!(tokens.take(&SecretRef::vault("r")).await.is_err(), "the old one is not used again");
    assert_eq!(stored(&world), ("0".to_owned(), 1));
    fs::remove_dir(&aside).unwrap();
    let in_use = tokens.take(&SecretRef::vault("r")).await.ok().unwrap();
    assert_eq!(text(&in_use.held.secret), "CANARY");
    assert_eq!(stored(&world), ("CANARY".to_owned(), 2));
}

#[tokio::test]
async fn the_daemon_waits_for_one_that_is_under_way() {
    let world = World::new();
    world.set("r", b"0");
    let tokens = tokens(&world);
    let mut in_use = tokens.take(&SecretRef::vault("r")).await.ok().unwrap();
    let settled = tokio::time::timeout(Duration::from_millis(50), tokens.settle());
    assert!(settled.await.is_err());
    let settling = tokio::spawn({
        let tokens = Arc::clone(&tokens);
        async move { tokens.settle().await }
    });
    in_use.replace(secret("1")).await.unwrap();
    drop(in_use);
    settling.await.unwrap();
    assert_eq!(stored(&world).0, "1");
}

#[test]
fn other_secrets_stay_the_same_objects_when_one_is_replaced() {
    let world = World::new();
    world.set("r", b"0");
    world.set("other", b"x");
    let sources = Sources::new(world.store.clone());
    let other = || sources.vault().held("other").ok().unwrap().secret;
    let before = other();
    assert!(sources.vault().replace("r", 1, Arc::new(secret("1"))).unwrap());
    assert!(Arc::ptr_eq(&before, &other()));
    assert_eq!(text(&sources.vault().held("r").ok().unwrap().secret), "1");
    assert!(!sources.vault().replace("r", 1, Arc::new(secret("2"))).unwrap());
    assert!(!sources.vault().replace("not-there", 1, Arc::new(secret("2"))).unwrap());
}
