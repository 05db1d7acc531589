//! What is packed comes out as it went in, however it is cut; what is not sound ends with an error, in bounded memory.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use proptest::prelude::*;

use super::*;

/// As servers pack: with a flush after each of these pieces.
pub(crate) fn packed(coding: Coding, pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    match coding {
        Coding::Gzip => flushed(
            GzEncoder::new(Vec::new(), Compression::new(6)),
            pieces,
            |encoder| {
                encoder.flush().unwrap();
                encoder.get_ref().clone()
            },
            |encoder| encoder.finish().unwrap(),
        ),
        Coding::Deflate => flushed(
            ZlibEncoder::new(Vec::new(), Compression::new(6)),
            pieces,
            |encoder| {
                encoder.flush().unwrap();
                encoder.get_ref().clone()
            },
            |encoder| encoder.finish().unwrap(),
        ),
        Coding::Brotli => brotli_packed(pieces, 22, false),
        Coding::Zstd => zstd_packed(pieces, 19),
    }
}

/// What each flush adds, and the end.
fn flushed<E: std::io::Write>(
    mut encoder: E,
    pieces: &[&[u8]],
    flush: impl Fn(&mut E) -> Vec<u8>,
    finish: impl Fn(E) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let (mut parts, mut before) = (Vec::new(), 0);
    for piece in pieces {
        encoder.write_all(piece).unwrap();
        let all = flush(&mut encoder);
        parts.push(all[before..].to_vec());
        before = all.len();
    }
    parts.push(finish(encoder)[before..].to_vec());
    parts
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn brotli_packed(pieces: &[&[u8]], window: i32, large: bool) -> Vec<Vec<u8>> {
    let parameters = brotli::enc::BrotliEncoderParams {
        quality: 5,
        lgwin: window,
        large_window: large,
        ..Default::default()
    };
    let encoder = brotli::CompressorWriter::with_params(Vec::new(), 4096, &parameters);
    flushed(
        encoder,
        pieces,
        |encoder| {
            encoder.flush().unwrap();
            encoder.get_ref().clone()
        },
        |encoder| encoder.into_inner(),
    )
}

fn zstd_packed(pieces: &[&[u8]], window_log: u32) -> Vec<Vec<u8>> {
    use zstd_safe::{CCtx, CParameter};
    let mut context = CCtx::create();
    context.set_parameter(CParameter::WindowLog(window_log)).unwrap();
    context.set_parameter(CParameter::ChecksumFlag(true)).unwrap();
    let room = 1 << 20;
    let mut parts = Vec::new();
    for piece in pieces {
        let mut part = Vec::with_capacity(room + piece.len());
        let (mut from, mut to) = (InBuffer::around(piece), OutBuffer::around(&mut part));
        while from.pos() < piece.len() {
            context.compress_stream(&mut to, &mut from).unwrap();
        }
        while context.flush_stream(&mut to).unwrap() > 0 {}
        parts.push(part);
    }
    let mut part = Vec::with_capacity(room);
    while context.end_stream(&mut OutBuffer::around(&mut part)).unwrap() > 0 {}
    parts.push(part);
    parts
}

pub(crate) const ALL: [Coding; 4] = [Coding::Gzip, Coding::Deflate, Coding::Brotli, Coding::Zstd];

/// All that comes of these pieces.
fn unpacked<T: AsRef<[u8]>>(codings: &[Coding], pieces: &[T]) -> Result<Vec<u8>, UnpackError> {
    let mut unpacker = Unpacker::new(codings);
    let mut out = Vec::new();
    for piece in pieces {
        unpacker.push(Bytes::copy_from_slice(piece.as_ref()));
        out.extend(drained(&mut unpacker)?);
    }
    let whole = unpacker.is_whole();
    let end = unpacker.end();
    assert_eq!(whole, end.is_ok());
    end.map(|()| out)
}

/// All that comes until more input is wanted.
fn drained(unpacker: &mut Unpacker) -> Result<Vec<u8>, UnpackError> {
    let mut out = Vec::new();
    loop {
        match unpacker.next_piece()? {
            Next::Piece(piece) => {
                assert!(!piece.is_empty() && piece.len() <= PIECE);
                out.extend_from_slice(&piece);
            }
            Next::More => return Ok(out),
            Next::Busy => {}
        }
    }
}

/// Bytes that do not pack well, and such that do.
fn mixed(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = |at: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if (at / 4096).is_multiple_of(2) { (state >> 24) as u8 } else { b"what packs well "[at % 16] }
    };
    (0..length).map(&mut next).collect()
}

#[test]
fn what_was_packed_comes_out_as_it_went_in() {
    let text = mixed(300_000);
    for coding in ALL {
        assert_eq!(unpacked(&[coding], &[packed(coding, &[&text]).concat()]).unwrap(), text, "{coding}");
    }
    assert_eq!(unpacked(&[Coding::Deflate], &[raw_deflate(&text)]).unwrap(), text);
}

#[test]
fn each_event_of_a_stream_comes_out_before_the_next_one_comes_in() {
    let events: Vec<String> = (0..50).map(|number| format!("data: {{\"number\": {number}}}\n\n")).collect();
    let pieces: Vec<&[u8]> = events.iter().map(String::as_bytes).collect();
    for coding in ALL {
        let mut unpacker = Unpacker::new(&[coding]);
        for (event, part) in events.iter().zip(packed(coding, &pieces)) {
            unpacker.push(part.into());
            assert_eq!(drained(&mut unpacker).unwrap(), event.as_bytes(), "{coding}");
        }
    }
}

#[test]
fn two_codings_are_undone_in_the_opposite_order_and_events_still_come_at_once() {
    let events = [&b"data: one\n\n"[..], b"data: two\n\n", b"data: three\n\n"];
    for inner in ALL {
        for outer in ALL {
            let parts = packed(inner, &events);
            let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
            let parts = packed(outer, &parts);
            let mut unpacker = Unpacker::new(&[inner, outer]);
            for (event, part) in events.iter().zip(&parts) {
                unpacker.push(part.clone().into());
                assert_eq!(drained(&mut unpacker).unwrap(), *event, "{inner} in {outer}");
            }
            assert_eq!(unpacked(&[inner, outer], &parts).unwrap(), events.concat());
            if inner != outer {
                assert!(unpacked(&[outer, inner], &parts).is_err());
            }
        }
    }
}

#[test]
fn what_ends_early_is_not_whole_wherever_it_ends() {
    let text = mixed(9_000);
    for coding in ALL {
        let all = packed(coding, &[&text[..4_000], &text[4_000..]]).concat();
        for length in 1..all.len() {
            assert_eq!(
                unpacked(&[coding], &[&all[..length]]).unwrap_err(),
                UnpackError::Short(coding),
                "{coding} {length}"
            );
        }
    }
    // The outer one is whole, the inner one is not.
    let inner = packed(Coding::Gzip, &[&text]).concat();
    let both = packed(Coding::Brotli, &[&inner[..inner.len() - 1]]).concat();
    let short = unpacked(&[Coding::Gzip, Coding::Brotli], &[both]);
    assert_eq!(short.unwrap_err(), UnpackError::Short(Coding::Gzip));
}

#[test]
fn what_is_damaged_ends_with_an_error_that_stays() {
    let text = mixed(9_000);
    for coding in ALL {
        let mut all = packed(coding, &[&text]).concat();
        let (last, middle) = (all.len() - 1, all.len() / 2);
        // Brotli has no checksum.
        if coding != Coding::Brotli {
            all[middle] ^= 0x55;
            assert!(unpacked(&[coding], &[&all]).is_err(), "{coding}");
            all[middle] ^= 0x55;
            all[last] ^= 1;
            assert!(unpacked(&[coding], &[&all]).is_err(), "{coding}: its checksum");
        }
        let mut unpacker = Unpacker::new(&[coding]);
        unpacker.push(Bytes::from_static(&[0xff; 64]));
        assert_eq!(drained(&mut unpacker), Err(UnpackError::Damaged(coding)), "{coding}");
        assert_eq!(drained(&mut unpacker), Err(UnpackError::Damaged(coding)), "{coding}: again");
        assert_eq!(unpacker.end(), Err(UnpackError::Damaged(coding)));
        assert!(!unpacker.is_whole());
    }
}

#[test]
fn what_follows_the_end_is_refused_unless_it_is_another_of_its_kind() {
    let text = b"a text that is packed";
    for coding in ALL {
        let one = packed(coding, &[text]).concat();
        for more in [&b"\0"[..], b"garbage that is long enough"] {
            for pieces in [vec![[&one, more].concat()], vec![one.clone(), more.to_vec()]] {
                assert!(unpacked(&[coding], &pieces).is_err(), "{coding} {more:?}");
            }
        }
        for pieces in [vec![one.repeat(3)], vec![one.clone(), one.clone(), one.clone()]] {
            match unpacked(&[coding], &pieces) {
                Ok(out) => assert_eq!((out, coding.is_repeated()), (text.repeat(3), true), "{coding}"),
                Err(error) => {
                    assert_eq!((error, coding.is_repeated()), (UnpackError::Trailing(coding), false));
                }
            }
        }
    }
}

#[test]
fn nothing_is_whole_whatever_it_is_said_to_be() {
    for coding in ALL {
        assert_eq!(unpacked::<&[u8]>(&[coding], &[]), Ok(Vec::new()));
        assert_eq!(unpacked(&[coding, Coding::Gzip], &[b"", b""]), Ok(Vec::new()));
    }
}

#[test]
fn a_bomb_comes_out_in_small_pieces_and_takes_no_more_input_meanwhile() {
    let zeros = vec![0; 32 << 20];
    for coding in ALL {
        let bomb = packed(coding, &[&zeros]).concat();
        assert!(bomb.len() < 64 * 1024, "{coding}");
        let twice = packed(Coding::Gzip, &[&bomb]).concat();
        for (codings, bomb) in [(vec![coding], bomb), (vec![coding, Coding::Gzip], twice)] {
            let mut unpacker = Unpacker::new(&codings);
            unpacker.push(bomb.into());
            let (mut length, mut pieces) = (0, 0);
            loop {
                match unpacker.next_piece().unwrap() {
                    Next::Piece(piece) => {
                        length += piece.len();
                        pieces += 1;
                        let held: usize = unpacker.stages.iter().skip(1).map(|it| it.input.len()).sum();
                        assert!(held <= 16_384 && piece.len() <= 16_384);
                    }
                    Next::More => break,
                    Next::Busy => {}
                }
            }
            assert_eq!(length, zeros.len());
            assert!(pieces >= zeros.len() / PIECE);
            assert_eq!(unpacker.end(), Ok(()));
        }
    }
}

#[test]
fn much_that_makes_nothing_lets_others_have_their_turn() {
    let nothing = packed(Coding::Gzip, &[b""]).concat().repeat(1000);
    let mut unpacker = Unpacker::new(&[Coding::Gzip]);
    unpacker.push(nothing.into());
    let mut turns = 0;
    while unpacker.next_piece().unwrap() == Next::Busy {
        turns += 1;
    }
    assert!(turns >= 60, "{turns}");
    assert_eq!(unpacker.end(), Ok(()));
}

#[test]
fn windows_that_want_more_memory_than_a_body_may_have_are_refused() {
    let text = mixed(100);
    let zstd = |log| unpacked(&[Coding::Zstd], &zstd_packed(&[&text], log));
    assert_eq!(zstd(23), Ok(text.clone()));
    assert_eq!(zstd(24), Err(UnpackError::Damaged(Coding::Zstd)));
    let brotli = |log, large| unpacked(&[Coding::Brotli], &brotli_packed(&[&text], log, large));
    assert_eq!(brotli(24, false), Ok(text.clone()));
    assert_eq!(brotli(25, true), Err(UnpackError::Damaged(Coding::Brotli)));
}

#[test]
fn deflate_is_read_with_its_frame_and_without_also_when_its_first_byte_comes_alone() {
    for text in [&b""[..], b"x", b"some text, and some text again"] {
        let mut framed = ZlibEncoder::new(Vec::new(), Compression::new(9));
        framed.write_all(text).unwrap();
        for all in [framed.finish().unwrap(), raw_deflate(text)] {
            let bytes: Vec<&[u8]> = all.chunks(1).collect();
            assert_eq!(unpacked(&[Coding::Deflate], &bytes).unwrap(), text);
            assert_eq!(unpacked(&[Coding::Deflate], &[&all]).unwrap(), text);
        }
    }
}

#[test]
fn the_frame_of_deflate_is_told_by_its_first_two_bytes() {
    for (one, two) in [(0x78, 0x01), (0x78, 0x5e), (0x78, 0x9c), (0x78, 0xda), (0x08, 0x1d)] {
        assert!(is_zlib(one, two), "{one:x} {two:x}");
    }
    for (one, two) in [(0x78, 0x9d), (0x79, 0x9c), (0x88, 0x1c), (0x03, 0x00), (0x4b, 0x04)] {
        assert!(!is_zlib(one, two), "{one:x} {two:x}");
    }
}

proptest! {
    #[test]
    fn unpacking_in_pieces_is_unpacking_the_whole(
        text in prop::collection::vec(any::<u8>(), 0..600),
        repeat in 1..60_usize,
        inner in 0..4_usize,
        outer in prop::option::of(0..4_usize),
        cuts in prop::collection::vec(0..4000_usize, 0..20),
        harm in prop::option::of((0..4000_usize, any::<u8>())),
    ) {
        let text = text.repeat(repeat);
        let mut codings = vec![ALL[inner]];
        let mut all = packed(ALL[inner], &[&text]).concat();
        if let Some(outer) = outer {
            codings.push(ALL[outer]);
            all = packed(ALL[outer], &[&all]).concat();
        }
        let harmed = harm.filter(|(at, _)| *at < all.len());
        if let Some((at, by)) = harmed {
            all[at] ^= by;
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(all.len())).chain([0, all.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &all[pair[0]..pair[1]]).collect();
        let (whole, piecewise) = (unpacked(&codings, &[&all]), unpacked(&codings, &pieces));
        prop_assert!(harmed.is_some() || whole.as_ref() == Ok(&text));
        prop_assert_eq!(whole.is_ok(), piecewise.is_ok());
        if let (Ok(whole), Ok(piecewise)) = (whole, piecewise) {
            prop_assert_eq!(whole, piecewise);
        }
    }
}

#[test]
fn a_window_counts_by_what_it_may_take() {
    // RFC 7932 §9.1: 16, 17, 18, 20, 22, 24 bits.
    for (first, mib) in [(0b0, 1), (0b0000_0001, 1), (0b0011, 1), (0b0111, 1), (0b1011, 4), (0b1111, 16)] {
        assert_eq!(Coding::Brotli.window_mib(first), mib, "{first:b}");
    }
    assert_eq!((Coding::Zstd.window_mib(0x28), Coding::Gzip.window_mib(0x1f)), (8, 0));
}
