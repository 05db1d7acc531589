//! Credentials that sign: what goes into a request depends on all that is in it, so that it is made for each one.
//!
//! First [`Signer::look`] sees the request as the client sent it, before anything is removed; then what the client signed is
//! taken out, and [`Signing::sign`] puts ours in.

use std::sync::Arc;

use http::header::HeaderName;

use super::attach::{Head, Misplaced};
use super::mask::Needles;
use super::secret::Secret;
use super::sigv4::Chunks;

/// Whoever signs with a key.
pub(super) trait Signer: Send + Sync {
    /// What there is to do about a request.
    ///
    /// # Errors
    /// It cannot be signed, because of what the client wants.
    fn look(&self, head: &Head<'_>) -> Result<Arc<dyn Signing>, Misplaced>;

    /// What of the key is in a signed request, and could come back.
    fn needles(&self) -> Option<Arc<Needles>>;
}

/// One request that is to be signed.
pub(super) trait Signing: Send + Sync {
    /// How many bytes its body may have at most; `None` when the signature does not cover it, or the client says its digest.
    fn body_limit(&self) -> Option<usize>;

    /// Whether it sets this header: what the client brought under that name goes out.
    fn sets(&self, name: &HeaderName) -> bool;

    /// Takes out what the client signed with.
    ///
    /// # Errors
    /// What is left is no request any more.
    fn take_out(&self, head: &mut Head<'_>, taken: &mut Vec<(String, Secret)>) -> Result<(), Misplaced>;

    /// Signs. `body` is the whole of it where [`Signing::body_limit`] asks for it.
    ///
    /// # Errors
    /// There is no place for the signature.
    fn sign(&self, head: &mut Head<'_>, body: &[u8]) -> Result<Option<Chunks>, Misplaced>;
}
