//! All tests of the whole thing; one binary, a module per subject. The harness is described at the crate `tests`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod attacks;
mod calls;
mod startup;
mod journal;
mod identity;
mod main_path;
mod mediation;
mod namespaces;
mod policy;
mod routes;
mod systemd;
mod trouble;
mod who;
mod writers;
