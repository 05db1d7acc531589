//! Which values of a request are told apart in the journal: as fingerprints under the key of this host, never as they are.
//!
//! Invariant: of what is a credential, by its place, its name or its shape, there is nothing here; what was taken out of a request is told
//! by [`super::Removed`].

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use proxy_journal::Fingerprint;

use super::attach::strip;
use super::inject::Strip;
use super::known::{self, Fingerprints};
use crate::config::QueryNames;

/// Fingerprints of one request, at most: the client says how many parameters there are, and how they are called.
const TOLD: usize = 16;
const TOLD_CHARS: usize = 64;

/// What is told apart on this host.
#[derive(Debug)]
pub struct Redaction {
    fingerprints: Fingerprints,
    headers: Vec<HeaderName>,
    query: QueryNames,
}

impl Redaction {
    /// Tells these apart.
    #[must_use]
    pub fn new(fingerprints: Fingerprints, headers: Vec<HeaderName>, query: QueryNames) -> Self {
        Self { fingerprints, headers, query }
    }

    /// Whether nothing is.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.headers.is_empty() && self.query == QueryNames::None
    }

    /// What is told of a request as its client sent it; `what` names where the credential of the API that is called is.
    #[must_use]
    pub fn of(&self, headers: &HeaderMap, query: Option<&str>, what: Option<&Strip>) -> Vec<Fingerprint> {
        let mut told = Vec::new();
        if self.is_off() {
            return told;
        }
        let nothing = Strip::default();
        let what = what.unwrap_or(&nothing);
        self.add_headers(headers, what, &mut told);
        self.add_query(query.unwrap_or_default(), what, &mut told);
        told
    }

    fn add_headers(&self, headers: &HeaderMap, what: &Strip, told: &mut Vec<Fingerprint>) {
        if !self.headers.iter().any(|name| headers.contains_key(name)) {
            return;
        }
        let chosen = headers.iter().filter(|(name, _)| self.headers.contains(name));
        let mut left = HeaderMap::new();
        chosen.for_each(|(name, value)| {
            left.append(name.clone(), value.clone());
        });
        drop(strip(&mut left, None, what));
        for (name, value) in left.iter().take(TOLD) {
            let value = value.as_bytes().trim_ascii();
            if !known::is_token(value) {
                told.push(self.one("header", name.as_str(), value));
            }
        }
    }

    fn add_query(&self, query: &str, what: &Strip, told: &mut Vec<Fingerprint>) {
        if self.query == QueryNames::None {
            return;
        }
        for piece in query.split('&').filter(|piece| !piece.is_empty()) {
            if told.len() >= TOLD {
                return;
            }
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let name = decoded(name);
            let is_chosen = match &self.query {
                QueryNames::None => false,
                QueryNames::All => true,
                QueryNames::Some(names) => names.iter().any(|known| known.as_bytes() == &*name),
            };
            if is_chosen && !what.is_key_piece(piece) && !known::is_key_piece(piece) {
                told.push(self.one("query", &String::from_utf8_lossy(&name), &decoded(value)));
            }
        }
    }

    fn one(&self, part: &str, name: &str, value: &[u8]) -> Fingerprint {
        let name: String = name.chars().take(TOLD_CHARS).collect();
        Fingerprint { place: format!("{part} {name}"), fingerprint: self.fingerprints.of(value) }
    }
}

/// As a server reads it: `a+b%20c` is `a b c`.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text.as_bytes());
    }
    Cow::Owned(super::escape::unpercent(text.replace('+', " ").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redaction(headers: &[&'static str], query: QueryNames) -> Redaction {
        let headers = headers.iter().map(|name| HeaderName::from_static(name)).collect();
        Redaction::new(Fingerprints::new(&[7; 32]), headers, query)
    }

    fn places(told: &[Fingerprint]) -> Vec<&str> {
        told.iter().map(|it| it.place.as_str()).collect()
    }

    #[test]
    fn the_same_value_has_the_same_fingerprint_however_it_is_written() {
        let some = redaction(&[], QueryNames::Some(vec!["account".into()]));
        let of = |query| some.of(&HeaderMap::new(), Some(query), None);
        let one = of("account=a%20b&x=1");
        assert_eq!(places(&one), ["query account"]);
        assert_eq!(one[0].fingerprint, Fingerprints::new(&[7; 32]).of(b"a b"));
        for same in ["account=a+b", "%61ccount=a b", "x=2&account=%61+%62"] {
            assert_eq!(of(same), one, "{same}");
        }
        assert_ne!(of("account=a-b"), one);
        assert_eq!(of("accounts=a+b"), []);
    }

    #[test]
    fn credentials_have_no_fingerprint_by_place_name_or_shape() {
        let all = redaction(&["x-env", "x-key", "x-api-key", "x-hidden"], QueryNames::All);
        let what = Strip {
            headers: ["x-key", "x-hidden"].map(HeaderName::from_static).into(),
            query: Some("sig".into()),
            ..Strip::default()
        };
        let mut headers = HeaderMap::new();
        for name in ["x-env", "x-key", "x-api-key", "x-hidden", "x-other"] {
            headers.append(name, "value".parse().unwrap());
        }
        headers.append("x-env", "ghp_0123456789abcdefghijABCDEFGHIJ012345".parse().unwrap());
        let query = "sig=1&access_token=2&q=ghp_0123456789abcdefghijABCDEFGHIJ012345&page=3";
        let told = all.of(&headers, Some(query), Some(&what));
        assert_eq!(places(&told), ["header x-env", "query page"]);
        assert_eq!(redaction(&[], QueryNames::None).of(&headers, Some(query), None), []);
    }

    #[test]
    fn a_client_cannot_fill_a_record() {
        let all = redaction(&[], QueryNames::All);
        let query = format!("{}=1&", "n".repeat(500)).repeat(100);
        let told = all.of(&HeaderMap::new(), Some(&query), None);
        assert_eq!(told.len(), TOLD);
        assert!(told.iter().all(|it| it.place.len() <= TOLD_CHARS + 6));
    }
}
