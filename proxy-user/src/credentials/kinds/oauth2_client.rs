//! A client of an authorization server: proves itself, shows what it has, and gets a token.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use proxy_policy::{
    OauthClient, OauthClientKey, OauthCredential, OauthExchange, OauthGrant, OauthToken, SecretRef,
};
use serde_json::Map;
use zeroize::Zeroizing;

use super::super::answers;
use super::super::attach::Attachment;
use super::super::error::CredentialError;
use super::super::inject::Inject;
use super::super::jws::SigningKey;
use super::super::lease::Lease;
use super::super::live::Tools;
use super::super::outcall::{IssuerAnswer, IssuerUrl, Outcall};
use super::super::provider::{Ask, AskedBy, Provider as _};
use super::super::refresh::InUse;
use super::super::secret::Secret;
use super::super::sources::Held;
use super::bearer::Bearer;
use super::jwt::Jwt;
use super::oauth2_form::{Form, encode};
use crate::base::clock;
use crate::trust::ClientIdentity;

/// For how long a token of the client itself holds, and from when on: clocks differ.
const CLIENT_LASTS_S: i64 = 60;
const CLIENT_EARLIER_S: i64 = 10;
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client as the policy defines it.
pub(super) struct Client {
    pub(super) name: Arc<str>,
    pub(super) kind: OauthCredential,
    tools: Tools,
    /// What signs an assertion.
    assertion: Option<Jwt>,
}

/// What is sent, and over which way.
struct Call {
    form: Form,
    headers: Vec<(HeaderName, HeaderValue)>,
    outcall: Outcall,
    /// Nobody else has it until its answer is stored.
    refresh_token: Option<InUse>,
}

impl Client {
    pub(super) fn new(name: Arc<str>, kind: OauthCredential, tools: &Tools) -> Self {
        let assertion = match &kind.grant {
            OauthGrant::JwtBearer(assertion) => {
                Some(Jwt::new(Arc::clone(&name), (**assertion).clone(), tools))
            }
            _ => None,
        };
        Self { name, kind, tools: tools.clone(), assertion }
    }

    /// A new token, on behalf of an identity where there is one.
    pub(super) async fn obtain(&self, identity: &str) -> Result<Lease<Bearer>, CredentialError> {
        let url: Result<IssuerUrl, _> = self.kind.token_url.parse();
        let url = url.map_err(|error| self.failed(format!("its token_url {error}")))?;
        let mut call = Call {
            form: Form::default(),
            headers: vec![
                (ACCEPT, HeaderValue::from_static("application/json")),
                (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
            ],
            outcall: self.tools.outcall.clone(),
            refresh_token: None,
        };
        self.wanted(&mut call.form);
        self.prove(&mut call).await?;
        // The last one, so that a refresh token is in use for no longer than it must.
        self.show(&mut call, identity).await?;
        let body = call.form.encoded();
        let answer = call.outcall.call(Method::POST, &url, &call.headers, body).await;
        let answer = answer.map_err(|error| self.failed(error.to_string()))?;
        if answer.status != StatusCode::OK {
            return Err(self.refused(&answer, &call.form));
        }
        // Before anything else of the answer: from now on it may be the only one.
        let mut kept = Ok(());
        if let Some(in_use) = &mut call.refresh_token {
            match answers::refresh_token(answer.body.expose()) {
                Ok(Some(next)) => {
                    in_use.replace(next).await.map_err(|error| CredentialError::source(&self.name, error))?;
                }
                Ok(None) => {}
                Err(what) => kept = Err(what),
            }
        }
        let given = answers::token_answer(answer.body.expose());
        let given = given.and_then(|given| kept.map(|()| given));
        let given = given.map_err(|what| self.failed(format!("{url}: {what}")))?;
        if let (OauthGrant::TokenExchange(exchange), Some(issued)) = (&self.kind.grant, &given.issued_type)
            && exchange.requested_type.as_ref().is_some_and(|requested| requested != issued)
        {
            return Err(self
                .failed(format!("{url}: the token is of another type than was asked for; it is not used")));
        }
        let (made_of, version) = match (&call.refresh_token, self.kind.secrets().first()) {
            (Some(in_use), Some(secret)) => (secret.name().to_owned(), in_use.held.version),
            (None, Some(secret)) => {
                let held = self.tools.sources.held(secret).and_then(Result::ok);
                (secret.name().to_owned(), held.map_or(0, |held| held.version))
            }
            (_, None) => (proxy_policy::Store::Issuer.as_str().to_owned(), 0),
        };
        let value = Bearer::new(&self.name, given.access.token, &made_of, version)?;
        Ok(Lease { value, lasts: given.access.lasts })
    }

    /// What the token is to be for.
    fn wanted(&self, form: &mut Form) {
        let grant_type = match &self.kind.grant {
            OauthGrant::ClientCredentials => "client_credentials",
            OauthGrant::RefreshToken(_) => "refresh_token",
            OauthGrant::JwtBearer(_) => "urn:ietf:params:oauth:grant-type:jwt-bearer",
            _ => "urn:ietf:params:oauth:grant-type:token-exchange",
        };
        form.add("grant_type", grant_type);
        if !self.kind.scopes.is_empty() {
            form.add("scope", &self.kind.scopes.join(" "));
        }
        self.kind.audience.iter().for_each(|audience| form.add("audience", audience));
        self.kind.resource.iter().for_each(|resource| form.add("resource", resource));
    }

    /// Who asks (RFC 6749 §2.3, RFC 7523 §2.2, RFC 8705 §2).
    async fn prove(&self, call: &mut Call) -> Result<(), CredentialError> {
        let id = self.kind.client_id.as_deref();
        if let (Some(id), false) = (id, matches!(self.kind.client, OauthClient::Basic(_))) {
            call.form.add("client_id", id);
        }
        match &self.kind.client {
            OauthClient::Public => {}
            OauthClient::Post(secret) => {
                call.form.add_secret("client_secret", &self.fetch(secret).await?.secret);
            }
            OauthClient::Basic(secret) => {
                let secret = self.fetch(secret).await?.secret;
                call.form.remember(&secret);
                let value = self.basic(id.unwrap_or_default(), &secret)?;
                call.form.remember(&Arc::new(Secret::new(value.as_bytes().to_vec())));
                call.headers.push((AUTHORIZATION, value));
            }
            OauthClient::PrivateKeyJwt(key) => {
                call.form.add("client_assertion_type", CLIENT_ASSERTION);
                let signed = self.signed(id.unwrap_or_default(), key).await?;
                call.form.add_secret("client_assertion", &Arc::new(signed));
            }
            OauthClient::Mtls { certificate, key } => {
                let (certificate, key) =
                    (self.fetch(certificate).await?.secret, self.fetch(key).await?.secret);
                let identity = ClientIdentity::new(certificate.expose(), key.expose()).map_err(|error| {
                    self.failed(format!("its client_certificate is none with its key: {error}; set it again"))
                })?;
                if identity.has_ended() {
                    let (who, when) = (identity.subject().to_owned(), identity.not_after());
                    return Err(
                        self.failed(format!("its client_certificate ({who}) ended at {when}; set a new one"))
                    );
                }
                call.outcall = call.outcall.presenting(identity);
            }
            _ => return Err(self.failed("this daemon does not know how its client proves itself".to_owned())),
        }
        Ok(())
    }

    /// Name and secret are encoded before they are joined (RFC 6749 §2.3.1).
    fn basic(&self, id: &str, secret: &Secret) -> Result<HeaderValue, CredentialError> {
        let mut pair = Zeroizing::new(Vec::with_capacity(3 * (id.len() + secret.len()) + 1));
        encode(id.as_bytes(), &mut pair);
        pair.push(b':');
        encode(secret.expose(), &mut pair);
        let mut text = Zeroizing::new(String::with_capacity(pair.len().div_ceil(3) * 4));
        BASE64_STANDARD.encode_string(&*pair, &mut text);
        let inject = Inject::authorization("Basic ");
        let value = Attachment::compose(&inject, &Secret::new(text.as_bytes().to_vec()), "", 0).ok();
        value
            .and_then(Attachment::into_header_value)
            .ok_or_else(|| self.failed("a header cannot carry its client_secret".to_owned()))
    }

    async fn signed(&self, id: &str, key: &OauthClientKey) -> Result<Secret, CredentialError> {
        let secret = self.fetch(&key.key).await?.secret;
        let signing = SigningKey::from_pem(key.algorithm, &secret).map_err(|error| {
            let name = key.key.name();
            self.failed(format!(
                "the secret {name} does not sign: {error}; set it again with `vouchsafe secret set {name}`"
            ))
        })?;
        let now = clock::now().0;
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), id.into());
        claims.insert("sub".to_owned(), id.into());
        let audience = key.audience.as_deref().unwrap_or(&self.kind.token_url);
        claims.insert("aud".to_owned(), audience.into());
        claims.insert("iat".to_owned(), now.into());
        claims.insert("nbf".to_owned(), now.saturating_sub(CLIENT_EARLIER_S).into());
        claims.insert("exp".to_owned(), now.saturating_add(CLIENT_LASTS_S).into());
        claims.insert("jti".to_owned(), uuid::Uuid::now_v7().to_string().into());
        let token = signing.sign(key.key_id.as_deref(), &claims);
        token.ok_or_else(|| self.failed("the cryptographic library did not sign".to_owned()))
    }

    /// What the token is given for.
    async fn show(&self, call: &mut Call, identity: &str) -> Result<(), CredentialError> {
        match &self.kind.grant {
            OauthGrant::ClientCredentials => Ok(()),
            OauthGrant::RefreshToken(reference) => {
                let in_use = self.tools.refresh_tokens.take(reference).await;
                let in_use = in_use.map_err(|error| CredentialError::source(&self.name, error))?;
                call.form.add_secret("refresh_token", &in_use.held.secret);
                call.refresh_token = Some(in_use);
                Ok(())
            }
            OauthGrant::JwtBearer(_) => {
                let assertion = Arc::new(self.assertion(identity).await?);
                call.form.add_secret("assertion", &assertion);
                Ok(())
            }
            OauthGrant::TokenExchange(exchange) => self.exchanged(call, exchange, identity).await,
            _ => Err(self.failed("this daemon does not know its grant".to_owned())),
        }
    }

    async fn assertion(&self, identity: &str) -> Result<Secret, CredentialError> {
        let nobody = || self.failed("nobody signs its assertion".to_owned());
        let signer = self.assertion.as_ref().ok_or_else(nobody)?;
        // The token alone; its texts have places for the identity and nothing else.
        let inject = Arc::new(Inject::authorization(""));
        let inject = Some(&inject);
        let ask = Ask { identity, api: "", host: "", workload: AskedBy::default(), inject };
        let made = match signer.ready(&ask) {
            Some(made) => made,
            None => signer.provide(&ask).await,
        };
        let value = made?.into_header_value().ok_or_else(nobody)?;
        Ok(Secret::new(value.as_bytes().to_vec()))
    }

    async fn exchanged(
        &self,
        call: &mut Call,
        exchange: &OauthExchange,
        identity: &str,
    ) -> Result<(), CredentialError> {
        let subject = self.token(&exchange.subject, identity).await?;
        call.form.add_secret("subject_token", &subject.secret);
        call.form.add("subject_token_type", &exchange.subject.token_type);
        if let Some(actor) = &exchange.actor {
            call.form.add_secret("actor_token", &self.token(actor, identity).await?.secret);
            call.form.add("actor_token_type", &actor.token_type);
        }
        if let Some(requested) = &exchange.requested_type {
            call.form.add("requested_token_type", requested);
        }
        Ok(())
    }

    async fn token(&self, token: &OauthToken, identity: &str) -> Result<Held, CredentialError> {
        let held = self.tools.subject_token(identity, &token.token).await;
        held.map_err(|error| CredentialError::source(&self.name, error))
    }

    async fn fetch(&self, reference: &SecretRef) -> Result<Held, CredentialError> {
        let held = self.tools.sources.fetch(reference).await;
        held.map_err(|error| CredentialError::source(&self.name, error))
    }

    /// What the server says, unless it repeats a secret, and what to do.
    fn refused(&self, answer: &IssuerAnswer, form: &Form) -> CredentialError {
        let told = answers::token_refusal(answer.body.expose());
        let advice = match (told.code, &self.kind.grant) {
            (Some("invalid_client"), _) => "check client_id, auth, and the secret or key of the client",
            (Some("unauthorized_client" | "unsupported_grant_type"), _) => {
                "the client may not use this grant: allow it at the server"
            }
            (Some("invalid_scope" | "invalid_target"), _) => "check scopes, audience and resource",
            (Some("invalid_grant"), OauthGrant::RefreshToken(_)) => {
                "it does not take the refresh token any more: sign in again, and set the secret anew"
            }
            (Some("invalid_grant"), OauthGrant::JwtBearer(_)) => {
                "it does not take the assertion: check its key, issuer, subject and audience, and the clock of this host"
            }
            (Some("invalid_grant" | "invalid_request"), OauthGrant::TokenExchange(_)) => {
                "it does not take the subject or actor token: check whom it trusts, audiences, and the clock of this host"
            }
            _ => "check token_url, and see the log of the server",
        };
        let mut said = answer.status.as_u16().to_string();
        if let Some(code) = told.code {
            said = format!("{said} {code}");
        }
        if let Some(description) = told.description.filter(|text| !form.is_told_in(text)) {
            said = format!("{said} ({description})");
        }
        self.failed(format!("{} answered {said}; {advice}", self.kind.token_url))
    }

    fn failed(&self, problem: String) -> CredentialError {
        CredentialError::NotObtained { credential: self.name.to_string(), problem }
    }
}
