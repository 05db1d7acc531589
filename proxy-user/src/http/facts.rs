//! What a request asks for: exactly one host, one normal path; what can be read in two ways is refused.
//!
//! | the request | becomes |
//! | --- | --- |
//! | no authority, several `Host`, an authority that is none, user information | 400 |
//! | absolute form or `:authority` that disagrees with `Host` | 400 (RFC 9112 §3.2.2, RFC 9113 §8.3.1) |
//! | authority that disagrees with SNI or the destination's port | 421 (RFC 9110 §15.5.20) |
//! | `CONNECT` (but for what [`super::connect`] reads), `TRACE`, `TRACK` | 405 |
//! | a host and port alone as the target | 400 (RFC 9112 §3.2.3) |
//! | a path without one normal form | 400 |
//! | a header that asks for another method or path than the request line (`X-HTTP-Method-Override` …) | 400 |
//! | a header name with `_` whose twin with `-` frames the message | 400 |
//! | over HTTP/2: no `:authority`, a `:path` without a slash, a value with blanks around it | 400 (RFC 9113 §8.2.1, §8.3.1) |

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, TRANSFER_ENCODING};
use http::{HeaderName, Method, Uri, Version};
use proxy_policy::{CallKind, CallPath, Host, Scheme};

use super::hop;
use crate::authorize::{Facts, Kind, Refusal};

/// What is known of a connection before its first request.
#[derive(Clone, Debug)]
pub struct Leg {
    /// How the workload speaks, and how the upstream will be spoken to.
    pub scheme: Scheme,
    /// The host of the TLS handshake: SNI, or the destination's address when there was none. Over plain HTTP what a proxy was asked
    /// for, if one was.
    pub host: Option<Host>,
    /// The port that the workload connected to.
    pub port: u16,
    /// The address that it connected to; `None` where nobody did, or where it is not known.
    pub address: Option<IpAddr>,
}

/// Reads the facts of a request.
///
/// # Errors
/// The refusal (400, 405 or 421), as the table above says.
pub fn read<'a>(
    leg: &'a Leg,
    version: Version,
    method: &'a Method,
    uri: &'a Uri,
    headers: &HeaderMap,
) -> Result<Facts<'a>, Refusal> {
    if method == Method::CONNECT {
        let detail = match version {
            Version::HTTP_2 => "CONNECT opens no tunnel over HTTP/2 here: ask for it over HTTP/1.1",
            _ => {
                "CONNECT opens a tunnel as the first request of a connection without TLS, and not within another tunnel"
            }
        };
        return Err(Refusal::new(Kind::MethodNotAllowed, detail));
    }
    if matches!(method.as_str(), "TRACE" | "TRACK") {
        let detail = format!("{method} would have the API send the credential back");
        return Err(Refusal::new(Kind::MethodNotAllowed, detail));
    }
    check_framing(version, headers)?;
    check_overrides(headers)?;
    if uri.scheme_str().is_some_and(|scheme| scheme != leg.scheme.as_str()) {
        let mut detail =
            format!("the request's target has another scheme than the connection, which is {}", leg.scheme);
        if leg.scheme == Scheme::Http && uri.scheme() == Some(&http::uri::Scheme::HTTPS) {
            detail.push_str("; ask a proxy for a tunnel (CONNECT), and speak TLS within it");
        }
        return Err(Refusal::new(Kind::BadRequest, detail));
    }
    if version != Version::HTTP_2 && uri.scheme().is_none() && uri.authority().is_some() {
        // RFC 9112 §3.2.3.
        return Err(Refusal::new(
            Kind::BadRequest,
            "the request's target is a host and port, as CONNECT alone has it",
        ));
    }
    let host = host(leg, uri, headers)?;
    let path = match uri.path() {
        // The empty path of an absolute form; of OPTIONS it is the asterisk (RFC 9112 §3.2.4).
        "" if method == Method::OPTIONS => "*",
        "" => "/",
        path => path,
    };
    let path =
        CallPath::normalize(path).map_err(|error| Refusal::new(Kind::BadRequest, error.to_string()))?;
    if path.is_asterisk() && method != Method::OPTIONS {
        return Err(Refusal::new(Kind::BadRequest, "the target * is for OPTIONS only"));
    }
    let kind = match hop::wants_websocket(version, method, headers) {
        true => CallKind::WebSocket,
        false if method == Method::POST && is_grpc(headers) => CallKind::Grpc,
        false => CallKind::Plain,
    };
    let (scheme, port, address) = (leg.scheme, leg.port, leg.address);
    Ok(Facts { scheme, host, port, address, method, path, query: uri.query(), kind })
}

/// Whether the content type is that of gRPC over HTTP/2: `application/grpc`, also with `+proto` or parameters behind it.
/// gRPC-Web is another protocol.
fn is_grpc(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let (head, rest) = value.as_bytes().split_at_checked(GRPC.len()).unwrap_or_default();
    head.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

const GRPC: &[u8] = b"application/grpc";

/// Holds the header list of HTTP/2 against the limit (in bytes as RFC 9113 §6.5.2 counts); over HTTP/1 `http1` does it.
///
/// # Errors
/// 431.
pub fn small_enough(limit: u32, version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    const EACH: usize = 32;
    if version != Version::HTTP_2 {
        return Ok(());
    }
    let fields = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + EACH).sum::<usize>();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if fields.saturating_add(target) > usize::try_from(limit).unwrap_or(usize::MAX) {
        return Err(Refusal::new(Kind::HeaderTooLarge, "the header is larger than the limit"));
    }
    Ok(())
}

/// `http1` and the h2 crate refuse most of what is ambiguous in framing; this is what they let through, and what both have said already.
pub(super) fn check_framing(version: Version, headers: &HeaderMap) -> Result<(), Refusal> {
    let bad = |detail| Err(Refusal::new(Kind::BadRequest, detail));
    if headers.contains_key(TRANSFER_ENCODING) {
        if headers.contains_key(CONTENT_LENGTH) {
            return bad("the request has both transfer-encoding and content-length");
        }
        if version < Version::HTTP_11 {
            return bad("the request is HTTP/1.0 and has transfer-encoding");
        }
    }
    if headers.get_all(CONTENT_LENGTH).iter().count() > 1 {
        return bad("the request has more than one content-length");
    }
    if headers.contains_key("content_length") || headers.contains_key("transfer_encoding") {
        return bad(
            "the request has content_length or transfer_encoding, which some servers take for the real ones",
        );
    }
    Ok(())
}

/// The h2 crate refuses most of what no request over HTTP/2 may have; this is what it lets through.
///
/// # Errors
/// 400.
pub fn well_formed(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    if version != Version::HTTP_2 {
        return Ok(());
    }
    let bad = |detail| Err(Refusal::new(Kind::BadRequest, detail));
    // RFC 9113 §8.3.1: who translates HTTP/1 may say the host in its field, and clients do whose code sets it. The h2 crate then hides the
    // scheme, which TLS has said.
    if uri.authority().is_none() && !headers.contains_key(HOST) {
        return bad("the request has no :authority");
    }
    if uri.path().is_empty() {
        return bad("the request has no :path");
    }
    let target = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if !target.starts_with('/') && target != "*" {
        return bad("the :path of the request does not begin with a slash");
    }
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if headers.values().any(|value| blank(value.as_bytes().first()) || blank(value.as_bytes().last())) {
        return bad("a field of the request begins or ends with a blank");
    }
    Ok(())
}

/// Headers by which frameworks let a client ask for another method or path than the request line: the upstream would act
/// on something that was not decided.
const OVERRIDES: [&str; 7] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-method",
    "x-original-url",
    "x-original-uri",
    "x-rewrite-url",
];

/// What may not stand in trailers, besides [`OVERRIDES`] (RFC 9110 §6.5.1): what frames or routes the message or says how to read
/// it. Servers that add trailers to the head would act on it.
const NOT_IN_TRAILERS: [&str; 14] = [
    "content-length",
    "transfer-encoding",
    "host",
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "max-forwards",
    "content-type",
    "content-encoding",
    "content-range",
];

/// The first field of these trailers that may not be one.
pub(super) fn misplaced(trailers: &HeaderMap) -> Option<&HeaderName> {
    let all = NOT_IN_TRAILERS.iter().chain(&OVERRIDES);
    trailers.keys().find(|name| all.clone().any(|wanted| same_name(name.as_str(), wanted)))
}

/// Whether a name is another one to servers of the CGI kind, which take `_` for `-`.
fn same_name(name: &str, wanted: &str) -> bool {
    name.len() == wanted.len()
        && name.bytes().zip(wanted.bytes()).all(|(a, b)| a == b || (a, b) == (b'_', b'-'))
}

fn check_overrides(headers: &HeaderMap) -> Result<(), Refusal> {
    let asked = headers
        .keys()
        .map(HeaderName::as_str)
        .filter(|name| name.starts_with('x'))
        .find(|name| OVERRIDES.iter().any(|wanted| same_name(name, wanted)));
    match asked {
        None => Ok(()),
        Some(name) => {
            let detail =
                format!("{name} asks the API for another method or path than the one that is decided");
            Err(Refusal::new(Kind::BadRequest, detail))
        }
    }
}

/// The one host that the request names.
fn host<'a>(leg: &'a Leg, uri: &Uri, headers: &HeaderMap) -> Result<Cow<'a, Host>, Refusal> {
    let mut named = headers.get_all(HOST).iter();
    let header = match (named.next(), named.next()) {
        (_, Some(_)) => {
            return Err(Refusal::new(Kind::BadRequest, "the request has more than one host header"));
        }
        (header, None) => header,
    };
    let header = header
        .map(|value| {
            value
                .to_str()
                .map_err(|_| Refusal::new(Kind::BadRequest, "the host header is not a host and port"))
        })
        .transpose()?;
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let Some(text) = authority.or(header) else {
        return Err(Refusal::new(Kind::BadRequest, "the request names no host"));
    };
    let host = agree(leg, text)?;
    if let (Some(authority), Some(header)) = (authority, header)
        && authority != header
        && !same(leg, &parse(authority)?, &parse(header)?)
    {
        return Err(Refusal::new(Kind::BadRequest, "the host header and the target of the request disagree"));
    }
    Ok(host)
}

/// The host that `text` names, if the connection was meant for it.
fn agree<'a>(leg: &'a Leg, text: &str) -> Result<Cow<'a, Host>, Refusal> {
    // What nearly every request has: the very name of the handshake.
    if let Some(host) = leg.host.as_ref().filter(|host| host.name() == text) {
        return Ok(Cow::Borrowed(host));
    }
    let host = parse(text)?;
    if host.port().is_some_and(|port| port != leg.port) {
        let detail =
            format!("the request is for port {}, the connection to port {}", port_of(leg, &host), leg.port);
        return Err(Refusal::new(Kind::Misdirected, detail));
    }
    match &leg.host {
        None => Ok(Cow::Owned(host)),
        Some(known) if known.name() == host.name() => Ok(Cow::Borrowed(known)),
        Some(known) => {
            let before = match leg.scheme {
                Scheme::Https => "TLS handshake",
                Scheme::Http => "tunnel",
            };
            let detail = format!("the request is for {}, the {before} was for {}", host.name(), known.name());
            Err(Refusal::new(Kind::Misdirected, detail))
        }
    }
}

fn parse(text: &str) -> Result<Host, Refusal> {
    Host::parse(text).map_err(|error| Refusal::new(Kind::BadRequest, error.to_string()))
}

fn same(leg: &Leg, a: &Host, b: &Host) -> bool {
    a.name() == b.name() && port_of(leg, a) == port_of(leg, b)
}

fn port_of(leg: &Leg, host: &Host) -> u16 {
    host.port().unwrap_or(leg.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(scheme: Scheme, sni: Option<&str>) -> Leg {
        let host = sni.map(|sni| Host::parse(sni).unwrap());
        Leg { scheme, host, port: scheme.default_port(), address: None }
    }

    fn ask(leg: &Leg, version: Version, method: &Method, uri: &str, hosts: &[&str]) -> Result<String, Kind> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        let uri: Uri = uri.parse().unwrap();
        let facts = read(leg, version, method, &uri, &headers).map_err(|refusal| refusal.kind)?;
        Ok(format!("{}{}", facts.host.name(), facts.path))
    }

    #[test]
    fn a_grpc_call_and_a_websocket_are_told_from_a_plain_request() {
        let leg = leg(Scheme::Https, Some("api.test"));
        let kind = |method: Method, pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "api.test".parse().unwrap());
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            read(&leg, Version::HTTP_11, &method, &Uri::from_static("/a.B/C"), &headers).unwrap().kind
        };
        for value in ["application/grpc", "Application/GRPC+proto", "application/grpc;x=y"] {
            assert_eq!(kind(Method::POST, &[("content-type", value)]), CallKind::Grpc, "{value}");
            assert_eq!(kind(Method::PUT, &[("content-type", value)]), CallKind::Plain, "{value}");
        }
        for value in ["application/grpc-web", "application/grpcx", "application/json", ""] {
            assert_eq!(kind(Method::POST, &[("content-type", value)]), CallKind::Plain, "{value}");
        }
        let twice = [("content-type", "application/grpc"), ("content-type", "text/plain")];
        assert_eq!(kind(Method::POST, &twice), CallKind::Plain);
        let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
        assert_eq!(kind(Method::GET, &upgrade), CallKind::WebSocket);
        assert_eq!(kind(Method::GET, &[("upgrade", "websocket")]), CallKind::Plain);
    }

    #[test]
    fn a_header_that_asks_for_another_method_or_path_is_refused_in_every_spelling() {
        let leg = leg(Scheme::Https, Some("api.test"));
        let with = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, "api.test".parse().unwrap());
            headers.insert(name, "DELETE".parse().unwrap());
            read(&leg, Version::HTTP_11, &Method::GET, &Uri::from_static("/x"), &headers)
                .map(drop)
                .map_err(|r| r.kind)
        };
        for name in [
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "x-method",
            "x-original-url",
            "x-original-uri",
            "x-rewrite-url",
            "x_http_method_override",
            "x-rewrite_url",
        ] {
            assert_eq!(with(name).err(), Some(Kind::BadRequest), "{name}");
        }
        for name in ["x-http-method-overrides", "x-request-id", "method-override"] {
            assert!(with(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn one_host_and_one_path_come_out_of_every_honest_form() {
        let tls = leg(Scheme::Https, Some("api.test"));
        let plain = leg(Scheme::Http, None);
        for (leg, uri, hosts, expected) in [
            (&tls, "/a", &["api.test"] as &[&str], "api.test/a"),
            (&tls, "/a?b=/../c", &["API.test."], "api.test/a"),
            (&tls, "/a//b/../c", &["api.test:443"], "api.test/a/c"),
            (&tls, "https://api.test/a", &["api.test"], "api.test/a"),
            (&tls, "https://api.test/a", &[], "api.test/a"),
            (&tls, "https://api.test:443/a", &["Api.Test"], "api.test/a"),
            (&plain, "/a", &["other.test"], "other.test/a"),
            (&plain, "http://other.test/a", &["other.test:80"], "other.test/a"),
            (&plain, "http://other.test", &["other.test"], "other.test/"),
        ] {
            let got = ask(leg, Version::HTTP_11, &Method::GET, uri, hosts);
            assert_eq!(got.as_deref(), Ok(expected), "{uri} {hosts:?}");
        }
        assert_eq!(ask(&tls, Version::HTTP_11, &Method::OPTIONS, "*", &["api.test"]).unwrap(), "api.test*");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let tls = leg(Scheme::Https, Some("api.test"));
        let plain = leg(Scheme::Http, None);
        for (leg, uri, hosts, kind) in [
            (&tls, "/a", &[] as &[&str], Kind::BadRequest),
            (&tls, "/a", &["api.test", "api.test"], Kind::BadRequest),
            (&tls, "/a", &["api.test", "evil.test"], Kind::BadRequest),
            (&tls, "/a", &["user@api.test"], Kind::BadRequest),
            (&tls, "/a", &[""], Kind::BadRequest),
            (&tls, "/a", &["api.test, evil.test"], Kind::BadRequest),
            (&tls, "/a", &["evil.test"], Kind::Misdirected),
            (&tls, "/a", &["api.test:8443"], Kind::Misdirected),
            (&tls, "https://evil.test/a", &["api.test"], Kind::Misdirected),
            (&tls, "https://api.test/a", &["evil.test"], Kind::BadRequest),
            (&tls, "https://api.test/a", &["api.test:8443"], Kind::BadRequest),
            (&tls, "http://api.test/a", &["api.test"], Kind::BadRequest),
            (&tls, "/a%2fb", &["api.test"], Kind::BadRequest),
            (&tls, "/../a", &["api.test"], Kind::BadRequest),
            (&tls, "*", &["api.test"], Kind::BadRequest),
            (&plain, "/a", &["other.test:8080"], Kind::Misdirected),
            (&plain, "http://other.test/a", &["evil.test"], Kind::BadRequest),
        ] {
            assert_eq!(ask(leg, Version::HTTP_11, &Method::GET, uri, hosts), Err(kind), "{uri} {hosts:?}");
        }
        // What a client asked a tunnel for, it stays with.
        let tunnel = leg(Scheme::Http, Some("api.test"));
        assert_eq!(
            ask(&tunnel, Version::HTTP_11, &Method::GET, "/a", &["api.test"]).as_deref(),
            Ok("api.test/a")
        );
        let other = ask(&tunnel, Version::HTTP_11, &Method::GET, "/a", &["evil.test"]);
        assert_eq!(other, Err(Kind::Misdirected));
        let bare = ask(&plain, Version::HTTP_11, &Method::GET, "other.test:80", &["other.test:80"]);
        assert_eq!(bare, Err(Kind::BadRequest), "the form of CONNECT");
        let connect = ask(&tls, Version::HTTP_11, &Method::CONNECT, "api.test:443", &["api.test"]);
        assert_eq!(connect, Err(Kind::MethodNotAllowed));
    }

    #[test]
    fn a_method_that_would_echo_the_credential_is_405_also_where_all_methods_are_granted() {
        let tls = leg(Scheme::Https, Some("api.test"));
        for name in ["TRACE", "TRACK"] {
            let method = Method::from_bytes(name.as_bytes()).unwrap();
            let asked = ask(&tls, Version::HTTP_11, &method, "/a", &["api.test"]);
            assert_eq!(asked, Err(Kind::MethodNotAllowed), "{name}");
        }
    }

    #[test]
    fn the_header_list_of_http2_counts_names_values_fields_and_the_target() {
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static("name"), "value".parse().unwrap())]);
        let uri = Uri::from_static("https://api.test/target?q");
        // name, value, 32 for the field, and "/target?q".
        let whole = 4 + 5 + 32 + 9;
        assert!(small_enough(whole, Version::HTTP_2, &uri, &headers).is_ok());
        let refusal = small_enough(whole - 1, Version::HTTP_2, &uri, &headers).unwrap_err();
        assert_eq!(refusal.kind, Kind::HeaderTooLarge);
    }

    #[test]
    fn framing_in_two_ways_is_refused() {
        let tls = leg(Scheme::Https, Some("api.test"));
        let uri = Uri::from_static("/");
        for (version, pairs) in [
            (
                Version::HTTP_11,
                &[("transfer-encoding", "chunked"), ("content-length", "3")] as &[(&str, &str)],
            ),
            (Version::HTTP_10, &[("transfer-encoding", "chunked")]),
            (Version::HTTP_11, &[("content-length", "3"), ("content-length", "4")]),
            (Version::HTTP_11, &[("content_length", "3")]),
            (Version::HTTP_11, &[("transfer_encoding", "chunked")]),
        ] {
            let mut headers = HeaderMap::new();
            headers.append(HOST, "api.test".parse().unwrap());
            for (name, value) in pairs {
                headers
                    .append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            let refusal = read(&tls, version, &Method::POST, &uri, &headers).unwrap_err();
            assert_eq!(refusal.kind, Kind::BadRequest, "{pairs:?}");
        }
    }
}
