//! Client certificates from the store, as calls get them.

use rcgen::{CertificateParams, KeyPair};
use time::OffsetDateTime;

use super::super::super::live::tests::{World, policy};
use super::super::super::live::{Credentials, LiveCredential};
use super::super::super::provider::AskedBy;
use super::*;

/// Certificate and key as PEM.
fn pair(ends: i64) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["bot".to_owned()]).unwrap();
    params.not_after = OffsetDateTime::now_utc() + time::Duration::seconds(ends);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn at_work(credentials: &Credentials, definition: &str) -> Arc<LiveCredential> {
    credentials.adopt(&policy(&format!("kind = \"mtls\"\n{definition}"))).pop().unwrap()
}

fn identity(credential: &LiveCredential) -> Result<(ClientIdentity, u64), CredentialError> {
    let (api, host) = ("demo", "api.test");
    let ask = Ask { identity: "bot", api, host, workload: AskedBy::default(), inject: None };
    let attachment = credential.ready(&ask).expect("it is at hand")?;
    assert_eq!(attachment.header(), None);
    Ok((attachment.client().unwrap().clone(), attachment.secret_version()))
}

#[test]
fn one_version_is_one_identity_and_the_next_version_another() {
    let world = World::new();
    let (certificate, key) = pair(3600);
    world.set("bundle", format!("{certificate}{key}").as_bytes());
    let credentials = world.credentials();
    let credential = at_work(&credentials, "certificate = \"vault:bundle\"");
    let (first, version) = identity(&credential).unwrap();
    assert_eq!((identity(&credential).unwrap(), version), ((first.clone(), 1), 1));
    let (certificate, key) = pair(3600);
    world.set("bundle", format!("{certificate}{key}").as_bytes());
    credentials.reload().unwrap();
    let (second, version) = identity(&credential).unwrap();
    assert_ne!(first, second);
    assert_eq!(version, 2);
}

#[test]
fn two_credentials_of_one_certificate_are_two_identities() {
    let world = World::new();
    let (certificate, key) = pair(3600);
    world.set("certificate", certificate.as_bytes());
    world.set("key", key.as_bytes());
    let definition = "certificate = \"vault:certificate\"\nkey = \"vault:key\"";
    let (one, other) = (world.credentials(), world.credentials());
    let (one, other) = (at_work(&one, definition), at_work(&other, definition));
    assert_ne!(identity(&one).unwrap().0, identity(&other).unwrap().0);
}

#[test]
fn what_proves_nobody_is_refused_and_says_which_secret_is_to_blame() {
    let world = World::new();
    let definition = "certificate = \"vault:certificate\"\nkey = \"vault:key\"";
    let refused = || {
        let error = identity(&at_work(&world.credentials(), definition)).unwrap_err();
        format!("{error} {error:?} {}", error.client_text())
    };
    assert!(refused().contains("vouchsafe secret set certificate"));
    let (certificate, key) = pair(3600);
    world.set("certificate", certificate.as_bytes());
    world.set("key", b"CANARY");
    let told = refused();
    assert!(told.contains("secret key") && !told.contains("CANARY"), "{told}");
    world.set("key", pair(3600).1.as_bytes());
    assert!(refused().contains("not that of the certificate"));
    let (certificate, _) = pair(3600);
    world.set("certificate", certificate.as_bytes());
    world.set("key", key.as_bytes());
    assert!(refused().contains("not that of the certificate"));
    let (certificate, key) = pair(-5);
    world.set("certificate", certificate.as_bytes());
    world.set("key", key.as_bytes());
    let told = refused();
    assert!(told.contains("ended at") && told.contains("vouchsafe secret set certificate"), "{told}");
}
