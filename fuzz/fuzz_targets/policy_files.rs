//! The policy compiler: no panic on any files, an error exactly when there is no set, each at a place that is in its file and
//! in words that drive no terminal; and a set that came out decides every call without a panic.
//!
//! The input is text; a line `--- policies/x.toml` begins a file.
//!
//! `cargo +nightly fuzz run policy_files fuzz/corpus/policy_files fuzz/seeds/policy_files`

#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_policy::{
    BodyState, Call, CallKind, CallPath, Facts, IdentityId, Moment, PolicySet, Severity, Source, SourceFile,
    compile,
};

fuzz_target!(|text: &str| {
    let mut files: Vec<SourceFile> = Vec::new();
    for line in text.split_inclusive('\n') {
        match (line.strip_prefix("--- "), files.last_mut()) {
            (Some(path), _) => files.push(SourceFile::new(path.trim_end(), "")),
            (None, Some(file)) => file.text.push_str(line),
            (None, None) => files.push(SourceFile::new("policies/first.toml", line)),
        }
    }
    let compiled = compile(&files);
    let failed = compiled.diagnostics.iter().any(|it| it.severity == Severity::Error);
    assert_eq!(compiled.set.is_none(), failed);
    for found in &compiled.diagnostics {
        // Of several files with one name any may be meant.
        let named = |file: &&SourceFile| file.path.replace(char::is_control, "\u{FFFD}") == found.file;
        let inside = files.iter().filter(named).any(|file| {
            let line = file.text.split('\n').nth(found.line as usize - 1);
            line.is_some_and(|line| found.column as usize <= line.chars().count() + 1)
        });
        assert!(inside, "{found:?}");
        let said = [Some(&found.message), found.help.as_ref()];
        assert!(!said.into_iter().flatten().any(|it| it.is_empty() || it.contains('\u{1b}')), "{found:?}");
    }
    if let Some(set) = compiled.set {
        ask(&set);
    }
});

fn ask(set: &PolicySet) {
    let identities = u32::try_from(set.identities().count()).unwrap();
    let facts = Facts {
        host: "api.example.com",
        query: Some("a=1&b=2"),
        headers: &[("x-env".to_owned(), "prod".to_owned())],
        workload: Source { pid: 1, uid: 2, gid: 3, ..Source::default() },
        body: BodyState::NotRead,
    };
    for identity in (0..=identities).take(8).map(IdentityId) {
        for api in set.apis().take(8) {
            for path in ["/", "/v1/invoices", "/v1/Invoices;a/x/", "*"] {
                let path = CallPath::normalize(path).unwrap();
                for (method, kind) in
                    [("GET", CallKind::Plain), ("post", CallKind::Grpc), ("GET", CallKind::WebSocket)]
                {
                    for facts in [None, Some(&facts)] {
                        let plain = Call::plain(api.id, method, &path, Moment(1_798_761_600));
                        let call = Call { facts, kind, ..plain };
                        let decision = set.decide(identity, &call);
                        assert!(decision.credential.is_none() || decision.is_allowed());
                        assert!(!decision.explain(&call).to_string().is_empty());
                    }
                }
            }
        }
    }
}
