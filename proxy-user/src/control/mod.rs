//! The control socket: a running daemon tells its state and takes commands from root and its own group.
//!
//! The protocol is one JSON object per line in each direction, over a UNIX stream socket; a connection may carry
//! many requests, one after another:
//!
//! ```text
//! → {"command":"status"}
//! ← {"ok":true,"result":{…}}
//! → {"command":"reload"}
//! ← {"ok":false,"error":{"code":"policy","message":"…","help":"…","problems":["policies/a.toml:3:1: …"]}}
//! ```
//!
//! Commands: `ping`, `status`, `reload`, `reload-secrets`, [`detach`], and what [`Handler::other`] adds ([`who`], [`plan`], [`ca`]). A
//! secret is in no reply.
//!
//! [`peer`] decides who may speak, [`server`] listens, [`client`] is the other end, [`status`] is the reply that
//! people look at.

pub mod ca;
pub mod client;
pub mod credentials;
pub mod detach;
pub mod journal;
pub mod peer;
pub mod plan;
pub mod server;
pub mod sinks;
pub mod status;
pub mod who;

use proxy_journal::Person;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use peer::Peer;
pub use server::{Control, ControlError};
pub use status::Status;

/// How many bytes a request may have, its line end included.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// What the daemon does for the control socket. Every method may block (on files, say); none is called on a thread
/// of the runtime.
pub trait Handler: Send + Sync + 'static {
    /// How the daemon is, now.
    fn status(&self) -> Status;

    /// Reads the policy and the secrets again. `by`: whose word it is; `None`: that of a signal.
    ///
    /// # Errors
    /// The new policy was refused as a whole, with every reason; the old one goes on.
    fn reload(&self, by: Option<Person>) -> Result<ReloadReport, Failure>;

    /// Reads the secrets again.
    ///
    /// # Errors
    /// The store could not be read; the old secrets go on.
    fn reload_secrets(&self, by: Option<Person>) -> Result<SecretsReport, Failure>;

    /// Takes the kernel side off, and writes into the journal who did.
    ///
    /// # Errors
    /// It is still in place, or a part of it.
    fn detach(&self, order: detach::Order) -> Result<detach::Report, Failure> {
        let _ = order;
        Err(Failure::new("internal", "there is no kernel side", "report this"))
    }

    /// Any other command, with what the request had besides its name; `None` when there is no such command.
    fn other(
        &self,
        peer: Peer,
        command: &str,
        arguments: &Map<String, Value>,
    ) -> Option<Result<Value, Failure>> {
        let _ = (peer, command, arguments);
        None
    }
}

/// What a reload put in place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The number of the policy generation that is live now.
    pub generation: u64,
    /// Whether it is another one than before.
    pub changed: bool,
    /// How many identities it has.
    pub identities: u64,
    /// What is not wrong and still worth knowing, one line each.
    pub warnings: Vec<String>,
}

/// What is in memory after the secrets were read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsReport {
    /// How many secrets there are.
    pub count: u64,
}

/// Why a command was not carried out, in words for the person who gave it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}{help}", if help.is_empty() { "" } else { "; " })]
pub struct Failure {
    /// A word that programs can compare, as in `policy`.
    pub code: String,
    /// What went wrong, and where.
    pub message: String,
    /// What to do about it; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub help: String,
    /// Each single problem, when there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

impl Failure {
    /// A failure of one problem.
    #[must_use]
    pub fn new(code: &str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), help: help.into(), problems: Vec::new() }
    }
}

/// One request line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The name of the command.
    pub command: String,
    /// Everything else in the object.
    #[serde(flatten)]
    pub arguments: Map<String, Value>,
}

/// One reply line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// The command was carried out.
    Done {
        /// Always true.
        ok: True,
        /// What came out.
        result: Value,
    },
    /// It was not.
    Failed {
        /// Always false.
        ok: False,
        /// Why.
        error: Failure,
    },
}

impl Reply {
    /// The reply for what a command returned.
    pub fn of<T: Serialize>(result: Result<T, Failure>) -> Self {
        let value = result.and_then(|result| {
            serde_json::to_value(result).map_err(|error| {
                Failure::new("internal", format!("the reply could not be written: {error}"), "report this")
            })
        });
        match value {
            Ok(result) => Self::Done { ok: True, result },
            Err(error) => Self::Failed { ok: False, error },
        }
    }
}

/// The JSON value `true`, and only that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "bool", try_from = "bool")]
pub struct True;

/// The JSON value `false`, and only that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "bool", try_from = "bool")]
pub struct False;

impl From<True> for bool {
    fn from(_: True) -> Self {
        true
    }
}

impl From<False> for bool {
    fn from(_: False) -> Self {
        false
    }
}

impl TryFrom<bool> for True {
    type Error = &'static str;
    fn try_from(value: bool) -> Result<Self, Self::Error> {
        if value { Ok(Self) } else { Err("expected true") }
    }
}

impl TryFrom<bool> for False {
    type Error = &'static str;
    fn try_from(value: bool) -> Result<Self, Self::Error> {
        if value { Err("expected false") } else { Ok(Self) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_reads_as_it_was_written() {
        let done = Reply::of(Ok(SecretsReport { count: 2 }));
        let failed = Reply::of::<()>(Err(Failure::new("policy", "refused", "repair it")));
        assert_eq!(serde_json::to_string(&done).unwrap(), r#"{"ok":true,"result":{"count":2}}"#);
        for reply in [done, failed] {
            let line = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
        }
        assert!(serde_json::from_str::<Reply>(r#"{"ok":false,"result":1}"#).is_err());
    }
}
