//! The host's own certificate authority: generations, of which the newest permits what the policy intercepts now.
//!
//! On disk, below the state directory:
//!
//! - `ca/` (0755)
//! - `ca/ca.pem` (0644): the roots of all living generations, for the trust stores of bots
//! - `ca/g0001/` … (0700): see [`super::generation`]
//! - `ca/lock`: held by who changes something
//!
//! A new generation is made when the policy names a host that the newest does not permit, when it names fewer (within the hour), when
//! the newest nears its end, and when somebody says so. Those before stay for an *overlap*. A leaf is signed by the **oldest** living
//! generation that permits its host: many programs read what they trust once, at their start, and so none of them notices a new one.
//!
//! Invariant: a generation signs only after its roots are in `ca.pem`, and is there for as long as it signs.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::pki_types::ServerName;
use time::{Duration, OffsetDateTime};

use super::ca_certificate::{CaCertificate, ROOTS};
use super::ca_error::CaError;
use super::files::{self, CERTIFICATE_MODE, NEW, io_error};
use super::generation::{About, Generation};
use super::now;
use super::permitted::Permitted;

/// No certificate is made before this: a clock that says so was never set.
const NEVER_BEFORE: OffsetDateTime = time::macros::datetime!(2026-01-01 0:00 UTC);

/// How long before its end a generation is replaced, beside the overlap.
const RENEW_BEFORE: Duration = Duration::days(30);

/// The most generations at once. A policy that changes its hosts more often within the overlap loses the oldest early.
const MOST: usize = 32;

/// How long generations last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// From its making to its end.
    pub lifetime: Duration,
    /// How long one goes on after the next was made: at least as long as any bot runs without being started again.
    pub overlap: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { lifetime: Duration::days(365), overlap: Duration::days(30) }
    }
}

impl Terms {
    fn renew_before(self) -> Duration {
        (self.overlap + RENEW_BEFORE).min(self.lifetime / 2)
    }
}

/// Why a generation was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There was none.
    First,
    /// The policy names hosts that the newest does not permit.
    Hosts,
    /// The policy names fewer hosts than the newest permits.
    Fewer,
    /// The newest is not valid now, or not for long.
    Ends,
    /// Somebody said so.
    Asked,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "there was no CA",
            Self::Hosts => "the policy intercepts hosts that the CA before does not permit",
            Self::Fewer => "the policy intercepts fewer hosts than the CA before permits",
            Self::Ends => "the CA before ends, or is not valid by the clock of this host",
            Self::Asked => "it was asked for",
        })
    }
}

/// The CA with its keys: what signs leaves.
pub struct Ca {
    directory: PathBuf,
    terms: Terms,
    /// Newest first. Empty until [`Ca::require`] was called once.
    living: ArcSwap<Vec<Arc<Generation>>>,
    /// Held by who makes or ends generations, beside the lock on the disk.
    one: Mutex<()>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<u32> = self.living.load().iter().map(|one| one.number()).collect();
        f.debug_struct("Ca").field("directory", &self.directory).field("generations", &numbers).finish()
    }
}

impl Ca {
    /// Opens the CA below `state_dir`, which must exist. It signs nothing before [`Ca::require`] says what for.
    ///
    /// # Errors
    /// See [`CaError`]. Nothing that is damaged is changed.
    pub fn open(state_dir: &Path, terms: Terms) -> Result<Self, CaError> {
        let directory = state_dir.join("ca");
        files::directory(&directory)?;
        let ca = Self { directory, terms, living: ArcSwap::default(), one: Mutex::new(()) };
        {
            let _one = ca.alone()?;
            ca.clean()?;
            let living = ca.read()?;
            if !living.is_empty() {
                ca.go_on_with(living, now())?;
            }
        }
        Ok(ca)
    }

    /// Makes sure that the newest generation permits all of `permitted`. Blocks on the disk, and some tenths of a second when a generation
    /// is made; says then why.
    ///
    /// # Errors
    /// See [`CaError`]; what was there goes on.
    pub fn require(&self, permitted: &Permitted) -> Result<Option<Why>, CaError> {
        self.require_at(permitted, now())
    }

    /// The same, and ends what is over; a set of fewer hosts is made good, too. To be called from time to time.
    ///
    /// # Errors
    /// See [`CaError`]; what was there goes on.
    pub fn keep(&self, permitted: &Permitted) -> Result<Option<Why>, CaError> {
        self.keep_at(permitted, now())
    }

    /// A new generation for the same hosts. With `at_once`, those before end now: programs that read what they trust at their start
    /// must be started again then.
    ///
    /// # Errors
    /// See [`CaError`]; what was there goes on.
    pub fn rotate(&self, at_once: bool) -> Result<(), CaError> {
        self.rotate_at(at_once, now())
    }

    fn require_at(&self, permitted: &Permitted, now: OffsetDateTime) -> Result<Option<Why>, CaError> {
        let is_missing = |newest: &Generation| match () {
            () if !newest.permitted().covers(permitted) => Some(Why::Hosts),
            () if !self.lasts(newest, now) => Some(Why::Ends),
            () => None,
        };
        // In almost every case it is all there, and nobody waits for the disk.
        let living = self.living.load();
        if living.first().is_some_and(|newest| is_missing(newest).is_none()) && self.is_published() {
            return Ok(None);
        }
        let _one = self.alone()?;
        let mut living = self.read()?;
        let why = living.first().map_or(Some(Why::First), |newest| is_missing(newest));
        if let Some(why) = why {
            // What the former one permits more ends with it, or with the next look.
            self.make(&mut living, permitted, why, now)?;
        }
        self.go_on_with(living, now)?;
        Ok(why)
    }

    fn keep_at(&self, permitted: &Permitted, now: OffsetDateTime) -> Result<Option<Why>, CaError> {
        let why = self.require_at(permitted, now)?;
        let _one = self.alone()?;
        let mut living = self.read()?;
        let is_more = living.first().is_some_and(|newest| newest.permitted() != permitted);
        if is_more {
            self.make(&mut living, permitted, Why::Fewer, now)?;
        }
        self.go_on_with(living, now)?;
        Ok(if is_more { Some(Why::Fewer) } else { why })
    }

    fn rotate_at(&self, at_once: bool, now: OffsetDateTime) -> Result<(), CaError> {
        let _one = self.alone()?;
        let mut living = self.read()?;
        let permitted = living.first().map_or_else(|| Permitted::new([]), |one| one.permitted().clone());
        self.make(&mut living, &permitted, Why::Asked, now)?;
        if at_once {
            living.truncate(1);
        }
        self.go_on_with(living, now)
    }

    /// The roots that bots must trust, newest generation first.
    pub fn roots(&self) -> Vec<CaCertificate> {
        self.living.load().iter().flat_map(|one| one.roots().cloned().collect::<Vec<_>>()).collect()
    }

    /// The living generations, newest first, each with when it is over.
    pub fn generations(&self) -> Vec<(About, OffsetDateTime)> {
        let living = self.living.load();
        let ends = |at: usize, one: &Generation| {
            let after = at.checked_sub(1).and_then(|before| living.get(before));
            after.map_or(one.not_after(), |after| (after.made() + self.terms.overlap).min(one.not_after()))
        };
        living.iter().enumerate().map(|(at, one)| (one.about(), ends(at, one))).collect()
    }

    /// The oldest living generation that permits `name`.
    pub(super) fn signer(&self, name: &ServerName<'_>, now: OffsetDateTime) -> Option<Arc<Generation>> {
        let living = self.living.load();
        let over = over(&living, self.terms.overlap, now);
        let fits = |one: &&Arc<Generation>| one.is_valid(now) && one.permits(name);
        living.iter().take(over).rev().find(fits).cloned()
    }

    /// Whether `newest` needs no successor yet.
    fn lasts(&self, newest: &Generation, now: OffsetDateTime) -> bool {
        newest.is_valid(now) && newest.not_after() - now > self.terms.renew_before()
    }

    /// Alone with the files, until the guard is dropped.
    fn alone(&self) -> Result<(std::sync::MutexGuard<'_, ()>, File), CaError> {
        let one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.directory.join("lock");
        let open = || {
            let file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
                .open(&path)?;
            file.lock()?;
            Ok(file)
        };
        Ok((one, open().map_err(io_error("lock", &path))?))
    }

    /// Takes away what a kill left, and the CA of versions that had one without constraints: its key could be any host.
    fn clean(&self) -> Result<(), CaError> {
        for name in self.names()? {
            let path = self.directory.join(&name);
            if name.starts_with(NEW) {
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(io_error("remove", &path))?;
            }
            if name == "ca.key" {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
                tracing::warn!(
                    "the CA of an earlier version, which could sign for every host, was ended: bots need the new one (`vouchsafe trust install`)"
                );
            }
        }
        Ok(())
    }

    /// What is in the directory.
    fn names(&self) -> Result<Vec<String>, CaError> {
        names(&self.directory)
    }

    /// Every generation on the disk, newest first.
    fn read(&self) -> Result<Vec<Arc<Generation>>, CaError> {
        let numbers = numbers(&self.directory)?;
        let known = self.living.load();
        let each = numbers.into_iter().map(|number| match known.iter().find(|one| one.number() == number) {
            Some(known) => Ok(Arc::clone(known)),
            None => Generation::open(&self.directory.join(name(number)), number).map(Arc::new),
        });
        each.collect()
    }

    /// Makes the next generation; it signs nothing yet.
    fn make(
        &self,
        living: &mut Vec<Arc<Generation>>,
        permitted: &Permitted,
        why: Why,
        now: OffsetDateTime,
    ) -> Result<(), CaError> {
        if now < NEVER_BEFORE {
            return Err(CaError::Clock(now));
        }
        let next = living.first().map_or(1, |newest| newest.number().saturating_add(1));
        let path = self.directory.join(name(next));
        let only_ours = fs::Permissions::from_mode(0o700);
        let new = tempfile::Builder::new().prefix(NEW).permissions(only_ours).tempdir_in(&self.directory);
        let new = new.map_err(io_error("create", &path))?;
        Generation::make(new.path(), permitted, now, self.terms.lifetime)?;
        let in_place = || {
            File::open(new.path())?.sync_all()?;
            fs::rename(new.path(), &path)?;
            File::open(&self.directory)?.sync_all()
        };
        in_place().map_err(io_error("create", &path))?;
        // It is no longer there under that name.
        let _ = new.keep();
        let made = Generation::open(&path, next)?;
        let hosts = permitted.names().count();
        tracing::info!(generation = next, hosts, "made a new generation of the CA: {why}");
        living.insert(0, Arc::new(made));
        Ok(())
    }

    /// Publishes the roots of `living`, lets these sign and nothing else, and removes the rest.
    fn go_on_with(&self, mut living: Vec<Arc<Generation>>, now: OffsetDateTime) -> Result<(), CaError> {
        living.truncate(over(&living, self.terms.overlap, now));
        let living = Arc::new(living);
        let whole: String = living.iter().flat_map(|one| one.roots()).map(CaCertificate::pem).collect();
        let path = self.published();
        let there = files::read(&path, CERTIFICATE_MODE)?;
        if there.is_none_or(|there| *there != whole.as_bytes()) {
            files::replace(&path, whole.as_bytes(), CERTIFICATE_MODE)?;
        }
        self.living.store(Arc::clone(&living));
        for number in numbers(&self.directory)? {
            if living.iter().all(|one| one.number() != number) {
                let path = self.directory.join(name(number));
                fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
                tracing::info!(generation = number, "a former generation of the CA is over");
            }
        }
        Ok(())
    }

    fn published(&self) -> PathBuf {
        self.directory.join(Path::new(ROOTS).file_name().unwrap_or_default())
    }

    fn is_published(&self) -> bool {
        self.published().exists()
    }
}

/// How many of `living`, newest first, are not over: the newest never is.
fn over(living: &[Arc<Generation>], overlap: Duration, now: OffsetDateTime) -> usize {
    let is_over = |pair: &[Arc<Generation>]| match pair {
        [after, before] => after.made() + overlap <= now || before.not_after() <= now,
        _ => false,
    };
    let kept = living.windows(2).take_while(|pair| !is_over(pair)).count() + 1;
    kept.min(living.len()).min(MOST)
}

impl About {
    /// The generations on the disk below `state_dir`, newest first; their keys are not read.
    ///
    /// # Errors
    /// [`CaError::NotThere`] when the daemon has made none yet, or a file that cannot be read.
    pub fn all(state_dir: &Path) -> Result<Vec<Self>, CaError> {
        let directory = state_dir.join("ca");
        match directory.try_exists() {
            Ok(true) => {}
            Ok(false) => return Err(CaError::NotThere { path: state_dir.join(ROOTS) }),
            // Who may not look does not know.
            Err(error) => return Err(io_error("read", &directory)(error).into()),
        }
        let each =
            numbers(&directory)?.into_iter().map(|number| Self::read(&directory.join(name(number)), number));
        each.collect()
    }
}

/// What is in a directory.
fn names(directory: &Path) -> Result<Vec<String>, CaError> {
    let names = || -> io::Result<Vec<String>> {
        let entries = fs::read_dir(directory)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    Ok(names().map_err(io_error("read", directory))?)
}

/// The generations in a directory, newest first.
fn numbers(directory: &Path) -> Result<Vec<u32>, CaError> {
    let mut numbers: Vec<u32> = names(directory)?.iter().filter_map(|name| number(name)).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

fn name(number: u32) -> String {
    format!("g{number:04}")
}

fn number(text: &str) -> Option<u32> {
    let number = text.strip_prefix('g')?.parse().ok()?;
    (name(number) == text).then_some(number)
}

#[cfg(test)]
impl Ca {
    /// One for all that tests call.
    pub(crate) fn for_tests(state_dir: &Path) -> Self {
        let ca = Self::open(state_dir, Terms::default()).unwrap();
        let domains = ["com", "org", "net", "test", "example", "localhost", "internal", "invalid"];
        let addresses = ["127.0.0.1", "::1", "192.0.2.1", "2001:db8::1"];
        ca.require(&Permitted::new(domains.into_iter().chain(addresses))).unwrap();
        ca
    }
}

#[cfg(test)]
#[path = "ca_tests.rs"]
mod tests;
