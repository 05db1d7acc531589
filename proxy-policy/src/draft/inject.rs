//! `inject` of an API: the part of a request that carries its credential.

use super::api::parse_header;
use crate::diagnostic::{Problem, quote};
use crate::inject::{Inject, InjectPlace, Placeholder, PlaceholderParts};
use crate::operation::is_token;
use crate::read::{Reader, Section};

/// Where the secret goes in a value.
const SECRET: &str = "{secret}";

/// One of these says which part of a request it is.
const PLACES: [&str; 5] = ["header", "basic", "query", "cookie", "placeholder"];

/// How short a placeholder may be, and how long.
const PLACEHOLDER: std::ops::RangeInclusive<usize> = 8..=128;

/// What stands before and after the secret.
type Around = (String, String);

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<Inject> {
    reader.check_keys(
        section,
        &["header", "value", "basic", "query", "cookie", "placeholder", "in"],
        |key| match key {
            "bearer" => Some(Problem::new(
                "unknown key \"bearer\" in inject",
                "write inject = { header = \"authorization\", value = \"Bearer {secret}\" }",
            )),
            _ => None,
        },
    );
    let named: Vec<&str> = PLACES.into_iter().filter(|key| section.has(key)).collect();
    let help =
        "write one of header, basic, query, cookie and placeholder, such as header = \"authorization\"";
    match *named.as_slice() {
        [] => {
            reader.missing(section, "header", help);
            None
        }
        [key] => {
            if key != "placeholder" && section.has("in") {
                let place = reader.key_place(section, "in");
                let help = "remove \"in\", or write placeholder = \"…\"";
                reader.findings.error(place, "\"in\" says where a placeholder is looked for", help);
            }
            one(key, section, reader)
        }
        [_, second, ..] => {
            let place = reader.key_place(section, second);
            reader.findings.error(place, "a credential goes to one place", help);
            None
        }
    }
}

fn one(key: &str, section: &Section<'_>, reader: &mut Reader<'_>) -> Option<Inject> {
    let (place, around) = match key {
        "basic" => {
            if section.has("value") {
                let place = reader.key_place(section, "value");
                let help = "write the whole of it as basic = \"USER:{secret}\"";
                reader.findings.error(place, "\"basic\" has no \"value\"", help);
            }
            let around = reader.parsed(section, "basic", parse_basic)?.value;
            (InjectPlace::Basic, Some(around))
        }
        "header" => {
            let header = reader.parsed(section, "header", parse_header);
            let help = "say what the header holds, such as value = \"Bearer {secret}\"";
            let value = reader.required(section, "value", help);
            let value = value.and_then(|text| reader.parse(&text, parse_value));
            (InjectPlace::Header(header?.value), Some(value?.value))
        }
        "query" => {
            let name = reader.parsed(section, "query", parse_parameter);
            (InjectPlace::Query(name?.value), value(section, parse_value, reader))
        }
        "cookie" => {
            let name = reader.parsed(section, "cookie", parse_cookie);
            (InjectPlace::Cookie(name?.value), value(section, parse_cookie_value, reader))
        }
        _ => {
            let (text, parts) =
                (reader.parsed(section, "placeholder", parse_placeholder), parts(section, reader));
            let placeholder = Placeholder { text: text?.value, parts: parts? };
            (InjectPlace::Placeholder(placeholder), value(section, parse_value, reader))
        }
    };
    let (prefix, suffix) = around?;
    Some(Inject { place, prefix, suffix })
}

/// `value` where it may be left out: then it is the secret alone.
fn value(
    section: &Section<'_>,
    parse: fn(&str) -> Result<Around, Problem>,
    reader: &mut Reader<'_>,
) -> Option<Around> {
    match section.has("value") {
        true => reader.parsed(section, "value", parse).map(|it| it.value),
        false => Some(Around::default()),
    }
}

fn parts(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<PlaceholderParts> {
    let help =
        "say where it is looked for: in = [\"headers\", \"path\", \"query\", \"body\"], or some of these";
    let mut parts = PlaceholderParts::default();
    let before = reader.findings.len();
    for name in reader.strings(section, "in") {
        match parts.named(&name) {
            Some(part) => *part = true,
            None => {
                let message = format!("a request has no part {}", quote(&name));
                reader.findings.error(name.place, message, help);
            }
        }
    }
    if parts == PlaceholderParts::default() && reader.findings.len() == before {
        reader.missing(section, "in", help);
    }
    (parts != PlaceholderParts::default()).then_some(parts)
}

/// What stands before and after the secret. The value is never repeated: someone may have typed a secret into it.
fn split(what: &str, example: &str, text: &str) -> Result<Around, Problem> {
    let mut parts = text.split(SECRET);
    let (Some(prefix), Some(suffix), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Problem::new(
            format!("\"{what}\" must have {{secret}} in it exactly once"),
            format!("write {what} = \"{example}\"; the secret itself never stands in a policy"),
        ));
    };
    if text.contains(|c: char| !(c == ' ' || c == '\t' || c.is_ascii_graphic())) {
        let help = "use visible ASCII characters and spaces";
        return Err(Problem::new(format!("\"{what}\" has characters that a header cannot have"), help));
    }
    Ok((prefix.to_owned(), suffix.to_owned()))
}

fn parse_value(text: &str) -> Result<Around, Problem> {
    let around = split("value", "Bearer {secret}", text)?;
    if text.trim() != text {
        let help = "remove it: spaces at the ends of a header are lost on the way";
        return Err(Problem::new("\"value\" begins or ends with a space", help));
    }
    Ok(around)
}

fn parse_basic(text: &str) -> Result<Around, Problem> {
    split("basic", "USER:{secret}", text)
}

/// RFC 6265 §4.1.1.
fn parse_cookie_value(text: &str) -> Result<Around, Problem> {
    let around = split("value", "{secret}", text)?;
    if text.contains([' ', '\t', '"', ',', ';', '\\']) {
        let help = "leave out spaces, quotes, commas, semicolons and backslashes";
        return Err(Problem::new("\"value\" has characters that a cookie cannot have", help));
    }
    Ok(around)
}

fn parse_cookie(text: &str) -> Result<String, Problem> {
    match !text.is_empty() && text.bytes().all(is_token) {
        true => Ok(text.to_owned()),
        false => {
            let help = "names of cookies have letters, digits, - and _, such as session";
            Err(Problem::new(format!("{} is not the name of a cookie", quote(text)), help))
        }
    }
}

pub(super) fn parse_parameter(text: &str) -> Result<String, Problem> {
    match !text.is_empty() && text.bytes().all(is_unreserved) {
        true => Ok(text.to_owned()),
        false => {
            let help = "names of parameters have letters, digits, -, _, . and ~, such as key or api_key";
            Err(Problem::new(format!("{} is not the name of a query parameter", quote(text)), help))
        }
    }
}

/// The text is not repeated: someone may have typed a secret into it.
fn parse_placeholder(text: &str) -> Result<String, Problem> {
    match PLACEHOLDER.contains(&text.len()) && text.bytes().all(is_unreserved) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            "a placeholder has 8 to 128 letters, digits, -, _, . and ~",
            "write what the bot has in the place of its key, such as placeholder = \"vouchsafe-telegram\"",
        )),
    }
}

/// Never escaped in a URL, a form or JSON (RFC 3986 §2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_split_at_the_secret() {
        assert_eq!(parse_value("Bearer {secret}"), Ok(("Bearer ".into(), String::new())));
        assert_eq!(parse_value("{secret}"), Ok((String::new(), String::new())));
        for bad in ["Bearer x", "{secret}{secret}", "Bearer {secret}\r\nX: y", "é{secret}", "{secret} "] {
            let problem = parse_value(bad).unwrap_err();
            assert!(!problem.message.contains(bad) && !problem.help.contains(bad));
        }
    }

    #[test]
    fn basic_is_user_and_password_with_the_secret_as_either_or_as_both() {
        let around = |prefix: &str, suffix: &str| Ok((prefix.to_owned(), suffix.to_owned()));
        assert_eq!(parse_basic("me@example.com:{secret}"), around("me@example.com:", ""));
        assert_eq!(parse_basic("{secret}:"), around("", ":"));
        assert_eq!(parse_basic("{secret}"), around("", ""));
        assert!(parse_basic("me:password").unwrap_err().message.contains("\"basic\""));
    }

    #[test]
    fn names_and_placeholders_have_characters_that_nobody_escapes() {
        assert_eq!(parse_parameter("api_key"), Ok("api_key".into()));
        assert_eq!(parse_cookie("__Host-sid"), Ok("__Host-sid".into()));
        for bad in ["", "a=b", "a b", "é", "a;b"] {
            assert!(parse_parameter(bad).is_err() && parse_cookie(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_placeholder("vouchsafe-telegram"), Ok("vouchsafe-telegram".into()));
        for bad in ["short", "has space in it", "has/slash-in-it", "{secret}{secret}"] {
            let problem = parse_placeholder(bad).unwrap_err();
            assert!(!problem.message.contains(bad) && !problem.help.contains(bad));
        }
        for bad in ["{secret};x", "a b{secret}", "\"{secret}\""] {
            assert!(parse_cookie_value(bad).is_err(), "{bad}");
        }
    }
}
