//! What the ways to receivers have in common.

use std::time::Duration;

use super::message::Message;

/// What became of messages that were to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// So many of them, from the first on, are done with: handed over, or rejected for good.
    pub(super) count: usize,
    /// So many of these the receiver will never take.
    pub(super) rejected: u64,
    /// Bytes that they had, for a way that tells later what arrived.
    pub(super) bytes: u64,
}

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    /// In words for the operator: what, and what to do.
    pub(super) what: String,
    /// Nobody is there who receives.
    pub(super) absent: bool,
    /// The receiver said when to come again.
    pub(super) after: Option<Duration>,
}

impl Trouble {
    pub(super) fn new(what: impl Into<String>) -> Trouble {
        Trouble { what: what.into(), absent: false, after: None }
    }

    pub(super) fn absent(what: impl Into<String>) -> Trouble {
        Trouble { absent: true, ..Trouble::new(what) }
    }
}

/// A way to a receiver.
pub(super) trait Way {
    /// How long what was handed over, and was not refused, is still held back: a receiver that ends in that time may have taken it
    /// and lost it.
    const HOLD: Duration = Duration::ZERO;

    /// Sends messages, which are in order and at least one; opens the way if it is not open. Of what it does not say is done,
    /// nothing counts as sent.
    async fn send(&mut self, messages: &[Message]) -> Result<Sent, Trouble>;

    /// How many bytes of what was handed over the receiver does not have yet. It is trouble when the way has broken: then all that was
    /// held back is sent again.
    async fn waiting(&mut self) -> Result<u64, Trouble> {
        Ok(0)
    }

    /// Brings what was handed over to where a cursor may be kept behind it.
    fn settle(&mut self) -> Result<(), Trouble> {
        Ok(())
    }

    /// Closes it. Whether the receiver has said that it got everything.
    async fn end(&mut self) -> bool {
        false
    }

    /// Lets go of what is open, after trouble.
    fn reset(&mut self) {}
}
