//! The daemon and the command line, in the order in which a call flows. A module uses only those above it.

pub mod base;
pub mod config;
pub mod kernel;
pub mod workload;
pub mod accept;
pub mod sniff;
pub mod trust;
pub mod doctor;
pub mod uplink;
pub mod record;
pub mod credentials;
pub mod sinks;
pub mod limits;
pub mod authorize;
pub mod http1;
pub mod http2;
pub mod http;
pub mod forward;
pub mod connection;
pub mod control;
pub mod app;
pub mod stores;
pub mod cli;
