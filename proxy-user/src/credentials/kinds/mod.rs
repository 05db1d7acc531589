//! The kinds of credentials, a file each: what a definition of the policy does at run time.

mod aws;
mod aws_role;
mod bearer;
mod exec;
mod github_app;
mod hmac;
#[cfg(test)]
mod interleaved_tests;
mod jwt;
mod mtls;
mod oauth2;
mod oauth2_client;
mod oauth2_form;
mod static_secret;

use std::sync::Arc;

use proxy_policy::{Credential, CredentialKind};

use super::error::CredentialError;
use super::live::Tools;
use super::provider::{Ask, Provided, Provider, Providing};

/// The provider of a definition. `tools` is what all kinds share.
pub(super) fn provider(credential: &Credential, tools: &Tools) -> Box<dyn Provider> {
    let name: Arc<str> = credential.name.as_str().into();
    match &credential.kind {
        CredentialKind::Static(kind) => {
            Box::new(static_secret::StaticSecret::new(name, kind.clone(), Arc::clone(&tools.sources)))
        }
        CredentialKind::Jwt(kind) => Box::new(jwt::Jwt::new(name, (**kind).clone(), tools)),
        CredentialKind::Mtls(kind) => {
            Box::new(mtls::Mtls::new(name, kind.clone(), Arc::clone(&tools.sources)))
        }
        CredentialKind::GithubApp(kind) => Box::new(github_app::GithubApp::new(name, kind, tools)),
        CredentialKind::Oauth2(kind) => Box::new(oauth2::Oauth2::new(name, kind, tools)),
        CredentialKind::Exec(kind) => Box::new(exec::Exec::new(name, kind)),
        CredentialKind::Aws(kind) => Box::new(aws::Aws::new(name, kind, tools)),
        CredentialKind::Hmac(kind) => Box::new(hmac::Hmac::new(name, kind, Arc::clone(&tools.sources))),
        // The enumeration may grow before the daemon does.
        other => Box::new(Unknown { name, kind: other.as_str() }),
    }
}

/// A kind that this daemon does not have: no call gets a credential.
struct Unknown {
    name: Arc<str>,
    kind: &'static str,
}

impl Unknown {
    fn refuse(&self) -> Provided {
        Err(CredentialError::NotObtained {
            credential: self.name.to_string(),
            problem: format!("this daemon does not know the kind \"{}\"", self.kind),
        })
    }
}

impl Provider for Unknown {
    fn ready(&self, _ask: &Ask<'_>) -> Option<Provided> {
        Some(self.refuse())
    }

    fn provide<'a>(&'a self, _ask: &'a Ask<'a>) -> Providing<'a> {
        Box::pin(std::future::ready(self.refuse()))
    }
}
