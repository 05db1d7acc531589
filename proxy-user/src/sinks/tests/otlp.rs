//! A collector that is away, busy, choosy, and takes a part. (What it is sent is read by the official types in the tests of the whole.)

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

/// What a collector answers: the status line's rest, more headers, and the body.
type Answer = (&'static str, &'static str, &'static str);

/// A collector that answers each request as it is told: by its number and its records.
struct Collector {
    port: u16,
    /// The records of those requests that it took.
    taken: Arc<Mutex<Vec<Value>>>,
    requests: Arc<Mutex<Vec<(Instant, usize)>>>,
}

const TAKEN: Answer = ("200 OK", "", "{}");

impl Collector {
    fn start(answer: impl Fn(usize, &[Value]) -> Answer + Send + 'static) -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (taken, requests) =
            (Arc::<Mutex<Vec<Value>>>::default(), Arc::<Mutex<Vec<(Instant, usize)>>>::default());
        let (all, times) = (Arc::clone(&taken), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap() > 0 {}
                if head.is_empty() {
                    // It went away before it said anything: a call that the end of the sink cut short.
                    continue;
                }
                let head = head.to_ascii_lowercase();
                assert!(head.starts_with("post /v1/logs http/1.1\r\n"), "{head}");
                assert!(
                    head.contains("content-type: application/json\r\n")
                        && head.contains("content-encoding: gzip\r\n")
                );
                let length = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                stream.read_exact(&mut body).unwrap();
                let body: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&body[..])).unwrap();
                let records =
                    body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].as_array().unwrap().clone();
                let number = times.lock().unwrap().len();
                times.lock().unwrap().push((Instant::now(), records.len()));
                let (status, headers, text) = answer(number, &records);
                if status == TAKEN.0 {
                    all.lock().unwrap().extend(records);
                }
                let (length, stream) = (text.len(), stream.get_mut());
                let _ =
                    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{text}");
            }
        });
        Collector { port, taken, requests }
    }

    fn host(&self) -> Host {
        let port = self.port;
        Host::new(&format!(
            "[journal.sinks.otel]\nkind = \"otlp\"\nurl = \"http://127.0.0.1:{port}/v1/logs\"\n"
        ))
    }

    fn seqs(&self) -> Vec<u64> {
        self.taken.lock().unwrap().iter().map(seq).collect()
    }
}

fn seq(record: &Value) -> u64 {
    let text = record["body"]["stringValue"].as_str().unwrap();
    serde_json::from_str::<Value>(text).unwrap()["seq"].as_u64().unwrap()
}

#[test]
fn a_collector_that_is_busy_gets_the_records_when_it_said_and_each_once() {
    let collector = Collector::start(|number, _| match number {
        0 => ("503 Service Unavailable", "retry-after: 2\r\n", "busy"),
        1 => ("429 Too Many Requests", "", ""),
        2 => ("502 Bad Gateway", "", ""),
        _ => TAKEN,
    });
    let host = collector.host();
    let running = host.start();
    running.deny(1200);
    eventually("all is taken", || has_all(collector.seqs(), 1202));
    eventually("the cursor is there", || running.health().behind == 0);
    running.stop();
    assert!(has_all(collector.seqs(), 1204));
    let requests = collector.requests.lock().unwrap();
    // Between half and all of what it said.
    assert!(requests[1].0 - requests[0].0 >= Duration::from_secs(1), "{requests:?}");
    assert!(requests.iter().all(|(_, records)| *records <= 512));
}

#[test]
fn the_one_record_that_a_collector_will_never_take_is_left_out_and_no_other() {
    let collector = Collector::start(|_, records| {
        let bad = records.iter().any(|record| seq(record) == 77);
        if bad { ("400 Bad Request", "", "{\"message\":\"no\"}") } else { TAKEN }
    });
    let host = collector.host();
    let running = host.start();
    running.deny(200);
    eventually("the rest is taken", || collector.seqs().len() == 201);
    let health = running.health();
    assert_eq!((health.rejected, health.sent, health.lost), (1, 201, 0));
    assert!(collector.seqs().into_iter().eq((1..=202).filter(|seq| *seq != 77)));
}

#[test]
fn what_a_collector_took_in_part_is_counted_and_not_sent_again() {
    let partial = "{\"partialSuccess\":{\"rejectedLogRecords\":\"3\",\"errorMessage\":\"too old\"}}";
    let collector =
        Collector::start(move |number, _| if number == 0 { ("200 OK", "", partial) } else { TAKEN });
    let host = collector.host();
    let running = host.start();
    eventually("the first is taken", || !collector.seqs().is_empty());
    running.deny(50);
    eventually("all is taken", || collector.seqs().len() == 52);
    assert_eq!(collector.seqs(), (1..=52).collect::<Vec<_>>());
    running.stop();
    // What was on its way at the end may come twice.
    assert!(has_all(collector.seqs(), 54));
}

#[test]
fn a_login_that_a_collector_refuses_keeps_everything_until_it_is_right() {
    let collector =
        Collector::start(
            |number, _| if number < 3 { ("401 Unauthorized", "", "who?\n\u{1b}[2J") } else { TAKEN },
        );
    let host = collector.host();
    let running = host.start();
    eventually("it is refused", || matches!(running.health().state, SinkState::Failing(_)));
    let error = running.health().last_error.unwrap();
    assert!(error.contains("answered 401: who?") && !error.contains(['\n', '\u{1b}']), "{error}");
    running.deny(5);
    eventually("all is taken", || has_all(collector.seqs(), 7));
}

#[test]
fn what_was_on_its_way_when_the_daemon_ended_is_not_passed_over() {
    let hangs = Arc::new(AtomicBool::new(false));
    let once = Arc::clone(&hangs);
    let collector = Collector::start(move |_, _| match once.swap(false, Ordering::SeqCst) {
        true => {
            std::thread::sleep(Duration::from_millis(700));
            ("500 Internal Server Error", "", "")
        }
        false => TAKEN,
    });
    let host = collector.host();
    let running = host.start();
    running.deny(3);
    eventually("all is taken", || has_all(collector.seqs(), 5));
    let before = collector.requests.lock().unwrap().len();
    hangs.store(true, Ordering::SeqCst);
    running.deny(1);
    eventually("it is on its way", || collector.requests.lock().unwrap().len() > before);
    running.stop();
    let last = collector.seqs().into_iter().max().unwrap();
    assert!(last > 6, "what came after it was sent: {last}");
    assert!(has_all(collector.seqs(), last), "{:?}", collector.seqs());
}
