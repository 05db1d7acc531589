//! `kind = "static"`: a secret as it is, composed into what each API wants once and not for each call.

use std::sync::{Arc, PoisonError, RwLock, Weak};

use proxy_policy::StaticCredential;

use super::super::attach::Attachment;
use super::super::error::CredentialError;
use super::super::inject::Inject;
use super::super::provider::{Ask, Provided, Provider, Providing};
use super::super::secret::Secret;
use super::super::sources::{Held, SourceError, Sources};

/// How many composed attachments are kept. The APIs of one credential are far below.
const MAX_COMPOSED: usize = 256;

/// A static credential at work.
pub(super) struct StaticSecret {
    name: Arc<str>,
    kind: StaticCredential,
    sources: Arc<Sources>,
    composed: RwLock<Vec<Composed>>,
}

struct Composed {
    /// Of which the attachment was made.
    secret: Weak<Secret>,
    inject: Arc<Inject>,
    attachment: Attachment,
}

impl Composed {
    fn is_of(&self, secret: &Arc<Secret>) -> bool {
        std::ptr::eq(self.secret.as_ptr(), Arc::as_ptr(secret))
    }

    fn serves(&self, secret: &Arc<Secret>, inject: &Arc<Inject>) -> bool {
        self.is_of(secret) && (Arc::ptr_eq(&self.inject, inject) || self.inject == *inject)
    }
}

impl StaticSecret {
    pub(super) fn new(name: Arc<str>, kind: StaticCredential, sources: Arc<Sources>) -> Self {
        Self { name, kind, sources, composed: RwLock::default() }
    }

    fn attachment(&self, held: Result<Held, SourceError>, ask: &Ask<'_>) -> Provided {
        let held = match held {
            Ok(held) => held,
            Err(error) => {
                // What was composed of a secret that is gone goes too.
                self.composed.write().unwrap_or_else(PoisonError::into_inner).clear();
                return Err(CredentialError::source(&self.name, error));
            }
        };
        let inject = ask.inject.ok_or_else(|| CredentialError::no_inject(&self.name, ask.api))?;
        if let Some(attachment) = self.known(&held, inject) {
            return Ok(attachment);
        }
        let secret_name = self.kind.secret.name();
        let attachment =
            Attachment::compose(inject, &held.secret, secret_name, held.version).map_err(|_| {
                CredentialError::Unfit {
                    credential: self.name.to_string(),
                    name: secret_name.to_owned(),
                    place: inject.to_string(),
                }
            })?;
        self.keep(&held, inject, &attachment);
        Ok(attachment)
    }

    fn known(&self, held: &Held, inject: &Arc<Inject>) -> Option<Attachment> {
        let composed = self.composed.read().unwrap_or_else(PoisonError::into_inner);
        composed.iter().find(|it| it.serves(&held.secret, inject)).map(|it| it.attachment.clone())
    }

    fn keep(&self, held: &Held, inject: &Arc<Inject>, attachment: &Attachment) {
        let mut composed = self.composed.write().unwrap_or_else(PoisonError::into_inner);
        // Nothing of an earlier version stays in memory.
        composed.retain(|it| it.is_of(&held.secret) && !it.serves(&held.secret, inject));
        if composed.len() >= MAX_COMPOSED {
            composed.clear();
        }
        composed.push(Composed {
            secret: Arc::downgrade(&held.secret),
            inject: Arc::clone(inject),
            attachment: attachment.clone(),
        });
    }
}

impl Provider for StaticSecret {
    fn ready(&self, ask: &Ask<'_>) -> Option<Provided> {
        Some(self.attachment(self.sources.held(&self.kind.secret)?, ask))
    }

    fn provide<'a>(&'a self, ask: &'a Ask<'a>) -> Providing<'a> {
        Box::pin(async move { self.attachment(self.sources.fetch(&self.kind.secret).await, ask) })
    }
}
