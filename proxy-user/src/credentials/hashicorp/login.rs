//! The daemon's own login at HashiCorp Vault or OpenBao: a token that is renewed ahead of its end, or had anew.
//!
//! Leases end with the token that they were obtained with, whatever they say themselves. So each token has a number, and who
//! holds a lease asks whether the token of that number is known to be taken back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use proxy_policy::SecretRef;
use serde_json::Map;
use tokio::time::Instant;

use super::super::answers::LONGEST;
use super::super::issuer::Issuer;
use super::super::lease::{Lease, Leases};
use super::super::live::{NO_ISSUER, NOT_PUBLISHED};
use super::super::local::Local;
use super::super::outcall::{IssuerAnswer, Outcall};
use super::super::secret::Secret;
use super::super::sources::SourceError;
use super::answers::{self, TokenTerm};
use super::client::{Call, Client, object, told, unavailable};
use crate::config::{HashicorpJwt, HashicorpLogin};
use crate::trust::ClientIdentity;

/// Whom a token of this host's issuer is about that the daemon logs in with. No identity of a policy can have this name.
const DAEMON: &str = "_vouchsafe";
/// A login that may not even look at its own token is not made again and again for one path that it may not read.
const SELDOM: Duration = Duration::from_secs(60);

/// A token of the daemon. No `Debug`.
pub(super) struct Token {
    secret: Arc<Secret>,
    /// Grows with each login.
    pub(super) number: u64,
    /// When it ends, with all that was leased with it; `None`: it does not end.
    pub(super) ends: Option<Instant>,
    /// For how long it was at first.
    first: Option<Duration>,
    is_renewable: bool,
    /// The versions of what it was obtained with.
    made_of: Vec<u64>,
    way: Outcall,
}

impl Token {
    /// Whether this is its text.
    pub(super) fn is(&self, text: &[u8]) -> bool {
        self.secret.expose() == text.trim_ascii()
    }

    fn lease(self: Arc<Self>) -> Lease<Arc<Self>> {
        let now = Instant::now();
        let lasts = self.ends.map_or(LONGEST, |ends| ends.saturating_duration_since(now));
        Lease { value: self, lasts: Some(lasts) }
    }
}

/// What the daemon proves itself with, read anew for each login.
struct Proof {
    made_of: Vec<u64>,
    secrets: Vec<Arc<Secret>>,
    way: Outcall,
}

/// The login.
pub(in super::super) struct Login {
    pub(super) keeper: Arc<Keeper>,
    leases: Arc<Leases<(), Arc<Token>, SourceError>>,
    /// When a token was last taken for dead.
    died: Mutex<Option<Instant>>,
}

pub(super) struct Keeper {
    pub(super) client: Arc<Client>,
    pub(super) how: HashicorpLogin,
    pub(super) way: Outcall,
    local: Arc<Local>,
    issuer: Option<Arc<Issuer>>,
    current: Mutex<Option<Arc<Token>>>,
    numbers: AtomicU64,
    /// Tokens up to this number are not used any more.
    replaced: AtomicU64,
    /// Tokens up to this number were taken back, and their leases with them.
    dead: AtomicU64,
}

impl Login {
    pub(super) fn new(
        client: Arc<Client>,
        how: HashicorpLogin,
        way: Outcall,
        local: Arc<Local>,
        issuer: Option<Arc<Issuer>>,
    ) -> Self {
        let keeper = Arc::new(Keeper {
            client,
            how,
            way,
            local,
            issuer,
            current: Mutex::default(),
            numbers: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            dead: AtomicU64::new(0),
        });
        let own = Arc::clone(&keeper);
        let leases = Leases::new(move |()| {
            let keeper = Arc::clone(&own);
            Box::pin(async move { keeper.obtain().await })
        });
        Self { keeper, leases, died: Mutex::default() }
    }

    /// The secrets that it needs.
    pub(super) fn secrets(&self) -> Vec<&SecretRef> {
        self.keeper.how.secrets()
    }

    /// Whether the leases of a token are known to be gone with it.
    pub(super) fn is_dead(&self, number: u64) -> bool {
        number <= self.keeper.dead.load(Ordering::Acquire)
    }

    /// Logs in anew with the next call; what was leased goes on.
    pub(super) fn replace(&self) {
        let current = self.keeper.current().map_or(0, |token| token.number);
        self.keeper.replaced.fetch_max(current, Ordering::AcqRel);
        self.leases.forgive();
    }

    /// A token.
    ///
    /// # Errors
    /// There is none: what is shown for it is missing or not taken, or nobody answers.
    pub(super) async fn token(&self) -> Result<Arc<Token>, SourceError> {
        let versions = self.keeper.versions().inspect_err(|_| self.leases.forget_all())?;
        if let Some(token) = self.leases.fresh(&()) {
            let is_current = versions.is_none_or(|versions| versions == token.made_of);
            if is_current && token.number > self.keeper.replaced.load(Ordering::Acquire) {
                return Ok(token);
            }
            self.leases.forget(&());
        }
        self.leases.get(()).await
    }

    /// Makes a call with the token. One that is refused may have a token that was taken back: then once more with a new one.
    ///
    /// # Errors
    /// There is no token, or nobody answers.
    pub(super) async fn call<'c>(
        &self,
        call: impl Fn() -> Call<'c>,
    ) -> Result<(Arc<Token>, IssuerAnswer), SourceError> {
        let token = self.token().await?;
        let answer = self.keeper.call(&token, call()).await?;
        if answer.status != StatusCode::FORBIDDEN {
            return Ok((token, answer));
        }
        let itself = self.keeper.call(&token, Call::get("auth/token/lookup-self")).await?;
        if itself.status == StatusCode::OK || !self.is_lost(&token) {
            return Ok((token, answer));
        }
        let token = self.token().await?;
        let answer = self.keeper.call(&token, call()).await?;
        Ok((token, answer))
    }

    /// Whether a token that may not even look at itself is taken for dead.
    fn is_lost(&self, token: &Token) -> bool {
        let mut died = self.died.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_dead(token.number) {
            return true;
        }
        let now = Instant::now();
        if died.is_some_and(|died| now < died + SELDOM) {
            return false;
        }
        *died = Some(now);
        tracing::warn!("the token of [hashicorp] is not taken any more: logging in once more");
        self.keeper.replaced.fetch_max(token.number, Ordering::AcqRel);
        self.keeper.dead.fetch_max(token.number, Ordering::AcqRel);
        true
    }

    /// Makes a call with the token that is at hand, if there is one that was not taken back.
    pub(super) async fn call_at_hand(&self, call: Call<'_>) -> Option<Result<IssuerAnswer, SourceError>> {
        let token = self.keeper.current().filter(|token| !self.is_dead(token.number))?;
        Some(self.keeper.call(&token, call).await)
    }

    /// Gives the token back, if the daemon got it itself.
    pub(super) async fn end(&self) {
        if matches!(self.keeper.how, HashicorpLogin::Token(_)) {
            return;
        }
        let call = Call::post("auth/token/revoke-self", Secret::new(Vec::new()));
        if let Some(Err(error)) = self.call_at_hand(call).await {
            tracing::warn!("the token of [hashicorp] could not be given back: {error}; it ends by itself");
        }
    }
}

impl Keeper {
    fn current(&self) -> Option<Arc<Token>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn call(&self, token: &Token, call: Call<'_>) -> Result<IssuerAnswer, SourceError> {
        self.client.call(&token.way, Some(&token.secret), call).await
    }

    /// The versions of what is shown, if all of it is at hand.
    ///
    /// # Errors
    /// Some of it is gone.
    fn versions(&self) -> Result<Option<Vec<u64>>, SourceError> {
        let mut versions = Vec::new();
        for reference in self.how.secrets() {
            match self.local.held(reference) {
                Some(held) => versions.push(held.map_err(|error| of_login(reference, &error))?.version),
                None => return Ok(None),
            }
        }
        Ok(Some(versions))
    }

    /// A token for a while: the one that there is, renewed, or another one.
    async fn obtain(&self) -> Result<Lease<Arc<Token>>, SourceError> {
        let proof = self.proof().await?;
        let usable = |token: &Arc<Token>| {
            let has_ended = token.ends.is_some_and(|ends| ends <= Instant::now());
            token.number > self.replaced.load(Ordering::Acquire)
                && token.made_of == proof.made_of
                && !has_ended
        };
        let token = match self.current().filter(usable) {
            Some(token) if token.is_renewable => self.renewed(&token).await?,
            _ => None,
        };
        let token = match token {
            Some(token) => token,
            None => self.logged_in(proof).await?,
        };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&token));
        Ok(token.lease())
    }

    /// The same token for longer; `None`: another one is needed.
    async fn renewed(&self, token: &Arc<Token>) -> Result<Option<Arc<Token>>, SourceError> {
        let asked = Instant::now();
        let answer =
            self.call(token, Call::post("auth/token/renew-self", Secret::new(b"{}".to_vec()))).await?;
        if answer.status != StatusCode::OK {
            return Ok(None);
        }
        let term = answers::renewed_token(answer.body.expose()).map_err(|what| self.unusable(what))?;
        if answers::is_short(term.lasts, token.first) {
            return Ok(None);
        }
        Ok(Some(Arc::new(Token {
            secret: Arc::clone(&token.secret),
            number: token.number,
            ends: term.lasts.map(|lasts| asked + lasts),
            first: token.first,
            is_renewable: term.is_renewable,
            made_of: token.made_of.clone(),
            way: token.way.clone(),
        })))
    }

    async fn proof(&self) -> Result<Proof, SourceError> {
        let mut proof = Proof { made_of: Vec::new(), secrets: Vec::new(), way: self.way.clone() };
        for reference in self.how.secrets() {
            let held = self.local.fetch(reference).await.map_err(|error| of_login(reference, &error))?;
            proof.made_of.push(held.version);
            proof.secrets.push(held.secret);
        }
        if let (HashicorpLogin::Tls { .. }, [certificate, key]) = (&self.how, proof.secrets.as_slice()) {
            let identity = ClientIdentity::new(certificate.expose(), key.expose()).map_err(|error| {
                unavailable(format!("hashicorp.tls.certificate is none with its key: {error}; set it again"))
            })?;
            if identity.has_ended() {
                let when = identity.not_after();
                return Err(unavailable(format!("hashicorp.tls.certificate ended at {when}; set a new one")));
            }
            // Also renewals are checked against it, so all calls of the token go this way.
            proof.way = self.way.presenting(identity);
        }
        Ok(proof)
    }

    async fn logged_in(&self, proof: Proof) -> Result<Arc<Token>, SourceError> {
        let shown = proof.secrets.first().map_or(&[][..], |secret| secret.expose());
        let (mount, body, check) = match &self.how {
            HashicorpLogin::Token(reference) => return self.looked_at(proof, reference).await,
            HashicorpLogin::Approle { role_id, mount, secret_id } => (
                mount,
                object(&[("role_id", role_id.as_bytes()), ("secret_id", shown)]),
                format!("check role_id and {secret_id}"),
            ),
            HashicorpLogin::Jwt { role, mount, token: HashicorpJwt::Secret(token) } => (
                mount,
                object(&[("role", role.as_bytes()), ("jwt", shown)]),
                format!("check role and {token}"),
            ),
            HashicorpLogin::Jwt { role, mount, token: HashicorpJwt::Issued(audience) } => {
                let issuer = self.issuer.as_ref().ok_or_else(|| unavailable(NO_ISSUER))?;
                let issued = issuer.issue(DAEMON, audience.as_str().into(), Map::new(), Duration::MAX);
                let token = issued.ok_or_else(|| unavailable(NOT_PUBLISHED))?.token;
                let body = object(&[("role", role.as_bytes()), ("jwt", token.expose())]);
                (
                    mount,
                    body,
                    format!("check role, audience, and whether it trusts this host's issuer about {DAEMON}"),
                )
            }
            HashicorpLogin::Tls { role, mount, .. } => {
                let name = role.as_ref().map(|role| ("name", role.as_bytes()));
                (
                    mount,
                    object(name.as_slice()),
                    "check the certificate, and who may log in with it".to_owned(),
                )
            }
        };
        let body =
            body.ok_or_else(|| unavailable("what [hashicorp] logs in with is no text; set it again"))?;
        let path = format!("auth/{mount}/login");
        let asked = Instant::now();
        let answer = self.client.call(&proof.way, None, Call::post(&path, body)).await?;
        if answer.status != StatusCode::OK {
            let (address, told) = (self.client.address(), told(&answer));
            return Err(unavailable(format!("{address} answered {told} to the login at {path}; {check}")));
        }
        let given = answers::login(answer.body.expose()).map_err(|what| self.unusable(what))?;
        tracing::debug!("logged in at {}", self.client.address());
        Ok(self.new_token(Arc::new(given.token), given.term, asked, proof))
    }

    /// The token that somebody else got, and for how long it lasts.
    async fn looked_at(&self, proof: Proof, reference: &SecretRef) -> Result<Arc<Token>, SourceError> {
        let secret = proof.secrets.first().map(Arc::clone).ok_or_else(|| SourceError::unknown(reference))?;
        let asked = Instant::now();
        let answer = self.client.call(&proof.way, Some(&secret), Call::get("auth/token/lookup-self")).await?;
        if answer.status != StatusCode::OK {
            let (address, told) = (self.client.address(), told(&answer));
            return Err(unavailable(format!(
                "{address} answered {told} to the token {reference}: it is not taken (any more), or may not look at itself, \
                 which the policy `default` lets it; put another one there"
            )));
        }
        let term = answers::known_token(answer.body.expose()).map_err(|what| self.unusable(what))?;
        Ok(self.new_token(secret, term, asked, proof))
    }

    fn new_token(&self, secret: Arc<Secret>, term: TokenTerm, asked: Instant, proof: Proof) -> Arc<Token> {
        // The same secret is the same token: somebody else may have renewed it.
        let same = self.current().filter(|token| {
            token.number > self.replaced.load(Ordering::Acquire) && Arc::ptr_eq(&token.secret, &secret)
        });
        let number = same.map(|token| token.number);
        Arc::new(Token {
            secret,
            number: number.unwrap_or_else(|| self.numbers.fetch_add(1, Ordering::AcqRel) + 1),
            ends: term.lasts.map(|lasts| asked + lasts),
            first: term.lasts,
            is_renewable: term.is_renewable,
            made_of: proof.made_of,
            way: proof.way,
        })
    }

    fn unusable(&self, what: &str) -> SourceError {
        unavailable(format!("{}: {what}", self.client.address()))
    }
}

/// What is wrong with the login, not with the secret that was asked for.
fn of_login(reference: &SecretRef, error: &SourceError) -> SourceError {
    let problem = match error {
        SourceError::Missing { problem } | SourceError::Unavailable { problem } => problem,
    };
    unavailable(format!("what [hashicorp] logs in with, {reference}, is not there: {problem}"))
}
