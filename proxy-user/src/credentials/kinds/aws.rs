//! `kind = "aws"`: each call is signed with keys of AWS, or with the temporary ones of a role.
//!
//! The keys of a role are kept until they are about to end; those that were given in the name of an identity are for it alone.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use proxy_policy::{AwsCredential, AwsKeyId, AwsKeys, SecretRef};

use super::super::access_key::{AccessKey, is_key_id};
use super::super::attach::Attachment;
use super::super::error::CredentialError;
use super::super::lease::Leases;
use super::super::live::Tools;
use super::super::provider::{Ask, Provided, Provider, Providing};
use super::super::secret::Secret;
use super::super::sigv4::{AwsSigner, Keys};
use super::super::sources::{Held, SourceError, Sources};
use super::aws_role::{Role, Session};

/// A credential of this kind at work.
pub(super) struct Aws {
    name: Arc<str>,
    kind: Arc<AwsCredential>,
    sources: Arc<Sources>,
    /// The signer of the keys that are there, without a role.
    own: Mutex<Option<OwnSigner>>,
    role: Option<Arc<Leases<String, Session, CredentialError>>>,
    /// The versions of its secrets, as of the last time that somebody had to wait.
    versions: Mutex<Vec<u64>>,
}

/// What a signer was made of, and the signer.
struct OwnSigner {
    made_of: Vec<Weak<Secret>>,
    attachment: Attachment,
}

impl Aws {
    pub(super) fn new(name: Arc<str>, kind: &AwsCredential, tools: &Tools) -> Self {
        let kind = Arc::new(kind.clone());
        let role = kind.role.clone().map(|role| {
            let role = Arc::new(Role::new(Arc::clone(&name), Arc::clone(&kind), role, tools));
            Leases::new(move |identity: String| {
                let role = Arc::clone(&role);
                Box::pin(async move { role.assume(&identity).await })
            })
        });
        let (sources, own, versions) = (Arc::clone(&tools.sources), Mutex::default(), Mutex::default());
        Self { name, kind, sources, own, role, versions }
    }

    /// For whom the keys of a role are; nobody in particular is the same for all.
    fn whom<'a>(&self, ask: &Ask<'a>) -> &'a str {
        if self.kind.is_for_identity() { ask.identity } else { "" }
    }

    /// What was made of secrets that are gone goes too.
    fn gone(&self, error: SourceError) -> CredentialError {
        *self.own.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if let Some(role) = &self.role {
            role.forget_all();
        }
        CredentialError::source(&self.name, error)
    }

    /// The signer of these secrets, in the order of [`AwsCredential::secrets`]; the one from before if it was made of the same.
    fn own(&self, held: &[Held]) -> Provided {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = own.as_ref() {
            let same = |(made_of, held): (&Weak<Secret>, &Held)| {
                std::ptr::eq(made_of.as_ptr(), Arc::as_ptr(&held.secret))
            };
            if own.made_of.len() == held.len() && own.made_of.iter().zip(held).all(same) {
                return Ok(own.attachment.clone());
            }
        }
        let keys = keys(&self.name, &self.kind.keys, held)?;
        let (region, service) = (self.kind.region.as_deref(), self.kind.service.as_deref());
        let signer = Arc::new(AwsSigner::new(keys, region, service));
        let name = self.kind.secrets().first().map_or("", |secret| secret.name());
        let version = held.first().map_or(0, |held| held.version);
        let attachment = Attachment::of_signer(signer, name, version);
        let made_of = held.iter().map(|held| Arc::downgrade(&held.secret)).collect();
        *own = Some(OwnSigner { made_of, attachment: attachment.clone() });
        Ok(attachment)
    }

    /// Keys of a role end with the keys that they were given for: who changes these may have to.
    fn follow(&self, role: &Leases<String, Session, CredentialError>, held: &[Held]) {
        let mut known = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        if known.iter().copied().ne(held.iter().map(|held| held.version)) {
            role.forgive();
            role.forget_all();
            known.clear();
            known.extend(held.iter().map(|held| held.version));
        }
    }

    fn all_held(&self) -> Option<Result<Vec<Held>, SourceError>> {
        self.kind.secrets().into_iter().map(|secret| self.sources.held(secret)).collect()
    }

    async fn obtained(&self, ask: &Ask<'_>) -> Provided {
        let held = fetched(&self.sources, &self.kind.secrets()).await.map_err(|error| self.gone(error))?;
        let Some(role) = &self.role else { return self.own(&held) };
        self.follow(role, &held);
        Ok(role.get(self.whom(ask).to_owned()).await?.attachment)
    }
}

impl Provider for Aws {
    fn ready(&self, ask: &Ask<'_>) -> Option<Provided> {
        let held = match self.all_held()? {
            Ok(held) => held,
            Err(error) => return Some(Err(self.gone(error))),
        };
        match &self.role {
            None => Some(self.own(&held)),
            Some(role) => {
                self.follow(role, &held);
                role.fresh(self.whom(ask)).map(|session| Ok(session.attachment))
            }
        }
    }

    fn provide<'a>(&'a self, ask: &'a Ask<'a>) -> Providing<'a> {
        Box::pin(self.obtained(ask))
    }
}

/// All of these secrets.
pub(super) async fn fetched(
    sources: &Arc<Sources>,
    references: &[&SecretRef],
) -> Result<Vec<Held>, SourceError> {
    let mut held = Vec::with_capacity(references.len());
    for reference in references {
        held.push(sources.fetch(reference).await?);
    }
    Ok(held)
}

/// The pair of keys of these secrets, in the order of [`AwsCredential::secrets`].
pub(super) fn keys(credential: &str, keys: &AwsKeys, held: &[Held]) -> Result<Keys, CredentialError> {
    let unfit = |problem: &str| CredentialError::NotObtained {
        credential: credential.to_owned(),
        problem: problem.to_owned(),
    };
    let mut held = held.iter();
    let secret = held.next().ok_or_else(|| unfit("its secret key is missing"))?;
    let (id, session_token) = match keys {
        AwsKeys::Pair { id, session_token, .. } => (id, session_token),
        AwsKeys::Whole(_) => {
            return AccessKey::read(secret.secret.expose()).map(Keys::from).map_err(unfit);
        }
        _ => return Err(unfit("it has no keys of its own")),
    };
    let id = match id {
        AwsKeyId::Text(id) => id.as_str().into(),
        AwsKeyId::At(_) => {
            let id = held.next().ok_or_else(|| unfit("the id of its key is missing"))?;
            let bytes = id.secret.expose().trim_ascii();
            let text = std::str::from_utf8(bytes).ok().filter(|_| is_key_id(bytes));
            text.ok_or_else(|| unfit("the id of its key is none: letters and digits; set it again"))?.into()
        }
        _ => return Err(unfit("this daemon does not know where the id of its key is")),
    };
    let session_token = match session_token {
        Some(_) => {
            Some(Arc::clone(&held.next().ok_or_else(|| unfit("its session token is missing"))?.secret))
        }
        None => None,
    };
    Ok(Keys { id, secret: Arc::clone(&secret.secret), session_token })
}

#[cfg(test)]
#[path = "aws_tests.rs"]
mod tests;
