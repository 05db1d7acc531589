//! Connections from end to end over loopback: real TLS, real HTTP, a real journal, no kernel.

mod http;
mod packed;
mod tls;
mod trouble;
mod trust;
mod world;
