//! `token_endpoint` of an API: the paths at which the proxy answers what asks for a token.

use std::time::Duration;

use super::credential::parse_time;
use crate::diagnostic::{Problem, quote};
use crate::operation::Operation;
use crate::read::{Reader, Section};
use crate::token_endpoint::TokenEndpoint;

const USUAL: Duration = Duration::from_secs(3600);
/// Clients ask anew some seconds before the end: what ends sooner is asked for without an end.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<TokenEndpoint> {
    reader.check_keys(section, &["paths", "expires_in"], |key| match key {
        "path" | "url" | "token_url" => Some(Problem::new(
            format!("unknown key {} in \"token_endpoint\"", quote(key)),
            "write paths = [\"/oauth2/token\"]; the hosts are those of the API",
        )),
        _ => None,
    });
    let before = reader.findings.len();
    let texts = reader.strings(section, "paths");
    let help = "add paths = [\"/oauth2/token\"]";
    if !section.has("paths") && !section.has("path") {
        reader.missing(section, "paths", help);
    } else if section.has("paths") && texts.is_empty() && reader.findings.len() == before {
        reader.findings.error(reader.key_place(section, "paths"), "\"paths\" names no path", help);
    }
    let mut paths: Vec<Operation> = Vec::new();
    for text in &texts {
        let Some(path) = reader.parse(text, path) else { continue };
        if paths.contains(&path.value) {
            let message = format!("the path {} is named twice", quote(text));
            reader.findings.warning(path.place, message, "remove one");
            continue;
        }
        paths.push(path.value);
    }
    let expires_in = reader.parsed(section, "expires_in", expires_in).map_or(USUAL, |it| it.value);
    Some(TokenEndpoint { paths, expires_in })
}

fn path(text: &str) -> Result<Operation, Problem> {
    let help = "write a path as in operations, such as \"/oauth2/token\" or \"/*/oauth2/v2.0/token\"";
    match text.starts_with('/') {
        // It is not asked which method: whatever is said there is not said to the API.
        true => Operation::parse(&format!("* {text}")),
        false => Err(Problem::new(format!("{} is not a path", quote(text)), help)),
    }
}

fn expires_in(text: &str) -> Result<Duration, Problem> {
    match parse_time(text) {
        Some(time) if (SHORTEST..=LONGEST).contains(&time) => Ok(time),
        _ => Err(Problem::new(
            "this \"expires_in\" is out of range, or no time",
            "write between \"1m\" and \"720h\"; it says when bots ask again, and ends nothing",
        )),
    }
}
