//! What every kind of credential can do: give what a call needs, at once if it is at hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::attach::Attachment;
use super::error::CredentialError;
use super::inject::Inject;

/// For which call a credential is wanted.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// The name of the identity that calls. What is obtained on its behalf is for it alone.
    pub identity: &'a str,
    /// The name of the API.
    pub api: &'a str,
    /// The host that is called, which will have to prove its name.
    pub host: &'a str,
    /// The process that calls, as far as tokens may tell of it.
    pub workload: AskedBy<'a>,
    /// How the API wants it; `None` for kinds that know that themselves.
    pub inject: Option<&'a Arc<Inject>>,
}

/// What the kernel captured of the process that calls. Labels are not in here: what stands in a token is believed.
#[derive(Debug, Clone, Copy, Default)]
pub struct AskedBy<'a> {
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// The systemd unit, if it is in one.
    pub unit: Option<&'a str>,
}

/// What comes of asking a credential.
pub type Provided = Result<Attachment, CredentialError>;

/// What is awaited where a credential is not at hand.
pub(super) type Providing<'a> = Pin<Box<dyn Future<Output = Provided> + Send + 'a>>;

/// A credential of one kind at work. `provide` is only called after `ready` gave nothing.
pub(super) trait Provider: Send + Sync + 'static {
    /// What is at hand: never waits, and is on the way of every call. `None`: it must be obtained first.
    fn ready(&self, ask: &Ask<'_>) -> Option<Provided>;

    /// Obtains it. Calls that ask at the same time for the same wait together for one answer.
    fn provide<'a>(&'a self, ask: &'a Ask<'a>) -> Providing<'a>;
}
