//! The way to a collector of OpenTelemetry: OTLP/HTTP (<https://opentelemetry.io/docs/specs/otlp/>, 1.x), in its JSON encoding.
//!
//! A batch is one request. Codes that the specification names retryable are tried again; what a collector will never take, it is asked
//! about record by record, so that only that one is left out.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use proxy_journal::{Content, Decision, Record, Verdict};
use proxy_policy::SecretRef;
use serde_json::{Value, json};

use super::link::Secrets;
use super::message::{Message, Severity, Spelling};
use super::way::{Sent, Trouble};
use crate::credentials::{IssuerAnswer, IssuerUrl, Outcall, Secret};
use crate::trust::UpstreamTls;
use crate::uplink::Uplink;

/// What of an answer is told.
const MAX_TOLD: usize = 200;

/// How a collector is reached.
pub(super) struct Way {
    pub(super) tls: UpstreamTls,
    pub(super) client: Option<(SecretRef, SecretRef)>,
    pub(super) uplink: Option<Arc<Uplink>>,
    pub(super) secrets: Secrets,
}

pub(super) struct Otlp {
    url: IssuerUrl,
    headers: Vec<(HeaderName, SecretRef)>,
    gzip: bool,
    way: Way,
    spelling: Spelling,
    /// Records in a request at most: fewer while the collector refuses one of them.
    most: usize,
}

impl Otlp {
    pub(super) fn new(
        url: &str,
        headers: Vec<(String, SecretRef)>,
        gzip: bool,
        way: Way,
        spelling: Spelling,
    ) -> Result<Otlp, String> {
        let url = url.parse::<IssuerUrl>().map_err(|error| error.to_string())?;
        let named = |(name, secret): (String, SecretRef)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| error.to_string())?;
            Ok((name, secret))
        };
        let headers = headers.into_iter().map(named).collect::<Result<_, String>>()?;
        Ok(Otlp { url, headers, gzip, way, spelling, most: usize::MAX })
    }

    async fn call(&self, messages: &[Message]) -> Result<IssuerAnswer, Trouble> {
        let spelled = |error: std::io::Error| Trouble::new(format!("the request cannot be spelled: {error}"));
        let mut body =
            serde_json::to_vec(&request(messages, &self.spelling)).map_err(|error| spelled(error.into()))?;
        let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        if self.gzip {
            let mut packed = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
            packed.write_all(&body).map_err(spelled)?;
            body = packed.finish().map_err(spelled)?;
            headers.push((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
        }
        for (name, reference) in &self.headers {
            let secret = self.way.secrets.get(reference)?;
            let mut value = HeaderValue::from_bytes(secret.expose()).map_err(|_| {
                Trouble::new(format!("the secret {reference} is no value of a header: it must be one line"))
            })?;
            value.set_sensitive(true);
            headers.push((name.clone(), value));
        }
        let mut outcall = Outcall::new(self.way.tls.clone()).through(self.way.uplink.clone());
        if let Some(identity) = self.way.secrets.identity(self.way.client.as_ref())? {
            outcall = outcall.presenting(identity);
        }
        let called = outcall.call(Method::POST, &self.url, &headers, Secret::new(body)).await;
        called.map_err(|error| Trouble::new(error.to_string()))
    }
}

impl super::way::Way for Otlp {
    async fn send(&mut self, messages: &[Message]) -> Result<Sent, Trouble> {
        let some = messages.get(..self.most.min(messages.len())).unwrap_or(messages);
        let answer = self.call(some).await?;
        let done = |rejected| Sent { count: some.len(), rejected, bytes: 0 };
        match answer.status {
            status if status.is_success() => {
                self.most = self.most.saturating_mul(2).max(1);
                Ok(done(rejected(&answer, &self.url)))
            }
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
                if some.len() > 1 {
                    self.most = some.len() / 2;
                    return Ok(Sent::default());
                }
                let seq = some.first().map_or(0, |message| message.line.seq);
                let (status, told) = (answer.status.as_u16(), told(&answer));
                tracing::error!(url = %self.url, seq, status, told, "the collector does not take this record, which stays in the journal");
                self.most = self.most.saturating_mul(2).max(1);
                Ok(done(1))
            }
            status => {
                let what = format!("{} answered {}: {}", self.url, status.as_u16(), told(&answer));
                Err(Trouble { after: retry_after(&answer), ..Trouble::new(what) })
            }
        }
    }
}

/// When to come again, if the collector says so in seconds.
fn retry_after(answer: &IssuerAnswer) -> Option<Duration> {
    let text = answer.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

/// What a collector says beside its status, cut and in one line.
fn told(answer: &IssuerAnswer) -> String {
    let text = String::from_utf8_lossy(answer.body.expose());
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TOLD).collect();
    line.trim().to_owned()
}

/// How many records of a request that succeeded the collector did not take. It must not be sent them again.
fn rejected(answer: &IssuerAnswer, url: &IssuerUrl) -> u64 {
    let Ok(value) = serde_json::from_slice::<Value>(answer.body.expose()) else { return 0 };
    let Some(partial) = value.get("partialSuccess").or_else(|| value.get("partial_success")) else {
        return 0;
    };
    let count = partial.get("rejectedLogRecords").or_else(|| partial.get("rejected_log_records"));
    // 64 bits are a text in the JSON of protobuf.
    let count = count.and_then(|it| it.as_u64().or_else(|| it.as_str()?.parse().ok())).unwrap_or(0);
    if count > 0 {
        tracing::error!(%url, count, told = told(answer), "the collector did not take all records, which stay in the journal");
    }
    count
}

/// The request of a batch (`ExportLogsServiceRequest`).
fn request(messages: &[Message], spelling: &Spelling) -> Value {
    let records: Vec<Value> = messages.iter().map(|message| record(message, spelling)).collect();
    let version = env!("CARGO_PKG_VERSION");
    json!({ "resourceLogs": [{
        "resource": { "attributes": [
            text("service.name", "vouchsafe"),
            text("service.version", version),
            text("host.name", spelling.host()),
        ] },
        "scopeLogs": [{ "scope": { "name": "vouchsafe.journal", "version": version }, "logRecords": records }],
    }] })
}

fn record(message: &Message, spelling: &Spelling) -> Value {
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
            _ => {}
        }
    }
    json!({
        "timeUnixNano": (u128::from(message.line.time.micros()) * 1000).to_string(),
        "observedTimeUnixNano": (u128::from(crate::base::clock::now_us()) * 1000).to_string(),
        "severityNumber": number,
        "severityText": word,
        "eventName": format!("vouchsafe.{}", message.kind()),
        "body": { "stringValue": spelling.spell(message) },
        "attributes": attributes,
    })
}

fn of_decision(attributes: &mut Vec<Value>, decision: &Decision) {
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

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// 64 bits are a text in the JSON of protobuf.
fn number_of(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}
