//! What HashiCorp Vault or OpenBao answers: no panic on any bytes; a token goes into a header as it is, a lease lasts for a while, fields
//! are bounded, and a refusal is told in known words.
//!
//! `cargo +nightly fuzz run hashicorp_answer fuzz/corpus/hashicorp_answer fuzz/seeds/hashicorp_answer`

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vouchsafe::credentials::MAX_SECRET_BYTES;
use vouchsafe::credentials::hashicorp::answers::{
    Shape, is_deleted, known_token, login, mount, refusal, renewed_lease, renewed_token, secret, secret_id,
};

fuzz_target!(|bytes: &[u8]| {
    let lasts = |it: Option<Duration>| it.is_none_or(|it| !it.is_zero() && it <= Duration::from_secs(86_400));
    for shape in [Shape::Plain, Shape::Versioned, Shape::Either] {
        let Ok(answer) = secret(bytes, shape) else { continue };
        assert!(answer.fields.len() <= 1000);
        assert!(answer.fields.values().flatten().all(|text| text.len() <= MAX_SECRET_BYTES));
        assert!(answer.version.is_none() || shape != Shape::Plain);
        assert!(answer.lease.is_none_or(|it| !it.id.is_empty() && lasts(it.lasts)));
        // Where there is a secret, none was deleted.
        assert!(shape != Shape::Versioned || !is_deleted(bytes));
    }
    if let Ok(answer) = login(bytes) {
        let token = answer.token.expose();
        assert!(!token.is_empty() && token.iter().all(u8::is_ascii_graphic) && lasts(answer.term.lasts));
    }
    for term in [renewed_token(bytes), known_token(bytes)].into_iter().flatten() {
        assert!(lasts(term.lasts));
    }
    assert!(renewed_lease(bytes).is_ok_and(|it| lasts(it.lasts)) || renewed_lease(bytes).is_err());
    assert!(mount(bytes).is_ok_and(|it| it.path.ends_with('/')) || mount(bytes).is_err());
    let visible = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_graphic);
    assert!(secret_id(bytes).is_ok_and(|(it, _)| visible(it.expose())) || secret_id(bytes).is_err());
    let _ = refusal(bytes);
});
