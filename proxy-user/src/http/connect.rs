//! `CONNECT` over HTTP/1 (RFC 9110 §9.3.6): a client that meant to reach a proxy asks it for a tunnel.
//!
//! | the request | becomes |
//! | --- | --- |
//! | a target that is no host with a port from 1 on: user information, a path, a scheme, no port | 400 |
//! | several `Host`, or one that disagrees with the target | 400 (RFC 9112 §3.2) |
//! | a body, by its length or by chunks | 400 (RFC 9110 §9.3.6) |
//!
//! Nothing of its head goes anywhere: what a client tells a proxy of itself (`Proxy-Authorization`) ends here. What comes behind the head
//! belongs to the tunnel, also when it came before it was granted.

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Method, Response, Version};
use http_body_util::Full;
use proxy_policy::Host;
use tokio::net::TcpStream;

use super::facts;
use super::server::{Ended, HttpLimits};
use super::server1::{self, LINGER_TIME, SAY};
use crate::authorize::{Kind, Refusal};
use crate::http1::head::{self, RequestHead};
use crate::http1::served::Answer;
use crate::http1::{Io, Served, Wire};
use crate::sniff::Prefixed;

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Whether these bytes, from which HTTP/1 was told, begin with the method; an empty line may be before it, as before any.
#[must_use]
pub fn is_asked(begun: &[u8]) -> bool {
    begun.strip_prefix(b"\r\n").unwrap_or(begun).starts_with(b"CONNECT ")
}

/// What was asked for, and the connection on which to answer.
#[derive(Debug)]
pub struct Connect<S> {
    served: Served<S>,
    version: Version,
    /// The host and the port. Of a target that is none, nothing is kept: there may be a password in it.
    pub target: Result<(Host, u16), Refusal>,
}

/// Reads the request, whose first bytes have come.
///
/// # Errors
/// What came is none, can be read in two ways, or does not come whole in time. The client has its answer then.
pub async fn read<S: Io + 'static>(stream: S, limits: &HttpLimits) -> Result<Connect<S>, Ended> {
    let served = Served::new(stream);
    let most = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
    let read = tokio::time::timeout(limits.header_time, served.head(most)).await;
    let head = match read {
        Ok(Ok(Some(head))) => head,
        Ok(Ok(None)) => return Err(Ended::Done),
        Ok(Err(error)) => return Err(server1::refuse(served, error).await),
        Err(_) => return Err(server1::late(served).await),
    };
    match head::request(&head, limits.header_fields) {
        Ok(head) => {
            let (version, target) = (head.version, target(&head));
            Ok(Connect { served, version, target })
        }
        Err(error) => Err(server1::refuse(served, error.into()).await),
    }
}

/// What it is asked to connect to.
fn target(head: &RequestHead) -> Result<(Host, u16), Refusal> {
    let bad = |detail: String| Refusal::new(Kind::BadRequest, detail);
    if head.method != Method::CONNECT {
        return Err(bad(format!("{} does not ask for a tunnel", head.method)));
    }
    facts::check_framing(head.version, &head.headers)?;
    let uri = &head.uri;
    let authority = uri.authority().filter(|_| uri.scheme().is_none() && uri.path_and_query().is_none());
    let Some(authority) = authority else {
        return Err(bad("the target of CONNECT is a host and a port, and nothing else".to_owned()));
    };
    let parse = |text: &str| Host::parse(text).map_err(|error| bad(format!("CONNECT: {error}")));
    let host = parse(authority.as_str())?;
    let Some(port) = host.port() else {
        return Err(bad("the target of CONNECT has no port".to_owned()));
    };
    let mut named = head.headers.get_all(HOST).iter();
    match (named.next(), named.next()) {
        // Clients of HTTP/1.0 have none, and it says nothing that the target does not say.
        (None, _) => {}
        (Some(_), Some(_)) => return Err(bad("the request has more than one host header".to_owned())),
        (Some(header), None) => {
            let header =
                header.to_str().map_err(|_| bad("the host header is not a host and port".to_owned()))?;
            let header = parse(header)?;
            // Some leave the usual port out.
            if header.name() != host.name() || header.port().is_some_and(|it| it != port) {
                return Err(bad("the host header and the target of CONNECT disagree".to_owned()));
            }
        }
    }
    Ok((host, port))
}

impl Connect<Prefixed<TcpStream>> {
    /// Tells the client that the tunnel stands; the tunnel, with what the client said ahead.
    pub async fn open(self) -> Option<Prefixed<TcpStream>> {
        self.served.say(ESTABLISHED, SAY).await;
        let (stream, ahead) = self.served.into_inner()?;
        Some(stream.behind(ahead))
    }
}

impl<S: Io + 'static> Connect<S> {
    /// Tells the client that there will be no tunnel, and ends the connection: what it said ahead was not for us.
    pub async fn refuse(self, response: Response<Vec<u8>>) {
        let (mut head, body) = response.into_parts();
        head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        let answer = Answer {
            version: self.version,
            to_head: false,
            status: head.status,
            headers: &head.headers,
            wire: &Wire::default(),
            keep_alive: false,
        };
        let answered = self.served.answer(answer, Full::new(Bytes::from(body)));
        if matches!(tokio::time::timeout(SAY, answered).await, Ok(Ok(_))) {
            server1::close(self.served, LINGER_TIME, Ended::Done).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(request: &str) -> Result<(String, u16), String> {
        let head = head::request(&Bytes::from(request.to_owned()), 64).map_err(|error| error.to_string())?;
        target(&head).map(|(host, port)| (host.name().to_owned(), port)).map_err(|refusal| refusal.detail)
    }

    #[test]
    fn a_tunnel_is_asked_for_by_a_host_and_a_port_as_clients_write_it() {
        for (request, host, port) in [
            ("CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n", "api.test", 443),
            // Java leaves the usual port out, Python of old the whole field.
            ("CONNECT api.test:443 HTTP/1.1\r\nHost: api.test\r\n\r\n", "api.test", 443),
            ("CONNECT API.test.:8443 HTTP/1.0\r\n\r\n", "api.test", 8443),
            (
                "CONNECT api.test:443 HTTP/1.1\r\nHost: API.TEST:443\r\nContent-Length: 0\r\n\r\n",
                "api.test",
                443,
            ),
            ("CONNECT 192.0.2.1:80 HTTP/1.1\r\nProxy-Authorization: Basic eDp5\r\n\r\n", "192.0.2.1", 80),
            ("CONNECT [2001:DB8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n\r\n", "2001:db8::1", 443),
        ] {
            assert_eq!(asked(request), Ok((host.to_owned(), port)), "{request}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_asks_for_no_tunnel() {
        for request in [
            "CONNECT api.test HTTP/1.1\r\n\r\n",
            "CONNECT api.test:0 HTTP/1.1\r\n\r\n",
            "CONNECT api.test: HTTP/1.1\r\n\r\n",
            "CONNECT api.test:65536 HTTP/1.1\r\n\r\n",
            "CONNECT api.test:+443 HTTP/1.1\r\n\r\n",
            "CONNECT me@api.test:443 HTTP/1.1\r\n\r\n",
            "CONNECT me:x@api.test:443 HTTP/1.1\r\n\r\n",
            "CONNECT api.test:443/x HTTP/1.1\r\n\r\n",
            "CONNECT api.test:443?x HTTP/1.1\r\n\r\n",
            "CONNECT /x HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
            "CONNECT * HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
            "CONNECT https://api.test:443 HTTP/1.1\r\n\r\n",
            "CONNECT https://api.test:443/ HTTP/1.1\r\n\r\n",
            "CONNECT :443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
            "CONNECT 127.1:443 HTTP/1.1\r\n\r\n",
            "CONNECT 2130706433:443 HTTP/1.1\r\n\r\n",
            "CONNECT [::1%25lo]:443 HTTP/1.1\r\n\r\n",
            "CONNECT ::1:443 HTTP/1.1\r\n\r\n",
            "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nHost: api.test:443\r\n\r\n",
            "CONNECT api.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n",
            "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:80\r\n\r\n",
            "CONNECT api.test:443 HTTP/1.1\r\nHost: proxy.test:3128\r\n\r\n",
            "CONNECT api.test:443 HTTP/1.1\r\nHost:\r\n\r\n",
            "CONNECT api.test:443 HTTP/1.1\r\ncontent_length: 3\r\n\r\n",
            "CONNECT api.test:443 HTTP/1.1\r\nTransfer_Encoding: chunked\r\n\r\n",
            "connect api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n",
        ] {
            assert!(asked(request).is_err(), "{request}: {:?}", asked(request));
        }
    }

    #[test]
    fn only_the_method_itself_asks() {
        for begun in ["CONNECT ", "\r\nCONNECT a"] {
            assert!(is_asked(begun.as_bytes()), "{begun}");
        }
        for begun in ["CONNECTX ", "connect a", "\r\n\r\nCONNECT ", "GET CONNECT ", "CONNECT"] {
            assert!(!is_asked(begun.as_bytes()), "{begun}");
        }
    }
}
