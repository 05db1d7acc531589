//! Reads a journal on as it grows: over restarts of the daemon, a repair of its end, into the next segment, and whatever
//! becomes of those that were read.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::{self, BufReader, Seek as _, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use proxy_journal::archive::{Call, Line};
use proxy_journal::facts::Part;
use proxy_journal::source::is_packed;
use proxy_journal::{Archive, Facts, Item, Place, Reader, Source, segment, text};
use uuid::Uuid;

use super::filter::Wanted;
use super::{human_line, json_lines};

/// How many open calls are remembered; the outcome of an older one is shown without its request.
const REMEMBERED: usize = 10_000;

/// How often a segment is looked for that was there a moment ago: it is compressed, or comes to its time.
const TRIES: usize = 10;

/// Where reading is.
pub(super) struct Follower {
    dir: PathBuf,
    number: u32,
    /// Of a segment that is not compressed; it stays readable when it is removed.
    file: Option<File>,
    path: PathBuf,
    /// End of the last whole line that was read: a half line is read again when it is whole, or was replaced.
    offset: u64,
}

impl Follower {
    /// Begins at this place, in the last segment.
    pub(super) fn begin(dir: &Path, place: Place) -> anyhow::Result<Follower> {
        for _ in 0..TRIES {
            let listed = segment::list(dir).with_context(|| format!("{} cannot be read", dir.display()))?;
            let Some((number, path)) = listed.into_iter().find(|(number, _)| *number >= place.segment) else {
                break;
            };
            let offset = if number == place.segment { place.offset } else { 0 };
            match open(&path) {
                Ok(file) => return Ok(Follower { dir: dir.to_owned(), number, file, path, offset }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("{} cannot be read", path.display()));
                }
            }
        }
        bail!("{}: the segments of the journal have gone", dir.display())
    }

    /// Shows what was written since the last look.
    pub(super) fn look(&mut self, shower: &mut Shower, out: &mut impl Write) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            // What follows is looked for first: when it is there, nothing more is written to this segment.
            let listed = segment::list(&self.dir).unwrap_or_default();
            self.read(shower, out)?;
            let next = listed.iter().find(|(number, _)| *number > self.number);
            let mine = listed.iter().find(|(number, _)| *number == self.number);
            let (number, path) = match (next, mine) {
                (Some((number, path)), _) => {
                    if *number > self.number + 1 {
                        let gap = (self.number + 1, *number - 1);
                        shower.say(
                            out,
                            &format!("segments {} to {} have gone before they were shown", gap.0, gap.1),
                        )?;
                    }
                    (*number, path.clone())
                }
                (None, Some((number, path))) if self.was_replaced(path)? => {
                    shower.say(
                        out,
                        &format!("{} was replaced; it is shown from its beginning", path.display()),
                    )?;
                    (*number, path.clone())
                }
                (None, None) => match listed.first() {
                    Some((number, path)) => {
                        shower.say(out, &format!("the journal was replaced; {} is shown", path.display()))?;
                        (*number, path.clone())
                    }
                    None => return Ok(()),
                },
                (None, Some(_)) => return Ok(()),
            };
            match open(&path) {
                Ok(file) => (self.number, self.file, self.path, self.offset) = (number, file, path, 0),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("{} cannot be read", path.display()));
                }
            }
        }
        Ok(())
    }

    /// Whether another file has the name of this segment now, or this one lost lines that were read. One that was compressed
    /// has the same lines.
    fn was_replaced(&self, path: &Path) -> io::Result<bool> {
        let Some(file) = &self.file else { return Ok(!is_packed(path)) };
        if is_packed(path) {
            return Ok(false);
        }
        let mine = file.metadata()?;
        let Ok(named) = path.metadata() else { return Ok(false) };
        Ok((named.dev(), named.ino()) != (mine.dev(), mine.ino()) || mine.len() < self.offset)
    }

    /// Reads whole lines from the offset on.
    fn read(&mut self, shower: &mut Shower, out: &mut impl Write) -> anyhow::Result<()> {
        let (number, from) = (self.number, self.offset);
        let mut each = |item: &Item, start| shower.show(item, Place { segment: number, offset: start }, out);
        let read = match &mut self.file {
            Some(file) => {
                file.seek(SeekFrom::Start(from))?;
                read(BufReader::with_capacity(64 << 10, &*file), from, &mut each)
            }
            None => match Source::open_at(&self.path, from) {
                Ok(source) => read(source, from, &mut each),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
                Err(error) => Err(error.into()),
            },
        }?;
        self.offset += read;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    let file = File::open(path)?;
    Ok((!is_packed(path)).then_some(file))
}

/// Reads to the end; how many bytes of whole lines there were.
fn read(
    from: impl io::BufRead,
    offset: u64,
    each: &mut dyn FnMut(&Item, u64) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let mut reader = Reader::new(from);
    loop {
        let start = offset + reader.offset();
        let Some(item) = reader.next() else { return Ok(reader.offset()) };
        each(&item?, start)?;
    }
}

/// Turns what comes into lines for the screen: a call when it has ended.
pub(super) struct Shower {
    /// `None`: records are shown as they come.
    calls: Option<Calls>,
}

struct Calls {
    wanted: Wanted,
    json: bool,
    colour: bool,
    /// For the decisions of calls that were open when following began.
    archive: Archive,
    open: HashMap<Uuid, Line>,
    order: VecDeque<Uuid>,
}

impl Shower {
    /// Every record as it stands there.
    pub(super) fn raw() -> Shower {
        Shower { calls: None }
    }

    /// The calls that are wanted.
    pub(super) fn new(archive: Archive, wanted: Wanted, json: bool, colour: bool) -> Shower {
        let (open, order) = (HashMap::new(), VecDeque::new());
        Shower { calls: Some(Calls { wanted, json, colour, archive, open, order }) }
    }

    /// Says something of the journal itself, to people.
    fn say(&self, out: &mut impl Write, what: &str) -> io::Result<()> {
        if self.calls.as_ref().is_some_and(|calls| !calls.json) {
            writeln!(out, "!! {}", text::escape(what))?;
        }
        Ok(())
    }

    fn show(&mut self, item: &Item, place: Place, out: &mut impl Write) -> anyhow::Result<()> {
        let line = match item {
            Item::Entry(entry) => entry.text.as_bytes(),
            Item::Unreadable { fault, .. } => {
                let Place { segment, offset } = place;
                return Ok(self.say(out, &format!("segment {segment}, byte {offset}: {fault}"))?);
            }
            Item::Torn { .. } => return Ok(()),
        };
        let Some(calls) = &mut self.calls else {
            writeln!(out, "{}", text::escape_json(&String::from_utf8_lossy(line)))?;
            return Ok(());
        };
        let line = Line { place, text: line.to_vec() };
        let Some(call) = calls.call(line)? else { return Ok(()) };
        if !calls.wanted.matches(&call.facts) {
            return Ok(());
        }
        let shown = if calls.json { json_lines(&call) } else { vec![human_line(&call, calls.colour)] };
        Ok(shown.iter().try_for_each(|line| writeln!(out, "{line}"))?)
    }
}

impl Calls {
    /// The call that this line ends; `None` for a decision whose outcome follows.
    fn call(&mut self, line: Line) -> anyhow::Result<Option<Call>> {
        let decision = match Part::of(&line.text) {
            Part::Opens(id) => {
                self.remember(id, line);
                return Ok(None);
            }
            Part::Ends(id) => match self.open.remove(&id) {
                Some(decision) => Some(decision),
                // What is older can be gone, or cannot be read: then the outcome stands alone.
                None => self
                    .archive
                    .decision_before(id, line.place)
                    .ok()
                    .flatten()
                    .and_then(|place| self.archive.line(place).ok().flatten()),
            },
            Part::Alone => None,
        };
        let facts = Facts::of(&line.text, decision.as_ref().map(|line| line.text.as_slice()))?;
        Ok(Some(Call { facts, decision, line }))
    }

    fn remember(&mut self, id: Uuid, line: Line) {
        self.open.insert(id, line);
        self.order.push_back(id);
        while self.open.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.open.remove(&oldest);
        }
        // Ids of calls that have ended need no place in the order.
        if self.order.len() > 2 * REMEMBERED {
            self.order.retain(|id| self.open.contains_key(id));
        }
    }
}
