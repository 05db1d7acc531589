//! The machine's first file system: a Debian root of this host's release, kept, and our programs on top of it.

use std::fs;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cpio::Archive;
use crate::paths::Paths;
use crate::sh;
use crate::system::Need;

/// What making the root needs.
pub(super) const NEEDS: &[Need] = &[
    Need::same("mmdebstrap", "mmdebstrap", "a Debian root for the machine"),
    Need::same("strip", "binutils", "programs of a size that fits into memory"),
];

/// What the tests run, see `NEEDS` of `cargo xtask test`; and what loads modules.
const PACKAGES: &str = "ca-certificates,curl,iproute2,kmod,nginx-light,openssl,python3";
/// What nobody reads there.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"];

const INIT: &str = include_str!("init.sh");
const PROGRAMS: &str = include_str!("programs.py");

/// Makes the archive with the Debian root below `folder`, unless it is there. Its release is that of this host: our
/// programs were built against its C library.
pub(super) fn debian(folder: &Path, mirror: &str) -> Result<PathBuf> {
    let release = codename(&fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?)?;
    let archive = folder.join(format!("{release}.cpio"));
    let stamp = folder.join(format!("{release}.packages"));
    if archive.exists() && fs::read_to_string(&stamp).is_ok_and(|packages| packages == PACKAGES) {
        return Ok(archive);
    }
    println!("making a Debian root with {PACKAGES}");
    let making = folder.join("making");
    let _ = fs::remove_dir_all(&making);
    let _ = fs::remove_file(&stamp);
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--include", PACKAGES]);
    for pattern in LEFT_OUT {
        command.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    sh::capture(command.arg(&release).arg(&making).arg(mirror))?;
    let mut packed = Archive::new(BufWriter::new(fs::File::create(&archive)?));
    packed.tree(&making)?;
    packed.finish()?;
    fs::remove_dir_all(&making)?;
    fs::write(stamp, PACKAGES)?;
    Ok(archive)
}

/// The release that a Debian names itself.
fn codename(os_release: &str) -> Result<String> {
    let name = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.map(|name| name.trim_matches('"').to_owned()).context("/etc/os-release names no release of Debian")
}

/// Makes the archive with our programs, without what only a debugger reads.
pub(super) fn programs(paths: &Paths, folder: &Path, tests: &Path, filter: &[String]) -> Result<PathBuf> {
    let archive = folder.join("programs.cpio");
    let mut packed = Archive::new(BufWriter::new(fs::File::create(&archive)?));
    packed.file("init", 0o755, INIT.as_bytes())?;
    packed.folder("vm")?;
    // The daemon as it is installed: without optimization, and emulated, it takes seconds to start.
    let actor = paths.daemon(false).with_file_name("actor");
    for (name, path) in [("it", tests), ("vouchsafe", &paths.daemon(true)), ("actor", &actor)] {
        let stripped = folder.join("stripped");
        sh::capture(Command::new("strip").arg("-o").arg(&stripped).arg(path))?;
        packed.file(&format!("vm/{name}"), 0o755, &fs::read(&stripped)?)?;
        fs::remove_file(stripped)?;
    }
    packed.file("vm/programs.py", 0o644, PROGRAMS.as_bytes())?;
    packed.file("vm/filter", 0o644, filter.join("\n").as_bytes())?;
    packed.finish()?;
    Ok(archive)
}

/// Puts archives one after the other, as QEMU takes them.
pub(super) fn join(archives: &[&Path], to: &Path) -> Result<()> {
    let mut whole = fs::File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    for archive in archives {
        let mut part =
            fs::File::open(archive).with_context(|| format!("cannot read {}", archive.display()))?;
        io::copy(&mut part, &mut whole)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_with_and_without_quotes() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=trixie\n").unwrap(), "trixie");
        assert_eq!(codename("VERSION_CODENAME=\"noble\"\n").unwrap(), "noble");
        assert!(codename("ID=arch\n").is_err());
    }
}
