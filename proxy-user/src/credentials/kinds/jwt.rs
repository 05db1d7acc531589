//! `kind = "jwt"`: a token that this host makes, for each call or for all like it until it is about to end.
//!
//! Making one waits for nobody, so it is always at hand. A token is only given to the identity that it was made for, and
//! tokens of a key that is not in its store any more are forgotten with it. Without a key, the host's own issuer makes it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use proxy_policy::{ClaimText, ClaimValue, JwtCredential, JwtKey, JwtPer, JwtSigner, Store, Variable};
use serde_json::{Map, Value};

use super::super::attach::Attachment;
use super::super::error::CredentialError;
use super::super::inject::Inject;
use super::super::issuer::Issuer;
use super::super::jws::{BadKey, SigningKey};
use super::super::live::{NO_ISSUER, NOT_PUBLISHED, Tools};
use super::super::provider::{Ask, Provided, Provider, Providing};
use super::super::secret::Secret;
use super::super::sources::{Held, SourceError, Sources};
use crate::base::clock;

/// How many tokens are kept. Those who call are far below.
const MAX_TOKENS: usize = 4096;
/// A token holds from a moment before now: clocks differ.
const EARLIER_S: i64 = 10;

/// A credential of this kind at work.
pub(super) struct Jwt {
    name: Arc<str>,
    kind: JwtCredential,
    /// What its texts have places for, each once.
    variables: Vec<Variable>,
    sources: Arc<Sources>,
    at_work: ArcSwapOption<KeyAtWork>,
    issuer: Option<Arc<Issuer>>,
    /// Those that the issuer made.
    issued: Tokens,
}

type Tokens = RwLock<HashMap<For, Token>>;

/// One version of the key, and what it has signed.
struct KeyAtWork {
    /// Of which it was parsed.
    secret: Weak<Secret>,
    key: Result<SigningKey, BadKey>,
    tokens: Tokens,
}

/// For whom a token was made.
#[derive(PartialEq, Eq, Hash)]
struct For {
    identity: Box<str>,
    values: Vec<Box<str>>,
    inject: Arc<Inject>,
}

struct Token {
    attachment: Attachment,
    /// From when on another one is made.
    until: Instant,
}

impl KeyAtWork {
    fn is_of(&self, secret: &Arc<Secret>) -> bool {
        std::ptr::eq(self.secret.as_ptr(), Arc::as_ptr(secret))
    }
}

/// What the texts of a definition are filled in with for one call.
struct Values<'a> {
    ask: &'a Ask<'a>,
    uid: String,
    gid: String,
}

impl<'a> Values<'a> {
    fn of(ask: &'a Ask<'a>) -> Self {
        Self { ask, uid: ask.workload.uid.to_string(), gid: ask.workload.gid.to_string() }
    }

    fn get(&self, variable: Variable) -> Option<&str> {
        match variable {
            Variable::Identity => Some(self.ask.identity),
            Variable::Api => Some(self.ask.api),
            Variable::Host => Some(self.ask.host),
            Variable::WorkloadUid => Some(&self.uid),
            Variable::WorkloadGid => Some(&self.gid),
            Variable::WorkloadUnit => self.ask.workload.unit,
            _ => None,
        }
    }
}

impl Jwt {
    pub(super) fn new(name: Arc<str>, kind: JwtCredential, tools: &Tools) -> Self {
        let mut variables: Vec<Variable> = kind.texts().flat_map(ClaimText::variables).collect();
        variables.sort_unstable();
        variables.dedup();
        Self {
            name,
            kind,
            variables,
            sources: Arc::clone(&tools.sources),
            at_work: ArcSwapOption::empty(),
            issuer: tools.issuer.clone(),
            issued: Tokens::default(),
        }
    }

    /// One that this host makes as an issuer.
    fn issued(&self, ask: &Ask<'_>) -> Provided {
        let Some(issuer) = &self.issuer else {
            let problem = NO_ISSUER.to_owned();
            return Err(CredentialError::Misfit { credential: self.name.to_string(), problem });
        };
        let lasts = issuer.lasts(self.kind.ttl);
        self.kept(&self.issued, lasts, ask, |inject, values| {
            let (audience, claims) = (self.audience(values)?, self.claims(values)?);
            let issued = issuer.issue(ask.identity, audience, claims, lasts);
            let issued = issued.ok_or_else(|| self.not_made(NOT_PUBLISHED))?;
            self.compose(inject, &issued.token, Store::Issuer.as_str(), issued.version)
        })
    }

    /// One that a key signs.
    fn signed(&self, signer: &JwtKey, held: Result<Held, SourceError>, ask: &Ask<'_>) -> Provided {
        let held = match held {
            Ok(held) => held,
            Err(error) => {
                // What a key signed that is gone goes too.
                self.at_work.store(None);
                return Err(CredentialError::source(&self.name, error));
            }
        };
        let at_work = self.at_work.load();
        let at_work = match at_work.as_ref().filter(|it| it.is_of(&held.secret)) {
            Some(at_work) => Arc::clone(at_work),
            None => {
                let key = SigningKey::from_pem(signer.algorithm, &held.secret);
                let parsed =
                    KeyAtWork { secret: Arc::downgrade(&held.secret), key, tokens: Tokens::default() };
                let parsed = Arc::new(parsed);
                self.at_work.store(Some(Arc::clone(&parsed)));
                parsed
            }
        };
        let name = signer.key.name();
        let key = at_work.key.as_ref().map_err(|error| {
            self.not_made(&format!(
                "the secret {name} does not sign: {error}; set it again with `vouchsafe secret set {name}`"
            ))
        })?;
        self.kept(&at_work.tokens, self.kind.ttl, ask, |inject, values| {
            let mut claims = self.claims(values)?;
            if let Some(issuer) = &signer.issuer {
                claims.insert("iss".to_owned(), self.filled(issuer, values)?);
            }
            claims.insert("sub".to_owned(), self.filled(&signer.subject, values)?);
            claims.insert("aud".to_owned(), self.audience(values)?);
            set_times(&mut claims, self.kind.ttl);
            let token = key.sign(signer.key_id.as_deref(), &claims);
            let token = token.ok_or_else(|| self.not_made("the cryptographic library did not sign"))?;
            self.compose(inject, &token, name, held.version)
        })
    }

    /// The one that was made before, or a new one.
    fn kept(
        &self,
        tokens: &Tokens,
        lasts: Duration,
        ask: &Ask<'_>,
        make: impl FnOnce(&Inject, &Values<'_>) -> Provided,
    ) -> Provided {
        let inject = ask.inject.unwrap_or(Inject::bearer());
        let values = Values::of(ask);
        if self.kind.per == JwtPer::Call {
            return make(inject, &values);
        }
        let whom = self.whom(inject, &values)?;
        let known = tokens.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = known.get(&whom).filter(|token| Instant::now() < token.until) {
            return Ok(token.attachment.clone());
        }
        drop(known);
        // A fifth of its life is left to the last call that gets it.
        let until = Instant::now() + lasts * 4 / 5;
        let attachment = make(inject, &values)?;
        keep(tokens, whom, Token { attachment: attachment.clone(), until });
        Ok(attachment)
    }

    fn whom(&self, inject: &Arc<Inject>, values: &Values<'_>) -> Result<For, CredentialError> {
        let value = |variable: &Variable| {
            values.get(*variable).map(Box::from).ok_or_else(|| self.nothing_for(*variable))
        };
        Ok(For {
            identity: values.ask.identity.into(),
            values: self.variables.iter().map(value).collect::<Result<_, _>>()?,
            inject: Arc::clone(inject),
        })
    }

    fn compose(&self, inject: &Inject, token: &Secret, name: &str, version: u64) -> Provided {
        Attachment::compose(inject, token, name, version).map_err(|_| CredentialError::Unfit {
            credential: self.name.to_string(),
            name: name.to_owned(),
            place: inject.to_string(),
        })
    }

    fn filled(&self, text: &ClaimText, values: &Values<'_>) -> Result<Value, CredentialError> {
        text.fill(|variable| values.get(variable)).map(Value::String).ok_or_else(|| {
            let missing = text.variables().find(|variable| values.get(*variable).is_none());
            self.nothing_for(missing.unwrap_or(Variable::WorkloadUnit))
        })
    }

    fn audience(&self, values: &Values<'_>) -> Result<Value, CredentialError> {
        match self.kind.audience.as_slice() {
            [one] => self.filled(one, values),
            several => several.iter().map(|text| self.filled(text, values)).collect(),
        }
    }

    /// What the policy says besides who makes it, for whom, and until when.
    fn claims(&self, values: &Values<'_>) -> Result<Map<String, Value>, CredentialError> {
        let mut claims = Map::new();
        for (name, value) in &self.kind.claims {
            let value = match value {
                ClaimValue::Text(text) => self.filled(text, values)?,
                ClaimValue::Texts(texts) => {
                    texts.iter().map(|text| self.filled(text, values)).collect::<Result<Value, _>>()?
                }
                ClaimValue::Integer(number) => Value::from(*number),
                ClaimValue::Boolean(value) => Value::from(*value),
                _ => return Err(self.not_made(&format!("this daemon does not know how to write {name}"))),
            };
            claims.insert(name.clone(), value);
        }
        Ok(claims)
    }

    fn nothing_for(&self, variable: Variable) -> CredentialError {
        let problem = format!(
            "its claims have a place for {{{}}}, and whoever calls has none; run it in a unit, or remove the claim",
            variable.as_str()
        );
        CredentialError::Misfit { credential: self.name.to_string(), problem }
    }

    fn not_made(&self, problem: &str) -> CredentialError {
        CredentialError::NotObtained { credential: self.name.to_string(), problem: problem.to_owned() }
    }
}

/// When a token was made and ends, and its own name (RFC 7519 §4.1).
fn set_times(claims: &mut Map<String, Value>, ttl: Duration) {
    let now = clock::now().0;
    let lasts = i64::try_from(ttl.as_secs()).unwrap_or(0);
    claims.insert("iat".to_owned(), now.into());
    claims.insert("nbf".to_owned(), now.saturating_sub(EARLIER_S).into());
    claims.insert("exp".to_owned(), now.saturating_add(lasts).into());
    claims.insert("jti".to_owned(), uuid::Uuid::now_v7().to_string().into());
}

fn keep(tokens: &Tokens, whom: For, token: Token) {
    let mut tokens = tokens.write().unwrap_or_else(PoisonError::into_inner);
    if tokens.len() >= MAX_TOKENS {
        let now = Instant::now();
        tokens.retain(|_, token| now < token.until);
        if tokens.len() >= MAX_TOKENS {
            tokens.clear();
        }
    }
    tokens.insert(whom, token);
}

impl Provider for Jwt {
    fn ready(&self, ask: &Ask<'_>) -> Option<Provided> {
        match &self.kind.signer {
            JwtSigner::Key(signer) => Some(self.signed(signer, self.sources.held(&signer.key)?, ask)),
            JwtSigner::Host => Some(self.issued(ask)),
            _ => Some(Err(self.not_made("this daemon does not know who signs it"))),
        }
    }

    fn provide<'a>(&'a self, ask: &'a Ask<'a>) -> Providing<'a> {
        Box::pin(async move {
            match &self.kind.signer {
                JwtSigner::Key(signer) => self.signed(signer, self.sources.fetch(&signer.key).await, ask),
                _ => self.ready(ask).unwrap_or_else(|| Err(self.not_made("nobody signs it"))),
            }
        })
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
