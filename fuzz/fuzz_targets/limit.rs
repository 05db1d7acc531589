//! Limits: no panic on any text, and a limit that is read allows something and says the same when it is read again.
//!
//! `cargo +nightly fuzz run limit fuzz/corpus/limit fuzz/seeds/limit`

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_policy::{Bound, Limit};

fuzz_target!(|text: &str| {
    match text.parse::<Limit>() {
        Ok(limit) => {
            let allows = match limit.bound() {
                Bound::Rate { calls, per, burst } => calls > 0 && burst > 0 && !per.is_zero(),
                Bound::AtOnce(most) => most > 0,
                Bound::Calls { most, .. } | Bound::Bytes { most, .. } => most > 0,
            };
            assert!(allows && limit.as_str() == text);
            assert_eq!(limit.as_str().parse(), Ok(limit));
        }
        Err(why) => assert!(!why.is_empty() && !why.contains('\u{1b}')),
    }
});
