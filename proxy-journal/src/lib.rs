//! The tamper-evident journal: records, chain, reader, verifier. Pure over `Read` and `Write`.
