//! The matcher against tables and against a matcher that is too simple to be wrong.

use proptest::prelude::*;

use super::*;

fn glob(pattern: &str) -> Glob {
    Glob::parse::<Percent>(pattern).unwrap()
}

#[test]
fn the_table_of_the_module_holds() {
    for (pattern, yes, no) in [
        ("/", &["/"][..], &["/a", "/a/"][..]),
        ("/a", &["/a"], &["/", "/a/", "/a/b", "/ab", "/A"]),
        ("/a/", &["/a/"], &["/a"]),
        ("/a/*", &["/a/b", "/a/%20", "/a/*"], &["/a", "/a/", "/a/b/", "/a/b/c"]),
        ("/a/**", &["/a", "/a/", "/a/b", "/a/b/c", "/a/b/"], &["/", "/ab", "/b/a"]),
        ("/**", &["/", "/a", "/a/b/"], &[]),
        ("/a/**/z", &["/a/z", "/a/b/z", "/a/z/z", "/a/b/c/z"], &["/a", "/z", "/a/z/", "/a/z/y"]),
        ("/**/a/*/**/z", &["/a/b/z", "/x/a/b/c/z", "/a/a/z/z"], &["/a/z", "/a/b/z/y"]),
        ("/acme-*/x", &["/acme-/x", "/acme-1/x"], &["/acme/x", "/acme-1/y", "/acme-1/2/x"]),
        ("/*.json", &["/a.json", "/.json", "/a.json.json"], &["/a.jsonx", "/a/.json"]),
        ("/a*b*c", &["/abc", "/aXbYc", "/abcbc"], &["/ab", "/acb", "/abcd"]),
        ("/a%20b", &["/a%20b"], &["/a", "/a+b"]),
        ("/a%2A", &["/a*", "/a%2A"], &["/ab", "/a"]),
        ("/a%2520", &["/a%2520"], &["/a%20", "/a "]),
        ("/a+b", &["/a+b", "/a%2Bb"], &["/a%20b"]),
    ] {
        for text in yes {
            assert!(glob(pattern).matches::<Percent>(text), "{pattern} {text}");
        }
        for text in no {
            assert!(!glob(pattern).matches::<Percent>(text), "{pattern} {text}");
        }
    }
}

#[test]
fn plain_text_knows_no_escapes() {
    let plain = Glob::parse::<Plain>("/opt/a%20b").unwrap();
    assert!(plain.matches::<Plain>("/opt/a%20b"));
    assert!(!plain.matches::<Plain>("/opt/a b"));
    assert!(Glob::parse::<Plain>("bot@*.service").unwrap().matches::<Plain>("bot@7.service"));
}

#[test]
fn a_double_star_stands_alone() {
    for pattern in ["/a**", "/**a", "/a**b/c", "/***"] {
        assert_eq!(Glob::parse::<Plain>(pattern), Err(DoubleStarNotAlone), "{pattern}");
    }
}

#[test]
fn covering_is_found_where_it_can_be_proven() {
    for (a, b, covers) in [
        ("/**", "/a/*/**", true),
        ("/a/**", "/a", true),
        ("/a/**", "/a/**", true),
        ("/a/*", "/a/b*", true),
        ("/a/*", "/a/**", false),
        ("/a/*", "/a/", false),
        ("/a/b*", "/a/bc", true),
        ("/a/b*", "/a/*", false),
        ("/**/z", "/a/**/z", true),
        ("/**/z", "/a/**", false),
        ("/a", "/a/", false),
    ] {
        assert_eq!(glob(a).covers(&glob(b)), covers, "{a} {b}");
    }
}

#[test]
fn a_hostile_pattern_is_still_quick() {
    let text = format!("/{}{}", "a".repeat(2000), "/x".repeat(2000));
    assert!(!glob("/*a*a*a*a*a*a*b/**").matches::<Percent>(&text));
    assert!(!glob(&format!("{}/y", "/**/x".repeat(40))).matches::<Percent>(&text));
}

/// The definition, word for word.
fn naive(pattern: &[&str], text: &[&str]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        (["**", rest @ ..], _) => naive(rest, text) || (!text.is_empty() && naive(pattern, &text[1..])),
        ([p, rest @ ..], [t, more @ ..]) => naive_segment(p, t) && naive(rest, more),
        _ => false,
    }
}

fn naive_segment(pattern: &str, text: &str) -> bool {
    fn go(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => go(rest, text) || (!text.is_empty() && go(pattern, &text[1..])),
            ([p, rest @ ..], [t, more @ ..]) => p == t && go(rest, more),
            _ => false,
        }
    }
    if pattern == "*" { !text.is_empty() } else { go(pattern.as_bytes(), text.as_bytes()) }
}

fn segments(text: &str) -> Vec<&str> {
    text[1..].split('/').collect()
}

const PATTERN: &str = "(/(\\*\\*|\\*|[ab]{1,3}|[ab]?\\*[ab]|[ab]\\*[ab]\\*[ab]?)){0,5}(/|/a)";
const TEXT: &str = "(/[ab]{1,4}){0,6}(/|/a)";

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_matcher_agrees_with_the_definition(pattern in PATTERN, text in TEXT) {
        let expected = naive(&segments(&pattern), &segments(&text));
        prop_assert_eq!(glob(&pattern).matches::<Plain>(&text), expected);
        prop_assert_eq!(glob(&pattern).matches::<Percent>(&text), expected);
    }

    #[test]
    fn escapes_make_no_difference_to_a_match(pattern in PATTERN, text in TEXT) {
        let escaped = text.replace('a', "%61");
        prop_assert_eq!(glob(&pattern).matches::<Percent>(&text), glob(&pattern).matches::<Percent>(&escaped));
    }

    #[test]
    fn forgiving_a_slash_only_adds_matches(pattern in PATTERN, text in TEXT) {
        let exact = glob(&pattern).matches::<Percent>(&text);
        prop_assert!(!exact || glob(&pattern).matches_with_or_without_slash::<Percent>(&text));
    }

    #[test]
    fn what_is_covered_is_matched(a in PATTERN, b in PATTERN, text in TEXT) {
        if glob(&a).covers(&glob(&b)) && glob(&b).matches::<Plain>(&text) {
            prop_assert!(glob(&a).matches::<Plain>(&text), "{} covers {} but not {}", a, b, text);
        }
    }
}
