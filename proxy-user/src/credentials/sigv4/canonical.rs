//! The canonical form of a request: what both sides must spell alike (Signature Version 4, "Create a canonical request").

use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName};

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// The path. The store of objects takes it as it is, however it is escaped; all other services escape once more what stands in
/// the request.
pub(super) fn path(path: &str, is_store: bool) -> Vec<u8> {
    if is_store {
        return respelled(path, true);
    }
    let mut out = Vec::with_capacity(path.len() + 16);
    path.bytes().for_each(|byte| push(byte, byte == b'/', &mut out));
    out
}

/// The pieces of a query, escaped in one way and in order.
pub(super) fn query(query: &str) -> Vec<u8> {
    let mut pieces: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|piece| !piece.is_empty())
        .map(|piece| {
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            (once(name), once(value))
        })
        .collect();
    pieces.sort_unstable();
    let mut out = Vec::with_capacity(query.len() + 16);
    for (name, value) in pieces {
        if !out.is_empty() {
            out.push(b'&');
        }
        out.extend_from_slice(&name);
        out.push(b'=');
        out.extend_from_slice(&value);
    }
    out
}

/// A query whose pieces are escaped in one way, where they stand. `+` is a space: clients that do not sign mean one, and those that
/// do write neither.
pub(super) fn in_place(query: &str) -> String {
    let mut out = Vec::with_capacity(query.len() + 8);
    for piece in query.split('&') {
        if !out.is_empty() {
            out.push(b'&');
        }
        let piece = piece.replace('+', "%20");
        match piece.split_once('=') {
            Some((name, value)) => {
                out.extend(once(name));
                out.push(b'=');
                out.extend(once(value));
            }
            None => out.extend(once(&piece)),
        }
    }
    // Of ASCII.
    String::from_utf8(out).unwrap_or_default()
}

/// Escaped once, however it was escaped.
fn once(text: &str) -> Vec<u8> {
    respelled(text, false)
}

/// The same; a slash that is not escaped stays one in a path.
fn respelled(text: &str, is_path: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 8);
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        match (*first, escaped(more)) {
            (b'%', Some(byte)) => {
                push(byte, false, &mut out);
                rest = more.get(2..).unwrap_or_default();
            }
            (byte, _) => push(byte, is_path && byte == b'/', &mut out),
        }
    }
    out
}

fn escaped(after: &[u8]) -> Option<u8> {
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|it| u8::try_from(it).ok());
    Some(digit(after.first())? << 4 | digit(after.get(1))?)
}

/// All but the unreserved characters is escaped (RFC 3986 §2.3).
fn push(byte: u8, as_it_is: bool, out: &mut Vec<u8>) {
    match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
        byte if as_it_is => out.push(byte),
        byte => out.extend([b'%', hex(byte >> 4), hex(byte)]),
    }
}

fn hex(nibble: u8) -> u8 {
    HEX.get(usize::from(nibble & 15)).copied().unwrap_or(b'0')
}

/// Whether a header is signed: those that say what the request does, and no other, because the way may change those.
fn is_signed(name: &HeaderName) -> bool {
    name == CONTENT_TYPE || name == "content-md5" || name.as_str().starts_with("x-amz-")
}

/// Whether what is signed of the headers has one spelling only: servers read other bytes than those of ASCII in several ways.
pub(super) fn is_plain(headers: &HeaderMap) -> bool {
    let is_plain = |value: &[u8]| value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
    headers.iter().filter(|(name, _)| is_signed(name)).all(|(_, value)| is_plain(value.as_bytes()))
}

/// The headers that are signed, each on its line, and their names.
pub(super) fn headers(headers: &HeaderMap, authority: &str, all: bool) -> (Vec<u8>, String) {
    let mut names: Vec<&HeaderName> =
        headers.keys().filter(|name| **name != HOST && (all || is_signed(name))).collect();
    names.push(&HOST);
    names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
    // At its final size from the start: one that grew would leave a session token behind in freed memory.
    let most: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 2).sum();
    let (mut lines, mut list) = (Vec::with_capacity(most + authority.len() + 8), String::with_capacity(64));
    for name in names {
        if !list.is_empty() {
            list.push(';');
        }
        list.push_str(name.as_str());
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.push(b':');
        if name == HOST {
            lines.extend_from_slice(authority.as_bytes());
        } else {
            let mut first = true;
            for value in headers.get_all(name) {
                if !first {
                    lines.push(b',');
                }
                first = false;
                trimmed(value.as_bytes(), &mut lines);
            }
        }
        lines.push(b'\n');
    }
    (lines, list)
}

/// Without spaces around it, and with one in the place of several.
fn trimmed(value: &[u8], out: &mut Vec<u8>) {
    let mut before = b'x';
    for byte in value.trim_ascii() {
        if !(*byte == b' ' && before == b' ') {
            out.push(*byte);
        }
        before = *byte;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_of_objects_takes_a_path_as_it_is_and_others_escape_it_once_more() {
        assert_eq!(path("/a b/%C3%A9/x+y=(1)/%2e", true), b"/a%20b/%C3%A9/x%2By%3D%281%29/.");
        assert_eq!(path("/a%3Ab/c", false), b"/a%253Ab/c");
        assert_eq!(path("/a%2Fb", true), b"/a%2Fb", "an escaped slash is none");
    }

    #[test]
    fn a_query_is_escaped_in_one_way_and_in_order() {
        assert_eq!(query("b=2&a=%7e&a=%2f&c&=x&&B=1"), b"=x&B=1&a=%2F&a=~&b=2&c=");
    }

    #[test]
    fn a_query_stays_in_its_order_when_it_is_spelled_in_one_way() {
        assert_eq!(in_place("b=x+y&acl&a=%7e@&c="), "b=x%20y&acl&a=~%40&c=");
        assert_eq!(in_place(""), "");
        let long = in_place("z=1&%61=2");
        assert_eq!((long.as_str(), query(&long)), ("z=1&a=2", query("z=1&%61=2")));
    }

    #[test]
    fn spaces_of_a_header_do_not_count() {
        let mut out = Vec::new();
        trimmed(b"  a   b  c ", &mut out);
        assert_eq!(out, b"a b c");
    }
}
