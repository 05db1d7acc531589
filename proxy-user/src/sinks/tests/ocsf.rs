//! What OCSF is told of each kind. (Real events are held against the real schema in the tests of the whole.)

use proxy_journal::follow::{Line, Place};
use proxy_journal::{Entry, Outcome, Prepared, Timestamp, Writer};

use super::super::message::Message;
use super::super::ocsf;
use super::*;

/// The event of a record, as it stands in a journal.
fn event(record: proxy_journal::Record, decision: Option<proxy_journal::Decision>) -> Value {
    let time = Timestamp::from_micros(1_795_550_400_123_456);
    let mut writer = Writer::new(std::io::Cursor::new(Vec::new()));
    writer.append_all([&Prepared::new(&record, time).unwrap()]).unwrap();
    let bytes = writer.into_segment().into_inner();
    let text = String::from_utf8(bytes).unwrap().trim_end().to_owned();
    let content = Entry::parse(text.as_bytes()).unwrap().content;
    let line = Line { seq: 1, time, text };
    let message =
        Message { line, content, decision: decision.map(Into::into), after: Place::start_of(1).into() };
    let spelled = ocsf::spell(&message, "host-1");
    assert!(!spelled.contains(|c: char| c.is_control() || c == '\u{202e}'), "{spelled:?}");
    serde_json::from_str(&spelled).unwrap()
}

#[test]
fn a_call_is_api_activity_by_its_method_and_what_was_decided() {
    for (method, activity) in
        [("POST", 1), ("GET", 2), ("HEAD", 2), ("PUT", 3), ("PATCH", 3), ("DELETE", 4), ("PURGE", 99)]
    {
        let mut decision = deny("/v1/a\u{202e}\n");
        decision.method = Some(method.to_owned());
        let event = event(proxy_journal::Record::Decision(decision.into()), None);
        assert_eq!(
            (&event["class_uid"], &event["activity_id"]),
            (&6003.into(), &activity.into()),
            "{method}"
        );
        assert_eq!(event["type_uid"], 600_300 + activity);
        assert_eq!(
            (&event["action_id"], &event["disposition_id"], &event["status_id"]),
            (&2.into(), &2.into(), &2.into())
        );
        assert_eq!(
            (&event["actor"]["user"]["name"], &event["api"]["service"]["name"]),
            (&"invoice-bot".into(), &"stripe".into())
        );
        assert_eq!(
            (&event["http_request"]["url"]["hostname"], &event["time"]),
            (&"api.stripe.com".into(), &1_795_550_400_123_u64.into())
        );
        assert_eq!(
            (&event["metadata"]["sequence"], &event["metadata"]["uid"].as_str().unwrap().len()),
            (&1.into(), &64)
        );
    }
}

#[test]
fn an_outcome_is_the_same_activity_with_what_came_of_it() {
    let decision = allow("/v1/a");
    let outcome = Outcome {
        status: Some(502),
        duration_us: 12_345,
        error: Some("it broke".into()),
        ..Outcome::default()
    };
    let ended = event(proxy_journal::Record::Outcome(outcome.clone()), Some(decision));
    assert_eq!(
        (&ended["class_uid"], &ended["activity_id"], &ended["status_id"]),
        (&6003.into(), &2.into(), &2.into())
    );
    assert_eq!(
        (&ended["http_response"]["code"], &ended["duration"], &ended["action_id"]),
        (&502.into(), &12.into(), &1.into())
    );
    assert_eq!(ended["status_detail"], "it broke");
    let alone = event(proxy_journal::Record::Outcome(outcome), None);
    assert_eq!((&alone["class_uid"], &alone["unmapped"]["error"]), (&0.into(), &"it broke".into()));
}
