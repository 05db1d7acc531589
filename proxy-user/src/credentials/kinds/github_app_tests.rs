//! What GitHub answers, well and badly.

use proptest::prelude::*;
use proxy_policy::CredentialKind;

use super::super::super::live::tests::policy;
use super::*;

fn kind(repositories: &str) -> GithubAppCredential {
    let set = policy(&format!(
        "kind = \"github-app\"\napp_id = 1\nprivate_key = \"vault:app\"\ninstallation_id = 2\n\
         repositories = {repositories}\npermissions = {{ contents = \"read\", issues = \"write\" }}"
    ));
    let Some(CredentialKind::GithubApp(kind)) = set.credentials().next().map(|it| it.kind.clone()) else {
        panic!("it is of another kind")
    };
    *kind
}

fn answer(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut answer = json!({
        "token": "ghs_CANARY", "expires_at": "2027-01-31T12:00:00Z", "repository_selection": "selected",
        "permissions": { "contents": "read", "issues": "write", "metadata": "read" },
        "repositories": [{ "id": 1, "name": "Site", "full_name": "acme/Site" }],
    });
    change(&mut answer);
    answer.to_string().into_bytes()
}

#[test]
fn what_was_asked_for_is_taken_and_so_is_less() {
    let given = Given::read(&answer(|_| ())).ok().unwrap();
    assert_eq!(given.token.expose(), b"ghs_CANARY");
    assert_eq!(given.expires_at.unix_timestamp(), 1_801_396_800);
    assert_eq!(given.is_narrow(&kind("[\"site\", \"docs\"]")), Ok(()));
    let less = answer(|it| it["permissions"] = json!({ "issues": "read" }));
    assert_eq!(Given::read(&less).ok().unwrap().is_narrow(&kind("[\"site\"]")), Ok(()));
    let all = answer(|it| it["repository_selection"] = "all".into());
    assert_eq!(Given::read(&all).ok().unwrap().is_narrow(&kind("[\"*\"]")), Ok(()));
}

#[test]
fn a_token_that_may_do_more_than_was_asked_for_is_refused() {
    let wide: [fn(&mut Value); 7] = [
        |it| it["permissions"]["contents"] = "write".into(),
        |it| it["permissions"]["issues"] = "admin".into(),
        |it| it["permissions"]["contents"] = "everything".into(),
        |it| it["permissions"]["administration"] = "read".into(),
        |it| it["permissions"]["metadata"] = "write".into(),
        |it| it["repository_selection"] = "all".into(),
        |it| it["repositories"] = json!([{ "name": "site" }, { "name": "payroll" }]),
    ];
    for change in wide {
        let given = Given::read(&answer(change)).ok().unwrap();
        assert!(given.is_narrow(&kind("[\"site\"]")).is_err());
    }
}

#[test]
fn an_answer_that_is_none_is_refused_without_being_repeated() {
    let bad: [fn(&mut Value); 6] = [
        |it| it["token"] = "".into(),
        |it| it["token"] = "CANARY\r\nx: y".into(),
        |it| it["token"] = Value::Null,
        |it| it["expires_at"] = "CANARY".into(),
        |it| it["permissions"] = Value::Null,
        |it| *it = json!(["CANARY"]),
    ];
    for change in bad {
        let error = Given::read(&answer(change)).err().unwrap();
        assert!(!error.contains("CANARY"), "{error}");
    }
    assert!(Given::read(b"").is_err());
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..300_usize) {
        let _ = Given::read(&bytes);
        let mut whole = answer(|_| ());
        whole.truncate(at);
        let _ = Given::read(&whole);
    }
}
