//! `vouchsafe secret seal-key`: the key of the store is sealed by the real systemd-creds(1), and the file beside the store goes.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tests::{CANARY, World};

/// Runs a command in a world whose host key is its own: the host's is left alone.
fn told(world: &World, command: &mut Command) -> (bool, String) {
    // A file of systemd's: made by it when it is not there.
    let output = command.env("SYSTEMD_CREDENTIAL_SECRET", world.path("host.secret")).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

fn seal(world: &World, more: &[&str], unit: bool) -> (bool, String) {
    let to = world.path("credstore/vouchsafe-store-key").display().to_string();
    let arguments = [&["secret", "seal-key", "--with-key", "host", "--to", &to], more].concat();
    let mut command = world.vouchsafe_command(&arguments);
    if unit {
        command.env("CREDENTIALS_DIRECTORY", world.path("unit"));
    }
    told(world, &mut command)
}

/// Hands the sealed key over, as systemd does at the start of a unit with `LoadCredentialEncrypted=`.
fn hand_over(world: &World) {
    fs::create_dir_all(world.path("unit")).unwrap();
    let (from, to) = (world.path("credstore/vouchsafe-store-key"), world.path("unit/vouchsafe-store-key"));
    let mut command = Command::new("systemd-creds");
    command.args(["decrypt", "--name=vouchsafe-store-key"]).arg(from).arg(&to);
    assert!(told(world, &mut command).0);
    fs::set_permissions(to, fs::Permissions::from_mode(0o400)).unwrap();
}

#[test]
fn the_key_of_the_store_is_sealed_to_the_machine_and_its_file_goes_only_once_systemd_hands_it_over() {
    let world = World::new();
    let (plain, sealed) = (world.path("state/store.key"), world.path("credstore/vouchsafe-store-key"));
    let key = fs::read_to_string(&plain).unwrap();

    // Nowhere where others could take it away or put another in its place.
    fs::create_dir(world.path("open")).unwrap();
    fs::set_permissions(world.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let open = world.path("open/key").display().to_string();
    for (to, why) in [(open.as_str(), "open can be written by everybody"), ("key", "no absolute path")] {
        for more in [&[][..], &["--remove-plain"]] {
            let arguments = [&["secret", "seal-key", "--with-key", "host", "--to", to], more].concat();
            let (done, said) = told(&world, &mut world.vouchsafe_command(&arguments));
            assert!(!done && said.contains(why) && said.contains("choose another place"), "{said}");
        }
    }
    assert!(plain.exists() && !world.path("open/key").exists());

    // Not before it is sealed and handed over.
    let (done, said) = seal(&world, &["--remove-plain"], false);
    assert!(!done && said.contains("systemd does not hand this key to the daemon yet"), "{said}");
    assert!(plain.exists());
    let (done, said) = seal(&world, &[], false);
    assert!(done && said.contains("was there already, and opens to the same key"), "{said}");
    let drop_in = format!("LoadCredentialEncrypted=vouchsafe-store-key:{}", sealed.display());
    assert!(said.contains(&drop_in) && !said.contains(key.trim()), "{said}");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&sealed), mode(sealed.parent().unwrap())), (0o600, 0o700));
    assert!(!fs::read_to_string(&sealed).unwrap().contains(key.trim()));

    // Another key in its place is not overwritten, and not taken for ours.
    let good = fs::read(&sealed).unwrap();
    fs::write(&sealed, "a sealed key of another machine").unwrap();
    for more in [&[][..], &["--remove-plain"]] {
        let (done, said) = seal(&world, more, false);
        assert!(!done && said.contains("may be the only copy"), "{said}");
    }
    assert_eq!(fs::read_to_string(&sealed).unwrap(), "a sealed key of another machine");
    fs::write(&sealed, &good).unwrap();

    hand_over(&world);
    let (done, said) = seal(&world, &["--remove-plain"], true);
    assert!(done && said.contains("only systemd has the key"), "{said}");
    assert!(!plain.exists());
    let (done, said) = seal(&world, &[], true);
    assert!(!done && said.contains("systemd hands it to the daemon already"), "{said}");

    // The daemon has its secrets by the sealed key, and nothing makes another one in its place.
    world.variable("CREDENTIALS_DIRECTORY", world.path("unit").to_str().unwrap());
    world.daemon();
    let answer = world.curl(&["https://api.test/v1/x"]);
    assert_eq!((answer.status, &answer.json()["key"]), (200, &"ours".into()), "{answer:?}");
    let value = fs::File::open(world.write("value", CANARY)).unwrap();
    let refused = world.vouchsafe_command(&["secret", "set", "more"]).stdin(value).output().unwrap();
    assert!(!refused.status.success(), "a command without the key: {refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no key for it"), "{refused:?}");
    assert!(!plain.exists());
    assert!(!world.log().contains(key.trim()));
}

#[test]
fn a_key_that_systemd_creds_does_not_seal_stays_where_it_is() {
    let world = World::new();
    let to = world.path("credstore/key").display().to_string();
    // There is no TPM in a test.
    let arguments = ["secret", "seal-key", "--with-key", "tpm2", "--to", &to];
    let (done, said) = told(&world, &mut world.vouchsafe_command(&arguments));
    if !done {
        assert!(said.contains("systemd-creds encrypt ended with"), "{said}");
        assert!(!world.path("credstore").exists(), "nothing is left of it");
    }
    assert!(world.path("state/store.key").exists());
    let (done, said) =
        told(&world, &mut world.vouchsafe_command(&["secret", "seal-key", "--with-key", "other"]));
    assert!(!done && said.contains("host+tpm2"), "{said}");
}
