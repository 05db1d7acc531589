//! The end of the daemon: what is open ends, what comes meanwhile is served, and then the next daemon's.
//!
//! First, calls that are open are waited for while new connections are served as ever, each for one request or, over HTTP/2,
//! until GOAWAY: nobody has to wait for somebody else's long download. Then nothing is accepted any more: new connections
//! wait in the listener's queue, which systemd keeps for the next daemon, and those that came meanwhile end.
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::connection::Counters;

const POLL: Duration = Duration::from_millis(5);

/// What the end needs.
pub(super) struct Drain<'a> {
    /// Tells connections that the daemon is about to end.
    pub(super) begin: watch::Sender<bool>,
    /// Tells listeners to accept nothing more.
    pub(super) close: watch::Sender<bool>,
    pub(super) counters: &'a Counters,
    /// The longest time for either part.
    pub(super) limit: Duration,
}

impl Drain<'_> {
    /// Begins, and waits for the connections that were open.
    pub(super) async fn old_ones(&self) {
        let begun = self.begin();
        self.wait(begun, || self.counters.open().saturating_sub(self.counters.late())).await;
    }

    /// Accepts nothing more, and waits for the connections that came since, or for all where there was no time for the old
    /// ones yet.
    pub(super) async fn all(&self) {
        let late_only = *self.begin.borrow();
        let begun = self.begin();
        self.close.send_replace(true);
        match late_only {
            // What was accepted is counted before its listener ends.
            true => self.wait(begun, || self.counters.listening() + self.counters.late()).await,
            false => self.wait(begun, || self.counters.listening() + self.counters.open()).await,
        }
        let (left, took) = (self.counters.open(), begun.elapsed());
        tracing::info!(cut_off = left, ms = took.as_millis(), "drained; new connections waited for so long");
    }

    fn begin(&self) -> Instant {
        self.begin.send_replace(true);
        Instant::now()
    }

    async fn wait(&self, begun: Instant, open: impl Fn() -> u64) {
        loop {
            tokio::time::sleep(POLL).await;
            if open() == 0 || begun.elapsed() >= self.limit {
                return;
            }
        }
    }
}
