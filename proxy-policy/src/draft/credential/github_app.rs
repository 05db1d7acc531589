//! `kind = "github-app"`: tokens of an installation of a GitHub App, narrowed.

use std::net::IpAddr;

use toml::de::DeValue;

use super::{check_keys, reference};
use crate::credential::{GithubAppCredential, GithubLevel};
use crate::diagnostic::{Problem, quote};
use crate::read::{Reader, Section};

const KEYS: [&str; 6] =
    ["app_id", "private_key", "installation_id", "repositories", "permissions", "api_url"];

const GITHUB: &str = "https://api.github.com";

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<GithubAppCredential> {
    check_keys(section, &KEYS, reader);
    let app_id = match section.value("app_id") {
        Some(DeValue::Integer(_)) => number(section, "app_id", reader).map(|it| it.to_string()),
        _ => {
            let text = reader.required(section, "app_id", "add app_id = 12345, or the client id of the App");
            text.and_then(|text| reader.parse(&text, client_id)).map(|it| it.value)
        }
    };
    let help = "name where the private key is: private_key = \"vault:NAME\"";
    let private_key = reader.required(section, "private_key", help);
    let private_key = private_key.and_then(|text| reader.parse(&text, reference::parse));
    let installation_id = match section.has("installation_id") {
        true => number(section, "installation_id", reader),
        false => {
            reader.missing(section, "installation_id", "add installation_id = 12345");
            None
        }
    };
    let repositories = repositories(section, reader);
    let permissions = permissions(section, reader);
    let api_url = match section.has("api_url") {
        true => reader.parsed(section, "api_url", api_url).map(|it| it.value),
        false => Some(GITHUB.to_owned()),
    };
    Some(GithubAppCredential {
        app_id: app_id?,
        private_key: private_key?.value,
        installation_id: installation_id?,
        repositories: repositories?,
        permissions: permissions?,
        api_url: api_url?,
    })
}

fn number(section: &Section<'_>, key: &str, reader: &mut Reader<'_>) -> Option<u64> {
    let number = reader.integer(section, key)?;
    let read = u64::try_from(number.value).ok().filter(|number| *number > 0);
    if read.is_none() {
        let help = format!("write {key} = 12345");
        reader.findings.error(number.place, format!("\"{key}\" is a number from 1 on"), help);
    }
    read
}

fn client_id(text: &str) -> Result<String, Problem> {
    match !text.is_empty() && text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
    {
        true => Ok(text.to_owned()),
        false => {
            Err(Problem::new("this is neither the number of an App nor a client id", "write app_id = 12345"))
        }
    }
}

/// Inner `None`: all of the installation.
fn repositories(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<Option<Vec<String>>> {
    let help = "name those that it needs: repositories = [\"site\"], or all of the installation: [\"*\"]";
    if !section.has("repositories") {
        reader.missing(section, "repositories", help);
        return None;
    }
    let texts = reader.strings(section, "repositories");
    if texts.is_empty() {
        let place = reader.key_place(section, "repositories");
        reader.findings.error(place, "\"repositories\" names none", help);
        return None;
    }
    if let [one] = texts.as_slice()
        && one.as_str() == "*"
    {
        return Some(None);
    }
    Some(Some(texts.iter().filter_map(|text| Some(reader.parse(text, repository)?.value)).collect()))
}

fn repository(text: &str) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !text.is_empty() && text.len() <= 100 && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            "this is not the name of a repository",
            "write it without its owner; \"*\" stands alone, for all",
        )),
    }
}

fn permissions(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<Vec<(String, GithubLevel)>> {
    let help = "say what it may do: permissions = { contents = \"read\" }";
    let all = reader.string_table(section, "permissions");
    if all.is_empty() && !matches!(section.value("permissions"), Some(value) if value.as_table().is_none()) {
        reader.missing(section, "permissions", help);
        return None;
    }
    let mut permissions = Vec::new();
    for (name, level) in all {
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
            reader.findings.error(name.place, format!("{} is not a permission", quote(&name)), help);
        }
        let known = |text: &str| {
            let problem =
                || Problem::new("this is not how much of a permission", "write read, write or admin");
            GithubLevel::parse(text).ok_or_else(problem)
        };
        permissions.extend(reader.parse(&level, known).map(|level| (name.value, level.value)));
    }
    Some(permissions)
}

fn api_url(text: &str) -> Result<String, Problem> {
    match is_url(text) {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err(Problem::new(
            "\"api_url\" is not the URL of an API",
            "write https://HOST/PATH without user and query (http only for 127.0.0.1, [::1] and localhost)",
        )),
    }
}

/// An `https` URL, or an `http` one of this host, without anything that is not a place.
pub(super) fn is_url(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]".contains(c);
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let authority = rest.split('/').next().unwrap_or_default();
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    let loopback = || host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let right = scheme == "https" || (scheme == "http" && loopback());
    right && !host.is_empty() && rest.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_https_or_on_this_host() {
        for good in [
            "https://ghe.example.com/api/v3/",
            "http://127.0.0.1:8080",
            "http://[::1]:1/x",
            "http://localhost",
        ] {
            assert_eq!(api_url(good).unwrap(), good.trim_end_matches('/'));
        }
        for bad in [
            "http://ghe.example.com",
            "ftp://x",
            "ghe.example.com",
            "https://",
            "https://u:p@x",
            "https://x/?a",
            "https://x/#a",
            "http://localhost.example.com",
            "https:///x",
        ] {
            assert!(api_url(bad).is_err(), "{bad}");
        }
    }
}
