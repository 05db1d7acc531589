//! What operations match, and what is said of those that cannot be read.

use super::*;

fn op(text: &str) -> Operation {
    Operation::parse(text).unwrap()
}

fn path(text: &str) -> CallPath<'_> {
    CallPath::normalize(text).unwrap()
}

#[test]
fn an_allow_means_exactly_what_it_says() {
    let read = op("GET|HEAD /v1/*");
    assert!(
        read.allows(CallKind::Plain, "GET", &path("/v1/x"))
            && read.allows(CallKind::Plain, "HEAD", &path("/v1/x"))
    );
    assert!(!read.allows(CallKind::Plain, "POST", &path("/v1/x")));
    assert!(!read.allows(CallKind::Plain, "get", &path("/v1/x")));
    assert!(!read.allows(CallKind::Plain, "GET", &path("/v1/x/")));
    assert!(op("* /v1/*").allows(CallKind::Plain, "BREW", &path("/v1/x")));
}

#[test]
fn a_deny_holds_for_every_reading_of_the_path_that_some_server_has() {
    let deny = Operation::parse("* /v1/Forbidden/**").unwrap_or_else(|_| panic!());
    for path in [
        "/v1/forbidden/x",
        "/v1/FORBIDDEN/x",
        "/v1/Forbidden;a=1/x",
        "/v1/forbidden%3Ba/x",
        "/V1;b/forbidden",
    ] {
        let path = CallPath::normalize(path).unwrap();
        assert!(deny.denies(CallKind::Plain, "GET", &path), "{path}");
        assert!(!deny.allows(CallKind::Plain, "GET", &path), "{path}: an allow is exact");
    }
    let other = CallPath::normalize("/v1/forbiddenly/x;forbidden").unwrap();
    assert!(!deny.denies(CallKind::Plain, "GET", &other));
}

#[test]
fn a_deny_holds_in_other_letters_and_with_a_slash_at_the_end() {
    let deny = op("DELETE /v1/x");
    assert!(deny.denies(CallKind::Plain, "delete", &path("/v1/x")));
    assert!(deny.denies(CallKind::Plain, "DELETE", &path("/v1/x/")));
    assert!(op("DELETE /v1/x/").denies(CallKind::Plain, "DELETE", &path("/v1/x")));
    assert!(!deny.denies(CallKind::Plain, "DELETE", &path("/v1/x/y")));
    assert!(!deny.denies(CallKind::Plain, "GET", &path("/v1/x")));
}

#[test]
fn the_asterisk_form_is_its_own() {
    assert!(op("OPTIONS *").allows(CallKind::Plain, "OPTIONS", &path("*")));
    assert!(!op("* /**").allows(CallKind::Plain, "OPTIONS", &path("*")));
    assert!(!op("OPTIONS *").allows(CallKind::Plain, "OPTIONS", &path("/")));
}

#[test]
fn a_bad_operation_says_what_to_do() {
    for (text, help) in [
        ("/v1/x", "\"* /v1/x\""),
        ("GET", "METHOD /path"),
        ("get /x", "write \"GET\""),
        ("GET|GET /x", "remove one"),
        ("GET| /x", "* alone"),
        ("G(T /x", "* alone"),
        ("GET x", "begin the pattern with /"),
        ("GET  /x", "begin the pattern with /"),
        ("GET /a b", "%20"),
        ("GET /a?b=1", "leave out the query"),
        ("GET /a/../b", "write \"/b\""),
        ("GET /%7Eme", "write \"/~me\""),
        ("GET //a", "write \"/a\""),
        ("GET /a/{id}.json", "whole segment"),
        ("GET /a/b**", "alone between slashes"),
        ("GET *", "OPTIONS"),
        ("* *", "OPTIONS"),
        ("GET /é", "%C3%A9"),
        ("GET /..", "without dot segments"),
        ("GET /a%2Fb", "leave it out"),
    ] {
        let problem = Operation::parse(text).unwrap_err();
        assert!(problem.help.contains(help), "{text}: {problem:?}");
    }
}

#[test]
fn a_slip_in_a_method_is_noticed() {
    assert_eq!(op("DELTE /x").method_slip(), Some(("DELTE", "DELETE")));
    assert_eq!(op("PURGE|GET /x").method_slip(), None);
}
