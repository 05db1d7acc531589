//! What the Security Token Service of AWS answers: no panic on any bytes; keys go into headers as they are; only known codes are told.
//!
//! `cargo +nightly fuzz run sts_answer fuzz/corpus/sts_answer fuzz/seeds/sts_answer`

#![no_main]

use libfuzzer_sys::fuzz_target;
use vouchsafe::credentials::sts_answers::{aws_error, aws_keys};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(keys) = aws_keys(bytes) {
        let visible = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
        assert!(visible(keys.id.as_bytes()) && !keys.id.contains('/'));
        assert!(visible(keys.secret.expose()) && visible(keys.session_token.expose()));
    }
    assert!(aws_error(bytes).is_none_or(|code| code.len() < 40));
});
