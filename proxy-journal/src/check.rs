//! Verifies a journal file, or a directory of segments, and says in words what was found. Needs no daemon.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use uuid::Uuid;

use crate::chain::{ChainHash, Head};
use crate::kept::{self, Kept};
use crate::key::PublicKey;
use crate::keys::{self, Keys, KeysError};
use crate::note::SignedNote;
use crate::sealed::{Sealed, prove_looking};
use crate::segment;
use crate::source::Source;
use crate::stitch::Stitch;
use crate::verify::{Break, Fault};

/// What a person kept from an earlier verification, or a witness has: the only way to find that the end was cut off.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Witness {
    /// A record with this hash must be there: the head as it was.
    pub head: Option<ChainHash>,
    /// So many records must be there, at least; with a head, it must have exactly this number.
    pub seq: Option<u64>,
    /// What these say must be there, and be signed by a key of the journal.
    pub notes: Vec<SignedNote>,
    /// The keys of the journal must be this one, or be handed over from it.
    pub key: Option<PublicKey>,
}

/// Why a journal could not be verified: it is neither whole nor broken, it was not read.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A file or directory cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory has no segment.
    #[error("{}: there is no journal here (no file like {})", .0.display(), segment::file_name(1))]
    Empty(PathBuf),
}

/// What was found, for a person by its `Display`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The file that was read last: the one with the break, when there is one.
    pub file: PathBuf,
    /// Records that are proved, up to the first break.
    pub records: u64,
    /// The first break; nothing after it counts.
    pub first_break: Option<Break>,
    /// Bytes of a half-written last line.
    pub torn_tail: Option<u64>,
    /// The record before the first one that is there; [`Head::GENESIS`] when nothing was retired.
    pub before: Head,
    /// The last proved record.
    pub head: Head,
    /// Sequence number of the record that has the expected hash, when one was expected and is there.
    pub witness: Option<u64>,
    /// Names the journal.
    pub journal: Option<Uuid>,
    /// The key whose turn it is to sign, and how many handed over before it.
    pub key: Option<(PublicKey, usize)>,
    /// The last record that a checkpoint is over.
    pub signed: u64,
    /// Something beside the chain that is wrong, in words.
    pub wrong: Option<String>,
    /// What could not be looked at, in words.
    pub remarks: Vec<String>,
    /// What is known of the bodies that are kept for auditors, where there are any.
    pub kept: Option<Kept>,
    /// What was expected.
    pub expected: Witness,
}

/// One segment, proved apart.
type Proved = Result<(Sealed, BTreeMap<u64, ChainHash>), io::Error>;

/// Verifies the chain in `path`: one file, or all segments of a directory in their order; segments at the same time on as many
/// processors as there are.
///
/// # Errors
/// [`CheckError`] when something cannot be read.
pub fn check(path: &Path, expected: &Witness) -> Result<Report, CheckError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckError::Read { path, source }
    };
    let (segments, keys, is_dir) = match path.is_dir() {
        true => {
            let segments = segment::list(path).map_err(failed(path))?;
            let keys = Keys::read(path);
            (segments.into_iter().map(|(number, path)| (Some(number), path)).collect::<Vec<_>>(), keys, true)
        }
        false => {
            let number = path.file_name().and_then(|name| name.to_str()).and_then(segment::number_of);
            (vec![(number, path.to_owned())], Ok(Keys::default()), false)
        }
    };
    if segments.is_empty() {
        return Err(CheckError::Empty(path.to_owned()));
    }
    let mut wrong = None;
    let keys = match keys {
        Ok(keys) => keys,
        Err(KeysError::Read(source)) => return Err(CheckError::Read { path: path.join(keys::FILE), source }),
        Err(error) => {
            wrong = Some(format!("{}: {error}", path.join(keys::FILE).display()));
            Keys::default()
        }
    };
    let wanted: Vec<u64> = expected.notes.iter().map(|note| note.note.through()).collect();
    let proved = prove_all(&segments, expected, &wanted, is_dir);

    let mut stitch = Stitch::new(keys);
    let (mut heads, mut witness, mut first_break, mut torn_tail) = (BTreeMap::new(), None, None, None);
    let mut file = path.to_owned();
    let mut before_it: Option<(PathBuf, u64, u64, u64)> = None;
    // Calls of which bodies are kept.
    let mut named = 0;
    for ((_, path), sealed) in segments.iter().zip(proved) {
        let (sealed, found) = sealed.map_err(failed(path))?;
        if let Some((torn_file, bytes, line, byte_offset)) = before_it.take() {
            // With a segment after it, a half line is a break.
            let seq = stitch.head.map_or(1, |head| head.seq.saturating_add(1));
            first_break = Some(Break { seq, line, byte_offset, what: Fault::TornInside(bytes) });
            file = torn_file;
            torn_tail = None;
            break;
        }
        file = path.clone();
        witness = witness.or(sealed.found);
        named += sealed.kept;
        heads.extend(found);
        torn_tail = sealed.torn;
        first_break = stitch.add(&sealed);
        if first_break.is_some() {
            torn_tail = None;
            break;
        }
        if let Some(bytes) = sealed.torn {
            before_it = Some((path.clone(), bytes, sealed.records + 1, sealed.len));
        }
    }
    let head = stitch.head.unwrap_or(stitch.before);
    let mut remarks = Vec::new();
    if first_break.is_none() && wrong.is_none() {
        wrong = beginning(&stitch, is_dir, &mut remarks)
            .or_else(|| pinned(&stitch, expected))
            .or_else(|| witnessed(&stitch, &expected.notes, head, &heads, &mut remarks));
    }
    let mut bodies = None;
    if is_dir && first_break.is_none() && wrong.is_none() {
        bodies = kept::check(path).map_err(failed(path))?;
        remarks.extend(bodies.iter().flat_map(Kept::remarks));
        if bodies.is_none() && named > 0 {
            remarks.push(kept::without_folder(named));
        }
    }
    let Stitch { before, records, journal, key, keys, signed, .. } = stitch;
    let key = key.map(|key| (key, keys.len().saturating_sub(1)));
    Ok(Report {
        file,
        records,
        first_break,
        torn_tail,
        before,
        head,
        witness,
        journal,
        key,
        signed,
        wrong,
        remarks,
        kept: bodies,
        expected: expected.clone(),
    })
}

/// Proves every segment, on as many threads as there are processors.
fn prove_all(
    segments: &[(Option<u32>, PathBuf)],
    expected: &Witness,
    wanted: &[u64],
    is_dir: bool,
) -> Vec<Proved> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Proved)>> = Mutex::new(Vec::new());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((number, path)) = segments.get(at) else { return };
            let after = (*number == Some(1) || (number.is_none() && !is_dir)).then_some(Head::GENESIS);
            let proved = Source::open(path)
                .and_then(|source| prove_looking(source, *number, after, expected.head, wanted));
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, proved));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(segments.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, proved)| proved).collect()
}

/// What is wrong with how it begins.
fn beginning(stitch: &Stitch, is_dir: bool, remarks: &mut Vec<String>) -> Option<String> {
    if stitch.before == Head::GENESIS {
        return None;
    }
    let missing = stitch.before.seq;
    if !is_dir {
        remarks.push(format!(
            "It goes on from record {missing}, which is in the segment before it and not looked at here."
        ));
        return None;
    }
    if stitch.begins_well() {
        remarks.push(format!("The {missing} records before it were retired, as the journal says."));
        return None;
    }
    Some(format!("the first {missing} records are missing, and nothing says that they were retired"))
}

/// What is wrong with its keys, when one was given.
fn pinned(stitch: &Stitch, expected: &Witness) -> Option<String> {
    let trusted = expected.key?;
    match stitch.key {
        None => Some(format!("it is not signed, and {trusted} should have signed it")),
        Some(key) if !stitch.keys.leads(trusted, key) => {
            Some(format!("it is signed by {key}, to which {trusted} did not hand over"))
        }
        Some(_) if stitch.signed == 0 => {
            Some(format!("there is no checkpoint in it that {trusted} could have signed"))
        }
        Some(_) => None,
    }
}

/// What the notes of a witness say that is not so.
fn witnessed(
    stitch: &Stitch,
    notes: &[SignedNote],
    head: Head,
    heads: &BTreeMap<u64, ChainHash>,
    remarks: &mut Vec<String>,
) -> Option<String> {
    let (mut seen, mut gone) = (0_u64, 0_u64);
    for signed in notes {
        let (note, through) = (&signed.note, signed.note.through());
        if stitch.journal != Some(note.journal) {
            return Some(format!("a checkpoint is of the journal {}, and this is another", note.journal));
        }
        if !stitch.keys.all().chain(stitch.key).any(|key| signed.is_signed_by(&key)) {
            return Some(format!(
                "the checkpoint at record {through} is not signed by a key of this journal"
            ));
        }
        if through <= stitch.before.seq {
            gone += 1;
            continue;
        }
        match heads.get(&through) {
            Some(hash) if *hash == note.head => seen += 1,
            Some(_) => {
                return Some(format!(
                    "record {through} is not the one that a checkpoint was over: it was replaced"
                ));
            }
            None => {
                return Some(format!(
                    "a checkpoint is over {through} records, and the last one here is {}: the end was cut off",
                    head.seq
                ));
            }
        }
    }
    if seen + gone > 0 {
        let gone =
            if gone > 0 { format!("; {gone} are of records that were retired") } else { String::new() };
        remarks.push(format!("{seen} checkpoints of the witness are there{gone}."));
    }
    None
}

impl Report {
    /// Whether every byte is proved, and what was expected is there.
    pub fn is_whole(&self) -> bool {
        self.first_break.is_none()
            && self.torn_tail.is_none()
            && self.wrong.is_none()
            && self.missing().is_none()
            && self.kept.as_ref().is_none_or(Kept::is_whole)
    }

    /// What the witness says that the journal does not have.
    fn missing(&self) -> Option<String> {
        match (self.expected.head, self.witness, self.expected.seq) {
            (Some(head), None, _) => Some(format!("the record with the expected head {head} is not in it")),
            (Some(_), Some(at), Some(seq)) if at != seq => {
                Some(format!("the expected head is record {at} and not record {seq}"))
            }
            (None, _, Some(seq)) if self.head.seq < seq => {
                Some(format!("record {seq} is expected and the last one is {}", self.head.seq))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { records, first_break, torn_tail, head, witness, wrong, .. } = self;
        let file = self.file.display();
        if let Some(place) = first_break {
            writeln!(f, "{file}: BROKEN at {place}")?;
            return write!(f, "The {records} records before it are proved; nothing after it can be trusted.");
        }
        if let Some(wrong) = wrong {
            writeln!(f, "{file}: BROKEN: {wrong}")?;
            return write!(
                f,
                "The {records} records that are there form a chain, and not the one that was written."
            );
        }
        if let Some(missing) = self.missing() {
            writeln!(f, "{file}: BROKEN: {missing}")?;
            return write!(
                f,
                "The {records} records that are there form a chain: the end was cut off, or all of it replaced."
            );
        }
        if let Some(bytes) = torn_tail {
            writeln!(f, "{file}: HALF LAST LINE: {bytes} bytes after record {}", head.seq)?;
            return write!(
                f,
                "The {records} records before it are proved. A kill in mid-write leaves this, and the daemon repairs it when it starts."
            );
        }
        if let Some(what) = self.kept.as_ref().and_then(Kept::trouble) {
            writeln!(f, "{file}: BROKEN: {what}")?;
            return write!(
                f,
                "The {records} records are proved; a body that is not as its record says proves nothing."
            );
        }
        writeln!(f, "{file}: whole, {records} records, head {}", head.hash)?;
        match self.key {
            Some((key, handed_over)) => {
                let after = head.seq - self.signed.min(head.seq);
                write!(f, "Signed through record {} by {key}", self.signed)?;
                if handed_over > 0 {
                    write!(f, ", the last of {} keys", handed_over + 1)?;
                }
                writeln!(
                    f,
                    "; {after} records are after it, which who may write the file could have written."
                )?;
                if self.expected.key.is_none() {
                    writeln!(f, "Whose key that is, it cannot show: give the one that you know with --key.")?;
                }
            }
            None => {
                writeln!(f, "It is not signed: whoever may write the file could have written all of it.")?
            }
        }
        for remark in &self.remarks {
            writeln!(f, "{remark}")?;
        }
        match witness {
            Some(at) => write!(f, "The expected head is record {at}; {} records follow it.", head.seq - at),
            None if self.expected.seq.is_some() => write!(f, "The expected number of records is there."),
            None if !self.expected.notes.is_empty() => {
                write!(f, "Nothing that the witness has seen is missing.")
            }
            None => write!(
                f,
                "A journal cannot show that whole records were cut off at its end: give what a witness has kept with \
                 --checkpoint, or this head to the next verification with --expect-head."
            ),
        }
    }
}
