//! `vouchsafe ca`: shows the CA of this host, exports what bots must trust, and makes a new generation.

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::status::safe;
use crate::config::Config;
use crate::control::ca::{ROTATE_COMMAND, RotateCa, RotateCaReport};
use crate::control::client;
use crate::trust::{About, CaCertificate, bundle};

/// Keys of RSA take a while.
const ROTATION_TAKES: Duration = Duration::from_secs(60);

/// Arguments of `vouchsafe ca`.
#[derive(Debug, Args)]
pub struct CaArgs {
    #[command(subcommand)]
    command: CaCommand,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Show the CA's generations: hosts, validity, and the fingerprints of their roots
    Show,
    /// Print the roots as PEM, for the trust stores of bots
    Export {
        /// Write to this file instead of standard output; a file that is there is replaced
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Add the system's root certificates, for clients that take one file only (SSL_CERT_FILE)
        #[arg(long)]
        bundle: bool,
    },
    /// Make a new generation; those before go on for `[ca] overlap`, so that no bot notices
    Rotate {
        /// End those before at once, because a key of theirs may be known: running bots that read what they trust at their
        /// start fail until they are started again
        #[arg(long)]
        at_once: bool,
        /// Say what would be done, and do nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Runs `vouchsafe ca`. Only certificates are read, never keys.
///
/// # Errors
/// When there is no CA yet, a file cannot be read or written, or the daemon refuses.
pub fn run(args: CaArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match args.command {
        CaCommand::Show => out.write_all(describe(&About::all(&config.state)?, config).as_bytes())?,
        CaCommand::Export { out: file, bundle: whole } => {
            let roots = CaCertificate::all(&config.state)?;
            let text = match whole {
                true => bundle(&roots)?,
                false => roots.iter().map(CaCertificate::pem).collect(),
            };
            match file {
                None => out.write_all(text.as_bytes())?,
                Some(path) => {
                    replace(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
                }
            }
        }
        CaCommand::Rotate { at_once, dry_run: true } => {
            out.write_all(plan(&About::all(&config.state)?, config, at_once).as_bytes())?;
        }
        CaCommand::Rotate { at_once, dry_run: false } => {
            let order = RotateCa::of_this_process(at_once).arguments();
            let report: RotateCaReport =
                client::call_patiently(&config.control_socket(), ROTATE_COMMAND, order, ROTATION_TAKES)?;
            out.write_all(done(&report).as_bytes())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// When each generation is over, newest first.
fn ends(generations: &[About], config: &Config) -> Vec<OffsetDateTime> {
    let ends = |(at, one): (usize, &About)| {
        let after = at.checked_sub(1).and_then(|before| generations.get(before));
        after.map_or(one.not_after, |after| (after.made + config.ca.overlap).min(one.not_after))
    };
    generations.iter().enumerate().map(ends).collect()
}

fn describe(generations: &[About], config: &Config) -> String {
    let mut page = String::new();
    for (at, (one, end)) in generations.iter().zip(ends(generations, config)).enumerate() {
        let what = if at == 0 { "newest" } else { "former" };
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "generation   {} ({what}), made {}, until {}",
            one.number,
            one.made.date(),
            end.date()
        );
        for root in &one.roots {
            let _ = writeln!(page, "  root       {}", safe(root.subject()));
            let _ = writeln!(page, "             SHA256 {}", root.fingerprint());
        }
        let permits = if one.permits.is_empty() { "no host" } else { &one.permits.join(" ") };
        let _ = writeln!(page, "  permits    {}", safe(permits));
    }
    let _ = writeln!(page, "roots        {}", config.state.join("ca/ca.pem").display());
    page
}

fn plan(generations: &[About], config: &Config, at_once: bool) -> String {
    let mut page = String::new();
    let next = generations.first().map_or(1, |newest| newest.number + 1);
    let hosts = generations.first().map_or(0, |newest| newest.permits.len());
    let _ =
        writeln!(page, "would make generation {next}, for the {hosts} domains and addresses of the newest");
    let over = OffsetDateTime::now_utc() + config.ca.overlap;
    for one in generations {
        let _ = match at_once {
            true => writeln!(page, "would end generation {} now, and delete its keys", one.number),
            false => writeln!(
                page,
                "generation {} would go on until {}",
                one.number,
                over.min(one.not_after).date()
            ),
        };
    }
    page.push_str("would write the new roots to ca/ca.pem; nothing was changed\n");
    page
}

fn done(report: &RotateCaReport) -> String {
    let mut page = String::new();
    let _ = writeln!(page, "generation {} is made; its roots are", report.generation);
    for root in &report.roots {
        let _ = writeln!(page, "  SHA256 {}", safe(root));
    }
    for (number, end) in &report.former {
        let day =
            OffsetDateTime::parse(end, &Rfc3339).map_or_else(|_| safe(end), |end| end.date().to_string());
        let _ = writeln!(page, "generation {number} goes on until {day}");
    }
    page.push_str(
        "the stores get them by vouchsafe-trust.path, or by `vouchsafe trust refresh`; see `vouchsafe trust status`\n",
    );
    page
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

    fn config(state: &Path) -> Config {
        Config { state: state.to_owned(), runtime: state.to_owned(), ..Config::default() }
    }

    fn ca(state: &Path, arguments: &[&str]) -> anyhow::Result<ExitCode> {
        run(Program::try_parse_from([&["ca"], arguments].concat())?.args, &config(state))
    }

    fn pem(ca: &Ca) -> String {
        ca.roots().iter().map(CaCertificate::pem).collect()
    }

    #[test]
    fn the_exported_file_is_all_roots_for_everybody_to_read() {
        let state = tempfile::tempdir().unwrap();
        let made = Ca::for_tests(state.path());
        made.rotate(false).unwrap();
        let out = state.path().join("exported.pem");
        std::fs::write(&out, "an older export").unwrap();
        ca(state.path(), &["export", "--out", out.to_str().unwrap()]).unwrap();
        let exported = std::fs::read_to_string(&out).unwrap();
        assert_eq!(exported, pem(&made));
        assert_eq!(exported.matches("BEGIN CERTIFICATE").count(), 4, "two generations of two roots");
        assert_eq!(std::fs::metadata(&out).unwrap().permissions().mode() & 0o7777, 0o644);
    }

    #[test]
    fn the_bundle_holds_ours_once_and_the_systems_roots() {
        let state = tempfile::tempdir().unwrap();
        let ours = Ca::for_tests(state.path()).roots();
        let text = bundle(&CaCertificate::all(state.path()).unwrap()).unwrap();
        for root in &ours {
            assert_eq!(text.matches(&root.pem()).count(), 1);
        }
        assert!(text.matches("BEGIN CERTIFICATE").count() > ours.len());
    }

    #[test]
    fn what_is_shown_is_what_a_person_compares() {
        let state = tempfile::tempdir().unwrap();
        let made = Ca::for_tests(state.path());
        made.rotate(false).unwrap();
        let generations = About::all(state.path()).unwrap();
        let text = describe(&generations, &config(state.path()));
        for root in made.roots() {
            assert!(text.contains(&root.fingerprint()) && text.contains(root.subject()), "{text}");
        }
        for expected in ["generation   2 (newest)", "generation   1 (former)", "permits    com ", "ca/ca.pem"]
        {
            assert!(text.contains(expected), "{expected} in {text}");
        }
        ca(state.path(), &["show"]).unwrap();
    }

    #[test]
    fn a_rotation_says_what_it_would_do_and_what_it_did() {
        let state = tempfile::tempdir().unwrap();
        Ca::for_tests(state.path());
        let generations = About::all(state.path()).unwrap();
        let config = config(state.path());
        let over = (OffsetDateTime::now_utc() + config.ca.overlap).date().to_string();
        let text = plan(&generations, &config, false);
        assert!(
            text.contains("would make generation 2") && text.contains(&format!("until {over}")),
            "{text}"
        );
        let text = plan(&generations, &config, true);
        assert!(text.contains("would end generation 1 now"), "{text}");
        ca(state.path(), &["rotate", "--dry-run"]).unwrap();
        assert_eq!(About::all(state.path()).unwrap().len(), 1, "nothing was done");
        let report = RotateCaReport {
            generation: 7,
            roots: vec!["AB:CD".to_owned()],
            former: vec![(6, "2027-01-02T03:04:05Z".to_owned())],
        };
        let text = done(&report);
        for expected in ["generation 7 is made", "SHA256 AB:CD", "generation 6 goes on until 2027-01-02"] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn without_a_ca_the_error_says_when_it_is_made() {
        let state = tempfile::tempdir().unwrap();
        for command in ["show", "export"] {
            let error = ca(state.path(), &[command]).unwrap_err().to_string();
            assert!(error.contains("first starts"), "{error}");
        }
    }

    #[test]
    fn an_export_that_cannot_be_written_names_the_file() {
        let state = tempfile::tempdir().unwrap();
        Ca::for_tests(state.path());
        let error = ca(state.path(), &["export", "--out", "/proc/none/ca.pem"]).unwrap_err().to_string();
        assert!(error.contains("/proc/none/ca.pem"), "{error}");
    }
}
