//! The application protocols that are negotiated in TLS (RFC 7301): a closed list on both legs.

/// Which protocols are offered in ALPN, in our order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// No ALPN at all.
    Nothing,
    /// `http/1.0`, which old clients offer alone.
    Http10,
    /// `http/1.1`.
    Http1,
    /// `h2`.
    Http2,
    /// `h2`, then `http/1.1`.
    Http2OrHttp1,
}

impl Alpn {
    /// What to offer a client that offers `client`: never more than it asked for.
    ///
    /// A client that offers only protocols unknown to us is offered `http/1.1`, so that the handshake fails with
    /// `no_application_protocol` as RFC 7301 section 3.2 demands, instead of going on in a protocol it did not ask for.
    pub fn mirror(client: &[Vec<u8>]) -> Self {
        let offers = |protocol: &[u8]| client.iter().any(|offered| offered == protocol);
        match (offers(b"h2"), offers(b"http/1.1")) {
            _ if client.is_empty() => Self::Nothing,
            (true, true) => Self::Http2OrHttp1,
            (true, false) => Self::Http2,
            (false, false) if offers(b"http/1.0") => Self::Http10,
            (false, _) => Self::Http1,
        }
    }

    /// The protocol names as they go over the wire.
    pub fn protocols(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Nothing => &[],
            Self::Http10 => &[b"http/1.0"],
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Http2OrHttp1 => &[b"h2", b"http/1.1"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_never_offered_more_than_it_asked_for() {
        let mirror =
            |client: &[&[u8]]| Alpn::mirror(&client.iter().map(|name| name.to_vec()).collect::<Vec<_>>());
        assert_eq!(mirror(&[]), Alpn::Nothing);
        assert_eq!(mirror(&[b"http/1.1"]), Alpn::Http1);
        assert_eq!(mirror(&[b"h2"]), Alpn::Http2);
        assert_eq!(mirror(&[b"http/1.1", b"h2"]), Alpn::Http2OrHttp1);
        assert_eq!(mirror(&[b"acme-tls/1"]), Alpn::Http1);
        assert_eq!(mirror(&[b"http/1.0"]), Alpn::Http10);
        assert_eq!(mirror(&[b"http/1.0", b"http/1.1"]), Alpn::Http1);
    }
}
