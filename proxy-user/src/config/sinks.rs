//! `[journal.sinks.NAME]`: where the records of the journal go besides its own files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use proxy_policy::{Host, SecretRef};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::hashicorp::Reference;
use super::issuer::is_place;

/// All of them, by name.
pub type Sinks = BTreeMap<String, Sink>;

/// The name of the sink that `[journal] journald` is.
pub const JOURNALD: &str = "journald";

/// `[journal.sinks.NAME]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// Whom it goes to, and how.
    pub to: Receiver,
    /// In which shape.
    pub format: Format,
    /// Where a sink begins that was never there before.
    pub from: From,
}

/// Who receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// systemd's journal, at its socket.
    Journald(PathBuf),
    /// A syslog server (RFC 5424 over TCP, RFC 5425 over TLS).
    Syslog {
        /// Its name or address, without brackets.
        host: String,
        /// Its port.
        port: u16,
        /// How TLS is spoken; `None`: not at all.
        tls: Option<Tls>,
        /// The facility of all messages, 0 to 23.
        facility: u8,
    },
    /// A collector of OpenTelemetry.
    Otlp {
        /// Where logs are taken: the whole URL, which has no path for gRPC.
        url: String,
        /// How it is spoken to.
        protocol: OtlpProtocol,
        /// Headers that it wants, each with a secret as its value.
        headers: Vec<(String, SecretRef)>,
        /// Whether bodies are compressed.
        gzip: bool,
        /// How TLS is spoken.
        tls: Tls,
    },
    /// A file or a named pipe, one line for each record.
    File(PathBuf),
}

/// How a server is verified, and what this host proves itself with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM files with the roots; none: those that `[upstream]` trusts.
    pub roots: Vec<PathBuf>,
    /// The name in the server's certificate, when it is another than the one it is called by.
    pub name: Option<String>,
    /// A client certificate, and its key.
    pub client: Option<(SecretRef, SecretRef)>,
}

/// How OTLP is spoken, by the names that `OTEL_EXPORTER_OTLP_PROTOCOL` has for it.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// Over HTTP/1.1, in protobuf.
    #[default]
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
    /// Over HTTP/1.1, in JSON.
    #[serde(rename = "http/json")]
    HttpJson,
    /// As a call of gRPC.
    #[serde(rename = "grpc")]
    Grpc,
}

/// How a record is spelled.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// As it stands in the journal.
    #[default]
    Native,
    /// As an event of the Open Cybersecurity Schema Framework.
    Ocsf,
}

/// Where a new sink begins.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// At the first record that there is.
    Start,
    /// At what is written from then on.
    #[default]
    End,
}

impl Sink {
    /// The sink of `[journal] journald`.
    #[must_use]
    pub fn journald(socket: PathBuf) -> Self {
        Self { to: Receiver::Journald(socket), format: Format::Native, from: From::End }
    }

    /// The secrets that it needs.
    #[must_use]
    pub fn secrets(&self) -> Vec<&SecretRef> {
        let (headers, tls) = match &self.to {
            Receiver::Syslog { tls, .. } => (&[][..], tls.as_ref()),
            Receiver::Otlp { headers, tls, .. } => (headers.as_slice(), Some(tls)),
            Receiver::Journald(_) | Receiver::File(_) => (&[][..], None),
        };
        let client = tls.and_then(|tls| tls.client.as_ref()).map(|(certificate, key)| [certificate, key]);
        headers.iter().map(|(_, secret)| secret).chain(client.into_iter().flatten()).collect()
    }
}

/// The table as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    kind: Kind,
    #[serde(default)]
    format: Format,
    #[serde(default)]
    from: From,
    path: Option<PathBuf>,
    address: Option<String>,
    facility: Option<Facility>,
    url: Option<String>,
    protocol: Option<OtlpProtocol>,
    headers: Option<BTreeMap<String, Reference>>,
    gzip: Option<bool>,
    roots: Option<Vec<PathBuf>>,
    name: Option<String>,
    client_certificate: Option<Reference>,
    client_key: Option<Reference>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Syslog,
    Otlp,
    File,
}

/// Facilities of syslog that a program of this kind may have.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Facility {
    Daemon = 3,
    Auth = 4,
    Authpriv = 10,
    Audit = 13,
    Local0 = 16,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

impl<'de> Deserialize<'de> for Sink {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Written::deserialize(deserializer)?.checked().map_err(D::Error::custom)
    }
}

impl Written {
    fn checked(self) -> Result<Sink, String> {
        let syslog = self.address.is_some() || self.facility.is_some();
        let otlp =
            self.url.is_some() || self.protocol.is_some() || self.headers.is_some() || self.gzip.is_some();
        let tls = self.roots.is_some()
            || self.name.is_some()
            || self.client_certificate.is_some()
            || self.client_key.is_some();
        let foreign = match self.kind {
            Kind::Syslog => {
                (self.path.is_some() || otlp).then_some("address, facility, roots, name and client_…")
            }
            Kind::Otlp => {
                (self.path.is_some() || syslog).then_some("url, protocol, headers, gzip, roots and client_…")
            }
            Kind::File => (syslog || otlp || tls).then_some("path"),
        };
        if let Some(own) = foreign {
            return Err(format!("this key is not for this kind of sink, which has format, from, {own}"));
        }
        let (format, from) = (self.format, self.from);
        let to = match self.kind {
            Kind::File => {
                let path = self.path.filter(|path| path.is_absolute());
                Receiver::File(
                    path.ok_or(
                        "a sink of kind \"file\" needs path = \"/ABSOLUTE/PATH\" of a file or a pipe",
                    )?,
                )
            }
            Kind::Syslog => {
                const HELP: &str = "a sink of kind \"syslog\" needs address = \"tls://HOST:PORT\", or \"tcp://HOST:PORT\" without TLS";
                let address = self.address.as_deref().ok_or(HELP)?;
                let (encrypted, rest) = match address.split_once("://") {
                    Some(("tls", rest)) => (true, rest),
                    Some(("tcp", rest)) => (false, rest),
                    _ => return Err(HELP.to_owned()),
                };
                if tls && !encrypted {
                    return Err("roots, name and client_… are for TLS; write address = \"tls://HOST:PORT\""
                        .to_owned());
                }
                let host = Host::parse(rest).map_err(|_| HELP)?;
                let port = host.port().ok_or(HELP)?;
                let facility = self.facility.unwrap_or(Facility::Authpriv) as u8;
                let tls = if encrypted {
                    Some(spoken(self.roots, self.name, self.client_certificate, self.client_key)?)
                } else {
                    None
                };
                Receiver::Syslog { host: host.name().to_owned(), port, tls, facility }
            }
            Kind::Otlp => {
                const HELP: &str = "a sink of kind \"otlp\" needs url = \"https://HOST:PORT/v1/logs\" (http only for 127.0.0.1, [::1] and \
                                    localhost), without user, query and fragment; with protocol = \"grpc\" url = \"https://HOST:PORT\"";
                let protocol = self.protocol.unwrap_or_default();
                let url = self.url.filter(|url| is_place(url)).ok_or(HELP)?;
                if protocol == OtlpProtocol::Grpc && url.matches('/').count() > 2 {
                    // Which service is called is no choice; a path would be dropped without a word.
                    return Err(
                        "with protocol = \"grpc\" the url has no path: write url = \"https://HOST:PORT\""
                            .to_owned(),
                    );
                }
                let mut headers = Vec::new();
                for (name, Reference(secret)) in self.headers.into_iter().flatten() {
                    let known = http::HeaderName::from_bytes(name.as_bytes());
                    if !known.is_ok_and(|known| is_free(known.as_str())) {
                        return Err(format!(
                            "headers has {name:?}, which is no name of a header, or one that is set here"
                        ));
                    }
                    headers.push((name, secret));
                }
                let plain = url.starts_with("http:");
                if tls && plain {
                    return Err("roots, name and client_… are for TLS; write url = \"https://…\"".to_owned());
                }
                if self.name.is_some() {
                    return Err("name is for kind = \"syslog\"; an url has its host".to_owned());
                }
                let tls = spoken(self.roots, None, self.client_certificate, self.client_key)?;
                Receiver::Otlp { url, protocol, headers, gzip: self.gzip.unwrap_or(true), tls }
            }
        };
        Ok(Sink { to, format, from })
    }
}

/// Whether a header may be chosen: not those of the message, of the connection, or of gRPC, whose `-bin` are not what they look like.
fn is_free(name: &str) -> bool {
    let own = [
        "content-type",
        "content-length",
        "content-encoding",
        "transfer-encoding",
        "host",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
    ];
    !own.contains(&name) && !name.starts_with("grpc-") && !name.ends_with("-bin")
}

fn spoken(
    roots: Option<Vec<PathBuf>>,
    name: Option<String>,
    certificate: Option<Reference>,
    key: Option<Reference>,
) -> Result<Tls, &'static str> {
    let name = name.map(|name| Host::parse(&name).map(|host| host.name().to_owned())).transpose();
    let name = name.map_err(|_| "name must be the host name that is in the server's certificate")?;
    let client = match (certificate, key) {
        (Some(Reference(certificate)), Some(Reference(key))) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err("client_certificate and client_key belong together"),
    };
    Ok(Tls { roots: roots.unwrap_or_default(), name, client })
}

/// What cannot work, and what to do.
pub(super) fn problem(sinks: &Sinks) -> Option<String> {
    sinks.keys().find_map(|name| {
        if name == JOURNALD {
            return Some(
                "[journal.sinks.journald] is the one that [journal] journald names; choose another name"
                    .to_owned(),
            );
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_name = (1..=32).contains(&name.len()) && name.chars().all(plain);
        (!is_name)
            .then(|| format!("[journal.sinks.{name:?}]: a name has 1 to 32 small letters, digits and -"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Config;
    use super::*;

    fn parsed(sink: &str) -> Result<Sink, String> {
        let text = format!("[journal.sinks.siem]\n{sink}\n");
        let config = Config::parse(Path::new("v.toml"), &text).map_err(|error| error.to_string())?;
        Ok(config.journal.sinks["siem"].clone())
    }

    #[test]
    fn each_kind_has_its_own_keys_and_begins_at_the_end_in_the_native_shape() {
        let file = parsed("kind = \"file\"\npath = \"/var/log/calls.jsonl\"").unwrap();
        assert_eq!((file.format, file.from), (Format::Native, From::End));
        assert_eq!(file.to, Receiver::File("/var/log/calls.jsonl".into()));

        let tcp =
            parsed("kind = \"syslog\"\naddress = \"tcp://[::1]:601\"\nformat = \"ocsf\"\nfrom = \"start\"")
                .unwrap();
        assert_eq!((tcp.format, tcp.from), (Format::Ocsf, From::Start));
        assert_eq!(tcp.to, Receiver::Syslog { host: "::1".into(), port: 601, tls: None, facility: 10 });

        let tls = parsed(
            "kind = \"syslog\"\naddress = \"tls://10.1.1.1:6514\"\nname = \"siem.corp\"\nroots = [\"/r.pem\"]\nfacility = \"local3\"\n\
             client_certificate = \"vault:cert\"\nclient_key = \"vault:key\"",
        )
        .unwrap();
        assert_eq!(
            tls.secrets().iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["vault:cert", "vault:key"]
        );
        let Receiver::Syslog { tls: Some(tls), facility: 19, .. } = tls.to else { panic!("{tls:?}") };
        assert_eq!((tls.name.as_deref(), tls.roots.len()), (Some("siem.corp"), 1));

        let otlp = parsed(
            "kind = \"otlp\"\nurl = \"https://otel:4318/v1/logs\"\nheaders = { X-Key = \"vault:otel\" }",
        )
        .unwrap();
        assert_eq!(otlp.secrets().len(), 1);
        assert!(matches!(otlp.to, Receiver::Otlp { gzip: true, protocol: OtlpProtocol::HttpProtobuf, .. }));
        let json = parsed(
            "kind = \"otlp\"\nurl = \"https://otel:4318/v1/logs\"\nprotocol = \"http/json\"\ngzip = false",
        );
        assert!(matches!(
            json.unwrap().to,
            Receiver::Otlp { gzip: false, protocol: OtlpProtocol::HttpJson, .. }
        ));
        let grpc = parsed("kind = \"otlp\"\nurl = \"https://[::1]:4317\"\nprotocol = \"grpc\"").unwrap();
        assert!(
            matches!(grpc.to, Receiver::Otlp { url, protocol: OtlpProtocol::Grpc, .. } if url == "https://[::1]:4317")
        );
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_place_and_a_secret_is_not_repeated() {
        for (sink, part) in [
            ("kind = \"kafka\"", "unknown variant"),
            ("kind = \"file\"\npth = \"/x\"", "unknown field `pth`"),
            ("kind = \"file\"\npath = \"x\"", "ABSOLUTE"),
            ("kind = \"file\"", "needs path"),
            ("kind = \"file\"\npath = \"/x\"\nurl = \"https://x/\"", "not for this kind"),
            ("kind = \"syslog\"", "needs address"),
            ("kind = \"syslog\"\naddress = \"siem:514\"", "needs address"),
            ("kind = \"syslog\"\naddress = \"udp://siem:514\"", "needs address"),
            ("kind = \"syslog\"\naddress = \"tls://siem\"", "needs address"),
            ("kind = \"syslog\"\naddress = \"tcp://siem:601\"\nroots = [\"/r\"]", "are for TLS"),
            ("kind = \"syslog\"\naddress = \"tls://siem:601\"\nclient_key = \"vault:k\"", "belong together"),
            ("kind = \"otlp\"\nurl = \"http://otel:4318/v1/logs\"", "needs url"),
            ("kind = \"otlp\"\nurl = \"https://me:CANARY@otel/v1/logs\"", "needs url"),
            ("kind = \"otlp\"\nurl = \"https://otel/v1/logs?key=CANARY\"", "needs url"),
            (
                "kind = \"otlp\"\nurl = \"https://otel/v1/logs\"\nheaders = { x-key = \"CANARY\" }",
                "not a reference",
            ),
            (
                "kind = \"otlp\"\nurl = \"https://otel/v1/logs\"\nheaders = { \"a b\" = \"vault:x\" }",
                "no name of a header",
            ),
            ("kind = \"otlp\"\nurl = \"https://otel/v1/logs\"\nheaders = { Host = \"vault:x\" }", "set here"),
            ("kind = \"otlp\"\nurl = \"https://otel:4317\"\nheaders = { TE = \"vault:x\" }", "set here"),
            (
                "kind = \"otlp\"\nurl = \"https://otel:4317\"\nheaders = { grpc-timeout = \"vault:x\" }",
                "set here",
            ),
            (
                "kind = \"otlp\"\nurl = \"https://otel:4317\"\nheaders = { x-key-bin = \"vault:x\" }",
                "set here",
            ),
            ("kind = \"otlp\"\nurl = \"https://otel:4317/v1/logs\"\nprotocol = \"grpc\"", "no path"),
            ("kind = \"otlp\"\nurl = \"http://otel:4317\"\nprotocol = \"grpc\"", "needs url"),
            ("kind = \"otlp\"\nurl = \"https://otel:4317\"\nprotocol = \"http\"", "unknown variant"),
            ("kind = \"file\"\npath = \"/x\"\nprotocol = \"grpc\"", "not for this kind"),
        ] {
            let error = parsed(sink).unwrap_err();
            assert!(
                error.starts_with("v.toml:") && error.contains(part) && !error.contains("CANARY"),
                "{sink}: {error}"
            );
        }
        for (text, part) in [
            ("[journal.sinks.journald]\nkind = \"file\"\npath = \"/x\"", "choose another name"),
            ("[journal.sinks.\"../x\"]\nkind = \"file\"\npath = \"/x\"", "1 to 32 small letters"),
        ] {
            let error = Config::parse(Path::new("v.toml"), text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
