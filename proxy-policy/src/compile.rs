//! From texts to a policy set, with everything that is wrong in them.

use crate::diagnostic::{Diagnostic, Findings};
use crate::draft::Draft;
use crate::place::FileId;
use crate::rehearsal::Rehearsal;
use crate::set::PolicySet;
use crate::source::SourceFile;
use crate::{link, lint, overlap};

/// What came out.
#[derive(Debug)]
pub struct Compiled {
    /// Every error and warning of every file, by file, line and column.
    pub diagnostics: Vec<Diagnostic>,
    /// The set; nothing if there was an error.
    pub set: Option<PolicySet>,
}

/// A set together with the calls that its tests make.
#[derive(Debug)]
pub struct CompiledTests {
    /// The set, in which the identities are that only the tests have.
    pub compiled: Compiled,
    /// The calls, by file and line. Those that could not be read are not among them, and are errors.
    pub calls: Vec<Rehearsal>,
}

/// Compiles all files of a policies root. The order of the files does not matter.
#[must_use]
pub fn compile(files: &[SourceFile]) -> Compiled {
    compile_with_tests(files, &[]).compiled
}

/// Like [`compile`], and also warns of what is probably not meant: what allows nothing, or everything, or is used by nobody.
#[must_use]
pub fn check(files: &[SourceFile]) -> Compiled {
    build(files, &[], true).compiled
}

/// Warns of what looks like a secret in files that are no part of a policy, such as its tests.
#[must_use]
pub fn typed_secrets(files: &[SourceFile]) -> Vec<Diagnostic> {
    let mut findings = Findings::default();
    let names: Vec<String> = files.iter().map(|file| printable(&file.path)).collect();
    for (id, file) in (0..).zip(files) {
        lint::scan(FileId(id), &file.text, &mut findings);
    }
    findings.finish(&names)
}

/// Compiles all files of a policies root together with its tests. What comes out is for the tests, and never goes live.
#[must_use]
pub fn compile_with_tests(files: &[SourceFile], tests: &[SourceFile]) -> CompiledTests {
    build(files, tests, false)
}

fn build(files: &[SourceFile], tests: &[SourceFile], lints: bool) -> CompiledTests {
    let by_path = |files: &mut Vec<&SourceFile>| files.sort_by(|a, b| a.path.cmp(&b.path));
    let (mut policies, mut rehearsals): (Vec<&SourceFile>, Vec<&SourceFile>) =
        (files.iter().collect(), tests.iter().collect());
    by_path(&mut policies);
    by_path(&mut rehearsals);
    let names: Vec<String> = policies.iter().chain(&rehearsals).map(|file| printable(&file.path)).collect();
    let mut findings = Findings::default();
    let mut draft = Draft::default();
    let mut ids = (0..).map(FileId);
    for (file, id) in policies.into_iter().zip(&mut ids) {
        draft.read(id, file, &mut findings);
        if lints {
            lint::scan(id, &file.text, &mut findings);
        }
    }
    let mut calls = Vec::new();
    for (file, id) in rehearsals.into_iter().zip(&mut ids) {
        calls.extend(draft.read_test(id, file, &mut findings));
    }
    let linked = link::link(&draft, &calls, &names, &mut findings);
    overlap::check(&draft.identities, &names, &mut findings);
    if lints && !findings.has_errors() {
        lint::check(&draft, &linked.identities, &names, &mut findings);
    }
    let set = (!findings.has_errors()).then(|| PolicySet::new(linked, names.clone()));
    CompiledTests { compiled: Compiled { diagnostics: findings.finish(&names), set }, calls }
}

/// The label of a file with nothing in it that could drive a terminal.
fn printable(path: &str) -> String {
    path.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}
