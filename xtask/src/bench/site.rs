//! The server that all loads go to, and the policies that decide about them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::stage::{Stage, nginx, quietly};

/// Speaks HTTP/1.1 only; an API.
const HTTP1: (&str, &str) = ("203.0.113.10", "h1.api.bench.test");
/// Speaks HTTP/2 too; an API.
const HTTP2: (&str, &str) = ("203.0.113.11", "h2.api.bench.test");
/// The same server by names that no API has.
const PASSED1: (&str, &str) = ("203.0.113.20", "h1.bench.test");
const PASSED2: (&str, &str) = ("203.0.113.21", "h2.bench.test");
/// Without TLS; an API.
pub(super) const PLAIN: (&str, &str) = ("203.0.113.12", "plain.api.bench.test");
/// What it answers.
pub(super) const BODY: &str = "{\"well\":true}";
/// All addresses and names: from a block for documentation (RFC 5737).
pub(super) const HOSTS: &[(&str, &str)] = &[HTTP1, HTTP2, PLAIN, PASSED1, PASSED2];
/// An address on which nothing listens but at port 443.
pub(super) const ADDRESS: &str = HTTP1.0;

/// The name of the secret in the proxy's store.
pub(super) const SECRET: &str = "bench-key";
/// Bytes of the large body.
pub(super) const LARGE: u64 = 256 << 20;

const POLICIES: [(&str, &str); 4] = [
    (
        "policies/policies/intercepted.toml",
        "[identity]\nexe = \"/run/vouchsafe-bench/bots/*\"\n\n\
         [[grant]]\napi = \"bench\"\nallow = [\"GET /v1/**\"]\ncredential = \"bench-key\"\n",
    ),
    (
        "policies/policies/passed.toml",
        "unmatched = \"pass\"\n\n[identity]\nexe = \"/run/vouchsafe-bench/passed/*\"\n",
    ),
    (
        "policies/apis/bench.toml",
        "[api.bench]\nhosts = [\"h1.api.bench.test\", \"h2.api.bench.test\"]\naddresses = [\"203.0.113.0/24\"]\n\
         inject = { header = \"authorization\", value = \"Bearer {secret}\" }\n\n\
         [api.plain]\nscheme = \"http\"\nhosts = [\"plain.api.bench.test\"]\n\
         addresses = [\"203.0.113.0/24\"]\n",
    ),
    (
        "policies/credentials/bench.toml",
        "[credential.bench-key]\nkind = \"static\"\nsecret = \"vault:bench-key\"\n",
    ),
];

/// The policy of an identity for one program, which may call the API without TLS.
pub(super) fn plain_identity(program: &Path) -> String {
    let program = program.display();
    format!("[identity]\nexe = \"{program}\"\n\n[[grant]]\napi = \"plain\"\nallow = [\"GET /v1/**\"]\n")
}

/// Where the API without TLS is.
pub(super) fn plain_address() -> String {
    format!("{}:80", PLAIN.0)
}

/// The running server.
pub(super) struct Site {
    /// What the server wants to see.
    pub(super) key: String,
    /// The CA of its certificate (PEM).
    pub(super) ca: String,
}

impl Site {
    /// Starts the server and writes the policies. `directory` is on a disk.
    pub(super) fn start(stage: &Stage, directory: &Path) -> Result<Self> {
        widen(stage)?;
        for (name, text) in POLICIES {
            stage.write(name, text, 0o644)?;
        }
        for name in ["policies/roles", "api"] {
            fs::create_dir_all(stage.path(name))?;
        }
        let hosts: Vec<&str> = HOSTS.iter().map(|(_, host)| *host).collect();
        let ca = nginx::make_certificates(directory, &hosts)?;
        let large = directory.join("v1/large");
        fs::create_dir_all(directory.join("v1"))?;
        fs::File::create(&large)
            .and_then(|file| file.set_len(LARGE))
            .with_context(|| format!("cannot write {}", large.display()))?;
        let site = Self { key: nginx::new_key("bench")?, ca };
        stage.write_roots("outside.pem", &site.ca)?;
        nginx::start(stage, directory, &site.configuration(directory))?;
        Ok(site)
    }

    /// The host to call: speaks HTTP/2 or not, is an API's or not.
    pub(super) fn host(http2: bool, passed: bool) -> &'static str {
        match (http2, passed) {
            (false, false) => HTTP1.1,
            (true, false) => HTTP2.1,
            (false, true) => PASSED1.1,
            (true, true) => PASSED2.1,
        }
    }

    fn configuration(&self, directory: &Path) -> String {
        let directory = directory.display();
        let listen =
            |(address, _): (&str, &str), more: &str| format!("listen {address}:443 ssl{more} backlog=4096;");
        format!(
            r#"daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {directory}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {directory}/tmp; proxy_temp_path {directory}/tmp;
    fastcgi_temp_path {directory}/tmp; uwsgi_temp_path {directory}/tmp; scgi_temp_path {directory}/tmp;
    default_type application/json;
    keepalive_requests 100000000;
    map_hash_bucket_size 256;
    server {{
        listen {plain}:80 backlog=4096;
        location / {{ return 200 '{BODY}'; }}
    }}
    map $http_authorization $known {{ default 0; "Bearer {key}" 1; }}
    server {{
        {listen}
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {directory}/server.pem;
        ssl_certificate_key {directory}/server.key;
        root {directory};
        location = /v1/small {{
            if ($known = 0) {{ return 401 '{{"error":"no key, or an unknown one"}}'; }}
            return 200 '{{"invoice":7,"total":"12.50","currency":"EUR","lines":[1,2,3],"paid":true}}';
        }}
        location = /v1/large {{
            if ($known = 0) {{ return 401 '{{"error":"no key, or an unknown one"}}'; }}
        }}
    }}
}}
"#,
            key = self.key,
            plain = PLAIN.0,
            listen =
                [listen(HTTP1, ""), listen(PASSED1, ""), listen(HTTP2, " http2"), listen(PASSED2, " http2")]
                    .join(" "),
        )
    }
}

/// Makes room for many connections one after the other, in the stage's network only.
fn widen(stage: &Stage) -> Result<()> {
    let script = "echo 20000 65000 > /proc/sys/net/ipv4/ip_local_port_range; \
                  echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse; echo 4096 > /proc/sys/net/core/somaxconn";
    let mut command: Command = stage.enter(None);
    quietly(command.args(["sh", "-ec", script]))
}
