//! Access tokens of a server on a loopback address, through the credential that a policy defines.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::header::AUTHORIZATION;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::super::jws::tests::verified;
use super::super::super::live::tests::{World, attached, issuer, policy};
use super::super::super::live::{Credentials, LiveCredential};
use super::super::super::provider::{Ask, AskedBy};

type Form = BTreeMap<String, String>;

/// What a server got: its form, and the header that proves the client.
#[derive(Clone, Debug)]
struct Asked {
    form: Form,
    authorization: Option<String>,
}

/// A token endpoint that answers what `answer` says; all that it was asked is in the list.
async fn server(
    answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<Asked>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (all, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
    let seen = Arc::clone(&all);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
            tokio::spawn(async move {
                let asked = read(&mut stream).await;
                let (status, body) = answer(&asked);
                seen.lock().unwrap().push(asked);
                let head = format!(
                    "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            });
        }
    });
    (address, all)
}

async fn read(stream: &mut tokio::net::TcpStream) -> Asked {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = stream.read(&mut chunk).await.unwrap();
        assert!(count > 0, "the call broke off");
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let headers: HashMap<String, &str> = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        if body.len() < headers["content-length"].parse().unwrap() {
            continue;
        }
        assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
        let form = body.split('&').map(|field| {
            let (name, value) = field.split_once('=').unwrap();
            (name.to_owned(), decoded(value))
        });
        let authorization = headers.get("authorization").map(|it| (*it).to_owned());
        return Asked { form: form.collect(), authorization };
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

fn token(text: &str, lasts: u64) -> (u16, String) {
    (200, format!(r#"{{"access_token": "{text}", "token_type": "bearer", "expires_in": {lasts}}}"#))
}

fn credential(credentials: &Credentials, address: SocketAddr, definition: &str) -> Arc<LiveCredential> {
    let definition = format!("kind = \"oauth2\"\ntoken_url = \"http://{address}/token\"\n{definition}");
    credentials.adopt(&policy(&definition)).pop().unwrap()
}

async fn told(credential: &LiveCredential, identity: &str) -> String {
    let ask = Ask { identity, api: "stripe", host: "api.test", workload: AskedBy::default(), inject: None };
    let attachment = match credential.ready(&ask) {
        Some(ready) => ready,
        None => credential.provide(&ask).await,
    };
    match attachment {
        Ok(attachment) => attached(&attachment)[AUTHORIZATION].to_str().unwrap().to_owned(),
        Err(error) => error.to_string(),
    }
}

const CLIENT: &str =
    "grant = \"client_credentials\"\nclient_id = \"a bot\"\nclient_secret = \"vault:client\"\n";

#[tokio::test]
async fn a_client_proves_itself_in_the_header_or_in_the_body_and_says_what_it_wants() {
    let world = World::new();
    world.set("client", b"p:ss %w\xc3\xb6rd");
    let (address, asked) = server(|_| token("t", 60)).await;
    let more =
        "scopes = [\"read\", \"write\"]\naudience = \"https://a.test\"\nresource = [\"https://a.test/x\"]";
    for way in ["", "auth = \"post\"\n"] {
        let credential = credential(&world.credentials(), address, &format!("{CLIENT}{way}{more}"));
        for bot in ["one", "other"] {
            assert_eq!(told(&credential, bot).await, "Bearer t");
        }
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2, "one for all");
    // printf '%s' 'a+bot:p%3Ass+%25w%C3%B6rd' | base64
    let basic = "Basic YStib3Q6cCUzQXNzKyUyNXclQzMlQjZyZA==";
    assert_eq!(asked[0].authorization.as_deref(), Some(basic));
    assert!(!asked[0].form.contains_key("client_id") && !asked[0].form.contains_key("client_secret"));
    assert_eq!(asked[1].authorization, None);
    assert_eq!((&*asked[1].form["client_id"], &*asked[1].form["client_secret"]), ("a bot", "p:ss %wörd"));
    for asked in asked.iter() {
        assert_eq!((&*asked.form["grant_type"], &*asked.form["scope"]), ("client_credentials", "read write"));
        assert_eq!(
            (&*asked.form["audience"], &*asked.form["resource"]),
            ("https://a.test", "https://a.test/x")
        );
    }
}

#[tokio::test]
async fn what_a_server_refuses_is_told_without_any_secret_and_it_is_left_alone_for_a_while() {
    let world = World::new();
    world.set("client", b"CANARY-of-a-client");
    for (status, body, says, not) in [
        (
            401,
            r#"{"error": "invalid_client", "error_description": "no such client"}"#,
            "invalid_client (no such client)",
            "CANARY",
        ),
        (
            400,
            r#"{"error": "invalid_client", "error_description": "CANARY-of-a-client is wrong"}"#,
            "400 invalid_client;",
            "CANARY",
        ),
        (400, r#"{"error": "invalid_scope"}"#, "check scopes", "CANARY"),
        (302, "", "answered 302", "CANARY"),
        (500, "<html>CANARY-of-a-client</html>", "answered 500", "CANARY"),
        (200, r#"{"access_token": "CANARY", "token_type": "mac"}"#, "none of the type Bearer", "CANARY"),
        (
            200,
            r#"{"access_token": "CANARY\r\nx: y", "token_type": "bearer"}"#,
            "that a header can carry",
            "CANARY",
        ),
    ] {
        let (address, asked) = server(move |_| (status, body.to_owned())).await;
        let credential = credential(&world.credentials(), address, CLIENT);
        for _ in 0..10 {
            let told = told(&credential, "bot").await;
            assert!(told.contains(says) && !told.contains(not), "{body}: {told}");
        }
        assert_eq!(asked.lock().unwrap().len(), 1, "{body}");
    }
}

#[tokio::test]
async fn a_secret_that_was_set_anew_is_tried_at_once_and_one_that_is_gone_ends_what_it_gave() {
    let world = World::new();
    world.set("client", b"wrong");
    let (address, asked) = server(|asked| match asked.form["client_secret"].as_str() {
        "right" => token("t", 3600),
        _ => (401, r#"{"error": "invalid_client"}"#.to_owned()),
    })
    .await;
    let credentials = world.credentials();
    let credential = credential(&credentials, address, &format!("{CLIENT}auth = \"post\""));
    for _ in 0..3 {
        assert!(told(&credential, "bot").await.contains("invalid_client"));
    }
    world.set("client", b"right");
    credentials.reload().unwrap();
    assert_eq!(told(&credential, "bot").await, "Bearer t");
    world.store.remove(&"client".parse().unwrap()).unwrap();
    credentials.reload().unwrap();
    assert!(told(&credential, "bot").await.contains("no secret client"));
    world.set("client", b"wrong");
    credentials.reload().unwrap();
    assert!(told(&credential, "bot").await.contains("invalid_client"), "the token went with the secret");
    assert_eq!(asked.lock().unwrap().len(), 3);
}

/// A server that takes each refresh token once: a second time ends it all.
async fn rotating() -> (SocketAddr, Arc<Mutex<Vec<Asked>>>) {
    let valid = Mutex::new(Some("r0".to_owned()));
    server(move |asked| {
        let mut valid = valid.lock().unwrap();
        let Some(number) = valid.take().filter(|it| *it == asked.form["refresh_token"]) else {
            return (400, r#"{"error": "invalid_grant"}"#.to_owned());
        };
        let next = format!("r{}", number[1..].parse::<u32>().unwrap() + 1);
        *valid = Some(next.clone());
        // The type of the token comes last, so that an answer that cannot be used still has rotated.
        let kind = if next == "r2" { "unknown" } else { "Bearer" };
        (200, format!(r#"{{"access_token": "a-{next}", "expires_in": 1, "refresh_token": "{next}", "token_type": "{kind}"}}"#))
    })
    .await
}

const REFRESH: &str =
    "grant = \"refresh_token\"\nclient_id = \"bot\"\nauth = \"none\"\nrefresh_token = \"vault:r\"\n";

#[tokio::test]
async fn a_refresh_token_is_used_once_and_the_next_is_stored_before_its_access_token_is_used() {
    let world = World::new();
    world.set("r", b"r0");
    let (address, asked) = rotating().await;
    let credentials = world.credentials();
    let credential_a = credential(&credentials, address, REFRESH);
    let stored =
        || String::from_utf8(world.store.read().ok().unwrap()["r"].secret.expose().to_vec()).unwrap();
    assert_eq!(told(&credential_a, "bot").await, "Bearer a-r1");
    assert_eq!(stored(), "r1");
    // Another policy, other credentials with the same one, and calls at the same time.
    let other = credential(&credentials, address, &format!("{REFRESH}scopes = [\"more\"]"));
    assert!(told(&other, "bot").await.contains("none of the type"), "this answer cannot be used");
    assert_eq!(stored(), "r2", "and has rotated all the same");
    let all = (0..10).map(|number| {
        let (credential, definition) =
            (Arc::clone(&credential_a), format!("{REFRESH}scopes = [\"s{}\"]", number % 3));
        let other = self::credential(&credentials, address, &definition);
        tokio::spawn(async move { (told(&other, "bot").await, told(&credential, "bot").await) })
    });
    for each in all.collect::<Vec<_>>() {
        let (other, own) = each.await.unwrap();
        assert!(other.starts_with("Bearer a-r") && own.starts_with("Bearer a-r"), "{other} {own}");
    }
    let last = asked.lock().unwrap().len();
    assert_eq!(stored(), format!("r{last}"));
    // As after a crash: what is in the store is the newest.
    let credential = credential(&world.credentials(), address, REFRESH);
    assert_eq!(told(&credential, "bot").await, format!("Bearer a-r{}", last + 1));
    let mut used: Vec<String> =
        asked.lock().unwrap().iter().map(|it| it.form["refresh_token"].clone()).collect();
    used.sort();
    used.dedup();
    assert_eq!(used.len(), last + 1, "none was used twice");
}

#[tokio::test]
async fn an_access_token_is_not_used_while_the_refresh_token_that_came_with_it_is_not_stored() {
    let world = World::new();
    world.set("r", b"r0");
    let (address, asked) = rotating().await;
    let credential = credential(&world.credentials(), address, REFRESH);
    let aside = world.store.path().with_file_name("secrets.store.new");
    std::fs::create_dir(&aside).unwrap();
    let told_first = told(&credential, "bot").await;
    assert!(told_first.contains("in memory alone"), "{told_first}");
    std::fs::remove_dir(&aside).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    // r2 comes with a token that cannot be used; r3 does not.
    assert!(told(&credential, "bot").await.contains("none of the type"));
    tokio::time::sleep(std::time::Duration::from_millis(2600)).await;
    assert_eq!(told(&credential, "bot").await, "Bearer a-r3");
    let used: Vec<String> = asked.lock().unwrap().iter().map(|it| it.form["refresh_token"].clone()).collect();
    assert_eq!(used, ["r0", "r1", "r2"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn no_identity_ever_gets_a_token_on_behalf_of_another(
        calls in proptest::collection::vec((0_usize..4, 0_u64..30), 1..40),
        exchanges in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let world = World::new();
            let issuer = issuer(&world);
            issuer.published(&issuer.documents()).unwrap();
            let keys: serde_json::Value = serde_json::from_str(&issuer.documents().keys).unwrap();
            // Believes who the signed token says, and nothing else; what it gives ends at once.
            let (address, _) = server(move |asked| {
                let shown = asked.form.get("subject_token").or(asked.form.get("assertion")).unwrap();
                let (_, claims) = verified(shown, keys["keys"][0].as_object().unwrap()).unwrap();
                assert_eq!(claims["aud"], "https://as.test");
                token(&format!("for-{}", claims["sub"].as_str().unwrap()), 1)
            })
            .await;
            let definition = match exchanges {
                true => "grant = \"token_exchange\"\nsubject_token = \"issuer:https://as.test\"",
                false => "grant = \"jwt_bearer\"\nassertion = { audience = \"https://as.test\" }",
            };
            let credentials = world.credentials().with_issuer(issuer);
            let credential = credential(&credentials, address, definition);
            let all = calls.into_iter().map(|(number, pause)| {
                let credential = Arc::clone(&credential);
                tokio::spawn(async move {
                    tokio::time::sleep(std::time::Duration::from_millis(pause * 50)).await;
                    let name = format!("bot-{number}");
                    (told(&credential, &name).await, format!("Bearer for-{name}"))
                })
            });
            for each in all.collect::<Vec<_>>() {
                let (told, own) = each.await.unwrap();
                prop_assert_eq!(told, own);
            }
            Ok(())
        })?;
    }
}
