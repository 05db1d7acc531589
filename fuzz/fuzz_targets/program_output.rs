//! What a program prints as a credential: no panic on any bytes; a credential goes into a header as it is and lasts for a while.
//!
//! `cargo +nightly fuzz run program_output fuzz/corpus/program_output fuzz/seeds/program_output`

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vouchsafe::credentials::answers::program_output;

fuzz_target!(|bytes: &[u8]| {
    match program_output(bytes) {
        Ok(given) => {
            let token = given.token.expose();
            assert!(!token.is_empty() && token.iter().all(u8::is_ascii_graphic));
            assert!(given.lasts.is_none_or(|it| !it.is_zero() && it <= Duration::from_secs(86_400)));
        }
        Err(why) => assert!(!why.is_empty()),
    }
});
