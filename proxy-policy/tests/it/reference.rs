//! The matcher against a naive one, written from the documentation: same answers for any rules and any path, with lists
//! long enough that the index is used.

use proptest::prelude::*;
use proxy_policy::{Call, CallKind, CallPath, IdentityId, PolicySet, SourceFile, compile};

use crate::NOW;
use crate::naive::{Rule, decide, normalized};

fn set_of(rules: &[Rule]) -> PolicySet {
    let mut text = "[api.x]\nhosts = [\"x.example\"]\n[identity]\nuser = \"u\"\n".to_owned();
    for (rule, denies) in rules {
        let key = if *denies { "deny" } else { "allow" };
        text += &format!("[[grant]]\napi = \"x\"\n{key} = [\"{rule}\"]\n");
    }
    let compiled = compile(&[SourceFile::new("policies/u.toml", text)]);
    compiled.set.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics))
}

const OPERATION: &str =
    "(GET|POST|\\*|GET\\|POST|websocket) (/(a|b|A|ab|a\\*|\\*b|\\*|\\{x\\}|a%20b|a;b|\\*\\*)){1,4}/?";
const PATH: &str = "(/(a|b|A|ab|aab|a%20b|a;b|B;a|a;)){1,4}/?";

fn operation() -> impl Strategy<Value = String> {
    // What the compiler refuses: a name twice, or behind a **.
    OPERATION.prop_filter("a name that may stand there", |text| {
        text.matches("{x}").count() <= 1 && text.find("{x}").is_none_or(|at| !text[..at].contains("**"))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_compiled_matcher_and_the_naive_one_agree(
        rules in prop::collection::vec((operation(), prop::bool::weighted(0.3)), 1..40),
        calls in prop::collection::vec((PATH, "GET|POST|get", any::<bool>()), 1..8),
    ) {
        let set = set_of(&rules);
        let api = set.apis().next().unwrap().id;
        for (path, method, websocket) in calls {
            let kind = if websocket && method == "GET" { CallKind::WebSocket } else { CallKind::Plain };
            let normal = CallPath::normalize(&path).unwrap();
            let call = Call { kind, ..Call::plain(api, &method, &normal, NOW) };
            let decision = set.decide(IdentityId(0), &call);
            let found = decision.rule.map(|rule| (decision.is_allowed(), rule.text.to_owned()));
            let expected = decide(&rules, kind, &method, normal.as_str());
            // Of several equal rules any may be named: their texts are the same.
            prop_assert_eq!(found, expected, "{} {} {:?} {:?}", method, path, kind, rules);
        }
    }

    #[test]
    fn a_path_is_normalized_as_the_documentation_says(
        path in "/?((%[0-9a-fA-F]{2}|%25|%2e|%C3%A9|[ -~]|\\.|/|;|%|é)){0,12}"
    ) {
        let found = CallPath::normalize(&path);
        prop_assert_eq!(found.ok().map(|it| it.as_str().to_owned()), normalized(&path));
    }

    #[test]
    fn a_path_of_dots_and_slashes_is_normalized_as_the_documentation_says(path in "(/(\\.|%2e|%2E|a|;|%3b|)*){1,6}") {
        let found = CallPath::normalize(&path);
        prop_assert_eq!(found.ok().map(|it| it.as_str().to_owned()), normalized(&path));
    }
}
