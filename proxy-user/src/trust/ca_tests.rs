//! The CA on disk: made once, kept, and refused when it is not as it must be.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::*;

fn open(state: &Path) -> Result<Ca, CaError> {
    Ca::open_or_create(state)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A state directory with a CA, and the paths of key and certificate.
fn state() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let state = tempfile::tempdir().unwrap();
    open(state.path()).unwrap();
    let (key, certificate) = (state.path().join("ca/ca.key"), state.path().join("ca/ca.pem"));
    (state, key, certificate)
}

#[test]
fn a_ca_is_made_once_and_opened_ever_after() {
    let (state, key, certificate) = state();
    assert_eq!([mode(&key), mode(&certificate), mode(&state.path().join("ca"))], [0o600, 0o644, 0o755]);
    let (before, ca) = (fs::read(&key).unwrap(), open(state.path()).unwrap());
    assert_eq!(fs::read_to_string(&certificate).unwrap(), ca.certificate_pem());
    assert_eq!(fs::read(&key).unwrap(), before);
    assert_eq!(fs::read_dir(state.path().join("ca")).unwrap().count(), 2, "no temporary file stays");
    let shown = format!("{ca:?}");
    assert!(shown.contains("Vouchsafe CA") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn openssl_reads_the_certificate_as_a_ca_that_signs_leaves_only() {
    let (state, _, path) = state();
    let certificate = CaCertificate::open(state.path()).unwrap();
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-text", "-fingerprint", "-sha256", "-in"])
        .arg(&path)
        .output()
        .unwrap();
    // OpenSSL 3.2 and later print names without the blanks.
    let text = String::from_utf8(output.stdout).unwrap().replace("CN = ", "CN=");
    for expected in [
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
        "X509v3 Subject Key Identifier",
        "prime256v1",
        "CN=Vouchsafe CA ",
        &certificate.fingerprint(),
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(certificate.subject().starts_with("CN=Vouchsafe CA "), "{}", certificate.subject());
    let life = certificate.not_after() - certificate.not_before();
    assert!((life - (LIFETIME + BACKDATED)).abs() <= Duration::seconds(2), "{life}");
}

#[test]
fn starts_at_the_same_time_share_one_ca() {
    let state = tempfile::tempdir().unwrap();
    let prints: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> =
            (0..8).map(|_| scope.spawn(|| open(state.path()).unwrap().certificate().fingerprint())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(prints.iter().all(|print| *print == prints[0]), "{prints:?}");
}

#[test]
fn a_key_that_others_can_read_is_refused_with_what_to_do() {
    let (state, key, certificate) = state();
    for wrong in [0o640, 0o604, 0o660, 0o700] {
        chmod(&key, wrong);
        let error = open(state.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 0600") && error.contains("ca.key"), "{error}");
    }
    chmod(&key, 0o400);
    open(state.path()).unwrap();
    chmod(&certificate, 0o664);
    let error = open(state.path()).unwrap_err().to_string();
    assert!(error.contains("chmod 0644") && error.contains("ca.pem"), "{error}");
    chmod(&certificate, 0o644);
    chmod(&state.path().join("ca"), 0o777);
    let error = open(state.path()).unwrap_err().to_string();
    assert!(error.contains("chmod 0755"), "{error}");
}

#[test]
fn files_of_another_user_are_refused_with_what_to_do() {
    for name in ["ca/ca.key", "ca/ca.pem", "ca"] {
        let (state, ..) = state();
        let path = state.path().join(name);
        std::os::unix::fs::chown(&path, Some(65_534), None).expect("this test needs root");
        let error = open(state.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{} belongs to uid 65534: run `chown", path.display())), "{error}");
    }
}

#[test]
fn a_symlink_or_a_directory_in_place_of_the_key_is_refused() {
    let (state, key, _) = state();
    let elsewhere = state.path().join("elsewhere");
    fs::rename(&key, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &key).unwrap();
    assert!(matches!(open(state.path()), Err(CaError::File(FileError::Io { .. }))));
    fs::remove_file(&key).unwrap();
    fs::create_dir(&key).unwrap();
    assert!(matches!(open(state.path()), Err(CaError::File(FileError::NotAFile { .. }))));
}

#[test]
fn damaged_files_are_named_and_left_as_they_are() {
    for name in ["ca.key", "ca.pem"] {
        let (state, key, certificate) = state();
        let path = if name == "ca.key" { key } else { certificate };
        let whole = fs::read(&path).unwrap();
        let cut = [&b""[..], b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"];
        for damaged in cut.into_iter().chain((1..6).map(|part| &whole[..whole.len() * part / 6])) {
            fs::write(&path, damaged).unwrap();
            let error = open(state.path()).unwrap_err();
            assert!(matches!(&error, CaError::Damaged { path: named, .. } if *named == path), "{error}");
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
    }
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let ((one, key, _), (_two, other, _)) = (state(), state());
    fs::copy(&other, &key).unwrap();
    assert!(matches!(open(one.path()), Err(CaError::Mismatch { .. })));
}

#[test]
fn a_kill_between_key_and_certificate_costs_nothing_and_a_lost_key_is_an_error() {
    let (state, key, certificate) = state();
    let before = fs::read(&key).unwrap();
    fs::remove_file(&certificate).unwrap();
    open(state.path()).unwrap();
    assert_eq!(fs::read(&key).unwrap(), before);
    fs::remove_file(&key).unwrap();
    assert!(matches!(open(state.path()), Err(CaError::KeyMissing { .. })));
}

#[test]
fn an_expired_ca_is_refused() {
    let (state, ..) = state();
    let certificate = CaCertificate::open(state.path()).unwrap();
    assert!(check_validity(&certificate, now() + LIFETIME - Duration::days(1)).is_ok());
    let error = check_validity(&certificate, now() + LIFETIME + Duration::days(1)).unwrap_err();
    assert!(matches!(error, CaError::Expired { .. }), "{error}");
}

#[test]
fn an_expired_ca_is_not_opened() {
    let (state, key, certificate) = state();
    let key = KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.not_before = now() - Duration::days(30);
    params.not_after = now() - Duration::days(1);
    fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    assert!(matches!(open(state.path()), Err(CaError::Expired { .. })));
}

#[test]
fn a_state_directory_without_a_ca_says_that_the_daemon_makes_it() {
    let state = tempfile::tempdir().unwrap();
    assert!(matches!(CaCertificate::open(state.path()), Err(CaError::NotThere { .. })));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_named() {
    let error = open(Path::new("/proc/no-such-state")).unwrap_err().to_string();
    assert!(error.contains("/proc/no-such-state"), "{error}");
}
