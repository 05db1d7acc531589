//! What a body on its way to the client does to its call, and what the client gets of it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use http_body_util::BodyExt as _;

use super::*;
use crate::credentials::Masker;
use crate::http::book::Book;
use crate::http::unpack::Coding;
use crate::http::unpack::tests::{ALL, packed};
use crate::limits::Pass;

/// A body that gives these frames; one that ends with an error breaks there.
struct Script(VecDeque<Result<&'static str, &'static str>>, bool);

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let next = self.0.pop_front();
        Poll::Ready(next.map(|next| next.map(|text| Frame::data(text.into())).map_err(io::Error::other)))
    }

    fn is_end_stream(&self) -> bool {
        self.1 && self.0.is_empty()
    }
}

fn reply(book: &Book, frames: &[Result<&'static str, &'static str>], sized: bool) -> ReplyBody<Script> {
    let mut account = Account::open(book.receipt(), Arc::default(), Pass::default());
    account.answered(http::StatusCode::OK);
    ReplyBody::stream(Script(frames.iter().copied().collect(), sized), account, Lapse::never(), None, None)
}

#[tokio::test]
async fn the_end_of_a_body_completes_its_call_once() {
    let book = Book::new();
    let whole = reply(&book, &[Ok("abc"), Ok("de")], false).collect().await.unwrap();
    assert_eq!(whole.to_bytes(), "abcde");
    let outcomes = book.outcomes().await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!((outcomes[0].status, outcomes[0].bytes_received), (Some(200), 5));
    assert_eq!(outcomes[0].error, None);
}

/// A response of a secret that is sent back in pieces, and again in its trailers.
async fn reflected(bodies: bool) -> (Bytes, http::HeaderMap, bool) {
    let book = Book::new();
    let mut account = Account::open(book.receipt(), Arc::default(), Pass::default());
    account.answered(http::StatusCode::OK);
    let inject = crate::credentials::Inject::bearer();
    let attachment = crate::credentials::Attachment::of_token(inject, b"rk_live_0123456789");
    let masker = Masker::new(Arc::clone(attachment.needles().unwrap()), bodies);
    let cover = Cover { masker, unpacker: None };
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-message", "no rk_live_0123456789".parse().unwrap());
    let data = |text: &'static str| Ok::<_, io::Error>(Frame::data(Bytes::from_static(text.as_bytes())));
    let frames = [data("a rk_live_01"), data("23456789 b rk_live_"), Ok(Frame::trailers(trailers))];
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
    let whole = ReplyBody::stream(body, account, Lapse::never(), Some(cover), None).collect().await.unwrap();
    let trailers = whole.trailers().cloned().unwrap();
    let outcomes = book.outcomes().await;
    assert_eq!(outcomes.len(), 1);
    (whole.to_bytes(), trailers, outcomes[0].reflected)
}

#[tokio::test]
async fn what_is_held_back_comes_before_the_trailers_and_these_are_covered_of_every_body() {
    let (body, trailers, found) = reflected(true).await;
    assert_eq!((&body[..], found), (&b"a ****************** b rk_live_"[..], true));
    assert_eq!(trailers["grpc-message"], "no ******************");
    let (body, trailers, found) = reflected(false).await;
    assert_eq!((&body[..], found), (&b"a rk_live_0123456789 b rk_live_"[..], true));
    assert_eq!(trailers["grpc-message"], "no ******************");
}

#[tokio::test]
async fn a_body_of_known_length_that_is_dropped_after_its_last_byte_was_whole() {
    let book = Book::new();
    let mut body = reply(&book, &[Ok("abc")], true);
    body.frame().await.unwrap().unwrap();
    drop(body);
    let outcomes = book.outcomes().await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].error, None);
}

#[tokio::test]
async fn a_body_that_is_dropped_early_blames_the_client() {
    let book = Book::new();
    let mut body = reply(&book, &[Ok("abc"), Ok("de")], true);
    body.frame().await.unwrap().unwrap();
    drop(body);
    let outcomes = book.outcomes().await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].blame, Some(Blame::Client));
    assert!(outcomes[0].error.as_deref().unwrap().contains("before the end of the response"));
    assert_eq!(outcomes[0].bytes_received, 3);
}

#[tokio::test]
async fn a_body_that_breaks_blames_the_upstream() {
    let book = Book::new();
    let result = reply(&book, &[Ok("abc"), Err("reset")], false).collect().await;
    assert!(result.is_err(), "the client must see that it is not whole");
    let outcomes = book.outcomes().await;
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].blame, Some(Blame::Upstream));
    assert!(outcomes[0].error.as_deref().unwrap().contains("reset"));
}

const SECRET: &str = "rk_live_0123456789";

type Frames = Vec<io::Result<Frame<Bytes>>>;

fn data(bytes: &[u8]) -> io::Result<Frame<Bytes>> {
    Ok(Frame::data(Bytes::copy_from_slice(bytes)))
}

/// The answer to a call with [`SECRET`], packed so, which may give nothing for a while.
fn packed_reply<B: Body<Data = Bytes, Error = io::Error> + Unpin>(
    book: &Book,
    coding: Coding,
    body: B,
) -> ReplyBody<B> {
    let mut account = Account::open(book.receipt(), Arc::default(), Pass::default());
    account.answered(http::StatusCode::OK);
    let attachment =
        crate::credentials::Attachment::of_token(crate::credentials::Inject::bearer(), SECRET.as_bytes());
    let masker = Masker::new(Arc::clone(attachment.needles().unwrap()), true);
    let cover = Cover { masker, unpacker: Some(Unpacker::new(&[coding])) };
    ReplyBody::stream(body, account, Lapse::never(), Some(cover), None)
}

fn of(frames: Frames) -> impl Body<Data = Bytes, Error = io::Error> + Unpin {
    http_body_util::StreamBody::new(futures_util::stream::iter(frames))
}

#[tokio::test]
async fn a_secret_in_a_packed_answer_is_covered_wherever_its_pieces_end() {
    let text = format!("before {SECRET} between {SECRET}");
    let covered = text.replace(SECRET, &"*".repeat(SECRET.len()));
    for coding in ALL {
        let whole = packed(coding, &[text.as_bytes()]).concat();
        let book = Book::new();
        for cut in 0..=whole.len() {
            let frames = vec![data(&whole[..cut]), data(&whole[cut..])];
            let body = packed_reply(&book, coding, of(frames)).collect().await.unwrap().to_bytes();
            assert!(
                !body.windows(SECRET.len() - 3).any(|it| it == &SECRET.as_bytes()[3..]),
                "{coding} {cut}"
            );
            assert_eq!(body.len(), covered.len());
        }
        let outcomes = book.outcomes().await;
        assert_eq!(outcomes.len(), whole.len() + 1);
        assert!(outcomes.iter().all(|it| it.reflected && it.error.is_none()));
        assert!(outcomes.iter().all(|it| it.bytes_received == whole.len() as u64), "as they came");
        // Cut by the flushes of the server, anywhere in the secret.
        for cut in 0..=text.len() {
            let parts = packed(coding, &[&text.as_bytes()[..cut], &text.as_bytes()[cut..]]);
            let frames = parts.iter().map(|part| data(part)).collect();
            let body = packed_reply(&book, coding, of(frames)).collect().await.unwrap().to_bytes();
            assert!(
                !body.windows(SECRET.len() - 3).any(|it| it == &SECRET.as_bytes()[3..]),
                "{coding} {cut}"
            );
            assert_eq!(body.len(), covered.len());
        }
    }
}

#[tokio::test]
async fn the_events_of_a_packed_stream_go_on_one_by_one_as_they_come() {
    let events = ["data: one\n\n", "data: rk_live_0123456789\n\n", "data: three\n\n"];
    for coding in ALL {
        let book = Book::new();
        let parts = packed(coding, &events.map(str::as_bytes));
        let (give, taken) = given(parts.len());
        let mut reply = packed_reply(&book, coding, taken);
        for (event, part) in events.iter().zip(&parts) {
            give.send(data(part)).await.unwrap();
            let piece = reply.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(piece, event.replace(SECRET, &"*".repeat(SECRET.len())), "{coding}");
            let nothing =
                std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut reply).poll_frame(cx).is_pending()));
            assert!(nothing.await, "{coding}: nothing more until more comes");
        }
        give.send(data(parts.last().unwrap())).await.unwrap();
        drop(give);
        assert!(reply.frame().await.is_none());
        assert_eq!(book.outcomes().await[0].error, None);
    }
}

/// A body of what is sent, when it is sent.
fn given(
    room: usize,
) -> (tokio::sync::mpsc::Sender<io::Result<Frame<Bytes>>>, impl Body<Data = Bytes, Error = io::Error> + Unpin)
{
    let (give, mut taken) = tokio::sync::mpsc::channel(room);
    let stream = futures_util::stream::poll_fn(move |cx| taken.poll_recv(cx));
    (give, http_body_util::StreamBody::new(stream))
}

#[tokio::test]
async fn trailers_come_behind_a_packed_body_without_the_digests_of_its_packed_bytes() {
    let book = Book::new();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("content-digest", "sha-256=:x:".parse().unwrap());
    trailers.insert("server-timing", "a;desc=rk_live_0123456789".parse().unwrap());
    let mut frames: Frames = packed(Coding::Gzip, &[b"a rk_live_"]).iter().map(|part| data(part)).collect();
    frames.push(Ok(Frame::trailers(trailers)));
    let whole = packed_reply(&book, Coding::Gzip, of(frames)).collect().await.unwrap();
    let trailers = whole.trailers().cloned().unwrap();
    assert_eq!(whole.to_bytes(), "a rk_live_");
    assert_eq!(
        (trailers.len(), &trailers["server-timing"]),
        (1, &"a;desc=******************".parse().unwrap())
    );
    assert_eq!(book.outcomes().await.len(), 1);
}

#[tokio::test]
async fn a_packed_answer_that_is_damaged_or_short_or_too_long_breaks_off_and_blames_the_upstream() {
    let whole = packed(Coding::Gzip, &[b"some text", b"and more of it"]).concat();
    let mut damaged = whole.clone();
    damaged[12] ^= 0xff;
    let short = whole[..whole.len() - 1].to_vec();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("a", "b".parse().unwrap());
    let frames: [(Frames, &str); 4] = [
        (vec![data(&damaged)], "no sound gzip"),
        (vec![data(&short)], "its gzip is not whole"),
        (vec![data(&short), Ok(Frame::trailers(trailers))], "its gzip is not whole"),
        (vec![data(&whole), data(b"more")], "no sound gzip"),
    ];
    for (frames, why) in frames {
        let book = Book::new();
        let error = packed_reply(&book, Coding::Gzip, of(frames)).collect().await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        let outcomes = book.outcomes().await;
        assert_eq!((outcomes.len(), outcomes[0].blame), (1, Some(Blame::Upstream)));
        let told = outcomes[0].error.as_deref().unwrap();
        assert!(told.contains("cannot be unpacked") && told.contains(why), "{told}");
    }
}

#[tokio::test]
async fn a_packed_body_of_known_length_is_over_with_its_last_piece_and_not_before() {
    let zeros = vec![b'0'; 40_000];
    let whole = packed(Coding::Gzip, &[&zeros]).concat();
    for (take, blame) in [(3, None), (2, Some(Blame::Client))] {
        let book = Book::new();
        let body = http_body_util::Full::new(Bytes::from(whole.clone())).map_err(|never| match never {});
        let mut reply = packed_reply(&book, Coding::Gzip, body);
        assert_eq!(reply.size_hint().exact(), None, "the packed length is not that of what goes on");
        for piece in 0..take {
            assert!(!reply.is_end_stream(), "{piece}");
            reply.frame().await.unwrap().unwrap();
        }
        assert_eq!(reply.is_end_stream(), blame.is_none());
        drop(reply);
        let outcomes = book.outcomes().await;
        assert_eq!((outcomes.len(), outcomes[0].blame), (1, blame));
    }
}

#[tokio::test]
async fn an_upstream_that_sends_much_that_is_nothing_lets_others_have_their_turn() {
    let book = Book::new();
    let nothing = packed(Coding::Gzip, &[b""]).concat();
    let frames: Frames = (0..10 * TURNS).map(|_| data(&nothing)).collect();
    let mut reply = packed_reply(&book, Coding::Gzip, of(frames));
    let mut turns = 0;
    let end = std::future::poll_fn(|cx| {
        turns += 1;
        Pin::new(&mut reply).poll_frame(cx)
    });
    assert!(end.await.is_none());
    assert!(turns >= 10, "{turns}");
}
