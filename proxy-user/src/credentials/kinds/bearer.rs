//! A token that was obtained, as APIs want it.

use std::sync::Arc;

use super::super::attach::Attachment;
use super::super::error::CredentialError;
use super::super::inject::Inject;
use super::super::provider::{Ask, Provided};
use super::super::secret::Secret;

/// A token that was obtained. Clones share its memory.
#[derive(Clone)]
pub(super) struct Bearer {
    secret: Arc<Secret>,
    /// As most want it.
    usual: Attachment,
}

impl Bearer {
    /// `made_of` and `version`: for the journal.
    ///
    /// # Errors
    /// A header cannot carry it.
    pub(super) fn new(
        credential: &str,
        token: Secret,
        made_of: &str,
        version: u64,
    ) -> Result<Self, CredentialError> {
        let usual = compose(credential, Inject::bearer(), &token, made_of, version)?;
        Ok(Self { secret: Arc::new(token), usual })
    }

    /// As `inject` of the API says, or as `Authorization: Bearer`.
    ///
    /// # Errors
    /// That place cannot carry it.
    pub(super) fn attached(&self, credential: &str, ask: &Ask<'_>) -> Provided {
        match &ask.inject {
            None => Ok(self.usual.clone()),
            Some(inject) => {
                let (made_of, version) = (self.usual.secret_name(), self.usual.secret_version());
                compose(credential, inject, &self.secret, made_of, version)
            }
        }
    }
}

fn compose(credential: &str, inject: &Inject, token: &Secret, made_of: &str, version: u64) -> Provided {
    Attachment::compose(inject, token, made_of, version).map_err(|_| CredentialError::NotObtained {
        credential: credential.to_owned(),
        problem: format!("{inject} cannot carry the token"),
    })
}
