//! Where things are: the workspace, the target directory and what is built into it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The places that the tasks share. All paths are absolute.
pub(crate) struct Paths {
    /// The root of the workspace.
    pub(crate) root: PathBuf,
    /// The target directory that cargo uses for the workspace.
    pub(crate) target: PathBuf,
}

impl Paths {
    /// Finds the workspace that this program belongs to, and the target directory as cargo would choose it.
    pub(crate) fn find() -> Result<Self> {
        // Cargo sets the variable when it runs us; without cargo (through sudo), where we were built is right.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest
            .parent()
            .filter(|root| root.join("Cargo.toml").is_file())
            .with_context(|| {
                format!("{} is not inside the workspace; run `cargo xtask` from a clone", manifest.display())
            })?
            .to_path_buf();
        let target = env::var_os("CARGO_TARGET_DIR").or_else(|| env::var_os("CARGO_BUILD_TARGET_DIR"));
        let target = match target {
            Some(path) => std::path::absolute(&path)
                .with_context(|| format!("CARGO_TARGET_DIR={} is no usable path", path.display()))?,
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The kernel side, as the daemon embeds it.
    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.target.join("bpf/vouchsafe.bpf.o")
    }

    /// Tools that the build installs for itself.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The daemon's binary.
    pub(crate) fn daemon(&self, release: bool) -> PathBuf {
        self.target.join(if release { "release" } else { "debug" }).join("vouchsafe")
    }

    /// `path` as a person in the workspace would write it.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
