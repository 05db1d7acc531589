//! `vouchsafe secret set|list|rm`: the secrets in the store, by name; their values only go in.

mod prompt;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::control::SecretsReport;
use crate::control::client::{self, ClientError};
use crate::control::credentials::{ROTATE_COMMAND, RotateOrder, RotateReport};
use crate::credentials::{Listed, MAX_SECRET_BYTES, Secret, SecretName, StorePaths};

/// Arguments of `vouchsafe secret`.
#[derive(Debug, Args)]
pub struct SecretArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Store a secret under NAME; a policy then refers to it as vault:NAME
    #[command(after_help = SET_HELP)]
    Set {
        /// As in stripe/restricted: a-z 0-9 . _ / - and at most 128 of them
        #[arg(value_parser = WithoutEcho::<SecretName>::new())]
        name: SecretName,
        /// Only here to be refused with a reason.
        #[arg(hide = true, num_args = 0.., allow_hyphen_values = true, value_parser = WithoutEcho::<Nothing>::new())]
        value: Vec<Nothing>,
    },
    /// Show names, versions and dates of all secrets, never a value
    List,
    /// Have the daemon make a secret anew, as [rotation.NAME] of its configuration says
    #[command(after_help = ROTATE_HELP)]
    Rotate {
        /// The name it is stored under
        #[arg(value_parser = WithoutEcho::<SecretName>::new())]
        name: SecretName,
    },
    /// Remove a secret
    Rm {
        /// The name it was stored under
        #[arg(value_parser = WithoutEcho::<SecretName>::new())]
        name: SecretName,
    },
}

/// Each step has its own bound: two programs, or an API that is asked until it takes the new one, and the way back.
const ROTATION_TAKES: Duration = Duration::from_secs(180);

const ROTATE_HELP: &str = "\
A program, or the provider's API, makes a new one, which has to be taken by the API (the `probe` of a credential) before it \
becomes the current one; the one before is ended after the overlap. Exit code: 1 when \
something of it failed, and the secret is as it was.";

const SET_HELP: &str = "\
The value comes from standard input, or from a prompt that does not show it:

    vouchsafe secret set stripe/restricted < key-file
    pass show stripe | vouchsafe secret set stripe/restricted

One line end at the end of the value is taken off. It is never an argument: arguments are seen by every user of this \
host (ps, /proc/PID/cmdline) and stay in the shell's history.";

/// What cannot be given.
#[derive(Debug, Clone)]
enum Nothing {}

/// Says why there is no argument for the value.
#[derive(Debug, thiserror::Error)]
#[error(
    "a secret is never given as an argument: every user of this host could read it there (ps, /proc/PID/cmdline), and \
     it stays in the shell's history. This one may have been seen already: consider replacing it. Give the value on \
     standard input (vouchsafe secret set NAME < file) or at the prompt"
)]
struct NeverAnArgument;

impl FromStr for Nothing {
    type Err = NeverAnArgument;

    fn from_str(_: &str) -> Result<Self, NeverAnArgument> {
        Err(NeverAnArgument)
    }
}

/// Parses an argument and does not repeat it in the error, as clap's own parsers do: it may be the secret.
#[derive(Debug)]
struct WithoutEcho<T>(std::marker::PhantomData<fn() -> T>);

impl<T> WithoutEcho<T> {
    const fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<T> Clone for WithoutEcho<T> {
    fn clone(&self) -> Self {
        Self::new()
    }
}

impl<T> TypedValueParser for WithoutEcho<T>
where
    T: FromStr<Err: std::fmt::Display> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        // What is not UTF-8 is no name either.
        value.to_str().unwrap_or_default().parse().map_err(|error| {
            clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")).with_cmd(command)
        })
    }
}

/// Does it. After a change a running daemon is told; the exit code is 1 when it did not take the change.
///
/// # Errors
/// The store cannot be read or written, the value is none, or there is no such secret.
pub fn run(args: SecretArgs, paths: &StorePaths) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    match args.action {
        Action::Set { name, value: _ } => {
            let secret = value_from_input(&name)?;
            let bytes = secret.len();
            let version = paths.store.set(&name, secret, now_s())?;
            writeln!(out, "stored {name}, version {version}, {bytes} bytes; refer to it as vault:{name}")?;
            tell_the_daemon(&paths.control_socket, &mut out)
        }
        Action::List => {
            out.write_all(table(&paths.store.list()?).as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Rotate { name } => {
            let order = RotateOrder::of_this_process(name.to_string());
            let report: RotateReport = client::call_patiently(
                &paths.control_socket,
                ROTATE_COMMAND,
                order.arguments(),
                ROTATION_TAKES,
            )?;
            let RotateReport { version, tried, overlap_s } = report;
            let tried = tried.join(", ");
            writeln!(
                out,
                "{name} is version {version} now, tried with {tried}; the one before ends in {overlap_s} s"
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Rm { name } => {
            paths.store.remove(&name)?;
            writeln!(out, "removed {name}")?;
            tell_the_daemon(&paths.control_socket, &mut out)
        }
    }
}

fn value_from_input(name: &SecretName) -> anyhow::Result<Secret> {
    let stdin = io::stdin();
    // Read past the buffer of `Stdin`, which would keep a copy.
    let mut input = File::from(stdin.as_fd().try_clone_to_owned().context("cannot use standard input")?);
    let bytes = if stdin.is_terminal() {
        prompt::read(&mut input, &mut io::stderr(), &format!("Value of {name} (not shown): "))
            .context("cannot read the value from the terminal")?
            .context("cancelled; nothing was stored")?
    } else {
        read_bounded(&mut input).context("cannot read the value from standard input")?
    };
    value(bytes)
}

/// All of it, and one byte more than may be kept with its line end. The buffer never grows, so no copy stays.
fn read_bounded(input: &mut impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let most = MAX_SECRET_BYTES + b"\r\n".len() + 1;
    let mut bytes = Zeroizing::new(vec![0; most]);
    let mut length = 0;
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match input.read(room) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Takes one line end off and checks the length.
fn value(mut bytes: Zeroizing<Vec<u8>>) -> anyhow::Result<Secret> {
    let line_end = if bytes.ends_with(b"\r\n") { 2 } else { usize::from(bytes.ends_with(b"\n")) };
    let length = bytes.len() - line_end;
    bytes.truncate(length);
    if bytes.is_empty() {
        bail!("the value is empty; nothing was stored");
    }
    if bytes.len() > MAX_SECRET_BYTES {
        bail!("the value has more than {MAX_SECRET_BYTES} bytes; nothing was stored");
    }
    Ok(Secret::from(bytes))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn table(secrets: &[Listed]) -> String {
    if secrets.is_empty() {
        return "no secrets are stored; `vouchsafe secret set NAME` stores one\n".to_owned();
    }
    let longest = secrets.iter().map(|secret| secret.name.as_str().len()).max().unwrap_or(0);
    let width = longest.max("NAME".len());
    let mut table = format!("{:width$}  VERSION  SET\n", "NAME");
    for Listed { name, version, created_s } in secrets {
        let date = i64::try_from(*created_s).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
        let date = date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| "unknown".to_owned());
        table.push_str(&format!("{:width$}  {version:7}  {date}\n", name.as_str()));
    }
    table
}

/// Lets a running daemon read the store again, and says whether it did.
fn tell_the_daemon(socket: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match client::call::<SecretsReport>(socket, "reload-secrets") {
        Ok(report) => {
            let count = report.count;
            writeln!(out, "the running daemon has read the store again ({count} secrets)")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(ClientError::NotRunning { .. }) => {
            writeln!(out, "no daemon is running; it will read the store when it starts")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(
                out,
                "the store is changed, but the running daemon still has the old secrets: {error}; when that is \
                 repaired, run `systemctl reload vouchsafe`"
            )?;
            Ok(ExitCode::FAILURE)
        }
    }
}

#[cfg(test)]
#[path = "secret/tests.rs"]
mod tests;
