//! Policy files from disk: who may change them is checked, then they are compiled as one set.
use std::{
    fmt,
    path::{Path, PathBuf},
};

use proxy_policy::{Compiled, PolicySet, RuleRef, Severity, SourceFile, TEST_SUFFIX, compile};
use sha2::{Digest, Sha256};

use crate::base::ownership;

/// The folders of a policy root, in the order in which they are read.
pub const FOLDERS: [&str; 4] = ["policies", "roles", "apis", "credentials"];

/// A policy file larger than this is refused.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What was found in a policy root.
#[derive(Debug)]
pub struct Loaded {
    root: PathBuf,
    compiled: Compiled,
    trouble: Vec<String>,
    digest: String,
}

/// Why a set is refused: every error, one line each (with its help below).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors(pub Vec<String>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Errors {}

/// The texts of a policy root, before anything is made of them.
#[derive(Debug)]
pub struct Texts {
    /// The files, by folder and name.
    pub files: Vec<SourceFile>,
    /// What somebody else could change, as errors with their places: such files cannot go live.
    pub exposed: Vec<String>,
    /// What cannot be read, as errors with their places.
    pub trouble: Vec<String>,
    /// Digest of the files, in hexadecimal digits.
    pub digest: String,
}

impl Texts {
    /// Reads every policy file below a root; files of tests are none. Blocks on the disk.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let (mut exposed, mut trouble) = (Vec::new(), Vec::new());
        let mut files = Vec::new();
        let mut hash = Sha256::new();
        check_owner(root, &mut exposed);
        for folder in FOLDERS {
            let dir = root.join(folder);
            if !dir.exists() {
                continue;
            }
            check_owner(&dir, &mut exposed);
            for path in toml_files(&dir, &mut trouble) {
                check_owner(&path, &mut exposed);
                let text = match read_bounded(&path) {
                    Ok(text) => text,
                    Err(why) => {
                        trouble.push(format!("{}: error: {why}", path.display()));
                        continue;
                    }
                };
                let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
                let label = format!("{folder}/{name}");
                for part in [label.as_bytes(), text.as_bytes()] {
                    hash.update(part.len().to_le_bytes());
                    hash.update(part);
                }
                files.push(SourceFile { path: label, text });
            }
        }
        let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { files, exposed, trouble, digest }
    }
}

impl Loaded {
    /// Reads everything below a policy root. Blocks on the disk.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        Self::compiled_by(root, compile)
    }

    /// The same with warnings of what is probably not meant, which nobody waits for at a load.
    #[must_use]
    pub fn check(root: &Path) -> Self {
        Self::compiled_by(root, proxy_policy::check)
    }

    fn compiled_by(root: &Path, compile: fn(&[SourceFile]) -> Compiled) -> Self {
        let Texts { files, exposed, trouble, digest } = Texts::read(root);
        let mut trouble = [exposed, trouble].concat();
        if !root.join("policies").is_dir() {
            trouble.push(format!(
                "{}: error: there is no folder \"policies\" here\n  help: a policy root holds policies/, roles/, apis/ and credentials/",
                root.display()
            ));
        }
        Self { root: root.to_owned(), compiled: compile(&files), trouble, digest }
    }

    /// SHA-256 over names and contents of all files, hexadecimal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Every error and warning, with the place of its file as one can open it.
    #[must_use]
    pub fn lines(&self, wanted: Severity) -> Vec<String> {
        let mut lines = if wanted == Severity::Error { self.trouble.clone() } else { Vec::new() };
        let found = self.compiled.diagnostics.iter().filter(|d| d.severity == wanted);
        lines.extend(found.map(|diagnostic| format!("{}/{diagnostic}", self.root.display())));
        lines
    }

    /// The first warnings, and how many more there are.
    #[must_use]
    pub fn warnings(&self, most: usize) -> Vec<String> {
        let mut found = self.compiled.diagnostics.iter().filter(|d| d.severity == Severity::Warning);
        let root = self.root.display();
        let mut lines: Vec<String> =
            found.by_ref().take(most).map(|diagnostic| format!("{root}/{diagnostic}")).collect();
        let more = found.count();
        if more > 0 {
            lines.push(format!("{root}: the policy has {more} more warnings; see `vouchsafe check {root}`"));
        }
        lines
    }

    /// The set, if nothing is wrong.
    ///
    /// # Errors
    /// Every error of every file.
    pub fn into_set(self) -> Result<PolicySet, Errors> {
        let errors = self.lines(Severity::Error);
        match self.compiled.set {
            Some(set) if errors.is_empty() => Ok(set),
            _ => Err(Errors(errors)),
        }
    }
}

/// The set, where this host can do what it says: without auditors no bodies can be kept.
///
/// # Errors
/// Every grant that says `capture`, with its place.
pub fn within_reach(set: PolicySet, root: &Path, auditors: bool) -> Result<PolicySet, Errors> {
    let told = |at: RuleRef<'_>| {
        let (root, RuleRef { file, line, column, .. }) = (root.display(), at);
        format!(
            "{root}/{file}:{line}:{column}: error: \"capture\" keeps bodies for auditors, and vouchsafe.toml names none\n  \
             help: add auditors = [\"age1…\"] to its [journal], with the public key that `age-keygen` prints, and restart the daemon"
        )
    };
    let errors: Vec<String> = set.captures().filter(|_| !auditors).map(told).collect();
    if errors.is_empty() { Ok(set) } else { Err(Errors(errors)) }
}

fn check_owner(path: &Path, trouble: &mut Vec<String>) {
    if let Some(what) = ownership::problem(path) {
        let path = path.display();
        trouble.push(format!("{path}: error: {what}\n  help: chown root {path} && chmod go-w {path}"));
    }
}

fn toml_files(dir: &Path, trouble: &mut Vec<String>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            trouble.push(format!("{}: error: cannot be read: {error}", dir.display()));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => files.push(entry.path()),
            Err(error) => trouble.push(format!("{}: error: cannot be read: {error}", dir.display())),
        }
    }
    files.retain(|path| {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        path.extension().is_some_and(|extension| extension == "toml")
            && !name.starts_with('.')
            && !name.ends_with(TEST_SUFFIX)
    });
    files.sort();
    files
}

/// Every file of tests below a policy root, in any folder, by path; what cannot be read is told. Links to folders are not
/// followed.
pub fn tests(root: &Path, trouble: &mut Vec<String>) -> Vec<SourceFile> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                trouble.push(format!("{}: error: cannot be read: {error}", folder.display()));
                continue;
            }
        };
        for entry in entries.filter_map(Result::ok) {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.starts_with('.') {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if name.ends_with(TEST_SUFFIX) {
                let label = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                match read_bounded(&path) {
                    Ok(text) => files.push(SourceFile { path: label, text }),
                    Err(why) => trouble.push(format!("{}: error: {why}", path.display())),
                }
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !meta.is_file() {
        return Err("is not a file".into());
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(format!("has {} bytes; more than {MAX_FILE_BYTES} are refused", meta.len()));
    }
    std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A policy root with one sound identity.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("policies")).unwrap();
        fs::write(root.path().join("policies/bot.toml"), "[identity]\nexe = \"/opt/bot\"\n").unwrap();
        root
    }

    #[track_caller]
    fn refused(root: &Path, words: &[&str]) {
        let errors = Loaded::read(root).into_set().unwrap_err().to_string();
        assert!(words.iter().all(|word| errors.contains(word)), "{errors}");
    }

    #[test]
    fn of_many_warnings_the_first_are_told_and_how_many_more_there_are() {
        let root = root();
        for name in ["c", "d", "e"] {
            let identity = format!("[identity]\nexe = \"/opt/{name}\"\n");
            fs::write(root.path().join(format!("policies/{name}.toml")), identity).unwrap();
        }
        let loaded = Loaded::read(root.path());
        let all = loaded.lines(Severity::Warning);
        assert!(all.len() == 4 && all[0].contains("policies/bot.toml:"), "{all:?}");
        assert_eq!(loaded.warnings(4), all);
        let told = loaded.warnings(1);
        assert_eq!((told.len(), &told[0]), (2, &all[0]));
        assert!(told[1].contains("3 more warnings") && told[1].contains("vouchsafe check /"), "{told:?}");
    }

    #[test]
    fn a_root_that_others_may_write_is_refused_because_they_could_replace_its_folders() {
        let root = root();
        assert!(Loaded::read(root.path()).into_set().is_ok());
        fs::set_permissions(root.path(), Permissions::from_mode(0o777)).unwrap();
        refused(root.path(), &["writable by everybody", &format!("chmod go-w {}", root.path().display())]);
    }

    #[test]
    fn a_root_without_its_folder_of_policies_is_a_mistake_and_not_an_empty_policy() {
        let root = tempfile::tempdir().unwrap();
        refused(root.path(), &[root.path().to_str().unwrap(), "no folder \"policies\""]);
        refused(&root.path().join("nowhere"), &["nowhere", "no folder \"policies\""]);
    }

    #[test]
    fn files_of_tests_are_no_part_of_the_policy_wherever_they_are() {
        let root = root();
        let before = Loaded::read(root.path()).digest().to_owned();
        for folder in ["policies", "more/below"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("bot.test.toml"), "[[call]]\n").unwrap();
        }
        let loaded = Loaded::read(root.path());
        assert_eq!(loaded.digest(), before);
        assert_eq!(loaded.into_set().unwrap().summary().identities, 1);
        let mut trouble = Vec::new();
        let found: Vec<String> = tests(root.path(), &mut trouble).into_iter().map(|file| file.path).collect();
        assert_eq!(found, ["more/below/bot.test.toml", "policies/bot.test.toml"]);
        assert!(trouble.is_empty());
    }

    #[test]
    fn a_file_larger_than_any_policy_is_refused_and_not_read() {
        let root = root();
        let huge = root.path().join("policies/huge.toml");
        fs::File::create(&huge).unwrap().set_len(MAX_FILE_BYTES + 1).unwrap();
        refused(root.path(), &[huge.to_str().unwrap(), "4194305 bytes"]);
    }
}
