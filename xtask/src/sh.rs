//! Running other programs, and showing what is run.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `command` with our own standard streams and prints it first. Fails when it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    println!("$ {}", shown(command));
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed ({status}); what it said stands above", shown(command));
    }
    Ok(())
}

/// Runs `command` silently and returns its standard output. Fails with its standard error when it does.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed ({}): {}", shown(command), output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed no UTF-8", shown(command)))
}

/// Whether `command` can be run and succeeds; what it prints is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The cargo that runs us, or the one in PATH.
pub(crate) fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The program `name` in PATH, or in the directories for administrators that PATH of a user lacks.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    search_path().map(|directory| directory.join(name)).find(|candidate| is_executable(candidate))
}

/// PATH for programs that look for others themselves: with the directories for administrators, which a user's own lacks,
/// also when sudo keeps it.
pub(crate) fn full_path() -> Result<OsString> {
    env::join_paths(search_path()).context("PATH cannot be extended")
}

fn search_path() -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let own: Vec<PathBuf> = env::split_paths(&path).collect();
    own.into_iter().chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
}

/// Whether `path` is a file that somebody may execute.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// The command as one would type it into a shell.
pub(crate) fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        let value = value?;
        // What only repeats our own surroundings says nothing.
        let telling = !matches!(name.to_str(), Some("PATH" | "LD_LIBRARY_PATH"));
        telling.then(|| format!("{}={}", name.display(), quoted(value)))
    });
    let program = command.get_program();
    let of_ours = env::var_os("CARGO").is_some_and(|cargo| cargo == program);
    let program = if of_ours { "cargo".as_ref() } else { program };
    let words = std::iter::once(program).chain(command.get_args()).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// `word` quoted for a POSIX shell where it must be.
pub(crate) fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+@%,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn cannot_start(command: &Command) -> String {
    format!("cannot run `{}`; is it installed and in PATH?", command.get_program().display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("curl");
        command.args(["-H", "authorization: it's", "https://api.demo.test/v1"]).env("CA", "a b");
        assert_eq!(shown(&command), r"CA='a b' curl -H 'authorization: it'\''s' https://api.demo.test/v1");
    }

    #[test]
    fn failure_carries_what_the_program_said() {
        let error = capture(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("no such thing"), "{error}");
    }
}
