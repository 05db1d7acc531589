//! Answers as they come, and as they must not come.

use super::*;

const NOW: i64 = 1_800_000_000;

fn printed(text: &str) -> Result<(String, Option<u64>), &'static str> {
    let now = OffsetDateTime::from_unix_timestamp(NOW).unwrap();
    output_at(text.as_bytes(), now).map(plain)
}

fn answered(text: &str) -> Result<(String, Option<u64>), &'static str> {
    token_answer(text.as_bytes()).map(|answer| plain(answer.access))
}

fn plain(given: Given) -> (String, Option<u64>) {
    let token = String::from_utf8(given.token.expose().to_vec()).unwrap();
    (token, given.lasts.map(|lasts| lasts.as_secs()))
}

#[test]
fn a_program_prints_a_credential_in_one_of_three_forms() {
    let a_minute_later = "2027-01-15T08:01:00Z";
    for (text, lasts) in [
        (r#"{"credential": "abc"}"#.to_owned(), None),
        (r#"{"token": "abc", "expires_in": 60, "other": [1]}"#.to_owned(), Some(59)),
        (r#"{"token": "abc", "expires_in": "60"}"#.to_owned(), Some(59)),
        (r#"{"token": "a\u0062c", "expires_in": 60.9}"#.to_owned(), Some(59)),
        (format!(r#"{{"credential": "abc", "expires_at": "{a_minute_later}"}}"#), Some(59)),
        (
            format!(
                r#"{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "spec": {{}},
                    "status": {{"token": "abc", "expirationTimestamp": "{a_minute_later}"}}}}"#
            ),
            Some(59),
        ),
        (r#"{"token": "abc", "expires_in": 18446744073709551615}"#.to_owned(), Some(24 * 3600)),
        (r#"{"token": "abc", "expires_at": "9999-12-31T23:59:59Z"}"#.to_owned(), Some(24 * 3600)),
    ] {
        assert_eq!(printed(&text), Ok(("abc".to_owned(), lasts)), "{text}");
    }
}

#[test]
fn what_is_unclear_or_cannot_be_used_is_refused_and_not_repeated() {
    for text in [
        "",
        "CANARY",
        "\"CANARY\"",
        "[]",
        "{}",
        r#"{"credential": "CANARY", "token": "CANARY"}"#,
        r#"{"token": "CANARY", "token": "CANARY"}"#,
        r#"{"token": "CANARY", "status": {"token": "CANARY"}}"#,
        r#"{"status": {"token": "CANARY"}}"#,
        r#"{"kind": "ExecCredential", "token": "CANARY"}"#,
        r#"{"kind": "ExecCredential", "status": {"clientCertificateData": "CANARY"}}"#,
        r#"{"token": "CANARY", "expires_in": 5, "expires_at": "2027-01-15T08:01:00Z"}"#,
        r#"{"token": "CANARY", "expires_in": 0}"#,
        r#"{"token": "CANARY", "expires_in": -5}"#,
        r#"{"token": "CANARY", "expires_in": "CANARY"}"#,
        r#"{"token": "CANARY", "expires_in": 1e300}"#,
        r#"{"token": "CANARY", "expires_at": "2027-01-15T07:59:59Z"}"#,
        r#"{"token": "CANARY", "expires_at": "CANARY"}"#,
        r#"{"token": "CANARY\r\nx: y"}"#,
        r#"{"token": "CAN ARY"}"#,
        r#"{"token": "CANARYé"}"#,
        r#"{"token": ""}"#,
        r#"{"token": 5}"#,
        r#"{"token": "CANARY"} {"#,
    ] {
        let error = printed(text).expect_err(text);
        assert!(!error.contains("CANARY"), "{error}");
    }
    let long = |bytes: usize| format!(r#"{{"token": "{}"}}"#, "a".repeat(bytes));
    assert!(printed(&long(MAX_TOKEN_BYTES)).is_ok());
    assert!(printed(&long(MAX_TOKEN_BYTES + 1)).is_err());
}

#[test]
fn a_token_of_a_server_is_a_bearer_token() {
    for kind in ["Bearer", "bearer", "BEARER"] {
        let text = format!(r#"{{"access_token": "abc", "token_type": "{kind}", "expires_in": 60}}"#);
        assert_eq!(answered(&text), Ok(("abc".to_owned(), Some(59))));
    }
    assert_eq!(answered(r#"{"access_token": "abc", "token_type": "bearer"}"#), Ok(("abc".to_owned(), None)));
    for text in [
        r#"{"access_token": "CANARY"}"#,
        r#"{"access_token": "CANARY", "token_type": "DPoP"}"#,
        r#"{"access_token": "CANARY", "token_type": "N_A"}"#,
        r#"{"access_token": "CANARY", "token_type": "mac"}"#,
        r#"{"access_token": "CANARY", "token_type": "Bearer", "expires_in": 0}"#,
        r#"{"access_token": "CANARY", "token_type": "Bearer", "expires_in": [1]}"#,
        r#"{"access_token": "CANARY\n", "token_type": "Bearer"}"#,
        r#"{"access_token": "CANARY", "access_token": "CANARY", "token_type": "Bearer"}"#,
        r#"{"token_type": "Bearer"}"#,
        "access_token=CANARY&token_type=bearer",
    ] {
        let error = answered(text).expect_err(text);
        assert!(!error.contains("CANARY"), "{error}");
    }
}

#[test]
fn a_new_refresh_token_is_found_also_where_the_rest_cannot_be_used() {
    let found = |text: &str| Ok(refresh_token(text.as_bytes())?.map(|it| it.expose().to_vec()));
    for text in [
        r#"{"access_token": "a", "token_type": "Bearer", "refresh_token": "next"}"#,
        r#"{"access_token": "a", "token_type": "DPoP", "refresh_token": "next", "expires_in": {}}"#,
        r#"{"refresh_token": "next"}"#,
    ] {
        assert_eq!(found(text), Ok::<_, &str>(Some(b"next".to_vec())), "{text}");
    }
    for text in [r#"{"refresh_token": ""}"#, r#"{"refresh_token": null}"#, r#"{"access_token": "a"}"#] {
        assert_eq!(found(text), Ok(None), "{text}");
    }
    let long = format!(r#"{{"refresh_token": "{}"}}"#, "a".repeat(MAX_SECRET_BYTES + 1));
    for text in [r#"{"refresh_token": 5}"#, r#"{"refresh_token": "a", "refresh_token": "b"}"#, "next", &long]
    {
        assert!(found(text).is_err(), "{text}");
    }
}

#[test]
fn a_refusal_is_told_by_known_codes_and_in_plain_characters() {
    let told =
        token_refusal(br#"{"error": "invalid_grant", "error_description": "gone\n\u001b[31m for ever"}"#);
    assert_eq!((told.code, told.description.as_deref()), (Some("invalid_grant"), Some("gone[31m for ever")));
    assert_eq!(token_refusal(br#"{"error": "CANARY"}"#), TokenRefusal::default());
    assert_eq!(token_refusal(b"<html>"), TokenRefusal::default());
    let long = format!(r#"{{"error_description": "{}"}}"#, "a".repeat(5000));
    assert_eq!(token_refusal(long.as_bytes()).description.unwrap().len(), MAX_TEXT_BYTES);
}
