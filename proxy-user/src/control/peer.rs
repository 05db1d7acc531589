//! Who may speak on the control socket: root, the user that the daemon runs as, and members of its group.
//!
//! The kernel checks twice. The mode 0660 of the socket, against the connecting process's own groups, when it
//! connects (unix(7)); and again here, because a mode is easily changed, the credentials that the kernel noted at
//! that moment (`SO_PEERCRED`: uid, primary gid, pid). Supplementary groups are not among them; they are read from
//! `/proc/PID/status` and believed only when the effective uid there is the noted one. A pid that was used again by
//! a process of the same user gives nobody a right that this user could not take anyway.

use std::fs;

use nix::unistd::{Group, geteuid, getuid};
use proxy_journal::Person;
use serde_json::{Map, Value};

/// `/proc/PID/loginuid` of a process that nobody logged in for.
const NOBODY: u32 = u32::MAX;

/// The rule for one socket.
#[derive(Debug, Clone)]
pub struct Access {
    own_uid: u32,
    group: Option<GroupAccess>,
}

#[derive(Debug, Clone)]
struct GroupAccess {
    name: String,
    /// `None` when this host has no such group.
    gid: Option<u32>,
}

/// What the kernel noted of the other end when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// The process; `None` or 0 when it is in a pid namespace that we do not see.
    pub pid: Option<i32>,
}

impl Peer {
    /// Who that is, with what the request says of itself (`sudo_uid`). Blocks on files.
    #[must_use]
    pub fn person(self, arguments: &Map<String, Value>) -> Person {
        let pid = self.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let sudo_uid = arguments.get("sudo_uid").and_then(Value::as_u64).and_then(|uid| uid.try_into().ok());
        Person { uid: self.uid, pid, login_uid: login_uid(&pid.to_string()), sudo_uid }
    }
}

/// Whoever runs this process.
#[must_use]
pub fn this_process() -> Person {
    let (uid, pid) = (getuid().as_raw(), std::process::id());
    Person { uid, pid, login_uid: login_uid("self"), sudo_uid: sudo_uid() }
}

/// The user that sudo names to a process that it starts.
#[must_use]
pub fn sudo_uid() -> Option<u32> {
    std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok())
}

/// What a request says of whoever runs this process: the kernel tells the daemon the rest.
#[must_use]
pub fn said_of_this_process() -> Map<String, Value> {
    sudo_uid().map(|uid| ("sudo_uid".to_owned(), uid.into())).into_iter().collect()
}

fn login_uid(pid: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|uid| *uid != NOBODY)
}

impl Access {
    /// Root, our own user and, when it is given, the group of this name.
    ///
    /// # Errors
    /// The group database could not be read.
    pub fn for_group(name: Option<&str>) -> std::io::Result<Self> {
        let group = match name {
            Some(name) => {
                let gid = Group::from_name(name)?.map(|group| group.gid.as_raw());
                Some(GroupAccess { name: name.to_owned(), gid })
            }
            None => None,
        };
        Ok(Self { own_uid: geteuid().as_raw(), group })
    }

    /// The group that the socket should belong to, when it exists.
    #[must_use]
    pub fn gid(&self) -> Option<u32> {
        self.group.as_ref().and_then(|group| group.gid)
    }

    /// The name of a group that was asked for and does not exist.
    #[must_use]
    pub fn missing_group(&self) -> Option<&str> {
        self.group.as_ref().filter(|group| group.gid.is_none()).map(|group| group.name.as_str())
    }

    /// Whether this peer may give commands. May read one small file of `/proc`.
    #[must_use]
    pub fn admits(&self, peer: Peer) -> bool {
        self.decide(peer, |pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
    }

    fn decide(&self, peer: Peer, read_status: impl FnOnce(i32) -> Option<String>) -> bool {
        if peer.uid == 0 || peer.uid == self.own_uid {
            return true;
        }
        let Some(gid) = self.gid() else { return false };
        if peer.gid == gid {
            return true;
        }
        let status = peer.pid.filter(|pid| *pid > 0).and_then(read_status);
        let credentials = status.as_deref().and_then(ProcessCredentials::parse);
        credentials.is_some_and(|found| found.uid == peer.uid && found.groups.contains(&gid))
    }

    /// What a refused peer is told.
    #[must_use]
    pub fn refusal(&self, peer: Peer) -> super::Failure {
        let help = match &self.group {
            Some(GroupAccess { name, gid: Some(_) }) => {
                format!("run the command as root, or join the group {name} and log in again")
            }
            Some(GroupAccess { name, gid: None }) => {
                format!("run the command as root; this host has no group {name} that could be allowed")
            }
            None => "run the command as root".to_owned(),
        };
        super::Failure::new(
            "not-allowed",
            format!("uid {} may not give commands to the vouchsafe daemon", peer.uid),
            help,
        )
    }
}

/// The lines of `/proc/PID/status` that matter here (proc_pid_status(5)).
#[derive(Debug, PartialEq, Eq)]
struct ProcessCredentials {
    uid: u32,
    groups: Vec<u32>,
}

impl ProcessCredentials {
    fn parse(status: &str) -> Option<Self> {
        let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        // Real, effective, saved, file system.
        let uid = line("Uid:")?.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let groups =
            line("Groups:")?.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { uid, groups })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: u32 = 990;

    fn access(gid: Option<u32>) -> Access {
        Access { own_uid: 500, group: Some(GroupAccess { name: "vouchsafe".into(), gid }) }
    }

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid, gid, pid: Some(7) }
    }

    fn status(uid: u32, groups: &str) -> Option<String> {
        // A name may look like another line, but cannot hold a line end: the kernel escapes it.
        Some(format!("Name:\tUid: 0\nUid:\t1\t{uid}\t1\t1\nGid:\t1\t1\t1\t1\nGroups:\t{groups}\n"))
    }

    #[test]
    fn root_and_our_own_user_are_admitted_whatever_their_groups() {
        for uid in [0, 500] {
            assert!(access(None).decide(peer(uid, 1), |_| None));
        }
    }

    #[test]
    fn a_member_is_admitted_by_primary_or_supplementary_group() {
        assert!(access(Some(GROUP)).decide(peer(1000, GROUP), |_| None));
        assert!(access(Some(GROUP)).decide(peer(1000, 1000), |_| status(1000, "4 27 990 ")));
    }

    #[test]
    fn everybody_else_is_refused() {
        let refused =
            |access: Access, peer, status: Option<String>| assert!(!access.decide(peer, |_| status));
        refused(access(Some(GROUP)), peer(1000, 1000), status(1000, "4 99 9900"));
        refused(access(Some(GROUP)), peer(1000, 1000), status(1000, ""));
        refused(access(Some(GROUP)), peer(1000, 1000), None);
        refused(access(None), peer(1000, GROUP), status(1000, "990"));
        let nobody_listed = Access { own_uid: 500, group: None };
        refused(nobody_listed, peer(1000, 1000), status(1000, "990"));
    }

    #[test]
    fn groups_of_a_process_with_another_user_are_not_believed() {
        assert!(!access(Some(GROUP)).decide(peer(1000, 1000), |_| status(1001, "990")));
    }

    #[test]
    fn a_peer_without_a_visible_pid_is_judged_by_its_primary_group_only() {
        for pid in [None, Some(0)] {
            let peer = Peer { uid: 1000, gid: 1000, pid };
            assert!(!access(Some(GROUP)).decide(peer, |_| status(1000, "990")));
        }
    }

    #[test]
    fn half_a_status_is_no_status() {
        let whole = status(1000, "990").unwrap();
        for end in 0..whole.find("Groups:").unwrap() {
            assert_eq!(ProcessCredentials::parse(&whole[..end]), None);
        }
    }
}
