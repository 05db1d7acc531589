//! What is owed to the journal for one permitted call: exactly one outcome, whatever happens to the call.
//!
//! The account goes where the call goes: it waits for the head, sits in the body of the response, or in the tunnel.
//! Whoever sees the end closes it. One that is dropped open belongs to a call whose client went away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use proxy_journal::{Blame, Outcome};
use tokio::time::Instant;

use super::body::Transfer;
use crate::authorize::Refusal;
use crate::limits::Pass;
use crate::record::{Ending, Receipt};

/// Completes the receipt of one call exactly once.
#[derive(Debug)]
pub struct Account {
    receipt: Option<Receipt>,
    began: Instant,
    transfer: Arc<Transfer>,
    status: Option<StatusCode>,
    ttfb: Option<Duration>,
    upstream: Option<SocketAddr>,
    proxied: Option<String>,
    pass: Pass,
    /// Where its bodies are kept: the outcome goes that way.
    ending: Option<Ending>,
}

impl Account {
    /// Opens the account of a call that was just recorded.
    #[must_use]
    pub fn open(receipt: Receipt, transfer: Arc<Transfer>, pass: Pass) -> Self {
        let began = Instant::now();
        Self {
            receipt: Some(receipt),
            began,
            transfer,
            status: None,
            ttfb: None,
            upstream: None,
            proxied: None,
            pass,
            ending: None,
        }
    }

    /// The receipt, to show that the call is recorded; `None` once the account is closed.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// What went over the wire so far.
    #[must_use]
    pub fn transfer(&self) -> &Arc<Transfer> {
        &self.transfer
    }

    /// Notes that its bodies are kept.
    pub fn kept(&mut self, ending: Ending) {
        self.ending = Some(ending);
    }

    /// Notes the address that is dialled.
    pub fn dialled(&mut self, upstream: SocketAddr) {
        self.upstream = Some(upstream);
    }

    /// Notes what a proxy of the site is asked for, if one is.
    pub fn proxied(&mut self, target: Option<String>) {
        self.proxied = target;
    }

    /// Notes the status that the client gets; the first byte of a response from the upstream has arrived.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.ttfb = Some(self.began.elapsed());
    }

    /// Notes the status of an answer that is ours.
    pub fn refused(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Closes it: all went well.
    pub fn close(&mut self) {
        self.settle(None);
    }

    /// Closes it: something went wrong, and somebody is to blame.
    pub fn fail(&mut self, blame: Blame, error: impl Into<String>) {
        self.settle(Some((blame, error.into())));
    }

    /// Closes it: the policy does not permit the call any more. What is still to be sent is not sent.
    pub fn cut(&mut self, refusal: &Refusal) {
        self.transfer.cut();
        self.fail(Blame::Policy, format!("cut, not permitted any more: {}", refusal.reason()));
    }

    fn settle(&mut self, failure: Option<(Blame, String)>) {
        let Some(receipt) = self.receipt.take() else { return };
        // Its places are free for others, and its bytes are counted.
        std::mem::take(&mut self.pass).end(self.transfer.sent().saturating_add(self.transfer.received()));
        let (blame, error) = failure.unzip();
        let outcome = Outcome {
            // The receipt puts its own id in.
            id: uuid::Uuid::nil(),
            status: self.status.map(|status| status.as_u16()),
            bytes_sent: self.transfer.sent(),
            bytes_received: self.transfer.received(),
            duration_us: micros(self.began.elapsed()),
            ttfb_us: self.ttfb.map(micros),
            upstream: self.transfer.elsewhere().or(self.upstream),
            proxied: self.proxied.take(),
            error,
            blame,
            interrupted: false,
            removed: self.transfer.removed().to_vec(),
            reflected: self.transfer.is_reflected(),
            repeated: self.transfer.is_repeated(),
            answered: self.transfer.is_answered(),
            captures: Vec::new(),
        };
        match self.ending.take() {
            Some(ending) => ending.complete(receipt, outcome),
            None => receipt.complete(outcome),
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let when = if self.ttfb.is_none() { "before the response" } else { "before the end of the response" };
        if self.receipt.is_some() {
            self.fail(Blame::Client, format!("the client went away {when}"));
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
