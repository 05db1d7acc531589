//! A collector that is away, busy, choosy, and takes a part: in protobuf, in JSON, and by gRPC. (A real one is in the tests of the whole.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::collector::{Collector, Reply, each, seq};
use super::*;
use crate::config::OtlpProtocol as Protocol;

#[test]
fn a_collector_that_is_busy_gets_the_records_when_it_said_and_each_once() {
    each(|protocol| {
        let collector = Collector::start(protocol, |number, _| match number {
            0 => Reply::Busy(Some(2)),
            1 => Reply::Busy(None),
            _ => Reply::Taken,
        });
        let host = collector.host();
        let running = host.start();
        running.deny(1200);
        eventually("all is taken", || has_all(collector.seqs(), 1202));
        eventually("the cursor is there", || running.health().behind == 0);
        running.stop();
        assert!(has_all(collector.seqs(), 1204));
        let requests = collector.requests();
        // Not before, and soon after.
        let waited = requests[1].0 - requests[0].0;
        assert!(waited >= Duration::from_secs(2) && waited < Duration::from_secs(10), "{requests:?}");
        assert!(requests.iter().all(|(_, records)| *records <= 512));
    });
}

#[test]
fn a_collector_that_wants_it_at_once_again_and_again_is_not_asked_without_a_pause() {
    each(|protocol| {
        let collector = Collector::start(protocol, |_, _| Reply::Busy(Some(0)));
        let host = collector.host();
        let running = host.start();
        std::thread::sleep(Duration::from_secs(1));
        let requests = collector.requests().len();
        assert!((2..=11).contains(&requests), "{requests}");
        running.stop();
    });
}

#[test]
fn the_one_record_that_a_collector_will_never_take_is_left_out_and_no_other() {
    each(|protocol| {
        let collector = Collector::start(protocol, |_, records| {
            if records.iter().any(|record| seq(record) == 77) { Reply::Never } else { Reply::Taken }
        });
        let host = collector.host();
        let running = host.start();
        running.deny(200);
        eventually("the rest is taken", || collector.seqs().len() == 201);
        eventually("it is counted", || running.health().sent == 201);
        let health = running.health();
        assert_eq!((health.rejected, health.lost), (1, 0));
        assert!(collector.seqs().into_iter().eq((1..=202).filter(|seq| *seq != 77)));
    });
}

#[test]
fn what_a_collector_took_in_part_is_counted_and_not_sent_again() {
    each(|protocol| {
        // It refuses one of those with the first, and says that it refused more than there were of those with the third.
        let collector = Collector::start(protocol, |_, records| {
            let has = |wanted| records.iter().any(|record| seq(record) == wanted);
            match (has(1), has(3)) {
                (true, _) => Reply::Partial(1, "too old"),
                (_, true) => Reply::Partial(i64::MAX, "?"),
                _ => Reply::Taken,
            }
        });
        let host = collector.host();
        let running = host.start();
        eventually("the first two are done with", || running.health().sent + running.health().rejected == 2);
        assert_eq!(running.health().rejected, 1);
        running.deny(1);
        eventually("the third is done with", || running.health().rejected == 2);
        running.deny(50);
        eventually("all is taken", || collector.seqs().contains(&53));
        // Each record came in one request.
        let came: usize = collector.requests().iter().map(|(_, records)| records).sum();
        assert_eq!((came, collector.seqs().into_iter().filter(|seq| *seq > 3).count()), (53, 50));
        eventually("it is counted", || running.health().sent == 51);
        assert_eq!(running.health().rejected, 2);
        running.stop();
    });
}

#[test]
fn a_login_that_a_collector_refuses_keeps_everything_until_it_is_right() {
    each(|protocol| {
        let refusal = if protocol == Protocol::Grpc { 16 } else { 401 };
        let said = if protocol == Protocol::Grpc { "who?%0A%1B[2J" } else { "who?\n\u{1b}[2J" };
        let collector =
            Collector::start(
                protocol,
                move |number, _| {
                    if number < 3 { Reply::Status(refusal, said) } else { Reply::Taken }
                },
            );
        let host = collector.host();
        let running = host.start();
        eventually("it is refused", || matches!(running.health().state, SinkState::Failing(_)));
        let error = running.health().last_error.unwrap();
        let word = if protocol == Protocol::Grpc { "UNAUTHENTICATED" } else { "401" };
        let told = format!("answered {word}: who?");
        assert!(error.contains(&told) && !error.contains(['\n', '\u{1b}']), "{error}");
        running.deny(5);
        eventually("all is taken", || has_all(collector.seqs(), 7));
    });
}

#[test]
fn what_was_on_its_way_when_the_daemon_ended_is_not_passed_over() {
    each(|protocol| {
        let hangs = Arc::new(AtomicBool::new(false));
        let once = Arc::clone(&hangs);
        let collector = Collector::start(protocol, move |_, _| match once.swap(false, Ordering::SeqCst) {
            true => {
                std::thread::sleep(Duration::from_millis(700));
                Reply::Busy(None)
            }
            false => Reply::Taken,
        });
        let host = collector.host();
        let running = host.start();
        running.deny(3);
        eventually("all is taken", || has_all(collector.seqs(), 5));
        let before = collector.requests().len();
        hangs.store(true, Ordering::SeqCst);
        running.deny(1);
        eventually("it is on its way", || collector.requests().len() > before);
        running.stop();
        let last = collector.seqs().into_iter().max().unwrap();
        assert!(last > 6, "what came after it was sent: {last}");
        assert!(has_all(collector.seqs(), last), "{:?}", collector.seqs());
    });
}

#[test]
fn requests_share_a_connection_and_one_that_the_collector_closed_or_cut_is_no_trouble() {
    each(|protocol| {
        let cut = AtomicBool::new(false);
        let collector = Collector::start(protocol, move |_, records| {
            let has = |wanted| records.iter().any(|record| seq(record) == wanted);
            match (has(4), has(7)) {
                (true, _) => Reply::Last(Box::new(Reply::Taken)),
                // Once; it has one record at the second time as well.
                (_, true) if !cut.swap(true, Ordering::SeqCst) => Reply::Gone,
                _ => Reply::Taken,
            }
        });
        let host = collector.host();
        let running = host.start();
        for round in 0..8 {
            running.deny(1);
            eventually("it is taken", || has_all(collector.seqs(), 3 + round));
        }
        assert!(collector.requests().len() >= 9);
        assert_eq!(collector.connections(), 3);
        assert_eq!(running.health().last_error, None);
        running.stop();
    });
}

#[test]
fn a_record_is_the_same_in_each_spelling() {
    let records = |protocol| {
        let collector = Collector::start(protocol, |_, _| Reply::Taken);
        let host = collector.host();
        let running = host.start();
        running.recorder.begin(allow("/v1/invoices")).unwrap().complete(ok());
        running.recorder.refused(deny("/v1/no")).unwrap();
        running.recorder.note(refusals_without_record(Some("other-bot"))).unwrap();
        eventually("all is taken", || has_all(collector.seqs(), 6));
        let records = collector.taken();
        for record in &records {
            assert!(record.time_unix_nano > 1_700_000_000_000_000_000);
            assert!(record.observed_time_unix_nano >= record.time_unix_nano);
        }
        let told = |record: &opentelemetry_proto::tonic::logs::v1::LogRecord| {
            let keys: Vec<_> = record.attributes.iter().map(|it| it.key.clone()).collect();
            let of = |key: &str| record.attributes.iter().find(|it| it.key == key)?.value.clone();
            let value = ["vouchsafe.identity", "http.response.status_code", "server.port"].map(of);
            (record.severity_number, record.severity_text.clone(), record.event_name.clone(), keys, value)
        };
        records.iter().map(told).collect::<Vec<_>>()
    };
    let protobuf = records(Protocol::HttpProtobuf);
    assert_eq!(protobuf, records(Protocol::HttpJson));
    assert_eq!(protobuf, records(Protocol::Grpc));
    assert_eq!((protobuf[4].0, &*protobuf[4].1, &*protobuf[4].2), (13, "WARN", "vouchsafe.decision"));
    let status = protobuf[3].4[1].clone().unwrap().value.unwrap();
    assert!(format!("{status:?}").contains("IntValue(200)"), "{status:?}");
    let whose = protobuf[5].4[0].clone().unwrap().value.unwrap();
    assert!(format!("{whose:?}").contains("other-bot"), "{whose:?}");
}
