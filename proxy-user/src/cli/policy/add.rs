//! `vouchsafe policy add NAME`: takes an API and its roles out of the library that ships, as a file of the operator's own.
//!
//! Copied and not referred to: what a policy means changes when its owner changes it, and not with an update of the package.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use proxy_policy::{Host, Severity, SourceFile, TEST_SUFFIX, compile};

use crate::app::policies::Texts;

/// How hosts begin in the library that every customer has for himself. No issuer gives such a name away.
const OWN_HOST: &str = "change_me.";
/// Where the package puts the library, unless the program stands below another prefix.
const INSTALLED: &str = "/usr/share/vouchsafe/library";

/// Arguments of `vouchsafe policy add`.
#[derive(Debug, Args)]
#[command(after_help = "\
Without NAME, lists what there is. A file that exists is never overwritten; what is added belongs to you: edit it.
Exit code: 0 it is there, 1 it is not.")]
pub struct AddArgs {
    /// The API, such as github
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Your own host, for an API that every customer has one of, such as acme.atlassian.net
    #[arg(long, value_name = "HOST", requires = "name")]
    host: Option<String>,
    /// The folder that holds policies/, roles/, apis/ and credentials/
    #[arg(long, value_name = "DIR", default_value = "/etc/vouchsafe")]
    to: PathBuf,
    /// The library [default: the one that was installed with this program]
    #[arg(long, value_name = "DIR")]
    library: Option<PathBuf>,
}

/// Copies one file of the library, or lists them.
///
/// # Errors
/// There is no such API, a file is there already and says something else, or the policy would be refused with it.
pub fn run(args: &AddArgs) -> anyhow::Result<ExitCode> {
    let library = args.library.clone().unwrap_or_else(installed);
    let said = match &args.name {
        None => list(&library)?,
        Some(name) => add(&library, name, args.host.as_deref(), &args.to)?,
    };
    io::stdout().write_all(said.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The library beside this program: `PREFIX/bin/vouchsafe` has `PREFIX/share/vouchsafe/library`.
fn installed() -> PathBuf {
    let program = std::env::current_exe().ok();
    let prefix = program.as_deref().and_then(Path::parent).and_then(Path::parent);
    let beside = prefix.map(|prefix| prefix.join("share/vouchsafe/library"));
    beside.filter(|path| path.is_dir()).unwrap_or_else(|| INSTALLED.into())
}

/// The names of the APIs, with the files.
fn entries(library: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let folder = library.join("apis");
    let read = fs::read_dir(&folder);
    let read = read.with_context(|| {
        format!(
            "there is no library at {}; name the folder that it is in (policies/library of the sources) with --library",
            library.display()
        )
    })?;
    let mut found = Vec::new();
    for entry in read {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(stem) = name.strip_suffix(".toml").filter(|_| !name.ends_with(TEST_SUFFIX)) {
            found.push((stem.to_owned(), folder.join(&name)));
        }
    }
    found.sort();
    Ok(found)
}

/// The roles of a file as one writes them into a grant.
fn roles(text: &str) -> anyhow::Result<Vec<String>> {
    let table: toml::Table = text.parse()?;
    let roles = table.get("role").and_then(toml::Value::as_table);
    let spelled = roles.into_iter().flatten().map(|(name, role)| {
        let params =
            role.get("params").and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let names: Vec<&str> = params.iter().filter_map(toml::Value::as_str).collect();
        match names.is_empty() {
            true => name.clone(),
            false => format!("{name} ({})", names.join(", ")),
        }
    });
    Ok(spelled.collect())
}

fn list(library: &Path) -> anyhow::Result<String> {
    let mut out = String::new();
    for (name, path) in entries(library)? {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let _ = writeln!(out, "{name:<18} {}", roles(&text)?.join(", "));
    }
    Ok(out)
}

fn add(library: &Path, name: &str, host: Option<&str>, to: &Path) -> anyhow::Result<String> {
    let entries = entries(library)?;
    let Some((_, source)) = entries.iter().find(|(known, _)| known == name) else {
        let known: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
        bail!("the library has no API {name:?}; it has {}", known.join(", "));
    };
    let text = fs::read_to_string(source).with_context(|| format!("cannot read {}", source.display()))?;
    let text = with_host(name, &text, host)?;
    let label = format!("apis/{name}.toml");
    let target = to.join(&label);
    match fs::read_to_string(&target) {
        Ok(old) if old == text => return Ok(format!("{} is there already\n", target.display())),
        Ok(_) => bail!(
            "{} is there already and says something else; compare it with {}",
            target.display(),
            source.display()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", target.display())),
    }
    check_fits(to, &label, &text)?;
    write_new(&target, &text).with_context(|| format!("cannot write {}", target.display()))?;
    let mut said = format!("{} is added. Grant one of its roles to an identity:\n", target.display());
    for role in roles(&text)? {
        let _ = writeln!(said, "  {role}");
    }
    Ok(said)
}

/// The text with the operator's own host where the library has none.
fn with_host(name: &str, text: &str, host: Option<&str>) -> anyhow::Result<String> {
    let placeholder = text.split('"').find(|part| part.starts_with(OWN_HOST));
    match (placeholder, host) {
        (None, None) => Ok(text.to_owned()),
        (Some(placeholder), None) => {
            let example = placeholder.replacen(OWN_HOST, "acme.", 1);
            bail!(
                "every customer of {name} has a host of his own: say which by --host, such as --host {example}"
            )
        }
        (None, Some(_)) => {
            bail!("{name} has the same hosts for everybody: leave --host out, or edit the file")
        }
        (Some(placeholder), Some(host)) => {
            let parsed = Host::parse(host).with_context(|| format!("{host:?} is not a host"))?;
            let port = parsed.port().map(|port| format!(":{port}")).unwrap_or_default();
            if parsed.name().starts_with(OWN_HOST) || parsed.name().contains(':') {
                bail!("{host:?} is not the name of a host of your own");
            }
            Ok(text.replace(&format!("\"{placeholder}\""), &format!("\"{}{port}\"", parsed.name())))
        }
    }
}

/// Whether the policy is as valid with the new file as without it: the daemon reads it as soon as it is there.
fn check_fits(root: &Path, label: &str, text: &str) -> anyhow::Result<()> {
    let mut files = Texts::read(root).files;
    let before = compile(&files).diagnostics;
    files.push(SourceFile::new(label, text));
    let after = compile(&files).diagnostics;
    let new = after.iter().filter(|it| it.severity == Severity::Error && !before.contains(it));
    let new: Vec<String> = new.map(ToString::to_string).collect();
    if !new.is_empty() {
        bail!("nothing was added, because the policy would be refused:\n{}", new.join("\n"));
    }
    Ok(())
}

/// Writes a file that is not there yet, as a whole.
fn write_new(target: &Path, text: &str) -> anyhow::Result<()> {
    let folder = target.parent().context("it has no folder")?;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".adding-").tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist_noclobber(target)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::policies::Loaded;

    fn library() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/library")
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("policies")).unwrap();
        root
    }

    #[test]
    fn every_api_of_the_library_can_be_added_and_they_go_live_together() {
        let root = root();
        let entries = entries(&library()).unwrap();
        for (name, path) in &entries {
            let text = fs::read_to_string(path).unwrap();
            let host = text.contains(OWN_HOST).then(|| format!("{name}.acme.example"));
            let said = add(&library(), name, host.as_deref(), root.path()).unwrap();
            assert!(said.contains("is added"), "{said}");
        }
        let set = Loaded::read(root.path()).into_set().unwrap();
        assert_eq!(set.apis().count(), entries.len());
        assert!(set.apis().flat_map(|api| &api.hosts).all(|host| !host.name().contains("change_me")));
    }

    #[test]
    fn a_host_of_ones_own_must_be_said_and_only_where_there_is_one() {
        let root = root();
        let refused = |name, host| add(&library(), name, host, root.path()).unwrap_err().to_string();
        assert!(refused("zendesk", None).contains("--host acme.zendesk.com"));
        assert!(refused("zendesk", Some("https://acme.zendesk.com")).contains("is not a host"));
        assert!(refused("zendesk", Some("change_me.zendesk.com")).contains("of your own"));
        assert!(refused("github", Some("git.acme.example")).contains("leave --host out"));
        assert!(refused("gihub", None).contains("the library has no API"));
        assert!(!root.path().join("apis").exists(), "nothing was written");
        add(&library(), "zendesk", Some("Acme.zendesk.com"), root.path()).unwrap();
        let text = fs::read_to_string(root.path().join("apis/zendesk.toml")).unwrap();
        assert!(text.contains("hosts  = [\"acme.zendesk.com\"]"), "{text}");
    }

    #[test]
    fn what_is_there_is_never_overwritten_and_what_would_break_the_policy_is_not_added() {
        let root = root();
        add(&library(), "stripe", None, root.path()).unwrap();
        assert!(add(&library(), "stripe", None, root.path()).unwrap().contains("there already"));
        let file = root.path().join("apis/stripe.toml");
        fs::write(&file, "[api.stripe]\nhosts = [\"api.stripe.com\"]\n").unwrap();
        assert!(
            add(&library(), "stripe", None, root.path()).unwrap_err().to_string().contains("something else")
        );
        fs::rename(&file, root.path().join("apis/payments.toml")).unwrap();
        let error = add(&library(), "stripe", None, root.path()).unwrap_err().to_string();
        assert!(error.contains("the API \"stripe\" is already defined"), "{error}");
        assert!(!file.exists());
    }

    #[test]
    fn the_list_names_every_role_with_its_parameters() {
        let list = list(&library()).unwrap();
        let github = list.lines().find(|line| line.starts_with("github ")).unwrap();
        assert!(github.contains("github-repo-reader (owner, repo)"), "{github}");
    }
}
