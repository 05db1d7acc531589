//! The proxy of the demo: its policies, and what is looked for in what it wrote.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::server::{HOST, Server};
use crate::sh;
use crate::stage::daemon::{Daemon, Setup};
use crate::stage::{Stage, process};

/// The name of the secret; the credential in `policies/demo` names it.
const SECRET: &str = "demo-key";

/// A running proxy.
pub(super) struct Proxy<'a> {
    stage: &'a Stage,
    pub(super) daemon: Daemon<'a>,
}

impl<'a> Proxy<'a> {
    /// Starts the daemon with a copy of `policies`.
    pub(super) fn start(stage: &'a Stage, binary: &Path, policies: &Path, server: &Server) -> Result<Self> {
        ensure!(
            policies.is_dir(),
            "{} is missing; the demo needs its policies: take a complete clone",
            policies.display()
        );
        // A copy: the daemon takes policies only from files that nobody but root can write.
        copy_tree(policies, &stage.path("policies"))?;
        let state = stage.path("state");
        let setup =
            Setup { binary, state: &state, api_ca: &server.ca, secret: (SECRET, &server.key), network: &[] };
        Ok(Self { stage, daemon: Daemon::start(stage, &setup)? })
    }

    /// Shows a command of the proxy and what it prints.
    pub(super) fn show(&self, title: &str, arguments: &[&str]) -> Result<()> {
        println!("\n{title}");
        println!("  $ {}", self.shown(arguments));
        let output = self.daemon.run(arguments)?;
        output.lines().for_each(|line| println!("  {line}"));
        Ok(())
    }

    /// A command of the proxy as one would type it.
    pub(super) fn shown(&self, arguments: &[&str]) -> String {
        sh::shown(&self.daemon.command(arguments))
    }

    /// Waits until the journal shows `calls` calls: an outcome is recorded after the bot has its answer.
    pub(super) fn wait_for_records(&self, calls: usize) -> Result<()> {
        process::wait_for(
            "a line in the journal for each call",
            Duration::from_secs(5),
            &self.stage.stop,
            || {
                let shown = self.daemon.run(&["audit", "tail"])?;
                let found = shown.lines().filter(|line| line.contains(HOST)).count();
                Ok((found >= calls).then_some(()))
            },
        )
    }

    /// Fails when the key is in anything that the daemon wrote.
    pub(super) fn search_for_key(&self, server: &Server) -> Result<()> {
        let mut files = vec![self.stage.path("proxy.log")];
        for directory in ["state", "run"] {
            collect(&self.stage.path(directory), &mut files)?;
        }
        let mut read = 0;
        for path in files {
            // Sockets and what is gone by now cannot be read.
            let Ok(bytes) = fs::read(&path) else { continue };
            read += 1;
            let found = bytes.windows(server.key.len()).any(|part| part == server.key.as_bytes());
            ensure!(!found, "the key stands in clear text in {}", path.display());
        }
        println!("\nthe key is in none of the {read} files that the proxy wrote (log, journal, store, CA)");
        Ok(())
    }
}

/// Copies a directory; what is made belongs to us and is written by nobody else.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let target = to.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                copy_tree(&entry.path(), &target).map_err(std::io::Error::other)?;
            } else {
                fs::write(&target, fs::read(entry.path())?)?;
                fs::set_permissions(&target, fs::Permissions::from_mode(0o644))?;
            }
        }
        Ok(())
    };
    make().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// All files below `directory`.
fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_tree_is_written_by_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("apis")).unwrap();
        fs::write(from.join("apis/demo.toml"), "a").unwrap();
        fs::set_permissions(from.join("apis/demo.toml"), fs::Permissions::from_mode(0o666)).unwrap();
        copy_tree(&from, &to).unwrap();
        let copy = to.join("apis/demo.toml");
        assert_eq!(fs::read(&copy).unwrap(), b"a");
        assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    }
}
