//! The stream of a client's request, on which it is answered: any number of interim answers, then one.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::{HeaderMap, Response, StatusCode};

struct Stream {
    respond: SendResponse<Bytes>,
    /// The h2 crate would send an interim answer behind the one that it is for.
    is_answered: bool,
    /// Nobody takes the rest of the request.
    is_left: bool,
}

/// The answering side of a stream.
pub struct Answering(Arc<Mutex<Stream>>);

/// Where interim answers (RFC 9110 §15.2) go.
#[derive(Clone)]
pub struct Interims(Arc<Mutex<Stream>>);

fn lock(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Answering {
    /// Of a request that just came.
    #[must_use]
    pub fn new(respond: SendResponse<Bytes>) -> Self {
        Self(Arc::new(Mutex::new(Stream { respond, is_answered: false, is_left: false })))
    }

    /// Where interim answers go.
    #[must_use]
    pub fn interims(&self) -> Interims {
        Interims(Arc::clone(&self.0))
    }

    /// Ready when the client does not wait for the answer any more.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        lock(&self.0).respond.poll_reset(cx).map(|_| ())
    }

    /// Answers; `ended`: there is no body.
    ///
    /// # Errors
    /// The stream is gone, or a field is none of HTTP/2.
    pub fn answer(&self, head: Response<()>, ended: bool) -> Result<SendStream<Bytes>, h2::Error> {
        let mut stream = lock(&self.0);
        stream.is_answered = true;
        stream.respond.send_response(head, ended)
    }

    /// Whether the client has more of its request to send, and nobody takes it.
    #[must_use]
    pub fn is_left(&self) -> bool {
        lock(&self.0).is_left
    }

    /// Resets the stream.
    pub fn reset(&self, reason: Reason) {
        lock(&self.0).respond.send_reset(reason);
    }
}

impl Interims {
    /// Sends one, unless the answer went before it. That the stream is gone is found out by whoever answers.
    pub fn send(&self, status: StatusCode, headers: HeaderMap) {
        let mut head = Response::new(());
        *head.status_mut() = status;
        *head.headers_mut() = headers;
        let mut stream = lock(&self.0);
        if !stream.is_answered {
            let _ = stream.respond.send_informational(head);
        }
    }
}

impl Interims {
    /// Notes that nobody takes the rest of the request.
    pub(super) fn leave(&self) {
        lock(&self.0).is_left = true;
    }
}

impl fmt::Debug for Interims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Interims")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_interim_is_sent_behind_the_answer() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let client = async {
            let (mut sender, connection) = h2::client::handshake(theirs).await.unwrap();
            let driving = tokio::spawn(connection);
            let request = http::Request::builder().uri("https://api.test/").body(()).unwrap();
            let (mut response, _) = sender.send_request(request, true).unwrap();
            let mut before = Vec::new();
            while let Some(head) = std::future::poll_fn(|cx| response.poll_informational(cx)).await {
                before.push(head.unwrap().status());
            }
            let mut body = response.await.unwrap().into_body();
            let mut all = Vec::new();
            while let Some(data) = body.data().await {
                all.extend(data.unwrap());
            }
            let trailers = body.trailers().await.unwrap();
            drop((sender, body));
            driving.await.unwrap().unwrap();
            (before, all, trailers)
        };
        let server = async {
            let mut connection = h2::server::handshake(ours).await.unwrap();
            let (_, respond) = connection.accept().await.unwrap().unwrap();
            let answering = Answering::new(respond);
            let interims = answering.interims();
            interims.send(StatusCode::EARLY_HINTS, HeaderMap::new());
            let mut stream = answering.answer(Response::new(()), false).unwrap();
            interims.send(StatusCode::CONTINUE, HeaderMap::new());
            stream.send_data(Bytes::from_static(b"whole"), true).unwrap();
            drop((stream, answering, interims));
            assert!(connection.accept().await.is_none());
        };
        let ((before, all, trailers), ()) = tokio::join!(client, server);
        assert_eq!((before, &all[..], trailers), (vec![StatusCode::EARLY_HINTS], &b"whole"[..], None));
    }
}
