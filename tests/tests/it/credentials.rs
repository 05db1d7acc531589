//! The kinds of credentials, each against a server that checks it, with unmodified clients through the daemon.

mod aws;
mod canary;
mod exec;
mod github_app;
mod hmac;
mod issuer;
mod jwt;
mod loopback;
mod labels;
mod mtls;
pub(crate) mod packages;
mod of_unit;
mod places;
mod oauth2;
mod probe;
mod rotation;
mod rotation_providers;
mod sealed_key;
mod sources;
mod token_endpoint;
