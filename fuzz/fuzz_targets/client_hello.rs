//! The ClientHello parser: no panic on any bytes, no answer that more bytes change, no name that is no host name.
//!
//! `cargo +nightly fuzz run client_hello fuzz/corpus/client_hello fuzz/seeds/client_hello`

#![no_main]

use libfuzzer_sys::fuzz_target;
use vouchsafe::sniff::Progress;
use vouchsafe::sniff::client_hello::{MAX_BYTES, host_name, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    match &whole {
        Progress::Done(hello) => {
            if let Some(name) = &hello.server_name {
                assert_eq!(host_name(name.as_bytes()).as_ref(), Some(name));
            }
            let longer = [bytes, &[0]].concat();
            assert_eq!(parse(&longer), whole);
        }
        Progress::More => {
            assert!(bytes.len() < MAX_BYTES);
            let half = bytes.get(..bytes.len() / 2).unwrap_or_default();
            assert_eq!(parse(half), Progress::More);
        }
        Progress::NotThis(_) => assert_eq!(parse(&[bytes, &[0]].concat()), whole),
    }
});
