//! What was decided, as it is spelled for an upstream.

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use proxy_policy::Scheme;

use crate::authorize::Facts;
use crate::forward::ForwardError;

/// The path that was decided on, with the query as it came; it is what was asked for if that path was in normal form.
pub(super) fn target(facts: &Facts<'_>, asked: &Uri) -> Result<PathAndQuery, ForwardError> {
    let path = facts.path.as_str();
    let is_same = |asked: &PathAndQuery| asked.path() == path && asked.query() == facts.query;
    if let Some(asked) = asked.path_and_query().filter(|asked| is_same(asked)) {
        return Ok(asked.clone());
    }
    let target = match facts.query {
        None => PathAndQuery::try_from(path),
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
    };
    target.map_err(|source| ForwardError::Spell { source: source.into() })
}

/// A host with its port unless it is the scheme's.
pub(super) fn authority(name: &str, port: u16, scheme: Scheme) -> Result<Authority, ForwardError> {
    let v6 = name.contains(':');
    let text = match (v6, port == scheme.default_port()) {
        (false, true) => Authority::try_from(name),
        (false, false) => Authority::try_from(format!("{name}:{port}")),
        (true, true) => Authority::try_from(format!("[{name}]")),
        (true, false) => Authority::try_from(format!("[{name}]:{port}")),
    };
    text.map_err(|source| ForwardError::Spell { source: source.into() })
}
