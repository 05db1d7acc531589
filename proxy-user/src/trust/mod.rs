//! The two TLS legs and the certificates behind them: all that touches rustls.
//!
//! Towards the bot we are the API: [`BotTls`] answers with a leaf that the host's own [`Ca`] signed. Towards the API
//! we are an ordinary client: [`UpstreamTls`] verifies the server for exactly the name that was called.
//!
//! Invariant: no configuration here can turn verification off, log session keys or send early data, and the
//! process-wide default crypto provider is never used.

mod alert;
mod alpn;
mod ca;
mod ca_certificate;
mod ca_error;
mod cache;
mod client;
mod client_identity;
mod files;
mod generation;
mod leaf;
mod names;
mod pem;
mod permitted;
mod private_key;
mod reading;
mod roots;
mod server;
mod x509;

use std::sync::{Arc, LazyLock};

use rustls::crypto::CryptoProvider;
use time::OffsetDateTime;

pub use alert::{Alert, refuse};
pub use alpn::Alpn;
pub use ca::{Ca, Terms, Why};
pub use ca_certificate::CaCertificate;
pub use ca_error::CaError;
pub use client::{ConnectError, UpstreamFault, UpstreamTls};
pub use client_identity::{ClientIdentity, ClientIdentityError};
pub use files::FileError;
pub use generation::{About, KeyKind};
pub use leaf::{LeafError, Leaves};
pub use names::BadHost;
pub use permitted::Permitted;
pub use private_key::{KeyForm, PrivateKeyError, PrivateKeyPem};
pub use reading::{certificates, to_pem};
pub use roots::{RootsError, SystemRoots, bundle};
pub use server::{AcceptError, BotTls, refused_by};

/// A bot's connection whose TLS ends here.
pub type BotStream = tokio_rustls::server::TlsStream<crate::base::ahead::ReadAhead>;

/// A verified connection to an API.
pub type UpstreamStream = tokio_rustls::client::TlsStream<crate::base::ahead::ReadAhead>;

/// A connection of our own whose TLS is verified.
pub type VerifiedStream = tokio_rustls::client::TlsStream<tokio::net::TcpStream>;

/// The cryptography of every configuration: aws-lc-rs with the suites that rustls takes for safe.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// The wall clock, by which certificates are valid.
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

#[cfg(test)]
mod tests;
