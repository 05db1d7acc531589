//! The messages of OTLP logs that are used here, in protobuf and in JSON
//! (<https://github.com/open-telemetry/opentelemetry-proto>, v1; JSON as its `docs/specification.md` says), and a batch as one of them.
//!
//! The crate that has all of them brings an SDK along; the tests read what is sent by its types.

use proxy_journal::{Content, Decision, Record, Verdict};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::sinks::message::{Message, Severity, Spelling};

/// `opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest`
#[derive(Clone, PartialEq, Serialize, prost::Message)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_logs: Vec<ResourceLogs>,
}

/// `opentelemetry.proto.logs.v1.ResourceLogs`
#[derive(Clone, PartialEq, Serialize, prost::Message)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Serialize, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Serialize, prost::Message)]
#[serde(rename_all = "camelCase")]
struct ScopeLogs {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<LogRecord>,
}

#[derive(Clone, PartialEq, Serialize, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Serialize, prost::Message)]
#[serde(rename_all = "camelCase")]
struct LogRecord {
    #[prost(fixed64, tag = "1")]
    #[serde(serialize_with = "as_text")]
    time_unix_nano: u64,
    #[prost(fixed64, tag = "11")]
    #[serde(serialize_with = "as_text")]
    observed_time_unix_nano: u64,
    /// `SeverityNumber`
    #[prost(int32, tag = "2")]
    severity_number: i32,
    #[prost(string, tag = "3")]
    severity_text: String,
    #[prost(string, tag = "12")]
    event_name: String,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Serialize, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Serialize, prost::Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    #[serde(flatten)]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, Serialize, prost::Oneof)]
#[serde(rename_all = "camelCase")]
enum Value {
    #[prost(string, tag = "1")]
    StringValue(String),
    #[prost(int64, tag = "3")]
    #[serde(serialize_with = "as_text")]
    IntValue(i64),
}

/// 64 bits are a text in the JSON of protobuf.
fn as_text<S: Serializer>(number: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&number.to_string())
}

/// `opentelemetry.proto.collector.logs.v1.ExportLogsServiceResponse`
#[derive(Clone, PartialEq, Deserialize, prost::Message)]
pub(super) struct Response {
    #[prost(message, optional, tag = "1")]
    #[serde(default, alias = "partialSuccess")]
    pub(super) partial_success: Option<PartialSuccess>,
}

/// `opentelemetry.proto.collector.logs.v1.ExportLogsPartialSuccess`
#[derive(Clone, PartialEq, Deserialize, prost::Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    #[serde(default, alias = "rejectedLogRecords", deserialize_with = "of_text")]
    pub(super) rejected_log_records: i64,
    #[prost(string, tag = "2")]
    #[serde(default, alias = "errorMessage")]
    pub(super) error_message: String,
}

/// A text or a number: some collectors write the one, some the other.
fn of_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Number(number) => Ok(number),
        Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// `google.rpc.Status`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(super) details: Vec<Any>,
}

/// `google.protobuf.Any`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Any {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(super) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Delay {
    #[prost(int64, tag = "1")]
    pub(super) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(super) nanos: i32,
}

/// The request of a batch.
pub(super) fn request(messages: &[Message], spelling: &Spelling) -> Request {
    let version = env!("CARGO_PKG_VERSION");
    let attributes = vec![
        text("service.name", "vouchsafe"),
        text("service.version", version),
        text("host.name", spelling.host()),
    ];
    let scope = Scope { name: "vouchsafe.journal".to_owned(), version: version.to_owned() };
    let log_records = messages.iter().map(|message| record(message, spelling)).collect();
    Request {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes }),
            scope_logs: vec![ScopeLogs { scope: Some(scope), log_records }],
        }],
    }
}

fn record(message: &Message, spelling: &Spelling) -> LogRecord {
    let (number, word) = match message.severity() {
        Severity::Error => (17, "ERROR"),
        Severity::Warning => (13, "WARN"),
        Severity::Notice => (10, "INFO2"),
        Severity::Info => (9, "INFO"),
    };
    let mut attributes = vec![
        text("log.record.uid", message.hash()),
        number_of("vouchsafe.seq", message.line.seq),
        text("vouchsafe.kind", &message.kind()),
    ];
    if let Content::Known(record) = &message.content {
        match record {
            Record::Decision(decision) | Record::Connection(decision) => {
                of_decision(&mut attributes, decision)
            }
            Record::Outcome(outcome) => {
                match &message.decision {
                    Some(decision) => of_decision(&mut attributes, decision),
                    None => attributes.push(text("vouchsafe.call_id", &outcome.id.to_string())),
                }
                attributes.push(number_of("vouchsafe.duration_us", outcome.duration_us));
                if let Some(status) = outcome.status {
                    attributes.push(number_of("http.response.status_code", status.into()));
                }
                if let Some(error) = &outcome.error {
                    attributes.push(text("error.message", error));
                }
            }
            Record::Trace(trace) => {
                attributes.push(text("vouchsafe.identity", trace.identity.as_deref().unwrap_or("unknown")));
            }
            Record::Bound(bound) => {
                attributes.extend(bound.whose().map(|whose| text("vouchsafe.identity", whose)));
            }
            _ => {}
        }
    }
    LogRecord {
        time_unix_nano: message.line.time.micros().saturating_mul(1000),
        observed_time_unix_nano: crate::base::clock::now_us().saturating_mul(1000),
        severity_number: number,
        severity_text: word.to_owned(),
        event_name: format!("vouchsafe.{}", message.kind()),
        body: Some(AnyValue { value: Some(Value::StringValue(spelling.spell(message).into_owned())) }),
        attributes,
    }
}

fn of_decision(attributes: &mut Vec<KeyValue>, decision: &Decision) {
    let verdict = if decision.verdict == Verdict::Allow { "allow" } else { "deny" };
    attributes.extend([
        text("vouchsafe.call_id", &decision.id.to_string()),
        text("vouchsafe.identity", decision.identity.as_deref().unwrap_or("unknown")),
        text("vouchsafe.verdict", verdict),
        text("vouchsafe.reason", &decision.reason),
        text("process.executable.path", &decision.workload.exe),
        number_of("process.pid", decision.workload.pid.into()),
    ]);
    let named = [
        ("http.request.method", &decision.method),
        ("url.path", &decision.path),
        ("url.scheme", &decision.scheme),
        ("server.address", &decision.host),
        ("vouchsafe.api", &decision.api),
        ("vouchsafe.unit", &decision.workload.unit),
    ];
    attributes.extend(named.iter().filter_map(|(key, value)| value.as_ref().map(|value| text(key, value))));
    attributes.extend(decision.port.map(|port| number_of("server.port", port.into())));
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Value::StringValue(value.to_owned());
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}

fn number_of(key: &str, value: u64) -> KeyValue {
    let value = Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX));
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
