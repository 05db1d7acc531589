//! The command `detach`: who gives it, and what came out of it.

use proxy_journal::Person;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Failure;
use super::peer::{Peer, this_process};

/// The name of the command.
pub const COMMAND: &str = "detach";

/// One that is allowed: root gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Who gave it.
    pub by: Person,
    /// Whether it is carried out when it cannot be journalled.
    pub force: bool,
}

/// What was taken off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The programs.
    pub programs: Vec<String>,
    /// Why it is not in the journal, when it was forced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrecorded: Option<String>,
}

impl Order {
    /// The order of a peer of the control socket.
    ///
    /// # Errors
    /// The peer is not root: the socket's group may look and reload, not open the host.
    pub fn of(peer: Peer, arguments: &Map<String, Value>) -> Result<Self, Failure> {
        if peer.uid != 0 {
            let message = format!("uid {} may not take the kernel side off", peer.uid);
            return Err(Failure::new("not-allowed", message, "run the command as root"));
        }
        let by = peer.person(arguments);
        Ok(Self { by, force: arguments.get("force").and_then(Value::as_bool).unwrap_or(false) })
    }

    /// The order of whoever runs this process.
    #[must_use]
    pub fn of_this_process(force: bool) -> Self {
        Self { by: this_process(), force }
    }

    /// What goes over the control socket; the kernel tells the rest.
    #[must_use]
    pub fn arguments(&self) -> Map<String, Value> {
        let mut arguments = Map::new();
        arguments.insert("force".to_owned(), self.force.into());
        if let Some(uid) = self.by.sudo_uid {
            arguments.insert("sudo_uid".to_owned(), uid.into());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_may_take_the_kernel_side_off_and_is_known_by_what_the_kernel_says() {
        let arguments = Map::from_iter([("sudo_uid".to_owned(), 1000.into()), ("uid".to_owned(), 7.into())]);
        let peer = |uid| Peer { uid, gid: 0, pid: Some(i32::MAX) };
        assert_eq!(Order::of(peer(1000), &arguments).unwrap_err().code, "not-allowed");
        let order = Order::of(peer(0), &arguments).unwrap();
        let by = Person { uid: 0, pid: i32::MAX.unsigned_abs(), login_uid: None, sudo_uid: Some(1000) };
        assert_eq!(order, Order { by, force: false });
        assert_eq!(order.arguments()["sudo_uid"], 1000);
    }
}
