//! `vouchsafe credential test`: a call of the daemon itself, to an API that checks what it gets.

use super::hmac;

#[test]
fn a_credential_is_tried_by_a_call_that_the_policy_names() {
    let world = hmac::start(hmac::KEY, "probe = \"GET https://raw.test/v1/me?x=y\"");
    let tried = world.vouchsafe(&["credential", "test", "token"]);
    assert_eq!(tried.code, Some(0), "{tried:?}");
    let expected = "token: ok: GET https://raw.test/v1/me?x=y as curl, version 1: 200 in ";
    assert!(tried.stdout.starts_with(expected), "{tried:?}");
    let tried = world.vouchsafe(&["credential", "test", "token", "--as", "python", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&tried.stdout).unwrap();
    assert_eq!(
        (&report["as"], &report["status"], &report["taken"]),
        (&"python".into(), &200.into(), &true.into())
    );
    let shown = world.vouchsafe(&["credential", "show", "token", "--json"]);
    // Of one second, the first use is told.
    assert!(
        shown.stdout.contains("\"last_used_by\": \"curl\"") || shown.stdout.contains("\"python\""),
        "{shown:?}"
    );
    world.secret("shared", "b3RoZXI=");
    let tried = world.vouchsafe(&["credential", "test", "token"]);
    assert_eq!(tried.code, Some(1), "{tried:?}");
    assert!(tried.stdout.contains("NOT TAKEN") && tried.stdout.contains(": 401 in "), "{tried:?}");
    for (arguments, words) in [
        (&["credential", "test", "nothing"][..], "no credential"),
        (&["credential", "test", "token", "--as", "nobody"], "no identity"),
    ] {
        let tried = world.vouchsafe(arguments);
        assert!(tried.code == Some(1) && tried.stderr.contains(words), "{tried:?}");
    }
    assert!(!world.log().contains(hmac::KEY));
}

#[test]
fn a_credential_without_a_probe_says_how_to_have_one() {
    let world = hmac::start(hmac::KEY, "");
    let tried = world.vouchsafe(&["credential", "test", "token"]);
    assert!(tried.code == Some(1) && tried.stderr.contains("probe = \"GET https://"), "{tried:?}");
}
