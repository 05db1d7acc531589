//! What only a collector of gRPC can say.

use super::collector::{Collector, Reply};
use super::*;
use crate::config::OtlpProtocol::Grpc;

const RESOURCE_EXHAUSTED: u16 = 8;
const OUT_OF_RANGE: u16 = 11;

#[test]
fn a_message_that_is_too_large_for_a_collector_is_sent_in_parts() {
    for code in [RESOURCE_EXHAUSTED, OUT_OF_RANGE] {
        let collector = Collector::start(Grpc, move |_, records| {
            if records.len() > 30 { Reply::Status(code, "larger than max") } else { Reply::Taken }
        });
        let host = collector.host();
        let running = host.start();
        running.deny(300);
        eventually("all is taken", || has_all(collector.seqs(), 302));
        let health = running.health();
        assert_eq!((health.rejected, health.last_error), (0, None));
        running.stop();
    }
}

#[test]
fn a_quota_that_is_used_up_loses_no_record() {
    let collector = Collector::start(Grpc, |number, _| {
        if number < 6 { Reply::Status(RESOURCE_EXHAUSTED, "no quota left") } else { Reply::Taken }
    });
    let host = collector.host();
    let running = host.start();
    running.deny(20);
    eventually("it is told", || matches!(running.health().state, SinkState::Failing(_)));
    assert!(running.health().last_error.unwrap().contains("RESOURCE_EXHAUSTED: no quota left"));
    eventually("all is taken", || has_all(collector.seqs(), 22));
    assert_eq!(running.health().rejected, 0);
}

#[test]
fn what_does_not_say_that_it_went_well_did_not() {
    let message = || vec![0, 0, 0, 0, 0];
    let grpc = || vec![("content-type", "application/grpc")];
    let well = || Some(vec![("grpc-status", "0")]);
    let answers = [
        ("without a status", Reply::Raw(grpc(), message(), None)),
        ("without a status", Reply::Raw(grpc(), message(), Some(vec![("grpc-message", "well")]))),
        (
            "without a status",
            Reply::Raw(vec![("content-type", "application/grpc"), ("grpc-status", "0")], message(), None),
        ),
        ("none of OTLP", Reply::Raw(grpc(), Vec::new(), well())),
        ("none of OTLP", Reply::Raw(grpc(), vec![0, 0, 0, 0, 9, 1], well())),
        ("none of OTLP", Reply::Raw(grpc(), vec![0, 0, 0, 0, 1, 255], well())),
        ("none of OTLP", Reply::Raw(grpc(), vec![1, 0, 0, 0, 0], well())),
        ("no collector of gRPC", Reply::Raw(vec![("content-type", "text/html")], message(), well())),
        ("more than", Reply::Raw(grpc(), vec![0; 300 << 10], well())),
        ("answered UNIMPLEMENTED: no such service", Reply::Status(12, "no%20such%20service")),
        ("answered an unknown code", Reply::Status(99, "")),
    ];
    for (why, answer) in answers {
        let once = answer.clone();
        let collector =
            Collector::start(Grpc, move |number, _| if number == 0 { once.clone() } else { Reply::Taken });
        let host = collector.host();
        let running = host.start();
        eventually(why, || running.health().last_error.is_some_and(|error| error.contains(why)));
        eventually("it is sent again", || has_all(collector.seqs(), 2));
        eventually("it is counted", || running.health().sent == 2);
        assert_eq!(running.health().rejected, 0, "{why}");
        running.stop();
    }
}

#[test]
fn a_server_that_speaks_http1_alone_is_told_to_be_no_collector_of_grpc() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::Write as _;
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let host = Host::new(&format!(
        "[journal.sinks.otel]\nkind = \"otlp\"\nprotocol = \"grpc\"\nurl = \"http://127.0.0.1:{port}\"\n"
    ));
    let running = host.start();
    eventually("it is told", || matches!(running.health().state, SinkState::Failing(_)));
    assert_eq!((running.health().sent, running.health().rejected), (0, 0));
    running.stop();
}
