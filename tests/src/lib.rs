//! The whole thing through real sockets and a real kernel: the harness that the tests in `tests/it` stand on.
//!
//! A [`World`] is one host in small, with a name of its own, so that several stand beside each other:
//!
//! ```text
//! cgroup  vouchsafe-test-PID-N/governed          what the daemon attaches to
//!                             /governed/daemon   the daemon
//!                             /governed/bots     bots, unless Bot::cgroup says otherwise
//!                             /outside           API servers, and bots with Bot::outside
//! network a namespace with loopback only; the API servers' addresses are on it, so no packet leaves the host
//! hosts   an /etc/hosts of its own: api.test and plain.test (nginx), raw.test (raw.py), other.test (no API), v6.test
//! folder  etc/ (policies) state/ run/ bots/ elsewhere/ api/ vouchsafe.toml daemon.log
//! ```
//!
//! How a test reads:
//!
//! ```no_run
//! use tests::World;
//! let world = World::new();               // nginx runs; policies and secret are there; no daemon yet
//! world.set("limits.sniff_timeout", "\"300ms\"");   // a key of vouchsafe.toml, as TOML
//! world.policy("policies/robot.toml", "…"); // any file below the policy root; {root} is the world's folder
//! world.daemon();                          // starts it and waits until it says that it is ready
//! let answer = world.curl(&["https://api.test/v1/x"]);
//! assert_eq!(answer.status, 200);
//! let record = world.record("decision", |record| record["verdict"] == "allow"); // waits for it
//! world.kill9();                           // or terminate(), restart(), hangup(), reload()
//! ```
//!
//! * [`World::start`] is `new` and `daemon` in one. [`World::start_fails`] runs a daemon that must not start and returns
//!   what it said; [`World::daemon_command`] is the bare command for other ways of starting it.
//! * [`World::vouchsafe`] runs the command line against this world; [`World::status`] is `status --json`.
//! * [`World::bot`] runs any program as a bot ([`Bot`]): curl, python3 and actor are in `bots/`. [`Bot::run`] waits for
//!   its end, [`Bot::spawn`] gives a [`Running`] that is killed when dropped.
//! * [`World::seen`] is what nginx saw, one JSON object per request, with the `authorization` header as it came.
//! * [`World::server`] starts a helper (a server, say) outside of the governed cgroup in the world's network.
//! * [`wait_until`] waits for a condition. Nothing here waits for a fixed time.
//!
//! Policies that are there from the start: the APIs `demo` (`api.test`, `raw.test`, https) and `plain` (`plain.test`,
//! http); the credential `demo-key`; the identities `curl`, `python` and `actor` for `{root}/bots/{curl,python3,actor}`,
//! each with `GET|PUT|HEAD /v1/**`, `deny` of `* /v1/forbidden/**`, and `GET /v1/**` of `plain`.
//!
//! A world cleans up when it is dropped, also by a panic; what a killed test run left is removed by the next one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot be set up fails, and says where"
)]

mod api;
mod bot;
mod daemon;
pub mod fill;
pub mod frames;
mod host;
pub mod keeper;
mod podman;
pub mod upstream;
mod wait;
pub mod wire;
mod world;

pub use api::{CANARY, STOLEN};
pub use bot::{Answer, Bot, Finished, Running, finish};
pub use host::{built, daemon as daemon_binary, xtask as xtask_binary};
pub use podman::Podman;
pub use wait::wait_until;
pub use world::{ADDRESS, ADDRESS6, ADDRESSES, RAW_ADDRESS, World};
