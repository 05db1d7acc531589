//! Where in a request an API wants its credential.

use std::fmt;

/// How a secret becomes a part of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inject {
    pub(crate) place: InjectPlace,
    pub(crate) prefix: String,
    pub(crate) suffix: String,
}

/// The part of a request that carries the credential. What the client sent there is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InjectPlace {
    /// The header of this name, lower-case.
    Header(String),
    /// `Authorization: Basic …` (RFC 7617) of `USER:PASSWORD`.
    Basic,
    /// The parameter of this name in the query.
    Query(String),
    /// The cookie of this name.
    Cookie(String),
    /// Wherever the client put this text in the place of a key.
    Placeholder(Placeholder),
}

/// A text that a client has in the place of a key, because nothing else can be told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    pub(crate) text: String,
    pub(crate) parts: PlaceholderParts,
}

/// Where a placeholder is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaceholderParts {
    /// In the values of headers, also within `Authorization: Basic`.
    pub headers: bool,
    /// In the path.
    pub path: bool,
    /// In the query.
    pub query: bool,
    /// In a body of text, up to a bound.
    pub body: bool,
}

impl Inject {
    /// Which part of the request.
    #[must_use]
    pub fn place(&self) -> &InjectPlace {
        &self.place
    }

    /// What stands before the secret.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What stands after the secret.
    #[must_use]
    pub fn suffix(&self) -> &str {
        &self.suffix
    }
}

impl Placeholder {
    /// The text: at least eight of the characters that are never escaped (RFC 3986 §2.3).
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where it is looked for.
    #[must_use]
    pub fn parts(&self) -> PlaceholderParts {
        self.parts
    }
}

impl PlaceholderParts {
    /// The names as in policy files.
    pub(crate) const NAMES: [&'static str; 4] = ["headers", "path", "query", "body"];

    /// The part with this name, to be set.
    pub(crate) fn named(&mut self, name: &str) -> Option<&mut bool> {
        match name {
            "headers" => Some(&mut self.headers),
            "path" => Some(&mut self.path),
            "query" => Some(&mut self.query),
            "body" => Some(&mut self.body),
            _ => None,
        }
    }

    fn names(self) -> Vec<&'static str> {
        let has = [self.headers, self.path, self.query, self.body];
        Self::NAMES.into_iter().zip(has).filter_map(|(name, has)| has.then_some(name)).collect()
    }
}

impl fmt::Display for InjectPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => f.write_str(name),
            Self::Basic => f.write_str("authorization (basic)"),
            Self::Query(name) => write!(f, "query {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::Placeholder(it) => write!(f, "placeholder {} in {}", it.text, it.parts.names().join(", ")),
        }
    }
}

impl fmt::Display for Inject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{{secret}}{}", self.place, self.prefix, self.suffix)
    }
}
