//! `kind = "exec"`: a program prints the credential, which is kept until it is about to end.
//!
//! Where its arguments name the identity, what it prints is for that identity alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proxy_policy::{ExecCredential, Variable};

use super::super::answers;
use super::super::error::CredentialError;
use super::super::lease::{Lease, Leases};
use super::super::program::Program;
use super::super::provider::{Ask, Provided, Provider, Providing};
use super::bearer::Bearer;

/// A credential of this kind at work.
pub(super) struct Exec {
    name: Arc<str>,
    is_for_identity: bool,
    leases: Arc<Leases<String, Bearer, CredentialError>>,
}

impl Exec {
    pub(super) fn new(name: Arc<str>, kind: &ExecCredential) -> Self {
        let printer =
            Arc::new(Printer { name: Arc::clone(&name), kind: kind.clone(), printed: AtomicU64::new(0) });
        let leases = Leases::new(move |identity: String| {
            let printer = Arc::clone(&printer);
            Box::pin(async move { printer.print(&identity).await })
        });
        Self { name, is_for_identity: kind.is_for_identity(), leases }
    }

    /// For whom it is; nobody in particular is the same for all.
    fn whom<'a>(&self, ask: &Ask<'a>) -> &'a str {
        if self.is_for_identity { ask.identity } else { "" }
    }
}

impl Provider for Exec {
    fn ready(&self, ask: &Ask<'_>) -> Option<Provided> {
        self.leases.fresh(self.whom(ask)).map(|token| token.attached(&self.name, ask))
    }

    fn provide<'a>(&'a self, ask: &'a Ask<'a>) -> Providing<'a> {
        Box::pin(async move { self.leases.get(self.whom(ask).to_owned()).await?.attached(&self.name, ask) })
    }
}

/// Runs the program.
struct Printer {
    name: Arc<str>,
    kind: ExecCredential,
    /// How often it has given something.
    printed: AtomicU64,
}

impl Printer {
    async fn print(&self, identity: &str) -> Result<Lease<Bearer>, CredentialError> {
        let kind = &self.kind;
        let place = |variable| (variable == Variable::Identity).then_some(identity);
        let arguments: Option<Vec<String>> =
            kind.arguments.iter().map(|argument| argument.fill(place)).collect();
        let mut command = vec![kind.program.clone()];
        command.extend(
            arguments.ok_or_else(|| self.failed("this daemon does not know a place in its arguments"))?,
        );
        let program =
            Program::new(&command).passing(&kind.env).within(kind.timeout).running_as(kind.user.as_deref());
        let output = program.run(None).await.map_err(|error| self.failed(&error.to_string()))?;
        let given = answers::program_output(output.expose());
        let given = given.map_err(|what| self.failed(&format!("the program {}: {what}", kind.program)))?;
        let version = self.printed.fetch_add(1, Ordering::Relaxed) + 1;
        let value = Bearer::new(&self.name, given.token, &kind.program, version)?;
        Ok(Lease { value, lasts: given.lasts })
    }

    fn failed(&self, problem: &str) -> CredentialError {
        CredentialError::NotObtained { credential: self.name.to_string(), problem: problem.to_owned() }
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
