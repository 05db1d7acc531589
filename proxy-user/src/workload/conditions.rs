//! One condition of an identity, held against a workload: what is wanted, what is, and why it does not hold.
//!
//! Invariant: deciding and explaining ask the same question. Deciding stops at the first condition that does not hold.
use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::unistd::{Group, User};
use proxy_journal::{Known, NamedPath};
use proxy_policy::{Conditions, ExePattern};

use super::{
    Workload,
    container::{Container, Maker},
    digest::Digests,
    environment, evidence,
    files::{self, FileId},
    process,
    script::{self, NotFound, Script, Scripts},
    writers,
};
use crate::kernel::Programs;

/// How long a name of a user or group is believed.
const NAME_LIFE: Duration = Duration::from_secs(10);

/// How many paths of an executable are noted.
const MOST_PATHS: usize = 4;

/// What can be asked of a workload, in the order in which it is asked: the executable decides whether a miss is worth
/// telling, then cheap ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Which file is executed.
    Exe,
    /// The real user.
    User,
    /// The real group.
    Group,
    /// The system's unit.
    Unit,
    /// The cgroup.
    Cgroup,
    /// The container.
    Container,
    /// The service account of the pod.
    Kubernetes,
    /// The content of the executable.
    Sha256,
    /// Nobody put code of his own into it as it was started.
    CleanEnvironment,
    /// Which script its interpreter was started with.
    Script,
    /// The content of the script.
    ScriptSha256,
}

impl Condition {
    /// All, in the order in which they are asked.
    pub const ALL: [Self; 11] = [
        Self::Exe,
        Self::User,
        Self::Group,
        Self::Unit,
        Self::Cgroup,
        Self::Container,
        Self::Kubernetes,
        Self::Sha256,
        Self::CleanEnvironment,
        Self::Script,
        Self::ScriptSha256,
    ];

    /// Whether it can differ between two starts of a program that are alike for the kernel. These come last.
    #[must_use]
    pub fn is_of_the_start(self) -> bool {
        matches!(self, Self::Script | Self::ScriptSha256)
    }

    /// As in policy files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exe => "exe",
            Self::User => "user",
            Self::Group => "group",
            Self::Unit => "unit",
            Self::Cgroup => "cgroup",
            Self::Container => "container",
            Self::Kubernetes => "kubernetes",
            Self::Sha256 => "sha256",
            Self::CleanEnvironment => "clean_environment",
            Self::Script => "script",
            Self::ScriptSha256 => "script_sha256",
        }
    }
}

/// What came out for one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Which one.
    pub condition: Condition,
    /// What the policy wants, as it is written there.
    pub wanted: String,
    /// What the workload has.
    pub found: String,
    /// Why it does not hold; `None`: it does.
    pub miss: Option<Miss>,
}

/// Why a condition does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Whether this identity is the one that a person would have expected.
    pub near: bool,
    /// Whether the workload itself may hear why: it is about nothing but its own executable.
    pub told: bool,
    /// In words, as the end of "X is not bot: …".
    pub why: String,
}

/// What conditions are looked up in, shared by all workloads.
#[derive(Default)]
pub(super) struct Lookups {
    digests: Digests,
    scripts: Scripts,
    users: Names,
    groups: Names,
}

impl Lookups {
    /// As the programs saw processes start.
    pub(super) fn new(programs: Arc<Programs>) -> Self {
        Self { scripts: Scripts::new(programs), ..Self::default() }
    }

    /// The script that a workload was started with, as it was written there.
    pub(super) fn script_label(&self, workload: &Workload) -> Option<String> {
        self.scripts.label(workload)
    }
}

/// What the examinations of one workload at one moment share.
pub(super) struct Common {
    /// Its executable's path as it is now.
    label: OnceCell<String>,
    /// What was found, whatever came of it.
    known: RefCell<Known>,
}

impl Common {
    /// Blocks on the file system.
    pub(super) fn of(workload: &Workload) -> Self {
        Self { label: OnceCell::new(), known: RefCell::new(evidence::of(workload)) }
    }

    /// Of a workload that is not there any more.
    pub(super) fn unknown() -> Self {
        Self { label: OnceCell::new(), known: RefCell::default() }
    }

    pub(super) fn into_known(self) -> Known {
        self.known.into_inner()
    }

    /// Nobody else holds it: examinations follow each other.
    fn note(&self, note: impl FnOnce(&mut Known)) {
        if let Ok(mut known) = self.known.try_borrow_mut() {
            note(&mut known);
        }
    }
}

/// The conditions of one identity, about to be held against one workload. Blocks on the file system.
pub(super) struct Examination<'a> {
    lookups: &'a Lookups,
    workload: &'a Workload,
    conditions: &'a Conditions,
    common: &'a Common,
    /// The path of the policy that names the executable, once it was looked for and found.
    path: Option<PathBuf>,
    /// The script, once it was asked for.
    script: Option<Result<Script, NotFound>>,
}

impl<'a> Examination<'a> {
    /// `common` is one for all examinations of the workload at this moment.
    pub(super) fn new(
        lookups: &'a Lookups,
        workload: &'a Workload,
        conditions: &'a Conditions,
        common: &'a Common,
    ) -> Self {
        Self { lookups, workload, conditions, common, path: None, script: None }
    }

    /// Whether `exe` names another file, and nothing is near about that: such an identity counts for no decision. Of thousands
    /// of identities nearly all are so, and no text is made for them.
    pub(super) fn is_far(&mut self) -> bool {
        let Some(exe) = self.conditions.exe.as_ref().filter(|_| self.workload.exe_ino != 0) else {
            return false;
        };
        self.path = files::find(exe, self.file());
        self.path.is_none() && !self.was_replaced(exe)
    }

    fn file(&self) -> FileId {
        FileId { dev: self.workload.exe_dev, ino: self.workload.exe_ino }
    }

    /// Its executable's path as it is now: it may have been replaced since it was seen.
    fn label(&self) -> &'a str {
        self.common.label.get_or_init(|| {
            process::executable_label(self.workload.pid, self.workload.start_time_ns, self.file())
                .or_else(|| self.workload.exe.clone())
                .unwrap_or_else(|| "a file whose path is not known".into())
        })
    }

    fn was_replaced(&self, exe: &ExePattern) -> bool {
        self.label().strip_suffix(" (deleted)").is_some_and(|old| exe.matches(old))
    }

    /// Asks one condition; `None` when the identity does not have it. To be called in the order of [`Condition::ALL`].
    pub(super) fn check(&mut self, condition: Condition) -> Option<Check> {
        let (wanted, found, miss) = match condition {
            Condition::Exe => self.exe()?,
            Condition::User => self.user()?,
            Condition::Group => self.group()?,
            Condition::Unit => self.unit()?,
            Condition::Cgroup => self.cgroup()?,
            Condition::Container => self.container()?,
            Condition::Kubernetes => self.kubernetes()?,
            Condition::Sha256 => self.sha256()?,
            Condition::CleanEnvironment => self.clean_environment()?,
            Condition::Script => self.script()?,
            Condition::ScriptSha256 => self.script_sha256()?,
        };
        Some(Check { condition, wanted, found, miss })
    }

    /// A miss of a condition other than the executable: near when the executable is the one that is wanted.
    fn miss(&self, why: String) -> Option<Miss> {
        Some(Miss { near: self.conditions.exe.is_some(), told: false, why })
    }

    fn exe(&mut self) -> Option<(String, String, Option<Miss>)> {
        let exe = self.conditions.exe.as_ref()?;
        let wanted = exe.as_str().to_owned();
        if self.workload.exe_ino == 0 {
            let why = "its executable could not be read".to_owned();
            return Some((wanted, "unknown".into(), Some(Miss { near: false, told: false, why })));
        }
        let file = self.file();
        let Some(path) = self.path.take().or_else(|| files::find(exe, file)) else {
            let miss = match self.was_replaced(exe) {
                true => Miss {
                    near: true,
                    told: false,
                    why: "the file at its path was replaced since it started; restart the process".into(),
                },
                false => Miss { near: false, told: false, why: format!("it is not {wanted}") },
            };
            return Some((wanted, self.label().to_owned(), Some(miss)));
        };
        let found = path.display().to_string();
        self.common.note(|known| {
            let is_new = |known: &Known| {
                known.paths.len() < MOST_PATHS && known.paths.iter().all(|it| it.path != found)
            };
            if self.workload.exe.as_ref() != Some(&found) && is_new(known) {
                let is = evidence::footing_at(&path, self.workload);
                known.paths.push(NamedPath { path: found.clone(), is });
            }
        });
        let miss =
            writers::of_path(&path, file, self.workload.uid, self.conditions.are_pinned()).map(writable);
        self.path = Some(path);
        Some((wanted, found, miss))
    }

    fn user(&self) -> Option<(String, String, Option<Miss>)> {
        let user = self.conditions.user.as_ref()?;
        let has = self.workload.uid;
        let wanted = number(user)
            .or_else(|| self.lookups.users.id(user, |name| Some(User::from_name(name).ok()??.uid.as_raw())));
        let miss = || self.miss(format!("it must run as user {}, and runs as uid {has}", user.value));
        let miss = if wanted == Some(has) { None } else { miss() };
        Some((user.value.clone(), format!("uid {has}"), miss))
    }

    fn group(&self) -> Option<(String, String, Option<Miss>)> {
        let group = self.conditions.group.as_ref()?;
        let has = self.workload.gid;
        let wanted = number(group).or_else(|| {
            self.lookups.groups.id(group, |name| Some(Group::from_name(name).ok()??.gid.as_raw()))
        });
        let miss = || self.miss(format!("it must run as group {}, and runs as gid {has}", group.value));
        let miss = if wanted == Some(has) { None } else { miss() };
        Some((group.value.clone(), format!("gid {has}"), miss))
    }

    fn unit(&self) -> Option<(String, String, Option<Miss>)> {
        let unit = self.conditions.unit.as_ref()?;
        let holds = self.workload.unit.as_deref().is_some_and(|name| unit.matches(name));
        let has = self.workload.unit.as_deref().unwrap_or("no unit");
        let miss = || self.miss(format!("it must be of unit {}, and is of {has}", unit.as_str()));
        Some((unit.as_str().to_owned(), has.to_owned(), if holds { None } else { miss() }))
    }

    fn cgroup(&self) -> Option<(String, String, Option<Miss>)> {
        let cgroup = self.conditions.cgroup.as_ref()?;
        let holds = self.workload.cgroup.as_deref().is_some_and(|path| cgroup.matches(path));
        let has = self.workload.cgroup.as_deref().unwrap_or("one that is gone");
        let miss = || self.miss(format!("it must be in cgroup {}, and is in {has}", cgroup.as_str()));
        Some((cgroup.as_str().to_owned(), has.to_owned(), if holds { None } else { miss() }))
    }

    fn sha256(&self) -> Option<(String, String, Option<Miss>)> {
        let wanted = self.conditions.sha256.as_ref()?.value;
        let digest = self.lookups.digests.of(self.workload, self.path.as_deref());
        // The content is pinned, so its path does not matter; but what can be written may have run as something else than what
        // was read.
        let label = self.workload.exe.as_deref().map_or_else(|| Path::new("its executable"), Path::new);
        let others = digest.as_ref().and_then(|(_, file)| writers::of_file(file, label, self.workload.uid));
        if let (Some((digest, _)), None) = (&digest, &others) {
            self.common.note(|known| known.sha256 = Some(hex(digest)));
        }
        let miss = match &digest {
            Some((digest, _)) if *digest == wanted => others.map(writable),
            Some(_) => self.miss("its executable has another SHA-256 than the policy names".into()),
            None => self.miss("its executable cannot be read any more, so its SHA-256 is unknown".into()),
        };
        let found = digest.map_or_else(|| "unknown".into(), |(digest, _)| hex(&digest));
        Some((hex(&wanted), found, miss))
    }
}

/// What a condition wants, what is, and why it does not hold.
type Answer = (String, String, Option<Miss>);

impl Examination<'_> {
    /// The script that was found, or the answer that none was.
    fn found_script(&mut self, wanted: &str) -> Result<&Script, Answer> {
        let (workload, pinned) = (self.workload, self.conditions.are_pinned());
        let path = self.path.as_deref();
        if let (Some(path), None) = (path, &self.script) {
            self.note_script(path);
        }
        let found = self.script.get_or_insert_with(|| match path {
            Some(path) => self.lookups.scripts.of(workload, path, pinned),
            None => Err(NotFound::far("its executable is not the interpreter")),
        });
        found.as_ref().map_err(|none| {
            let miss = Miss { near: none.near, told: false, why: none.why.clone() };
            (wanted.to_owned(), "none".to_owned(), Some(miss))
        })
    }

    /// Takes note of the script that counts for whoever asks, whatever this identity makes of it.
    fn note_script(&self, path: &Path) {
        let of = |pinned| Some(self.lookups.scripts.of(self.workload, path, pinned).ok()?.path);
        self.common.note(|known| {
            if known.script.is_none() {
                let (own, shared) = (of(false), of(true));
                known.script_shared = own.is_none() && shared.is_some();
                let path = own.or(shared).map(|path| path.display().to_string());
                known.script = Some(path.unwrap_or_default());
            }
        });
    }

    fn script(&mut self) -> Option<Answer> {
        let pattern = self.conditions.script.as_ref()?;
        let (user, pinned) = (self.workload.uid, self.conditions.are_pinned());
        let wanted = pattern.as_str().to_owned();
        let script = match self.found_script(&wanted) {
            Ok(script) => script,
            Err(answer) => return Some(answer),
        };
        let label = script.path.display().to_string();
        let miss = if pattern.matches(&label) {
            None
        } else {
            match files::find(pattern, script.file) {
                // Started by another name, which is nobody else's to change; this one must not be either.
                Some(path) => writers::of_path(&path, script.file, user, pinned).map(writable),
                None => Some(Miss { near: false, told: false, why: format!("its script is not {wanted}") }),
            }
        };
        Some((wanted, label, miss))
    }

    fn script_sha256(&mut self) -> Option<Answer> {
        let wanted = self.conditions.script_sha256.as_ref()?.value;
        let (lookups, common) = (self.lookups, self.common);
        let script = match self.found_script(&hex(&wanted)) {
            Ok(script) => script,
            Err(answer) => return Some(answer),
        };
        let digest = script::open(script).and_then(|mut file| lookups.digests.of_file(&mut file).ok());
        common.note(|known| known.script_sha256 = digest.as_ref().map(hex));
        let why = match digest {
            Some(digest) if digest == wanted => None,
            Some(_) => Some("its script has another SHA-256 than the policy names"),
            None => Some("its script cannot be read, so its SHA-256 is unknown"),
        };
        // Without a path the content alone says which script is meant.
        let near = self.conditions.script.is_some();
        let found = digest.map_or_else(|| "unknown".into(), |digest| hex(&digest));
        Some((hex(&wanted), found, why.map(|why| Miss { near, told: false, why: why.to_owned() })))
    }

    fn container(&self) -> Option<Answer> {
        let wanted = self.conditions.container.as_ref()?;
        let found = self.workload.container.as_ref();
        let label = found.map_or_else(|| "no container".to_owned(), |container| container.label());
        let holds = found.filter(|container| container.maker == Maker::Root).is_some_and(|container| {
            wanted.matches(container.runtime, &container.id, container.told().name.as_deref())
        });
        let why =
            || format!("it must run in container {}, and runs in {label}{}", wanted.as_str(), missing(found));
        let miss = if holds { None } else { self.miss(why()) };
        Some((wanted.as_str().to_owned(), label, miss))
    }

    fn kubernetes(&self) -> Option<Answer> {
        let wanted = self.conditions.kubernetes.as_ref()?;
        let found = self.workload.container.as_ref().filter(|container| container.maker == Maker::Root);
        let told = found.map(|container| container.told()).unwrap_or_default();
        let account = told.account.as_deref();
        let label = match (&told.namespace, account) {
            (Some(namespace), Some(account)) => format!("{namespace}/{account}"),
            (Some(namespace), None) => format!("{namespace}/ and an account that is not known"),
            (None, _) => "no pod that is known".to_owned(),
        };
        let holds = told.namespace.as_deref().is_some_and(|namespace| wanted.matches(namespace, account));
        let why = || {
            format!("it must be of service account {}, and is of {label}{}", wanted.as_str(), missing(found))
        };
        let miss = if holds { None } else { self.miss(why()) };
        Some((wanted.as_str().to_owned(), label, miss))
    }

    fn clean_environment(&self) -> Option<Answer> {
        if !self.conditions.want_clean_environment() {
            return None;
        }
        let found = environment::of(self.workload);
        let miss = match &found {
            Ok(names) if names.is_empty() => None,
            Ok(names) => Some(Miss {
                near: true,
                told: true,
                why: format!(
                    "it was started with {} in its environment, by which others put code into programs",
                    names.join(", ")
                ),
            }),
            Err(why) => Some(Miss { near: true, told: true, why: (*why).to_owned() }),
        };
        let found = match found {
            Ok(names) if names.is_empty() => "clean".to_owned(),
            Ok(names) => names.join(", "),
            Err(_) => "unknown".to_owned(),
        };
        Some(("true".into(), found, miss))
    }
}

/// An executable that others can change is not what a policy means. It is the one that is named all the same: near.
fn writable(why: String) -> Miss {
    Miss {
        near: true,
        told: true,
        why: format!("{why}; only root and the user that it runs as may be able to"),
    }
}

/// Why something of a container is not known, as the end of a sentence.
fn missing(container: Option<&Arc<Container>>) -> String {
    let problem = container.and_then(|container| container.told().problem.clone());
    problem.map_or_else(String::new, |problem| format!(" ({problem})"))
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Numbers of users or groups by name, believed for [`NAME_LIFE`].
#[derive(Default)]
struct Names(Mutex<HashMap<String, (Instant, Option<u32>)>>);

impl Names {
    fn id(&self, name: &str, ask: impl Fn(&str) -> Option<u32>) -> Option<u32> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        if let Some((at, id)) = known
            && at.elapsed() < NAME_LIFE
        {
            return id;
        }
        let id = ask(name);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), (Instant::now(), id));
        id
    }
}
