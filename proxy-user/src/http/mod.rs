//! One decrypted HTTP connection: served, its requests read into facts, its refusals answered.
//!
//! [`server1`] and [`server`] speak HTTP/1 and HTTP/2 to the workload, [`answer`] is one request over the latter, [`facts`] says what a request asks for or why that is
//! ambiguous, [`connect`] what asks for a tunnel, [`extended`] makes an upgrade of a WebSocket over HTTP/2, [`hop`] takes out what concerns one hop only, [`body`] and
//! [`reply`] carry bodies through and count them, [`interims`] what comes before an answer,
//! [`reflect`] says which answers are looked through, [`unpack`] opens those that are packed, [`taps`] has bodies kept for auditors, [`account`] owes the journal one
//! outcome, [`problem`] answers a refusal, [`token`] what asks for a token.
//!
//! Invariant: a body is never held whole, but for a condition that looks at it ([`seen`]), a placeholder in it or a signature over it
//! ([`exchange`]), and what asks for a token ([`token`]), all up to a bound; each frame is taken when the other side has room for it.

pub mod account;
mod answer;
pub mod body;
pub mod connect;
#[cfg(test)]
pub(crate) mod book;
pub mod exchange;
pub mod extended;
pub mod facts;
pub mod hop;
pub mod interims;
pub mod problem;
pub mod request_body;
pub mod reflect;
pub mod reply;
pub mod seen;
pub mod server;
pub mod server1;
pub mod taps;
pub mod token;
pub mod unpack;

pub use account::Account;
pub use body::{Incoming, Lapse, Paired, Replay, StreamError, Transfer};
pub use facts::Leg;
pub use interims::Interims;
pub use reply::ReplyBody;
pub use request_body::RequestBody;
pub use server::{Ended, HttpLimits};
pub use taps::RequestTap;
