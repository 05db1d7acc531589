//! Decisions from policy texts, and the policy that the tests of other modules use.

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use proxy_policy::{CallKind, CallPath, Host, Moment, Scheme, SourceFile};

use super::*;
use crate::workload::{Identified, Workload};

/// A policy with the identities `bot` (deny) and `walker` (pass), and the APIs `stripe` and `plain`.
pub(crate) const POLICY: [(&str, &str); 5] = [
    (
        "policies/bot.toml",
        "[identity]\nexe = \"/opt/bot\"\n[[grant]]\napi = \"stripe\"\nallow = [\"GET /v1/**\", \"POST /up\"]\n\
         deny = [\"* /v1/payouts/**\"]\ncredential = \"key\"\n\
         [[grant]]\napi = \"plain\"\nallow = [\"* /**\"]\n",
    ),
    ("policies/walker.toml", "unmatched = \"pass\"\n[identity]\nexe = \"/opt/walker\"\n"),
    (
        "apis/stripe.toml",
        "[api.stripe]\nhosts = [\"api.stripe.test\"]\n\
         inject = { header = \"x-key\", value = \"Bearer {secret}\" }\nstrip = [\"x-other-key\"]\n",
    ),
    ("apis/plain.toml", "[api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\n"),
    ("credentials/key.toml", "[credential.key]\nkind = \"static\"\nsecret = \"vault:key\"\n"),
];

/// The policy of [`POLICY`], with more or other files.
pub(crate) fn live(more: &[(&str, &str)], generation: u64) -> LivePolicy {
    let kept = POLICY.iter().filter(|(name, _)| !more.iter().any(|(other, _)| other == name));
    let files: Vec<SourceFile> = kept
        .chain(more)
        .map(|(name, text)| SourceFile { path: (*name).into(), text: (*text).into() })
        .collect();
    let set = compiled(&files);
    LivePolicy::new(set, generation)
}

fn compiled(files: &[SourceFile]) -> proxy_policy::PolicySet {
    let compiled = proxy_policy::compile(files);
    compiled.set.unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics))
}

/// A workload whose executable is called so.
pub(crate) fn workload(exe: &str) -> Arc<Workload> {
    Arc::new(Workload { pid: 7, exe: Some(exe.to_owned()), uid: 1000, ..Workload::default() })
}

/// The subject of an identity's name, or of none.
pub(crate) fn subject(name: Option<&str>) -> Subject {
    let live = Arc::new(live(&[], 1));
    let identified = match name.and_then(|name| live.set().identity_named(name)) {
        Some(identity) => Identified::One(identity.id),
        None => Identified::None("no policy names /opt/x".into()),
    };
    Subject::new(workload("/opt/x"), live, identified)
}

fn decide(
    subject: &Subject,
    scheme: Scheme,
    host: &str,
    method: &Method,
    path: &str,
) -> Result<Permit, Refusal> {
    let facts = Facts {
        scheme,
        host: Cow::Owned(Host::parse(host).unwrap()),
        port: scheme.default_port(),
        address: None,
        method,
        path: CallPath::normalize(path).unwrap(),
        query: None,
        kind: CallKind::Plain,
    };
    match authorize(subject, &facts, Unidentified::Pass, Moment(0), None)? {
        Answer::Permit(permit) => Ok(permit),
        answer => panic!("no condition was to be asked: {answer:?}"),
    }
}

#[test]
fn a_granted_call_gets_a_permit_with_its_credential() {
    let permit =
        decide(&subject(Some("bot")), Scheme::Https, "api.stripe.test", &Method::GET, "/v1/x").unwrap();
    assert!(permit.credential().is_some());
    assert_eq!(permit.rule().unwrap().file, "policies/bot.toml");
    assert_eq!(permit.strip().unwrap().headers()[..], ["x-other-key", "x-key"]);
}

#[test]
fn what_is_denied_or_not_granted_is_refused_with_the_reason() {
    let bot = subject(Some("bot"));
    for (method, path, reason) in [
        (Method::GET, "/v1/payouts/1", "denied by"),
        (Method::DELETE, "/v1/x", "no grant for stripe allows it"),
    ] {
        let refusal = decide(&bot, Scheme::Https, "api.stripe.test", &method, path).unwrap_err();
        assert_eq!(refusal.kind, Kind::NotGranted);
        assert!(refusal.detail.contains(reason), "{}", refusal.detail);
    }
}

#[test]
fn a_credential_is_never_permitted_over_plain_http() {
    let permit = decide(&subject(Some("bot")), Scheme::Http, "plain.test", &Method::GET, "/").unwrap();
    assert!(permit.api().is_some());
    assert!(permit.credential().is_none());
}

#[test]
fn a_workload_that_no_policy_knows_never_calls_an_api() {
    let refusal =
        decide(&subject(None), Scheme::Https, "api.stripe.test", &Method::GET, "/v1/x").unwrap_err();
    assert_eq!(refusal.kind, Kind::UnknownWorkload);
    let both = Subject::new(
        workload("/opt/x"),
        Arc::new(live(&[], 1)),
        Identified::Ambiguous(vec!["a".into(), "b".into()]),
    );
    let refusal = decide(&both, Scheme::Https, "api.stripe.test", &Method::GET, "/v1/x").unwrap_err();
    assert_eq!(refusal.kind, Kind::AmbiguousWorkload);
    let refusal = decide(&both, Scheme::Http, "other.test", &Method::GET, "/").unwrap_err();
    assert_eq!(refusal.kind, Kind::AmbiguousWorkload, "not even where unknown workloads pass");
}

#[test]
fn a_host_that_no_api_names_follows_unmatched() {
    let other = Host::parse("other.test").unwrap();
    let ask = |name, unidentified| {
        authorize_passage(&subject(name), Scheme::Https, Some(&other), 443, unidentified, Moment(0))
            .map_err(|r| r.kind)
    };
    assert!(ask(Some("walker"), Unidentified::Deny).is_ok());
    assert_eq!(ask(Some("bot"), Unidentified::Pass).unwrap_err(), Kind::UnknownHost);
    assert!(ask(None, Unidentified::Pass).is_ok());
    assert_eq!(ask(None, Unidentified::Deny).unwrap_err(), Kind::UnknownWorkload);
}

#[test]
fn the_host_of_an_api_is_never_passed_through() {
    let host = Host::parse("api.stripe.test").unwrap();
    for name in [Some("walker"), None] {
        let answer =
            authorize_passage(&subject(name), Scheme::Https, Some(&host), 443, Unidentified::Pass, Moment(0));
        assert_eq!(answer.unwrap_err().kind, Kind::UnknownProtocol);
    }
}

#[test]
fn a_refusal_is_journalled_with_all_that_is_known() {
    let bot = subject(Some("bot"));
    let dst = crate::base::addr::OriginalDst("192.0.2.1:443".parse().unwrap());
    let refusal = Refusal::new(Kind::Misdirected, "other host").with_internal("more");
    let entry = entry::refused(&bot, &Asked::of(dst, "https", Some("api.stripe.test")), &refusal);
    assert_eq!(entry.identity.as_deref(), Some("bot"));
    assert_eq!(entry.api.as_deref(), Some("stripe"));
    assert_eq!(entry.reason, "more");
    assert_eq!(entry.verdict, proxy_journal::Verdict::Deny);
}

#[test]
fn every_kind_of_refusal_is_an_error_status_with_its_own_name() {
    let mut slugs: Vec<_> = Kind::ALL.iter().map(|kind| kind.slug()).collect();
    slugs.sort_unstable();
    slugs.dedup();
    assert_eq!(slugs.len(), Kind::ALL.len());
    assert!(Kind::ALL.iter().all(|kind| kind.status().is_client_error() || kind.status().is_server_error()));
}
