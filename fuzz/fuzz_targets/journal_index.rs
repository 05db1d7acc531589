//! The index of a segment: no bytes are read out of bounds or into much memory, and lines of anybody make an index that is whole.
//!
//! `cargo +nightly fuzz run journal_index fuzz/corpus/journal_index fuzz/seeds/journal_index`

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use proxy_journal::index::{Index, build};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut index) = Index::open(Cursor::new(bytes)) {
        let _ = index.check();
    }
    let mut made = Vec::new();
    let summary = build(bytes, &mut made).expect("memory is always there");
    assert!(summary.length == bytes.len() as u64 && summary.records <= bytes.iter().filter(|b| **b == b'\n').count() as u64);
    let mut index = Index::open(Cursor::new(&made)).expect("what was made can be read");
    assert_eq!((*index.summary(), index.check().expect("it is whole")), (summary, summary.rows));
});
