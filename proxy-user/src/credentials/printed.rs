//! `exec:NAME`: what a program prints that the daemon's configuration names, run again every few minutes while it is used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use proxy_policy::{SecretRef, Store as Place};

use super::lease::{Lease, Leases};
use super::program::Program;
use super::secret::Secret;
use super::source_files::without_line_end;
use super::sources::{Held, SourceError};
use crate::base::clock;
use crate::config::Programs;

/// The source.
pub(super) struct Printed {
    printer: Arc<Printer>,
    leases: Arc<Leases<String, Held, SourceError>>,
    /// What references name, and nobody has asked for yet.
    wanted: Mutex<Vec<String>>,
}

struct Printer {
    programs: Programs,
    /// What they printed last.
    last: Mutex<HashMap<String, Held>>,
}

impl Printed {
    pub(super) fn new(programs: Programs) -> Self {
        let printer = Arc::new(Printer { programs, last: Mutex::default() });
        let own = Arc::clone(&printer);
        let leases = Leases::new(move |name: String| {
            let printer = Arc::clone(&own);
            Box::pin(async move { printer.print(&name).await })
        });
        Self { printer, leases, wanted: Mutex::default() }
    }

    /// What is at hand. Must be called inside of the runtime.
    pub(super) fn held(&self, name: &str) -> Option<Result<Held, SourceError>> {
        match self.printer.programs.contains_key(name) {
            true => self.leases.fresh(name).map(Ok),
            false => Some(Err(unknown(name))),
        }
    }

    /// What is known, which is no use of it.
    pub(super) fn peek(&self, name: &str) -> Option<Result<Held, SourceError>> {
        match self.printer.programs.contains_key(name) {
            true => self.leases.peek(name),
            false => Some(Err(unknown(name))),
        }
    }

    /// What it prints, run if that is not at hand.
    ///
    /// # Errors
    /// There is no such program, or it prints no secret.
    pub(super) async fn fetch(&self, name: &str) -> Result<Held, SourceError> {
        match self.held(name) {
            Some(held) => held,
            None => self.leases.get(name.to_owned()).await,
        }
    }

    /// Keeps what these references name, and forgets the rest.
    pub(super) fn prepare(&self, references: &[&SecretRef]) {
        let ours = references.iter().filter(|reference| reference.store() == Place::Exec);
        let mut named: Vec<&str> = ours.map(|reference| reference.name()).collect();
        named.sort_unstable();
        named.dedup();
        self.leases.retain(|name| named.contains(&name.as_str()));
        self.printer.last().retain(|name, _| named.contains(&name.as_str()));
        let known = self.leases.keys();
        let new = named.into_iter().filter(|name| known.iter().all(|known| known != name));
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = new.map(str::to_owned).collect();
    }

    /// Runs what was named since. Must be called inside of the runtime.
    pub(super) fn begin(&self) {
        let wanted = std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        for name in wanted.into_iter().filter(|name| self.printer.programs.contains_key(name)) {
            let leases = Arc::clone(&self.leases);
            tokio::spawn(async move {
                if let Err(error) = leases.get(name.clone()).await {
                    tracing::warn!("exec:{name}: {error}");
                }
            });
        }
    }

    /// Runs all of them again. Must be called inside of the runtime.
    pub(super) fn read_again(&self) {
        self.leases.forgive();
        self.leases.keys().into_iter().for_each(|name| self.leases.renew(name));
    }
}

fn unknown(name: &str) -> SourceError {
    let problem = format!(
        "this daemon's configuration names no program {name}; add [exec.{name}] to it, and restart the daemon"
    );
    SourceError::Missing { problem }
}

impl Printer {
    fn last(&self) -> std::sync::MutexGuard<'_, HashMap<String, Held>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn print(&self, name: &str) -> Result<Lease<Held>, SourceError> {
        let exec = self.programs.get(name).ok_or_else(|| unknown(name))?;
        let program = Program::new(&exec.command).passing(&exec.env).within(exec.timeout);
        let output = program.running_as(exec.user.as_deref()).run(None).await;
        let output = output.map_err(|error| SourceError::Unavailable { problem: error.to_string() })?;
        let secret = without_line_end(output.expose());
        if secret.is_empty() {
            let problem = format!("the program of [exec.{name}] printed nothing; run it by hand to see why");
            return Err(SourceError::Missing { problem });
        }
        let mut last = self.last();
        let before = last.get(name);
        let version = before.map_or(0, |held| held.version);
        // The same content stays the same secret: what was made of it goes on.
        let held = match before {
            Some(held) if held.secret.expose() == secret => held.clone(),
            _ => Held {
                secret: Arc::new(Secret::new(secret.to_vec())),
                version: version + 1,
                since_s: u64::try_from(clock::now().0).ok(),
            },
        };
        if version > 0 && held.version > version {
            tracing::info!(version = held.version, "exec:{name} changed");
        }
        last.insert(name.to_owned(), held.clone());
        Ok(Lease { value: held, lasts: Some(exec.every) })
    }
}

#[cfg(test)]
#[path = "printed_tests.rs"]
mod tests;
