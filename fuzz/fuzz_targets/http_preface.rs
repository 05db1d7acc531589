//! The recognition of HTTP: no panic on any bytes, and the first answer is the last.
//!
//! `cargo +nightly fuzz run http_preface fuzz/corpus/http_preface fuzz/seeds/http_preface`

#![no_main]

use libfuzzer_sys::fuzz_target;
use vouchsafe::sniff::Progress;
use vouchsafe::sniff::http::parse;

fuzz_target!(|bytes: &[u8]| {
    let mut decided = None;
    for length in 0..=bytes.len().min(64) {
        let answer = parse(&bytes[..length]);
        match &decided {
            Some(decided) => assert_eq!(decided, &answer),
            None if answer != Progress::More => decided = Some(answer),
            None => {}
        }
    }
});
