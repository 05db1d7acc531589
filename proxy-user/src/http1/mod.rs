//! HTTP/1.0 and 1.1 on the wire (RFC 9112), for both legs.
//!
//! One reader decides where a message ends, for us and for whoever is behind us: [`framing`] refuses what can be read in two ways,
//! [`head`] takes a head apart, [`inlet`] reads heads and bodies off a stream, [`outlet`] writes them, [`served`] is the client's
//! connection and [`lane`] the upstream's.
//!
//! No task and no channel stands between the two legs: whoever has a call polls both streams itself. A connection that rests holds no
//! buffer.

pub mod framing;
pub mod head;
pub mod inlet;
pub mod lane;
pub mod outlet;
pub mod served;

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

pub use framing::Fault;
pub use head::{HeadError, Spelling, Wire};
pub use lane::{Exchange, Lane};
pub use served::{Arriving, Interims, OnSwitch, Served};

/// A stream under a connection.
pub trait Io: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Io for S {}

/// A stream that is not HTTP any more.
pub type Switched = Box<dyn Io>;

/// Why a message is none, or does not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can be read in two ways.
    #[error("it can be read in two ways: {0}")]
    Ambiguous(#[from] Fault),
    /// The head is none.
    #[error("{0}")]
    Head(#[from] HeadError),
    /// The connection ended within a message.
    #[error("connection closed before message completed")]
    Incomplete,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// The body that is sent broke off, or is not as long as its head says.
    #[error("{0}")]
    Body(String),
}

impl Error {
    /// Whether the connection ended, as one does that its other side closed.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        // The last one is TLS that ends without a word.
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
        match self {
            Self::Incomplete => true,
            Self::Io(error) => matches!(
                error.kind(),
                BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
            ),
            _ => false,
        }
    }
}
