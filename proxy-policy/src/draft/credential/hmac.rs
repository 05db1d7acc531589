//! `kind = "hmac"`: calls signed with a shared key, as each API defines it.

use super::{check_keys, reference};
use crate::credential::{HmacCredential, HmacEncoding, HmacHash, HmacPart, HmacText};
use crate::diagnostic::{Problem, quote};
use crate::place::Spanned;
use crate::read::{Reader, Section};

const KEYS: [&str; 7] = ["secret", "key_encoding", "hash", "sign", "encoding", "headers", "query"];

const HASHES: [(&str, HmacHash); 4] = [
    ("sha256", HmacHash::Sha256),
    ("sha512", HmacHash::Sha512),
    ("sha384", HmacHash::Sha384),
    ("sha1", HmacHash::Sha1),
];
const ENCODINGS: [(&str, HmacEncoding); 3] =
    [("hex", HmacEncoding::Hex), ("base64", HmacEncoding::Base64), ("base64url", HmacEncoding::Base64Url)];

/// What stands in braces, besides headers and digests.
const PLACES: [(&str, HmacPart); 12] = [
    ("method", HmacPart::Method),
    ("path", HmacPart::Path),
    ("query", HmacPart::Query),
    ("target", HmacPart::Target),
    ("host", HmacPart::Host),
    ("timestamp", HmacPart::Timestamp),
    ("timestamp_ms", HmacPart::TimestampMs),
    ("date", HmacPart::HttpDate),
    ("datetime", HmacPart::DateTime),
    ("nonce", HmacPart::Nonce),
    ("body", HmacPart::Body),
    ("signature", HmacPart::Signature),
];

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<HmacCredential> {
    check_keys(section, &KEYS, reader);
    let help = "name where the key is: secret = \"vault:NAME\"";
    let secret = reader.required(section, "secret", help);
    let secret = secret.and_then(|text| reader.parse(&text, reference::parse)).map(|it| it.value);
    let key_encoding = reader.parsed(section, "key_encoding", |text| match text {
        "text" => Ok(HmacEncoding::Text),
        other => one_of(other, &ENCODINGS, "text, hex, base64, base64url"),
    });
    let hash = reader.parsed(section, "hash", |text| one_of(text, &HASHES, "sha256, sha512, sha384, sha1"));
    let encoding =
        reader.parsed(section, "encoding", |text| one_of(text, &ENCODINGS, "hex, base64, base64url"));
    let help = "say what is signed: sign = \"{timestamp}{method}{target}{body}\"";
    let sign = reader.required(section, "sign", help);
    let sign = sign.and_then(|text| reader.parse(&text, signed)).map(|it| it.value);
    let before = reader.findings.len();
    let headers = texts(section, "headers", reader, header_name);
    let query = texts(section, "query", reader, parameter_name);
    let whole = reader.findings.len() == before;
    let is_signature = |part: &HmacPart| *part == HmacPart::Signature;
    if whole && !headers.iter().chain(&query).any(|(_, text)| text.has(is_signature)) {
        let help = "say where it goes: headers = { x-signature = \"{signature}\" }";
        reader.findings.error(
            section.place,
            format!("nothing in {} carries the {{signature}}", section.what),
            help,
        );
        return None;
    }
    let (secret, sign) = (secret?, sign?);
    whole.then(|| HmacCredential {
        secret,
        key_encoding: key_encoding.map_or(HmacEncoding::Text, |it| it.value),
        hash: hash.map_or(HmacHash::Sha256, |it| it.value),
        sign,
        encoding: encoding.map_or(HmacEncoding::Hex, |it| it.value),
        headers,
        query,
    })
}

fn one_of<T: Copy>(text: &str, known: &[(&str, T)], names: &str) -> Result<T, Problem> {
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    found.ok_or_else(|| Problem::new("this is not known", format!("known: {names}")))
}

fn texts(
    section: &Section<'_>,
    key: &str,
    reader: &mut Reader<'_>,
    name: fn(&str) -> Result<String, Problem>,
) -> Vec<(String, HmacText)> {
    let mut out: Vec<(String, HmacText)> = Vec::new();
    for (spelled, text) in reader.string_table(section, key) {
        let Some(name) = reader.parse(&spelled, name).map(|it| it.value) else { continue };
        let Some(text) = reader.parse(&text, |text| parse(text, key == "headers")).map(|it| it.value) else {
            continue;
        };
        if out.iter().any(|(other, _)| *other == name) {
            let spelled: &Spanned<String> = &spelled;
            reader.findings.error(spelled.place, format!("{} stands twice", quote(spelled)), "remove one");
        }
        out.push((name, text));
    }
    out
}

fn header_name(text: &str) -> Result<String, Problem> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let name = text.to_ascii_lowercase();
    // What says where a message ends, or to whom it goes, is not for signatures.
    let ours = ["host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"];
    match !name.is_empty() && name.len() <= 128 && name.chars().all(token) && !ours.contains(&name.as_str()) {
        true => Ok(name),
        false => Err(Problem::new(
            "this header cannot be set",
            "write the name of the API's header for signatures",
        )),
    }
}

fn parameter_name(text: &str) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~');
    match !text.is_empty() && text.len() <= 128 && text.chars().all(plain) {
        true => Ok(text.to_owned()),
        false => {
            Err(Problem::new("this is not the name of a parameter", "write letters, digits and - _ . ~"))
        }
    }
}

/// What is signed has no signature in it yet.
fn signed(text: &str) -> Result<HmacText, Problem> {
    let text = parse(text, true)?;
    match text.has(|part| *part == HmacPart::Signature) {
        true => Err(Problem::new("what is signed cannot have the {signature} in it", "remove it")),
        false => Ok(text),
    }
}

/// Braces only stand around the name of a place.
fn parse(text: &str, visible: bool) -> Result<HmacText, Problem> {
    let unbalanced =
        || Problem::new("a brace has no partner", "braces only stand around the name of a place");
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(unbalanced)?;
        push(&mut parts, before)?;
        parts.push(place(name)?);
        rest = after;
    }
    push(&mut parts, rest)?;
    if parts.is_empty() {
        return Err(Problem::new("this text is empty", "say what stands there"));
    }
    let raw_body = |part: &HmacPart| *part == HmacPart::Body;
    if !visible && parts.iter().any(raw_body) {
        return Err(Problem::new("the body does not stand in a query", "write {body_sha256}"));
    }
    Ok(HmacText { parts })
}

fn push(parts: &mut Vec<HmacPart>, text: &str) -> Result<(), Problem> {
    if text.contains('}') {
        return Err(Problem::new("a brace has no partner", "braces only stand around the name of a place"));
    }
    if !text.is_empty() {
        parts.push(HmacPart::Text(text.to_owned()));
    }
    Ok(())
}

fn place(name: &str) -> Result<HmacPart, Problem> {
    if let Some((_, part)) = PLACES.iter().find(|(known, _)| *known == name) {
        return Ok(part.clone());
    }
    if let Some(header) = name.strip_prefix("header.") {
        let token = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
        if !header.is_empty() && header.chars().all(token) {
            return Ok(HmacPart::Header(header.to_owned()));
        }
    }
    if let Some(digest) = name.strip_prefix("body_") {
        let (hash, encoding) = digest.split_once('_').unwrap_or((digest, "hex"));
        let hash = HASHES.iter().find(|(known, _)| *known == hash);
        let encoding = ENCODINGS.iter().find(|(known, _)| *known == encoding);
        if let (Some((_, hash)), Some((_, encoding))) = (hash, encoding) {
            return Ok(HmacPart::BodyDigest(*hash, *encoding));
        }
    }
    let names: Vec<String> = PLACES.iter().map(|(name, _)| format!("{{{name}}}")).collect();
    Err(Problem::new(
        "this text has a place that is not known",
        format!("known: {}, {{header.NAME}}, {{body_sha256}}, {{body_sha256_base64}}", names.join(", ")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_places_for_parts_of_the_call() {
        let text = parse("v0:{timestamp}:{header.x-a}:{body_sha512_base64}", true).unwrap();
        let expected = [
            HmacPart::Text("v0:".into()),
            HmacPart::Timestamp,
            HmacPart::Text(":".into()),
            HmacPart::Header("x-a".into()),
            HmacPart::Text(":".into()),
            HmacPart::BodyDigest(HmacHash::Sha512, HmacEncoding::Base64),
        ];
        assert_eq!(text.parts, expected);
        for bad in [
            "",
            "{",
            "}",
            "a{b",
            "{nobody}",
            "{header.}",
            "{header.A}",
            "{body_md5}",
            "{body_sha256_text}",
            "{{method}}",
        ] {
            assert!(parse(bad, true).is_err(), "{bad}");
        }
        assert!(parse("{body}", false).is_err());
    }

    #[test]
    fn what_is_signed_has_no_signature_and_what_frames_a_message_is_not_set() {
        assert!(signed("{method}").is_ok() && signed("{signature}").is_err());
        for bad in ["Host", "content-length", "Transfer-Encoding", "a b", "", "x:"] {
            assert!(header_name(bad).is_err(), "{bad}");
        }
        assert_eq!(header_name("X-Signature").unwrap(), "x-signature");
        assert!(parameter_name("signature").is_ok() && parameter_name("a&b").is_err());
    }
}
