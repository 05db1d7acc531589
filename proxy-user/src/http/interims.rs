//! Interim answers (1xx, RFC 9110 §15.2) on their way to the client: without what concerns the upstream's hop, looked through for the
//! secret as the answer is, and not without end.

use std::sync::Arc;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, TRAILER};
use proxy_policy::Mask;

use super::body::Transfer;
use super::{hop, reflect};
use crate::credentials::Needles;
use crate::http1::{self, Wire};
use crate::http2;

/// Bytes of all of them that are sent for one request.
const MOST: usize = 64 * 1024;

/// How a client is sent one.
#[derive(Clone, Debug)]
pub enum Client {
    /// It cannot be: HTTP/1.0 has none.
    Deaf,
    /// Over HTTP/1.1.
    Http1(http1::Interims),
    /// Over HTTP/2.
    Http2(http2::Interims),
}

/// Where those of one call go.
#[derive(Debug)]
pub struct Interims {
    client: Client,
    /// What is looked for in them.
    needles: Option<Arc<Needles>>,
    transfer: Arc<Transfer>,
    /// Bytes that may still be sent.
    left: usize,
}

impl Interims {
    /// To this client; with a credential, of which `needles` are looked for as `mask` says.
    #[must_use]
    pub fn new(client: Client, needles: Option<Arc<Needles>>, mask: Mask, transfer: Arc<Transfer>) -> Self {
        let needles = needles.filter(|_| mask != Mask::Off);
        Self { client, needles, transfer, left: MOST }
    }

    /// Sends one. Those of which the client is not the one that it is for (100, RFC 9110 §10.1.1) and those that are too much are left
    /// out.
    pub fn send(&mut self, status: StatusCode, headers: HeaderMap, mut wire: Wire) {
        if matches!(self.client, Client::Deaf) || is_for_us(status) {
            return;
        }
        let mut headers = hop::strip_response(headers, false);
        // It has no body (RFC 9110 §15.2).
        if headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRAILER) {
            headers = hop::without(&headers, |name| *name == CONTENT_LENGTH || *name == TRAILER);
        }
        if let Some(needles) = &self.needles
            && reflect::cover_head(needles, &mut headers, &mut wire)
        {
            self.transfer.note_reflected();
        }
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        let Some(left) = self.left.checked_sub(size) else { return };
        self.left = left;
        match &self.client {
            Client::Deaf => {}
            Client::Http1(client) => {
                client.send(status, &headers, &wire);
            }
            Client::Http2(client) => client.send(status, headers),
        }
    }
}

/// 100 says that we may send the body; when the client may, we say ourselves. 101 is none of them.
fn is_for_us(status: StatusCode) -> bool {
    matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) || !status.is_informational()
}
