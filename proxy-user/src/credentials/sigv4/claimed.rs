//! What a client that signs says: for which service of which region, how, and what of the body. Its key is none, and neither is
//! its signature; both are taken out.

use http::header::{AUTHORIZATION, HeaderMap};

use super::super::attach::{Head, Misplaced};
use super::super::escape;
use super::{ALGORITHM, Scope};

/// The most seconds for which a signature in the query holds.
const MOST_EXPIRES: u32 = 7 * 24 * 3600;

/// What is said of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing.
    Nothing,
    /// Its digest, or that it is not signed.
    Digest(String),
    /// That it is signed in chunks, maybe with trailers.
    Chunks { trailers: bool },
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) scope: Option<Scope>,
    /// In the query, for so many seconds.
    pub(super) in_query: Option<u32>,
    pub(super) body: Said,
}

/// The parameters of a signature in the query.
pub(super) const PARAMETERS: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-SignedHeaders",
    "X-Amz-Signature",
    "X-Amz-Security-Token",
];

impl Claimed {
    /// Reads a request as it came.
    ///
    /// # Errors
    /// It is signed in a way that cannot be signed anew.
    pub(super) fn read(head: &Head<'_>) -> Result<Self, Misplaced> {
        let body = said(head.headers)?;
        if let Some((credential, expires)) = in_query(head.target.query().unwrap_or_default())? {
            return Ok(Self { scope: scope(&credential), in_query: Some(expires), body });
        }
        let mut scopes = head.headers.get_all(AUTHORIZATION).iter().filter_map(|it| it.to_str().ok());
        let mut claimed = None;
        if let Some(value) = scopes.next() {
            if value.starts_with("AWS4-ECDSA") {
                return Err(ASYMMETRIC);
            }
            claimed = value.strip_prefix(ALGORITHM).and_then(|rest| {
                let credential = rest.split(',').find_map(|part| part.trim().strip_prefix("Credential="))?;
                scope(credential)
            });
        }
        Ok(Self { scope: claimed, in_query: None, body })
    }
}

const ASYMMETRIC: Misplaced = Misplaced::Unsigned(
    "the client signs with Signature Version 4A, for several regions; set it to one region",
);

fn said(headers: &HeaderMap) -> Result<Said, Misplaced> {
    let mut values = headers.get_all("x-amz-content-sha256").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return match headers.contains_key("x-amz-content-sha256") {
            true => Err(Misplaced::Unsigned("x-amz-content-sha256 stands more than once")),
            false => Ok(Said::Nothing),
        };
    };
    match value.to_str().unwrap_or_default() {
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" => Ok(Said::Chunks { trailers: false }),
        "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER" => Ok(Said::Chunks { trailers: true }),
        text @ ("UNSIGNED-PAYLOAD" | "STREAMING-UNSIGNED-PAYLOAD-TRAILER") => {
            Ok(Said::Digest(text.to_owned()))
        }
        text if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok(Said::Digest(text.to_owned()))
        }
        text if text.starts_with("STREAMING-AWS4-ECDSA") => Err(ASYMMETRIC),
        _ => Err(Misplaced::Unsigned("x-amz-content-sha256 is nothing that can be signed")),
    }
}

/// Credential and seconds of a signature in the query, if there is one.
fn in_query(query: &str) -> Result<Option<(String, u32)>, Misplaced> {
    let value = |name: &str| {
        let piece = query.split('&').find(|piece| super::super::parts::is_named(piece, name))?;
        let value = piece.split_once('=').map_or("", |(_, value)| value);
        String::from_utf8(escape::unpercent(value.as_bytes())).ok()
    };
    match value("X-Amz-Algorithm") {
        None => Ok(None),
        Some(algorithm) if algorithm == ALGORITHM => {
            let expires = value("X-Amz-Expires").and_then(|it| it.parse().ok()).unwrap_or(MOST_EXPIRES);
            Ok(Some((value("X-Amz-Credential").unwrap_or_default(), expires.clamp(1, MOST_EXPIRES))))
        }
        Some(_) => Err(ASYMMETRIC),
    }
}

/// Of `ID/20150830/us-east-1/s3/aws4_request`. The id may have slashes; the end counts.
fn scope(credential: &str) -> Option<Scope> {
    let mut parts = credential.rsplit('/');
    let end = parts.next()?;
    let (service, region, _date) = (parts.next()?, parts.next()?, parts.next()?);
    let plain = |text: &str| {
        let part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !text.is_empty() && text.len() <= 64 && text.bytes().all(part)
    };
    (end == "aws4_request" && plain(service) && plain(region) && parts.next().is_some())
        .then(|| Scope { region: region.into(), service: service.into() })
}

/// What a host of AWS itself says of its service and region. Not every service is called as its hosts are: a client that signs
/// knows better, and the policy best.
pub(super) fn of_host(host: &str) -> Option<Scope> {
    let name = ["amazonaws.com", "amazonaws.com.cn", "api.aws"]
        .into_iter()
        .find_map(|end| host.strip_suffix(end)?.strip_suffix('.'))?;
    let labels: Vec<&str> = name.split('.').filter(|label| *label != "dualstack").collect();
    let is_region = |label: &str| {
        let mut parts = label.rsplit('-');
        let digit =
            parts.next().is_some_and(|it| it.len() == 1 && it.bytes().all(|byte| byte.is_ascii_digit()));
        digit && parts.count() >= 2
    };
    let at = labels.iter().rposition(|label| is_region(label));
    let (region, service) = match at {
        Some(at) => (labels.get(at).copied()?, labels.get(at.checked_sub(1)?).copied()?),
        None => ("us-east-1", labels.last().copied()?),
    };
    let service = match service {
        "email" => "ses",
        "bedrock-runtime" | "bedrock-agent" | "bedrock-agent-runtime" => "bedrock",
        "streams" => "dynamodb",
        other => other.strip_suffix("-fips").unwrap_or(other),
    };
    Some(Scope { region: region.into(), service: service.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(region: &str, service: &str) -> Option<Scope> {
        Some(Scope { region: region.into(), service: service.into() })
    }

    #[test]
    fn the_scope_is_at_the_end_of_a_credential() {
        assert_eq!(scope("AKID/20150830/us-east-1/s3/aws4_request"), at("us-east-1", "s3"));
        assert_eq!(scope("a/b/20150830/us-east-1/s3/aws4_request"), at("us-east-1", "s3"));
        for bad in [
            "",
            "AKID",
            "20150830/us-east-1/s3/aws4_request",
            "A/1/US/s3/aws4_request",
            "A/1/us//aws4_request",
        ] {
            assert_eq!(scope(bad), None, "{bad}");
        }
    }

    #[test]
    fn hosts_of_aws_say_service_and_region() {
        for (host, region, service) in [
            ("s3.amazonaws.com", "us-east-1", "s3"),
            ("bucket.s3.eu-central-1.amazonaws.com", "eu-central-1", "s3"),
            ("my.bucket.s3.dualstack.us-gov-west-1.amazonaws.com", "us-gov-west-1", "s3"),
            ("sts.amazonaws.com", "us-east-1", "sts"),
            ("dynamodb.cn-north-1.amazonaws.com.cn", "cn-north-1", "dynamodb"),
            ("abc.execute-api.us-east-2.amazonaws.com", "us-east-2", "execute-api"),
            ("bedrock-runtime.us-east-1.amazonaws.com", "us-east-1", "bedrock"),
            ("kms-fips.us-east-1.amazonaws.com", "us-east-1", "kms"),
            ("lambda.eu-west-1.api.aws", "eu-west-1", "lambda"),
        ] {
            assert_eq!(of_host(host), at(region, service), "{host}");
        }
        assert_eq!(of_host("amazonaws.com"), None);
        assert_eq!(of_host("evilamazonaws.com"), None);
        assert_eq!(of_host("s3.example.com"), None);
    }
}
