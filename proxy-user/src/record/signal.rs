//! Tells those who read the journal as it grows that it did, so that they need not look all the time.
//!
//! A call pays one look at a flag for it, and wakes somebody only when somebody has asked to be woken since the last time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

/// How far the journal is.
#[derive(Debug, Default)]
pub struct Signal {
    head: AtomicU64,
    /// Somebody waits.
    armed: AtomicBool,
    wake: Notify,
}

impl Signal {
    /// Everything up to this record is written.
    pub(crate) fn reached(&self, seq: u64) {
        self.head.store(seq, Ordering::SeqCst);
        if self.armed.load(Ordering::SeqCst) && self.armed.swap(false, Ordering::SeqCst) {
            self.wake.notify_waiters();
        }
    }

    /// Number of the last record that is written, whole and for good.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::SeqCst)
    }

    /// Waits for a record after this one.
    pub async fn beyond(&self, seq: u64) {
        loop {
            let mut woken = std::pin::pin!(self.wake.notified());
            // From here on it hears of it; so what is written after the look at the head wakes it.
            woken.as_mut().enable();
            self.armed.store(true, Ordering::SeqCst);
            if self.head() > seq {
                return;
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_waits_is_woken_by_every_record_after_his_own_and_by_no_other() {
        let signal = Arc::new(Signal::default());
        let other = Arc::clone(&signal);
        let writer = std::thread::spawn(move || (1..=20_000).for_each(|seq| other.reached(seq)));
        let mut seen = 0;
        while seen < 20_000 {
            let within = std::time::Duration::from_secs(20);
            tokio::time::timeout(within, signal.beyond(seen)).await.unwrap();
            assert!(signal.head() > seen);
            seen = signal.head();
        }
        writer.join().unwrap();
        let idle = signal.beyond(20_000);
        assert!(tokio::time::timeout(std::time::Duration::from_millis(20), idle).await.is_err());
    }

    #[tokio::test]
    async fn who_waits_already_is_woken() {
        use futures_util::FutureExt as _;
        let signal = Signal::default();
        for seq in 0..100 {
            let mut waiting = std::pin::pin!(signal.beyond(seq));
            assert!(waiting.as_mut().now_or_never().is_none());
            signal.reached(seq + 1);
            assert!(waiting.now_or_never().is_some(), "{seq}");
        }
    }
}
