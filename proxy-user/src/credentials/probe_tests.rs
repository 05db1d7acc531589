//! What a call of our own tells, and what it does not.

use proxy_policy::{PolicySet, SourceFile, compile};

use super::super::inject::Inject;
use super::super::live::tests::World;
use super::super::provider::AskedBy;
use super::*;

fn policy(inject: &str, probe: &str) -> PolicySet {
    let text = format!(
        "[api.a]\nhosts = [\"127.0.0.1:1\"]\ninject = {inject}\n[credential.k]\nkind = \"static\"\nsecret = \"vault:k\"\n\
         probe = \"{probe}\"\n"
    );
    let compiled = compile(&[SourceFile::new("apis/a.toml", text)]);
    compiled.set.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics))
}

/// The error of a call to where nobody listens.
async fn refused(inject: &str, probe: &str) -> String {
    let world = World::new();
    world.set("k", b"CANARY-CANARY-CANARY");
    let credentials = world.credentials();
    let set = policy(inject, probe);
    let probe = set.credentials().next().unwrap().probe.as_ref().unwrap();
    let at_work = credentials.adopt(&set).pop().unwrap();
    let inject = set.api(probe.api).unwrap().inject.as_ref().and_then(Inject::of).map(Arc::new);
    let workload = AskedBy::default();
    let ask = Ask { identity: "bot", api: "a", host: "127.0.0.1", workload, inject: inject.as_ref() };
    credentials.probe(&at_work, probe, &ask).await.unwrap_err().to_string()
}

#[tokio::test]
async fn an_error_names_the_server_and_nothing_of_the_secret_wherever_it_stands() {
    for (inject, probe) in [
        ("{ header = \"x-key\", value = \"{secret}\" }", "GET https://127.0.0.1:1/me"),
        ("{ query = \"key\" }", "GET https://127.0.0.1:1/me?a=b"),
        (
            "{ placeholder = \"the-placeholder\", in = [\"path\"] }",
            "GET https://127.0.0.1:1/bot/the-placeholder/me",
        ),
    ] {
        let error = refused(inject, probe).await;
        assert!(error.contains("https://127.0.0.1:1/") && error.contains("no connection"), "{error}");
        assert!(!error.contains("CANARY"), "{error}");
    }
}

#[tokio::test]
async fn a_probe_in_which_the_credential_has_no_place_is_told() {
    let inject = "{ placeholder = \"the-placeholder\", in = [\"path\"] }";
    let error = refused(inject, "GET https://127.0.0.1:1/me").await;
    assert!(error.contains("placeholder") && error.contains("GET https://127.0.0.1:1/me"), "{error}");
}
