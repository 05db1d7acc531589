//! What stands where a client has a placeholder: in the request once and no more, spelled as that part of it spells things.
//!
//! More than once is refused: the client could have put it into a part that others will read, as a comment, and which of them
//! is the key cannot be told.

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http::uri::PathAndQuery;

use super::attach::{Head, HeaderMemory, Misplaced, Unfit};
use super::escape;
use super::inject::Placeholder;
use super::secret::Secret;

/// A placeholder, and what goes into its place.
pub struct Stand {
    placeholder: Placeholder,
    value: Secret,
    /// The same as a path or a query has it.
    escaped: Secret,
}

/// What a body is, as far as a placeholder can stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Textual {
    /// JSON: the placeholder is within a string.
    Json,
    /// A form (`application/x-www-form-urlencoded`).
    Form,
}

impl Stand {
    /// # Errors
    /// A header is a place of it, and cannot carry the value.
    pub(super) fn new(placeholder: Placeholder, value: Secret) -> Result<Self, Unfit> {
        if placeholder.headers && HeaderValue::from_bytes(value.expose()).is_err() {
            return Err(Unfit);
        }
        // JSON is UTF-8.
        if placeholder.body && std::str::from_utf8(value.expose()).is_err() {
            return Err(Unfit);
        }
        let escaped = escape::percent(value.expose());
        Ok(Self { placeholder, value, escaped })
    }

    /// Whether the body is a place of it.
    #[must_use]
    pub fn is_for_bodies(&self) -> bool {
        self.placeholder.body
    }

    /// Whether a header's value has it, also within `Basic`.
    pub(super) fn is_in(&self, value: &HeaderValue) -> bool {
        self.placeholder.headers && (self.count(value.as_bytes()) > 0 || self.in_basic(value).is_some())
    }

    /// Whether a piece of a query has it.
    pub(super) fn is_in_query(&self, piece: &str) -> bool {
        self.placeholder.query && self.count(piece.as_bytes()) > 0
    }

    /// How often it is in the head of a request.
    fn count_in(&self, head: &Head<'_>) -> usize {
        let Placeholder { headers, path, query, .. } = self.placeholder;
        let mut count = 0;
        if path {
            count += self.count(head.target.path().as_bytes());
        }
        if query {
            count += head.target.query().map_or(0, |query| self.count(query.as_bytes()));
        }
        if headers {
            for (name, value) in head.headers.iter() {
                count += self.count(value.as_bytes());
                if name == AUTHORIZATION {
                    count += self.in_basic(value).map_or(0, |inside| self.count(inside.expose()));
                }
            }
        }
        count
    }

    /// Whether it is in the head of a request, so that the body is not looked at.
    ///
    /// # Errors
    /// It is there more than once.
    pub fn is_in_head(&self, head: &Head<'_>) -> Result<bool, Misplaced> {
        match self.count_in(head) {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Misplaced::Twice),
        }
    }

    /// Puts the value in its place. A body was filled before.
    pub(super) fn fill(&self, head: &mut Head<'_>) -> Result<(), Misplaced> {
        if !self.is_in_head(head)? {
            // It was in the body, or the call would not have come so far.
            return if self.placeholder.body { Ok(()) } else { Err(Misplaced::NoPlaceholder) };
        }
        let (path, query) = (head.target.path(), head.target.query());
        let in_path = self.placeholder.path && self.count(path.as_bytes()) > 0;
        if in_path || (self.placeholder.query && query.is_some_and(|query| self.count(query.as_bytes()) > 0))
        {
            // In the other part it is a text like any other, which others may read.
            let (before, part, behind) = match (in_path, query) {
                (true, None) => ("", path, None),
                (true, Some(query)) => ("", path, Some(query)),
                (false, query) => (path, query.unwrap_or_default(), None),
            };
            let part = self.replaced(part.as_bytes(), self.escaped.expose());
            let mark: &[u8] = if in_path { b"" } else { b"?" };
            let behind = [if behind.is_some() { "?" } else { "" }, behind.unwrap_or_default()].concat();
            let whole = [before.as_bytes(), mark, part.expose(), behind.as_bytes()].concat();
            let memory = Bytes::from_owner(HeaderMemory(Secret::new(whole)));
            *head.target = PathAndQuery::from_maybe_shared(memory).map_err(|_| Misplaced::Unspeakable)?;
            return Ok(());
        }
        let mut values: Vec<(HeaderName, Vec<HeaderValue>)> = Vec::new();
        for name in
            head.headers.keys().filter(|name| head.headers.get_all(*name).iter().any(|it| self.is_in(it)))
        {
            let each = head.headers.get_all(name).iter().map(|value| self.in_header(name, value));
            values.push((name.clone(), each.collect::<Result<_, _>>()?));
        }
        for (name, values) in values {
            head.headers.remove(&name);
            for value in values {
                head.headers.append(name.clone(), value);
            }
        }
        Ok(())
    }

    fn in_header(&self, name: &HeaderName, value: &HeaderValue) -> Result<HeaderValue, Misplaced> {
        let whole = if self.count(value.as_bytes()) > 0 {
            self.replaced(value.as_bytes(), self.value.expose())
        } else if let Some(inside) = self.in_basic(value).filter(|_| name == AUTHORIZATION) {
            let inside = self.replaced(inside.expose(), self.value.expose());
            let encoded = escape::base64(inside.expose());
            Secret::new([b"Basic ", encoded.expose()].concat())
        } else {
            return Ok(value.clone());
        };
        let memory = Bytes::from_owner(HeaderMemory(whole));
        let mut value = HeaderValue::from_maybe_shared(memory).map_err(|_| Misplaced::Unspeakable)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The body with the value in its place.
    ///
    /// # Errors
    /// It is not there, or more than once.
    pub fn in_body(&self, body: &[u8], textual: Textual) -> Result<Bytes, Misplaced> {
        match self.count(body) {
            0 => return Err(Misplaced::NoPlaceholder),
            1 => {}
            _ => return Err(Misplaced::Twice),
        }
        let whole = match textual {
            Textual::Json => self.replaced(body, escape::json(self.value.expose()).expose()),
            Textual::Form => self.replaced(body, self.escaped.expose()),
        };
        Ok(Bytes::from_owner(HeaderMemory(whole)))
    }

    /// `USER:PASSWORD` of `Basic`, if the placeholder is in it.
    fn in_basic(&self, value: &HeaderValue) -> Option<Secret> {
        let (scheme, rest) = value.as_bytes().split_at_checked(6)?;
        let inside =
            scheme.eq_ignore_ascii_case(b"basic ").then(|| escape::unbase64(rest.trim_ascii()))??;
        (self.count(inside.expose()) > 0).then_some(inside)
    }

    fn count(&self, bytes: &[u8]) -> usize {
        memchr::memmem::find_iter(bytes, self.placeholder.text.as_bytes()).count()
    }

    /// At its final size from the start: a buffer that grew would leave a copy behind in freed memory.
    fn replaced(&self, bytes: &[u8], by: &[u8]) -> Secret {
        let text = self.placeholder.text.as_bytes();
        let mut whole = Vec::with_capacity(bytes.len() + self.count(bytes) * by.len());
        let mut rest = bytes;
        while let Some(at) = memchr::memmem::find(rest, text) {
            let (before, from) = rest.split_at(at);
            whole.extend_from_slice(before);
            whole.extend_from_slice(by);
            rest = from.get(text.len()..).unwrap_or_default();
        }
        whole.extend_from_slice(rest);
        Secret::new(whole)
    }
}

#[cfg(test)]
#[path = "placeholder_tests.rs"]
mod tests;
