//! The auditor's verifier: proves a journal without the daemon, with nothing but this crate.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use proxy_journal::check::{Witness, check};
use proxy_journal::{Proof, PublicKey, SignedNote, proof};

const USAGE: &str = "\
Usage: vouchsafe-verify [--key KEY] [--checkpoint FILE] [--expect-head HASH] [--expect-seq N] FILE|DIR...
       vouchsafe-verify [--key KEY] --proof FILE

Proves that a Vouchsafe journal is whole: no record changed, removed, inserted, repeated or moved.
Records cut off at the end leave no trace: give the checkpoints that a witness has kept with --checkpoint, or the head of
an earlier verification with --expect-head.

  --key KEY           its checkpoints must be signed by this key, or by one that it handed over to
  --checkpoint FILE   what these checkpoints are over must be there
  --expect-head HASH  the record with this hash must be there
  --expect-seq N      at least N records must be there; with --expect-head, that record must be number N
  --proof FILE        instead: prove the records of one call, as `vouchsafe audit prove` wrote them

Exit status: 0 whole, 1 broken, 2 cannot be read";

struct Arguments {
    paths: Vec<PathBuf>,
    expected: Witness,
    proof: Option<PathBuf>,
}

fn arguments(mut given: impl Iterator<Item = std::ffi::OsString>) -> Result<Option<Arguments>, String> {
    let mut found = Arguments { paths: Vec::new(), expected: Witness::default(), proof: None };
    let mut options = true;
    while let Some(argument) = given.next() {
        let mut value = |name: &str| {
            let value = given.next().and_then(|value| value.into_string().ok());
            value.ok_or_else(|| format!("{name} needs a value"))
        };
        match argument.to_str().filter(|_| options) {
            Some("--") => options = false,
            Some("-h" | "--help") => return Ok(None),
            Some("--expect-head") => {
                let head =
                    value("--expect-head")?.parse().map_err(|error| format!("--expect-head: {error}"))?;
                found.expected.head = Some(head);
            }
            Some("--expect-seq") => {
                let seq = value("--expect-seq")?.parse().map_err(|error| format!("--expect-seq: {error}"))?;
                found.expected.seq = Some(seq);
            }
            Some("--key") => {
                found.expected.key =
                    Some(value("--key")?.parse().map_err(|error| format!("--key: {error}"))?);
            }
            Some("--checkpoint") => {
                let path = value("--checkpoint")?;
                let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
                let notes = SignedNote::parse_all(&text).map_err(|error| format!("{path}: {error}"))?;
                found.expected.notes.extend(notes);
            }
            Some("--proof") => found.proof = Some(value("--proof")?.into()),
            Some(unknown) if unknown.starts_with('-') => return Err(format!("there is no option {unknown}")),
            _ => found.paths.push(argument.into()),
        }
    }
    match found.paths.len() {
        0 if found.proof.is_some() => Ok(Some(found)),
        _ if found.proof.is_some() => Err("a proof needs no journal: give one of both".to_owned()),
        0 => Err("give the journal to verify".to_owned()),
        1 => Ok(Some(found)),
        _ if found.expected != Witness::default() => {
            Err("a witness belongs to one journal: give one path".to_owned())
        }
        _ => Ok(Some(found)),
    }
}

fn main() -> ExitCode {
    let found = match arguments(std::env::args_os().skip(1)) {
        Ok(Some(found)) => found,
        Ok(None) => {
            // A reader who went away did not want the help.
            let _ = writeln!(io::stdout(), "{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            let _ = writeln!(io::stderr(), "vouchsafe-verify: {problem}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(path) = found.proof {
        return ExitCode::from(proved(&path, found.expected.key));
    }
    let mut worst = 0;
    for path in &found.paths {
        match check(path, &found.expected) {
            Ok(report) => {
                let _ = writeln!(io::stdout(), "{report}");
                worst = worst.max(u8::from(!report.is_whole()));
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                let _ = writeln!(io::stderr(), "vouchsafe-verify: {error}{}", cause.unwrap_or_default());
                worst = 2;
            }
        }
    }
    ExitCode::from(worst)
}

/// Proves a proof: 0 it does, 1 it does not, 2 it cannot be read.
fn proved(path: &std::path::Path, key: Option<PublicKey>) -> u8 {
    let text = match proof::read(path) {
        Ok(text) => text,
        Err(error) => {
            let _ = writeln!(io::stderr(), "vouchsafe-verify: {}: {error}", path.display());
            return 2;
        }
    };
    match Proof::parse(&text).and_then(|proof| proof.verify(key)) {
        Ok(shown) => {
            let _ = write!(io::stdout(), "{shown}");
            0
        }
        Err(error) => {
            let _ = writeln!(io::stdout(), "{}: PROVES NOTHING: {error}", path.display());
            1
        }
    }
}
