//! The CA on disk: generations that follow the policy, and what is refused because it is not as it must be.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::*;
use crate::trust::generation::{BACKDATED, KeyKind};
use crate::trust::names::server_name;

const DAY: Duration = Duration::DAY;

fn hosts(names: &[&str]) -> Permitted {
    Permitted::new(names.iter().copied())
}

fn open(state: &Path) -> Result<Ca, CaError> {
    Ca::open(state, Terms::default())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A state directory with a CA for `api.test`.
fn state() -> (tempfile::TempDir, Ca) {
    let state = tempfile::tempdir().unwrap();
    let ca = open(state.path()).unwrap();
    assert_eq!(ca.require(&hosts(&["api.test"])).unwrap(), Some(Why::First));
    (state, ca)
}

fn first(state: &tempfile::TempDir, file: &str) -> PathBuf {
    state.path().join("ca/g0001").join(file)
}

/// The generation that signs for a host at that time.
fn signer(ca: &Ca, host: &str, at: OffsetDateTime) -> Option<u32> {
    ca.signer(&server_name(host).unwrap(), at).map(|one| one.number())
}

fn published(state: &tempfile::TempDir) -> Vec<String> {
    let roots = CaCertificate::all(state.path()).unwrap();
    roots.iter().map(CaCertificate::fingerprint).collect()
}

fn fingerprints(ca: &Ca) -> Vec<String> {
    ca.roots().iter().map(CaCertificate::fingerprint).collect()
}

#[test]
fn a_ca_is_made_once_and_opened_ever_after() {
    let (state, ca) = state();
    assert_eq!(mode(&state.path().join("ca")), 0o755);
    assert_eq!(mode(&state.path().join("ca/ca.pem")), 0o644);
    assert_eq!(mode(&state.path().join("ca/g0001")), 0o700);
    assert_eq!([mode(&first(&state, "ecdsa.key")), mode(&first(&state, "rsa.key"))], [0o600, 0o600]);
    let again = open(state.path()).unwrap();
    assert_eq!(again.require(&hosts(&["api.test"])).unwrap(), None);
    assert_eq!(fingerprints(&again), fingerprints(&ca));
    assert_eq!(published(&state), fingerprints(&ca));
    let mut names = names(&state.path().join("ca")).unwrap();
    names.sort();
    assert_eq!(names, ["ca.pem", "g0001", "lock"], "nothing temporary stays");
    let shown = format!("{ca:?}");
    assert!(!shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn openssl_reads_roots_and_issuers_as_cas_for_these_hosts_alone() {
    let (state, ca) = state();
    for kind in KeyKind::ALL {
        let line = if kind == KeyKind::Ecdsa { "ecdsa.pem" } else { "rsa.pem" };
        let both = fs::read_to_string(first(&state, line)).unwrap();
        let (issuer, root) = both.split_once("-----END CERTIFICATE-----\n").unwrap();
        for (certificate, below) in
            [(format!("{issuer}-----END CERTIFICATE-----\n"), 0), (root.to_owned(), 1)]
        {
            let file = state.path().join("one.pem");
            fs::write(&file, certificate).unwrap();
            let output = Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(&file).output();
            // OpenSSL 3.2 and later print names without the blanks.
            let text = String::from_utf8(output.unwrap().stdout).unwrap().replace("CN = ", "CN=");
            let path_length = format!("CA:TRUE, pathlen:{below}");
            for expected in [
                &*path_length,
                "Certificate Sign, CRL Sign",
                "X509v3 Name Constraints: critical",
                "DNS:api.test",
                "IP:0.0.0.0/0.0.0.0",
                "X509v3 Subject Key Identifier",
                if kind == KeyKind::Ecdsa { "prime256v1" } else { "(2048 bit)" },
            ] {
                assert!(text.contains(expected), "{expected} in {text}");
            }
            assert_eq!(text.contains("TLS Web Server Authentication"), below == 0, "{text}");
        }
    }
    let (newest, _) = &ca.generations()[0];
    assert!((newest.not_after - newest.made - Terms::default().lifetime).abs() <= Duration::seconds(2));
    assert!(newest.roots.iter().all(|root| root.subject().starts_with("CN=Vouchsafe Root ")));
}

#[test]
fn the_key_of_a_root_is_nowhere() {
    let (state, _ca) = state();
    let root = CaCertificate::all(state.path()).unwrap().remove(0);
    let files = ["ecdsa.key", "rsa.key"].map(|name| fs::read(first(&state, name)).unwrap());
    for key in &files {
        let key = rcgen::KeyPair::from_pem(std::str::from_utf8(key).unwrap()).unwrap();
        let public = rcgen::PublicKeyData::subject_public_key_info(&key);
        let holds = |certificate: &[u8]| certificate.windows(public.len()).any(|window| window == public);
        assert!(!holds(root.der()), "a key on the disk is that of a root");
    }
}

#[test]
fn many_hosts_are_shared_out_among_issuers_that_every_client_can_take() {
    let state = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..300).map(|n| format!("api-{n}.example.com")).collect();
    let all = names.iter().map(String::as_str).chain(["192.0.2.1", "2001:db8::1"]);
    let wanted = Permitted::new(all);
    open(state.path()).unwrap().require(&wanted).unwrap();
    let ca = Arc::new(open(state.path()).unwrap());
    assert_eq!(ca.require(&wanted).unwrap(), None, "together they permit all");
    assert_eq!(ca.generations()[0].0.permits.len(), 302);
    let leaves = crate::trust::Leaves::new(Arc::clone(&ca)).unwrap();
    let [file, issuer, roots] = ["leaf.pem", "issuer.pem", "ca/ca.pem"].map(|name| state.path().join(name));
    let mut subjects = std::collections::BTreeSet::new();
    for kind in KeyKind::ALL {
        for host in [&*names[0], "api-150.example.com", "api-299.example.com", "192.0.2.1", "2001:db8::1"] {
            let leaf = leaves.leaf(host, kind).unwrap();
            assert!(leaf.cert[1].len() < 4096, "{}", leaf.cert[1].len());
            fs::write(&file, crate::trust::pem::certificate(&leaf.cert[0])).unwrap();
            fs::write(&issuer, crate::trust::pem::certificate(&leaf.cert[1])).unwrap();
            let name = if host.starts_with("api") { "-verify_hostname" } else { "-verify_ip" };
            let mut verify = Command::new("openssl");
            verify.args(["verify", "-x509_strict", name, host, "-CAfile"]).arg(&roots);
            let verified = verify.arg("-untrusted").arg(&issuer).arg(&file).output().unwrap();
            assert!(verified.status.success(), "{host}: {verified:?}");
            subjects.insert(crate::trust::x509::facts(&leaf.cert[1]).unwrap().subject);
        }
    }
    assert_eq!(subjects.len(), 6, "no two issuers have one name: {subjects:?}");
}

#[test]
fn a_new_host_makes_a_generation_and_the_hosts_before_go_on_with_theirs() {
    let (state, ca) = state();
    assert_eq!(ca.require(&hosts(&["api.test", "v1.api.test"])).unwrap(), None, "below what is permitted");
    assert_eq!(ca.require(&hosts(&["api.test", "other.test"])).unwrap(), Some(Why::Hosts));
    let at = now();
    assert_eq!([signer(&ca, "api.test", at), signer(&ca, "other.test", at)], [Some(1), Some(2)]);
    assert_eq!(signer(&ca, "third.test", at), None);
    assert_eq!(published(&state), fingerprints(&ca));
    assert_eq!(published(&state).len(), 4, "the roots of both are to be trusted");

    let overlap = Terms::default().overlap;
    assert_eq!(signer(&ca, "api.test", at + overlap - DAY), Some(1));
    assert_eq!(signer(&ca, "api.test", at + overlap + DAY), Some(2), "the first is over");
    let both = hosts(&["api.test", "other.test"]);
    assert_eq!(ca.keep_at(&both, at + overlap - DAY).unwrap(), None);
    assert_eq!(fingerprints(&ca).len(), 4);
    assert_eq!(ca.keep_at(&both, at + overlap + DAY).unwrap(), None);
    assert_eq!(fingerprints(&ca).len(), 2);
    assert!(!state.path().join("ca/g0001").exists(), "its keys are gone");
    assert_eq!(published(&state), fingerprints(&ca));
}

#[test]
fn a_host_that_is_no_longer_intercepted_is_taken_out_by_the_next_look() {
    let (_state, ca) = state();
    ca.require(&hosts(&["api.test", "other.test"])).unwrap();
    let fewer = hosts(&["other.test"]);
    assert_eq!(ca.require(&fewer).unwrap(), None, "a reload does not wait for that");
    assert_eq!(ca.keep(&fewer).unwrap(), Some(Why::Fewer));
    assert_eq!(ca.keep(&fewer).unwrap(), None);
    assert_eq!(ca.generations()[0].0.permits, ["other.test"]);
    let after = now() + Terms::default().overlap + DAY;
    assert_eq!([signer(&ca, "api.test", after), signer(&ca, "other.test", after)], [None, Some(3)]);
}

#[test]
fn a_rotation_lets_those_before_go_on_unless_they_shall_end_at_once() {
    let (state, ca) = state();
    ca.rotate(false).unwrap();
    assert_eq!(signer(&ca, "api.test", now()), Some(1), "who read what it trusts goes on");
    ca.rotate(true).unwrap();
    assert_eq!(signer(&ca, "api.test", now()), Some(3));
    assert_eq!(published(&state), fingerprints(&ca));
    assert_eq!(fingerprints(&ca).len(), 2);
    for gone in ["g0001", "g0002"] {
        assert!(!state.path().join("ca").join(gone).exists(), "{gone}");
    }
}

#[test]
fn a_generation_is_replaced_in_time_and_one_that_the_clock_does_not_know_at_once() {
    let (_state, ca) = state();
    let (wanted, made) = (hosts(&["api.test"]), ca.generations()[0].0.made);
    let renew = made + Terms::default().lifetime - Terms::default().renew_before();
    assert_eq!(ca.require_at(&wanted, renew - DAY).unwrap(), None);
    assert_eq!(ca.require_at(&wanted, renew + DAY).unwrap(), Some(Why::Ends));
    assert_eq!(signer(&ca, "api.test", renew + DAY), Some(1), "the one before signs for as long as it may");
    assert_eq!(signer(&ca, "api.test", made + Terms::default().lifetime + DAY), Some(2));

    // A clock that was a day ahead when the CA was made does no harm, and one that was far ahead costs a new one.
    for (back, expected) in [(DAY, None), (BACKDATED + DAY, Some(Why::Ends))] {
        let (_state, ca) = state();
        let made = ca.generations()[0].0.made;
        assert_eq!(ca.require_at(&wanted, made - back).unwrap(), expected, "{back}");
        assert!(signer(&ca, "api.test", made - back).is_some());
    }
}

#[test]
fn an_expired_ca_is_replaced_at_the_start() {
    let (state, ca) = state();
    let later = now() + Terms::default().lifetime + DAY;
    assert_eq!(signer(&ca, "api.test", later), None);
    let again = open(state.path()).unwrap();
    assert_eq!(again.require_at(&hosts(&["api.test"]), later).unwrap(), Some(Why::Ends));
    assert_eq!(signer(&again, "api.test", later), Some(2));
}

#[test]
fn no_ca_is_made_by_a_clock_that_was_never_set() {
    let state = tempfile::tempdir().unwrap();
    let ca = open(state.path()).unwrap();
    let error = ca.require_at(&hosts(&["api.test"]), OffsetDateTime::UNIX_EPOCH + DAY).unwrap_err();
    assert!(error.to_string().contains("1970-01-02") && error.to_string().contains("set it"), "{error}");
    assert!(matches!(CaCertificate::all(state.path()), Err(CaError::NotThere { .. })));
}

#[test]
fn starts_at_the_same_time_share_one_ca() {
    let state = tempfile::tempdir().unwrap();
    let start = || {
        let ca = open(state.path()).unwrap();
        ca.require(&hosts(&["api.test"])).unwrap();
        fingerprints(&ca)
    };
    let prints: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
    assert_eq!(published(&state), prints[0]);
}

#[test]
fn the_ca_of_a_version_that_could_sign_for_every_host_is_ended() {
    let state = tempfile::tempdir().unwrap();
    fs::create_dir(state.path().join("ca")).unwrap();
    let (key, certificate) = (state.path().join("ca/ca.key"), state.path().join("ca/ca.pem"));
    fs::write(&key, "the key").unwrap();
    fs::write(&certificate, "the certificate").unwrap();
    let ca = open(state.path()).unwrap();
    ca.require(&hosts(&["api.test"])).unwrap();
    assert!(!key.exists());
    assert_eq!(published(&state), fingerprints(&ca));
}

#[test]
fn what_a_kill_left_is_cleaned_up_and_roots_that_are_lost_are_written_again() {
    let (state, ca) = state();
    let left = state.path().join("ca/.new-abc");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("ecdsa.key"), "half of a ke").unwrap();
    fs::write(state.path().join("ca/.new-def"), "half of the roots").unwrap();
    // Killed before the roots of the second were published.
    ca.rotate(false).unwrap();
    fs::remove_file(state.path().join("ca/ca.pem")).unwrap();
    let again = open(state.path()).unwrap();
    assert!(!left.exists() && !state.path().join("ca/.new-def").exists());
    assert_eq!(published(&state), fingerprints(&again));
    assert_eq!(fingerprints(&again).len(), 4);
    fs::remove_file(state.path().join("ca/ca.pem")).unwrap();
    assert_eq!(again.require(&hosts(&["api.test"])).unwrap(), None);
    assert_eq!(published(&state), fingerprints(&again), "also while it runs");
}

#[test]
fn a_ca_that_cannot_be_made_leaves_the_old_trust_as_it_was() {
    let (state, ca) = state();
    let before = (fingerprints(&ca), published(&state));
    // Nothing can be renamed to it.
    fs::create_dir_all(state.path().join("ca/g0002/in-the-way")).unwrap();
    let error = ca.require(&hosts(&["api.test", "other.test"])).unwrap_err();
    assert!(error.to_string().contains("g0002"), "{error}");
    assert_eq!((fingerprints(&ca), published(&state)), before);
    assert_eq!(signer(&ca, "api.test", now()), Some(1));
    assert_eq!(signer(&ca, "other.test", now()), None);
    let names = names(&state.path().join("ca")).unwrap();
    assert!(names.iter().all(|name| !name.starts_with(NEW)), "{names:?}");
    fs::remove_dir_all(state.path().join("ca/g0002")).unwrap();
    assert_eq!(ca.require(&hosts(&["api.test", "other.test"])).unwrap(), Some(Why::Hosts));
}

#[test]
fn keys_and_certificates_that_others_can_change_are_refused_with_what_to_do() {
    let (state, _ca) = state();
    let refused = |path: &Path, wrong: u32, right: u32| {
        chmod(path, wrong);
        let error = open(state.path()).unwrap_err().to_string();
        let file = path.file_name().unwrap().to_str().unwrap();
        assert!(error.contains(&format!("chmod {right:04o}")) && error.contains(file), "{error}");
        chmod(path, right);
        open(state.path()).unwrap();
    };
    for wrong in [0o640, 0o604, 0o660, 0o700] {
        refused(&first(&state, "ecdsa.key"), wrong, 0o600);
        refused(&first(&state, "rsa.key"), wrong, 0o600);
    }
    refused(&first(&state, "ecdsa.pem"), 0o664, 0o644);
    refused(&state.path().join("ca/ca.pem"), 0o664, 0o644);
    refused(&state.path().join("ca"), 0o777, 0o755);
    refused(&state.path().join("ca/g0001"), 0o770, 0o755);
}

#[test]
fn files_of_another_user_are_refused_with_what_to_do() {
    let (state, _ca) = state();
    for name in ["ca/g0001/ecdsa.key", "ca/g0001/rsa.pem", "ca/ca.pem", "ca"] {
        let path = state.path().join(name);
        std::os::unix::fs::chown(&path, Some(65_534), None).expect("this test needs root");
        let error = open(state.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{} belongs to uid 65534: run `chown", path.display())), "{error}");
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    }
}

#[test]
fn a_symlink_or_a_directory_in_place_of_a_key_is_refused() {
    let (state, _ca) = state();
    let (key, elsewhere) = (first(&state, "ecdsa.key"), state.path().join("elsewhere"));
    fs::rename(&key, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &key).unwrap();
    assert!(matches!(open(state.path()), Err(CaError::File(_))));
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(matches!(open(state.path()), Err(CaError::File(_))));
}

#[test]
fn damaged_and_missing_files_are_named_and_left_as_they_are() {
    for name in ["ecdsa.key", "rsa.key", "ecdsa.pem", "rsa.pem"] {
        let (state, _ca) = state();
        let path = first(&state, name);
        let whole = fs::read(&path).unwrap();
        let cut = [&b""[..], b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"];
        for damaged in cut.into_iter().chain((1..6).map(|part| &whole[..whole.len() * part / 6])) {
            fs::write(&path, damaged).unwrap();
            let error = open(state.path()).unwrap_err();
            assert!(matches!(&error, CaError::Damaged { path: named, .. } if *named == path), "{error}");
            assert!(error.to_string().contains("g0001 away"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
        fs::remove_file(&path).unwrap();
        let error = open(state.path()).unwrap_err();
        assert!(matches!(&error, CaError::Damaged { path: named, .. } if *named == path), "{error}");
    }
}

#[test]
fn a_changed_bit_of_a_certificate_is_noticed() {
    let (state, _ca) = state();
    let path = first(&state, "ecdsa.pem");
    let blocks = CaCertificate::parse(&path, &fs::read(&path).unwrap()).unwrap();
    for at in (0..blocks[0].der().len()).step_by(7) {
        let mut changed = blocks[0].der().to_vec();
        changed[at] ^= 1;
        let changed = crate::trust::pem::certificate(&changed.into());
        fs::write(&path, [changed, blocks[1].pem()].concat()).unwrap();
        assert!(open(state.path()).is_err(), "byte {at}");
    }
}

#[test]
fn keys_and_certificates_of_another_ca_are_refused() {
    let ((one, _), (other, _)) = (state(), state());
    fs::copy(first(&other, "ecdsa.key"), first(&one, "ecdsa.key")).unwrap();
    assert!(matches!(open(one.path()), Err(CaError::Mismatch { .. })));
    fs::copy(first(&other, "ecdsa.pem"), first(&one, "ecdsa.pem")).unwrap();
    open(one.path()).unwrap();

    let wider = tempfile::tempdir().unwrap();
    open(wider.path()).unwrap().require(&hosts(&["test"])).unwrap();
    for file in ["ecdsa.key", "ecdsa.pem"] {
        fs::copy(first(&wider, file), first(&one, file)).unwrap();
    }
    let error = open(one.path()).unwrap_err();
    assert!(error.to_string().contains("other hosts"), "{error}");
}

#[test]
fn published_roots_that_are_damaged_are_written_anew_by_the_next_start() {
    let (state, ca) = state();
    let path = state.path().join("ca/ca.pem");
    for damaged in ["", "junk", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(&path, damaged).unwrap();
        let error = CaCertificate::all(state.path()).unwrap_err();
        assert!(error.to_string().contains("start the daemon again"), "{error}");
        open(state.path()).unwrap();
        assert_eq!(published(&state), fingerprints(&ca));
    }
}

#[test]
fn a_state_directory_without_a_ca_says_that_the_daemon_makes_it() {
    let state = tempfile::tempdir().unwrap();
    assert!(matches!(CaCertificate::all(state.path()), Err(CaError::NotThere { .. })));
    assert!(matches!(About::all(state.path()), Err(CaError::NotThere { .. })));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let error = open(Path::new("/proc/no-such-state")).unwrap_err().to_string();
    assert!(error.contains("/proc/no-such-state"), "{error}");
}
