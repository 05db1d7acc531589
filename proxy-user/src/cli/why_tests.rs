//! What is found of a call, and when today's answer is not guessed.

use proxy_journal::Workload;
use proxy_policy::{SourceFile, compile};
use uuid::Uuid;

use super::*;

const POLICY: [(&str, &str); 2] = [
    (
        "policies/bot.toml",
        "[identity]\nuser = \"bot\"\n[[grant]]\napi = \"shop\"\nallow = [\"GET /v1/**\", \"websocket /ws\"]\n\
         [[grant]]\napi = \"shop\"\nallow = [\"PUT /v1/**\"]\nwhen = 'request.headers[\"x-env\"] == \"prod\"'\n\
         [[grant]]\nnetwork = [\"tcp 192.0.2.0/24:5432\"]\n",
    ),
    ("apis/shop.toml", "[api.shop]\nhosts = [\"shop.test\"]\naddresses = [\"192.0.2.0/24\"]\n"),
];

fn decision(method: Option<&str>, path: &str) -> Decision {
    Decision {
        id: Uuid::nil(),
        workload: Workload { pid: 7, exe: "/opt/bot".into(), ..Workload::default() }.into(),
        identity: Some("bot".into()),
        dst: "192.0.2.1:443".parse().unwrap(),
        proxy: None,
        scheme: Some(if method.is_some() { "https" } else { "tls" }.into()),
        api: None,
        host: Some("shop.test".into()),
        port: Some(443),
        method: method.map(str::to_owned),
        path: method.map(|_| path.to_owned()),
        has_query: false,
        verdict: Verdict::Deny,
        observed: false,
        rule: None,
        reason: "then".into(),
        credential: None,
        mistrust: None,
        capture: None,
        ech: false,
        refusal: None,
        basis: None,
        fingerprints: Vec::new(),
        generation: 3,
    }
}

fn today(entry: &Decision, status: Option<u16>) -> Recalled {
    let files = POLICY.map(|(path, text)| SourceFile { path: path.into(), text: text.into() });
    let live = Arc::new(LivePolicy::new(compile(&files).set.unwrap(), 0));
    let settings = Settings { unidentified: Unidentified::Deny, ports: &[80, 443] };
    recall(&live, entry, status, settings, When::At(clock::now()), Who::AsThen)
}

fn words(entry: &Decision, status: Option<u16>) -> Vec<&'static str> {
    match today(entry, status) {
        Recalled::Decided(judged) => judged.iter().map(word).collect(),
        Recalled::Not(_) => vec!["not"],
    }
}

#[test]
fn a_request_is_judged_again_as_far_as_it_is_recorded() {
    assert_eq!(words(&decision(Some("DELETE"), "/v1/x"), None), ["deny"]);
    assert_eq!(words(&decision(Some("PUT"), "/v1/x"), None), ["cannot be said"]);
    assert_eq!(
        words(&decision(Some("GET"), "/v1/x"), None),
        ["allow", "deny"],
        "it may have been an upgrade"
    );
    assert_eq!(words(&decision(Some("GET"), "/ws"), Some(101)), ["allow"]);
    assert_eq!(words(&decision(Some("GET"), "/other"), None), ["deny"], "whatever it was");
    assert_eq!(words(&decision(Some("POST"), "/x"), None), ["deny"]);
    assert_eq!(words(&decision(Some("GET"), "/v1/..;/x"), None), ["not"]);
    let gone = Decision { identity: Some("gone".into()), ..decision(Some("GET"), "/v1/x") };
    assert_eq!(words(&gone, None), ["not"], "another identity may match its program now");
}

#[test]
fn a_connection_is_judged_again_by_what_decides_connections() {
    let other = Decision { host: Some("other.test".into()), ..decision(None, "") };
    assert_eq!(words(&other, None), ["deny"]);
    let postgres = |address: &str| Decision {
        dst: address.parse().unwrap(),
        scheme: Some("tcp".into()),
        host: None,
        port: None,
        ..decision(None, "")
    };
    assert_eq!(words(&postgres("192.0.2.9:5432"), None), ["allow"]);
    assert_eq!(words(&postgres("198.51.100.9:5432"), None), ["deny"]);
    assert_eq!(words(&Decision { scheme: Some("https".into()), ..decision(None, "") }, None), ["not"]);
}

#[test]
fn whether_it_is_another_answer_is_only_said_when_it_is_certain() {
    let differs = |entry: &Decision| differs(entry, &today(entry, None));
    assert_eq!(differs(&decision(Some("DELETE"), "/v1/x")), Some(false));
    let allowed = Decision { verdict: Verdict::Allow, ..decision(Some("DELETE"), "/v1/x") };
    assert_eq!(differs(&allowed), Some(true));
    assert_eq!(differs(&decision(Some("PUT"), "/v1/x")), None);
    assert_eq!(differs(&decision(Some("GET"), "/v1/x")), None);
}
