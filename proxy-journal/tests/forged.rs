//! What somebody makes up who may write the files of a journal, piece by piece: keys, checkpoints, hand-overs, proofs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]
#![allow(dead_code, reason = "the helpers are shared with other tests")]

#[path = "support/scribe.rs"]
mod scribe;
mod support;

use std::fs::{self};
use std::io::Cursor;
use std::path::Path;

use proxy_journal::check::{Witness, check};
use proxy_journal::proof::{self, NoProof};
use proxy_journal::{
    ChainHash, Checkpoint, KeyChange, Prepared, Proof, Record, Retired, SecretKey, SegmentStart, SignedNote,
    Writer,
};
use scribe::*;
use support::{allowed, stop};
use uuid::Uuid;

#[test]
fn a_checkpoint_that_is_not_about_the_records_before_it_is_found_whoever_signed_it() {
    let wrong: [fn(&mut proxy_journal::Note); 6] = [
        |_| {},
        |note| note.root = ChainHash::of(b"another"),
        |note| note.head = ChainHash::of(b"another"),
        |note| note.size -= 1,
        |note| note.first += 1,
        |note| note.segment = 2,
    ];
    for (at, change) in wrong.iter().enumerate() {
        let mut scribe = Scribe::new();
        scribe.write(&stop("x"));
        let now = scribe.now();
        let mut note = scribe.writer.note(JOURNAL, now).unwrap();
        change(&mut note);
        let checkpoint = Checkpoint::new(&note, &scribe.key);
        scribe.writer.append(&Record::Checkpoint(Box::new(checkpoint)), now).unwrap();
        let (segments, _) = scribe.segments();
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), &segments);
        let report = look(dir.path(), &Witness::default());
        assert_eq!(report.is_whole(), at == 0, "{at}: {report}");
        assert_eq!(report.to_string().contains("not about the records before it"), at > 0, "{report}");
    }
}

#[test]
fn a_checkpoint_made_anew_without_the_key_is_found() {
    let mut scribe = Scribe::new();
    scribe.write(&stop("x"));
    let now = scribe.now();
    let note = scribe.writer.note(JOURNAL, now).unwrap();
    // All that it says is right, also whose it should be.
    let mut checkpoint = Checkpoint::new(&note, &SecretKey::from_bytes(&[99; 32]));
    checkpoint.key = scribe.key.public();
    scribe.writer.append(&Record::Checkpoint(Box::new(checkpoint)), now).unwrap();
    let (segments, _) = scribe.segments();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &segments);
    let report = look(dir.path(), &Witness::default());
    assert!(report.to_string().contains("not signed by the key that it names"), "{report}");
}

#[test]
fn a_segment_that_nobody_signed_must_begin_with_its_first_record_and_have_its_own_number() {
    let [one, two] = support::two_segments(&[stop("one")], &[stop("two"), stop("three")]);
    let dir = tempfile::tempdir().unwrap();
    fs::write(path(dir.path(), 1), one).unwrap();
    fs::write(path(dir.path(), 2), &two).unwrap();
    assert!(look(dir.path(), &Witness::default()).is_whole());
    fs::rename(path(dir.path(), 2), path(dir.path(), 5)).unwrap();
    let report = look(dir.path(), &Witness::default());
    assert!(report.to_string().contains("this is segment 2, and not 5"), "{report}");
    fs::remove_file(path(dir.path(), 1)).unwrap();
    fs::remove_file(path(dir.path(), 5)).unwrap();
    let cut = support::lines(&two)[1..].concat();
    fs::write(path(dir.path(), 2), cut).unwrap();
    let report = check(&path(dir.path(), 2), &Witness::default()).unwrap();
    assert!(report.to_string().contains("its beginning was cut off"), "{report}");
}

#[test]
fn a_segment_whose_end_is_not_sealed_and_a_checkpoint_of_a_key_whose_turn_is_over_are_found() {
    let mut scribe = Scribe::new();
    scribe.write(&stop("x"));
    let start =
        SegmentStart { journal: Some(JOURNAL), key: Some(scribe.key.public()), ..support::segment_start(2) };
    let first = Prepared::new(&Record::Segment(start), scribe.now()).unwrap();
    let old = scribe.writer.rotate(Cursor::new(Vec::new()), &first).unwrap();
    scribe.closed.push(old.into_inner());
    scribe.checkpoint();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &scribe.segments().0);
    let report = look(dir.path(), &Witness::default());
    assert!(report.to_string().contains("does not end with a checkpoint"), "{report}");

    let mut scribe = Scribe::new();
    let former = SecretKey::from_bytes(&[1; 32]);
    scribe.hand_over();
    scribe.key = former;
    scribe.checkpoint();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &scribe.segments().0);
    let report = look(dir.path(), &Witness::default());
    assert!(report.to_string().contains("and it is the turn of"), "{report}");
}

#[test]
fn a_record_that_retires_another_end_than_the_one_before_what_is_there_excuses_nothing() {
    let mut scribe = Scribe::new();
    scribe.write(&stop("old"));
    scribe.rotate();
    let entry = support::lines(&scribe.closed[0]).len();
    let through = u64::try_from(entry).unwrap();
    let head = ChainHash::of(b"another");
    scribe.write(&Record::Retired(Retired { segment: 1, through, head, reason: "keep".into() }));
    scribe.checkpoint();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &scribe.segments().0);
    fs::remove_file(path(dir.path(), 1)).unwrap();
    let report = look(dir.path(), &Witness::default());
    assert!(report.to_string().contains("nothing says that they were retired"), "{report}");
}

#[test]
fn a_proof_of_a_record_that_never_was_leads_to_no_root() {
    let id = Uuid::from_u128(77);
    let mut scribe = Scribe::new();
    scribe.write(&allowed(id));
    scribe.write(&stop("x"));
    scribe.checkpoint();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &scribe.segments().0);
    let text = proof::prove(dir.path(), id).unwrap().to_text();
    let mut forged: serde_json::Value = serde_json::from_str(&text).unwrap();
    let line = forged["records"][0]["line"].as_str().unwrap().replace("/v1/invoices\"", "/v1/payroll\"");
    let hashed = &line[..line.rfind(",\"hash\":\"").unwrap()];
    let line = format!("{hashed},\"hash\":\"{}\"}}", ChainHash::of(hashed.as_bytes()));
    assert!(line.contains("payroll"));
    forged["records"][0]["line"] = line.into();
    let refused = Proof::parse(&forged.to_string()).unwrap().verify(None);
    assert_eq!(refused, Err(NoProof::Elsewhere(2)));
}

/// A journal of one call, with a checkpoint, by this key.
fn of_one_call(key: u8, id: u128) -> Scribe {
    let mut scribe = Scribe { key: SecretKey::from_bytes(&[key; 32]), ..Scribe::new() };
    scribe.writer = Writer::new(Cursor::new(Vec::new()));
    let change = KeyChange::new(JOURNAL, &scribe.key, None, scribe.writer.head(), "it begins");
    scribe.write(&Record::Key(Box::new(change)));
    scribe.write(&allowed(Uuid::from_u128(id)));
    scribe.checkpoint();
    scribe
}

#[test]
fn what_another_signed_is_no_proof_and_no_checkpoint_of_this_journal() {
    let (mine, theirs) = (of_one_call(1, 77), of_one_call(99, 77));
    let (notes, foreign) = (mine.notes.clone(), theirs.notes.clone());
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(dir.path(), &mine.segments().0);
    put(elsewhere.path(), &theirs.segments().0);
    let witness = |notes: &[String]| {
        let notes = SignedNote::parse_all(&notes.concat()).unwrap();
        look(dir.path(), &Witness { notes, ..Witness::default() })
    };
    assert!(witness(&notes).is_whole());
    let report = witness(&foreign);
    assert!(report.to_string().contains("not signed by a key of this journal"), "{report}");
    let stranger = Witness { key: Some(SecretKey::from_bytes(&[99; 32]).public()), ..Witness::default() };
    let report = look(dir.path(), &stranger);
    assert!(report.to_string().contains("did not hand over"), "{report}");

    // All of theirs, under the keys of this one.
    let text = |dir: &Path| proof::prove(dir, Uuid::from_u128(77)).unwrap().to_text();
    let (good, bad) = (text(dir.path()), text(elsewhere.path()));
    let mut forged: serde_json::Value = serde_json::from_str(&bad).unwrap();
    forged["keys"] = serde_json::from_str::<serde_json::Value>(&good).unwrap()["keys"].clone();
    let refused = Proof::parse(&forged.to_string()).unwrap().verify(None);
    assert_eq!(refused, Err(NoProof::Unsigned(2)));
    // Of two calls nothing is said as of one.
    let other = of_one_call(1, 78);
    let third = tempfile::tempdir().unwrap();
    put(third.path(), &other.segments().0);
    let more = proof::prove(third.path(), Uuid::from_u128(78)).unwrap().to_text();
    let mut mixed: serde_json::Value = serde_json::from_str(&good).unwrap();
    let more: serde_json::Value = serde_json::from_str(&more).unwrap();
    mixed["records"].as_array_mut().unwrap().push(more["records"][0].clone());
    assert_eq!(Proof::parse(&mixed.to_string()).unwrap().verify(None), Err(NoProof::Mixed));
}

#[test]
fn hand_overs_of_two_journals_are_those_of_none() {
    let lines = [1, 99].map(|key| support::lines(of_one_call(key, 77).writer.segment().get_ref())[0].clone());
    let parsed = |text: &[u8]| proxy_journal::Keys::parse(text);
    assert!(lines.iter().all(|line| parsed(line).is_ok()));
    assert!(parsed(&lines.concat()).is_err());
}

#[test]
fn a_journal_written_anew_by_who_has_the_key_is_not_what_the_witness_has_seen() {
    let (mine, again) = (of_one_call(1, 77), of_one_call(1, 78));
    let notes = SignedNote::parse_all(&mine.notes.concat()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &again.segments().0);
    assert!(look(dir.path(), &Witness::default()).is_whole());
    let report = look(dir.path(), &Witness { notes, ..Witness::default() });
    assert!(report.to_string().contains("it was replaced"), "{report}");
}

#[test]
fn a_segment_of_another_past_does_not_go_on_after_this_one() {
    let mut pasts = [77, 78].map(|id| {
        let mut scribe = of_one_call(1, id);
        scribe.rotate();
        scribe.checkpoint();
        scribe.segments().0
    });
    pasts[0][1] = pasts[1][1].clone();
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &pasts[0]);
    let report = look(dir.path(), &Witness::default());
    assert!(report.to_string().contains("does not continue the one before it"), "{report}");
}

#[test]
fn a_hand_over_must_be_signed_by_the_key_that_it_names_as_the_former() {
    let mut scribe = Scribe::new();
    let (former, usurper) = (scribe.key.public(), SecretKey::from_bytes(&[99; 32]));
    let head = scribe.writer.head();
    let text = format!(
        "vouchsafe journal key\njournal {JOURNAL}\nkey {}\nformer {former}\nafter {} {}\n",
        usurper.public(),
        head.seq,
        head.hash
    );
    let signature = usurper.sign(text.as_bytes());
    let mut change = KeyChange::new(JOURNAL, &usurper, Some(&usurper), head, "mine");
    (change.former, change.by_former, change.by_key) = (Some(former), Some(signature), signature);
    scribe.write(&Record::Key(Box::new(change)));
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &scribe.segments().0);
    let line = fs::read(dir.path().join("keys.jsonl")).unwrap();
    assert!(proxy_journal::Keys::parse(&line).is_err());
    fs::write(dir.path().join("keys.jsonl"), "").unwrap();
    let report = look(dir.path(), &Witness::default());
    assert!(report.to_string().contains("did not sign"), "{report}");
}
