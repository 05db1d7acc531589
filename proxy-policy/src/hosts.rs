//! From scheme, host and port to the API: two hash look-ups at most.

use std::borrow::Cow;
use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::model::{ApiHost, ApiId, Scheme};

/// Where every host leads.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostIndex {
    exact: HashMap<String, Vec<Entry>, RandomState>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Vec<Entry>, RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    scheme: Scheme,
    port: u16,
    api: ApiId,
}

impl HostIndex {
    /// Adds a host; if it already leads to an API, that one stays and is returned.
    pub(crate) fn insert(&mut self, scheme: Scheme, host: &ApiHost, api: ApiId) -> Option<ApiId> {
        let map = if host.wildcard { &mut self.wildcard } else { &mut self.exact };
        let entries = map.entry(host.name.clone()).or_default();
        let there = entries.iter().find(|entry| entry.scheme == scheme && entry.port == host.port);
        let there = there.map(|entry| entry.api);
        if there.is_none() {
            entries.push(Entry { scheme, port: host.port, api });
        }
        there
    }

    /// The API of a host: the exact name wins over a wildcard.
    pub(crate) fn find(&self, scheme: Scheme, host: &str, port: u16) -> Option<ApiId> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let host = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let pick = |entries: Option<&Vec<Entry>>| {
            entries?.iter().find(|entry| entry.scheme == scheme && entry.port == port).map(|entry| entry.api)
        };
        pick(self.exact.get(&*host)).or_else(|| {
            let (label, rest) = host.split_once('.')?;
            if label.is_empty() { None } else { pick(self.wildcard.get(rest)) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_wins_and_a_star_is_one_label() {
        let mut index = HostIndex::default();
        let host = |name: &str, wildcard| ApiHost { name: name.into(), wildcard, port: 443 };
        assert_eq!(index.insert(Scheme::Https, &host("example.com", true), ApiId(0)), None);
        assert_eq!(index.insert(Scheme::Https, &host("a.example.com", false), ApiId(1)), None);
        assert_eq!(index.insert(Scheme::Https, &host("a.example.com", false), ApiId(2)), Some(ApiId(1)));
        let find = |host| index.find(Scheme::Https, host, 443);
        assert_eq!(find("a.example.com"), Some(ApiId(1)));
        assert_eq!(find("A.Example.com."), Some(ApiId(1)));
        assert_eq!(find("b.example.com"), Some(ApiId(0)));
        for none in ["example.com", "a.b.example.com", ".example.com", "xexample.com", ""] {
            assert_eq!(find(none), None, "{none}");
        }
        assert_eq!(index.find(Scheme::Http, "a.example.com", 443), None);
        assert_eq!(index.find(Scheme::Https, "a.example.com", 8443), None);
    }
}
