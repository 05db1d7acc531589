//! From texts to a policy set, with everything that is wrong in them.

use crate::diagnostic::{Diagnostic, Findings};
use crate::draft::Draft;
use crate::place::FileId;
use crate::set::PolicySet;
use crate::source::SourceFile;
use crate::{link, overlap};

/// What came out.
#[derive(Debug)]
pub struct Compiled {
    /// Every error and warning of every file, by file, line and column.
    pub diagnostics: Vec<Diagnostic>,
    /// The set; nothing if there was an error.
    pub set: Option<PolicySet>,
}

/// Compiles all files of a policies root. The order of the files does not matter.
#[must_use]
pub fn compile(files: &[SourceFile]) -> Compiled {
    let mut sorted: Vec<&SourceFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let names: Vec<String> = sorted.iter().map(|file| printable(&file.path)).collect();
    let mut findings = Findings::default();
    let mut draft = Draft::default();
    for (id, file) in (0..).zip(sorted) {
        draft.read(FileId(id), file, &mut findings);
    }
    let linked = link::link(&draft, &names, &mut findings);
    overlap::check(&draft.identities, &names, &mut findings);
    let set = (!findings.has_errors()).then(|| PolicySet::new(linked, names.clone()));
    Compiled { diagnostics: findings.finish(&names), set }
}

/// The label of a file with nothing in it that could drive a terminal.
fn printable(path: &str) -> String {
    path.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
