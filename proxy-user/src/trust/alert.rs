//! Refuses a connection before TLS was spoken on it: one unencrypted fatal alert.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The alerts that a refusal may carry (RFC 8446 section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// The ClientHello is not acceptable as it is.
    HandshakeFailure = 40,
    /// The policy does not let this workload connect there.
    AccessDenied = 49,
    /// The ClientHello breaks the rules of TLS.
    DecodeError = 50,
    /// We cannot serve the connection, and it is our fault.
    InternalError = 80,
    /// No server of the name that the client gave is known.
    UnrecognizedName = 112,
}

impl Alert {
    /// The alert as one record. The version is TLS 1.0 as in a first record, because none is negotiated yet
    /// (RFC 8446 section 5.1).
    pub fn record(self) -> [u8; 7] {
        const CONTENT_ALERT: u8 = 21;
        const FATAL: u8 = 2;
        [CONTENT_ALERT, 3, 1, 0, 2, FATAL, self as u8]
    }
}

/// Writes one fatal alert and closes our side. Errors are ignored: the client may be gone, and that is as good.
///
/// What the client still sends is read for a moment, since a socket that is closed over unread bytes is reset and the
/// alert would be lost with it (RFC 1122 section 4.2.2.13).
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, alert: Alert) {
    const LINGER: Duration = Duration::from_millis(500);
    const MOST: u64 = 256 * 1024;
    let _ = tokio::time::timeout(LINGER, async {
        stream.write_all(&alert.record()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MOST), &mut tokio::io::sink()).await
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_refused_client_reads_one_fatal_alert_and_then_the_end() {
        let (mut far, mut near) = tokio::io::duplex(1024);
        let client = tokio::spawn(async move {
            far.write_all(b"\x16\x03\x01 whatever the client still sends").await.unwrap();
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.unwrap();
            read
        });
        refuse(&mut near, Alert::AccessDenied).await;
        assert_eq!(client.await.unwrap(), [21, 3, 1, 0, 2, 2, 49]);
    }
}
