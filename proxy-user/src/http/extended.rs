//! WebSockets over HTTP/2 (RFC 8441): an extended `CONNECT` becomes the upgrade of RFC 6455 that means the same, for the policy, the
//! journal and the upstream; what the upstream answers to that becomes what the client waits for.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use h2::ext::Protocol;
use http::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};

use super::hop;

/// Of RFC 6455 §1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A WebSocket that was asked for over HTTP/2.
#[derive(Clone, Debug)]
pub struct Extended {
    /// What proves that the upstream read the upgrade.
    accept: HeaderValue,
}

impl Extended {
    /// Makes an upgrade of the request, if it is an extended `CONNECT` to a WebSocket. What it is not stays what it is.
    ///
    /// The key and the fields of the hop are ours: those of a client say nothing over HTTP/2 (RFC 8441 §5).
    pub fn take<B>(request: &mut Request<B>) -> Option<Self> {
        let is_websocket = request.version() == Version::HTTP_2
            && request.method() == Method::CONNECT
            && request.extensions().get::<Protocol>().is_some_and(|it| it.as_str() == "websocket");
        if !is_websocket {
            return None;
        }
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let key = STANDARD.encode(nonce);
        let accept = HeaderValue::try_from(accept(&key)).ok()?;
        let key = HeaderValue::try_from(key).ok()?;
        request.extensions_mut().remove::<Protocol>();
        *request.method_mut() = Method::GET;
        *request.version_mut() = Version::HTTP_11;
        let headers = request.headers_mut();
        hop::join_cookies(headers);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_KEY, key);
        Some(Self { accept })
    }

    /// Whether the upstream, which switches, has read what it was asked for (RFC 6455 §4.1). For a client of HTTP/1 it is the client
    /// who looks.
    #[must_use]
    pub fn is_proved(&self, headers: &HeaderMap) -> bool {
        let mut proofs = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        let is_websocket =
            headers.get(UPGRADE).is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"websocket"));
        is_websocket && proofs.next() == Some(&self.accept) && proofs.next().is_none()
    }

    /// Spells the answer for the client: 200 is what 101 is over HTTP/1. Any other is as it is.
    pub fn spell<B>(&self, response: &mut Response<B>) {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            *response.status_mut() = StatusCode::OK;
            *response.headers_mut() = hop::without(response.headers(), |name| {
                [CONNECTION, UPGRADE, SEC_WEBSOCKET_ACCEPT].contains(name)
            });
        }
    }
}

/// What a server answers to a key (RFC 6455 §4.2.2).
fn accept(key: &str) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(method: Method, protocol: Option<&'static str>, version: Version) -> Request<()> {
        let request = Request::builder().method(method).version(version).uri("https://api.test/x");
        let mut request = request
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "the client's")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .unwrap();
        request.extensions_mut().extend(
            protocol
                .map(|it| {
                    let mut extensions = http::Extensions::new();
                    extensions.insert(Protocol::from_static(it));
                    extensions
                })
                .unwrap_or_default(),
        );
        request
    }

    #[test]
    fn an_extended_connect_to_a_websocket_becomes_an_upgrade_with_a_key_of_ours_and_nothing_else_does() {
        let mut request = connect(Method::CONNECT, Some("websocket"), Version::HTTP_2);
        let extended = Extended::take(&mut request).unwrap();
        assert!(hop::wants_websocket(request.version(), request.method(), request.headers()));
        let headers = request.headers();
        assert_eq!(headers["cookie"], "a=1; b=2");
        assert_eq!(headers["sec-websocket-version"], "13");
        let keys: Vec<_> = headers.get_all("sec-websocket-key").iter().collect();
        assert_eq!(keys.len(), 1);
        assert_eq!(extended.accept, accept(keys[0].to_str().unwrap()));
        for (method, protocol, version) in [
            (Method::CONNECT, None, Version::HTTP_2),
            (Method::CONNECT, Some("connect-udp"), Version::HTTP_2),
            (Method::CONNECT, Some("websocket"), Version::HTTP_11),
            (Method::GET, Some("websocket"), Version::HTTP_2),
        ] {
            let mut request = connect(method.clone(), protocol, version);
            assert!(Extended::take(&mut request).is_none());
            assert_eq!((request.method(), request.version()), (&method, version));
        }
    }

    #[test]
    fn a_switch_counts_with_the_one_proof_of_the_standard() {
        // The key and its answer in RFC 6455 §1.3.
        let proof = accept("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(proof, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let extended = Extended { accept: HeaderValue::try_from(&proof).unwrap() };
        let told = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            extended.is_proved(&headers)
        };
        let (upgrade, good) = (("upgrade", "WebSocket"), ("sec-websocket-accept", proof.as_str()));
        assert!(told(&[upgrade, good]));
        assert!(!told(&[upgrade]) && !told(&[good]) && !told(&[upgrade, good, good]));
        assert!(!told(&[("upgrade", "h2c"), good]));
        assert!(!told(&[upgrade, ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOp=")]));
    }
}
