//! The answer to a refused request: `application/problem+json` (RFC 9457) with the id of its journal entry.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Response};
use proxy_policy::{Bound, Period};
use serde::Serialize;
use uuid::Uuid;

use crate::authorize::{Kind, Over, Refusal};
use crate::limits::seconds;

/// Header of a refusal that names its entry in the journal.
pub const JOURNAL_ID: HeaderName = HeaderName::from_static("vouchsafe-journal-id");

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What the methods of a refused `CONNECT` may be instead (RFC 9110 §10.2.1 demands the header with 405).
const ALLOWED: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
}

/// The response to a request with `method`. `entry` is absent when it has none in the journal.
/// The body is empty for `HEAD`, and `text` makes it from a text otherwise.
pub fn response<B>(
    refusal: &Refusal,
    entry: Option<Uuid>,
    identity: Option<&str>,
    method: &Method,
    text: impl FnOnce(Vec<u8>) -> B,
) -> Response<B> {
    let body = if method == Method::HEAD { Vec::new() } else { json(refusal, entry, identity) };
    let mut response = Response::new(text(body));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if refusal.kind == Kind::MethodNotAllowed {
        headers.insert(ALLOW, ALLOWED);
    }
    if let Some(over) = &refusal.over {
        limited(headers, over);
    }
    if let Some(entry) = entry
        && let Ok(value) =
            HeaderValue::from_str(entry.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    {
        headers.insert(JOURNAL_ID, value);
    }
    response
}

/// `Retry-After` (RFC 9110 §10.2.3), and for a limit of the policy what it is (draft-ietf-httpapi-ratelimit-headers-10).
fn limited(headers: &mut HeaderMap, over: &Over) {
    let after = seconds(over.retry_after);
    let mut put = |name: HeaderName, text: String| {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    put(RETRY_AFTER, after.to_string());
    let policy = match over.limit {
        None => return,
        Some(Bound::Rate { calls, per, .. }) => format!("q={calls};w={}", per.as_secs()),
        Some(Bound::AtOnce(most)) => format!("q={most};qu=\"concurrent-requests\""),
        Some(Bound::Calls { most, per }) => format!("q={most};w={}", window(per)),
        Some(Bound::Bytes { most, per }) => format!("q={most};qu=\"content-bytes\";w={}", window(per)),
    };
    put(RATE_LIMIT_POLICY, format!("\"limit\";{policy}"));
    put(RATE_LIMIT, format!("\"limit\";r=0;t={after}"));
}

/// Seconds of a day, or of thirty.
fn window(per: Period) -> u32 {
    match per {
        Period::Day => 86_400,
        Period::Month => 30 * 86_400,
    }
}

fn json(refusal: &Refusal, entry: Option<Uuid>, identity: Option<&str>) -> Vec<u8> {
    let problem = Problem {
        r#type: format!("urn:vouchsafe:problem:{}", refusal.kind.slug()),
        title: refusal.kind.title(),
        status: refusal.status().as_u16(),
        detail: &refusal.detail,
        instance: entry.map(|entry| entry.urn().to_string()),
        identity,
    };
    // Strings and a number: there is nothing that could fail to be spelled.
    let mut body = serde_json::to_vec(&problem).unwrap_or_default();
    body.push(b'\n');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(kind: Kind, method: &Method) -> Response<Vec<u8>> {
        let refusal = Refusal::new(kind, "bot may not").with_internal("secret reasons of the host");
        response(&refusal, Some(Uuid::from_u128(7)), Some("bot"), method, |body| body)
    }

    #[test]
    fn every_refusal_says_what_why_and_where_it_is_recorded() {
        for kind in Kind::ALL {
            let response = answer(kind, &Method::GET);
            assert_eq!(response.status(), kind.status());
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            assert_eq!(response.headers()[JOURNAL_ID], "00000000-0000-0000-0000-000000000007");
            let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(problem["type"], format!("urn:vouchsafe:problem:{}", kind.slug()));
            assert_eq!(problem["title"], kind.title());
            assert_eq!(problem["status"], kind.status().as_u16());
            assert_eq!(problem["detail"], "bot may not");
            assert_eq!(problem["instance"], "urn:uuid:00000000-0000-0000-0000-000000000007");
            assert_eq!(problem["identity"], "bot");
        }
    }

    #[test]
    fn what_is_for_the_operator_is_not_for_the_client() {
        let body = answer(Kind::UpstreamFailed, &Method::GET).into_body();
        assert!(!String::from_utf8(body).unwrap().contains("secret reasons"));
    }

    #[test]
    fn no_refusal_is_kept_by_a_cache_and_a_method_that_is_none_is_told_the_others() {
        for kind in Kind::ALL {
            let headers = answer(kind, &Method::GET).headers().clone();
            assert_eq!(headers[CACHE_CONTROL], "no-store");
            assert_eq!(headers.contains_key(ALLOW), kind == Kind::MethodNotAllowed, "{kind:?}");
        }
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        assert!(answer(Kind::NotGranted, &Method::HEAD).body().is_empty());
    }
}
