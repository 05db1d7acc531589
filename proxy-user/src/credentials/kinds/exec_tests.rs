//! Programs that print credentials, through the credential that a policy defines.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use proptest::prelude::*;

use super::super::super::live::LiveCredential;
use super::super::super::live::tests::{World, attached, policy};
use super::super::super::provider::{Ask, AskedBy};

fn script(folder: &Path, text: &str) -> String {
    super::super::super::live::tests::script(&folder.join("tool"), text)
}

fn credential(program: &str, arguments: &str, more: &str) -> Arc<LiveCredential> {
    let definition = format!("kind = \"exec\"\ncommand = [\"{program}\"{arguments}]\n{more}");
    World::new().credentials().adopt(&policy(&definition)).pop().unwrap()
}

fn ask(identity: &str) -> Ask<'_> {
    Ask { identity, api: "stripe", host: "api.test", workload: AskedBy::default(), inject: None }
}

async fn told(credential: &LiveCredential, identity: &str) -> String {
    let attachment = match credential.ready(&ask(identity)) {
        Some(ready) => ready,
        None => credential.provide(&ask(identity)).await,
    };
    match attachment {
        Ok(attachment) => attached(&attachment)[AUTHORIZATION].to_str().unwrap().to_owned(),
        Err(error) => error.to_string(),
    }
}

/// How often the program has run.
fn runs(folder: &Path) -> usize {
    fs::read_to_string(folder.join("runs")).unwrap_or_default().lines().count()
}

#[tokio::test]
async fn a_credential_that_names_nobody_is_printed_once_for_all() {
    let folder = tempfile::tempdir().unwrap();
    let program = script(
        folder.path(),
        &format!(
            "echo run >>{}/runs; echo '{{\"token\": \"t\", \"expires_in\": 60}}'",
            folder.path().display()
        ),
    );
    let credential = credential(&program, "", "");
    let all = (0..8).map(|number| {
        let credential = Arc::clone(&credential);
        tokio::spawn(async move { told(&credential, &format!("bot-{number}")).await })
    });
    for each in all.collect::<Vec<_>>() {
        assert_eq!(each.await.unwrap(), "Bearer t");
    }
    assert_eq!(runs(folder.path()), 1);
}

#[tokio::test]
async fn a_program_that_fails_is_not_run_for_each_call_and_its_words_are_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let runs_file = folder.path().join("runs");
    let text = format!("echo run >>{}; echo CANARY; echo CANARY >&2; exit 7", runs_file.display());
    let credential = credential(&script(folder.path(), &text), "", "");
    for _ in 0..20 {
        let told = told(&credential, "bot").await;
        assert!(told.contains("status 7") && !told.contains("CANARY"), "{told}");
    }
    assert_eq!(runs(folder.path()), 1);
}

#[tokio::test]
async fn what_is_no_credential_or_comes_too_late_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (text, more, says) in [
        ("echo CANARY", "", "not JSON"),
        ("echo '{\"token\": \"CANARY\", \"expires_in\": 0}'", "", "ended"),
        ("sleep 60", "timeout = \"1s\"", "longer than 1 s"),
        ("yes", "", "65536 bytes"),
        ("true", "user = \"not-there\"", "no user not-there"),
    ] {
        let told = told(&credential(&script(folder.path(), text), "", more), "bot").await;
        assert!(told.contains(says) && !told.contains("CANARY"), "{text}: {told}");
    }
}

#[tokio::test]
async fn a_program_gets_the_variables_and_the_user_of_the_policy() {
    let folder = tempfile::tempdir().unwrap();
    let program =
        script(folder.path(), "echo \"{\\\"token\\\": \\\"$(id -un):${HOME:-none}:${CARGO:-none}\\\"}\"");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let as_nobody = credential(&program, "", "user = \"nobody\"\nenv = [\"HOME\"]");
    let home = std::env::var("HOME").unwrap();
    assert_eq!(told(&as_nobody, "bot").await, format!("Bearer nobody:{home}:none"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]
    #[test]
    fn no_identity_ever_gets_what_was_printed_for_another(calls in proptest::collection::vec(0_usize..4, 1..24)) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let folder = tempfile::tempdir().unwrap();
            // Ends at once, so that it is printed again in between.
            let program = script(folder.path(), "echo \"{\\\"token\\\": \\\"$1\\\", \\\"expires_in\\\": 1}\"");
            let credential = credential(&program, ", \"for-{identity}\"", "");
            let all = calls.into_iter().map(|number| {
                let credential = Arc::clone(&credential);
                tokio::spawn(async move {
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
