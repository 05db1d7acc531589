//! What the daemon says of a process: the workload, every condition of every identity, and who it would be.
//!
//! It holds what `/proc` shows to anybody who may look: no command line and no environment, where secrets could be.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Failure;
use super::status::Treatment;

/// The name of the command.
pub const COMMAND: &str = "who";

/// Who is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A process.
    Process(u32),
    /// All processes of a unit of the system.
    Unit(String),
}

impl Target {
    /// A number is a process, anything else a unit; like systemctl, a name without a suffix is that of a service.
    #[must_use]
    pub fn of(text: &str) -> Self {
        match text.parse() {
            Ok(pid) => Self::Process(pid),
            Err(_) if text.contains('.') => Self::Unit(text.to_owned()),
            Err(_) => Self::Unit(format!("{text}.service")),
        }
    }

    /// As the request carries it.
    #[must_use]
    pub fn arguments(&self) -> Map<String, Value> {
        let (key, value) = match self {
            Self::Process(pid) => ("pid", Value::from(*pid)),
            Self::Unit(name) => ("unit", Value::from(name.as_str())),
        };
        Map::from_iter([(key.to_owned(), value)])
    }

    /// From a request.
    ///
    /// # Errors
    /// There is not exactly one of both.
    pub fn from_arguments(arguments: &Map<String, Value>) -> Result<Self, Failure> {
        let pid = arguments.get("pid").map(|pid| pid.as_u64().and_then(|pid| u32::try_from(pid).ok()));
        let unit = arguments.get("unit").map(|unit| unit.as_str());
        match (pid, unit) {
            (Some(Some(pid)), None) => Ok(Self::Process(pid)),
            (None, Some(Some(unit))) => Ok(Self::Unit(unit.to_owned())),
            _ => Err(Failure::new(
                "arguments",
                "the request names no process and no unit",
                "send {\"command\":\"who\",\"pid\":1} or {\"command\":\"who\",\"unit\":\"x.service\"}",
            )),
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoReport {
    /// The policy that it was judged by.
    pub generation: u64,
    /// What happens to calls of a workload without an identity.
    pub unidentified: Treatment,
    /// The unit, when one was asked about.
    pub unit: Option<String>,
    /// The processes, by id.
    pub processes: Vec<ProcessReport>,
    /// How many processes of the unit are not among them, because there are too many.
    pub omitted: u64,
    /// Why others are not among them, one line each.
    pub not_shown: Vec<String>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// Its id, as the daemon sees it.
    pub pid: u32,
    /// When it started, RFC 3339, UTC.
    pub started: String,
    /// The same in nanoseconds since boot, to the tick.
    pub start_time_ns: u64,
    /// The path of its executable: a label.
    pub exe: Option<String>,
    /// Device of the executable, `major:minor`.
    pub exe_device: String,
    /// Inode of the executable; 0: unknown, and no `exe` matches.
    pub exe_inode: u64,
    /// Real user.
    pub uid: u32,
    /// Its name.
    pub user: Option<String>,
    /// Real group.
    pub gid: u32,
    /// Its name.
    pub group: Option<String>,
    /// Path in the cgroup v2 hierarchy.
    pub cgroup: Option<String>,
    /// The system's unit.
    pub unit: Option<String>,
    /// The boot that its start time counts from.
    #[serde(default)]
    pub boot: String,
    /// Which run of the unit.
    #[serde(default)]
    pub invocation: Option<String>,
    /// The container, as in the journal.
    #[serde(default)]
    pub container: Option<proxy_journal::Container>,
    /// Why something of the container is not known.
    #[serde(default)]
    pub container_problem: Option<String>,
    /// The executables of its parents up to the leader of its session: labels.
    #[serde(default)]
    pub ancestors: Vec<String>,
    /// Inode of the network namespace; 0: unknown.
    pub netns: u64,
    /// Whether that is the daemon's, too.
    pub netns_is_the_daemons: bool,
    /// Inode of the mount namespace; 0: unknown.
    pub mntns: u64,
    /// Whether its calls come to the daemon.
    pub governed: bool,
    /// Why they do not.
    pub not_governed: Option<String>,
    /// The identity, when it is exactly one.
    pub identity: Option<String>,
    /// All that it could be, when it is more than one: then it is none.
    pub ambiguous: Vec<String>,
    /// Why it has none.
    pub reason: Option<String>,
    /// Each identity of the policy, held against it.
    pub identities: Vec<IdentityReport>,
}

/// One identity, held against a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityReport {
    /// Its name.
    pub name: String,
    /// Whether every condition holds.
    pub holds: bool,
    /// Its conditions.
    pub conditions: Vec<ConditionReport>,
}

/// One condition, held against a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionReport {
    /// Which one, as in policy files.
    pub condition: String,
    /// Whether it holds.
    pub holds: bool,
    /// What the policy wants.
    pub wanted: String,
    /// What the process has.
    pub found: String,
    /// Why it does not hold.
    pub why: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_a_process_and_a_name_is_a_unit() {
        assert_eq!(Target::of("4711"), Target::Process(4711));
        assert_eq!(Target::of("bot"), Target::Unit("bot.service".into()));
        assert_eq!(Target::of("session-1.scope"), Target::Unit("session-1.scope".into()));
        for text in ["1", "bot"] {
            let target = Target::of(text);
            assert_eq!(Target::from_arguments(&target.arguments()).unwrap(), target);
        }
    }

    #[test]
    fn a_request_that_names_neither_or_both_is_refused() {
        for text in ["{}", r#"{"pid":-1}"#, r#"{"pid":"1"}"#, r#"{"pid":1,"unit":"a"}"#, r#"{"unit":7}"#] {
            let arguments = serde_json::from_str(text).unwrap();
            assert_eq!(Target::from_arguments(&arguments).unwrap_err().code, "arguments", "{text}");
        }
    }
}
