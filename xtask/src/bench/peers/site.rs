//! The server that all contestants stand before, a copy of it that is far away, and one that nobody should trust.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};

use super::contestant::Contestant;
use super::helper::{DELAY, SERVE};
use crate::stage::{Stage, nginx, quietly};

/// What a client asks for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// Speaks HTTP/1.1 only.
    Http1,
    /// Speaks HTTP/2 too.
    Http2,
    /// As the first, but 20 ms away.
    Far,
    /// Shows a certificate of an authority that nobody trusts.
    Rogue,
    /// Names that nobody has called before, all of one server.
    Fresh,
}

/// Each host with its name and the address of the server.
pub(super) const HOSTS: [(Host, &str, &str); 5] = [
    (Host::Http1, "h1.api.bench.test", "203.0.113.10"),
    (Host::Http2, "h2.api.bench.test", "203.0.113.11"),
    (Host::Far, "far.api.bench.test", "203.0.113.13"),
    (Host::Rogue, "rogue.api.bench.test", "203.0.113.14"),
    (Host::Fresh, "*.fresh.bench.test", "203.0.113.15"),
];
/// The same as a stage wants it.
pub(super) const STAGE_HOSTS: &[(&str, &str)] = &[
    ("203.0.113.10", "h1.api.bench.test"),
    ("203.0.113.11", "h2.api.bench.test"),
    ("203.0.113.13", "far.api.bench.test"),
    ("203.0.113.14", "rogue.api.bench.test"),
    ("203.0.113.15", "*.fresh.bench.test"),
];
/// The address of what the relay of the far host leads to, which has no name.
const BEHIND_FAR: &str = "127.2.0.1";

/// Bytes of the large bodies.
pub(super) const LARGE: u64 = 100_000_000;
/// Where the bench's own server is, which nginx stands before.
const OWN_SERVER: &str = "127.2.0.2:80";

impl Host {
    pub(super) fn name(self) -> &'static str {
        HOSTS.iter().find(|(host, ..)| *host == self).map_or("", |(_, name, _)| name)
    }

    /// The server's address.
    pub(super) fn upstream(self) -> &'static str {
        HOSTS.iter().find(|(host, ..)| *host == self).map_or("", |(.., address)| address)
    }

    pub(super) fn speaks_http2(self) -> bool {
        self == Self::Http2
    }
}

/// The running servers, and what contestants are configured with.
pub(super) struct Site {
    /// What the server wants to see.
    pub(super) key: String,
    /// The CA of the server's certificate (PEM).
    pub(super) ca: String,
    /// Of the server: `ca.pem`.
    pub(super) directory: PathBuf,
    /// Of the contestants: `ca.pem`, `ca.key`, `server.pem`, `server.key`, `both.pem`.
    pub(super) peers: PathBuf,
    /// The body that is sent.
    pub(super) body: PathBuf,
}

/// Rules of the policy; the issue wants the daemon measured with a hundred.
const RULES: usize = 100;

impl Site {
    /// Starts the servers and writes the policies. `disk` is on a disk.
    pub(super) fn start(stage: &Stage, disk: &Path) -> Result<Self> {
        let (directory, peers, rogue) = (disk.join("api"), disk.join("peers"), disk.join("rogue"));
        for directory in
            [&directory.join("v1"), &peers, &rogue, &stage.path("api"), &stage.path("policies/roles")]
        {
            fs::create_dir_all(directory)?;
        }
        for (name, text) in policies() {
            stage.write(&name, &text, 0o644)?;
        }
        let names = HOSTS.map(|(_, name, _)| name);
        let ca = nginx::make_certificates(&directory, &names)?;
        nginx::make_certificates(&rogue, &names)?;
        let peers_ca = nginx::make_certificates(&peers, &names)?;
        let read = |name: &str| fs::read_to_string(peers.join(name)).context("openssl left no certificate");
        fs::write(peers.join("both.pem"), read("server.pem")? + &read("server.key")?)?;
        fs::write(peers.join("ca-both.pem"), read("ca.pem")? + &read("ca.key")?)?;
        // Without the system's roots: loading these takes a client longer than the call that is measured.
        stage.write("outside.pem", &format!("{ca}\n{peers_ca}"), 0o644)?;
        let body = directory.join("v1/large");
        fs::File::create(&body)
            .and_then(|file| file.set_len(LARGE))
            .context("cannot write the large body")?;
        let script = "echo 20000 65000 > /proc/sys/net/ipv4/ip_local_port_range; \
                      echo 1 > /proc/sys/net/ipv4/tcp_tw_reuse; echo 4096 > /proc/sys/net/core/somaxconn";
        quietly(stage.enter(None).args(["sh", "-ec", script]))?;
        let site = Self { key: nginx::new_key("bench")?, ca, directory, peers, body };
        nginx::start(stage, &site.directory, &site.configuration(&rogue))?;
        helper(stage, &[SERVE, OWN_SERVER])?;
        helper(stage, &[DELAY, &format!("{}:443", Host::Far.upstream()), &format!("{BEHIND_FAR}:443")])?;
        Ok(site)
    }

    /// Of a contestant: a table of hosts that leads its clients to it.
    pub(super) fn hosts_for(stage: &Stage, contestant: Contestant) -> Result<PathBuf> {
        let lines = HOSTS.map(|(host, name, _)| format!("{} {name}\n", contestant.address(host)));
        let name = format!("hosts-{}", contestant.slug());
        stage.write(&name, &format!("127.0.0.1 localhost\n{}", lines.concat()), 0o644)
    }

    fn configuration(&self, rogue: &Path) -> String {
        let directory = self.directory.display();
        let server = |listen: String, certificates: &Path| {
            let certificates = certificates.display();
            format!(
                r#"
    server {{
        listen {listen} backlog=4096;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {certificates}/server.pem;
        ssl_certificate_key {certificates}/server.key;
        root {directory};
        client_max_body_size 0;
        if ($known = 0) {{ return 401 '{{"error":"no key, or an unknown one"}}'; }}
        location = /v1/small {{
            return 200 '{{"invoice":7,"total":"12.50","currency":"EUR","lines":[1,2,3],"paid":true}}';
        }}
        location = /v1/large {{ }}
        location /v1/own/ {{
            proxy_pass http://{OWN_SERVER};
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
"#
            )
        };
        let servers = [
            server(format!("{}:443 ssl", Host::Http1.upstream()), &self.directory),
            server(format!("{}:443 ssl http2", Host::Http2.upstream()), &self.directory),
            server(format!("{BEHIND_FAR}:443 ssl"), &self.directory),
            server(format!("{}:443 ssl", Host::Rogue.upstream()), rogue),
            server(format!("{}:443 ssl", Host::Fresh.upstream()), &self.directory),
        ]
        .concat();
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
    keepalive_timeout 600s;
    map_hash_bucket_size 256;
    map $http_authorization $known {{ default 0; "Bearer {key}" 1; }}
{servers}
}}
"#,
            key = self.key,
        )
    }
}

/// Starts one of the bench's own servers; the stage ends it.
fn helper(stage: &Stage, arguments: &[&str]) -> Result<()> {
    let ourselves = env::current_exe().context("cannot find this program's own path")?;
    let log = fs::File::create(stage.path(&format!("helper-{}.log", arguments.first().unwrap_or(&""))))?;
    let mut command = stage.enter(None);
    command.arg(ourselves).arg("bench-peer").args(arguments);
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    stage.adopt(child.context("cannot start this program again")?);
    Ok(())
}

fn policies() -> [(String, String); 3] {
    let hosts = HOSTS.map(|(_, name, _)| format!("\"{name}\"")).join(", ");
    let others: String = (2..RULES).map(|n| format!("\"GET /v2/other/{n}/*\", ")).collect();
    [
        (
            "policies/policies/peers.toml".to_owned(),
            format!(
                "[identity]\nexe = \"/run/vouchsafe-bench/bots/*\"\n\n[[grant]]\napi = \"bench\"\n\
                 allow = [{others}\"GET /v1/**\", \"POST /v1/**\"]\ncredential = \"{}\"\n",
                super::super::site::SECRET
            ),
        ),
        (
            "policies/apis/bench.toml".to_owned(),
            format!(
                "[api.bench]\nhosts = [{hosts}]\naddresses = [\"203.0.113.0/24\"]\n\
                 inject = {{ header = \"authorization\", value = \"Bearer {{secret}}\" }}\n"
            ),
        ),
        (
            "policies/credentials/bench.toml".to_owned(),
            "[credential.bench-key]\nkind = \"static\"\nsecret = \"vault:bench-key\"\n".to_owned(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_knows_every_host() {
        let known = HOSTS.map(|(_, name, address)| (address, name));
        assert_eq!(STAGE_HOSTS, known);
    }

    #[test]
    fn the_policy_has_a_hundred_rules() {
        let [(_, policy), ..] = policies();
        assert_eq!(policy.matches("\"GET /").count() + policy.matches("\"POST /").count(), RULES);
    }
}
