//! All tests of the whole thing; one binary, a module per subject. The harness is described at the crate `tests`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod addresses;
mod attacks;
mod audit;
mod bounds;
mod calls;
mod captures;
mod detach;
mod evidence;
mod conformance;
mod containers;
mod credentials;
mod standing;
mod startup;
mod journal;
mod identity;
mod limits;
mod main_path;
mod mediation;
mod namespaces;
mod policy_tools;
mod protect;
mod policy;
mod observe;
mod proxied;
mod redaction;
mod replay;
mod routes;
mod runtimes;
mod scripts;
mod sinks;
mod stores;
mod storm;
mod systemd;
mod trouble;
mod trust;
mod tunnels;
mod upgrade;
mod uplink;
mod who;
mod writers;
