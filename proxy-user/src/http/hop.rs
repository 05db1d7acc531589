//! Headers that concern one hop only (RFC 9110 §7.6.1), and the one upgrade that is carried through.
//!
//! What stays keeps its order. Only `websocket` is carried through: `Upgrade: h2c` would hide requests from the policy.

use http::header::{
    CONNECTION, COOKIE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Version};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADES: HeaderValue = HeaderValue::from_static("Upgrade");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Whether a request wants to become a WebSocket (RFC 6455 §4.1).
#[must_use]
pub fn wants_websocket(version: Version, method: &Method, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && method == Method::GET
        && headers.get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
        && headers.get_all(UPGRADE).iter().count() == 1
        && options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"))
}

/// The headers of a request without those of its hop. With `websocket`, the upgrade is asked for again.
#[must_use]
pub fn strip_request(headers: &HeaderMap, version: Version, websocket: bool) -> HeaderMap {
    let trailers = headers
        .get_all(TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")));
    let mut headers = strip(headers);
    if trailers {
        headers.insert(TE, TRAILERS);
    }
    if websocket {
        headers.insert(CONNECTION, UPGRADES);
        headers.insert(UPGRADE, WEBSOCKET);
    }
    if version == Version::HTTP_2 {
        join_cookies(&mut headers);
    }
    headers
}

/// The headers of a response without those of its hop. With `websocket`, the upgrade is told.
#[must_use]
pub fn strip_response(headers: HeaderMap, websocket: bool) -> HeaderMap {
    let mut headers = if headers.keys().any(is_hop) { strip(&headers) } else { headers };
    if websocket {
        headers.insert(CONNECTION, UPGRADES);
        headers.insert(UPGRADE, WEBSOCKET);
    }
    headers
}

/// The options of all `Connection` headers.
fn options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
}

fn strip(headers: &HeaderMap) -> HeaderMap {
    // Nearly all say this one, which is the hop's in any case.
    let is_usual = |option: &str| option.eq_ignore_ascii_case(KEEP_ALIVE.as_str());
    let named: Vec<HeaderName> = options(headers)
        .filter(|option| !is_usual(option))
        // Naming the trailer section's announcement or the message's end does not make them the hop's.
        .filter_map(|option| HeaderName::from_bytes(option.as_bytes()).ok())
        .filter(|name| !is_end_to_end(name))
        .collect();
    without(headers, |name| is_hop(name) || named.contains(name))
}

/// Fields that are put into a head on its way: its credential, its host, what is asked for of the answer.
const PUT_IN: usize = 4;

/// The headers without some; the others keep their order.
pub(super) fn without(headers: &HeaderMap, is_gone: impl Fn(&HeaderName) -> bool) -> HeaderMap {
    // Built anew: removal from a HeaderMap would move the last header to the gap, and a clone has no room for what is put in.
    let mut kept = HeaderMap::with_capacity(headers.keys_len() + PUT_IN);
    for (name, value) in headers.iter().filter(|(name, _)| !is_gone(name)) {
        kept.append(name, value.clone());
    }
    kept
}

fn is_hop(name: &HeaderName) -> bool {
    [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
        HTTP2_SETTINGS,
    ]
    .contains(name)
}

/// What a client cannot have removed by naming it in `Connection`.
fn is_end_to_end(name: &HeaderName) -> bool {
    [http::header::HOST, http::header::CONTENT_LENGTH, http::header::CONTENT_TYPE, TRAILER].contains(name)
}

/// HTTP/2 clients may split the cookie header; outside of HTTP/2 it is one (RFC 9113 §8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().count() < 2 {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn text(headers: &HeaderMap) -> String {
        let lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        lines.join(" ")
    }

    #[test]
    fn what_concerns_the_hop_goes_and_the_rest_keeps_its_order() {
        let headers = map(&[
            ("host", "a"),
            ("connection", "keep-alive, X-Private"),
            ("keep-alive", "5"),
            ("x-private", "1"),
            ("b", "1"),
            ("te", "trailers, deflate"),
            ("proxy-authorization", "Basic x"),
            ("b", "2"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("c", "3"),
        ]);
        assert_eq!(text(&strip_request(&headers, Version::HTTP_11, false)), "host=a b=1 b=2 c=3 te=trailers");
    }

    #[test]
    fn a_client_cannot_name_away_the_framing_or_the_host() {
        let headers = map(&[
            ("host", "a"),
            ("connection", "host, content-length, content-type, trailer"),
            ("content-length", "3"),
            ("content-type", "b"),
            ("trailer", "c"),
        ]);
        let kept = "host=a content-length=3 content-type=b trailer=c";
        assert_eq!(text(&strip_request(&headers, Version::HTTP_11, false)), kept);
    }

    #[test]
    fn only_a_websocket_is_carried_through() {
        let ask = |upgrade, connection| {
            let headers = map(&[("upgrade", upgrade), ("connection", connection)]);
            wants_websocket(Version::HTTP_11, &Method::GET, &headers)
        };
        assert!(ask("websocket", "keep-alive, Upgrade"));
        assert!(ask("WebSocket", "upgrade"));
        assert!(!ask("h2c", "Upgrade, HTTP2-Settings"));
        assert!(!ask("websocket, h2c", "Upgrade"));
        assert!(!ask("websocket", "keep-alive"));
        let headers = strip_request(
            &map(&[("upgrade", "WebSocket"), ("connection", "upgrade")]),
            Version::HTTP_11,
            true,
        );
        assert_eq!(text(&headers), "connection=Upgrade upgrade=websocket");
    }

    #[test]
    fn a_websocket_is_asked_for_by_one_get_of_http_1_1() {
        let headers = map(&[("upgrade", "websocket"), ("connection", "upgrade")]);
        assert!(wants_websocket(Version::HTTP_11, &Method::GET, &headers));
        assert!(!wants_websocket(Version::HTTP_10, &Method::GET, &headers));
        assert!(!wants_websocket(Version::HTTP_2, &Method::GET, &headers));
        assert!(!wants_websocket(Version::HTTP_11, &Method::POST, &headers));
        let twice = map(&[("upgrade", "websocket"), ("upgrade", "h2c"), ("connection", "upgrade")]);
        assert!(!wants_websocket(Version::HTTP_11, &Method::GET, &twice));
    }

    #[test]
    fn a_response_loses_what_concerns_the_upstreams_hop_and_nothing_else() {
        let headers = map(&[
            ("connection", "close, x-private"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authenticate", "Basic"),
            ("x-private", "1"),
            ("trailer", "x-sum"),
            ("content-type", "text/plain"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ]);
        let kept = "trailer=x-sum content-type=text/plain set-cookie=a=1 set-cookie=b=2";
        assert_eq!(text(&strip_response(headers, false)), kept);
    }

    #[test]
    fn cookie_crumbs_of_http2_become_one_header() {
        let headers = map(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]);
        assert_eq!(text(&strip_request(&headers, Version::HTTP_2, false)), "cookie=a=1; b=2 x=y");
    }
}
