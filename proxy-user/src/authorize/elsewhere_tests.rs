//! At which addresses an API may be called, and who is asked first.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::Method;
use proxy_policy::{CallKind, CallPath, Host, Moment, Scheme};

use super::tests::{live, workload};
use super::*;
use crate::workload::Identified;

/// `GET PATH` of the bot to a host at an address, by the policy of the tests with more or other files.
fn ask(files: &[(&str, &str)], scheme: Scheme, host: &str, path: &str, at: &str) -> Result<Permit, Refusal> {
    let live = Arc::new(live(files, 1));
    let identity = live.set().identity_named("bot").unwrap().id;
    let subject = Subject::new(workload("/opt/bot"), live, Identified::One(identity));
    let facts = Facts {
        scheme,
        host: Cow::Owned(Host::parse(host).unwrap()),
        port: scheme.default_port(),
        address: Some(at.parse::<IpAddr>().unwrap()),
        method: &Method::GET,
        path: CallPath::normalize(path).unwrap(),
        query: None,
        kind: CallKind::Plain,
    };
    match authorize(&subject, &facts, Unidentified::Deny, Moment(0), None)? {
        Answer::Permit(permit) => Ok(permit),
        answer => panic!("no condition was to be asked: {answer:?}"),
    }
}

#[test]
fn an_api_is_called_where_its_policy_lets_it_be_over_either_scheme() {
    for (scheme, host) in [(Scheme::Https, "api.stripe.test"), (Scheme::Http, "plain.test")] {
        assert!(ask(&[], scheme, host, "/v1/x", "8.8.8.8").is_ok());
        for at in ["10.0.0.1", "127.0.0.1", "::ffff:10.0.0.1", "169.254.169.254", "64:ff9b::a00:1", "0.0.0.0"]
        {
            let refusal = ask(&[], scheme, host, "/v1/x", at).unwrap_err();
            assert_eq!(refusal.kind, Kind::AddressRefused, "{at}: {}", refusal.detail);
        }
    }
    let says = (
        "apis/plain.toml",
        "[api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\naddresses = [\"private\"]\n",
    );
    assert!(ask(&[says], Scheme::Http, "plain.test", "/v1/x", "10.0.0.1").is_ok());
    assert!(ask(&[says], Scheme::Http, "plain.test", "/v1/x", "8.8.8.8").is_err());
}

#[test]
fn a_host_that_is_an_address_or_localhost_says_where_it_is() {
    let says = (
        "apis/plain.toml",
        "[api.plain]\nscheme = \"http\"\nhosts = [\"10.0.0.1\", \"localhost\", \"*.app.localhost\"]\n",
    );
    for (host, at, is) in [
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "10.0.0.2", false),
        ("localhost", "127.0.0.1", true),
        ("localhost", "::1", true),
        ("a.app.localhost", "127.0.0.1", true),
        ("localhost", "192.168.0.1", false),
    ] {
        assert_eq!(ask(&[says], Scheme::Http, host, "/v1/x", at).is_ok(), is, "{host} at {at}");
    }
}

#[test]
fn what_is_not_granted_is_told_so_wherever_it_would_go() {
    let refusal = ask(&[], Scheme::Https, "api.stripe.test", "/other", "10.0.0.1").unwrap_err();
    assert_eq!(refusal.kind, Kind::NotGranted);
}

#[test]
fn a_credential_for_loopback_addresses_says_so_for_these_and_for_no_others() {
    let key = (
        "credentials/key.toml",
        "[credential.key]\nkind = \"static\"\nsecret = \"vault:key\"\ninsecure = \"loopback\"\n",
    );
    for (at, is) in [
        ("127.0.0.1", true),
        ("::1", true),
        ("::ffff:127.0.0.9", true),
        ("10.0.0.1", false),
        ("0.0.0.0", false),
    ] {
        let answer = ask(&[key], Scheme::Https, "api.stripe.test", "/v1/x", at);
        assert_eq!(answer.is_ok(), is, "{at}: {answer:?}");
    }
    // A call without it is as any other.
    assert!(ask(&[key], Scheme::Http, "plain.test", "/v1/x", "127.0.0.1").is_err());
}

#[test]
fn what_is_observed_goes_on_anywhere_with_nothing_of_ours_and_says_what_it_would_be() {
    let bot = |top: &str, grant: &str| {
        format!(
            "{top}[identity]\nexe = \"/opt/bot\"\n[[grant]]\napi = \"stripe\"\nallow = [\"GET /v1/**\"]\n\
             credential = \"key\"\n{grant}[[grant]]\napi = \"plain\"\nallow = [\"* /**\"]\n"
        )
    };
    for text in [bot("mode = \"observe\"\n", ""), bot("", "mode = \"observe\"\n")] {
        let files = [("policies/bot.toml", text.as_str())];
        let permit = ask(&files, Scheme::Https, "api.stripe.test", "/v1/x", "10.0.0.1").unwrap();
        assert!(permit.is_observed() && permit.credential().is_none(), "{permit:?}");
        assert!(permit.strip().is_none() && permit.addresses().is_none(), "{permit:?}");
        assert!(
            permit
                .reason()
                .starts_with("observed, would be denied: calls to stripe do not go there: 10.0.0.1")
        );
        let permit = ask(&files, Scheme::Https, "api.stripe.test", "/v1/x", "8.8.8.8").unwrap();
        assert!(!permit.is_observed() && permit.credential().is_some() && permit.addresses().is_some());
    }
    // Another grant's mode is not that of this one.
    let refusal =
        ask(&[("policies/bot.toml", &bot("", ""))], Scheme::Https, "api.stripe.test", "/v1/x", "10.0.0.1");
    assert_eq!(refusal.unwrap_err().kind, Kind::AddressRefused);
}

#[test]
fn what_the_proxy_answers_itself_goes_to_no_address() {
    let says = (
        "apis/plain.toml",
        "[api.plain]\nscheme = \"http\"\nhosts = [\"plain.test\"]\ntoken_endpoint = { paths = [\"/token\"] }\n",
    );
    let permit = ask(&[says], Scheme::Http, "plain.test", "/token", "10.0.0.1").unwrap();
    assert!(permit.answers().is_some() && permit.credential().is_none());
    assert!(ask(&[says], Scheme::Http, "plain.test", "/x", "10.0.0.1").is_err());
}
