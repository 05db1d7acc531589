//! How the stores are, those that are recorded and those that could be: for people and for programs. Nothing is changed.

use std::path::PathBuf;

use serde::Serialize;

use super::error::StoreError;
use super::manifest::Book;
use super::roots::Roots;
use super::{Look, Stores, Target, detect};

/// How a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It holds the current roots, and nothing else of ours.
    Current,
    /// It holds some of them, or what has ended.
    Outdated,
    /// It is recorded, and holds none of them.
    Missing,
    /// Somebody else was at what is ours.
    ChangedByOthers,
    /// It cannot be looked at.
    Failed,
    /// It is not recorded: nobody asked for it.
    NotInstalled,
}

impl State {
    /// The state as words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Outdated => "outdated",
            Self::Missing => "missing",
            Self::ChangedByOthers => "changed by others",
            Self::Failed => "failed",
            Self::NotInstalled => "not installed",
        }
    }
}

/// A store and how it is.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// What it is, for people.
    pub store: String,
    /// Where it really is.
    pub path: PathBuf,
    /// How it is.
    pub state: State,
    /// Whether it is in the manifest, so that `refresh` keeps it current.
    pub recorded: bool,
    /// What it serves.
    pub serves: &'static str,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// The command that makes it current.
    pub command: Option<String>,
}

impl Stores {
    /// The recorded stores, the system's and the copies in any case, and then what else was found on this host.
    ///
    /// # Errors
    /// There is no CA, or the manifest cannot be read.
    pub fn status(&self) -> Result<Vec<Status>, StoreError> {
        let roots = Roots::of_ca(&self.state)?;
        let manifest = Book::below(&self.state).read()?;
        let context = self.context(&roots, manifest.put());
        let mut targets: Vec<Target> = manifest.stores.iter().map(|entry| entry.target.clone()).collect();
        targets.extend([Target::System, Target::Bundle]);
        targets.sort();
        targets.dedup();
        let mut all = Vec::new();
        for target in &targets {
            let entry = manifest.entry(target);
            let looked = target.look(&context);
            let moved = match (&looked, entry) {
                (Ok(look), Some(entry)) if entry.place != look.place => {
                    Some(format!("{} leads to {} now", entry.place.display(), look.place.display()))
                }
                _ => None,
            };
            let (path, state, problem) = match looked {
                Ok(look) => judge(look, entry.is_some(), moved),
                Err(error) => {
                    let path = entry.map(|entry| entry.place.clone()).unwrap_or_default();
                    (path, State::Failed, Some(error.to_string()))
                }
            };
            let command = match state {
                State::Current => None,
                State::Outdated | State::Missing => Some("vouchsafe trust refresh".to_owned()),
                _ => Some(format!("vouchsafe trust install {}", target.option())),
            };
            let (store, serves) = (self.title(target), target.serves());
            all.push(Status { store, path, state, recorded: entry.is_some(), serves, problem, command });
        }
        let recorded: Vec<_> = manifest.stores.iter().map(|entry| entry.place.as_path()).collect();
        for (target, path) in detect::found(&recorded, self.layout.as_ref()) {
            all.push(Status {
                store: target.to_string(),
                path,
                state: State::NotInstalled,
                recorded: false,
                serves: target.serves(),
                problem: None,
                command: Some(format!("vouchsafe trust install {}", target.option())),
            });
        }
        Ok(all)
    }
}

fn judge(look: Look, recorded: bool, moved: Option<String>) -> (PathBuf, State, Option<String>) {
    let state = match &look {
        _ if look.problem.is_some() || moved.is_some() => State::ChangedByOthers,
        _ if look.steps.is_empty() => State::Current,
        _ if !recorded => State::NotInstalled,
        Look { present: 0, extra: 0, .. } => State::Missing,
        _ => State::Outdated,
    };
    let problem = look.problem.or(moved).or_else(|| {
        let first = look.steps.first().filter(|_| recorded)?;
        Some(format!("to be done: {}", first.to_string().split_whitespace().collect::<Vec<_>>().join(" ")))
    });
    (look.place, state, problem)
}

/// Whether everything that is recorded is current, and anything is.
#[must_use]
pub fn all_current(all: &[Status]) -> bool {
    let mut recorded = all.iter().filter(|store| store.recorded).peekable();
    recorded.peek().is_some() && recorded.all(|store| store.state == State::Current)
}
