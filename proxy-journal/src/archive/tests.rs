//! What is found by the indexes is what reading everything finds, whatever the journal and whatever was done to the files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, Cursor};
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::record::{Decision, Outcome, Record, Rule, Stop, Verdict};
use crate::source::Source;
use crate::tree::Tree;
use crate::workload::Workload;
use crate::writer::Writer;
use crate::{Head, Recovery, Ruling, packed};

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    /// A decision: who, unit, api, host, verdict (allow, deny, observed).
    Call(u8, u8, u8, u8, u8),
    /// One of the calls that are open ends.
    End(prop::sample::Index, Option<u16>, bool),
    Stop,
    /// Bytes that are no record.
    Garbage,
    /// The next segment begins.
    Rotate,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..4_u8, 0..3_u8, 0..3_u8, 0..4_u8, 0..3_u8).prop_map(|(a, b, c, d, e)| Event::Call(a, b, c, d, e)),
        6 => (any::<prop::sample::Index>(), prop::option::of(100..600_u16), any::<bool>())
            .prop_map(|(which, status, error)| Event::End(which, status, error)),
        1 => Just(Event::Stop),
        1 => Just(Event::Garbage),
        2 => Just(Event::Rotate),
    ]
}

/// `None` for 0, and a name that no dictionary takes for 3.
fn name(what: &str, number: u8) -> Option<String> {
    match number {
        0 => None,
        3 => Some(format!("{what}-{}", "x".repeat(600))),
        number => Some(format!("{what}-{number}")),
    }
}

fn id(number: u64, seed: u64) -> Uuid {
    // Two calls may have the same first half.
    Uuid::from_u64_pair(0x019a_0000_0000_7000 + number / 2, 1 << 63 | number << 8 | seed & 1)
}

fn decision(id: Uuid, (who, unit, api, host, verdict): (u8, u8, u8, u8, u8)) -> Record {
    Record::Decision(Arc::new(Decision {
        id,
        workload: Workload { unit: name("unit", unit), exe: "/opt/bot".into(), ..Workload::default() }.into(),
        identity: name("bot", who),
        dst: ([198, 51, 100, 7], 443).into(),
        proxy: None,
        scheme: None,
        api: name("api", api),
        host: name("host", host),
        port: None,
        method: Some("GET".into()),
        path: Some("/".into()),
        has_query: false,
        verdict: if verdict == 1 { Verdict::Deny } else { Verdict::Allow },
        observed: verdict == 2,
        rule: Some(Rule { file: "a.toml".into(), line: 3, text: "x".into() }),
        reason: "so".into(),
        credential: None,
        mistrust: None,
        capture: None,
        ech: false,
        basis: None,
        fingerprints: Vec::new(),
        refusal: None,
        generation: 1,
    }))
}

/// Segments of lines, as they were written.
fn segments(events: &[Event]) -> Vec<Vec<u8>> {
    let mut done: Vec<Vec<u8>> = Vec::new();
    let mut writer = Writer::new(Cursor::new(Vec::new()));
    let (mut open, mut number) = (Vec::new(), 0);
    for (at, event) in events.iter().enumerate() {
        let time = Timestamp::from_micros(1_795_550_400_000_000 + at as u64 * 1_000_000);
        let mut append = |record: &Record| writer.append(record, time).unwrap();
        match event {
            Event::Call(who, unit, api, host, verdict) => {
                number += 1;
                let id = id(number, number);
                append(&decision(id, (*who, *unit, *api, *host, *verdict)));
                if *verdict != 1 {
                    open.push(id);
                }
            }
            Event::End(which, status, error) if !open.is_empty() => {
                let id = open.swap_remove(which.index(open.len()));
                let error = error.then(|| "broke".to_owned());
                append(&Record::Outcome(Outcome {
                    id,
                    status: *status,
                    error,
                    duration_us: 7,
                    ..Outcome::default()
                }));
            }
            Event::End(..) => {}
            Event::Stop => {
                append(&Record::Stop(Stop { reason: "so".into() }));
            }
            Event::Garbage => {
                let head = writer.head();
                let mut bytes = writer.into_segment().into_inner();
                bytes.extend_from_slice(b"{\"v\":1,\"not\":\"a record\"}\n");
                writer = resumed(bytes, head);
            }
            Event::Rotate => {
                let head = writer.head();
                done.push(writer.into_segment().into_inner());
                writer = resumed(Vec::new(), head);
            }
        }
    }
    done.push(writer.into_segment().into_inner());
    done
}

fn resumed(bytes: Vec<u8>, head: Head) -> Writer<Cursor<Vec<u8>>> {
    let len = bytes.len() as u64;
    let mut segment = Cursor::new(bytes);
    segment.set_position(len);
    Writer::resume(
        segment,
        &Recovery {
            number: 1,
            before: head,
            head,
            len,
            tree: Tree::default(),
            torn_bytes: 0,
            lost: 0,
            open: Vec::new(),
            journal: None,
            key: None,
        },
    )
}

/// Writes segments into a folder: every second one compressed, but for the last.
fn folder(segments: &[Vec<u8>]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (number, bytes) in (1..).zip(segments) {
        if number % 2 == 1 && number as usize != segments.len() {
            let out = File::create(dir.path().join(segment::packed_name(number))).unwrap();
            packed::pack(bytes.as_slice(), out).unwrap();
        } else {
            fs::write(dir.path().join(segment::file_name(number)), bytes).unwrap();
        }
    }
    dir
}

/// What a filter finds when everything is read.
fn scanned(dir: &Path, filter: &Filter) -> Vec<(Place, Option<Place>)> {
    let (mut found, mut open) = (Vec::new(), HashMap::<Uuid, Line>::new());
    let mut time = Timestamp::from_micros(0);
    for (number, path) in segment::list(dir).unwrap() {
        let mut offset = 0;
        if number > 1 {
            time = Timestamp::from_micros(0);
        }
        for line in Source::open(&path).unwrap().split(b'\n') {
            let text = line.unwrap();
            let place = Place { segment: number, offset };
            offset += text.len() as u64 + 1;
            let Ok(alone) = Facts::of(&text, None) else {
                if filter.matches(&Facts::unreadable(time)) {
                    found.push((place, None));
                }
                continue;
            };
            time = alone.time;
            let is = |kind: &str| text.windows(kind.len()).any(|part| part == kind.as_bytes());
            if is("\"kind\":\"decision\"") && alone.ruling != Some(Ruling::Deny) {
                open.insert(alone.id.unwrap(), Line { place, text });
                continue;
            }
            let decision = if is("\"kind\":\"outcome\"") { open.remove(&alone.id.unwrap()) } else { None };
            let facts = Facts::of(&text, decision.as_ref().map(|line| line.text.as_slice())).unwrap();
            if filter.matches(&facts) {
                found.push((place, decision.map(|line| line.place)));
            }
        }
    }
    found
}

fn found(archive: &mut Archive, filter: &Filter, newest_first: bool) -> Vec<(Place, Option<Place>)> {
    let mut walk = Walk::new(archive, filter.clone(), newest_first);
    let mut found = Vec::new();
    while let Some(batch) = archive.next(&mut walk).unwrap() {
        for hit in &batch.hits {
            if let Some(call) = archive.read(hit, filter).unwrap() {
                assert!(filter.matches(&call.facts) || !hit.certain);
                found.push((call.line.place, call.decision.map(|line| line.place)));
            }
        }
    }
    if newest_first {
        found.reverse();
    }
    found
}

fn filter() -> impl Strategy<Value = Filter> {
    let some = |what: &'static str, most: u8| {
        prop::collection::vec(
            (0..most).prop_map(move |n| name(what, n).unwrap_or("unknown".into()).as_str().into()),
            0..2,
        )
    };
    let time = || {
        prop::option::of(
            (0..60_u64).prop_map(|at| Timestamp::from_micros(1_795_550_400_000_000 + at * 1_000_000)),
        )
    };
    let kinds = prop::sample::subsequence(vec!["call", "stop", "unreadable"], 0..2);
    (
        (some("bot", 4), some("unit", 3), some("api", 3), some("host", 4)),
        prop::sample::subsequence(Ruling::ALL.to_vec(), 0..=2),
        prop::collection::vec(
            prop_oneof![Just("2xx"), Just("5xx"), Just("200")].prop_map(|text| text.parse().unwrap()),
            0..2,
        ),
        (time(), time()),
        kinds,
        any::<bool>(),
    )
        .prop_map(
            |((identities, units, apis, hosts), rulings, statuses, (since, until), kinds, quiet)| Filter {
                kinds: kinds.into_iter().map(Into::into).collect(),
                quiet: if quiet { vec!["stop"] } else { Vec::new() },
                identities,
                apis,
                units,
                hosts,
                rulings,
                statuses,
                since,
                until,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn indexing_needs_no_parser_for_what_is_written(events in prop::collection::vec(event(), 0..20)) {
        for segment in segments(&events) {
            for parts in segment.split(|byte| *byte == b'\n').filter_map(|line| crate::line::split(line).ok()) {
                prop_assert!(crate::scan::brief(parts.members).is_some(), "{}", parts.text);
            }
        }
    }


    #[test]
    fn the_indexes_find_what_reading_everything_finds(
        events in prop::collection::vec(event(), 0..60),
        filters in prop::collection::vec(filter(), 4),
    ) {
        let dir = folder(&segments(&events));
        for filter in filters {
            let all = scanned(dir.path(), &filter);
            for (indexes, newest_first) in [(Indexes::Keep, true), (Indexes::Read, false), (Indexes::Ignore, true)] {
                let mut archive = Archive::open(dir.path(), indexes).unwrap();
                prop_assert_eq!(&found(&mut archive, &filter, newest_first), &all, "{:?} {:?}", indexes, filter);
            }
        }
    }

    #[test]
    fn every_call_is_found_by_its_id_with_both_its_lines(events in prop::collection::vec(event(), 1..60)) {
        let dir = folder(&segments(&events));
        let mut archive = Archive::open(dir.path(), Indexes::Keep).unwrap();
        for (place, decision) in scanned(dir.path(), &Filter { kinds: vec!["call".into()], ..Filter::default() }) {
            let line = archive.line(place).unwrap().unwrap();
            let id = Facts::of(&line.text, None).unwrap().id.unwrap();
            let found = archive.find(&IdPrefix::parse(&id.to_string()).unwrap(), 5).unwrap();
            prop_assert_eq!(found.len(), 1);
            let pieces = found[&id];
            match decision {
                Some(_) => prop_assert_eq!((pieces.decision, pieces.outcome), (decision, Some(place))),
                None => prop_assert_eq!((pieces.decision, pieces.outcome), (Some(place), None)),
            }
            let shorter = &id.as_simple().to_string()[..15];
            prop_assert!(archive.find(&IdPrefix::parse(shorter).unwrap(), 100).unwrap().contains_key(&id));
        }
    }

    #[test]
    fn an_index_that_was_damaged_is_read_in_bounds_and_never_shows_what_is_not_there(
        events in prop::collection::vec(event(), 1..40),
        cut in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = Vec::new();
        let all = segments(&events);
        crate::index::build(all[0].as_slice(), &mut bytes).unwrap();
        for (at, by) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= by;
        }
        let length = if cut.index(3) == 0 { cut.index(bytes.len() + 1) } else { bytes.len() };
        bytes.truncate(length);
        if let Ok(mut index) = crate::index::Index::open(Cursor::new(&bytes)) {
            let _ = index.check();
        }
    }
}

fn calls(count: u8) -> Vec<Event> {
    let call = |n| {
        [Event::Call(1 + n % 2, 1, 1, 1, 0), Event::End(prop::sample::Index::default_of(), Some(200), false)]
    };
    (0..count).flat_map(call).collect()
}

/// There is no other way to make one by hand.
trait DefaultOf {
    fn default_of() -> Self;
}

impl DefaultOf for prop::sample::Index {
    fn default_of() -> Self {
        use proptest::strategy::ValueTree as _;
        any::<prop::sample::Index>()
            .new_tree(&mut proptest::test_runner::TestRunner::deterministic())
            .unwrap()
            .current()
    }
}

#[test]
fn an_index_of_another_segment_is_made_anew_and_one_that_lies_is_told() {
    let mut events = calls(20);
    events.push(Event::Rotate);
    events.extend(calls(20));
    events.push(Event::Rotate);
    let dir = folder(&segments(&events));
    let everything = Filter::default();
    let all = scanned(dir.path(), &everything);
    let mut archive = Archive::open(dir.path(), Indexes::Keep).unwrap();
    assert_eq!(found(&mut archive, &everything, true), all);
    let (first, second) = (dir.path().join(index_name(1)), dir.path().join(index_name(2)));
    assert!(first.exists() && second.exists() && !dir.path().join(index_name(3)).exists());

    // Not its own.
    fs::copy(&first, &second).unwrap();
    let mut archive = Archive::open(dir.path(), Indexes::Keep).unwrap();
    assert_eq!(found(&mut archive, &everything, true), all);
    let mut kept = Vec::new();
    let mut archive = Archive::open(dir.path(), Indexes::Keep).unwrap();
    archive
        .make_indexes(false, |number, what, _| {
            kept.push((number, what));
            Ok(())
        })
        .unwrap();
    assert_eq!(kept, [(1, Kept::There), (2, Kept::There), (3, Kept::Open)]);

    // Made up, with the length and the end of its segment: what it says of a call is not what stands there.
    let plain = fs::read_to_string(dir.path().join(segment::file_name(2))).unwrap();
    let id = crate::Entry::parse(plain.lines().next().unwrap().as_bytes()).unwrap().text;
    let id = &id[id.find("\"id\":\"").unwrap() + 6..][..18];
    let made_up = plain.replace(id, "00000000-0000-7000");
    assert!(made_up != plain && made_up.len() == plain.len());
    let mut bytes = Vec::new();
    crate::index::build(made_up.as_bytes(), &mut bytes).unwrap();
    let right = fs::read(&second).unwrap();
    fs::write(&second, &bytes).unwrap();
    let mut archive = Archive::open(dir.path(), Indexes::Read).unwrap();
    let mut walk = Walk::new(&archive, everything.clone(), true);
    let mut told = Vec::new();
    while let Some(batch) = archive.next(&mut walk).unwrap() {
        let read = batch.hits.iter().map(|hit| archive.read(hit, &everything));
        told.extend(read.filter_map(|read| read.err().map(|error| error.to_string())));
    }
    assert!(!told.is_empty() && told[0].contains("journal-00000002.idx"), "{told:?}");
    fs::write(&second, &right).unwrap();

    // Damaged in the middle: its rows are not those of the segment.
    let mut bytes = fs::read(&first).unwrap();
    bytes[20] ^= 0xff;
    fs::write(&first, &bytes).unwrap();
    let mut archive = Archive::open(dir.path(), Indexes::Read).unwrap();
    let mut walk = Walk::new(&archive, everything.clone(), false);
    let told = archive.next(&mut walk).map(|_| ()).unwrap_err().to_string();
    assert!(told.contains("journal-00000001.idx") && told.contains("audit index --rebuild"), "{told}");
    let mut archive = Archive::open(dir.path(), Indexes::Ignore).unwrap();
    assert_eq!(found(&mut archive, &everything, true), all);
    let mut archive = Archive::open(dir.path(), Indexes::Keep).unwrap();
    archive.make_indexes(false, |_, _, _| Ok(())).unwrap();
    let mut archive = Archive::open(dir.path(), Indexes::Read).unwrap();
    assert_eq!(found(&mut archive, &everything, true), all);
}

#[test]
fn an_index_is_for_its_owner_and_is_not_read_or_written_through_a_link() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let mut events = calls(5);
    events.push(Event::Rotate);
    let dir = folder(&segments(&events));
    let index = dir.path().join(index_name(1));
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, "not to be touched").unwrap();
    symlink(&elsewhere, &index).unwrap();
    let mut archive = Archive::open(dir.path(), Indexes::Keep).unwrap();
    assert_eq!(found(&mut archive, &Filter::default(), true).len(), 5);
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "not to be touched");
    assert!(index.symlink_metadata().unwrap().is_file(), "the link was replaced");
    assert_eq!(index.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    // One that is right, by way of a link, is none.
    fs::rename(&index, &elsewhere).unwrap();
    symlink(&elsewhere, &index).unwrap();
    let mut kept = Vec::new();
    let mut archive = Archive::open(dir.path(), Indexes::Read).unwrap();
    archive
        .make_indexes(false, |_, what, _| {
            kept.push(what);
            Ok(())
        })
        .unwrap();
    assert_eq!(kept, [Kept::NotWritten, Kept::Open]);
}

#[test]
fn an_archive_goes_on_when_a_segment_is_compressed_or_goes() {
    let mut events = calls(5);
    events.push(Event::Rotate);
    events.extend(calls(5));
    events.push(Event::Rotate);
    events.extend(calls(5));
    let all = segments(&events);
    let dir = tempfile::tempdir().unwrap();
    for (number, bytes) in (1..).zip(&all) {
        fs::write(dir.path().join(segment::file_name(number)), bytes).unwrap();
    }
    let mut archive = Archive::open(dir.path(), Indexes::Keep).unwrap();
    let plain = |number| dir.path().join(segment::file_name(number));
    packed::pack(all[1].as_slice(), File::create(dir.path().join(segment::packed_name(2))).unwrap()).unwrap();
    fs::remove_file(plain(2)).unwrap();
    fs::remove_file(plain(1)).unwrap();
    assert_eq!(found(&mut archive, &Filter::default(), true).len(), 10);

    // Also between what the index says and the reading of it.
    let mut archive = Archive::open(dir.path(), Indexes::Keep).unwrap();
    let mut walk = Walk::new(&archive, Filter::default(), true);
    let batch = archive.next(&mut walk).unwrap().unwrap();
    packed::pack(all[2].as_slice(), File::create(dir.path().join(segment::packed_name(3))).unwrap()).unwrap();
    fs::remove_file(plain(3)).unwrap();
    assert_eq!(batch.hits.len(), 5);
    assert!(archive.read(&batch.hits[0], &Filter::default()).unwrap().is_some());
    let batch = archive.next(&mut walk).unwrap().unwrap();
    fs::remove_file(dir.path().join(segment::packed_name(2))).unwrap();
    assert_eq!(archive.read(&batch.hits[0], &Filter::default()).unwrap(), None, "it has gone");
}

#[test]
fn an_id_is_known_in_every_way_that_it_is_written() {
    let id = "01a210ed-2479-71f9-8e05-0f31b1b0c8cf";
    let whole = IdPrefix::parse(id).unwrap();
    assert_eq!(whole.whole().unwrap().to_string(), id);
    for same in [format!("urn:uuid:{id}"), id.to_uppercase(), id.replace('-', ""), format!(" {id}\n")] {
        assert_eq!(IdPrefix::parse(&same), Some(whole.clone()), "{same}");
    }
    assert_eq!(IdPrefix::parse("01a2").unwrap().whole(), None);
    for wrong in ["", "-", "01a2z", "urn:uuid:", "01a210ed-2479-71f9-8e05-0f31b1b0c8cf0", "é"] {
        assert_eq!(IdPrefix::parse(wrong), None, "{wrong}");
    }
}
