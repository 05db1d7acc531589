//! The trust stores of this host: what of our roots is in each, and how it comes in and goes out again.
//!
//! Each kind of store looks at what is there and says which [`Step`]s make it what it should be; nothing is changed by
//! looking. [`Stores`] says these steps, does them, looks again, and takes them back when it is not so. A store without
//! steps is current: so everything here may be done again at any time, and is, by `vouchsafe trust refresh`.
//!
//! Invariant: what is taken out is ours, by its name and by its certificate, or stands between our lines.

mod bundle;
mod change;
mod detect;
mod error;
mod file;
mod files;
mod hash_dir;
mod java;
mod manifest;
mod markers;
mod nss;
mod roots;
mod status;
mod step;
mod system;
mod tools;
mod variables;
mod watch;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use change::{Goal, Outcome, Said, Wanted};
pub use error::StoreError;
pub use roots::{Fingerprint, Root, Roots};
pub use status::{State, Status, all_current};
pub use step::Step;
pub use system::Layout;
pub use tools::Run;
pub use variables::{service, variables};

/// Where the copies are that everybody can read.
pub const COPIES: &str = "/etc/vouchsafe/trust";

/// A store. The order is the one in which they are brought up to date: later ones are made of earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Target {
    /// The system's store.
    System,
    /// The copies in [`COPIES`].
    Bundle,
    /// A file of certificates.
    File {
        /// The file.
        path: PathBuf,
    },
    /// A folder of hashed certificates.
    HashDir {
        /// The folder.
        path: PathBuf,
    },
    /// A Java installation, or a keystore.
    Java {
        /// The installation's folder, or the keystore.
        path: PathBuf,
    },
    /// An NSS database.
    Nss {
        /// Its folder.
        path: PathBuf,
    },
    /// The variables of a systemd unit.
    Unit {
        /// Its name.
        unit: String,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("system store"),
            Self::Bundle => f.write_str("copies for everybody"),
            Self::Unit { unit } => write!(f, "unit {unit}"),
            Self::File { path } => write!(f, "file {}", path.display()),
            Self::HashDir { path } => write!(f, "hash folder {}", path.display()),
            Self::Java { path } => write!(f, "java {}", path.display()),
            Self::Nss { path } => write!(f, "nss {}", path.display()),
        }
    }
}

impl Target {
    /// The option of the command line that names it.
    #[must_use]
    pub fn option(&self) -> String {
        match self {
            Self::System => "--system".to_owned(),
            Self::Bundle => "--bundle".to_owned(),
            Self::Unit { unit } => format!("--unit {unit}"),
            Self::File { path } => format!("--file {}", path.display()),
            Self::HashDir { path } => format!("--hash-dir {}", path.display()),
            Self::Java { path } => format!("--java-home {}", path.display()),
            Self::Nss { path } => format!("--nss {}", path.display()),
        }
    }

    /// What it serves, for people.
    #[must_use]
    pub fn serves(&self) -> &'static str {
        match self {
            Self::System => {
                "what asks the system: curl, wget, git, cargo, Go, Ruby, PHP, Perl, .NET, the system's own Python and Java"
            }
            Self::Bundle => "what is told a file, by --unit or `vouchsafe trust env`",
            Self::Unit { .. } => {
                "its Node, Deno, Bun, npm, requests, httpx, boto3, gRPC, pip, AWS CLI, and what asks the system"
            }
            Self::File { .. } => {
                "programs that bring this file: certifi and its copies in pip, botocore, stripe"
            }
            Self::HashDir { .. } => "programs with SSL_CERT_DIR or CApath there",
            Self::Java { .. } => "programs of this Java installation",
            Self::Nss { .. } => "Chromium or Firefox of its user",
        }
    }

    fn look(&self, context: &Context<'_>) -> Result<Look, StoreError> {
        match self {
            Self::System => system::look(context),
            Self::Bundle => bundle::look(context),
            Self::Unit { unit } => variables::look(unit, context),
            Self::File { path } => file::look(path, context),
            Self::HashDir { path } => hash_dir::look(path, context),
            Self::Java { path } => java::look(path, context),
            Self::Nss { path } => nss::look(path, context),
        }
    }
}

/// What a look at a store needs to know.
struct Context<'a> {
    /// What it is to hold; nothing when ours are taken out.
    roots: &'a Roots,
    /// What of ours may be anywhere, also what has ended.
    put: BTreeSet<Fingerprint>,
    /// The folder of copies.
    copies: &'a Path,
    /// The folder of the administrator's units.
    units: &'a Path,
    /// How the system makes its store.
    layout: Option<&'a Layout>,
    /// Whether systemd is the init here.
    systemd: bool,
}

impl Context<'_> {
    /// All fingerprints that are ours.
    fn ours(&self) -> BTreeSet<Fingerprint> {
        self.put.union(&self.roots.ids()).cloned().collect()
    }
}

/// What a look at a store found.
#[derive(Debug)]
struct Look {
    /// Where it really is.
    place: PathBuf,
    /// What makes it what it should be; nothing when it is.
    steps: Vec<Step>,
    /// How much of what is wanted is there.
    present: usize,
    /// How much of ours is there that is not wanted.
    extra: usize,
    /// Why it is left alone, when it is.
    problem: Option<String>,
    /// What to do when the steps are done.
    note: Option<String>,
}

impl Look {
    fn at(place: &Path) -> Self {
        Self { place: place.to_owned(), steps: Vec::new(), present: 0, extra: 0, problem: None, note: None }
    }
}

/// The stores of this host, and our book of them.
pub struct Stores {
    state: PathBuf,
    copies: PathBuf,
    units: PathBuf,
    layout: Option<Layout>,
    systemd: bool,
}

impl Stores {
    /// Of this host; the CA and the manifest are below `state`.
    #[must_use]
    pub fn of_host(state: &Path) -> Self {
        Self {
            state: state.to_owned(),
            copies: COPIES.into(),
            units: "/etc/systemd/system".into(),
            layout: Layout::of_host(),
            // sd_booted(3)
            systemd: Path::new("/run/systemd/system").is_dir(),
        }
    }

    fn context<'a>(&'a self, roots: &'a Roots, put: BTreeSet<Fingerprint>) -> Context<'a> {
        let Self { copies, units, layout, systemd, .. } = self;
        Context { roots, put, copies, units, layout: layout.as_ref(), systemd: *systemd }
    }

    /// A store with what kind it is, for people.
    fn title(&self, target: &Target) -> String {
        match (target, &self.layout) {
            (Target::System, Some(layout)) => format!("{target} ({})", layout.family),
            _ => target.to_string(),
        }
    }
}

/// A path as the command line gives it: absolute, of readable characters.
///
/// # Errors
/// It is not.
pub fn path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() || path.components().any(|part| matches!(part, std::path::Component::ParentDir)) {
        return Err(format!("`{}` is not an absolute path without `..`", text.escape_debug()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("`{}` has control characters", text.escape_debug()));
    }
    // Without double slashes and dots, so that one store has one name.
    Ok(path.components().collect())
}
