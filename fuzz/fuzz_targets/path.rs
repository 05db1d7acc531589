//! The normalization of paths: the same as a naive one, the same when it is done twice, and nothing left that is read in two
//! ways.
//!
//! `cargo +nightly fuzz run path fuzz/corpus/path fuzz/seeds/path`

#![no_main]

#[allow(dead_code)]
#[path = "../../proxy-policy/tests/it/naive.rs"]
mod naive;

use libfuzzer_sys::fuzz_target;
use proxy_policy::CallPath;

fuzz_target!(|raw: &str| {
    let found = CallPath::normalize(raw);
    assert_eq!(found.as_ref().ok().map(CallPath::as_str), naive::normalized(raw).as_deref(), "{raw:?}");
    let Ok(path) = found else { return };
    let text = path.as_str();
    let again = CallPath::normalize(text).expect("a normal path is a path");
    assert!(again.as_str() == text && again.is_borrowed());
    if path.is_asterisk() {
        return;
    }
    assert!(text.starts_with('/') && !text.contains("//"));
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\?#".contains(&byte)));
    assert!(!text.split('/').any(|segment| matches!(segment, "." | "..")));
    assert!(!["%2F", "%5C", "%2E"].iter().any(|escape| text.contains(escape)));
});
