//! What is wrong with a policy, where, and what to do about it.

use std::fmt;

use crate::place::Place;

/// How bad it is: an error refuses the whole set, a warning does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The set is refused.
    Error,
    /// The set is used; something in it is probably not what its author meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One finding in one file. Its `Display` is `FILE:LINE:COLUMN: error: MESSAGE`, then a help line.
///
/// Values that may hold a secret are never part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The label of the file, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, severity, message, help } = self;
        write!(f, "{file}:{line}:{column}: {severity}: {message}")?;
        match help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// What is wrong with one value and what to do, before anyone knows where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) help: String,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// Collects findings while files are read; they get file names and an order at the end.
#[derive(Default)]
pub(crate) struct Findings {
    list: Vec<(Place, Severity, Problem)>,
    /// How many of them are errors: asked for each of very many files.
    errors: usize,
}

impl Findings {
    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.problem(place, Problem::new(message, help));
    }

    pub(crate) fn warning(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.list.push((place, Severity::Warning, Problem::new(message, help)));
    }

    pub(crate) fn problem(&mut self, place: Place, problem: Problem) {
        self.errors += 1;
        self.list.push((place, Severity::Error, problem));
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// How many errors there are; warnings do not count.
    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// The findings by file, line and column; `names` are the labels of the files.
    pub(crate) fn finish(self, names: &[String]) -> Vec<Diagnostic> {
        let name = |place: Place| names.get(place.file.0 as usize).cloned().unwrap_or_default();
        let mut all: Vec<Diagnostic> = self
            .list
            .into_iter()
            .map(|(place, severity, Problem { message, help })| Diagnostic {
                file: name(place),
                line: place.line,
                column: place.column,
                severity,
                message,
                help: (!help.is_empty()).then_some(help),
            })
            .collect();
        all.sort_by(|a, b| {
            (&a.file, a.line, a.column, a.severity).cmp(&(&b.file, b.line, b.column, b.severity))
        });
        all.dedup();
        all
    }
}

/// The longest piece of a file that a message repeats, in characters.
const MAX_QUOTE: usize = 80;

/// A piece of a file in quotes, with nothing in it that could drive a terminal. Never for a secret.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars().take(MAX_QUOTE) {
        match c {
            '"' => out.push('"'),
            c => out.extend(c.escape_debug()),
        }
    }
    out.push_str(if text.chars().nth(MAX_QUOTE).is_some() { "…\"" } else { "\"" });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_reads_as_place_severity_message_and_help() {
        let mut diagnostic = Diagnostic {
            file: "policies/x.toml".into(),
            line: 3,
            column: 1,
            severity: Severity::Error,
            message: "unknown key \"exee\"".into(),
            help: Some("did you mean \"exe\"?".into()),
        };
        let text = "policies/x.toml:3:1: error: unknown key \"exee\"\n  help: did you mean \"exe\"?";
        assert_eq!(diagnostic.to_string(), text);
        diagnostic.help = None;
        assert_eq!(diagnostic.to_string(), "policies/x.toml:3:1: error: unknown key \"exee\"");
    }

    #[test]
    fn a_quote_is_harmless_to_a_terminal_and_short() {
        assert_eq!(quote("a\u{1b}[31m\n"), r#""a\u{1b}[31m\n""#);
        assert_eq!(quote(&"x".repeat(500)).chars().count(), MAX_QUOTE + 3);
    }
}
