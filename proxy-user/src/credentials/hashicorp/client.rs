//! One call to HashiCorp Vault or OpenBao: where, as whom, and what its status means.

use std::sync::Arc;

use http::header::HeaderName;
use http::{HeaderValue, Method, StatusCode};
use zeroize::Zeroizing;

use super::super::attach::Attachment;
use super::super::inject::Inject;
use super::super::outcall::{IssuerAnswer, IssuerUrl, Outcall};
use super::super::secret::Secret;
use super::super::sources::SourceError;
use super::answers;

const TOKEN: HeaderName = HeaderName::from_static("x-vault-token");
const NAMESPACE: HeaderName = HeaderName::from_static("x-vault-namespace");
/// Some listeners want it, so that nobody is led to call them by a page.
const REQUEST: HeaderName = HeaderName::from_static("x-vault-request");

/// Where it is.
pub(super) struct Client {
    address: String,
    namespace: Option<HeaderValue>,
}

/// A call.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// Below `/v1/`.
    pub(super) path: &'a str,
    pub(super) body: Secret,
}

impl<'a> Call<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: Secret::new(Vec::new()) }
    }

    pub(super) fn put(path: &'a str, body: &Arc<Secret>) -> Self {
        Self { method: Method::PUT, path, body: Secret::new(body.expose().to_vec()) }
    }

    pub(super) fn post(path: &'a str, body: Secret) -> Self {
        Self { method: Method::POST, path, body }
    }
}

pub(super) fn unavailable(problem: impl Into<String>) -> SourceError {
    SourceError::Unavailable { problem: problem.into() }
}

impl Client {
    pub(super) fn new(address: &str, namespace: Option<&str>) -> Self {
        // The configuration has looked at both.
        let namespace = namespace.and_then(|it| HeaderValue::from_str(it).ok());
        Self { address: address.to_owned(), namespace }
    }

    /// Where it is, for people.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What is answered, if it is an answer: done, or refused.
    ///
    /// # Errors
    /// Nobody answers, or not at the moment.
    pub(super) async fn call(
        &self,
        way: &Outcall,
        token: Option<&Secret>,
        call: Call<'_>,
    ) -> Result<IssuerAnswer, SourceError> {
        let url: Result<IssuerUrl, _> = format!("{}/v1/{}", self.address, call.path).parse();
        let url = url.map_err(|error| unavailable(format!("hashicorp.address {error}")))?;
        let mut headers = vec![(REQUEST, HeaderValue::from_static("true"))];
        headers.extend(self.namespace.clone().map(|namespace| (NAMESPACE, namespace)));
        if let Some(token) = token {
            // Wiped, and nothing that prints headers shows it.
            let value = Attachment::compose(&Inject::authorization(""), token, "", 0).ok();
            let value = value.and_then(Attachment::into_header_value);
            headers.push((
                TOKEN,
                value.ok_or_else(|| {
                    unavailable("the token of [hashicorp] has bytes that no header carries")
                })?,
            ));
        }
        let answer = way.call(call.method, &url, &headers, call.body).await;
        let answer = answer.map_err(|error| unavailable(error.to_string()))?;
        let advice = match answer.status {
            StatusCode::OK | StatusCode::NO_CONTENT => return Ok(answer),
            StatusCode::PRECONDITION_FAILED => "it has not seen our last change yet",
            StatusCode::TOO_MANY_REQUESTS => "it has a quota for such calls",
            StatusCode::SERVICE_UNAVAILABLE => "it is sealed, or in maintenance",
            status if status.is_server_error() => "see its log",
            status if status.is_client_error() => return Ok(answer),
            status if status.is_redirection() => {
                "it is a standby that sends to another; name the active one as hashicorp.address, or let it forward"
            }
            _ => "hashicorp.address may be something else than Vault or OpenBao",
        };
        Err(unavailable(format!("{url} answered {}; {advice}", told(&answer))))
    }
}

/// The status, and why, in known words alone.
pub(super) fn told(answer: &IssuerAnswer) -> String {
    let status = answer.status.as_u16();
    match answers::refusal(answer.body.expose()) {
        Some(why) => format!("{status} ({why})"),
        None => status.to_string(),
    }
}

/// A JSON object of texts. `None`: one is none.
pub(super) fn object(fields: &[(&str, &[u8])]) -> Option<Secret> {
    let most: usize = fields.iter().map(|(name, value)| name.len() + 6 * value.len() + 16).sum();
    // At its final size from the start: a buffer that grew would leave copies behind in freed memory.
    let mut body = Zeroizing::new(Vec::with_capacity(most + 2));
    body.push(b'{');
    for (number, (name, value)) in fields.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        serde_json::to_writer(&mut *body, name).ok()?;
        body.push(b':');
        serde_json::to_writer(&mut *body, std::str::from_utf8(value).ok()?).ok()?;
    }
    body.push(b'}');
    Some(Secret::from(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_texts_as_they_are() {
        let body = object(&[("role_id", b"r"), ("secret_id", b"a\"b\\\n\x01")]).unwrap();
        let read: serde_json::Value = serde_json::from_slice(body.expose()).unwrap();
        assert_eq!(read, serde_json::json!({"role_id": "r", "secret_id": "a\"b\\\n\u{1}"}));
        assert_eq!(object(&[]).unwrap().expose(), b"{}");
        assert!(object(&[("jwt", b"\xff")]).is_none());
    }
}
