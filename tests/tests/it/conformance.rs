//! Conformance with stacks of others: what they speak goes through, and what none of them should speak is answered as the
//! standards say.

mod flows;
mod frames;
mod grpc;
mod interim;
mod tls;
mod websocket;

use std::path::PathBuf;

use serde_json::Value;
use tests::World;

use super::credentials::packages;

/// Packages of Python that bots and servers here are made of.
fn python_packages() -> PathBuf {
    packages::install("conformance-python", include_str!("conformance/requirements.txt"))
}

/// Packages of Node; scripts that lie beside them find them.
fn node_packages() -> PathBuf {
    let package = include_str!("conformance/package.json");
    packages::npm("conformance-node", package, include_str!("conformance/package-lock.json"))
}

/// The outcome of the last call of a path, waited for.
#[track_caller]
fn outcome(world: &World, path: &str) -> Value {
    let id = world.decision(Some(path))["id"].clone();
    world.record("outcome", |record| record["id"] == id)
}
