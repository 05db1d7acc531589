//! What AWS answers about keys, and an access key as it is kept: no panic on any bytes; keys go into headers as they are; only known codes
//! are told.
//!
//! `cargo +nightly fuzz run sts_answer fuzz/corpus/sts_answer fuzz/seeds/sts_answer`

#![no_main]

use libfuzzer_sys::fuzz_target;
use vouchsafe::credentials::access_key::AccessKey;
use vouchsafe::credentials::sts_answers::{aws_access_key, aws_error, aws_keys};

fn visible(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_graphic)
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(keys) = aws_keys(bytes) {
        assert!(visible(keys.id.as_bytes()) && !keys.id.contains('/'));
        assert!(visible(keys.secret.expose()) && visible(keys.session_token.expose()));
    }
    for key in [aws_access_key(bytes).ok(), AccessKey::read(bytes).ok()].into_iter().flatten() {
        assert!(visible(key.id.as_bytes()) && !key.id.contains('/') && visible(key.secret.expose()));
        // What is kept of it is read as it was.
        let again = AccessKey::read(key.text().expose()).ok();
        assert!(again.is_some_and(|again| again.id == key.id && again.secret.expose() == key.secret.expose()));
    }
    assert!(aws_error(bytes).is_none_or(|code| code.len() < 40));
});
