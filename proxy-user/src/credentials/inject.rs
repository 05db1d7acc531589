//! Where an API wants its credential, made ready once for each policy: names as types, and what the client may not bring.

use std::fmt;
use std::sync::{Arc, LazyLock};

use http::HeaderName;
use http::header::AUTHORIZATION;
use proxy_policy::{InjectPlace, PlaceholderParts};

use super::{known, parts};

/// Where a policy's API wants the secret, and the text around the secret there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Inject {
    pub(super) place: Place,
    pub(super) prefix: Box<str>,
    pub(super) suffix: Box<str>,
}

/// A part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Header(HeaderName),
    /// `Authorization: Basic` (RFC 7617).
    Basic,
    /// The query parameter of this name.
    Query(Box<str>),
    /// The cookie of this name.
    Cookie(Box<str>),
    /// Wherever the client put this text.
    Placeholder(Placeholder),
}

/// What a client has in the place of a key, and where it may have it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Placeholder {
    pub(super) text: Box<str>,
    pub(super) headers: bool,
    pub(super) path: bool,
    pub(super) query: bool,
    pub(super) body: bool,
}

impl Inject {
    /// `Authorization: Bearer …` (RFC 6750), for tokens of an API that does not say how it wants them.
    #[must_use]
    pub fn bearer() -> &'static Arc<Self> {
        static BEARER: LazyLock<Arc<Inject>> = LazyLock::new(|| Arc::new(Inject::authorization("Bearer ")));
        &BEARER
    }

    /// `Authorization` with this before what is attached.
    #[must_use]
    pub(super) fn authorization(prefix: &str) -> Self {
        Self { place: Place::Header(AUTHORIZATION), prefix: prefix.into(), suffix: "".into() }
    }

    /// As the policy says. The policy compiler checked the names; `None` for one that is no header's, which could not be in a
    /// request either.
    #[must_use]
    pub fn of(inject: &proxy_policy::Inject) -> Option<Self> {
        let place = match inject.place() {
            InjectPlace::Header(name) => Place::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            InjectPlace::Basic => Place::Basic,
            InjectPlace::Query(name) => Place::Query(name.as_str().into()),
            InjectPlace::Cookie(name) => Place::Cookie(name.as_str().into()),
            InjectPlace::Placeholder(it) => {
                let PlaceholderParts { headers, path, query, body } = it.parts();
                Place::Placeholder(Placeholder { text: it.text().into(), headers, path, query, body })
            }
            // The enumeration may grow before the daemon does.
            _ => return None,
        };
        Some(Self { place, prefix: inject.prefix().into(), suffix: inject.suffix().into() })
    }

    /// From a value with exactly one `{secret}`, as in `Bearer {secret}`; otherwise `None`.
    #[cfg(test)]
    pub(super) fn from_template(header: HeaderName, template: &str) -> Option<Self> {
        Self::at(Place::Header(header), template)
    }

    /// The same for any part.
    #[cfg(test)]
    pub(super) fn at(place: Place, template: &str) -> Option<Self> {
        let (prefix, suffix) = template.split_once("{secret}")?;
        let once = !suffix.contains("{secret}");
        once.then(|| Self { place, prefix: prefix.into(), suffix: suffix.into() })
    }

    /// The header that carries it, if one does; what the client brought under that name goes out.
    #[must_use]
    pub(super) fn header(&self) -> Option<&HeaderName> {
        match &self.place {
            Place::Header(name) => Some(name),
            Place::Basic => Some(&AUTHORIZATION),
            Place::Query(_) | Place::Cookie(_) | Place::Placeholder(_) => None,
        }
    }
}

/// The part, in words, as in "the header x-key".
impl fmt::Display for Inject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Header(name) => write!(f, "the header {name}"),
            Place::Basic => f.write_str("basic authentication"),
            Place::Query(name) => write!(f, "the query parameter {name}"),
            Place::Cookie(name) => write!(f, "the cookie {name}"),
            Place::Placeholder(it) => write!(f, "the place of {}", it.text),
        }
    }
}

/// What a client may not bring to an API, because it would be, or could be taken for, a credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strip {
    pub(super) headers: Box<[HeaderName]>,
    pub(super) query: Option<Box<str>>,
    pub(super) cookie: Option<Box<str>>,
    /// Headers and parameters of the query that stay, though they are keys by their names or shapes.
    pub(super) keep_headers: Box<[Box<str>]>,
    pub(super) keep_parameters: Box<[Box<str>]>,
}

impl Strip {
    /// The headers of the policy's `strip`, and whatever is in the place of `inject`, which goes out also when no credential
    /// is attached. `keep`: names of headers, and of parameters with a `?` before them.
    #[must_use]
    pub fn of(strip: &[String], keep: &[String], inject: Option<&Inject>) -> Self {
        let mut headers: Vec<HeaderName> =
            strip.iter().filter_map(|text| HeaderName::from_bytes(text.as_bytes()).ok()).collect();
        headers.extend(inject.and_then(Inject::header).filter(|name| !headers.contains(name)).cloned());
        let (query, cookie) = match inject.map(|inject| &inject.place) {
            Some(Place::Query(name)) => (Some(name.clone()), None),
            Some(Place::Cookie(name)) => (None, Some(name.clone())),
            _ => (None, None),
        };
        let keep_parameters = keep.iter().filter_map(|name| name.strip_prefix('?')).map(Box::from).collect();
        let keep_headers =
            keep.iter().filter(|name| !name.starts_with('?')).map(|name| name.as_str().into()).collect();
        Self { headers: headers.into(), query, cookie, keep_headers, keep_parameters }
    }

    /// Whether a header stays, though its name is that of a key.
    pub(super) fn keeps_header(&self, name: &HeaderName) -> bool {
        self.keep_headers.iter().any(|kept| **kept == *name.as_str())
    }

    /// Whether a piece of a query (`name=value`) is a credential: in the place of the API's, by its name or by its shape.
    pub(super) fn is_key_piece(&self, piece: &str) -> bool {
        self.query.as_ref().is_some_and(|name| parts::is_named(piece, name))
            || (known::is_key_piece(piece)
                && !self.keep_parameters.iter().any(|kept| parts::is_named(piece, kept)))
    }

    /// Its headers.
    #[must_use]
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }
}
