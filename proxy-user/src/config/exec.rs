//! `[exec.NAME]`: programs that print secrets, where references `exec:NAME` lead.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::base::duration;

/// Calls wait for a program.
const LONGEST: Duration = Duration::from_secs(120);
const SHORTEST: Duration = Duration::from_secs(1);
const MOST_ARGUMENTS: usize = 64;

/// All of them, by name.
pub type Programs = BTreeMap<String, Exec>;

/// `[exec.NAME]`
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The absolute path of the program, and its arguments.
    pub command: Vec<String>,
    /// As whom it runs; `None`: as the daemon.
    pub user: Option<String>,
    /// How long it may take.
    #[serde(default = "ten_seconds", deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// Variables of the daemon that it gets.
    #[serde(default)]
    pub env: Vec<String>,
    /// It is run again before this is over, as long as its secret is used.
    #[serde(default = "five_minutes", deserialize_with = "duration::deserialize")]
    pub every: Duration,
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

/// What cannot work, and what to do. Nothing of an argument, which might be a secret in the wrong place.
pub(super) fn problem(programs: &Programs) -> Option<String> {
    programs.iter().find_map(|(name, exec)| {
        if !is_name(name) {
            return Some("a name in [exec.NAME] has 1 to 64 letters, digits, - _ and .".to_owned());
        }
        exec.problem().map(|what| format!("exec.{name}.{what}"))
    })
}

impl Exec {
    pub(super) fn problem(&self) -> Option<&'static str> {
        let variable = |name: &String| {
            let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
            name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
        };
        if !self.command.first().is_some_and(|program| is_plain_path(program)) {
            return Some(
                "command must begin with the absolute path of a program, without . and .. in it; no shell reads it, and \
                 none looks for it",
            );
        }
        if self.command.len() > MOST_ARGUMENTS
            || self.command.iter().any(|it| it.is_empty() || it.contains('\0'))
        {
            return Some("command has at most 64 parts, and none is empty");
        }
        if !self.env.iter().all(variable) {
            return Some("env names variables of the daemon, such as env = [\"HOME\"]; never a value");
        }
        if self.user.as_ref().is_some_and(|user| !is_name(user) || user.starts_with('-')) {
            return Some("user is not the name of a user; write user = \"secrets\"");
        }
        if !(SHORTEST..=LONGEST).contains(&self.timeout) {
            return Some("timeout must be between 1s and 2m; calls wait for it");
        }
        if self.every < SHORTEST {
            return Some("every must be at least 1s");
        }
        None
    }
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 64 && name != "." && name != ".." && name.chars().all(plain)
}

fn is_plain_path(path: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(char::is_control);
    path.len() < 4096 && path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(part))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn parsed(text: &str) -> Result<Programs, String> {
        Config::parse(Path::new("v.toml"), text).map(|it| it.exec).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_has_a_path_and_the_rest_has_defaults() {
        let programs = parsed("[exec.pass]\ncommand = [\"/usr/bin/pass\", \"show\", \"x\"]").unwrap();
        let (name, exec) = programs.iter().next().unwrap();
        let seconds = Duration::from_secs;
        assert_eq!((name.as_str(), exec.timeout, exec.every), ("pass", seconds(10), seconds(300)));
        assert_eq!((exec.user.as_deref(), exec.env.len()), (None, 0));
    }

    #[test]
    fn a_program_that_cannot_work_is_refused_and_its_arguments_are_not_repeated() {
        for (more, says) in [
            ("command = []", "absolute path"),
            ("command = [\"pass\"]", "absolute path"),
            ("command = [\"/usr/../pass\"]", "absolute path"),
            ("command = [\"/bin/x\", \"CANARY\", \"\"]", "none is empty"),
            ("command = [\"/bin/x\"]\nenv = [\"A=CANARY\"]", "never a value"),
            ("command = [\"/bin/x\"]\nuser = \"-x\"", "user"),
            ("command = [\"/bin/x\"]\ntimeout = \"3m\"", "2m"),
            ("command = [\"/bin/x\"]\nevery = \"10ms\"", "at least 1s"),
            ("command = [\"/bin/x\"]\nshell = true", "unknown field"),
        ] {
            let text = parsed(&format!("[exec.pass]\n{more}")).unwrap_err();
            assert!(text.contains(says) && !text.contains("CANARY"), "{more}: {text}");
        }
        assert!(parsed("[exec.\"a b\"]\ncommand = [\"/bin/x\"]").unwrap_err().contains("letters, digits"));
    }
}
