//! Decisions: the table beside the example, the reasons in words, and deny wins whatever the order.

use std::fs;

use proptest::prelude::*;
use proxy_policy::{
    Call, CallPath, Host, IdentityId, Moment, PolicySet, Reason, Scheme, SourceFile, Transport, Unmatched,
    Verdict, compile,
};

use crate::NOW;
use crate::folders::{policies, read};

fn example() -> PolicySet {
    compile(&read(&policies().join("example"))).set.unwrap()
}

fn id(set: &PolicySet, name: &str) -> IdentityId {
    set.identity_named(name).unwrap().id
}

/// What the set says to a call, in the words of the table.
fn answer(set: &PolicySet, identity: &str, method: &str, url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap();
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let split = rest.find('/').unwrap_or(rest.len());
    let host = Host::parse(&rest[..split]).unwrap();
    let path = rest[split..].split('?').next().unwrap();
    let Some(api) = set.api_for(scheme, host.name(), host.port().unwrap_or(scheme.default_port())) else {
        return "no-api".into();
    };
    let Ok(path) = CallPath::normalize(path) else { return "refused".into() };
    let decision = set.decide(id(set, identity), &Call::plain(api.id, method, &path, NOW));
    match decision.credential {
        Some(credential) => format!("{} {}", decision.verdict, credential.name),
        None => decision.verdict.to_string(),
    }
}

#[test]
fn the_table_of_decisions_of_the_example_holds() {
    let set = example();
    let table = fs::read_to_string(policies().join("example/decisions.txt")).unwrap();
    let mut rows = 0;
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [identity, method, url, expected @ ..] = words.as_slice() else { panic!("{line}") };
        assert_eq!(answer(&set, identity, method, url), expected.join(" "), "{line}");
        rows += 1;
    }
    assert!(rows > 30);
}

#[test]
fn a_decision_says_why_in_words() {
    let set = example();
    let say = |identity: &str, method: &str, api: &str, path: &str| {
        let path = CallPath::normalize(path).unwrap();
        let api = set.apis().find(|known| known.name == api).unwrap().id;
        let call = Call::plain(api, method, &path, NOW);
        set.decide(id(&set, identity), &call).explain(&call).to_string()
    };
    assert_eq!(
        say("invoice-bot", "DELETE", "stripe", "/v1/invoices/in_1"),
        "invoice-bot may not DELETE /v1/invoices/in_1: no grant for stripe allows it"
    );
    assert_eq!(
        say("invoice-bot", "GET", "github", "/repos/acme/payroll/releases"),
        "invoice-bot may not GET /repos/acme/payroll/releases: \
         denied by \"* /repos/acme/payroll/**\" (policies/invoice-bot.toml:13)"
    );
    assert_eq!(
        say("invoice-bot", "GET", "stripe", "/v1/invoices/in_1"),
        "invoice-bot may GET /v1/invoices/in_1: \
         allowed by \"GET /v1/invoices/**\" (roles/stripe-invoice-reader.toml:3)"
    );
    assert_eq!(
        say("tenant-sync", "GET", "stripe", "/v1/invoices"),
        "tenant-sync may not GET /v1/invoices: it has no grant for stripe"
    );
}

#[test]
fn a_decision_names_role_and_credential_only_as_they_decided() {
    let set = example();
    let path = CallPath::normalize("/v1/invoices").unwrap();
    let stripe = set.api_for(Scheme::Https, "api.stripe.com", 443).unwrap();
    let call = Call::plain(stripe.id, "GET", &path, NOW);
    let decision = set.decide(id(&set, "invoice-bot"), &call);
    assert_eq!(decision.role, Some("stripe-invoice-reader"));
    assert_eq!(decision.credential.map(|it| it.kind.source()).as_deref(), Some("vault:stripe/restricted"));
    assert!(matches!(decision.reason, Reason::Allowed(_)));
    let decision = set.decide(id(&set, "invoice-bot"), &Call { method: "DELETE", ..call });
    assert!(decision.credential.is_none() && decision.role.is_none() && decision.rule.is_none());
}

#[test]
fn ids_of_another_set_are_denied() {
    let (set, path) = (example(), CallPath::normalize("/").unwrap());
    let stripe = set.api_for(Scheme::Https, "api.stripe.com", 443).unwrap().id;
    let call = Call::plain(stripe, "GET", &path, NOW);
    assert_eq!(set.decide(IdentityId(99), &call).reason, Reason::UnknownIdentity);
    let call = Call { api: proxy_policy::ApiId(99), ..call };
    let decision = set.decide(id(&set, "invoice-bot"), &call);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::UnknownApi));
}

#[test]
fn an_identity_keeps_its_conditions_with_their_places() {
    let set = example();
    let bot = set.identity_named("invoice-bot").unwrap();
    let exe = bot.conditions.exe.as_ref().unwrap();
    assert_eq!((exe.literal(), exe.place.line, exe.place.column), (Some("/opt/bots/invoice-bot"), 4, 8));
    assert_eq!((bot.file.as_str(), bot.unmatched), ("policies/invoice-bot.toml", Unmatched::Deny));
    let sync = set.identity_named("tenant-sync").unwrap();
    assert_eq!(
        (sync.conditions.exe.as_ref().unwrap().directory(), sync.unmatched),
        ("/opt/tenant-sync", Unmatched::Pass)
    );
}

const OPERATION: &str = "(GET|POST|\\*|GET\\|POST) /(\\*\\*|(a|b|\\*)(/(a|b|\\*|\\*\\*)){0,2})";

fn list(operations: &[String]) -> String {
    operations.iter().map(|operation| format!("\"{operation}\", ")).collect()
}

/// A set with one identity and one grant per pair of lists.
fn set_of(grants: &[(Vec<String>, Vec<String>)]) -> PolicySet {
    let mut text = "[api.x]\nhosts = [\"x.example\"]\n[identity]\nuser = \"u\"\n".to_owned();
    for (allow, deny) in grants {
        text += &format!("[[grant]]\napi = \"x\"\nallow = [{}]\ndeny = [{}]\n", list(allow), list(deny));
    }
    let compiled = compile(&[SourceFile::new("policies/u.toml", text)]);
    compiled.set.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics))
}

fn allows(set: &PolicySet, method: &str, path: &str) -> bool {
    let path = CallPath::normalize(path).unwrap();
    let api = set.apis().next().unwrap().id;
    set.decide(IdentityId(0), &Call::plain(api, method, &path, NOW)).is_allowed()
}

proptest! {
    #[test]
    fn deny_wins_and_what_is_not_granted_is_denied(
        grants in prop::collection::vec(
            (prop::collection::vec(OPERATION, 1..3), prop::collection::vec(OPERATION, 0..3)), 1..4),
        method in "GET|POST|PUT",
        path in "(/(a|b|c)){1,3}/?",
    ) {
        let all = set_of(&grants);
        let single = |operation: &String| set_of(&[(vec![operation.clone()], vec![])]);
        let allowed = grants.iter().flat_map(|(allow, _)| allow).any(|it| allows(&single(it), &method, &path));
        let bare = path.trim_end_matches('/');
        let denied = grants.iter().flat_map(|(_, deny)| deny).any(|it| {
            [bare.to_owned(), format!("{bare}/")].iter().any(|path| allows(&single(it), &method, path))
        });
        prop_assert_eq!(allows(&all, &method, &path), allowed && !denied);
        let mut reversed = grants.clone();
        reversed.reverse();
        prop_assert_eq!(allows(&set_of(&reversed), &method, &path), allowed && !denied);
    }
}

#[test]
fn a_network_rule_that_is_over_opens_nothing_and_is_told_with_its_end() {
    let text = "[identity]\nuser = \"u\"\n[[grant]]\nnetwork = [\"any\"]\nuntil = 2027-01-01T00:00:10Z\n\
                [[grant]]\nnetwork = [\"udp 192.0.2.1:53\"]\n";
    let set = compile(&[SourceFile::new("policies/u.toml", text)]).set.unwrap();
    let (who, address) = (IdentityId(0), "192.0.2.1".parse().unwrap());
    let rule = |port, now| set.network_rule(who, Some(Transport::Udp), address, port, &[], now);
    let (before, end) = (Moment(NOW.0 + 9), Moment(NOW.0 + 10));
    assert!(set.network_is_open(who, before) && !set.network_is_open(who, end));
    assert_eq!(rule(53, before).unwrap().line, 4, "the first in the file");
    assert_eq!(rule(53, end).unwrap().line, 7, "what does not end goes on");
    assert_eq!(rule(54, before).unwrap().line, 4);
    let (over, until) = rule(54, end).unwrap_err().unwrap();
    assert_eq!((over.line, until.to_string()), (4, "2027-01-01T00:00:10Z".to_owned()));
    assert_eq!((set.next_network_end(before), set.next_network_end(end)), (Some(end), None));
}

#[test]
fn of_an_api_whose_connections_are_not_looked_into_no_call_is_allowed_and_the_reason_says_so() {
    let files = [
        ("apis/a.toml", "[api.a]\nhosts = [\"a.test\"]\n[api.b]\nhosts = [\"b.test\"]\n"),
        (
            "policies/bot.toml",
            "[identity]\nexe = \"/opt/bot\"\nuser = \"bot\"\n\n[[grant]]\napi = \"a\"\nintercept = false\nuntil = 2027-01-31\n\n\
             [[grant]]\napi = \"b\"\nallow = [\"GET /**\"]\n",
        ),
    ];
    let files: Vec<_> = files.map(|(label, text)| SourceFile::new(label, text)).to_vec();
    let set = compile(&files).set.unwrap();
    let bot = id(&set, "bot");
    let api = |name: &str| set.apis().find(|known| known.name == name).unwrap().id;
    let path = CallPath::normalize("/v1/x").unwrap();
    let say = |name: &str, now| set.decide(bot, &Call::plain(api(name), "GET", &path, now)).to_string();
    let whole = "its connections go through undecrypted, so no call is decided: \"intercept = false\" (policies/bot.toml:5)";
    assert_eq!(say("a", NOW), whole);
    let after = Moment(1_801_500_000);
    assert_eq!(say("a", after), "it has no grant for a");
    assert!(set.has_whole() && set.whole(bot, api("a"), NOW).is_some());
    assert!(set.whole(bot, api("a"), after).is_none() && set.whole(bot, api("b"), NOW).is_none());
    assert_eq!(answer(&set, "bot", "GET", "https://b.test/v1/x"), "allow");
}
