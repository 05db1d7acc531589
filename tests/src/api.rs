//! The API servers' side: certificates, keys, and nginx as a server that wants a key.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::OnceLock;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::Value;

use crate::bot::Running;
use crate::wait::wait_until;
use crate::world::{ADDRESS, ADDRESS6, RAW_ADDRESS, World};

/// The key that the daemon injects, and that nobody else must ever see.
pub const CANARY: &str = "canary_7f3a9d51e8b24c06_live";
/// A key that nginx takes as well: a bot could have stolen it.
pub const STOLEN: &str = "stolen_0b6cd2f94417_key";

/// What servers prove themselves with; one for all worlds of a run.
pub(crate) struct Pki {
    /// The CA (PEM).
    pub(crate) ca: String,
    /// Certificate of every `*.test` host (PEM).
    pub(crate) certificate: String,
    /// Its key (PEM).
    pub(crate) key: String,
}

/// Makes them at the first use.
pub(crate) fn pki() -> &'static Pki {
    static PKI: OnceLock<Pki> = OnceLock::new();
    PKI.get_or_init(|| {
        let ca_key = KeyPair::generate().unwrap();
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.distinguished_name.push(rcgen::DnType::CommonName, "CA of the test APIs");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(ca, ca_key);
        let key = KeyPair::generate().unwrap();
        let names = [
            "api.test",
            "plain.test",
            "raw.test",
            "*.raw.test",
            "other.test",
            "v6.test",
            ADDRESS,
            RAW_ADDRESS,
            ADDRESS6,
        ];
        let mut leaf = CertificateParams::new(names.map(String::from).to_vec()).unwrap();
        leaf.distinguished_name.push(rcgen::DnType::CommonName, "server of the test APIs");
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = leaf.signed_by(&key, &issuer).unwrap().pem();
        Pki { ca: ca_pem, certificate, key: key.serialize_pem() }
    })
}

/// Starts nginx and waits until it listens.
pub(crate) fn nginx(world: &World) -> Running {
    let folder = world.path("api");
    fs::create_dir_all(folder.join("files/v1/files")).unwrap();
    world.write("api/ca.pem", &pki().ca);
    world.write("api/server.pem", &pki().certificate);
    world.write("api/server.key", &pki().key);
    let configuration = world.write("api/nginx.conf", &configuration(&folder));
    let log = fs::File::create(folder.join("error.log")).unwrap();
    let mut command = world.enter(None);
    command.args(["nginx", "-e"]).arg(folder.join("error.log"));
    command.arg("-p").arg(&folder).arg("-c").arg(configuration);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut server = Running::of(command.spawn().expect("cannot start nginx"));
    wait_until("the start of nginx", || {
        let said = || fs::read_to_string(folder.join("error.log")).unwrap_or_default();
        assert!(server.is_alive(), "nginx ended while it started: {}", said());
        // nginx writes the file after it listens.
        fs::read_to_string(folder.join("nginx.pid")).is_ok_and(|pid| !pid.trim().is_empty()).then_some(())
    });
    server
}

/// What nginx saw: one object per request.
pub(crate) fn seen(world: &World) -> Vec<Value> {
    let text = fs::read_to_string(world.path("api/access.log")).unwrap_or_default();
    // A line may be in the middle of being written.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn configuration(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"daemon off;
user root;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    log_format seen escape=json '{{"host":"$host","method":"$request_method","uri":"$request_uri",'
        '"protocol":"$server_protocol","authorization":"$http_authorization","scheme":"$scheme",'
        '"status":$status,"remote":"$remote_addr","local":"$server_addr"}}';
    access_log {folder}/access.log seen;
    client_body_temp_path {folder}/tmp; proxy_temp_path {folder}/tmp;
    fastcgi_temp_path {folder}/tmp; uwsgi_temp_path {folder}/tmp; scgi_temp_path {folder}/tmp;
    default_type application/json;
    client_max_body_size 0;
    keepalive_timeout 60;
    keepalive_requests 1000000;
    map_hash_bucket_size 256;
    map $http_authorization $key {{
        default "";
        "Bearer {CANARY}" "ours";
        "Bearer {STOLEN}" "stolen";
    }}
    server {{
        listen {ADDRESS}:443 ssl http2;
        listen [{ADDRESS6}]:443 ssl http2;
        listen {ADDRESS}:8443 ssl http2;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.key;
        location / {{
            if ($key = "") {{ return 401 '{{"error":"no key, or an unknown one"}}'; }}
            return 200 '{{"key":"$key","method":"$request_method","uri":"$request_uri","over":"$server_protocol"}}';
        }}
        location /v1/files/ {{
            if ($key = "") {{ return 401 '{{"error":"no key, or an unknown one"}}'; }}
            root {folder}/files;
            dav_methods PUT;
        }}
        location /v1/slowly/ {{
            if ($key = "") {{ return 401 '{{"error":"no key, or an unknown one"}}'; }}
            root {folder}/files;
            limit_rate 100k;
        }}
    }}
    server {{
        listen {ADDRESS}:80;
        listen [{ADDRESS6}]:80;
        location / {{
            return 200 '{{"authorization":"$http_authorization","method":"$request_method","uri":"$request_uri"}}';
        }}
    }}
}}
"#
    )
}
