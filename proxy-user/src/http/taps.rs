//! Bodies that are kept for auditors, as they pass: what has passed is in its file before the end of it goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use super::body::length;
use crate::record::{Capture, NotKept};

/// A request's body, however often it is sent: what was kept once is not kept again.
#[derive(Debug, Clone)]
pub struct RequestTap(Arc<Mutex<Kept>>);

#[derive(Debug)]
struct Kept {
    capture: Capture,
    /// Bytes that came by.
    bytes: u64,
}

impl RequestTap {
    /// Keeps it here.
    #[must_use]
    pub fn new(capture: Capture) -> Self {
        Self(Arc::new(Mutex::new(Kept { capture, bytes: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what stands at this place of the body, as far as that did not come by before.
    pub fn push(&self, at: u64, data: &Bytes) {
        let mut kept = self.lock();
        let known = usize::try_from(kept.bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        if let Some(fresh) = (known < data.len()).then(|| data.slice(known..)) {
            kept.bytes += length(&fresh);
            kept.capture.push(&fresh);
        }
    }

    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), NotKept>> {
        self.lock().capture.poll_room(cx)
    }

    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<(), NotKept>> {
        self.lock().capture.poll_end(cx)
    }
}

/// What waits until all before it is kept.
#[derive(Debug, Default)]
pub(super) enum Held {
    /// Nothing.
    #[default]
    Nothing,
    /// The last frame.
    Frame(Frame<Bytes>),
    /// That there is no more.
    End,
}

impl Held {
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// What was held, to go on.
    pub(super) fn take(&mut self) -> Option<Frame<Bytes>> {
        match std::mem::take(self) {
            Self::Frame(frame) => Some(frame),
            Self::Nothing | Self::End => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use age::x25519::Identity;

    use super::*;
    use crate::record::tests::captures::{begin, keeping, kept_of, read};
    use crate::record::tests::{dir, ok};
    use crate::record::{Captures, Recorder};

    #[test]
    fn what_is_sent_again_is_kept_once_from_the_place_on_where_it_broke_off() {
        let (_keep, dir) = dir();
        let auditor = Identity::generate();
        let recorder = Recorder::open(&dir, keeping(&auditor)).unwrap();
        let (receipt, Captures { request, response, ending }) = begin(&recorder, 100, true);
        let tap = RequestTap::new(request.unwrap());
        for (at, data) in [(0, "once"), (4, " and"), (0, "once"), (4, " and for"), (12, " all")] {
            tap.push(at, &Bytes::from_static(data.as_bytes()));
        }
        drop((tap, response));
        ending.complete(receipt, ok());
        recorder.stop("test").unwrap();
        let outcome = kept_of(&dir).pop().unwrap();
        assert_eq!(read(&dir, &outcome.captures[0], &auditor), b"once and for all");
    }
}
