//! An issuer over a store, as receivers see it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::super::jws::tests::verified;
use super::super::key::KeySource;
use super::*;

fn settings() -> IssuerSettings {
    IssuerSettings {
        url: "https://host.test/bots".to_owned(),
        subject: ClaimText::parse("spiffe://test/{identity}").unwrap(),
        ttl: Duration::from_secs(300),
        rotate_every: Duration::from_secs(86_400),
        publish_ahead: Duration::from_secs(3600),
        algorithm: JwtAlgorithm::Es256,
    }
}

fn secrets(directory: &tempfile::TempDir) -> Store {
    Store::new(directory.path().join("secrets.store"), KeySource::file(directory.path().join("store.key")))
}

fn keys(issuer: &Issuer) -> Vec<Map<String, Value>> {
    let set: Value = serde_json::from_str(&issuer.documents().keys).unwrap();
    set["keys"].as_array().unwrap().iter().map(|jwk| jwk.as_object().unwrap().clone()).collect()
}

fn token(issuer: &Issuer, identity: &str, ttl: u64) -> Option<String> {
    let issued = issuer.issue(identity, "https://sts.test".into(), Map::new(), Duration::from_secs(ttl))?;
    Some(String::from_utf8(issued.token.expose().to_vec()).unwrap())
}

#[test]
fn a_token_is_about_the_identity_and_is_checked_by_what_is_published() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = Issuer::open(settings(), &secrets(&directory)).unwrap();
    assert_eq!(token(&issuer, "bot", 300), None, "nobody could check it");
    let documents = issuer.documents();
    issuer.published(&documents).unwrap();
    assert_eq!(issuer.documents(), documents);
    let (header, claims) = verified(&token(&issuer, "bot", 60).unwrap(), &keys(&issuer)[0]).unwrap();
    assert_eq!(header["kid"], keys(&issuer)[0]["kid"]);
    assert_eq!((&claims["sub"], &claims["aud"]), (&"spiffe://test/bot".into(), &"https://sts.test".into()));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 60);
    let (_, claims) = verified(&token(&issuer, "bot", 7200).unwrap(), &keys(&issuer)[0]).unwrap();
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        300,
        "no longer than it says"
    );
    let discovery: Value = serde_json::from_str(&documents.discovery).unwrap();
    assert_eq!((&discovery["issuer"], &claims["iss"]), (&claims["iss"], &"https://host.test/bots".into()));
    assert_eq!(discovery["jwks_uri"], "https://host.test/bots/.well-known/jwks.json");
    assert_eq!(discovery["id_token_signing_alg_values_supported"], json!(["ES256"]));
    let names: Vec<String> = keys(&issuer)[0].keys().cloned().collect();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"], "public halves only");
}

#[test]
fn claims_of_a_policy_cannot_say_who_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = Issuer::open(settings(), &secrets(&directory)).unwrap();
    issuer.published(&issuer.documents()).unwrap();
    let own = ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"];
    let mut claims: Map<String, Value> =
        own.map(|name| (name.to_owned(), "evil".into())).into_iter().collect();
    claims.insert("team".to_owned(), "a".into());
    let issued = issuer.issue("bot", "aud".into(), claims, Duration::from_secs(60)).unwrap();
    let token = String::from_utf8(issued.token.expose().to_vec()).unwrap();
    let (_, told) = verified(&token, &keys(&issuer)[0]).unwrap();
    assert_eq!(told["team"], "a");
    assert!(own.iter().all(|name| told[name] != "evil"), "{told}");
}

#[test]
fn keys_outlive_a_restart_encrypted_and_private() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = Issuer::open(settings(), &secrets(&directory)).unwrap();
    issuer.published(&issuer.documents()).unwrap();
    let before = token(&issuer, "bot", 60).unwrap();
    let path = directory.path().join("secrets.issuer");
    let stored = fs::read(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let plain = |needle: &[u8]| stored.windows(needle.len()).any(|window| window == needle);
    let der = issuer.ring.load().0[0].to_secret();
    assert!(!plain(b"ES256") && !plain(&der.expose()[der.len() - 32..]));
    let again = Issuer::open(settings(), &secrets(&directory)).unwrap();
    assert_eq!(again.documents(), issuer.documents());
    assert!(verified(&before, &keys(&again)[0]).is_some());
    assert!(token(&again, "bot", 60).is_some(), "it was published before");
    assert_eq!(secrets(&directory).list().unwrap(), [], "no policy can name it");
}

#[test]
fn a_store_of_secrets_that_lost_its_key_keeps_the_issuer_from_making_another_one() {
    let directory = tempfile::tempdir().unwrap();
    let store = secrets(&directory);
    store.set(&"a".parse().unwrap(), Secret::new(b"one".to_vec()), 1).unwrap();
    fs::remove_file(directory.path().join("store.key")).unwrap();
    let error = Issuer::open(settings(), &store).err().unwrap();
    assert!(error.to_string().contains("no key for it"), "{error}");
    assert!(!directory.path().join("store.key").exists());
}

#[test]
fn damaged_keys_are_told_and_left_as_they_are() {
    let directory = tempfile::tempdir().unwrap();
    drop(Issuer::open(settings(), &secrets(&directory)).unwrap());
    let path = directory.path().join("secrets.issuer");
    let mut damaged = fs::read(&path).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&path, &damaged).unwrap();
    let error = Issuer::open(settings(), &secrets(&directory)).err().unwrap();
    assert!(error.to_string().contains("secrets.issuer"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), damaged);
    fs::remove_file(&path).unwrap();
    let other = secrets(&directory).beside("issuer").unwrap();
    other.set(&"key/x".parse().unwrap(), Secret::new(b"CANARY 1 2 3 4\nCANARY".to_vec()), 1).unwrap();
    let error = Issuer::open(settings(), &secrets(&directory)).err().unwrap();
    assert!(error.to_string().contains("key/x") && !format!("{error:?}").contains("CANARY"), "{error:?}");
}
