//! The API server: nginx with certificates of a CA of its own, and keys that somebody must bring.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{Stage, process, quietly};
use crate::sh;

/// Where the end of its own words goes; [`Stage::show_log`] shows it.
pub(super) const ERRORS: &str = "nginx-error.log";

/// Starts nginx with a configuration that names `<directory>/nginx.pid`, and waits until it listens. The stage ends it.
pub(crate) fn start(stage: &Stage, directory: &Path, configuration: &str) -> Result<()> {
    let configuration = stage.write("api/nginx.conf", configuration, 0o600)?;
    let nginx = sh::find_program("nginx").context("nginx is not installed")?;
    let errors = fs::File::create(stage.path(ERRORS))?;
    let mut child = stage
        .enter(None)
        .arg(nginx)
        .args(["-e".as_ref(), stage.path(ERRORS).as_os_str()])
        .args(["-p".as_ref(), directory.as_os_str()])
        .args(["-c".as_ref(), configuration.as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .context("cannot start nginx")?;
    let pid = directory.join("nginx.pid");
    let started = process::wait_for("the start of nginx", Duration::from_secs(10), &stage.stop, || {
        if let Some(status) = child.try_wait()? {
            bail!("nginx ended while it started ({status})");
        }
        // nginx writes the file after it listens.
        Ok(fs::read_to_string(&pid).is_ok_and(|text| !text.trim().is_empty()).then_some(()))
    });
    stage.adopt(child);
    started
}

/// A key that nobody can guess.
pub(crate) fn new_key(kind: &str) -> Result<String> {
    let random = sh::capture(Command::new("openssl").args(["rand", "-hex", "24"]))?;
    Ok(format!("{kind}_{}", random.trim()))
}

/// A CA (`ca.pem`) and a certificate for `hosts` (`server.pem`, `server.key`), valid for two days. Returns the CA (PEM).
pub(crate) fn make_certificates(directory: &Path, hosts: &[&str]) -> Result<String> {
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        quietly(command.args(["-days", "2", "-sha256"]).args(arguments).current_dir(directory))
    };
    openssl(&[
        "-subj",
        "/CN=CA of the API server",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign",
    ])?;
    let names = hosts.iter().map(|host| format!("DNS:{host}")).collect::<Vec<_>>().join(",");
    openssl(&[
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-keyout",
        "server.key",
        "-out",
        "server.pem",
        "-subj",
        "/CN=API server",
        "-addext",
        &format!("subjectAltName={names}"),
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        "extendedKeyUsage=serverAuth",
    ])?;
    fs::read_to_string(directory.join("ca.pem")).context("openssl left no CA certificate")
}
