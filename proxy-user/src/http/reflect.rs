//! Which answers are looked through for the secret that was sent, and how.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_RANGE, RANGE};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::response::Parts;
use http::{Method, StatusCode};
use proxy_policy::Mask;

use super::body::Transfer;
use super::hop;
use super::unpack::{CODINGS, Coding, Unpacker};
use crate::credentials::{Masker, Needles};
use crate::http1::{Spelling, Wire};

/// Digests of what was packed (RFC 9530, and before it), which tell nothing true of what it becomes.
const DIGESTS: [HeaderName; 5] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("x-goog-hash"),
];
/// Those of S3, by which its clients check what they get.
const AMZ_CHECKSUM: &str = "x-amz-checksum-";

/// How an answer is looked through.
#[derive(Debug)]
pub struct Cover {
    pub(super) masker: Masker,
    /// Opens a body that is packed.
    pub(super) unpacker: Option<Unpacker>,
}

/// Why an answer that must be looked through cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// A range of something packed.
    #[error("a part of a compressed body cannot be looked through for the credential")]
    Part,
    /// A coding that is not known, in which the secret would not be found.
    #[error("a body in a coding that is not known cannot be looked through for the credential")]
    Unknown,
    /// More codings than are unpacked.
    #[error("a body that is compressed more than twice is not looked through for the credential")]
    Deep,
}

/// Asks for an answer that can be looked through, and costs little to unpack: of the codings of the client, only those with a small
/// window are left, and for a range, which could not be unpacked, none. With [`Mask::All`] nothing packed is asked for and no part
/// of anything: two of them could have a half of the secret each.
pub fn ask(mask: Mask, headers: &mut HeaderMap) {
    const TWIN: HeaderName = HeaderName::from_static("accept_encoding");
    let plain = match mask {
        Mask::Off => return,
        Mask::Text => headers.contains_key(RANGE),
        Mask::All => {
            for name in [RANGE, IF_RANGE, HeaderName::from_static("x-ms-range")] {
                headers.remove(name);
            }
            true
        }
    };
    headers.remove(TWIN);
    if plain {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    } else if headers.contains_key(ACCEPT_ENCODING) {
        let asked = cheap(headers);
        headers.insert(
            ACCEPT_ENCODING,
            HeaderValue::try_from(asked).unwrap_or(HeaderValue::from_static("identity")),
        );
    }
}

/// What a client takes of that which is cheap to unpack, in its own words: it gets what is not looked through as it comes.
fn cheap(headers: &HeaderMap) -> String {
    let values = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let pieces = values.flat_map(|value| value.split(',')).filter_map(|piece| {
        let piece = piece.trim();
        let (name, weight) = piece.split_once(';').unwrap_or((piece, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" | "deflate" | "identity" => Some(piece.to_owned()),
            "*" if weight.is_empty() => Some("gzip".to_owned()),
            "*" => Some(format!("gzip;{weight}")),
            _ => None,
        }
    });
    let asked = pieces.collect::<Vec<_>>().join(", ");
    if asked.is_empty() { "identity".to_owned() } else { asked }
}

/// Covers what is in the head of a response, and says how its body and its trailers are looked through; `None`: nothing is. A body
/// that will be unpacked is described as what it becomes. `ended`: it has none.
///
/// # Errors
///
/// It must be looked through, and cannot be.
pub fn cover(
    mask: Mask,
    needles: &Arc<Needles>,
    method: &Method,
    head: &mut Parts,
    wire: &mut Wire,
    ended: bool,
    transfer: &Transfer,
) -> Result<Option<Cover>, Closed> {
    if mask == Mask::Off {
        return Ok(None);
    }
    if cover_head(needles, &mut head.headers, wire) {
        transfer.note_reflected();
    }
    let wanted = mask == Mask::All || is_text(&head.headers);
    let has_body = !ended && *method != Method::HEAD && may_have_body(head.status);
    let unpacker = match if wanted && has_body { codings(&head.headers) } else { Some(Vec::new()) } {
        // Packed in a way that is not known, it has not the bytes that are looked for.
        None => return Err(Closed::Unknown),
        Some(codings) if codings.is_empty() => None,
        Some(_) if head.status == StatusCode::PARTIAL_CONTENT => return Err(Closed::Part),
        Some(codings) if codings.len() > CODINGS => return Err(Closed::Deep),
        Some(codings) => {
            describe_unpacked(&mut head.headers);
            Some(Unpacker::new(&codings))
        }
    };
    Ok(Some(Cover { masker: Masker::new(Arc::clone(needles), wanted), unpacker }))
}

/// Covers what is in fields, in how their names were spelled, and in the words behind the status; whether there was anything.
pub(super) fn cover_head(needles: &Needles, headers: &mut HeaderMap, wire: &mut Wire) -> bool {
    // As it was spelled, a name can have what it has not in small letters.
    let spelled = wire.spelling.iter().flat_map(Spelling::names);
    let spelled: Vec<_> = spelled.filter(|name| needles.are_in(name)).map(HeaderName::from_bytes).collect();
    for name in spelled.iter().flatten() {
        headers.remove(name);
    }
    let is_in_reason = wire.reason.as_ref().is_some_and(|reason| needles.are_in(reason.as_bytes()));
    if is_in_reason {
        wire.reason = None;
    }
    needles.cover_headers(headers) || is_in_reason || !spelled.is_empty()
}

/// RFC 9110 §6.4.1.
fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational() && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What was done to the body, in this order; `None` when something of it is not known.
fn codings(headers: &HeaderMap) -> Option<Vec<Coding>> {
    let mut all = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        for name in value.to_str().ok()?.split(',').map(str::trim) {
            // `aws-chunked` is a leftover of how it was stored, and says nothing of what comes.
            let says_nothing = ["", "identity", "aws-chunked"].iter().any(|it| name.eq_ignore_ascii_case(it));
            if !says_nothing {
                all.push(Coding::of(name)?);
            }
        }
    }
    Some(all)
}

/// The head of a body that will be unpacked (RFC 9110 §7.7): what was true of its packed bytes alone is not said any more, and a tag
/// that stood for them byte by byte becomes a weak one.
fn describe_unpacked(headers: &mut HeaderMap) {
    let is_gone = |name: &HeaderName| *name == CONTENT_ENCODING || *name == CONTENT_LENGTH || is_digest(name);
    *headers = hop::without(headers, is_gone);
    if let Some(tag) = headers.get_mut(ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) {
        let weak = [b"W/", tag.as_bytes()].concat();
        if let Ok(weak) = HeaderValue::from_bytes(&weak) {
            *tag = weak;
        }
    }
}

/// Whether it is a digest of what was packed, in a head or in trailers.
pub(super) fn is_digest(name: &HeaderName) -> bool {
    DIGESTS.contains(name) || name.as_str().starts_with(AMZ_CHECKSUM)
}

/// By its type: all but what is known to be no text. What does not say is taken for text, and so are answers in several parts.
fn is_text(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(kind) = types.next() else { return true };
    let kind = kind.to_str().unwrap_or_default();
    let kind: Cow<'_, str> = match kind.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => kind.to_ascii_lowercase().into(),
        false => kind.into(),
    };
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let (main, sub) = kind.split_once('/').unwrap_or(("text", ""));
    let sub_is = |begin: &str| {
        sub == begin || sub.strip_prefix(begin).is_some_and(|rest| rest.starts_with(['+', '-', '.']))
    };
    let is_binary = matches!(main, "image" | "audio" | "video" | "font" | "model" | "binary")
        || [
            "octet-stream",
            "zip",
            "gzip",
            "x-gzip",
            "zstd",
            "pdf",
            "grpc",
            "protobuf",
            "x-protobuf",
            "wasm",
            "x-tar",
        ]
        .into_iter()
        .any(sub_is)
        || [
            "x-7z-compressed",
            "x-bzip2",
            "x-xz",
            "java-archive",
            "vnd.rar",
            "vnd.docker.image.rootfs.diff.tar.gzip",
        ]
        .contains(&sub)
        || ["vnd.ms-", "vnd.openxmlformats-", "vnd.oci.image.layer."].iter().any(|it| sub.starts_with(it));
    // An image of text is one.
    !is_binary || sub.ends_with("+xml") || sub.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::credentials::{Attachment, Inject};

    #[test]
    fn heads_are_covered_and_bodies_looked_through_as_far_as_they_can_be_and_the_api_says() {
        let inject = Inject::bearer();
        let attachment = Attachment::of_token(inject, b"rk_live_0123456789");
        let needles = attachment.needles().unwrap();
        let looked = |mask, lines: &[(&'static str, &'static str)]| {
            let (mut head, ()) = http::Response::new(()).into_parts();
            head.headers.insert("x-got", HeaderValue::from_static("rk_live_0123456789"));
            for (name, value) in lines {
                head.headers.append(*name, HeaderValue::from_static(value));
            }
            let transfer = Transfer::default();
            let mut cover =
                cover(mask, needles, &Method::GET, &mut head, &mut Wire::default(), false, &transfer)
                    .unwrap();
            let body = bytes::Bytes::from_static(b"rk_live_0123456789");
            let looks = cover.as_mut().is_some_and(|cover| cover.masker.next(body, true).1);
            let covered = head.headers["x-got"] == "******************";
            assert_eq!(covered, transfer.is_reflected());
            (covered, looks)
        };
        let png = [("content-type", "image/png")];
        assert_eq!(looked(Mask::Text, &[("content-type", "text/plain")]), (true, true));
        assert_eq!(looked(Mask::Text, &png), (true, false));
        assert_eq!(looked(Mask::All, &png), (true, true));
        assert_eq!(looked(Mask::Off, &[]), (false, false));
        assert_eq!(looked(Mask::Text, &[("content-encoding", "gzip")]), (true, true));
        assert_eq!(looked(Mask::Text, &[("content-encoding", "identity")]), (true, true));
    }

    #[test]
    fn a_secret_behind_the_status_or_in_how_a_name_was_spelled_goes_and_what_is_none_stays() {
        let attachment = Attachment::of_token(Inject::bearer(), b"rk_Live_0123456789");
        let covered = |status_line: &str, line: &str| {
            let text = format!("HTTP/1.1 {status_line}\r\n{line}\r\nX-Kept: a\r\n\r\n");
            let head = crate::http1::head::response(&bytes::Bytes::from(text)).unwrap();
            let (mut headers, mut wire) = (head.headers, head.wire);
            let found = cover_head(attachment.needles().unwrap(), &mut headers, &mut wire);
            let mut out = bytes::BytesMut::new();
            crate::http1::head::write_status_line(
                &mut out,
                http::Version::HTTP_11,
                head.status,
                wire.reason.as_ref(),
            );
            crate::http1::head::write_fields(&mut out, &headers, wire.spelling.as_ref());
            (found, String::from_utf8(out.to_vec()).unwrap())
        };
        let kept = "X-Kept: a\r\n";
        let told = |status_line: &str, more: &str| format!("HTTP/1.1 {status_line}\r\n{more}{kept}");
        let fine = covered("200 Fine", "Rk_live: b");
        assert_eq!(fine, (false, told("200 Fine", "Rk_live: b\r\n")));
        assert_eq!(covered("200 got rk_Live_0123456789", "A: b"), (true, told("200 OK", "A: b\r\n")));
        assert_eq!(covered("200 OK", "rk_Live_0123456789: b"), (true, told("200 OK", "")));
    }

    /// What becomes of a head with these lines, and whether its body is unpacked.
    fn described(
        mask: Mask,
        method: &Method,
        status: u16,
        ended: bool,
        lines: &[(&'static str, &'static str)],
    ) -> Result<(Vec<String>, bool), Closed> {
        let attachment = Attachment::of_token(Inject::bearer(), b"rk_live_0123456789");
        let (mut head, ()) = http::Response::builder().status(status).body(()).unwrap().into_parts();
        for (name, value) in lines {
            head.headers.append(*name, HeaderValue::from_static(value));
        }
        let cover = cover(
            mask,
            attachment.needles().unwrap(),
            method,
            &mut head,
            &mut Wire::default(),
            ended,
            &Transfer::default(),
        )?;
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        let left = head.headers.iter().map(|(name, value)| format!("{name}: {}", text(value))).collect();
        Ok((left, cover.is_some_and(|cover| cover.unpacker.is_some())))
    }

    const PACKED: &[(&str, &str)] = &[
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
        ("content-length", "100"),
        ("etag", "\"a\""),
        ("content-digest", "sha-256=:a:"),
        ("content-md5", "a"),
        ("x-amz-checksum-crc32", "a"),
        ("vary", "accept-encoding"),
    ];

    #[test]
    fn a_head_whose_body_is_unpacked_says_nothing_that_was_true_of_the_packed_one_alone() {
        let (left, unpacked) = described(Mask::Text, &Method::GET, 200, false, PACKED).unwrap();
        assert!(unpacked);
        assert_eq!(left, ["content-type: application/json", "etag: W/\"a\"", "vary: accept-encoding"]);
        let weak = [("content-encoding", "br"), ("etag", "W/\"a\"")];
        assert_eq!(described(Mask::Text, &Method::GET, 404, false, &weak).unwrap().0, ["etag: W/\"a\""]);
    }

    #[test]
    fn an_answer_that_has_no_body_or_is_not_looked_through_keeps_its_head() {
        let as_it_was = |mask, method: &Method, status, ended, lines: &[(&'static str, &'static str)]| {
            let (left, unpacked) = described(mask, method, status, ended, lines).unwrap();
            let lines: Vec<_> = lines.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            assert_eq!((left, unpacked), (lines, false), "{method} {status}");
        };
        as_it_was(Mask::Text, &Method::HEAD, 200, false, PACKED);
        for status in [101, 103, 204, 304] {
            as_it_was(Mask::All, &Method::GET, status, false, PACKED);
        }
        as_it_was(Mask::All, &Method::GET, 200, true, PACKED);
        as_it_was(Mask::Off, &Method::GET, 200, false, PACKED);
        let png = [("content-type", "image/png"), ("content-encoding", "gzip")];
        as_it_was(Mask::Text, &Method::GET, 200, false, &png);
        as_it_was(Mask::Text, &Method::GET, 206, false, &png);
        assert!(described(Mask::All, &Method::GET, 200, false, &png).unwrap().1);
        as_it_was(
            Mask::Text,
            &Method::GET,
            200,
            false,
            &[("content-type", "image/png"), ("content-encoding", "dcb")],
        );
        as_it_was(Mask::Text, &Method::GET, 200, false, &[("content-encoding", "aws-chunked")]);
    }

    #[test]
    fn what_must_be_looked_through_and_cannot_be_does_not_go_on() {
        let refused = |status, lines: &[(&'static str, &'static str)]| {
            described(Mask::Text, &Method::GET, status, false, lines).unwrap_err()
        };
        assert_eq!(refused(206, PACKED), Closed::Part);
        assert_eq!(refused(200, &[("content-encoding", "gzip, br, zstd")]), Closed::Deep);
        for unknown in ["compress", "gzip, dcb", "aes128gcm, gzip"] {
            assert_eq!(refused(200, &[("content-encoding", unknown)]), Closed::Unknown, "{unknown}");
        }
        let lines = [("content-encoding", "gzip, br"), ("content-encoding", "gzip")];
        assert_eq!(refused(200, &lines), Closed::Deep);
        assert!(described(Mask::Text, &Method::GET, 200, false, &lines[..1]).unwrap().1);
    }

    #[test]
    fn codings_are_read_in_their_order_by_any_of_their_spellings() {
        let of = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(line));
            }
            codings(&headers)
        };
        assert_eq!(
            of(&["GZip, , Identity", "x-gzip,\tBR"]),
            Some(vec![Coding::Gzip, Coding::Gzip, Coding::Brotli])
        );
        assert_eq!(of(&["deflate", "zstd"]), Some(vec![Coding::Deflate, Coding::Zstd]));
        assert_eq!(of(&[]), Some(vec![]));
        for unknown in ["gzip;q=1", "gzip br", "x", "gzip, x"] {
            assert_eq!(of(&[unknown]), None, "{unknown}");
        }
    }

    #[test]
    fn what_is_asked_for_can_be_looked_through_and_costs_little() {
        let asked = |mask, codings: &'static str, range: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(codings));
            headers.insert("accept_encoding", HeaderValue::from_static("dcb"));
            if range {
                headers.insert(RANGE, HeaderValue::from_static("bytes=0-9"));
            }
            ask(mask, &mut headers);
            assert_eq!(headers.contains_key("accept_encoding"), mask == Mask::Off);
            assert_eq!(headers.contains_key(RANGE), range && mask != Mask::All);
            headers[ACCEPT_ENCODING].to_str().unwrap().to_owned()
        };
        for (codings, expected) in [
            ("gzip", "gzip"),
            ("br, zstd, x-gzip;q=0.5, Deflate", "x-gzip;q=0.5, Deflate"),
            ("*", "gzip"),
            ("br, *;q=0", "gzip;q=0"),
            ("dcb, br, zstd", "identity"),
            ("identity;q=0.1, br", "identity;q=0.1"),
            ("", "identity"),
        ] {
            assert_eq!(asked(Mask::Text, codings, false), expected, "{codings}");
        }
        assert_eq!(asked(Mask::Text, "gzip", true), "identity");
        assert_eq!(asked(Mask::All, "gzip", true), "identity");
        assert_eq!(asked(Mask::Off, "br", true), "br");
        let mut headers = HeaderMap::new();
        ask(Mask::Text, &mut headers);
        assert!(headers.is_empty(), "who asks for nothing gets what comes");
    }

    #[test]
    fn text_is_what_its_type_says_and_what_says_nothing() {
        let kind = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(text));
            is_text(&headers)
        };
        for text in [
            "text/plain",
            "text/event-stream",
            "Application/JSON; charset=utf-8",
            "application/vnd.api+json",
            "application/x-amz-json-1.0",
            "application/x-amz-cbor-1.1",
            "application/vnd.github.raw",
            "application/jwt",
            "multipart/byteranges; boundary=x",
            "multipart/mixed",
            "image/svg+xml",
            "application/json+x",
            "x",
        ] {
            assert!(kind(text), "{text}");
        }
        for other in [
            "application/octet-stream",
            "image/png",
            "application/grpc+proto",
            "video/mp4",
            "application/pdf",
        ] {
            assert!(!kind(other), "{other}");
        }
        assert!(is_text(&HeaderMap::new()));
    }
}
