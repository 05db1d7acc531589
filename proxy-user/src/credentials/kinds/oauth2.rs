//! `kind = "oauth2"`: access tokens of an authorization server, kept until they are about to end.
//!
//! A token that is on behalf of an identity is for it alone; the others do not depend on who calls, and are shared.

use std::sync::{Arc, Mutex, PoisonError};

use proxy_policy::OauthCredential;

use super::super::error::CredentialError;
use super::super::lease::Leases;
use super::super::live::Tools;
use super::super::provider::{Ask, Provided, Provider, Providing};
use super::super::sources::Sources;
use super::bearer::Bearer;
use super::oauth2_client::Client;

/// A credential of this kind at work.
pub(super) struct Oauth2 {
    client: Arc<Client>,
    sources: Arc<Sources>,
    leases: Arc<Leases<String, Bearer, CredentialError>>,
    /// The versions of its secrets, as of the last time that somebody had to wait.
    versions: Mutex<Vec<u64>>,
}

impl Oauth2 {
    pub(super) fn new(name: Arc<str>, kind: &OauthCredential, tools: &Tools) -> Self {
        let client = Arc::new(Client::new(name, kind.clone(), tools));
        let own = Arc::clone(&client);
        let leases = Leases::new(move |identity: String| {
            let client = Arc::clone(&own);
            Box::pin(async move { client.obtain(&identity).await })
        });
        Self { client, sources: Arc::clone(&tools.sources), leases, versions: Mutex::default() }
    }

    /// For whom a token is; nobody in particular is the same for all.
    fn whom<'a>(&self, ask: &Ask<'a>) -> &'a str {
        if self.client.kind.is_for_identity() { ask.identity } else { "" }
    }

    /// What was obtained with secrets that are gone goes too.
    fn gone(&self, error: super::super::sources::SourceError) -> CredentialError {
        self.leases.forget_all();
        CredentialError::source(&self.client.name, error)
    }

    async fn obtained(&self, ask: &Ask<'_>) -> Provided {
        let mut versions = Vec::new();
        for secret in self.client.kind.secrets() {
            let held = self.sources.fetch(secret).await.map_err(|error| self.gone(error))?;
            versions.push(held.version);
        }
        {
            let mut known = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
            if *known != versions {
                self.leases.forgive();
                *known = versions;
            }
        }
        self.leases.get(self.whom(ask).to_owned()).await?.attached(&self.client.name, ask)
    }
}

impl Provider for Oauth2 {
    fn ready(&self, ask: &Ask<'_>) -> Option<Provided> {
        for secret in self.client.kind.secrets() {
            if let Err(error) = self.sources.held(secret)? {
                return Some(Err(self.gone(error)));
            }
        }
        self.leases.fresh(self.whom(ask)).map(|token| token.attached(&self.client.name, ask))
    }

    fn provide<'a>(&'a self, ask: &'a Ask<'a>) -> Providing<'a> {
        Box::pin(self.obtained(ask))
    }
}

#[cfg(test)]
#[path = "oauth2_tests.rs"]
mod tests;
