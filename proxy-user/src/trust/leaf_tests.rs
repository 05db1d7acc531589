//! Leaves as openssl reads them, and when they are minted again.

use std::fs;
use std::process::Command;

use super::*;
use crate::trust::pem;

fn leaves() -> (tempfile::TempDir, Leaves) {
    let state = tempfile::tempdir().unwrap();
    let ca = Ca::for_tests(state.path());
    (state, Leaves::new(Arc::new(ca)).unwrap())
}

/// What `openssl` prints with `arguments`, and whether it succeeded.
fn openssl(arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn openssl_accepts_a_leaf_for_its_host_and_for_no_other() {
    let (state, leaves) = leaves();
    let (ca, file) = (state.path().join("ca/ca.pem"), state.path().join("leaf.pem"));
    let issuer = state.path().join("issuer.pem");
    let long = format!("{}.example", "a".repeat(60));
    let hosts = [
        ("api.example.com", "-verify_hostname", "DNS:api.example.com"),
        (&long, "-verify_hostname", "DNS:aaaa"),
        ("192.0.2.1", "-verify_ip", "IP Address:192.0.2.1"),
        ("2001:db8::1", "-verify_ip", "IP Address:2001:DB8:0:0:0:0:0:1"),
    ];
    let kinds = [KeyKind::Ecdsa, KeyKind::Rsa];
    for ((host, check, san), kind) in hosts.into_iter().flat_map(|host| kinds.map(|kind| (host, kind))) {
        let leaf = leaves.leaf(host, kind).unwrap();
        assert_eq!(leaf.cert.len(), 2, "the leaf and its issuer");
        fs::write(&file, pem::certificate(&leaf.cert[0])).unwrap();
        fs::write(&issuer, pem::certificate(&leaf.cert[1])).unwrap();
        let (ca, file) = (ca.to_str().unwrap(), file.to_str().unwrap());
        let issuer = issuer.to_str().unwrap();
        let verify =
            ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca, "-untrusted", issuer, check];
        let (good, text) = openssl(&[&verify[..], &[host, file]].concat());
        assert!(good, "{host}: {text}");
        let other = if check == "-verify_ip" { "192.0.2.2" } else { "www.example.com" };
        let (good, text) = openssl(&[&verify[..], &[other, file]].concat());
        assert!(!good, "{other}: {text}");
        let (_, text) = openssl(&["x509", "-noout", "-text", "-in", file]);
        for expected in [
            san,
            "TLS Web Server Authentication",
            "Digital Signature",
            "CA:FALSE",
            "Authority Key Identifier",
            if kind == KeyKind::Rsa { "sha256WithRSAEncryption" } else { "ecdsa-with-SHA256" },
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}

#[test]
fn a_leaf_is_kept_until_a_third_of_its_life_is_left() {
    let (_state, leaves) = leaves();
    let (name, start) = (server_name("api.example.com").unwrap(), now());
    let at = |hours: i64| leaves.leaf_at(&name, KeyKind::Ecdsa, start + Duration::hours(hours)).unwrap();
    let first = at(0);
    assert!(Arc::ptr_eq(&first, &at(14)));
    assert!(Arc::ptr_eq(&first, &leaves.leaf("API.example.com.", KeyKind::Ecdsa).unwrap()), "one spelling");
    let second = at(15);
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &at(16)));
    assert!(!Arc::ptr_eq(&second, &at(0)), "a clock that was set back");
}

#[test]
fn no_leaf_outlives_its_issuer() {
    let (_state, leaves) = leaves();
    let (name, end) = (server_name("api.example.com").unwrap(), leaves.ca.generations()[0].0.not_after);
    let at = |now| leaves.leaf_at(&name, KeyKind::Ecdsa, now);
    let last = at(end - Duration::hours(2)).unwrap();
    assert_eq!(crate::trust::x509::facts(&last.cert[0]).unwrap().not_after, end);
    assert!(Arc::ptr_eq(&last, &at(end - Duration::seconds(1)).unwrap()));
    assert!(matches!(at(end), Err(LeafError::NotPermitted { .. })));
}

#[test]
fn a_host_that_no_policy_names_gets_no_leaf_and_neither_does_what_is_no_host() {
    let (_state, leaves) = leaves();
    for host in ["api.example.io", "192.0.2.2"] {
        let refused = leaves.leaf(host, KeyKind::Ecdsa).unwrap_err();
        assert!(matches!(&refused, LeafError::NotPermitted { host: named } if named == host), "{refused}");
    }
    assert!(matches!(leaves.leaf("a b", KeyKind::Ecdsa), Err(LeafError::Host(_))));
}
