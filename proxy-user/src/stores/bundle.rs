//! Copies that everybody can read: our roots, and the system's with ours, for clients that take one file.

use std::ffi::OsStr;
use std::path::Path;

use super::error::StoreError;
use super::files::{Folder, split};
use super::step::Step;
use super::system::roots_of_system;
use super::{Context, Look};
use crate::trust::to_pem;

/// Our roots alone, for clients that add a file to what they trust.
pub(super) const ROOTS: &str = "roots.pem";
/// The system's roots and ours, for clients that trust one file alone.
pub(super) const BUNDLE: &str = "bundle.pem";

/// What is there, and what is to be done.
pub(super) fn look(context: &Context<'_>) -> Result<Look, StoreError> {
    let mut look = Look::at(context.copies);
    let wanted = if context.roots.is_empty() {
        [(ROOTS, None), (BUNDLE, None)]
    } else {
        let (_, theirs) = roots_of_system(context.layout, &context.ours())?;
        let bundle: String =
            std::iter::once(context.roots.pem()).chain(theirs.iter().map(|der| to_pem(der))).collect();
        [(ROOTS, Some(context.roots.pem())), (BUNDLE, Some(bundle))]
    };
    let folder = Folder::of_system(context.copies)?;
    if folder.is_none() && !context.roots.is_empty() {
        make_folders(context.copies, &mut look.steps)?;
    }
    for (name, content) in wanted {
        let old = folder.as_ref().map_or(Ok(None), |folder| folder.read(OsStr::new(name)))?;
        let before = old.as_ref().map(super::files::Found::digest);
        let path = context.copies.join(name);
        match (content, before) {
            (Some(content), before) => {
                if before == Some(super::files::digest(content.as_bytes())) {
                    look.present += 1;
                    continue;
                }
                look.extra += usize::from(before.is_some());
                let about = match name {
                    ROOTS => format!("{} of ours", context.roots.iter().count()),
                    _ => "the system's roots and ours".to_owned(),
                };
                look.steps.push(Step::Write {
                    path,
                    content: content.into_bytes(),
                    mode: 0o644,
                    before,
                    about,
                });
            }
            (None, Some(before)) => {
                look.extra += 1;
                look.steps.push(Step::Delete { path, before, about: "a copy of ours".to_owned() });
            }
            (None, None) => {}
        }
    }
    Ok(look)
}

/// The steps that make a folder, with those above it that are missing.
pub(super) fn make_folders(path: &Path, steps: &mut Vec<Step>) -> Result<(), StoreError> {
    let (parent, _) = split(path)?;
    if !parent.is_dir() {
        make_folders(parent, steps)?;
    }
    steps.push(Step::MakeFolder { path: path.to_owned(), mode: 0o755 });
    Ok(())
}
