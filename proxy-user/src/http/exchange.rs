//! A body that is read as a whole to have what stands for a placeholder put into it.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http_body::Body as _;
use tokio::sync::Semaphore;

use super::body::Replay;
use super::seen;
use super::taps::RequestTap;
use crate::credentials::{Misplaced, Stand, Textual};

/// The most bytes of a body that is looked through.
const MOST: usize = 1 << 20;

/// Puts it into the body, and writes the new length down.
///
/// # Errors
/// The body is none that a placeholder can stand in, does not come within `time`, or has it not exactly once.
pub async fn fill(
    stand: &Stand,
    headers: &mut HeaderMap,
    body: &mut Replay,
    tap: Option<&RequestTap>,
    time: Duration,
) -> Result<(), Misplaced> {
    let textual = textual(headers).map_err(Misplaced::Body)?;
    let read = tokio::time::timeout(time, seen::read(body, MOST)).await;
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(proxy_policy::BodyFault::TooLarge { .. })) => {
            return Err(Misplaced::Body("it is larger than 1 MiB"));
        }
        Ok(Err(_)) | Err(_) => return Err(Misplaced::Body("it did not come whole, or not in time")),
    };
    // As the client sent it, and not with the secret in it.
    tap.iter().for_each(|tap| tap.push(0, &bytes));
    let data = stand.in_body(&bytes, textual)?;
    if headers.contains_key(CONTENT_LENGTH) {
        headers.insert(CONTENT_LENGTH, data.len().into());
    }
    body.exchange(data);
    Ok(())
}

/// What all bodies have together that are signed as a whole and under way, in MiB. Those that wait are not read.
const ROOM_MIB: usize = 256;
static ROOM: Semaphore = Semaphore::const_new(ROOM_MIB);

/// What a signature covers of a body: all of it, which must come within `time`.
///
/// # Errors
/// It is larger than `most` bytes, or does not come.
pub async fn whole(body: &mut Replay, most: usize, time: Duration) -> Result<Bytes, Misplaced> {
    let announced =
        body.size_hint().exact().map_or(most, |size| usize::try_from(size).unwrap_or(most).min(most));
    let mib = u32::try_from(announced.div_ceil(1 << 20)).unwrap_or(u32::MAX);
    let room = tokio::time::timeout(time, ROOM.acquire_many(mib)).await;
    let room = room.ok().and_then(Result::ok);
    let room = room.ok_or(Misplaced::Crowded)?;
    body.hold(room);
    match tokio::time::timeout(time, seen::read(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(proxy_policy::BodyFault::TooLarge { .. })) => {
            Err(Misplaced::Unsigned("its body is larger than what is signed as a whole, 16 MiB"))
        }
        Ok(Err(_)) | Err(_) => Err(Misplaced::Unsigned("its body did not come whole, or not in time")),
    }
}

/// How the body spells things, by its headers: servers go by the same.
fn textual(headers: &HeaderMap) -> Result<Textual, &'static str> {
    let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.contains_key("content_encoding") || !headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Err("it is compressed");
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let kind = match (types.next().and_then(|it| it.to_str().ok()), types.next()) {
        (Some(one), None) if !headers.contains_key("content_type") => one.to_ascii_lowercase(),
        _ => return Err("it does not say of which type it is"),
    };
    match kind.split(';').next().unwrap_or_default().trim() {
        "application/x-www-form-urlencoded" => Ok(Textual::Form),
        "application/json" => Ok(Textual::Json),
        other if other.starts_with("application/") && other.ends_with("+json") => Ok(Textual::Json),
        _ => Err("it is neither JSON nor a form"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_body_is_its_headers_say_once() {
        let kind = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, http::HeaderValue::from_static(value));
            }
            textual(&headers)
        };
        assert_eq!(kind(&[("content-type", "application/json; charset=utf-8")]), Ok(Textual::Json));
        assert_eq!(kind(&[("content-type", "application/vnd.api+json")]), Ok(Textual::Json));
        assert_eq!(kind(&[("content-type", "Application/X-WWW-Form-Urlencoded")]), Ok(Textual::Form));
        for bad in [
            &[][..],
            &[("content-type", "application/octet-stream")],
            &[("content-type", "application/json"), ("content-type", "text/plain")],
            &[("content-type", "application/json"), ("content_type", "text/plain")],
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
        ] {
            assert!(kind(bad).is_err(), "{bad:?}");
        }
    }
}
