//! What the daemon says of the credentials of the policy that is live. Nothing of a secret.

use std::collections::BTreeMap;

use nix::unistd::geteuid;
use proxy_journal::Person;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Failure;
use super::peer::{Peer, this_process};

/// The name of the command.
pub const COMMAND: &str = "credentials";

/// One credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialReport {
    /// Its name in the policy.
    pub name: String,
    /// How it authenticates.
    pub kind: String,
    /// Where its secrets are, as in the policy: references, never values.
    pub source: String,
    /// The only APIs that it may go to; empty: any that a grant names it for.
    pub apis: Vec<String>,
    /// Where it may go without TLS: `loopback`.
    pub insecure: Option<String>,
    /// The version of its secret; of the first one when it has several.
    pub version: Option<u64>,
    /// Since when the secret is this one (RFC 3339).
    pub since: Option<String>,
    /// When it last went into a call (RFC 3339), to the second.
    pub last_used: Option<String>,
    /// Whose call that was: the identity.
    pub last_used_by: Option<String>,
    /// What people say of those of its secrets that are in the daemon's own store.
    #[serde(default)]
    pub secrets: Vec<SecretReport>,
    /// Why no call can have it, and what to do.
    pub problem: Option<String>,
}

/// What people say of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretReport {
    /// Where it is, as in the policy.
    pub source: String,
    /// Who answers for it.
    pub owner: Option<String>,
    /// Names and values.
    pub labels: BTreeMap<String, String>,
}

/// The name of the command that tries one; the arguments are those of [`TestOrder`].
pub const TEST_COMMAND: &str = "credential-test";

/// Which credential is tried, and for whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestOrder {
    /// Its name in the policy.
    pub name: String,
    /// The identity that it is obtained for; `None`: the first one with a grant for it.
    #[serde(rename = "as")]
    pub identity: Option<String>,
}

impl TestOrder {
    /// What the request has besides the command.
    #[must_use]
    pub fn arguments(&self) -> Map<String, Value> {
        let mut arguments = Map::new();
        arguments.insert("name".to_owned(), self.name.as_str().into());
        arguments.extend(self.identity.as_deref().map(|identity| ("as".to_owned(), identity.into())));
        arguments
    }
}

/// What an API said to a credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestReport {
    /// The call.
    pub probe: String,
    /// The identity that it was obtained for; `None`: nobody has a grant for it.
    #[serde(rename = "as")]
    pub identity: Option<String>,
    /// The version of what it was made of.
    pub version: u64,
    /// The status of the answer.
    pub status: u16,
    /// How long all of it took, in milliseconds.
    pub took_ms: u64,
    /// Whether the API took it: a status of 200 to 299.
    pub taken: bool,
}

/// The name of the command that makes a secret anew; the arguments are those of [`RotateOrder`].
pub const ROTATE_COMMAND: &str = "secret-rotate";

/// Which secret is made anew, and whose word it is. Root's, or that of the user that the daemon runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateOrder {
    /// Its name in the store.
    pub name: String,
    /// Who says so.
    pub by: Person,
}

impl RotateOrder {
    /// The order of a peer of the control socket.
    ///
    /// # Errors
    /// The peer may not: the socket's group may look and reload, not change secrets. Or the request names none.
    pub fn of(peer: Peer, arguments: &Map<String, Value>) -> Result<Self, Failure> {
        if peer.uid != 0 && peer.uid != geteuid().as_raw() {
            let message = format!("uid {} may not make secrets anew", peer.uid);
            return Err(Failure::new("not-allowed", message, "run the command as root"));
        }
        let Some(name) = arguments.get("name").and_then(Value::as_str) else {
            let help = "send {\"command\":\"secret-rotate\",\"name\":\"x\"}";
            return Err(Failure::new("arguments", "the request names no secret", help));
        };
        Ok(Self { name: name.to_owned(), by: peer.person(arguments) })
    }

    /// The order of whoever runs this process.
    #[must_use]
    pub fn of_this_process(name: String) -> Self {
        Self { name, by: this_process() }
    }

    /// What goes over the control socket; the kernel tells the rest.
    #[must_use]
    pub fn arguments(&self) -> Map<String, Value> {
        let mut arguments = Map::new();
        arguments.insert("name".to_owned(), self.name.as_str().into());
        arguments.extend(self.by.sudo_uid.map(|uid| ("sudo_uid".to_owned(), uid.into())));
        arguments
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateReport {
    /// The version that is current now.
    pub version: u64,
    /// The credentials that were tried with it before.
    pub tried: Vec<String>,
    /// For how many seconds the one before is still taken.
    pub overlap_s: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_anew_on_the_word_of_root_alone() {
        let order = RotateOrder::of_this_process("stripe/key".to_owned());
        let root = Peer { uid: 0, gid: 0, pid: Some(1) };
        let read = RotateOrder::of(root, &order.arguments()).unwrap();
        assert_eq!((read.name.as_str(), read.by.uid, read.by.sudo_uid), ("stripe/key", 0, order.by.sudo_uid));
        assert!(RotateOrder::of(root, &Map::new()).is_err());
        let operator = Peer { uid: geteuid().as_raw() + 1000, gid: 0, pid: Some(1) };
        let refused = RotateOrder::of(operator, &order.arguments()).unwrap_err();
        assert!(refused.message.contains("may not make secrets anew"), "{refused:?}");
    }

    #[test]
    fn an_order_is_read_as_it_was_written() {
        for identity in [None, Some("bot".to_owned())] {
            let order = TestOrder { name: "stripe".to_owned(), identity };
            let read: TestOrder = serde_json::from_value(Value::Object(order.arguments())).unwrap();
            assert_eq!(read, order);
        }
    }
}
