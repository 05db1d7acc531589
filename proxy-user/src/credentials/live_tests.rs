//! Static secrets from the store, as calls get them.

use std::fs;

use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, HeaderName, Method};
use proxy_policy::{ClaimText, JwtAlgorithm, SourceFile, Variable};

use super::super::attach::Head;
use super::super::inject::{Inject, Place};
use super::super::issuer::IssuerSettings;
use super::super::jws::tests::verified;
use super::super::key::KeySource;
use super::super::provider::AskedBy;
use super::super::secret::Secret;
use super::*;
use crate::trust::UpstreamTls;

/// A store in a folder of its own, and credentials over it.
pub(in super::super) struct World {
    directory: tempfile::TempDir,
    pub(in super::super) store: Store,
}

/// A policy with the credential `stripe`.
/// A script that only root can change. Another process writes it: what another test starts at this moment has our open files until it is
/// executed, and a file that somebody can write is not executed (`ETXTBSY`, execve(2)).
pub(in super::super) fn script(path: &std::path::Path, text: &str) -> String {
    let written = path.with_extension("text");
    std::fs::write(&written, format!("#!/bin/sh\n{text}\n")).unwrap();
    let made = std::process::Command::new("install").args(["-m", "755"]).arg(&written).arg(path).status();
    assert!(made.unwrap().success());
    std::fs::remove_file(written).unwrap();
    path.to_str().unwrap().to_owned()
}

pub(in super::super) fn policy(definition: &str) -> PolicySet {
    let text = format!("[credential.stripe]\n{definition}\n");
    let compiled = proxy_policy::compile(&[SourceFile { path: "credentials/stripe.toml".into(), text }]);
    compiled.set.unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics))
}

impl World {
    pub(in super::super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = KeySource::file(directory.path().join("store.key"));
        let store = Store::new(directory.path().join("secrets.store"), key);
        Self { directory, store }
    }

    pub(in super::super) fn set(&self, name: &str, value: &[u8]) {
        self.store.set(&name.parse().unwrap(), Secret::new(value.to_vec()), 1).unwrap();
    }

    pub(in super::super) fn credentials(&self) -> Credentials {
        Credentials::new(self.store.clone(), self.outcall())
    }

    pub(in super::super) fn outcall(&self) -> Outcall {
        let key = rcgen::KeyPair::generate().unwrap();
        let root = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
        let pem = self.directory.path().join("root.pem");
        fs::write(&pem, root.pem()).unwrap();
        let tls = UpstreamTls::new(&[pem], false, &[], std::time::Duration::from_secs(5)).unwrap();
        Outcall::new(tls)
    }
}

/// An issuer over the world's store, whose key is not published yet.
pub(in super::super) fn issuer(world: &World) -> Arc<Issuer> {
    let settings = IssuerSettings {
        url: "https://host.test".to_owned(),
        subject: ClaimText::of(Variable::Identity),
        ttl: Duration::from_secs(300),
        rotate_every: Duration::from_secs(86_400),
        publish_ahead: Duration::from_secs(3600),
        algorithm: JwtAlgorithm::Es256,
    };
    Arc::new(Issuer::open(settings, &world.store).unwrap())
}

const STATIC: &str = "kind = \"static\"\nsecret = \"vault:a\"";

fn at_work(credentials: &Credentials) -> Arc<LiveCredential> {
    credentials.adopt(&policy(STATIC)).pop().unwrap()
}

pub(in super::super) fn bearer() -> Inject {
    Inject::clone(Inject::bearer())
}

/// What is at hand for a call.
pub(in super::super) fn ready(credential: &LiveCredential, inject: Inject) -> Provided {
    let inject = Arc::new(inject);
    let ask = Ask {
        identity: "bot",
        api: "stripe",
        host: "api.test",
        workload: AskedBy::default(),
        inject: Some(&inject),
    };
    credential.ready(&ask).expect("it is at hand")
}

/// The headers of a request that had none.
pub(in super::super) fn attached(attachment: &Attachment) -> HeaderMap {
    let (mut target, authority) = (PathAndQuery::from_static("/"), Authority::from_static("api.test"));
    let mut headers = HeaderMap::new();
    let mut head =
        Head { method: &Method::GET, target: &mut target, authority: &authority, headers: &mut headers };
    attachment.attach(&mut head).unwrap();
    headers
}

fn sent(credential: &LiveCredential) -> Result<String, CredentialError> {
    let headers = attached(&ready(credential, bearer())?);
    Ok(headers[AUTHORIZATION].to_str().unwrap().to_owned())
}

#[test]
fn a_secret_is_attached_as_the_api_wants_it() {
    let world = World::new();
    world.set("a", b"one");
    let credentials = world.credentials();
    assert_eq!(credentials.count(), 1);
    let credential = at_work(&credentials);
    assert_eq!(sent(&credential).unwrap(), "Bearer one");
    let other = Inject::from_template(AUTHORIZATION, "token {secret}!").unwrap();
    assert_eq!(attached(&ready(&credential, other).unwrap())[AUTHORIZATION], "token one!");
}

#[test]
fn apis_that_differ_in_header_prefix_or_suffix_only_get_each_its_own() {
    let world = World::new();
    world.set("a", b"one");
    let credential = at_work(&world.credentials());
    let key = HeaderName::from_static("x-key");
    let ways = [
        (AUTHORIZATION, "p ", "."),
        (key, "p ", "."),
        (AUTHORIZATION, "q ", "."),
        (AUTHORIZATION, "p ", "!"),
    ];
    // Twice: composed, and kept.
    for (header, prefix, suffix) in ways.iter().chain(&ways) {
        let place = Place::Header(header.clone());
        let inject = Inject { place, prefix: (*prefix).into(), suffix: (*suffix).into() };
        let headers = attached(&ready(&credential, inject).unwrap());
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[header], format!("{prefix}one{suffix}"));
    }
}

#[test]
fn the_value_is_composed_once_and_shared_until_the_store_changes() {
    let world = World::new();
    world.set("a", b"one");
    let credentials = world.credentials();
    let credential = at_work(&credentials);
    let address = || {
        let attachment = ready(&credential, bearer()).unwrap();
        (attached(&attachment)[AUTHORIZATION].as_bytes().as_ptr() as usize, attachment.secret_version())
    };
    let first = address();
    assert_eq!(first, address());
    world.set("a", b"two");
    assert_eq!(first, address(), "nothing changes before the reload");
    assert_eq!(credentials.reload().unwrap(), 1);
    assert_eq!(address().1, 2);
    assert_eq!(sent(&credential).unwrap(), "Bearer two");
}

#[test]
fn a_missing_secret_says_which_command_sets_it() {
    let error = sent(&at_work(&World::new().credentials())).unwrap_err();
    assert!(error.to_string().contains("`vouchsafe secret set a`"), "{error}");
    let told = error.client_text();
    assert!(told.contains("credential stripe"), "{told}");
    assert!(!told.contains("vouchsafe"), "the bot learns nothing of where the secret is: {told}");
}

#[test]
fn a_store_that_was_never_readable_refuses_every_call_and_says_why() {
    let world = World::new();
    world.set("a", b"one");
    fs::write(world.store.path(), b"garbage").unwrap();
    let credentials = world.credentials();
    let error = sent(&at_work(&credentials)).unwrap_err();
    assert!(matches!(error, CredentialError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("secrets.store"), "{error}");
    assert!(credentials.problem().is_some());
}

#[test]
fn a_reload_that_fails_keeps_the_old_secrets_and_reports() {
    let world = World::new();
    world.set("a", b"one");
    let credentials = world.credentials();
    let credential = at_work(&credentials);
    let good = fs::read(world.store.path()).unwrap();
    fs::write(world.store.path(), &good[..good.len() - 1]).unwrap();
    assert!(credentials.reload().is_err());
    assert_eq!(sent(&credential).unwrap(), "Bearer one");
    assert!(credentials.problem().is_some());
    fs::write(world.store.path(), &good).unwrap();
    credentials.reload().unwrap();
    assert_eq!(credentials.problem(), None);
}

#[test]
fn a_secret_that_was_removed_is_gone_after_the_reload() {
    let world = World::new();
    world.set("a", b"one");
    let credentials = world.credentials();
    let credential = at_work(&credentials);
    sent(&credential).unwrap();
    world.store.remove(&"a".parse().unwrap()).unwrap();
    credentials.reload().unwrap();
    assert!(matches!(sent(&credential), Err(CredentialError::Missing { .. })));
}

#[test]
fn a_secret_with_a_line_break_inside_is_refused_when_it_is_attached() {
    let world = World::new();
    world.set("a", b"one\r\nx-evil: 1");
    let error = sent(&at_work(&world.credentials())).unwrap_err();
    assert!(matches!(error, CredentialError::Unfit { .. }), "{error}");
}

#[test]
fn a_credential_that_a_new_policy_leaves_as_it_was_is_the_same_object() {
    let world = World::new();
    let credentials = world.credentials();
    let before = at_work(&credentials);
    assert!(Arc::ptr_eq(&before, &at_work(&credentials)));
    let other = credentials.adopt(&policy("kind = \"static\"\nsecret = \"vault:b\"")).pop().unwrap();
    assert!(!Arc::ptr_eq(&before, &other));
    assert!(!Arc::ptr_eq(&before, &at_work(&credentials)), "what was gone is not taken up again");
}

#[test]
fn a_credential_goes_to_no_other_api_than_its_own() {
    let files = [
        ("apis/a.toml", "[api.a]\nhosts = [\"a.test\"]\n[api.b]\nhosts = [\"b.test\"]\n".to_owned()),
        (
            "credentials/c.toml",
            format!("[credential.c]\n{STATIC}\napis = [\"a\"]\n[credential.d]\n{STATIC}\n"),
        ),
    ];
    let files = files.map(|(path, text)| SourceFile { path: path.into(), text });
    let set = proxy_policy::compile(&files).set.unwrap();
    let api = |name: &str| set.apis().find(|api| api.name == name).unwrap().id;
    let credential = |name: &str| set.credentials().find(|it| it.name == name).unwrap();
    assert_eq!(bound_to(credential("c"), api("a"), "a"), Ok(()));
    let error = bound_to(credential("c"), api("b"), "b").unwrap_err();
    assert!(error.to_string().contains("bound to other APIs"), "{error}");
    assert_eq!(bound_to(credential("d"), api("b"), "b"), Ok(()));
}

#[tokio::test]
async fn a_token_that_is_exchanged_is_a_secret_or_about_the_identity_alone() {
    let world = World::new();
    world.set("a", b"one");
    let issuer = issuer(&world);
    let mut tools = world.credentials().tools;
    let text = |held: Held| String::from_utf8(held.secret.expose().to_vec()).unwrap();
    let vault = SecretRef::vault("a");
    assert_eq!(text(tools.subject_token("bot", &vault).await.ok().unwrap()), "one");
    let issued = SecretRef::issuer("https://sts.test");
    assert!(tools.subject_token("bot", &issued).await.err().unwrap().to_string().contains("[issuer]"));
    tools.issuer = Some(Arc::clone(&issuer));
    assert!(tools.subject_token("bot", &issued).await.err().unwrap().to_string().contains("not published"));
    issuer.published(&issuer.documents()).unwrap();
    let set: serde_json::Value = serde_json::from_str(&issuer.documents().keys).unwrap();
    for identity in ["bot", "other"] {
        let token = text(tools.subject_token(identity, &issued).await.ok().unwrap());
        let (_, claims) = verified(&token, set["keys"][0].as_object().unwrap()).unwrap();
        assert_eq!((&claims["sub"], &claims["aud"]), (&identity.into(), &"https://sts.test".into()));
    }
    // Sources do not know who calls, so they have none.
    assert!(tools.sources.held(&issued).is_some_and(|held| held.is_err()));
}
