//! The known tricks with paths and hosts, one row each: what a policy that means `/v1/open/**` and forbids
//! `/v1/open/secret/**` says to them. Refused is as good as denied; allowed is listed only where the path that is
//! forwarded is the one that was meant.

use proxy_policy::{Call, CallPath, Host, IdentityId, PolicySet, Scheme, SourceFile, compile};

use crate::NOW;

fn set() -> PolicySet {
    let text = "[identity]\nuser = \"bot\"\n[api.x]\nhosts = [\"api.example\", \"xn--bcher-kva.example\", \"*.wild.example\"]\n\
                [[grant]]\napi = \"x\"\nallow = [\"GET /v1/open/**\"]\ndeny = [\"* /v1/open/secret/**\"]\n";
    compile(&[SourceFile::new("policies/bot.toml", text)]).set.unwrap()
}

/// The path that would be forwarded; `denied`, `refused`, or `no api`.
fn ask(set: &PolicySet, host: &str, path: &str) -> String {
    let Ok(host) = Host::parse(host) else { return "refused".into() };
    let Some(api) = set.api_for(Scheme::Https, host.name(), host.port().unwrap_or(443)) else {
        return "no api".into();
    };
    let Ok(path) = CallPath::normalize(path) else { return "refused".into() };
    match set.decide(IdentityId(0), &Call::plain(api.id, "GET", &path, NOW)).is_allowed() {
        true => path.to_string(),
        false => "denied".into(),
    }
}

#[test]
fn no_known_trick_with_a_path_opens_another_one() {
    let set = set();
    for (trick, path, expected) in [
        ("as it is meant", "/v1/open/x", "/v1/open/x"),
        ("dot segments", "/v1/open/../admin", "denied"),
        ("dot segments back in", "/v1/open/a/../x", "/v1/open/x"),
        ("encoded dots", "/v1/open/%2e%2e/admin", "denied"),
        ("half encoded dots", "/v1/open/.%2E/admin", "denied"),
        ("dots encoded twice", "/v1/open/%252e%252e/admin", "refused"),
        ("dots at the end", "/v1/open/..", "denied"),
        ("above the root", "/../v1/open/x", "refused"),
        ("dots with a parameter", "/v1/open/..;/admin", "refused"),
        ("dots with an encoded parameter", "/v1/open/..%3b/admin", "refused"),
        ("dots with a space", "/v1/open/..%20/admin", "/v1/open/..%20/admin"),
        ("three dots", "/v1/open/.../x", "/v1/open/.../x"),
        ("encoded slash", "/v1/open%2F..%2Fadmin", "refused"),
        ("encoded slash in small letters", "/v1/open/a%2fb", "refused"),
        ("slash encoded twice", "/v1/open/a%252Fb", "refused"),
        ("backslash", "/v1/open\\..\\admin", "refused"),
        ("encoded backslash", "/v1/open/..%5c..%5cadmin", "refused"),
        ("double slash", "//v1//open///x", "/v1/open/x"),
        ("double slash before dots", "/v1/open//../../admin", "denied"),
        ("two slashes as a host", "//evil.example/v1/open/x", "denied"),
        ("overlong slash", "/v1/open/..%c0%af../admin", "refused"),
        ("overlong slash of three bytes", "/v1/open/%e0%80%af", "refused"),
        ("overlong dot", "/v1/open/%c0%ae%c0%ae/admin", "refused"),
        ("surrogate", "/v1/open/%ed%a0%80", "refused"),
        ("fullwidth slash is a letter", "/v1/open/%EF%BC%8F", "/v1/open/%EF%BC%8F"),
        ("NUL", "/v1/open/x%00.json", "refused"),
        ("raw NUL", "/v1/open/x\0", "refused"),
        ("line break", "/v1/open/x%0d%0aX-Y:z", "refused"),
        ("tab", "/v1/open/x%09", "refused"),
        ("encoded question mark is a letter", "/v1/open/x%3Fa=b", "/v1/open/x%3Fa=b"),
        ("encoded number sign is a letter", "/v1/open/x%23", "/v1/open/x%23"),
        ("raw number sign", "/v1/open/x#/../admin", "refused"),
        ("bad escape", "/v1/open/%zz", "refused"),
        ("escape that is cut", "/v1/open/%2", "refused"),
        ("escape of IIS", "/v1/open/%u002e", "refused"),
        ("absolute form", "https://api.example/v1/open/x", "refused"),
        ("asterisk", "*", "denied"),
        ("other letters are another path to an allow", "/V1/open/x", "denied"),
        ("escaped letter", "/v1/%6fpen/x", "/v1/open/x"),
        ("parameter", "/v1/open/x;a=b", "/v1/open/x;a=b"),
        ("parameter on a name of the allow", "/v1/open;a=b/x", "denied"),
        ("deny as it is meant", "/v1/open/secret/x", "denied"),
        ("deny without more", "/v1/open/secret", "denied"),
        ("deny with a slash", "/v1/open/secret/", "denied"),
        ("deny in other letters", "/v1/open/SeCrEt/x", "denied"),
        ("deny with a parameter", "/v1/open/secret;a=b/x", "denied"),
        ("deny with an encoded parameter", "/v1/open/secret%3Ba/x", "denied"),
        ("deny with an escaped letter", "/v1/open/%73ecret/x", "denied"),
        ("deny behind dots", "/v1/open/a/../secret/x", "denied"),
        ("deny behind slashes", "/v1/open//secret//x", "denied"),
    ] {
        assert_eq!(ask(&set, "api.example", path), expected, "{trick}: {path}");
    }
}

#[test]
fn no_known_trick_with_a_host_leads_to_another_api() {
    let set = set();
    let there = "/v1/open/x";
    for (trick, host, expected) in [
        ("as it is meant", "api.example", there),
        ("other letters", "API.Example", there),
        ("dot at the end", "api.example.", there),
        ("two dots at the end", "api.example..", "refused"),
        ("the port of the scheme", "api.example:443", there),
        ("another port", "api.example:8443", "no api"),
        ("port 0", "api.example:0", "refused"),
        ("a port that is none", "api.example:443x", "refused"),
        ("user information", "api.example@evil.example", "refused"),
        ("user information before", "evil@api.example", "refused"),
        ("user and password", "a:b@api.example", "refused"),
        ("as the beginning of another", "api.example.evil.example", "no api"),
        ("as the end of another", "evilapi.example", "no api"),
        ("a space", "api.example evil.example", "refused"),
        ("a comma", "api.example,evil.example", "refused"),
        ("a slash", "api.example/x", "refused"),
        ("a backslash", "api.example\\x", "refused"),
        ("a NUL", "api.example\0", "refused"),
        ("an escape", "api%2eexample", "refused"),
        ("a fullwidth dot", "api。example", "refused"),
        ("letters beyond ASCII", "bücher.example", "refused"),
        ("the same as it is in DNS", "xn--bcher-kva.example", there),
        ("a letter that looks the same", "аpi.example", "refused"),
        ("a wildcard is one label", "a.wild.example", there),
        ("and not two", "a.b.wild.example", "no api"),
        ("and not none", "wild.example", "no api"),
        ("a star is no label", "*.wild.example", "refused"),
        ("nothing", "", "refused"),
    ] {
        assert_eq!(ask(&set, host, there), expected, "{trick}: {host}");
    }
}
