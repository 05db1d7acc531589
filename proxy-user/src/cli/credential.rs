//! `vouchsafe credential`: what is known of the credentials of the policy that is live. Never a secret.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::status::{NOT_RUNNING, safe};
use crate::control::client::{self, ClientError};
use crate::control::credentials::{
    COMMAND, CredentialReport, SecretReport, TEST_COMMAND, TestOrder, TestReport,
};

/// Arguments of `vouchsafe credential`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 calls can have what was asked about, 1 they cannot or there is no such credential, 3 the daemon is not running.")]
pub struct CredentialArgs {
    #[command(subcommand)]
    command: CredentialCommand,
}

#[derive(Debug, Subcommand)]
enum CredentialCommand {
    /// All of them, a line each
    List {
        /// Print one JSON array, for programs
        #[arg(long)]
        json: bool,
    },
    /// One of them, with where its secrets are and what is wrong with it
    Show {
        /// Its name in the policy
        name: String,
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
    },
    /// Make the call of its `probe`, and say whether the API takes it
    Test {
        /// Its name in the policy
        name: String,
        /// The identity that it is obtained for; the first one with a grant for it, if none is named
        #[arg(long = "as", value_name = "IDENTITY")]
        identity: Option<String>,
        /// Print one JSON object, for programs
        #[arg(long)]
        json: bool,
    },
}

/// Asks the daemon on `socket`.
///
/// # Errors
/// The daemon answers and does not admit us, or there is no such credential.
pub fn run(args: &CredentialArgs, socket: &Path) -> anyhow::Result<ExitCode> {
    let json = match &args.command {
        CredentialCommand::List { json }
        | CredentialCommand::Show { json, .. }
        | CredentialCommand::Test { json, .. } => *json,
    };
    if let CredentialCommand::Test { name, identity, .. } = &args.command {
        let order = TestOrder { name: name.clone(), identity: identity.clone() };
        let report: TestReport = match client::call_with(socket, TEST_COMMAND, order.arguments()) {
            Err(ClientError::NotRunning { .. }) => return not_running(json, socket),
            report => report?,
        };
        let text = if json { to_json(&report)? } else { tried(name, &report) };
        io::stdout().write_all(text.as_bytes())?;
        return Ok(if report.taken { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let all: Vec<CredentialReport> = match client::call(socket, COMMAND) {
        Err(ClientError::NotRunning { .. }) => return not_running(json, socket),
        all => all?,
    };
    let (text, well) = match &args.command {
        CredentialCommand::List { json: true } => (to_json(&all)?, all.iter().all(is_well)),
        CredentialCommand::List { .. } => (list(&all), all.iter().all(is_well)),
        CredentialCommand::Show { name, json } => {
            let one = all.iter().find(|it| it.name == *name).ok_or_else(|| {
                anyhow::anyhow!(
                    "the policy that is live has no credential {name:?}; see `vouchsafe credential list`"
                )
            })?;
            (if *json { to_json(one)? } else { page(one)? }, is_well(one))
        }
        CredentialCommand::Test { .. } => (String::new(), true),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn not_running(json: bool, socket: &Path) -> anyhow::Result<ExitCode> {
    if json {
        writeln!(io::stdout(), "{}", json!({ "running": false }))?;
    }
    eprintln!("vouchsafe is not running (nobody answers on {}), so no policy is live", socket.display());
    Ok(ExitCode::from(NOT_RUNNING))
}

/// One line on what the API said, and one on what to do.
fn tried(name: &str, report: &TestReport) -> String {
    let TestReport { status, version, took_ms, .. } = report;
    let whom = report.identity.as_deref().map_or_else(|| "nobody".to_owned(), safe);
    let what = if report.taken { "ok" } else { "NOT TAKEN" };
    let mut text = format!(
        "{}: {what}: {} as {whom}, version {version}: {status} in {took_ms} ms\n",
        safe(name),
        safe(&report.probe)
    );
    text.push_str(match status {
        200..=299 => "",
        401 => "  help: the API does not take it: see whether it is current, and how the API wants it (inject)\n",
        403 => "  help: the API knows it and does not let it do this: see what it may do, or choose another probe\n",
        404 | 405 => "  help: the API has no such call: correct the probe\n",
        429 => "  help: the API asks to wait; try again later\n",
        _ => "  help: this says nothing of the credential; see the API, or choose another probe\n",
    });
    text
}

fn is_well(credential: &CredentialReport) -> bool {
    credential.problem.is_none()
}

fn to_json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Columns as wide as what is in them.
fn list(all: &[CredentialReport]) -> String {
    let head = ["NAME", "KIND", "VERSION", "LAST USED", "BY", "STATE"].map(str::to_owned);
    let rows = all.iter().map(|it| {
        [
            safe(&it.name),
            safe(&it.kind),
            it.version.map_or_else(|| "-".to_owned(), |version| version.to_string()),
            it.last_used.as_deref().map_or_else(|| "never".to_owned(), safe),
            it.last_used_by.as_deref().map_or_else(|| "-".to_owned(), safe),
            if is_well(it) { "ok".to_owned() } else { "problem".to_owned() },
        ]
    });
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let width = rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max();
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width.unwrap_or(0) - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn page(it: &CredentialReport) -> Result<String, std::fmt::Error> {
    let mut page = String::new();
    writeln!(page, "name       {}", safe(&it.name))?;
    writeln!(page, "kind       {}", safe(&it.kind))?;
    writeln!(page, "source     {}", safe(&it.source))?;
    let apis =
        if it.apis.is_empty() { "any that a grant names it for".to_owned() } else { it.apis.join(", ") };
    writeln!(page, "apis       {}", safe(&apis))?;
    it.insecure.iter().try_for_each(|place| writeln!(page, "insecure   {}", safe(place)))?;
    if let Some(version) = it.version {
        let since = it.since.as_deref().map_or_else(String::new, |since| format!(", since {}", safe(since)));
        writeln!(page, "version    {version}{since}")?;
    }
    for SecretReport { source, owner, labels } in &it.secrets {
        let owner = owner.iter().map(|owner| format!("owner {}", safe(owner)));
        let labels = labels.iter().map(|(name, value)| format!("{}={}", safe(name), safe(value)));
        let said: Vec<_> = owner.chain(labels).collect();
        writeln!(page, "secret     {}: {}", safe(source), said.join(", "))?;
    }
    match (&it.last_used, &it.last_used_by) {
        (Some(at), Some(by)) => writeln!(page, "last used  {} by {}", safe(at), safe(by))?,
        _ => writeln!(page, "last used  never since the daemon started")?,
    }
    it.problem.iter().try_for_each(|problem| writeln!(page, "problem    {}", safe(problem)))?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(name: &str) -> CredentialReport {
        CredentialReport {
            name: name.into(),
            kind: "static".into(),
            source: "vault:stripe".into(),
            apis: vec!["stripe".into()],
            insecure: None,
            version: Some(3),
            since: Some("2027-01-01T00:00:00Z".into()),
            last_used: None,
            last_used_by: None,
            secrets: Vec::new(),
            problem: None,
        }
    }

    #[test]
    fn a_list_has_columns_and_says_what_was_never_used() {
        let used = CredentialReport {
            last_used: Some("2027-01-02T00:00:00Z".into()),
            last_used_by: Some("invoice-bot".into()),
            problem: Some("there is no file /x".into()),
            ..report("a-long-name")
        };
        let text = list(&[report("stripe"), used]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "NAME         KIND    VERSION  LAST USED             BY           STATE");
        assert_eq!(lines[1], "stripe       static  3        never                 -            ok");
        assert_eq!(lines[2], "a-long-name  static  3        2027-01-02T00:00:00Z  invoice-bot  problem");
    }

    #[test]
    fn a_try_says_what_the_api_said_and_what_to_do() {
        let report = |status: u16| TestReport {
            probe: "GET https://a.test/me".into(),
            identity: Some("bot".into()),
            version: 3,
            status,
            took_ms: 12,
            taken: status < 300,
        };
        let text = tried("stripe", &report(200));
        assert_eq!(text, "stripe: ok: GET https://a.test/me as bot, version 3: 200 in 12 ms\n");
        let text = tried("stripe", &TestReport { identity: None, ..report(401) });
        assert!(text.starts_with("stripe: NOT TAKEN: ") && text.contains(" as nobody, "), "{text}");
        assert!(text.contains("help: the API does not take it"), "{text}");
    }

    #[test]
    fn a_page_tells_where_it_is_and_what_is_wrong_without_control_characters() {
        let labels = [("team".to_owned(), "billing".to_owned())].into();
        let secret =
            SecretReport { source: "vault:stripe".into(), owner: Some("a@b.test\u{1b}".into()), labels };
        let problem = Some("gone\u{1b}[2J".into());
        let text = page(&CredentialReport { problem, secrets: vec![secret], ..report("stripe") }).unwrap();
        assert!(text.contains("secret     vault:stripe: owner a@b.test"), "{text}");
        assert!(text.contains(", team=billing\n"), "{text}");
        assert!(text.contains("source     vault:stripe\n"), "{text}");
        assert!(text.contains("version    3, since 2027-01-01T00:00:00Z\n"), "{text}");
        assert!(text.contains("last used  never"), "{text}");
        assert!(text.contains("problem    gone") && !text.contains('\u{1b}'), "{text}");
    }
}
