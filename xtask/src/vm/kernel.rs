//! Debian's kernels: which, and how one gets here without the host's apt knowing of other releases.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::cpio::Archive;
use super::lacks::{Lacks, NOTHING};
use crate::sh;
use crate::system::Need;

/// What taking a kernel needs.
pub(super) const NEEDS: &[Need] = &[
    Need::same("dpkg-deb", "dpkg", "unpacking a kernel's package"),
    Need::same("depmod", "kmod", "which module needs which"),
    Need::same(KEYRING, "debian-archive-keyring", "what the archive is signed with"),
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The package that stands for the newest kernel of a release, without drivers for real hardware.
const PACKAGE: &str = "linux-image-cloud-amd64";
/// The archive's lists are not fetched more often.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);
/// What the programs and the tests may ask for of a kernel's modules; the rest is drivers and file systems.
const MODULES: [&str; 5] = ["net", "lib", "crypto", "arch", "drivers/net"];

/// Where a suite is.
#[derive(Clone, Copy)]
pub(super) enum Archives {
    Main,
    Security,
}

/// A kernel that Vouchsafe is tried on.
pub(super) struct Kernel {
    /// Its series, or the suite that has the newest.
    pub(super) name: &'static str,
    /// The suites that have it.
    suites: &'static [(Archives, &'static str)],
    /// What it lacks.
    pub(super) lacks: Lacks,
}

use Archives::{Main, Security};

/// All of them, from the oldest.
pub(super) const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "5.10",
        suites: &[(Security, "bullseye-security")],
        lacks: Lacks { refuses: Some("it is there from Linux 5.14"), ..NOTHING },
    },
    Kernel { name: "6.1", suites: &[(Main, "bookworm"), (Security, "bookworm-security")], lacks: NOTHING },
    Kernel { name: "6.12", suites: &[(Main, "trixie"), (Security, "trixie-security")], lacks: NOTHING },
    Kernel { name: "sid", suites: &[(Main, "sid")], lacks: NOTHING },
];

/// The addresses of Debian's archives, as this host has them.
pub(super) struct Mirrors {
    pub(super) main: String,
    security: String,
}

impl Mirrors {
    /// Asks apt for the sources of this host.
    pub(super) fn of_host() -> Result<Self> {
        let format = ["--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"];
        let targets = sh::capture(Command::new("apt-get").arg("indextargets").args(format))?;
        Self::parse(&targets)
    }

    fn parse(targets: &str) -> Result<Self> {
        let of = |label: &str| {
            let uri = targets.lines().find_map(|line| line.strip_prefix(label)?.strip_prefix(' '));
            uri.map(|uri| uri.trim().to_owned()).with_context(|| {
                format!("this host's apt has no archive labelled {label:?}; this task needs Debian, and `apt-get update`")
            })
        };
        Ok(Self { main: of("Debian")?, security: of("Debian-Security")? })
    }

    fn source(&self, (archive, suite): (Archives, &str)) -> String {
        let uri = match archive {
            Main => &self.main,
            Security => &self.security,
        };
        // Of the many indexes only that of packages.
        format!("deb [arch=amd64 signed-by={KEYRING} target=Packages] {uri} {suite} main\n")
    }
}

/// A kernel that is here.
pub(super) struct Fetched {
    /// The kernel's image.
    pub(super) image: PathBuf,
    /// An archive with its modules.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// Takes the newest package of this kernel, unless it is below `folder` already.
    pub(super) fn fetch(&self, folder: &Path, mirrors: &Mirrors) -> Result<Fetched> {
        let folder = folder.join(self.name);
        let apt = Apt::new(&folder.join("apt"))?;
        let sources = self.suites.iter().map(|suite| mirrors.source(*suite)).collect::<String>();
        if let Err(error) = apt.refresh(&sources) {
            println!("note: the lists are not fresh, going on with what is here: {error:#}");
        }
        let image = depends(&apt.ask(&["depends", PACKAGE])?, &["linux-image-"])
            .pop()
            .with_context(|| format!("{PACKAGE} names no kernel"))?;
        // From 7.x the image is a package of two others.
        let mut packages = depends(&apt.ask(&["depends", &image])?, &["linux-binary-", "linux-modules-"]);
        if packages.is_empty() {
            packages.push(image.clone());
        }
        let version = version(&apt.ask(&["show", "--no-all-versions", &image])?)?;
        let here = folder.join(format!("{image}_{version}"));
        if !here.join("modules.cpio").exists() {
            println!("fetching {image} {version}");
            let making = folder.join("making");
            let _ = fs::remove_dir_all(&making);
            fs::create_dir_all(&making)?;
            sh::capture(apt.get().arg("download").args(&packages).current_dir(&making))?;
            unpack(&making)?;
            remove_others(&folder)?;
            fs::rename(&making, &here)
                .with_context(|| format!("cannot put the kernel in place at {}", here.display()))?;
        }
        Ok(Fetched { image: here.join("vmlinuz"), modules: here.join("modules.cpio") })
    }
}

/// Makes `vmlinuz` and `modules.cpio` of the packages in this folder, and removes everything else.
fn unpack(folder: &Path) -> Result<()> {
    let whole = folder.join("whole");
    for package in entries(folder)? {
        sh::capture(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&whole))?;
        fs::remove_file(&package)?;
    }
    let modules = [whole.join("usr/lib/modules"), whole.join("lib/modules")];
    let modules = modules.iter().find(|path| path.is_dir()).context("the package holds no modules")?;
    let release = entries(modules)?.pop().context("the package holds no modules")?;
    let name = release.file_name().context("the modules have no release")?;

    let images = [whole.join("boot"), release.clone()];
    let images = images.iter().filter_map(|folder| entries(folder).ok()).flatten();
    let image = images
        .into_iter()
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .context("the package holds no vmlinuz")?;
    fs::copy(image, folder.join("vmlinuz"))?;

    let wanted = folder.join("wanted");
    let to = wanted.join("usr/lib/modules").join(name);
    for part in MODULES {
        let from = release.join("kernel").join(part);
        if from.is_dir() {
            let to = to.join("kernel").join(part);
            fs::create_dir_all(to.parent().context("a folder of modules")?)?;
            fs::rename(from, to)?;
        }
    }
    for list in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        if release.join(list).exists() {
            fs::rename(release.join(list), to.join(list))?;
        }
    }
    // depmod looks in lib/modules; in the machine that is the same folder.
    std::os::unix::fs::symlink("usr/lib", wanted.join("lib"))?;
    sh::capture(Command::new("depmod").arg("-b").arg(&wanted).arg(name))?;
    let mut archive = Archive::new(Vec::new());
    archive.tree(&wanted)?;
    fs::write(folder.join("modules.cpio"), archive.finish()?)?;
    fs::remove_dir_all(wanted)?;
    fs::remove_dir_all(whole)?;
    Ok(())
}

/// Removes earlier versions of the kernel in this folder.
fn remove_others(folder: &Path) -> Result<()> {
    for path in entries(folder)? {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("linux-image-")) {
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let what = || format!("cannot list {}", folder.display());
    fs::read_dir(folder).with_context(what)?.map(|entry| Ok(entry.with_context(what)?.path())).collect()
}

/// An apt of its own: with its own sources, lists and idea of what is installed.
struct Apt {
    folder: PathBuf,
    options: Vec<String>,
}

impl Apt {
    fn new(folder: &Path) -> Result<Self> {
        for name in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(name))
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(folder.join("status"), "")?;
        let at = |key: &str, name: &str| format!("{key}={}", folder.join(name).display());
        let options = vec![
            at("Dir::State", ""),
            at("Dir::State::lists", "lists"),
            at("Dir::State::status", "status"),
            at("Dir::Cache", "cache"),
            at("Dir::Etc::SourceList", "sources.list"),
            "Dir::Etc::SourceParts=/dev/null".into(),
            "Acquire::Languages=none".into(),
            "APT::Architecture=amd64".into(),
            // The user that apt would download as may not read the target directory.
            "APT::Sandbox::User=root".into(),
        ];
        Ok(Self { folder: folder.to_path_buf(), options })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C");
        for option in &self.options {
            command.args(["-o", option]);
        }
        command
    }

    fn get(&self) -> Command {
        let mut command = self.command("apt-get");
        command.arg("-q");
        command
    }

    fn ask(&self, question: &[&str]) -> Result<String> {
        sh::capture(self.command("apt-cache").args(question))
    }

    /// Fetches the lists of these sources, when those that are here are old or of other sources.
    fn refresh(&self, sources: &str) -> Result<()> {
        let (list, stamp) = (self.folder.join("sources.list"), self.folder.join("updated"));
        let age = stamp.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        let same = fs::read_to_string(&list).is_ok_and(|old| old == sources);
        if same && age.is_some_and(|age| age < FRESH) {
            return Ok(());
        }
        fs::write(&list, sources)?;
        sh::capture(self.get().args(["update", "--error-on=any"]))?;
        fs::write(stamp, "")?;
        Ok(())
    }
}

/// The packages that the answer of `apt-cache depends` names and whose names begin so, with a digit after that.
fn depends(answer: &str, prefixes: &[&str]) -> Vec<String> {
    let names = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let of_a_version = |name: &&str| {
        let rest = prefixes.iter().find_map(|prefix| name.strip_prefix(prefix));
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    names.filter(of_a_version).map(str::to_owned).collect()
}

/// The version in the answer of `apt-cache show`.
fn version(answer: &str) -> Result<String> {
    let version = answer.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or_default();
    ensure!(!version.is_empty(), "apt names no version");
    if version.contains('/') {
        bail!("{version:?} is no version");
    }
    Ok(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirrors_are_those_of_the_host() {
        let mirrors = Mirrors::parse(
            "Other http://apt.example/x/\nDebian http://mirror.example/debian/\n\
             Debian http://mirror.example/updates/\nDebian-Security http://security.example/\n",
        )
        .unwrap();
        assert_eq!(mirrors.main, "http://mirror.example/debian/");
        assert!(
            mirrors.source((Security, "x-security")).ends_with("http://security.example/ x-security main\n")
        );
        assert!(Mirrors::parse("Ubuntu http://mirror.example/ubuntu/\n").is_err());
    }

    #[test]
    fn the_newest_kernel_is_the_one_that_the_metapackage_depends_on() {
        let answer = "linux-image-cloud-amd64\n  Depends: linux-base-cloud-amd64\n  \
                      Depends: linux-image-7.2.13+deb14-cloud-amd64\n";
        assert_eq!(depends(answer, &["linux-image-"]), ["linux-image-7.2.13+deb14-cloud-amd64"]);
        let parts = "x\n  Depends: linux-binary-7.2.13\n  Depends: linux-modules-7.2.13\n Recommends: linux-binary-1\n";
        assert_eq!(depends(parts, &["linux-binary-", "linux-modules-"]).len(), 2);
        assert!(depends("x\n  Depends: kmod\n  Depends: linux-base\n", &["linux-binary-"]).is_empty());
    }

    #[test]
    fn a_version_is_part_of_a_path() {
        assert_eq!(version("Package: x\nVersion: 6.1.192-2\n").unwrap(), "6.1.192-2");
        assert!(version("Package: x\n").is_err());
        assert!(version("Version: ../x\n").is_err());
    }
}
