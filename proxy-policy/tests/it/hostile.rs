//! Input that nobody meant: the doors of the crate are total functions.

use proptest::prelude::*;
use proxy_policy::{CallPath, Host, SourceFile, compile};

use crate::folders::{policies, read};

proptest! {
    #[test]
    fn any_text_compiles_or_is_refused(path in "(policies/|roles/|)\\PC{0,8}", text in "[\\PC\n]{0,200}") {
        let compiled = compile(&[SourceFile::new(path, text)]);
        prop_assert!(compiled.set.is_some() || !compiled.diagnostics.is_empty());
    }

    #[test]
    fn a_cut_or_changed_policy_compiles_or_is_refused(cut in 0usize..2000, changed in 0usize..2000, by in "[\\[\\]\"={},#*/. \na-z0-9]") {
        let mut files = read(&policies().join("example"));
        for file in &mut files {
            let mut chars: Vec<char> = file.text.chars().collect();
            let (cut, changed) = (cut % (chars.len() + 1), changed % chars.len());
            chars[changed] = by.chars().next().unwrap();
            chars.truncate(cut.max(chars.len() / 2));
            file.text = chars.into_iter().collect();
        }
        let compiled = compile(&files);
        prop_assert!(compiled.set.is_some() || !compiled.diagnostics.is_empty());
    }

    #[test]
    fn any_condition_is_read_or_refused(
        text in "\\PC{0,60}|([a-z.]{1,8}|[()\\[\\]{}!?:&|<>=+*/%,.\"`0-9 -]{1,4}|request\\.|body|\\.all\\(x, |true|in ){0,20}"
    ) {
        let text = text.replace('\'', "");
        let text = format!(
            "[api.x]\nhosts = [\"x.example\"]\n[identity]\nuser = \"u\"\n[[grant]]\napi = \"x\"\n\
             allow = [\"GET /\"]\nwhen = '{text}'\n"
        );
        let compiled = compile(&[SourceFile::new("policies/x.toml", text)]);
        prop_assert!(compiled.set.is_some() || !compiled.diagnostics.is_empty());
    }

    #[test]
    fn any_path_and_any_host_is_read_or_refused(text in "\\PC{0,80}") {
        let _ = CallPath::normalize(&text);
        let _ = Host::parse(&text);
    }
}

#[test]
fn deep_nesting_is_a_syntax_error() {
    let text = format!("x = {}", "[".repeat(100_000));
    assert!(compile(&[SourceFile::new("policies/x.toml", text)]).set.is_none());
}

#[test]
fn the_name_of_a_file_drives_no_terminal() {
    let file = SourceFile::new("policies/a\u{1b}[2Jb.toml", "[identity]\nusr = \"u\"\n");
    let found = compile(&[file.clone(), file]).diagnostics;
    assert!(found.iter().any(|it| it.message.contains("already defined")), "{found:?}");
    let printed: String = found.iter().map(ToString::to_string).collect();
    assert!(!printed.contains('\u{1b}'), "{printed:?}");
}
