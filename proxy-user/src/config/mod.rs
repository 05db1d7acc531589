//! `vouchsafe.toml`: what the host decides. Every key has a default; an unknown key is an error with its place.
mod ca;
mod exec;
mod rotation;
mod hashicorp;
mod issuer;
mod journal;
mod limits;
mod redaction;
mod sinks;
mod uplink;
mod witness;

use std::{
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    path::{Path, PathBuf},
    time::Duration,
};

use proxy_policy::{NetworkRule, SecretRef};
use serde::Deserialize;
use thiserror::Error;

pub use self::ca::Ca;
pub use self::exec::{Exec, Programs};
pub use self::hashicorp::{Hashicorp, HashicorpJwt, HashicorpLogin};
pub use self::issuer::Issuer;
pub use self::journal::{Durability, Journal, OnFull};
pub use self::limits::{Limits, Rate};
pub use self::redaction::QueryNames;
pub use self::rotation::{Maker, Rotation, Rotations};
pub use self::sinks::{Format, From, JOURNALD, OtlpProtocol, Receiver, Sink, Sinks, Tls as SinkTls};
pub use self::uplink::{Direct, SiteProxy};
pub use self::witness::Witness;
use crate::base::duration;

/// Where the configuration is when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/vouchsafe/vouchsafe.toml";

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder that holds `policies/`, `roles/`, `apis/` and `credentials/`.
    pub policies: PathBuf,
    /// Journal, CA and secret store.
    pub state: PathBuf,
    /// Control socket.
    pub runtime: PathBuf,
    /// What happens to workloads that no identity matches.
    pub unidentified: Unidentified,
    /// Whether anything is denied by policy.
    pub mode: Mode,
    /// Whether others than root are kept from tracing governed workloads and the daemon (needs the BPF LSM).
    pub protect: bool,
    /// What is attached where.
    pub kernel: Kernel,
    /// What every governed workload may reach past the proxy.
    pub network: Network,
    /// Where the proxy listens.
    pub listen: Listen,
    /// What signs the certificates that bots are shown.
    pub ca: Ca,
    /// The way to the APIs.
    pub upstream: Upstream,
    /// Bounds on what a client may do.
    pub limits: Limits,
    /// Where records go besides the journal's own files.
    pub journal: Journal,
    /// Who may talk to the daemon.
    pub control: Control,
    /// What the daemon says of itself.
    pub log: Log,
    /// Where runtimes of containers keep what they know.
    pub containers: Containers,
    /// This host as an issuer of tokens; `None`: it is none.
    pub issuer: Option<Issuer>,
    /// HashiCorp Vault or OpenBao; `None`: nothing leads there.
    pub hashicorp: Option<Hashicorp>,
    /// Programs that print secrets, by name.
    pub exec: Programs,
    /// How secrets are made anew.
    #[serde(default)]
    pub rotation: Rotations,
}

/// The setting for workloads that no policy knows.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Unidentified {
    /// Refused and recorded.
    #[default]
    Deny,
    /// Passed through undecrypted to hosts that no API names, and recorded.
    Pass,
}

/// What becomes of what the policy denies.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It is refused.
    #[default]
    Enforce,
    /// It goes on, and is recorded as what would be refused.
    Observe,
}

/// `[kernel]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kernel {
    /// The cgroup whose processes are governed; default: the cgroup v2 root, wherever it is mounted.
    pub cgroup: Option<PathBuf>,
    /// The cgroup below which systemd's tree stands, as a path in the hierarchy; default: that of PID 1.
    pub unit_root: Option<String>,
    /// The ports that are turned to the proxy.
    pub ports: Vec<u16>,
    /// Where links and maps are pinned (on a bpffs).
    pub pin: PathBuf,
}

/// `[network]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Rules as in a network grant.
    #[serde(deserialize_with = "network_rules")]
    pub allow: Vec<NetworkRule>,
}

fn network_rules<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<NetworkRule>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let parse = |text: &String| match NetworkRule::parse(text) {
        Ok(rule) if rule.transport().is_none() => Err(serde::de::Error::custom(
            "\"any\" cannot be open to everybody: write unidentified = \"pass\", or grant it to an identity",
        )),
        parsed => parsed.map_err(serde::de::Error::custom),
    };
    texts.iter().map(parse).collect()
}

/// `[listen]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// For IPv4 and v4-mapped IPv6.
    pub ipv4: SocketAddrV4,
    /// For IPv6.
    pub ipv6: SocketAddrV6,
}

/// `[upstream]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// PEM files trusted beside the system's roots.
    pub roots: Vec<PathBuf>,
    /// Whether the system's roots are trusted.
    pub system_roots: bool,
    /// Until TCP and TLS stand.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// Until the head of the response is there.
    #[serde(deserialize_with = "duration::deserialize")]
    pub response_timeout: Duration,
    /// The proxy of the site, through which upstreams are reached; `None`: directly.
    pub proxy: Option<SiteProxy>,
    /// What is reached without it.
    pub no_proxy: Vec<Direct>,
    /// Where `USER:PASSWORD` for it is.
    #[serde(deserialize_with = "uplink::reference")]
    pub proxy_credential: Option<SecretRef>,
    /// Whether it alone looks names up, and this host cannot.
    pub proxy_resolves: bool,
}

/// `[control]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// The group whose members may use the control socket, beside root.
    pub group: String,
}

/// `[log]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A `tracing` filter, such as `info` or `vouchsafe=debug`.
    pub level: String,
}

/// `[containers]`: folders of runtimes, which belong to root.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Containers {
    /// Podman's and CRI-O's storage (`graphroot`).
    pub podman: PathBuf,
    /// The part of it that does not outlive a boot (`runroot`).
    pub podman_run: PathBuf,
    /// Docker's `data-root`.
    pub docker: PathBuf,
    /// containerd's `state`.
    pub containerd: PathBuf,
    /// The kubelet's `--root-dir`.
    pub kubelet: PathBuf,
}

impl Default for Containers {
    fn default() -> Self {
        Self {
            podman: "/var/lib/containers/storage".into(),
            podman_run: "/run/containers/storage".into(),
            docker: "/var/lib/docker".into(),
            containerd: "/run/containerd".into(),
            kubelet: "/var/lib/kubelet".into(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let or = |variable: &str, default: &str| {
            // systemd names exactly one directory of each kind for this unit.
            std::env::var_os(variable)
                .filter(|v| !v.is_empty())
                .map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        Self {
            policies: or("CONFIGURATION_DIRECTORY", "/etc/vouchsafe"),
            state: or("STATE_DIRECTORY", "/var/lib/vouchsafe"),
            runtime: or("RUNTIME_DIRECTORY", "/run/vouchsafe"),
            unidentified: Unidentified::Deny,
            mode: Mode::Enforce,
            protect: false,
            kernel: Kernel::default(),
            network: Network::default(),
            listen: Listen::default(),
            ca: Ca::default(),
            upstream: Upstream::default(),
            limits: Limits::default(),
            journal: Journal::default(),
            control: Control::default(),
            log: Log::default(),
            containers: Containers::default(),
            issuer: None,
            hashicorp: None,
            exec: Programs::new(),
            rotation: Rotations::new(),
        }
    }
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            cgroup: None,
            unit_root: None,
            ports: vec![80, 443],
            pin: PathBuf::from("/sys/fs/bpf/vouchsafe"),
        }
    }
}

impl Default for Network {
    fn default() -> Self {
        // Without names nothing works; whoever wants them closed says so.
        let rules = ["udp resolver:53", "tcp resolver:53"];
        Self { allow: rules.into_iter().filter_map(|rule| NetworkRule::parse(rule).ok()).collect() }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            ipv4: SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 15001),
            ipv6: SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, 15001, 0, 0),
        }
    }
}

impl Listen {
    /// Both addresses.
    #[must_use]
    pub fn all(&self) -> [SocketAddr; 2] {
        [self.ipv4.into(), self.ipv6.into()]
    }
}

impl Upstream {
    /// What does not fit together, and what to do.
    fn problem(&self) -> Option<&'static str> {
        if self.proxy.is_some() {
            return None;
        }
        match (self.no_proxy.is_empty(), &self.proxy_credential, self.proxy_resolves) {
            (false, ..) => {
                Some("upstream.no_proxy is for upstream.proxy, and there is none; add it, or take this away")
            }
            (_, Some(_), _) => Some(
                "upstream.proxy_credential is for upstream.proxy, and there is none; add it, or take this away",
            ),
            (.., true) => Some(
                "upstream.proxy_resolves is for upstream.proxy, and there is none; add it, or take this away",
            ),
            _ => None,
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            roots: Vec::new(),
            system_roots: true,
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(60),
            proxy: None,
            no_proxy: Vec::new(),
            proxy_credential: None,
            proxy_resolves: false,
        }
    }
}

impl Default for Control {
    fn default() -> Self {
        Self { group: String::from("vouchsafe") }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: String::from("info") }
    }
}

/// Why the configuration is not taken.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file is not there or may not be read.
    #[error("{path}: cannot read the configuration", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody other than root could change what the daemon does.
    #[error("{path}: {what}\n  help: chown root {path} && chmod go-w {path}", path = path.display())]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is wrong with owner or mode.
        what: String,
    },
    /// Not TOML, an unknown key, a wrong type.
    #[error("{path}:{line}:{column}: error: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A value that cannot work.
    #[error("{path}: error: {message}", path = path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and column where there are any.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        if let Some(what) = crate::base::ownership::problem(path) {
            return Err(ConfigError::Untrusted { path: path.to_owned(), what });
        }
        Self::parse(path, &text)
    }

    /// Reads and checks a text; `path` is its label in errors.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or("");
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            ConfigError::Syntax {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.get(line_start..).map_or(0, |line| line.chars().count()) + 1,
                message: error.message().to_owned(),
            }
        })?;
        let value = |message: &str| ConfigError::Value { path: path.to_owned(), message: message.to_owned() };
        if config.kernel.ports.is_empty() || config.kernel.ports.contains(&0) {
            return Err(value(
                "kernel.ports must name at least one port, and not 0; write ports = [80, 443]",
            ));
        }
        for (port, key) in [(config.listen.ipv4.port(), "ipv4"), (config.listen.ipv6.port(), "ipv6")] {
            if port == 0 {
                return Err(value(&format!(
                    "listen.{key} has port 0; the kernel must know the port, write for example 15001"
                )));
            }
            if config.ports().contains(&port) {
                return Err(value(&format!(
                    "listen.{key} has port {port}, which is mediated itself (kernel.ports, or that of upstream.proxy); choose another"
                )));
            }
        }
        if !config.listen.ipv4.ip().is_loopback() || !config.listen.ipv6.ip().is_loopback() {
            return Err(value("listen must be loopback addresses; nobody outside this host is served"));
        }
        if let Some(problem) = config.limits.problem() {
            return Err(value(problem));
        }
        if let Some(problem) = config.issuer.as_ref().and_then(|it| it.problem(&config.ports())) {
            return Err(value(problem));
        }
        if let Some(problem) = config.hashicorp.as_ref().and_then(|it| it.problem(config.issuer.is_some())) {
            return Err(value(problem));
        }
        if let Some(problem) = config.ca.problem() {
            return Err(value(&problem));
        }
        if let Some(problem) = config.journal.problem() {
            return Err(value(&problem));
        }
        if let Some(problem) = config.upstream.problem() {
            return Err(value(problem));
        }
        if let Some(problem) = sinks::problem(&config.journal.sinks) {
            return Err(value(&problem));
        }
        let rotation = || rotation::problem(&config.rotation, config.hashicorp.as_ref());
        match exec::problem(&config.exec).or_else(rotation) {
            Some(problem) => Err(value(&problem)),
            None => Ok(config),
        }
    }

    /// The ports that are turned to the proxy: those of the kernel side, and that of the site's proxy, which bots may know as well.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let mut ports = self.kernel.ports.clone();
        let more = self.upstream.proxy.as_ref().map(|proxy| proxy.port);
        ports.extend(more.filter(|port| !self.kernel.ports.contains(port)));
        ports
    }

    /// The folder of the journal's segments.
    #[must_use]
    pub fn journal_dir(&self) -> PathBuf {
        self.state.join("journal")
    }

    /// The control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(Path::new("v.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_file_is_the_default_and_denies_the_unidentified() {
        let config = Config::parse(Path::new("v.toml"), "").unwrap();
        assert_eq!(config.kernel.ports, [80, 443]);
        assert_eq!(config.unidentified, Unidentified::Deny);
        assert!(!config.protect);
        assert_eq!(config.network.allow.len(), 2, "the resolvers, over UDP and TCP");
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        let text = error("state = \"/x\"\n[kernel]\n  cgruop = \"/y\"\n");
        assert!(text.starts_with("v.toml:3:3: error: unknown field `cgruop`"), "{text}");
    }

    #[test]
    fn a_wrong_type_is_an_error_with_its_place() {
        let text = error("[kernel]\nports = \"443\"\n");
        assert!(text.starts_with("v.toml:2:9: error: invalid type"), "{text}");
    }

    #[test]
    fn values_that_cannot_work_are_refused() {
        assert!(error("[kernel]\nports = []").contains("at least one port"));
        assert!(error("[listen]\nipv4 = \"127.0.0.1:443\"").contains("mediated itself"));
        assert!(error("[listen]\nipv4 = \"0.0.0.0:15001\"").contains("loopback"));
        assert!(error("[upstream]\nconnect_timeout = \"10\"").contains("not a duration"));
        assert!(error("unidentified = \"observe\"").contains("unknown variant"));
        assert!(error("[journal]\non_full = \"spill\"").contains("write spill = "));
        assert!(error("[journal]\nspill = \"/x\"").contains("write that, or take spill away"));
        assert!(error("[journal]\nsegment_size = \"1 MB\"").contains("not an amount of bytes"));
        assert!(error("[journal]\nsegment_size = \"1 KiB\"").contains("between"));
        assert!(error("[journal]\ndurability = \"maybe\"").contains("unknown variant"));
        let witness = |rest: &str| error(&format!("[[journal.witness]]\nname = \"w\"\n{rest}"));
        assert!(witness("").contains("exactly one of"));
        assert!(witness("url = \"https://w\"\ncommand = [\"/bin/cat\"]").contains("exactly one of"));
        assert!(witness("command = [\"cat\"]").contains("must begin with /"));
        assert!(witness("url = \"w.example\"").contains("is no address"));
        assert!(
            witness("url = \"https://w\"\n[[journal.witness]]\nname = \"w\"\nurl = \"https://w\"")
                .contains("two witnesses")
        );
        let text = error("[network]\nallow = [\"udp resolver:53\", \"tcp db.internal:5432\"]");
        assert!(text.starts_with("v.toml:2:9: error: \"db.internal\" is not an address"), "{text}");
    }

    #[test]
    fn no_fingerprint_is_made_of_what_carries_credentials() {
        let text = "[journal]\nfingerprint_query = \"all\"\nfingerprint_headers = [\"X-Request-Id\"]";
        let journal = Config::parse(Path::new("v.toml"), text).unwrap().journal;
        assert_eq!((journal.fingerprint_query, journal.fingerprint_headers.len()), (QueryNames::All, 1));
        for name in ["Authorization", "cookie", "proxy-authorization", "set-cookie"] {
            let text = error(&format!("[journal]\nfingerprint_headers = [\"{name}\"]"));
            assert!(
                text.starts_with("v.toml:2:23: error:") && text.contains("carries credentials"),
                "{text}"
            );
        }
        assert!(error("[journal]\nfingerprint_headers = [\"a b\"]").contains("no name of a header"));
        assert!(error("[journal]\nfingerprint_query = \"some\"").contains("write names of parameters"));
    }

    #[test]
    fn the_packaged_configuration_is_valid() {
        Config::parse(Path::new("p"), include_str!("../../../packaging/vouchsafe.toml")).unwrap();
    }
}
