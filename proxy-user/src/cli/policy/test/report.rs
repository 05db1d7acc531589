//! What is told of tests: for people as differences, for programs as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Difference, Judged, Results};

/// The differences, the coverage and a last line that says it all.
pub(super) fn text(results: &Results, min_coverage: Option<u8>) -> String {
    let mut out = String::new();
    for judged in results.failures() {
        out.push_str(&difference(judged));
        out.push('\n');
    }
    let coverage = &results.coverage;
    if coverage.decided() < coverage.rules() {
        out.push_str("rules that no test decided by:\n");
        for (file, line, column, rule) in coverage.missing() {
            let _ = writeln!(out, "  {file}:{line}:{column}: {} \"{}\"", rule.kind, rule.text);
        }
        out.push('\n');
    }
    let wanted = match min_coverage {
        Some(wanted) if coverage.percent() < wanted => format!(", and {wanted} % are asked for"),
        _ => String::new(),
    };
    let (total, failed) = (results.calls.len(), results.failures().count());
    let calls = if total == 1 { "call" } else { "calls" };
    let said = match failed {
        0 => format!("{total} {calls} decided as expected"),
        failed => format!("{failed} of {total} {calls} decided otherwise than expected"),
    };
    let _ = writeln!(
        out,
        "{said}; {} of {} rules decided one ({} %){wanted}",
        coverage.decided(),
        coverage.rules(),
        coverage.percent()
    );
    out
}

/// One call: what is as expected, what was expected (-), what is (+).
fn difference(judged: &Judged) -> String {
    let Judged { call, outcome, differences } = judged;
    let mut out = format!(
        "{}:{}:{}: {} {}\n",
        call.file, call.place.line, call.place.column, &*call.identity, call.request.text
    );
    let rule = outcome.rule.as_ref();
    let rule_text = rule.map_or("", |rule| &rule.text);
    let lines = [
        (Difference::Verdict, "expect", Some(call.expect.as_str()), outcome.verdict.as_str()),
        (Difference::Rule, "rule", call.rule.as_deref(), rule_text),
        (
            Difference::Credential,
            "credential",
            call.credential.as_deref(),
            outcome.credential.as_deref().unwrap_or_default(),
        ),
        (Difference::Reason, "reason", call.reason.as_deref(), outcome.reason.as_str()),
    ];
    for (what, name, wanted, is) in lines {
        let is = if is.is_empty() { "(none)" } else { is };
        let place = match (what, rule) {
            (Difference::Rule, Some(rule)) => format!("   ({}:{})", rule.file, rule.line),
            _ => String::new(),
        };
        match wanted {
            Some(wanted) if differences.contains(&what) => {
                let wanted = if wanted.is_empty() { "(none)" } else { wanted };
                let _ = writeln!(out, "  - {name:<10} {wanted}\n  + {name:<10} {is}{place}");
            }
            _ => {
                let _ = writeln!(out, "    {name:<10} {is}{place}");
            }
        }
    }
    out
}

/// Everything, for programs.
pub(super) fn json(results: &Results, covered: bool) -> Value {
    let failed = results.failures().count();
    let missing = results.coverage.missing().map(|(file, line, column, rule)| {
        json!({ "file": file, "line": line, "column": column, "kind": rule.kind, "rule": rule.text })
    });
    json!({
        "passed": failed == 0 && covered,
        "failed": failed,
        "calls": results.calls.iter().map(call).collect::<Vec<_>>(),
        "coverage": {
            "rules": results.coverage.rules(),
            "decided": results.coverage.decided(),
            "percent": results.coverage.percent(),
            "missing": missing.collect::<Vec<_>>(),
        },
        "errors": [],
    })
}

fn call(judged: &Judged) -> Value {
    let Judged { call, outcome, differences } = judged;
    let rule = outcome.rule.as_ref();
    json!({
        "file": call.file,
        "line": call.place.line,
        "as": &*call.identity,
        "request": call.request.text,
        "passed": differences.is_empty(),
        "expected": {
            "expect": call.expect.as_str(),
            "rule": call.rule,
            "credential": call.credential,
            "reason": call.reason,
        },
        "decided": {
            "expect": outcome.verdict.as_str(),
            "rule": rule.map(|rule| &rule.text),
            "place": rule.map(|rule| format!("{}:{}:{}", rule.file, rule.line, rule.column)),
            "role": outcome.role,
            "api": outcome.api,
            "credential": outcome.credential,
            "reason": outcome.reason,
        },
    })
}

/// That nothing could be tested, for programs.
pub(super) fn json_of_errors(errors: &[String]) -> Value {
    json!({ "passed": false, "failed": 0, "calls": [], "coverage": null, "errors": errors })
}
