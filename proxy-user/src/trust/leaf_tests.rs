//! Leaves as openssl reads them, and when they are minted again.

use std::fs;
use std::process::Command;

use super::*;
use crate::trust::pem;

fn leaves() -> (tempfile::TempDir, Leaves) {
    let state = tempfile::tempdir().unwrap();
    let ca = Ca::open_or_create(state.path()).unwrap();
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
    let long = format!("{}.example", "a".repeat(60));
    let hosts = [
        ("api.example.com", "-verify_hostname", "DNS:api.example.com"),
        (&long, "-verify_hostname", "DNS:aaaa"),
        ("192.0.2.1", "-verify_ip", "IP Address:192.0.2.1"),
        ("2001:db8::1", "-verify_ip", "IP Address:2001:DB8:0:0:0:0:0:1"),
    ];
    for (host, check, san) in hosts {
        let leaf = leaves.leaf(host).unwrap();
        assert_eq!(leaf.cert.len(), 1, "the leaf alone");
        fs::write(&file, pem::certificate(&leaf.cert[0])).unwrap();
        let (ca, file) = (ca.to_str().unwrap(), file.to_str().unwrap());
        let verify = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca, check];
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
        ] {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }
}

#[test]
fn a_leaf_is_kept_until_a_third_of_its_life_is_left() {
    let (_state, leaves) = leaves();
    let (name, start) = (server_name("api.example.com").unwrap(), now());
    let at = |hours: i64| leaves.leaf_at(&name, start + Duration::hours(hours)).unwrap();
    let first = at(0);
    assert!(Arc::ptr_eq(&first, &at(14)));
    assert!(Arc::ptr_eq(&first, &leaves.leaf("API.example.com.").unwrap()), "one spelling");
    let second = at(15);
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &at(16)));
    assert!(!Arc::ptr_eq(&second, &at(0)), "a clock that was set back");
}

#[test]
fn no_leaf_outlives_the_ca() {
    let (_state, leaves) = leaves();
    let (name, end) = (server_name("api.example.com").unwrap(), leaves.ca.certificate().not_after());
    let last = leaves.leaf_at(&name, end - Duration::hours(2)).unwrap();
    assert_eq!(crate::trust::x509::facts(&last.cert[0]).unwrap().not_after, end);
    assert!(Arc::ptr_eq(&last, &leaves.leaf_at(&name, end - Duration::seconds(1)).unwrap()));
    assert!(matches!(leaves.leaf_at(&name, end), Err(LeafError::CaExpired(_))));
}

#[test]
fn what_is_no_host_gets_no_leaf() {
    let (_state, leaves) = leaves();
    assert!(matches!(leaves.leaf("a b"), Err(LeafError::Host(_))));
}
