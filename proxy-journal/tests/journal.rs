//! The chain against everything that can happen to a file: what is written verifies, what was touched does not.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::io::{BufReader, Cursor};

use proptest::prelude::*;
use proxy_journal::check::{Witness, check};
use proxy_journal::human::Tail;
use proxy_journal::{
    ChainHash, Content, Entry, Fault, Head, Item, Outcome, Reader, Record, RecoverError, Stop, Timestamp,
    Verification, Verifier, Writer, recover,
};
use support::{allowed, at, journal, lines, records, stop};
use uuid::Uuid;

fn verify(bytes: &[u8]) -> Verification {
    Verifier::new().run(bytes).unwrap()
}

/// Gives lines hashes and places of their own, as somebody would who wants to hide a change.
fn rechain(bodies: &[&str]) -> Vec<u8> {
    let mut head = Head::GENESIS;
    let mut out = Vec::new();
    for body in bodies {
        let seq = head.seq + 1;
        let line = format!(
            "{{\"v\":1,\"seq\":{seq},\"time\":\"2026-11-24T20:00:00.123456Z\",\"prev\":\"{}\",{body}",
            head.hash
        );
        head = Head { seq, hash: ChainHash::of(line.as_bytes()) };
        out.extend_from_slice(format!("{line},\"hash\":\"{}\"}}\n", head.hash).as_bytes());
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_verifies_and_reads_back(records in records(8)) {
        let bytes = journal(&records);
        let found = verify(&bytes);
        prop_assert!(found.is_whole(), "{found:?}");
        prop_assert_eq!(found.records, u64::try_from(records.len()).unwrap());
        let read: Vec<_> = Reader::new(BufReader::new(&bytes[..])).map(|item| match item.unwrap() {
            Item::Entry(entry) => entry.content,
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(read, records.into_iter().map(Content::Known).collect::<Vec<_>>());
    }

    #[test]
    fn one_flipped_bit_anywhere_is_found(records in records(5), place in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut bytes = journal(&records);
        prop_assume!(!bytes.is_empty());
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let found = verify(&bytes);
        prop_assert!(!found.is_whole(), "bit {bit} of byte {place}");
        let last_newline = place + 1 == bytes.len();
        prop_assert_eq!(found.first_break.is_none(), last_newline, "only a lost last newline is a torn tail");
    }

    #[test]
    fn a_removed_repeated_moved_or_foreign_line_is_found(
        records in records(6), one in any::<prop::sample::Index>(), two in any::<prop::sample::Index>(),
    ) {
        let bytes = journal(&records);
        let lines = lines(&bytes);
        prop_assume!(lines.len() >= 2);
        let (one, two) = (one.index(lines.len()), two.index(lines.len()));

        if one + 1 < lines.len() {
            let mut removed = lines.clone();
            removed.remove(one);
            prop_assert!(!verify(&removed.concat()).is_whole(), "removed {one}");
        }
        let mut repeated = lines.clone();
        repeated.insert(two, lines[one].clone());
        prop_assert!(!verify(&repeated.concat()).is_whole(), "repeated {one} at {two}");
        if one != two {
            let mut swapped = lines.clone();
            swapped.swap(one, two);
            prop_assert!(!verify(&swapped.concat()).is_whole(), "swapped {one} and {two}");
        }
        let other = support::lines(&journal(&[stop("elsewhere"), stop("there")]));
        let mut inserted = lines.clone();
        inserted.insert(one, other[two % 2].clone());
        prop_assert!(!verify(&inserted.concat()).is_whole(), "a line of another journal at {one}");
        let mut replaced = lines.clone();
        replaced[one] = rechain(&["\"kind\":\"stop\",\"reason\":\"replaced\""]);
        prop_assume!(replaced[one] != lines[one]);
        prop_assert!(one + 1 == lines.len() && one == 0 || !verify(&replaced.concat()).is_whole(), "replaced {one}");
    }

    #[test]
    fn bytes_put_in_or_taken_out_are_found(
        records in records(4), place in any::<prop::sample::Index>(), extra in prop::collection::vec(any::<u8>(), 1..6),
    ) {
        let bytes = journal(&records);
        prop_assume!(!bytes.is_empty());
        let place = place.index(bytes.len());
        let mut longer = bytes.clone();
        longer.splice(place..place, extra.iter().copied());
        prop_assert!(!verify(&longer).is_whole(), "{extra:?} at {place}");
        let mut shorter = bytes.clone();
        shorter.remove(place);
        prop_assert!(!verify(&shorter).is_whole(), "without byte {place}");
    }

    #[test]
    fn a_cut_is_a_torn_tail_unless_it_falls_between_lines(records in records(5), place in any::<prop::sample::Index>()) {
        let bytes = journal(&records);
        let cut = place.index(bytes.len() + 1);
        let found = verify(&bytes[..cut]);
        prop_assert!(found.first_break.is_none());
        let rest = bytes[..cut].rsplit(|byte| *byte == b'\n').next().unwrap().len();
        prop_assert_eq!(found.torn_tail, (rest > 0).then(|| u64::try_from(rest).unwrap()));
    }

    #[test]
    fn no_record_puts_a_control_character_on_the_screen(records in records(6)) {
        let bytes = journal(&records);
        prop_assert!(!bytes.iter().any(|byte| *byte != b'\n' && (*byte < b' ' || *byte == 0x7f)));
        let mut tail = Tail::new(false);
        for line in lines(&bytes) {
            let entry = Entry::parse(line.strip_suffix(b"\n").unwrap()).unwrap();
            if let Some(shown) = tail.show(&entry) {
                prop_assert!(!shown.contains(proxy_journal::text::is_hostile), "{shown:?}");
            }
        }
    }

    #[test]
    fn the_verifier_and_the_reader_take_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let found = verify(&bytes);
        prop_assert_eq!(found.is_whole(), bytes.is_empty());
        prop_assert!(Reader::new(BufReader::new(&bytes[..])).all(|item| item.is_ok()));
    }
}

#[test]
fn every_prefix_of_a_journal_recovers_into_a_chain_that_goes_on() {
    let open = allowed(Uuid::from_u128(1));
    let closed = allowed(Uuid::from_u128(2));
    let end = Record::Outcome(Outcome { id: Uuid::from_u128(2), status: Some(200), ..Outcome::default() });
    let bytes = journal(&[stop("zero"), open, closed, end]);
    for cut in 0..=bytes.len() {
        let mut file = Cursor::new(bytes[..cut].to_vec());
        let found = recover(&mut file, 1, None).unwrap();
        let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(found.head.seq, u64::try_from(whole).unwrap(), "cut at {cut}");
        assert_eq!(found.len + found.torn_bytes, u64::try_from(cut).unwrap());
        let expected: &[u128] = [&[][..], &[], &[1], &[1, 2], &[1]][whole];
        assert_eq!(
            found.open,
            expected.iter().map(|id| Uuid::from_u128(*id)).collect::<Vec<_>>(),
            "cut at {cut}"
        );
        let mut writer = Writer::resume(file, &found);
        writer.append(&stop("after"), at(9)).unwrap();
        let after = verify(writer.into_segment().get_ref());
        assert!(after.is_whole(), "cut at {cut}: {after:?}");
        assert_eq!(after.records, found.head.seq + 1);
    }
}

#[test]
fn zeros_after_the_last_line_as_a_power_loss_leaves_them_are_cut_off() {
    let mut bytes = journal(&[stop("one")]);
    let whole = bytes.len();
    bytes.extend(vec![0; 3 << 20]);
    let mut file = Cursor::new(bytes);
    assert_eq!(recover(&mut file, 1, None).unwrap().torn_bytes, 3 << 20);
    assert_eq!(file.get_ref().len(), whole);
}

#[test]
fn a_journal_that_was_changed_is_not_continued_and_not_touched() {
    let mut bytes = journal(&[stop("one"), stop("two"), stop("three")]);
    let place = bytes.len() / 2;
    bytes[place] ^= 1;
    bytes.extend_from_slice(b"{\"torn");
    let mut file = Cursor::new(bytes.clone());
    let error = recover(&mut file, 1, None).unwrap_err();
    assert!(matches!(error, RecoverError::Broken(place) if place.line == 2), "{error}");
    assert!(error.to_string().contains("line 2 (byte "), "{error}");
    assert_eq!(*file.get_ref(), bytes);
}

#[test]
fn the_first_break_names_its_place() {
    let bytes = journal(&[stop("one"), stop("two"), stop("three")]);
    let lines = lines(&bytes);
    let found = verify(&[lines[0].clone(), lines[2].clone()].concat()).first_break.unwrap();
    assert_eq!((found.seq, found.line), (2, 2));
    assert_eq!(found.byte_offset, u64::try_from(lines[0].len()).unwrap());
    assert_eq!(found.what, Fault::Seq { expected: 2, found: 3 });
    assert!(found.to_string().contains("removed, inserted, repeated or moved"), "{found}");
}

#[test]
fn a_record_replaced_with_hash_and_number_right_breaks_the_link_to_the_next() {
    let bytes = journal(&[stop("one"), stop("two")]);
    let lines = lines(&bytes);
    let forged = rechain(&["\"kind\":\"stop\",\"reason\":\"uno\""]);
    let found = verify(&[forged, lines[1].clone()].concat()).first_break.unwrap();
    assert_eq!((found.line, found.what), (2, Fault::Prev));
}

#[test]
fn a_chained_line_that_is_not_json_or_of_another_version_is_refused() {
    assert_eq!(verify(&rechain(&["\"kind\":oops"])).first_break.unwrap().what, Fault::Json);
    let newer = String::from_utf8(journal(&[stop("x")])).unwrap().replace("{\"v\":1,", "{\"v\":2,");
    assert_eq!(verify(newer.as_bytes()).first_break.unwrap().what, Fault::Version(2));
    let windows = String::from_utf8(journal(&[stop("x")])).unwrap().replace('\n', "\r\n");
    assert!(matches!(verify(windows.as_bytes()).first_break.unwrap().what, Fault::Shape(_)));
}

#[test]
fn a_kind_of_a_later_version_verifies_recovers_and_is_shown() {
    let bytes = rechain(&[
        "\"kind\":\"weather\",\"id\":7,\"note\":\"a\\u001bb\"",
        "\"kind\":\"stop\",\"reason\":\"x\",\"later_field\":true",
        "\"kind\":\"decision\",\"id\":\"00000000-0000-0000-0000-000000000001\",\"verdict\":\"ask\"",
    ]);
    assert!(verify(&bytes).is_whole());
    assert!(recover(&mut Cursor::new(bytes.clone()), 1, None).unwrap().open.is_empty());
    let entries: Vec<_> =
        lines(&bytes).iter().map(|line| Entry::parse(line.strip_suffix(b"\n").unwrap()).unwrap()).collect();
    assert_eq!(entries[1].content, Content::Known(Record::Stop(Stop { reason: "x".into() })));
    let mut tail = Tail::new(false);
    let shown = tail.show(&entries[0]).unwrap();
    assert_eq!(shown, "2026-11-24T20:00:00.123Z weather {\"id\":7,\"note\":\"a\\u001bb\"}");
    assert!(tail.show(&entries[2]).unwrap().contains("\"verdict\":\"ask\""));
}

#[test]
fn whole_records_cut_off_at_the_end_are_found_only_with_a_witness() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal-00000001.jsonl");
    let bytes = journal(&[stop("one"), stop("two"), stop("three")]);
    std::fs::write(&path, &bytes).unwrap();
    let head = check(&path, &Witness::default()).unwrap().head;
    let with = |head, seq| check(dir.path(), &Witness { head, seq, ..Witness::default() }).unwrap();
    assert!(with(Some(head.hash), Some(3)).is_whole());
    assert!(!with(Some(head.hash), Some(2)).is_whole());

    std::fs::write(&path, lines(&bytes)[..2].concat()).unwrap();
    let blind = with(None, None);
    assert!(blind.is_whole());
    assert!(blind.to_string().contains("--expect-head"), "{blind}");
    let seeing = with(Some(head.hash), None);
    assert!(!seeing.is_whole() && seeing.to_string().contains("the end was cut off"), "{seeing}");
    assert!(!with(None, Some(3)).is_whole());
    assert!(with(None, Some(2)).is_whole());
}

#[test]
fn the_chain_goes_on_over_segments_and_a_half_line_between_them_is_a_break() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) =
        (dir.path().join("journal-00000001.jsonl"), dir.path().join("journal-00000002.jsonl"));
    let [one, two] = support::two_segments(&[stop("one"), stop("two")], &[stop("three")]);
    std::fs::write(&first, &one).unwrap();
    std::fs::write(&second, &two).unwrap();
    let report = check(dir.path(), &Witness::default()).unwrap();
    assert!(report.is_whole() && report.records == 4, "{report}");

    std::fs::write(&first, [one, b"{\"v".to_vec()].concat()).unwrap();
    let report = check(dir.path(), &Witness::default()).unwrap();
    let place = report.first_break.unwrap();
    assert_eq!((report.file.clone(), place.line, place.what), (first, 3, Fault::TornInside(3)), "{report}");
}

#[test]
fn a_call_is_one_line_of_the_tail() {
    let id = Uuid::from_u128(5);
    let outcome = Outcome { id, status: Some(200), duration_us: 12_345, ..Outcome::default() };
    let bytes = journal(&[allowed(id), Record::Outcome(outcome), support::denied(Uuid::from_u128(6))]);
    let mut tail = Tail::new(false);
    let shown: Vec<_> = lines(&bytes)
        .iter()
        .filter_map(|line| tail.show(&Entry::parse(line.strip_suffix(b"\n").unwrap()).unwrap()))
        .collect();
    assert_eq!(
        shown,
        [
            "2026-11-24T20:00:01.000Z invoice-bot    allow    GET    api.stripe.com/v1/invoices?…                 200  12.3ms /opt/bots/invoice-bot[4242]",
            "2026-11-24T20:00:02.000Z unknown        deny     POST   api.stripe.com/v1/\\u{1b}[2J?…                  -       - no identity matches this process /opt/bots/invoice-bot[4242]",
        ]
    );
    assert_eq!(Timestamp::parse("2026-11-24T20:00:00.000000Z"), Some(at(0)));
}

#[test]
fn a_journal_from_before_containers_were_recorded_verifies_and_is_read_and_written_as_it_was() {
    let body = r#""kind":"decision","id":"01900000-0000-7000-8000-000000000001","workload":{"pid":4242,"start_time_ns":7,"exe":"/opt/bot","exe_dev":1,"exe_ino":2,"uid":998,"gid":998,"cgroup":9,"netns":5,"comm":"bot"},"dst":"203.0.113.10:443","has_query":false,"verdict":"deny","reason":"no","generation":1"#;
    let bytes = rechain(&[body]);
    assert_eq!((verify(&bytes).first_break, verify(&bytes).records), (None, 1));
    let items: Vec<Item> = Reader::new(BufReader::new(&*bytes)).map(Result::unwrap).collect();
    let [Item::Entry(entry)] = items.as_slice() else { panic!("{items:?}") };
    let Content::Known(record @ Record::Decision(decision)) = &entry.content else { panic!("{entry:?}") };
    assert_eq!((&decision.workload.container, decision.workload.ancestors.len()), (&None, 0));
    let again = journal(std::slice::from_ref(record));
    assert!(String::from_utf8(again).unwrap().contains(body), "nothing is added to what has none of it");
}

#[test]
fn the_auditors_verifier_tells_whole_broken_and_unreadable_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal-00000001.jsonl");
    let mut bytes = journal(&[stop("one"), stop("two")]);
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_vouchsafe-verify"))
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let dir = dir.path().to_str().unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let (code, said) = run(&[dir]);
    assert!(code == 0 && said.contains("whole, 2 records, head "), "{said}");
    bytes[20] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (code, said) = run(&[dir]);
    assert!(code == 1 && said.contains("BROKEN at line 1 (byte 0"), "{said}");
    assert_eq!(run(&["/nonexistent/journal"]).0, 2);
    assert_eq!(run(&[]).0, 2);
    assert_eq!(run(&["--expect-head", "12", dir]).0, 2);
}
