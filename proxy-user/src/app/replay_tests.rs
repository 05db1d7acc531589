//! What was decided is decided again from its record, for generated policies and calls; and what a record does not tell is not guessed.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use proptest::prelude::*;
use proxy_policy::{CallKind, CallPath, Host, Scheme, SourceFile, compile};

use super::*;
use crate::authorize::{
    Answer, Asked, Facts, Refusal, Subject, Unidentified, authorize, authorize_network, authorize_passage,
    authorize_whole, entry,
};
use crate::base::addr::OriginalDst;
use crate::http::seen;
use crate::workload::{Identified, Workload};

const SETTINGS: Settings<'static> = Settings { unidentified: Unidentified::Deny, ports: &[80, 443] };
/// Some grants end before it, some after.
const NOW: Moment = Moment(1_800_000_000);

const APIS: &str = r#"
[api.shop]
hosts = ["shop.test", "*.shop.test"]
addresses = ["192.0.2.0/24"]
inject = { header = "x-key", value = "{secret}" }
strip = ["x-hidden"]
limit = "1000/h"
[api.plain]
scheme = "http"
hosts = ["plain.test", "[2001:db8::7]"]
[api.pinned]
hosts = ["pinned.test"]
"#;

const CREDENTIALS: &str = r#"
credential.one = { kind = "static", secret = "vault:one" }
credential.two = { kind = "static", secret = "vault:two" }
"#;

const ROLES: &str = r#"
[role.reader]
api = "shop"
params = ["place"]
allow = ["GET /{place}/**"]
when = '(params.place == "a") == (request.headers["x-env"] == "prod")'
credential = "two"
"#;

const CONDITIONS: [&str; 16] = [
    r#"request.headers["x-env"] == "prod""#,
    r#"request.headers["x-env"] != "prod""#,
    r#"has(request.headers.x_env)"#,
    r#""x-hidden" in request.headers"#,
    r#""account" in request.query"#,
    r#"request.query["account"][0] == "42""#,
    r#"size(request.query) == 0"#,
    r#"body.amount < 100"#,
    r#"body.kind == "refund" || request.headers["x-env"] == "prod""#,
    r#"request.method == "GET""#,
    r#"workload.uid == 1000 && workload.exe == "/opt/bot""#,
    r#"has(workload.unit) && workload.unit == "bot.service""#,
    r#"now < timestamp("2027-01-15T08:00:01Z")"#,
    r#"now.getHours() < 12"#,
    r#"identity == "bot" && request.host.endsWith("shop.test")"#,
    r#"request.path.startsWith("/a") && size(request.headers) > 0"#,
];

const OPERATIONS: [&str; 9] = [
    "GET /**",
    "POST /a/**",
    "* /a/b",
    "* /**",
    "websocket /**",
    "grpc pkg.Svc/*",
    "GET|POST /{x}/b",
    "DELETE /a/*",
    "PUT /a%20b/**",
];

fn pick<T: Clone + std::fmt::Debug + 'static>(from: &[T]) -> impl Strategy<Value = T> + use<T> {
    prop::sample::select(from.to_vec())
}

fn one_grant() -> impl Strategy<Value = String> {
    let api = pick(&["shop", "shop", "shop", "plain"]);
    let some = |p: f64| prop::bool::weighted(p);
    let parts = (
        (api, prop::collection::vec(pick(&OPERATIONS), 0..3), prop::collection::vec(pick(&OPERATIONS), 0..2)),
        prop::option::weighted(0.6, pick(&CONDITIONS)),
        prop::option::weighted(0.2, pick(&["2026-01-01", "2027-06-01"])),
        (some(0.2), some(0.3)),
        pick(&["one", "two"]),
        prop::option::weighted(0.2, pick(&[16usize, 40])),
    );
    parts.prop_map(|((api, allow, deny), when, until, (observe, limit), name, body_limit)| {
        let mut text = format!("[[grant]]\napi = {api:?}\n");
        if !allow.is_empty() || deny.is_empty() {
            let allow = if allow.is_empty() { vec!["GET /**"] } else { allow };
            text += &format!("allow = {allow:?}\n");
            if api == "shop" {
                text += &format!("credential = {name:?}\n");
            }
            if limit {
                text += "limit = \"5/min\"\n";
            }
            if let Some(until) = until {
                text += &format!("until = {until}\n");
            }
        }
        if !deny.is_empty() {
            text += &format!("deny = {deny:?}\n");
        }
        if observe {
            text += "mode = \"observe\"\n";
        }
        if let Some(when) = when {
            text += &format!("when = '''{when}'''\n");
            if let Some(limit) = body_limit.filter(|_| when.contains("body")) {
                text += &format!("body_limit = {limit}\n");
            }
        }
        text
    })
}

fn policy() -> impl Strategy<Value = String> {
    let fixed = pick(&[
        "[[grant]]\nnetwork = [\"tcp 192.0.2.0/24:5432\", \"udp resolver:53\"]\n",
        "[[grant]]\nnetwork = [\"tcp 192.0.2.0/24:5432\"]\nuntil = 2026-01-01\n",
        "[[grant]]\nrole = \"reader\"\nwith = { place = \"a\" }\n",
        "[[grant]]\nrole = \"reader\"\nwith = { place = \"a\" }\n[[grant]]\nrole = \"reader\"\nwith = { place = \"b\" }\n",
        "[[grant]]\napi = \"shop\"\nallow = [\"GET /{x}/b\"]\ncredential = \"one\"\nwhen = 'captures.x == \"a\" && request.headers[\"x-env\"] == \"prod\"'\n",
        "[[grant]]\napi = \"pinned\"\nintercept = false\n",
        "",
    ]);
    let top = pick(&["", "mode = \"observe\"\n", "unmatched = \"pass\"\n", "limit = \"100/min\"\n"]);
    let grants = prop::collection::vec(one_grant(), 0..5);
    (top, grants, fixed).prop_map(|(top, grants, fixed)| {
        // What is not looked into cannot be counted.
        let top = if fixed.contains("intercept") && top.contains("limit") { "" } else { top };
        format!("{top}[identity]\nuser = \"root\"\n{}{fixed}", grants.concat())
    })
}

fn files(bot: &str) -> Vec<SourceFile> {
    let other = "[identity]\nuser = \"daemon\"\n";
    [
        ("apis/a.toml", APIS),
        ("credentials/c.toml", CREDENTIALS),
        ("roles/r.toml", ROLES),
        ("policies/bot.toml", bot),
        ("policies/other.toml", other),
    ]
    .map(|(path, text)| SourceFile { path: path.into(), text: text.into() })
    .into()
}

fn live(bot: &str) -> Arc<LivePolicy> {
    let compiled = compile(&files(bot));
    let set = compiled.set.unwrap_or_else(|| panic!("{bot}\n{:#?}", compiled.diagnostics));
    Arc::new(to_judge(set).with_resolvers(vec!["192.0.2.53".parse().unwrap()]))
}

/// A call as the daemon meets it.
#[derive(Clone, Debug)]
struct Call {
    who: &'static str,
    foreign: bool,
    observed: bool,
    unidentified: Unidentified,
    kind: CallKind,
    host: (Scheme, &'static str),
    address: &'static str,
    method: &'static str,
    path: String,
    query: Option<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
    body: Option<&'static str>,
}

fn call() -> impl Strategy<Value = Call> {
    let who = pick(&["bot", "bot", "bot", "bot", "other", "none", "several"]);
    let kind = pick(&[CallKind::Plain, CallKind::Plain, CallKind::WebSocket, CallKind::Grpc]);
    let host = pick(&[
        (Scheme::Https, "shop.test"),
        (Scheme::Https, "eu.shop.test"),
        (Scheme::Http, "plain.test"),
        (Scheme::Http, "[2001:db8::7]"),
        (Scheme::Http, "elsewhere.test"),
        (Scheme::Https, "pinned.test"),
    ]);
    let headers = prop::collection::vec(
        (pick(&["x-env", "x_env", "x-hidden", "x-key", "accept"]), pick(&["prod", "dev", "*/*"])),
        0..4,
    );
    let body = prop::option::of(pick(&[
        r#"{"amount": 5}"#,
        r#"{"amount": 500, "kind": "refund"}"#,
        r#"{"kind": "refund", "more": "than sixteen and forty bytes"}"#,
        "[",
        r#"{"a": 1, "a": 2}"#,
    ]));
    let query = prop::option::of(pick(&["account=42", "account=7&x=1", "a;b", "", "secret=canary"]));
    let path = pick(&[
        "/a/b",
        "/a/b/c",
        "/b/b",
        "/a%20b/x",
        "/pkg.Svc/Get",
        "/a//b/../c%2e",
        "/",
        "/%C3%A9%25/x%20y",
    ]);
    (
        (who, prop::bool::weighted(0.1), prop::bool::weighted(0.2), prop::bool::ANY, kind, host),
        pick(&["192.0.2.1", "198.51.100.1", "127.0.0.1", "2001:db8::1"]),
        pick(&["GET", "POST", "DELETE", "PUT", "get", "M-SEARCH"]),
        path,
        query,
        headers,
        body,
    )
        .prop_map(
            |((who, foreign, observed, pass, kind, host), address, method, path, query, headers, body)| {
                Call {
                    who,
                    foreign,
                    observed,
                    unidentified: if pass { Unidentified::Pass } else { Unidentified::Deny },
                    kind,
                    host,
                    address,
                    method,
                    path: path.to_owned(),
                    query,
                    headers,
                    body,
                }
            },
        )
}

impl Call {
    fn subject(&self, live: &Arc<LivePolicy>) -> Subject {
        let workload = Workload {
            pid: 7,
            exe: Some("/opt/bot".to_owned()),
            uid: 1000,
            gid: 5,
            unit: Some("bot.service".to_owned()),
            foreign: self.foreign,
            ..Workload::default()
        };
        let identified = match live.set().identity_named(self.who) {
            Some(identity) => Identified::One(identity.id),
            None if self.who == "several" => Identified::Ambiguous(vec!["bot".into(), "other".into()]),
            None => Identified::None("no policy names it".to_owned().into()),
        };
        Subject::new(Arc::new(workload), Arc::clone(live), identified).where_all_is_observed(self.observed)
    }

    fn dst(&self, port: u16) -> OriginalDst {
        OriginalDst((self.address.parse::<std::net::IpAddr>().unwrap(), port).into())
    }

    /// What the journal gets of it as a request: decided as `connection::call` does.
    fn requested(&self, live: &Arc<LivePolicy>) -> Decision {
        let subject = self.subject(live);
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        let (scheme, host) = self.host;
        let facts = Facts {
            scheme,
            host: Cow::Owned(Host::parse(host).unwrap()),
            port: scheme.default_port(),
            address: Some(self.dst(0).ip()),
            method: &method,
            path: CallPath::normalize(&self.path).unwrap(),
            query: self.query,
            kind: self.kind,
        };
        let asked = facts.asked(self.dst(facts.port), None);
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        if self.body.is_some() {
            headers.insert("content-type", HeaderValue::from_static("application/json"));
        }
        let mut looked_at = None;
        loop {
            match authorize(&subject, &facts, self.unidentified, NOW, looked_at.as_ref()) {
                Ok(Answer::Permit(permit)) => {
                    return entry::permitted(&subject, &asked, &permit).to_decision().unwrap();
                }
                Err(refusal) => return entry::refused(&subject, &asked, &refusal),
                Ok(Answer::NeedsSeen) => {
                    looked_at = Some(seen::head(live, &facts, &headers, Version::HTTP_11, false));
                }
                Ok(Answer::NeedsBody { limit }) => {
                    let body = self.body.unwrap_or_default().as_bytes();
                    looked_at.as_mut().unwrap().body = seen::whole_body(body, &headers, limit);
                }
                Ok(Answer::Untold(why)) => panic!("{why}"),
            }
        }
    }

    /// What the journal gets of a connection that is decided as a whole, or of traffic past the proxy.
    fn connected(&self, live: &Arc<LivePolicy>, what: Connected) -> Option<Decision> {
        let subject = self.subject(live);
        let host = Host::parse(self.host.1).unwrap();
        let tell = |asked: Asked<'_>, passed: Result<_, Refusal>| match passed {
            Ok(passage) => entry::passing(&subject, &asked, &passage),
            Err(refusal) => entry::refused(&subject, &asked, &refusal),
        };
        Some(match what {
            Connected::Passage => {
                let dst = self.dst(443);
                let passed =
                    authorize_passage(&subject, Scheme::Https, Some(&host), 443, self.unidentified, NOW);
                // A connection to an API is only decided as a whole where that is what the policy says.
                if live.set().api_for(Scheme::Https, host.name(), 443).is_some() {
                    return None;
                }
                tell(Asked::of(dst, "tls", Some(host.name())), passed)
            }
            Connected::Whole => {
                let dst = self.dst(443);
                let passed = authorize_whole(&subject, &host, 443, Some(dst.ip()), NOW)?;
                tell(Asked::of(dst, "tls", Some(host.name())), passed)
            }
            Connected::Network(protocol, port) => {
                let resolver = port == 53;
                let dst = match resolver {
                    true => OriginalDst("192.0.2.53:53".parse().unwrap()),
                    false => self.dst(port),
                };
                let number = match protocol {
                    "tcp" => 6,
                    "udp" => 17,
                    _ => 132,
                };
                let passed = authorize_network(&subject, number, dst, self.unidentified, NOW);
                tell(Asked::of(dst, protocol, None), passed)
            }
        })
    }
}

#[derive(Clone, Copy, Debug)]
enum Connected {
    Passage,
    Whole,
    Network(&'static str, u16),
}

const CONNECTED: [Connected; 6] = [
    Connected::Passage,
    Connected::Whole,
    Connected::Network("tcp", 5432),
    Connected::Network("udp", 53),
    Connected::Network("tcp", 53),
    Connected::Network("sctp", 9),
];

/// As a reader of the journal gets it.
fn read_back(decision: &Decision) -> Decision {
    let text = serde_json::to_string(decision).unwrap();
    for canary in ["canary", "prod", "refund"] {
        let told = text.replace("\"text\":", "");
        assert!(!told.contains(&format!("\"{canary}\"")), "a value that a condition looked at: {text}");
    }
    serde_json::from_str(&text).unwrap()
}

/// What the journal says was decided, and what comes of it again, to be compared as a whole.
type Whole =
    (Verdict, bool, Option<Rule>, Option<u32>, Option<String>, Option<String>, Vec<Arc<str>>, String);

fn then(entry: &Decision) -> Whole {
    let basis = entry.basis.as_ref();
    (
        entry.verdict,
        entry.observed,
        entry.rule.clone(),
        basis.and_then(|basis| basis.grant),
        entry.credential.clone(),
        entry.refusal.as_deref().map(str::to_owned),
        basis.map(|basis| basis.limits.clone()).unwrap_or_default(),
        entry.reason.clone(),
    )
}

fn again(live: &Arc<LivePolicy>, entry: &Decision) -> Result<Whole, String> {
    match recall(live, entry, None, SETTINGS, When::Then(Moment(0)), Who::AsThen) {
        Recalled::Not(why) => Err(why),
        Recalled::Decided(judged) => {
            let [it] = &judged[..] else { return Err(format!("several answers: {judged:?}")) };
            let verdict = match it.allowed.ok_or(&it.reason)? {
                true => Verdict::Allow,
                false => Verdict::Deny,
            };
            Ok((
                verdict,
                it.observed,
                it.rule.clone(),
                it.grant,
                it.credential.clone(),
                it.refusal.map(str::to_owned),
                it.limits.clone(),
                it.reason.clone(),
            ))
        }
    }
}

/// Of a workload without an identity, the words for why it has none are those of then.
fn is_of_nobody(entry: &Decision) -> bool {
    entry.identity.is_none() && entry.basis.as_ref().is_some_and(|basis| basis.several.is_empty())
}

fn check(live: &Arc<LivePolicy>, entry: &Decision) -> Result<(), TestCaseError> {
    let entry = read_back(entry);
    let (mut expected, mut found) = (then(&entry), again(live, &entry).map_err(TestCaseError::fail)?);
    if is_of_nobody(&entry) {
        (expected.7, found.7) = Default::default();
    }
    prop_assert_eq!(found, expected, "{:?}", entry);
    prop_assert_eq!(replay(live, &entry, SETTINGS, NOW, Who::AsThen), Replayed::Same { other_limits: false });
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_call_replayed_against_the_policy_that_was_live_gives_the_decision_that_was_taken(
        bot in policy(),
        calls in prop::collection::vec(call(), 1..12),
    ) {
        let live = live(&bot);
        for call in calls {
            check(&live, &call.requested(&live))?;
            for what in CONNECTED {
                if let Some(entry) = call.connected(&live, what) {
                    check(&live, &entry)?;
                }
            }
        }
    }

    /// Whatever another policy says: either the answer is the one that it gives to the call itself, or it cannot be said.
    #[test]
    fn a_call_replayed_against_another_policy_gives_its_answer_or_none(
        before in policy(),
        after in policy(),
        calls in prop::collection::vec(call(), 1..12),
    ) {
        let (before, after) = (live(&before), live(&after));
        for call in calls {
            let entry = read_back(&call.requested(&before));
            let truth = then(&read_back(&call.requested(&after)));
            match again(&after, &entry) {
                Ok(mut found) => {
                    found.7.clone_from(&truth.7);
                    prop_assert_eq!(&found, &truth, "{:?}", entry);
                }
                Err(why) => prop_assert!(why.contains("not recorded"), "{}", why),
            }
        }
    }
}

fn request(bot: &str) -> (Arc<LivePolicy>, Decision) {
    let live = live(bot);
    let call = Call {
        who: "bot",
        foreign: false,
        observed: false,
        unidentified: Unidentified::Deny,
        kind: CallKind::Plain,
        host: (Scheme::Https, "shop.test"),
        address: "192.0.2.1",
        method: "GET",
        path: "/a/b".to_owned(),
        query: Some("account=42"),
        headers: vec![("x-env", "prod")],
        body: None,
    };
    let entry = read_back(&call.requested(&live));
    (live, entry)
}

const BOT: &str =
    "[identity]\nuser = \"root\"\n[[grant]]\napi = \"shop\"\nallow = [\"GET /**\"]\ncredential = \"one\"\n";
const PROD: &str = "when = 'request.headers[\"x-env\"] == \"prod\"'\n";

#[test]
fn what_another_policy_decides_otherwise_is_told_with_both_rules_and_credentials() {
    let (_, entry) = request(&format!("{BOT}{PROD}"));
    let change = |bot: String| match replay(&live(&bot), &entry, SETTINGS, NOW, Who::AsThen) {
        Replayed::Otherwise(it) => (it.change, it.now.rule, it.now.credential),
        other => panic!("{other:?}"),
    };
    let none = BOT.replace("GET /**", "POST /**");
    assert_eq!(change(none), ("allow -> deny".into(), "not-granted".into(), None));
    let denied = format!("{BOT}{PROD}[[grant]]\napi = \"shop\"\ndeny = [\"* /a/**\"]\n");
    assert_eq!(change(denied).1, "\"* /a/**\" (policies/bot.toml:10)");
    let two = format!("{BOT}{PROD}").replace("\"one\"", "\"two\"");
    assert_eq!(change(two).0, "other credential");
    let rule = format!("{BOT}{PROD}").replace("GET /**", "GET /a/*");
    assert_eq!(change(rule).0, "other rule");
    let observed = format!("mode = \"observe\"\n{}", BOT.replace("GET /**", "POST /**"));
    assert_eq!(change(observed).0, "allow -> observe");
    let gone =
        compile(&files(BOT).into_iter().filter(|it| it.path != "policies/bot.toml").collect::<Vec<_>>());
    let told = replay(&Arc::new(to_judge(gone.set.unwrap())), &entry, SETTINGS, NOW, Who::AsThen);
    assert!(matches!(&told, Replayed::Unknown(why) if why.contains("not in the policy")), "{told:?}");
}

#[test]
fn a_condition_that_was_not_asked_then_is_not_guessed() {
    let (_, entry) = request(&format!("{BOT}{PROD}"));
    let replayed = |bot: String| replay(&live(&bot), &entry, SETTINGS, NOW, Who::AsThen);
    // The same condition about the same headers, wherever it stands.
    let moved = format!("description = \"moved\"\n\n{BOT}{PROD}");
    assert_eq!(replayed(moved), Replayed::Same { other_limits: false });
    for other in [
        "when = 'request.headers[\"x-env\"] == \"dev\"'\n",
        "when = 'request.query[\"account\"][0] == \"42\"'\n",
        "when = 'body.amount < 5'\n",
    ] {
        let told = replayed(format!("{BOT}{other}"));
        assert!(matches!(&told, Replayed::Unknown(why) if why.contains("bot.toml:7")), "{told:?}");
    }
    // What is recorded is evaluated: the path, the process, the moment.
    let known = "when = 'request.path == \"/a/b\" && workload.uid == 1000 && now > timestamp(\"2020-01-01T00:00:00Z\")'\n";
    assert_eq!(replayed(format!("{BOT}{known}")), Replayed::Same { other_limits: false });
}

#[test]
fn another_view_of_the_headers_is_another_condition() {
    let (_, entry) = request(&format!("{BOT}{PROD}"));
    let files = files(&format!("{BOT}{PROD}"));
    let stripped = files.into_iter().map(|file| match file.path.as_str() {
        "apis/a.toml" => SourceFile { text: file.text.replace("x-hidden", "x-env"), ..file },
        _ => file,
    });
    let set = compile(&stripped.collect::<Vec<_>>()).set.unwrap();
    let told = replay(&Arc::new(to_judge(set)), &entry, SETTINGS, NOW, Who::AsThen);
    assert!(matches!(told, Replayed::Unknown(_)), "what it looked at would be taken out now: {told:?}");
}

#[test]
fn a_call_that_a_limit_refused_is_refused_as_long_as_the_limit_is_there() {
    let bot = format!("{BOT}limit = \"5/min\"\n");
    let (live, allowed) = request(&bot);
    let mut basis = allowed.basis.clone().unwrap();
    let limit = basis.limits.iter().find(|name| name.ends_with("5/min")).unwrap().clone();
    basis.limit = Some(limit);
    let entry = Decision {
        verdict: Verdict::Deny,
        refusal: Some("limit-exceeded".into()),
        basis: Some(basis),
        credential: None,
        ..allowed.clone()
    };
    assert_eq!(replay(&live, &entry, SETTINGS, NOW, Who::AsThen), Replayed::Same { other_limits: false });
    let wider = super::tests::live(&bot.replace("5/min", "50/min"));
    assert!(matches!(replay(&wider, &entry, SETTINGS, NOW, Who::AsThen), Replayed::Unknown(_)));
    assert_eq!(replay(&wider, &allowed, SETTINGS, NOW, Who::AsThen), Replayed::Same { other_limits: true });
}

#[test]
fn a_refusal_before_any_policy_was_asked_is_no_decision_of_a_policy() {
    let (live, mut entry) = request(BOT);
    (entry.verdict, entry.refusal, entry.basis) = (Verdict::Deny, Some("bad-request".into()), None);
    assert_eq!(replay(&live, &entry, SETTINGS, NOW, Who::AsThen), Replayed::NotAsked);
    // A record of an older version does not say who refused it, nor all that the call was.
    entry.refusal = None;
    assert!(matches!(replay(&live, &entry, SETTINGS, NOW, Who::AsThen), Replayed::Unknown(_)));
}

#[test]
fn the_same_condition_about_other_values_is_another_condition() {
    let role = |place: &str| format!("[[grant]]\nrole = \"reader\"\nwith = {{ place = \"{place}\" }}\n");
    let (live, entry) = request(&format!("[identity]\nuser = \"root\"\n{}{}", role("b"), role("a")));
    assert_eq!(entry.verdict, Verdict::Allow, "the second one allows it: {}", entry.reason);
    assert_eq!(replay(&live, &entry, SETTINGS, NOW, Who::AsThen), Replayed::Same { other_limits: false });
    let when = "when = 'captures.x == \"a\" && request.headers[\"x-env\"] == \"prod\"'\n";
    let (_, entry) = request(&format!("{}{when}", BOT.replace("GET /**", "GET /{x}/b")));
    assert_eq!(entry.verdict, Verdict::Allow, "{}", entry.reason);
    let other = super::tests::live(&format!("{}{when}", BOT.replace("GET /**", "GET /a/{x}")));
    assert!(
        matches!(replay(&other, &entry, SETTINGS, NOW, Who::AsThen), Replayed::Unknown(_)),
        "it is about b there"
    );
}
