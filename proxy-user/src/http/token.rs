//! The answer to a bot that asks for an OAuth 2.0 token itself (RFC 6749): a stand-in, which is no secret and opens nothing. What
//! the bot then brings as its token is removed from its calls like every credential, and the real one goes in.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, PRAGMA,
};
use http::{Method, Response, StatusCode};
use serde::Serialize;
use uuid::Uuid;

use super::problem::JOURNAL_ID;
use crate::credentials::Secret;

/// The most bytes of a body that asks for a token.
pub const MOST: usize = 64 * 1024;

/// How a stand-in begins. What follows is the entry in the journal, by which whoever finds one knows where it is from.
const STAND_IN: &str = "vouchsafe-stand-in-";

const FORM: &str = "application/x-www-form-urlencoded";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// What is asked by, what it must have with it, and whether a refresh token comes with the answer: where the bot could not ask the
/// same again (RFC 6749 sections 4.1.4, 4.3.3 and 4.4.3, RFC 7523, 7522, 8628 and 8693).
const GRANTS: [(&str, &[&str], bool); 8] = [
    ("client_credentials", &[], false),
    ("refresh_token", &["refresh_token"], false),
    ("password", &["username", "password"], true),
    ("authorization_code", &["code"], true),
    ("urn:ietf:params:oauth:grant-type:device_code", &["device_code"], true),
    ("urn:ietf:params:oauth:grant-type:jwt-bearer", &["assertion"], false),
    ("urn:ietf:params:oauth:grant-type:saml2-bearer", &["assertion"], false),
    (TOKEN_EXCHANGE, &["subject_token", "subject_token_type"], false),
];

/// Parameters that prove something: of these, the journal has fingerprints.
const PROOFS: [&str; 10] = [
    "client_secret",
    "client_assertion",
    "refresh_token",
    "password",
    "code",
    "code_verifier",
    "device_code",
    "assertion",
    "subject_token",
    "actor_token",
];

/// A bot asks for a token.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenRequest {
    scope: Option<String>,
    refreshes: bool,
    exchanges: bool,
}

/// What comes is no request for a token, or for one that is not given. The texts are ours: nothing of the request is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {description}")]
pub struct TokenFault {
    code: &'static str,
    description: &'static str,
}

impl TokenFault {
    /// The body did not come.
    pub const NO_BODY: Self = invalid("the body did not come whole, or not in time");
    /// The body is too large.
    pub const TOO_LARGE: Self = invalid("the body is larger than 64 KiB");
}

/// RFC 6749 section 5.2.
const fn invalid(description: &'static str) -> TokenFault {
    TokenFault { code: "invalid_request", description }
}

/// The parameters of a form, in the order in which they are there.
pub struct Form<'b>(Vec<(Cow<'b, str>, Cow<'b, str>)>);

impl<'b> Form<'b> {
    /// Reads a body.
    #[must_use]
    pub fn read(body: &'b [u8]) -> Self {
        Self(form_urlencoded::parse(body).collect())
    }

    /// What proves something in it, by the part of the request that it is.
    #[must_use]
    pub fn proofs(&self) -> Vec<(String, Secret)> {
        let proof = |name: &str| PROOFS.iter().find(|known| **known == name);
        let found = self.0.iter().filter(|(_, value)| !value.is_empty());
        found
            .filter_map(|(name, value)| {
                Some((format!("form {}", proof(name)?), Secret::new(value.as_bytes().to_vec())))
            })
            .collect()
    }

    /// The value of a parameter; one without a value is as good as none (RFC 6749 section 3.2).
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, value)| known == name && !value.is_empty());
        found.map(|(_, value)| &**value)
    }

    /// Parameters are there at most once (RFC 6749 section 3.2); `resource` and `audience` may be several (RFC 8693 section 2.1,
    /// RFC 8707 section 2).
    fn has_one_twice(&self) -> bool {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| &**name).collect();
        names.retain(|name| !matches!(*name, "resource" | "audience"));
        names.sort_unstable();
        names.windows(2).any(|pair| matches!(pair, [one, other] if one == other))
    }
}

/// What the head of a request says of it, before anything of its body is read.
///
/// # Errors
/// It asks for no token.
pub fn check_head(method: &Method, headers: &HeaderMap) -> Result<(), TokenFault> {
    if method != Method::POST {
        return Err(invalid("a token is asked for by POST"));
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(invalid("the body is compressed"));
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(one), None) = (types.next().and_then(|it| it.to_str().ok()), types.next()) else {
        return Err(invalid("a token is asked for by a form, application/x-www-form-urlencoded"));
    };
    match one.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM) {
        true => Ok(()),
        false => Err(invalid("a token is asked for by a form, application/x-www-form-urlencoded")),
    }
}

/// What a bot asks for.
///
/// # Errors
/// It asks for no token, or for one that is not given here.
pub fn check(form: &Form<'_>) -> Result<TokenRequest, TokenFault> {
    if form.has_one_twice() {
        return Err(invalid("a parameter is there twice"));
    }
    let grant = form.get("grant_type").ok_or(invalid("grant_type is missing"))?;
    let Some((name, needed, refreshes)) = GRANTS.iter().find(|(name, ..)| *name == grant) else {
        return Err(TokenFault {
            code: "unsupported_grant_type",
            description: "nothing is known of this grant_type",
        });
    };
    if needed.iter().any(|parameter| form.get(parameter).is_none()) {
        return Err(invalid("a parameter is missing that this grant_type needs"));
    }
    let exchanges = *name == TOKEN_EXCHANGE;
    if exchanges && form.get("requested_token_type").is_some_and(|kind| kind != ACCESS_TOKEN) {
        return Err(invalid("no other tokens than access tokens are given"));
    }
    let scope = form.get("scope");
    if !scope.is_none_or(is_scope) {
        return Err(TokenFault { code: "invalid_scope", description: "the scope is malformed" });
    }
    Ok(TokenRequest { scope: scope.map(str::to_owned), refreshes: *refreshes, exchanges })
}

/// RFC 6749 section 3.3.
fn is_scope(scope: &str) -> bool {
    let fits = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5B | 0x5D..=0x7E);
    scope.split(' ').all(|token| !token.is_empty() && token.bytes().all(fits))
}

/// RFC 6749 section 5.1.
#[derive(Serialize)]
struct Given<'a> {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
}

/// RFC 6749 section 5.2.
#[derive(Serialize)]
struct Refused {
    error: &'static str,
    error_description: &'static str,
}

/// The answer. `entry` is that of the call in the journal; the body is empty for `HEAD`, and `text` makes it from a text otherwise.
pub fn response<B>(
    asked: &Result<TokenRequest, TokenFault>,
    expires_in: Duration,
    entry: Uuid,
    method: &Method,
    text: impl FnOnce(Vec<u8>) -> B,
) -> Response<B> {
    let entry = entry.as_hyphenated();
    let (status, body) = match asked {
        Ok(asked) => {
            let given = Given {
                access_token: format!("{STAND_IN}{entry}"),
                token_type: "Bearer",
                expires_in: expires_in.as_secs(),
                refresh_token: asked.refreshes.then(|| format!("{STAND_IN}refresh-{entry}")),
                scope: asked.scope.as_deref(),
                issued_token_type: asked.exchanges.then_some(ACCESS_TOKEN),
            };
            (StatusCode::OK, serde_json::to_vec(&given))
        }
        Err(fault) => {
            let refused = Refused { error: fault.code, error_description: fault.description };
            (StatusCode::BAD_REQUEST, serde_json::to_vec(&refused))
        }
    };
    // Strings and a number: there is nothing that could fail to be spelled.
    let body = if method == Method::HEAD { Vec::new() } else { body.unwrap_or_default() };
    let mut response = Response::new(text(body));
    *response.status_mut() = status;
    let mut put = |name: HeaderName, value: HeaderValue| response.headers_mut().insert(name, value);
    put(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    put(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    put(PRAGMA, HeaderValue::from_static("no-cache"));
    if let Ok(value) = HeaderValue::from_str(entry.encode_lower(&mut Uuid::encode_buffer())) {
        put(JOURNAL_ID, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Result<TokenRequest, TokenFault> {
        check(&Form::read(body.as_bytes()))
    }

    fn code(body: &str) -> &'static str {
        asked(body).map_or_else(|fault| fault.code, |_| "given")
    }

    fn json(asked: &Result<TokenRequest, TokenFault>) -> (u16, serde_json::Value) {
        let response =
            response(asked, Duration::from_secs(90), Uuid::from_u128(7), &Method::POST, |body| body);
        for (name, value) in [("cache-control", "no-store"), ("pragma", "no-cache")] {
            assert_eq!(response.headers()[name], value);
        }
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[JOURNAL_ID], "00000000-0000-0000-0000-000000000007");
        (response.status().as_u16(), serde_json::from_slice(response.body()).unwrap())
    }

    #[test]
    fn what_is_given_is_what_the_rfc_says_and_names_the_entry_in_the_journal() {
        let token = "vouchsafe-stand-in-00000000-0000-0000-0000-000000000007";
        let (status, given) = json(&asked("grant_type=client_credentials&scope=a%20b:c&client_secret=x"));
        let expected = serde_json::json!(
            { "access_token": token, "token_type": "Bearer", "expires_in": 90, "scope": "a b:c" }
        );
        assert_eq!((status, given), (200, expected));
        let (_, given) = json(&asked("grant_type=password&username=a&password=b"));
        assert!(given["refresh_token"].as_str().unwrap().starts_with("vouchsafe-stand-in-refresh-"));
        assert!(given.get("scope").is_none());
        // The client keeps the one that it has.
        let (_, given) = json(&asked("grant_type=refresh_token&refresh_token=r"));
        assert_eq!((&given["access_token"], given.get("refresh_token")), (&token.into(), None));
        let exchange = format!(
            "grant_type={TOKEN_EXCHANGE}&subject_token=s&subject_token_type=t&audience=a&audience=b&resource=c&resource=d"
        );
        assert_eq!(json(&asked(&exchange)).1["issued_token_type"], ACCESS_TOKEN);
    }

    #[test]
    fn what_asks_for_no_token_is_refused_as_the_rfc_says() {
        for (body, expected) in [
            ("", "invalid_request"),
            ("grant_type=", "invalid_request"),
            ("grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
            ("grant_type=client_credentials&scope=a&scope=b", "invalid_request"),
            ("grant_type=client_credentials&x=&x=", "invalid_request"),
            ("{\"grant_type\":\"client_credentials\"}", "invalid_request"),
            ("grant_type=Client_Credentials", "unsupported_grant_type"),
            ("grant_type=implicit", "unsupported_grant_type"),
            ("grant_type=refresh_token", "invalid_request"),
            ("grant_type=refresh_token&refresh_token=", "invalid_request"),
            ("grant_type=password&username=a", "invalid_request"),
            ("grant_type=authorization_code", "invalid_request"),
            ("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer", "invalid_request"),
            ("grant_type=client_credentials&scope=a%20%20b", "invalid_scope"),
            ("grant_type=client_credentials&scope=a%22b", "invalid_scope"),
            ("grant_type=client_credentials&scope=%0d%0a", "invalid_scope"),
            ("grant_type=client_credentials", "given"),
            ("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a", "given"),
        ] {
            assert_eq!(code(body), expected, "{body}");
        }
        let exchange = |kind: &str| {
            format!(
                "grant_type={TOKEN_EXCHANGE}&subject_token=s&subject_token_type=t&requested_token_type={kind}"
            )
        };
        assert_eq!(code(&exchange("urn:ietf:params:oauth:token-type:jwt")), "invalid_request");
        assert_eq!(code(&exchange(ACCESS_TOKEN)), "given");
        let (status, refused) = json(&asked("grant_type=x"));
        assert_eq!((status, &refused["error"]), (400, &"unsupported_grant_type".into()));
    }

    #[test]
    fn a_request_is_a_form_that_is_posted() {
        let head = |method: &Method, pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            check_head(method, &headers).is_ok()
        };
        assert!(head(&Method::POST, &[("content-type", FORM)]));
        assert!(head(
            &Method::POST,
            &[("content-type", "Application/X-WWW-form-urlencoded ; charset=UTF-8")]
        ));
        assert!(!head(&Method::GET, &[("content-type", FORM)]) && !head(&Method::HEAD, &[]));
        assert!(!head(&Method::POST, &[]) && !head(&Method::POST, &[("content-type", "application/json")]));
        assert!(!head(&Method::POST, &[("content-type", FORM), ("content-type", FORM)]));
        assert!(!head(&Method::POST, &[("content-type", FORM), ("content-encoding", "gzip")]));
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let fault = Err(invalid("a token is asked for by POST"));
        let response = response(&fault, Duration::ZERO, Uuid::from_u128(7), &Method::HEAD, |body| body);
        assert_eq!((response.status(), response.body().len()), (StatusCode::BAD_REQUEST, 0));
    }

    #[test]
    fn what_proves_something_is_told_by_its_place_however_its_name_is_spelled() {
        let form = Form::read(b"grant_type=password&username=me&pass%77ord=p%20w&client_secret=&code=c&x=y");
        let proofs: Vec<_> =
            form.proofs().into_iter().map(|(place, value)| (place, value.expose().to_vec())).collect();
        assert_eq!(
            proofs,
            [("form password".to_owned(), b"p w".to_vec()), ("form code".to_owned(), b"c".to_vec())]
        );
    }
}
