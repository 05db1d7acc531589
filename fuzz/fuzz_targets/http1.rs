//! The reader of HTTP/1: no panic on any bytes, the same message in every division into pieces, and a head that is written as it was read
//! is read as the same.
//!
//! `cargo +nightly fuzz run http1 fuzz/corpus/http1 fuzz/seeds/http1`

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use vouchsafe::http1::framing::{Framing, Message, Part};
use vouchsafe::http1::head;

/// The parts of all messages, neighbours of one kind as one; and where the first fault is.
fn parts(message: Message, pieces: &[&[u8]]) -> (Vec<(Part, usize)>, Option<(String, usize)>) {
    let mut framing = Framing::new(message);
    let (mut parts, mut before) = (Vec::new(), 0);
    for piece in pieces {
        let mut at = 0;
        while at < piece.len() {
            if framing.is_over() {
                framing.begin();
            }
            match framing.step(&piece[at..]) {
                Err(found) => return (parts, Some((found.fault.to_string(), before + at + found.at))),
                Ok((part, taken)) => {
                    assert!(taken > 0 && taken <= piece.len() - at);
                    at += taken;
                    match parts.last_mut() {
                        Some((last, length)) if *last == part => *length += taken,
                        _ => parts.push((part, taken)),
                    }
                }
            }
        }
        before += piece.len();
    }
    (parts, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, bytes)) = bytes.split_first() else { return };
    let cut = usize::from(*first).min(bytes.len());
    for message in [Message::Requests, Message::Responses] {
        let (_, whole) = parts(message, &[bytes]);
        let (_, cut) = parts(message, &[&bytes[..cut], &bytes[cut..]]);
        assert_eq!(whole, cut);
    }
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = (head::response(&bytes), head::trailers(&bytes), head::plausible(&bytes, true));
    let Ok(read) = head::request(&bytes, 256) else { return };
    let mut out = BytesMut::new();
    head::write_request_line(&mut out, &read.method, &read.uri.to_string());
    head::write_fields(&mut out, &read.headers, read.spelling.as_ref());
    out.extend_from_slice(b"\r\n");
    let again = head::request(&out.freeze(), 256);
    assert!(again.is_ok_and(|again| again.headers == read.headers && again.method == read.method));
});
