//! The temporary keys of a role, from the Security Token Service: `AssumeRole`, signed with keys of the host, or
//! `AssumeRoleWithWebIdentity`, for a token about the identity.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use proxy_policy::{AwsCredential, AwsKeys, AwsRole, Variable};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::attach::Attachment;
use super::super::aws_call::{self, SignedBy};
use super::super::error::CredentialError;
use super::super::lease::Lease;
use super::super::live::Tools;
use super::super::outcall::{IssuerAnswer, IssuerUrl};
use super::super::secret::Secret;
use super::super::sigv4::{AwsSigner, Keys};
use super::super::sts_answers::aws_keys;
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
        let (form, keys) = match &self.kind.keys {
            AwsKeys::WebIdentity(reference) => {
                let held = self.tools.subject_token(identity, reference).await;
                let held = held.map_err(|error| CredentialError::source(&self.name, error))?;
                let token = ("WebIdentityToken", held.secret.expose());
                (self.form(identity, "AssumeRoleWithWebIdentity", Some(token))?, None)
            }
            _ => {
                let held = fetched(&self.tools.sources, &self.kind.secrets()).await;
                let held = held.map_err(|error| CredentialError::source(&self.name, error))?;
                let keys = keys(&self.name, &self.kind.keys, &held)?;
                (self.form(identity, "AssumeRole", None)?, Some(keys))
            }
        };
        let region = self.kind.region.clone().unwrap_or_else(|| aws_call::region_of(&url, "sts"));
        let signed_by = keys.map(|keys| SignedBy { keys, region: &region, service: "sts" });
        let answer = aws_call::call(&self.tools.outcall, &url, form, signed_by).await;
        let answer = answer.map_err(|what| self.failed(&what))?;
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
        Ok(aws_call::form(&pairs))
    }

    fn given(&self, url: &IssuerUrl, answer: &IssuerAnswer) -> Result<Lease<Session>, CredentialError> {
        if answer.status != StatusCode::OK {
            let advice = match answer.status {
                StatusCode::FORBIDDEN => {
                    "check that the role trusts these keys, or this issuer, and the clock of this host"
                }
                StatusCode::BAD_REQUEST => "check role_arn, duration and session_name",
                _ => "try again later, and see the state of the service",
            };
            let told = aws_call::told(answer.status, &answer.body);
            return Err(self.failed(&format!("{url} answered {told}; {advice}")));
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
