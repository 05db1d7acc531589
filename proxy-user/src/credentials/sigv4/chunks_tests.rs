//! As the documentation of the store of objects has it, and with all that a client could send.

use proptest::prelude::*;
use time::macros::datetime;

use super::super::super::secret::Secret;
use super::super::{Scope, Stamp, scope_text, signing_key};
use super::*;

const SECRET: &[u8] = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// What a client signs with that has no keys.
const NONE: &str = "0000000000000000000000000000000000000000000000000000000000000000";

fn chunks(seed: &str, trailers: bool) -> Chunks {
    let stamp = Stamp::of(datetime!(2013-05-24 00:00:00 UTC));
    let scope = Scope { region: "us-east-1".into(), service: "s3".into() };
    let key = signing_key(&Secret::new(SECRET.to_vec()), &stamp, &scope);
    let scope = scope_text(&stamp, &scope);
    Chunks::new(Start { key, stamp, scope, signature: seed.to_owned(), trailers })
}

/// As a client sends the example of the documentation, with these signatures.
fn body(signatures: [&str; 3], trailers: Option<&str>) -> Vec<u8> {
    let mut out = Vec::new();
    for (length, signature) in [65536, 1024, 0].into_iter().zip(signatures) {
        out.extend(format!("{length:x};chunk-signature={signature}\r\n").into_bytes());
        out.extend(vec![b'a'; length]);
        if length > 0 || trailers.is_none() {
            out.extend(b"\r\n");
        }
    }
    if let Some(signature) = trailers {
        let line = "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:";
        out.extend(format!("{line}{signature}\r\n\r\n").into_bytes());
    }
    out
}

fn through(chunks: &mut Chunks, bytes: &[u8], piece: usize) -> Result<Vec<u8>, ChunkError> {
    let mut out = Vec::new();
    for piece in bytes.chunks(piece) {
        out.extend_from_slice(&chunks.feed(piece)?);
    }
    chunks.finish()?;
    Ok(out)
}

/// Amazon S3 API reference, "Transferring payload in multiple chunks", "Example: PUT Object".
#[test]
fn chunks_are_signed_as_the_documentation_has_it() {
    let seed = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9";
    let signatures = [
        "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ];
    for piece in [1, 7, 8191, 70_000] {
        let signed = through(&mut chunks(seed, false), &body([NONE; 3], None), piece).unwrap();
        assert!(signed == body(signatures, None), "in pieces of {piece}");
    }
}

/// Amazon S3 API reference, "Signature calculations for trailing headers", "Example: PUT Object".
#[test]
fn trailers_are_signed_as_the_documentation_has_it() {
    let seed = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e";
    let signatures = [
        "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
        "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
        "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
    ];
    let last = "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435";
    for piece in [1, 5, 70_000] {
        let signed = through(&mut chunks(seed, true), &body([NONE; 3], Some(NONE)), piece).unwrap();
        assert!(signed == body(signatures, Some(last)), "in pieces of {piece}");
    }
}

#[test]
fn what_is_not_chunked_so_is_refused() {
    let zero = format!("0;chunk-signature={NONE}\r\n");
    for (bytes, error) in [
        (format!("5;chunk-signature={NONE}\r\nhello\r\n"), ChunkError::Incomplete),
        (format!("5;chunk-signature={NONE}\r\nhel"), ChunkError::Incomplete),
        (String::new(), ChunkError::Incomplete),
        (format!("5;chunk-signature={NONE}\r\nhelloxx{zero}\r\n"), ChunkError::Malformed),
        (format!("5;chunk-signature={}\r\nhello\r\n", &NONE[1..]), ChunkError::Malformed),
        (format!("-5;chunk-signature={NONE}\r\nhello\r\n"), ChunkError::Malformed),
        (format!(";chunk-signature={NONE}\r\nhello\r\n"), ChunkError::Malformed),
        (format!("5;chunk-signature={NONE}\nhello\r\n"), ChunkError::Malformed),
        ("5\r\nhello\r\n0\r\n\r\n".to_owned(), ChunkError::Malformed),
        (format!("{zero}\r\nmore"), ChunkError::Malformed),
        ("x".repeat(400), ChunkError::Malformed),
        (format!("200001;chunk-signature={NONE}\r\n"), ChunkError::TooLarge),
        (format!("ffffffffffffffffff;chunk-signature={NONE}\r\n"), ChunkError::Malformed),
    ] {
        for piece in [1, 1000] {
            let said = through(&mut chunks(NONE, false), bytes.as_bytes(), piece);
            assert_eq!(said.err(), Some(error), "{bytes}");
        }
    }
    for bad in ["a:b\r\n\r\n", "\r\n", "x-amz-trailer-signature:1\r\n\r\n", "nonsense\r\n"] {
        let bytes = format!("{zero}{bad}");
        assert!(through(&mut chunks(NONE, true), bytes.as_bytes(), 3).is_err(), "{bad}");
    }
    let endless = format!("{zero}{}", "a:b\r\n".repeat(4000));
    assert_eq!(through(&mut chunks(NONE, true), endless.as_bytes(), 100).err(), Some(ChunkError::Malformed));
}

proptest! {
    #[test]
    fn pieces_do_not_matter_and_lengths_stay(sizes in prop::collection::vec(1usize..300, 0..6), piece in 1usize..200) {
        let mut bytes = Vec::new();
        for (size, fill) in sizes.iter().chain(&[0]).zip(0u8..) {
            bytes.extend(format!("{size:x};chunk-signature={NONE}\r\n").into_bytes());
            bytes.extend(vec![fill; *size]);
            bytes.extend(b"\r\n");
        }
        let whole = through(&mut chunks(NONE, false), &bytes, bytes.len()).unwrap();
        prop_assert_eq!(whole.len(), bytes.len());
        prop_assert_eq!(through(&mut chunks(NONE, false), &bytes, piece).unwrap(), whole);
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes: Vec<u8>, trailers: bool) {
        let _ = through(&mut chunks(NONE, trailers), &bytes, 5);
    }
}
