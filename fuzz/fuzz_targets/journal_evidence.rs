//! What an auditor is given by a host that he does not trust: notes, proofs, hand-overs, lines.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_journal::{Head, Keys, Proof, SignedNote, sealed, verify};

fuzz_target!(|bytes: &[u8]| {
    let _ = verify::follows(bytes, Head::GENESIS);
    let _ = Keys::parse(bytes);
    if let Ok(found) = sealed::prove(bytes, None, None, None) {
        assert!(found.len <= u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(notes) = SignedNote::parse_all(text) {
        // What was read is spelled as it stood there.
        assert!(notes.iter().all(|note| text.contains(&note.note.text())));
    }
    if let Ok(proof) = Proof::parse(text) {
        let _ = proof.verify(None);
        assert_eq!(Proof::parse(&proof.to_text()).as_ref(), Ok(&proof));
    }
});
