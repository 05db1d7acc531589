//! One body on its way to its file: what the call holds, and what it shares with the thread that writes.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proxy_journal::{CaptureEnd, Outcome};

use super::captures::Work;
use super::receipt::Receipt;

/// What waits to be written of one body, in bytes, before no more of it is taken.
const ROOM: usize = 256 << 10;

/// Names a body between the call and the thread.
pub(super) type Key = u64;

/// The captures of one call: what it asked for, opened before anything of it goes on.
#[derive(Debug)]
pub struct Captures {
    /// Of its request, when it has a body.
    pub request: Option<Capture>,
    /// Of its answer.
    pub response: Capture,
    /// Through which the outcome goes.
    pub ending: Ending,
}

/// One body that is kept. Dropped before its end, it is kept as far as it came.
#[derive(Debug)]
pub struct Capture {
    work: Sender<Work>,
    key: Key,
    flow: Arc<Flow>,
    /// How much of it is still to be kept.
    left: u64,
    ended: bool,
}

/// Why a body cannot be kept, in words.
#[derive(Debug, Clone, thiserror::Error)]
#[error("a body that must be kept for auditors cannot be: {0}")]
pub struct NotKept(pub Arc<str>);

impl Capture {
    pub(super) fn new(work: Sender<Work>, key: Key, flow: Arc<Flow>, most: u64) -> Capture {
        Capture { work, key, flow, left: most, ended: false }
    }

    /// Waits until there is room for more: a body does not run away from the disk.
    ///
    /// # Errors
    /// What came before could not be written.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotKept>> {
        self.flow.poll(cx, |state| self.ended || state.waiting < ROOM)
    }

    /// Takes what passes. What is over the limit is not kept.
    pub fn push(&mut self, data: &Bytes) {
        if self.ended || data.is_empty() {
            return;
        }
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let kept = usize::try_from(length.min(self.left)).unwrap_or(data.len());
        if kept > 0 {
            self.left -= u64::try_from(kept).unwrap_or(u64::MAX);
            self.flow.lock().waiting += kept;
            self.tell(Work::Data { key: self.key, data: data.slice(..kept) });
        }
        if length > u64::try_from(kept).unwrap_or(u64::MAX) {
            self.end(CaptureEnd::Limit);
        }
    }

    /// Ends it, and waits until its file is what it will be.
    ///
    /// # Errors
    /// It could not be written.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotKept>> {
        self.end(CaptureEnd::Whole);
        self.flow.poll(cx, |state| state.done)
    }

    fn end(&mut self, end: CaptureEnd) {
        if !self.ended {
            self.ended = true;
            self.tell(Work::End { key: self.key, end });
        }
    }

    fn tell(&self, work: Work) {
        if self.work.send(work).is_err() {
            self.flow.fail("the thread that writes them has ended".into());
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end(CaptureEnd::Broken);
    }
}

/// Takes the outcome of a call along, so that it names what was kept.
#[derive(Debug)]
pub struct Ending {
    work: Sender<Work>,
    keys: Vec<Key>,
}

impl Ending {
    pub(super) fn new(work: Sender<Work>, keys: Vec<Key>) -> Ending {
        Ending { work, keys }
    }

    /// Records the outcome when what was kept is written.
    pub fn complete(mut self, receipt: Receipt, outcome: Outcome) {
        let keys = std::mem::take(&mut self.keys);
        let work = Work::Complete { keys, receipt, outcome: Box::new(outcome) };
        if let Err(std::sync::mpsc::SendError(Work::Complete { receipt, outcome, .. })) = self.work.send(work)
        {
            receipt.complete(*outcome);
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.keys.is_empty() {
            let _ = self.work.send(Work::Forget { keys: std::mem::take(&mut self.keys) });
        }
    }
}

/// How far the writing of a body is.
#[derive(Debug, Default)]
pub(super) struct Flow(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Bytes that are on their way to the thread.
    waiting: usize,
    /// Its file is what it will be.
    done: bool,
    failed: Option<Arc<str>>,
    waker: Option<Waker>,
}

impl Flow {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn poll(&self, cx: &mut Context<'_>, ready: impl Fn(&State) -> bool) -> Poll<Result<(), NotKept>> {
        let mut state = self.lock();
        if let Some(why) = &state.failed {
            return Poll::Ready(Err(NotKept(Arc::clone(why))));
        }
        if ready(&state) {
            return Poll::Ready(Ok(()));
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn change(&self, how: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        how(&mut state);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn written(&self, bytes: usize) {
        self.change(|state| state.waiting = state.waiting.saturating_sub(bytes));
    }

    pub(super) fn done(&self) {
        self.change(|state| state.done = true);
    }

    pub(super) fn fail(&self, why: Arc<str>) {
        self.change(|state| state.failed = Some(why));
    }
}
