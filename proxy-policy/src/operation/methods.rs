//! The methods of an operation: `GET|HEAD`, or `*` for any.

use crate::diagnostic::{Problem, quote};
use crate::suggest;

const USUAL: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Methods {
    Any,
    Of(Box<[Box<str>]>),
}

impl Methods {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
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
            if ["websocket", "grpc"].iter().any(|word| method.eq_ignore_ascii_case(word)) {
                let word = method.to_ascii_lowercase();
                return Err(Problem::new(
                    format!("{} stands among methods", quote(method)),
                    format!("write an operation of its own, in small letters: {}", example(&word)),
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

    pub(super) fn allow(&self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of(methods) => methods.iter().any(|known| **known == *method),
        }
    }

    pub(super) fn deny(&self, method: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Of(methods) => methods.iter().any(|known| known.eq_ignore_ascii_case(method)),
        }
    }

    pub(super) fn cover(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (Self::Of(mine), Self::Of(theirs)) => theirs.iter().all(|method| mine.contains(method)),
            (Self::Of(_), Self::Any) => false,
        }
    }

    pub(super) fn share_one(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Of(a), Self::Of(b)) => a.iter().any(|method| b.contains(method)),
            _ => true,
        }
    }

    /// A usual method that one of these was probably meant to be.
    pub(super) fn slip(&self) -> Option<(&str, &'static str)> {
        let Self::Of(methods) = self else { return None };
        methods
            .iter()
            .filter(|method| !USUAL.contains(&&***method))
            .find_map(|method| suggest::nearest(method, USUAL).map(|meant| (&**method, meant)))
    }
}

fn example(word: &str) -> &'static str {
    if word == "grpc" { "\"grpc package.Service/Method\"" } else { "\"websocket /path\"" }
}

/// Whether a byte may occur in an HTTP token (RFC 9110 §5.6.2), such as a method or a header name.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
