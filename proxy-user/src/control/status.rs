//! What a running daemon tells of itself. Names, numbers and problems; never a secret.

use serde::{Deserialize, Serialize};

/// The state of the whole daemon at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, RFC 3339, UTC.
    pub started: String,
    /// For how long it has been running, in seconds.
    pub uptime_s: u64,
    /// Nothing is denied by policy (`mode = "observe"`).
    #[serde(default)]
    pub observes: bool,
    /// Which mode is live, in one line of words.
    pub mode: String,
    /// What is attached in the kernel.
    pub kernel: KernelStatus,
    /// The policy that is live.
    pub policy: PolicyStatus,
    /// What happens to a governed connection of a workload that no identity matches.
    pub unidentified: Treatment,
    /// The journal on disk.
    pub journal: JournalStatus,
    /// The copy of the records in the system's journal.
    pub journald: Health,
    /// Where the records go besides.
    #[serde(default)]
    pub sinks: Vec<super::sinks::SinkStatus>,
    /// The secrets in memory.
    pub secrets: SecretsStatus,
    /// What signs the certificates that bots are shown.
    #[serde(default)]
    pub ca: super::ca::CaStatus,
    /// Where the daemon listens, one line each.
    pub listeners: Vec<String>,
    /// Connections of workloads that are open.
    pub connections_open: u64,
}

/// Whether a part of the daemon works.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Health {
    /// It does.
    #[default]
    Ok,
    /// It does, with less than it should have.
    Degraded {
        /// What is missing, and what to do.
        problem: String,
    },
    /// It does not; calls that need it are refused.
    Failed {
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl Health {
    /// Ok without a problem, failed with one.
    #[must_use]
    pub fn failed_if(problem: Option<String>) -> Self {
        problem.map_or(Self::Ok, |problem| Self::Failed { problem })
    }

    /// Ok without a problem, degraded with one.
    #[must_use]
    pub fn degraded_if(problem: Option<String>) -> Self {
        problem.map_or(Self::Ok, |problem| Self::Degraded { problem })
    }

    /// The problem, when there is one.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::Ok => None,
            Self::Degraded { problem } | Self::Failed { problem } => Some(problem),
        }
    }
}

/// Whether `protect` is in effect.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Protect {
    /// It is.
    On,
    /// It is not asked for.
    #[default]
    Off,
    /// It is asked for, and off because this kernel cannot do it.
    Unavailable {
        /// Why, and what to do.
        problem: String,
    },
}

/// What happens to something that no rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Treatment {
    /// It is refused.
    Deny,
    /// It passes, undecrypted and without a credential.
    Pass,
    /// It goes on as it is, and is recorded as what would be refused: nothing is denied on this host.
    Observe,
}

impl Treatment {
    /// As in the policy files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Pass => "pass",
            Self::Observe => "observe",
        }
    }
}

/// What an identity's policy does with its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Decisions take effect.
    Enforce,
    /// What would be denied goes on, and is recorded.
    Observe,
}

impl Mode {
    /// As in the policy files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// What is attached in the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelStatus {
    /// The cgroup whose workloads are governed.
    pub attached_cgroup: String,
    /// Where links and maps are pinned.
    pub pin_dir: String,
    /// The programs that are attached, by name.
    pub programs: Vec<String>,
    /// The destination ports that are turned to the proxy.
    pub ports: Vec<u16>,
    /// How many connections the kernel remembers the origin of.
    pub origins_in_map: u64,
    /// Counters of the kernel side, by name.
    pub counters: Vec<(String, u64)>,
    /// What this kernel cannot do, and what that costs.
    #[serde(default)]
    pub lacks: Vec<String>,
    /// Whether others than root are kept from tracing governed workloads and the daemon.
    #[serde(default)]
    pub protect: Protect,
    /// Whether everything is attached.
    pub health: Health,
}

/// The policy that is live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its number; one more with each reload that changed something.
    pub generation: u64,
    /// When it was loaded, RFC 3339, UTC.
    pub loaded_at: String,
    /// Who it governs.
    pub identities: Vec<IdentityStatus>,
    /// How many APIs it names.
    pub apis: u64,
    /// How many roles it has.
    pub roles: u64,
    /// How many credentials it has.
    pub credentials: u64,
    /// How many rules it has in all grants.
    pub rules: u64,
    /// Why the last reload was refused, one line for each error; `None` when the files on disk are what is live.
    pub last_error: Option<Vec<String>>,
}

/// One identity, and what it did since the daemon started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdentityStatus {
    /// Its name.
    pub name: String,
    /// What its policy does.
    pub mode: Mode,
    /// What happens to its calls to hosts that no API names.
    pub unmatched: Treatment,
    /// Calls that were allowed.
    pub calls_allowed: u64,
    /// Calls that were denied.
    pub calls_denied: u64,
}

/// The journal on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalStatus {
    /// Where it is.
    pub path: String,
    /// How many records it has.
    pub records: u64,
    /// `fast` or `sync`.
    #[serde(default)]
    pub durability: String,
    /// Number of the segment that is written to.
    #[serde(default)]
    pub segment: u32,
    /// Whether that is where the journal spills, because its own disk is full.
    #[serde(default)]
    pub spilled: bool,
    /// The key that signs.
    #[serde(default)]
    pub key: String,
    /// Records that no checkpoint is over yet.
    #[serde(default)]
    pub unsigned: u64,
    /// How old the oldest record is that may not be on the disk yet, in milliseconds; 0 when all are.
    #[serde(default)]
    pub unsynced_ms: u64,
    /// Who gets checkpoints.
    #[serde(default)]
    pub witnesses: Vec<WitnessStatus>,
    /// Whether records can be written.
    pub health: Health,
}

/// Somebody who gets checkpoints of the journal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessStatus {
    /// Its name in the configuration.
    pub name: String,
    /// The last record that the last checkpoint that it took is over; 0 when it took none since the start.
    pub through: u64,
    /// When it took that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// Why it did not take the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The secrets in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecretsStatus {
    /// How many there are.
    pub count: u64,
    /// Whether the store could be read the last time.
    pub health: Health,
}

impl Status {
    /// Everything that is not as it should be, one line each, with the part that it is about.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let parts = [
            ("kernel", &self.kernel.health),
            ("journal", &self.journal.health),
            ("journald", &self.journald),
            ("secrets", &self.secrets.health),
        ];
        let mut problems: Vec<String> = parts
            .iter()
            .filter_map(|(part, health)| health.problem().map(|problem| format!("{part}: {problem}")))
            .collect();
        if self.journal.spilled {
            problems.push("journal: its disk is full, and it goes on where it spills".to_owned());
        }
        for witness in &self.journal.witnesses {
            if let Some(problem) = &witness.problem {
                problems.push(format!(
                    "journal: the witness {} does not take checkpoints: {problem}",
                    witness.name
                ));
            }
        }
        // journald is told above.
        let others = self.sinks.iter().filter(|sink| sink.name != crate::config::JOURNALD);
        problems.extend(others.filter_map(|sink| {
            sink.health.problem().map(|problem| format!("sink {}: {problem}", sink.name))
        }));
        if let Protect::Unavailable { problem } = &self.kernel.protect {
            problems.push(format!("protect: it is off, though protect = true: {problem}"));
        }
        if self.observes {
            problems.push(
                "mode: nothing is denied by policy on this host (mode = \"observe\"), what would be is recorded"
                    .to_owned(),
            );
        }
        if let Some(errors) = &self.policy.last_error {
            let live = self.policy.generation;
            problems.push(format!("policy: the files on disk are refused; generation {live} goes on"));
            problems.extend(errors.iter().map(|error| format!("policy: {error}")));
        }
        problems
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::control::sinks::SinkStatus;

    /// A daemon that is well.
    pub(crate) fn healthy() -> Status {
        Status {
            version: "0.1.0".into(),
            pid: 812,
            started: "2026-03-01T10:00:00Z".into(),
            uptime_s: 93_784,
            observes: false,
            mode: "enforcing".into(),
            kernel: KernelStatus {
                attached_cgroup: "/sys/fs/cgroup".into(),
                pin_dir: "/sys/fs/bpf/vouchsafe".into(),
                programs: vec!["connect4".into(), "connect6".into()],
                ports: vec![80, 443],
                origins_in_map: 3,
                counters: vec![("origin_lost".into(), 0), ("redirected".into(), 41)],
                lacks: Vec::new(),
                protect: Protect::Off,
                health: Health::Ok,
            },
            policy: PolicyStatus {
                generation: 7,
                loaded_at: "2026-03-01T10:00:01Z".into(),
                identities: vec![IdentityStatus {
                    name: "invoice-bot".into(),
                    mode: Mode::Enforce,
                    unmatched: Treatment::Deny,
                    calls_allowed: 40,
                    calls_denied: 1,
                }],
                apis: 2,
                roles: 1,
                credentials: 2,
                rules: 9,
                last_error: None,
            },
            unidentified: Treatment::Deny,
            journal: JournalStatus {
                path: "/var/lib/vouchsafe/journal".into(),
                records: 82,
                health: Health::Ok,
                durability: "fast".into(),
                segment: 3,
                spilled: false,
                key: "AAAA".into(),
                unsigned: 2,
                unsynced_ms: 0,
                witnesses: Vec::new(),
            },
            journald: Health::Ok,
            sinks: Vec::new(),
            secrets: SecretsStatus { count: 2, health: Health::Ok },
            ca: super::super::ca::CaStatus { generation: 1, permits: 2, ..Default::default() },
            listeners: vec!["127.0.0.1:15001".into()],
            connections_open: 1,
        }
    }

    #[test]
    fn a_status_reads_as_it_was_written() {
        let mut status = healthy();
        status.journald = Health::Degraded { problem: "no socket".into() };
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.contains(r#""journald":{"state":"degraded","problem":"no socket"}"#), "{text}");
        assert!(text.contains(r#""mode":"enforce","unmatched":"deny""#), "{text}");
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
    }

    #[test]
    fn every_part_that_is_not_well_is_among_the_problems() {
        assert!(healthy().problems().is_empty());
        let problem = || Some("broken".to_owned());
        let mut status = healthy();
        status.kernel.health = Health::degraded_if(problem());
        status.journal.health = Health::failed_if(problem());
        status.journald = Health::degraded_if(problem());
        status.secrets.health = Health::failed_if(problem());
        let siem = SinkStatus {
            name: "siem".into(),
            health: Health::degraded_if(problem()),
            ..SinkStatus::default()
        };
        status.sinks = vec![siem, SinkStatus { name: "well".into(), ..SinkStatus::default() }];
        status.kernel.protect = Protect::Unavailable { problem: "no LSM".into() };
        status.policy.last_error = Some(vec!["a.toml:1:1: unknown key".into()]);
        let problems = status.problems();
        for part in
            ["kernel: broken", "journal: broken", "journald: broken", "secrets: broken", "sink siem: broken"]
        {
            assert!(problems.iter().any(|problem| problem == part), "{part}");
        }
        assert!(!problems.iter().any(|problem| problem.contains("well")));
        assert!(problems.iter().any(|problem| problem.contains("off, though protect = true: no LSM")));
        assert!(problems.last().unwrap().contains("a.toml:1:1"));
    }
}
