//! A body on its way out over a stream, frame by frame as the other side has room for it.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep};

/// What comes in small pieces is put together to so much: with the head of its frame (RFC 9113 §4.1) it fills one record of TLS
/// (RFC 8446 §5.1).
const PIECE: usize = (1 << 14) - 9;

/// A body, and the stream over which it is sent.
#[derive(Debug)]
pub struct Outflow<B: Body> {
    stream: SendStream<Bytes>,
    body: B,
    /// For which there is no room yet.
    held: Option<Bytes>,
    /// What came behind it, and is no piece of it; `None` is the end.
    behind: Option<Option<Result<Frame<Bytes>, B::Error>>>,
    patience: Option<Patience>,
}

/// How long the other side may take nothing. A body that never waits for room costs no timer, and one that does costs one.
#[derive(Debug)]
struct Patience {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// What was sent, and what of it when the timer was set; counted in frames.
    sent: u64,
    seen: u64,
}

impl Patience {
    /// Ready when nothing was sent for as long as the limit says; at most twice as long until that is noticed.
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { limit, timer, sent, seen } = self;
        let timer = timer.get_or_insert_with(|| {
            *seen = *sent;
            Box::pin(sleep(*limit))
        });
        loop {
            ready!(timer.as_mut().poll(cx));
            if seen == sent {
                return Poll::Ready(());
            }
            *seen = *sent;
            timer.as_mut().reset(Instant::now() + *limit);
        }
    }
}

/// Why a body did not get out.
#[derive(Debug)]
pub enum Unsent<E> {
    /// The body broke off. The stream is as it was.
    Body(E),
    /// The other side reset the stream, or the connection ended.
    Stream,
}

// Nothing in it is pinned where it is: the body is not either.
impl<B: Body + Unpin> Unpin for Outflow<B> {}

impl<B: Body> Outflow<B> {
    /// Nothing of it is sent before it is polled.
    #[must_use]
    pub fn new(stream: SendStream<Bytes>, body: B) -> Self {
        Self { stream, body, held: None, behind: None, patience: None }
    }

    /// Resets the stream when the other side takes nothing for `limit`, though there is something for it.
    #[must_use]
    pub fn patient_for(mut self, limit: Duration) -> Self {
        self.patience = Some(Patience { limit, timer: None, sent: 0, seen: 0 });
        self
    }

    /// Whether it waits for room, and not for the body.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The body.
    pub fn body(&mut self) -> &mut B {
        &mut self.body
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        self.stream.send_reset(reason);
    }

    /// Ready when the other side does not take any more, whether or not all of it went out.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx).map(|_| ())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Outflow<B> {
    /// Sends what can be sent; ready when all of it is on its way.
    ///
    /// # Errors
    /// The body broke off, or the stream did.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent<B::Error>>> {
        // Asked first: a body that breaks off because its receiver did is not to blame.
        if self.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Unsent::Stream));
        }
        loop {
            if self.held.is_some() {
                if self.poll_room(cx)?.is_pending() {
                    let Some(patience) = &mut self.patience else { return Poll::Pending };
                    ready!(patience.poll_over(cx));
                    self.reset(Reason::CANCEL);
                    return Poll::Ready(Err(Unsent::Stream));
                }
                if let Some(data) = self.held.take() {
                    let data = self.gather(data, cx);
                    let is_last = self.is_at_end();
                    self.send(data, is_last)?;
                    if is_last {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
            let next = match self.behind.take() {
                Some(next) => next,
                None => ready!(Pin::new(&mut self.body).poll_frame(cx)),
            };
            let Some(frame) = next else {
                self.send(Bytes::new(), true)?;
                return Poll::Ready(Ok(()));
            };
            let frame = frame.map_err(Unsent::Body)?;
            match frame.into_data() {
                Ok(data) => {
                    // What comes last need not wait for room: nothing comes behind it.
                    if self.is_at_end() {
                        self.send(data, true)?;
                        return Poll::Ready(Ok(()));
                    }
                    if data.is_empty() {
                        continue;
                    }
                    // A byte has room for all of it, and more would keep it from others while this one waits.
                    self.stream.reserve_capacity(1);
                    self.held = Some(data);
                }
                Err(frame) => {
                    if let Ok(trailers) = Frame::into_trailers(frame) {
                        self.stream.send_trailers(trailers).map_err(|_| Unsent::Stream)?;
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    /// Whether nothing more comes of the body, as far as is known.
    fn is_at_end(&self) -> bool {
        match &self.behind {
            Some(next) => next.is_none(),
            None => self.body.is_end_stream(),
        }
    }

    /// Puts together with it what is there already and fits. Only of what can be sent at once: what is taken from the body counts as sent.
    fn gather(&mut self, data: Bytes, cx: &mut Context<'_>) -> Bytes {
        let mut whole: Option<BytesMut> = None;
        let mut length = data.len();
        while length < PIECE && !self.body.is_end_stream() {
            let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(cx) else { break };
            match next.map(|next| next.map(Frame::into_data)) {
                Some(Ok(Ok(next))) if length + next.len() <= PIECE => {
                    length += next.len();
                    let begin = || {
                        let mut whole = BytesMut::with_capacity(length);
                        whole.extend_from_slice(&data);
                        whole
                    };
                    whole.get_or_insert_with(begin).extend_from_slice(&next);
                    continue;
                }
                Some(Ok(Ok(next))) => self.behind = Some(Some(Ok(Frame::data(next)))),
                Some(Ok(Err(trailers))) => self.behind = Some(Some(Ok(trailers))),
                Some(Err(error)) => self.behind = Some(Some(Err(error))),
                None => self.behind = Some(None),
            }
            break;
        }
        whole.map_or(data, BytesMut::freeze)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unsent<B::Error>>> {
        while self.stream.capacity() == 0 {
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Unsent::Stream)),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, data: Bytes, is_last: bool) -> Result<(), Unsent<B::Error>> {
        if let Some(patience) = &mut self.patience {
            patience.sent += 1;
        }
        self.stream.send_data(data, is_last).map_err(|_| Unsent::Stream)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http::{HeaderMap, HeaderValue, Request, Response};
    use proptest::prelude::*;

    use super::*;

    /// What a body does when it is asked.
    #[derive(Debug, Clone)]
    enum Step {
        Data(usize),
        /// It has nothing yet.
        Waits,
        Trailers,
        Breaks,
    }

    /// A body that does one after the other, and says at its end that it is there or leaves it to be found out.
    struct Script {
        steps: VecDeque<Step>,
        says_end: bool,
        filled: usize,
        is_over: bool,
    }

    impl Body for Script {
        type Data = Bytes;
        type Error = &'static str;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
            assert!(!self.is_over, "it was asked behind its end");
            Poll::Ready(match self.steps.pop_front() {
                None => {
                    self.is_over = true;
                    None
                }
                Some(Step::Waits) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Data(length)) => {
                    let from = self.filled;
                    self.filled += length;
                    Some(Ok(Frame::data(text(from, length))))
                }
                Some(Step::Breaks) => Some(Err("broken")),
                Some(Step::Trailers) => {
                    let trailers = [(http::header::ETAG, HeaderValue::from_static("x"))];
                    Some(Ok(Frame::trailers(HeaderMap::from_iter(trailers))))
                }
            })
        }

        fn is_end_stream(&self) -> bool {
            self.says_end && self.steps.is_empty()
        }
    }

    fn text(from: usize, length: usize) -> Bytes {
        (from..from + length).map(|at| u8::try_from((at / 251 + at) % 251).unwrap()).collect()
    }

    /// What a client gets of it: the frames of data, and whether there were trailers.
    async fn sent(steps: Vec<Step>, says_end: bool) -> (Vec<Bytes>, bool) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let client = async {
            let (mut sender, connection) = h2::client::handshake(theirs).await.unwrap();
            let driving = tokio::spawn(connection);
            let request = Request::builder().uri("https://api.test/").body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let mut body = response.await.unwrap().into_body();
            let mut frames = Vec::new();
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                frames.push(data);
            }
            let trailers = body.trailers().await.unwrap().is_some();
            drop((sender, body));
            driving.await.unwrap().unwrap();
            (frames, trailers)
        };
        let server = async {
            let mut connection = h2::server::handshake(ours).await.unwrap();
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            let stream = respond.send_response(Response::new(()), false).unwrap();
            let body = Script { steps: steps.into(), says_end, filled: 0, is_over: false };
            let mut out = Outflow::new(stream, body);
            let sending = std::future::poll_fn(|cx| out.poll(cx));
            let (done, none) = tokio::join!(sending, async {
                drop(respond);
                connection.accept().await
            });
            assert!(done.is_ok() && none.is_none());
        };
        tokio::join!(client, server).0
    }

    /// What is left of a body that was asked as long as its client has room for so much, and what came of sending it.
    async fn left(steps: Vec<Step>, window: u32) -> (usize, Poll<bool>, usize) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let mut client = h2::client::Builder::new();
        let (mut sender, connection) = tokio::join!(
            client.initial_window_size(window).handshake::<_, Bytes>(theirs),
            h2::server::handshake(ours)
        );
        let mut connection = connection.unwrap();
        let connection = tokio::spawn(async move {
            let (_, mut respond) = connection.accept().await.unwrap().unwrap();
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
            respond.send_response(Response::new(()), false).unwrap()
        });
        let (sender, driving) = sender.as_mut().unwrap();
        let request = Request::builder().uri("https://api.test/").body(()).unwrap();
        let answered = async {
            let (response, _) = sender.send_request(request, true).unwrap();
            response.await.unwrap().into_body()
        };
        let drive = std::future::poll_fn(|cx| {
            let _ = Pin::new(&mut *driving).poll(cx);
            Poll::<()>::Pending
        });
        let all = async {
            let (stream, mut body) = tokio::join!(connection, answered);
            let body_of = Script { steps: steps.into(), says_end: false, filled: 0, is_over: false };
            let mut out = Outflow::new(stream.unwrap(), body_of);
            let mut came = Poll::Pending;
            for _ in 0..50 {
                came = std::future::poll_fn(|cx| Poll::Ready(out.poll(cx))).await.map(|sent| sent.is_ok());
                if came.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let got = async {
                let got = tokio::time::timeout(Duration::from_millis(200), body.data()).await;
                got.ok().flatten().map_or(0, |data| data.unwrap().len())
            };
            let got = got.await;
            (out.body().steps.len(), came, got)
        };
        tokio::select! {
            all = all => all,
            () = drive => unreachable!(),
        }
    }

    #[test]
    fn of_a_body_for_which_there_is_no_room_no_more_is_taken_than_waits_for_it() {
        use Step::{Data, Trailers};
        let steps = || vec![Data(10), Data(20), Trailers];
        assert_eq!(run(left(steps(), 0)), (2, Poll::Pending, 0));
        assert_eq!(run(left(steps(), 100)), (0, Poll::Ready(true), 30));
    }

    #[test]
    fn what_came_before_a_body_broke_off_is_sent() {
        use Step::{Breaks, Data};
        assert_eq!(run(left(vec![Data(10), Data(20), Breaks], 100)), (0, Poll::Ready(false), 30));
    }

    fn run<R>(future: impl Future<Output = R>) -> R {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn pieces_that_are_there_together_go_together_as_far_as_they_fill_a_record() {
        use Step::{Data, Trailers, Waits};
        let lengths = |steps: &[Step], says_end| {
            let (frames, trailers) = run(sent(steps.to_vec(), says_end));
            // An end that comes late is a frame with nothing in it.
            let lengths = frames.iter().map(Bytes::len).filter(|length| *length > 0);
            (lengths.collect::<Vec<_>>(), trailers)
        };
        for says_end in [true, false] {
            let lengths = |steps: &[Step]| lengths(steps, says_end);
            assert_eq!(lengths(&[Data(5000), Data(5000), Data(5000)]), (vec![15_000], false));
            assert_eq!(lengths(&[Data(8192), Data(8183), Data(1)]), (vec![PIECE, 1], false));
            assert_eq!(lengths(&[Data(8192), Data(8184), Data(1)]), (vec![8192, 8185], false));
            assert_eq!(lengths(&[Data(10), Waits, Data(20), Data(30)]), (vec![10, 50], false), "none waits");
            assert_eq!(lengths(&[Data(10), Data(0), Data(20), Trailers]), (vec![30], true));
            assert_eq!(lengths(&[Data(0), Data(0)]), (vec![], false));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn whatever_the_pieces_are_all_of_them_arrive_in_order_and_what_is_behind_them(
            steps in prop::collection::vec(
                prop_oneof![
                    4 => (0_usize..12_000).prop_map(Step::Data),
                    1 => (PIECE - 2..40_000).prop_map(Step::Data),
                    2 => Just(Step::Waits),
                ],
                0..12,
            ),
            ends_with_trailers in any::<bool>(),
            says_end in any::<bool>(),
        ) {
            let steps: Vec<Step> = steps.into_iter().chain(ends_with_trailers.then_some(Step::Trailers)).collect();
            let length = steps.iter().map(|step| if let Step::Data(length) = step { *length } else { 0 }).sum();
            let (frames, trailers) = run(sent(steps, says_end));
            prop_assert_eq!(frames.concat(), text(0, length));
            prop_assert_eq!(trailers, ends_with_trailers);
        }
    }
}
