//! Operations: what a grant allows or denies.
//!
//! | operation | is |
//! | --- | --- |
//! | `"GET\|HEAD /v1/invoices/**"` | requests with one of these methods; `*` is any. Not a WebSocket. |
//! | `"OPTIONS *"` | the request of that name |
//! | `"websocket /v1/stream"` | the upgrade to a WebSocket (RFC 6455) |
//! | `"grpc package.Service/Method"` | a gRPC call: `POST /package.Service/Method` with `application/grpc`; `*` stands for characters of a name |
//!
//! The path is a pattern (see [`crate::glob`]'s table, repeated in the crate documentation) in normal form.
//!
//! An allow means exactly what it says. A deny is meant to hold whatever the upstream makes of the request, so it also
//! matches the method in other letters (`delete`), the path with or without a slash at its end, the upgrade of a `GET`,
//! and a gRPC call whatever its content type.

mod methods;
mod pattern;
mod template;

pub(crate) use crate::glob::Lead;
use methods::Methods;
pub(crate) use methods::is_token;
use pattern::PathPattern;
pub(crate) use pattern::is_name;
pub(crate) use template::{Arguments, Template, check_value, substitute};

use crate::decide::CallKind;
use crate::diagnostic::{Problem, quote};
use crate::path::CallPath;

/// One operation of an allow or deny list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    text: String,
    protocol: Protocol,
    path: PathPattern,
}

/// Why an operation does not match, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// Its methods, or the protocol, do not fit.
    Method(String),
    /// Its path does not.
    Path(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Protocol {
    Http(Methods),
    WebSocket,
    Grpc,
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
        let (protocol, path) = match methods {
            "websocket" => (Protocol::WebSocket, PathPattern::parse(path)?),
            "grpc" => (Protocol::Grpc, PathPattern::parse(&grpc_path(path)?)?),
            methods => {
                let methods = Methods::parse(methods)?;
                let path = match path {
                    "*" if methods == Methods::Of(["OPTIONS".into()].into()) => PathPattern::Asterisk,
                    path => PathPattern::parse(path)?,
                };
                (Protocol::Http(methods), path)
            }
        };
        Ok(Self { text: text.to_owned(), protocol, path })
    }

    /// The operation as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A usual method that one of the methods was probably meant to be.
    pub(crate) fn method_slip(&self) -> Option<(&str, &'static str)> {
        match &self.protocol {
            Protocol::Http(methods) => methods.slip(),
            Protocol::WebSocket | Protocol::Grpc => None,
        }
    }

    /// Whether an allow of this operation allows the call.
    pub(crate) fn allows(&self, kind: CallKind, method: &str, path: &CallPath<'_>) -> bool {
        let spoken = match &self.protocol {
            Protocol::Http(methods) => kind != CallKind::WebSocket && methods.allow(method),
            Protocol::WebSocket => kind == CallKind::WebSocket,
            Protocol::Grpc => kind == CallKind::Grpc && method == "POST",
        };
        spoken && self.path.allows(path)
    }

    /// Whether a deny of this operation denies the call.
    pub(crate) fn denies(&self, kind: CallKind, method: &str, path: &CallPath<'_>) -> bool {
        let upgrade = kind == CallKind::WebSocket;
        let spoken = match &self.protocol {
            Protocol::Http(methods) => methods.deny(method) || upgrade && methods.deny("GET"),
            Protocol::WebSocket => upgrade,
            Protocol::Grpc => method.eq_ignore_ascii_case("POST"),
        };
        spoken && self.path.denies(path)
    }

    /// Why an allow of this (or a deny, `denies`) does not match a call; nothing if it does.
    pub(crate) fn why_not(
        &self,
        denies: bool,
        kind: CallKind,
        method: &str,
        path: &CallPath<'_>,
    ) -> Option<Miss> {
        let matches = match denies {
            true => self.denies(kind, method, path),
            false => self.allows(kind, method, path),
        };
        if matches {
            return None;
        }
        let spoken = match (&self.protocol, denies) {
            (Protocol::Http(methods), true) => {
                methods.deny(method) || kind == CallKind::WebSocket && methods.deny("GET")
            }
            (Protocol::Http(_), false) if kind == CallKind::WebSocket => {
                return Some(Miss::Method("it is an upgrade, which only \"websocket …\" allows".to_owned()));
            }
            (Protocol::Http(methods), false) => methods.allow(method),
            (Protocol::WebSocket, _) => kind == CallKind::WebSocket,
            (Protocol::Grpc, true) => method.eq_ignore_ascii_case("POST"),
            (Protocol::Grpc, false) => kind == CallKind::Grpc && method == "POST",
        };
        if spoken {
            return Some(Miss::Path(self.path.why_not(path)));
        }
        let wanted = self.text.split(' ').next().unwrap_or_default();
        Some(Miss::Method(match &self.protocol {
            Protocol::Http(_) => format!("the method is {}, not {wanted}", quote(method)),
            Protocol::WebSocket => "it is not the upgrade to a WebSocket".to_owned(),
            Protocol::Grpc => "it is not a gRPC call".to_owned(),
        }))
    }

    /// Whether it is certain that a deny of this leaves nothing of an allow of `other`.
    pub(crate) fn denies_all_of(&self, other: &Self) -> bool {
        let spoken = match (&self.protocol, &other.protocol) {
            (Protocol::Http(mine), Protocol::Http(theirs)) => mine.cover(theirs),
            (Protocol::Http(mine), Protocol::WebSocket) => mine.deny("GET"),
            (Protocol::Http(mine), Protocol::Grpc) => mine.deny("POST"),
            (Protocol::WebSocket, Protocol::WebSocket) | (Protocol::Grpc, Protocol::Grpc) => true,
            (Protocol::Grpc | Protocol::WebSocket, _) => false,
        };
        spoken && self.path.covers(&other.path)
    }

    /// Whether it is certain that every call that an allow of `other` allows is allowed by one of this.
    pub(crate) fn allows_all_of(&self, other: &Self) -> bool {
        let spoken = match (&self.protocol, &other.protocol) {
            (Protocol::Http(mine), Protocol::Http(theirs)) => mine.cover(theirs),
            (Protocol::Http(mine), Protocol::Grpc) => mine.allow("POST"),
            (Protocol::WebSocket, Protocol::WebSocket) | (Protocol::Grpc, Protocol::Grpc) => true,
            (Protocol::Http(_) | Protocol::Grpc | Protocol::WebSocket, _) => false,
        };
        spoken && self.path.covers(&other.path)
    }

    /// Whether it is any request to any path.
    pub(crate) fn allows_everything(&self) -> bool {
        matches!(&self.protocol, Protocol::Http(Methods::Any)) && self.path.text() == "/**"
    }

    /// The pattern of the path, to find operations on identical ones.
    pub(crate) fn path_text(&self) -> &str {
        self.path.text()
    }

    /// Whether there may be a call that is both.
    pub(crate) fn shares_a_method(&self, other: &Self) -> bool {
        match (&self.protocol, &other.protocol) {
            (Protocol::Http(a), Protocol::Http(b)) => a.share_one(b),
            (Protocol::Grpc, Protocol::Http(methods)) | (Protocol::Http(methods), Protocol::Grpc) => {
                methods.allow("POST")
            }
            (a, b) => a == b,
        }
    }

    /// How its path begins, for an index: the segments up to the first that is neither literal nor `*`.
    pub(crate) fn leads(&self, denies: bool) -> Vec<Lead> {
        self.path.leads(denies)
    }

    /// The names that it gives to segments (`{name}`).
    pub(crate) fn capture_names(&self) -> impl Iterator<Item = &str> {
        self.path.capture_names()
    }

    /// The named segments of a path that matches, decoded; `folded` as the most forgiving server reads it.
    pub(crate) fn captures(&self, path: &CallPath<'_>, folded: bool) -> Vec<(&str, String)> {
        self.path.captures(path, folded)
    }
}

/// `/package.Service/Method` of what stands behind `grpc`.
fn grpc_path(text: &str) -> Result<String, Problem> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '*');
    match text.split_once('/') {
        Some((service, method))
            if !service.is_empty()
                && !method.is_empty()
                && service.chars().all(part)
                && method.chars().all(|c| part(c) && c != '.')
                && !text.contains("**") =>
        {
            Ok(format!("/{text}"))
        }
        _ => Err(Problem::new(
            format!("{} is not a method of gRPC", quote(text)),
            "write \"grpc package.Service/Method\"; * stands for any characters of the service or the method",
        )),
    }
}

#[cfg(test)]
mod tests;
