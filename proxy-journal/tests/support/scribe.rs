//! Writes a journal as the daemon does: signed, in segments, with keys that hand over.

#![allow(dead_code, reason = "not every test needs all of it")]

use std::fs::{self, File};
use std::io::Cursor;
use std::path::{Path, PathBuf};

use proxy_journal::check::{Report, Witness, check};
use proxy_journal::{
    Checkpoint, KeyChange, Prepared, Record, SecretKey, SegmentStart, SignedNote, Source, Timestamp, Writer,
    packed, segment,
};
use uuid::Uuid;

use crate::support::{self, at};

pub(crate) const JOURNAL: Uuid = Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001);

/// Writes a journal as the daemon does.
pub(crate) struct Scribe {
    pub(crate) writer: Writer<Cursor<Vec<u8>>>,
    pub(crate) key: SecretKey,
    pub(crate) turns: u8,
    pub(crate) closed: Vec<Vec<u8>>,
    pub(crate) notes: Vec<String>,
    pub(crate) seconds: u64,
}

impl Scribe {
    pub(crate) fn new() -> Scribe {
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

    pub(crate) fn now(&mut self) -> Timestamp {
        self.seconds += 1;
        at(self.seconds)
    }

    pub(crate) fn write(&mut self, record: &Record) {
        let now = self.now();
        self.writer.append(record, now).unwrap();
    }

    pub(crate) fn checkpoint(&mut self) {
        let now = self.now();
        let checkpoint = Checkpoint::new(&self.writer.note(JOURNAL, now).unwrap(), &self.key);
        self.notes.push(checkpoint.signed_note(now));
        self.writer.append(&Record::Checkpoint(Box::new(checkpoint)), now).unwrap();
    }

    pub(crate) fn hand_over(&mut self) {
        self.turns += 1;
        let next = SecretKey::from_bytes(&[self.turns; 32]);
        let change = KeyChange::new(JOURNAL, &next, Some(&self.key), self.writer.head(), "it was time");
        self.write(&Record::Key(Box::new(change)));
        self.key = next;
    }

    pub(crate) fn rotate(&mut self) {
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
    pub(crate) fn segments(self) -> (Vec<Vec<Vec<u8>>>, Vec<String>) {
        let mut all = self.closed;
        all.push(self.writer.into_segment().into_inner());
        (all.iter().map(|bytes| support::lines(bytes)).collect(), self.notes)
    }
}

pub(crate) fn path(dir: &Path, number: usize) -> PathBuf {
    dir.join(segment::file_name(u32::try_from(number).unwrap()))
}

/// Puts the segments there, and the hand-overs.
pub(crate) fn put(dir: &Path, segments: &[Vec<Vec<u8>>]) {
    let mut keys = Vec::new();
    for (at, lines) in segments.iter().enumerate() {
        fs::write(path(dir, at + 1), lines.concat()).unwrap();
        keys.extend(lines.iter().filter(|line| contains(line, "\"kind\":\"key\"")).flatten().copied());
    }
    fs::write(dir.join(proxy_journal::keys::FILE), keys).unwrap();
}

pub(crate) fn contains(line: &[u8], what: &str) -> bool {
    String::from_utf8_lossy(line).contains(what)
}

pub(crate) fn pack(dir: &Path, number: usize) {
    let plain = path(dir, number);
    let to = dir.join(segment::packed_name(u32::try_from(number).unwrap()));
    packed::pack(Source::open(&plain).unwrap(), File::create(to).unwrap()).unwrap();
    fs::remove_file(plain).unwrap();
}

pub(crate) fn expecting(notes: &[String]) -> Witness {
    let key = Some(SecretKey::from_bytes(&[1; 32]).public());
    Witness { notes: SignedNote::parse_all(&notes.concat()).unwrap(), key, ..Witness::default() }
}

pub(crate) fn look(dir: &Path, expected: &Witness) -> Report {
    check(dir, expected).unwrap()
}
