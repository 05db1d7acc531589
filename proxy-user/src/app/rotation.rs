//! Makes secrets anew when it is time, and when somebody says so; one at a time.
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{Rotation, Rotations},
    connection::Services,
    control::{
        Failure,
        credentials::{RotateOrder, RotateReport},
    },
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
}

impl Rotator {
    pub(super) fn new(rotations: Rotations, services: Arc<Services>) -> Self {
        Self { rotations, services, one: tokio::sync::Mutex::default() }
    }

    /// Makes a secret anew. Blocks; must not be called on a thread of the runtime.
    pub(super) fn rotate(&self, order: &RotateOrder) -> Result<RotateReport, Failure> {
        let Some(rotation) = self.rotations.get(&order.name) else {
            let message =
                format!("the configuration does not say how the secret {:?} is made anew", order.name);
            let help = format!(
                "add [rotation.{:?}] with make = [\"/PATH/OF/A/PROGRAM\"], and restart the daemon",
                order.name
            );
            return Err(Failure::new("rotation", message, help));
        };
        tokio::runtime::Handle::current().block_on(self.make_anew(&order.name, rotation))
    }

    async fn make_anew(&self, name: &str, rotation: &Rotation) -> Result<RotateReport, Failure> {
        let _one = self.one.lock().await;
        let live = self.services.policy.live();
        let rotated = self.services.credentials.rotate(name, rotation, live.set()).await;
        let rotated = rotated.map_err(|error| {
            tracing::error!("{error}");
            Failure::new("rotation", error.to_string(), "")
        })?;
        tracing::info!(version = rotated.version, "the secret {name} was made anew");
        let overlap_s = rotation.overlap.as_secs();
        Ok(RotateReport { version: rotated.version, tried: rotated.tried, overlap_s })
    }

    /// Ends and makes what is due, until dropped.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut left_alone: HashMap<&str, Instant> = HashMap::new();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for (name, rotation) in &self.rotations {
                if left_alone.get(name.as_str()).is_some_and(|until| Instant::now() < *until) {
                    continue;
                }
                let due = {
                    let _one = self.one.lock().await;
                    self.services.credentials.end_due(name, rotation).await
                };
                let went = match due {
                    Ok(true) => self.make_anew(name, rotation).await.is_ok(),
                    Ok(false) => true,
                    Err(error) => {
                        tracing::error!("{error}");
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
