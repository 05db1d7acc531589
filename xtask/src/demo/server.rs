//! The API server: nginx with a certificate for [`HOST`], which answers 401 to whoever brings no key.
//!
//! It answers with the fingerprint of the key that it saw, never with a key.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::process;
use super::stage::{Stage, quietly};
use crate::sh;

/// The name of the API; the policies in `policies/demo` name it.
pub(super) const HOST: &str = "api.demo.test";
/// Its address: from a block for documentation (RFC 5737), given to the loopback of the demo's network namespace.
pub(super) const ADDRESS: &str = "203.0.113.10";

/// A running API server.
pub(super) struct Server {
    /// The key that the proxy injects.
    pub(super) key: String,
    /// A key that somebody else lost: the server accepts it too, and would show its fingerprint.
    pub(super) stolen: String,
    /// The CA of the server's certificate (PEM).
    pub(super) ca: String,
    access_log: std::path::PathBuf,
}

impl Server {
    /// Makes keys and certificates and starts the server.
    pub(super) fn start(stage: &Stage) -> Result<Self> {
        let directory = stage.path("api");
        fs::create_dir_all(&directory)?;
        make_certificates(&directory)?;
        let server = Self {
            key: new_key("live")?,
            stolen: new_key("lost")?,
            ca: fs::read_to_string(directory.join("ca.pem")).context("openssl left no CA certificate")?,
            access_log: directory.join("access.log"),
        };
        stage.write_roots("outside.pem", &server.ca)?;
        let configuration = stage.write("api/nginx.conf", &server.configuration(&directory), 0o600)?;
        let nginx = sh::find_program("nginx").context("nginx is not installed")?;
        let errors = fs::File::create(stage.path("nginx-error.log"))?;
        let mut child = stage
            .enter(None)
            .arg(nginx)
            .args(["-e".as_ref(), stage.path("nginx-error.log").as_os_str()])
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
        started?;
        Ok(server)
    }

    /// How many requests have reached the server.
    pub(super) fn requests(&self) -> usize {
        fs::read_to_string(&self.access_log).unwrap_or_default().lines().count()
    }

    /// The fingerprint of the key that the proxy injects.
    pub(super) fn key_shown(&self) -> String {
        fingerprint(&self.key)
    }

    fn configuration(&self, directory: &Path) -> String {
        let directory = directory.display();
        format!(
            r#"daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log {directory}/access.log;
    client_body_temp_path {directory}/tmp; proxy_temp_path {directory}/tmp;
    fastcgi_temp_path {directory}/tmp; uwsgi_temp_path {directory}/tmp; scgi_temp_path {directory}/tmp;
    default_type application/json;
    map_hash_bucket_size 256;
    map $http_authorization $key {{
        default "";
        "Bearer {key}" "{key_shown}";
        "Bearer {stolen}" "{stolen_shown}";
    }}
    server {{
        listen {ADDRESS}:443 ssl;
        server_name {HOST};
        ssl_certificate {directory}/server.pem;
        ssl_certificate_key {directory}/server.key;
        location / {{
            if ($key = "") {{ return 401 '{{"error":"no key, or an unknown one"}}'; }}
            return 200 '{{"invoice":7,"total":"12.50","key_seen":"$key"}}';
        }}
    }}
}}
"#,
            key = self.key,
            stolen = self.stolen,
            key_shown = fingerprint(&self.key),
            stolen_shown = fingerprint(&self.stolen),
        )
    }
}

/// The beginning of a key's SHA-256: enough to tell keys apart, useless to call with.
fn fingerprint(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    digest.iter().take(6).fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn new_key(kind: &str) -> Result<String> {
    let random = sh::capture(Command::new("openssl").args(["rand", "-hex", "24"]))?;
    Ok(format!("demo_{kind}_{}", random.trim()))
}

/// A CA and a certificate for [`HOST`], valid for two days.
fn make_certificates(directory: &Path) -> Result<()> {
    let openssl = |arguments: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        quietly(command.args(["-days", "2", "-sha256"]).args(arguments).current_dir(directory))
    };
    openssl(&[
        "-subj",
        "/CN=CA of the demo API",
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign",
    ])?;
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
        &format!("/CN={HOST}"),
        "-addext",
        &format!("subjectAltName=DNS:{HOST}"),
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-addext",
        "extendedKeyUsage=serverAuth",
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_keys_apart_and_is_short() {
        assert_eq!(fingerprint("demo"), "sha256:2a97516c354b");
        assert_ne!(fingerprint("demo"), fingerprint("demp"));
    }
}
