//! One call of gRPC without a stream: a message behind five bytes, and a status at the end
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use prost::Message as _;

use super::channel::Answer;
use super::wire::{RetryInfo, Status};

/// What is called.
pub(super) const PATH: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";

/// Codes that mean something of their own here (<https://github.com/grpc/grpc/blob/master/doc/statuscodes.md>).
pub(super) const OK: i32 = 0;
pub(super) const INVALID_ARGUMENT: i32 = 3;
pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
pub(super) const OUT_OF_RANGE: i32 = 11;

const NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) code: i32,
    /// In the server's words.
    pub(super) message: String,
    /// When to come again (`google.rpc.RetryInfo`).
    pub(super) retry_after: Option<Duration>,
}

impl Ended {
    /// The name of the code.
    pub(super) fn name(&self) -> &'static str {
        usize::try_from(self.code).ok().and_then(|code| NAMES.get(code)).unwrap_or(&"an unknown code")
    }
}

/// A message in its frame.
pub(super) fn framed(message: &[u8], compressed: bool) -> Vec<u8> {
    let mut frame = Vec::with_capacity(message.len() + 5);
    frame.push(u8::from(compressed));
    // A batch has some hundred KiB.
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(message);
    frame
}

/// The one message of an answer.
///
/// # Errors
/// There is none, or more than one, or it is compressed, which nobody asked for.
pub(super) fn message(body: &[u8]) -> Result<&[u8], &'static str> {
    let (head, rest) = body.split_first_chunk::<5>().ok_or("no whole message")?;
    let [flag, length @ ..] = *head;
    match (flag, usize::try_from(u32::from_be_bytes(length))) {
        (0, Ok(length)) if length == rest.len() => Ok(rest),
        (0, _) => Err("not one whole message"),
        _ => Err("a compressed message"),
    }
}

/// How a call ended that was answered with 200. Without a status, nobody said that it went well.
///
/// # Errors
/// It is no answer of gRPC, in words.
pub(super) fn ended(answer: &Answer) -> Result<Ended, &'static str> {
    let kind = answer.headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    let is_grpc = kind
        .and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')));
    if !is_grpc {
        return Err("its answer is none of gRPC");
    }
    let fields = match &answer.trailers {
        Some(trailers) => trailers,
        // An error without a message may have its status in the header.
        None if answer.body.is_empty() => &answer.headers,
        None => return Err("its answer ends without a status"),
    };
    let code = fields.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
    let code = code.filter(|code| *code >= OK).ok_or("its answer ends without a status")?;
    let message = fields.get("grpc-message").map(|text| percent_decoded(text.as_bytes())).unwrap_or_default();
    Ok(Ended { code, message, retry_after: details(fields).as_ref().and_then(retry_after) })
}

fn details(fields: &HeaderMap) -> Option<Status> {
    const ANY: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, ANY);
    let bytes = engine.decode(fields.get("grpc-status-details-bin")?.as_bytes()).ok()?;
    Status::decode(bytes.as_slice()).ok()
}

/// When to come again, if the details of a status say so.
pub(super) fn retry_after(status: &Status) -> Option<Duration> {
    let is_it = |url: &str| url.rsplit('/').next() == Some("google.rpc.RetryInfo");
    let info = status.details.iter().find(|any| is_it(&any.type_url))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
    Some(
        Duration::new(delay.seconds.try_into().ok()?, 0) + Duration::from_nanos(delay.nanos.try_into().ok()?),
    )
}

/// `grpc-message` has its bytes that are no visible ASCII, and `%`, as `%XX`. What is no escape stands as it is.
fn percent_decoded(text: &[u8]) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((&first, after)) = rest.split_first() {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::super::wire::{Any, Delay};
    use super::*;

    fn answer(
        kind: &'static str,
        headers: &[(&'static str, &str)],
        trailers: Option<&[(&'static str, &str)]>,
    ) -> Answer {
        let map = |fields: &[(&'static str, &str)]| -> HeaderMap {
            let field = |(name, value): &(&'static str, &str)| {
                (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
            };
            fields.iter().map(field).collect()
        };
        let mut headers = map(headers);
        headers.insert("content-type", HeaderValue::from_static(kind));
        Answer { status: StatusCode::OK, headers, trailers: trailers.map(map), body: Vec::new() }
    }

    #[test]
    fn a_frame_is_read_as_it_is_written_and_a_part_of_one_two_and_a_compressed_one_are_none() {
        let frame = framed(b"message", false);
        assert_eq!(message(&frame), Ok(&b"message"[..]));
        for short in 0..frame.len() {
            assert!(message(&frame[..short]).is_err(), "{short}");
        }
        assert!(message(&[frame.clone(), frame].concat()).is_err());
        assert!(message(&framed(b"message", true)).is_err());
        assert_eq!(message(&framed(b"", false)), Ok(&b""[..]));
    }

    #[test]
    fn only_a_status_says_that_a_call_went_well() {
        let code = |answer: &Answer| ended(answer).map(|ended| ended.code);
        assert_eq!(code(&answer("application/grpc", &[], Some(&[("grpc-status", "0")]))), Ok(0));
        assert_eq!(code(&answer("application/grpc+proto", &[("grpc-status", "14")], None)), Ok(14));
        // What is promised in the header is not what the end says.
        let both = answer("application/grpc", &[("grpc-status", "0")], Some(&[("grpc-status", "14")]));
        assert_eq!(code(&both), Ok(14));
        let promised = answer("application/grpc", &[("grpc-status", "0")], Some(&[]));
        assert!(code(&promised).is_err());
        let mut cut = answer("application/grpc", &[("grpc-status", "0")], None);
        cut.body = framed(b"", false);
        assert!(code(&cut).is_err());
        for wrong in ["", "x", "-1", "0 0", "99999999999"] {
            assert!(
                code(&answer("application/grpc", &[], Some(&[("grpc-status", wrong)]))).is_err(),
                "{wrong}"
            );
        }
        for kind in ["text/html", "application/grpc-web", "application/json"] {
            assert!(code(&answer(kind, &[], Some(&[("grpc-status", "0")]))).is_err(), "{kind}");
        }
    }

    #[test]
    fn a_message_is_decoded_and_the_delay_is_found_among_the_details() {
        let delay = Delay { seconds: 3, nanos: 500_000_000 };
        let info = RetryInfo { retry_delay: Some(delay) }.encode_to_vec();
        let other =
            Any { type_url: "type.googleapis.com/google.rpc.DebugInfo".to_owned(), value: vec![1, 2] };
        let any = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(), value: info };
        let status = Status { code: 8, message: String::new(), details: vec![other, any] }.encode_to_vec();
        for spelled in [
            base64::engine::general_purpose::STANDARD.encode(&status),
            base64::engine::general_purpose::STANDARD_NO_PAD.encode(&status),
        ] {
            let fields = [
                ("grpc-status", "8"),
                ("grpc-message", "too%20much% %e2%82%ac %4"),
                ("grpc-status-details-bin", spelled.as_str()),
            ];
            let ended = ended(&answer("application/grpc", &[], Some(&fields))).unwrap();
            assert_eq!((ended.name(), ended.message.as_str()), ("RESOURCE_EXHAUSTED", "too much% € %4"));
            assert_eq!(ended.retry_after, Some(Duration::from_millis(3500)));
        }
        let negative = RetryInfo { retry_delay: Some(Delay { seconds: -1, nanos: 0 }) }.encode_to_vec();
        let any = Any { type_url: "google.rpc.RetryInfo".to_owned(), value: negative };
        assert_eq!(retry_after(&Status { code: 14, message: String::new(), details: vec![any] }), None);
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_server_says_is_read_without_a_panic(bytes: Vec<u8>, text in "[%0-9a-f ]{0,40}", seconds: i64, nanos: i32) {
            let _ = message(&bytes);
            let _ = Status::decode(bytes.as_slice()).map(|status| retry_after(&status));
            let encoded = base64::engine::general_purpose::STANDARD.encode(&bytes);
            let fields = [("grpc-status", "14"), ("grpc-message", &*text), ("grpc-status-details-bin", &*encoded)];
            proptest::prop_assert!(ended(&answer("application/grpc", &[], Some(&fields))).is_ok());
            let value = RetryInfo { retry_delay: Some(Delay { seconds, nanos }) }.encode_to_vec();
            let any = Any { type_url: "x/google.rpc.RetryInfo".to_owned(), value };
            let _ = retry_after(&Status { code: 14, message: text, details: vec![any] });
        }
    }
}
