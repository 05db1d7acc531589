//! Java's own keystore of roots: changed by keytool in a copy, which then takes its place as a whole.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::files::{Folder, Found, real, split};
use super::roots::{Fingerprint, Root, named};
use super::step::Step;
use super::tools::{self, Run, is_program};
use super::{Context, Look};
use crate::base::ownership;
use crate::trust::certificates;

const PREFIX: &str = "vouchsafe-";

/// The password of every `cacerts`; it protects nothing, since what is in there is public.
const PASSWORD: &str = "changeit";

/// The keystore of a Java installation, or the keystore itself; in Java's own order (`jssecacerts` before `cacerts`).
fn keystore(path: &Path) -> PathBuf {
    if path.is_file() {
        return path.to_owned();
    }
    let places = [
        "lib/security/jssecacerts",
        "lib/security/cacerts",
        "jre/lib/security/jssecacerts",
        "jre/lib/security/cacerts",
    ];
    let places = places.map(|place| path.join(place));
    places.iter().find(|place| place.exists()).unwrap_or(&places[1]).clone()
}

/// keytool where administrators put programs, or the installation's own if nobody but root could change it.
fn keytool(home: &Path) -> Result<PathBuf, StoreError> {
    if let Some(found) = tools::find("keytool") {
        return Ok(found);
    }
    let own = fs::canonicalize(home.join("bin/keytool")).ok().filter(|own| is_program(own));
    own.filter(|own| own.ancestors().all(|part| ownership::problem(part).is_none())).ok_or(
        StoreError::NoTool {
            program: "keytool",
            what: "a keystore of Java",
            package: "default-jre-headless (Debian), java-headless (Fedora), or a JDK that belongs to root",
        },
    )
}

/// Whether the system's store serves this keystore by itself.
pub(super) fn is_systems(keystore: &Path) -> bool {
    ["/etc/ssl/certs/java", "/etc/pki", "/var/lib/ca-certificates", "/etc/ca-certificates"]
        .iter()
        .any(|folder| keystore.starts_with(folder))
}

/// Whether it begins as JKS or as PKCS12 does. Other kinds hold objects of Java, which are not to be read from a file that a
/// user may have made.
fn is_known(content: &[u8]) -> bool {
    content.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) || content.starts_with(&[0x30])
}

struct Keytool<'a> {
    program: &'a Path,
    store: &'a Path,
}

impl Keytool<'_> {
    fn run(&self, command: &str, more: &[&OsStr]) -> Result<Vec<u8>, StoreError> {
        let start: [&OsStr; 6] = [
            "-J-Duser.language=en".as_ref(),
            command.as_ref(),
            "-keystore".as_ref(),
            self.store.as_os_str(),
            "-storepass".as_ref(),
            PASSWORD.as_ref(),
        ];
        Run::new(self.program, start.iter().chain(more).map(OsString::from)).run()
    }
}

/// The aliases of a listing of keytool, each with its certificate.
fn listed(listing: &[u8]) -> Vec<(String, Fingerprint)> {
    let text = String::from_utf8_lossy(listing);
    let entries = text.split("Alias name: ").skip(1);
    let read = |entry: &str| {
        let alias = entry.lines().next()?.trim().to_owned();
        Some((alias, Fingerprint::of(certificates(entry.as_bytes()).first()?)))
    };
    entries.filter_map(read).collect()
}

fn alias(root: &Root) -> String {
    format!("{PREFIX}{}", root.id.short())
}

/// What is there, and what is to be done.
pub(super) fn look(home: &Path, context: &Context<'_>) -> Result<Look, StoreError> {
    let named_store = keystore(home);
    let gone = |look: Look| match context.roots.is_empty() {
        true => Ok(look),
        false => Err(StoreError::refused(
            &named_store,
            "is not there: name a Java installation (JAVA_HOME) or a keystore",
        )),
    };
    let Some(path) = real(&named_store)? else { return gone(Look::at(&named_store)) };
    if is_systems(&path) {
        let reason = format!(
            "leads to {}, which is made of the system's store: `vouchsafe trust install` without --java-home serves it",
            path.display()
        );
        return Err(StoreError::refused(&named_store, reason));
    }
    let mut look = Look::at(&path);
    let (parent, name) = split(&path)?;
    let Some(found) = Folder::open(parent)?.map(|folder| folder.read(name)).transpose()?.flatten() else {
        return gone(look);
    };
    let before = found.digest();
    let Found::File { content, .. } = found else { return Err(StoreError::Changed { path }) };
    if !is_known(&content) {
        let reason =
            "is no keystore of the kinds JKS or PKCS12: name a Java installation (JAVA_HOME) or a keystore";
        return Err(StoreError::refused(&path, reason));
    }
    let keytool = keytool(home)?;
    let work = tempfile::tempdir().map_err(StoreError::io("create a folder for a copy of", &path))?;
    let copy = work.path().join("keystore");
    fs::write(&copy, &content).map_err(StoreError::io("copy", &path))?;
    let keytool = Keytool { program: &keytool, store: &copy };
    let present = listed(&keytool.run("-list", &["-rfc".as_ref()])?);
    let (mut add, mut delete) = (Vec::new(), Vec::new());
    for root in context.roots.iter() {
        let alias = alias(root);
        match present.iter().find(|(name, _)| *name == alias) {
            Some((_, id)) if *id == root.id => look.present += 1,
            Some(_) => {
                look.problem =
                    Some(format!("has another certificate under our alias {alias}: delete it with keytool"))
            }
            None => add.push(root),
        }
    }
    for (alias, id) in &present {
        if named(alias, PREFIX, "").is_some_and(|short| short == id.short()) && !context.roots.has(id) {
            look.extra += 1;
            delete.push(alias);
        }
    }
    if look.problem.is_some() || (add.is_empty() && delete.is_empty()) {
        return Ok(look);
    }
    for alias in &delete {
        keytool.run("-delete", &["-alias".as_ref(), OsStr::new(alias)])?;
    }
    let file = work.path().join("root.pem");
    for root in &add {
        fs::write(&file, &root.pem).map_err(StoreError::io("copy", &file))?;
        let name = alias(root);
        let more = ["-noprompt", "-trustcacerts", "-alias", &name, "-file"].map(OsStr::new);
        keytool.run("-importcert", &[&more[..], &[file.as_os_str()]].concat())?;
    }
    let content = fs::read(&copy).map_err(StoreError::io("read the copy of", &path))?;
    let about = format!("keytool: {} added, {} taken out", add.len(), delete.len());
    look.steps.push(Step::Write { path, content, mode: 0o644, before: Some(before), about });
    Ok(look)
}

#[cfg(test)]
mod tests {
    use super::super::roots::tests::some;
    use super::*;

    #[test]
    fn a_listing_of_keytool_gives_each_alias_with_its_certificate() {
        let roots = some(2);
        let mut text = "Keystore type: PKCS12\n\nYour keystore contains 2 entries\n\n".to_owned();
        for root in roots.iter() {
            text += &format!(
                "Alias name: {}\nCreation date: Nov 29, 2026\nEntry type: trustedCertEntry\n\n{}\n\n*****\n\n",
                alias(root),
                root.pem
            );
        }
        let expected: Vec<_> = roots.iter().map(|root| (alias(root), root.id.clone())).collect();
        assert_eq!(listed(text.as_bytes()), expected);
        assert!(listed(b"").is_empty());
    }
}
