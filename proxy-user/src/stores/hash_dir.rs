//! OpenSSL's hash folders: a file for each root, and a link named by the hash of its subject, by which it is found.
//!
//! The links of others stay: `openssl rehash` would make all of them anew. OpenSSL reads `HASH.0`, `HASH.1` … up to the
//! first that is missing, so where one of ours goes the last one takes its place.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::files::{Folder, Found, real};
use super::roots::{Fingerprint, Root, named};
use super::step::Step;
use super::tools::{self, Run};
use super::{Context, Look};
use crate::trust::{certificates, to_pem};

const PREFIX: &str = "vouchsafe-";
const SUFFIX: &str = ".pem";

fn name(root: &Root) -> String {
    format!("{PREFIX}{}{SUFFIX}", root.id.short())
}

/// The hash of the subject, as OpenSSL names links: 8 hexadecimal digits.
fn subject_hash(openssl: &Path, pem: &str) -> Result<String, StoreError> {
    let mut run = Run::new(openssl, ["x509", "-noout", "-subject_hash"]);
    run.input = pem.as_bytes().to_vec();
    let said = run.run()?;
    let hash = String::from_utf8_lossy(&said).trim().to_owned();
    let sound = hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then_some(hash).ok_or_else(|| StoreError::Tool {
        command: run.shown(),
        status: "no hash".to_owned(),
        said: String::new(),
    })
}

/// Links of one hash, in order: where each leads, `None` for a file.
struct Chain {
    hash: String,
    links: Vec<Option<PathBuf>>,
}

impl Chain {
    fn read(folder: &Folder, hash: &str) -> Result<Self, StoreError> {
        let mut links = Vec::new();
        while let Some(found) = folder.read(OsStr::new(&format!("{hash}.{}", links.len())))? {
            links.push(match found {
                Found::Link(to) => Some(to),
                Found::File { .. } => None,
            });
        }
        Ok(Self { hash: hash.to_owned(), links })
    }

    fn at(&self, to: &str) -> Option<usize> {
        self.links.iter().position(|link| link.as_deref() == Some(Path::new(to)))
    }
}

/// What is there, and what is to be done.
pub(super) fn look(path: &Path, context: &Context<'_>) -> Result<Look, StoreError> {
    let missing = || match context.roots.is_empty() {
        true => Ok(Look::at(path)),
        false => Err(StoreError::refused(path, "is not there: name a folder that OpenSSL looks roots up in")),
    };
    let Some(real) = real(path)? else { return missing() };
    if context.layout.is_some_and(|layout| layout.bundle.parent() == Some(&real)) {
        let reason = "is the system's own, which its tool fills: `vouchsafe trust install` without --hash-dir serves it";
        return Err(StoreError::refused(path, reason));
    }
    let Some(folder) = Folder::open(&real)? else { return missing() };
    let openssl = tools::find("openssl").ok_or(StoreError::NoTool {
        program: "openssl",
        what: "a folder of hashed certificates",
        package: "openssl",
    })?;
    let mut look = Look::at(&real);
    let mut chains: Vec<Chain> = Vec::new();
    let mut deletions = Vec::new();
    for root in context.roots.iter() {
        let name = name(root);
        let chain = chain(&mut chains, &folder, &subject_hash(&openssl, &root.pem)?)?;
        let old = folder.read(OsStr::new(&name))?;
        let is_same = matches!(&old, Some(Found::File { content, .. }) if content == root.pem.as_bytes());
        let linked = chain.at(&name).is_some();
        look.present += usize::from(is_same && linked);
        if !is_same {
            look.steps.push(Step::Write {
                path: real.join(&name),
                content: root.pem.clone().into_bytes(),
                mode: 0o644,
                before: old.map(|old| old.digest()),
                about: root.about.clone(),
            });
        }
        if !linked {
            let link = real.join(format!("{}.{}", chain.hash, chain.links.len()));
            look.steps.push(Step::Link { path: link, to: name.clone().into(), before: None });
            chain.links.push(Some(name.into()));
        }
    }
    for name in folder.names()? {
        let Some(short) = named(&name, PREFIX, SUFFIX) else { continue };
        let Some(found) = folder.read(OsStr::new(&name))? else { continue };
        let before = found.digest();
        let ders = match &found {
            Found::File { content, .. } => certificates(content),
            Found::Link(_) => Vec::new(),
        };
        let ours = match ders.as_slice() {
            [der] => Some(Fingerprint::of(der)).filter(|id| id.short() == short).map(|id| (id, to_pem(der))),
            _ => None,
        };
        let Some((id, pem)) = ours else {
            let path = real.join(&name);
            look.problem = Some(format!("{} bears a name of ours and is not what it says", path.display()));
            continue;
        };
        if context.roots.has(&id) {
            continue;
        }
        look.extra += 1;
        let chain = chain(&mut chains, &folder, &subject_hash(&openssl, &pem)?)?;
        unlink(chain, &name, &real, &mut look.steps);
        let about = format!("no root of ours any more: {}", id.short());
        deletions.push(Step::Delete { path: real.join(&name), before, about });
    }
    look.steps.extend(deletions);
    if look.problem.is_some() {
        look.steps.clear();
    }
    Ok(look)
}

fn chain<'a>(chains: &'a mut Vec<Chain>, folder: &Folder, hash: &str) -> Result<&'a mut Chain, StoreError> {
    let at = match chains.iter().position(|chain| chain.hash == hash) {
        Some(at) => at,
        None => {
            chains.push(Chain::read(folder, hash)?);
            chains.len() - 1
        }
    };
    // It was pushed or found there.
    chains.get_mut(at).ok_or_else(|| StoreError::refused(Path::new(hash), "has no links"))
}

/// Takes a link out of its chain; the last one takes its place, unless that is a file, which nobody but its owner moves.
fn unlink(chain: &mut Chain, name: &str, folder: &Path, steps: &mut Vec<Step>) {
    let Some(at) = chain.at(name) else { return };
    let link = |number: usize| folder.join(format!("{}.{number}", chain.hash));
    let seen = |to: &Path| super::files::digest(to.as_os_str().as_encoded_bytes());
    let last = chain.links.len() - 1;
    let before = seen(Path::new(name));
    match chain.links.last().cloned().flatten().filter(|_| last != at) {
        Some(to) => {
            steps.push(Step::Link { path: link(at), to: to.clone(), before: Some(before) });
            let about = format!("moved to {}.{at}", chain.hash);
            steps.push(Step::Delete { path: link(last), before: seen(&to), about });
            chain.links.swap_remove(at);
        }
        None => {
            let about = format!("a link to {name}");
            steps.push(Step::Delete { path: link(at), before, about });
            chain.links.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::roots::Roots;
    use super::super::roots::tests::some;
    use super::super::step::apply;
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;

    fn bring(folder: &Path, roots: &Roots) -> usize {
        let context = Context {
            roots,
            put: BTreeSet::new(),
            copies: Path::new("/nowhere"),
            units: Path::new("/nowhere"),
            layout: None,
            systemd: false,
        };
        let steps = look(folder, &context).unwrap().steps;
        apply(&steps, &mut |_| ()).unwrap();
        assert!(look(folder, &context).unwrap().steps.is_empty(), "a second look finds nothing to do");
        steps.len()
    }

    #[test]
    fn where_one_of_ours_goes_the_chain_of_links_has_no_gap() {
        let dir = tempfile::tempdir().unwrap();
        let roots = some(1);
        bring(dir.path(), &roots);
        let mut first =
            fs::read_dir(dir.path()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        let link = first.find(|name| name.ends_with(".0")).unwrap();
        let at = |number: usize| dir.path().join(link.replace(".0", &format!(".{number}")));
        for (number, name) in [(1, "a.pem"), (2, "b.pem")] {
            fs::write(dir.path().join(name), "theirs").unwrap();
            std::os::unix::fs::symlink(name, at(number)).unwrap();
        }
        bring(dir.path(), &Roots::default());
        assert_eq!(fs::read_link(at(0)).unwrap(), Path::new("b.pem"), "the last one took its place");
        assert_eq!(fs::read_link(at(1)).unwrap(), Path::new("a.pem"));
        assert!(fs::symlink_metadata(at(2)).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
        // And with all of ours again, behind theirs.
        assert_eq!(bring(dir.path(), &roots), 2);
        assert!(fs::read_link(at(2)).unwrap().to_str().unwrap().starts_with(PREFIX));
    }
}
