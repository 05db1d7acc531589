//! `kind = "jwt"`: a JSON Web Token that this host makes.

use std::time::Duration;

use toml::de::DeValue;

use super::{check_keys, reference};
use crate::credential::{
    ClaimText, ClaimValue, JwtAlgorithm, JwtCredential, JwtKey, JwtPer, JwtSigner, Variable,
};
use crate::diagnostic::{Problem, quote};
use crate::read::{Reader, Section};

/// What a token is.
const TOKEN: [&str; 8] = ["key", "algorithm", "key_id", "issuer", "subject", "audience", "claims", "ttl"];

/// What the daemon says itself, or has a key of its own.
const RESERVED: [&str; 7] = ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"];

/// The longest life of a token: nobody can take one back.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
const USUAL: Duration = Duration::from_secs(300);

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<JwtCredential> {
    check_keys(section, &[TOKEN.as_slice(), &["per"]].concat(), reader);
    let per = reader.parsed(section, "per", per).map_or(JwtPer::Ttl, |it| it.value);
    token(section, reader).map(|token| JwtCredential { per, ..token })
}

/// A token that is shown to an authorization server, each once.
pub(super) fn assertion(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<JwtCredential> {
    reader.check_keys(section, &TOKEN, super::hint);
    token(section, reader)
}

fn token(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<JwtCredential> {
    let signer = match section.has("key") {
        true => key(section, reader).map(JwtSigner::Key),
        false => host(section, reader).then_some(JwtSigner::Host),
    };
    let audience = audience(section, reader);
    let claims = claims(section, reader);
    let ttl = reader.parsed(section, "ttl", ttl).map_or(USUAL, |it| it.value);
    Some(JwtCredential { signer: signer?, audience, claims, ttl, per: JwtPer::Call })
}

fn key(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<JwtKey> {
    let key = reader.parsed(section, "key", reference::parse);
    let algorithm = reader.required(section, "algorithm", "add algorithm = \"ES256\"");
    let algorithm = algorithm.and_then(|text| reader.parse(&text, known_algorithm));
    let key_id = reader.parsed(section, "key_id", plain).map(|it| it.value);
    let issuer = reader.parsed(section, "issuer", ClaimText::read).map(|it| it.value);
    let subject = reader.parsed(section, "subject", ClaimText::read).map(|it| it.value);
    Some(JwtKey {
        key: key?.value,
        algorithm: algorithm?.value,
        key_id,
        issuer,
        subject: subject.unwrap_or_else(|| ClaimText::of(Variable::Identity)),
    })
}

/// Without a key this host signs, and says itself who it is and whom a token is about.
fn host(section: &Section<'_>, reader: &mut Reader<'_>) -> bool {
    let own = ["algorithm", "key_id", "issuer", "subject"];
    let mut fits = true;
    for name in own.into_iter().filter(|name| section.has(name)) {
        fits = false;
        reader.findings.error(
            reader.key_place(section, name),
            format!(
                "\"{name}\" without a \"key\": then this host signs, as [issuer] of its configuration says"
            ),
            "remove it, or add key = \"vault:NAME\"",
        );
    }
    fits
}

fn audience(section: &Section<'_>, reader: &mut Reader<'_>) -> Vec<ClaimText> {
    let help = "say who may take the token: audience = \"https://api.example.com\"";
    let texts = match section.value("audience") {
        Some(DeValue::Array(_)) => reader.strings(section, "audience"),
        _ => reader.required(section, "audience", help).into_iter().collect(),
    };
    if matches!(section.value("audience"), Some(DeValue::Array(items)) if items.is_empty()) {
        let place = reader.key_place(section, "audience");
        reader.findings.error(place, "a token for nobody", help);
    }
    texts.iter().filter_map(|text| Some(reader.parse(text, ClaimText::read)?.value)).collect()
}

fn claims(section: &Section<'_>, reader: &mut Reader<'_>) -> Vec<(String, ClaimValue)> {
    let help = "write claims = { name = \"value\" }";
    let Some(table) = reader.section(section, "claims", "\"claims\"", help) else { return Vec::new() };
    let mut claims = Vec::new();
    for name in reader.keys(&table) {
        if RESERVED.contains(&name.as_str()) {
            let help =
                "write issuer, subject, audience and ttl; iat, nbf, exp and jti are set for each token";
            reader.findings.error(name.place, format!("{} is not a claim of your own", quote(&name)), help);
            continue;
        }
        let value = match table.value(&name) {
            Some(DeValue::Array(_)) => {
                let texts = reader.strings(&table, &name);
                let read = |text| Some(reader.parse(text, ClaimText::read)?.value);
                Some(ClaimValue::Texts(texts.iter().filter_map(read).collect()))
            }
            Some(DeValue::Integer(_)) => {
                reader.integer(&table, &name).map(|it| ClaimValue::Integer(it.value))
            }
            Some(DeValue::Boolean(value)) => Some(ClaimValue::Boolean(*value)),
            _ => reader.parsed(&table, &name, ClaimText::read).map(|it| ClaimValue::Text(it.value)),
        };
        claims.extend(value.map(|value| (name.value, value)));
    }
    claims
}

pub(super) fn known_algorithm(text: &str) -> Result<JwtAlgorithm, Problem> {
    JwtAlgorithm::parse(text).ok_or_else(|| {
        let all = JwtAlgorithm::ALL.map(JwtAlgorithm::as_str).join(", ");
        Problem::new("unknown algorithm", format!("known algorithms: {all}"))
    })
}

pub(super) fn plain(text: &str) -> Result<String, Problem> {
    match !text.is_empty() && text.len() <= 256 && text.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => {
            Err(Problem::new("this is not the name of a key", "write 1 to 256 visible ASCII characters"))
        }
    }
}

fn per(text: &str) -> Result<JwtPer, Problem> {
    match text {
        "call" => Ok(JwtPer::Call),
        "ttl" => Ok(JwtPer::Ttl),
        _ => Err(Problem::new("\"per\" is \"call\" or \"ttl\"", "write per = \"ttl\"")),
    }
}

/// A number with s, m or h.
pub(in crate::draft) fn time(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let seconds = match (number.parse::<u64>(), unit) {
        (Ok(number), "s") => Some(number),
        (Ok(number), "m") => number.checked_mul(60),
        (Ok(number), "h") => number.checked_mul(3600),
        _ => None,
    };
    seconds.map(Duration::from_secs)
}

fn ttl(text: &str) -> Result<Duration, Problem> {
    match time(text) {
        Some(ttl) if !ttl.is_zero() && ttl <= LONGEST => Ok(ttl),
        Some(_) => Err(Problem::new("this \"ttl\" is out of range", "write between \"1s\" and \"24h\"")),
        None => Err(Problem::new("\"ttl\" is not a time", "write a number and s, m or h, such as \"5m\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_lasts_between_a_second_and_a_day() {
        assert_eq!(ttl("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(ttl("5m").unwrap(), Duration::from_secs(300));
        assert_eq!(ttl("24h").unwrap(), LONGEST);
        for bad in ["0s", "25h", "5", "m", "", "-1s", "1d", "18446744073709551615h"] {
            assert!(ttl(bad).is_err(), "{bad}");
        }
    }
}
