//! Patterns over `/`-separated text, for request paths, executables, cgroups and units: one meaning for all.
//!
//! | pattern | matches |
//! | --- | --- |
//! | `*` as a whole segment | one segment, not empty |
//! | `*` in a segment (`acme-*`, `*.json`) | any characters of that segment, also none |
//! | `**` as a whole segment, anywhere | any number of segments, also none: `/a/**` matches `/a`, `/a/` and `/a/b/c` |
//! | anything else | itself |
//!
//! Matching allocates nothing and takes at most (length of text) × (length of pattern) steps: going back to the last
//! `*` or `**` is enough, an earlier one never needs to be tried again.

use crate::path::escape;

/// How the text that is matched spells its bytes.
pub(crate) trait Spelling {
    /// The byte at a position and the position after it.
    fn next(text: &[u8], at: usize) -> Option<(u8, usize)>;
}

/// Bytes stand for themselves.
pub(crate) struct Plain;

/// `%20` stands for a space.
pub(crate) struct Percent;

impl Spelling for Plain {
    fn next(text: &[u8], at: usize) -> Option<(u8, usize)> {
        text.get(at).map(|byte| (*byte, at + 1))
    }
}

impl Spelling for Percent {
    fn next(text: &[u8], at: usize) -> Option<(u8, usize)> {
        match escape(text, at) {
            Some(byte) => Some((byte, at + 3)),
            None => Plain::next(text, at),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    /// `**`
    Rest,
    /// `*`
    One,
    /// No wildcard.
    Literal(Box<[u8]>),
    /// Some `*` among other bytes.
    Mixed(Box<[Token]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Star,
    Byte(u8),
}

/// A segment of a pattern that an index can look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lead {
    /// These bytes.
    Literal(Box<[u8]>),
    /// Any one segment.
    Star,
}

/// A compiled pattern. A leading slash of pattern and text is not part of the segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob {
    segments: Box<[Segment]>,
}

/// `**` next to other characters: it would look like it crosses slashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoubleStarNotAlone;

impl Glob {
    pub(crate) fn parse<S: Spelling>(text: &str) -> Result<Self, DoubleStarNotAlone> {
        let text = text.strip_prefix('/').unwrap_or(text);
        Ok(Self { segments: text.split('/').map(Segment::parse::<S>).collect::<Result<_, _>>()? })
    }

    /// Whether nothing in the pattern is a wildcard.
    pub(crate) fn is_literal(&self) -> bool {
        self.segments.iter().all(|segment| matches!(segment, Segment::Literal(_)))
    }

    pub(crate) fn matches<S: Spelling>(&self, text: &str) -> bool {
        matches::<S>(&self.segments, text.strip_prefix('/').unwrap_or(text).as_bytes())
    }

    /// Of a text that does not match: the first segment that differs, from 1. None: it is what follows a `**`.
    pub(crate) fn first_miss<S: Spelling>(&self, text: &str) -> Option<usize> {
        let mut texts = text.strip_prefix('/').unwrap_or(text).split('/');
        for (at, segment) in (1..).zip(&self.segments) {
            match (segment, texts.next()) {
                (Segment::Rest, _) => return None,
                (segment, Some(text)) if segment.matches::<S>(text.as_bytes()) => {}
                _ => return Some(at),
            }
        }
        texts.next().map(|_| self.segments.len() + 1)
    }

    /// Like `matches`, but a slash at the end of pattern or text makes no difference.
    pub(crate) fn matches_with_or_without_slash<S: Spelling>(&self, text: &str) -> bool {
        let segments = match &*self.segments {
            [before @ .., Segment::Literal(last)] if last.is_empty() && !before.is_empty() => before,
            all => all,
        };
        let text = text.strip_prefix('/').unwrap_or(text);
        matches::<S>(segments, text.strip_suffix('/').unwrap_or(text).as_bytes())
    }

    /// The segments up to the first that is neither literal nor `*`; without a slash at the end if that does not matter.
    pub(crate) fn leads(&self, ends_open: bool) -> Vec<Lead> {
        let segments = match &*self.segments {
            [before @ .., Segment::Literal(last)] if ends_open && last.is_empty() && !before.is_empty() => {
                before
            }
            all => all,
        };
        let lead = |segment: &Segment| match segment {
            Segment::Literal(bytes) => Some(Lead::Literal(bytes.clone())),
            Segment::One => Some(Lead::Star),
            Segment::Rest | Segment::Mixed(_) => None,
        };
        segments.iter().map_while(lead).collect()
    }

    /// Whether it is certain that every text that `other` matches is matched by this one, too.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let (mut mine, mut theirs, mut retry) = (0, 0, None);
        loop {
            match (self.segments.get(mine), other.segments.get(theirs)) {
                (None, None) => return true,
                (Some(Segment::Rest), _) => {
                    mine += 1;
                    retry = Some((mine, theirs));
                    continue;
                }
                (Some(a), Some(b)) if a.covers(b) => {
                    (mine, theirs) = (mine + 1, theirs + 1);
                    continue;
                }
                _ => {}
            }
            match retry {
                Some((after, from)) if from < other.segments.len() => {
                    retry = Some((after, from + 1));
                    (mine, theirs) = (after, from + 1);
                }
                _ => return false,
            }
        }
    }
}

impl Segment {
    fn parse<S: Spelling>(text: &str) -> Result<Self, DoubleStarNotAlone> {
        match text {
            "**" => return Ok(Self::Rest),
            "*" => return Ok(Self::One),
            text if text.contains("**") => return Err(DoubleStarNotAlone),
            _ => {}
        }
        let (bytes, mut at, mut tokens) = (text.as_bytes(), 0, Vec::new());
        while let Some((byte, next)) = S::next(bytes, at) {
            let star = bytes.get(at) == Some(&b'*');
            tokens.push(if star { Token::Star } else { Token::Byte(byte) });
            at = next;
        }
        let literal = tokens.iter().map(|token| match token {
            Token::Star => None,
            Token::Byte(byte) => Some(*byte),
        });
        Ok(match literal.collect() {
            Some(bytes) => Self::Literal(bytes),
            None => Self::Mixed(tokens.into()),
        })
    }

    fn matches<S: Spelling>(&self, text: &[u8]) -> bool {
        match self {
            Self::Rest => true,
            Self::One => !text.is_empty(),
            Self::Literal(bytes) => literal_matches::<S>(bytes, text),
            Self::Mixed(tokens) => tokens_match::<S>(tokens, text),
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::One, Self::Literal(bytes)) => !bytes.is_empty(),
            (Self::One, Self::One | Self::Mixed(_)) => true,
            (Self::Mixed(tokens), Self::Literal(bytes)) => tokens_match::<Plain>(tokens, bytes),
            (a, b) => a == b,
        }
    }
}

fn literal_matches<S: Spelling>(pattern: &[u8], text: &[u8]) -> bool {
    let mut at = 0;
    for byte in pattern {
        match S::next(text, at) {
            Some((found, next)) if found == *byte => at = next,
            _ => return false,
        }
    }
    at == text.len()
}

fn tokens_match<S: Spelling>(tokens: &[Token], text: &[u8]) -> bool {
    let (mut token, mut at, mut retry) = (0, 0, None);
    loop {
        match (tokens.get(token), S::next(text, at)) {
            (None, None) => return true,
            (Some(Token::Star), _) => {
                token += 1;
                retry = Some((token, at));
                continue;
            }
            (Some(Token::Byte(wanted)), Some((found, next))) if *wanted == found => {
                (token, at) = (token + 1, next);
                continue;
            }
            _ => {}
        }
        match retry.and_then(|(after, from)| S::next(text, from).map(|(_, next)| (after, next))) {
            Some((after, from)) => {
                retry = Some((after, from));
                (token, at) = (after, from);
            }
            None => return false,
        }
    }
}

/// The segment that begins at `start`, and where the next one begins.
fn segment_at(text: &[u8], start: usize) -> (&[u8], Option<usize>) {
    let rest = text.get(start..).unwrap_or_default();
    match rest.iter().position(|byte| *byte == b'/') {
        Some(end) => (rest.get(..end).unwrap_or_default(), Some(start + end + 1)),
        None => (rest, None),
    }
}

fn matches<S: Spelling>(segments: &[Segment], text: &[u8]) -> bool {
    let mut segment = 0;
    let mut cursor = Some(0);
    let mut retry: Option<(usize, Option<usize>)> = None;
    loop {
        match (segments.get(segment), cursor) {
            (None, None) => return true,
            (Some(Segment::Rest), _) => {
                segment += 1;
                if segment == segments.len() {
                    return true;
                }
                retry = Some((segment, cursor));
                continue;
            }
            (Some(_), None) => return false,
            (Some(wanted), Some(start)) => {
                let (found, next) = segment_at(text, start);
                if wanted.matches::<S>(found) {
                    (segment, cursor) = (segment + 1, next);
                    continue;
                }
            }
            (None, Some(_)) => {}
        }
        match retry {
            Some((after, Some(start))) => {
                let (_, next) = segment_at(text, start);
                retry = Some((after, next));
                (segment, cursor) = (after, next);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
