//! Request paths in one spelling, so that the policy and the upstream read the same thing.
//!
//! The path that is matched is also the path that is forwarded. What is done to it, in this order:
//!
//! | in the request | becomes | why |
//! | --- | --- | --- |
//! | `%41`, `%7e` (letters, digits, `-` `.` `_` `~`) | `A`, `~` | the same path by RFC 3986 §6.2.2.2 |
//! | `%3a`, `%c3%a9` (every other escape that is allowed) | `%3A`, `%C3%A9` | hex digits in upper case |
//! | `/a//b` | `/a/b` | most servers merge slashes, before they remove dot segments |
//! | `/a/./b`, `/a/x/../b`, also spelled `%2e` | `/a/b` | RFC 3986 §5.2.4 |
//! | everything else | itself | |
//!
//! What servers are known to read differently is refused:
//!
//! | in the request | error |
//! | --- | --- |
//! | nothing, `a/b`, `http://host/` (anything that does not begin with `/`, except `*` alone) | [`PathError::NotAbsolute`] |
//! | `%2F` | [`PathError::EncodedSlash`] |
//! | `\`, `%5C` | [`PathError::Backslash`] |
//! | bytes below 0x20 and 0x7F, raw or escaped; escaped C1 controls | [`PathError::Control`] |
//! | `%`, `%4`, `%zz` | [`PathError::BadEscape`] |
//! | `%2541` (an escaped `%` before two hex digits) | [`PathError::DoubleEncoded`] |
//! | `%C0%AF`, `%FF` (escapes that are not UTF-8) | [`PathError::NotUtf8`] |
//! | raw bytes above 0x7F | [`PathError::NotAscii`] |
//! | a space | [`PathError::Whitespace`] |
//! | `?`, `#` | [`PathError::Delimiter`] |
//! | `/..;x/`, `/.;/`, also with `%3B` | [`PathError::DotSegmentParameters`] |
//! | `/..`, `/a/../../b` | [`PathError::AboveRoot`] |

use std::borrow::Cow;
use std::fmt;

use thiserror::Error;

/// Why a path was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathError {
    /// Does not begin with a slash, and is not `*`.
    #[error("the path does not begin with /")]
    NotAbsolute,
    /// `%2F`.
    #[error("the path has an encoded slash (%2F)")]
    EncodedSlash,
    /// `\` or `%5C`.
    #[error("the path has a backslash")]
    Backslash,
    /// A control character, raw or encoded.
    #[error("the path has a control character")]
    Control,
    /// `%` without two hexadecimal digits behind it.
    #[error("the path has a % that is not followed by two hexadecimal digits")]
    BadEscape,
    /// `%25` before two hexadecimal digits.
    #[error("the path is encoded twice (%25 before two hexadecimal digits)")]
    DoubleEncoded,
    /// Escapes that do not decode to UTF-8, overlong forms included.
    #[error("the path has escapes that are not UTF-8")]
    NotUtf8,
    /// Raw bytes that are not ASCII.
    #[error("the path has characters that are not ASCII and not percent-encoded")]
    NotAscii,
    /// A space.
    #[error("the path has a space")]
    Whitespace,
    /// `?` or `#`.
    #[error("the path has a ? or #")]
    Delimiter,
    /// `/..;x/`: some servers remove the parameter first, some do not.
    #[error("the path has a dot segment with parameters (..;)")]
    DotSegmentParameters,
    /// More `..` than segments before it.
    #[error("the path climbs above the root with ..")]
    AboveRoot,
}

/// A request path in normal form: begins with `/`, or is `*` (for `OPTIONS`). Never has a query.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallPath<'a> {
    text: Cow<'a, str>,
}

impl<'a> CallPath<'a> {
    /// Brings the path of a request (without its query) into normal form; borrows when it already is.
    pub fn normalize(raw: &'a str) -> Result<Self, PathError> {
        if raw == "*" {
            return Ok(Self { text: Cow::Borrowed(raw) });
        }
        if !raw.starts_with('/') {
            return Err(PathError::NotAbsolute);
        }
        let text = decode(raw)?;
        check_double_encoding(&text)?;
        if needs_folding(&text)? {
            return Ok(Self { text: Cow::Owned(fold(&text)?) });
        }
        Ok(Self { text })
    }

    /// The normal form: this is what must be forwarded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is the `*` of `OPTIONS *`.
    #[must_use]
    pub fn is_asterisk(&self) -> bool {
        self.text == "*"
    }

    /// Whether the request already had the normal form.
    #[must_use]
    pub fn is_borrowed(&self) -> bool {
        matches!(self.text, Cow::Borrowed(_))
    }

    /// The same path on its own memory.
    #[must_use]
    pub fn into_owned(self) -> CallPath<'static> {
        CallPath { text: Cow::Owned(self.text.into_owned()) }
    }
}

impl fmt::Display for CallPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The byte of the escape that begins at `at`, if there is a well-formed one.
pub(crate) fn escape(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
    match bytes.get(at) {
        Some(b'%') => u8::try_from(digit(at + 1)? * 16 + digit(at + 2)?).ok(),
        _ => None,
    }
}

/// The text of one segment in normal form with all its escapes decoded.
pub(crate) fn decoded(segment: &str) -> String {
    let (bytes, mut at) = (segment.as_bytes(), 0);
    let mut out = Vec::with_capacity(bytes.len());
    while let Some(byte) = bytes.get(at) {
        let found = escape(bytes, at);
        out.push(found.unwrap_or(*byte));
        at += if found.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Decodes unreserved escapes, raises the hex digits of the others, refuses what is not allowed.
fn decode(raw: &str) -> Result<Cow<'_, str>, PathError> {
    let bytes = raw.as_bytes();
    let mut out: Option<String> = None;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte != b'%' {
            check_raw(byte)?;
            if let Some(out) = &mut out {
                out.push(char::from(byte));
            }
            at += 1;
            continue;
        }
        let value = escape(bytes, at).ok_or(PathError::BadEscape)?;
        let length = if value < 0x80 { check_escape(value)? } else { utf8_sequence(bytes, at)? };
        let end = at + length * 3;
        let spelled = raw.get(at..end).ok_or(PathError::BadEscape)?;
        if is_unreserved(value) {
            out.get_or_insert_with(|| raw.get(..at).unwrap_or_default().to_owned()).push(char::from(value));
        } else if spelled.bytes().any(|b| b.is_ascii_lowercase()) {
            let out = out.get_or_insert_with(|| raw.get(..at).unwrap_or_default().to_owned());
            out.push_str(&spelled.to_ascii_uppercase());
        } else if let Some(out) = &mut out {
            out.push_str(spelled);
        }
        at = end;
    }
    Ok(out.map_or(Cow::Borrowed(raw), Cow::Owned))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn check_raw(byte: u8) -> Result<(), PathError> {
    match byte {
        b'\\' => Err(PathError::Backslash),
        b' ' => Err(PathError::Whitespace),
        b'?' | b'#' => Err(PathError::Delimiter),
        0x80.. => Err(PathError::NotAscii),
        byte if byte.is_ascii_control() => Err(PathError::Control),
        _ => Ok(()),
    }
}

/// How many escapes the ASCII character that is escaped at `at` takes: one, if it is allowed.
fn check_escape(value: u8) -> Result<usize, PathError> {
    match value {
        b'/' => Err(PathError::EncodedSlash),
        b'\\' => Err(PathError::Backslash),
        value if value.is_ascii_control() => Err(PathError::Control),
        _ => Ok(1),
    }
}

/// Refuses what would decode once more. Looks at the decoded text: the digits may have been escaped themselves
/// (`%25%32F`).
fn check_double_encoding(text: &str) -> Result<(), PathError> {
    let twice = text.match_indices("%25").any(|(at, _)| {
        let after = text.as_bytes().get(at + 3..at + 5);
        after.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if twice { Err(PathError::DoubleEncoded) } else { Ok(()) }
}

/// How many escapes the character that begins at `at` takes, if it is well-formed UTF-8 and not a control.
fn utf8_sequence(bytes: &[u8], at: usize) -> Result<usize, PathError> {
    let mut sequence = [0u8; 4];
    for (i, slot) in sequence.iter_mut().enumerate() {
        *slot = escape(bytes, at + i * 3).unwrap_or(0);
    }
    for length in 2..=4 {
        let Some(Ok(text)) = sequence.get(..length).map(std::str::from_utf8) else { continue };
        let mut chars = text.chars();
        return match (chars.next(), chars.next()) {
            (Some(c), None) if c.is_control() => Err(PathError::Control),
            (Some(_), None) => Ok(length),
            _ => Err(PathError::NotUtf8),
        };
    }
    Err(PathError::NotUtf8)
}

/// Whether there are duplicate slashes or dot segments.
fn needs_folding(text: &str) -> Result<bool, PathError> {
    let mut needed = text.contains("//");
    for segment in text.split('/').filter(|segment| segment.starts_with('.')) {
        let after = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.')).unwrap_or(segment);
        if after.is_empty() {
            needed = true;
        } else if after.starts_with(';') || after.starts_with("%3B") {
            return Err(PathError::DotSegmentParameters);
        }
    }
    Ok(needed)
}

/// Merges slashes, then removes dot segments. A path that ended in a slash or a dot segment ends in a slash.
fn fold(text: &str) -> Result<String, PathError> {
    let mut kept: Vec<&str> = Vec::new();
    let mut open = true;
    for segment in text.split('/') {
        open = true;
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop().ok_or(PathError::AboveRoot)?;
            }
            segment => {
                kept.push(segment);
                open = false;
            }
        }
    }
    let mut out = String::with_capacity(text.len());
    for segment in kept {
        out.push('/');
        out.push_str(segment);
    }
    if open {
        out.push('/');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> Result<String, PathError> {
        CallPath::normalize(raw).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn a_path_has_one_spelling() {
        for (given, expected) in [
            ("/", "/"),
            ("*", "*"),
            ("/v1/invoices", "/v1/invoices"),
            ("/a/", "/a/"),
            ("/%41%7e%2D", "/A~-"),
            ("/a%3ab%c3%A9", "/a%3Ab%C3%A9"),
            ("/a%20b%25", "/a%20b%25"),
            ("/%f0%9f%98%80", "/%F0%9F%98%80"),
            ("//a///b//", "/a/b/"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e/b/%2E%2e/c", "/a/c"),
            ("/a/.%2e", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a//../b", "/b"),
            ("/...", "/..."),
            ("/.well-known/x", "/.well-known/x"),
            ("/..a;x", "/..a;x"),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/a:b@c!$&'()*+,=", "/a:b@c!$&'()*+,="),
        ] {
            assert_eq!(normal(given), Ok(expected.to_owned()), "{given}");
        }
    }

    #[test]
    fn what_upstreams_read_differently_is_refused() {
        for (given, error) in [
            ("", PathError::NotAbsolute),
            ("a", PathError::NotAbsolute),
            ("**", PathError::NotAbsolute),
            ("http://host/", PathError::NotAbsolute),
            ("/a%2Fb", PathError::EncodedSlash),
            ("/a%2fb", PathError::EncodedSlash),
            ("/a%5cb", PathError::Backslash),
            ("/a\\..\\b", PathError::Backslash),
            ("/a\0", PathError::Control),
            ("/a%00", PathError::Control),
            ("/a%0d%0aX:y", PathError::Control),
            ("/a\tb", PathError::Control),
            ("/a%7f", PathError::Control),
            ("/a%c2%85", PathError::Control),
            ("/a%zz", PathError::BadEscape),
            ("/a%4", PathError::BadEscape),
            ("/a%", PathError::BadEscape),
            ("/a%2%65", PathError::BadEscape),
            ("/a%252e%252e/", PathError::DoubleEncoded),
            ("/%25%30A", PathError::DoubleEncoded),
            ("/%25%32%65%25%32e/x", PathError::DoubleEncoded),
            ("/%c0%af", PathError::NotUtf8),
            ("/%e0%80%af", PathError::NotUtf8),
            ("/%ff", PathError::NotUtf8),
            ("/%c3", PathError::NotUtf8),
            ("/%c3x", PathError::NotUtf8),
            ("/%ed%a0%80", PathError::NotUtf8),
            ("/é", PathError::NotAscii),
            ("/a b", PathError::Whitespace),
            ("/a?b", PathError::Delimiter),
            ("/a#b", PathError::Delimiter),
            ("/a/..;/b", PathError::DotSegmentParameters),
            ("/a/%2e%2e%3bx/b", PathError::DotSegmentParameters),
            ("/.;x", PathError::DotSegmentParameters),
            ("/..", PathError::AboveRoot),
            ("/a/../../b", PathError::AboveRoot),
            ("//../a", PathError::AboveRoot),
        ] {
            assert_eq!(normal(given), Err(error), "{given}");
        }
    }

    #[test]
    fn a_path_in_normal_form_is_borrowed() {
        assert!(CallPath::normalize("/v1/a%20b/%C3%A9").unwrap().is_borrowed());
        assert!(!CallPath::normalize("/v1/%61").unwrap().is_borrowed());
    }

    proptest! {
        #[test]
        fn normalizing_twice_changes_nothing(
            raw in "(/(\\.|\\.\\.|%2[eE]|%[0-9a-fA-F]{2}|%[cC]3%[aA][0-9a-f]|[a-zA-Z;:*~]|%25){0,4}){0,6}/?"
        ) {
            if let Ok(once) = CallPath::normalize(&raw) {
                let twice = CallPath::normalize(once.as_str()).unwrap();
                prop_assert_eq!(&once, &twice);
                prop_assert!(twice.is_borrowed());
                let slashed = format!("{}/", once.as_str());
                for bad in ["//", "/./", "/../"] {
                    prop_assert!(!once.as_str().contains(bad));
                    prop_assert!(bad == "//" || !slashed.contains(bad));
                }
                prop_assert!(once.as_str().bytes().all(|b| b.is_ascii_graphic()));
            }
        }

        #[test]
        fn normalizing_is_total(raw in ".{0,60}|/[ -~]{0,40}") {
            let _ = CallPath::normalize(&raw);
        }
    }
}
