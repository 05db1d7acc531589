//! The system's store: a file for each root where the distribution wants them, and its tool, which makes the rest of them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::bundle::make_folders;
use super::error::StoreError;
use super::files::{Folder, Found};
use super::roots::{Fingerprint, Root, named};
use super::step::Step;
use super::tools::{self, Run};
use super::{Context, Look};
use crate::trust::certificates;

const PREFIX: &str = "vouchsafe-";
const SUFFIX: &str = ".crt";

/// Where bundles of system stores are, whoever makes them.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
    "/var/lib/ca-certificates/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// How a distribution makes its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Its family, for people.
    pub family: &'static str,
    /// Where files with one certificate each are put.
    pub anchors: PathBuf,
    /// The file that the tool makes of them.
    pub bundle: PathBuf,
    tool: PathBuf,
    args: &'static [&'static str],
    /// Whether the tool must be told which certificates are gone, or it leaves links to them and Java's copies.
    told: bool,
}

impl Layout {
    /// What this host has, by the tools that are there and the folders that these work on.
    #[must_use]
    pub fn of_host() -> Option<Self> {
        let tool = |name: &str| tools::find(name);
        let takes_list = |tool: &Path| {
            fs::read(tool).is_ok_and(|text| memchr::memmem::find(&text, b"--certsconf").is_some())
        };
        Self::detect(Path::new("/"), &tool, &takes_list)
    }

    fn detect(
        root: &Path,
        tool: &dyn Fn(&str) -> Option<PathBuf>,
        takes_list: &dyn Fn(&Path) -> bool,
    ) -> Option<Self> {
        let is = |path: &str| root.join(path).is_dir();
        let at = |path: &str| root.join(path);
        if let Some(tool) = tool("update-ca-trust").filter(|_| is("etc/pki/ca-trust/source")) {
            return Some(Self {
                family: "Fedora, RHEL",
                anchors: at("etc/pki/ca-trust/source/anchors"),
                bundle: at("etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"),
                tool,
                args: &["extract"],
                told: false,
            });
        }
        if is("etc/ca-certificates/trust-source") {
            let found = tool("update-ca-trust").map(|tool| (tool, &[][..]));
            if let Some((tool, args)) = found.or_else(|| Some((tool("trust")?, &["extract-compat"][..]))) {
                return Some(Self {
                    family: "Arch",
                    anchors: at("etc/ca-certificates/trust-source/anchors"),
                    bundle: at("etc/ca-certificates/extracted/tls-ca-bundle.pem"),
                    tool,
                    args,
                    told: false,
                });
            }
        }
        let tool = tool("update-ca-certificates")?;
        if is("etc/pki/trust") || is("usr/share/pki/trust") {
            return Some(Self {
                family: "SUSE",
                anchors: at("etc/pki/trust/anchors"),
                bundle: at("var/lib/ca-certificates/ca-bundle.pem"),
                tool,
                // Else it compares times, of which two changes within a second have the same.
                args: &["-f"],
                told: false,
            });
        }
        let told = takes_list(&tool);
        Some(Self {
            family: if told { "Debian, Ubuntu" } else { "Alpine" },
            anchors: at("usr/local/share/ca-certificates"),
            bundle: at("etc/ssl/certs/ca-certificates.crt"),
            tool,
            args: &[],
            told,
        })
    }

    /// The run of the tool, when the files of that name are gone by then.
    fn run(&self, gone: &[String]) -> Run {
        let mut run = Run::new(&self.tool, self.args.iter().copied());
        if self.told && !gone.is_empty() {
            // The tool takes out what its list says with `!`, and tells its hooks: else Java's store would keep it.
            let mut list = fs::read_to_string("/etc/ca-certificates.conf").unwrap_or_default();
            list.extend(gone.iter().map(|name| format!("\n!{name}\n")));
            run.args.push("--certsconf".into());
            run.file = Some(list.into_bytes());
        }
        run
    }
}

/// The system's bundle, as its tool makes it or as it is found; `None` when there is none.
pub(super) fn bundle(layout: Option<&Layout>) -> Option<PathBuf> {
    let made = layout.map(|layout| layout.bundle.clone());
    made.into_iter().chain(BUNDLES.iter().map(PathBuf::from)).find(|path| path.is_file())
}

/// The certificates that the system trusts, without those in `ours`, and where they were read.
pub(super) fn roots_of_system(
    layout: Option<&Layout>,
    ours: &BTreeSet<Fingerprint>,
) -> Result<(PathBuf, Vec<Vec<u8>>), StoreError> {
    let path = bundle(layout).ok_or(StoreError::NoSystemStore)?;
    let content = fs::read(&path).map_err(StoreError::io("read", &path))?;
    let mut seen = BTreeSet::new();
    let mut theirs = certificates(&content);
    theirs.retain(|der| {
        let id = Fingerprint::of(der);
        !ours.contains(&id) && seen.insert(id)
    });
    if theirs.is_empty() {
        return Err(StoreError::refused(
            &path,
            "has no certificate but ours: install the package ca-certificates",
        ));
    }
    Ok((path, theirs))
}

fn name(root: &Root) -> String {
    format!("{PREFIX}{}{SUFFIX}", root.id.short())
}

/// A file that bears a name of ours.
struct Ours {
    name: String,
    digest: [u8; 32],
    /// Its certificate, if it is the one that its name says.
    id: Option<Fingerprint>,
}

fn ours(folder: &Folder) -> Result<(Vec<Ours>, BTreeSet<Fingerprint>), StoreError> {
    let (mut ours, mut theirs) = (Vec::new(), BTreeSet::new());
    for name in folder.names()? {
        let Some(short) = named(&name, PREFIX, SUFFIX) else {
            if let Ok(Some(Found::File { content, .. })) = folder.read(OsStr::new(&name)) {
                theirs.extend(certificates(&content).iter().map(|der| Fingerprint::of(der)));
            }
            continue;
        };
        let Some(found) = folder.read(OsStr::new(&name))? else { continue };
        let ids: Vec<_> = match &found {
            Found::File { content, .. } => {
                certificates(content).iter().map(|der| Fingerprint::of(der)).collect()
            }
            Found::Link(_) => Vec::new(),
        };
        let id = match ids.as_slice() {
            [id] if id.short() == short => Some(id.clone()),
            _ => None,
        };
        ours.push(Ours { digest: found.digest(), id, name });
    }
    Ok((ours, theirs))
}

/// What is there, and what is to be done so that it holds the roots that are wanted.
pub(super) fn look(context: &Context<'_>) -> Result<Look, StoreError> {
    let layout = context.layout.ok_or(StoreError::NoSystemStore)?;
    let mut look = Look::at(&layout.anchors);
    let folder = Folder::of_system(&layout.anchors)?;
    let (present, theirs) = folder.as_ref().map_or_else(|| Ok(Default::default()), ours)?;
    if folder.is_none() && !context.roots.is_empty() {
        make_folders(&layout.anchors, &mut look.steps)?;
    }
    let (mut gone, mut added) = (Vec::new(), Vec::new());
    for root in context.roots.iter() {
        let name = name(root);
        let old = present.iter().find(|file| file.name == name);
        if old.is_some_and(|file| file.id.as_ref() == Some(&root.id)) {
            look.present += 1;
            continue;
        }
        look.steps.push(Step::Write {
            path: layout.anchors.join(&name),
            content: root.pem.clone().into_bytes(),
            mode: 0o644,
            before: old.map(|file| file.digest),
            about: root.about.clone(),
        });
        added.push(name);
    }
    for file in &present {
        match &file.id {
            Some(id) if context.roots.has(id) => {}
            None if context.roots.iter().any(|root| name(root) == file.name) => {}
            None => {
                let reason =
                    "bears a name of ours and is not what it says: look at it, and delete it by hand";
                look.problem = Some(format!("{} {reason}", layout.anchors.join(&file.name).display()));
            }
            Some(id) => {
                look.extra += 1;
                look.steps.push(Step::Delete {
                    path: layout.anchors.join(&file.name),
                    before: file.digest,
                    about: format!("no root of ours any more: {}", id.short()),
                });
                gone.push(file.name.clone());
            }
        }
    }
    let made = fs::read(&layout.bundle).unwrap_or_default();
    let made: BTreeSet<_> = certificates(&made).iter().map(|der| Fingerprint::of(der)).collect();
    let lacks = context.roots.iter().any(|root| !made.contains(&root.id));
    let stale: Vec<_> = context
        .put
        .iter()
        .filter(|id| made.contains(id) && !context.roots.has(id) && !theirs.contains(id))
        .map(|id| format!("{PREFIX}{}{SUFFIX}", id.short()))
        .filter(|name| !gone.contains(name))
        .collect();
    look.extra += stale.len();
    if !look.steps.is_empty() || lacks || !stale.is_empty() {
        let again: Vec<String> = gone.iter().chain(&stale).cloned().collect();
        let mut run = layout.run(&again);
        // The other way round: what was added is gone then.
        run.undo = Some(Box::new(layout.run(&added)));
        look.steps.push(Step::Run(run));
    }
    Ok(look)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(folders: &[&str], tools: &[&str], takes_list: bool) -> Option<(String, String, String)> {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let tool = |name: &str| tools.contains(&name).then(|| PathBuf::from(name));
        let layout = Layout::detect(root.path(), &tool, &|_| takes_list)?;
        let relative = layout.anchors.strip_prefix(root.path()).unwrap().display().to_string();
        Some((layout.family.to_owned(), relative, layout.run(&[]).shown()))
    }

    #[test]
    fn each_family_is_known_by_its_tool_and_the_folder_that_it_reads() {
        let found =
            |family: &str, anchors: &str, run: &str| Some((family.into(), anchors.into(), run.into()));
        assert_eq!(
            detect(&["etc/pki/ca-trust/source"], &["update-ca-trust", "trust"], false),
            found("Fedora, RHEL", "etc/pki/ca-trust/source/anchors", "update-ca-trust extract")
        );
        let arch = |run| found("Arch", "etc/ca-certificates/trust-source/anchors", run);
        let folder = ["etc/ca-certificates/trust-source"];
        assert_eq!(detect(&folder, &["update-ca-trust", "trust"], false), arch("update-ca-trust"));
        assert_eq!(detect(&folder, &["trust"], false), arch("trust extract-compat"));
        assert_eq!(
            detect(&["etc/pki/trust/anchors"], &["update-ca-certificates", "trust"], false),
            found("SUSE", "etc/pki/trust/anchors", "update-ca-certificates -f")
        );
        let local = "usr/local/share/ca-certificates";
        let run = "update-ca-certificates";
        assert_eq!(detect(&["etc/ssl/certs"], &[run], true), found("Debian, Ubuntu", local, run));
        assert_eq!(detect(&["etc/ssl/certs"], &[run], false), found("Alpine", local, run));
        // p11-kit alone makes no store.
        assert_eq!(detect(&["etc/ssl/certs"], &["trust"], false), None);
        assert_eq!(detect(&[], &[], false), None);
    }
}
