//! All streams of a connection in one task: who rings while they are looked at is looked at once more, and no task is woken for it. What
//! the streams send in one turn, the connection writes behind them, in one piece.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::task::coop;

/// What rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A stream.
    Streams = 1,
    /// The connection under them.
    Connection = 2,
}

/// They are looked at.
const BUSY: u8 = 4;
/// How often they are looked at before other tasks have their turn.
const ROUNDS: usize = 16;

/// What the streams of a connection, and the connection, wake.
#[derive(Debug)]
pub struct Bell {
    inner: Arc<Inner>,
    streams: Waker,
    connection: Waker,
}

#[derive(Debug)]
struct Inner {
    /// Of [`Part`]s, those that rang.
    state: AtomicU8,
    task: AtomicWaker,
}

/// The rope of one part.
struct Rope {
    inner: Arc<Inner>,
    part: Part,
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.inner.state.fetch_or(self.part as u8, Ordering::AcqRel) & BUSY == 0 {
            self.inner.task.wake();
        }
    }
}

impl Bell {
    /// One at whose first turn all is looked at.
    #[must_use]
    pub fn new() -> Self {
        let state = AtomicU8::new(Part::Streams as u8 | Part::Connection as u8);
        let inner = Arc::new(Inner { state, task: AtomicWaker::new() });
        let waker = |part| Waker::from(Arc::new(Rope { inner: Arc::clone(&inner), part }));
        let (streams, connection) = (waker(Part::Streams), waker(Part::Connection));
        Self { inner, streams, connection }
    }

    /// Has a part be looked at.
    pub fn ring(&self, part: Part) {
        match part {
            Part::Streams => self.streams.wake_by_ref(),
            Part::Connection => self.connection.wake_by_ref(),
        }
    }

    /// Looks at what has rung until nothing rings any more, or `look` is ready.
    pub fn attend<R>(
        &self,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut Context<'_>, Part) -> Poll<R>,
    ) -> Poll<R> {
        let Inner { state, task } = &*self.inner;
        task.register(cx.waker());
        for _ in 0..ROUNDS {
            let rung = state.swap(BUSY, Ordering::AcqRel);
            let mut looked = Poll::Pending;
            if rung & Part::Streams as u8 != 0 {
                looked = look(&mut Context::from_waker(&self.streams), Part::Streams);
            }
            // It has not been looked at yet: what the streams rang for is done now.
            let rung = rung | state.fetch_and(!(Part::Connection as u8), Ordering::AcqRel);
            if looked.is_pending() && rung & Part::Connection as u8 != 0 {
                looked = look(&mut Context::from_waker(&self.connection), Part::Connection);
            }
            let rests = state.compare_exchange(BUSY, 0, Ordering::AcqRel, Ordering::Acquire);
            if looked.is_ready() || rests.is_ok() {
                return looked;
            }
            // What is behind would be told to wait whatever it has.
            if !coop::has_budget_remaining() {
                break;
            }
        }
        state.fetch_and(!BUSY, Ordering::AcqRel);
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

    /// What is looked at in a turn in which `act` is done at each look; how often the task is woken.
    fn turn(bell: &Bell, mut act: impl FnMut(&mut Context<'_>, Part, usize)) -> (Vec<Part>, usize) {
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let mut looks = Vec::new();
        let attended = bell.attend(&mut Context::from_waker(&waker), |cx, part| {
            looks.push(part);
            act(cx, part, looks.len());
            Poll::<()>::Pending
        });
        assert!(attended.is_pending());
        (looks, task.0.load(Ordering::SeqCst))
    }

    use Part::{Connection, Streams};

    #[test]
    fn who_rings_while_it_is_looked_is_looked_at_again_and_wakes_no_task_and_who_rings_later_does() {
        let bell = Bell::new();
        let mut kept = None;
        let looked = turn(&bell, |cx, part, number| {
            if part == Streams && number < 3 {
                cx.waker().wake_by_ref();
            }
            kept = Some(cx.waker().clone());
        });
        assert_eq!(looked, (vec![Streams, Connection, Streams], 0));
        // A turn for which nobody rang.
        assert_eq!(turn(&bell, |_, _, _| {}).0, []);
        kept.unwrap().wake();
        assert_eq!(turn(&bell, |_, _, _| {}).0, [Streams]);
        let task = Arc::new(Task::default());
        let waker = Waker::from(Arc::clone(&task));
        let _ = bell.attend(&mut Context::from_waker(&waker), |_, _| Poll::<()>::Pending);
        bell.ring(Connection);
        assert_eq!(task.0.load(Ordering::SeqCst), 1);
        assert_eq!(turn(&bell, |_, _, _| {}).0, [Connection]);
    }

    #[test]
    fn what_streams_ring_the_connection_for_takes_one_look_at_it() {
        let bell = Bell::new();
        let looked = turn(&bell, |_, part, _| {
            if part == Streams {
                bell.ring(Connection);
            }
        });
        assert_eq!(looked, (vec![Streams, Connection], 0));
        bell.ring(Streams);
        let looked = turn(&bell, |_, part, number| match (part, number) {
            (Streams, 1) => bell.ring(Connection),
            (Connection, 2) => bell.ring(Streams),
            _ => {}
        });
        assert_eq!(looked.0, [Streams, Connection, Streams]);
    }

    #[test]
    fn who_rings_without_end_leaves_others_their_turn_and_is_not_forgotten() {
        let bell = Bell::new();
        let (looks, woken) = turn(&bell, |cx, _, _| cx.waker().wake_by_ref());
        assert_eq!((looks.len(), woken), (2 * ROUNDS, 1));
        assert_eq!(turn(&bell, |_, _, _| {}).0, [Streams, Connection]);
    }
}
