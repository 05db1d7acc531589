//! `cargo xtask tidy`: the rules of the house that no compiler checks.
//!
//! The rules look at text, not at meaning: cheap, and right for code that does not try to deceive them.

mod architecture;
mod rules;
mod scrub;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::paths::Paths;

/// Directories with no source of ours.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];
const DAEMON: &str = "proxy-user/src";

/// Checks all rules, prints every place that breaks one, and fails when there is any.
pub(crate) fn run(paths: &Paths) -> Result<()> {
    let findings = check(&paths.root)?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!("tidy: the house is in order");
        return Ok(());
    }
    bail!("{} places break a rule of the house; each line above says what to do", findings.len());
}

/// Everything under `root` that breaks a rule, as `file:line: what; what to do`.
fn check(root: &Path) -> Result<Vec<String>> {
    let lib = root.join(DAEMON).join("lib.rs");
    let lib = fs::read_to_string(&lib).with_context(|| format!("cannot read {}", lib.display()))?;
    let modules = rules::modules(&scrub::scrub(&lib));

    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    let mut findings = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
        let source = rules::Source::new(&name, &text);
        findings.extend(source.check(&modules));
    }

    match fs::read_to_string(root.join("ARCHITECTURE.md")) {
        Ok(page) => findings.extend(architecture::check(&page, &modules)),
        Err(error) => findings.push(format!("ARCHITECTURE.md:1: cannot be read ({error}); write the page")),
    }
    Ok(findings)
}

/// All Rust files below `directory`.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", directory.display()))?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let name = entry.file_name();
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
            collect(&path, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_house_is_checked_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proxy-user/src/lib.rs", "//! The daemon.\npub mod base;\npub mod kernel;\n");
        write("proxy-user/src/base.rs", "//! Base.\n");
        write("proxy-user/src/kernel/mod.rs", "//! Kernel.\nuse crate::base;\nuse aya::Ebpf;\n");
        write("target/generated.rs", "no comment at all");
        write("ARCHITECTURE.md", "- `base` the ground\n- `kernel` the programs\n");
        assert_eq!(check(dir.path()).unwrap(), Vec::<String>::new());

        write("proxy-user/src/base.rs", "//! Base.\nuse crate::kernel;\nuse aya::Ebpf;\n");
        write("ARCHITECTURE.md", "- `kernel` the programs\n- `base` the ground\n");
        let findings = check(dir.path()).unwrap();
        assert_eq!(findings.len(), 3, "{findings:?}");
    }
}
