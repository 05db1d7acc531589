//! The command `detach`: who gives it, and what came out of it.

use proxy_journal::Person;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Failure;
use super::peer::Peer;

/// The name of the command.
pub const COMMAND: &str = "detach";

/// `/proc/PID/loginuid` of a process that nobody logged in for.
const NOBODY: u32 = u32::MAX;

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
        let pid = peer.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let sudo_uid = arguments.get("sudo_uid").and_then(Value::as_u64).and_then(|uid| uid.try_into().ok());
        let by = Person { uid: peer.uid, pid, login_uid: login_uid(&pid.to_string()), sudo_uid };
        Ok(Self { by, force: arguments.get("force").and_then(Value::as_bool).unwrap_or(false) })
    }

    /// The order of whoever runs this process.
    #[must_use]
    pub fn of_this_process(force: bool) -> Self {
        let sudo_uid = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
        let (uid, pid) = (nix::unistd::getuid().as_raw(), std::process::id());
        Self { by: Person { uid, pid, login_uid: login_uid("self"), sudo_uid }, force }
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

fn login_uid(pid: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != NOBODY)
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
