//! Identities that ask at the same time, of the kinds that make a token for each, while keys turn and tokens end.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use proptest::prelude::*;
use proxy_policy::JwtAlgorithm;

use super::super::jws::tests::new_key;
use super::super::live::tests::{World, attached, issuer, policy};
use super::super::live::{Credentials, LiveCredential};
use super::super::provider::{Ask, AskedBy};

/// What one of those who ask at the same time does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Asks for the credential of this number, as this identity and this user.
    Ask(usize, u32, u32),
    /// Sets the key of `jwt` anew.
    NewKey,
    /// The policy is loaded again, as it was.
    Reload,
    /// Lets what a program printed end.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..3_usize, 0..4_u32, 0..2_u32).prop_map(|(which, identity, uid)| Step::Ask(which, identity, uid)),
        1 => Just(Step::NewKey),
        1 => Just(Step::Reload),
        1 => (1_u64..400).prop_map(Step::Wait),
    ]
}

struct Stage {
    world: World,
    credentials: Credentials,
    definitions: [String; 3],
    all: [Arc<LiveCredential>; 3],
    _folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("tool");
        // Some of them are slower than others, so that answers come in another order than questions.
        let text =
            "[ $(($$ % 2)) = 0 ] && sleep 0.02\necho \"{\\\"token\\\": \\\"$1\\\", \\\"expires_in\\\": 1}\"";
        super::super::live::tests::script(&tool, text);
        let world = World::new();
        world.set("key", new_key(JwtAlgorithm::Es256).expose());
        let issuer = issuer(&world);
        issuer.published(&issuer.documents()).unwrap();
        let credentials = world.credentials().with_issuer(issuer);
        let claims = "claims = { uid = \"{workload.uid}\" }";
        let definitions = [
            format!("kind = \"exec\"\ncommand = [\"{}\", \"for-{{identity}}\"]", tool.display()),
            format!("kind = \"jwt\"\nkey = \"vault:key\"\nalgorithm = \"ES256\"\naudience = \"a\"\n{claims}"),
            format!("kind = \"jwt\"\naudience = \"a\"\nttl = \"2s\"\n{claims}"),
        ];
        let adopt = |definition: &String| credentials.adopt(&policy(definition)).pop().unwrap();
        let all = definitions.each_ref().map(adopt);
        Self { world, credentials, definitions, all, _folder: folder }
    }

    /// What a call of this identity gets, and what it must be.
    async fn ask(&self, which: usize, identity: u32, uid: u32) -> (String, String) {
        let name = format!("bot-{identity}");
        let workload = AskedBy { uid, ..AskedBy::default() };
        let ask = Ask { identity: &name, api: "demo", host: "api.test", workload, inject: None };
        let attachment = match self.all[which].ready(&ask) {
            Some(ready) => ready,
            None => self.all[which].provide(&ask).await,
        };
        let headers = attached(&attachment.unwrap());
        let token = headers[AUTHORIZATION].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        if which == 0 {
            return (token, format!("for-{name}"));
        }
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let told = format!("{} {}", claims["sub"].as_str().unwrap(), claims["uid"].as_str().unwrap());
        (told, format!("{name} {uid}"))
    }

    async fn take(&self, step: Step) -> Option<(String, String)> {
        match step {
            Step::Ask(which, identity, uid) => return Some(self.ask(which, identity, uid).await),
            Step::NewKey => {
                self.world.set("key", new_key(JwtAlgorithm::Es256).expose());
                self.credentials.reload().unwrap();
            }
            Step::Reload => {
                for definition in &self.definitions {
                    drop(self.credentials.adopt(&policy(definition)));
                }
            }
            Step::Wait(milliseconds) => tokio::time::sleep(Duration::from_millis(milliseconds)).await,
        }
        None
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn no_identity_ever_gets_a_token_of_another_whoever_asks_at_the_same_time(
        all in prop::collection::vec(prop::collection::vec(step(), 1..25), 2..5),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let stage = Arc::new(Stage::new());
            let tasks = all.into_iter().map(|steps| {
                let stage = Arc::clone(&stage);
                tokio::spawn(async move {
                    let mut got = Vec::new();
                    for step in steps {
                        got.extend(stage.take(step).await);
                    }
                    got
                })
            });
            for task in tasks.collect::<Vec<_>>() {
                for (told, own) in task.await.unwrap() {
                    prop_assert_eq!(told, own);
                }
            }
            Ok(())
        })?;
    }
}
