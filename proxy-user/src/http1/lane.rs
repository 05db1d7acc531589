//! An upstream's connection: one request and its response at a time.
//!
//! A [`Lane`] rests; an [`Exchange`] is a lane with a request on it, and becomes a lane again when both messages are over.

use std::fmt;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderMap};
use http::{Method, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::framing::Message;
use super::head::{self, ResponseHead, Spelling};
use super::inlet::Inlet;
use super::outlet::{Encoding, Outlet};
use super::{Error, Io, Switched};
use crate::sniff::Prefixed;

/// Bytes of a response's head.
const MOST_HEAD: usize = 256 * 1024;
/// How long a server that is asked for 100 has until the body is sent all the same (RFC 9110 §10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);

/// A connection that waits for its next request.
pub struct Lane {
    io: Box<dyn Io>,
    /// It is moved from hand to hand.
    inlet: Box<Inlet>,
    /// Where it leads to.
    addr: SocketAddr,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lane")
    }
}

/// A request, without its body.
#[derive(Debug)]
pub struct Asking<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target, in the form in which it is sent.
    pub target: &'a str,
    /// The fields.
    pub headers: &'a HeaderMap,
    /// How they were spelled.
    pub spelling: Option<&'a Spelling>,
}

impl Lane {
    /// A connection on which nothing was sent yet.
    #[must_use]
    pub fn new(io: impl Io + 'static, addr: SocketAddr) -> Self {
        Self { io: Box::new(io), inlet: Box::new(Inlet::new(Message::Responses)), addr }
    }

    /// Where it leads to.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Whether the server has left it as it was. Asks nobody but the socket, and does not wait.
    pub fn is_open(&mut self) -> bool {
        self.inlet.is_quiet(&mut *self.io)
    }

    /// Begins an exchange; nothing is sent before it is polled.
    #[must_use]
    pub fn send<B: Body<Data = Bytes>>(self, asking: &Asking<'_>, body: B) -> Exchange<B> {
        let encoding = encoding(asking, &body);
        let mut outlet = Outlet::new();
        let out = outlet.begin(encoding);
        head::write_request_line(out, asking.method, asking.target);
        head::write_fields(out, asking.headers, asking.spelling);
        if encoding == Encoding::Chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        } else if let Encoding::Length(length) = encoding
            && !asking.headers.contains_key(CONTENT_LENGTH)
        {
            use std::fmt::Write as _;
            let _ = write!(out, "content-length: {length}\r\n");
        }
        out.extend_from_slice(b"\r\n");
        let waits = encoding != Encoding::None
            && asking
                .headers
                .get(EXPECT)
                .is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let body = (encoding != Encoding::None).then_some(body);
        let waits = waits.then(|| Box::pin(tokio::time::sleep(CONTINUE)));
        let (is_head, Self { io, mut inlet, addr }) = (*asking.method == Method::HEAD, self);
        inlet.begin();
        Exchange {
            io,
            inlet,
            addr,
            outlet,
            body,
            waits,
            is_head,
            broken: None,
            answered: false,
            keep_alive: true,
        }
    }
}

fn encoding(asking: &Asking<'_>, body: &impl Body) -> Encoding {
    let said = asking.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if body.is_end_stream() {
        // One that announces a body and has none is found out at its end.
        return match said {
            None | Some(0) => Encoding::None,
            Some(length) => Encoding::Length(length),
        };
    }
    match said.or_else(|| body.size_hint().exact()) {
        Some(length) => Encoding::Length(length),
        None => Encoding::Chunked,
    }
}

/// A connection with a request on it.
pub struct Exchange<B> {
    io: Box<dyn Io>,
    inlet: Box<Inlet>,
    addr: SocketAddr,
    outlet: Outlet,
    /// What is still to be sent.
    body: Option<B>,
    /// For 100 before the body is sent.
    waits: Option<Pin<Box<Sleep>>>,
    is_head: bool,
    /// Nothing more can be sent; an answer may have come before that.
    broken: Option<io::Error>,
    answered: bool,
    keep_alive: bool,
}

impl<B> fmt::Debug for Exchange<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}

impl<B: Body<Data = Bytes, Error: std::error::Error> + Unpin> Exchange<B> {
    /// Sends on, and waits for the head of the response; `interim` gets the heads of interim ones before it.
    ///
    /// # Errors
    /// The body broke off, or the connection did, or what came is no head.
    pub async fn head(&mut self, mut interim: impl FnMut(ResponseHead)) -> Result<ResponseHead, Error> {
        poll_fn(|cx| self.poll_head(cx, &mut interim)).await
    }

    /// Whether anything of a response came.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answered || !self.inlet.is_empty()
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        interim: &mut impl FnMut(ResponseHead),
    ) -> Poll<Result<ResponseHead, Error>> {
        loop {
            self.drive(cx)?;
            let read = ready!(self.inlet.poll_head(&mut *self.io, cx, MOST_HEAD));
            let Some(head) = read? else {
                return Poll::Ready(Err(self.broken.take().map_or(Error::Incomplete, Error::Io)));
            };
            self.answered = true;
            let head = head::response(&head)?;
            if self.inlet.framing().is_interim() {
                if head.status == StatusCode::CONTINUE {
                    self.waits = None;
                } else {
                    interim(head);
                }
                self.inlet.begin();
                continue;
            }
            let until_close = self.inlet.framing().is_until_close() && !self.is_head;
            self.keep_alive = head.keep_alive && !until_close;
            if self.is_head && head.status != StatusCode::SWITCHING_PROTOCOLS {
                self.inlet.framing().has_no_body();
            }
            if self.waits.take().is_some() {
                // It is answered without the body, which the client need not send any more.
                self.body = None;
                self.keep_alive = false;
            }
            return Poll::Ready(Ok(head));
        }
    }

    /// Sends what can be sent now. That the server does not take more is no error: it may have answered.
    fn drive(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.broken.is_some() || (self.body.is_none() && self.outlet.is_flushed()) {
            return Ok(());
        }
        match self.poll_send(cx) {
            Poll::Ready(Err(Error::Io(error))) => {
                self.broken = Some(error);
                self.body = None;
                Ok(())
            }
            Poll::Ready(sent) => sent,
            Poll::Pending => Ok(()),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            if self.body.is_none() || !self.outlet.has_room() {
                ready!(self.outlet.poll_write(&mut *self.io, cx))?;
            }
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
            if let Some(waits) = &mut self.waits {
                if waits.as_mut().poll(cx).is_pending() {
                    ready!(self.outlet.poll_write(&mut *self.io, cx))?;
                    return Poll::Pending;
                }
                self.waits = None;
            }
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => {
                    ready!(self.outlet.poll_write(&mut *self.io, cx))?;
                    return Poll::Pending;
                }
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(Error::Body(error.to_string())));
                }
                Poll::Ready(None) => {
                    self.outlet.end(None)?;
                    self.body = None;
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        let is_last = body.is_end_stream();
                        self.outlet.data(data)?;
                        if is_last {
                            self.outlet.end(None)?;
                            self.body = None;
                        }
                    }
                    Err(frame) => {
                        self.outlet.end(frame.trailers_ref())?;
                        self.body = None;
                    }
                },
            }
        }
    }

    /// The next frame of the response; nothing at its end.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Error>> {
        self.drive(cx)?;
        self.inlet.poll_body(&mut *self.io, cx)
    }
}

impl<B> Exchange<B> {
    /// Whether the response is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.inlet.is_over()
    }

    /// Bytes that are still to come, where that is known.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.inlet.size_hint()
    }

    /// The lane for another request, when both messages are over and the server keeps it.
    #[must_use]
    pub fn finish(self) -> Option<Lane> {
        let is_over = self.inlet.is_over() && self.body.is_none() && self.outlet.is_flushed();
        let is_kept = self.keep_alive && self.broken.is_none();
        let is_kept = is_kept && self.inlet.is_empty() && !self.inlet.is_ended();
        (is_over && is_kept).then_some(Lane { io: self.io, inlet: self.inlet, addr: self.addr })
    }

    /// The stream, after 101.
    #[must_use]
    pub fn into_switched(mut self) -> Switched {
        Box::new(Prefixed::new(self.inlet.take_rest(), self.io))
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
