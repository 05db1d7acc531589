//! `vouchsafe trust install|refresh|remove|status|env`: every change is said before it is made.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::status::safe;
use crate::stores::{
    COPIES, Goal, Outcome, Said, Status, Stores, Target, Wanted, all_current, path, service, variables,
};

/// Which stores, and whether they are only looked at.
#[derive(Debug, Args)]
#[command(after_help = "\
Without a store: `install` puts the roots into the system's store and into /etc/vouchsafe/trust, and brings all recorded stores to the \
current roots; `remove` takes them out of all recorded stores.

Exit code: 0 each store is as it should be, 1 one is not and was left as it was.")]
pub(super) struct ChangeArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// The system's store
    #[arg(long)]
    system: bool,
    /// The copies in /etc/vouchsafe/trust: roots.pem, bundle.pem (the system's roots and ours)
    #[arg(long)]
    bundle: bool,
    /// A service: a drop-in with variables that name the copies, for what does not ask the system
    #[arg(long, value_name = "NAME", value_parser = service)]
    unit: Vec<String>,
    /// A file of certificates that a program brings, such as certifi's cacert.pem
    #[arg(long, value_name = "FILE", value_parser = path)]
    file: Vec<PathBuf>,
    /// A Java installation with roots of its own, or a keystore with the usual password
    #[arg(long, value_name = "FOLDER", value_parser = path)]
    java_home: Vec<PathBuf>,
    /// A folder with a database of NSS (Chromium, Firefox)
    #[arg(long, value_name = "FOLDER", value_parser = path)]
    nss: Vec<PathBuf>,
    /// A folder of certificates that OpenSSL finds by their hash
    #[arg(long, value_name = "FOLDER", value_parser = path)]
    hash_dir: Vec<PathBuf>,
}

impl ChangeArgs {
    fn targets(&self) -> Vec<Target> {
        let units = self.unit.iter().map(|unit| Target::Unit { unit: unit.clone() });
        let files = self.file.iter().map(|path| Target::File { path: path.clone() });
        let java = self.java_home.iter().map(|path| Target::Java { path: path.clone() });
        let nss = self.nss.iter().map(|path| Target::Nss { path: path.clone() });
        let folders = self.hash_dir.iter().map(|path| Target::HashDir { path: path.clone() });
        let system = self.system.then_some(Target::System);
        let bundle = self.bundle.then_some(Target::Bundle);
        system
            .into_iter()
            .chain(bundle)
            .chain(units)
            .chain(files)
            .chain(java)
            .chain(nss)
            .chain(folders)
            .collect()
    }
}

/// How to refresh.
#[derive(Debug, Args)]
pub(super) struct RefreshArgs {
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Say nothing of stores that are as they should be
    #[arg(long)]
    quiet: bool,
    /// Wait for so many seconds first, while what changed goes on changing
    #[arg(long, value_name = "SECONDS", hide = true, default_value_t = 0)]
    settle: u64,
}

/// How to show the stores.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 all recorded stores are current, 1 one is not or none is recorded.")]
pub(super) struct StatusArgs {
    /// Print one JSON array, for programs
    #[arg(long)]
    json: bool,
}

/// Which variables.
#[derive(Debug, Args)]
pub(super) struct EnvArgs {
    /// What they are for
    #[arg(long, value_enum, default_value_t = Form::Shell)]
    format: Form,
    /// Where roots.pem and bundle.pem are for the program, as in a container
    #[arg(long, value_name = "FOLDER", value_parser = path, default_value = COPIES)]
    at: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// `export NAME=…`
    Shell,
    /// `ENV NAME=…`, for a Dockerfile
    Docker,
    /// `NAME=…`, for `--env-file` and EnvironmentFile=
    File,
}

pub(super) fn install(args: &ChangeArgs, state: &Path) -> anyhow::Result<ExitCode> {
    let mut targets = args.targets();
    let wanted = if targets.is_empty() {
        Wanted::AndRecorded(vec![Target::System, Target::Bundle])
    } else {
        // Units are told of the copies.
        if targets.iter().any(|target| matches!(target, Target::Unit { .. })) {
            targets.push(Target::Bundle);
        }
        Wanted::These(targets)
    };
    change(wanted, Goal::Current, args.dry_run, false, state)
}

pub(super) fn refresh(args: &RefreshArgs, state: &Path) -> anyhow::Result<ExitCode> {
    std::thread::sleep(Duration::from_secs(args.settle.min(60)));
    change(Wanted::AndRecorded(Vec::new()), Goal::Current, args.dry_run, args.quiet, state)
}

pub(super) fn remove(args: &ChangeArgs, state: &Path) -> anyhow::Result<ExitCode> {
    let targets = args.targets();
    let wanted = match targets.is_empty() {
        // Also what a lost manifest does not know of.
        true => Wanted::AndRecorded(vec![Target::System, Target::Bundle]),
        false => Wanted::These(targets),
    };
    change(wanted, Goal::Without, args.dry_run, false, state)
}

fn change(wanted: Wanted, goal: Goal, dry: bool, quiet: bool, state: &Path) -> anyhow::Result<ExitCode> {
    if dry {
        println!("dry run: nothing is changed");
    }
    let (mut title, mut store_said) = (String::new(), true);
    let outcome = Stores::of_host(state).bring(wanted, goal, dry, &mut |said| {
        // A store is named before the first that is said of it.
        let mut line = |text: &str| {
            if !std::mem::replace(&mut store_said, true) {
                println!("{}", safe(&title));
            }
            println!("  {}", safe(text));
        };
        match said {
            Said::Store(store) => (title, store_said) = (store.to_owned(), false),
            Said::Step(step) => line(&step.to_string()),
            Said::NothingToDo if quiet => {}
            Said::NothingToDo => line("nothing to change"),
            Said::Note(note) => line(note),
            Said::Failed(error) => {
                eprintln!("vouchsafe: {}: {}", safe(&title), safe(&error.to_string()));
            }
        }
    })?;
    if !(quiet && outcome.changed + outcome.failed == 0) {
        println!("{}", sum(outcome, dry));
    }
    Ok(if outcome.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn sum(outcome: Outcome, dry: bool) -> String {
    let Outcome { changed, current, failed } = outcome;
    if changed + failed == 0 {
        return "nothing to change".to_owned();
    }
    let word = if dry { "to change" } else { "changed" };
    let mut text = format!("{changed} {word}, {current} as they should be");
    if failed > 0 {
        let _ = write!(text, ", {failed} FAILED and left as they were");
    }
    text
}

pub(super) fn status(args: &StatusArgs, state: &Path) -> anyhow::Result<ExitCode> {
    let all = Stores::of_host(state).status()?;
    let text = if args.json { serde_json::to_string_pretty(&all)? + "\n" } else { table(&all) };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if all_current(&all) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line each, what serves whom below it, and how to change what is not as it should be.
fn table(all: &[Status]) -> String {
    let head = ["STORE", "STATE", "PATH"].map(str::to_owned);
    let rows =
        all.iter().map(|it| [safe(&it.store), it.state.words().to_owned(), safe(&it.path.to_string_lossy())]);
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let (first, second) = (width(0), width(1));
    let mut text = String::new();
    for (at, [store, state, path]) in rows.iter().enumerate() {
        let _ = writeln!(text, "{}", format!("{store:first$}  {state:second$}  {path}").trim_end());
        let Some(it) = at.checked_sub(1).and_then(|at| all.get(at)) else { continue };
        let _ = writeln!(text, "  serves   {}", it.serves);
        for (word, said) in [("problem", &it.problem), ("do     ", &it.command)] {
            if let Some(said) = said {
                let _ = writeln!(text, "  {word}  {}", safe(said));
            }
        }
    }
    text
}

pub(super) fn env(args: &EnvArgs) -> anyhow::Result<ExitCode> {
    io::stdout().write_all(printed(args.format, &args.at).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn printed(form: Form, at: &Path) -> String {
    let line = |(name, value): (&str, String)| match form {
        Form::Shell => format!("export {name}='{}'\n", value.replace('\'', r"'\''")),
        Form::Docker => {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('$', r"\$");
            format!("ENV {name}=\"{value}\"\n")
        }
        Form::File => format!("{name}={value}\n"),
    };
    variables(at).into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::State;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: ChangeArgs,
    }

    fn parse(arguments: &[&str]) -> Result<ChangeArgs, String> {
        Program::try_parse_from([&["install"], arguments].concat())
            .map(|program| program.args)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn stores_are_named_by_options_and_odd_names_are_refused() {
        let args = parse(&["--unit", "a", "--unit", "b.service", "--file", "/x//y/./cacert.pem", "--system"])
            .unwrap();
        let expected = [
            Target::System,
            Target::Unit { unit: "a.service".into() },
            Target::Unit { unit: "b.service".into() },
            Target::File { path: "/x/y/cacert.pem".into() },
        ];
        assert_eq!(args.targets(), expected);
        for target in &expected {
            let option = target.option();
            let again = parse(&option.split(' ').collect::<Vec<_>>()).unwrap().targets();
            assert_eq!(again, std::slice::from_ref(target), "the option of a store names it");
        }
        for wrong in
            [["--unit", "a/b"], ["--file", "cacert.pem"], ["--nss", "/a/../b"], ["--hash-dir", "/a\nb"]]
        {
            assert!(parse(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn variables_are_printed_so_that_each_reader_reads_the_same_value() {
        let at = Path::new("/a b/it's $x");
        let text = printed(Form::Shell, at) + "printf %s \"$SSL_CERT_FILE\"";
        let shell = std::process::Command::new("sh").args(["-c", &text]).output().unwrap();
        assert_eq!(String::from_utf8(shell.stdout).unwrap(), "/a b/it's $x/bundle.pem");
        assert!(printed(Form::Docker, at).contains("ENV SSL_CERT_FILE=\"/a b/it's \\$x/bundle.pem\"\n"));
        assert!(printed(Form::File, Path::new("/t")).starts_with("SSL_CERT_FILE=/t/bundle.pem\n"));
    }

    #[test]
    fn the_table_says_what_is_served_what_is_wrong_and_what_to_do() {
        let status = Status {
            store: "unit a.service".into(),
            path: "/etc/x\u{1b}".into(),
            state: State::Outdated,
            recorded: true,
            serves: "its programs",
            problem: Some("to be done".into()),
            command: Some("vouchsafe trust refresh".into()),
        };
        let text = table(std::slice::from_ref(&status));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "STORE           STATE     PATH");
        assert!(
            lines[1].starts_with("unit a.service  outdated  /etc/x") && !text.contains('\u{1b}'),
            "{text}"
        );
        assert_eq!(
            &lines[2..],
            ["  serves   its programs", "  problem  to be done", "  do       vouchsafe trust refresh"]
        );
        assert!(!all_current(&[]), "nothing that is recorded is not current");
        assert!(!all_current(std::slice::from_ref(&status)));
        assert!(all_current(&[Status { state: State::Current, ..status.clone() }]));
        let found = Status { state: State::NotInstalled, recorded: false, ..status.clone() };
        assert!(all_current(&[Status { state: State::Current, ..status }, found]));
    }
}
