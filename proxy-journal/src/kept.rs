//! Bodies that are kept for auditors: where their files lie, and whether they are as the journal says.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use memchr::memmem::Finder;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::capture::{Capture, CaptureEnd, Part};
use crate::reader::{Content, Entry, Lines, RawLine};
use crate::record::Record;
use crate::segment;
use crate::source::Source;
use crate::text;

/// The folder, in the directory of the journal.
pub const FOLDER: &str = "captures";
/// How the name of a file ends as long as it is written to.
pub const UNFINISHED: &str = ".part";

/// The folder with the files of the calls that a segment decided, in the directory of the journal.
#[must_use]
pub fn folder(dir: &Path, segment: u32) -> PathBuf {
    dir.join(FOLDER).join(format!("{segment:08}"))
}

/// The name of a file in that folder.
#[must_use]
pub fn file_name(id: Uuid, part: Part) -> String {
    format!("{id}.{}.age", part.word())
}

/// The name of a file as records have it.
#[must_use]
pub fn record_name(segment: u32, id: Uuid, part: Part) -> String {
    format!("{segment:08}/{}", file_name(id, part))
}

/// The segments that have a folder.
///
/// # Errors
/// [`FOLDER`] cannot be read.
pub fn folders(dir: &Path) -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(dir.join(FOLDER)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut segments = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        segments
            .extend(name.to_str().filter(|name| name.len() == 8).and_then(|name| name.parse::<u32>().ok()));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// Bytes of the files of a segment.
///
/// # Errors
/// They cannot be looked at.
pub fn size(dir: &Path, segment: u32) -> io::Result<u64> {
    let mut bytes = 0;
    match fs::read_dir(folder(dir, segment)) {
        Ok(entries) => {
            for entry in entries {
                bytes += entry?.metadata()?.len();
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(bytes)
}

/// What is left of the bodies of calls that were open when the daemon was stopped; files that were under way have their names then. One
/// that cannot be read is left out, and told to `failed`: nobody vouches for it.
pub fn left_of(
    dir: &Path,
    open: &[Uuid],
    mut failed: impl FnMut(&Path, &io::Error),
) -> HashMap<Uuid, Vec<Capture>> {
    let mut found: HashMap<Uuid, Vec<Capture>> = HashMap::new();
    let open: HashSet<Uuid> = open.iter().copied().collect();
    if open.is_empty() {
        return found;
    }
    for segment in folders(dir).unwrap_or_default() {
        let folder = folder(dir, segment);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((id, part)) = named(&name).filter(|(id, _)| open.contains(id)) else { continue };
            let path = folder.join(file_name(id, part));
            let taken = match name.ends_with(UNFINISHED) {
                true => fs::rename(entry.path(), &path),
                false => Ok(()),
            };
            match taken.and_then(|()| digest(&path)) {
                Ok((size, sha256)) => {
                    let file = record_name(segment, id, part);
                    let capture = Capture { part, file, end: CaptureEnd::Killed, bytes: None, size, sha256 };
                    found.entry(id).or_default().push(capture);
                }
                Err(error) => failed(&path, &error),
            }
        }
    }
    found.values_mut().for_each(|captures| captures.sort_by_key(|capture| capture.part));
    found
}

/// Of which call a file with this name is, finished or not.
fn named(name: &str) -> Option<(Uuid, Part)> {
    let name = name.strip_suffix(UNFINISHED).unwrap_or(name).strip_suffix(".age")?;
    let (id, part) = name.split_once('.')?;
    let part = [Part::Request, Part::Response].into_iter().find(|known| known.word() == part)?;
    Some((id.parse().ok()?, part))
}

/// Length and SHA-256 of a file.
fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut sha, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((size, hex(&sha.finalize()))),
            read => {
                sha.update(buffer.get(..read).unwrap_or_default());
                size += u64::try_from(read).unwrap_or(u64::MAX);
            }
        }
    }
}

/// In hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is known of the bodies that a journal says are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Files that are as their records say,
    pub whole: u64,
    /// that are not there,
    pub missing: Vec<String>,
    /// that are other than their records say,
    pub altered: Vec<String>,
    /// and that no record names: of calls under way, and what somebody put there.
    pub unnamed: Vec<String>,
}

impl Kept {
    /// Whether each is as its record says.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.altered.is_empty()
    }

    /// What is wrong with them, in words.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let told = |what: &str, names: &[String]| {
            let first = names.first()?;
            let more = match names.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            Some(format!("{FOLDER}/{}{more} {what}", text::escape_word(first)))
        };
        let altered = told("is not what was kept", &self.altered);
        let missing = told("is missing, and no record says that it was removed", &self.missing);
        let told: Vec<_> = altered.into_iter().chain(missing).collect();
        (!told.is_empty()).then(|| told.join("; "))
    }

    /// What there is to say of them besides.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.whole > 0 {
            remarks
                .push(format!("{} bodies that are kept for auditors are as their records say.", self.whole));
        }
        if let Some(first) = self.unnamed.first() {
            let (number, first) = (self.unnamed.len(), text::escape_word(first));
            remarks.push(format!(
                "{number} files in {FOLDER}/ are in no record, of calls that have not ended or put there: {first}"
            ));
        }
        remarks
    }
}

/// Whether the outcome in a line names bodies that are kept.
pub(crate) fn has_bodies(line: &[u8]) -> bool {
    static MARK: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"captures\":[{"));
    MARK.find(line).is_some()
}

/// What there is to say where records of so many calls name bodies, and there is no folder.
pub(crate) fn without_folder(calls: u64) -> String {
    format!(
        "Bodies of {calls} calls are kept for auditors, and {FOLDER}/ is not here: they were not held against their records."
    )
}

/// Holds the files of a journal against its records; nothing where it has no folder for them, and a copy was made without. What the records
/// say is proved elsewhere (by [`crate::check`]).
///
/// # Errors
/// The journal or a file cannot be read.
pub fn check(dir: &Path) -> io::Result<Option<Kept>> {
    if !dir.join(FOLDER).exists() {
        return Ok(None);
    }
    let mut kept = Kept::default();
    let mut named = HashSet::new();
    for (_, path) in segment::list(dir)? {
        let mut lines = Lines::new(Source::open(&path)?);
        while let Some(line) = lines.next()? {
            let RawLine::Whole(line) = line else { continue };
            if !has_bodies(line) {
                continue;
            }
            let Ok(entry) = Entry::parse(line) else { continue };
            let Content::Known(Record::Outcome(outcome)) = entry.content else { continue };
            for capture in outcome.captures {
                kept.hold(dir, outcome.id, &capture);
                named.insert(capture.file);
            }
        }
    }
    for segment in folders(dir)? {
        for entry in fs::read_dir(folder(dir, segment))? {
            let name = format!("{segment:08}/{}", entry?.file_name().to_string_lossy());
            if !named.contains(&name) {
                kept.unnamed.push(name);
            }
        }
    }
    kept.unnamed.sort_unstable();
    // Those of segments that were removed meanwhile went with them.
    let oldest = segment::list(dir)?.first().map_or(0, |(number, _)| *number);
    kept.missing.retain(|name| segment_of(name).is_none_or(|segment| segment >= oldest));
    Ok(Some(kept))
}

/// The segment in whose folder a file lies.
fn segment_of(file: &str) -> Option<u32> {
    file.split('/').next()?.parse().ok()
}

impl Kept {
    fn hold(&mut self, dir: &Path, id: Uuid, capture: &Capture) {
        // Only names that the daemon gives: a record leads nowhere else.
        let path = match segment_of(&capture.file) {
            Some(segment) if capture.file == record_name(segment, id, capture.part) => {
                dir.join(FOLDER).join(&capture.file)
            }
            _ => return self.altered.push(capture.file.clone()),
        };
        match digest(&path) {
            Ok((size, sha256)) if size == capture.size && sha256 == capture.sha256 => self.whole += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.missing.push(capture.file.clone()),
            Ok(_) | Err(_) => self.altered.push(capture.file.clone()),
        }
    }
}
