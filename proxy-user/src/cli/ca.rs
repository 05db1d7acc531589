//! `vouchsafe ca`: shows the CA of this host and exports it for the trust stores of bots.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::trust::{CaCertificate, bundle};

/// Arguments of `vouchsafe ca`.
#[derive(Debug, Args)]
pub struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Show the CA's subject, fingerprint, validity and file
    Show,
    /// Print the CA's certificate as PEM, for the trust stores of bots
    Export {
        /// Write to this file instead of standard output; a file that is there is replaced
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Add the system's root certificates, for clients that take one file only (SSL_CERT_FILE)
        #[arg(long)]
        bundle: bool,
    },
}

/// Runs `vouchsafe ca`. Only the certificate is read, never the key.
///
/// # Errors
/// When there is no CA yet, or a file cannot be read or written.
pub fn run(args: CaArgs, state_dir: &Path) -> anyhow::Result<ExitCode> {
    let certificate = CaCertificate::open(state_dir)?;
    match args.command {
        CaCommand::Show => io::stdout().write_all(describe(&certificate).as_bytes())?,
        CaCommand::Export { out, bundle: whole } => {
            let text = if whole { bundle(&certificate)? } else { certificate.pem() };
            match out {
                None => io::stdout().write_all(text.as_bytes())?,
                Some(path) => {
                    replace(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(certificate: &CaCertificate) -> String {
    format!(
        "subject      {}\nfingerprint  SHA256 {}\nvalid        {} to {}\nfile         {}\n",
        certificate.subject(),
        certificate.fingerprint(),
        certificate.not_before().date(),
        certificate.not_after().date(),
        certificate.path().display(),
    )
}

/// Writes `path` whole or not at all, readable for everybody.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Ca;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: CaArgs,
    }

    fn ca(state: &Path, arguments: &[&str]) -> anyhow::Result<ExitCode> {
        run(Program::try_parse_from([&["ca"], arguments].concat())?.args, state)
    }

    #[test]
    fn the_exported_file_is_the_certificate_for_everybody_to_read() {
        let state = tempfile::tempdir().unwrap();
        let pem = Ca::open_or_create(state.path()).unwrap().certificate_pem();
        let out = state.path().join("exported.pem");
        std::fs::write(&out, "an older export").unwrap();
        ca(state.path(), &["export", "--out", out.to_str().unwrap()]).unwrap();
        assert_eq!(std::fs::read_to_string(&out).unwrap(), pem);
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o7777, 0o644);
    }

    #[test]
    fn the_bundle_holds_ours_once_and_the_systems_roots() {
        let state = tempfile::tempdir().unwrap();
        let pem = Ca::open_or_create(state.path()).unwrap().certificate_pem();
        let text = bundle(&CaCertificate::open(state.path()).unwrap()).unwrap();
        assert_eq!(text.matches(&pem).count(), 1);
        assert!(text.matches("BEGIN CERTIFICATE").count() > 1);
    }

    #[test]
    fn what_is_shown_is_what_a_person_compares() {
        let state = tempfile::tempdir().unwrap();
        Ca::open_or_create(state.path()).unwrap();
        let certificate = CaCertificate::open(state.path()).unwrap();
        let text = describe(&certificate);
        for expected in ["CN=Vouchsafe CA ", &certificate.fingerprint(), "ca/ca.pem"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        ca(state.path(), &["show"]).unwrap();
    }

    #[test]
    fn without_a_ca_the_error_says_when_it_is_made() {
        let state = tempfile::tempdir().unwrap();
        let error = ca(state.path(), &["show"]).unwrap_err().to_string();
        assert!(error.contains("first starts"), "{error}");
    }

    #[test]
    fn an_export_that_cannot_be_written_names_the_file() {
        let state = tempfile::tempdir().unwrap();
        Ca::open_or_create(state.path()).unwrap();
        let error = ca(state.path(), &["export", "--out", "/proc/none/ca.pem"]).unwrap_err().to_string();
        assert!(error.contains("/proc/none/ca.pem"), "{error}");
    }
}
