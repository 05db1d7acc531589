//! `kind = "hmac"`: each call is signed with a shared key.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use proxy_policy::HmacCredential;

use super::super::attach::Attachment;
use super::super::error::CredentialError;
use super::super::provider::{Ask, Provided, Provider, Providing};
use super::super::secret::Secret;
use super::super::shared_key::HmacSigner;
use super::super::sources::{Held, SourceError, Sources};

/// A credential of this kind at work.
pub(super) struct Hmac {
    name: Arc<str>,
    kind: Arc<HmacCredential>,
    sources: Arc<Sources>,
    at_work: ArcSwapOption<KeyAtWork>,
}

/// What signs, and what it was made of.
struct KeyAtWork {
    secret: Weak<Secret>,
    attachment: Attachment,
}

impl Hmac {
    pub(super) fn new(name: Arc<str>, kind: &HmacCredential, sources: Arc<Sources>) -> Self {
        Self { name, kind: Arc::new(kind.clone()), sources, at_work: ArcSwapOption::empty() }
    }

    fn attachment(&self, held: Result<Held, SourceError>) -> Provided {
        let held = held.map_err(|error| {
            // What was made of a key that is gone goes too.
            self.at_work.store(None);
            CredentialError::source(&self.name, error)
        })?;
        let at_work = self.at_work.load();
        if let Some(it) =
            at_work.as_ref().filter(|it| std::ptr::eq(it.secret.as_ptr(), Arc::as_ptr(&held.secret)))
        {
            return Ok(it.attachment.clone());
        }
        let secret_name = self.kind.secret.name();
        let signer = HmacSigner::new(Arc::clone(&self.kind), &held.secret).ok_or_else(|| {
            CredentialError::NotObtained {
                credential: self.name.to_string(),
                problem: format!(
                    "the key {secret_name} is not written as its key_encoding says; set it again"
                ),
            }
        })?;
        let attachment = Attachment::of_signer(Arc::new(signer), secret_name, held.version);
        let secret = Arc::downgrade(&held.secret);
        self.at_work.store(Some(Arc::new(KeyAtWork { secret, attachment: attachment.clone() })));
        Ok(attachment)
    }
}

impl Provider for Hmac {
    fn ready(&self, _ask: &Ask<'_>) -> Option<Provided> {
        Some(self.attachment(self.sources.held(&self.kind.secret)?))
    }

    fn provide<'a>(&'a self, _ask: &'a Ask<'a>) -> Providing<'a> {
        Box::pin(async move { self.attachment(self.sources.fetch(&self.kind.secret).await) })
    }
}
