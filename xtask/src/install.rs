//! `cargo xtask install` and `uninstall`: what a host needs beside the kernel, and nothing that starts by itself.
//!
//! Invariants: a configuration that exists is never overwritten; what `install` puts outside of `/etc` and `/var/lib`,
//! `uninstall` removes; below `--destdir` only files are written (for packagers), the host is not touched.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::paths::Paths;
use crate::{build, sh, system};

const GROUP: &str = "vouchsafe";
const UNIT: &str = "vouchsafe.service";
/// What keeps trust stores current; `vouchsafe trust install` enables it.
const TRUST_UNITS: [&str; 2] = ["vouchsafe-trust.path", "vouchsafe-trust.service"];
const CONFIG_DIR: &str = "/etc/vouchsafe";
const STATE_DIR: &str = "/var/lib/vouchsafe";
const RUNTIME_DIR: &str = "/run/vouchsafe";
/// Where the daemon looks for each kind of file; see packaging/vouchsafe.toml.
const POLICY_DIRS: [&str; 4] = ["policies", "roles", "apis", "credentials"];

/// Where to install, as the command line says it.
#[derive(Args)]
pub(crate) struct Options {
    /// The directory that programs, unit and examples go below.
    #[arg(long, default_value = "/usr")]
    prefix: PathBuf,
    /// Put everything below this directory instead of / and leave the host alone (for packagers).
    #[arg(long)]
    destdir: Option<PathBuf>,
    /// The daemon is built already (set when the task calls itself through sudo).
    #[arg(long, hide = true)]
    built: bool,
}

/// What to remove, as the command line says it.
#[derive(Args)]
pub(crate) struct RemoveOptions {
    /// The prefix that was given to `install`.
    #[arg(long, default_value = "/usr")]
    prefix: PathBuf,
    /// The destination directory that was given to `install`.
    #[arg(long)]
    destdir: Option<PathBuf>,
    /// Also remove configuration, policies, secrets, CA and journal. They cannot be brought back.
    #[arg(long)]
    purge: bool,
}

/// Where each thing goes.
struct Layout {
    destdir: Option<PathBuf>,
    prefix: PathBuf,
}

impl Layout {
    fn new(prefix: &Path, destdir: Option<&Path>) -> Result<Self> {
        if !prefix.is_absolute() {
            bail!("--prefix {} is not absolute; give a path such as /usr/local", prefix.display());
        }
        let destdir = destdir.map(std::path::absolute).transpose().context("--destdir is no usable path")?;
        Ok(Self { destdir, prefix: prefix.to_path_buf() })
    }

    /// `path` of the installed host as a path of this one.
    fn here(&self, path: &Path) -> PathBuf {
        match (&self.destdir, path.strip_prefix("/")) {
            (Some(destdir), Ok(relative)) => destdir.join(relative),
            _ => path.to_path_buf(),
        }
    }

    fn below_prefix(&self, path: &str) -> PathBuf {
        self.here(&self.prefix.join(path))
    }

    fn binary(&self) -> PathBuf {
        self.below_prefix("bin/vouchsafe")
    }

    /// systemd reads units below /usr/lib and /usr/local/lib (systemd.unit(5)), so the prefix is right for both.
    fn unit(&self) -> PathBuf {
        self.below_prefix("lib/systemd/system").join(UNIT)
    }

    fn trust_unit(&self, name: &str) -> PathBuf {
        self.below_prefix("lib/systemd/system").join(name)
    }

    fn docs(&self) -> PathBuf {
        self.below_prefix("share/doc/vouchsafe")
    }

    fn examples(&self) -> PathBuf {
        self.docs().join("examples")
    }

    /// APIs and roles that `vouchsafe policy add` copies from.
    fn library(&self) -> PathBuf {
        self.below_prefix("share/vouchsafe/library")
    }

    fn config_dir(&self) -> PathBuf {
        self.here(Path::new(CONFIG_DIR))
    }

    fn state_dir(&self) -> PathBuf {
        self.here(Path::new(STATE_DIR))
    }

    /// Whether this is the host itself, and not a tree for a package.
    fn is_host(&self) -> bool {
        self.destdir.is_none()
    }
}

/// Builds and installs; says each thing that it does.
pub(crate) fn run(paths: &Paths, options: &Options) -> Result<()> {
    let layout = Layout::new(&options.prefix, options.destdir.as_deref())?;
    if !options.built {
        build::all(paths, true)?;
    }
    if layout.is_host() && !system::is_root() {
        let mut arguments: Vec<OsString> = vec!["install".into(), "--built".into(), "--prefix".into()];
        arguments.push(options.prefix.clone().into());
        return again_as_root(paths, arguments);
    }
    put_files(paths, &layout)?;
    if layout.is_host() {
        make_group()?;
        reload_systemd()?;
        print_next_steps();
    }
    Ok(())
}

/// Stops the service and removes what `install` put.
pub(crate) fn remove(paths: &Paths, options: &RemoveOptions) -> Result<()> {
    let layout = Layout::new(&options.prefix, options.destdir.as_deref())?;
    if layout.is_host() && !system::is_root() {
        let mut arguments: Vec<OsString> = vec!["uninstall".into(), "--prefix".into()];
        arguments.push(options.prefix.clone().into());
        arguments.extend(options.purge.then(|| "--purge".into()));
        return again_as_root(paths, arguments);
    }
    if layout.is_host() {
        stop_service(&layout)?;
    }
    remove_file(&layout.unit())?;
    for name in TRUST_UNITS {
        remove_file(&layout.trust_unit(name))?;
    }
    remove_file(&layout.binary())?;
    remove_tree(&layout.examples())?;
    remove_tree(&layout.library())?;
    // Unless somebody put something beside them.
    let _ = fs::remove_dir(layout.docs());
    let _ = layout.library().parent().map(fs::remove_dir);
    if options.purge {
        remove_tree(&layout.config_dir())?;
        remove_tree(&layout.state_dir())?;
    }
    if layout.is_host() {
        remove_tree(Path::new(RUNTIME_DIR))?;
        reload_systemd()?;
        if options.purge && has_group()? {
            sh::run(Command::new("groupdel").arg(GROUP))?;
        }
    }
    if !options.purge {
        println!(
            "kept: {} and {} (configuration, secrets, CA, journal); --purge removes them",
            layout.config_dir().display(),
            layout.state_dir().display()
        );
    }
    Ok(())
}

fn put_files(paths: &Paths, layout: &Layout) -> Result<()> {
    let binary = fs::read(paths.daemon(true)).context("the release build left no daemon")?;
    put(&layout.binary(), &binary, 0o755)?;

    let packaging = paths.root.join("packaging");
    let program = layout.prefix.join("bin/vouchsafe").display().to_string();
    let trust_units = TRUST_UNITS.map(|name| (name, layout.trust_unit(name)));
    for (name, path) in std::iter::once((UNIT, layout.unit())).chain(trust_units) {
        let unit = fs::read_to_string(packaging.join(name))
            .with_context(|| format!("cannot read packaging/{name}"))?;
        put(&path, unit.replace("/usr/bin/vouchsafe", &program).as_bytes(), 0o644)?;
    }

    make_dir(&layout.config_dir(), 0o755)?;
    for kind in POLICY_DIRS {
        make_dir(&layout.config_dir().join(kind), 0o755)?;
    }
    let config =
        fs::read(packaging.join("vouchsafe.toml")).context("cannot read packaging/vouchsafe.toml")?;
    put_config(&layout.config_dir().join("vouchsafe.toml"), &config)?;
    make_dir(&layout.state_dir(), 0o700)?;
    put_tree(&paths.root.join("policies/library"), &layout.library(), &[])?;
    // Without the deliberately wrong ones.
    put_tree(&paths.root.join("policies"), &layout.examples(), &["bad", "library"])
}

/// Writes a configuration file unless there is one; a different one gets ours beside it as `.new`.
fn put_config(path: &Path, content: &[u8]) -> Result<()> {
    match fs::read(path) {
        Ok(old) if old == content => {
            println!("kept      {} (it is the default)", path.display());
            Ok(())
        }
        Ok(_) => {
            println!("kept      {} (it differs from the default)", path.display());
            put(&path.with_extension("toml.new"), content, 0o644)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => put(path, content, 0o644),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Copies policies that ship with us, but for some folders. They govern nothing where they are.
fn put_tree(from: &Path, to: &Path, without: &[&str]) -> Result<()> {
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if !without.iter().any(|name| entry.file_name() == *name) {
                put_tree(&source, &target, without)?;
            }
        } else {
            let content = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
            put(&target, &content, 0o644)?;
        }
    }
    Ok(())
}

/// Writes a file as a whole: a running program or a reader never sees half of it.
fn put(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let parent = path.parent().context("a file needs a directory")?;
    let write = || -> Result<()> {
        fs::create_dir_all(parent)?;
        let mut file = tempfile::NamedTempFile::new_in(parent)?;
        std::io::Write::write_all(&mut file, content)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    println!("installed {}", path.display());
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> Result<()> {
    if path.is_dir() {
        println!("kept      {}/", path.display());
        return Ok(());
    }
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .with_context(|| format!("cannot create {}", path.display()))?;
    println!("created   {}/ (mode {mode:o})", path.display());
    Ok(())
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => println!("removed   {}", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Ok(()) => println!("removed   {}/", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
    Ok(())
}

fn has_group() -> Result<bool> {
    Ok(nix::unistd::Group::from_name(GROUP).context("cannot read the list of groups")?.is_some())
}

fn make_group() -> Result<()> {
    if has_group()? {
        println!("kept      group {GROUP}");
        return Ok(());
    }
    sh::run(Command::new("groupadd").args(["--system", GROUP]))
}

/// Whether systemd is the init of this host (sd_booted(3)).
fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn reload_systemd() -> Result<()> {
    if systemd_runs() {
        sh::run(Command::new("systemctl").arg("daemon-reload"))?;
    }
    Ok(())
}

fn stop_service(layout: &Layout) -> Result<()> {
    if systemd_runs() && layout.unit().exists() {
        sh::run(Command::new("systemctl").args(["disable", "--now", UNIT]))?;
    }
    let binary = layout.binary();
    let config = layout.config_dir().join("vouchsafe.toml");
    if binary.exists() && layout.state_dir().join("trust/manifest.json").exists() {
        // Nobody would end the trust in our CA afterwards.
        sh::run(Command::new(&binary).args(["trust", "remove", "--config"]).arg(&config)).with_context(
            || {
                format!(
                    "nothing was removed, because our CA may still be trusted; see `{} trust status`",
                    binary.display()
                )
            },
        )?;
    }
    if systemd_runs() && TRUST_UNITS.iter().all(|name| layout.trust_unit(name).exists()) {
        // The store that was just changed has started a refresh.
        sh::run(Command::new("systemctl").args(["disable", "--now"]).args(TRUST_UNITS))?;
    }
    if binary.exists() && config.exists() {
        // What is pinned outlives the daemon: while it is attached and no proxy runs, governed calls are refused.
        sh::run(Command::new(&binary).args(["detach", "--config"]).arg(&config)).with_context(|| {
            format!(
                "nothing was removed, because the kernel side may still be attached; \
                 end the daemon, then run `{} detach --config {}`",
                binary.display(),
                config.display()
            )
        })?;
    }
    Ok(())
}

fn print_next_steps() {
    println!(
        "\nnot started. Next:\n  \
         1. write policies into {CONFIG_DIR}/, see /usr/share/doc/vouchsafe/examples; take APIs and roles that are\n     \
         well known from the library, and check all of it:\n       \
         vouchsafe policy add github\n       \
         vouchsafe policy check {CONFIG_DIR}\n  \
         2. store the secrets that they name:\n       \
         vouchsafe secret set NAME\n  \
         3. decide what {CONFIG_DIR}/vouchsafe.toml says of programs that no policy knows (`unidentified`),\n     \
         and which cgroup is governed (`kernel.cgroup`)\n  \
         4. start it:\n       \
         systemctl enable --now {UNIT}\n  \
         5. let the bots trust its CA, those that ask the system and, by their units, those that do not:\n       \
         vouchsafe trust install\n       \
         vouchsafe trust install --unit NAME"
    );
}

/// Runs this program again through sudo: the build belongs to the user, the host to root.
fn again_as_root(paths: &Paths, arguments: Vec<OsString>) -> Result<()> {
    if sh::find_program("sudo").is_none() {
        bail!("changing this host needs root, and sudo is not installed; run this task as root");
    }
    let mut target = OsString::from("CARGO_TARGET_DIR=");
    target.push(&paths.target);
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    sh::run(Command::new("sudo").arg("env").arg(target).arg(ourselves).args(arguments))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("clone");
        let write = |name: &str, text: &str| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("target/release/vouchsafe", "binary");
        write("packaging/vouchsafe.service", "ExecStart=/usr/bin/vouchsafe run\n");
        write("packaging/vouchsafe-trust.service", "ExecStart=/usr/bin/vouchsafe trust refresh\n");
        write("packaging/vouchsafe-trust.path", "[Path]\n");
        write("packaging/vouchsafe.toml", "# default\n");
        write("policies/demo/apis/demo.toml", "a");
        write("policies/bad/broken.toml", "b");
        write("policies/library/apis/shop.toml", "c");
        let target = root.join("target");
        (dir, Paths { root, target })
    }

    #[test]
    fn everything_goes_below_the_destination_and_away_again() {
        let (dir, paths) = workspace();
        let destdir = dir.path().join("image");
        let layout = Layout::new(Path::new("/usr/local"), Some(&destdir)).unwrap();
        put_files(&paths, &layout).unwrap();

        let unit =
            fs::read_to_string(destdir.join("usr/local/lib/systemd/system/vouchsafe.service")).unwrap();
        assert_eq!(unit, "ExecStart=/usr/local/bin/vouchsafe run\n");
        let units = TRUST_UNITS.map(|name| destdir.join("usr/local/lib/systemd/system").join(name));
        let refresh = fs::read_to_string(&units[1]).unwrap();
        assert_eq!(refresh, "ExecStart=/usr/local/bin/vouchsafe trust refresh\n");
        assert!(sh::is_executable(&destdir.join("usr/local/bin/vouchsafe")));
        assert_eq!(destdir.join("var/lib/vouchsafe").metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let examples = destdir.join("usr/local/share/doc/vouchsafe/examples");
        assert!(examples.join("demo/apis/demo.toml").is_file() && !examples.join("bad").exists());
        let library = destdir.join("usr/local/share/vouchsafe/library");
        assert!(library.join("apis/shop.toml").is_file() && !examples.join("library").exists());

        let mut options =
            RemoveOptions { prefix: "/usr/local".into(), destdir: Some(destdir.clone()), purge: false };
        remove(&paths, &options).unwrap();
        assert!(!destdir.join("usr/local/bin/vouchsafe").exists() && !examples.exists());
        assert!(units.iter().all(|unit| !unit.exists()));
        assert!(!destdir.join("usr/local/share/vouchsafe").exists());
        assert!(destdir.join("etc/vouchsafe/vouchsafe.toml").exists());
        options.purge = true;
        remove(&paths, &options).unwrap();
        assert!(!destdir.join("etc/vouchsafe").exists() && !destdir.join("var/lib/vouchsafe").exists());
    }

    #[test]
    fn a_configuration_that_exists_is_never_overwritten() {
        let (dir, paths) = workspace();
        let layout = Layout::new(Path::new("/usr"), Some(&dir.path().join("image"))).unwrap();
        put_files(&paths, &layout).unwrap();
        let config = layout.config_dir().join("vouchsafe.toml");
        let new = layout.config_dir().join("vouchsafe.toml.new");
        put_files(&paths, &layout).unwrap();
        assert!(!new.exists(), "an unchanged default needs no second copy");
        fs::write(&config, "# mine\n").unwrap();
        put_files(&paths, &layout).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), "# mine\n");
        assert_eq!(fs::read_to_string(&new).unwrap(), "# default\n");
    }

    #[test]
    fn a_relative_prefix_is_refused() {
        assert!(Layout::new(Path::new("usr"), None).is_err());
    }
}
