//! `vouchsafe secret set|label|list|show|rotate|seal-key|rm`: the secrets in the store, by name; their values only go in.

mod listed;
mod prompt;
mod seal_key;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::status::safe;
use crate::control::SecretsReport;
use crate::control::client::{self, ClientError};
use crate::control::credentials::{ROTATE_COMMAND, RotateOrder, RotateReport};
use crate::control::peer::said_of_this_process;
use crate::credentials::{Label, MAX_SECRET_BYTES, Owner, SEALED_KEY, Secret, SecretName, StorePaths};

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
        /// A label, as in team=billing; with nothing after the =, it is taken away. Those that are not named stay
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = WithoutEcho::<Label>::new())]
        labels: Vec<Label>,
        /// Who answers for it, such as an address; "" takes it away
        #[arg(long, value_parser = WithoutEcho::<Owner>::new())]
        owner: Option<Owner>,
        /// Only here to be refused with a reason.
        #[arg(hide = true, num_args = 0.., allow_hyphen_values = true, value_parser = WithoutEcho::<Nothing>::new())]
        value: Vec<Nothing>,
    },
    /// Change labels and owner of a secret; its value stays
    Label {
        /// The name it is stored under
        #[arg(value_parser = WithoutEcho::<SecretName>::new())]
        name: SecretName,
        /// Labels, as in team=billing; with nothing after the =, one is taken away
        #[arg(value_name = "LABEL", required_unless_present = "owner", value_parser = WithoutEcho::<Label>::new())]
        labels: Vec<Label>,
        /// Who answers for it, such as an address; "" takes it away
        #[arg(long, value_parser = WithoutEcho::<Owner>::new())]
        owner: Option<Owner>,
    },
    /// Show names, versions, dates, owners and labels of all secrets, never a value
    List {
        /// Only those with this label, as in team=billing; with nothing after the =, only those without it
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = WithoutEcho::<Label>::new())]
        labels: Vec<Label>,
        /// Print one JSON array, for programs
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of a secret, also when the versions before it were set; never a value
    Show {
        /// The name it is stored under
        #[arg(value_parser = WithoutEcho::<SecretName>::new())]
        name: SecretName,
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Have the daemon make a secret anew, as [rotation.NAME] of its configuration says
    #[command(after_help = ROTATE_HELP)]
    Rotate {
        /// The name it is stored under
        #[arg(value_parser = WithoutEcho::<SecretName>::new())]
        name: SecretName,
    },
    /// Hand the key of the store to systemd, sealed to this machine (TPM, where there is one)
    #[command(after_help = seal_key::HELP)]
    SealKey {
        /// Where systemd finds it
        #[arg(long, default_value = SEALED_KEY)]
        to: PathBuf,
        /// With what it is sealed, as for systemd-creds(1)
        #[arg(long, default_value = "auto", value_parser = ["auto", "host", "tpm2", "host+tpm2"])]
        with_key: String,
        /// Then remove the key file beside the store, if systemd hands the key to the daemon already
        #[arg(long)]
        remove_plain: bool,
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
        Action::Set { name, labels, owner, value: _ } => {
            let secret = value_from_input(&name)?;
            let bytes = secret.len();
            let version = paths.store.set_about(&name, secret, &labels, owner.as_ref(), now_s())?;
            writeln!(out, "stored {name}, version {version}, {bytes} bytes; refer to it as vault:{name}")?;
            tell_the_daemon(&paths.control_socket, &mut out)
        }
        Action::Label { name, labels, owner } => {
            let about = paths.store.describe(&name, &labels, owner.as_ref())?;
            let owner = about.owner().map_or_else(|| "nobody".to_owned(), safe);
            let labels = if about.labels().is_empty() { "none".to_owned() } else { safe(&about.to_string()) };
            writeln!(out, "{name}: owner {owner}, labels {labels}")?;
            tell_the_daemon(&paths.control_socket, &mut out)
        }
        Action::List { labels, json } => {
            let all = paths.store.list()?;
            let any = !all.is_empty();
            let all: Vec<_> = all.into_iter().filter(|it| it.about.has(&labels)).collect();
            let text = match (json, any, all.is_empty()) {
                (true, ..) => {
                    let all: Vec<_> = all.iter().map(listed::to_json).collect();
                    serde_json::to_string_pretty(&all)? + "\n"
                }
                (_, false, _) => "no secrets are stored; `vouchsafe secret set NAME` stores one\n".to_owned(),
                (_, _, true) => "no secret has these labels\n".to_owned(),
                _ => listed::table(&all),
            };
            out.write_all(text.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Show { name, json } => {
            let one = paths.store.list()?.into_iter().find(|it| it.name == name);
            let one = one.with_context(|| {
                format!("there is no secret {name}; `vouchsafe secret list` shows those that are")
            })?;
            let text = match json {
                true => serde_json::to_string_pretty(&listed::to_json(&one))? + "\n",
                false => listed::page(&one)?,
            };
            out.write_all(text.as_bytes())?;
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
        Action::SealKey { to, with_key, remove_plain } => {
            seal_key::run(&paths.store, &to, &with_key, remove_plain, &mut out)?;
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

/// Lets a running daemon read the store again, and says whether it did.
fn tell_the_daemon(socket: &Path, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match client::call_with::<SecretsReport>(socket, "reload-secrets", said_of_this_process()) {
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
