//! A file of certificates that a program brings (certifi's `cacert.pem`, and copies of it): our roots at its end.

use std::path::Path;

use super::error::StoreError;
use super::files::{Folder, Found, real, split};
use super::markers;
use super::roots::Fingerprint;
use super::step::Step;
use super::{Context, Look};
use crate::trust::certificates;

/// What is there, and what is to be done.
pub(super) fn look(path: &Path, context: &Context<'_>) -> Result<Look, StoreError> {
    let gone = |look: Look| match context.roots.is_empty() {
        true => Ok(look),
        false => {
            Err(StoreError::refused(path, "is not there: name a file of certificates that a program brings"))
        }
    };
    let Some(real) = real(path)? else { return gone(Look::at(path)) };
    if context.layout.is_some_and(|layout| layout.bundle == real) {
        return Err(StoreError::refused(
            path,
            "is the system's own bundle, which its tool writes anew: `vouchsafe trust install` without --file serves it",
        ));
    }
    let mut look = Look::at(&real);
    let (parent, name) = split(&real)?;
    let Some(folder) = Folder::open(parent)? else { return gone(look) };
    let (content, before) = match folder.read(name)? {
        Some(found @ Found::File { .. }) => {
            let before = found.digest();
            let Found::File { content, uid, .. } = found else { return gone(look) };
            if folder.uid() != 0 && folder.uid() != uid && folder.uid() != nix::unistd::geteuid().as_raw() {
                let reason = format!(
                    "belongs to uid {uid}, and its folder to uid {}, who could change what is \
                                      written there: let both belong to one of them",
                    folder.uid()
                );
                return Err(StoreError::refused(&real, reason));
            }
            (content, before)
        }
        Some(Found::Link(_)) => return Err(StoreError::Changed { path: real }),
        None => return gone(look),
    };
    let parts = match markers::find(&content) {
        Ok(parts) => parts,
        Err(reason) => {
            look.problem = Some(reason.to_owned());
            return Ok(look);
        }
    };
    if !context.roots.is_empty() && certificates(&content).is_empty() {
        return Err(StoreError::refused(&real, "holds no certificate: it is no file of certificates in PEM"));
    }
    for der in certificates(parts.ours.unwrap_or_default()) {
        match context.roots.has(&Fingerprint::of(&der)) {
            true => look.present += 1,
            false => look.extra += 1,
        }
    }
    let wanted =
        markers::with(&content, context.roots).map_err(|reason| StoreError::refused(&real, reason))?;
    if wanted != content {
        let about = match context.roots.iter().count() {
            0 => "our part is taken out".to_owned(),
            count => format!("{count} of ours at its end"),
        };
        look.steps.push(Step::Write {
            path: real,
            content: wanted,
            mode: 0o644,
            before: Some(before),
            about,
        });
    }
    Ok(look)
}
