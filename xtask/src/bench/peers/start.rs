//! How each peer is configured and started: certificate for the same hosts, one header added, the server's certificate verified,
//! connections to it kept, one worker.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::contestant::Contestant;
use super::envoy;
use super::install::Programs;
use super::site::{HOSTS, Host, Site};
use crate::sh;
use crate::stage::Stage;
use crate::system;

/// Where a peer listens for one host, and where that host is.
pub(super) struct Front {
    /// An IPv4 address; the port is 443.
    pub(super) listen: String,
    pub(super) host: &'static str,
    /// An IPv4 address; the port is 443.
    pub(super) upstream: &'static str,
    pub(super) http2: bool,
}

impl Front {
    pub(super) fn all(of: Contestant) -> Vec<Self> {
        // Nobody but us makes a certificate for a name when it is called; who carries bytes needs none.
        let known = HOSTS.iter().filter(|(host, ..)| *host != Host::Fresh || of == Contestant::Relay);
        known
            .map(|&(host, name, upstream)| Self {
                listen: of.address(host),
                host: name,
                upstream,
                http2: host.speaks_http2(),
            })
            .collect()
    }
}

/// Starts a peer in the stage's network and returns its process; the stage ends it.
pub(super) fn start(peer: Contestant, stage: &Stage, site: &Site, programs: &Programs) -> Result<u32> {
    let home = stage.path(&format!("peer-{}", peer.slug()));
    fs::create_dir_all(&home)?;
    let log = fs::File::create(log(stage, peer))?;
    let mut command = command(peer, stage, site, programs, &home)?;
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Ctrl-C of the terminal is for us; the stage ends the peers.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", peer.name()))?;
    let pid = child.id();
    stage.adopt(child);
    Ok(pid)
}

/// Where a peer's own words go.
pub(super) fn log(stage: &Stage, peer: Contestant) -> PathBuf {
    stage.path(&format!("peer-{}.log", peer.slug()))
}

fn command(
    peer: Contestant,
    stage: &Stage,
    site: &Site,
    programs: &Programs,
    home: &Path,
) -> Result<Command> {
    let fronts = Front::all(peer);
    let write = |name: &str, text: &str| stage.write(&format!("peer-{}/{name}", peer.slug()), text, 0o644);
    let debian = |name: &str| sh::find_program(name).with_context(|| format!("{name} is not installed"));
    let ca = site.directory.join("ca.pem");
    let mut command = stage.enter(None);
    match peer {
        Contestant::Direct | Contestant::Vouchsafe => anyhow::bail!("{} is no peer", peer.name()),
        Contestant::Relay => {
            let file = write("haproxy.cfg", &relay(&fronts))?;
            command.arg(debian("haproxy")?).args(["-db", "-q", "-f"]).arg(file);
        }
        Contestant::Haproxy => {
            let file = write("haproxy.cfg", &haproxy(&fronts, site))?;
            command.arg(debian("haproxy")?).args(["-db", "-q", "-f"]).arg(file);
        }
        Contestant::Nginx => {
            let file = write("nginx.conf", &nginx(&fronts, site, home))?;
            command.arg(debian("nginx")?).args(["-e", "stderr", "-p"]).arg(home).arg("-c").arg(file);
        }
        Contestant::Squid | Contestant::SquidBump => {
            let file = write("squid.conf", &squid(peer, &fronts, site, stage, home))?;
            if peer == Contestant::SquidBump {
                let mut make = Command::new(certgen());
                crate::stage::quietly(
                    make.args(["-c", "-s"]).arg(home.join("certificates")).args(["-M", "4MB"]),
                )?;
            }
            crate::stage::quietly(Command::new("chown").args(["-R", SQUID_USER]).arg(home))?;
            // Squid's shared memory has fixed names: it gets a place of its own, which goes with it.
            let script = "mount -t tmpfs none /dev/shm && exec \"$@\"";
            command.args(["sh", "-ec", script, "sh"]).arg(debian("squid")?).args(["-N", "-f"]).arg(file);
        }
        Contestant::Mitmproxy => {
            command.arg("env").arg(format!("HOME={}", home.display())).arg(programs.venv("mitmdump"));
            command.args(mitmproxy(&fronts, site, home));
        }
        Contestant::Envoy => {
            let file = write("envoy.json", &envoy::configuration(&fronts, site).to_string())?;
            command.arg(programs.venv("envoy")).arg("-c").arg(file);
            command.args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"]);
        }
        Contestant::Pingora => {
            let files = [site.peers.join("server.pem"), site.peers.join("server.key"), ca];
            command.arg(programs.built(peer)).args(files).arg(value(site));
            for Front { listen, host, upstream, http2 } in &fronts {
                let version = if *http2 { "http2" } else { "http1" };
                command.arg(format!("{listen}:443,{host},{upstream}:443,{version}"));
            }
        }
        Contestant::Hudsucker => {
            command.arg(programs.built(peer)).arg(peer.connect_address());
            command.args([site.peers.join("ca.pem"), site.peers.join("ca.key"), ca]).arg(value(site));
        }
    }
    Ok(command)
}

/// The value of the header that is added.
pub(super) fn value(site: &Site) -> String {
    format!("Bearer {}", site.key)
}

const HAPROXY: &str = "global\n    nbthread 1\n    maxconn 8192\n\
    defaults\n    timeout connect 10s\n    timeout client 60s\n    timeout server 60s\n";

fn relay(fronts: &[Front]) -> String {
    let all = fronts.iter().enumerate().map(|(number, Front { listen, upstream, .. })| {
        format!("listen l{number}\n    mode tcp\n    bind {listen}:443\n    server s {upstream}:443\n")
    });
    HAPROXY.to_owned() + &all.collect::<String>()
}

fn haproxy(fronts: &[Front], site: &Site) -> String {
    let (both, ca) = (site.peers.join("both.pem"), site.directory.join("ca.pem"));
    let (both, ca, value) = (both.display(), ca.display(), value(site));
    let all = fronts.iter().enumerate().map(|(number, Front { listen, host, upstream, http2 })| {
        let alpn = if *http2 { "h2,http/1.1" } else { "http/1.1" };
        format!(
            "frontend f{number}\n    mode http\n    bind {listen}:443 ssl crt {both} alpn {alpn}\n    \
             default_backend b{number}\n\
             backend b{number}\n    mode http\n    http-reuse always\n    \
             http-request set-header authorization \"{value}\"\n    \
             server s {upstream}:443 ssl verify required ca-file {ca} verifyhost {host} sni str({host}) \
             alpn {alpn} pool-max-conn 1024\n"
        )
    });
    HAPROXY.to_owned() + &all.collect::<String>()
}

fn nginx(fronts: &[Front], site: &Site, home: &Path) -> String {
    let (peers, ca, value) = (site.peers.display(), site.directory.join("ca.pem"), value(site));
    let (ca, home) = (ca.display(), home.display());
    let all = fronts.iter().enumerate().map(|(number, Front { listen, host, upstream, http2 })| {
        let http2 = if *http2 { " http2" } else { "" };
        format!(
            "    upstream u{number} {{ server {upstream}:443; keepalive 1024; keepalive_requests 100000000; }}\n    \
             server {{ listen {listen}:443 ssl{http2} backlog=4096; location / {{\n        \
             proxy_pass https://u{number}; proxy_ssl_name {host}; }} }}\n"
        )
    });
    format!(
        r#"daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {home}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {home}/tmp; proxy_temp_path {home}/tmp;
    fastcgi_temp_path {home}/tmp; uwsgi_temp_path {home}/tmp; scgi_temp_path {home}/tmp;
    keepalive_requests 100000000;
    client_max_body_size 0;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {peers}/server.pem; ssl_certificate_key {peers}/server.key;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_set_header Host $host;
    proxy_set_header Authorization "{value}";
    proxy_buffering off; proxy_request_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k;
    proxy_busy_buffers_size 128k;
    proxy_ssl_protocols TLSv1.2 TLSv1.3;
    proxy_ssl_server_name on; proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca};
{}}}
"#,
        all.collect::<String>()
    )
}

/// Whom Squid becomes, because it refuses to be root (the package makes it).
const SQUID_USER: &str = "proxy";

/// The program of the package that mints certificates.
fn certgen() -> &'static str {
    let known = ["/usr/lib/squid/security_file_certgen", "/usr/lib64/squid/security_file_certgen"];
    known.into_iter().find(|path| Path::new(path).exists()).unwrap_or(known[0])
}

fn squid(peer: Contestant, fronts: &[Front], site: &Site, stage: &Stage, home: &Path) -> String {
    let (peers, ca, hosts) = (site.peers.display(), site.directory.join("ca.pem"), stage.path("hosts"));
    let (ca, hosts, home, value) = (ca.display(), hosts.display(), home.display(), value(site));
    let mut text = match peer {
        Contestant::SquidBump => format!(
            "http_port {} ssl-bump tls-cert={peers}/ca-both.pem generate-host-certificates=on \
             dynamic_cert_mem_cache_size=4MB\n\
             sslcrtd_program {} -s {home}/certificates -M 4MB\nsslcrtd_children 1 startup=1 idle=1\n\
             acl first at_step SslBump1\nssl_bump peek first\nssl_bump bump all\nalways_direct allow all\n",
            peer.connect_address(),
            certgen()
        ),
        // Squid wants a port that is a forward proxy's.
        _ => format!("http_port {}\nnever_direct allow all\n", peer.connect_address()),
    };
    if peer == Contestant::Squid {
        for (number, Front { listen, host, upstream, .. }) in fronts.iter().enumerate() {
            text.push_str(&format!(
                "https_port {listen}:443 accel defaultsite={host} tls-cert={peers}/server.pem tls-key={peers}/server.key\n\
                 cache_peer {upstream} parent 443 0 no-query no-digest no-netdb-exchange originserver name=p{number} tls \
                 sslcafile={ca} ssldomain={host}\n\
                 acl h{number} dstdomain {host}\ncache_peer_access p{number} allow h{number}\n"
            ));
        }
    }
    text + &format!(
        "visible_hostname squid.bench.test\ntls_outgoing_options cafile={ca}\nhosts_file {hosts}\n\
         request_header_access Authorization deny all\nrequest_header_add Authorization \"{value}\" all\n\
         http_access allow all\ncache deny all\ncache_mem 8 MB\naccess_log none\ncache_log {home}/cache.log\n\
         pid_filename none\ncache_effective_user {SQUID_USER}\ncoredump_dir {home}\npinger_enable off\n\
         netdb_filename none\nmax_filedescriptors 8192\nshutdown_lifetime 0 seconds\n"
    )
}

fn mitmproxy(fronts: &[Front], site: &Site, home: &Path) -> Vec<String> {
    let mut words = ["-q", "--certs"].map(str::to_owned).to_vec();
    words.push(format!("*={}", site.peers.join("both.pem").display()));
    words.push("--modify-headers".to_owned());
    words.push(format!("/~q/authorization/{}", value(site)));
    for option in [
        format!("confdir={}", home.display()),
        format!("ssl_verify_upstream_trusted_ca={}", site.directory.join("ca.pem").display()),
        "stream_large_bodies=1".to_owned(),
        "connection_strategy=lazy".to_owned(),
        "flow_detail=0".to_owned(),
    ] {
        words.extend(["--set".to_owned(), option]);
    }
    for Front { listen, host, .. } in fronts {
        words.extend(["--mode".to_owned(), format!("reverse:https://{host}:443@{listen}:443")]);
    }
    words
}

/// Whether this host's distribution carries the peers that come as packages.
pub(super) fn has_packages() -> bool {
    system::has_apt()
}

/// The host by which a peer is asked whether it is up.
pub(super) const FIRST: Host = Host::Http1;
