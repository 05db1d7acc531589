//! A journal of many segments, signed, compressed, with keys that hand over: whatever is done to it is found.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]
#![allow(dead_code, reason = "the helpers are shared with other tests")]

#[path = "support/scribe.rs"]
mod scribe;
mod support;

use std::fs::{self};
use std::io::Cursor;
use std::path::PathBuf;

use proptest::prelude::*;
use proxy_journal::check::{Witness, check};
use proxy_journal::proof::{self, NoProof, ProveError};
use proxy_journal::{ChainHash, Head, KeyChange, Proof, Record, Retired, SecretKey, Writer, segment};
use scribe::*;
use support::{allowed, at, stop};
use uuid::Uuid;

/// What happens, one after the other.
#[derive(Debug, Clone, Copy)]
enum Step {
    Record,
    Checkpoint,
    HandOver,
    Rotate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Record),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::HandOver),
        1 => Just(Step::Rotate),
    ];
    prop::collection::vec(step, 1..30)
}

fn written(steps: &[Step]) -> (Vec<Vec<Vec<u8>>>, Vec<String>) {
    let mut scribe = Scribe::new();
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Record => scribe.write(&stop(&format!("number {at}"))),
            Step::Checkpoint => scribe.checkpoint(),
            Step::HandOver => scribe.hand_over(),
            Step::Rotate => scribe.rotate(),
        }
    }
    scribe.checkpoint();
    scribe.segments()
}

/// The lines with hashes and places of their own from `from` on, as whoever may write the file can make them.
fn rechained(lines: &[Vec<u8>], from: usize) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = lines[..from].to_vec();
    let mut head = Head::GENESIS;
    for line in &out {
        let text = String::from_utf8(line.clone()).unwrap();
        let at = text.rfind(",\"hash\":\"").unwrap();
        head = Head { seq: head.seq + 1, hash: ChainHash::of(&text.as_bytes()[..at]) };
    }
    for line in &lines[from..] {
        let text = String::from_utf8(line.clone()).unwrap();
        let (body, time) = (
            &text[text.find("\",\"kind\"").unwrap() + 2..text.rfind(",\"hash\":\"").unwrap()],
            &text[text.find("\"time\":\"").unwrap() + 8..][..27],
        );
        let seq = head.seq + 1;
        let open = format!("{{\"v\":1,\"seq\":{seq},\"time\":\"{time}\",\"prev\":\"{}\",{body}", head.hash);
        head = Head { seq, hash: ChainHash::of(open.as_bytes()) };
        out.push(format!("{open},\"hash\":\"{}\"}}\n", head.hash).into_bytes());
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_whole_compressed_or_not_and_whatever_is_done_to_it_is_found(
        steps in steps(), pick in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(), bit in 0..8_u8,
        packs in any::<u64>(),
    ) {
        let (segments, notes) = written(&steps);
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let expected = expecting(&notes);
        put(dir, &segments);
        for number in 1..segments.len() {
            if packs >> (number % 64) & 1 == 1 {
                pack(dir, number);
            }
        }
        let report = look(dir, &expected);
        prop_assert!(report.is_whole(), "{report}");
        let total: usize = segments.iter().map(Vec::len).sum();
        prop_assert_eq!(report.records, u64::try_from(total).unwrap());

        // Any bit of any file, compressed ones and the hand-overs too.
        let files: Vec<PathBuf> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        let file = &files[pick.index(files.len())];
        let good = fs::read(file).unwrap();
        let place = other.index(good.len());
        let mut bad = good.clone();
        bad[place] ^= 1 << bit;
        fs::write(file, &bad).unwrap();
        let is_table = file.extension().is_some_and(|extension| extension == "zst")
            && zstd::stream::decode_all(bad.as_slice()).is_ok_and(|it| it == zstd::stream::decode_all(good.as_slice()).unwrap());
        let is_end_of_keys = file.ends_with("keys.jsonl") && place + 1 == good.len();
        match check(dir, &expected) {
            // What readers of zstd skip, and the name of nothing.
            Ok(found) => prop_assert!(!found.is_whole() || is_table || is_end_of_keys, "bit {bit} of byte {place} of {file:?}"),
            Err(_) => prop_assert!(!is_table),
        }
        fs::write(file, &good).unwrap();

        // Records removed, repeated, moved.
        for number in 1..=segments.len() {
            let _ = fs::remove_file(dir.join(segment::packed_name(u32::try_from(number).unwrap())));
        }
        let which = pick.index(segments.len());
        let at = other.index(segments[which].len());
        // (The last checkpoint is not over itself: nobody can know of it.)
        let is_last = which + 1 == segments.len() && at + 1 == segments[which].len();
        if !is_last {
            let mut changed = segments.clone();
            changed[which].remove(at);
            put(dir, &changed);
            prop_assert!(!look(dir, &expected).is_whole(), "removed {at} of {which}");
        }
        let mut changed = segments.clone();
        let again = changed[which][at].clone();
        changed[which].insert(at, again);
        put(dir, &changed);
        prop_assert!(!look(dir, &expected).is_whole(), "repeated {at} of {which}");
        if at > 0 {
            let mut changed = segments.clone();
            changed[which].swap(at, at - 1);
            put(dir, &changed);
            prop_assert!(!look(dir, &expected).is_whole(), "moved {at} of {which}");
        }

        // Segments swapped, removed.
        let second = other.index(segments.len());
        if second != which {
            let mut changed = segments.clone();
            changed.swap(which, second);
            put(dir, &changed);
            prop_assert!(!look(dir, &expected).is_whole(), "segments {which} and {second}");
        }
        put(dir, &segments);
        fs::remove_file(path(dir, which + 1)).unwrap();
        match check(dir, &expected) {
            Ok(found) => prop_assert!(!found.is_whole(), "segment {which} removed"),
            Err(_) => prop_assert_eq!(segments.len(), 1),
        }

        // The tail cut off, anywhere before the newest checkpoint of the witness.
        let mut changed = segments.clone();
        let last = changed.len() - 1;
        // The last checkpoint is not over itself.
        let keep = other.index(changed[last].len().max(2) - 1);
        changed[last].truncate(keep);
        put(dir, &changed);
        prop_assert!(!look(dir, &expected).is_whole(), "cut to {keep}");
    }

    #[test]
    fn a_record_forged_with_right_hashes_is_found_by_the_next_checkpoint(
        steps in steps(), pick in any::<prop::sample::Index>(),
    ) {
        let steps: Vec<Step> = steps.into_iter().filter(|step| !matches!(step, Step::Rotate)).collect();
        let (segments, notes) = written(&steps);
        let lines = &segments[0];
        let at = pick.index(lines.len());
        prop_assume!(contains(&lines[at], "number "));
        let mut forged = lines.clone();
        forged[at] = String::from_utf8(forged[at].clone()).unwrap().replace("number ", "nothing ").into_bytes();
        let forged = rechained(&forged, at);
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &[forged]);
        // Nothing is kept elsewhere: the signatures alone.
        let found = look(dir.path(), &Witness::default());
        prop_assert!(!found.is_whole(), "{found}");

        // Without any signature it is a chain, which the key of the auditor and the notes of a witness do not take.
        let bare: Vec<Vec<u8>> = lines
            .iter()
            .filter(|line| !contains(line, "\"kind\":\"checkpoint\"") && !contains(line, "\"kind\":\"key\""))
            .cloned()
            .collect();
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &[rechained(&bare, 0)]);
        let found = look(dir.path(), &Witness::default());
        prop_assert!(found.is_whole() && found.to_string().contains("It is not signed"), "{found}");
        let key = expecting(&notes).key;
        let pinned = Witness { key, ..Witness::default() };
        prop_assert!(!look(dir.path(), &pinned).is_whole());
        let notes = expecting(&notes).notes;
        let witnessed = Witness { notes, ..Witness::default() };
        prop_assert!(!look(dir.path(), &witnessed).is_whole());
    }

    #[test]
    fn a_proof_proves_its_call_alone_and_no_change_of_it_does(
        steps in steps(), rest in steps(), place in any::<prop::sample::Index>(),
    ) {
        let id = Uuid::from_u128(77);
        let mut scribe = Scribe::new();
        let run = |scribe: &mut Scribe, steps: &[Step]| {
            for step in steps {
                match step {
                    Step::Record => scribe.write(&stop("x")),
                    Step::Checkpoint => scribe.checkpoint(),
                    Step::HandOver => scribe.hand_over(),
                    Step::Rotate => scribe.rotate(),
                }
            }
        };
        run(&mut scribe, &steps);
        scribe.write(&allowed(id));
        run(&mut scribe, &rest);
        let end = proxy_journal::Outcome { id, status: Some(200), ..Default::default() };
        scribe.write(&Record::Outcome(end));
        scribe.checkpoint();
        let (segments, _) = scribe.segments();
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &segments);
        let text = proof::prove(dir.path(), id).unwrap().to_text();
        drop(dir);
        let key = SecretKey::from_bytes(&[1; 32]).public();
        let shown = Proof::parse(&text).unwrap().verify(Some(key)).unwrap();
        prop_assert_eq!((shown.id, shown.entries.len(), shown.trusted), (id, 2, true));
        let stranger = SecretKey::from_bytes(&[200; 32]).public();
        let refused = Proof::parse(&text).unwrap().verify(Some(stranger));
        prop_assert!(matches!(refused, Err(NoProof::Stranger { .. })), "{refused:?}");

        // Every character of what is proved, of the paths and of the notes counts.
        let at = place.index(text.len());
        let mut changed = text.clone().into_bytes();
        changed[at] = if changed[at] == b'4' { b'5' } else { b'4' };
        if let Ok(changed) = String::from_utf8(changed)
            && let Ok(proof) = Proof::parse(&changed)
            && let Ok(now) = proof.verify(Some(key))
        {
            prop_assert_eq!(now.entries, shown.entries, "byte {}", at);
        }
    }
}

#[test]
fn what_was_retired_is_missed_only_where_a_record_says_so() {
    let mut scribe = Scribe::new();
    scribe.write(&stop("old"));
    scribe.rotate();
    scribe.write(&stop("less old"));
    scribe.rotate();
    scribe.write(&stop("new"));
    let before = scribe.writer.head();
    let (segments, notes) = {
        let last = |scribe: &Scribe, at: usize| support::lines(&scribe.closed[at]).last().unwrap().clone();
        let entry = proxy_journal::Entry::parse(last(&scribe, 0).strip_suffix(b"\n").unwrap()).unwrap();
        let hash = entry.text[entry.text.len() - 66..entry.text.len() - 2].parse().unwrap();
        let retired = Retired { segment: 1, through: entry.seq, head: hash, reason: "keep".into() };
        scribe.write(&Record::Retired(retired));
        scribe.checkpoint();
        scribe.segments()
    };
    assert!(before.seq > 5);
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &segments);
    let expected = expecting(&notes);
    assert!(look(dir.path(), &expected).is_whole(), "declared, and still there");
    fs::remove_file(path(dir.path(), 1)).unwrap();
    let report = look(dir.path(), &expected);
    assert!(report.is_whole() && report.to_string().contains("records before it were retired"), "{report}");
    fs::remove_file(path(dir.path(), 2)).unwrap();
    let report = look(dir.path(), &expected);
    assert!(
        !report.is_whole() && report.to_string().contains("nothing says that they were retired"),
        "{report}"
    );
    // Of one file alone it is not asked.
    let report = check(&path(dir.path(), 3), &Witness::default()).unwrap();
    assert!(report.is_whole() && report.to_string().contains("not looked at here"), "{report}");
    let cut = segments[2][1..].concat();
    fs::write(path(dir.path(), 3), cut).unwrap();
    assert!(!check(&path(dir.path(), 3), &Witness::default()).unwrap().is_whole(), "its beginning cut off");
}

#[test]
fn a_key_that_takes_over_without_the_word_of_the_one_before_is_found() {
    let mut scribe = Scribe::new();
    scribe.write(&stop("x"));
    let usurper = SecretKey::from_bytes(&[99; 32]);
    // It names none before, or signs for it itself.
    let mut change = KeyChange::new(JOURNAL, &usurper, None, scribe.writer.head(), "mine");
    let first = Record::Key(Box::new(change.clone()));
    change.former = Some(scribe.key.public());
    change.by_former = Some(change.by_key);
    for record in [first, Record::Key(Box::new(change))] {
        let mut bytes = scribe.writer.segment().get_ref().clone();
        let mut writer = Writer::new(Cursor::new(Vec::new()));
        for line in support::lines(&bytes) {
            let entry = proxy_journal::Entry::parse(line.strip_suffix(b"\n").unwrap()).unwrap();
            let proxy_journal::Content::Known(record) = entry.content else { panic!() };
            writer.append(&record, entry.time).unwrap();
        }
        assert_eq!(writer.segment().get_ref(), &bytes);
        writer.append(&record, at(100)).unwrap();
        bytes = writer.into_segment().into_inner();
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path(), 1), bytes).unwrap();
        let report = look(dir.path(), &Witness::default());
        assert!(report.to_string().contains("did not sign"), "{report}");
    }
}

#[test]
fn a_call_that_is_not_signed_yet_or_not_there_has_no_proof() {
    let mut scribe = Scribe::new();
    scribe.write(&allowed(Uuid::from_u128(5)));
    let (segments, _) = scribe.segments();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &segments);
    assert!(matches!(proof::prove(dir.path(), Uuid::from_u128(5)), Err(ProveError::Unsigned(2))));
    assert!(matches!(proof::prove(dir.path(), Uuid::from_u128(6)), Err(ProveError::Absent(_))));
    assert_eq!(Proof::parse("{}"), Err(NoProof::Shape));
}
