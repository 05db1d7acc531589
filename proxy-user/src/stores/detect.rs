//! What this host has that the system's store does not serve: found by name in the usual places, and no further.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::system::Layout;
use super::{Target, java};

/// Folders of Python's packages.
const PYTHON: [&str; 13] = [
    "/usr/lib/python3*/dist-packages",
    "/usr/lib/python3*/site-packages",
    "/usr/lib64/python3*/site-packages",
    "/usr/local/lib/python3*/dist-packages",
    "/usr/local/lib/python3*/site-packages",
    "/opt/*/lib/python3*/site-packages",
    "/opt/*/*/lib/python3*/site-packages",
    "/srv/*/lib/python3*/site-packages",
    "/srv/*/*/lib/python3*/site-packages",
    "/home/*/.local/lib/python3*/site-packages",
    "/home/*/*/lib/python3*/site-packages",
    "/root/.local/lib/python3*/site-packages",
    "/usr/local/aws-cli/v2/*/dist/awscli",
];

/// Files of certificates in them.
const FILES: [&str; 6] = [
    "certifi/cacert.pem",
    "pip/_vendor/certifi/cacert.pem",
    "botocore/cacert.pem",
    "stripe/data/ca-certificates.crt",
    "grpc/_cython/_credentials/roots.pem",
    "httplib2/cacerts.txt",
];

/// Java installations.
const JAVA: [&str; 5] = [
    "/usr/lib/jvm/*",
    "/usr/java/*",
    "/opt/*",
    "/root/.sdkman/candidates/java/*",
    "/home/*/.sdkman/candidates/java/*",
];

/// Folders with databases of NSS.
const NSS: [&str; 6] = [
    "/root/.pki/nssdb",
    "/home/*/.pki/nssdb",
    "/root/.mozilla/firefox/*",
    "/home/*/.mozilla/firefox/*",
    "/home/*/snap/chromium/current/.pki/nssdb",
    "/home/*/snap/firefox/common/.mozilla/firefox/*",
];

/// How many entries of one folder are looked at, how many folders a pattern may lead to, and how much is found at most.
const MOST: usize = 200;

/// The paths that a pattern leads to: `*` stands for the rest of a name that does not begin with a dot.
fn expand(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut paths = vec![root.to_owned()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let next = paths.iter().flat_map(|path| match part.strip_suffix('*') {
            None => Some(path.join(part)).filter(|path| path.exists()).into_iter().collect::<Vec<_>>(),
            Some(start) => fs::read_dir(path)
                .into_iter()
                .flatten()
                .take(MOST)
                .filter_map(Result::ok)
                .filter(|entry| {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    name.starts_with(start) && !name.starts_with('.')
                })
                .map(|entry| entry.path())
                .filter(|path| path.is_dir())
                .collect(),
        });
        paths = next.take(MOST).collect();
    }
    paths.sort();
    paths
}

/// What is here beside what is recorded, and where it really is.
pub(super) fn found(recorded: &[&Path], layout: Option<&Layout>) -> Vec<(Target, PathBuf)> {
    below(Path::new("/"), recorded, layout)
}

fn below(root: &Path, recorded: &[&Path], layout: Option<&Layout>) -> Vec<(Target, PathBuf)> {
    let mut seen: BTreeSet<PathBuf> = recorded.iter().map(|path| (*path).to_owned()).collect();
    seen.extend(layout.map(|layout| layout.bundle.clone()));
    let files = PYTHON.iter().flat_map(|base| FILES.map(|file| format!("{base}/{file}")));
    let files =
        files.flat_map(|pattern| expand(root, &pattern)).map(|path| (path.clone(), Target::File { path }));
    let java = JAVA.iter().flat_map(|pattern| expand(root, pattern)).filter_map(|home| {
        let store = ["lib/security/cacerts", "jre/lib/security/cacerts"].map(|place| home.join(place));
        let store = store.into_iter().find(|store| store.exists())?;
        Some((store, Target::Java { path: home }))
    });
    let nss = NSS.iter().flat_map(|pattern| expand(root, pattern));
    let nss =
        nss.filter(|path| path.join("cert9.db").exists()).map(|path| (path.clone(), Target::Nss { path }));
    let mut found = Vec::new();
    for (place, target) in files.chain(java).chain(nss) {
        let Ok(place) = fs::canonicalize(place) else { continue };
        if !java::is_systems(&place) && seen.insert(place.clone()) && found.len() < MOST {
            found.push((target, place));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_brings_roots_of_its_own_is_found_once_and_what_is_recorded_is_not() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::canonicalize(path).unwrap()
        };
        let certifi = put("opt/bot/venv/lib/python3.11/site-packages/certifi/cacert.pem");
        let pip = put("usr/lib/python3.11/dist-packages/pip/_vendor/certifi/cacert.pem");
        let jdk = put("opt/jdk-21/lib/security/cacerts");
        let nss = put("home/ann/.pki/nssdb/cert9.db");
        put("home/ann/deep/down/lib/python3.11/site-packages/certifi/cacert.pem");
        put("opt/.hidden/lib/security/cacerts");
        std::os::unix::fs::symlink("jdk-21", root.path().join("opt/jdk")).unwrap();
        let places = |recorded: &[&Path]| -> Vec<PathBuf> {
            below(root.path(), recorded, None).into_iter().map(|(_, place)| place).collect()
        };
        let nss = nss.parent().unwrap();
        assert_eq!(places(&[]), [pip.clone(), certifi.clone(), jdk.clone(), nss.to_owned()]);
        assert_eq!(places(&[&pip, nss]), [certifi, jdk]);
    }

    #[test]
    fn a_folder_without_end_is_looked_at_no_further_than_said() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..MOST + 50 {
            let home = root.path().join(format!("usr/lib/jvm/jdk-{number}/lib/security"));
            fs::create_dir_all(&home).unwrap();
            fs::write(home.join("cacerts"), "x").unwrap();
        }
        assert_eq!(below(root.path(), &[], None).len(), MOST);
    }
}
