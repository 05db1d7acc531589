//! What a kernel is known to lack, and whether it failed in exactly that way. `docs/kernels.md` says what is lost by it.

use std::fmt;

use super::outcome::Outcome;

/// Something that does not work on a kernel, as it must show.
pub(super) enum Lack {
    /// The daemon refuses to start, and says this; so no test runs.
    Daemon { says: &'static str },
    /// This test fails, and prints this.
    Test { name: &'static str, says: &'static str },
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon { says } => write!(f, "the daemon refuses to start: {says}"),
            Self::Test { name, says } => write!(f, "{name} fails: {says}"),
        }
    }
}

/// What is wrong with a run on a kernel that lacks just `lacks`; empty when nothing is.
pub(super) fn problems(lacks: &[Lack], outcome: &Outcome, filter: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    let refusal = lacks.iter().find_map(|lack| match lack {
        Lack::Daemon { says } => Some(*says),
        Lack::Test { .. } => None,
    });
    let said = outcome.said.join("\n");
    match (refusal, outcome.ready) {
        (None, true) => tests(lacks, outcome, filter, &mut problems),
        (None, false) => problems.push(format!("the daemon did not start:\n{said}")),
        (Some(says), true) => {
            problems.push(format!("the daemon started; it was expected to refuse with {says:?}"));
        }
        (Some(says), false) if !said.contains(says) => {
            problems.push(format!("the daemon refused to start with other words than {says:?}:\n{said}"));
        }
        (Some(_), false) => {}
    }
    problems
}

fn tests(lacks: &[Lack], outcome: &Outcome, filter: &[String], problems: &mut Vec<String>) {
    let mut known = Vec::new();
    for lack in lacks {
        let Lack::Test { name, says } = lack else { continue };
        if !filter.iter().any(|part| name.contains(part)) {
            continue;
        }
        known.push(*name);
        match outcome.failed.get(*name) {
            Some(printed) if printed.contains(says) => {}
            Some(_) => problems.push(format!("{name} failed, but without the words {says:?}")),
            None => problems.push(format!("{name} was expected to fail with {says:?}, and did not")),
        }
    }
    let failed = outcome.failed.keys().filter(|name| !known.contains(&name.as_str()));
    problems.extend(failed.map(|name| format!("{name} failed")));
    if !outcome.tests_ended {
        problems.push("the tests did not come to their end".into());
    } else if outcome.passed.is_empty() {
        problems.push("no test passed: no name contains the filter?".into());
    }
    if outcome.ignored > 0 {
        problems.push(format!("{} tests are ignored; run them or remove them", outcome.ignored));
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::of_lines;
    use super::*;

    fn of(lacks: &[Lack], text: &str) -> Vec<String> {
        problems(lacks, &of_lines(text), &["identity".into()])
    }

    const END: &str = "\ntest result: ok. 1 passed; 0 failed; 0 ignored";

    #[test]
    fn a_kernel_without_lacks_must_pass_everything() {
        let ready = "vm: daemon ready\ntest identity::a ... ok";
        assert!(of(&[], &format!("{ready}{END}")).is_empty());
        assert!(of(&[], ready)[0].contains("did not come to their end"));
        assert!(of(&[], &format!("vm: daemon ready{END}"))[0].contains("no test passed"));
        assert!(
            of(&[], &format!("{ready}\ntest identity::b ... FAILED{END}"))[0].contains("identity::b failed")
        );
        assert!(of(&[], "vm: said no hook\nvm: daemon refused")[0].contains("no hook"));
    }

    #[test]
    fn a_refusal_must_come_with_its_words() {
        let lacks = [Lack::Daemon { says: "from Linux 5.14" }];
        assert!(of(&lacks, "vm: daemon refused\nvm: said it is there from Linux 5.14").is_empty());
        assert!(of(&lacks, "vm: daemon refused\nvm: said no BTF")[0].contains("other words"));
        assert!(of(&lacks, "vm: daemon ready")[0].contains("the daemon started"));
    }

    #[test]
    fn a_test_that_must_fail_must_fail_in_its_way() {
        let lacks = [Lack::Test { name: "identity::b", says: "no such hook" }];
        let run = |rest: &str| of(&lacks, &format!("vm: daemon ready\ntest identity::a ... ok\n{rest}{END}"));
        let failed = "test identity::b ... FAILED\n---- identity::b stdout ----\n";
        assert!(run(&format!("{failed}no such hook")).is_empty());
        assert!(run(&format!("{failed}other"))[0].contains("without the words"));
        assert!(run("test identity::b ... ok")[0].contains("was expected to fail"));
        let other = problems(
            &lacks,
            &of_lines(&format!("vm: daemon ready\ntest attacks::a ... ok{END}")),
            &["attacks".into()],
        );
        assert!(other.is_empty(), "the filter left it out: {other:?}");
    }
}
