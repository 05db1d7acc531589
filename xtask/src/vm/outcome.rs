//! What a machine said: pure reading of its lines.

use std::collections::BTreeMap;

/// What came out on one kernel.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// `uname -r`.
    pub(super) release: String,
    /// Whether the daemon became ready.
    pub(super) ready: bool,
    /// What the daemon said.
    pub(super) said: Vec<String>,
    /// What the kernel lacks, as the daemon's status tells it.
    pub(super) lacks: Vec<String>,
    /// The programs that were loaded, and how many instructions the verifier walked for each; none before Linux 5.16.
    pub(super) programs: BTreeMap<String, Option<u32>>,
    /// Tests that passed.
    pub(super) passed: Vec<String>,
    /// Tests that failed, and what each printed.
    pub(super) failed: BTreeMap<String, String>,
    /// Tests that were not run.
    pub(super) ignored: u64,
    /// Whether the tests came to their end.
    pub(super) tests_ended: bool,
    /// The test whose output is being read.
    reading: Option<String>,
}

impl Outcome {
    /// Takes the next line.
    pub(super) fn hear(&mut self, line: &str) {
        if let Some(fact) = line.strip_prefix("vm: ") {
            self.fact(fact);
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.tests_ended = true;
            self.reading = None;
            self.ignored += ignored(result);
        } else if let Some((name, result)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... "))
        {
            match result {
                "ok" => self.passed.push(name.to_owned()),
                "FAILED" => {
                    self.failed.entry(name.to_owned()).or_default();
                }
                _ => {}
            }
        } else if let Some(name) =
            line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.reading = Some(name.to_owned());
        } else if let Some(name) = &self.reading {
            let text = self.failed.entry(name.clone()).or_default();
            text.push_str(line);
            text.push('\n');
        }
    }

    fn fact(&mut self, fact: &str) {
        let (name, value) = fact.split_once(' ').unwrap_or((fact, ""));
        match name {
            "release" => value.clone_into(&mut self.release),
            "daemon" => self.ready = value == "ready",
            "lack" => self.lacks.push(value.to_owned()),
            "said" => self.said.push(value.to_owned()),
            "program" => {
                let (name, count) = value.split_once(' ').unwrap_or((value, "0"));
                let count = count.parse().ok().filter(|count| *count > 0);
                self.programs.insert(name.to_owned(), count);
            }
            _ => {}
        }
    }
}

/// The number before `ignored` in `ok. 5 passed; 0 failed; 1 ignored; …`.
fn ignored(result: &str) -> u64 {
    let part = result.split(';').find_map(|part| part.trim().strip_suffix(" ignored"));
    part.and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
pub(super) fn of_lines(text: &str) -> Outcome {
    let mut outcome = Outcome::default();
    text.lines().for_each(|line| outcome.hear(line));
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read() {
        let outcome = of_lines(
            "vm: release 6.1.0-56-cloud-amd64\nvm: daemon ready\nvm: said INFO ready\nvm: lack no LSM\n\
             vm: program on_connect4 1234\nvm: program on_sock_ops 0\nnoise",
        );
        assert_eq!(outcome.release, "6.1.0-56-cloud-amd64");
        assert!(outcome.ready);
        assert_eq!(outcome.said, ["INFO ready"]);
        assert_eq!(outcome.lacks, ["no LSM"]);
        assert_eq!(outcome.programs["on_connect4"], Some(1234));
        assert_eq!(outcome.programs["on_sock_ops"], None, "the kernel does not say");
    }

    #[test]
    fn tests_are_named_and_failures_keep_what_they_printed() {
        let outcome = of_lines(
            "running 3 tests\ntest a::one ... ok\ntest b::two ... FAILED\ntest b::three ... ignored\n\nfailures:\n\n\
             ---- b::two stdout ----\nthread panicked\nno such hook\n\nfailures:\n    b::two\n\n\
             test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        assert_eq!(outcome.passed, ["a::one"]);
        assert!(outcome.failed["b::two"].contains("no such hook"));
        assert_eq!(outcome.ignored, 1);
        assert!(outcome.tests_ended);
    }

    #[test]
    fn a_run_that_broke_off_has_no_end() {
        let outcome = of_lines("test a::one ... ok\ntest a::two ...");
        assert_eq!((outcome.passed.len(), outcome.tests_ended), (1, false));
    }
}
