//! As the documentations of known APIs have it.

use http::Method;
use http::header::HeaderMap;
use http::uri::{Authority, PathAndQuery};
use proxy_policy::{CredentialKind, SourceFile};
use time::macros::datetime;

use super::*;

/// A signer of a definition in a policy.
fn signer(definition: &str, key: &str) -> HmacSigner {
    let text = format!("[credential.x]\nkind = \"hmac\"\nsecret = \"vault:x\"\n{definition}\n");
    let compiled = proxy_policy::compile(&[SourceFile::new("credentials/x.toml", text)]);
    let set = compiled.set.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics));
    let CredentialKind::Hmac(kind) = &set.credentials().next().unwrap().kind else { unreachable!() };
    HmacSigner::new(Arc::new((**kind).clone()), &Secret::new(key.into())).unwrap()
}

struct Sent {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
}

fn sent(method: &str, target: &str) -> Sent {
    Sent { method: method.parse().unwrap(), target: target.parse().unwrap(), headers: HeaderMap::new() }
}

impl Sent {
    fn signed(mut self, signer: &HmacSigner, host: &str, body: &str, now: OffsetDateTime) -> Self {
        let authority: Authority = host.parse().unwrap();
        let Self { method, target, headers } = &mut self;
        let mut head = Head { method, target, authority: &authority, headers };
        signer.take_out(&mut head, &mut Vec::new()).unwrap();
        signer.sign_at(&mut head, body.as_bytes(), now, "n0nce").unwrap();
        self
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap()
}

/// Slack, "Verifying requests from Slack".
#[test]
fn slack() {
    let signer = signer(
        "sign = \"v0:{timestamp}:{body}\"\nheaders = { X-Slack-Request-Timestamp = \"{timestamp}\", X-Slack-Signature = \
         \"v0={signature}\" }",
        "8f742231b10e8888abcd99yyyzzz85a5",
    );
    let body = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=\
                foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2F\
                hooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=\
                398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    let sent = sent("POST", "/").signed(&signer, "x.test", body, at(1_531_420_618));
    assert_eq!(sent.header("x-slack-request-timestamp"), "1531420618");
    let expected = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    assert_eq!(sent.header("x-slack-signature"), expected);
    assert!(sent.headers["x-slack-signature"].is_sensitive());
}

/// Binance, "SIGNED endpoint examples for POST /api/v3/order", example 1.
#[test]
fn binance() {
    let key = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j";
    let signer = signer("sign = \"{query}{body}\"\nquery = { signature = \"{signature}\" }", key);
    let query = "symbol=LTCBTC&side=BUY&type=LIMIT&timeInForce=GTC&quantity=1&price=0.1&recvWindow=5000&timestamp=1499827319559";
    let sent =
        sent("POST", &format!("/api/v3/order?{query}&signature=theirs")).signed(&signer, "x.test", "", at(0));
    let expected = "c8db56825ae71d6d79447849e617115f4a920fa2acdcab2b053c4b2838bd6b71";
    assert_eq!(sent.target, format!("/api/v3/order?{query}&signature={expected}").as_str());
}

/// GitHub, "Validating webhook deliveries", "Testing the webhook payload validation".
#[test]
fn github() {
    let signer = signer(
        "sign = \"{body}\"\nheaders = { x-hub-signature-256 = \"sha256={signature}\" }",
        "It's a Secret to Everybody",
    );
    let sent = sent("POST", "/hook").signed(&signer, "x.test", "Hello, World!", at(0));
    let expected = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(sent.header("x-hub-signature-256"), expected);
}

/// RFC 4231, test case 2; RFC 2202, test case 2 of HMAC-SHA-1; with keys and signatures in other spellings.
#[test]
fn each_hash_and_each_spelling() {
    let text = "what do ya want for nothing?";
    for (definition, key, expected) in [
        ("", "Jefe", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ("hash = \"sha1\"\n", "Jefe", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"),
        (
            "key_encoding = \"hex\"\n",
            "4A656665\n",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            "key_encoding = \"base64\"\nencoding = \"base64\"\n",
            "SmVmZQ==",
            "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=",
        ),
        (
            "key_encoding = \"base64url\"\nencoding = \"base64url\"\n",
            "SmVmZQ",
            "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM",
        ),
        (
            "hash = \"sha384\"\n",
            "Jefe",
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        ),
        (
            "hash = \"sha512\"\n",
            "Jefe",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b\
             636e070a38bce737",
        ),
    ] {
        let signer =
            signer(&format!("{definition}sign = \"{{body}}\"\nheaders = {{ x-s = \"{{signature}}\" }}"), key);
        assert_eq!(
            sent("POST", "/").signed(&signer, "x.test", text, at(0)).header("x-s"),
            expected,
            "{definition}"
        );
    }
}

#[test]
fn every_part_of_a_call_has_its_place() {
    let signer = signer(
        "sign = \"{method} {path} {query} {target} {host} {timestamp} {timestamp_ms} {date} {datetime} {nonce} {header.x-a} \
         {header.x-time}{header.none} {body_sha256} {body_sha1_base64}\"\n\
         headers = { x-time = \"{timestamp_ms}\", x-s = \"{signature}\" }\nquery = { n = \"{nonce}/{header.x-a}\" }",
        "key",
    );
    let mut call = sent("PUT", "/a/b?c=d&n=theirs");
    call.headers.append("x-a", "1".parse().unwrap());
    call.headers.append("x-a", "2".parse().unwrap());
    let now = datetime!(2027-01-31 12:00:00.123456 UTC);
    let call = call.signed(&signer, "api.test:8443", "body", now);
    assert_eq!(call.target, "/a/b?c=d&n=n0nce%2F1%2C%202");
    let signed = "PUT /a/b c=d&n=n0nce%2F1%2C%202 /a/b?c=d&n=n0nce%2F1%2C%202 api.test:8443 1801396800 1801396800123 \
                  Sun, 31 Jan 2027 12:00:00 GMT 2027-01-31T12:00:00Z n0nce 1, 2 1801396800123 \
                  230d8358dc8e8890b4c58deeb62912ee2f20357ae92a5cc861b98e68fe31acb5 Agg/RXngimEkJcDBoX7ket14O5Q=";
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
    let expected = hex::encode(hmac::sign(&key, signed.as_bytes()).as_ref());
    assert_eq!(call.header("x-s"), expected.as_str(), "{signed}");
}

#[test]
fn what_the_client_has_in_our_places_goes_out() {
    let signer = signer(
        "sign = \"{method}\"\nheaders = { x-api-sign = \"{signature}\", x-api-time = \"{timestamp}\" }",
        "k",
    );
    for name in ["x-api-sign", "x_api_sign", "x-api_time"] {
        assert!(signer.sets(&HeaderName::from_bytes(name.as_bytes()).unwrap()), "{name}");
    }
    assert!(!signer.sets(&HeaderName::from_static("x-api")));
    assert_eq!(signer.body_limit(), None, "the body is not read when nothing of it is signed");
}

#[test]
fn a_key_that_is_not_written_as_it_should_be_is_none() {
    for (encoding, bad) in [
        (HmacEncoding::Hex, "xyz"),
        (HmacEncoding::Base64, "!"),
        (HmacEncoding::Base64Url, "a+b/"),
        (HmacEncoding::Text, ""),
        (HmacEncoding::Base64, "=="),
    ] {
        assert!(decoded(encoding, bad.as_bytes()).is_none(), "{bad}");
    }
}
