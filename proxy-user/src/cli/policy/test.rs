//! `vouchsafe policy test [DIR]`: calls that nobody made, and whether they would be decided as expected.

mod coverage;
mod report;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use proxy_policy::{Rehearsal, Severity, compile_with_tests};

use self::coverage::Coverage;
use crate::app::policies::{self, Texts};
use crate::app::rehearse::{Outcome, Question, judge};
use crate::authorize::LivePolicy;
use crate::base::clock;

/// Arguments of `vouchsafe policy test`.
#[derive(Debug, Args)]
#[command(after_help = "\
Tests are files called *.test.toml, anywhere below DIR. No daemon and no privilege is needed.
Exit code: 0 every call is decided as expected, 1 some are not or too few rules are covered, \
2 the policy or a test cannot be read, or there is no test.")]
pub struct TestArgs {
    /// The folder that holds policies/, roles/, apis/ and credentials/
    #[arg(value_name = "DIR", default_value = "/etc/vouchsafe")]
    dir: PathBuf,
    /// Fail when less than this share of the rules decides some call, in percent
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(..=100))]
    min_coverage: Option<u8>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Nothing could be tested.
const CANNOT_TEST: u8 = 2;

/// Prints what is decided otherwise than expected, and which rules no test decided by.
///
/// # Errors
/// Standard output cannot be written.
pub fn run(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let results = match rehearse(&args.dir) {
        Ok(results) => results,
        Err(errors) => {
            if args.json {
                writeln!(io::stdout(), "{}", report::json_of_errors(&errors))?;
            }
            for error in &errors {
                eprintln!("{error}");
            }
            eprintln!("{}: {} errors; nothing was tested", args.dir.display(), errors.len());
            return Ok(ExitCode::from(CANNOT_TEST));
        }
    };
    let covered = args.min_coverage.is_none_or(|wanted| results.coverage.percent() >= wanted);
    match args.json {
        true => writeln!(io::stdout(), "{}", report::json(&results, covered))?,
        false => io::stdout().write_all(report::text(&results, args.min_coverage).as_bytes())?,
    }
    let passed = results.failures().next().is_none() && covered;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What came of all tests of a policy root.
#[derive(Debug)]
struct Results {
    calls: Vec<Judged>,
    coverage: Coverage,
}

/// A call, and what became of it.
#[derive(Debug)]
struct Judged {
    call: Rehearsal,
    outcome: Outcome,
    differences: Vec<Difference>,
}

/// Something that is not as expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Difference {
    Verdict,
    Rule,
    Credential,
    Reason,
}

impl Results {
    /// The calls that are decided otherwise than expected.
    fn failures(&self) -> impl Iterator<Item = &Judged> {
        self.calls.iter().filter(|judged| !judged.differences.is_empty())
    }
}

/// Runs every test below a policy root.
///
/// # Errors
/// Every error of every file, or that there is no test.
fn rehearse(root: &Path) -> Result<Results, Vec<String>> {
    let Texts { files, mut trouble, .. } = Texts::read(root);
    let tests = policies::tests(root, &mut trouble);
    let tested = compile_with_tests(&files, &tests);
    let found = tested.compiled.diagnostics.iter().filter(|it| it.severity == Severity::Error);
    trouble.extend(found.map(|diagnostic| format!("{}/{diagnostic}", root.display())));
    if trouble.is_empty() && tested.calls.is_empty() {
        trouble.push(format!(
            "{}: error: there is no test here\n  help: write calls and what is expected of them into a file that ends in .test.toml",
            root.display()
        ));
    }
    let set = match tested.compiled.set {
        Some(set) if trouble.is_empty() => set,
        _ => return Err(trouble),
    };
    let mut coverage = Coverage::of(&set);
    let live = Arc::new(LivePolicy::new(set, 0));
    let now = clock::now();
    let mut calls = Vec::new();
    for call in tested.calls {
        // The compiler knows the identity of every call that it returned.
        let Some(identity) = live.set().identity_named(&call.identity) else { continue };
        let outcome = judge(
            &live,
            &Question {
                identity: identity.id,
                request: &call.request,
                headers: &call.headers,
                body: call.body.as_deref(),
                now: call.time.unwrap_or(now),
            },
        );
        coverage.count(&outcome.decided_by);
        let differences = differences(&call, &outcome);
        calls.push(Judged { call, outcome, differences });
    }
    Ok(Results { calls, coverage })
}

fn differences(call: &Rehearsal, outcome: &Outcome) -> Vec<Difference> {
    let rule = outcome.rule.as_ref().map_or("", |rule| &rule.text);
    let credential = outcome.credential.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    let mut check = |same: bool, what| found.extend((!same).then_some(what));
    check(call.expect == outcome.verdict, Difference::Verdict);
    check(call.rule.as_deref().is_none_or(|wanted| wanted == rule), Difference::Rule);
    check(call.credential.as_deref().is_none_or(|wanted| wanted == credential), Difference::Credential);
    check(call.reason.as_deref().is_none_or(|wanted| outcome.reason.contains(wanted)), Difference::Reason);
    found
}
