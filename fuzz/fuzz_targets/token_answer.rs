//! What a token endpoint answers: no panic on any bytes; a token goes into a header as it is and lasts for a while; a refusal is told
//! in bounded, visible characters.
//!
//! `cargo +nightly fuzz run token_answer fuzz/corpus/token_answer fuzz/seeds/token_answer`

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vouchsafe::credentials::answers::{refresh_token, token_answer, token_refusal};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(answer) = token_answer(bytes) {
        let token = answer.access.token.expose();
        assert!(!token.is_empty() && token.iter().all(u8::is_ascii_graphic));
        assert!(answer.access.lasts.is_none_or(|it| !it.is_zero() && it <= Duration::from_secs(86_400)));
    }
    assert!(refresh_token(bytes).is_ok_and(|it| it.is_none_or(|it| !it.is_empty())) || refresh_token(bytes).is_err());
    let refusal = token_refusal(bytes);
    let plain = |text: &str| text.len() <= 200 && text.bytes().all(|it| it.is_ascii_graphic() || it == b' ');
    assert!(refusal.description.as_deref().is_none_or(plain));
});
