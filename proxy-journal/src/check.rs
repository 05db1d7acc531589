//! Verifies a journal file, or a directory of segments, and says in words what was found. Needs no daemon.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use crate::chain::ChainHash;
use crate::segment;
use crate::verify::{Verification, Verifier};

/// What a person kept from an earlier verification: the only way to find that the end was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Witness {
    /// A record with this hash must be there: the head as it was.
    pub head: Option<ChainHash>,
    /// So many records must be there, at least; with a head, it must have exactly this number.
    pub seq: Option<u64>,
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
    /// What the chain says.
    pub verification: Verification,
    /// What was expected.
    pub expected: Witness,
}

/// Verifies the chain in `path`: one file, or all segments of a directory in their order.
///
/// # Errors
/// [`CheckError`] when something cannot be read.
pub fn check(path: &Path, expected: Witness) -> Result<Report, CheckError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| CheckError::Read { path, source }
    };
    let mut verifier = Verifier::new();
    if let Some(head) = expected.head {
        verifier = verifier.expecting(head);
    }
    let run = |verifier: &mut Verifier, file: &Path| {
        let opened = File::open(file).map_err(failed(file))?;
        let verification = verifier.run(BufReader::with_capacity(256 << 10, opened)).map_err(failed(file))?;
        Ok(Report { file: file.to_owned(), verification, expected })
    };
    if !path.is_dir() {
        return run(&mut verifier, path);
    }
    let mut last: Option<Report> = None;
    for (_, file) in segment::list(path).map_err(failed(path))? {
        if let Some(before) = last.as_mut().filter(|before| !before.verification.is_whole()) {
            if before.verification.torn_tail.is_some() {
                // With a segment after it, a half line is a break.
                before.verification = verifier.run(io::empty()).map_err(failed(&before.file))?;
            }
            break;
        }
        last = Some(run(&mut verifier, &file)?);
    }
    last.ok_or_else(|| CheckError::Empty(path.to_owned()))
}

impl Report {
    /// Whether every byte is proved and the witness, if any, is there.
    pub fn is_whole(&self) -> bool {
        self.verification.is_whole() && self.missing().is_none()
    }

    /// What the witness says that the journal does not have.
    fn missing(&self) -> Option<String> {
        let found = &self.verification;
        match (self.expected.head, found.witness, self.expected.seq) {
            (Some(head), None, _) => Some(format!("the record with the expected head {head} is not in it")),
            (Some(_), Some(at), Some(seq)) if at != seq => {
                Some(format!("the expected head is record {at} and not record {seq}"))
            }
            (None, _, Some(seq)) if found.head.seq < seq => {
                Some(format!("record {seq} is expected and the last one is {}", found.head.seq))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verification { records, first_break, torn_tail, head, witness } = &self.verification;
        let file = self.file.display();
        if let Some(place) = first_break {
            writeln!(f, "{file}: BROKEN at {place}")?;
            return write!(f, "The {records} records before it are proved; nothing after it can be trusted.");
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
        writeln!(f, "{file}: whole, {records} records, head {}", head.hash)?;
        match witness {
            Some(at) => write!(f, "The expected head is record {at}; {} records follow it.", head.seq - at),
            None if self.expected.seq.is_some() => write!(f, "The expected number of records is there."),
            None => write!(
                f,
                "A journal cannot show that whole records were cut off at its end: keep this head elsewhere, and give it \
                 to the next verification with --expect-head."
            ),
        }
    }
}
