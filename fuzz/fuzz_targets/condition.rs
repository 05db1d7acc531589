//! Conditions: no panic whatever is written, and whatever the call has; a load and a decision have a bound in time.
//!
//! The input is the condition, a body, a query and a header, with a zero byte between them.
//!
//! `cargo +nightly fuzz run condition fuzz/corpus/condition fuzz/seeds/condition`

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use proxy_policy::{
    Body, BodyState, Call, CallPath, Facts, IdentityId, Moment, Reason, Source, SourceFile, compile,
};

/// Of code that counts its branches, on a machine that does other things as well.
const BOUND: Duration = Duration::from_secs(2);

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(4, '\0');
    let mut next = || parts.next().unwrap_or_default();
    let (when, body, query, header) = (next(), next(), next(), next());
    let quoted: String = when.chars().map(|c| format!("\\U{:08X}", u32::from(c))).collect();
    let policy = format!(
        "[api.x]\nhosts = [\"x.example\"]\n[identity]\nuser = \"u\"\n[[grant]]\napi = \"x\"\n\
         allow = [\"GET /v1/{{name}}/**\"]\nwhen = \"{quoted}\"\n"
    );
    let begun = Instant::now();
    let compiled = compile(&[SourceFile::new("policies/u.toml", policy)]);
    assert!(begun.elapsed() < BOUND, "the load took {:?}", begun.elapsed());
    let Some(set) = compiled.set else {
        assert!(compiled.diagnostics.iter().all(|it| it.line >= 5), "{:?}", compiled.diagnostics);
        return;
    };
    let headers = [("x-env".to_owned(), header.to_owned())];
    let parsed = Body::parse(body.as_bytes());
    let body = match &parsed {
        Ok(body) => BodyState::Json(body),
        Err(fault) => BodyState::Fault(*fault),
    };
    let workload = Source { pid: 1, uid: 2, gid: 3, exe: Some("/opt/bot"), ..Source::default() };
    let facts = Facts { host: "x.example", query: Some(query), headers: &headers, workload, body };
    for path in ["/v1/a%2Bb/x", "/v1/A;b/secret/"] {
        let path = CallPath::normalize(path).unwrap();
        let api = set.apis().next().unwrap().id;
        let call = Call { facts: Some(&facts), ..Call::plain(api, "GET", &path, Moment(1_798_761_600)) };
        let begun = Instant::now();
        let decision = set.decide(IdentityId(0), &call);
        assert!(begun.elapsed() < BOUND, "a decision took {:?}", begun.elapsed());
        // Everything was there that it may ask for.
        assert!(!matches!(decision.reason, Reason::FactsNeeded | Reason::BodyNeeded { .. }), "{decision}");
    }
});
