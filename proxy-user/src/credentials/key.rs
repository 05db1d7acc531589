//! The key of the store: where it comes from, who may read it, and how the first one is made.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::{hmac, rand};
use zeroize::Zeroizing;

use super::files::{self, Openness};
use super::hex;
use super::secret::never_implements;
use super::store::StoreError;

/// The name of the key among systemd's credentials (`LoadCredentialEncrypted=vouchsafe-store-key:…`).
pub const SYSTEMD_CREDENTIAL: &str = "vouchsafe-store-key";
/// The name of the key in the state directory, when systemd has none for us.
pub const KEY_FILE: &str = "store.key";
/// How many bytes a key has.
pub const KEY_BYTES: usize = 32;
/// The state directory of the daemon's unit, and where systemd keeps the unit's credentials, for commands that work
/// on that state from outside the unit.
const UNIT_STATE: &str = "/var/lib/vouchsafe";
const UNIT_CREDENTIALS: &str = "/run/credentials/vouchsafe.service";
/// A key in hexadecimal and a line end.
const MAX_KEY_FILE_BYTES: u64 = 2 * KEY_BYTES as u64 + 2;
/// How many bytes of the key's fingerprint stand in the header of the store.
pub(super) const KEY_ID_BYTES: usize = 16;

/// The 256-bit key that the store is encrypted with. Like a secret it cannot be printed and is wiped on drop.
pub struct StoreKey(Zeroizing<[u8; KEY_BYTES]>);

never_implements!(StoreKey: core::fmt::Debug, core::fmt::Display, Clone, serde::Serialize);

impl StoreKey {
    /// A key of these bytes.
    #[must_use]
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Tells keys apart without telling the key: the first half of an HMAC-SHA-256 over a fixed text.
    pub(super) fn id(&self) -> [u8; KEY_ID_BYTES] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.bytes()), b"vouchsafe store key id v1");
        tag.as_ref().first_chunk().copied().unwrap_or_default()
    }

    /// A key as its file has it: 32 bytes as they are, or 64 hexadecimal digits with or without a line end.
    pub(super) fn parse(file: &[u8]) -> Option<Self> {
        if let Ok(raw) = file.try_into() {
            return Some(Self::new(raw));
        }
        let digits = file.strip_suffix(b"\n").unwrap_or(file);
        let bytes = hex::decode(digits)?;
        bytes.as_slice().try_into().ok().map(Self::new)
    }
}

impl StoreKey {
    /// As its file has it.
    pub(super) fn line(&self) -> Zeroizing<Vec<u8>> {
        let mut line = Zeroizing::new(Vec::with_capacity(2 * KEY_BYTES + 1));
        line.extend_from_slice(hex::encode(self.bytes()).as_bytes());
        line.push(b'\n');
        line
    }
}

/// Where to look for the key, in this order: systemd's credentials, then a file of our own.
#[derive(Debug, Clone)]
pub struct KeySource {
    provided: Vec<PathBuf>,
    own: PathBuf,
}

impl KeySource {
    /// Only this file, which is made when the first secret is stored.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { provided: Vec::new(), own: path.into() }
    }

    /// What holds for a daemon or a command with this state directory: `$CREDENTIALS_DIRECTORY/vouchsafe-store-key`,
    /// then, for the unit's own state in `/var/lib/vouchsafe`, the same credential in
    /// `/run/credentials/vouchsafe.service` (so that `vouchsafe secret` in a root shell uses the daemon's key), then
    /// `<state>/store.key`.
    #[must_use]
    pub fn for_state(state: &Path) -> Self {
        let ours = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let units = (state == Path::new(UNIT_STATE)).then(|| PathBuf::from(UNIT_CREDENTIALS));
        Self::file(state.join(KEY_FILE)).provided_in(ours.into_iter().chain(units))
    }

    /// Looks into these credential directories first.
    #[must_use]
    pub fn provided_in(mut self, directories: impl IntoIterator<Item = PathBuf>) -> Self {
        self.provided.extend(directories.into_iter().map(|directory| directory.join(SYSTEMD_CREDENTIAL)));
        self
    }

    /// Reads the key; `None` when there is none yet.
    ///
    /// # Errors
    /// A key file that others may read or that belongs to somebody else, is no key, or cannot be read.
    pub fn read(&self) -> Result<Option<StoreKey>, StoreError> {
        match self.provided()? {
            Some(key) => Ok(Some(key)),
            None => self.read_own(),
        }
    }

    /// The key that systemd hands over; `None` when it has none for us.
    ///
    /// # Errors
    /// Those of [`KeySource::read`].
    pub(super) fn provided(&self) -> Result<Option<StoreKey>, StoreError> {
        for path in &self.provided {
            // systemd grants the unit's user its access by an ACL, which shows as a group's read permission.
            if let Some(key) = read_key(path, Openness::GROUP_MAY_READ)? {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// The key in our own file; `None` when there is none.
    ///
    /// # Errors
    /// Those of [`KeySource::read`].
    pub(super) fn read_own(&self) -> Result<Option<StoreKey>, StoreError> {
        read_key(&self.own, Openness::OWNER_ONLY)
    }

    /// Makes a new key in our own file. The caller holds the store's lock and knows that there is no key.
    pub(super) fn create(&self) -> Result<StoreKey, StoreError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(bytes.as_mut_slice()).map_err(|_| StoreError::Cryptography)?;
        let key = StoreKey(bytes);
        let line = key.line();
        files::replace(&self.own, |file: &mut File| file.write_all(&line))
            .map_err(|source| StoreError::io("create the store key", &self.own, source))?;
        Ok(key)
    }

    /// The file that a new key is made in.
    #[must_use]
    pub fn own_file(&self) -> &Path {
        &self.own
    }
}

fn read_key(path: &Path, allowed: Openness) -> Result<Option<StoreKey>, StoreError> {
    let failed = |source| StoreError::io("read the store key", path, source);
    let file = match files::open_private(path, allowed) {
        Ok(file) => file,
        Err(StoreError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_KEY_FILE_BYTES as usize + 1));
    file.take(MAX_KEY_FILE_BYTES + 1).read_to_end(&mut content).map_err(failed)?;
    match StoreKey::parse(&content) {
        Some(key) => Ok(Some(key)),
        None => Err(StoreError::NotAKey { path: path.to_owned() }),
    }
}

/// Makes the state directory, readable by its owner only, when it is not there yet.
pub(super) fn create_state_directory(directory: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|source| StoreError::io("create the state directory", directory, source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write(path: &Path, content: &[u8], mode: u32) {
        fs::write(path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_32_bytes_or_64_digits_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let read = |content: &[u8]| {
            write(&path, content, 0o600);
            KeySource::file(&path).read()
        };
        assert_eq!(read(&[7; 32]).unwrap().unwrap().bytes(), [7; 32]);
        assert_eq!(read("07".repeat(32).as_bytes()).unwrap().unwrap().bytes(), [7; 32]);
        assert_eq!(read(format!("{}\n", "07".repeat(32)).as_bytes()).unwrap().unwrap().bytes(), [7; 32]);
        for wrong in ["", "07", &"7".repeat(63), &"zz".repeat(32), &"07".repeat(33), &"07".repeat(400)] {
            let error = read(wrong.as_bytes()).err().unwrap();
            assert!(matches!(error, StoreError::NotAKey { .. }), "{error}");
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_command_that_repairs_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        for mode in [0o644, 0o640, 0o602, 0o610] {
            write(&path, &[7; 32], mode);
            let error = KeySource::file(&path).read().err().unwrap().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_key_of_another_owner_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&path, &[7; 32], 0o600);
        std::os::unix::fs::chown(&path, Some(65_534), None).expect("this test needs root");
        assert!(matches!(KeySource::file(&path).read().err().unwrap(), StoreError::WrongOwner { .. }));
    }

    #[test]
    fn a_symbolic_link_in_place_of_the_key_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        write(&directory.path().join("elsewhere"), &[7; 32], 0o600);
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &path).unwrap();
        assert!(KeySource::file(&path).read().is_err());
    }

    #[test]
    fn a_fifo_in_place_of_the_key_is_refused_and_nobody_waits_for_its_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let reading = path.clone();
        std::thread::spawn(move || sender.send(KeySource::file(reading).read().err()));
        let error = receiver.recv_timeout(std::time::Duration::from_secs(5)).expect("it waits for a writer");
        assert!(matches!(error, Some(StoreError::NotAFile { .. })), "{error:?}");
    }

    #[test]
    fn the_key_from_systemd_comes_before_our_own_file() {
        let directory = tempfile::tempdir().unwrap();
        write(&directory.path().join(SYSTEMD_CREDENTIAL), &[1; 32], 0o440);
        write(&directory.path().join("own"), &[2; 32], 0o600);
        let own = KeySource::file(directory.path().join("own"));
        assert_eq!(own.read().unwrap().unwrap().bytes(), [2; 32]);
        let both = own.provided_in([directory.path().to_owned()]);
        assert_eq!(both.read().unwrap().unwrap().bytes(), [1; 32]);
    }

    #[test]
    fn a_new_key_is_private_and_comes_back_as_it_was_made() {
        let directory = tempfile::tempdir().unwrap();
        let source = KeySource::file(directory.path().join(KEY_FILE));
        assert!(source.read().unwrap().is_none());
        let made = source.create().unwrap();
        assert_eq!(source.read().unwrap().unwrap().bytes(), made.bytes());
        assert_eq!(fs::metadata(source.own_file()).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
