//! What the control socket asks of the daemon.
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant, SystemTime},
};

use proxy_journal::{Detach, Person, Record};
use proxy_policy::Unmatched;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    authority::Authority, bounds, namespaces::Namespaces, probe, reload::Reloader, rotation::Rotator,
    who::Who, witness::Witnesses,
};
use crate::{
    authorize::LivePolicy,
    config::{self, Config, Unidentified},
    connection::Services,
    control::{
        Failure, Handler, Peer, ReloadReport, SecretsReport, Status,
        ca::{self, CaStatus, RotateCa, RotateCaReport},
        credentials::{self, CredentialReport, RotateOrder, SecretReport},
        detach, journal, plan,
        sinks::SinkStatus,
        status::{
            Health, IdentityStatus, JournalStatus, KernelStatus, Mode, PolicyStatus, Protect, SecretsStatus,
            Treatment,
        },
        who,
    },
    credentials::About,
    forward::error::chain,
    kernel::{self, Kernel, OriginTable, Programs, Protecting},
    record::Durability,
    sinks::{SinkHealth, SinkState, Sinks},
    trust::{CaCertificate, Why},
    workload::{Workloads, identify::Matcher},
};

/// Everything that `status` tells about.
pub(super) struct DaemonHandler {
    pub(super) config: Arc<Config>,
    pub(super) services: Arc<Services>,
    pub(super) reloader: Arc<Reloader>,
    pub(super) rotator: Arc<Rotator>,
    pub(super) sinks: Arc<Sinks>,
    pub(super) authority: Arc<Authority>,
    pub(super) witnesses: Arc<Witnesses>,
    pub(super) kernel: Arc<Kernel>,
    pub(super) origins: Arc<OriginTable>,
    pub(super) without_origin: Arc<AtomicU64>,
    pub(super) governed: PathBuf,
    pub(super) namespaces: Arc<Namespaces>,
    /// Of its own: what is asked here does not wait for what calls ask.
    pub(super) matcher: Matcher,
    pub(super) programs: Arc<Programs>,
    pub(super) workloads: Arc<Workloads>,
    pub(super) listeners: Vec<String>,
    pub(super) started: SystemTime,
    pub(super) running: Instant,
}

pub(super) fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

fn secret_report((source, about): &(String, About)) -> SecretReport {
    let owner = about.owner().map(str::to_owned);
    SecretReport { source: source.clone(), owner, labels: about.labels().clone() }
}

fn number(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Which credentials no call can have now, and where to look.
fn broken_credentials(live: &LivePolicy) -> Option<String> {
    let is_broken = |id| live.live_credential(id).is_some_and(|it| it.state().problem.is_some());
    let broken: Vec<_> =
        live.set().credentials().filter(|it| is_broken(it.id)).map(|it| it.name.as_str()).collect();
    let names = broken.join(", ");
    (!broken.is_empty())
        .then(|| format!("no call can have the credentials {names}; see `vouchsafe credential list`"))
}

impl DaemonHandler {
    fn identities(&self) -> Vec<IdentityStatus> {
        let tallies = self.services.counters.identities();
        let live = self.services.policy.live();
        live.set()
            .identities()
            .map(|identity| {
                let tally = tallies.iter().find(|(name, _)| *name == identity.name).map(|(_, tally)| tally);
                IdentityStatus {
                    name: identity.name.clone(),
                    mode: match identity.mode {
                        _ if self.observes() => Mode::Observe,
                        proxy_policy::Mode::Enforce => Mode::Enforce,
                        proxy_policy::Mode::Observe => Mode::Observe,
                    },
                    unmatched: match identity.unmatched {
                        Unmatched::Deny => Treatment::Deny,
                        Unmatched::Pass => Treatment::Pass,
                    },
                    calls_allowed: tally.map_or(0, |tally| tally.allowed()),
                    calls_denied: tally.map_or(0, |tally| tally.denied()),
                }
            })
            .collect()
    }

    fn observes(&self) -> bool {
        self.config.mode == config::Mode::Observe
    }

    fn unidentified(&self) -> Treatment {
        match self.config.unidentified {
            Unidentified::Deny if self.observes() => Treatment::Observe,
            Unidentified::Deny => Treatment::Deny,
            Unidentified::Pass => Treatment::Pass,
        }
    }

    fn who(&self, arguments: &Map<String, Value>) -> Result<Value, Failure> {
        let who = Who {
            matcher: &self.matcher,
            programs: &self.programs,
            workloads: &self.workloads,
            policy: &self.services.policy,
            unidentified: self.unidentified(),
        };
        let report = who.tell(&who::Target::from_arguments(arguments)?)?;
        serde_json::to_value(report).map_err(|error| {
            Failure::new("internal", format!("the reply could not be written: {error}"), "report this")
        })
    }

    fn table(&self) -> Result<Value, Failure> {
        let live = self.services.policy.live();
        let table = plan::LiveTable { generation: live.generation(), table: live.set().table() };
        serde_json::to_value(table).map_err(|error| {
            Failure::new("internal", format!("the reply could not be written: {error}"), "report this")
        })
    }

    fn credentials(&self) -> Result<Value, Failure> {
        let live = self.services.policy.live();
        let set = live.set();
        let at = |seconds: u64| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let all: Vec<_> = set
            .credentials()
            .map(|credential| {
                let state = live.live_credential(credential.id).map(|live| live.state());
                let (last_used, last_used_by) = state.as_ref().and_then(|it| it.used.clone()).unzip();
                CredentialReport {
                    name: credential.name.clone(),
                    kind: credential.kind.as_str().to_owned(),
                    source: credential.kind.source(),
                    apis: credential.apis.iter().filter_map(|id| Some(set.api(*id)?.name.clone())).collect(),
                    insecure: credential.insecure.map(|place| place.as_str().to_owned()),
                    version: state.as_ref().and_then(|it| it.version),
                    since: state.as_ref().and_then(|it| it.since_s).map(at),
                    last_used: last_used.map(at),
                    last_used_by,
                    secrets: state.iter().flat_map(|it| &it.about).map(secret_report).collect(),
                    problem: state.and_then(|it| it.problem),
                }
            })
            .collect();
        serde_json::to_value(all).map_err(|error| {
            Failure::new("internal", format!("the reply could not be written: {error}"), "report this")
        })
    }

    fn test_credential(&self, arguments: &Map<String, Value>) -> Result<Value, Failure> {
        let order = serde_json::from_value(Value::Object(arguments.clone())).map_err(|_| {
            let help = "send {\"command\":\"credential-test\",\"name\":\"x\"}";
            Failure::new("arguments", "the request names no credential", help)
        })?;
        let report = probe::test(&self.services, &order)?;
        serde_json::to_value(report).map_err(|error| {
            Failure::new("internal", format!("the reply could not be written: {error}"), "report this")
        })
    }

    fn rotate_secret(&self, peer: Peer, arguments: &Map<String, Value>) -> Result<Value, Failure> {
        let report = self.rotator.rotate(&RotateOrder::of(peer, arguments)?)?;
        serde_json::to_value(report).map_err(|error| {
            Failure::new("internal", format!("the reply could not be written: {error}"), "report this")
        })
    }

    fn rotate_ca(&self, peer: Peer, arguments: &Map<String, Value>) -> Result<Value, Failure> {
        let order = RotateCa::of(peer, arguments)?;
        let ca = self.authority.ca();
        ca.rotate(order.at_once).map_err(|error| {
            let message = format!("there is no new generation of the CA: {}", chain(&error));
            Failure::new("ca", message, "the one before goes on")
        })?;
        self.authority.note(&self.services.recorder, Why::Asked, Some(order.by));
        let generations = ca.generations();
        let newest = generations.first().map(|(newest, _)| newest);
        let report = RotateCaReport {
            generation: newest.map_or(0, |newest| newest.number),
            roots: newest.iter().flat_map(|it| &it.roots).map(CaCertificate::fingerprint).collect(),
            former: generations.iter().skip(1).map(|(it, end)| (it.number, rfc3339((*end).into()))).collect(),
        };
        serde_json::to_value(report).map_err(|error| {
            Failure::new("internal", format!("the reply could not be written: {error}"), "report this")
        })
    }

    fn rotate_journal_key(&self, peer: Peer) -> Result<Value, Failure> {
        journal::may_rotate(peer)?;
        let key = self.services.recorder.hand_over("it was asked for").map_err(|error| {
            Failure::new(
                "journal",
                format!("the key goes on signing: {}", chain(&error)),
                "see to the journal",
            )
        })?;
        let report = journal::RotateKeyReport { key: key.to_string() };
        serde_json::to_value(report).map_err(|error| {
            Failure::new("internal", format!("the reply could not be written: {error}"), "report this")
        })
    }

    fn ca(&self) -> CaStatus {
        let generations = self.authority.ca().generations();
        let newest = generations.first().map(|(newest, _)| newest);
        CaStatus {
            generation: newest.map_or(0, |newest| newest.number),
            permits: number(newest.map_or(0, |newest| newest.permits.len())),
            until: newest.map(|newest| rfc3339(newest.not_after.into())).unwrap_or_default(),
            former: number(generations.len().saturating_sub(1)),
        }
    }

    fn kernel(&self) -> KernelStatus {
        let programs: Vec<String> = self.kernel.programs().into_iter().map(str::to_owned).collect();
        let all = self.kernel.expected_programs();
        let missing = (programs.len() < all)
            .then(|| format!("only {} of {all} programs are attached; restart vouchsafe", programs.len()));
        let mut counters: Vec<(String, u64)> =
            self.kernel.counters().into_iter().map(|(name, count)| (name.to_owned(), count)).collect();
        let without_origin = self.without_origin.load(std::sync::atomic::Ordering::Relaxed);
        counters.push(("accepted_without_origin".to_owned(), without_origin));
        counters.push(("namespaces_served".to_owned(), number(self.namespaces.count())));
        counters.push((bounds::NAMESPACES_REFUSED.to_owned(), self.namespaces.refused()));
        counters.push(("events_merged".to_owned(), self.services.counters.merged()));
        counters.push((proxy_journal::Bound::REFUSALS.to_owned(), self.services.counters.unrecorded()));
        KernelStatus {
            attached_cgroup: self.governed.display().to_string(),
            pin_dir: self.config.kernel.pin.display().to_string(),
            programs,
            ports: self.config.ports(),
            origins_in_map: number(self.origins.len()),
            counters,
            lacks: self.kernel.lacks(),
            protect: match self.kernel.protecting() {
                Protecting::On => Protect::On,
                Protecting::Off => Protect::Off,
                Protecting::Unavailable(why) => Protect::Unavailable { problem: why.clone() },
            },
            health: Health::failed_if(missing),
        }
    }
}

impl Handler for DaemonHandler {
    fn status(&self) -> Status {
        let live = self.services.policy.live();
        let summary = live.set().summary();
        let last = self.reloader.last();
        let journal = self.services.recorder.health();
        let unidentified = self.unidentified();
        let sinks = self.sinks.health();
        let sinks: Vec<SinkStatus> = sinks.into_iter().map(sink_status).collect();
        let journald = sinks.iter().find(|sink| sink.name == config::JOURNALD);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: rfc3339(self.started),
            uptime_s: self.running.elapsed().as_secs(),
            observes: self.observes(),
            mode: match unidentified {
                _ if self.observes() => {
                    "OBSERVING: nothing is denied by policy, what would be is recorded".to_owned()
                }
                Treatment::Observe => "OBSERVING".to_owned(),
                Treatment::Deny => "enforcing; workloads that no policy knows are denied".to_owned(),
                Treatment::Pass => {
                    "enforcing for identities; workloads that no policy knows PASS to hosts that no API names"
                        .to_owned()
                }
            },
            kernel: self.kernel(),
            policy: PolicyStatus {
                generation: live.generation(),
                loaded_at: rfc3339(last.at),
                identities: self.identities(),
                apis: number(summary.apis),
                roles: number(summary.roles),
                credentials: number(summary.credentials),
                rules: number(summary.rules),
                last_error: last.errors.clone(),
            },
            unidentified,
            journal: JournalStatus {
                path: self.config.journal_dir().display().to_string(),
                records: journal.head.seq,
                durability: match journal.durability {
                    Durability::Fast => "fast".to_owned(),
                    Durability::Sync => "sync".to_owned(),
                },
                segment: journal.segment,
                spilled: journal.spilled,
                key: journal.key.to_string(),
                unsigned: journal.unsigned,
                unsynced_ms: journal
                    .sync_lag
                    .map_or(0, |lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
                witnesses: self.witnesses.status(),
                health: Health::failed_if(journal.error),
            },
            journald: journald.map(|sink| sink.health.clone()).unwrap_or_default(),
            sinks,
            secrets: SecretsStatus {
                count: number(self.services.credentials.count()),
                health: match self.services.credentials.problem() {
                    Some(problem) => Health::failed_if(Some(problem)),
                    None => Health::degraded_if(broken_credentials(&live)),
                },
            },
            ca: self.ca(),
            listeners: self.listeners.clone(),
            connections_open: self.services.counters.open(),
        }
    }

    fn reload(&self, by: Option<Person>) -> Result<ReloadReport, Failure> {
        self.reload_secrets(by)?;
        self.reloader.reload()
    }

    fn reload_secrets(&self, by: Option<Person>) -> Result<SecretsReport, Failure> {
        let reloaded = self.services.credentials.reload();
        self.rotator.note_changed(by.as_ref());
        match reloaded {
            Ok(count) => Ok(SecretsReport { count: number(count) }),
            Err(error) => Err(Failure::new("secrets", error.to_string(), "the secrets read before go on")),
        }
    }

    fn detach(&self, order: detach::Order) -> Result<detach::Report, Failure> {
        let pin = &self.config.kernel.pin;
        let programs: Vec<String> = kernel::attached(pin).into_iter().map(str::to_owned).collect();
        let (by, pin_dir) = (order.by, pin.display().to_string());
        tracing::warn!(
            uid = by.uid,
            pid = by.pid,
            login_uid = by.login_uid,
            "told to take the kernel side off"
        );
        let record =
            |error| Detach { by: by.clone(), pin: pin_dir.clone(), programs: programs.clone(), error };
        let noted = self.services.recorder.note(Record::Detach(record(None)));
        let unrecorded = noted.err().map(|error| chain(&error));
        if let Some(why) = unrecorded.as_ref().filter(|_| !order.force) {
            let message = format!("nothing was taken off, because it cannot be journalled: {why}");
            return Err(Failure::new("journal", message, "see to the journal, or use --force"));
        }
        if let Err(error) = kernel::detach(pin) {
            let why = error.to_string();
            let _ = self.services.recorder.note(Record::Detach(record(Some(why.clone()))));
            let message = format!("cannot take the kernel side off {pin_dir}: {why}");
            return Err(Failure::new("detach", message, "try again; what is left is in `vouchsafe status`"));
        }
        tracing::warn!("the kernel side is off: nothing is governed until the next start");
        Ok(detach::Report { programs, unrecorded })
    }

    fn other(
        &self,
        peer: Peer,
        command: &str,
        arguments: &Map<String, Value>,
    ) -> Option<Result<Value, Failure>> {
        match command {
            who::COMMAND => Some(self.who(arguments)),
            plan::COMMAND => Some(self.table()),
            credentials::COMMAND => Some(self.credentials()),
            credentials::TEST_COMMAND => Some(self.test_credential(arguments)),
            journal::ROTATE_KEY_COMMAND => Some(self.rotate_journal_key(peer)),
            ca::ROTATE_COMMAND => Some(self.rotate_ca(peer, arguments)),
            credentials::ROTATE_COMMAND => Some(self.rotate_secret(peer, arguments)),
            _ => None,
        }
    }
}

/// A sink as `status` tells it.
fn sink_status(sink: SinkHealth) -> SinkStatus {
    let absent = sink.state == SinkState::Absent;
    let problem = match sink.state {
        SinkState::Failing(why) => Some(why),
        SinkState::Ok | SinkState::Absent => None,
    };
    SinkStatus {
        name: sink.name,
        to: sink.to,
        health: Health::degraded_if(problem),
        absent,
        sent: sink.sent,
        rejected: sink.rejected,
        lost: sink.lost,
        behind: sink.behind,
        behind_s: sink.behind_s,
        last_error: sink.last_error,
    }
}
