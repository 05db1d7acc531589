//! Against the signer of the official SDK, and as clients send requests.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation,
    SigningSettings, UriPathNormalizationMode,
};
use aws_sigv4::sign::v4;
use http::Method;
use http::header::HeaderMap;
use http::uri::Authority;
use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const AT: OffsetDateTime = datetime!(2026-11-25 12:00:00 UTC);

fn signer(token: Option<&str>, region: Option<&str>, service: Option<&str>) -> AwsSigner {
    let session_token = token.map(|it| Arc::new(Secret::new(it.into())));
    let keys = Keys { id: "AKIDOURS".into(), secret: Arc::new(Secret::new(SECRET.into())), session_token };
    AwsSigner::new(keys, region, service)
}

/// A request on its way.
struct Sent {
    method: Method,
    target: PathAndQuery,
    authority: Authority,
    headers: HeaderMap,
}

impl Sent {
    fn new(method: &str, authority: &str, target: &str, headers: &[(&str, &str)]) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Self {
            method: method.parse().unwrap(),
            target: target.parse().unwrap(),
            authority: authority.parse().unwrap(),
            headers: map,
        }
    }

    fn head(&mut self) -> Head<'_> {
        let Self { method, target, authority, headers } = self;
        Head { method, target, authority, headers }
    }

    /// Signed by us as it is on its way.
    fn signed(&mut self, signer: &AwsSigner, body: &[u8]) -> Result<Vec<String>, Misplaced> {
        use super::super::super::attach::{Attachment, strip_head};
        use super::super::super::inject::Strip;
        let signer = AwsSigner {
            keys: Arc::clone(&signer.keys),
            days: Arc::clone(&signer.days),
            region: signer.region.clone(),
            service: signer.service.clone(),
            needles: None,
        };
        let attachment = Attachment::of_signer(Arc::new(signer), "aws", 1);
        let looked = attachment.for_request(&self.head())?.unwrap();
        let looked = looked.over(body.to_vec().into());
        let removed = strip_head(&mut self.head(), Some(&looked), &Strip::default())?;
        looked.attach(&mut self.head())?;
        Ok(removed.0.into_iter().map(|(place, _)| place).collect())
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |it| it.to_str().unwrap())
    }
}

/// What the official signer makes of it: the signature.
fn official(sent: &Sent, store: bool, in_query: bool, token: Option<&str>, body: SignableBody<'_>) -> String {
    let identity = Credentials::new("AKIDOURS", SECRET, token.map(str::to_owned), None, "test").into();
    let mut settings = SigningSettings::default();
    settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    if store {
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    if in_query {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(300));
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
    }
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-central-1")
        .name(if store { "s3" } else { "dynamodb" })
        .time(SystemTime::from(AT))
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let uri = format!("https://{}{}", sent.authority, sent.target);
    let headers = sent.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
    let request = SignableRequest::new(sent.method.as_str(), uri, headers, body).unwrap();
    aws_sigv4::http_request::sign(request, &params).unwrap().signature().to_owned()
}

fn signature_of(sent: &Sent) -> String {
    let (_, after) = sent.header("authorization").split_once("Signature=").unwrap();
    after.to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn what_we_sign_is_what_the_official_signer_signs(
        store: bool,
        in_query: bool,
        token in prop::option::of("[A-Za-z0-9/+=]{20,60}"),
        path in "(/[A-Za-z0-9_~@:=-]{0,3}(%[A-F][0-9A-F])?){1,4}",
        query in "([A-Za-z-]{1,4}(=([A-Za-z0-9~.-]|%[2-7][0-9A-F]){0,6})?&){0,4}[a-z]{1,3}",
        kind in "[ -~&&[^,]]{0,12}",
        note in "[a-z]( {1,3}[a-z]){0,3}",
        body: Vec<u8>,
    ) {
        // The official signer takes it as it is there, and a client of the store escapes it in one way.
        let path = if store { path.replace(['@', ':', '='], "") } else { path };
        let target = format!("{path}?{query}");
        let headers = [("content-type", kind.trim()), ("x-amz-meta-note", note.as_str()), ("accept", "*/*")];
        let service = if store { "s3" } else { "dynamodb" };
        let signer = signer(token.as_deref(), Some("eu-central-1"), Some(service));
        let mut ours = Sent::new("PUT", "x.test:8443", &target, &headers);
        let mut theirs = Sent::new("PUT", "x.test:8443", &target, &headers[..2]);
        theirs.headers.insert("host", "x.test:8443".parse().unwrap());
        let said = match store {
            true => SignableBody::UnsignedPayload,
            false => SignableBody::Bytes(&body),
        };
        let expected = official(&theirs, store, in_query, token.as_deref(), said);
        let scope = Scope { region: "eu-central-1".into(), service: service.into() };
        let (keys, days) = (Arc::clone(&signer.keys), Arc::clone(&signer.days));
        let in_query_s = in_query.then_some(300);
        let signing = AwsSigning { keys, days, scope, in_query: in_query_s, body: Said::Nothing };
        signing.sign_at(&mut ours.head(), &body, Stamp::of(AT)).unwrap();
        let signature = match in_query {
            true => ours.target.query().unwrap().rsplit_once("X-Amz-Signature=").unwrap().1.to_owned(),
            false => signature_of(&ours),
        };
        prop_assert_eq!(signature, expected);
    }
}

#[test]
fn the_signature_of_the_client_says_what_for_and_goes_out() {
    let mut sent = Sent::new(
        "GET",
        "store.test",
        "/key",
        &[
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=DUMMY/20200101/eu-west-3/s3/aws4_request, SignedHeaders=host, \
                 Signature=00",
            ),
            ("x-amz-date", "20200101T000000Z"),
            ("x-amz-security-token", "theirs"),
            ("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ],
    );
    let removed = sent.signed(&signer(None, None, None), b"").unwrap();
    assert_eq!(removed, ["header authorization", "header x-amz-date", "header x-amz-security-token"]);
    let value = sent.header("authorization");
    assert!(value.starts_with("AWS4-HMAC-SHA256 Credential=AKIDOURS/"), "{value}");
    assert!(value.contains("/eu-west-3/s3/aws4_request, "), "{value}");
    assert!(value.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date, "), "{value}");
    assert_eq!(sent.header("x-amz-security-token"), "");
    assert!(sent.headers["authorization"].is_sensitive());
}

#[test]
fn a_signature_in_the_query_is_replaced_there_and_holds_for_minutes() {
    let target = "/key?list-type=2&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=DUMMY%2F20200101%2Feu-west-3%2F\
                  s3%2Faws4_request&X-Amz-Date=20200101T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&\
                  X-Amz-Security-Token=theirs&x-amz-signature=00";
    let mut sent = Sent::new("GET", "store.test", target, &[]);
    let removed = sent.signed(&signer(Some("our/token"), None, None), b"").unwrap();
    assert_eq!(removed.len(), 7, "{removed:?}");
    let query = sent.target.query().unwrap();
    assert!(
        query.starts_with("list-type=2&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDOURS%2F"),
        "{query}"
    );
    assert!(
        query.contains("&X-Amz-Expires=300&") && query.contains("&X-Amz-Security-Token=our%2Ftoken&"),
        "{query}"
    );
    assert!(!query.contains("theirs") && !query.contains("DUMMY") && sent.headers.is_empty(), "{query}");
}

#[test]
fn what_the_policy_says_goes_before_the_client_and_the_client_before_the_host() {
    let claimed =
        [("authorization", "AWS4-HMAC-SHA256 Credential=D/20200101/eu-west-3/dynamodb/aws4_request, x")];
    let scope = |signer: &AwsSigner, host: &str, headers: &[(&str, &str)]| {
        let mut sent = Sent::new("GET", host, "/", headers);
        sent.signed(signer, b"")?;
        Ok(sent.header("authorization").split('/').skip(2).take(2).collect::<Vec<_>>().join("/"))
    };
    let host = "sts.us-east-2.amazonaws.com";
    let fixed = signer(None, Some("eu-north-1"), Some("kms"));
    assert_eq!(scope(&fixed, host, &claimed), Ok("eu-north-1/kms".to_owned()));
    assert_eq!(scope(&signer(None, None, None), host, &claimed), Ok("eu-west-3/dynamodb".to_owned()));
    assert_eq!(scope(&signer(None, None, None), host, &[]), Ok("us-east-2/sts".to_owned()));
    let unknown = scope(&signer(None, None, None), "store.test", &[]);
    assert!(matches!(unknown, Err(Misplaced::Unsigned(why)) if why.contains("region")));
}

#[test]
fn a_body_is_signed_as_a_whole_only_where_the_service_wants_that() {
    let limit = |service: &str, headers: &[(&str, &str)]| {
        let mut sent = Sent::new("PUT", "x.test", "/", headers);
        signer(None, Some("r"), Some(service)).look(&sent.head()).map(|it| it.body_limit())
    };
    let digest = "ab".repeat(32);
    assert_eq!(limit("dynamodb", &[]), Ok(Some(MOST_BODY)));
    assert_eq!(limit("s3", &[]), Ok(None));
    // What the client says of it is not believed there.
    for said in [digest.as_str(), "UNSIGNED-PAYLOAD"] {
        assert_eq!(limit("dynamodb", &[("x-amz-content-sha256", said)]), Ok(Some(MOST_BODY)));
        assert_eq!(limit("s3", &[("x-amz-content-sha256", said)]), Ok(None));
    }
    assert!(limit("dynamodb", &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")]).is_err());
    for bad in ["STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", "nonsense", "zz"] {
        assert!(limit("s3", &[("x-amz-content-sha256", bad)]).is_err(), "{bad}");
    }
    let twice = [("x-amz-content-sha256", "UNSIGNED-PAYLOAD"), ("x-amz-content-sha256", digest.as_str())];
    assert!(limit("s3", &twice).is_err());
    let asymmetric = [("authorization", "AWS4-ECDSA-P256-SHA256 Credential=D/20200101/s3/aws4_request, x")];
    assert!(limit("s3", &asymmetric).is_err());
}

#[test]
fn the_target_is_sent_as_it_is_signed() {
    for (service, expected) in
        [("s3", "/bucket/a%40b/c%3Dd?a=b%20c&acl&z=%2F"), ("sts", "/bucket/a@b/c%3dd?a=b%20c&acl&z=%2F")]
    {
        let mut sent = Sent::new("GET", "x.test", "/bucket/a@b/c%3dd?a=b+c&acl&z=/", &[]);
        sent.signed(&signer(None, Some("r"), Some(service)), b"").unwrap();
        assert_eq!(sent.target, expected);
    }
}

#[test]
fn a_body_that_is_not_what_the_client_says_is_signed_as_it_is() {
    let wrong = "ab".repeat(32);
    let mut sent = Sent::new("POST", "x.test", "/", &[("x-amz-content-sha256", &wrong)]);
    sent.signed(&signer(None, Some("r"), Some("dynamodb")), b"body").unwrap();
    assert_eq!(sent.header("x-amz-content-sha256"), super::super::sha256(b"body"));
}

#[test]
fn what_would_have_the_service_tell_what_should_have_been_signed_is_refused() {
    let refused = |target: &str, name: &'static str, value: &[u8]| {
        let mut sent = Sent::new("GET", "x.test", target, &[]);
        sent.headers.insert(name, HeaderValue::from_bytes(value).unwrap());
        matches!(sent.signed(&signer(Some("token"), Some("r"), Some("s3")), b""), Err(Misplaced::Unsigned(_)))
    };
    let signed = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a";
    for streaming in ["STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"] {
        assert!(refused(signed, "x-amz-content-sha256", streaming.as_bytes()), "{streaming}");
    }
    assert!(!refused(signed, "x-amz-content-sha256", b"UNSIGNED-PAYLOAD"));
    assert!(refused("/", "x-amz-meta-a", b"caf\xe9") && refused("/", "content-type", b"\xc3\xa9"));
    assert!(!refused("/", "x-other", b"caf\xe9"), "what is not signed may be anything");
    assert!(refused("/?a=%ff", "x-other", b"") && !refused("/?a=%c3%a9", "x-other", b""));
}

#[test]
fn what_servers_could_take_for_ours_in_other_letters_goes_out() {
    let lines = [
        ("x_amz_date", "1"),
        ("x-amz_security_token", "theirs"),
        ("x_amz_target", "a"),
        ("x-amz-target", "b"),
    ];
    let mut sent = Sent::new("GET", "x.test", "/", &lines);
    sent.signed(&signer(None, Some("r"), Some("dynamodb")), b"").unwrap();
    let left: Vec<_> = sent.headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(left, ["x-amz-target", "x-amz-date", "authorization"]);
}
