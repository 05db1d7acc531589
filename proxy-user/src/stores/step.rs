//! Steps: what a change does, said before it is done, done in order, and taken back as a whole when one fails.

use std::fmt;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::files::{Digest, Folder, Found, digest, split};
use super::tools::Run;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make a folder with this mode.
    MakeFolder {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Write a file as a whole, or replace what was seen before.
    Write {
        /// The file.
        path: PathBuf,
        /// All of it.
        content: Vec<u8>,
        /// The permission bits of a file that is new.
        mode: u32,
        /// What was seen before.
        before: Option<[u8; 32]>,
        /// What that means, for people.
        about: String,
    },
    /// Make a link, or replace what was seen before.
    Link {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        to: PathBuf,
        /// What was seen before.
        before: Option<[u8; 32]>,
    },
    /// Delete a file or a link.
    Delete {
        /// The file.
        path: PathBuf,
        /// What was seen.
        before: [u8; 32],
        /// What that means, for people.
        about: String,
    },
    /// Delete a folder, if nothing is in it.
    DeleteFolder {
        /// The folder.
        path: PathBuf,
    },
    /// Run a tool.
    Run(Run),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeFolder { path, .. } => write!(f, "create  {}/", path.display()),
            Self::Write { path, before, about, .. } => {
                let word = if before.is_some() { "change" } else { "write " };
                write!(f, "{word}  {} ({about})", path.display())
            }
            Self::Link { path, to, .. } => write!(f, "link    {} -> {}", path.display(), to.display()),
            Self::Delete { path, about, .. } => write!(f, "delete  {} ({about})", path.display()),
            Self::DeleteFolder { path } => write!(f, "delete  {}/ (if nothing is in it)", path.display()),
            Self::Run(run) => write!(f, "run     {}", run.shown()),
        }
    }
}

/// What takes a step back.
enum Back {
    Write(PathBuf, Vec<u8>, Digest),
    Delete(PathBuf, Digest),
    Create(PathBuf, Vec<u8>, u32),
    Link(PathBuf, PathBuf),
    DeleteFolder(PathBuf),
    MakeFolder(PathBuf, u32),
}

/// Steps that were done, and may still be taken back.
#[derive(Default)]
pub(super) struct Done {
    files: Vec<Back>,
    runs: Vec<Run>,
}

/// Does the steps, each of them said before.
///
/// # Errors
/// The first that fails; what was done before it has been taken back.
pub(super) fn apply(steps: &[Step], say: &mut dyn FnMut(&Step)) -> Result<Done, StoreError> {
    let mut done = Done::default();
    for step in steps {
        say(step);
        if let Err(error) = done.one(step) {
            return Err(match done.undo() {
                Ok(()) => error,
                Err(undo) => StoreError::NotUndone { error: Box::new(error), undo: Box::new(undo) },
            });
        }
    }
    Ok(done)
}

/// The folder of a path, which must be there.
fn folder(path: &Path) -> Result<Folder, StoreError> {
    let missing = || StoreError::io("open", path)(std::io::ErrorKind::NotFound.into());
    Folder::open(path)?.ok_or_else(missing)
}

impl Done {
    fn one(&mut self, step: &Step) -> Result<(), StoreError> {
        match step {
            Step::MakeFolder { path, mode } => {
                let (parent, name) = split(path)?;
                folder(parent)?.make(name, *mode)?;
                self.files.push(Back::DeleteFolder(path.clone()));
            }
            Step::Write { path, content, mode, before, .. } => {
                let (parent, name) = split(path)?;
                let folder = folder(parent)?;
                let old = folder.read(name)?;
                folder.replace(name, content, *mode, before.as_ref())?;
                let new = digest(content);
                self.files.push(match old {
                    Some(Found::File { content, .. }) => Back::Write(path.clone(), content, new),
                    _ => Back::Delete(path.clone(), new),
                });
            }
            Step::Link { path, to, before } => {
                let (parent, name) = split(path)?;
                let folder = folder(parent)?;
                let old = folder.read(name)?;
                folder.link(name, to, before.as_ref())?;
                self.files.push(match old {
                    Some(Found::Link(old)) => Back::Link(path.clone(), old),
                    _ => Back::Delete(path.clone(), digest(to.as_os_str().as_encoded_bytes())),
                });
            }
            Step::Delete { path, before, .. } => {
                let (parent, name) = split(path)?;
                let folder = folder(parent)?;
                let old = folder.read(name)?;
                folder.delete(name, before)?;
                match old {
                    Some(Found::File { content, mode, .. }) => {
                        self.files.push(Back::Create(path.clone(), content, mode));
                    }
                    Some(Found::Link(to)) => self.files.push(Back::Link(path.clone(), to)),
                    None => {}
                }
            }
            Step::DeleteFolder { path } => {
                let (parent, name) = split(path)?;
                folder(parent)?.delete_empty(name)?;
                self.files.push(Back::MakeFolder(path.clone(), 0o755));
            }
            Step::Run(run) => {
                // Also of a run that failed: it may have done a part.
                self.runs.extend(run.undo.as_deref().cloned());
                run.run()?;
            }
        }
        Ok(())
    }

    /// Takes all of it back: files first, since the tools make what they make of them.
    ///
    /// # Errors
    /// The first that failed; the others were taken back nevertheless.
    pub(super) fn undo(self) -> Result<(), StoreError> {
        let mut first = Ok(());
        let files = self.files.into_iter().rev().map(Back::take);
        for result in files.chain(self.runs.iter().map(|run| run.run().map(drop))) {
            first = first.and(result);
        }
        first
    }
}

impl Back {
    fn take(self) -> Result<(), StoreError> {
        match self {
            Self::Write(path, content, now) => {
                let (parent, name) = split(&path)?;
                folder(parent)?.replace(name, &content, 0o644, Some(&now))
            }
            Self::Delete(path, now) => {
                let (parent, name) = split(&path)?;
                folder(parent)?.delete(name, &now)
            }
            Self::Create(path, content, mode) => {
                let (parent, name) = split(&path)?;
                folder(parent)?.replace(name, &content, mode, None)
            }
            Self::Link(path, to) => {
                let (parent, name) = split(&path)?;
                let folder = folder(parent)?;
                let now = folder.read(name)?.map(|found| found.digest());
                folder.link(name, &to, now.as_ref())
            }
            Self::DeleteFolder(path) => {
                let (parent, name) = split(&path)?;
                folder(parent)?.delete_empty(name)
            }
            Self::MakeFolder(path, mode) => {
                let (parent, name) = split(&path)?;
                if path.is_dir() { Ok(()) } else { folder(parent)?.make(name, mode) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn write(path: &Path, content: &str, before: Option<&str>) -> Step {
        Step::Write {
            path: path.to_owned(),
            content: content.into(),
            mode: 0o644,
            before: before.map(|text| digest(text.as_bytes())),
            about: "a test".into(),
        }
    }

    fn listing(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn when_a_step_fails_everything_before_it_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("old"), "old").unwrap();
        fs::set_permissions(at("old"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(at("gone"), "gone").unwrap();
        std::os::unix::fs::symlink("old", at("link")).unwrap();
        let ran = at("undone");
        let mut run = Run::new(Path::new("/bin/false"), ["x"]);
        run.undo = Some(Box::new(Run::new(Path::new("/usr/bin/touch"), [&ran])));
        let steps = [
            Step::MakeFolder { path: at("folder"), mode: 0o755 },
            write(&at("folder/new"), "new", None),
            write(&at("old"), "changed", Some("old")),
            Step::Link { path: at("link"), to: "gone".into(), before: Some(digest(b"old")) },
            Step::Delete { path: at("gone"), before: digest(b"gone"), about: "a test".into() },
            Step::Run(run),
        ];
        let mut said = Vec::new();
        let error = apply(&steps, &mut |step| said.push(step.to_string())).err().unwrap();
        assert!(matches!(error, StoreError::Tool { .. }), "{error}");
        assert_eq!(said.len(), 6, "each is said before it is done: {said:?}");
        assert_eq!(listing(dir.path()), ["gone", "link", "old", "undone"]);
        assert_eq!(fs::read_to_string(at("old")).unwrap(), "old");
        assert_eq!(fs::metadata(at("old")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("old"));
        assert_eq!(fs::read_to_string(at("gone")).unwrap(), "gone");
    }

    #[test]
    fn what_others_changed_meanwhile_is_left_as_they_made_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "theirs").unwrap();
        let delete = Step::Delete { path: file.clone(), before: digest(b"seen"), about: "a test".into() };
        let link = Step::Link { path: file.clone(), to: "x".into(), before: None };
        for step in [write(&file, "ours", Some("seen")), write(&file, "ours", None), delete, link] {
            let error = apply(&[step], &mut |_| ()).err().unwrap();
            assert!(matches!(error, StoreError::Changed { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "theirs");
        assert_eq!(listing(dir.path()), ["file"], "nothing unfinished stays");
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode_and_its_attributes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
        rustix::fs::setxattr(&file, "user.origin", b"theirs", rustix::fs::XattrFlags::empty()).unwrap();
        apply(&[write(&file, "new", Some("old"))], &mut |_| ()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o664);
        let mut value = [0_u8; 16];
        assert_eq!(rustix::fs::getxattr(&file, "user.origin", value.as_mut_slice()).unwrap(), 6);
        assert_eq!(&value[..6], b"theirs");
    }

    #[test]
    fn a_link_put_in_place_of_a_file_is_not_followed_and_what_a_kill_left_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let (file, victim) = (dir.path().join("file"), dir.path().join("victim"));
        fs::write(&victim, "victim").unwrap();
        std::os::unix::fs::symlink(&victim, &file).unwrap();
        fs::write(dir.path().join(".vouchsafe-new-1"), "half").unwrap();
        let error = apply(&[write(&file, "ours", Some("victim"))], &mut |_| ()).err().unwrap();
        assert!(matches!(error, StoreError::Changed { .. }), "{error}");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "victim");
        assert_eq!(listing(dir.path()), ["file", "victim"]);
    }

    #[test]
    fn a_folder_in_which_everybody_may_write_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = apply(&[write(&dir.path().join("file"), "x", None)], &mut |_| ()).err().unwrap();
        assert!(error.to_string().contains("chmod o-w"), "{error}");
    }
}
