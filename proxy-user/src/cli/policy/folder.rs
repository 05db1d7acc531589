//! The folder that a command looks at, as a set.

use std::path::{Path, PathBuf};

use proxy_policy::{PolicySet, Severity, compile};

use crate::app::policies::Texts;

/// Reads and compiles a policy root. Who may write its files does not matter: nothing of it goes live here.
///
/// # Errors
/// Every error of every file, with its place.
pub(in crate::cli) fn set_of(root: &Path) -> anyhow::Result<PolicySet> {
    let Texts { files, mut trouble, .. } = Texts::read(root);
    if !root.join("policies").is_dir() {
        trouble.push(format!(
            "{}: error: there is no folder \"policies\" here\n  help: a policy root holds policies/, roles/, apis/ and credentials/",
            root.display()
        ));
    }
    let compiled = compile(&files);
    let errors = compiled.diagnostics.iter().filter(|it| it.severity == Severity::Error);
    trouble.extend(errors.map(|diagnostic| format!("{}/{diagnostic}", root.display())));
    match compiled.set {
        Some(set) if trouble.is_empty() => Ok(set),
        _ => anyhow::bail!("the policy in {} cannot go live:\n{}", root.display(), trouble.join("\n")),
    }
}

/// The folder that is named, else the one that the daemon reads.
pub(in crate::cli) fn or_configured(named: Option<&PathBuf>, configured: &Path) -> PathBuf {
    named.cloned().unwrap_or_else(|| configured.to_owned())
}
