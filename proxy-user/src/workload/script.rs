//! The script that an interpreter was started with, as a file that nobody else could have put there.
//!
//! The kernel side keeps the arguments of each `execve`; here they are read as the interpreter reads them. The interpreter
//! opens its script by name, after that. So a name counts only if it leads to the same file for everybody: no other process
//! can change the directories of the process, no user namespace lets other files appear, and nobody else can write the
//! folders on the way.
use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use proxy_common::{
    COMMAND_BYTES, PATH_BYTES, PROGRAM_IN_USER_NAMESPACE, PROGRAM_SHARES_DIRECTORIES, PROGRAM_START_KNOWN,
    Program,
};

use super::{
    Workload,
    files::{self, FileId},
    interpreter::{self, NoScript},
    process, writers,
};
use crate::kernel::Programs;

/// How many starts are remembered, so that a process may execute something else while its call is judged; beyond, all are
/// forgotten.
const MOST_STARTS: usize = 4096;

/// Finds scripts.
#[derive(Default)]
pub(super) struct Scripts {
    /// `None`: nothing is captured, and no workload has a script.
    programs: Option<Arc<Programs>>,
    starts: Mutex<HashMap<(u64, u32), Arc<Program>>>,
}

/// A script, found.
#[derive(Debug)]
pub(super) struct Script {
    /// Where the interpreter opened it.
    pub(super) path: PathBuf,
    /// What is there.
    pub(super) file: FileId,
}

/// Why a workload has no script.
#[derive(Debug)]
pub(super) struct NotFound {
    /// Whether it executes one, and somebody could have changed which: worth telling.
    pub(super) near: bool,
    /// As the end of "X is not bot: …".
    pub(super) why: String,
}

impl NotFound {
    pub(super) fn far(why: impl Into<String>) -> Self {
        Self { near: false, why: why.into() }
    }

    fn near(why: impl Into<String>) -> Self {
        Self { near: true, why: why.into() }
    }
}

impl Scripts {
    pub(super) fn new(programs: Arc<Programs>) -> Self {
        Self { programs: Some(programs), starts: Mutex::default() }
    }

    /// The script of a workload that executes the interpreter at this path. `pinned`: as in [`writers::of_path`]. Blocks on
    /// the file system.
    pub(super) fn of(&self, workload: &Workload, exe: &Path, pinned: bool) -> Result<Script, NotFound> {
        let start = self.start(workload)?;
        if start.flags & PROGRAM_START_KNOWN == 0 {
            return Err(NotFound::near("how it was started could not be read; restart it"));
        }
        if start.flags & PROGRAM_SHARES_DIRECTORIES != 0 {
            return Err(NotFound::near("another process can change its working directory"));
        }
        if start.flags & PROGRAM_IN_USER_NAMESPACE != 0 {
            return Err(NotFound::near(
                "it is in a user namespace, where a path can be made to name another file",
            ));
        }
        let exe = exe.canonicalize().map_err(|error| NotFound::near(format!("its executable: {error}")))?;
        let file_name = exe.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let argument = interpreter::script(file_name, arguments(&start)).map_err(|none| match none {
            NoScript::NotAnInterpreter => NotFound::near(format!(
                "{file_name} is not an interpreter whose scripts are known; see docs/policy.md"
            )),
            NoScript::NoArgument => NotFound::far("it was started without a script"),
            NoScript::Option if is_cut(&start) => NotFound::near(too_long()),
            NoScript::Option => NotFound::far(
                "it was started with code, or with an option that can bring code, before a script",
            ),
        })?;
        // The last one that was kept may not be whole.
        if is_cut(&start) && arguments(&start).last().is_some_and(|last| std::ptr::eq(last, argument)) {
            return Err(NotFound::near(too_long()));
        }
        let judge = Judge { workload, start: &start, pinned };
        judge.name_of_interpreter()?;
        judge.script(Path::new(OsStr::from_bytes(argument)))
    }

    /// What the interpreter took for its script, as it was written: for people, and nothing that was held against files.
    pub(super) fn label(&self, workload: &Workload) -> Option<String> {
        let file_name = Path::new(workload.exe.as_deref()?).file_name()?.to_str()?;
        let start = self.start(workload).ok()?;
        let argument = interpreter::script(file_name, arguments(&start)).ok()?;
        Some(String::from_utf8_lossy(argument).into_owned())
    }

    /// What was captured of the very `execve` that the workload comes from.
    fn start(&self, workload: &Workload) -> Result<Arc<Program>, NotFound> {
        let id = (workload.exec_ns, workload.exec_tgid);
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(start) = starts.get(&id) {
            return Ok(Arc::clone(start));
        }
        let now = self.programs.as_ref().and_then(|programs| programs.of(workload.pid));
        let Some(start) = now.filter(|now| (now.exec_ns, now.exec_tgid) == id) else {
            return Err(NotFound::near(
                "it ended, or executed another program, before anybody could see its script",
            ));
        };
        if start.exec_ns == proxy_common::EXEC_UNSEEN {
            return Err(NotFound::near(
                "it was started before vouchsafe, so its script is not known; restart it",
            ));
        }
        let start = Arc::new(start);
        if starts.len() >= MOST_STARTS {
            starts.clear();
        }
        starts.insert(id, Arc::clone(&start));
        Ok(start)
    }
}

fn too_long() -> String {
    format!("its script does not stand in the first {COMMAND_BYTES} bytes of its arguments")
}

/// Whether more arguments were given than are kept.
fn is_cut(start: &Program) -> bool {
    start.command_length as usize > COMMAND_BYTES
}

/// The arguments that were kept, from `argv[0]` on.
fn arguments(start: &Program) -> impl Iterator<Item = &[u8]> {
    let kept = start.command.get(..start.command_length as usize).unwrap_or(&start.command);
    let kept = kept.strip_suffix(b"\0").unwrap_or(kept);
    kept.split(|byte| *byte == 0)
}

/// One start, about to be held against the file system.
struct Judge<'a> {
    workload: &'a Workload,
    start: &'a Program,
    pinned: bool,
}

impl Judge<'_> {
    /// Python looks for its own library from the name on that it was called by, so that name must lead to the interpreter,
    /// and only to it: by itself, or by `PATH` as it was.
    fn name_of_interpreter(&self) -> Result<(), NotFound> {
        let exe = FileId { dev: self.workload.exe_dev, ino: self.workload.exe_ino };
        let called = arguments(self.start).next().unwrap_or_default();
        let name = Path::new(OsStr::from_bytes(called));
        let foreign = |path: &Path| {
            NotFound::near(format!("it was called by the name of another file, {}", path.display()))
        };
        if called.contains(&b'/') {
            let path = self.absolute(name)?;
            if files::named_by(&path) != Some(exe) {
                return Err(foreign(&path));
            }
            return self.undisputed(&path, exe);
        }
        for folder in self.search_path()? {
            let path = folder.join(name);
            match files::named_by(&path) {
                Some(file) if file == exe => return self.undisputed(&path, exe),
                Some(_) => return Err(foreign(&path)),
                // Whoever can write there could have had one there a moment ago.
                None => self.folder(&folder)?,
            }
        }
        Err(NotFound::near(format!("it was called {}, which its PATH does not have", name.display())))
    }

    /// The folders of `PATH` that were kept, in order; the last one may be cut, and then it is not among them.
    fn search_path(&self) -> Result<Vec<PathBuf>, NotFound> {
        let end = self.start.path.iter().position(|byte| *byte == 0).unwrap_or(PATH_BYTES);
        let text = self.start.path.get(..end).unwrap_or_default();
        let cut = end >= PATH_BYTES - 1;
        let mut folders: Vec<&[u8]> = text.split(|byte| *byte == b':').collect();
        if cut {
            folders.pop();
        }
        folders
            .into_iter()
            .map(|folder| match folder.first() {
                Some(b'/') => Ok(PathBuf::from(OsStr::from_bytes(folder))),
                _ => Err(NotFound::near("its PATH has a folder that is not absolute")),
            })
            .collect()
    }

    /// A path as the process meant it when it was started.
    fn absolute(&self, path: &Path) -> Result<PathBuf, NotFound> {
        if path.components().any(|component| component == Component::ParentDir) {
            return Err(NotFound::near(format!("{} has a .. in it", path.display())));
        }
        if path.is_absolute() {
            return Ok(path.components().collect());
        }
        let cwd = FileId { dev: u64::from(self.start.cwd_dev), ino: self.start.cwd_ino };
        // Only a hint: what counts is that it is the directory that was captured.
        let now = std::fs::read_link(format!("/proc/{}/cwd", self.workload.pid)).unwrap_or_default();
        if files::named_by(&now) != Some(cwd) {
            return Err(NotFound::near(format!(
                "{} is relative to a directory that it has left since; start it by its whole path",
                path.display()
            )));
        }
        Ok(now.join(path).components().filter(|component| *component != Component::CurDir).collect())
    }

    fn script(&self, argument: &Path) -> Result<Script, NotFound> {
        let path = self.absolute(argument)?;
        let gone = |what: &str| NotFound::near(format!("its script {} {what}", path.display()));
        let file = files::named_by(&path).ok_or_else(|| gone("is not there any more"))?;
        if !path.is_file() {
            return Err(gone("is not a regular file"));
        }
        self.undisputed(&path, file)?;
        // Root can give a process other mounts, or another root, as for a container.
        if files::seen_by(self.workload.pid, &path) != Some(file) || !process::is_alive(self.workload) {
            return Err(gone("is another file for the process, or the process is gone"));
        }
        Ok(Script { path, file })
    }

    fn undisputed(&self, path: &Path, file: FileId) -> Result<(), NotFound> {
        writers::of_script(path, file, self.workload.uid, self.pinned)
            .map_or(Ok(()), |why| Err(NotFound::near(why)))
    }

    fn folder(&self, folder: &Path) -> Result<(), NotFound> {
        match writers::of_folder(folder, self.workload.uid) {
            Some(why) => Err(NotFound::near(format!("{why}, and its PATH has it"))),
            None => Ok(()),
        }
    }
}

/// Opens a script to read its content; never waits for a writer.
pub(super) fn open(script: &Script) -> Option<File> {
    let open = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&script.path).ok()?;
    (open.metadata().ok()?.is_file() && files::of_open(&open) == Some(script.file)).then_some(open)
}
