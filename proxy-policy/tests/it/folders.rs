//! Every folder of `policies/`: what must compile does, and what must not says exactly what is expected.

use std::fs;
use std::path::{Path, PathBuf};

use proxy_policy::{Compiled, Severity, SourceFile, compile};

pub(crate) fn policies() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn entries(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

pub(crate) fn read(root: &Path) -> Vec<SourceFile> {
    let folders = ["policies", "roles", "apis", "credentials"];
    let paths = folders.iter().flat_map(|folder| entries(&root.join(folder)));
    paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .filter(|path| !path.to_string_lossy().ends_with(proxy_policy::TEST_SUFFIX))
        .map(|path| {
            let label = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            SourceFile::new(label, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

fn text(compiled: &Compiled) -> String {
    compiled.diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect()
}

#[test]
fn the_demo_and_the_example_compile_without_a_warning() {
    for name in ["demo", "example", "host"] {
        let compiled = compile(&read(&policies().join(name)));
        assert_eq!(text(&compiled), "", "{name}");
        assert!(compiled.set.is_some(), "{name}");
    }
}

/// `UPDATE=1 cargo test -p proxy-policy` writes the files anew; review them as a diff.
#[test]
fn every_bad_folder_says_exactly_what_is_expected() {
    let mut wrong = Vec::new();
    let folders = entries(&policies().join("bad"));
    assert!(folders.len() >= 20);
    for folder in folders {
        let expected = folder.join("expected.txt");
        let compiled = compile(&read(&folder));
        let found = text(&compiled);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &found).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}\n{found}", folder.display()));
        }
        let errors = compiled.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        assert_eq!(compiled.set.is_none(), errors, "{}", folder.display());
        assert_eq!(!folder.ends_with("warnings"), errors, "{}", folder.display());
        assert!(!compiled.diagnostics.is_empty(), "{}", folder.display());
    }
    assert!(wrong.is_empty(), "run with UPDATE=1 and review:\n{}", wrong.join("\n"));
}

#[test]
fn every_error_has_a_help_line_and_repeats_no_secret() {
    for folder in entries(&policies().join("bad")) {
        for diagnostic in compile(&read(&folder)).diagnostics {
            assert!(diagnostic.help.is_some(), "{diagnostic}");
            assert!(!diagnostic.to_string().contains("51Hxyz"), "{diagnostic}");
            assert!(diagnostic.line >= 1 && diagnostic.column >= 1, "{diagnostic}");
        }
    }
}

#[test]
fn the_order_of_the_files_does_not_matter() {
    for name in ["bad/unknown-key", "bad/overlapping-identities", "bad/two-apis-one-host", "example"] {
        let mut files = read(&policies().join(name));
        let forward = text(&compile(&files));
        files.reverse();
        assert_eq!(text(&compile(&files)), forward, "{name}");
    }
}

#[test]
fn a_file_outside_the_known_folders_is_read_by_its_content() {
    let files =
        [SourceFile::new("bot.toml", "[identity]\nuser = \"bot\"\n"), SourceFile::new("empty.toml", "")];
    let set = compile(&files).set.unwrap();
    assert_eq!(set.identities().map(|identity| identity.name.as_str()).collect::<Vec<_>>(), ["bot"]);
}

#[test]
fn nothing_compiles_to_an_empty_set_that_counts_itself() {
    let set = compile(&[]).set.unwrap();
    assert_eq!(set.summary().to_string(), "0 identities, 0 APIs, 0 roles, 0 credentials, 0 rules");
    let set = compile(&read(&policies().join("demo"))).set.unwrap();
    assert_eq!(set.summary().to_string(), "2 identities, 1 API, 1 role, 1 credential, 6 rules");
}
