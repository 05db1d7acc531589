//! The daemon and the command line, in the order in which a call flows. A module uses only those above it.

pub mod accept;
pub mod app;
pub mod authorize;
pub mod base;
pub mod cli;
pub mod config;
pub mod connection;
pub mod control;
pub mod credentials;
pub mod forward;
pub mod http;
pub mod kernel;
pub mod record;
pub mod sniff;
pub mod trust;
pub mod workload;
