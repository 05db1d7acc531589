//! `kind = "hmac"`: an API that computes each signature itself, and takes none twice.

use tests::{RAW_ADDRESS, STOLEN, World};

use super::jwt::{assert_nowhere, world as world_of};

const RECEIVER: &str = include_str!("receivers/hmac.js");
pub(super) const KEY: &str = "c2hhcmVkLWtleS1vZi10aGUtYm90LWFuZC10aGUtYXBp";

/// A world whose API shares this key with the bot's host.
pub(super) fn start(key: &str, more: &str) -> World {
    let world = world_of(&format!(
        "kind = \"hmac\"\nsecret = \"vault:shared\"\nkey_encoding = \"base64\"\nhash = \"sha512\"\n\
         sign = \"{{method}}\\n{{target}}\\n{{host}}\\n{{timestamp}}\\n{{nonce}}\\n{{body_sha256_base64}}\"\nencoding = \"base64\"\n\
         headers = {{ X-Time = \"{{timestamp}}\", X-Nonce = \"{{nonce}}\", Authorization = \"HMAC bot:{{signature}}\" }}\n{more}"
    ));
    world.write("receiver.js", RECEIVER);
    let arguments = ["receiver.js", RAW_ADDRESS, "api/server.pem", "api/server.key", KEY];
    world.server("receiver", "node", &arguments, &format!("{RAW_ADDRESS}:443"));
    world.secret("shared", key);
    world.daemon();
    world
}

#[test]
fn an_api_that_shares_a_key_believes_calls_with_and_without_a_body() {
    let world = start(KEY, "");
    let large = world.write("large", &"x".repeat(5_000_000));
    let large = format!("@{}", large.display());
    let stolen = format!("authorization: Bearer {STOLEN}");
    for version in ["--http1.1", "--http2"] {
        for (arguments, length) in [
            (&["https://raw.test/v1/a%20b?c=d&e"][..], 0),
            (&["-d", "{}", "-H", "x_nonce: theirs", "-H", "x-time: 1", "https://raw.test/v1/x"], 2),
            (&["--data-binary", &large, "https://raw.test/v1/x"], 5_000_000),
            (
                &["--data-binary", &large, "-H", "transfer-encoding: chunked", "https://raw.test/v1/x"],
                5_000_000,
            ),
        ] {
            let answer = world.curl(&[&[version, "-H", &stolen], arguments].concat());
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (200, &*format!("believed {length}")),
                "{answer:?}"
            );
        }
    }
    assert_nowhere(&world, KEY);
    assert_nowhere(&world, &String::from_utf8_lossy(b"shared-key-of-the-bot-and-the-api"));
}

#[test]
fn a_body_that_is_too_large_to_be_signed_is_refused_and_a_wrong_key_believed_by_nobody() {
    let world = start(KEY, "");
    let huge = world.write("huge", &"x".repeat((16 << 20) + 1));
    let answer = world.curl(&["-T", &huge.display().to_string(), "https://raw.test/v1/x"]);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.body.contains("16 MiB"), "{answer:?}");
    world.secret("shared", "b3RoZXI=");
    let answer = world.curl(&["https://raw.test/v1/x"]);
    assert_eq!((answer.status, answer.body.as_str()), (401, "the signature is wrong"), "{answer:?}");
    world.secret("shared", "not base64!");
    let answer = world.curl(&["https://raw.test/v1/x"]);
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(world.decision(Some("/v1/x"))["reason"].to_string().len() > 2);
    let journal = serde_json::to_string(&world.journal()).unwrap();
    assert!(journal.contains("key_encoding") && !journal.contains("not base64!"), "{journal}");
}
