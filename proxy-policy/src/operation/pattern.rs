//! The path of an operation: a pattern in normal form, with `{name}` for a segment that conditions can look at.

use crate::diagnostic::{Problem, quote};
use crate::glob::{Glob, Lead, Percent};
use crate::path::{CallPath, PathError, decoded};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathPattern {
    /// The `*` of `OPTIONS *`.
    Asterisk,
    Glob {
        text: Box<str>,
        glob: Glob,
        /// In lower case, for denies.
        folded: Glob,
        /// The named segments, by position.
        captures: Box<[(usize, Box<str>)]>,
    },
}

impl PathPattern {
    pub(super) fn allows(&self, path: &CallPath<'_>) -> bool {
        match self {
            Self::Asterisk => path.is_asterisk(),
            Self::Glob { glob, .. } => !path.is_asterisk() && glob.matches::<Percent>(path.as_str()),
        }
    }

    /// Like `allows`, for every reading of the path that some server has.
    pub(super) fn denies(&self, path: &CallPath<'_>) -> bool {
        match self {
            Self::Asterisk => path.is_asterisk(),
            Self::Glob { glob, folded, text, .. } => {
                let path_text = path.as_str();
                !path.is_asterisk()
                    && (glob.matches_with_or_without_slash::<Percent>(path_text)
                        || (is_folded_otherwise(path_text) || is_folded_otherwise(text))
                            && folded.matches_with_or_without_slash::<Percent>(&fold(path_text)))
            }
        }
    }

    /// Why it does not match a path, in words.
    pub(super) fn why_not(&self, path: &CallPath<'_>) -> String {
        let Self::Glob { glob, text, .. } = self else { return "only the target * is meant".to_owned() };
        let Some(at) = glob.first_miss::<Percent>(path.as_str()) else {
            return format!("the end of {path} is not what follows ** in {text}");
        };
        let segment = |text: &str| text.strip_prefix('/').unwrap_or(text).split('/').nth(at - 1).map(quote);
        match (segment(path.as_str()), segment(text)) {
            (Some(found), Some(wanted)) => format!("segment {at} of the path is {found}, not {wanted}"),
            (Some(found), None) => format!("the path goes on with segment {at}, {found}"),
            (None, _) => format!("the path ends before segment {at} of {text}"),
        }
    }

    /// Whether it is certain that this matches every path that `other` matches.
    pub(super) fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Glob { glob, .. }, Self::Glob { glob: other, .. }) => glob.covers(other),
            (a, b) => a == b,
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Asterisk => "*",
            Self::Glob { text, .. } => text,
        }
    }

    /// The segments up to the first that is neither literal nor `*`; for denies as the most forgiving server reads them.
    pub(super) fn leads(&self, denies: bool) -> Vec<Lead> {
        match self {
            Self::Asterisk => Vec::new(),
            // A parameter in the pattern is matched as it is, and as if it were not there.
            Self::Glob { text, .. } if denies && (text.contains(';') || text.contains("%3B")) => Vec::new(),
            Self::Glob { folded, .. } if denies => folded.leads(true),
            Self::Glob { glob, .. } => glob.leads(false),
        }
    }

    /// The names of its captures.
    pub(super) fn capture_names(&self) -> impl Iterator<Item = &str> {
        let captures = match self {
            Self::Asterisk => &[][..],
            Self::Glob { captures, .. } => captures,
        };
        captures.iter().map(|(_, name)| &**name)
    }

    /// What the captures of a path that matches are, decoded. With `folded`, as the most forgiving server reads it.
    pub(super) fn captures(&self, path: &CallPath<'_>, read_folded: bool) -> Vec<(&str, String)> {
        let Self::Glob { captures, .. } = self else { return Vec::new() };
        let text = if read_folded { fold(path.as_str()) } else { path.as_str().to_owned() };
        let text = text.strip_prefix('/').unwrap_or(&text);
        let segment = |at: usize| text.split('/').nth(at).map(decoded);
        captures.iter().filter_map(|(at, name)| Some((&**name, segment(*at)?))).collect()
    }
}

/// Whether servers exist that read this path as another one: they drop parameters (`/a;x=1` is `/a`), or do not tell
/// letters in upper and lower case apart.
pub(super) fn is_folded_otherwise(path: &str) -> bool {
    path.bytes().any(|byte| byte == b';' || byte.is_ascii_uppercase())
}

/// The path as the most forgiving of these servers reads it.
fn fold(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        let end =
            [segment.find(';'), segment.find("%3B")].into_iter().flatten().min().unwrap_or(segment.len());
        out.extend(segment.get(..end).unwrap_or_default().chars().map(|c| c.to_ascii_lowercase()));
    }
    out
}

impl PathPattern {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |message: String, help: &str| Err(Problem::new(message, help));
        let quoted = quote(text);
        let (text, captures) = take_captures(text)?;
        let text = text.as_str();
        let normal = match CallPath::normalize(text) {
            Ok(normal) if !normal.is_asterisk() => normal,
            Ok(_) => {
                return bad(
                    "the pattern \"*\" stands for the asterisk of OPTIONS only".into(),
                    "write \"OPTIONS *\" for that, or /** for any path",
                );
            }
            Err(error) => return bad(format!("bad pattern {quoted}: {error}"), help_for(error)),
        };
        if normal.as_str() != text {
            return Err(Problem::new(
                format!("the pattern {quoted} is not in normal form and would never match"),
                match captures.is_empty() {
                    true => format!("write {}", quote(normal.as_str())),
                    false => format!("without its names, the normal form is {}", quote(normal.as_str())),
                },
            ));
        }
        match (Glob::parse::<Percent>(text), Glob::parse::<Percent>(&text.to_ascii_lowercase())) {
            (Ok(glob), Ok(folded)) => Ok(Self::Glob { text: text.into(), glob, folded, captures }),
            _ => bad(
                format!("the pattern {quoted} has a ** that is not a whole segment"),
                "write ** alone between slashes for any number of segments, or * for a part of one",
            ),
        }
    }
}

fn help_for(error: PathError) -> &'static str {
    match error {
        PathError::NotAbsolute => "begin the pattern with /",
        PathError::Whitespace => "write one space between method and path, and %20 for a space in a path",
        PathError::Delimiter => {
            "patterns match the path only: leave out the query, write %3F or %23 for the characters"
        }
        PathError::NotAscii => "percent-encode it as UTF-8, such as %C3%A9 for é",
        PathError::BadEscape => "write %25 for a percent sign",
        PathError::AboveRoot | PathError::DotSegmentParameters => {
            "write the path that is meant, without dot segments"
        }
        _ => "requests with such a path are refused in any case: leave it out",
    }
}

type Captures = Box<[(usize, Box<str>)]>;

/// The pattern with `*` for each `{name}`, and where the names stand.
fn take_captures(text: &str) -> Result<(String, Captures), Problem> {
    let mut out: Vec<&str> = Vec::new();
    let mut captures: Vec<(usize, Box<str>)> = Vec::new();
    let mut after_rest = false;
    for (at, segment) in text.strip_prefix('/').unwrap_or(text).split('/').enumerate() {
        after_rest |= segment == "**";
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let Some(name) = name else {
            if segment.contains(['{', '}']) {
                return Err(Problem::new(
                    format!("the pattern {} has braces inside a segment", quote(text)),
                    "{name} stands for a whole segment; * stands for any characters of one",
                ));
            }
            out.push(segment);
            continue;
        };
        let bad = |message: String, help: &str| Err(Problem::new(message, help));
        if !is_name(name) {
            let help =
                "a name has small letters, digits and _, and begins with a letter; ** is written alone";
            return bad(format!("{} is not a name for a segment", quote(name)), help);
        }
        if after_rest {
            let help = "put the names before the **, where it is certain which segment they stand for";
            return bad(format!("{} stands after a **", quote(segment)), help);
        }
        if captures.iter().any(|(_, other)| **other == *name) {
            return bad(
                format!("{} is in the pattern twice", quote(segment)),
                "give each segment its own name",
            );
        }
        captures.push((at, name.into()));
        out.push("*");
    }
    let slash = if text.starts_with('/') { "/" } else { "" };
    Ok((format!("{slash}{}", out.join("/")), captures.into()))
}

/// Whether this can name a segment or a parameter: a word of CEL.
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
