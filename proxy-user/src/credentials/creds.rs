//! The key of the store as a credential of systemd: sealed to this machine by systemd-creds(1), by its TPM where there is one.
//!
//! Blocks: for the command line, not for the daemon.

use std::fs::DirBuilder;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use zeroize::Zeroizing;

use super::files;
use super::key::{KeySource, SYSTEMD_CREDENTIAL, StoreKey};
use super::store::StoreError;
use crate::workload::writers;

/// Where the sealed key is looked for by systemd (`LoadCredentialEncrypted=`, systemd.exec(5)).
pub const SEALED_KEY: &str = "/etc/credstore.encrypted/vouchsafe-store-key";
/// Where the program is. Not looked for in `PATH`: it gets the key.
const PROGRAMS: [&str; 3] =
    ["/usr/bin/systemd-creds", "/bin/systemd-creds", "/run/current-system/sw/bin/systemd-creds"];
/// A sealed key has some hundred bytes.
const MOST_BYTES: u64 = 64 * 1024;

/// Why the key was not sealed, or not taken away. Nothing of a key.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    /// The key cannot be read, or a file not written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no key in our own file.
    #[error("there is no key in {}: {}", own.display(), match provided {
        true => "systemd hands it to the daemon already, and there is nothing to seal",
        false => "the first `vouchsafe secret set` makes one",
    })]
    NoKey {
        /// Where it would be.
        own: PathBuf,
        /// Whether systemd has one.
        provided: bool,
    },
    /// No systemd, or an old one.
    #[error("this host has no systemd-creds (systemd 250 or later, at {}); the key stays where it is", PROGRAMS.join(", "))]
    NoProgram,
    /// It did not do it.
    #[error(
        "systemd-creds {what} ended with {status}; what it said stands above, and the key stays where it is"
    )]
    Failed {
        /// As in "encrypt".
        what: &'static str,
        /// How it ended.
        status: String,
    },
    /// What was sealed does not come back as it was.
    #[error(
        "what systemd-creds sealed does not open to the same key; nothing was written, and the key stays where it is"
    )]
    NotTheSame,
    /// There is another one.
    #[error(
        "{} is there already and holds another key, or one that this machine cannot open; it may be the only copy of that key, and \
         was left as it is: move it away first", path.display()
    )]
    Another {
        /// The file.
        path: PathBuf,
    },
    /// Others could take the sealed key away, or put another in its place.
    #[error(
        "the sealed key would not be safe in {}: {why}; choose another place, such as {SEALED_KEY}; the key stays where it is",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Who could, and how.
        why: String,
    },
    /// The daemon would have no key.
    #[error(
        "systemd does not hand this key to the daemon yet, so {} was left as it is: add the drop-in, run `systemctl daemon-reload` and \
         `systemctl restart vouchsafe`, and then this again", own.display()
    )]
    NotHandedOver {
        /// The key.
        own: PathBuf,
    },
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    /// It was sealed, and opened again to see that it is the same.
    Now,
    /// It was there, and is the same.
    Before,
}

/// Seals our own key into `to` with a key of systemd-creds(1) (`auto`, `host`, `tpm2` …), opens it again, and compares. The key
/// itself stays where it is. The caller holds the store's lock.
///
/// # Errors
/// All of [`SealKeyError`]; then `to` is as it was.
pub(super) fn seal(source: &KeySource, to: &Path, with_key: &str) -> Result<Sealed, SealKeyError> {
    let own = own(source)?;
    check_place(to)?;
    if to.symlink_metadata().is_ok() {
        return match opened(to).ok().flatten().is_some_and(|key| key.id() == own.id()) {
            true => Ok(Sealed::Before),
            false => Err(SealKeyError::Another { path: to.to_owned() }),
        };
    }
    let with_key = format!("--with-key={with_key}");
    let sealed = run("encrypt", &[&with_key], &own.line())?;
    if open(&sealed)?.id() != own.id() {
        return Err(SealKeyError::NotTheSame);
    }
    let io = |what, path: &Path, error| SealKeyError::Store(StoreError::io(what, path, error));
    if let Some(folder) = to.parent() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| io("create the directory", folder, error))?;
    }
    files::replace(to, |file| file.write_all(&sealed))
        .map_err(|error| io("write the sealed key", to, error))?;
    Ok(Sealed::Now)
}

/// Takes our own key away, when `sealed` opens to it and systemd hands the same one over. The caller holds the store's lock.
///
/// # Errors
/// One of both is not so; then it stays.
pub(super) fn remove_own(source: &KeySource, sealed: &Path) -> Result<(), SealKeyError> {
    let own = own(source)?;
    check_place(sealed)?;
    if opened(sealed)?.is_none_or(|key| key.id() != own.id()) {
        return Err(SealKeyError::NotTheSame);
    }
    if source.provided()?.is_none_or(|key| key.id() != own.id()) {
        return Err(SealKeyError::NotHandedOver { own: source.own_file().to_owned() });
    }
    let path = source.own_file();
    std::fs::remove_file(path).map_err(|error| StoreError::io("remove the key", path, error).into())
}

/// Only root, or whoever we are, may be able to put a file there: when the key beside the store is gone, it is the only one.
fn check_place(to: &Path) -> Result<(), SealKeyError> {
    let exposed = |why: String| Err(SealKeyError::Exposed { path: to.to_owned(), why });
    match to.parent().filter(|_| to.is_absolute()) {
        None => exposed("it is no absolute path, which systemd wants".to_owned()),
        Some(folder) => writers::of_folder(folder, geteuid().as_raw()).map_or(Ok(()), exposed),
    }
}

fn own(source: &KeySource) -> Result<StoreKey, SealKeyError> {
    if let Some(own) = source.read_own()? {
        return Ok(own);
    }
    let provided = source.provided()?.is_some();
    Err(SealKeyError::NoKey { own: source.own_file().to_owned(), provided })
}

/// The key in a sealed file; `None` when there is no such file.
fn opened(path: &Path) -> Result<Option<StoreKey>, SealKeyError> {
    let failed = |error| SealKeyError::Store(StoreError::io("read the sealed key", path, error));
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut sealed = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut sealed).map_err(failed)?;
    open(&sealed).map(Some)
}

fn open(sealed: &[u8]) -> Result<StoreKey, SealKeyError> {
    let plain = run("decrypt", &[], sealed)?;
    StoreKey::parse(&plain).ok_or(SealKeyError::NotTheSame)
}

/// Runs it over these bytes. What it complains about goes to our own standard error.
fn run(what: &'static str, options: &[&str], input: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealKeyError> {
    let program =
        PROGRAMS.into_iter().find(|path| Path::new(path).is_file()).ok_or(SealKeyError::NoProgram)?;
    let failed = |error: io::Error| SealKeyError::Failed { what, status: error.to_string() };
    let name = format!("--name={SYSTEMD_CREDENTIAL}");
    let mut command = Command::new(program);
    command.arg(what).arg(name).args(options).args(["-", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // It reads all of its input before it writes, and both are small.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input));
    // At its final size from the start: a buffer that grew would leave a copy behind.
    let mut output = Zeroizing::new(Vec::with_capacity(MOST_BYTES as usize + 1));
    let read = child.stdout.take().map_or(Ok(0), |out| out.take(MOST_BYTES).read_to_end(&mut output));
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        return Err(SealKeyError::Failed { what, status: status.to_string() });
    }
    written.and(read).map_err(failed)?;
    Ok(output)
}
