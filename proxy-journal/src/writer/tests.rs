//! How the writer behaves when the disk does not.

use std::io::{self, Cursor, Write};

use super::*;
use crate::record::{Recovered, Stop};
use crate::verify::Verifier;

/// A disk that takes so many bytes and then fails, and that may refuse to be cut.
#[derive(Default)]
struct Disk {
    bytes: Vec<u8>,
    room: usize,
    stuck: bool,
    writes: usize,
}

impl Write for Disk {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        let taken = data.len().min(self.room);
        if taken == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.room -= taken;
        self.bytes.extend_from_slice(&data[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Segment for Disk {
    fn cut_back(&mut self, len: u64) -> io::Result<()> {
        if self.stuck {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.bytes.truncate(usize::try_from(len).unwrap());
        Ok(())
    }
}

fn stop(reason: &str) -> Record {
    Record::Stop(Stop { reason: reason.to_owned() })
}

const AT: Timestamp = Timestamp::from_micros(1_795_550_400_123_456);

fn whole_records(bytes: &[u8]) -> u64 {
    let found = Verifier::new().run(bytes).unwrap();
    assert!(found.is_whole(), "{found:?}");
    found.records
}

#[test]
fn a_line_is_spelled_as_its_documentation_says() {
    let mut writer = Writer::new(Cursor::new(Vec::new()));
    let at = writer.append(&stop("a \"quiet\" \u{1b}\u{9b} end"), AT).unwrap();
    assert_eq!(at, Appended { seq: 1, offset: 0 });
    let text = String::from_utf8(writer.into_segment().into_inner()).unwrap();
    let hashed = concat!(
        r#"{"v":1,"seq":1,"time":"2026-11-24T20:00:00.123456Z","prev":""#,
        "0000000000000000000000000000000000000000000000000000000000000000",
        r#"","kind":"stop","reason":"a \"quiet\" \u001b\u009b end""#
    );
    assert_eq!(text, format!("{hashed},\"hash\":\"{}\"}}\n", ChainHash::of(hashed.as_bytes())));
}

#[test]
fn several_records_go_out_with_one_write() {
    let mut writer = Writer::new(Disk { room: usize::MAX, ..Disk::default() });
    let records: Vec<_> = ["a", "b", "c"].map(|reason| Prepared::new(&stop(reason), AT).unwrap()).into();
    let at = writer.append_all(&records).unwrap();
    let disk = writer.into_segment();
    assert_eq!((disk.writes, at.seq, whole_records(&disk.bytes)), (1, 3, 3));
    assert!(
        String::from_utf8_lossy(&disk.bytes[usize::try_from(at.offset).unwrap()..]).contains("\"seq\":3,")
    );
}

#[test]
fn a_short_write_at_any_byte_leaves_no_trace_and_the_chain_goes_on() {
    let mut reference = Writer::new(Disk { room: usize::MAX, ..Disk::default() });
    reference.append(&stop("second"), AT).unwrap();
    let length = reference.into_segment().bytes.len();
    for room in 0..length {
        let mut writer = Writer::new(Disk { room: usize::MAX, ..Disk::default() });
        writer.append(&stop("first"), AT).unwrap();
        writer.segment.room = room;
        assert!(matches!(writer.append(&stop("second"), AT), Err(AppendError::Write(_))));
        writer.segment.room = usize::MAX;
        assert_eq!(writer.append(&stop("third"), AT).unwrap().seq, 2);
        assert_eq!(whole_records(&writer.into_segment().bytes), 2);
    }
}

#[test]
fn nothing_is_written_after_a_half_line_until_it_is_cut_off() {
    let mut writer = Writer::new(Disk { room: 300, stuck: true, ..Disk::default() });
    writer.append(&stop("first"), AT).unwrap();
    let before = writer.segment.bytes.len();
    assert!(matches!(writer.append(&stop("second"), AT), Err(AppendError::Torn(_))));
    let torn = writer.segment.bytes.len();
    assert!(torn > before);
    writer.segment.room = usize::MAX;
    assert!(matches!(writer.append(&stop("third"), AT), Err(AppendError::Torn(_))));
    assert_eq!(writer.segment.bytes.len(), torn, "a torn writer writes nothing");
    writer.segment.stuck = false;
    writer.append(&stop("fourth"), AT).unwrap();
    assert_eq!(whole_records(&writer.into_segment().bytes), 2);
}

#[test]
fn a_record_that_no_reader_would_take_is_not_written() {
    let mut writer = Writer::new(Cursor::new(Vec::new()));
    let long = "x".repeat(MAX_LINE);
    assert!(matches!(writer.append(&stop(&long), AT), Err(AppendError::TooLong { .. })));
    let longest = "x".repeat(MAX_LINE - ENVELOPE - r#"{"kind":"stop","reason":""}"#.len());
    writer.append(&stop(&longest), Timestamp::from_micros(u64::MAX)).unwrap();
    writer.append(&Record::Recovered(Recovered::default()), AT).unwrap();
    assert_eq!(whole_records(writer.into_segment().get_ref()), 2);
}
