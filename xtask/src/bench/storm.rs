//! A storm of short processes, each executed for one call: every call must be in the journal once, as its own process's and
//! with the identity of its own program. A wrong attribution fails the bench, as does a call that is lost.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::calls::storm_path;
use super::{Disk, site};
use crate::stage::{Stage, process};

/// The programs, each with an identity of its own; the last one has none, and must not get another's.
const PROGRAMS: [&str; 5] = ["ant", "bee", "cat", "dog", "elk"];
const WITHOUT_IDENTITY: &str = "elk";

/// What came of a storm.
pub(super) struct Storm {
    pub(super) calls: usize,
    pub(super) seconds: f64,
}

/// Puts the programs on the stage, each a file of its own, and writes their identities.
pub(super) fn prepare(stage: &Stage) -> Result<()> {
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    fs::create_dir_all(stage.path("storm"))?;
    for name in PROGRAMS {
        let program = stage.path("storm").join(name);
        fs::copy(&ourselves, &program).with_context(|| format!("cannot copy to {}", program.display()))?;
        if name != WITHOUT_IDENTITY {
            let policy = site::plain_identity(&program);
            stage.write(&format!("policies/policies/{name}.toml"), &policy, 0o644)?;
        }
    }
    Ok(())
}

/// Runs a storm of so many processes and holds the journal against what was started.
pub(super) fn run(stage: &Stage, disk: &Disk, count: usize) -> Result<Storm> {
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    let mut command = stage.enter(Some("bots"));
    command.arg(ourselves).args(["bench-call", "storm", &site::plain_address(), &count.to_string()]);
    command.args(PROGRAMS.map(|name| stage.path("storm").join(name)));
    let finished = process::finish(&mut command, Duration::from_secs(180), &stage.stop)?;
    ensure!(
        finished.status.success(),
        "the storm failed: {}{}",
        finished.stdout.trim(),
        finished.stderr.trim()
    );
    let mut lines: Vec<&str> = finished.stdout.lines().collect();
    let seconds = lines.pop().and_then(|line| line.parse().ok()).context("the storm told no time")?;
    ensure!(lines.len() == count, "of {count} processes {} were told of", lines.len());
    let journal = fs::read_to_string(disk.0.join("proxy/journal/journal-00000001.jsonl"))?;
    let decided = decisions(&journal);
    for line in lines {
        check(line, &decided).with_context(|| format!("process {line:?}"))?;
    }
    Ok(Storm { calls: count, seconds })
}

/// The decisions of the journal by their path.
fn decisions(journal: &str) -> HashMap<String, Vec<Value>> {
    let mut decided: HashMap<String, Vec<Value>> = HashMap::new();
    for record in journal.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(path) = record.get("path").and_then(Value::as_str) else { continue };
        if path.starts_with("/v1/storm/") {
            decided.entry(path.to_owned()).or_default().push(record);
        }
    }
    decided
}

/// Holds one process, as the storm tells of it (`NUMBER PID ANSWERED`), against the journal.
fn check(line: &str, decided: &HashMap<String, Vec<Value>>) -> Result<()> {
    let mut words = line.split(' ');
    let number: usize = words.next().and_then(|word| word.parse().ok()).context("no number")?;
    let pid: u64 = words.next().and_then(|word| word.parse().ok()).context("no process id")?;
    let answered = words.next() == Some("true");
    let name = PROGRAMS.get(number % PROGRAMS.len()).copied().context("no program")?;
    let records = decided.get(&storm_path(name, number)).map_or(&[][..], Vec::as_slice);
    let [record] = records else { anyhow::bail!("its call is {} times in the journal", records.len()) };
    let identity = record.get("identity").and_then(Value::as_str);
    let expected = (name != WITHOUT_IDENTITY).then_some(name);
    ensure!(identity == expected, "its call was taken for one of {identity:?}: {record}");
    let captured = record.pointer("/workload/pid").and_then(Value::as_u64);
    ensure!(captured == Some(pid), "its call was taken for one of the process {captured:?}: {record}");
    let allowed = record.get("verdict").and_then(Value::as_str) == Some("allow");
    ensure!(allowed == expected.is_some() && answered == allowed, "it was answered wrongly: {record}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(path: &str, identity: Option<&str>, pid: u64, verdict: &str) -> HashMap<String, Vec<Value>> {
        let mut record = serde_json::json!({ "path": path, "workload": { "pid": pid }, "verdict": verdict });
        if let Some(identity) = identity {
            record["identity"] = identity.into();
        }
        decisions(&format!("{record}\n"))
    }

    #[test]
    fn a_call_that_was_taken_for_anothers_or_is_lost_is_found() {
        let good = journal("/v1/storm/bee/6", Some("bee"), 40, "allow");
        assert!(check("6 40 true", &good).is_ok());
        assert!(check("6 41 true", &good).is_err(), "another process");
        assert!(check("6 40 false", &good).is_err(), "not answered");
        assert!(check("7 40 true", &good).is_err(), "not in the journal");
        assert!(check("6 40 true", &journal("/v1/storm/bee/6", Some("ant"), 40, "allow")).is_err());
        assert!(check("6 40 true", &journal("/v1/storm/bee/6", None, 40, "allow")).is_err());
        assert!(check("9 40 false", &journal("/v1/storm/elk/9", None, 40, "deny")).is_ok());
        assert!(check("9 40 true", &journal("/v1/storm/elk/9", Some("ant"), 40, "allow")).is_err());
    }
}
