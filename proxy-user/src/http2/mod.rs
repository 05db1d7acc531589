//! HTTP/2 on the wire (RFC 9113), for both legs. Frames, windows and limits are those of the h2 crate; here is what its streams become.
//!
//! [`arriving`] is what comes over a stream as a body, [`outflow`] sends a body over one, [`switched`] is one that carries bytes,
//! [`answering`] is the client's stream, and [`exchange`] the upstream's, over a connection that is [`shared`]; [`bell`] drives all streams of a client in one task, and
//! [`watched`] sees what the h2 crate tells nobody, and [`gathered`] writes in few pieces what it writes in many.
//!
//! No task stands between the two legs, as over HTTP/1: whoever has a call polls its streams. Only a connection to an upstream has a
//! task, for those who share it.

pub mod answering;
pub mod arriving;
pub mod bell;
pub mod exchange;
pub mod gathered;
pub mod outflow;
pub mod shared;
pub mod switched;
pub mod watched;

use h2::Reason;

pub use answering::{Answering, Interims};
pub use arriving::Arriving;
pub use exchange::{Answer, Exchange};
pub use outflow::{Outflow, Unsent};
pub use shared::Shared;

/// Bytes of one body that may be under way before the other leg took them.
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// The same for all bodies of a connection.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// With which reason a body that breaks off resets the stream over which it goes on.
pub trait Breaks {
    /// The reason.
    fn reason(&self) -> Reason;
}

impl Breaks for h2::Error {
    /// Two mean the same on the other leg: that it is not wanted any more, and that it is too much. Others speak of the leg where they
    /// came, or of what only that leg can know.
    fn reason(&self) -> Reason {
        let reason = h2::Error::reason(self).filter(|_| self.is_remote() && self.is_reset());
        let told = reason.filter(|reason| [Reason::CANCEL, Reason::ENHANCE_YOUR_CALM].contains(reason));
        told.unwrap_or(Reason::INTERNAL_ERROR)
    }
}
