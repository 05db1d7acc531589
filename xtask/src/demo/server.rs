//! The API server: nginx with a certificate for [`HOST`], which answers 401 to whoever brings no key.
//!
//! It answers with the fingerprint of the key that it saw, never with a key.

use std::fs;
use std::path::Path;

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use crate::stage::{Stage, nginx};

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
        let server = Self {
            ca: nginx::make_certificates(&directory, &[HOST])?,
            key: nginx::new_key("demo_live")?,
            stolen: nginx::new_key("demo_lost")?,
            access_log: directory.join("access.log"),
        };
        stage.write_roots("outside.pem", &server.ca)?;
        nginx::start(stage, &directory, &server.configuration(&directory))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_keys_apart_and_is_short() {
        assert_eq!(fingerprint("demo"), "sha256:2a97516c354b");
        assert_ne!(fingerprint("demo"), fingerprint("demp"));
    }
}
