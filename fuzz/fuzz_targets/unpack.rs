//! What an upstream packed: no panic on any bytes, pieces within their bound, and the same in pieces as in one.
//!
//! The first byte says the codings, the second one how long the pieces are.
//!
//! `cargo +nightly fuzz run unpack fuzz/corpus/unpack fuzz/seeds/unpack`

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use vouchsafe::http::unpack::{Coding, Next, PIECE, UnpackError, Unpacker};

const CODINGS: [&[Coding]; 8] = [
    &[Coding::Gzip],
    &[Coding::Deflate],
    &[Coding::Brotli],
    &[Coding::Zstd],
    &[Coding::Gzip, Coding::Brotli],
    &[Coding::Brotli, Coding::Zstd],
    &[Coding::Zstd, Coding::Deflate],
    &[Coding::Deflate, Coding::Gzip],
];
/// A bomb is not unpacked to its end.
const ENOUGH: usize = 1 << 20;

/// What comes out, up to a bound.
fn unpacked<'a>(codings: &[Coding], pieces: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, UnpackError> {
    let mut unpacker = Unpacker::new(codings);
    let mut out = Vec::new();
    for piece in pieces {
        unpacker.push(Bytes::copy_from_slice(piece));
        loop {
            match unpacker.next_piece()? {
                Next::Piece(piece) => {
                    assert!(!piece.is_empty() && piece.len() <= PIECE);
                    out.extend_from_slice(&piece);
                }
                Next::More => break,
                Next::Busy => {}
            }
            if out.len() >= ENOUGH {
                out.truncate(ENOUGH);
                return Ok(out);
            }
        }
    }
    unpacker.end().map(|()| out)
}

fuzz_target!(|bytes: &[u8]| {
    let [codings, length, packed @ ..] = bytes else { return };
    let codings = CODINGS[usize::from(*codings) % CODINGS.len()];
    let whole = unpacked(codings, std::iter::once(packed));
    let piecewise = unpacked(codings, packed.chunks(usize::from(*length).max(1)));
    assert_eq!(whole.is_ok(), piecewise.is_ok());
    if let (Ok(whole), Ok(piecewise)) = (whole, piecewise) {
        assert_eq!(whole, piecewise);
    }
});
