//! Which answers are looked through for the secret that was sent, and how.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use http::response::Parts;
use proxy_policy::Mask;

use super::body::Transfer;
use crate::credentials::{Masker, Needles};

/// Covers what is in the head of a response, and says how its body and its trailers are looked through; `None`: nothing is.
#[must_use]
pub fn cover(mask: Mask, needles: &Arc<Needles>, head: &mut Parts, transfer: &Transfer) -> Option<Masker> {
    if mask == Mask::Off {
        return None;
    }
    if needles.cover_headers(&mut head.headers) {
        transfer.note_reflected();
    }
    // Compressed, it has not the bytes that are looked for.
    let looked_through = !is_encoded(&head.headers) && (mask == Mask::All || is_text(&head.headers));
    Some(Masker::new(Arc::clone(needles), looked_through))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|it| !it.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// By its type; what does not say is taken for text.
fn is_text(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let Some(kind) = types.next() else { return true };
    let kind = kind.to_str().unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let (main, sub) = kind.split_once('/').unwrap_or(("text", ""));
    main == "text"
        || matches!(
            sub,
            "json"
                | "xml"
                | "javascript"
                | "ndjson"
                | "x-ndjson"
                | "jsonl"
                | "graphql"
                | "yaml"
                | "x-yaml"
                | "problem+json"
                | "x-www-form-urlencoded"
        )
        || sub.ends_with("+json")
        || sub.ends_with("+xml")
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
            let mut masker = cover(mask, needles, &mut head, &transfer);
            let body = bytes::Bytes::from_static(b"rk_live_0123456789");
            let looks = masker.as_mut().is_some_and(|masker| masker.next(body, true).1);
            let covered = head.headers["x-got"] == "******************";
            assert_eq!(covered, transfer.is_reflected());
            (covered, looks)
        };
        let png = [("content-type", "image/png")];
        assert_eq!(looked(Mask::Text, &[("content-type", "text/plain")]), (true, true));
        assert_eq!(looked(Mask::Text, &png), (true, false));
        assert_eq!(looked(Mask::All, &png), (true, true));
        assert_eq!(looked(Mask::Off, &[]), (false, false));
        assert_eq!(looked(Mask::All, &[("content-encoding", "gzip")]), (true, false));
        assert_eq!(looked(Mask::Text, &[("content-encoding", "identity")]), (true, true));
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
            "x",
        ] {
            assert!(kind(text), "{text}");
        }
        for other in
            ["application/octet-stream", "image/png", "application/grpc", "video/mp4", "application/json+x"]
        {
            assert!(!kind(other), "{other}");
        }
        assert!(is_text(&HeaderMap::new()));
    }
}
