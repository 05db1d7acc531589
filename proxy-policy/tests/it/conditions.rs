//! Conditions in decisions: who they count for, what a fault does, what is asked for when, and what observing changes.

use proxy_policy::{
    Body, BodyFault, BodyState, Call, CallPath, Decision, Facts, Fault, IdentityId, PolicySet, Reason,
    Source, SourceFile, Verdict, compile,
};

use crate::NOW;

fn set(top: &str, grants: &str, roles: &str) -> PolicySet {
    let compiled = compile(&[
        SourceFile::new(
            "apis/a.toml",
            "[api.x]\nhosts = [\"x.example\"]\ninject = { header = \"x-key\", value = \"{secret}\" }\n",
        ),
        SourceFile::new(
            "credentials/c.toml",
            "[credential.k]\nkind = \"static\"\nsecret = \"vault:k\"\n[credential.l]\nkind = \"static\"\nsecret = \"vault:l\"\n",
        ),
        SourceFile::new("roles/r.toml", roles),
        SourceFile::new("policies/bot.toml", format!("{top}[identity]\nuser = \"bot\"\n{grants}")),
    ]);
    compiled.set.unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics))
}

fn decide<'p>(set: &'p PolicySet, path: &str, env: Option<&str>, body: BodyState<'_>) -> Decision<'p> {
    let headers: Vec<(String, String)> = env.iter().map(|env| ("x-env".into(), (*env).into())).collect();
    let workload = Source { pid: 1, uid: 1000, gid: 1000, ..Source::default() };
    let facts = Facts { host: "x.example", query: None, headers: &headers, workload, body };
    let path = CallPath::normalize(path).unwrap();
    let api = set.apis().next().unwrap().id;
    set.decide(IdentityId(0), &Call { facts: Some(&facts), ..Call::plain(api, "POST", &path, NOW) })
}

fn env<'p>(set: &'p PolicySet, path: &str, env: &str) -> Decision<'p> {
    decide(set, path, Some(env), BodyState::NotRead)
}

const PROD: &str = "when = 'request.headers[\"x-env\"] == \"prod\"'\n";
const ALLOW: &str = "[[grant]]\napi = \"x\"\nallow = [\"POST /a/**\"]\ncredential = \"k\"\n";
const DENY: &str = "[[grant]]\napi = \"x\"\ndeny = [\"POST /a/no\"]\n";

#[test]
fn a_grant_whose_condition_does_not_hold_is_as_good_as_none() {
    let other = "[[grant]]\napi = \"x\"\nallow = [\"POST /a/b\"]\ncredential = \"l\"\n";
    let set = set("", &format!("{ALLOW}{PROD}{other}"), "");
    let credential = |of: &Decision<'_>| of.credential.map(|it| it.name.clone());
    assert_eq!(credential(&env(&set, "/a/b", "prod")).as_deref(), Some("k"));
    assert_eq!(credential(&env(&set, "/a/b", "test")).as_deref(), Some("l"), "the next grant allows it");
    let unmet = env(&set, "/a/c", "test");
    assert_eq!((unmet.verdict, unmet.credential.is_none()), (Verdict::Deny, true));
    assert!(matches!(unmet.reason, Reason::Unmet { .. }), "{}", unmet.reason);
    let missing = decide(&set, "/a/c", None, BodyState::NotRead);
    assert!(matches!(missing.reason, Reason::Faulty { fault: Fault::Missing, .. }), "{}", missing.reason);
}

#[test]
fn a_deny_with_a_condition_holds_when_it_is_true_or_cannot_be_decided() {
    let set = set("", &format!("{ALLOW}{DENY}{PROD}"), "");
    assert!(env(&set, "/a/no", "test").is_allowed());
    assert!(matches!(env(&set, "/a/no", "prod").reason, Reason::Denied(_)));
    let doubt = decide(&set, "/a/no", None, BodyState::NotRead);
    assert!(matches!(doubt.reason, Reason::DeniedInDoubt { fault: Fault::Missing, .. }), "{}", doubt.reason);
    assert!(env(&set, "/a/yes", "prod").is_allowed());
}

#[test]
fn a_deny_looks_at_a_segment_as_every_server_reads_it() {
    let deny = "[[grant]]\napi = \"x\"\ndeny = [\"POST /a/{name}\"]\nwhen = 'captures.name == \"secret\"'\n";
    let set = set("", &format!("{ALLOW}{deny}"), "");
    for path in ["/a/secret", "/a/SECRET", "/a/secret;x=1", "/a/secret%3Bx", "/a/s%65cret", "/a/secret/"] {
        assert!(!env(&set, path, "").is_allowed(), "{path}");
    }
    for path in ["/a/other", "/a/secrets", "/a/secret/x"] {
        assert!(env(&set, path, "").is_allowed(), "{path}");
    }
}

#[test]
fn the_conditions_of_a_role_and_of_its_grant_must_both_hold() {
    let role = "[role.r]\nparams = [\"team\"]\napi = \"x\"\nallow = [\"POST /a/{name}\"]\ncredential = \"k\"\n\
                when = 'captures.name.startsWith(params.team)'\n[role.all]\ninclude = [{ role = \"r\", with = { team = \"x-\" } }]\n";
    let set = set("", &format!("[[grant]]\nrole = \"all\"\n{PROD}"), role);
    assert!(env(&set, "/a/x-1", "prod").is_allowed());
    assert!(!env(&set, "/a/x-1", "test").is_allowed());
    assert!(!env(&set, "/a/y-1", "prod").is_allowed());
}

#[test]
fn nothing_is_asked_for_before_the_decision_hangs_on_it() {
    let body = "when = 'body.n == 1'\nbody_limit = 100\n";
    let wide = "[[grant]]\napi = \"x\"\nallow = [\"POST /wide\"]\ncredential = \"k\"\nwhen = 'body.n == 2'\nbody_limit = 300\n";
    let set = set("", &format!("{ALLOW}{body}{wide}{DENY}"), "");
    let api = set.apis().next().unwrap().id;
    let plain = |path: &str| {
        let path = CallPath::normalize(path).unwrap();
        set.decide(IdentityId(0), &Call::plain(api, "POST", &path, NOW)).reason.to_string()
    };
    assert!(plain("/a/no").starts_with("denied by"), "a deny needs no facts");
    assert!(plain("/b").starts_with("no grant"), "nor does what nothing allows");
    let path = CallPath::normalize("/a/x").unwrap();
    let decision = set.decide(IdentityId(0), &Call::plain(api, "POST", &path, NOW));
    assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::FactsNeeded));
    let decision = decide(&set, "/a/x", None, BodyState::NotRead);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::BodyNeeded { limit: 300 }));
    let one = Body::parse(b"{\"n\": 1}").unwrap();
    assert!(decide(&set, "/a/x", None, BodyState::Json(&one)).is_allowed());
    let padded = Body::parse(format!("{{\"n\": 1, \"x\": \"{}\"}}", "x".repeat(150)).as_bytes()).unwrap();
    let over = decide(&set, "/a/x", None, BodyState::Json(&padded));
    assert!(over.reason.to_string().contains("larger than the 100 bytes"), "each grant has its own limit");
    let bad = decide(&set, "/a/x", None, BodyState::Fault(BodyFault::DuplicateKey));
    assert!(!bad.is_allowed() && bad.reason.to_string().contains("a key twice"));
}

#[test]
fn what_is_observed_goes_on_without_a_credential_that_nothing_gave() {
    let set = set("mode = \"observe\"\n", &format!("{ALLOW}{PROD}{DENY}"), "");
    let plain = env(&set, "/a/x", "prod");
    assert!(plain.is_allowed() && plain.observed.is_none() && plain.credential.is_some());
    for (path, of, with_credential, why) in [
        ("/a/x", "test", false, "does not hold"),
        ("/b", "prod", false, "no grant"),
        ("/a/no", "prod", true, "denied by"),
        ("/a/no", "test", false, "denied by"),
    ] {
        let decision = env(&set, path, of);
        let observed = decision.observed.unwrap_or_else(|| panic!("{path} {of} is not observed")).to_string();
        assert!(decision.is_allowed() && observed.contains(why), "{path} {of}: {observed}");
        assert_eq!(decision.credential.is_some(), with_credential, "{path} {of}");
    }
}

#[test]
fn an_observed_grant_lifts_only_its_own_restrictions() {
    let observed_deny = format!("{DENY}mode = \"observe\"\n");
    let set_deny = set("", &format!("{ALLOW}{observed_deny}"), "");
    let decision = env(&set_deny, "/a/no", "");
    assert!(decision.is_allowed() && decision.observed.is_some() && decision.credential.is_some());
    assert!(!env(&set_deny, "/b", "").is_allowed());
    // A deny that is enforced wins over one that is observed, in any order.
    for grants in [format!("{ALLOW}{observed_deny}{DENY}"), format!("{ALLOW}{DENY}{observed_deny}")] {
        assert!(!env(&set("", &grants, ""), "/a/no", "").is_allowed());
    }
    // What an observed grant would allow does not lift an enforced deny.
    let set_allow = set("", &format!("{ALLOW}{PROD}mode = \"observe\"\n{DENY}"), "");
    assert!(!env(&set_allow, "/a/no", "test").is_allowed());
    assert!(env(&set_allow, "/a/x", "test").observed.is_some());
    // What is only observed does not make up for a grant that is missing.
    let only_deny = set("", &observed_deny, "");
    let decision = env(&only_deny, "/a/no", "");
    assert!(!decision.is_allowed() && decision.observed.is_none());
}
