//! `kind = "github-app"`: the App proves itself by a token of its own, and gets one for an installation, narrowed.
//!
//! A token does not depend on who calls, so it is leased for all. What GitHub gives is checked: a token that may do more
//! than was asked for goes nowhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use proxy_policy::{GithubAppCredential, GithubLevel, JwtAlgorithm};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::attach::Attachment;
use super::super::error::CredentialError;
use super::super::inject::Inject;
use super::super::jws::{BadKey, SigningKey};
use super::super::lease::{Lease, Leases};
use super::super::live::Tools;
use super::super::outcall::{IssuerAnswer, IssuerUrl, Outcall};
use super::super::provider::{Ask, Provided, Provider, Providing};
use super::super::secret::Secret;
use super::super::sources::{Held, SourceError, Sources};
use crate::base::clock;

/// The App's own token holds from a minute before now, since clocks differ, and for less than the ten minutes that
/// GitHub allows.
const APP_EARLIER_S: i64 = 60;
const APP_LASTS_S: i64 = 9 * 60;

/// A credential of this kind at work.
pub(super) struct GithubApp {
    app: Arc<App>,
    sources: Arc<Sources>,
    at_work: ArcSwapOption<KeyAtWork>,
}

/// What all calls to GitHub have in common.
struct App {
    name: Arc<str>,
    kind: GithubAppCredential,
    outcall: Outcall,
}

/// One version of the App's key, and the token that was obtained with it.
struct KeyAtWork {
    secret: Weak<Secret>,
    leases: Result<Arc<Leases<(), Token, CredentialError>>, CredentialError>,
}

#[derive(Clone)]
struct Token {
    secret: Arc<Secret>,
    /// As most want it.
    bearer: Attachment,
    version: u64,
}

impl GithubApp {
    pub(super) fn new(name: Arc<str>, kind: &GithubAppCredential, tools: &Tools) -> Self {
        let app = App { name, kind: kind.clone(), outcall: tools.outcall.clone() };
        Self { app: Arc::new(app), sources: Arc::clone(&tools.sources), at_work: ArcSwapOption::empty() }
    }

    fn leases(
        &self,
        held: Result<Held, SourceError>,
    ) -> Result<Arc<Leases<(), Token, CredentialError>>, CredentialError> {
        let held = match held {
            Ok(held) => held,
            Err(error) => {
                // What was obtained with a key that is gone goes too.
                self.at_work.store(None);
                return Err(CredentialError::source(&self.app.name, error));
            }
        };
        let is_of = |it: &KeyAtWork| std::ptr::eq(it.secret.as_ptr(), Arc::as_ptr(&held.secret));
        if let Some(at_work) = self.at_work.load().as_ref().filter(|it| is_of(it)) {
            return at_work.leases.clone();
        }
        let key = SigningKey::from_pem(JwtAlgorithm::Rs256, &held.secret);
        let leases = key.map_err(|error| self.app.bad_key(&error)).map(|key| {
            let (app, key) = (Arc::clone(&self.app), Arc::new(key));
            Leases::new(move |()| {
                let (app, key) = (Arc::clone(&app), Arc::clone(&key));
                Box::pin(async move { app.obtain(&key, held.version).await })
            })
        });
        let new = Arc::new(KeyAtWork { secret: Arc::downgrade(&held.secret), leases });
        // Whoever comes second takes the first one's, so that all wait together.
        let before = self.at_work.rcu(|current| match current {
            Some(current) if is_of(current) => Arc::clone(current),
            _ => Arc::clone(&new),
        });
        before.filter(|it| is_of(it)).unwrap_or(new).leases.clone()
    }

    fn attached(&self, token: &Token, ask: &Ask<'_>) -> Provided {
        match &ask.inject {
            None => Ok(token.bearer.clone()),
            Some(inject) => self.app.compose(inject, &token.secret, token.version),
        }
    }
}

impl Provider for GithubApp {
    fn ready(&self, ask: &Ask<'_>) -> Option<Provided> {
        match self.leases(self.sources.held(&self.app.kind.private_key)?) {
            Ok(leases) => leases.fresh(&()).map(|token| self.attached(&token, ask)),
            Err(error) => Some(Err(error)),
        }
    }

    fn provide<'a>(&'a self, ask: &'a Ask<'a>) -> Providing<'a> {
        Box::pin(async move {
            let held = self.sources.fetch(&self.app.kind.private_key).await;
            let token = self.leases(held)?.get(()).await?;
            self.attached(&token, ask)
        })
    }
}

impl App {
    async fn obtain(&self, key: &SigningKey, version: u64) -> Result<Lease<Token>, CredentialError> {
        let kind = &self.kind;
        let url = format!("{}/app/installations/{}/access_tokens", kind.api_url, kind.installation_id);
        let url: IssuerUrl = url.parse().map_err(|error| self.failed(format!("its api_url {error}")))?;
        let answer = self.outcall.call(Method::POST, &url, &self.headers(key)?, self.wanted()).await;
        let answer = answer.map_err(|error| self.failed(error.to_string()))?;
        self.refused(&answer)?;
        let given =
            Given::read(answer.body.expose()).map_err(|what| self.failed(format!("{url}: {what}")))?;
        given
            .is_narrow(kind)
            .map_err(|what| self.failed(format!("{url}: the token {what}; it is not used")))?;
        let lasts = given.expires_at - OffsetDateTime::now_utc();
        let lasts = Duration::try_from(lasts).map_err(|_| {
            self.failed(format!("{url}: the token ended before it came; check the clock of this host"))
        })?;
        let secret = Arc::new(given.token);
        let bearer = self.compose(Inject::bearer(), &secret, version)?;
        Ok(Lease { value: Token { secret, bearer, version }, lasts: Some(lasts) })
    }

    /// What proves the App.
    fn headers(&self, key: &SigningKey) -> Result<Vec<(HeaderName, HeaderValue)>, CredentialError> {
        let now = clock::now().0;
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), self.kind.app_id.clone().into());
        claims.insert("iat".to_owned(), now.saturating_sub(APP_EARLIER_S).into());
        claims.insert("exp".to_owned(), now.saturating_add(APP_LASTS_S).into());
        let unsigned = || self.failed("the cryptographic library did not sign".to_owned());
        let token = key.sign(None, &claims).ok_or_else(unsigned)?;
        let value = self.compose(Inject::bearer(), &token, 0)?.into_header_value().ok_or_else(unsigned)?;
        Ok(vec![
            (AUTHORIZATION, value),
            (ACCEPT, HeaderValue::from_static("application/vnd.github+json")),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static("x-github-api-version"), HeaderValue::from_static("2022-11-28")),
        ])
    }

    /// The body: what the token is narrowed to.
    fn wanted(&self) -> Secret {
        let permissions: Map<String, Value> =
            self.kind.permissions.iter().map(|(name, level)| (name.clone(), level.as_str().into())).collect();
        let mut wanted = json!({ "permissions": permissions });
        if let (Some(repositories), Some(wanted)) = (&self.kind.repositories, wanted.as_object_mut()) {
            wanted.insert("repositories".to_owned(), repositories.clone().into());
        }
        Secret::new(wanted.to_string().into_bytes())
    }

    fn refused(&self, answer: &IssuerAnswer) -> Result<(), CredentialError> {
        let advice = match answer.status {
            StatusCode::CREATED => return Ok(()),
            StatusCode::UNAUTHORIZED => {
                "it does not take the App's key: check app_id, private_key and the clock of this host"
            }
            StatusCode::NOT_FOUND => "the App has no such installation: check installation_id and api_url",
            StatusCode::FORBIDDEN => "the installation is suspended, or calls are limited",
            StatusCode::UNPROCESSABLE_ENTITY => {
                "the installation does not have all of repositories and permissions: check them"
            }
            _ => "try again later, and see the state of the API",
        };
        Err(self.failed(format!("{} answered {}; {advice}", self.kind.api_url, answer.status.as_u16())))
    }

    fn compose(&self, inject: &Inject, token: &Secret, version: u64) -> Provided {
        let name = self.kind.private_key.name();
        Attachment::compose(inject, token, name, version)
            .map_err(|_| self.failed(format!("{inject} cannot carry the token")))
    }

    fn bad_key(&self, error: &BadKey) -> CredentialError {
        let name = self.kind.private_key.name();
        self.failed(format!(
            "the secret {name} is not the key of an App: {error}; set it again with `vouchsafe secret set {name}`"
        ))
    }

    fn failed(&self, problem: String) -> CredentialError {
        CredentialError::NotObtained { credential: self.name.to_string(), problem }
    }
}

/// What GitHub gave. No `Debug`.
struct Given {
    token: Secret,
    expires_at: OffsetDateTime,
    permissions: BTreeMap<String, String>,
    /// Without their owner; `None`: all of the installation.
    repositories: Option<Vec<String>>,
}

impl Given {
    /// Reads an answer. Errors say nothing of what it holds.
    fn read(body: &[u8]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Answer<'a> {
            token: &'a str,
            expires_at: &'a str,
            permissions: BTreeMap<String, String>,
            repository_selection: Option<String>,
            #[serde(default)]
            repositories: Vec<Repository>,
        }
        #[derive(Deserialize)]
        struct Repository {
            name: String,
        }
        let answer: Answer<'_> =
            serde_json::from_slice(body).map_err(|_| "its answer is not a token of an installation")?;
        let plain = |byte: u8| byte.is_ascii_graphic();
        if answer.token.is_empty() || answer.token.len() > 4096 || !answer.token.bytes().all(plain) {
            return Err("its answer has no token that a header can carry");
        }
        let expires_at = OffsetDateTime::parse(answer.expires_at, &Rfc3339)
            .map_err(|_| "its answer does not say when the token ends")?;
        let selected = answer.repository_selection.as_deref() == Some("selected");
        Ok(Self {
            token: Secret::new(answer.token.as_bytes().to_vec()),
            expires_at,
            permissions: answer.permissions,
            repositories: selected.then(|| answer.repositories.into_iter().map(|it| it.name).collect()),
        })
    }

    /// Whether it may do no more than what was asked for.
    fn is_narrow(&self, kind: &GithubAppCredential) -> Result<(), &'static str> {
        for (name, level) in &self.permissions {
            // Every token may read what repositories there are.
            if name == "metadata" && level == "read" {
                continue;
            }
            let asked = kind.permissions.iter().find(|(asked, _)| asked == name).map(|(_, level)| *level);
            let wide = match (asked, GithubLevel::parse(level)) {
                (Some(asked), Some(given)) => given > asked,
                _ => true,
            };
            if wide {
                return Err("may do more than the permissions of the credential");
            }
        }
        let Some(asked) = &kind.repositories else { return Ok(()) };
        let narrow = self.repositories.as_ref().is_some_and(|given| {
            given.iter().all(|given| asked.iter().any(|asked| asked.eq_ignore_ascii_case(given)))
        });
        narrow.then_some(()).ok_or("is for more than the repositories of the credential")
    }
}

#[cfg(test)]
#[path = "github_app_tests.rs"]
mod tests;
