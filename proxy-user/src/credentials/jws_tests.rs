//! Tokens as a receiver reads them, by the public key alone.

use aws_lc_rs::encoding::EcPrivateKeyRfc5915Der;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::prelude::BASE64_STANDARD;

use super::*;

/// A key as PEM under this label.
fn pem(label: &str, der: &[u8]) -> Secret {
    let body = BASE64_STANDARD.encode(der);
    Secret::new(format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes())
}

/// A new key for an algorithm, as PKCS #8 in PEM.
pub(in super::super) fn new_key(algorithm: JwtAlgorithm) -> Secret {
    let (_, der) = SigningKey::generate(algorithm).unwrap();
    pem("PRIVATE KEY", &der)
}

fn bytes(text: &Value) -> Vec<u8> {
    BASE64_URL_SAFE_NO_PAD.decode(text.as_str().unwrap()).unwrap()
}

/// The header and the claims of a token that this public key verifies; `None` when it does not.
pub(in super::super) fn verified(token: &str, jwk: &Map<String, Value>) -> Option<(Value, Value)> {
    let (message, signature) = token.rsplit_once('.')?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
    let (header, claims) = message.split_once('.')?;
    let part = |text: &str| -> Option<Value> {
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    };
    let header = part(header)?;
    let message = message.as_bytes();
    let right = match (header["alg"].as_str()?, jwk["kty"].as_str()?) {
        ("ES256", "EC") => {
            let point = [&[4][..], &bytes(&jwk["x"]), &bytes(&jwk["y"])].concat();
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, &signature)
        }
        ("EdDSA", "OKP") => UnparsedPublicKey::new(&ED25519, bytes(&jwk["x"])).verify(message, &signature),
        ("RS256", "RSA") => {
            let key = RsaPublicKeyComponents { n: bytes(&jwk["n"]), e: bytes(&jwk["e"]) };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, message, &signature)
        }
        _ => return None,
    };
    right.ok()?;
    Some((header, part(claims)?))
}

fn claims() -> Map<String, Value> {
    let Value::Object(claims) = json!({ "sub": "bot", "n": 1 }) else { unreachable!() };
    claims
}

fn signed(key: &SigningKey, key_id: Option<&str>) -> String {
    String::from_utf8(key.sign(key_id, &claims()).unwrap().expose().to_vec()).unwrap()
}

#[test]
fn a_token_verifies_by_the_public_key_and_by_no_other() {
    for algorithm in [JwtAlgorithm::Es256, JwtAlgorithm::EdDsa, JwtAlgorithm::Rs256] {
        let key = SigningKey::from_pem(algorithm, &new_key(algorithm)).unwrap();
        let other = SigningKey::from_pem(algorithm, &new_key(algorithm)).unwrap();
        let token = signed(&key, Some("k1"));
        let (header, told) = verified(&token, &key.public_jwk()).unwrap();
        assert_eq!(header, json!({ "alg": algorithm.as_str(), "kid": "k1", "typ": "JWT" }));
        assert_eq!(told, Value::Object(claims()));
        assert_eq!(verified(&token, &other.public_jwk()), None, "{algorithm:?}");
        let (_, plain) = verified(&signed(&key, None), &key.public_jwk()).unwrap();
        assert_eq!(plain, told);
        assert_ne!(key.thumbprint(), other.thumbprint());
    }
}

#[test]
fn keys_are_read_in_every_form_that_tools_write() {
    let elliptic = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let sec1 = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&elliptic.private_key()).unwrap();
    let key = SigningKey::from_pem(JwtAlgorithm::Es256, &pem("EC PRIVATE KEY", sec1.as_ref())).unwrap();
    assert!(verified(&signed(&key, None), &key.public_jwk()).is_some());

    let rsa = AsDer::<Pkcs8V1Der<'_>>::as_der(&RsaKeyPair::generate(KeySize::Rsa2048).unwrap()).unwrap();
    // What PKCS #8 wraps (RFC 5958) after 26 bytes is PKCS #1.
    let key =
        SigningKey::from_pem(JwtAlgorithm::Rs256, &pem("RSA PRIVATE KEY", &rsa.as_ref()[26..])).unwrap();
    assert!(verified(&signed(&key, None), &key.public_jwk()).is_some());
}

#[test]
fn a_key_of_another_kind_does_not_sign_and_the_error_says_which_is_wanted() {
    let all = [JwtAlgorithm::Es256, JwtAlgorithm::EdDsa, JwtAlgorithm::Rs256];
    for (algorithm, key) in
        all.iter().flat_map(|a| all.iter().filter(move |b| a != *b).map(move |b| (*a, *b)))
    {
        let error = SigningKey::from_pem(algorithm, &new_key(key)).err().unwrap();
        assert_eq!(error, BadKey::Other(algorithm));
        assert!(error.to_string().contains(algorithm.as_str()), "{error}");
    }
    // Another curve.
    let p384 = EcdsaKeyPair::generate(&aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let p384 = pem("PRIVATE KEY", p384.to_pkcs8v1().unwrap().as_ref());
    assert!(SigningKey::from_pem(JwtAlgorithm::Es256, &p384).is_err());
    let error = SigningKey::from_pem(JwtAlgorithm::Es256, &Secret::new(b"CANARY".to_vec())).err().unwrap();
    assert!(!format!("{error} {error:?}").contains("CANARY"));
}

#[test]
fn keys_are_named_as_the_examples_of_the_standard() {
    // RFC 8037, appendices A.1 to A.3: the seed as PKCS #8, the public key, and its thumbprint.
    let seed = BASE64_URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let wrapped =
        [&[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20][..], &seed].concat();
    let key = SigningKey::from_pem(JwtAlgorithm::EdDsa, &pem("PRIVATE KEY", &wrapped)).unwrap();
    assert_eq!(key.public_jwk()["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}
