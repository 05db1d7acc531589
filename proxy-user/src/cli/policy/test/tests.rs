//! What tests of a policy find, and what they tell.

use std::fs;

use proxy_policy::Expect;

use super::*;

const POLICY: [(&str, &str); 3] = [
    (
        "apis/shop.toml",
        "[api.shop]\nhosts = [\"shop.test\"]\n\
         inject = { header = \"authorization\", value = \"Bearer {secret}\" }\n\
         [api.wiki]\nhosts = [\"wiki.test\"]\n",
    ),
    (
        "roles/shop.toml",
        "[role.shop-reader]\nparams = [\"owner\"]\napi = \"shop\"\n\
         allow = [\"GET /shops/${owner}/**\", \"websocket /shops/${owner}/live\"]\n\
         deny = [\"* /shops/${owner}/secret/**\"]\n",
    ),
    (
        "policies/bot.toml",
        "[identity]\nuser = \"bot\"\n\
         [[grant]]\nrole = \"shop-reader\"\nwith = { owner = \"acme\" }\ncredential = \"key\"\nuntil = 2027-01-31\n\
         [[grant]]\napi = \"wiki\"\nallow = [\"POST /pages\"]\n\
         when = 'request.headers[\"x-env\"] == \"prod\" && body.draft == true'\n\
         [[grant]]\napi = \"wiki\"\nmode = \"observe\"\nallow = [\"GET /seen\"]\nwhen = 'request.host == \"other\"'\n\
         [[grant]]\napi = \"wiki\"\nallow = [\"grpc wiki.Pages/Get*\"]\n\
         [credential.key]\nkind = \"static\"\nsecret = \"vault:key\"\n",
    ),
];

fn root(tests: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in POLICY.into_iter().chain([("more/below/bot.test.toml", tests)]) {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn results(tests: &str) -> Results {
    rehearse(root(tests).path()).unwrap_or_else(|errors| panic!("{}", errors.join("\n")))
}

fn call(more: &str) -> String {
    format!("[[call]]\nas = \"bot\"\n{more}\n")
}

#[track_caller]
fn decided(more: &str) -> Outcome {
    let results = results(&call(&format!("expect = \"deny\"\n{more}")));
    results.calls[0].outcome.clone()
}

#[test]
fn a_call_is_decided_by_url_as_a_request_to_the_daemon_is() {
    for (request, verdict, reason) in [
        ("GET https://shop.test/shops/acme/x?limit=3", Expect::Allow, "allowed by"),
        ("GET https://SHOP.test.:443//shops/./ac%6De/x", Expect::Allow, "allowed by"),
        ("GET https://shop.test/shops/acme/../other/x", Expect::Deny, "no grant for shop"),
        ("GET https://shop.test/shops/acme/SECRET/x", Expect::Deny, "denied by"),
        ("GET https://shop.test/shops%2Facme/x", Expect::Deny, "slash"),
        ("get https://shop.test/shops/acme/x", Expect::Deny, "no grant for shop"),
        ("TRACE https://shop.test/shops/acme/x", Expect::Deny, "credential back"),
        ("GET https://shop.test:8443/shops/acme/x", Expect::Deny, "no API of the policy names it"),
        ("GET http://shop.test/shops/acme/x", Expect::Deny, "no API of the policy names it"),
        ("websocket https://shop.test/shops/acme/live", Expect::Allow, "allowed by"),
        ("websocket https://shop.test/shops/acme/x", Expect::Deny, "operation of its own"),
        ("grpc https://wiki.test/wiki.Pages/GetOne", Expect::Allow, "allowed by"),
        ("POST https://wiki.test/wiki.Pages/GetOne", Expect::Deny, "no grant for wiki"),
    ] {
        let outcome = decided(&format!("request = \"{request}\"\ntime = 2026-01-01"));
        assert_eq!(outcome.verdict, verdict, "{request}: {}", outcome.reason);
        assert!(outcome.reason.contains(reason), "{request}: {}", outcome.reason);
        let credential = (verdict == Expect::Allow && request.contains("shop")).then_some("key");
        assert_eq!(outcome.credential.as_deref(), credential, "{request}");
    }
}

#[test]
fn headers_body_and_time_are_those_of_the_test() {
    let request = "request = \"POST https://wiki.test/pages\"";
    let prod = "headers = { X-Env = \"prod\" }";
    for (more, verdict) in [
        (format!("{prod}\nbody = '{{\"draft\": true}}'"), Expect::Allow),
        (format!("{prod}\nbody = '{{\"draft\": false}}'"), Expect::Deny),
        (prod.to_owned(), Expect::Deny),
        ("body = '{\"draft\": true}'".to_owned(), Expect::Deny),
        (
            "headers = { x-env = \"prod\", content-type = \"text/plain\" }\nbody = '{\"draft\": true}'"
                .into(),
            Expect::Deny,
        ),
    ] {
        assert_eq!(decided(&format!("{request}\n{more}")).verdict, verdict, "{more}");
    }
    let request = "request = \"GET https://shop.test/shops/acme/x\"";
    for (time, verdict) in [
        ("2027-01-31", Expect::Allow),
        ("2027-01-31T23:59:59Z", Expect::Allow),
        ("2027-02-01", Expect::Deny),
        ("2027-02-01T00:00:00+01:00", Expect::Allow),
    ] {
        assert_eq!(decided(&format!("{request}\ntime = {time}")).verdict, verdict, "{time}");
    }
}

#[test]
fn what_is_only_observed_is_neither_allowed_nor_denied() {
    let results = results(&call("request = \"GET https://wiki.test/seen\"\nexpect = \"observe\""));
    assert_eq!(results.failures().count(), 0);
    assert!(results.calls[0].outcome.reason.starts_with("observed, would be denied"));
    assert_eq!(results.coverage.decided(), 0, "nothing was allowed by it");
}

#[test]
fn every_difference_is_told_at_once_and_what_is_as_expected_is_not_a_difference() {
    let allowed = "request = \"GET https://shop.test/shops/acme/x\"\ntime = 2026-01-01\n";
    let tests = [
        call(&format!("{allowed}expect = \"deny\"\nrule = \"GET /x\"\ncredential = \"\"\nreason = \"no\"")),
        call(&format!(
            "{allowed}expect = \"allow\"\nrule = \"GET /shops/acme/**\"\ncredential = \"key\"\nreason = \"allowed by\""
        )),
        call("request = \"PUT https://shop.test/\"\nexpect = \"allow\""),
    ];
    let results = results(&tests.concat());
    let text = report::text(&results, Some(50));
    let expected = "\
more/below/bot.test.toml:1:1: bot GET https://shop.test/shops/acme/x
  - expect     deny
  + expect     allow
  - rule       GET /x
  + rule       GET /shops/acme/**   (roles/shop.toml:4)
  - credential (none)
  + credential key
  - reason     no
  + reason     allowed by \"GET /shops/acme/**\" (roles/shop.toml:4)

more/below/bot.test.toml:17:1: bot PUT https://shop.test/
  - expect     allow
  + expect     deny
    rule       (none)
    credential (none)
    reason     bot may not PUT /: no grant for shop allows it

rules that no test decided by:
  policies/bot.toml:10:10: allow \"POST /pages\"
  policies/bot.toml:15:10: allow \"GET /seen\"
  policies/bot.toml:19:10: allow \"grpc wiki.Pages/Get*\"
  roles/shop.toml:4:36: allow \"websocket /shops/acme/live\"
  roles/shop.toml:5:9: deny \"* /shops/acme/secret/**\"

2 of 3 calls decided otherwise than expected; 1 of 6 rules decided one (16 %), and 50 % are asked for
";
    assert_eq!(text, expected);
    let json = report::json(&results, false);
    assert_eq!((json["passed"].as_bool(), json["failed"].as_u64()), (Some(false), Some(2)));
    assert_eq!(json["calls"][1]["decided"]["place"], "roles/shop.toml:4:10");
    assert_eq!(json["coverage"]["missing"][4]["rule"], "* /shops/acme/secret/**");
}

#[test]
fn a_role_is_tested_with_an_identity_that_only_the_tests_have() {
    let given = "[[given]]\nname = \"reader\"\n[[given.grant]]\nrole = \"shop-reader\"\nwith = { owner = \"o\" }\n\
                 credential = \"only-here\"\n[credential.only-here]\nkind = \"static\"\nsecret = \"vault:test\"\n";
    let call = "[[call]]\nas = \"reader\"\nrequest = \"GET https://shop.test/shops/o/x\"\nexpect = \"allow\"\n\
                credential = \"only-here\"\n";
    let results = results(&format!("{given}{call}"));
    assert_eq!(results.failures().count(), 0);
    let root = root(given);
    let live = crate::app::policies::Loaded::read(root.path()).into_set().unwrap();
    assert!(live.identity_named("reader").is_none(), "it is no part of the policy");
    assert_eq!(live.credentials().count(), 1);
}

#[test]
fn a_mistake_in_a_test_is_told_with_its_place_and_nothing_is_tested() {
    let errors = |tests: &str| rehearse(root(tests).path()).unwrap_err().join("\n");
    let text = errors(
        "[[call]]\nas = \"bto\"\nrequest = \"GET https://shop.test/\"\nexpect = \"deny\"\n\
         [[call]]\nas = \"bot\"\nrequst = \"GET https://shop.test/\"\nexpect = \"alow\"\ntime = \"now\"\n\
         [[calls]]\n[role.x]\n",
    );
    for part in [
        "bot.test.toml:2:6: error: unknown identity \"bto\"\n  help: did you mean \"bot\"?",
        "bot.test.toml:5:1: error: [[call]] has no \"request\"",
        "bot.test.toml:7:1: error: unknown key \"requst\" in [[call]]\n  help: did you mean \"request\"?",
        "bot.test.toml:8:10: error: \"expect\" cannot be \"alow\"\n  help: did you mean \"allow\"?",
        "bot.test.toml:9:8: error: \"time\" in [[call]] must be a date",
        "bot.test.toml:10:3: error: \"calls\" does not stand at the top of a file of tests",
        "bot.test.toml:11:2: error: \"role\" does not stand at the top of a file of tests",
    ] {
        assert!(text.contains(part), "{part}\nin\n{text}");
    }
    assert!(errors("[[call]\n").contains("bot.test.toml:1:8: error: not TOML"), "{}", errors("[[call]\n"));
    assert!(errors("").contains("there is no test here"));
}

/// The names of the roles that the files of the library define.
fn library_roles(library: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for file in policies::Texts::read(library).files {
        let table: toml::Table = file.text.parse().unwrap();
        let roles = table.get("role").and_then(toml::Value::as_table);
        assert!(roles.is_some() && table.contains_key("api"), "{} has an API and roles", file.path);
        names.extend(roles.into_iter().flat_map(toml::Table::keys).cloned());
    }
    names
}

#[test]
fn the_library_decides_as_its_tests_say_and_every_role_allows_something_and_denies_something() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/library");
    let results = rehearse(&library).unwrap_or_else(|errors| panic!("{}", errors.join("\n")));
    assert_eq!(results.failures().count(), 0, "{}", report::text(&results, None));
    assert_eq!(results.coverage.percent(), 100, "{}", report::text(&results, None));
    let files = policies::Texts::read(&library).files;
    assert!(files.len() >= 25, "{} APIs", files.len());
    let roles = library_roles(&library);
    assert!(roles.len() >= 2 * files.len());
    for role in roles {
        // The identity of the tests is called like its role.
        let of_role = results.calls.iter().filter(|judged| *judged.call.identity == role);
        let count = |wanted| of_role.clone().filter(|judged| judged.call.expect == wanted).count();
        assert!(count(Expect::Allow) > 0 && count(Expect::Deny) > 0, "{role}");
    }
}
