//! The matcher against a naive one, written from the documentation: same answers for any rules and any path, with lists
//! long enough that the index is used.

use proptest::prelude::*;
use proxy_policy::{Call, CallKind, CallPath, IdentityId, PolicySet, SourceFile, compile};

use crate::NOW;

/// One rule of the reference: its text and whether it denies.
type Rule = (String, bool);

/// The segments of a path, decoded; a slash at the end is an empty last one.
fn segments(path: &str) -> Vec<String> {
    let decode = |segment: &str| {
        let mut out = String::new();
        let mut rest = segment;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            out.push(char::from(u8::from_str_radix(&after[..2], 16).unwrap()));
            rest = &after[2..];
        }
        out + rest
    };
    path.strip_prefix('/').unwrap().split('/').map(decode).collect()
}

/// Whether the characters of a segment match those of a pattern segment, by trying everything.
fn segment_matches(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skip| segment_matches(rest, &text[skip..])),
        Some((c, rest)) => text.first() == Some(c) && segment_matches(rest, &text[1..]),
    }
}

fn path_matches(pattern: &[String], path: &[String]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((first, rest)) if first == "**" => {
            (0..=path.len()).any(|skip| path_matches(rest, &path[skip..]))
        }
        Some((first, rest)) => {
            let chars = |text: &str| text.chars().collect::<Vec<char>>();
            path.split_first().is_some_and(|(segment, others)| {
                let one = match first.as_str() {
                    "*" => !segment.is_empty(),
                    name if name.starts_with('{') => !segment.is_empty(),
                    first => segment_matches(&chars(first), &chars(segment)),
                };
                one && path_matches(rest, others)
            })
        }
    }
}

fn without_slash(mut segments: Vec<String>) -> Vec<String> {
    if segments.len() > 1 && segments.last().is_some_and(String::is_empty) {
        segments.pop();
    }
    segments
}

fn folded(segments: &[String]) -> Vec<String> {
    segments.iter().map(|it| it.split(';').next().unwrap().to_lowercase()).collect()
}

fn lowered(segments: &[String]) -> Vec<String> {
    segments.iter().map(|it| it.to_lowercase()).collect()
}

/// Whether a rule matches, as the documentation says it.
fn matches((text, denies): &Rule, kind: CallKind, method: &str, path: &str) -> bool {
    let (methods, pattern) = text.split_once(' ').unwrap();
    let websocket = kind == CallKind::WebSocket;
    let spoken = match methods {
        "websocket" => websocket,
        "*" => *denies || !websocket,
        methods if *denies => methods.split('|').any(|it| it.eq_ignore_ascii_case(method)),
        methods => !websocket && methods.split('|').any(|it| it == method),
    };
    let (pattern, path) = (segments(pattern), segments(path));
    if !denies {
        return spoken && path_matches(&pattern, &path);
    }
    let (pattern, path) = (without_slash(pattern), without_slash(path));
    spoken && (path_matches(&pattern, &path) || path_matches(&lowered(&pattern), &folded(&path)))
}

/// The rule that decides, as the documentation says it; with `false` a deny, without anything what is not granted.
fn decide(rules: &[Rule], kind: CallKind, method: &str, path: &str) -> Option<(bool, String)> {
    let first =
        |denies| rules.iter().filter(|rule| rule.1 == denies).find(|rule| matches(rule, kind, method, path));
    first(true).or_else(|| first(false)).map(|(text, denies)| (!denies, text.clone()))
}

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
}
