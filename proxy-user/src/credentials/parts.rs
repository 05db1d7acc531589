//! Parts of a request that have a name and a value within one header or the target: cookies and query parameters.

use bytes::Bytes;
use http::header::{COOKIE, HeaderMap, HeaderValue};
use http::uri::{InvalidUri, PathAndQuery};

use super::attach::HeaderMemory;
use super::escape;
use super::secret::Secret;

/// Whether a name in a query, as it is spelled there, is this one to some server: escaped, or in other letters.
pub(super) fn is_named(spelled: &str, name: &str) -> bool {
    let spelled = spelled.split('=').next().unwrap_or_default();
    spelled.eq_ignore_ascii_case(name)
        || (spelled.contains('%')
            && escape::unpercent(spelled.as_bytes()).eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether a query has a piece that is meant. `;` counts as `&`, as for servers that split at both.
pub(super) fn has_piece(query: &str, is_meant: &dyn Fn(&str) -> bool) -> bool {
    query.split(['&', ';']).any(is_meant)
}

/// The target without the pieces of the query that are meant; what they held goes to `taken`.
///
/// # Errors
/// It is no target any more.
pub(super) fn without(
    target: &PathAndQuery,
    is_meant: &dyn Fn(&str) -> bool,
    taken: &mut Vec<(String, Secret)>,
) -> Result<PathAndQuery, InvalidUri> {
    for piece in target.query().unwrap_or_default().split(['&', ';']).filter(|piece| is_meant(piece)) {
        let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
        let name = String::from_utf8_lossy(&escape::unpercent(name.as_bytes())).into_owned();
        taken.push((format!("query {name}"), Secret::new(escape::unpercent(value.as_bytes()))));
    }
    rewritten(target, is_meant, None)
}

/// The target without the parameters of this name, and with `ours` behind the others.
///
/// # Errors
/// It is no target any more, as when it is too long.
pub(super) fn with_parameter(
    target: &PathAndQuery,
    name: &str,
    ours: &[u8],
) -> Result<PathAndQuery, InvalidUri> {
    rewritten(target, &|piece| is_named(piece, name), Some((name, ours)))
}

fn rewritten(
    target: &PathAndQuery,
    is_meant: &dyn Fn(&str) -> bool,
    ours: Option<(&str, &[u8])>,
) -> Result<PathAndQuery, InvalidUri> {
    let query = target.query().unwrap_or_default();
    // At its final size from the start: a buffer that grew would leave a copy behind in freed memory.
    let length = target.as_str().len() + ours.map_or(0, |(name, ours)| name.len() + 2 + ours.len());
    let mut whole = Vec::with_capacity(length);
    whole.extend_from_slice(target.path().as_bytes());
    let mut mark = b'?';
    for piece in query.split('&').filter(|_| !query.is_empty()) {
        let mixed = has_piece(piece, is_meant);
        // What stands beside it, behind a `;`, is somebody else's.
        let mut rest = piece.split(';').filter(|one| !is_meant(one));
        let mut next = if mixed { rest.next() } else { Some(piece) };
        while let Some(one) = next {
            whole.push(mark);
            whole.extend_from_slice(one.as_bytes());
            mark = b';';
            next = if mixed { rest.next() } else { None };
        }
        mark = if mark == b'?' { b'?' } else { b'&' };
    }
    if let Some((name, ours)) = ours {
        whole.push(mark);
        whole.extend_from_slice(name.as_bytes());
        whole.push(b'=');
        whole.extend_from_slice(ours);
    }
    PathAndQuery::from_maybe_shared(Bytes::from_owner(HeaderMemory(Secret::new(whole))))
}

/// Takes the cookies of this name out; what they held goes to `taken`.
pub(super) fn take_cookies(headers: &mut HeaderMap, name: &str, taken: &mut Vec<(String, Secret)>) {
    let before = taken.len();
    for cookie in headers.get_all(COOKIE).iter().flat_map(|value| value.as_bytes().split(|it| *it == b';')) {
        let end = cookie.iter().position(|byte| *byte == b'=').unwrap_or(cookie.len());
        let (spelled, value) = cookie.split_at(end);
        if spelled.trim_ascii().eq_ignore_ascii_case(name.as_bytes()) {
            let value = value.strip_prefix(b"=").unwrap_or_default().trim_ascii();
            taken.push((format!("cookie {name}"), Secret::new(value.to_vec())));
        }
    }
    if taken.len() > before {
        with_cookie(headers, name, None);
    }
}

/// Takes the cookies of this name out of all `Cookie` headers, and puts `ours` behind the others (RFC 6265 §5.4).
pub(super) fn with_cookie(headers: &mut HeaderMap, name: &str, ours: Option<&[u8]>) {
    let is_it = |cookie: &[u8]| {
        let end = cookie.iter().position(|byte| *byte == b'=').unwrap_or(cookie.len());
        cookie.get(..end).unwrap_or_default().trim_ascii().eq_ignore_ascii_case(name.as_bytes())
    };
    let there =
        headers.get_all(COOKIE).iter().any(|value| value.as_bytes().split(|it| *it == b';').any(is_it));
    if ours.is_none() && !there {
        return;
    }
    let length: usize = headers.get_all(COOKIE).iter().map(|value| value.len() + 2).sum();
    let mut whole = Vec::with_capacity(length + ours.map_or(0, |ours| name.len() + 3 + ours.len()));
    for value in headers.get_all(COOKIE) {
        for cookie in value.as_bytes().split(|it| *it == b';').map(<[u8]>::trim_ascii) {
            if !cookie.is_empty() && !is_it(cookie) {
                whole.extend_from_slice(if whole.is_empty() { b"" } else { b"; " });
                whole.extend_from_slice(cookie);
            }
        }
    }
    if let Some(ours) = ours {
        whole.extend_from_slice(if whole.is_empty() { b"" } else { b"; " });
        whole.extend_from_slice(name.as_bytes());
        whole.push(b'=');
        whole.extend_from_slice(ours);
    }
    headers.remove(COOKIE);
    if whole.is_empty() {
        return;
    }
    // Of values that were in headers, and of one that was checked as it was composed.
    if let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from_owner(HeaderMemory(Secret::new(whole))))
    {
        value.set_sensitive(true);
        headers.insert(COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(target: &str, ours: Option<&[u8]>) -> String {
        let target = PathAndQuery::try_from(target).unwrap();
        let left = match ours {
            Some(ours) => with_parameter(&target, "key", ours),
            None => without(&target, &|piece| is_named(piece, "key"), &mut Vec::new()),
        };
        left.unwrap().to_string()
    }

    #[test]
    fn the_clients_own_parameter_goes_out_however_it_is_spelled() {
        for (target, expected) in [
            ("/a", "/a?key=ours"),
            ("/a?", "/a?key=ours"),
            ("/a?b=1&c", "/a?b=1&c&key=ours"),
            ("/a?key=stolen", "/a?key=ours"),
            ("/a?key", "/a?key=ours"),
            ("/a?b=1&key=stolen&key=again&c=2", "/a?b=1&c=2&key=ours"),
            ("/a?KEY=stolen&%6bey=stolen&k%65y=stolen", "/a?key=ours"),
            ("/a?b=1;key=stolen&c=2", "/a?b=1&c=2&key=ours"),
            ("/a?key=stolen;b=1;c=3&d=2", "/a?b=1;c=3&d=2&key=ours"),
            ("/a?monkey=1&keys=2&b=key", "/a?monkey=1&keys=2&b=key&key=ours"),
            ("/a?b=1&&c=2", "/a?b=1&&c=2&key=ours"),
        ] {
            assert_eq!(query(target, Some(b"ours")), expected, "{target}");
        }
        assert_eq!(query("/a?key=stolen", None), "/a");
        assert_eq!(query("/a?b=1&key=stolen", None), "/a?b=1");
    }

    #[test]
    fn the_clients_own_cookie_goes_out_and_the_others_stay() {
        let cookies = |values: &[&'static str], ours: Option<&[u8]>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(COOKIE, HeaderValue::from_static(value));
            }
            match ours {
                Some(_) => with_cookie(&mut headers, "sid", ours),
                None => take_cookies(&mut headers, "sid", &mut Vec::new()),
            }
            headers.get_all(COOKIE).iter().map(|it| it.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(cookies(&[], Some(b"ours")), ["sid=ours"]);
        assert_eq!(cookies(&["a=1; sid=stolen; b=2"], Some(b"ours")), ["a=1; b=2; sid=ours"]);
        assert_eq!(cookies(&["sid=stolen", "a=1", "SID =stolen;sid"], Some(b"ours")), ["a=1; sid=ours"]);
        assert_eq!(cookies(&["sid=stolen"], None), [] as [&str; 0]);
        assert_eq!(cookies(&["a=1", "b=2"], None), ["a=1", "b=2"], "nothing to do");
    }
}
