//! A collector for tests, which reads what it is sent by the official types and answers as it is told.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::BoxBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use prost::Message as _;

use super::*;
use crate::config::OtlpProtocol as Protocol;

/// What a collector answers.
#[derive(Clone)]
pub(super) enum Reply {
    /// It has them all.
    Taken,
    /// It has all but so many, with why.
    Partial(i64, &'static str),
    /// It will never have them.
    Never,
    /// It has no time, for so many seconds.
    Busy(Option<u64>),
    /// A status of HTTP, or one of gRPC, with a text.
    Status(u16, &'static str),
    /// All of HTTP/2's answer: the header, the body, and what comes after it.
    Raw(Vec<(&'static str, &'static str)>, Vec<u8>, Option<Vec<(&'static str, &'static str)>>),
    /// An answer, after which the connection is closed.
    Last(Box<Reply>),
    /// The connection is cut off, without an answer.
    Gone,
}

type Answering = Box<dyn Fn(usize, &[LogRecord]) -> Reply + Send + Sync>;

/// A collector that answers each request as it is told: by its number and its records.
pub(super) struct Collector {
    port: u16,
    pub(super) protocol: Protocol,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    /// The records of those requests that it took.
    taken: Mutex<Vec<LogRecord>>,
    requests: Mutex<Vec<(Instant, usize)>>,
    connections: AtomicUsize,
}

/// Each of them at the same time.
pub(super) fn each(test: impl Fn(Protocol) + Sync) {
    std::thread::scope(|scope| {
        let all = [Protocol::HttpProtobuf, Protocol::HttpJson, Protocol::Grpc];
        let test = &test;
        let all = all.map(|protocol| (protocol, scope.spawn(move || test(protocol))));
        for (protocol, thread) in all {
            assert!(thread.join().is_ok(), "{protocol:?}");
        }
    });
}

impl Collector {
    pub(super) fn start(
        protocol: Protocol,
        answer: impl Fn(usize, &[LogRecord]) -> Reply + Send + Sync + 'static,
    ) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, answer): (Arc<Seen>, Answering) = (Arc::default(), Box::new(answer));
        let own = Arc::clone(&seen);
        std::thread::spawn(move || match protocol {
            Protocol::Grpc => grpc(listener, &own, answer),
            kind => http1(&listener, &own, &answer, kind == Protocol::HttpJson),
        });
        Collector { port, protocol, seen }
    }

    pub(super) fn host(&self) -> Host {
        let (protocol, path) = match self.protocol {
            Protocol::HttpProtobuf => ("http/protobuf", "/v1/logs"),
            Protocol::HttpJson => ("http/json", "/v1/logs"),
            Protocol::Grpc => ("grpc", ""),
        };
        let port = self.port;
        Host::new(&format!(
            "[journal.sinks.otel]\nkind = \"otlp\"\nprotocol = \"{protocol}\"\nurl = \"http://127.0.0.1:{port}{path}\"\n"
        ))
    }

    pub(super) fn taken(&self) -> Vec<LogRecord> {
        self.seen.taken.lock().unwrap().clone()
    }

    pub(super) fn seqs(&self) -> Vec<u64> {
        self.seen.taken.lock().unwrap().iter().map(seq).collect()
    }

    /// When its requests came, and how many records each had.
    pub(super) fn requests(&self) -> Vec<(Instant, usize)> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

pub(super) fn seq(record: &LogRecord) -> u64 {
    use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
    let Some(StringValue(text)) = record.body.clone().unwrap().value else { panic!("{record:?}") };
    serde_json::from_str::<Value>(&text).unwrap()["seq"].as_u64().unwrap()
}

impl Seen {
    fn ask(&self, request: ExportLogsServiceRequest, answer: &Answering) -> Reply {
        let records = request.resource_logs[0].scope_logs[0].log_records.clone();
        let number = {
            let mut requests = self.requests.lock().unwrap();
            requests.push((Instant::now(), records.len()));
            requests.len() - 1
        };
        let reply = answer(number, &records);
        let inner = if let Reply::Last(inner) = &reply { inner } else { &reply };
        if matches!(inner, Reply::Taken) {
            self.taken.lock().unwrap().extend(records);
        }
        reply
    }
}

fn unzipped(body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut whole).unwrap();
    whole
}

fn partial(rejected_log_records: i64, why: &str) -> ExportLogsServiceResponse {
    let partial = ExportLogsPartialSuccess { rejected_log_records, error_message: why.to_owned() };
    ExportLogsServiceResponse { partial_success: Some(partial) }
}

/// `google.rpc.Status`, with a `RetryInfo` if there is a delay.
fn status(code: i32, text: &str, delay: Option<u64>) -> Vec<u8> {
    let field =
        |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let mut whole = [&[8, u8::try_from(code).unwrap()], &field(2, text.as_bytes())[..]].concat();
    if let Some(seconds) = delay {
        let info = field(1, &[8, u8::try_from(seconds).unwrap()]);
        let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &info)].concat();
        whole.extend(field(3, &any));
    }
    whole
}

/// HTTP/1.1: one connection after the other.
fn http1(listener: &TcpListener, seen: &Seen, answer: &Answering, json: bool) {
    let kind = if json { "application/json" } else { "application/x-protobuf" };
    for stream in listener.incoming() {
        seen.connections.fetch_add(1, Ordering::SeqCst);
        let mut stream = BufReader::new(stream.unwrap());
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap_or(0) > 0 {}
            if head.is_empty() {
                break;
            }
            let head = head.to_ascii_lowercase();
            assert!(
                head.starts_with("post /v1/logs http/1.1\r\n") && head.contains("host: 127.0.0.1:"),
                "{head}"
            );
            assert!(head.contains(&format!("content-type: {kind}\r\n")), "{head}");
            assert!(head.contains("content-encoding: gzip\r\n"), "{head}");
            let length = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let body = unzipped(&body);
            let request = match json {
                true => serde_json::from_slice(&body).unwrap(),
                false => ExportLogsServiceRequest::decode(body.as_slice()).unwrap(),
            };
            let reply = seen.ask(request, answer);
            let (reply, last) = if let Reply::Last(inner) = reply { (*inner, true) } else { (reply, false) };
            if matches!(reply, Reply::Gone) {
                break;
            }
            let spelled = |response: &ExportLogsServiceResponse| match json {
                // 64 bits are a text in the JSON of protobuf, which the official types write as a number here.
                true => {
                    let partial = response.partial_success.as_ref().map(|partial| {
                        serde_json::json!({ "rejectedLogRecords": partial.rejected_log_records.to_string(), "errorMessage": partial.error_message })
                    });
                    serde_json::json!({ "partialSuccess": partial }).to_string().into_bytes()
                }
                false => response.encode_to_vec(),
            };
            let (line, more, body) = match reply {
                Reply::Taken => {
                    ("200 OK".to_owned(), String::new(), spelled(&ExportLogsServiceResponse::default()))
                }
                Reply::Partial(count, why) => {
                    ("200 OK".to_owned(), String::new(), spelled(&partial(count, why)))
                }
                Reply::Never => ("400 Bad Request".to_owned(), String::new(), status(3, "no", None)),
                Reply::Busy(after) => {
                    let after = after.map(|after| format!("retry-after: {after}\r\n")).unwrap_or_default();
                    ("503 Service Unavailable".to_owned(), after, status(14, "busy", None))
                }
                Reply::Status(code, text) => (format!("{code} Told"), String::new(), status(0, text, None)),
                Reply::Raw(..) | Reply::Last(_) | Reply::Gone => unreachable!(),
            };
            let is_error = !line.starts_with("200") && json;
            let (kind, body) = match is_error {
                // An error is a text here.
                true => ("text/plain", body[4..].to_vec()),
                false => (kind, body),
            };
            let head = format!(
                "HTTP/1.1 {line}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{more}\r\n",
                body.len()
            );
            let _ = stream.get_mut().write_all(&[head.as_bytes(), &body].concat());
            if last {
                break;
            }
        }
    }
}

/// How a connection of HTTP/2 is to end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    None,
    AfterThis,
    Cut,
}

type Fields = Vec<(&'static str, &'static str)>;

fn map(fields: Fields) -> HeaderMap {
    let field = |(name, value): (&'static str, &'static str)| {
        (http::HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    fields.into_iter().map(field).collect()
}

/// gRPC, as its protocol says it on HTTP/2.
fn grpc(listener: TcpListener, seen: &Arc<Seen>, answer: Answering) {
    let answer = Arc::new(answer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            seen.connections.fetch_add(1, Ordering::SeqCst);
            let (seen, answer) = (Arc::clone(seen), Arc::clone(&answer));
            tokio::spawn(async move {
                let (last, mut closing) = tokio::sync::watch::channel(End::None);
                let service = hyper::service::service_fn(|request| {
                    let (seen, answer, last) = (Arc::clone(&seen), Arc::clone(&answer), last.clone());
                    async move { call(request, &seen, answer, &last).await }
                });
                let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let mut connection = std::pin::pin!(http2.serve_connection(TokioIo::new(stream), service));
                tokio::select! {
                    _ = connection.as_mut() => return,
                    _ = closing.wait_for(|end| *end != End::None) => {}
                }
                if *closing.borrow() == End::Cut {
                    return;
                }
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            });
        }
    });
}

async fn call(
    request: http::Request<hyper::body::Incoming>,
    seen: &Arc<Seen>,
    answer: Arc<Answering>,
    last: &tokio::sync::watch::Sender<End>,
) -> Result<Response<BoxBody<Bytes, std::io::Error>>, std::convert::Infallible> {
    let (head, body) = request.into_parts();
    assert_eq!(head.uri.path(), "/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-encoding", "gzip"),
        ("grpc-timeout", "15S"),
    ] {
        assert_eq!(head.headers[name], value);
    }
    let Ok(body) = body.collect().await else {
        // It went away in the middle.
        return Ok(Response::new(BoxBody::default()));
    };
    let body = body.to_bytes();
    assert_eq!(body[0], 1, "it is compressed");
    assert_eq!(usize::try_from(u32::from_be_bytes(body[1..5].try_into().unwrap())).unwrap(), body.len() - 5);
    let request = ExportLogsServiceRequest::decode(unzipped(&body[5..]).as_slice()).unwrap();
    let own = Arc::clone(seen);
    // What answers may sleep.
    let reply = tokio::task::spawn_blocking(move || own.ask(request, &answer)).await.unwrap();
    let (reply, is_last) = if let Reply::Last(inner) = reply { (*inner, true) } else { (reply, false) };
    if is_last {
        last.send_replace(End::AfterThis);
    }
    if matches!(reply, Reply::Gone) {
        last.send_replace(End::Cut);
        std::future::pending::<()>().await;
    }
    let framed = |response: ExportLogsServiceResponse| {
        let bytes = response.encode_to_vec();
        [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes].concat()
    };
    let grpc = || vec![("content-type", "application/grpc")];
    let well = || Some(map(vec![("grpc-status", "0")]));
    let (headers, body, trailers) = match reply {
        Reply::Taken => (map(grpc()), framed(ExportLogsServiceResponse::default()), well()),
        Reply::Partial(count, why) => (map(grpc()), framed(partial(count, why)), well()),
        Reply::Never => {
            let mut fields = map(grpc());
            fields.insert("grpc-status", HeaderValue::from_static("3"));
            (fields, Vec::new(), None)
        }
        Reply::Busy(after) => {
            let mut fields = map(grpc());
            fields.insert("grpc-status", HeaderValue::from_static("14"));
            let details = base64::engine::general_purpose::STANDARD_NO_PAD.encode(status(14, "busy", after));
            fields.insert("grpc-status-details-bin", details.try_into().unwrap());
            (fields, Vec::new(), None)
        }
        Reply::Status(code, text) => {
            let mut fields = map(vec![("grpc-message", text)]);
            fields.insert("grpc-status", code.into());
            (map(grpc()), Vec::new(), Some(fields))
        }
        Reply::Raw(headers, body, trailers) => (map(headers), body, trailers.map(map)),
        Reply::Last(_) | Reply::Gone => unreachable!(),
    };
    let mut frames = Vec::new();
    if !body.is_empty() {
        frames.push(Ok(hyper::body::Frame::data(Bytes::from(body))));
    }
    frames.extend(trailers.map(|trailers| Ok(hyper::body::Frame::trailers(trailers))));
    let body = if frames.is_empty() {
        // The header is the end.
        BoxBody::new(http_body_util::Empty::new().map_err(|never| match never {}))
    } else {
        BoxBody::new(StreamBody::new(futures_util::stream::iter(frames)))
    };
    let mut response = Response::new(body);
    if let Some(status) = headers.get(":status").and_then(|status| status.to_str().unwrap().parse().ok()) {
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    }
    *response.headers_mut() = headers;
    Ok(response)
}
