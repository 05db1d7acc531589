//! Against the official vectors, which come with the signer of the official SDK.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use time::format_description::well_known::Rfc3339;

use super::*;

/// Where the vectors are.
fn vectors() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // Of this platform alone: nobody has downloaded the packages of others.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo.args(["metadata", "--format-version=1", "--offline", "--filter-platform", &platform]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    let found: serde_json::Value = serde_json::from_slice(&cargo.output().unwrap().stdout).unwrap();
    let packages = found["packages"].as_array().unwrap();
    let manifest = packages.iter().find(|it| it["name"] == "aws-sigv4").unwrap()["manifest_path"].as_str();
    Path::new(manifest.unwrap()).parent().unwrap().join("aws-signing-test-suite/v4")
}

/// One of them.
struct Vector {
    method: String,
    path: String,
    query: String,
    headers: HeaderMap,
    host: String,
    body: String,
    context: serde_json::Value,
}

impl Vector {
    fn read(folder: &Path) -> Self {
        let text = fs::read_to_string(folder.join("request.txt")).unwrap();
        let (head, body) = text.split_once("\n\n").unwrap_or((text.trim_end(), ""));
        let mut lines = head.lines();
        let line = lines.next().unwrap();
        let (method, rest) = line.split_once(' ').unwrap();
        let target = rest.strip_suffix(" HTTP/1.1").unwrap();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (mut headers, mut host) = (HeaderMap::new(), String::new());
        for line in lines {
            let (name, value) = line.split_once(':').unwrap();
            let name = name.parse::<HeaderName>().unwrap();
            if name == HOST {
                value.clone_into(&mut host);
            } else {
                headers.append(name, HeaderValue::from_str(value).unwrap());
            }
        }
        let context = fs::read_to_string(folder.join("context.json")).unwrap();
        Self {
            method: method.into(),
            path: path.into(),
            query: query.into(),
            headers,
            host,
            body: body.into(),
            context: serde_json::from_str(&context).unwrap(),
        }
    }

    fn context(&self, key: &str) -> Option<&str> {
        self.context.pointer(key)?.as_str()
    }
}

#[test]
fn requests_are_signed_as_the_official_vectors_have_it() {
    let mut signed = 0;
    for entry in fs::read_dir(vectors()).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        // Paths with dots are refused, or made plain, before; lines that go on are refused; the rest has no key.
        let is_path = name.ends_with("-normalized") && name != "get-space-normalized";
        if is_path || name == "get-header-value-multiline" || name.starts_with("double-") {
            continue;
        }
        let mut vector = Vector::read(&folder);
        let stamp =
            Stamp::of(OffsetDateTime::parse(vector.context("/timestamp").unwrap(), &Rfc3339).unwrap());
        let scope = Scope {
            region: vector.context("/region").unwrap().into(),
            service: vector.context("/service").unwrap().into(),
        };
        let secret = Secret::new(vector.context("/credentials/secret_access_key").unwrap().into());
        let mut add = |name, value: &str| vector.headers.insert(name, HeaderValue::from_str(value).unwrap());
        add("x-amz-date", stamp.text());
        let digest = sha256(vector.body.as_bytes());
        if vector.context["sign_body"] == true {
            add("x-amz-content-sha256", &digest);
        }
        if vector.context["omit_session_token"] != true
            && let Some(token) = vector.context["credentials"]["token"].as_str()
        {
            add("x-amz-security-token", token);
        }
        let (lines, names) = canonical::headers(&vector.headers, &vector.host, true);
        let (path, query) = (canonical::path(&vector.path, true), canonical::query(&vector.query));
        let parts: [&[u8]; 6] =
            [vector.method.as_bytes(), &path, &query, &lines, names.as_bytes(), digest.as_bytes()];
        let request = parts.join(&b'\n');
        let expected = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        assert_eq!(
            String::from_utf8(request.clone()).unwrap(),
            expected("header-canonical-request.txt"),
            "{name}"
        );
        let text = string_to_sign(&stamp, &scope_text(&stamp, &scope), &request);
        assert_eq!(text, expected("header-string-to-sign.txt"), "{name}");
        let key = signing_key(&secret, &stamp, &scope);
        assert_eq!(signature(&key, &text), expected("header-signature.txt"), "{name}");
        signed += 1;
    }
    assert!(signed >= 24, "{signed}");
}

#[test]
fn a_moment_is_spelled_in_one_way() {
    use time::macros::datetime;
    assert_eq!(Stamp::of(datetime!(2015-08-30 12:36:00 UTC)).text(), "20150830T123600Z");
    let stamp = Stamp::of(datetime!(2027-01-01 00:59:09 +01:00));
    assert_eq!((stamp.text(), stamp.date()), ("20261231T235909Z", "20261231"));
}

#[test]
fn the_key_of_a_day_is_made_once_and_never_given_for_another_scope() {
    let days = DayKeys::default();
    let secret = Secret::new(b"secret".to_vec());
    let stamp = |day| Stamp::of(time::macros::datetime!(2027-01-01 10:00 UTC) + time::Duration::days(day));
    let scope = |region: &str, service: &str| Scope { region: region.into(), service: service.into() };
    let first = days.of(&secret, &stamp(0), &scope("a", "s3"));
    assert!(Arc::ptr_eq(&first, &days.of(&secret, &stamp(0), &scope("a", "s3"))));
    for (day, scope) in [(1, scope("a", "s3")), (0, scope("b", "s3")), (0, scope("a", "sts"))] {
        let other = days.of(&secret, &stamp(day), &scope);
        assert_ne!(hmac::sign(&other.key, b"x").as_ref(), hmac::sign(&first.key, b"x").as_ref());
        assert_eq!(other.scope, scope);
    }
}
