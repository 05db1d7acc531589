//! What a kernel is known to lack, and whether it failed in exactly that way. `docs/kernels.md` says what is lost by it.

use super::outcome::Outcome;

/// What a kernel is too old for, or was built without.
pub(super) struct Lacks {
    /// The daemon refuses to start, says this, and leaves nothing attached; so no test runs.
    pub(super) refuses: Option<&'static str>,
    /// The daemon starts, and its status tells just these.
    pub(super) features: &'static [&'static str],
}

/// Of a kernel where everything works.
pub(super) const NOTHING: Lacks = Lacks { refuses: None, features: &[] };

/// What is wrong with a run on a kernel that lacks just this; empty when nothing is.
pub(super) fn problems(lacks: &Lacks, outcome: &Outcome) -> Vec<String> {
    let said = outcome.said.join("\n");
    match (lacks.refuses, outcome.ready) {
        (None, true) => [features(lacks.features, outcome), tests(outcome)].concat(),
        (None, false) => vec![format!("the daemon did not start:\n{said}")],
        (Some(says), true) => vec![format!("the daemon started; it was expected to refuse with {says:?}")],
        (Some(says), false) if !said.contains(says) => {
            vec![format!("the daemon refused to start with other words than {says:?}:\n{said}")]
        }
        (Some(_), false) if !outcome.programs.is_empty() => {
            vec!["the daemon refused to start and left programs attached".into()]
        }
        (Some(_), false) => Vec::new(),
    }
}

/// The daemon must tell of every lack that is known, and of no other.
fn features(known: &[&str], outcome: &Outcome) -> Vec<String> {
    let more = outcome.lacks.iter().filter(|told| !known.contains(&told.as_str()));
    let mut problems: Vec<String> = more.map(|told| format!("the kernel lacks more: {told}")).collect();
    let untold = known.iter().filter(|lack| !outcome.lacks.iter().any(|told| told == *lack));
    problems
        .extend(untold.map(|lack| format!("the daemon was expected to tell of this, and did not: {lack}")));
    problems
}

fn tests(outcome: &Outcome) -> Vec<String> {
    let mut problems: Vec<String> = outcome.failed.keys().map(|name| format!("{name} failed")).collect();
    if !outcome.tests_ended {
        problems.push("the tests did not come to their end".into());
    } else if outcome.passed.is_empty() {
        problems.push("no test passed: no name contains the filter?".into());
    }
    if outcome.ignored > 0 {
        problems.push(format!("{} tests are ignored; run them or remove them", outcome.ignored));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::super::outcome::of_lines;
    use super::*;

    fn of(lacks: &Lacks, text: &str) -> Vec<String> {
        problems(lacks, &of_lines(text))
    }

    const END: &str = "\ntest result: ok. 1 passed; 0 failed; 0 ignored";

    #[test]
    fn a_kernel_without_lacks_must_pass_everything() {
        let ready = "vm: daemon ready\ntest identity::a ... ok";
        assert!(of(&NOTHING, &format!("{ready}{END}")).is_empty());
        assert!(of(&NOTHING, ready)[0].contains("did not come to their end"));
        assert!(of(&NOTHING, &format!("vm: daemon ready{END}"))[0].contains("no test passed"));
        assert!(
            of(&NOTHING, &format!("{ready}\ntest identity::b ... FAILED{END}"))[0]
                .contains("identity::b failed")
        );
        assert!(of(&NOTHING, "vm: said no hook\nvm: daemon refused")[0].contains("no hook"));
    }

    #[test]
    fn a_refusal_must_come_with_its_words_and_leave_nothing() {
        let lacks = Lacks { refuses: Some("from Linux 5.14"), ..NOTHING };
        let refused = "vm: daemon refused\nvm: said it is there from Linux 5.14";
        assert!(of(&lacks, refused).is_empty());
        assert!(of(&lacks, &format!("{refused}\nvm: program on_connect4 0"))[0].contains("left programs"));
        assert!(of(&lacks, "vm: daemon refused\nvm: said no BTF")[0].contains("other words"));
        assert!(of(&lacks, "vm: daemon ready")[0].contains("the daemon started"));
    }

    #[test]
    fn a_lack_must_be_told_and_every_lack_that_is_told_known() {
        let lacks = Lacks { features: &["no LSM"], ..NOTHING };
        let run = |rest: &str| of(&lacks, &format!("vm: daemon ready\n{rest}test identity::a ... ok{END}"));
        assert!(run("vm: lack no LSM\n").is_empty());
        assert!(run("")[0].contains("did not"));
        assert!(run("vm: lack no LSM\nvm: lack no hook\n")[0].contains("lacks more: no hook"));
    }
}
