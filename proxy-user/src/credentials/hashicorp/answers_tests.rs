//! Answers as the published API has them, and others.

use proptest::prelude::*;

use super::*;

const PLAIN: &str = r#"{"request_id": "1", "lease_id": "", "renewable": false, "lease_duration": 2764800,
    "data": {"key": "one", "count": 3, "on": true, "none": null, "deep": {"a": ["b"]}, "list": [1, {}]},
    "wrap_info": null, "warnings": null, "auth": null}"#;
const VERSIONED: &str = r#"{"request_id": "1", "lease_id": "", "renewable": false, "lease_duration": 0, "data": {
    "data": {"key": "two"}, "metadata": {"created_time": "2018-03-22T02:24:06.945319214Z", "custom_metadata": null,
    "deletion_time": "", "destroyed": false, "version": 7}}, "wrap_info": null, "warnings": null, "auth": null}"#;
const DELETED: &str = r#"{"lease_id": "", "data": {"data": null, "metadata": {"created_time": "2018-03-22T02:24:06Z",
    "deletion_time": "2018-03-22T02:36:43Z", "destroyed": false, "version": 8}}}"#;
const LEASED: &str = r#"{"lease_id": "database/creds/readonly/abcd-1234", "lease_duration": 3600, "renewable": true,
    "data": {"username": "v-root-e2978cd0", "password": "96ddf4bc"}}"#;

fn text<'a>(answer: &'a SecretAnswer, field: &str) -> Option<&'a str> {
    let secret = answer.fields.get(field)?.as_ref()?;
    std::str::from_utf8(secret.expose()).ok()
}

#[test]
fn a_secret_is_read_as_its_engine_has_it() {
    let plain = secret(PLAIN.as_bytes(), Shape::Plain).ok().unwrap();
    assert_eq!((text(&plain, "key"), plain.version, &plain.lease), (Some("one"), None, &None));
    let others = ["count", "on", "none", "deep", "list"];
    assert!(others.iter().all(|name| plain.fields[*name].is_none()), "what is no text is there, and is none");

    let versioned = secret(VERSIONED.as_bytes(), Shape::Versioned).ok().unwrap();
    assert_eq!(text(&versioned, "key"), Some("two"));
    assert_eq!(versioned.version, Some(Version { number: 7, created_s: Some(1_521_685_446) }));

    let leased = secret(LEASED.as_bytes(), Shape::Plain).ok().unwrap();
    let lease = leased.lease.unwrap();
    assert_eq!((lease.id.as_str(), lease.is_renewable), ("database/creds/readonly/abcd-1234", true));
    assert_eq!(lease.lasts, Some(Duration::from_secs(3599)));
}

#[test]
fn an_engine_that_nobody_named_is_versioned_if_its_answer_is_exactly_so() {
    let either = |body: &str| secret(body.as_bytes(), Shape::Either).ok().unwrap();
    assert_eq!(text(&either(VERSIONED), "key"), Some("two"));
    assert_eq!(text(&either(PLAIN), "key"), Some("one"));
    let alike = r#"{"data": {"data": {"key": "x"}, "metadata": {"version": 1}, "more": "y"}}"#;
    let plain = either(alike);
    assert_eq!((text(&plain, "more"), plain.version), (Some("y"), None));
    let plain = secret(VERSIONED.as_bytes(), Shape::Plain).ok().unwrap();
    assert!(plain.fields["data"].is_none() && plain.version.is_none());
}

#[test]
fn what_is_no_secret_is_none_and_is_not_repeated() {
    for (body, shape) in [
        (PLAIN, Shape::Versioned),
        (DELETED, Shape::Versioned),
        (r#"{"data": null}"#, Shape::Plain),
        (r#"{"data": {"key": "CANARY", "key": "CANARY"}}"#, Shape::Plain),
        (r#"{"data": ["CANARY"]}"#, Shape::Either),
        (r#"{"data": {"key": "CANARY"}, "wrap_info": {"token": "CANARY"}}"#, Shape::Plain),
        (r#"{"data": {"key": "CANARY"}, "lease_id": "a\nb"}"#, Shape::Plain),
        (r#"{"data": {"key": "CANARY"}, "lease_duration": -1}"#, Shape::Plain),
        ("CANARY", Shape::Plain),
        ("", Shape::Either),
    ] {
        let problem = secret(body.as_bytes(), shape).err().unwrap();
        assert!(!problem.contains("CANARY"), "{body}: {problem}");
    }
    let long = format!(r#"{{"data": {{"key": "{}"}}}}"#, "x".repeat(MAX_SECRET_BYTES + 1));
    assert!(secret(long.as_bytes(), Shape::Plain).is_err());
    let many: Vec<String> = (0..=MAX_FIELDS).map(|number| format!(r#""k{number}": 1"#)).collect();
    assert!(secret(format!(r#"{{"data": {{{}}}}}"#, many.join(",")).as_bytes(), Shape::Plain).is_err());
}

#[test]
fn a_version_that_was_deleted_is_told_from_what_never_was() {
    assert!(is_deleted(DELETED.as_bytes()));
    for other in [VERSIONED, r#"{"errors": []}"#, r#"{"data": null}"#, ""] {
        assert!(!is_deleted(other.as_bytes()), "{other}");
    }
}

#[test]
fn an_engine_says_where_it_is_and_whether_it_keeps_versions() {
    let of = |path: &str, kind: &str, options: &str| {
        mount(
            format!(r#"{{"data": {{"path": "{path}", "type": "{kind}", "options": {options}}}}}"#).as_bytes(),
        )
    };
    let versioned = Mount { path: "team/kv/".to_owned(), is_versioned: true };
    assert_eq!(of("team/kv/", "kv", r#"{"version": "2"}"#), Ok(versioned));
    for (kind, options) in
        [("kv", r#"{"version": "1"}"#), ("kv", "null"), ("kv", "{}"), ("pki", r#"{"version": "2"}"#)]
    {
        assert!(!of("a/", kind, options).unwrap().is_versioned, "{kind} {options}");
    }
    for bad in ["", "/", "a", "/a/"] {
        assert!(of(bad, "kv", "null").is_err(), "{bad}");
    }
}

#[test]
fn a_login_gives_a_token_with_its_term() {
    let body = r#"{"auth": {"client_token": "hvs.abc", "accessor": "x", "policies": ["default"], "lease_duration": 3600,
        "renewable": true}, "data": null}"#;
    let answer = login(body.as_bytes()).ok().unwrap();
    assert_eq!(answer.token.expose(), b"hvs.abc");
    let hour = TokenTerm { lasts: Some(Duration::from_secs(3599)), is_renewable: true };
    assert_eq!(answer.term, hour);
    assert_eq!(renewed_token(body.as_bytes()), Ok(hour));
    let known = r#"{"data": {"ttl": 0, "renewable": false, "id": "hvs.abc"}}"#;
    assert_eq!(known_token(known.as_bytes()), Ok(TokenTerm { lasts: None, is_renewable: false }));
    for bad in [
        r#"{"auth": null}"#,
        r#"{"auth": {"client_token": ""}}"#,
        r#"{"auth": {"client_token": "a b"}}"#,
        "{}",
    ] {
        assert!(login(bad.as_bytes()).is_err(), "{bad}");
    }
    let ages = r#"{"lease_id": "a/b", "lease_duration": 999999999999, "renewable": true}"#;
    assert_eq!(renewed_lease(ages.as_bytes()).unwrap().lasts, Some(LONGEST));
    assert!(renewed_lease(br#"{"lease_id": "", "lease_duration": 5}"#).is_err());
}

#[test]
fn a_renewal_that_gives_less_than_half_is_the_end_of_renewals() {
    let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
    for (renewed, first, is_last) in [
        (seconds(60), seconds(60), false),
        (seconds(31), seconds(60), false),
        (seconds(30), seconds(60), true),
        (None, seconds(60), true),
        (seconds(60), None, false),
    ] {
        assert_eq!(is_short(renewed, first), is_last, "{renewed:?} {first:?}");
    }
}

#[test]
fn a_refusal_is_told_in_known_words_alone() {
    let said = |text: &str| refusal(format!(r#"{{"errors": ["{text}"]}}"#).as_bytes());
    assert_eq!(said("1 error occurred:\\n\\t* permission denied\\n\\n"), Some("permission denied"));
    assert_eq!(said("invalid role or secret ID"), Some("invalid role or secret ID"));
    assert_eq!(said("CANARY"), None);
    assert_eq!(refusal(br#"{"errors": []}"#), None);
    assert_eq!(refusal(b"CANARY"), None);
}

proptest! {
    #[test]
    fn nothing_that_breaks_off_is_read(cut in 0_usize..400) {
        for body in [PLAIN, VERSIONED, DELETED, LEASED] {
            let Some(part) = body.as_bytes().get(..cut.min(body.len() - 1)) else { continue };
            for shape in [Shape::Plain, Shape::Versioned, Shape::Either] {
                prop_assert!(secret(part, shape).is_err());
            }
            prop_assert!(!is_deleted(part) && refusal(part).is_none());
        }
    }
}
