//! Signatures with keys of the host and of roles, through the credential that a policy defines.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::Method;
use http::header::{AUTHORIZATION, HeaderMap};
use http::uri::{Authority, PathAndQuery};
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::super::attach::Head;
use super::super::super::live::tests::{World, policy};
use super::super::super::live::{Credentials, LiveCredential};
use super::super::super::provider::{Ask, AskedBy};

const OWN: &str = "kind = \"aws\"\nregion = \"r\"\nservice = \"s3\"\n";

fn credential(credentials: &Credentials, definition: &str) -> Arc<LiveCredential> {
    credentials.adopt(&policy(&format!("{OWN}{definition}"))).pop().unwrap()
}

/// The id of the key that signs a call of an identity, or why there is none.
async fn signed_by(credential: &LiveCredential, identity: &str) -> String {
    let ask = Ask { identity, api: "aws", host: "s3.test", workload: AskedBy::default(), inject: None };
    let attachment = match credential.ready(&ask) {
        Some(ready) => ready,
        None => credential.provide(&ask).await,
    };
    let attachment = match attachment {
        Ok(attachment) => attachment,
        Err(error) => return error.to_string(),
    };
    let (mut target, mut headers) = (PathAndQuery::from_static("/x"), HeaderMap::new());
    let authority = Authority::from_static("s3.test");
    let mut head =
        Head { method: &Method::GET, target: &mut target, authority: &authority, headers: &mut headers };
    assert!(attachment.attach(&mut head).is_err(), "a request that was not looked at is not signed");
    let signing = attachment.for_request(&head).unwrap().unwrap();
    signing.attach(&mut head).unwrap();
    let value = headers[AUTHORIZATION].to_str().unwrap();
    value.split_once("Credential=").unwrap().1.split('/').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_id_of_a_key_changes_with_the_key() {
    let world = World::new();
    world.set("id", b"AKID1\n");
    world.set("secret", b"one");
    let credentials = world.credentials();
    let credential =
        credential(&credentials, "access_key_id = \"vault:id\"\nsecret_access_key = \"vault:secret\"");
    assert_eq!(signed_by(&credential, "bot").await, "AKID1");
    world.set("id", b"AKID2");
    world.set("secret", b"two");
    credentials.reload().unwrap();
    assert_eq!(signed_by(&credential, "bot").await, "AKID2");
    world.set("id", b"CANARY/x");
    credentials.reload().unwrap();
    let error = signed_by(&credential, "bot").await;
    assert!(error.contains("the id of its key") && !error.contains("CANARY"), "{error}");
    world.store.remove(&"secret".parse().unwrap()).unwrap();
    credentials.reload().unwrap();
    assert!(signed_by(&credential, "bot").await.contains("secret"));
}

/// A service that gives keys whose id names the session; what it was asked is in the list.
async fn service(seconds: i64) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let form = loop {
                let mut piece = [0; 4096];
                let count = stream.read(&mut piece).await.unwrap();
                assert!(count > 0, "the call broke off");
                bytes.extend_from_slice(&piece[..count]);
                let text = String::from_utf8(bytes.clone()).unwrap();
                let Some((head, form)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if form.len() == length.parse::<usize>().unwrap() {
                    break form.to_owned();
                }
            };
            let name = form.split_once("RoleSessionName=").unwrap().1.split('&').next().unwrap();
            let ends = time::OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
            let ends = ends.format(&time::format_description::well_known::Rfc3339).unwrap();
            let body = format!(
                "<R><Credentials><AccessKeyId>KEY-{name}</AccessKeyId><SecretAccessKey>s-{name}</SecretAccessKey>\
                 <SessionToken>t-{name}</SessionToken><Expiration>{ends}</Expiration></Credentials></R>"
            );
            seen.lock().unwrap().push(form);
            let head =
                format!("HTTP/1.1 200 x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    (address, asked)
}

fn of_role(address: SocketAddr, more: &str) -> String {
    format!(
        "access_key_id = \"AKID\"\nsecret_access_key = \"vault:secret\"\nrole_arn = \"arn:aws:iam::1:role/x\"\n\
         sts_url = \"http://{address}/\"\n{more}"
    )
}

#[tokio::test]
async fn a_role_is_asked_for_with_what_the_policy_says() {
    let world = World::new();
    world.set("secret", b"CANARY");
    let (address, asked) = service(900).await;
    let credentials = world.credentials();
    let more = "session_name = \"everybody\"\nexternal_id = \"a/b\"\nduration = \"15m\"";
    let credential = credential(&credentials, &of_role(address, more));
    for bot in ["one", "other", "one"] {
        assert_eq!(signed_by(&credential, bot).await, "KEY-everybody");
    }
    let asked = asked.lock().unwrap();
    let expected = "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fx&\
                    RoleSessionName=everybody&DurationSeconds=900&ExternalId=a%2Fb";
    assert_eq!(*asked, [expected], "one for all");
}

#[tokio::test]
async fn keys_that_ended_before_they_came_and_names_that_are_too_short_are_refused() {
    let world = World::new();
    world.set("secret", b"CANARY");
    let (address, _) = service(-5).await;
    let credentials = world.credentials();
    let error = signed_by(&credential(&credentials, &of_role(address, "")), "bot").await;
    assert!(error.contains("ended before they came") && !error.contains("s-bot"), "{error}");
    let error = signed_by(&credential(&credentials, &of_role(address, "")), "b").await;
    assert!(error.contains("session_name"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn no_identity_ever_signs_with_the_keys_of_another(order in prop::collection::vec(0usize..4, 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            world.set("secret", b"one");
            let (address, asked) = service(900).await;
            let credentials = world.credentials();
            let credential = credential(&credentials, &of_role(address, ""));
            let names = ["first", "second", "third", "fourth"];
            let calls = order.iter().map(|at| {
                let (credential, name) = (Arc::clone(&credential), names[*at]);
                tokio::spawn(async move { (name, signed_by(&credential, name).await) })
            });
            for call in calls.collect::<Vec<_>>() {
                let (name, key) = call.await.unwrap();
                assert_eq!(key, format!("KEY-{name}"));
            }
            let different: std::collections::BTreeSet<_> = order.iter().collect();
            assert_eq!(asked.lock().unwrap().len(), different.len(), "asked once for each");
        });
    }
}
