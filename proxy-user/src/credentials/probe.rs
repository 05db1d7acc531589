//! A call of the daemon itself with a credential, to see whether the API takes it. Nothing of the answer but its status is told.

use std::sync::Arc;

use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode};
use proxy_policy::Probe;

use super::attach::Head;
use super::error::CredentialError;
use super::live::{Credentials, LiveCredential};
use super::outcall::IssuerUrl;
use super::provider::Ask;
use super::secret::Secret;

/// What an API said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    /// The status.
    pub status: StatusCode,
    /// The version of what the credential was made of.
    pub version: u64,
}

impl Credentials {
    /// Makes the call of `probe` with the credential `at_work`, for whom `ask` says.
    ///
    /// # Errors
    /// There is no credential, it does not go into this call, or the API cannot be reached.
    pub async fn probe(
        &self,
        at_work: &Arc<LiveCredential>,
        probe: &Probe,
        ask: &Ask<'_>,
    ) -> Result<Probed, CredentialError> {
        let misfit = |problem: String| CredentialError::Misfit {
            credential: at_work.name().to_owned(),
            problem: format!("its probe, {}: {problem}", probe.request.text),
        };
        let unspoken = || misfit("it is not HTTP".to_owned());
        let attachment = match at_work.ready(ask) {
            Some(ready) => ready?,
            None => at_work.provide(ask).await?,
        };
        let request = &probe.request;
        let method = Method::from_bytes(request.method.as_bytes()).map_err(|_| unspoken())?;
        let authority: Authority = request.authority.parse().map_err(|_| unspoken())?;
        let mut target: PathAndQuery = request.target.parse().map_err(|_| unspoken())?;
        // Without path and query: these may have the secret in them.
        let url: IssuerUrl = format!("https://{authority}/").parse().map_err(|_| unspoken())?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        let mut head =
            Head { method: &method, target: &mut target, authority: &authority, headers: &mut headers };
        let no_place = |error: super::attach::Misplaced| misfit(error.to_string());
        let signing = attachment.for_request(&head).map_err(no_place)?;
        let attachment = signing.unwrap_or(attachment);
        attachment.attach(&mut head).map_err(no_place)?;
        let outcall = match attachment.client() {
            Some(client) => self.outcall().presenting(client.clone()),
            None => self.outcall().clone(),
        };
        let headers: Vec<(HeaderName, HeaderValue)> =
            headers.into_iter().filter_map(|(name, value)| Some((name?, value))).collect();
        let answer = outcall.call_at(method, &url, target, &headers, Secret::new(Vec::new())).await;
        let answer = answer.map_err(|error| CredentialError::NotObtained {
            credential: at_work.name().to_owned(),
            problem: format!("its probe was not answered: {error}"),
        })?;
        Ok(Probed { status: answer.status, version: attachment.secret_version() })
    }
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
