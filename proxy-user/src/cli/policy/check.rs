//! `vouchsafe policy check DIR`: every error of every policy file, and what is probably not meant.
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use proxy_policy::{ExePattern, PolicySet, Severity, Spanned};

use crate::app::policies::Loaded;

/// The folder of the host's own policy.
const LIVE: &str = "/etc/vouchsafe";

/// Arguments of `vouchsafe policy check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 the policy can go live, 1 it cannot, or there is a warning and --strict."
)]
pub struct CheckArgs {
    /// The folder that holds policies/, roles/, apis/ and credentials/
    #[arg(value_name = "DIR", default_value = LIVE)]
    dir: PathBuf,
    /// Also warn of executables and scripts that are not on this host, as is done for /etc/vouchsafe
    #[arg(long)]
    host: bool,
    /// Fail for warnings, too
    #[arg(long)]
    strict: bool,
}

/// Prints errors and warnings to standard error and a summary to standard output.
///
/// # Errors
/// None: what is wrong with the files is the exit code.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let loaded = Loaded::check(&args.dir);
    let mut warnings = loaded.lines(Severity::Warning);
    let set = loaded.into_set();
    if let (Ok(set), true) = (&set, args.host || args.dir == Path::new(LIVE)) {
        warnings.extend(missing_programs(set, &args.dir));
    }
    for warning in &warnings {
        eprintln!("{warning}");
    }
    match set {
        Ok(set) => {
            println!("{}: ok: {}", args.dir.display(), set.summary());
            let failed = args.strict && !warnings.is_empty();
            Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Err(errors) => {
            eprintln!("{errors}");
            eprintln!(
                "{}: {} errors; this policy would be refused as a whole",
                args.dir.display(),
                errors.0.len()
            );
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Warnings of identities that no process of this host can have, because there is no such file.
fn missing_programs(set: &PolicySet, root: &Path) -> Vec<String> {
    let mut warnings = Vec::new();
    for identity in set.identities() {
        let conditions = &identity.conditions;
        let named: [(&str, &Option<Spanned<ExePattern>>); 2] =
            [("exe", &conditions.exe), ("script", &conditions.script)];
        for (key, pattern) in named {
            let Some(pattern) = pattern else { continue };
            let Some(path) = pattern.literal() else { continue };
            // What cannot be looked at is not said to be missing.
            if Path::new(path).try_exists().is_ok_and(|there| !there) {
                let (file, place) = (root.join(&identity.file), pattern.place);
                warnings.push(format!(
                    "{}:{}:{}: warning: there is no {path} on this host, so nothing is {}\n  \
                     help: correct \"{key}\", or remove the identity if its program is gone",
                    file.display(),
                    place.line,
                    place.column,
                    identity.name
                ));
            }
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_identity_whose_program_is_not_there_is_told_and_a_pattern_is_not() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("policies")).unwrap();
        fs::write(root.path().join("there"), "").unwrap();
        let there = root.path().join("there").display().to_string();
        for (name, exe) in [("a", "/nowhere/bot"), ("b", "/nowhere/*"), ("c", &*there)] {
            let text = format!("[identity]\nuser = \"{name}\"\nexe = \"{exe}\"\n");
            fs::write(root.path().join(format!("policies/{name}.toml")), text).unwrap();
        }
        let set = Loaded::check(root.path()).into_set().unwrap();
        let warnings = missing_programs(&set, root.path());
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("policies/a.toml:3:7: warning: there is no /nowhere/bot"));
    }
}
