//! The compiled matcher against the naive one of the tests: the same answer for any rules and any call.
//!
//! The input is text: lines `+ OPERATION` and `- OPERATION` are rules, `GET /path` and `websocket /path` are calls.
//!
//! `cargo +nightly fuzz run matcher fuzz/corpus/matcher fuzz/seeds/matcher`

#![no_main]

#[allow(dead_code)]
#[path = "../../proxy-policy/tests/it/naive.rs"]
mod naive;

use libfuzzer_sys::fuzz_target;
use proxy_policy::{Call, CallKind, CallPath, IdentityId, Moment, SourceFile, compile};

/// What the naive matcher is for: no gRPC, no `*` as a path, no escapes in patterns; and few stars, since it tries everything.
fn is_plain(operation: &str) -> bool {
    let Some((methods, path)) = operation.split_once(' ') else { return false };
    methods != "grpc" && path.starts_with('/') && path.matches('*').count() <= 6 && !path.contains('%')
}

fuzz_target!(|text: &str| {
    let mut rules: Vec<naive::Rule> = Vec::new();
    let mut calls: Vec<(&str, &str)> = Vec::new();
    for line in text.lines().filter(|line| line.len() <= 64) {
        match line.split_once(' ') {
            Some((sign @ ("+" | "-"), rule)) if rules.len() < 64 && is_plain(rule) => {
                // One that does not compile would keep the others from being asked.
                if set_of(&[(rule.to_owned(), false)]).is_some() {
                    rules.push((rule.to_owned(), sign == "-"));
                }
            }
            Some((method, path)) if calls.len() < 16 => calls.push((method, path)),
            _ => {}
        }
    }
    let set = set_of(&rules).expect("what compiles alone compiles together");
    let api = set.apis().next().unwrap().id;
    for (method, path) in calls {
        let Ok(path) = CallPath::normalize(path) else { continue };
        // An escape of more than one byte is no character to the naive decoder.
        if path.is_asterisk() || path.as_str().split('%').skip(1).any(|it| it.as_bytes()[0] >= b'8') {
            continue;
        }
        let (method, kind) = match method {
            "websocket" => ("GET", CallKind::WebSocket),
            method => (method, CallKind::Plain),
        };
        let call = Call { kind, ..Call::plain(api, method, &path, Moment(1_798_761_600)) };
        let decision = set.decide(IdentityId(0), &call);
        let found = decision.rule.map(|rule| (decision.is_allowed(), rule.text.to_owned()));
        assert_eq!(found, naive::decide(&rules, kind, method, path.as_str()), "{method} {path} {rules:?}");
    }
});

fn set_of(rules: &[naive::Rule]) -> Option<proxy_policy::PolicySet> {
    let mut policy = "[api.x]\nhosts = [\"x.example\"]\n[identity]\nuser = \"u\"\n".to_owned();
    for (rule, denies) in rules {
        let key = if *denies { "deny" } else { "allow" };
        let quoted: String = rule.chars().map(|c| format!("\\U{:08X}", u32::from(c))).collect();
        policy += &format!("[[grant]]\napi = \"x\"\n{key} = [\"{quoted}\"]\n");
    }
    compile(&[SourceFile::new("policies/u.toml", policy)]).set
}
