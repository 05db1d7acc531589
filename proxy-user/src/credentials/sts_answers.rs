//! Reads what the Security Token Service and IAM of AWS say: keys of a role, an access key, or why there are none. No error repeats anything of it.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::access_key::{AccessKey, is_key_id};
use super::secret::Secret;

/// What one of the values may have.
const MAX_BYTES: usize = 16 * 1024;
/// How deep its elements are, at most.
const DEPTH: usize = 8;

/// Keys that were given. No `Debug`.
pub struct AwsGiven {
    /// The public part.
    pub id: String,
    /// The secret part.
    pub secret: Secret,
    /// What stands for both.
    pub session_token: Secret,
    /// When they end (RFC 3339).
    pub expiration: String,
}

/// The codes that help people.
const CODES: [&str; 13] = [
    "AccessDenied",
    "EntityTemporarilyUnmodifiable",
    "ExpiredTokenException",
    "IDPCommunicationError",
    "IDPRejectedClaim",
    "InvalidClientTokenId",
    "InvalidIdentityToken",
    "LimitExceeded",
    "NoSuchEntity",
    "RegionDisabledException",
    "SignatureDoesNotMatch",
    "ValidationError",
    "RequestExpired",
];

/// The keys of an answer to `AssumeRole` or `AssumeRoleWithWebIdentity`.
///
/// # Errors
/// What is wrong with it.
pub fn aws_keys(body: &[u8]) -> Result<AwsGiven, &'static str> {
    let found = found(body, "Credentials", ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"])?;
    let [Some(id), Some(secret), Some(session_token), Some(expiration)] = found else {
        return Err("its answer has no keys");
    };
    let expiration = String::from_utf8_lossy(expiration.expose()).into_owned();
    Ok(AwsGiven { id: key_id(&id)?, secret, session_token, expiration })
}

/// The access key of an answer to `CreateAccessKey`.
///
/// # Errors
/// What is wrong with it.
pub fn aws_access_key(body: &[u8]) -> Result<AccessKey, &'static str> {
    let [Some(id), Some(secret)] = found(body, "AccessKey", ["AccessKeyId", "SecretAccessKey"])? else {
        return Err("its answer has no access key");
    };
    Ok(AccessKey { id: key_id(&id)?, secret, session_token: None })
}

fn key_id(id: &Secret) -> Result<String, &'static str> {
    let text = std::str::from_utf8(id.expose()).ok().filter(|id| is_key_id(id.as_bytes()));
    text.map(str::to_owned).ok_or("its answer has keys that are none")
}

/// The texts of these elements, each directly in one of that name.
fn found<const N: usize>(
    body: &[u8],
    outer: &str,
    names: [&str; N],
) -> Result<[Option<Secret>; N], &'static str> {
    let mut found: [Option<Secret>; N] = [const { None }; N];
    texts(body, |path, text| {
        let [.., around, name] = path else { return Ok(()) };
        let Some(place) =
            names.iter().position(|known| known == name && *around == outer).and_then(|at| found.get_mut(at))
        else {
            return Ok(());
        };
        let fits =
            !text.is_empty() && text.len() <= MAX_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
        match (fits, &place) {
            (true, None) => *place = Some(Secret::new(text.as_bytes().to_vec())),
            (true, Some(_)) => return Err("its answer has keys more than once"),
            (false, _) => return Err("its answer has keys that are none"),
        }
        Ok(())
    })?;
    Ok(found)
}

/// Why there are no keys, if it is a code that is known.
#[must_use]
pub fn aws_error(body: &[u8]) -> Option<&'static str> {
    let mut code = None;
    let read = texts(body, |path, text| {
        if let [.., "Error", "Code"] = path {
            code = CODES.into_iter().find(|known| *known == text);
        }
        Ok(())
    });
    read.ok().and(code)
}

/// Every text of a document, with the names of the elements around it.
fn texts(
    body: &[u8],
    mut each: impl FnMut(&[&str], &str) -> Result<(), &'static str>,
) -> Result<(), &'static str> {
    const WRONG: &str = "its answer is not the XML that it should be";
    let body = std::str::from_utf8(body).map_err(|_| WRONG)?;
    let mut reader = Reader::from_str(body);
    let mut path: Vec<String> = Vec::new();
    // Whether the innermost element had anything else in it than one text.
    let mut mixed = false;
    loop {
        match reader.read_event().map_err(|_| WRONG)? {
            Event::Start(start) if path.len() < DEPTH => {
                path.push(start.local_name().as_ref().to_owned());
                mixed = false;
            }
            Event::End(_) => {
                path.pop();
                mixed = true;
            }
            Event::Text(text) => {
                let text = text.trim();
                if text.is_empty() {
                    continue;
                }
                if mixed {
                    return Err(WRONG);
                }
                mixed = true;
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                each(&names, text)?;
            }
            Event::Eof if path.is_empty() => return Ok(()),
            Event::Decl(_) => {}
            Event::Empty(_) => mixed = true,
            // Nothing of this is in such an answer; entities would be pieces of a text.
            _ => return Err(WRONG),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#"<?xml version="1.0"?>
<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/x/y</Arn><AssumedRoleId>A:y</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>sec/ret+CANARY</SecretAccessKey>
<SessionToken>token//==</SessionToken><Expiration>2026-11-25T12:00:00Z</Expiration></Credentials>
</AssumeRoleResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleResponse>"#;

    #[test]
    fn the_keys_of_a_role_are_read() {
        let given = aws_keys(ANSWER.as_bytes()).map_err(str::to_owned).unwrap();
        assert_eq!((given.id.as_str(), given.expiration.as_str()), ("ASIAEXAMPLE", "2026-11-25T12:00:00Z"));
        assert_eq!(given.secret.expose(), b"sec/ret+CANARY");
        assert_eq!(given.session_token.expose(), b"token//==");
    }

    #[test]
    fn what_is_no_such_answer_is_refused() {
        let token = "<SessionToken>token//==</SessionToken>";
        for (what, with) in [
            (token, ""),
            (token, "<SessionToken></SessionToken>"),
            (token, "<SessionToken>a b</SessionToken>"),
            (token, "<SessionToken>a&#98;c</SessionToken>"),
            (token, "<SessionToken>a<!-- x -->b</SessionToken>"),
            (token, "<SessionToken>a<x/>b</SessionToken>"),
            (token, "<SessionToken><![CDATA[a]]></SessionToken>"),
            (token, "<SessionToken>a</SessionToken><SessionToken>b</SessionToken>"),
            ("ASIAEXAMPLE", "a/b"),
            ("</Credentials>", ""),
            ("<Credentials>", "<Credential>"),
            ("<?xml version=\"1.0\"?>", "<!DOCTYPE a [<!ENTITY x \"y\">]>"),
        ] {
            let error = aws_keys(ANSWER.replace(what, with).as_bytes()).err();
            assert!(error.is_some_and(|error| !error.contains("CANARY")), "{what} -> {with}");
        }
        assert!(aws_keys(b"").is_err() && aws_keys(b"\xff").is_err() && aws_keys(b"{}").is_err());
        let deep = "<a>".repeat(100);
        assert!(aws_keys(deep.as_bytes()).is_err());
    }

    #[test]
    fn an_access_key_is_read() {
        let answer = "<CreateAccessKeyResponse xmlns=\"https://iam.amazonaws.com/doc/2010-05-08/\"><CreateAccessKeyResult><AccessKey>\
             <UserName>bot</UserName><AccessKeyId>AKIANEW</AccessKeyId><Status>Active</Status>\
             <SecretAccessKey>a/b+CANARY</SecretAccessKey></AccessKey></CreateAccessKeyResult></CreateAccessKeyResponse>";
        let key = aws_access_key(answer.as_bytes()).map_err(str::to_owned).unwrap();
        assert_eq!((key.id.as_str(), key.secret.expose()), ("AKIANEW", &b"a/b+CANARY"[..]));
        for (what, with) in [("AKIANEW", "AK/NEW"), ("<AccessKey>", "<Other>"), ("a/b+CANARY", "")] {
            let error = aws_access_key(answer.replace(what, with).as_bytes()).err();
            assert!(error.is_some_and(|error| !error.contains("CANARY")), "{what} -> {with}");
        }
        assert!(aws_access_key(ANSWER.as_bytes()).is_err(), "those of a role are none");
    }

    #[test]
    fn only_known_codes_are_told() {
        let error = |code: &str| {
            format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>")
        };
        assert_eq!(aws_error(error("AccessDenied").as_bytes()), Some("AccessDenied"));
        assert_eq!(aws_error(error("CANARY").as_bytes()), None);
        assert_eq!(aws_error(b"nonsense"), None);
    }
}
