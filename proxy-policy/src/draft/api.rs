//! `[api.NAME]`: hosts, and how a credential is attached.

use super::inject::parse_parameter;
use super::{ApiDraft, inject, limits, token_endpoint};
use crate::address::{Addresses, Entry};
use crate::diagnostic::{Problem, quote};
use crate::host::{Host, HostError};
use crate::inject::InjectPlace;
use crate::model::{ApiHost, Mask, Scheme};
use crate::operation::is_token;
use crate::place::Spanned;
use crate::read::{Reader, Section};
use crate::suggest;

/// Headers that frame the message or belong to one hop. Setting or removing them would change what is sent, not who
/// sends it.
const FRAMING: [&str; 15] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) fn read(name: Spanned<String>, section: &Section<'_>, reader: &mut Reader<'_>) -> ApiDraft {
    reader.check_keys(
        section,
        &[
            "hosts",
            "scheme",
            "addresses",
            "inject",
            "strip",
            "keep",
            "mask",
            "token_endpoint",
            "limit",
            "host_limit",
            "wait",
        ],
        hint,
    );
    let scheme = reader.parsed(section, "scheme", parse_scheme).map(|it| it.value).unwrap_or_default();
    let before = reader.findings.len();
    let texts = reader.strings(section, "hosts");
    let help = "add hosts = [\"api.example.com\"]";
    if !section.has("hosts") && !section.has("host") {
        reader.missing(section, "hosts", help);
    } else if section.has("hosts") && texts.is_empty() && reader.findings.len() == before {
        let place = reader.key_place(section, "hosts");
        reader.findings.error(place, format!("{} has no host", section.what), help);
    }
    let mut hosts: Vec<Spanned<ApiHost>> = Vec::new();
    for text in &texts {
        let Some(host) = reader.parse(text, |text| parse_host(text, scheme)) else { continue };
        if hosts.contains(&host) {
            reader.findings.warning(
                host.place,
                format!("the host {} is named twice", quote(text)),
                "remove one",
            );
            continue;
        }
        hosts.push(host);
    }
    let addresses = addresses(section, &hosts, reader);
    let shape = "write inject = { header = \"authorization\", value = \"Bearer {secret}\" }";
    let inject = reader.section(section, "inject", "inject", shape);
    let injects = match (&inject, section.has("inject")) {
        (Some(table), _) => Some(table.place),
        (None, true) => Some(reader.key_place(section, "inject")),
        (None, false) => None,
    };
    let inject = inject.and_then(|table| inject::read(&table, reader));
    let mut strip: Vec<String> = Vec::new();
    for text in reader.strings(section, "strip") {
        let Some(header) = reader.parse(&text, parse_header) else { continue };
        let injected = inject.as_ref().map(|inject| &inject.place);
        let again = strip.contains(&header)
            || matches!(injected, Some(InjectPlace::Header(name)) if *name == *header);
        if again {
            let message = format!("the header {} is removed in any case", quote(&text));
            reader.findings.warning(header.place, message, "remove it from \"strip\"");
            continue;
        }
        strip.push(header.value);
    }
    let mut keep: Vec<String> = Vec::new();
    for text in reader.strings(section, "keep") {
        let Some(name) = reader.parse(&text, parse_kept) else { continue };
        let injected = inject.as_ref().map(|inject| &inject.place);
        let removed = strip.contains(&name)
            || matches!(injected, Some(InjectPlace::Header(header)) if *header == *name)
            || matches!(injected, Some(InjectPlace::Query(query)) if name.strip_prefix('?') == Some(query));
        if removed {
            let message = format!("{} is removed in any case", quote(&text));
            reader.findings.error(name.place, message, "remove it from \"keep\"");
            continue;
        }
        keep.push(name.value);
    }
    let mask = reader.parsed(section, "mask", parse_mask).map(|it| it.value).unwrap_or_default();
    let shape = "write token_endpoint = { paths = [\"/oauth2/token\"] }";
    let token_endpoint = reader.section(section, "token_endpoint", "token_endpoint", shape);
    let token_endpoint = token_endpoint.and_then(|table| token_endpoint::read(&table, reader));
    limits::check_wait(section, &["limit", "host_limit"], reader);
    let (limits, host_limits) =
        (limits::read(section, "limit", reader), limits::read(section, "host_limit", reader));
    ApiDraft {
        name,
        scheme,
        hosts,
        addresses,
        injects,
        inject,
        strip,
        keep,
        mask,
        token_endpoint,
        limits,
        host_limits,
    }
}

/// Where it may be: as the policy says, and as its hosts say.
fn addresses(section: &Section<'_>, hosts: &[Spanned<ApiHost>], reader: &mut Reader<'_>) -> Addresses {
    let before = reader.findings.len();
    let texts = reader.strings(section, "addresses");
    if section.has("addresses") && texts.is_empty() && reader.findings.len() == before {
        let place = reader.key_place(section, "addresses");
        let message = format!("{} may be at no address", section.what);
        reader.findings.error(place, message, "name addresses, or remove it: then it is at public ones");
    }
    let mut entries: Vec<Entry> = Vec::new();
    for text in &texts {
        let Some(entry) = reader.parse(text, Entry::parse) else { continue };
        if entries.contains(&entry) {
            let message = format!("the address {} is named twice", quote(text));
            reader.findings.warning(entry.place, message, "remove one");
            continue;
        }
        entries.push(entry.value);
    }
    let of_hosts = hosts.iter().filter_map(|host| match host.name().parse() {
        Ok(address) => Some(Entry::of(address)),
        // RFC 6761 section 6.3: never anything else.
        Err(_) => {
            (host.name() == "localhost" || host.name().ends_with(".localhost")).then_some(Entry::LOOPBACK)
        }
    });
    Addresses::new(section.has("addresses").then_some(entries), of_hosts.collect())
}

fn hint(key: &str) -> Option<Problem> {
    match key {
        "host" | "url" | "base_url" => Some(Problem::new(
            format!("unknown key {} in an API", quote(key)),
            "write hosts = [\"api.example.com\"]",
        )),
        "address" | "networks" | "allow_private" => Some(Problem::new(
            format!("unknown key {} in an API", quote(key)),
            "write addresses = [\"private\"], or the networks that the API is in",
        )),
        "token_url" | "token_path" => Some(Problem::new(
            format!("unknown key {} in an API", quote(key)),
            "write token_endpoint = { paths = [\"/oauth2/token\"] }",
        )),
        "insecure" => Some(Problem::new(
            "an API does not say what goes over it without TLS",
            "write insecure = \"loopback\" in the credential: its owner says where it may go",
        )),
        "credential" | "secret" => Some(Problem::new(
            format!("an API does not name a {key}"),
            "grants and roles name the credential: the same API may have several",
        )),
        _ => None,
    }
}

fn parse_scheme(text: &str) -> Result<Scheme, Problem> {
    match text {
        "https" => Ok(Scheme::Https),
        "http" => Ok(Scheme::Http),
        other => Err(Problem::new(
            format!("\"scheme\" cannot be {}", quote(other)),
            suggest::nearest(other, ["http", "https"]).map_or_else(
                || "write \"https\" (the default) or \"http\"".to_owned(),
                |meant| format!("did you mean \"{meant}\"?"),
            ),
        )),
    }
}

fn parse_host(text: &str, scheme: Scheme) -> Result<ApiHost, Problem> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let help = format!("write {} and put the scheme under \"scheme\"", quote(host));
        return Err(Problem::new(format!("the host {} is a URL", quote(text)), help));
    }
    if text.contains('/') {
        let help = "leave the path out: grants say which paths";
        return Err(Problem::new(format!("the host {} has a path", quote(text)), help));
    }
    let (wildcard, rest) = match text.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    if rest.contains('*') {
        return Err(Problem::new(
            format!("the host {} has a * that is not its whole first label", quote(text)),
            "write *.example.com for every host with one label before example.com",
        ));
    }
    let host = Host::parse(rest).map_err(|error| {
        let help = match error {
            HostError::NotAscii => "write it as DNS spells it, such as xn--bcher-kva.example",
            HostError::BadPort => "write a port from 1 to 65535 after the colon, or none",
            HostError::BadIpv6 => "write an IPv6 address in brackets: [2001:db8::1]:8443",
            HostError::BadIpv4 => "write four decimal numbers with dots",
            _ => "write a host name such as api.example.com, or host:port",
        };
        Problem::new(format!("bad host {}: {error}", quote(text)), help)
    })?;
    if wildcard && (host.is_address() || !host.name().contains('.')) {
        return Err(Problem::new(
            format!("the wildcard host {} is too wide", quote(text)),
            "name at least two labels after the *, such as *.example.com",
        ));
    }
    let port = host.port().unwrap_or_else(|| scheme.default_port());
    Ok(ApiHost { name: host.name().to_owned(), wildcard, port })
}

fn parse_mask(text: &str) -> Result<Mask, Problem> {
    match text {
        "text" => Ok(Mask::Text),
        "all" => Ok(Mask::All),
        "off" => Ok(Mask::Off),
        _ => Err(Problem::new(
            format!("{} does not say which answers are looked through", quote(text)),
            "write mask = \"text\" (the default), \"all\" or \"off\"",
        )),
    }
}

/// A header, or a parameter of the query with a `?` before its name.
fn parse_kept(text: &str) -> Result<String, Problem> {
    if let Some(name) = text.strip_prefix('?') {
        return parse_parameter(name).map(|name| format!("?{name}"));
    }
    let name = parse_header(text)?;
    match name.as_str() {
        "authorization" => {
            let help = "what a client sends in it never goes on to an API: remove it from \"keep\"";
            Err(Problem::new("the header \"authorization\" cannot be kept", help))
        }
        _ => Ok(name),
    }
}

pub(super) fn parse_header(text: &str) -> Result<String, Problem> {
    let name = text.to_ascii_lowercase();
    if text.is_empty() || !text.bytes().all(is_token) {
        let help = "header names have letters, digits and -, such as authorization or x-api-key";
        return Err(Problem::new(format!("{} is not the name of a header", quote(text)), help));
    }
    if FRAMING.contains(&name.as_str()) {
        return Err(Problem::new(
            format!("the header {} cannot be changed by a policy", quote(&name)),
            "it says how the message is sent, not who sends it: name the header that the API authenticates by",
        ));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_frames_the_message_is_refused_in_any_letters() {
        for bad in ["Host", "Content-Length", "TE", "trailer", ":authority", "", "x y", "x:", "é"] {
            assert!(parse_header(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_header("X-Api-Key"), Ok("x-api-key".into()));
    }

    #[test]
    fn a_host_has_a_port_and_at_most_one_star() {
        let host = |text| parse_host(text, Scheme::Https).map(|host| host.to_string());
        assert_eq!(host("API.example.com."), Ok("api.example.com:443".into()));
        assert_eq!(host("*.example.com:8443"), Ok("*.example.com:8443".into()));
        assert_eq!(host("[::1]:1"), Ok("[::1]:1".into()));
        assert_eq!(parse_host("a", Scheme::Http).map(|host| host.port), Ok(80));
        for bad in
            ["*", "*.com", "*.1.2.3.4", "a.*.com", "*a.com", "*.*.com", "https://a.com/", "a.com/x", ""]
        {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
