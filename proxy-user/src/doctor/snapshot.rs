//! A process as far as its diagnosis needs it, read at once: it may end in the next moment.
//!
//! Of its environment and its arguments only the words are kept that say where roots are; all else is forgotten here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statat};

use crate::kernel::clock_ticks;
use crate::workload::files::FileId;

/// The variables that name roots, by which some runtime finds its own.
pub(super) const VARIABLES: [&str; 18] = [
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "AWS_CA_BUNDLE",
    "PIP_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "npm_config_cafile",
    "NPM_CONFIG_CAFILE",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "NODE_USE_SYSTEM_CA",
    "DENO_TLS_CA_STORE",
    "DENO_CERT",
    "PERL_LWP_SSL_CA_FILE",
    "HTTPS_CA_FILE",
    "HTTPLIB2_CA_CERTS",
];

/// Where files of a program are; kept, and never told.
const PLACES: [&str; 3] = ["VIRTUAL_ENV", "PYTHONPATH", "HOME"];
/// Options of a runtime, of which only those that say where roots are get kept.
const OPTIONS: [&str; 3] = ["NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"];

/// Bytes that are read of the environment and of the arguments, at most.
const MOST_WORDS: u64 = 256 << 10;
/// Bytes that are read of the list of mappings, at most.
const MOST_MAPS: u64 = 4 << 20;
/// A value longer than this names no file.
const MOST_VALUE: usize = 1024;

/// A process, at one moment.
pub(super) struct Snapshot {
    /// When it started.
    pub(super) started: SystemTime,
    /// Its environment and mappings could be read.
    pub(super) is_whole: bool,
    /// [`VARIABLES`] and [`PLACES`] that are set.
    pub(super) variables: BTreeMap<&'static str, String>,
    /// Options that say where roots are.
    pub(super) options: Options,
    /// Files that are mapped.
    pub(super) mapped: BTreeSet<String>,
    /// The path of the executable.
    pub(super) exe: Option<String>,
    /// The executable.
    pub(super) image: Option<File>,
    /// How it was called.
    pub(super) called: Option<String>,
    /// Its own view of files.
    pub(super) files: Files,
}

/// What options say of roots.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// Node.js and Bun: those of the system as well.
    pub(super) system_roots: bool,
    /// Node.js: those that OpenSSL finds, instead of those that are compiled in.
    pub(super) openssl_roots: bool,
    /// Java: `javax.net.ssl.trustStore`.
    pub(super) java_store: Option<String>,
    /// npm is what Node.js executes.
    pub(super) is_npm: bool,
}

impl Options {
    fn take(&mut self, word: &str) {
        match word {
            "--use-system-ca" => self.system_roots = true,
            "--use-openssl-ca" => self.openssl_roots = true,
            _ => {}
        }
        if let Some(path) = word.strip_prefix("-Djavax.net.ssl.trustStore=") {
            self.java_store = Some(path.trim_matches('"').to_owned());
        }
    }
}

impl Snapshot {
    /// Looks at a process; of several with this id, at the one that started then (nanoseconds since boot), to the tick.
    ///
    /// # Errors
    /// It is gone, or may not be looked at.
    pub(super) fn take(pid: u32, start_time_ns: Option<u64>) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // It stands for this process alone, also when its id is given to another.
        let proc = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty())?;
        let ticks = started(&read(&proc, "stat", MOST_WORDS)?).ok_or(io::ErrorKind::InvalidData)?;
        let tick = 1_000_000_000 / clock_ticks();
        if start_time_ns.is_some_and(|wanted| wanted / tick != ticks) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // What ends with the process first.
        let environment = read(&proc, "environ", MOST_WORDS);
        let arguments = read(&proc, "cmdline", MOST_WORDS).unwrap_or_default();
        let maps = read(&proc, "maps", MOST_MAPS);
        let root = openat(&proc, "root", flags, Mode::empty());
        let image = openat(&proc, "exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        let link = |name: &str| {
            let path = readlinkat(&proc, name, Vec::new()).ok()?.into_string().ok()?;
            Some(path.strip_suffix(" (deleted)").map_or_else(|| path.clone(), str::to_owned))
        };
        let (exe, cwd) = (link("exe"), link("cwd"));
        let mapped = maps.as_deref().map(mapped).unwrap_or_default();
        let is_whole = environment.is_ok() && !mapped.is_empty();
        let (variables, mut options) = words(&environment.unwrap_or_default());
        let mut arguments = arguments.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
        let called = arguments.next().map(|word| word.into_owned()).filter(|word| !word.is_empty());
        // It writes its own words over those that it was called with.
        options.is_npm =
            called.as_deref().is_some_and(|word| word.starts_with("npm ") || word.starts_with("npx "));
        for (at, word) in arguments.enumerate() {
            options.take(&word);
            options.is_npm |=
                at == 0 && matches!(name_of(&word), "npm" | "npm-cli.js" | "npx" | "npx-cli.js");
        }
        Ok(Self {
            started: boot() + Duration::from_nanos(ticks * tick),
            is_whole,
            variables,
            options,
            mapped,
            exe,
            image: image.map(File::from),
            called,
            files: Files::of(root?, cwd)?,
        })
    }

    /// What is left of a process that ended: its executable, if that is still the same file.
    pub(super) fn of_gone(exe: Option<&str>, file: FileId) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let files = Files::of(openat(CWD, "/", flags, Mode::empty())?, None)?;
        let image = exe.and_then(|path| files.open(Path::new(path)).ok());
        Ok(Self {
            started: SystemTime::UNIX_EPOCH,
            is_whole: false,
            variables: BTreeMap::new(),
            options: Options::default(),
            mapped: BTreeSet::new(),
            exe: exe.map(str::to_owned),
            image: image.filter(|image| crate::workload::files::of_open(image) == Some(file)),
            called: None,
            files,
        })
    }

    /// A variable that is set to something.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Whether a file is mapped whose name begins so.
    pub(super) fn maps(&self, name: &str) -> bool {
        self.mapping(name).is_some()
    }

    /// The first file that is mapped whose name begins so.
    pub(super) fn mapping(&self, name: &str) -> Option<&str> {
        self.mapped.iter().map(String::as_str).find(|path| name_of(path).starts_with(name))
    }
}

/// The last part of a path.
pub(super) fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The files of a process, with its own root and mounts.
pub(super) struct Files {
    root: OwnedFd,
    cwd: Option<PathBuf>,
    /// Its root is another directory than ours.
    pub(super) are_foreign: bool,
}

impl Files {
    fn of(root: OwnedFd, cwd: Option<String>) -> io::Result<Self> {
        let theirs = rustix::fs::fstat(&root)?;
        let ours = std::fs::metadata("/")?;
        let are_foreign = (theirs.st_dev, theirs.st_ino) != (ours.dev(), ours.ino());
        Ok(Self { root, cwd: cwd.map(PathBuf::from), are_foreign })
    }

    /// A relative path as the process would find it.
    pub(super) fn absolute(&self, path: &Path) -> PathBuf {
        self.cwd.as_deref().map_or_else(|| path.to_owned(), |cwd| cwd.join(path))
    }

    fn at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = self.absolute(path);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.root, &path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    /// A regular file with something in it. Nothing else is opened: whoever named it could have named a pipe, a device, or a file
    /// of `/proc` or tracefs whose bytes are gone once somebody has read them (these show no size).
    ///
    /// # Errors
    /// There is none.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let found = self.at(path, OFlags::PATH)?;
        let meta = File::from(found.try_clone()?).metadata()?;
        match (meta.is_file(), meta.len()) {
            (false, _) => return Err(io::ErrorKind::InvalidInput.into()),
            (true, 0) => return Err(io::ErrorKind::NotFound.into()),
            (true, _) => {}
        }
        // The one that was looked at, whatever the path names by now.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let number = std::os::fd::AsRawFd::as_raw_fd(&found);
        Ok(File::from(openat(CWD, format!("/proc/self/fd/{number}"), flags, Mode::empty())?))
    }

    /// Whether something is there.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.at(path, OFlags::PATH).is_ok()
    }

    /// The names in a directory, at most so many.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn list(&self, path: &Path, most: usize) -> io::Result<Vec<String>> {
        let folder = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let entries = Dir::read_from(folder)?.take(most).filter_map(Result::ok);
        Ok(entries.filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned)).collect())
    }

    /// Where a path leads once links in its last part are followed.
    pub(super) fn leads(&self, path: &Path) -> Option<String> {
        let found = self.at(path, OFlags::PATH).ok()?;
        let number = std::os::fd::AsRawFd::as_raw_fd(&found);
        readlinkat(CWD, format!("/proc/self/fd/{number}"), Vec::new()).ok()?.into_string().ok()
    }

    /// Whether two paths are the same file.
    pub(super) fn are_same(&self, one: &Path, other: &Path) -> bool {
        let id = |path: &Path| {
            let found = self.at(path, OFlags::PATH).ok()?;
            let stat = statat(&found, "", AtFlags::EMPTY_PATH).ok()?;
            Some((stat.st_dev, stat.st_ino))
        };
        id(one).is_some_and(|found| id(other) == Some(found))
    }
}

/// The beginning of a file of `/proc/PID`.
fn read(proc: impl AsFd, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let file = File::from(openat(proc, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    let mut content = Vec::new();
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// Start of a process in ticks since boot: field 22 of `stat` (proc(5)). A name in it may have blanks and brackets.
fn started(stat: &[u8]) -> Option<u64> {
    let after = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(stat.get(after + 2..)?).ok()?;
    text.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// When it was that the clock of boot began, as the clock of the wall tells it now; `btime` knows it to the second only.
fn boot() -> SystemTime {
    let since = nix::time::ClockId::CLOCK_BOOTTIME.now().map(Duration::from).unwrap_or_default();
    SystemTime::now().checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The paths of `maps` (proc(5)).
fn mapped(maps: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(maps);
    let paths = text.lines().filter_map(|line| line.get(line.find(" /")? + 1..));
    paths.map(|path| path.strip_suffix(" (deleted)").unwrap_or(path).to_owned()).collect()
}

/// The variables that are kept, and what options say. As for a program, the first of a name counts.
fn words(environment: &[u8]) -> (BTreeMap<&'static str, String>, Options) {
    let (mut variables, mut options) = (BTreeMap::new(), Options::default());
    for word in environment.split(|byte| *byte == 0) {
        let Some((name, value)) = std::str::from_utf8(word).ok().and_then(|word| word.split_once('=')) else {
            continue;
        };
        if let Some(known) = VARIABLES.iter().chain(&PLACES).find(|known| **known == name) {
            if !value.is_empty() && value.len() <= MOST_VALUE {
                variables.entry(*known).or_insert_with(|| value.to_owned());
            }
        } else if OPTIONS.contains(&name) {
            value.split_ascii_whitespace().for_each(|word| options.take(word));
        }
    }
    (variables, options)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn of_an_environment_only_what_names_roots_is_kept() {
        let environment = b"API_KEY=sk_live_1\0SSL_CERT_FILE=/a.pem\0SSL_CERT_FILE=/b.pem\0PIP_CERT=\0\
                            JAVA_TOOL_OPTIONS=-Dkey=secret -Djavax.net.ssl.trustStore=/s.jks\0NODE_OPTIONS=--use-system-ca";
        let (variables, options) = words(environment);
        assert_eq!(variables, BTreeMap::from([("SSL_CERT_FILE", "/a.pem".to_owned())]));
        let java_store = Some("/s.jks".to_owned());
        assert_eq!(options, Options { system_roots: true, java_store, ..Options::default() });
    }

    #[test]
    fn the_start_is_read_behind_a_name_that_looks_like_fields() {
        let stat = b"7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 1";
        assert_eq!(started(stat), Some(4711));
        assert_eq!(started(b"7 (a"), None);
    }

    #[test]
    fn a_process_of_another_start_is_another_one() {
        let me = std::process::id();
        let seen = Snapshot::take(me, None).unwrap();
        assert!(seen.is_whole && !seen.files.are_foreign);
        assert!(seen.started <= SystemTime::now() && seen.maps("libc.so"));
        assert!(Snapshot::take(me, Some(1)).is_err());
    }

    #[test]
    fn a_pipe_or_a_device_is_not_opened_as_roots() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let files = Snapshot::take(std::process::id(), None).unwrap().files;
        assert!(files.open(&pipe).is_err() && files.open(Path::new("/dev/zero")).is_err());
        for path in ["/proc/self/mem", "/proc/kmsg", "/proc/self/environ"] {
            assert!(files.open(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn links_lead_where_they_lead_for_the_process() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/real.pem"), "theirs").unwrap();
        std::os::unix::fs::symlink("/etc/real.pem", root.path().join("link.pem")).unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let files = Files::of(openat(CWD, root.path(), flags, Mode::empty()).unwrap(), None).unwrap();
        let mut text = String::new();
        files.open(Path::new("/link.pem")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "theirs");
        assert!(files.are_foreign && files.are_same(Path::new("/link.pem"), Path::new("/etc/real.pem")));
    }

    #[test]
    fn a_process_that_ended_has_nothing_to_look_at() {
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        assert!(Snapshot::take(pid, None).is_err());
    }
}
