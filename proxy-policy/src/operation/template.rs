//! Operations with parameters: `"GET /repos/${owner}/**"` in a role, and what becomes of them in a grant.
//!
//! A value is text of one segment, whatever is in it: everything that is not an unreserved character is escaped, so `*`
//! is an asterisk and no wildcard. What cannot stand in a segment (a slash, a control character) is refused.

use std::collections::BTreeMap;

use super::{Operation, is_name};
use crate::diagnostic::{Problem, quote};
use crate::suggest;

/// The longest value, in bytes.
const MAX_VALUE: usize = 256;

/// The values of a role's parameters, by name.
pub(crate) type Arguments = BTreeMap<String, String>;

/// An operation as it stands in a role or grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    text: String,
    /// The operation itself; of one with parameters, with their names for values.
    sample: Operation,
    parametric: bool,
}

impl Template {
    /// Reads an operation in which these parameters may stand.
    pub(crate) fn parse(text: &str, parameters: &[String]) -> Result<Self, Problem> {
        let parametric = text.contains("${");
        let sample = substitute(text, |name| match parameters.iter().any(|known| known == name) {
            true => Ok(name.to_owned()),
            false => Err(unknown(name, parameters)),
        })?;
        let sample = Operation::parse(&sample)?;
        Ok(Self { text: text.to_owned(), sample, parametric })
    }

    /// The operation; with names for values if it has parameters.
    pub(crate) fn sample(&self) -> &Operation {
        &self.sample
    }

    pub(crate) fn is_parametric(&self) -> bool {
        self.parametric
    }

    /// The operation with these values. They were checked by [`check_value`].
    pub(crate) fn with(&self, arguments: &Arguments) -> Result<Operation, Problem> {
        if !self.parametric {
            return Ok(self.sample.clone());
        }
        let text = substitute(&self.text, |name| match arguments.get(name) {
            Some(value) => Ok(escaped(value)),
            None => Err(unknown(name, &[])),
        })?;
        Operation::parse(&text)
    }
}

fn unknown(name: &str, parameters: &[String]) -> Problem {
    let message = format!("unknown parameter {}", quote(name));
    if parameters.is_empty() {
        return Problem::new(message, "only roles have parameters: name it in the role, params = [\"…\"]");
    }
    Problem::new(message, suggest::help(name, parameters.iter().map(String::as_str), "parameter"))
}

/// Replaces every `${name}`.
pub(crate) fn substitute(
    text: &str,
    mut value: impl FnMut(&str) -> Result<String, Problem>,
) -> Result<String, Problem> {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((name, behind)) = after.split_once('}').filter(|(name, _)| is_name(name)) else {
            return Err(Problem::new(
                format!("{} has a ${{ that begins no parameter", quote(text)),
                "a parameter is written ${name}, with small letters, digits and _",
            ));
        };
        out.push_str(&value(name)?);
        rest = behind;
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a value is text of one segment.
pub(crate) fn check_value(value: &str) -> Result<(), Problem> {
    let bad = |what: &str| {
        Err(Problem::new(
            format!("the value {} {what}", quote(value)),
            "a value is text of one segment of a path, without slashes",
        ))
    };
    match value {
        "" => bad("is empty"),
        "." | ".." => bad("is a dot segment"),
        value if value.len() > MAX_VALUE => bad("is too long"),
        value if value.contains(['/', '\\']) => bad("has a slash"),
        value if value.chars().any(char::is_control) => bad("has a control character"),
        _ => Ok(()),
    }
}

/// The value with every byte escaped that could mean something in a path or a pattern.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::CallKind;
    use crate::path::CallPath;

    fn allows(template: &str, value: &str, path: &str) -> bool {
        let template = Template::parse(template, &["owner".into()]).unwrap_or_else(|it| panic!("{it:?}"));
        let arguments = Arguments::from([("owner".to_owned(), value.to_owned())]);
        let operation = template.with(&arguments).unwrap_or_else(|it| panic!("{it:?}"));
        operation.allows(CallKind::Plain, "GET", &CallPath::normalize(path).unwrap())
    }

    #[test]
    fn a_value_is_its_text_and_never_a_pattern() {
        let template = "GET /repos/${owner}/x-${owner}";
        assert!(allows(template, "acme", "/repos/acme/x-acme"));
        assert!(allows(template, "a*", "/repos/a*/x-a*") && allows(template, "a*", "/repos/a%2A/x-a*"));
        assert!(!allows(template, "a*", "/repos/ab/x-ab"));
        assert!(!allows(template, "**", "/repos/a/b/x-c"));
        assert!(allows(template, "é;{b}", "/repos/%C3%A9%3B%7Bb%7D/x-%C3%A9;%7Bb%7D"));
        assert!(!allows(template, "{b}", "/repos/q/x-q"));
    }

    #[test]
    fn a_value_that_is_not_one_segment_is_refused() {
        for value in ["", ".", "..", "a/b", "/", "a\\b", "a\0", "a\nb", &"x".repeat(300)] {
            assert!(check_value(value).is_err(), "{value}");
        }
        for value in ["acme", "...", "a b", "*", "%", "${owner}"] {
            assert!(check_value(value).is_ok(), "{value}");
        }
    }

    #[test]
    fn two_values_cannot_make_a_dot_segment_of_each_other() {
        let template =
            Template::parse("GET /a/${x}${y}/b", &["x".into(), "y".into()]).unwrap_or_else(|_| panic!());
        let dots = Arguments::from([("x".to_owned(), ".".to_owned()), ("y".to_owned(), ".".to_owned())]);
        assert!(template.with(&dots).is_err());
    }

    #[test]
    fn an_unknown_parameter_is_told_with_what_was_meant() {
        let problem = Template::parse("GET /${ownr}", &["owner".into()]).unwrap_err();
        assert_eq!(problem.help, "did you mean \"owner\"?");
        assert!(
            Template::parse("GET /${", &[]).is_err() && Template::parse("GET /${A}", &["A".into()]).is_err()
        );
    }
}
