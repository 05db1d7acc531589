//! Tokens as calls get them.

use std::collections::HashSet;

use http::header::AUTHORIZATION;
use proptest::prelude::*;
use proxy_policy::JwtAlgorithm;

use super::super::super::jws::tests::{new_key, verified};
use super::super::super::live::tests::{World, attached, issuer, policy};
use super::super::super::live::{Credentials, LiveCredential};
use super::super::super::provider::AskedBy;
use super::*;

const LEAST: &str =
    "kind = \"jwt\"\nkey = \"vault:key\"\nalgorithm = \"ES256\"\naudience = \"https://api.test\"\n";

/// A store with a key, its public half, and credentials over it.
fn world() -> (World, Map<String, Value>, Credentials) {
    let world = World::new();
    let jwk = set_key(&world);
    let credentials = world.credentials();
    (world, jwk, credentials)
}

fn set_key(world: &World) -> Map<String, Value> {
    let pem = new_key(JwtAlgorithm::Es256);
    world.set("key", pem.expose());
    SigningKey::from_pem(JwtAlgorithm::Es256, &pem).unwrap().public_jwk()
}

fn at_work(credentials: &Credentials, more: &str) -> Arc<LiveCredential> {
    credentials.adopt(&policy(&format!("{LEAST}{more}"))).pop().unwrap()
}

fn ask<'a>(identity: &'a str, workload: AskedBy<'a>) -> Ask<'a> {
    Ask { identity, api: "demo", host: "api.test", workload, inject: None }
}

fn token(credential: &LiveCredential, ask: &Ask<'_>) -> Result<String, CredentialError> {
    let attachment = credential.ready(ask).expect("it is at hand")?;
    let headers = attached(&attachment);
    Ok(headers[AUTHORIZATION].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned())
}

#[test]
fn a_token_says_who_calls_and_lasts_as_long_as_the_policy_says() {
    let (_world, jwk, credentials) = world();
    let more = "key_id = \"k1\"\nissuer = \"https://{host}/\"\nsubject = \"spiffe://a.test/{identity}\"\nttl = \"60s\"\n\
                claims = { api = \"{api}\", as = [\"{workload.uid}\", \"{workload.gid}\", \"{workload.unit}\"], n = 7, yes = true }";
    let credential = at_work(&credentials, more);
    let by = AskedBy { uid: 1000, gid: 100, unit: Some("bot.service") };
    let (header, claims) = verified(&token(&credential, &ask("bot", by)).unwrap(), &jwk).unwrap();
    assert_eq!(header["kid"], "k1");
    let seconds = |name: &str| claims[name].as_i64().unwrap();
    assert!((clock::now().0 - seconds("iat")).abs() <= 5);
    assert_eq!((seconds("exp") - seconds("iat"), seconds("iat") - seconds("nbf")), (60, 10));
    let mut told = claims.clone();
    for name in ["iat", "nbf", "exp", "jti"] {
        told.as_object_mut().unwrap().remove(name).unwrap();
    }
    assert_eq!(
        told,
        serde_json::json!({
            "iss": "https://api.test/", "sub": "spiffe://a.test/bot", "aud": "https://api.test", "api": "demo",
            "as": ["1000", "100", "bot.service"], "n": 7, "yes": true,
        })
    );
}

#[test]
fn one_token_serves_until_it_is_about_to_end_or_each_call_has_its_own() {
    let (_world, _, credentials) = world();
    let by = AskedBy::default();
    let credential = at_work(&credentials, "");
    let first = token(&credential, &ask("bot", by)).unwrap();
    assert_eq!(token(&credential, &ask("bot", by)).unwrap(), first);
    let short = at_work(&credentials, "ttl = \"1s\"");
    let first = token(&short, &ask("bot", by)).unwrap();
    let began = Instant::now();
    while token(&short, &ask("bot", by)).unwrap() == first {
        assert!(began.elapsed() < Duration::from_secs(1), "it was given out after its end");
        std::thread::yield_now();
    }
    let each = at_work(&credentials, "per = \"call\"");
    let all: HashSet<String> = (0..10).map(|_| token(&each, &ask("bot", by)).unwrap()).collect();
    assert_eq!(all.len(), 10);
}

#[test]
fn a_new_key_signs_at_once_and_without_a_key_nothing_is_signed() {
    let (world, before, credentials) = world();
    let credential = at_work(&credentials, "");
    let by = AskedBy::default();
    assert!(verified(&token(&credential, &ask("bot", by)).unwrap(), &before).is_some());
    let after = set_key(&world);
    credentials.reload().unwrap();
    let next = token(&credential, &ask("bot", by)).unwrap();
    assert!(verified(&next, &before).is_none() && verified(&next, &after).is_some());
    world.store.remove(&"key".parse().unwrap()).unwrap();
    credentials.reload().unwrap();
    let error = token(&credential, &ask("bot", by)).unwrap_err();
    assert!(matches!(error, CredentialError::Missing { .. }), "{error}");
}

#[test]
fn what_is_no_key_is_told_without_being_shown() {
    let (world, _, _) = world();
    world.set("key", b"CANARY-of-a-key");
    let error = token(&at_work(&world.credentials(), ""), &ask("bot", AskedBy::default())).unwrap_err();
    let told = format!("{error} {error:?} {}", error.client_text());
    assert!(told.contains("vouchsafe secret set key"), "{told}");
    assert!(!told.contains("CANARY"), "{told}");
}

#[test]
fn a_workload_without_what_the_claims_say_gets_none() {
    let (_world, _, credentials) = world();
    for per in ["ttl", "call"] {
        let credential = at_work(&credentials, &format!("subject = \"{{workload.unit}}\"\nper = \"{per}\""));
        let error = token(&credential, &ask("bot", AskedBy::default())).unwrap_err();
        assert!(error.to_string().contains("{workload.unit}"), "{error}");
    }
}

#[test]
fn the_api_may_say_where_it_wants_the_token() {
    let (_world, jwk, credentials) = world();
    let credential = at_work(&credentials, "");
    let inject = Inject::from_template(http::HeaderName::from_static("x-token"), "jwt {secret}").unwrap();
    let inject = Arc::new(inject);
    let own = Ask { inject: Some(&inject), ..ask("bot", AskedBy::default()) };
    let headers = attached(&credential.ready(&own).unwrap().unwrap());
    let token = headers["x-token"].to_str().unwrap().strip_prefix("jwt ").unwrap().to_owned();
    assert!(verified(&token, &jwk).is_some());
    assert_eq!(headers.len(), 1);
}

const HOST: &str = "kind = \"jwt\"\naudience = \"https://api.test\"\n";

#[test]
fn without_a_key_the_issuer_of_this_host_says_who_calls() {
    let world = World::new();
    let issuer = issuer(&world);
    let credentials = world.credentials().with_issuer(Arc::clone(&issuer));
    let definition = format!("{HOST}ttl = \"1h\"\nclaims = {{ api = \"{{api}}\" }}");
    let credential = credentials.adopt(&policy(&definition)).pop().unwrap();
    let by = AskedBy::default();
    let error = token(&credential, &ask("bot", by)).unwrap_err();
    assert!(error.to_string().contains("not published"), "{error}");
    issuer.published(&issuer.documents()).unwrap();
    let first = token(&credential, &ask("bot", by)).unwrap();
    assert_eq!(first, token(&credential, &ask("bot", by)).unwrap());
    let set: Value = serde_json::from_str(&issuer.documents().keys).unwrap();
    let jwk = set["keys"][0].as_object().unwrap();
    for identity in ["bot", "other"] {
        let (_, claims) = verified(&token(&credential, &ask(identity, by)).unwrap(), jwk).unwrap();
        assert_eq!(claims["sub"], identity);
        assert_eq!((&claims["iss"], &claims["api"]), (&"https://host.test".into(), &"demo".into()));
        assert_eq!(
            claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
            300,
            "no longer than it says"
        );
    }
}

#[test]
fn a_host_that_is_no_issuer_makes_none() {
    let world = World::new();
    let credential = world.credentials().adopt(&policy(HOST)).pop().unwrap();
    let error = token(&credential, &ask("bot", AskedBy::default())).unwrap_err();
    assert!(error.to_string().contains("[issuer]"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_identity_ever_gets_the_token_of_another(calls in prop::collection::vec((0..5_u32, 0..3_u32), 1..60)) {
        let (_world, jwk, credentials) = world();
        let credential = at_work(&credentials, "claims = { uid = \"{workload.uid}\" }");
        for (identity, uid) in calls {
            let (identity, by) = (format!("bot-{identity}"), AskedBy { uid, ..AskedBy::default() });
            let (_, claims) = verified(&token(&credential, &ask(&identity, by)).unwrap(), &jwk).unwrap();
            prop_assert_eq!(&claims["sub"], identity.as_str());
            let uid = uid.to_string();
            prop_assert_eq!(&claims["uid"], uid.as_str());
        }
    }
}
