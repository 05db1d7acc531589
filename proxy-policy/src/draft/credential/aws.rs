//! `kind = "aws"`: calls signed with AWS Signature Version 4.

use std::time::Duration;

use super::{check_keys, github_app, jwt, reference};
use crate::credential::{AwsCredential, AwsKeyId, AwsKeys, AwsRole, ClaimText, SecretRef, Variable};
use crate::diagnostic::Problem;
use crate::read::{Reader, Section};

const KEYS: [&str; 12] = [
    "access_key",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "web_identity",
    "region",
    "service",
    "role_arn",
    "session_name",
    "external_id",
    "duration",
    "sts_url",
];
/// Those that are of a role.
const ROLE: [&str; 4] = ["session_name", "external_id", "duration", "sts_url"];
/// Those that are of a pair of keys.
const PAIR: [&str; 3] = ["access_key_id", "secret_access_key", "session_token"];
/// As long as every role allows.
const USUAL: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_secs(900);
const LONGEST: Duration = Duration::from_secs(12 * 3600);

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<AwsCredential> {
    check_keys(section, &KEYS, reader);
    let keys = keys(section, reader);
    let region = reader.parsed(section, "region", scope_part).map(|it| it.value);
    let service = reader.parsed(section, "service", scope_part).map(|it| it.value);
    let before = reader.findings.len();
    let role = match section.has("role_arn") {
        true => role(section, region.as_deref(), reader),
        false => {
            for key in ROLE.iter().filter(|key| section.has(key)) {
                let place = reader.key_place(section, key);
                reader.findings.error(
                    place,
                    format!("\"{key}\" is of a role"),
                    "name it: role_arn = \"arn:…\"",
                );
            }
            None
        }
    };
    if section.has("web_identity") && !section.has("role_arn") {
        reader.missing(section, "role_arn", "name the role that is given for the token");
        return None;
    }
    let (keys, whole) = (keys?, reader.findings.len() == before);
    whole.then_some(AwsCredential { keys, region, service, role })
}

/// Whether nothing of a pair stands beside this key.
fn is_alone(key: &str, section: &Section<'_>, reader: &mut Reader<'_>) -> bool {
    let beside = PAIR.iter().chain(&["access_key"]).filter(|other| **other != key && section.has(other));
    let beside: Vec<_> = beside.collect();
    for other in &beside {
        let place = reader.key_place(section, other);
        let message = format!("\"{other}\" does not go with \"{key}\"");
        reader.findings.error(place, message, "remove one of them");
    }
    beside.is_empty()
}

fn keys(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<AwsKeys> {
    if section.has("web_identity") {
        let alone = is_alone("web_identity", section, reader);
        let token = reader.parsed(section, "web_identity", reference::parse_subject)?.value;
        return alone.then_some(AwsKeys::WebIdentity(token));
    }
    if section.has("access_key") {
        let alone = is_alone("access_key", section, reader);
        let whole = reader.parsed(section, "access_key", reference::parse)?.value;
        return alone.then_some(AwsKeys::Whole(whole));
    }
    let help = "write it, or where it is: access_key_id = \"vault:NAME\"; or where both parts are: access_key = \"vault:NAME\"";
    let id = reader.required(section, "access_key_id", help);
    let id = id.and_then(|text| reader.parse(&text, key_id)).map(|it| it.value);
    let help = "name where it is: secret_access_key = \"vault:NAME\"";
    let secret = reader.required(section, "secret_access_key", help);
    let secret = secret.and_then(|text| reader.parse(&text, reference::parse)).map(|it| it.value);
    let session_token: Option<SecretRef> = match section.has("session_token") {
        true => Some(reader.parsed(section, "session_token", reference::parse)?.value),
        false => None,
    };
    Some(AwsKeys::Pair { id: id?, secret: secret?, session_token })
}

/// The public part is no secret: it stands in each call.
fn key_id(text: &str) -> Result<AwsKeyId, Problem> {
    if text.contains(':') {
        return reference::parse(text).map(AwsKeyId::At);
    }
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    match plain && (3..=128).contains(&text.len()) {
        true => Ok(AwsKeyId::Text(text.to_owned())),
        false => Err(Problem::new(
            "this is not the id of an access key",
            "write it, as in access_key_id = \"AKIA…\", or where it is, as in \"vault:NAME\"; never the secret key",
        )),
    }
}

fn role(section: &Section<'_>, region: Option<&str>, reader: &mut Reader<'_>) -> Option<AwsRole> {
    let arn = reader.parsed(section, "role_arn", role_arn).map(|it| it.value);
    let session_name = match section.has("session_name") {
        true => reader.parsed(section, "session_name", session_name).map(|it| it.value),
        false => Some(ClaimText::of(Variable::Identity)),
    };
    let external_id = reader.parsed(section, "external_id", external_id).map(|it| it.value);
    let duration = reader.parsed(section, "duration", duration).map_or(USUAL, |it| it.value);
    let sts_url = match (section.has("sts_url"), region) {
        (true, _) => reader.parsed(section, "sts_url", sts_url).map(|it| it.value),
        (false, Some(region)) => {
            let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
            Some(format!("https://sts.{region}.amazonaws.com{suffix}/"))
        }
        (false, None) => Some("https://sts.amazonaws.com/".to_owned()),
    };
    Some(AwsRole { arn: arn?, session_name: session_name?, external_id, duration, sts_url: sts_url? })
}

fn sts_url(text: &str) -> Result<String, Problem> {
    match github_app::is_url(text) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            "\"sts_url\" is not a URL",
            "write https://HOST/ without user and query (http only for 127.0.0.1, [::1] and localhost)",
        )),
    }
}

fn role_arn(text: &str) -> Result<String, Problem> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let fits = match parts[..] {
        ["arn", partition, "iam", "", account, name] => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "+=,.@_/-".contains(c);
            !partition.is_empty()
                && account.bytes().all(|byte| byte.is_ascii_digit())
                && name.strip_prefix("role/").is_some_and(|name| !name.is_empty() && name.chars().all(plain))
        }
        _ => false,
    };
    match fits && text.len() <= 2048 {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            "this is not the name of a role",
            "write its ARN, such as role_arn = \"arn:aws:iam::123456789012:role/reports\"",
        )),
    }
}

fn session_name(text: &str) -> Result<ClaimText, Problem> {
    let name = ClaimText::read(text)?;
    let typed = text.replace("{identity}", "");
    let plain = |c: char| c.is_ascii_alphanumeric() || "_=,.@-".contains(c);
    match name.variables().all(|it| it == Variable::Identity) && typed.chars().all(plain) {
        true => Ok(name),
        false => Err(Problem::new(
            "AWS takes no such name of a session",
            "write letters, digits and = , . @ - _ only, and {identity} for the name of the identity",
        )),
    }
}

fn external_id(text: &str) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+=,.@:/-".contains(c);
    match (2..=1224).contains(&text.len()) && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => {
            Err(Problem::new("AWS takes no such external id", "write the one that the role's owner wants"))
        }
    }
}

fn duration(text: &str) -> Result<Duration, Problem> {
    match jwt::time(text) {
        Some(duration) if (SHORTEST..=LONGEST).contains(&duration) => Ok(duration),
        _ => Err(Problem::new(
            "this \"duration\" is out of range, or no time",
            "write between \"15m\" and \"12h\", and not more than the role allows",
        )),
    }
}

/// A region or a service, as in the scope of a signature.
fn scope_part(text: &str) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match !text.is_empty() && text.len() <= 64 && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            "this is not a region or service as signatures name it",
            "write it as in region = \"eu-central-1\", service = \"s3\"",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_key_may_be_written_and_a_secret_key_may_not() {
        assert_eq!(key_id("AKIDEXAMPLE").unwrap(), AwsKeyId::Text("AKIDEXAMPLE".into()));
        assert_eq!(key_id("vault:aws/id").unwrap(), AwsKeyId::At(SecretRef::vault("aws/id")));
        // What secret keys look like is not taken for an id.
        for bad in ["wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "", "ab", "vault:"] {
            let problem = key_id(bad).unwrap_err();
            assert!(!format!("{problem:?}").contains("wJal"));
        }
    }

    #[test]
    fn a_role_is_named_as_aws_names_it() {
        for good in ["arn:aws:iam::123456789012:role/a/b-c", "arn:aws-cn:iam::1:role/x"] {
            assert!(role_arn(good).is_ok(), "{good}");
        }
        for bad in [
            "role/x",
            "arn:aws:iam::12:user/x",
            "arn:aws:iam::a:role/x",
            "arn:aws:iam::1:role/",
            "arn:aws:iam::1:role/a b",
        ] {
            assert!(role_arn(bad).is_err(), "{bad}");
        }
        assert!(session_name("bot-{identity}").is_ok());
        for bad in ["", "a b", "{host}", "a:b"] {
            assert!(session_name(bad).is_err(), "{bad}");
        }
        assert!(external_id("a/b:c").is_ok() && external_id("a").is_err() && external_id("a b").is_err());
        assert!(duration("15m").is_ok() && duration("14m").is_err() && duration("13h").is_err());
        assert!(
            scope_part("eu-central-1").is_ok() && scope_part("EU").is_err() && scope_part("a/b").is_err()
        );
    }
}
