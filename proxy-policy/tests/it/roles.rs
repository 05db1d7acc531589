//! Roles that include roles and have parameters, grants that end, and operations that are no plain requests.

use proxy_policy::{
    Call, CallKind, CallPath, Compiled, Decision, IdentityId, Moment, PolicySet, Reason, SourceFile, compile,
};

use crate::NOW;

const PARTS: &str = "[api.git]\nhosts = [\"git.example\"]\n\
                     inject = { header = \"authorization\", value = \"Bearer {secret}\" }\n\
                     [api.wiki]\nhosts = [\"wiki.example\"]\n";
const CREDENTIALS: &str = "[credential.a]\nkind = \"static\"\nsecret = \"vault:a\"\n\
                           [credential.b]\nkind = \"static\"\nsecret = \"vault:b\"\n";

fn try_set(roles: &str, grants: &str) -> Compiled {
    compile(&[
        SourceFile::new("apis/a.toml", PARTS),
        SourceFile::new("credentials/c.toml", CREDENTIALS),
        SourceFile::new("roles/r.toml", roles),
        SourceFile::new("policies/bot.toml", format!("[identity]\nuser = \"bot\"\n{grants}")),
    ])
}

fn set(roles: &str, grants: &str) -> PolicySet {
    let compiled = try_set(roles, grants);
    compiled.set.unwrap_or_else(|| panic!("{:#?}", compiled.diagnostics))
}

fn at<'p>(
    set: &'p PolicySet,
    api: &str,
    kind: CallKind,
    method: &str,
    path: &str,
    now: Moment,
) -> Decision<'p> {
    let path = CallPath::normalize(path).unwrap();
    let api = set.apis().find(|known| known.name == api).unwrap().id;
    set.decide(IdentityId(0), &Call { kind, ..Call::plain(api, method, &path, now) })
}

fn get<'p>(set: &'p PolicySet, api: &str, path: &str) -> Decision<'p> {
    at(set, api, CallKind::Plain, "GET", path, NOW)
}

const READER: &str = "[role.reader]\nparams = [\"owner\"]\napi = \"git\"\ncredential = \"a\"\n\
                      allow = [\"GET /repos/${owner}/**\"]\ndeny = [\"* /repos/${owner}/secret/**\"]\n";

#[test]
fn a_role_with_a_parameter_is_for_that_value_only() {
    let set = set(READER, "[[grant]]\nrole = \"reader\"\nwith = { owner = \"acme\" }\n");
    let decision = get(&set, "git", "/repos/acme/web");
    assert!(decision.is_allowed());
    assert_eq!((decision.role, decision.rule.unwrap().text), (Some("reader"), "GET /repos/acme/**"));
    assert_eq!(decision.rule.unwrap().file, "roles/r.toml");
    for path in ["/repos/other/web", "/repos/acme2/web", "/repos/acme/secret/x", "/repos/Acme/web"] {
        assert!(!get(&set, "git", path).is_allowed(), "{path}");
    }
    assert!(matches!(get(&set, "git", "/repos/Acme/SECRET/x").reason, Reason::Denied(_)));
}

#[test]
fn a_value_with_a_wildcard_in_it_opens_nothing_else() {
    for value in ["*", "**", "{owner}", "a*", "${owner}"] {
        let set = set(READER, &format!("[[grant]]\nrole = \"reader\"\nwith = {{ owner = \"{value}\" }}\n"));
        for path in ["/repos/acme/web", "/repos/a/b", "/repos/ab/x", "/repos/x/y/z"] {
            assert!(!get(&set, "git", path).is_allowed(), "{value} {path}");
        }
    }
}

#[test]
fn two_grants_of_one_role_are_two_values() {
    let grants = "[[grant]]\nrole = \"reader\"\nwith = { owner = \"a\" }\n\
                  [[grant]]\nrole = \"reader\"\nwith = { owner = \"b\" }\ncredential = \"b\"\n";
    let set = set(READER, grants);
    let credential = |path| get(&set, "git", path).credential.map(|it| it.name.clone());
    assert_eq!(credential("/repos/a/x").as_deref(), Some("a"));
    assert_eq!(credential("/repos/b/x").as_deref(), Some("b"));
    assert_eq!(credential("/repos/c/x"), None);
}

#[test]
fn a_role_includes_others_over_apis_and_hands_its_parameters_on() {
    let roles = format!(
        "{READER}[role.pages]\napi = \"wiki\"\nallow = [\"GET /pages/**\"]\n\
         [role.all]\nparams = [\"team\"]\n\
         include = [\"pages\", {{ role = \"reader\", with = {{ owner = \"team-${{team}}\" }} }}]\n\
         api = \"git\"\nallow = [\"POST /teams/${{team}}\"]\ncredential = \"b\"\n"
    );
    let set = set(&roles, "[[grant]]\nrole = \"all\"\nwith = { team = \"x\" }\n");
    assert_eq!(get(&set, "git", "/repos/team-x/web").role, Some("reader"));
    assert_eq!(get(&set, "wiki", "/pages/1").role, Some("pages"));
    let own = at(&set, "git", CallKind::Plain, "POST", "/teams/x", NOW);
    assert_eq!((own.role, own.credential.map(|it| it.name.as_str())), (Some("all"), Some("b")));
    assert!(!get(&set, "git", "/repos/x/web").is_allowed());
    let denied = get(&set, "git", "/repos/team-x/secret/1");
    assert!(matches!(denied.reason, Reason::Denied(_)), "the deny of an included role holds");
}

#[test]
fn one_credential_for_a_role_of_several_apis_is_an_error() {
    let roles = format!(
        "{READER}[role.pages]\napi = \"wiki\"\nallow = [\"GET /pages/**\"]\n\
                         [role.all]\ninclude = [\"pages\", {{ role = \"reader\", with = {{ owner = \"x\" }} }}]\n"
    );
    let compiled = try_set(&roles, "[[grant]]\nrole = \"all\"\ncredential = \"a\"\n");
    assert!(compiled.diagnostics.iter().any(|it| it.message.contains("several APIs")), "{compiled:?}");
}

#[test]
fn roles_that_include_each_other_many_times_are_refused_and_not_expanded_for_ever() {
    // Each includes the next one twice with other values: 2^60 parts.
    let mut roles = String::new();
    for level in 0..60 {
        let next = level + 1;
        roles += &format!(
            "[role.r{level}]\nparams = [\"p\"]\ninclude = [{{ role = \"r{next}\", with = {{ p = \"${{p}}a\" }} }}, \
             {{ role = \"r{next}\", with = {{ p = \"${{p}}b\" }} }}]\n"
        );
    }
    roles += "[role.r60]\nparams = [\"p\"]\napi = \"wiki\"\nallow = [\"GET /${p}\"]\n";
    let started = std::time::Instant::now();
    let compiled = try_set(&roles, "[[grant]]\nrole = \"r0\"\nwith = { p = \"x\" }\n");
    assert!(compiled.set.is_none());
    assert!(started.elapsed().as_secs() < 5);
}

#[test]
fn a_grant_that_is_over_allows_nothing_and_says_so() {
    let grants = "[[grant]]\napi = \"git\"\nallow = [\"GET /x\"]\ncredential = \"a\"\nuntil = 2027-01-31\n\
                  deny = [\"GET /x/no\"]\n";
    let set = set("", grants);
    let ask = |path: &str, now| at(&set, "git", CallKind::Plain, "GET", path, Moment(now));
    let end = 1_801_440_000;
    assert!(ask("/x", end - 1).is_allowed());
    let over = ask("/x", end);
    assert!(!over.is_allowed() && over.credential.is_none());
    assert_eq!(
        over.reason.to_string(),
        "expired: \"GET /x\" (policies/bot.toml:5) was granted until 2027-01-31"
    );
    assert!(matches!(ask("/y", end).reason, Reason::NotGranted { .. }));
    assert!(matches!(ask("/x/no", end).reason, Reason::Denied(_)), "a deny does not end");
}

#[test]
fn a_second_grant_goes_on_when_the_first_is_over() {
    let grants = "[[grant]]\napi = \"git\"\nallow = [\"GET /x\"]\ncredential = \"a\"\nuntil = 2020-01-01T00:00:00+01:00\n\
                  [[grant]]\napi = \"git\"\nallow = [\"GET /*\"]\ncredential = \"b\"\n";
    let set = set("", grants);
    assert_eq!(get(&set, "git", "/x").credential.map(|it| it.name.as_str()), Some("b"));
}

#[test]
fn a_websocket_is_an_operation_of_its_own() {
    let grants = "[[grant]]\napi = \"wiki\"\nallow = [\"* /any/**\", \"GET /get\", \"websocket /ws/*\"]\n\
                  deny = [\"GET /ws/no\", \"websocket /any/ws\"]\n";
    let set = set("", grants);
    let ask = |kind, path: &str| at(&set, "wiki", kind, "GET", path, NOW).is_allowed();
    assert!(ask(CallKind::WebSocket, "/ws/1"));
    for path in ["/any/x", "/get", "/ws/no", "/ws/NO", "/any/ws"] {
        assert!(!ask(CallKind::WebSocket, path), "{path}");
    }
    assert!(ask(CallKind::Plain, "/any/ws") && ask(CallKind::Plain, "/get"));
    assert!(!ask(CallKind::Plain, "/ws/1"), "the operation is the upgrade and nothing else");
}

#[test]
fn a_grpc_call_is_named_by_service_and_method() {
    let grants = "[[grant]]\napi = \"wiki\"\nallow = [\"grpc acme.Billing/Get*\", \"grpc */List\", \"POST /acme.Plain/Do\"]\n\
                  deny = [\"grpc acme.Billing/GetSecret\"]\n";
    let set = set("", grants);
    let ask = |kind, method: &str, path: &str| at(&set, "wiki", kind, method, path, NOW).is_allowed();
    for (path, expected) in [
        ("/acme.Billing/GetInvoice", true),
        ("/acme.Billing/Put", false),
        ("/acme.billing/GetInvoice", false),
        ("/acme.Billing/GetInvoice/", false),
        ("/acme.Billing/GetSecret", false),
        ("/acme.Billing/getsecret/", false),
        ("/any.Service/List", true),
        ("/any/more/List", false),
        ("/acme.Plain/Do", true),
    ] {
        assert_eq!(ask(CallKind::Grpc, "POST", path), expected, "{path}");
    }
    assert!(!ask(CallKind::Plain, "POST", "/acme.Billing/GetInvoice"), "another content type is not gRPC");
    assert!(!ask(CallKind::Grpc, "GET", "/acme.Billing/GetInvoice"));
    assert!(!ask(CallKind::Grpc, "post", "/acme.Billing/GetInvoice"));
}
