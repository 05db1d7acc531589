//! Names to positions: who is meant, who is there twice, who is not there.

use std::collections::HashMap;

use crate::diagnostic::{Findings, quote};
use crate::place::{Place, Spanned};
use crate::suggest;

/// The names of one kind of thing.
pub(crate) struct Names<'d> {
    kind: &'static str,
    known: HashMap<&'d str, (usize, Place)>,
    /// Names from files that could not be read: they are neither found nor missed.
    broken: &'d [String],
}

impl<'d> Names<'d> {
    /// Reports every name that is there twice; the first one counts.
    pub(crate) fn collect(
        kind: &'static str,
        names: impl Iterator<Item = &'d Spanned<String>>,
        broken: &'d [String],
        files: &[String],
        findings: &mut Findings,
    ) -> Self {
        let mut known: HashMap<&'d str, (usize, Place)> = HashMap::new();
        for (i, name) in names.enumerate() {
            if let Some((_, first)) = known.get(name.value.as_str()) {
                findings.error(
                    name.place,
                    format!("the {kind} {} is already defined at {}", quote(name), place_text(*first, files)),
                    "rename or remove one of the two",
                );
                continue;
            }
            known.insert(&name.value, (i, name.place));
        }
        Self { kind, known, broken }
    }

    /// The position of a name; an unknown one is reported.
    pub(crate) fn find(&self, name: &Spanned<String>, findings: &mut Findings) -> Option<usize> {
        let found = self.known.get(name.value.as_str()).map(|(i, _)| *i);
        if found.is_none() && !self.broken.contains(&name.value) {
            let (kind, known) = (self.kind, self.known.keys().copied());
            findings.error(
                name.place,
                format!("unknown {kind} {}", quote(name)),
                suggest::help(name, known, kind),
            );
        }
        found
    }

    /// Like `find`, for names where someone may have typed a secret: what was written is not repeated.
    pub(crate) fn find_silently(&self, name: &Spanned<String>, findings: &mut Findings) -> Option<usize> {
        let found = self.known.get(name.value.as_str()).map(|(i, _)| *i);
        if found.is_none() && !self.broken.contains(&name.value) {
            let (kind, known) = (self.kind, self.known.keys().copied());
            findings.error(name.place, format!("unknown {kind}"), suggest::help(name, known, kind));
        }
        found
    }
}

/// `FILE:LINE:COLUMN`.
pub(crate) fn place_text(place: Place, files: &[String]) -> String {
    let file = files.get(place.file.0 as usize).map_or("", String::as_str);
    format!("{file}:{}:{}", place.line, place.column)
}
