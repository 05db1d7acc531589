//! One call of the daemon itself to an API of AWS that takes forms (IAM, STS), signed or not.

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode};

use super::attach::Head;
use super::escape;
use super::outcall::{IssuerAnswer, IssuerUrl, Outcall};
use super::secret::Secret;
use super::signing::Signer as _;
use super::sigv4::{AwsSigner, Keys};
use super::sts_answers::aws_error;

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// Who signs a call, and for which region and service.
pub(super) struct SignedBy<'a> {
    pub(super) keys: Keys,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// A form of these fields, in their order.
pub(super) fn form(fields: &[(&str, &[u8])]) -> Secret {
    // At its final size from the start: a buffer that grew would leave a copy behind in freed memory.
    let most = fields.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut form = Vec::with_capacity(most);
    for (name, value) in fields {
        if !form.is_empty() {
            form.push(b'&');
        }
        form.extend_from_slice(name.as_bytes());
        form.push(b'=');
        form.extend_from_slice(escape::percent(value).expose());
    }
    Secret::new(form)
}

/// Sends a form, and what is answered.
///
/// # Errors
/// Nobody answers, or it cannot be signed. Nothing of what was sent.
pub(super) async fn call(
    way: &Outcall,
    url: &IssuerUrl,
    form: Secret,
    signed_by: Option<SignedBy<'_>>,
) -> Result<IssuerAnswer, String> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, FORM);
    if let Some(by) = signed_by {
        sign(url, &form, by, &mut headers).ok_or("the call cannot be signed")?;
    }
    let sent: Vec<(HeaderName, HeaderValue)> =
        headers.into_iter().filter_map(|(name, value)| Some((name?, value))).collect();
    way.call(Method::POST, url, &sent, form).await.map_err(|error| error.to_string())
}

fn sign(url: &IssuerUrl, form: &Secret, by: SignedBy<'_>, headers: &mut HeaderMap) -> Option<()> {
    let signer = AwsSigner::new(by.keys, Some(by.region), Some(by.service));
    let authority: Authority = url.uri().authority().cloned()?;
    let mut target = url.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let method = Method::POST;
    let mut head = Head { method: &method, target: &mut target, authority: &authority, headers };
    let signing = signer.look(&head).ok()?;
    signing.sign(&mut head, form.expose()).ok()?;
    Some(())
}

/// The region that the host of such an API names: `sts.eu-central-1.amazonaws.com`, `iam.us-gov.amazonaws.com`.
pub(super) fn region_of(url: &IssuerUrl, service: &str) -> String {
    let named = url.host().strip_prefix(service).and_then(|rest| rest.strip_prefix('.'));
    let label = named.and_then(|rest| rest.split('.').next()).filter(|label| label.contains('-'));
    match label {
        // The one region that signs for all of GovCloud in IAM.
        Some("us-gov") => "us-gov-west-1".to_owned(),
        Some(label) => label.to_owned(),
        None => "us-east-1".to_owned(),
    }
}

/// The status of a refusal, and its code if it is known.
pub(super) fn told(status: StatusCode, body: &Secret) -> String {
    let code = aws_error(body.expose()).map_or(String::new(), |code| format!(" ({code})"));
    format!("{}{code}", status.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_names_the_region_that_is_signed_for() {
        for (url, service, region) in [
            ("https://sts.eu-central-1.amazonaws.com/", "sts", "eu-central-1"),
            ("https://sts.amazonaws.com/", "sts", "us-east-1"),
            ("https://iam.amazonaws.com/", "iam", "us-east-1"),
            ("https://iam.us-gov.amazonaws.com/", "iam", "us-gov-west-1"),
            ("https://iam.cn-north-1.amazonaws.com.cn/", "iam", "cn-north-1"),
            ("http://127.0.0.1:5000/", "iam", "us-east-1"),
            ("https://my-own.test/", "sts", "us-east-1"),
        ] {
            assert_eq!(region_of(&url.parse().unwrap(), service), region, "{url}");
        }
    }

    #[test]
    fn a_form_has_its_fields_escaped() {
        assert_eq!(form(&[("A", b"b c&d"), ("E", b"/+=")]).expose(), b"A=b%20c%26d&E=%2F%2B%3D");
    }
}
