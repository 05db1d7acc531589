//! The CA follows the policy: it permits the hosts that are intercepted, and no others.

use std::sync::Arc;
use std::time::Duration;

use proxy_journal::{CaChange, Person, Record};
use proxy_policy::{PolicySet, Scheme};

use crate::config;
use crate::connection::Services;
use crate::record::Recorder;
use crate::trust::{Ca, CaCertificate, CaError, Permitted, Terms, Why};

/// How often it is looked at what is over, and what is no longer intercepted.
const EVERY: Duration = Duration::from_secs(60 * 60);

/// How soon after the start that is done first: a start shall not wait for it.
const FIRST: Duration = Duration::from_secs(60);

/// How long generations last, as the configuration says.
pub(super) fn terms(config: &config::Ca) -> Terms {
    let seconds = |time: Duration| time::Duration::seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    Terms { lifetime: seconds(config.lifetime), overlap: seconds(config.overlap) }
}

/// The CA, and what it permits beside what a policy names.
pub(super) struct Authority {
    ca: Arc<Ca>,
    also: Vec<String>,
}

impl Authority {
    pub(super) fn new(ca: Arc<Ca>, config: &config::Ca) -> Self {
        Self { ca, also: config.permit.clone() }
    }

    /// The CA itself.
    pub(super) fn ca(&self) -> &Ca {
        &self.ca
    }

    /// Before `set` goes live: from then on its hosts are intercepted. Blocks on the disk.
    pub(super) fn require(&self, set: &PolicySet) -> Result<Option<Why>, CaError> {
        self.ca.require(&self.permitted(set))
    }

    /// Records that there is a new generation, and says what is to be done about it. What stores trust is not ours to change: a unit
    /// of systemd does it.
    pub(super) fn note(&self, recorder: &Recorder, why: Why, by: Option<Person>) {
        let generations = self.ca.generations();
        let Some((newest, _)) = generations.first() else { return };
        let change = CaChange {
            generation: newest.number,
            reason: why.to_string(),
            hosts: u64::try_from(newest.permits.len()).unwrap_or(u64::MAX),
            roots: newest.roots.iter().map(CaCertificate::fingerprint).collect(),
            former: generations.iter().skip(1).map(|(former, _)| former.number).collect(),
            by,
        };
        if let Err(error) = recorder.note(Record::Ca(change)) {
            tracing::error!(%error, "the journal does not take the record of a new generation of the CA");
        }
        tracing::info!(
            "there are new roots, because {why}: `vouchsafe trust refresh` brings them to the stores, where the unit vouchsafe-trust.path does not"
        );
    }

    /// Ends what is over, and makes anew what ends or permits too much; until dropped.
    pub(super) async fn keep(self: Arc<Self>, services: Arc<Services>) {
        let mut wait = FIRST;
        let mut told = String::new();
        loop {
            tokio::time::sleep(wait).await;
            wait = EVERY;
            let (this, live) = (Arc::clone(&self), services.policy.live());
            let kept = tokio::task::spawn_blocking(move || this.ca.keep(&this.permitted(live.set()))).await;
            match kept {
                Ok(Ok(Some(why))) => self.note(&services.recorder, why, None),
                Ok(Err(error)) if told != error.to_string() => {
                    tracing::error!("the CA is not kept up to date, which is tried again: {error}");
                    told = error.to_string();
                }
                _ => {}
            }
        }
    }

    fn permitted(&self, set: &PolicySet) -> Permitted {
        let hosts = set.hosts(Scheme::Https).map(proxy_policy::ApiHost::name);
        Permitted::new(hosts.chain(self.also.iter().map(String::as_str)))
    }
}
