//! What a body on its way to the client does to its call, and what the client gets of it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use http_body_util::BodyExt as _;

use super::*;
use crate::credentials::Masker;
use crate::http::book::Book;
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
    ReplyBody::stream(Script(frames.iter().copied().collect(), sized), account, Lapse::never(), None)
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
    let whole = ReplyBody::stream(body, account, Lapse::never(), Some(cover)).collect().await.unwrap();
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
