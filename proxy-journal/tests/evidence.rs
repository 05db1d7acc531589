//! A journal of many segments, signed, compressed, with keys that hand over: whatever is done to it is found.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]
#![allow(dead_code, reason = "the helpers are shared with other tests")]

mod support;

use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proxy_journal::check::{Report, Witness, check};
use proxy_journal::proof::{self, NoProof, ProveError};
use proxy_journal::{
    ChainHash, Checkpoint, Head, KeyChange, Prepared, Proof, Record, Retired, SecretKey, SegmentStart,
    SignedNote, Source, Timestamp, Writer, packed, segment,
};
use support::{allowed, at, stop};
use uuid::Uuid;

const JOURNAL: Uuid = Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001);

/// Writes a journal as the daemon does.
struct Scribe {
    writer: Writer<Cursor<Vec<u8>>>,
    key: SecretKey,
    turns: u8,
    closed: Vec<Vec<u8>>,
    notes: Vec<String>,
    seconds: u64,
}

impl Scribe {
    fn new() -> Scribe {
        let key = SecretKey::from_bytes(&[1; 32]);
        let mut scribe = Scribe {
            writer: Writer::new(Cursor::new(Vec::new())),
            key,
            turns: 1,
            closed: Vec::new(),
            notes: Vec::new(),
            seconds: 0,
        };
        let change = KeyChange::new(JOURNAL, &scribe.key, None, scribe.writer.head(), "it begins");
        scribe.write(&Record::Key(Box::new(change)));
        scribe
    }

    fn now(&mut self) -> Timestamp {
        self.seconds += 1;
        at(self.seconds)
    }

    fn write(&mut self, record: &Record) {
        let now = self.now();
        self.writer.append(record, now).unwrap();
    }

    fn checkpoint(&mut self) {
        let now = self.now();
        let checkpoint = Checkpoint::new(&self.writer.note(JOURNAL, now).unwrap(), &self.key);
        self.notes.push(checkpoint.signed_note(now));
        self.writer.append(&Record::Checkpoint(Box::new(checkpoint)), now).unwrap();
    }

    fn hand_over(&mut self) {
        self.turns += 1;
        let next = SecretKey::from_bytes(&[self.turns; 32]);
        let change = KeyChange::new(JOURNAL, &next, Some(&self.key), self.writer.head(), "it was time");
        self.write(&Record::Key(Box::new(change)));
        self.key = next;
    }

    fn rotate(&mut self) {
        self.checkpoint();
        let start = SegmentStart {
            journal: Some(JOURNAL),
            key: Some(self.key.public()),
            ..support::segment_start(self.writer.number() + 1)
        };
        let first = Prepared::new(&Record::Segment(start), self.now()).unwrap();
        let old = self.writer.rotate(Cursor::new(Vec::new()), &first).unwrap();
        self.closed.push(old.into_inner());
    }

    /// All segments, each as lines.
    fn segments(self) -> (Vec<Vec<Vec<u8>>>, Vec<String>) {
        let mut all = self.closed;
        all.push(self.writer.into_segment().into_inner());
        (all.iter().map(|bytes| support::lines(bytes)).collect(), self.notes)
    }
}

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

fn path(dir: &Path, number: usize) -> PathBuf {
    dir.join(segment::file_name(u32::try_from(number).unwrap()))
}

/// Puts the segments there, and the hand-overs.
fn put(dir: &Path, segments: &[Vec<Vec<u8>>]) {
    let mut keys = Vec::new();
    for (at, lines) in segments.iter().enumerate() {
        fs::write(path(dir, at + 1), lines.concat()).unwrap();
        keys.extend(lines.iter().filter(|line| contains(line, "\"kind\":\"key\"")).flatten().copied());
    }
    fs::write(dir.join(proxy_journal::keys::FILE), keys).unwrap();
}

fn contains(line: &[u8], what: &str) -> bool {
    String::from_utf8_lossy(line).contains(what)
}

fn pack(dir: &Path, number: usize) {
    let plain = path(dir, number);
    let to = dir.join(segment::packed_name(u32::try_from(number).unwrap()));
    packed::pack(Source::open(&plain).unwrap(), File::create(to).unwrap()).unwrap();
    fs::remove_file(plain).unwrap();
}

fn expecting(notes: &[String]) -> Witness {
    let key = Some(SecretKey::from_bytes(&[1; 32]).public());
    Witness { notes: SignedNote::parse_all(&notes.concat()).unwrap(), key, ..Witness::default() }
}

fn look(dir: &Path, expected: &Witness) -> Report {
    check(dir, expected).unwrap()
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
