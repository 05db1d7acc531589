//! Tells the protocol of a connection from the client's first bytes, within a deadline.
//!
//! The parsers are pure; only [`Sniffer`] reads. Nothing is consumed: what was read comes back as a prefix, which
//! [`Prefixed`] puts in front of the stream again.

pub mod client_hello;
pub mod greeting;
pub mod http;
mod prefixed;
mod progress;

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::Instant;

pub use client_hello::ClientHello;
pub use prefixed::Prefixed;
pub use progress::{Progress, Why};

/// What a connection speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// TLS, with what the client asked for.
    Tls(ClientHello),
    /// Plain HTTP/1.0 or HTTP/1.1.
    Http1,
    /// Plain HTTP/2 with prior knowledge.
    Http2,
    /// Something else, of which only the first bytes are known.
    Opaque,
}

/// A protocol and the bytes that it was told from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sniffed {
    /// What the connection speaks.
    pub protocol: Protocol,
    /// All that was read, which may be more than the protocol was told from.
    pub prefix: Bytes,
}

/// Why the protocol of a connection could not be told. The client is to blame for each of them.
#[derive(Debug, thiserror::Error)]
pub enum SniffError {
    /// The deadline passed. Nothing at all may mean a protocol in which the server speaks first.
    #[error("the client sent {received} bytes in {} ms, too few to tell the protocol", deadline.as_millis())]
    Timeout {
        /// The bytes that had come by then.
        received: usize,
        /// The deadline that was set.
        deadline: Duration,
    },
    /// The client closed its side first. A connection without one byte is no error of anybody.
    #[error("the client closed the connection after {received} bytes, before its protocol could be told")]
    Closed {
        /// The bytes that had come by then.
        received: usize,
    },
    /// The connection broke.
    #[error("the connection of the client broke after {received} bytes")]
    Broken {
        /// The bytes that had come by then.
        received: usize,
        /// What the socket said.
        source: io::Error,
    },
    /// The client went on for longer than we read before a decision.
    #[error("the client's first message is larger than the {limit} bytes that are read before a decision")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The protocol was told, but the client breaks its rules.
    #[error("the client's first message is invalid: {0}")]
    Invalid(Why),
}

/// Tells the protocol from the first bytes of a connection. TLS that must be refused is `NotThis`; what no parser
/// knows is `Opaque`.
pub fn recognize(buf: &[u8]) -> Progress<Protocol> {
    if buf.is_empty() {
        return Progress::More;
    }
    match client_hello::parse(buf) {
        Progress::Done(hello) => return Progress::Done(Protocol::Tls(hello)),
        Progress::More => return Progress::More,
        Progress::NotThis(Why::OtherProtocol) => {}
        Progress::NotThis(why) => return Progress::NotThis(why),
    }
    match http::parse(buf) {
        Progress::Done(http::Version::Http1) => Progress::Done(Protocol::Http1),
        Progress::Done(http::Version::Http2) => Progress::Done(Protocol::Http2),
        Progress::More => Progress::More,
        Progress::NotThis(_) => Progress::Done(Protocol::Opaque),
    }
}

/// Reads a connection until its protocol is told, for as long as the deadline gives, which counts from the beginning.
#[derive(Debug)]
pub struct Sniffer {
    buf: BytesMut,
    end: Instant,
    deadline: Duration,
}

impl Sniffer {
    /// Begins.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self { buf: BytesMut::new(), end: Instant::now() + deadline, deadline }
    }

    /// Waits for more bytes. Nothing is lost when it is dropped before it ends.
    ///
    /// # Errors
    /// See [`SniffError`].
    pub async fn more<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> Result<(), SniffError> {
        const CHUNK: usize = 4096;
        self.buf.reserve(CHUNK);
        let read = tokio::time::timeout_at(self.end, stream.read_buf(&mut self.buf)).await;
        let received = self.buf.len();
        match read {
            Err(_) => Err(SniffError::Timeout { received, deadline: self.deadline }),
            Ok(Err(source)) => Err(SniffError::Broken { received, source }),
            Ok(Ok(0)) => Err(SniffError::Closed { received }),
            Ok(Ok(_)) => Ok(()),
        }
    }

    /// Reads until the protocol is told.
    ///
    /// # Errors
    /// See [`SniffError`]. Bytes are lost then.
    pub async fn finish<S: AsyncRead + Unpin>(mut self, stream: &mut S) -> Result<Sniffed, SniffError> {
        loop {
            match recognize(&self.buf) {
                Progress::Done(protocol) => return Ok(Sniffed { protocol, prefix: self.buf.freeze() }),
                Progress::More => self.more(stream).await?,
                Progress::NotThis(Why::TooLarge { limit }) => return Err(SniffError::TooLarge { limit }),
                Progress::NotThis(why) => return Err(SniffError::Invalid(why)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    const LONG: Duration = Duration::from_secs(60);

    async fn sniff<S: AsyncRead + Unpin>(stream: &mut S, deadline: Duration) -> Result<Sniffed, SniffError> {
        Sniffer::new(deadline).finish(stream).await
    }

    /// What [`sniff`] says of `bytes`, after which the client closes.
    async fn of(bytes: &[u8]) -> Result<Sniffed, SniffError> {
        let (mut far, mut near) = tokio::io::duplex(1 << 20);
        far.write_all(bytes).await.unwrap();
        drop(far);
        sniff(&mut near, LONG).await
    }

    #[tokio::test]
    async fn each_protocol_is_told_and_its_bytes_are_kept() {
        let hello = client_hello::tests::rustls_hello("api.example.com", &[b"h2"]);
        let cases: [(&[u8], &str); 4] = [
            (&hello, "Tls"),
            (b"GET / HTTP/1.1\r\n", "Http1"),
            (http::HTTP2_PREFACE, "Http2"),
            (b"\0", "Opaque"),
        ];
        for (bytes, expected) in cases {
            let sniffed = of(bytes).await.unwrap();
            assert!(format!("{:?}", sniffed.protocol).starts_with(expected), "{sniffed:?}");
            assert_eq!(sniffed.prefix, bytes);
        }
    }

    #[tokio::test]
    async fn a_client_hello_cut_at_any_length_and_closed_says_how_much_came() {
        let hello = client_hello::tests::rustls_hello("api.example.com", &[b"h2", b"http/1.1"]);
        for length in 0..hello.len() {
            match of(&hello[..length]).await {
                Err(SniffError::Closed { received }) => assert_eq!(received, length),
                other => panic!("cut at {length}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn a_client_hello_cut_at_any_length_and_held_open_times_out() {
        let hello = client_hello::tests::rustls_hello("api.example.com", &[]);
        for length in 0..hello.len() {
            let (mut far, mut near) = tokio::io::duplex(1 << 16);
            far.write_all(&hello[..length]).await.unwrap();
            // What is there is read even when the deadline has passed already.
            match sniff(&mut near, Duration::ZERO).await {
                Err(SniffError::Timeout { received, deadline: Duration::ZERO }) => {
                    assert_eq!(received, length)
                }
                other => panic!("cut at {length}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn what_is_read_before_a_wait_is_given_up_is_not_lost() {
        let (mut far, mut near) = tokio::io::duplex(64);
        let mut sniffer = Sniffer::new(LONG);
        for byte in b"GE" {
            let given_up = tokio::time::timeout(Duration::from_millis(5), sniffer.more(&mut near)).await;
            assert!(given_up.is_err());
            far.write_all(&[*byte]).await.unwrap();
            sniffer.more(&mut near).await.unwrap();
        }
        far.write_all(b"T / HTTP/1.1").await.unwrap();
        let sniffed = sniffer.finish(&mut near).await.unwrap();
        assert_eq!((sniffed.protocol, &sniffed.prefix[..]), (Protocol::Http1, &b"GET / HTTP/1.1"[..]));
    }

    #[tokio::test]
    async fn a_client_that_drips_does_not_outlive_the_deadline() {
        let (mut far, mut near) = tokio::io::duplex(1);
        let drip = tokio::spawn(async move {
            let start = [22, 3, 1, 0x40, 0, 1, 0, 0x80, 0];
            for byte in start.into_iter().chain(std::iter::repeat_n(0, 0x8000)) {
                if far.write_all(&[byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let error = sniff(&mut near, Duration::from_millis(40)).await.unwrap_err();
        assert!(matches!(error, SniffError::Timeout { received: 1.., .. }), "{error}");
        drip.abort();
    }

    #[tokio::test]
    async fn a_hello_without_end_and_a_hello_against_the_rules_are_told_apart() {
        let endless = of(&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]).await.unwrap_err();
        assert!(matches!(endless, SniffError::TooLarge { limit: client_hello::MAX_BYTES }), "{endless}");
        let invalid = of(&[22, 3, 1, 0, 0]).await.unwrap_err();
        assert!(matches!(invalid, SniffError::Invalid(Why::Malformed(_))), "{invalid}");
    }
}
