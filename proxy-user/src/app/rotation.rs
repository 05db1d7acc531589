//! Makes secrets anew when it is time, and when somebody says so; one at a time.
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use proxy_journal::{Person, Record, SecretChange, SecretStep};

use crate::{
    config::{Rotation, Rotations},
    connection::Services,
    control::{
        Failure,
        credentials::{RotateOrder, RotateReport},
    },
    credentials::{RotationError, Step},
};

/// How late it is noticed that something is due, at most.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long what failed is left alone.
const PAUSE: Duration = Duration::from_secs(600);

/// The rotations of the configuration.
pub(super) struct Rotator {
    rotations: Rotations,
    services: Arc<Services>,
    one: tokio::sync::Mutex<()>,
    /// What somebody changed that could not be taken down yet.
    untold: Mutex<VecDeque<SecretChange>>,
}

impl Rotator {
    pub(super) fn new(rotations: Rotations, services: Arc<Services>) -> Self {
        Self { rotations, services, one: tokio::sync::Mutex::default(), untold: Mutex::default() }
    }

    /// Makes a secret anew. Blocks; must not be called on a thread of the runtime.
    pub(super) fn rotate(&self, order: &RotateOrder) -> Result<RotateReport, Failure> {
        let Some(rotation) = self.rotations.get(&order.name) else {
            let message =
                format!("the configuration does not say how the secret {:?} is made anew", order.name);
            let help = format!(
                "add [rotation.{:?}] with make = [\"/PATH/OF/A/PROGRAM\"] or a provider, and restart the daemon",
                order.name
            );
            return Err(Failure::new("rotation", message, help));
        };
        tokio::runtime::Handle::current().block_on(self.make_anew(&order.name, rotation, Some(&order.by)))
    }

    async fn make_anew(
        &self,
        name: &str,
        rotation: &Rotation,
        by: Option<&Person>,
    ) -> Result<RotateReport, Failure> {
        let _one = self.one.lock().await;
        let live = self.services.policy.live();
        let note = |step: Step<'_>| self.note_step(name, step, by);
        let rotated = self.services.credentials.rotate(name, rotation, live.set(), &note).await;
        let rotated = rotated.map_err(|error| {
            self.note_failure(name, &error, by);
            Failure::new("rotation", error.to_string(), "")
        })?;
        tracing::info!(version = rotated.version, "the secret {name} was made anew");
        let overlap_s = rotation.overlap.as_secs();
        Ok(RotateReport { version: rotated.version, tried: rotated.tried, overlap_s })
    }

    /// Takes down what somebody changed in the store, and what could not be taken down before; `by` has just said that it is to be
    /// read again.
    pub(super) fn note_changed(&self, by: Option<&Person>) {
        let found = self.services.credentials.take_changed();
        let is_new = !found.is_empty();
        let change = |(secret, version): (String, Option<u64>)| {
            let change = if version.is_some() { SecretStep::Set } else { SecretStep::Removed };
            SecretChange { secret, change, version, tried: Vec::new(), by: by.cloned(), error: None }
        };
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.extend(found.into_iter().map(change));
        while let Some(change) = untold.pop_front() {
            if let Err(error) = self.services.recorder.note(Record::Secret(change.clone())) {
                untold.push_front(change);
                if is_new {
                    tracing::error!("a change of a secret is not in the journal yet: {error}");
                }
                return;
            }
        }
    }

    fn note_step(&self, name: &str, step: Step<'_>, by: Option<&Person>) -> Result<(), String> {
        let (change, version, tried) = match step {
            Step::Rotated { version, tried } => (SecretStep::Rotated, Some(version), tried),
            Step::Ended { version } => (SecretStep::Ended, Some(version), &[][..]),
            Step::Discarded => (SecretStep::Discarded, None, &[][..]),
        };
        let (secret, tried, by) = (name.to_owned(), tried.to_vec(), by.cloned());
        self.note(SecretChange { secret, change, version, tried, by, error: None })
    }

    fn note_failure(&self, name: &str, error: &RotationError, by: Option<&Person>) {
        tracing::error!("{error}");
        let (secret, what, by) = (name.to_owned(), Some(error.what.clone()), by.cloned());
        let change = SecretStep::Failed;
        let record = SecretChange { secret, change, version: None, tried: Vec::new(), by, error: what };
        if let Err(error) = self.note(record) {
            tracing::error!("that a secret was not made anew is not in the journal yet: {error}");
        }
    }

    /// Takes it down; later, if that is not possible now and it has happened already.
    fn note(&self, change: SecretChange) -> Result<(), String> {
        let noted = self.services.recorder.note(Record::Secret(change.clone()));
        if noted.is_err() && change.change != SecretStep::Rotated {
            self.untold.lock().unwrap_or_else(PoisonError::into_inner).push_back(change);
        }
        noted.map_err(|error| error.to_string())
    }

    /// Ends and makes what is due, until dropped.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut left_alone: HashMap<&str, Instant> = HashMap::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.note_changed(None);
            for (name, rotation) in &self.rotations {
                if left_alone.get(name.as_str()).is_some_and(|until| Instant::now() < *until) {
                    continue;
                }
                let due = {
                    let _one = self.one.lock().await;
                    let note = |step: Step<'_>| self.note_step(name, step, None);
                    self.services.credentials.end_due(name, rotation, &note).await
                };
                let went = match due {
                    Ok(true) => self.make_anew(name, rotation, None).await.is_ok(),
                    Ok(false) => true,
                    Err(error) => {
                        self.note_failure(name, &error, None);
                        false
                    }
                };
                if went {
                    left_alone.remove(name.as_str());
                } else {
                    left_alone.insert(name, Instant::now() + PAUSE);
                }
            }
        }
    }
}
