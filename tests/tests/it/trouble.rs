//! Bad input and trouble: what a person is told, what a bot gets, what the upstream never sees, and that the daemon lives.

mod again;
mod answers;
mod clients;
mod fidelity;
mod files;
mod floods;
mod pseudo;
mod requests;
mod secrets;
mod smuggling;
mod streams;
mod upstreams;

use serde_json::Value;
use tests::World;
use tests::upstream::Upstream;
use tests::wire::Dialer;

/// The place where [`Upstream`] listens.
const RAW: &str = "203.0.113.11:443";

/// A running daemon, a bot that dials for the test, and an upstream that speaks HTTP/1.1.
///
/// In this order: what is declared first is dropped first.
struct Scene {
    dialer: Dialer,
    upstream: Upstream,
    world: World,
}

impl Scene {
    fn set() -> Self {
        Self::with(World::new())
    }

    fn with(world: World) -> Self {
        world.daemon();
        let upstream = Upstream::http1(&world);
        Self { dialer: Dialer::new(&world), upstream, world }
    }

    /// The decisions to deny so far.
    fn denials(&self) -> Vec<Value> {
        self.world.journal().into_iter().filter(|record| record["verdict"] == "deny").collect()
    }

    /// A granted call gets through: after whatever came before, the daemon serves.
    #[track_caller]
    fn still_serves(&self) {
        let answer = self.world.curl(&["https://api.test/v1/still"]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// The outcome of the last call of a path, waited for.
#[track_caller]
pub(crate) fn outcome(world: &World, path: &str) -> Value {
    let id = world.decision(Some(path))["id"].clone();
    world.record("outcome", |record| record["id"] == id)
}
