//! Whether a place holds our roots.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use memchr::memmem;

use super::readers::Place;
use super::snapshot::Files;
use crate::trust::{CaCertificate, certificates};

/// Bytes of a file of roots, at most; that of a distribution has a quarter of a megabyte.
const MOST_BYTES: u64 = 8 << 20;
/// Files of a folder of roots, at most.
const MOST_FILES: usize = 2048;
/// Bytes of one of them, at most.
const MOST_LINKED: u64 = 64 << 10;
/// How many answers are kept.
const MOST_KEPT: usize = 256;

/// How many of our roots a place has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holds {
    /// All of them.
    All,
    /// Some; the others came later.
    Some,
    /// None.
    None,
    /// It cannot be told, and why.
    Unknown(String),
}

/// Our roots, which every bot is to trust.
pub struct OurRoots(Vec<CaCertificate>);

impl OurRoots {
    /// These.
    #[must_use]
    pub fn new(roots: Vec<CaCertificate>) -> Self {
        Self(roots)
    }

    /// What tells them from others.
    fn mark(&self) -> String {
        self.0.iter().map(CaCertificate::fingerprint).collect()
    }

    /// How many of them are certificates of a PEM text, or stand in a store of another form as they are.
    fn found_in(&self, content: &[u8]) -> Vec<bool> {
        let is_pem = memmem::find(content, b"-----BEGIN").is_some();
        let listed: Vec<Vec<u8>> = if is_pem { certificates(content) } else { Vec::new() };
        let has = |root: &CaCertificate| match is_pem {
            true => listed.iter().any(|found| found.as_slice() == root.der().as_ref()),
            false => memmem::find(content, root.der()).is_some(),
        };
        self.0.iter().map(has).collect()
    }
}

/// What a file was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    fn time(self) -> SystemTime {
        let (seconds, nanoseconds) = self.changed;
        let since =
            Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0));
        SystemTime::UNIX_EPOCH + since
    }
}

/// Looks into places, and remembers what it saw in files that have not changed.
#[derive(Default)]
pub(super) struct Looker(Mutex<HashMap<(Stamp, String), Vec<bool>>>);

/// What was seen at a place.
pub(super) struct Sight {
    pub(super) holds: Holds,
    /// Its last change.
    pub(super) changed: Option<SystemTime>,
}

impl Sight {
    fn unknown(why: impl Into<String>) -> Self {
        Self { holds: Holds::Unknown(why.into()), changed: None }
    }
}

impl Looker {
    /// Looks.
    pub(super) fn look(&self, place: &Place, files: &Files, roots: &OurRoots) -> Sight {
        let told = |seen: io::Result<(Vec<bool>, Stamp)>| match seen {
            Ok((found, stamp)) => Sight { holds: holds(&found), changed: Some(stamp.time()) },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Sight { holds: Holds::None, changed: None }
            }
            Err(error) => Sight::unknown(error.to_string()),
        };
        match place {
            Place::System(path) | Place::File(path) => told(self.file(path, files, roots)),
            Place::SystemFolder(path) => told(self.folders(std::slice::from_ref(path), files, roots)),
            Place::Folder(paths) => {
                let paths: Vec<PathBuf> =
                    std::env::split_paths(paths).map(|path| files.absolute(&path)).collect();
                told(self.folders(&paths, files, roots))
            }
            Place::Java(path) => match told(self.file(path, files, roots)) {
                Sight { holds: Holds::None, .. } if is_encrypted(path, files) => {
                    Sight::unknown("it is encrypted")
                }
                sight => sight,
            },
            Place::Nss(path) => told(self.file(&path.join("cert9.db"), files, roots)),
            Place::CompiledIn => Sight { holds: Holds::None, changed: None },
            Place::Unknown => Sight::unknown("nobody knows where it looks"),
        }
    }

    fn file(&self, path: &Path, files: &Files, roots: &OurRoots) -> io::Result<(Vec<bool>, Stamp)> {
        let file = files.open(path)?;
        let stamp = Stamp::of(&file)?;
        let key = (stamp, roots.mark());
        if let Some(found) = self.kept().get(&key) {
            return Ok((found.clone(), stamp));
        }
        if stamp.size > MOST_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it is larger than {MOST_BYTES} bytes"),
            ));
        }
        let mut content = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut content)?;
        let found = roots.found_in(&content);
        let mut kept = self.kept();
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(key, found.clone());
        Ok((found, stamp))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<(Stamp, String), Vec<bool>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of links by hash the names are eight digits and a number; what they lead to has one certificate.
    fn folders(&self, paths: &[PathBuf], files: &Files, roots: &OurRoots) -> io::Result<(Vec<bool>, Stamp)> {
        let is_link = |name: &str| {
            let parts = name.split_once('.');
            parts.is_some_and(|(hash, number)| {
                hash.len() == 8
                    && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
                    && !number.is_empty()
                    && number.bytes().all(|byte| byte.is_ascii_digit())
            })
        };
        let mut all = vec![false; roots.0.len()];
        // Of a root that was found, the file; links are read when a server is verified, so only that can be too new.
        let mut last = Stamp { dev: 0, ino: 0, size: 0, changed: (0, 0) };
        for path in paths {
            let names = match files.list(path, MOST_FILES) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                names => names?,
            };
            for name in names.iter().filter(|name| is_link(name)) {
                let Ok(file) = files.open(&path.join(name)) else { continue };
                let Ok(stamp) = Stamp::of(&file) else { continue };
                let mut content = Vec::new();
                if stamp.size > MOST_LINKED || file.take(MOST_LINKED).read_to_end(&mut content).is_err() {
                    continue;
                }
                for (all, found) in all.iter_mut().zip(roots.found_in(&content)) {
                    if found {
                        *all = true;
                        last = if stamp.changed > last.changed { stamp } else { last };
                    }
                }
            }
        }
        Ok((all, last))
    }
}

fn holds(found: &[bool]) -> Holds {
    match (found.iter().any(|found| *found), found.iter().all(|found| *found)) {
        (true, true) => Holds::All,
        (true, false) => Holds::Some,
        (false, _) => Holds::None,
    }
}

/// Whether a store shows none of the names in it: not a JKS (`FE ED FE ED`), and no certificate in the clear.
fn is_encrypted(path: &Path, files: &Files) -> bool {
    let read = || -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        files.open(path)?.take(MOST_BYTES).read_to_end(&mut content)?;
        Ok(content)
    };
    // id-at-commonName: in every certificate of a root.
    const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    read().is_ok_and(|content| {
        !content.starts_with(&[0xfe, 0xed, 0xfe, 0xed]) && memmem::find(&content, COMMON_NAME).is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::super::snapshot::Snapshot;
    use super::*;
    use crate::trust::Ca;

    fn root() -> (tempfile::TempDir, CaCertificate) {
        let state = tempfile::tempdir().unwrap();
        Ca::for_tests(state.path());
        let certificate = CaCertificate::all(state.path()).unwrap().remove(0);
        (state, certificate)
    }

    fn look(looker: &Looker, place: &Place, roots: &OurRoots) -> Holds {
        looker.look(place, &Snapshot::take(std::process::id(), None).unwrap().files, roots).holds
    }

    #[test]
    fn a_bundle_holds_ours_among_others_whatever_stands_between_them() {
        let ((state, ours), (_keep, other)) = (root(), root());
        let roots = OurRoots::new(vec![ours.clone()]);
        let (looker, path) = (Looker::default(), state.path().join("bundle.pem"));
        let place = Place::File(path.clone());
        assert_eq!(look(&looker, &place, &roots), Holds::None, "there is no file");
        std::fs::write(&path, other.pem()).unwrap();
        assert_eq!(look(&looker, &place, &roots), Holds::None);
        std::fs::write(&path, format!("# comment\n{}\n# ours\n{}", other.pem(), ours.pem())).unwrap();
        assert_eq!(look(&looker, &place, &roots), Holds::All, "what was remembered is of another file");
        let both = OurRoots::new(vec![ours, root().1]);
        assert_eq!(look(&looker, &place, &both), Holds::Some, "and of other roots");
    }

    #[test]
    fn a_store_with_certificates_as_they_are_holds_ours_and_an_encrypted_one_says_nothing() {
        let ((state, ours), (_keep, other)) = (root(), root());
        let roots = OurRoots::new(vec![ours.clone()]);
        let (looker, path) = (Looker::default(), state.path().join("cacerts"));
        let place = Place::Java(path.clone());
        let write = |parts: &[&[u8]]| std::fs::write(&path, parts.concat()).unwrap();
        write(&[&[0xfe, 0xed, 0xfe, 0xed], other.der(), ours.der()]);
        assert_eq!(look(&looker, &place, &roots), Holds::All);
        write(&[&[0x30, 0x82], other.der()]);
        assert_eq!(look(&looker, &place, &roots), Holds::None);
        write(&[&[0x30, 0x82], &[0xaa; 512]]);
        assert_eq!(look(&looker, &place, &roots), Holds::Unknown("it is encrypted".into()));
    }

    #[test]
    fn a_folder_holds_what_links_by_hash_lead_to() {
        let (state, ours) = root();
        let roots = OurRoots::new(vec![ours.clone()]);
        let folder = state.path().join("certs");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("ours.pem"), ours.pem()).unwrap();
        let place = Place::Folder(PathBuf::from(format!("/nowhere:{}", folder.display())));
        let looker = Looker::default();
        assert_eq!(look(&looker, &place, &roots), Holds::None, "OpenSSL looks for a hash only");
        std::os::unix::fs::symlink("ours.pem", folder.join("0a1b2c3d.0")).unwrap();
        assert_eq!(look(&looker, &place, &roots), Holds::All);
    }
}
