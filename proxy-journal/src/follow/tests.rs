//! Reading on while the journal does what journals do.

use std::fs::OpenOptions;
use std::io::Write as _;

use super::*;
use crate::record::{Record, Stop};
use crate::segment::{SPILL, file_name, packed_name};
use crate::writer::Writer;
use crate::{Recovery, packed};

/// A journal of several segments, as the daemon writes it.
struct Journal {
    dir: tempfile::TempDir,
    chain: Writer<io::Cursor<Vec<u8>>>,
    segment: u32,
    us: u64,
}

impl Journal {
    fn new() -> Journal {
        let dir = tempfile::tempdir().unwrap();
        let chain = Writer::new(io::Cursor::new(Vec::new()));
        std::fs::write(dir.path().join(file_name(1)), "").unwrap();
        Journal { dir, chain, segment: 1, us: 0 }
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.path().join(file_name(number))
    }

    /// The lines that so many records make.
    fn lines(&mut self, count: usize) -> Vec<u8> {
        let before = usize::try_from(self.chain.len()).unwrap();
        for _ in 0..count {
            self.us += 1_000_000;
            let stop = Record::Stop(Stop { reason: format!("é {}", self.us) });
            self.chain.append(&stop, Timestamp::from_micros(self.us)).unwrap();
        }
        self.chain.segment().get_ref()[before..].to_vec()
    }

    fn add(&mut self, bytes: &[u8]) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(self.segment)).unwrap();
        file.write_all(bytes).unwrap();
    }

    fn write(&mut self, count: usize) {
        let lines = self.lines(count);
        self.add(&lines);
    }

    fn roll(&mut self) {
        self.segment += 1;
        self.add(b"");
    }

    fn pack(&self, number: u32) {
        let packed = self.dir.path().join(packed_name(number));
        packed::pack(Source::open(&self.path(number)).unwrap(), File::create(packed).unwrap()).unwrap();
        std::fs::remove_file(self.path(number)).unwrap();
    }

    fn follow(&self) -> Follower {
        Follower::from_start(self.dir.path()).unwrap()
    }
}

/// Everything that is there: the numbers of the records, and what else was told.
fn all(follower: &mut Follower) -> (Vec<u64>, Vec<Step>) {
    let (mut seqs, mut told) = (Vec::new(), Vec::new());
    for _ in 0..10_000 {
        match follower.next().unwrap() {
            Step::End => return (seqs, told),
            Step::Line(line) => {
                assert!(line.entry().is_ok());
                seqs.push(line.seq);
            }
            other => told.push(other),
        }
    }
    panic!("it does not come to an end: {told:?}");
}

fn seqs(follower: &mut Follower) -> Vec<u64> {
    let (seqs, told) = all(follower);
    assert_eq!(told, []);
    seqs
}

/// The same follower, as another process goes on with what it kept.
fn kept(follower: &Follower) -> Follower {
    let text = serde_json::to_string(follower.cursor()).unwrap();
    Follower::resume(&follower.dir, serde_json::from_str(&text).unwrap())
}

#[test]
fn records_come_as_they_are_written_over_segments_and_their_compression_each_once() {
    let mut journal = Journal::new();
    let (mut live, mut resumed) = (journal.follow(), journal.follow());
    let mut next = 1;
    for round in 0..12 {
        let count = [3, 0, 5][round % 3];
        journal.write(count);
        let expected: Vec<u64> = (next..next + wide(count)).collect();
        next += wide(count);
        resumed = kept(&resumed);
        match round % 4 {
            1 => journal.roll(),
            2 => journal.pack(journal.segment - 1),
            _ => {}
        }
        assert_eq!(seqs(&mut live), expected, "round {round}");
        assert_eq!(seqs(&mut resumed), expected, "round {round}, resumed");
    }
    assert_eq!(seqs(&mut journal.follow()), (1..next).collect::<Vec<_>>());
}

#[test]
fn a_segment_that_was_compressed_while_it_was_read_goes_on_at_the_same_place() {
    let mut journal = Journal::new();
    journal.write(50);
    let mut follower = journal.follow();
    for _ in 0..20 {
        assert!(matches!(follower.next().unwrap(), Step::Line(_)));
    }
    let mut resumed = kept(&follower);
    journal.roll();
    journal.write(2);
    journal.pack(1);
    assert_eq!(seqs(&mut resumed), (21..=52).collect::<Vec<_>>());
    assert_eq!(seqs(&mut follower), (21..=52).collect::<Vec<_>>());
}

#[test]
fn a_line_is_waited_for_until_it_has_its_end_at_every_length_of_it() {
    let mut journal = Journal::new();
    journal.write(1);
    let mut follower = journal.follow();
    assert_eq!(seqs(&mut follower), [1]);
    let line = journal.lines(1);
    for byte in &line[..line.len() - 1] {
        journal.add(&[*byte]);
        assert_eq!(follower.next().unwrap(), Step::End);
        assert_eq!(kept(&follower).next().unwrap(), Step::End);
    }
    journal.add(b"\n");
    assert_eq!(seqs(&mut kept(&follower)), [2]);
    assert_eq!(seqs(&mut follower), [2]);
}

#[test]
fn the_end_is_where_the_next_record_comes_also_in_an_empty_segment() {
    let mut journal = Journal::new();
    let end = |journal: &Journal| Follower::from_end(journal.dir.path()).unwrap();
    let mut before_all = end(&journal);
    journal.write(3);
    let half = journal.lines(1);
    journal.add(&half[..10]);
    let mut follower = end(&journal);
    journal.add(&half[10..]);
    assert_eq!(seqs(&mut follower), [4]);
    assert_eq!(seqs(&mut before_all), [1, 2, 3, 4]);
    journal.roll();
    let mut follower = end(&journal);
    journal.write(1);
    assert_eq!(seqs(&mut follower), [5]);
}

#[test]
fn what_retention_took_before_it_was_read_is_told_with_its_numbers() {
    let mut journal = Journal::new();
    journal.write(4);
    let mut follower = journal.follow();
    assert_eq!(seqs(&mut follower), [1, 2, 3, 4]);
    let mut behind = Follower::resume(journal.dir.path(), follower.cursor().clone());
    for _ in 0..3 {
        journal.roll();
        journal.write(4);
    }
    std::fs::remove_file(journal.path(1)).unwrap();
    std::fs::remove_file(journal.path(2)).unwrap();
    let lost = Step::Lost { first: 5, last: 8 };
    assert_eq!(all(&mut behind), ((9..=16).collect(), vec![lost.clone()]));
    assert_eq!(all(&mut follower), ((9..=16).collect(), vec![lost]));
    // Nothing is lost when it was read to its end.
    journal.roll();
    std::fs::remove_file(journal.path(3)).unwrap();
    std::fs::remove_file(journal.path(4)).unwrap();
    journal.write(1);
    assert_eq!(seqs(&mut behind), [17]);
}

#[test]
fn the_journal_goes_on_where_it_spills_to_and_back() {
    let mut journal = Journal::new();
    let spill = tempfile::tempdir().unwrap();
    journal.write(2);
    let mut follower = journal.follow();
    assert_eq!(seqs(&mut follower), [1, 2]);
    std::os::unix::fs::symlink(spill.path(), journal.dir.path().join(SPILL)).unwrap();
    let lines = journal.lines(2);
    std::fs::write(spill.path().join(file_name(2)), &lines).unwrap();
    assert_eq!(seqs(&mut follower), [3, 4]);
    // Brought back.
    std::fs::rename(spill.path().join(file_name(2)), journal.path(2)).unwrap();
    assert!(seqs(&mut follower).is_empty());
    journal.segment = 3;
    journal.write(1);
    assert_eq!(seqs(&mut follower), [5]);
}

#[test]
fn what_a_loss_of_power_took_back_is_told_and_what_stands_in_its_place_is_read() {
    let mut journal = Journal::new();
    journal.write(20);
    let mut follower = journal.follow();
    assert_eq!(seqs(&mut follower).len(), 20);
    let bytes = std::fs::read(journal.path(1)).unwrap();
    let ends: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    // The disk had 17 of them; other records follow, in both lengths.
    for extra in [1, 9] {
        let mut resumed = kept(&follower);
        let mut file = OpenOptions::new().read(true).write(true).open(journal.path(1)).unwrap();
        file.set_len(wide(ends[16])).unwrap();
        let recovery: Recovery = crate::recover(&mut file, 1, None).unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        let mut writer = Writer::resume(file, &recovery);
        for n in 0..extra {
            let reason = format!("other {n}");
            writer.append(&Record::Stop(Stop { reason }), Timestamp::from_micros(99)).unwrap();
        }
        for follower in [&mut resumed, &mut follower.clone_for_test()] {
            let (read, told) = all(follower);
            let Some(Step::Changed { read: 20, back_to }) = told.first() else { panic!("{told:?}") };
            assert!((14..=17).contains(back_to), "{back_to}");
            assert_eq!(read, (back_to + 1..=17 + extra).collect::<Vec<_>>());
        }
    }
}

#[test]
fn another_journal_in_its_place_is_read_from_its_beginning() {
    let mut journal = Journal::new();
    journal.write(6);
    journal.roll();
    journal.write(6);
    let mut follower = journal.follow();
    assert_eq!(seqs(&mut follower).len(), 12);
    let mut other = Journal::new();
    other.us = 77;
    other.write(3);
    std::fs::remove_file(journal.path(1)).unwrap();
    std::fs::remove_file(journal.path(2)).unwrap();
    std::fs::copy(other.path(1), journal.path(1)).unwrap();
    let changed = Step::Changed { read: 12, back_to: 0 };
    assert_eq!(all(&mut kept(&follower)), (vec![1, 2, 3], vec![changed.clone()]));
    // What is open has nothing more; then it is looked at what is there.
    assert_eq!(follower.next().unwrap(), Step::End);
    assert_eq!(all(&mut follower), (vec![1, 2, 3], vec![changed]));
}

#[test]
fn a_line_that_is_no_record_is_told_and_passed_and_a_broken_chain_does_not_stop_reading() {
    let mut journal = Journal::new();
    journal.write(2);
    journal.add(b"not a record\n");
    journal.add(&[vec![b'x'; 2 * MAX_LINE + 5], b"\n".to_vec()].concat());
    journal.write(1);
    // One is taken out.
    journal.lines(1);
    journal.write(2);
    journal.roll();
    journal.lines(1);
    journal.write(1);
    let mut follower = journal.follow();
    let (seqs, told) = all(&mut follower);
    assert_eq!(seqs, [1, 2, 3, 5, 6, 8]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(matches!(told[1], Step::Unreadable(Fault::TooLong)), "{told:?}");
    assert_eq!(told[2], Step::Lost { first: 7, last: 7 });
    let mut resumed = kept(&follower);
    journal.write(1);
    assert_eq!(all(&mut resumed), (vec![9], vec![]));
}

#[test]
fn a_first_record_of_a_segment_that_does_not_follow_is_read_once() {
    let mut journal = Journal::new();
    journal.write(8);
    let mut other = Journal::new();
    other.us = 77;
    other.lines(8);
    journal.roll();
    let forged = other.lines(3);
    journal.add(&forged);
    let mut follower = journal.follow();
    assert_eq!(all(&mut follower), ((1..=11).collect(), vec![]));
}

#[test]
fn what_is_behind_the_bound_is_left_also_when_a_segment_follows() {
    let mut journal = Journal::new();
    journal.write(3);
    journal.roll();
    journal.write(3);
    let mut follower = journal.follow();
    for (bound, expected) in
        [(0, vec![]), (2, vec![1, 2]), (3, vec![3]), (4, vec![4]), (4, vec![]), (9, vec![5, 6])]
    {
        follower.read_up_to(bound);
        assert_eq!(seqs(&mut follower), expected, "up to {bound}");
    }
}

#[test]
fn a_journal_that_is_not_there_yet_is_waited_for() {
    let mut journal = Journal::new();
    std::fs::remove_file(journal.path(1)).unwrap();
    let mut follower = journal.follow();
    assert!(seqs(&mut follower).is_empty());
    journal.write(2);
    assert_eq!(seqs(&mut follower), [1, 2]);
}

impl Follower {
    /// One that has nothing open, in the same process.
    fn clone_for_test(&self) -> Follower {
        Follower::resume(&self.dir, self.cursor.clone())
    }
}

#[test]
fn from_a_place_between_two_lines_what_follows_is_read_and_what_was_before_is_known() {
    let mut journal = Journal::new();
    journal.write(5);
    let dir = journal.dir.path().to_owned();
    let mut ends = vec![(0, 0)];
    let mut follower = journal.follow();
    for seq in 1..=5 {
        assert!(matches!(follower.next().unwrap(), Step::Line(line) if line.seq == seq));
        ends.push((follower.cursor().place.offset, seq));
    }
    let check = || {
        for (offset, seq) in &ends {
            let mut follower = Follower::from_place(&dir, 1, *offset).unwrap();
            assert_eq!(follower.cursor().place.seq, *seq);
            assert_eq!(all(&mut follower), ((*seq + 1..=5).collect(), vec![]), "from {offset}");
        }
    };
    check();
    journal.roll();
    journal.pack(1);
    check();
    // Another journal in its place is seen from the first look on.
    let mut follower = Follower::from_place(&dir, 1, ends[3].0).unwrap();
    let mut other = Journal::new();
    other.us = 7;
    other.write(5);
    std::fs::remove_file(dir.join(packed_name(1))).unwrap();
    std::fs::copy(other.path(1), journal.path(1)).unwrap();
    let (seqs, told) = all(&mut follower);
    assert_eq!((seqs, told), (vec![1, 2, 3, 4, 5], vec![Step::Changed { read: 3, back_to: 0 }]));
    // One that is gone is found out, too.
    let gone = Follower::from_place(&dir, 9, 100).unwrap();
    assert_eq!(gone.cursor().place, Place { segment: 9, offset: 100, seq: 0, hash: None });
}
