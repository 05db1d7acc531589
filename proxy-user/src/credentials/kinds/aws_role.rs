//! The temporary keys of a role, from the Security Token Service: `AssumeRole`, signed with keys of the host, or
//! `AssumeRoleWithWebIdentity`, for a token about the identity.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode};
use proxy_policy::{AwsCredential, AwsKeys, AwsRole, Variable};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::attach::{Attachment, Head};
use super::super::error::CredentialError;
use super::super::escape;
use super::super::lease::Lease;
use super::super::live::Tools;
use super::super::outcall::{IssuerAnswer, IssuerUrl};
use super::super::secret::Secret;
use super::super::signing::Signer as _;
use super::super::sigv4::{AwsSigner, Keys};
use super::super::sts_answers::{aws_error, aws_keys};
use super::aws::{fetched, keys};

/// What AWS takes as the name of a session (API reference of the Security Token Service).
const NAME_LENGTH: std::ops::RangeInclusive<usize> = 2..=64;

/// Keys that were given.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) attachment: Attachment,
}

/// A role that is assumed.
pub(super) struct Role {
    name: Arc<str>,
    kind: Arc<AwsCredential>,
    role: AwsRole,
    tools: Tools,
    /// How often keys were given.
    given: AtomicU64,
}

impl Role {
    pub(super) fn new(name: Arc<str>, kind: Arc<AwsCredential>, role: AwsRole, tools: &Tools) -> Self {
        Self { name, kind, role, tools: tools.clone(), given: AtomicU64::new(0) }
    }

    /// Asks for keys in the name of an identity.
    pub(super) async fn assume(&self, identity: &str) -> Result<Lease<Session>, CredentialError> {
        let url: IssuerUrl =
            self.role.sts_url.parse().map_err(|error| self.failed(&format!("its sts_url {error}")))?;
        let (form, headers) = match &self.kind.keys {
            AwsKeys::WebIdentity(reference) => {
                let held = self.tools.subject_token(identity, reference).await;
                let held = held.map_err(|error| CredentialError::source(&self.name, error))?;
                let token = ("WebIdentityToken", held.secret.expose());
                (self.form(identity, "AssumeRoleWithWebIdentity", Some(token))?, HeaderMap::new())
            }
            _ => {
                let form = self.form(identity, "AssumeRole", None)?;
                let held = fetched(&self.tools.sources, &self.kind.secrets()).await;
                let held = held.map_err(|error| CredentialError::source(&self.name, error))?;
                let headers = self.signed(&url, &form, keys(&self.name, &self.kind.keys, &held)?)?;
                (form, headers)
            }
        };
        let mut sent: Vec<(HeaderName, HeaderValue)> = vec![(CONTENT_TYPE, FORM)];
        sent.extend(
            headers
                .into_iter()
                .filter_map(|(name, value)| Some((name?, value)))
                .filter(|it| it.0 != CONTENT_TYPE),
        );
        let answer = self.tools.outcall.call(Method::POST, &url, &sent, form).await;
        let answer = answer.map_err(|error| self.failed(&error.to_string()))?;
        self.given(&url, &answer)
    }

    fn form(
        &self,
        identity: &str,
        action: &str,
        token: Option<(&str, &[u8])>,
    ) -> Result<Secret, CredentialError> {
        let place = |variable| (variable == Variable::Identity).then_some(identity);
        let name = self.role.session_name.fill(place);
        let name = name.filter(|name| NAME_LENGTH.contains(&name.len())).ok_or_else(|| {
            self.failed("the name of its session must have 2 to 64 characters; see its session_name")
        })?;
        let seconds = self.role.duration.as_secs().to_string();
        let mut pairs: Vec<(&str, &[u8])> = vec![
            ("Action", action.as_bytes()),
            ("Version", b"2011-06-15"),
            ("RoleArn", self.role.arn.as_bytes()),
            ("RoleSessionName", name.as_bytes()),
            ("DurationSeconds", seconds.as_bytes()),
        ];
        pairs.extend(self.role.external_id.as_ref().map(|id| ("ExternalId", id.as_bytes())));
        pairs.extend(token);
        // At its final size from the start: a buffer that grew would leave a copy behind in freed memory.
        let most = pairs.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
        let mut form = Vec::with_capacity(most);
        for (name, value) in pairs {
            if !form.is_empty() {
                form.push(b'&');
            }
            form.extend_from_slice(name.as_bytes());
            form.push(b'=');
            form.extend_from_slice(escape::percent(value).expose());
        }
        Ok(Secret::new(form))
    }

    /// The headers of a call that is signed with the keys of the host.
    fn signed(&self, url: &IssuerUrl, form: &Secret, keys: Keys) -> Result<HeaderMap, CredentialError> {
        let unsigned = || self.failed("the call for the keys of its role cannot be signed");
        let region = self.kind.region.clone().or_else(|| {
            let host = url.host().strip_prefix("sts.")?;
            host.split('.').next().filter(|label| label.contains('-')).map(str::to_owned)
        });
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let signer = AwsSigner::new(keys, Some(&region), Some("sts"));
        let authority: Authority = url.uri().authority().cloned().ok_or_else(unsigned)?;
        let mut target =
            url.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, FORM);
        let method = Method::POST;
        let mut head =
            Head { method: &method, target: &mut target, authority: &authority, headers: &mut headers };
        let signing = signer.look(&head).map_err(|_| unsigned())?;
        signing.sign(&mut head, form.expose()).map_err(|_| unsigned())?;
        Ok(headers)
    }

    fn given(&self, url: &IssuerUrl, answer: &IssuerAnswer) -> Result<Lease<Session>, CredentialError> {
        if answer.status != StatusCode::OK {
            let code = aws_error(answer.body.expose());
            let code = code.map_or(String::new(), |code| format!(" ({code})"));
            let advice = match answer.status {
                StatusCode::FORBIDDEN => {
                    "check that the role trusts these keys, or this issuer, and the clock of this host"
                }
                StatusCode::BAD_REQUEST => "check role_arn, duration and session_name",
                _ => "try again later, and see the state of the service",
            };
            let status = answer.status.as_u16();
            return Err(self.failed(&format!("{url} answered {status}{code}; {advice}")));
        }
        let given = aws_keys(answer.body.expose()).map_err(|what| self.failed(&format!("{url}: {what}")))?;
        let ends = OffsetDateTime::parse(&given.expiration, &Rfc3339)
            .map_err(|_| self.failed(&format!("{url}: the keys do not say when they end")))?;
        let lasts = Duration::try_from(ends - OffsetDateTime::now_utc()).map_err(|_| {
            self.failed(&format!("{url}: the keys ended before they came; check the clock of this host"))
        })?;
        let keys = Keys {
            id: given.id.into(),
            secret: Arc::new(given.secret),
            session_token: Some(Arc::new(given.session_token)),
        };
        let (region, service) = (self.kind.region.as_deref(), self.kind.service.as_deref());
        let signer = Arc::new(AwsSigner::new(keys, region, service));
        let version = self.given.fetch_add(1, Ordering::Relaxed) + 1;
        let attachment = Attachment::of_signer(signer, &self.role.arn, version);
        Ok(Lease { value: Session { attachment }, lasts: Some(lasts) })
    }

    fn failed(&self, problem: &str) -> CredentialError {
        CredentialError::NotObtained { credential: self.name.to_string(), problem: problem.to_owned() }
    }
}

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
