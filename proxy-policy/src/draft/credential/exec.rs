//! `kind = "exec"`: a program prints the credential.

use std::time::Duration;

use super::{check_keys, jwt, reference};
use crate::credential::{ClaimText, ExecCredential, Variable};
use crate::diagnostic::Problem;
use crate::read::{Reader, Section};

const KEYS: [&str; 4] = ["command", "env", "timeout", "user"];

/// Calls wait for it.
const LONGEST: Duration = Duration::from_secs(120);
const USUAL: Duration = Duration::from_secs(10);
const MOST_ARGUMENTS: usize = 64;

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<ExecCredential> {
    check_keys(section, &KEYS, reader);
    let command = command(section, reader);
    let env = reader.strings(section, "env");
    let env = env.iter().filter_map(|text| Some(reader.parse(text, variable)?.value)).collect();
    let timeout = reader.parsed(section, "timeout", timeout).map_or(USUAL, |it| it.value);
    let user = reader.parsed(section, "user", user).map(|it| it.value);
    let (program, arguments) = command?;
    Some(ExecCredential { program, arguments, env, timeout, user })
}

fn command(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<(String, Vec<ClaimText>)> {
    let help =
        "name the program by its absolute path, and its arguments: command = [\"/usr/local/bin/tool\"]";
    if !section.has("command") {
        reader.missing(section, "command", help);
        return None;
    }
    let before = reader.findings.len();
    let texts = reader.strings(section, "command");
    let Some((program, arguments)) = texts.split_first() else {
        if reader.findings.len() == before {
            reader.findings.error(reader.key_place(section, "command"), "\"command\" names no program", help);
        }
        return None;
    };
    let program = reader.parse(program, program_path).map(|it| it.value);
    if let Some(first) = arguments.get(MOST_ARGUMENTS) {
        reader.findings.error(first.place, format!("more than {MOST_ARGUMENTS} arguments"), help);
    }
    let read: Vec<_> =
        arguments.iter().filter_map(|text| Some(reader.parse(text, argument)?.value)).collect();
    (read.len() == arguments.len()).then_some((program?, read))
}

fn program_path(text: &str) -> Result<String, Problem> {
    match reference::is_plain_path(text) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            "the program is not an absolute path",
            "write a path from / on, without . and .. in it; no shell reads it, and none looks for it",
        )),
    }
}

fn argument(text: &str) -> Result<ClaimText, Problem> {
    // No text at all is an argument, too, and has no place.
    if text.is_empty() || text.contains('\0') {
        return Err(Problem::new("an argument is empty", "write something, or leave it out"));
    }
    let argument = ClaimText::read(text)?;
    let fits = argument.variables().all(|it| it == Variable::Identity);
    match fits {
        true => Ok(argument),
        false => Err(Problem::new(
            "an argument has a place for something else than {identity}",
            "what a program prints is kept for a while, for one identity or for all: write {identity}",
        )),
    }
}

fn variable(text: &str) -> Result<String, Problem> {
    match reference::is_variable(text) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            "\"env\" has what is not the name of a variable",
            "name variables of the daemon that the program gets, such as env = [\"HOME\"]; never a value",
        )),
    }
}

fn timeout(text: &str) -> Result<Duration, Problem> {
    match jwt::time(text) {
        Some(timeout) if !timeout.is_zero() && timeout <= LONGEST => Ok(timeout),
        _ => Err(Problem::new(
            "this \"timeout\" is out of range, or no time",
            "write between \"1s\" and \"2m\"; calls wait for it",
        )),
    }
}

fn user(text: &str) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !text.is_empty() && text.len() <= 64 && !text.starts_with('-') && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("this is not the name of a user", "write user = \"tokens\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_a_path_and_its_arguments_have_places_for_the_identity_alone() {
        assert!(program_path("/usr/local/bin/tool").is_ok());
        for bad in ["tool", "", "/", "./tool", "/usr/../tool", "/a\nb", "~/tool"] {
            assert!(program_path(bad).is_err(), "{bad}");
        }
        assert!(argument("--for={identity}").is_ok());
        for bad in ["", "{api}", "{workload.uid}", "{nobody}", "{", "a\0b"] {
            assert!(argument(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_program_has_between_a_second_and_two_minutes() {
        assert_eq!(timeout("10s").unwrap(), USUAL);
        assert_eq!(timeout("2m").unwrap(), LONGEST);
        for bad in ["0s", "3m", "10", "", "1h"] {
            assert!(timeout(bad).is_err(), "{bad}");
        }
    }
}
