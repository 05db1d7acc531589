//! The command that makes a new generation of the CA.

use nix::unistd::geteuid;
use proxy_journal::Person;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::peer::this_process;
use super::{Failure, Peer};

/// The name of the command; the arguments are those of [`RotateCa`].
pub const ROTATE_COMMAND: &str = "ca-rotate";

/// Whether the generations before end at once. On the word of root, or of the user that the daemon runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotateCa {
    /// They do.
    pub at_once: bool,
    /// Who says so.
    pub by: Person,
}

impl RotateCa {
    /// The order of a peer of the control socket.
    ///
    /// # Errors
    /// The peer may not: the socket's group may look and reload, not change whom bots trust.
    pub fn of(peer: Peer, arguments: &Map<String, Value>) -> Result<Self, Failure> {
        if peer.uid != 0 && peer.uid != geteuid().as_raw() {
            let message = format!("uid {} may not make a new CA", peer.uid);
            return Err(Failure::new("not-allowed", message, "run the command as root"));
        }
        let Some(at_once) = arguments.get("at_once").and_then(Value::as_bool) else {
            let help = "send {\"command\":\"ca-rotate\",\"at_once\":false}";
            return Err(Failure::new("arguments", "the request does not say what of those before", help));
        };
        Ok(Self { at_once, by: peer.person(arguments) })
    }

    /// The order of whoever runs this process.
    #[must_use]
    pub fn of_this_process(at_once: bool) -> Self {
        Self { at_once, by: this_process() }
    }

    /// What goes over the control socket; the kernel tells the rest.
    #[must_use]
    pub fn arguments(&self) -> Map<String, Value> {
        let mut arguments = Map::new();
        arguments.insert("at_once".to_owned(), self.at_once.into());
        arguments.extend(self.by.sudo_uid.map(|uid| ("sudo_uid".to_owned(), uid.into())));
        arguments
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateCaReport {
    /// The number of the new generation.
    pub generation: u32,
    /// The fingerprints of its roots.
    pub roots: Vec<String>,
    /// The generations before it that go on, with when they end (RFC 3339).
    pub former: Vec<(u32, String)>,
}

/// The CA, as `status` tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaStatus {
    /// The number of the newest generation.
    pub generation: u32,
    /// How many domains and addresses it permits.
    pub permits: u64,
    /// The last day of the newest generation, RFC 3339.
    pub until: String,
    /// How many generations before it go on.
    pub former: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_is_made_anew_on_the_word_of_root_alone() {
        let order = RotateCa::of_this_process(true);
        let root = Peer { uid: 0, gid: 0, pid: Some(1) };
        let read = RotateCa::of(root, &order.arguments()).unwrap();
        assert!(read.at_once && (read.by.uid, read.by.sudo_uid) == (0, order.by.sudo_uid), "{read:?}");
        assert!(RotateCa::of(root, &Map::new()).is_err(), "nothing is assumed");
        let operator = Peer { uid: geteuid().as_raw() + 1000, gid: 0, pid: Some(1) };
        let refused = RotateCa::of(operator, &order.arguments()).unwrap_err();
        assert!(refused.message.contains("may not make a new CA"), "{refused:?}");
    }
}
