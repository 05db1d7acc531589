//! Stores of single programs: files, hash folders, keystores, NSS databases, units.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use super::machine::{Authority, Machine, certificates, same};

/// A user that is not root.
const NOBODY: u32 = 65534;

#[test]
fn each_kind_of_store_is_served_and_left_as_it_was() {
    let machine = Machine::new();
    let (old, new) = (Authority::new("Vouchsafe CA test"), Authority::new("Vouchsafe CA test"));
    machine.roots(&[&old]);
    // certifi's file in an environment that its user owns, without a line end, and under a link.
    let venv = machine.at("venv/certifi");
    fs::create_dir_all(&venv).unwrap();
    let file = venv.join("cacert.pem");
    let theirs = fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap();
    fs::write(&file, theirs.trim_end()).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o664)).unwrap();
    for path in [&venv, &file] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    std::os::unix::fs::symlink("venv", machine.at("current")).unwrap();
    // A hash folder in which another root has the same subject as ours.
    let hashes = machine.at("hashes");
    fs::create_dir(&hashes).unwrap();
    let other = Authority::new("Vouchsafe CA test");
    fs::write(hashes.join("other.pem"), &other.pem).unwrap();
    let shown = hashes.display();
    machine.shell(&format!("openssl rehash {shown}")).well();
    // A keystore of a JDK of its own, a database of NSS of its user.
    let (jdk, nss) = (machine.at("jdk"), machine.at("nssdb"));
    fs::create_dir_all(jdk.join("lib/security")).unwrap();
    fs::copy("/etc/ssl/certs/java/cacerts", jdk.join("lib/security/cacerts")).unwrap();
    fs::create_dir(&nss).unwrap();
    chown(&nss, Some(NOBODY), Some(NOBODY)).unwrap();
    let as_nobody = format!("setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups");
    let nss = nss.display();
    machine.shell(&format!("{as_nobody} certutil -N --empty-password -d sql:{nss}")).well();
    let keystore = jdk.join("lib/security/cacerts");
    let keystore = keystore.to_str().unwrap();
    let tree = machine.tree(&format!("{} {shown} /etc/systemd", machine.at("venv").display()));
    let (aliases, listing) =
        (machine.aliases(keystore), machine.shell(&format!("certutil -L -d sql:{nss}")).well());
    let owner = |name: &str| fs::metadata(machine.at("nssdb").join(name)).unwrap().uid();

    let options = format!(
        "--file {} --hash-dir {shown} --java-home {} --nss {nss} --unit invoice",
        machine.at("current/certifi/cacert.pem").display(),
        jdk.display()
    );
    machine.run(&format!("install {options}")).well();
    assert!(machine.run(&format!("install {options}")).well().ends_with("nothing to change\n"));
    machine.run("status").well();

    let check = |authority: &Authority, trusted: bool| {
        let _server = machine.serve(authority);
        let certifi = file.display();
        let python = format!(
            "/usr/bin/python3 -c 'import ssl, urllib.request as u; \
             print(u.urlopen(\"https://api.demo.test/\", context=ssl.create_default_context(cafile=\"{certifi}\")).status)'"
        );
        let hashed =
            format!("curl -sS -o /dev/null -w '%{{http_code}}' --capath {shown} https://api.demo.test/");
        let java = format!(
            "cat >/run/Call.java <<'END'\n{}\nEND\njava -Djavax.net.ssl.trustStore={keystore} /run/Call.java",
            super::JAVA
        );
        // certutil verifies as a browser's library does.
        let browser = format!(
            "openssl x509 -in {} -out /run/leaf.pem && certutil -A -d sql:{nss} -n leaf -t ,, -i /run/leaf.pem && \
             certutil -V -d sql:{nss} -n leaf -u V >/run/said; code=$?; certutil -D -d sql:{nss} -n leaf; \
             [ $code = 0 ] && echo 200",
            machine.at("server.pem").display()
        );
        for (store, script) in
            [("file", python), ("hash folder", hashed), ("keystore", java), ("nss", browser)]
        {
            let ended = machine.shell(&script);
            assert_eq!(ended.out.trim() == "200", trusted, "{store}: {} {}", ended.out, ended.err);
        }
    };
    check(&old, true);
    check(&new, false);
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (NOBODY, NOBODY, 0o664));
    assert_eq!(owner("cert9.db"), NOBODY);
    let drop_in = machine.at("up/etc/systemd/system/invoice.service.d/50-vouchsafe-trust.conf");
    let text = fs::read_to_string(&drop_in).unwrap();
    assert!(text.contains("REQUESTS_CA_BUNDLE=/etc/vouchsafe/trust/bundle.pem"), "{text}");
    assert!(certificates(&machine.at("up/etc/vouchsafe/trust/bundle.pem")) > 100);

    // All of them follow the CA.
    machine.roots(&[&new]);
    machine.run("refresh").well();
    check(&new, true);
    check(&old, false);

    // An upgrade of the package: the file is theirs again, and the next refresh puts ours in.
    fs::write(&file, format!("# newer\n{theirs}")).unwrap();
    let status = machine.run("status --json").out;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let of_file = status.as_array().unwrap().iter().find(|it| it["path"] == file.to_str().unwrap()).unwrap();
    assert_eq!(
        (of_file["state"].as_str(), of_file["recorded"].as_bool()),
        (Some("missing"), Some(true)),
        "{of_file}"
    );
    machine.run("refresh").well();
    check(&new, true);
    fs::write(&file, theirs.trim_end()).unwrap();
    machine.run("refresh").well();

    machine.run("remove").well();
    same(
        &machine.tree(&format!("{} {shown} /etc/systemd", machine.at("venv").display())),
        &tree,
        "nothing is left of it",
    );
    assert_eq!(machine.aliases(keystore), aliases);
    assert_eq!(machine.shell(&format!("certutil -L -d sql:{nss}")).well(), listing);
    check(&new, false);
}

#[test]
fn what_the_systems_store_serves_and_what_is_no_store_is_refused_with_what_to_do() {
    let machine = Machine::new();
    machine.roots(&[&Authority::new("Vouchsafe CA test")]);
    let jdk = machine.shell("dirname $(dirname $(readlink -f $(command -v java)))").well();
    machine
        .run(&format!("install --java-home {jdk}"))
        .failed_with(&["made of the system's store", "without --java-home"]);
    machine
        .run("install --hash-dir /etc/ssl/certs")
        .failed_with(&["is the system's own", "without --hash-dir"]);
    machine.run("install --file /etc/ssl/certs/ca-certificates.crt").failed_with(&["without --file"]);
    machine.run("install --file /etc/hostname").failed_with(&["holds no certificate"]);
    machine.run("install --file /etc/nothing.pem").failed_with(&["/etc/nothing.pem is not there"]);
    fs::write(machine.at("jceks"), [0xce; 64]).unwrap();
    machine
        .run(&format!("install --java-home {}", machine.at("jceks").display()))
        .failed_with(&["JKS or PKCS12"]);
    machine.run("install --nss /etc").failed_with(&["cert9.db", "certutil -N"]);
    let open = machine.at("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    fs::copy("/etc/ssl/certs/ca-certificates.crt", open.join("cacert.pem")).unwrap();
    machine
        .run(&format!("install --file {}/cacert.pem", open.display()))
        .failed_with(&["everybody", "chmod o-w"]);
    let manifest = fs::read_to_string(machine.at("state/trust/manifest.json")).unwrap_or_default();
    assert!(!manifest.contains("kind"), "nothing of it is recorded: {manifest}");
}
