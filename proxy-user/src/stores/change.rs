//! Brings stores to what they should be: says each step, does it, looks again, and takes it back when it is not so.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::error::StoreError;
use super::files::Folder;
use super::manifest::{Book, Entry, Manifest};
use super::roots::{Fingerprint, Roots};
use super::step::{Step, apply};
use super::{Context, Look, Stores, Target, watch};

/// How often a store that others change at the same time is tried.
const ATTEMPTS: u32 = 3;

/// Which stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// These.
    These(Vec<Target>),
    /// These, and all of the manifest.
    AndRecorded(Vec<Target>),
}

/// What becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// They hold the current roots.
    Current,
    /// They hold nothing of ours, and are recorded no more.
    Without,
}

/// What became of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How many were changed, or would be.
    pub changed: usize,
    /// How many were as they should be.
    pub current: usize,
    /// How many are not as they should be, and were left as they were.
    pub failed: usize,
}

/// What is said while it goes on.
pub enum Said<'a> {
    /// A store is looked at.
    Store(&'a str),
    /// A step of it is about to be done, or would be.
    Step(&'a Step),
    /// It is as it should be.
    NothingToDo,
    /// What to do now.
    Note(&'a str),
    /// It is not as it should be.
    Failed(&'a StoreError),
}

impl Stores {
    /// Brings stores to what they should be. One that fails does not keep others from it.
    ///
    /// # Errors
    /// What concerns all: there is no CA, somebody else is at work, the manifest cannot be read or written.
    pub fn bring(
        &self,
        wanted: Wanted,
        goal: Goal,
        dry: bool,
        say: &mut dyn FnMut(Said<'_>),
    ) -> Result<Outcome, StoreError> {
        let roots = match goal {
            Goal::Current => Roots::of_ca(&self.state)?,
            Goal::Without => Roots::default(),
        };
        let book = Book::below(&self.state);
        // Nothing is made for what only looks.
        let _lock = if dry { None } else { Some(book.lock()?) };
        let mut manifest = book.read()?;
        let named: BTreeSet<Target> = match &wanted {
            Wanted::These(these) | Wanted::AndRecorded(these) => these.iter().cloned().collect(),
        };
        let mut targets = named.clone();
        if let Wanted::AndRecorded(_) = wanted {
            targets.extend(manifest.stores.iter().map(|entry| entry.target.clone()));
        }
        let mut targets: Vec<Target> = targets.into_iter().collect();
        if goal == Goal::Without {
            // Others may still name what is removed last.
            targets.reverse();
        }
        let mut put = manifest.put();
        if let Ok(roots) = Roots::of_ca(&self.state) {
            put.extend(roots.ids());
        }
        let mut work =
            Work { stores: self, book: &book, manifest: &mut manifest, roots: &roots, put, dry, say };
        let mut outcome = Outcome::default();
        for target in &targets {
            (work.say)(Said::Store(&self.title(target)));
            let result = work.one(target, goal, named.contains(target));
            work.count(result, &mut outcome);
        }
        let result = work.watch();
        if !matches!(result, Ok(false)) {
            work.count(result, &mut outcome);
        }
        Ok(outcome)
    }
}

struct Work<'a> {
    stores: &'a Stores,
    book: &'a Book,
    manifest: &'a mut Manifest,
    roots: &'a Roots,
    put: BTreeSet<Fingerprint>,
    dry: bool,
    say: &'a mut dyn FnMut(Said<'_>),
}

impl Work<'_> {
    fn count(&mut self, result: Result<bool, StoreError>, outcome: &mut Outcome) {
        match result {
            Ok(true) => outcome.changed += 1,
            Ok(false) => outcome.current += 1,
            Err(error) => {
                outcome.failed += 1;
                (self.say)(Said::Failed(&error));
            }
        }
    }

    fn context(&self) -> Context<'_> {
        self.stores.context(self.roots, self.put.clone())
    }

    /// One store: whether it was changed.
    fn one(&mut self, target: &Target, goal: Goal, named: bool) -> Result<bool, StoreError> {
        let mut attempt = 1;
        loop {
            match self.attempt(target, goal, named) {
                Err(StoreError::Changed { .. }) if attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn attempt(&mut self, target: &Target, goal: Goal, named: bool) -> Result<bool, StoreError> {
        let recorded = self.manifest.entry(target).cloned();
        if let Some(entry) = recorded.as_ref().filter(|_| !self.dry) {
            self.clean(entry);
        }
        let mut look =
            target.look(&self.context()).map_err(|error| forgettable(error, target, goal, &recorded))?;
        if let Some(problem) = look.problem {
            return Err(StoreError::refused(&look.place, problem));
        }
        if let Some(entry) = recorded.as_ref().filter(|entry| entry.place != look.place && !named) {
            let reason = format!(
                "leads to {} now: if that is right, run `vouchsafe trust install {}`",
                look.place.display(),
                target.option()
            );
            return Err(StoreError::refused(&entry.place, reason));
        }
        let made: Vec<PathBuf> = match (&recorded, goal) {
            (Some(entry), Goal::Without) => entry.made.clone(),
            _ => Vec::new(),
        };
        look.steps.extend(
            made.iter()
                .rev()
                .filter(|path| path.is_dir())
                .map(|path| Step::DeleteFolder { path: path.clone() }),
        );
        let changes = !look.steps.is_empty();
        if !changes {
            (self.say)(Said::NothingToDo);
        }
        if self.dry {
            look.steps.iter().for_each(|step| (self.say)(Said::Step(step)));
            // In memory alone, for what is made of it.
            let entry =
                Entry { target: target.clone(), place: look.place, put: self.roots.ids(), made: Vec::new() };
            self.manifest.set(target, (goal == Goal::Current).then_some(entry));
            return Ok(changes);
        }
        // The book first: see its invariant.
        let before = recorded.clone();
        let mut put = recorded.as_ref().map(|entry| entry.put.clone()).unwrap_or_default();
        put.extend(self.roots.ids());
        let mut made = recorded.map(|entry| entry.made).unwrap_or_default();
        made.extend(look.steps.iter().filter_map(|step| match step {
            Step::MakeFolder { path, .. } => Some(path.clone()),
            _ => None,
        }));
        let entry = Entry { target: target.clone(), place: look.place.clone(), put, made };
        let of_ours = before.is_some() || goal == Goal::Current;
        if of_ours && before.as_ref() != Some(&entry) && changes {
            self.record(target, Some(entry.clone()))?;
        }
        if changes && let Err(error) = self.perform(target, &look) {
            if !matches!(error, StoreError::NotUndone { .. }) {
                self.record(target, before)?;
            }
            return Err(error);
        }
        let now = (goal == Goal::Current).then(|| Entry { put: self.roots.ids(), ..entry });
        self.record(target, now)?;
        if let Some(note) = &look.note {
            (self.say)(Said::Note(note));
        }
        Ok(changes)
    }

    /// Deletes what a kill of ours left unfinished in the folder of a store.
    fn clean(&self, entry: &Entry) {
        let folder = match &entry.target {
            Target::System | Target::Bundle | Target::HashDir { .. } => Some(entry.place.as_path()),
            Target::File { .. } | Target::Java { .. } | Target::Unit { .. } => entry.place.parent(),
            Target::Nss { .. } => None,
        };
        if let Some(Ok(Some(folder))) = folder.map(Folder::open) {
            folder.clean();
        }
    }

    /// Does the steps, looks again, and takes them back when the store is not what it should be.
    fn perform(&mut self, target: &Target, look: &Look) -> Result<(), StoreError> {
        let say = &mut self.say;
        let done = apply(&look.steps, &mut |step| say(Said::Step(step)))?;
        let again = target.look(&self.context());
        let error = match again {
            Ok(again) if again.steps.is_empty() && again.problem.is_none() => return Ok(()),
            Ok(again) => {
                let state =
                    again.steps.first().map(ToString::to_string).or(again.problem).unwrap_or_default();
                StoreError::NotTaken { path: look.place.clone(), state: format!("still to be done: {state}") }
            }
            Err(error) => error,
        };
        Err(match done.undo() {
            Ok(()) => error,
            Err(undo) => StoreError::NotUndone { error: Box::new(error), undo: Box::new(undo) },
        })
    }

    fn record(&mut self, target: &Target, entry: Option<Entry>) -> Result<(), StoreError> {
        if self.manifest.entry(target) == entry.as_ref() {
            return Ok(());
        }
        self.manifest.set(target, entry);
        self.book.write(self.manifest)
    }

    /// The units that keep all of it current.
    fn watch(&mut self) -> Result<bool, StoreError> {
        let look = watch::look(self.manifest, &self.stores.state, &self.context())?;
        if let Some(problem) = look.problem {
            return Err(StoreError::refused(&look.place, problem));
        }
        if look.steps.is_empty() {
            return Ok(false);
        }
        (self.say)(Said::Store("units that keep it current"));
        if self.dry {
            look.steps.iter().for_each(|step| (self.say)(Said::Step(step)));
        } else {
            let say = &mut self.say;
            apply(&look.steps, &mut |step| say(Said::Step(step)))?;
        }
        Ok(true)
    }
}

/// A recorded store that is gone is said with how to forget it.
fn forgettable(error: StoreError, target: &Target, goal: Goal, recorded: &Option<Entry>) -> StoreError {
    match error {
        StoreError::Refused { path, reason } if recorded.is_some() && goal == Goal::Current => {
            StoreError::Refused {
                path,
                reason: format!("{reason}; `vouchsafe trust remove {}` forgets it", target.option()),
            }
        }
        error => error,
    }
}
