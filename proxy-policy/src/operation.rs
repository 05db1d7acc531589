//! Operations: `"GET|HEAD /v1/invoices/**"`, what a grant allows or denies.
//!
//! A method is `*` (any) or upper-case names with `|` between them. The path is a pattern (see [`crate::glob`]'s table,
//! repeated in the crate documentation) in normal form; `OPTIONS *` stands for the request of that name.
//!
//! An allow means exactly what it says. A deny is meant to hold whatever the upstream makes of the request, so it also
//! matches the method in other letters (`delete`) and the path with or without a slash at its end.

use crate::diagnostic::{Problem, quote};
use crate::glob::{Glob, Percent};
use crate::path::{CallPath, PathError};
use crate::suggest;

const USUAL_METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"];

/// One operation of an allow or deny list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    text: String,
    methods: Methods,
    path: PathPattern,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Methods {
    Any,
    Of(Box<[Box<str>]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PathPattern {
    /// The `*` of `OPTIONS *`.
    Asterisk,
    Glob {
        text: Box<str>,
        glob: Glob,
        /// In lower case, for denies.
        folded: Glob,
    },
}

impl Operation {
    /// Reads an operation as it stands in a policy.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let Some((methods, path)) = text.split_once(' ') else {
            let shape = "an operation is \"METHOD /path\", such as \"GET /v1/invoices/**\"";
            return Err(match text.starts_with('/') {
                true => Problem::new(
                    format!("the operation {} has no method", quote(text)),
                    format!("write {} for any method, or name the methods", quote(&format!("* {text}"))),
                ),
                false => Problem::new(format!("{} is not an operation", quote(text)), shape),
            });
        };
        let methods = Methods::parse(methods)?;
        let path = match path {
            "*" if methods == Methods::Of(["OPTIONS".into()].into()) => PathPattern::Asterisk,
            path => PathPattern::parse(path)?,
        };
        Ok(Self { text: text.to_owned(), methods, path })
    }

    /// The operation as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A usual method that one of the methods was probably meant to be.
    pub(crate) fn method_slip(&self) -> Option<(&str, &'static str)> {
        let Methods::Of(methods) = &self.methods else { return None };
        methods
            .iter()
            .filter(|method| !USUAL_METHODS.contains(&&***method))
            .find_map(|method| suggest::nearest(method, USUAL_METHODS).map(|meant| (&**method, meant)))
    }

    /// Whether an allow of this operation allows the call.
    pub(crate) fn allows(&self, method: &str, path: &CallPath<'_>) -> bool {
        self.methods.allow(method)
            && match &self.path {
                PathPattern::Asterisk => path.is_asterisk(),
                PathPattern::Glob { glob, .. } => {
                    !path.is_asterisk() && glob.matches::<Percent>(path.as_str())
                }
            }
    }

    /// Whether a deny of this operation denies the call.
    pub(crate) fn denies(&self, method: &str, path: &CallPath<'_>) -> bool {
        self.methods.deny(method)
            && match &self.path {
                PathPattern::Asterisk => path.is_asterisk(),
                PathPattern::Glob { glob, folded, text } => {
                    let path_text = path.as_str();
                    !path.is_asterisk()
                        && (glob.matches_with_or_without_slash::<Percent>(path_text)
                            || (is_folded_otherwise(path_text) || is_folded_otherwise(text))
                                && folded.matches_with_or_without_slash::<Percent>(&fold(path_text)))
                }
            }
    }

    /// Whether it is certain that a deny of this leaves nothing of an allow of `other`.
    pub(crate) fn denies_all_of(&self, other: &Self) -> bool {
        let paths = match (&self.path, &other.path) {
            (PathPattern::Glob { glob, .. }, PathPattern::Glob { glob: other, .. }) => glob.covers(other),
            (a, b) => a == b,
        };
        paths && self.methods.cover(&other.methods)
    }

    /// The pattern of the path, to find operations on identical ones.
    pub(crate) fn path_text(&self) -> &str {
        match &self.path {
            PathPattern::Asterisk => "*",
            PathPattern::Glob { text, .. } => text,
        }
    }

    /// Whether some method is in both.
    pub(crate) fn shares_a_method(&self, other: &Self) -> bool {
        match (&self.methods, &other.methods) {
            (Methods::Of(a), Methods::Of(b)) => a.iter().any(|method| b.contains(method)),
            _ => true,
        }
    }
}

/// Whether servers exist that read this path as another one: they drop parameters (`/a;x=1` is `/a`), or do not tell
/// letters in upper and lower case apart.
fn is_folded_otherwise(path: &str) -> bool {
    path.bytes().any(|byte| byte == b';' || byte.is_ascii_uppercase())
}

/// The path as the most forgiving of these servers reads it.
fn fold(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        let end =
            [segment.find(';'), segment.find("%3B")].into_iter().flatten().min().unwrap_or(segment.len());
        out.extend(segment.get(..end).unwrap_or_default().chars().map(|c| c.to_ascii_lowercase()));
    }
    out
}

impl Methods {
    fn parse(text: &str) -> Result<Self, Problem> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let mut methods: Vec<Box<str>> = Vec::new();
        for method in text.split('|') {
            if method.is_empty() || !method.bytes().all(is_token) || method.contains('*') {
                return Err(Problem::new(
                    format!("{} is not a method", quote(method)),
                    "methods are names such as GET, with | between several, or * alone for any",
                ));
            }
            let upper = method.to_ascii_uppercase();
            if method != upper {
                return Err(Problem::new(
                    format!("the method {} is not in upper case", quote(method)),
                    format!("write {}: methods are case-sensitive", quote(&upper)),
                ));
            }
            if methods.iter().any(|known| **known == *method) {
                return Err(Problem::new(
                    format!("the method {} is named twice", quote(method)),
                    "remove one",
                ));
            }
            methods.push(method.into());
        }
        Ok(Self::Of(methods.into()))
    }

    fn allow(&self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of(methods) => methods.iter().any(|known| **known == *method),
        }
    }

    fn deny(&self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of(methods) => methods.iter().any(|known| known.eq_ignore_ascii_case(method)),
        }
    }

    fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Of(mine), Self::Of(theirs)) => theirs.iter().all(|method| mine.contains(method)),
            (Self::Of(_), Self::Any) => false,
        }
    }
}

impl PathPattern {
    fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |message: String, help: &str| Err(Problem::new(message, help));
        let quoted = quote(text);
        if text.contains(['{', '}']) {
            return bad(
                format!("the pattern {quoted} has braces"),
                "patterns have no named parts: * stands for one segment, ** for any number of them",
            );
        }
        let normal = match CallPath::normalize(text) {
            Ok(normal) if !normal.is_asterisk() => normal,
            Ok(_) => {
                return bad(
                    "the pattern \"*\" stands for the asterisk of OPTIONS only".into(),
                    "write \"OPTIONS *\" for that, or /** for any path",
                );
            }
            Err(error) => return bad(format!("bad pattern {quoted}: {error}"), help_for(error)),
        };
        if normal.as_str() != text {
            return Err(Problem::new(
                format!("the pattern {quoted} is not in normal form and would never match"),
                format!("write {}", quote(normal.as_str())),
            ));
        }
        match (Glob::parse::<Percent>(text), Glob::parse::<Percent>(&text.to_ascii_lowercase())) {
            (Ok(glob), Ok(folded)) => Ok(Self::Glob { text: text.into(), glob, folded }),
            _ => bad(
                format!("the pattern {quoted} has a ** that is not a whole segment"),
                "write ** alone between slashes for any number of segments, or * for a part of one",
            ),
        }
    }
}

fn help_for(error: PathError) -> &'static str {
    match error {
        PathError::NotAbsolute => "begin the pattern with /",
        PathError::Whitespace => "write one space between method and path, and %20 for a space in a path",
        PathError::Delimiter => {
            "patterns match the path only: leave out the query, write %3F or %23 for the characters"
        }
        PathError::NotAscii => "percent-encode it as UTF-8, such as %C3%A9 for é",
        PathError::BadEscape => "write %25 for a percent sign",
        PathError::AboveRoot | PathError::DotSegmentParameters => {
            "write the path that is meant, without dot segments"
        }
        _ => "requests with such a path are refused in any case: leave it out",
    }
}

/// Whether a byte may occur in an HTTP token (RFC 9110 §5.6.2), such as a method or a header name.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(text: &str) -> Operation {
        Operation::parse(text).unwrap()
    }

    fn path(text: &str) -> CallPath<'_> {
        CallPath::normalize(text).unwrap()
    }

    #[test]
    fn an_allow_means_exactly_what_it_says() {
        let read = op("GET|HEAD /v1/*");
        assert!(read.allows("GET", &path("/v1/x")) && read.allows("HEAD", &path("/v1/x")));
        assert!(!read.allows("POST", &path("/v1/x")));
        assert!(!read.allows("get", &path("/v1/x")));
        assert!(!read.allows("GET", &path("/v1/x/")));
        assert!(op("* /v1/*").allows("BREW", &path("/v1/x")));
    }

    #[test]
    fn a_deny_holds_for_every_reading_of_the_path_that_some_server_has() {
        let deny = Operation::parse("* /v1/Forbidden/**").unwrap_or_else(|_| panic!());
        for path in [
            "/v1/forbidden/x",
            "/v1/FORBIDDEN/x",
            "/v1/Forbidden;a=1/x",
            "/v1/forbidden%3Ba/x",
            "/V1;b/forbidden",
        ] {
            let path = CallPath::normalize(path).unwrap();
            assert!(deny.denies("GET", &path), "{path}");
            assert!(!deny.allows("GET", &path), "{path}: an allow is exact");
        }
        let other = CallPath::normalize("/v1/forbiddenly/x;forbidden").unwrap();
        assert!(!deny.denies("GET", &other));
    }

    #[test]
    fn a_deny_holds_in_other_letters_and_with_a_slash_at_the_end() {
        let deny = op("DELETE /v1/x");
        assert!(deny.denies("delete", &path("/v1/x")));
        assert!(deny.denies("DELETE", &path("/v1/x/")));
        assert!(op("DELETE /v1/x/").denies("DELETE", &path("/v1/x")));
        assert!(!deny.denies("DELETE", &path("/v1/x/y")));
        assert!(!deny.denies("GET", &path("/v1/x")));
    }

    #[test]
    fn the_asterisk_form_is_its_own() {
        assert!(op("OPTIONS *").allows("OPTIONS", &path("*")));
        assert!(!op("* /**").allows("OPTIONS", &path("*")));
        assert!(!op("OPTIONS *").allows("OPTIONS", &path("/")));
    }

    #[test]
    fn a_bad_operation_says_what_to_do() {
        for (text, help) in [
            ("/v1/x", "\"* /v1/x\""),
            ("GET", "METHOD /path"),
            ("get /x", "write \"GET\""),
            ("GET|GET /x", "remove one"),
            ("GET| /x", "* alone"),
            ("G(T /x", "* alone"),
            ("GET x", "begin the pattern with /"),
            ("GET  /x", "begin the pattern with /"),
            ("GET /a b", "%20"),
            ("GET /a?b=1", "leave out the query"),
            ("GET /a/../b", "write \"/b\""),
            ("GET /%7Eme", "write \"/~me\""),
            ("GET //a", "write \"/a\""),
            ("GET /a/{id}", "* stands for one segment"),
            ("GET /a/b**", "alone between slashes"),
            ("GET *", "OPTIONS"),
            ("* *", "OPTIONS"),
            ("GET /é", "%C3%A9"),
            ("GET /..", "without dot segments"),
            ("GET /a%2Fb", "leave it out"),
        ] {
            let problem = Operation::parse(text).unwrap_err();
            assert!(problem.help.contains(help), "{text}: {problem:?}");
        }
    }

    #[test]
    fn a_slip_in_a_method_is_noticed() {
        assert_eq!(op("DELTE /x").method_slip(), Some(("DELTE", "DELETE")));
        assert_eq!(op("PURGE|GET /x").method_slip(), None);
    }
}
