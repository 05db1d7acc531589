//! Lines at any place of a segment, by way of the pages that were read last.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::path::Path;

use crate::line::MAX_LINE;
use crate::source::Source;

/// Bytes of a page: about what has to be unpacked anyhow.
const PAGE: u64 = 1 << 20;

/// How many are kept: an outcome and its decision are seldom far from each other.
const KEPT: usize = 8;

/// Pages of segments, before they were compressed.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Segment, number of the page, bytes: the one that was used last comes first.
    kept: VecDeque<(u32, u64, Vec<u8>)>,
}

impl Pages {
    /// The line that begins here, without its newline; at most as long as lines are.
    pub(super) fn line(&mut self, segment: u32, path: &Path, offset: u64) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut at = offset;
        while line.len() <= MAX_LINE {
            let page = self.page(segment, path, at / PAGE)?;
            let rest = usize::try_from(at % PAGE).ok().and_then(|from| page.get(from..)).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(rest.get(..end).unwrap_or_default());
                return Ok(line);
            }
            line.extend_from_slice(rest);
            at = (at / PAGE + 1) * PAGE;
        }
        Ok(line)
    }

    fn page(&mut self, segment: u32, path: &Path, number: u64) -> io::Result<&[u8]> {
        let at = self.kept.iter().position(|(of, page, _)| (*of, *page) == (segment, number));
        let page = match at.and_then(|at| self.kept.remove(at)) {
            Some(page) => page,
            None => (segment, number, read(path, number.saturating_mul(PAGE))?),
        };
        self.kept.truncate(KEPT - 1);
        self.kept.push_front(page);
        Ok(self.kept.front().map(|(_, _, bytes)| bytes.as_slice()).unwrap_or_default())
    }
}

fn read(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match Source::open_at(path, offset) {
        Ok(source) => source.take(PAGE).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
        Err(error) => return Err(error),
    };
    Ok(bytes)
}
