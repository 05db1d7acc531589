//! `vouchsafe audit fingerprint`: the fingerprint of a known value, to find the calls that were about it.

use std::io::{self, Read as _, Write as _};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::config::Config;
use crate::credentials::Fingerprints;

/// The longest value that is read.
const MOST: u64 = 1 << 20;

/// Arguments of `audit fingerprint`.
#[derive(Debug, Args)]
#[command(after_help = "\
The value is read from standard input, without a newline at its end, as a server reads it: `a b` and not `a%20b`. It is never \
an argument, which every user of the host could see.
  printf 42 | vouchsafe audit fingerprint
prints what stands behind \"fingerprint\" in each record of a call that was about it. The key of the fingerprints is this host's and \
only for root.")]
pub struct FingerprintArgs {}

/// Reads the value and prints its fingerprint.
///
/// # Errors
/// There is no value or no key, or others can read the key.
pub fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let key =
        Fingerprints::read(&config.state).context("the key of the fingerprints cannot be read; use sudo")?;
    let Some(fingerprints) = key else {
        bail!(
            "there is no key of fingerprints in {}: the daemon has not run yet, or --config names another state directory",
            config.state.display()
        );
    };
    let mut value = Vec::new();
    io::stdin().lock().take(MOST + 1).read_to_end(&mut value).context("cannot read the value")?;
    let bytes = value.strip_suffix(b"\n").unwrap_or(&value);
    if bytes.is_empty() || u64::try_from(bytes.len()).is_ok_and(|length| length > MOST) {
        bail!(
            "give a value of at most {MOST} bytes on standard input, as in: printf 42 | vouchsafe audit fingerprint"
        );
    }
    writeln!(io::stdout(), "{}", fingerprints.of(bytes))?;
    Ok(ExitCode::SUCCESS)
}
