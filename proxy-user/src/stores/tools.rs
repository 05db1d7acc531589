//! The tools that stores are made with: found where only administrators put programs, run bounded and without our variables.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::error::StoreError;

/// Where programs are looked for, and what they are told as PATH. Not our own PATH, which may have a user's folders.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// How long a tool may take. A slow host makes Java's store anew in half a minute.
const LONGEST: Duration = Duration::from_secs(180);

/// How much of what a tool says is kept, in bytes.
const MOST_SAID: u64 = 4 * 1024 * 1024;

/// The program of that name; `None` when it is not installed.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| is_program(path))
}

pub(super) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// A run of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// What it reads.
    pub input: Vec<u8>,
    /// A file that is there while it runs; its path is the last argument.
    pub file: Option<Vec<u8>>,
    /// The user and group it runs as, when not as we do.
    pub user: Option<(u32, u32)>,
    /// What takes it back.
    pub undo: Option<Box<Run>>,
}

impl Run {
    pub(super) fn new<A: Into<OsString>>(program: &Path, args: impl IntoIterator<Item = A>) -> Self {
        Self {
            program: program.to_owned(),
            args: args.into_iter().map(Into::into).collect(),
            input: Vec::new(),
            file: None,
            user: None,
            undo: None,
        }
    }

    /// The command as one would type it.
    #[must_use]
    pub fn shown(&self) -> String {
        let mut words = vec![self.program.display().to_string()];
        words.extend(self.args.iter().map(|arg| arg.to_string_lossy().into_owned()));
        words.extend(self.file.is_some().then(|| "FILE".to_owned()));
        let quoted = words.iter().map(|word| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+@%,".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word.clone()
            } else {
                format!("'{}'", word.escape_debug().to_string().replace('\'', r"'\''"))
            }
        });
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Runs it, and returns what it printed.
    ///
    /// # Errors
    /// It cannot be started, takes too long, or says that it failed.
    pub(super) fn run(&self) -> Result<Vec<u8>, StoreError> {
        let failed = |status: String, said: &[u8]| StoreError::Tool {
            command: self.shown(),
            status,
            said: last_words(said),
        };
        // What runs as a user may run what that user put there: not on the terminal of the administrator, into which it
        // could type.
        let apart = self.user.and_then(|_| find("setsid"));
        let mut command = match &apart {
            Some(setsid) => {
                let mut command = Command::new(setsid);
                command.arg("--wait").arg(&self.program);
                command
            }
            None if self.user.is_some() => {
                return Err(failed("setsid of util-linux is missing".to_owned(), b""));
            }
            None => Command::new(&self.program),
        };
        command.args(&self.args).env_clear().current_dir("/");
        command.env("PATH", FOLDERS.join(":")).env("LC_ALL", "C").env("HOME", "/nonexistent");
        if let Some((uid, gid)) = self.user {
            command.gid(gid).uid(uid);
        }
        let file = match &self.file {
            None => None,
            Some(content) => {
                let made = tempfile::NamedTempFile::new().and_then(|mut file| {
                    file.write_all(content)?;
                    Ok(file)
                });
                Some(made.map_err(|error| failed(error.to_string(), b""))?)
            }
        };
        if let Some(file) = &file {
            command.arg(file.path());
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(error.to_string(), b""))?;
        let (status, out, mut said) = attend(&mut child, &self.input);
        match status {
            Some(status) if status.success() => Ok(out),
            status => {
                said.extend_from_slice(&out);
                let status = status.map_or_else(
                    || format!("ended by us after {} s", LONGEST.as_secs()),
                    |status| status.to_string(),
                );
                Err(failed(status, &said))
            }
        }
    }
}

/// Feeds and reads a child until it ends, or ends it; no status in the latter case.
fn attend(child: &mut Child, input: &[u8]) -> (Option<std::process::ExitStatus>, Vec<u8>, Vec<u8>) {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let out = scope.spawn(|| all(stdout));
        let said = scope.spawn(|| all(stderr));
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input)));
        let begun = Instant::now();
        let status = loop {
            match child.try_wait() {
                Ok(None) if begun.elapsed() < LONGEST => thread::sleep(Duration::from_millis(5)),
                Ok(Some(status)) => break Some(status),
                _ => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
            }
        };
        (status, out.join().unwrap_or_default(), said.join().unwrap_or_default())
    })
}

fn all(from: Option<impl std::io::Read>) -> Vec<u8> {
    let mut said = Vec::new();
    if let Some(mut from) = from {
        let _ = from.by_ref().take(MOST_SAID).read_to_end(&mut said);
        // What is more is not kept, and must not block the tool either.
        let _ = std::io::copy(&mut from, &mut std::io::sink());
    }
    said
}

/// The last lines of what a tool said, on one line, without control characters.
fn last_words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(3)..).unwrap_or_default().join("; ");
    last.chars().filter(|c| !c.is_control()).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_reads_its_input_and_has_none_of_our_variables() {
        let script = "cat; echo $CARGO_MANIFEST_DIR; cat \"$1\"";
        let mut run = Run::new(Path::new("/bin/sh"), ["-c", script, "sh"]);
        run.input = b"in,".to_vec();
        run.file = Some(b"file".to_vec());
        assert_eq!(run.run().unwrap(), b"in,\nfile");
        assert_eq!(run.shown().rsplit(' ').next(), Some("FILE"));
    }

    #[test]
    fn a_tool_that_fails_is_quoted_and_one_that_is_not_there_is_named() {
        let error =
            Run::new(Path::new("/bin/sh"), ["-c", "echo one; echo no room >&2; exit 3"]).run().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("no room"), "{text}");
        let error = Run::new(Path::new("/nowhere/tool"), ["x"]).run().unwrap_err();
        assert!(error.to_string().contains("/nowhere/tool x"), "{error}");
    }

    #[test]
    fn what_runs_as_a_user_has_his_rights_alone_and_no_terminal() {
        let mut run = Run::new(
            Path::new("/bin/sh"),
            ["-c", "id -u; id -G; ps -o sid= -p $$ | tr -d ' '; echo $$; exit 4"],
        );
        run.user = Some((65534, 65533));
        let said = run.run().unwrap_err().to_string();
        assert!(said.contains("exit status: 4"), "{said}");
        run.args[1] = "id -u; id -G; ps -o sid= -p $$ | tr -d ' '; echo $$".into();
        let said = String::from_utf8(run.run().unwrap()).unwrap();
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines[..2], ["65534", "65533"]);
        assert_eq!(lines[2], lines[3], "it leads a session of its own");
    }

    #[test]
    fn what_a_tool_says_beyond_all_measure_does_not_block_it() {
        let out = Run::new(Path::new("/bin/sh"), ["-c", "head -c 9000000 /dev/zero"]).run().unwrap();
        assert_eq!(out.len() as u64, MOST_SAID);
    }
}
