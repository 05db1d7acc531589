//! A connection to an upstream, which many requests share. It is driven by a task of its own and ends with its last handle.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong};
use http::Request;
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep};

use super::gathered::{Gathered, Turn};
use super::{CONNECTION_WINDOW, Exchange, Outflow, STREAM_WINDOW};

/// Pings find a connection whose server went away without a word, while requests wait on it.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Requests at a time, before the server has said how many it takes.
const FIRST_STREAMS: usize = 100;
/// Bytes of the header of a response.
const MOST_HEADER: u32 = 256 * 1024;
/// Bytes that one request may have waiting to be written.
const MAX_SEND_BUFFER: usize = 1024 * 1024;

/// A handle.
#[derive(Clone, Debug)]
pub struct Shared {
    sender: SendRequest<Bytes>,
    underway: Arc<AtomicUsize>,
}

/// A request that is under way, until this is dropped.
#[derive(Debug)]
pub(super) struct Underway(Arc<AtomicUsize>);

impl Underway {
    fn count(all: &Arc<AtomicUsize>) -> Self {
        all.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(all))
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It broke, or a side broke the rules.
    #[error(transparent)]
    Broken(#[from] h2::Error),
    /// Nothing came, not even the answer to a ping.
    #[error("the server does not answer pings")]
    Silent,
}

impl Shared {
    /// Begins HTTP/2 on a stream: a handle, and what must be driven for it.
    ///
    /// # Errors
    /// The stream broke.
    pub async fn open<S>(
        stream: S,
    ) -> Result<(Self, impl Future<Output = Result<(), Ended>> + Send + use<S>), h2::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (heard, underway) = (Arc::<AtomicU64>::default(), Arc::<AtomicUsize>::default());
        let stream = Gathered::new(Heard { inner: stream, reads: Arc::clone(&heard) });
        let turn = stream.turn();
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(FIRST_STREAMS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(MAX_SEND_BUFFER)
            .max_header_list_size(MOST_HEADER)
            .handshake(stream)
            .await?;
        let driving = drive(connection, turn, heard, Arc::clone(&underway));
        Ok((Self { sender, underway }, driving))
    }

    /// Why it takes no more requests, if it does not.
    pub fn closed(&mut self) -> Option<h2::Error> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.sender.poll_ready(&mut cx) {
            Poll::Ready(ready) => ready.err(),
            Poll::Pending => None,
        }
    }

    /// Sends a request; `waits`: its body is sent when the server asks for it by 100, or after a while.
    ///
    /// # Errors
    /// Nothing was sent: the connection is at its end, or has no stream left.
    pub fn begin<B: Body<Data = Bytes> + Unpin>(
        &mut self,
        head: Request<()>,
        body: B,
        waits: bool,
    ) -> Result<Exchange<B>, h2::Error> {
        let is_ended = body.is_end_stream();
        let (response, stream) = self.sender.send_request(head, is_ended)?;
        let out = (!is_ended).then(|| Outflow::new(stream, body));
        Ok(Exchange::new(response, out, waits, Underway::count(&self.underway)))
    }
}

/// Drives a connection to its end. It is asked whether it lives when requests wait and nothing comes.
async fn drive<S>(
    mut connection: Connection<Gathered<Heard<S>>, Bytes>,
    turn: Turn,
    heard: Arc<AtomicU64>,
    underway: Arc<AtomicUsize>,
) -> Result<(), Ended>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut pings = connection.ping_pong();
    let mut timer = pin!(sleep(PING_INTERVAL));
    let mut before = heard.load(Ordering::Relaxed);
    let mut is_asked = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(ended.map_err(Ended::from));
            }
            // Once more, for what it has put together.
            if turn.is_open() {
                continue;
            }
            if is_asked && is_answered(pings.as_mut(), cx) {
                is_asked = false;
                timer.as_mut().reset(Instant::now() + PING_INTERVAL);
            }
            ready!(timer.as_mut().poll(cx));
            if is_asked {
                return Poll::Ready(Err(Ended::Silent));
            }
            let now = heard.load(Ordering::Relaxed);
            let is_quiet = std::mem::replace(&mut before, now) == now;
            let mut next = PING_INTERVAL;
            if is_quiet && underway.load(Ordering::Relaxed) > 0 {
                is_asked = pings.as_mut().is_some_and(|pings| pings.send_ping(Ping::opaque()).is_ok());
                next = if is_asked { PING_TIMEOUT } else { PING_INTERVAL };
            }
            timer.as_mut().reset(Instant::now() + next);
        }
    })
    .await
}

/// Whether the answer to a ping is here. One that cannot come any more is: the connection says why.
fn is_answered(pings: Option<&mut PingPong>, cx: &mut Context<'_>) -> bool {
    pings.is_none_or(|pings| pings.poll_pong(cx).is_ready())
}

/// A stream of which it is noticed that something comes.
struct Heard<S> {
    inner: S,
    reads: Arc<AtomicU64>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PING: u8 = 6;

    /// How a connection ended within an hour, and what pings its server got, which answers only that it has settings.
    async fn quiet(with_request: bool, mut frame_every: Option<Duration>) -> (Option<Ended>, usize) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let (mut shared, driving) = Shared::open(ours).await.unwrap();
        let head = Request::builder().uri("https://api.test/").body(()).unwrap();
        let exchange = with_request.then(|| shared.begin(head, Empty::<Bytes>::new(), false).unwrap());
        let server = async {
            theirs.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            theirs.read_exact(&mut [0; 24]).await.unwrap();
            let mut pings = 0;
            let mut frame = [0; 9];
            loop {
                let wait = frame_every.unwrap_or(Duration::from_secs(10_000));
                match tokio::time::timeout(wait, theirs.read_exact(&mut frame)).await {
                    // A frame that nobody knows.
                    Err(_) => theirs.write_all(&[0, 0, 0, 0xfa, 0, 0, 0, 0, 0]).await.unwrap(),
                    Ok(Err(_)) => break,
                    Ok(Ok(_)) => {
                        let mut payload = vec![0; usize::from(u16::from_be_bytes([frame[1], frame[2]]))];
                        theirs.read_exact(&mut payload).await.unwrap();
                        if frame[3] == PING {
                            pings += 1;
                            frame_every = None;
                        }
                    }
                }
            }
            pings
        };
        let ended = async {
            let ended = tokio::time::timeout(Duration::from_secs(3600), driving).await;
            drop(exchange);
            ended.ok().and_then(Result::err)
        };
        tokio::join!(ended, server)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_asked_once_while_requests_wait_and_then_given_up() {
        let (ended, pings) = quiet(true, None).await;
        assert!(matches!(ended, Some(Ended::Silent)) && pings == 1, "{ended:?} after {pings}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_of_whom_nobody_wants_anything_or_who_speaks_is_not_asked() {
        let (ended, pings) = quiet(false, None).await;
        assert!(ended.is_none() && pings == 0, "{ended:?} after {pings}");
        let (ended, pings) = quiet(true, Some(Duration::from_secs(20))).await;
        assert!(ended.is_none() && pings == 0, "{ended:?} after {pings}");
    }
}
