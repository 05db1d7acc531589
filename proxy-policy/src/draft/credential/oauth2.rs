//! `kind = "oauth2"`: access tokens of an authorization server.

use toml::de::DeValue;

use super::{check_keys, github_app, jwt, reference};
use crate::credential::{
    ClaimText, OauthClient, OauthClientKey, OauthCredential, OauthExchange, OauthGrant, OauthToken,
    SecretRef, Store, Variable,
};
use crate::diagnostic::Problem;
use crate::place::Spanned;
use crate::read::{Reader, Section};

const KEYS: [&str; 19] = [
    "token_url",
    "grant",
    "client_id",
    "auth",
    "client_secret",
    "client_key",
    "client_algorithm",
    "client_key_id",
    "client_audience",
    "client_certificate",
    "scopes",
    "audience",
    "resource",
    "refresh_token",
    "assertion",
    "subject_token",
    "actor_token",
    "token_types",
    "requested_token_type",
];
/// Those that say how the client proves itself.
const CLIENT: [&str; 6] = [
    "client_secret",
    "client_key",
    "client_algorithm",
    "client_key_id",
    "client_audience",
    "client_certificate",
];
/// Those that say what a token is given for.
const GIVEN_FOR: [&str; 6] =
    ["refresh_token", "assertion", "subject_token", "actor_token", "token_types", "requested_token_type"];
const TYPE: &str = "urn:ietf:params:oauth:token-type:";
const TYPES: [&str; 6] = ["access_token", "refresh_token", "id_token", "saml1", "saml2", "jwt"];

/// How a client can prove itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Auth {
    Basic,
    Post,
    PrivateKeyJwt,
    Mtls,
    None,
}

impl Auth {
    const ALL: [Self; 5] = [Self::Basic, Self::Post, Self::PrivateKeyJwt, Self::Mtls, Self::None];

    fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Post => "post",
            Self::PrivateKeyJwt => "private_key_jwt",
            Self::Mtls => "mtls",
            Self::None => "none",
        }
    }

    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Basic | Self::Post => &["client_secret"],
            Self::PrivateKeyJwt => &["client_key", "client_algorithm", "client_key_id", "client_audience"],
            Self::Mtls => &["client_certificate", "client_key"],
            Self::None => &[],
        }
    }
}

/// What a token can be given for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Grant {
    ClientCredentials,
    RefreshToken,
    JwtBearer,
    TokenExchange,
}

impl Grant {
    const ALL: [Self; 4] =
        [Self::ClientCredentials, Self::RefreshToken, Self::JwtBearer, Self::TokenExchange];

    fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::RefreshToken => "refresh_token",
            Self::JwtBearer => "jwt_bearer",
            Self::TokenExchange => "token_exchange",
        }
    }

    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::ClientCredentials => &[],
            Self::RefreshToken => &["refresh_token"],
            Self::JwtBearer => &["assertion"],
            Self::TokenExchange => &["subject_token", "actor_token", "token_types", "requested_token_type"],
        }
    }
}

pub(super) fn read(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<OauthCredential> {
    check_keys(section, &KEYS, reader);
    let help = "name where tokens are issued: token_url = \"https://login.example.com/token\"";
    let token_url = reader.required(section, "token_url", help);
    let token_url = token_url.and_then(|text| reader.parse(&text, token_url_of));
    let grants = Grant::ALL.map(Grant::as_str).join(", ");
    let grant = reader.required(section, "grant", "add grant = \"client_credentials\"");
    let grant = grant.and_then(|text| {
        reader.parse(&text, |text| {
            let known = Grant::ALL.into_iter().find(|it| it.as_str() == text);
            known.ok_or_else(|| Problem::new("unknown grant", format!("known grants: {grants}")))
        })
    });
    let client_id = reader.parsed(section, "client_id", client_id).map(|it| it.value);
    let auth = auth(section, reader);
    let client = auth.and_then(|auth| client(auth, section, reader));
    let scopes = list(section, "scopes", reader, scope);
    let audience = list(section, "audience", reader, audience);
    let resource = list(section, "resource", reader, resource);
    let kind = grant?.value;
    others(section, &GIVEN_FOR, kind.keys(), &format!("grant = \"{}\"", kind.as_str()), reader);
    let grant = match kind {
        Grant::ClientCredentials => Some(OauthGrant::ClientCredentials),
        Grant::RefreshToken => refresh_token(section, reader).map(OauthGrant::RefreshToken),
        Grant::JwtBearer => assertion(section, reader),
        Grant::TokenExchange => {
            exchange(section, reader).map(|exchange| OauthGrant::TokenExchange(Box::new(exchange)))
        }
    };
    let proves_itself = matches!(kind, Grant::JwtBearer | Grant::TokenExchange);
    if client_id.is_none() && !section.has("client_id") && !(proves_itself && auth == Some(Auth::None)) {
        reader.missing(section, "client_id", "add the name by which the server knows the client");
        return None;
    }
    if kind == Grant::ClientCredentials && auth == Some(Auth::None) {
        let help = "say how the client proves itself: client_secret = \"vault:NAME\", client_key or client_certificate";
        reader.missing(section, "client_secret", help);
        return None;
    }
    let (token_url, grant, client) = (token_url?.value, grant?, client?);
    Some(OauthCredential { token_url, grant, client_id, client, scopes, audience, resource })
}

/// What is said, or else what the other keys are for.
fn auth(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<Auth> {
    if section.has("auth") {
        let known = Auth::ALL.map(Auth::as_str).join(", ");
        let parse = |text: &str| {
            let found = Auth::ALL.into_iter().find(|it| it.as_str() == text);
            found.ok_or_else(|| {
                Problem::new("unknown way of a client to prove itself", format!("known: {known}"))
            })
        };
        return reader.parsed(section, "auth", parse).map(|it| it.value);
    }
    let by = [
        ("client_certificate", Auth::Mtls),
        ("client_key", Auth::PrivateKeyJwt),
        ("client_secret", Auth::Basic),
    ];
    Some(by.into_iter().find(|(key, _)| section.has(key)).map_or(Auth::None, |(_, auth)| auth))
}

fn client(auth: Auth, section: &Section<'_>, reader: &mut Reader<'_>) -> Option<OauthClient> {
    others(section, &CLIENT, auth.keys(), &format!("auth = \"{}\"", auth.as_str()), reader);
    let secret = |key: &str, reader: &mut Reader<'_>| {
        let help = format!("name where it is: {key} = \"vault:NAME\"");
        let text = reader.required(section, key, &help)?;
        reader.parse(&text, reference::parse).map(|it| it.value)
    };
    match auth {
        Auth::None => Some(OauthClient::Public),
        Auth::Basic => secret("client_secret", reader).map(OauthClient::Basic),
        Auth::Post => secret("client_secret", reader).map(OauthClient::Post),
        Auth::Mtls => {
            let certificate = secret("client_certificate", reader);
            let key = match section.has("client_key") {
                true => secret("client_key", reader),
                // Both in one text, so that they change together.
                false => certificate.clone(),
            };
            Some(OauthClient::Mtls { certificate: certificate?, key: key? })
        }
        Auth::PrivateKeyJwt => {
            let key = secret("client_key", reader);
            let algorithm = reader.required(section, "client_algorithm", "add client_algorithm = \"ES256\"");
            let algorithm = algorithm.and_then(|text| reader.parse(&text, jwt::known_algorithm));
            let key_id = reader.parsed(section, "client_key_id", jwt::plain).map(|it| it.value);
            let audience = reader.parsed(section, "client_audience", audience).map(|it| it.value);
            Some(OauthClient::PrivateKeyJwt(OauthClientKey {
                key: key?,
                algorithm: algorithm?.value,
                key_id,
                audience,
            }))
        }
    }
}

/// Keys that do nothing here: whoever wrote them meant something else.
fn others(section: &Section<'_>, all: &[&str], own: &[&str], what: &str, reader: &mut Reader<'_>) {
    for key in all.iter().filter(|key| section.has(key) && !own.contains(key)) {
        let place = reader.key_place(section, key);
        reader.findings.error(place, format!("\"{key}\" does not go with {what}"), "remove one of them");
    }
}

fn refresh_token(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<SecretRef> {
    let help = "name where it is: refresh_token = \"vault:NAME\"";
    let text = reader.required(section, "refresh_token", help)?;
    let reference = reader.parse(&text, reference::parse)?.value;
    if reference.store() != Store::Vault {
        let help = "servers give a new one for each: put it into the daemon's own store, vault:NAME, where it is replaced";
        reader.findings.error(text.place, "a refresh token cannot be replaced there", help);
        return None;
    }
    Some(reference)
}

fn assertion(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<OauthGrant> {
    let help = "say what is signed: assertion = { audience = \"https://login.example.com\" }";
    if !section.has("assertion") {
        reader.missing(section, "assertion", help);
        return None;
    }
    let table = reader.section(section, "assertion", "\"assertion\"", help)?;
    let assertion = jwt::assertion(&table, reader)?;
    if assertion.texts().flat_map(ClaimText::variables).any(|it| it != Variable::Identity) {
        let place = reader.key_place(section, "assertion");
        reader.findings.error(
            place,
            "\"assertion\" has a place for something else than {identity}",
            "the token that comes for it is kept for a while, for one identity or for all",
        );
        return None;
    }
    Some(OauthGrant::JwtBearer(Box::new(assertion)))
}

fn exchange(section: &Section<'_>, reader: &mut Reader<'_>) -> Option<OauthExchange> {
    let help =
        "say whose: subject_token = \"issuer:AUDIENCE\", which this host issues, or a reference to a secret";
    let subject = reader.required(section, "subject_token", help);
    let subject = subject.and_then(|text| reader.parse(&text, reference::parse_subject));
    let actor = reader.parsed(section, "actor_token", reference::parse_subject);
    let (mut of_subject, mut of_actor) = (None, None);
    for (name, text) in reader.string_table(section, "token_types") {
        let read = reader.parse(&text, token_type).map(|it| it.value);
        match name.as_str() {
            "subject" => of_subject = read,
            "actor" if section.has("actor_token") => of_actor = read,
            _ => {
                let help = "write token_types = { subject = \"jwt\", actor = \"jwt\" }";
                reader.findings.error(name.place, "\"token_types\" is of a subject and an actor", help);
            }
        }
    }
    let requested_type = reader.parsed(section, "requested_token_type", token_type).map(|it| it.value);
    let token = |token: SecretRef, said: Option<String>| {
        let usual = if token.store() == Store::Issuer { "jwt" } else { "access_token" };
        OauthToken { token, token_type: said.unwrap_or_else(|| format!("{TYPE}{usual}")) }
    };
    let actor = actor.map(|actor| token(actor.value, of_actor));
    Some(OauthExchange { subject: token(subject?.value, of_subject), actor, requested_type })
}

/// One text, or several.
fn list(
    section: &Section<'_>,
    key: &str,
    reader: &mut Reader<'_>,
    parse: fn(&str) -> Result<String, Problem>,
) -> Vec<String> {
    let texts: Vec<Spanned<String>> = match section.value(key) {
        Some(DeValue::String(_)) => reader.string(section, key).into_iter().collect(),
        _ => reader.strings(section, key),
    };
    texts.iter().filter_map(|text| Some(reader.parse(text, parse)?.value)).collect()
}

fn token_url_of(text: &str) -> Result<String, Problem> {
    match github_app::is_url(text) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            "\"token_url\" is not a URL",
            "write https://HOST/PATH without user and query (http only for 127.0.0.1, [::1] and localhost)",
        )),
    }
}

fn visible(text: &str) -> bool {
    !text.is_empty() && text.len() <= 1024 && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')
}

fn client_id(text: &str) -> Result<String, Problem> {
    let help = "write the name by which the server knows the client";
    if visible(text) {
        Ok(text.to_owned())
    } else {
        Err(Problem::new("this is not the name of a client", help))
    }
}

fn scope(text: &str) -> Result<String, Problem> {
    let help = "write each scope by itself: scopes = [\"read\", \"write\"]";
    match visible(text) && !text.contains([' ', '"', '\\']) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new("this is not a scope", help)),
    }
}

fn audience(text: &str) -> Result<String, Problem> {
    let help = "write whom the token is for, such as audience = \"https://api.example.com\"";
    if visible(text) { Ok(text.to_owned()) } else { Err(Problem::new("this is not an audience", help)) }
}

fn resource(text: &str) -> Result<String, Problem> {
    match visible(text) && text.contains(':') && !text.contains(['#', ' ']) {
        true => Ok(text.to_owned()),
        false => Err(Problem::new(
            "this is not a resource",
            "write its URL without a fragment, such as resource = \"https://api.example.com/v1\"",
        )),
    }
}

fn token_type(text: &str) -> Result<String, Problem> {
    if TYPES.contains(&text) {
        return Ok(format!("{TYPE}{text}"));
    }
    match visible(text) && text.contains(':') && !text.contains(' ') {
        true => Ok(text.to_owned()),
        false => {
            let help = format!("known types: {}; or write the URI of another one", TYPES.join(", "));
            Err(Problem::new("this is not a type of token", help))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_of_token_is_a_known_word_or_a_uri() {
        assert_eq!(token_type("jwt").unwrap(), "urn:ietf:params:oauth:token-type:jwt");
        assert_eq!(token_type("urn:x:y").unwrap(), "urn:x:y");
        for bad in ["jwtt", "", "a b:c", "urn:\u{e9}"] {
            assert!(token_type(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scopes_and_resources_are_spelled_as_the_server_reads_them() {
        assert!(scope("https://www.googleapis.com/auth/drive").is_ok());
        for bad in ["a b", "", "a\"b", "a\\b", "\u{e9}"] {
            assert!(scope(bad).is_err(), "{bad}");
        }
        assert!(resource("https://a.test/x?y=z").is_ok());
        for bad in ["a.test", "https://a.test/#x", "https://a.test/ x"] {
            assert!(resource(bad).is_err(), "{bad}");
        }
    }
}
