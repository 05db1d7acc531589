//! NSS databases (Chromium, Firefox): changed by certutil, a certificate at a time, as the user that owns the database.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::files::real;
use super::roots::{Fingerprint, Root, named};
use super::step::Step;
use super::tools::{self, Run};
use super::{Context, Look};
use crate::trust::certificates;

const PREFIX: &str = "vouchsafe-";

/// A database, and whom its tool runs as: a user who owns it could otherwise have us write through links of his.
struct Database {
    certutil: PathBuf,
    folder: PathBuf,
    user: Option<(u32, u32)>,
}

impl Database {
    fn run(&self, args: &[&str]) -> Run {
        let mut place = OsString::from("sql:");
        place.push(&self.folder);
        let mut run = Run::new(&self.certutil, args.iter().map(OsString::from));
        run.args.extend([OsString::from("-d"), place]);
        run.user = self.user;
        run
    }

    fn add(&self, root: &Root) -> Run {
        let mut run = self.run(&["-A", "-a", "-n", &nickname(root), "-t", "C,,"]);
        run.input = root.pem.clone().into_bytes();
        run.undo = Some(Box::new(self.run(&["-D", "-n", &nickname(root)])));
        run
    }

    /// The nicknames of all certificates, with what they are trusted for.
    fn nicknames(&self) -> Result<Vec<(String, String)>, StoreError> {
        let listing = self.run(&["-L"]).run()?;
        let text = String::from_utf8_lossy(&listing);
        let read = |line: &str| {
            let (name, trust) = line.trim_end().rsplit_once(char::is_whitespace)?;
            (trust.matches(',').count() == 2).then(|| (name.trim_end().to_owned(), trust.to_owned()))
        };
        Ok(text.lines().filter_map(read).collect())
    }

    fn certificate(&self, nickname: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let pem = self.run(&["-L", "-a", "-n", nickname]).run()?;
        Ok(certificates(&pem).into_iter().next())
    }
}

fn nickname(root: &Root) -> String {
    format!("{PREFIX}{}", root.id.short())
}

/// What is there, and what is to be done.
pub(super) fn look(folder: &Path, context: &Context<'_>) -> Result<Look, StoreError> {
    let found = real(folder)?.filter(|folder| folder.join("cert9.db").exists());
    let Some(folder) = found else {
        if context.roots.is_empty() {
            return Ok(Look::at(folder));
        }
        let reason = "holds no database of NSS (cert9.db): start the browser once as its user, or run \
                      `certutil -N --empty-password -d sql:FOLDER` as that user";
        return Err(StoreError::refused(folder, reason));
    };
    let mut look = Look::at(&folder);
    let certutil = tools::find("certutil").ok_or(StoreError::NoTool {
        program: "certutil",
        what: "a database of NSS",
        package: "libnss3-tools (Debian), nss-tools (Fedora, Alpine), mozilla-nss-tools (SUSE), nss (Arch)",
    })?;
    let meta = fs::metadata(&folder).map_err(StoreError::io("look at", &folder))?;
    let is_root = nix::unistd::geteuid().is_root();
    let user = (is_root && meta.uid() != 0).then(|| (meta.uid(), meta.gid()));
    let database = Database { certutil, folder, user };
    let present = database.nicknames()?;
    for root in context.roots.iter() {
        match present.iter().find(|(name, _)| *name == nickname(root)) {
            None => look.steps.push(Step::Run(database.add(root))),
            Some((name, trust)) => {
                let same = database.certificate(name)?.is_some_and(|der| Fingerprint::of(&der) == root.id);
                if !same {
                    look.problem =
                        Some(format!("has another certificate named {name}: delete it with certutil -D"));
                } else if trust.starts_with('C') {
                    look.present += 1;
                } else {
                    look.extra += 1;
                    let mut run = database.run(&["-M", "-n", name, "-t", "C,,"]);
                    run.undo = Some(Box::new(database.run(&["-M", "-n", name, "-t", trust])));
                    look.steps.push(Step::Run(run));
                }
            }
        }
    }
    for (name, trust) in &present {
        let Some(short) = named(name, PREFIX, "") else { continue };
        let Some(der) = database.certificate(name)? else { continue };
        let id = Fingerprint::of(&der);
        if id.short() == short && !context.roots.has(&id) {
            look.extra += 1;
            let mut back = database.run(&["-A", "-a", "-n", name, "-t", trust]);
            back.input = crate::trust::to_pem(&der).into_bytes();
            let mut run = database.run(&["-D", "-n", name]);
            run.undo = Some(Box::new(back));
            look.steps.push(Step::Run(run));
        }
    }
    if look.problem.is_some() {
        look.steps.clear();
    }
    Ok(look)
}
