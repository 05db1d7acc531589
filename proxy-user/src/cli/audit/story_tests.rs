//! The story of a call leaves nothing out.

use proxy_journal::{Blame, Kubernetes, Mistrust, Part, RemovedCredential, Rule};
use serde_json::Value;
use uuid::Uuid;

use super::*;

/// Every field is given, by its name: a new one does not compile until it stands here.
fn decision() -> Decision {
    let workload = Workload {
        pid: 1001,
        start_time_ns: 1002,
        exe: "/x/exe".into(),
        exe_dev: 1003,
        exe_ino: 1004,
        uid: 1005,
        gid: 1006,
        cgroup: 1007,
        cgroup_path: Some("/x/cgroup".into()),
        unit: Some("x.service".into()),
        netns: 1008,
        foreign: true,
        comm: "x-comm".into(),
        invocation: Some("x-invocation".into()),
        mntns: Some(1009),
        container: Some(Container {
            runtime: "x-runtime".into(),
            id: "x-container".into(),
            name: Some("x-name".into()),
            image: Some("x-image".into()),
            claimed_by: Some("x-claimed".into()),
            kubernetes: Some(Kubernetes {
                pod_uid: "x-pod-uid".into(),
                namespace: Some("x-namespace".into()),
                pod: Some("x-pod".into()),
                service_account: Some("x-account".into()),
            }),
        }),
        script: Some("x-script".into()),
        ancestors: vec!["/x/parent".into(), "/x/grandparent".into()],
        known: Some(Known {
            exe: Footing::Shared,
            paths: vec![NamedPath { path: "/x/link".into(), is: Footing::Own }],
            sha256: Some("x-sha256".into()),
            environment: vec!["X_PRELOAD".into()],
            traced: true,
            script: Some("/x/script".into()),
            script_shared: true,
            script_sha256: Some("x-script-sha256".into()),
        }),
    };
    let basis = Basis {
        of: Question::Whole,
        now: 1_764_432_956,
        kind: Some(RequestKind::Grpc),
        grant: Some(1010),
        conditions: vec![
            Condition { at: "x-true:1".into(), key: "x-key-1".into(), held: Held::Is(true) },
            Condition { at: "x-fault:2".into(), key: "x-key-2".into(), held: Held::Fault("x-fault".into()) },
        ],
        limits: vec!["x limit 1".into(), "x limit 2".into()],
        limit: Some("x limit 3".into()),
        several: vec!["x-one".into(), "x-two".into()],
        unidentified_pass: true,
        host_observes: true,
        resolver: true,
        path_cut: true,
    };
    Decision {
        id: Uuid::from_u128(77),
        workload: workload.into(),
        identity: Some("x-identity".into()),
        dst: "198.51.100.7:1011".parse().unwrap(),
        proxy: Some("198.51.100.8:1012".parse().unwrap()),
        scheme: Some("x-scheme".into()),
        api: Some("x-api".into()),
        host: Some("x-host".into()),
        port: Some(1013),
        method: Some("X-METHOD".into()),
        path: Some("/x/path".into()),
        has_query: true,
        verdict: Verdict::Allow,
        observed: true,
        rule: Some(Rule { file: "x-file".into(), line: 1014, text: "x text".into() }),
        reason: "x reason".into(),
        credential: Some("x-credential".into()),
        mistrust: Some(Box::new(Mistrust {
            certain: true,
            runtime: Some("x mistrusting".into()),
            cause: Some("x cause".into()),
            mend: Some("x mend".into()),
        })),
        refusal: Some("x-refusal".into()),
        basis: Some(Box::new(basis)),
        fingerprints: vec![Fingerprint { place: "query x".into(), fingerprint: "x-fingerprint".into() }],
        capture: Some(1016),
        ech: true,
        generation: 1015,
    }
}

fn outcome() -> Outcome {
    Outcome {
        id: Uuid::from_u128(77),
        status: Some(2001),
        bytes_sent: 2002,
        bytes_received: 2003,
        duration_us: 2_004_000,
        ttfb_us: Some(1_005_000),
        upstream: Some("198.51.100.9:2006".parse().unwrap()),
        proxied: Some("x-proxied:443".into()),
        error: Some("x error".into()),
        blame: Some(Blame::Host),
        interrupted: false,
        removed: vec![RemovedCredential { place: "header x".into(), fingerprint: "x-removed".into() }],
        reflected: true,
        repeated: true,
        answered: true,
        captures: vec![Capture {
            part: Part::Response,
            file: "x-file.age".into(),
            end: CaptureEnd::Limit,
            bytes: Some(2007),
            size: 2008,
            sha256: "x-captured".into(),
        }],
    }
}

/// What stands for a field that is not told by its own text.
fn in_words(field: &str) -> Option<&'static str> {
    Some(match field {
        "/workload/foreign" => "another one than the host's",
        "/workload/known/exe" => "where everybody can put files",
        "/workload/known/paths/0/is" => "by /x/link: only root and its user",
        "/workload/known/traced" => "it is nobody",
        "/workload/known/script_shared" => "which counts only for an identity with a user",
        "/has_query" => "/x/path?…",
        "/verdict" | "/observed" => "decided     observed",
        "/mistrust/certain" => "the client said so",
        "/basis/of" => "about a connection that is not looked into",
        "/basis/now" => "2025-11-29T16:15:56",
        "/basis/kind" => "of gRPC",
        "/basis/grant" => "grant number 1011",
        "/basis/conditions/0/held" => "x-true:1 holds",
        "/basis/unidentified_pass" => "without an identity passed",
        "/basis/host_observes" => "denied nothing by policy",
        "/basis/resolver" => "was a resolver",
        "/basis/path_cut" => "longer than what is recorded",
        "/duration_us" => "after 2.0s",
        "/ttfb_us" => "first byte after 1.0s",
        "/interrupted" => "outcome     status",
        "/ech" => "encrypted inside",
        "/reflected" => "sent the credential back",
        "/repeated" => "sent once more",
        "/captures/0/end" => "bytes of the response (there was more)",
        "/answered" => "answered it itself",
        _ => return None,
    })
}

#[track_caller]
fn assert_told(page: &str, field: &str, value: &Value) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| assert_told(page, &format!("{field}/{name}"), value));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(at, value)| assert_told(page, &format!("{field}/{at}"), value));
        }
        _ => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let text = in_words(field).unwrap_or(&text);
            assert!(page.contains(text), "{field} is not told, as {text:?}:\n{page}");
        }
    }
}

/// The id and the generation of the policy are told around the story.
fn page(decision: &Decision, outcome: &Outcome) -> String {
    let mut page = format!("{} {}\n", decision.id, decision.generation);
    write_who(&mut page, decision).unwrap();
    write_decision(&mut page, decision).unwrap();
    write_outcome(&mut page, outcome, Timestamp::from_micros(0)).unwrap();
    page
}

#[test]
fn every_field_of_the_records_of_a_call_is_told() {
    let (decision, outcome) = (decision(), outcome());
    let told = page(&decision, &outcome);
    assert_told(&told, "", &serde_json::to_value(&decision).unwrap());
    assert_told(&told, "", &serde_json::to_value(&outcome).unwrap());
}

#[test]
fn what_is_usual_or_not_known_is_not_told_as_if_it_were_otherwise() {
    let mut call = decision();
    let known = Known { environment: vec!["?".into()], script: Some(String::new()), ..Known::default() };
    call.workload = Workload { known: Some(known), foreign: false, ..(*call.workload).clone() }.into();
    (call.scheme, call.port, call.observed, call.verdict) =
        (Some("https".into()), Some(443), false, Verdict::Deny);
    call.basis = Some(Box::new(Basis { now: i64::MIN, ..Basis::default() }));
    let ended = Outcome { interrupted: true, upstream: None, ..outcome() };
    let told = page(&call, &ended);
    for part in [
        "https://x-host/x/path",
        "decided     deny",
        "environment could not be told",
        "no script that counts",
        "another file or none",
        "asked       about a call, for the moment -9223372036854775808\n",
        "outcome     interrupted",
        "upstream    none, for x-proxied:443",
    ] {
        assert!(told.contains(part), "{part}:\n{told}");
    }
    for wrong in ["another one than the host's", "it is nobody", "of gRPC", "denied nothing", "status 2001"] {
        assert!(!told.contains(wrong), "{wrong}:\n{told}");
    }
}

#[test]
fn nothing_that_a_record_says_steers_the_terminal_or_begins_a_line() {
    let evil = "\u{1b}[2J\u{9b}31m\u{202e}\n\r\u{2028}decided     allow";
    fn poisoned(value: &mut Value, evil: &str) {
        match value {
            Value::String(text) if text.starts_with(['x', 'X', '/']) || text.starts_with("query") => {
                text.push_str(evil);
            }
            Value::Object(fields) => fields.values_mut().for_each(|value| poisoned(value, evil)),
            Value::Array(items) => items.iter_mut().for_each(|value| poisoned(value, evil)),
            _ => {}
        }
    }
    let (mut decided, mut ended) =
        (serde_json::to_value(decision()).unwrap(), serde_json::to_value(outcome()).unwrap());
    poisoned(&mut decided, evil);
    poisoned(&mut ended, evil);
    let told = page(&serde_json::from_value(decided).unwrap(), &serde_json::from_value(ended).unwrap());
    let plain = page(&decision(), &outcome());
    assert_eq!(told.lines().count(), plain.lines().count(), "{told}");
    assert!(
        !told.contains(|c: char| c != '\n' && proxy_journal::text::is_hostile(c)),
        "{}",
        told.escape_debug()
    );
    assert!(told.contains("x-identity\\u{1b}[2J") && told.contains("x reason\\u{1b}"), "{told}");
}
