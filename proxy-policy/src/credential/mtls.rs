//! `kind = "mtls"`: a client certificate on the connection to the API.

use super::SecretRef;

/// A certificate by which the API's server knows who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MtlsCredential {
    /// Where the certificate is, with those that lead to its root (PEM).
    pub certificate: SecretRef,
    /// Where its private key is (PEM); the same place when both stand in one text.
    pub key: SecretRef,
}
