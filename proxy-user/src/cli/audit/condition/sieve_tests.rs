//! What an index says of a condition is what the lines say, for any condition and any journal.

use std::collections::HashSet;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use proxy_journal::archive::Walk;
use proxy_journal::{
    Archive, Decision, Filter, Indexes, Outcome, Place, Prepared, Record, Rule, SegmentStart, Timestamp,
    Verdict, Workload, Writer, segment,
};
use uuid::Uuid;

use super::Condition;

const BEGIN: u64 = 1_795_550_400_000_000;

/// What one call is, by numbers out of which everything else comes.
#[derive(Debug, Clone)]
struct Call {
    /// Who, where to, what for.
    numbers: [u8; 8],
    /// Long after the one before, in microseconds.
    after: u64,
    /// Its outcome, after so many other calls: status, duration, bytes, error.
    outcome: Option<(u8, Option<u16>, u64, u64, bool)>,
    /// The next segment begins.
    rotates: bool,
}

fn large() -> impl Strategy<Value = u64> {
    prop_oneof![0..20_u64, 0..20_000_u64, (any::<u64>(), 10..64_u32).prop_map(|(number, by)| number >> by)]
}

fn call() -> impl Strategy<Value = Call> {
    let outcome = (
        0..4_u8,
        prop::option::of(prop::sample::select(vec![200, 201, 404, 500, 503])),
        large(),
        large(),
        any::<bool>(),
    );
    (any::<[u8; 8]>(), large(), prop::option::weighted(0.8, outcome), prop::bool::weighted(0.1))
        .prop_map(|(numbers, after, outcome, rotates)| Call { numbers, after: after >> 20, outcome, rotates })
}

/// Of four: none, two names, and one that no dictionary takes.
fn name(what: &str, number: u8) -> Option<String> {
    match number % 4 {
        0 => None,
        3 => Some(format!("{what}-{}", "x".repeat(600))),
        number => Some(format!("{what}-{number}")),
    }
}

fn path(number: u8) -> Option<String> {
    match number % 6 {
        0 => None,
        1 => Some("/".into()),
        2 => Some(format!("/v1/{}", "é".repeat(600))),
        number => Some(format!("/v{number}/ü/{number}")),
    }
}

fn decision(id: Uuid, numbers: [u8; 8]) -> Decision {
    let [who, host, unit, path_of, verdict, rule, reason, uid] = numbers;
    Decision {
        id,
        workload: Workload {
            unit: name("unit", unit),
            exe: name("/opt", unit / 4).unwrap_or_default(),
            uid: u32::from(uid % 3),
            pid: u32::from(uid),
            ..Workload::default()
        }
        .into(),
        identity: name("bot", who),
        dst: ([198, 51, 100, 7], 443).into(),
        proxy: None,
        scheme: None,
        api: name("api", who / 4),
        host: name("bot", host),
        port: None,
        method: [None, Some("GET"), Some("POST")][usize::from(path_of / 6 % 3)].map(str::to_owned),
        path: path(path_of),
        has_query: false,
        verdict: if verdict % 4 == 0 { Verdict::Deny } else { Verdict::Allow },
        observed: verdict % 4 == 1,
        rule: (rule % 3 > 0).then(|| Rule { file: "a.toml".into(), line: rule.into(), text: "x".into() }),
        reason: name("why", reason).unwrap_or_default(),
        credential: name("key", reason / 4),
        mistrust: None,
        capture: None,
        ech: false,
        basis: None,
        fingerprints: Vec::new(),
        refusal: None,
        generation: 1,
    }
}

fn write(dir: &Path, calls: &[Call]) {
    let mut writer = Writer::new(Cursor::new(Vec::new()));
    let (mut waiting, mut time) = (Vec::<(usize, Outcome)>::new(), BEGIN);
    let put = |number: u32, lines: Cursor<Vec<u8>>| {
        std::fs::write(dir.join(segment::file_name(number)), lines.into_inner()).unwrap();
    };
    for (at, call) in calls.iter().enumerate() {
        time += call.after;
        // Four have the same first half.
        let id = Uuid::from_u64_pair(0x019a_0000_0000_7000 + at as u64 / 4, 1 << 63 | at as u64);
        let decision = decision(id, call.numbers);
        let goes_on = decision.verdict == Verdict::Allow;
        writer.append(&Record::Decision(Arc::new(decision)), Timestamp::from_micros(time)).unwrap();
        if let Some((later, status, duration_us, bytes, failed)) = call.outcome.filter(|_| goes_on) {
            let error = failed.then(|| "broke".to_owned());
            let (bytes_sent, bytes_received) = (bytes, bytes / 3);
            let interrupted = failed && bytes % 2 == 1;
            let outcome = Outcome {
                id,
                status,
                duration_us,
                bytes_sent,
                bytes_received,
                error,
                interrupted,
                ..Outcome::default()
            };
            waiting.push((at + usize::from(later), outcome));
        }
        for (_, outcome) in waiting.extract_if(.., |(when, _)| *when <= at) {
            time += 1;
            writer.append(&Record::Outcome(outcome), Timestamp::from_micros(time)).unwrap();
        }
        // The last one ends as well: so its bytes are to be had.
        if call.rotates || at + 1 == calls.len() {
            let number = writer.number();
            let first = Record::Segment(SegmentStart {
                number: number + 1,
                journal: None,
                key: None,
                reason: "size".into(),
                boot_id: String::new(),
                open: Vec::new(),
            });
            let first = Prepared::new(&first, Timestamp::from_micros(time)).unwrap();
            let closed = writer.rotate(Cursor::new(Vec::new()), &first).map_err(|(error, _)| error);
            put(number, closed.unwrap());
        }
    }
}

/// Where the lines stand for which it holds, and whether all that are certain are those. Lines that had to be read.
fn found(dir: &Path, filter: &Filter, condition: &Condition, sifted: bool) -> (Vec<Place>, usize) {
    let mut archive = Archive::open(dir, Indexes::Keep).unwrap();
    let mut walk = Walk::new(&archive, filter.clone(), false).sifted(sifted.then(|| condition.sieve()));
    let (mut places, mut read) = (Vec::new(), 0);
    while let Some(batch) = archive.next(&mut walk).unwrap() {
        for hit in &batch.hits {
            let Some(call) = archive.read(hit, filter).unwrap() else { continue };
            let holds = condition.holds(&call.facts);
            assert!(!sifted || !hit.certain || holds == Some(true), "{:?}", call.facts);
            read += usize::from(!hit.certain);
            if holds == Some(true) {
                places.push(hit.place);
            }
        }
    }
    (places, read)
}

fn text() -> impl Strategy<Value = String> {
    let variables = vec![
        "api",
        "credential",
        "exe",
        "host",
        "identity",
        "kind",
        "method",
        "path",
        "reason",
        "rule",
        "unit",
        "verdict",
        "id",
        "(identity + host)",
        "('/' + path)",
        "(identity + '1')",
        "string(status)",
    ];
    prop::sample::select(variables).prop_map(str::to_owned)
}

fn literal() -> impl Strategy<Value = String> {
    let some = vec![
        "",
        "bot-1",
        "api-2",
        "unit-1",
        "call",
        "GET",
        "/",
        "/v3/",
        "ü",
        "allow",
        "a.toml:4",
        "why",
        "key-",
        "1",
        "5",
        "x",
        "/v1/é",
        "0",
        "019a0000-",
        "019a0000-0000-7001-8000-00000000000",
        "019a0000-0000-7001-8000-000000000005",
    ];
    prop::sample::select(some).prop_map(|text| format!("'{text}'"))
}

fn relation() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["<", "<=", "==", "!=", ">=", ">"])
}

fn int() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["status", "uid", "pid", "bytes_sent", "bytes_received"])
            .prop_map(str::to_owned),
        prop::sample::select(vec![
            "0",
            "1",
            "2",
            "7",
            "200",
            "404",
            "500",
            "1000000",
            "-1",
            "9223372036854775807"
        ])
        .prop_map(str::to_owned),
        large().prop_map(|number| (number >> 8).to_string()),
        text().prop_map(|text| format!("size({text})")),
        Just("time.getHours()".to_owned()),
        Just("time.getMinutes()".to_owned()),
        Just("time.getSeconds()".to_owned()),
    ];
    let sum = |left: String, operator: &str, right: String| format!("({left} {operator} {right})");
    leaf.prop_recursive(2, 6, 2, move |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/", "%"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(move |(a, by, b)| sum(a, by, b)),
            inner.prop_map(|of| format!("-({of})")),
        ]
    })
}

fn double() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        3 => Just("duration_ms".to_owned()),
        1 => prop::sample::select(vec!["0.0", "0.5", "2000.0", "-1.5", "(1.0 / 0.0)"]).prop_map(str::to_owned),
        1 => large().prop_map(|number| format!("{}.25", number >> 8)),
        1 => int().prop_map(|of| format!("double({of})")),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        let operator = prop::sample::select(vec!["+", "-", "*", "/"]);
        prop_oneof![
            (inner.clone(), operator, inner.clone()).prop_map(|(a, by, b)| format!("({a} {by} {b})")),
            inner.prop_map(|of| format!("-({of})")),
        ]
    })
}

fn time() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("time".to_owned()),
        (0..400_u64).prop_map(|second| {
            let time = Timestamp::from_micros(BEGIN + second * 500_000);
            format!("timestamp('{time}')")
        }),
        Just("time - duration('1s')".to_owned()),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    let number = prop_oneof![int(), double()];
    let number = || number.clone();
    let leaf = prop_oneof![
        (text(), relation(), literal()).prop_map(|(a, is, b)| format!("{a} {is} {b}")),
        (literal(), relation(), text()).prop_map(|(a, is, b)| format!("{a} {is} {b}")),
        (text(), relation(), text()).prop_map(|(a, is, b)| format!("{a} {is} {b}")),
        (text(), prop::sample::select(vec!["startsWith", "endsWith", "contains", "matches"]), literal())
            .prop_map(|(a, does, b)| format!("{a}.{does}({b})")),
        (text(), literal(), literal()).prop_map(|(a, b, c)| format!("{a} in [{b}, {c}]")),
        (number(), relation(), number()).prop_map(|(a, is, b)| format!("{a} {is} {b}")),
        (prop::sample::select(vec!["duration_ms", "bytes_sent", "status"]), relation(), number())
            .prop_map(|(a, is, b)| format!("{a} {is} {b}")),
        (int(), int(), int()).prop_map(|(a, b, c)| format!("{a} in [{b}, {c}]")),
        (time(), relation(), time()).prop_map(|(a, is, b)| format!("{a} {is} {b}")),
        prop::sample::select(vec!["error", "interrupted", "true", "false", "1 / 0 == 1"])
            .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|of| format!("!({of})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn by_indexes_the_same_is_found_as_by_reading_every_line(
        calls in prop::collection::vec(call(), 1..40),
        conditions in prop::collection::vec(condition(), 12),
        only in prop::sample::select(vec!["*", "bot-*", "*xx", "bot-1"]),
    ) {
        // Whether one fits that no dictionary takes, its line tells alone.
        let identities = if only == "*" { Vec::new() } else { vec![only.into()] };
        let filter = Filter { identities, ..Filter::default() };
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &calls);
        for text in conditions {
            let condition = Condition::parse(&text).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
            let (by_lines, _) = found(dir.path(), &filter, &condition, false);
            let (by_index, _) = found(dir.path(), &filter, &condition, true);
            prop_assert_eq!(by_lines, by_index, "{}", text);
        }
    }
}

#[test]
fn what_is_in_an_index_takes_no_reading_of_lines() {
    let dir = tempfile::tempdir().unwrap();
    let calls: Vec<_> = (0..200_u8)
        .map(|number| Call {
            // No name that is too long, and no path.
            numbers: [
                number % 3,
                number % 3,
                number % 3,
                [0, 1, 3, 4, 5][usize::from(number % 5)],
                number,
                number,
                number % 3,
                number,
            ],
            after: 700_000,
            outcome: Some((
                0,
                Some(200 + u16::from(number)),
                u64::from(number) * 40_000,
                u64::from(number),
                number % 7 == 0,
            )),
            rotates: number % 50 == 49,
        })
        .collect();
    write(dir.path(), &calls);
    let (filter, mut seen) = (Filter::default(), HashSet::new());
    for (text, may_read) in [
        ("identity == 'bot-1'", 0),
        ("identity.startsWith('bot') && verdict == 'deny'", 0),
        ("host == identity && unit != ''", 0),
        ("method == 'GET' || exe.contains('opt')", 0),
        ("path.startsWith('/v3/') && !path.endsWith('4')", 0),
        ("path.matches('^/v[0-9]/') && status > 210", 0),
        ("size(path) > 3 && credential == ''", 0),
        ("path.size() == 7", 0),
        ("('/v1' + path).startsWith('/v1/v3') && (identity + '!').endsWith('1!')", 0),
        ("path == '/' + string(uid)", 0),
        ("reason.contains('why') && rule.startsWith('a.toml')", 0),
        ("status / 100 == 2 && !(uid in [1, 2]) && pid > 20", 0),
        ("bytes_sent + bytes_received > 40", 0),
        ("bytes_sent % 2 == 0", 0),
        ("error ? status > 300 : interrupted", 0),
        ("time >= timestamp('2026-11-24T20:01:00Z') && time.getMinutes() % 2 == 1", 0),
        ("time.getDayOfWeek() in [0, 6] || kind == 'segment'", 0),
        ("time - timestamp('2026-11-24T20:00:00Z') > duration('90s')", 0),
        // Durations are rounded: one line of 200 may be what is asked for.
        ("duration_ms > 3000", 1),
        ("duration_ms / 1000.0 >= 2.5 && duration_ms < 5000", 2),
        // What is not certain decides nothing where something else does.
        ("duration_ms > 3000 && path == 'nowhere'", 0),
        ("!(duration_ms <= 3000 || path != 'nowhere')", 0),
        // In lines alone.
        ("id.endsWith('0') || exe == 'x'", 210),
        // Of ids the beginning is known, but not of the three lines that have none.
        ("id.startsWith('019a') && id != 'x'", 3),
        ("id.startsWith('019a0000-0000-7003-') || id in ['019a0000', 'y']", 3),
        ("id == '019a0000-0000-7001-8000-000000000007'", 7),
    ] {
        let condition = Condition::parse(text).unwrap();
        let (by_lines, all) = found(dir.path(), &filter, &condition, false);
        let (by_index, read) = found(dir.path(), &filter, &condition, true);
        assert!(by_lines == by_index && all == 0, "{text}");
        assert!(read <= may_read, "{text}: {read} lines were read");
        seen.insert(by_lines.len());
    }
    assert!(seen.len() > 8, "{seen:?}");
}
