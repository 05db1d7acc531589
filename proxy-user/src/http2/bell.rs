//! All streams of a connection in one task: who rings while they are looked at has them looked at once more, and no task is woken for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::task::coop;

/// Somebody rang.
const RUNG: u8 = 1;
/// The streams are looked at.
const BUSY: u8 = 2;
/// How often they are looked at before other tasks have their turn.
const ROUNDS: usize = 16;

/// What the streams of a connection, and the connection, wake.
#[derive(Debug)]
pub struct Bell {
    inner: Arc<Inner>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Inner {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(RUNG, Ordering::AcqRel) & BUSY == 0 {
            self.task.wake();
        }
    }
}

impl Bell {
    /// One that nobody has rung.
    #[must_use]
    pub fn new() -> Self {
        let inner = Arc::<Inner>::default();
        let waker = Waker::from(Arc::clone(&inner));
        Self { inner, waker }
    }

    /// Looks until nobody has rung any more, or `look` is ready.
    pub fn attend<R>(
        &self,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut Context<'_>) -> Poll<R>,
    ) -> Poll<R> {
        let Inner { state, task } = &*self.inner;
        task.register(cx.waker());
        let mut inner = Context::from_waker(&self.waker);
        for _ in 0..ROUNDS {
            state.store(BUSY, Ordering::Release);
            let looked = look(&mut inner);
            if looked.is_ready() {
                state.store(0, Ordering::Release);
                return looked;
            }
            let rests = state.compare_exchange(BUSY, 0, Ordering::AcqRel, Ordering::Acquire);
            if rests.is_ok() {
                return Poll::Pending;
            }
            // What is behind would be told to wait whatever it has.
            if !coop::has_budget_remaining() {
                break;
            }
        }
        state.store(0, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn who_rings_while_it_is_looked_wakes_no_task_and_who_rings_later_does() {
        let (bell, task) = (Bell::new(), Arc::new(Task::default()));
        let waker = Waker::from(Arc::clone(&task));
        let mut cx = Context::from_waker(&waker);
        let mut looks = 0;
        let mut kept = None;
        let attended = bell.attend(&mut cx, |cx| {
            looks += 1;
            if looks < 3 {
                cx.waker().wake_by_ref();
            }
            kept = Some(cx.waker().clone());
            Poll::<()>::Pending
        });
        assert_eq!((attended, looks, task.0.load(Ordering::SeqCst)), (Poll::Pending, 3, 0));
        kept.unwrap().wake();
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn who_rings_without_end_leaves_others_their_turn_and_is_not_forgotten() {
        let (bell, task) = (Bell::new(), Arc::new(Task::default()));
        let waker = Waker::from(Arc::clone(&task));
        let mut looks = 0;
        let attended = bell.attend(&mut Context::from_waker(&waker), |cx| {
            looks += 1;
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert_eq!((attended, looks, task.0.load(Ordering::SeqCst)), (Poll::Pending, ROUNDS, 1));
    }
}
