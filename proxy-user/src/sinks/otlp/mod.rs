//! The way to a collector of OpenTelemetry (<https://opentelemetry.io/docs/specs/otlp/>, 1.x): OTLP/HTTP in protobuf or JSON, or OTLP/gRPC.
//!
//! A batch is one request. What the specification names retryable is tried again; what a collector will never take, it is asked about
//! record by record, so that only that one is left out.
//!
//! * `wire` has the messages, `channel` the connection, `grpc` what gRPC puts around a message.

mod channel;
mod grpc;
mod wire;

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use prost::Message as _;
use proxy_policy::SecretRef;

pub(super) use self::channel::Place;
use self::channel::{Answer, Channel};
use super::message::{Message, Spelling};
use super::way::{Sent, Trouble, Way};
use crate::config::OtlpProtocol as Protocol;
use crate::credentials::IssuerUrl;
use crate::trust::Alpn;

/// What of an answer is told.
const MAX_TOLD: usize = 200;
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

pub(super) struct Otlp {
    protocol: Protocol,
    channel: Channel,
    headers: Vec<(HeaderName, SecretRef)>,
    gzip: bool,
    spelling: Spelling,
    /// Records in a request at most: fewer while the collector refuses one of them.
    most: usize,
    /// What a collector that took everything said last.
    hint: String,
}

/// What a collector says to a request.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// It has it, but for so many records, with why.
    Taken(u64, String),
    /// It will never take it.
    Never(String),
    /// It is too much at once; to a single record, it is trouble.
    TooMuch(String),
}

impl Otlp {
    pub(super) fn new(
        url: &str,
        protocol: Protocol,
        headers: Vec<(String, SecretRef)>,
        gzip: bool,
        place: Place,
        spelling: Spelling,
    ) -> Result<Otlp, String> {
        let url = url.parse::<IssuerUrl>().map_err(|error| error.to_string())?;
        let named = |(name, secret): (String, SecretRef)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
            Ok((name, secret))
        };
        let headers = headers.into_iter().map(named).collect::<Result<_, String>>()?;
        let alpn = if protocol == Protocol::Grpc { Alpn::Http2 } else { Alpn::Http1 };
        let channel = Channel::new(place, url, alpn);
        Ok(Otlp { protocol, channel, headers, gzip, spelling, most: usize::MAX, hint: String::new() })
    }

    /// The request of a batch, with the secrets that it needs.
    fn request(&self, messages: &[Message]) -> Result<Request<Full<Bytes>>, Trouble> {
        let spelled = |error: std::io::Error| Trouble::new(format!("the request cannot be spelled: {error}"));
        let batch = wire::request(messages, &self.spelling);
        let mut body = match self.protocol {
            Protocol::HttpJson => serde_json::to_vec(&batch).map_err(|error| spelled(error.into()))?,
            Protocol::HttpProtobuf | Protocol::Grpc => batch.encode_to_vec(),
        };
        drop(batch);
        if self.gzip {
            let mut packed = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
            packed.write_all(&body).map_err(spelled)?;
            body = packed.finish().map_err(spelled)?;
        }
        let mut request = Request::post(self.target().map_err(|error| Trouble::new(error.to_string()))?)
            .header(header::USER_AGENT, concat!("vouchsafe/", env!("CARGO_PKG_VERSION")));
        match self.protocol {
            Protocol::Grpc => {
                body = grpc::framed(&body, self.gzip);
                let within = format!("{}S", channel::TIME.as_secs());
                request = request
                    .header(header::CONTENT_TYPE, "application/grpc")
                    .header(header::TE, "trailers")
                    .header("grpc-timeout", within);
            }
            kind => {
                let host = self.channel.url().uri().authority().map_or("", |authority| authority.as_str());
                let kind = if kind == Protocol::HttpJson { JSON } else { PROTOBUF };
                request = request.header(header::HOST, host).header(header::CONTENT_TYPE, kind);
            }
        }
        if self.gzip {
            let name = if self.protocol == Protocol::Grpc { "grpc-encoding" } else { "content-encoding" };
            request = request.header(name, "gzip");
        }
        for (name, reference) in &self.headers {
            let secret = self.channel.secrets().get(reference)?;
            let mut value = HeaderValue::from_bytes(secret.expose()).map_err(|_| {
                Trouble::new(format!("the secret {reference} is no value of a header: it must be one line"))
            })?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body.into()));
        request.map_err(|error| Trouble::new(format!("the request cannot be spelled: {error}")))
    }

    /// What stands in the request line: HTTP/1.1 wants the path, HTTP/2 makes its fields of the whole.
    fn target(&self) -> Result<Uri, http::Error> {
        let url = self.channel.url().uri();
        if self.protocol == Protocol::Grpc {
            let mut parts = url.clone().into_parts();
            parts.path_and_query = Some(http::uri::PathAndQuery::from_static(grpc::PATH));
            return Ok(Uri::from_parts(parts)?);
        }
        Ok(url.path_and_query().map_or("/", |path| path.as_str()).parse()?)
    }

    /// What an answer says, or why it is to be asked again.
    fn heard(&self, answer: &Answer) -> Result<Said, Trouble> {
        let url = self.channel.url();
        let again = |what: String, after| Trouble { after, ..Trouble::new(format!("{url} {what}")) };
        if self.protocol == Protocol::Grpc && answer.status == StatusCode::OK {
            let ended =
                grpc::ended(answer).map_err(|why| again(format!("is no collector of gRPC: {why}"), None))?;
            let told = one_line(&ended.message);
            return match (ended.code, ended.retry_after) {
                (grpc::OK, _) => {
                    let message = grpc::message(&answer.body).ok();
                    let response = message.and_then(|message| wire::Response::decode(message).ok());
                    let response =
                        response.ok_or_else(|| again("answered what is none of OTLP".to_owned(), None))?;
                    Ok(taken(&response))
                }
                (grpc::INVALID_ARGUMENT, _) => Ok(Said::Never(told)),
                // Without a delay it is the size of the message that is meant, or a quota that is used up: the first one is seen by trying.
                (grpc::RESOURCE_EXHAUSTED, None) | (grpc::OUT_OF_RANGE, _) => {
                    Ok(Said::TooMuch(format!("{}: {told}", ended.name())))
                }
                (_, after) => Err(again(format!("answered {}: {told}", ended.name()), after)),
            };
        }
        match answer.status {
            status if status.is_success() && self.protocol != Protocol::Grpc => {
                Ok(taken(&response(answer, self.protocol)))
            }
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
                if self.protocol != Protocol::Grpc =>
            {
                Ok(Said::Never(format!("{}: {}", answer.status.as_u16(), told(answer))))
            }
            status => {
                Err(again(format!("answered {}: {}", status.as_u16(), told(answer)), retry_after(answer)))
            }
        }
    }
}

impl Way for Otlp {
    async fn send(&mut self, messages: &[Message]) -> Result<Sent, Trouble> {
        let some = messages.get(..self.most.min(messages.len())).unwrap_or(messages);
        let request = self.request(some)?;
        let answer = self.channel.call(&request).await?;
        let url = self.channel.url();
        let rejected = match self.heard(&answer)? {
            Said::Taken(rejected, told) => {
                // It counts them itself.
                let rejected = rejected.min(u64::try_from(some.len()).unwrap_or(u64::MAX));
                if rejected > 0 {
                    tracing::error!(%url, rejected, told, "the collector did not take all records, which stay in the journal");
                } else if !told.is_empty() && told != self.hint {
                    tracing::warn!(%url, told, "the collector took the records, and has something to say");
                    self.hint = told;
                }
                rejected
            }
            Said::Never(_) | Said::TooMuch(_) if some.len() > 1 => {
                self.most = some.len() / 2;
                return Ok(Sent::default());
            }
            Said::TooMuch(told) => return Err(Trouble::new(format!("{url} answered {told}"))),
            Said::Never(told) => {
                let seq = some.first().map_or(0, |message| message.line.seq);
                tracing::error!(%url, seq, told, "the collector does not take this record, which stays in the journal");
                1
            }
        };
        self.most = self.most.saturating_mul(2).max(1);
        Ok(Sent { count: some.len(), rejected, bytes: 0 })
    }

    fn reset(&mut self) {
        self.channel.reset();
    }
}

/// When to come again, if the collector says so: in seconds, or in the details of a status.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let value = answer.headers.get(header::RETRY_AFTER);
    let in_seconds = value.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    in_seconds.map(Duration::from_secs).or_else(|| grpc::retry_after(&status(answer)?))
}

/// What a request that succeeded was answered. What is no answer of OTLP says nothing.
fn response(answer: &Answer, protocol: Protocol) -> wire::Response {
    let as_asked = if protocol == Protocol::HttpJson { JSON } else { PROTOBUF };
    match kind(answer).unwrap_or(as_asked) {
        JSON => serde_json::from_slice(&answer.body).unwrap_or_default(),
        PROTOBUF => wire::Response::decode(answer.body.as_slice()).unwrap_or_default(),
        _ => wire::Response::default(),
    }
}

fn taken(response: &wire::Response) -> Said {
    match &response.partial_success {
        Some(partial) => {
            let rejected = u64::try_from(partial.rejected_log_records).unwrap_or(0);
            Said::Taken(rejected, one_line(&partial.error_message))
        }
        None => Said::Taken(0, String::new()),
    }
}

/// The status that says more about an error.
fn status(answer: &Answer) -> Option<wire::Status> {
    let is_status = kind(answer) == Some(PROTOBUF);
    is_status.then(|| wire::Status::decode(answer.body.as_slice()).ok()).flatten()
}

/// The media type of an answer, without its parameters.
fn kind(answer: &Answer) -> Option<&str> {
    let kind = answer.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    kind.split(';').next().map(str::trim)
}

/// What a collector says beside its status, cut and in one line.
fn told(answer: &Answer) -> String {
    match status(answer) {
        Some(status) => one_line(&status.message),
        None => one_line(&String::from_utf8_lossy(&answer.body)),
    }
}

fn one_line(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TOLD).collect();
    line.trim().to_owned()
}
