//! The packaged unit under a real systemd as PID 1: install, sandbox, notify, reload, watchdog, restart, journald, uninstall.
//!
//! A Debian root made by mmdebstrap (kept below the target folder), booted by systemd-nspawn in namespaces of its own.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PACKAGES: &str = "systemd,systemd-sysv,dbus,ca-certificates,curl,iproute2,nginx-light,openssl";

const FILES: [(&str, &str); 13] = [
    (
        "etc/vouchsafe/policies/invoice-bot.toml",
        "[identity]\nunit = \"invoice.service\"\n[[grant]]\napi = \"demo\"\nallow = [\"GET /v1/**\"]\ncredential = \"demo\"\n",
    ),
    (
        "etc/vouchsafe/apis/demo.toml",
        "[api.demo]\nhosts = [\"api.demo.test\"]\naddresses = [\"203.0.113.0/24\", \"loopback\"]\ninject = { header = \"authorization\", value = \"Bearer {secret}\" }\n",
    ),
    (
        "etc/vouchsafe/credentials/demo.toml",
        "[credential.demo]\nkind = \"static\"\nsecret = \"vault:demo\"\n",
    ),
    (
        "etc/api.conf",
        "events {}\nhttp { access_log off; keepalive_requests 1000000; server { listen 127.0.0.9:443 ssl; ssl_certificate /etc/api.pem;\n\
         ssl_certificate_key /etc/api.key; location / { if ($http_authorization != \"Bearer systemd-canary\")\n\
         { return 401; } return 200 \"welcome\"; }\n\
         location /v1/slowly/ { if ($http_authorization != \"Bearer systemd-canary\") { return 401; }\n\
         root /srv; limit_rate 100k; } } }\n",
    ),
    (
        "etc/vouchsafe/policies/caller.toml",
        "[identity]\nunit = \"caller.service\"\n[[grant]]\napi = \"demo\"\nallow = [\"GET /v1/**\"]\ncredential = \"demo\"\n",
    ),
    // Kept-alive connections over HTTP/1.1 and HTTP/2, and slow downloads.
    (
        "etc/systemd/system/caller.service",
        "[Service]\nType=exec\nExecStart=/usr/bin/caller --to 127.0.0.9:443 --host api.demo.test --roots /etc/vs-ca.pem \
         --seconds 14 --rate 240 --downloads 1\nStandardOutput=file:/out/caller\nStandardError=file:/out/caller.err\n",
    ),
    (
        "etc/systemd/system/invoice.service",
        "[Service]\nType=oneshot\nExecStart=-/usr/bin/curl -sS -m 10 --cacert /etc/vs-ca.pem https://api.demo.test/v1/x \
         -o /out/body -w \"%%{http_code}\"\nExecStartPost=/bin/sh -c 'echo \"$$INVOCATION_ID\" >/out/invocation'\n\
         StandardOutput=file:/out/code\nStandardError=null\n",
    ),
    (
        "etc/vouchsafe/policies/storm.toml",
        "[identity]\nunit = \"storm.service\"\n[[grant]]\napi = \"demo\"\nallow = [\"GET /v1/**\"]\ncredential = \"demo\"\n",
    ),
    // One new connection after the other.
    (
        "etc/systemd/system/storm.service",
        "[Service]\nType=exec\nExecStart=/bin/sh -c 'while [ ! -e /out/calm ]; do /usr/bin/curl -sS -m 10 --cacert \
         /etc/vs-ca.pem https://api.demo.test/v1/storm -o /dev/null -w \"%%{http_code}\\\\n\"; done'\n\
         StandardOutput=file:/out/codes\nStandardError=file:/out/codes.err\n",
    ),
    // A network of its own, and one that joins it (systemd.exec(5), systemd.unit(5)).
    ("etc/systemd/system/invoice.service.d/network.conf.off", "[Service]\nPrivateNetwork=yes\n"),
    (
        "etc/systemd/system/holder.service",
        "[Service]\nPrivateNetwork=yes\nExecStart=/usr/bin/sleep infinity\n[Unit]\nBefore=invoice.service\n",
    ),
    (
        "etc/systemd/system/probe.service",
        "[Unit]\nAfter=multi-user.target\n[Service]\nType=oneshot\nExecStart=/probe.sh\nStandardOutput=file:/out/probe\n\
         StandardError=file:/out/probe.err\n",
    ),
    ("etc/systemd/system/probe.timer", "[Timer]\nOnActiveSec=100ms\nAccuracySec=10ms\n"),
];

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The root as the distribution makes it, made once.
fn pristine() -> PathBuf {
    let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("systemd-root");
    if !base.join("usr/bin/systemctl").exists() || !base.join("usr/sbin/nginx").exists() {
        let making = base.with_extension("making");
        let _ = fs::remove_dir_all(&making);
        let _ = fs::remove_dir_all(&base);
        run(Command::new("mmdebstrap")
            .args(["--variant=minbase", "--include", PACKAGES])
            .arg(codename())
            .arg(&making));
        fs::rename(&making, &base).unwrap();
    }
    base
}

/// The release of this host: the daemon was built against its C library.
fn codename() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(str::to_owned);
    codename.expect("this host's /etc/os-release names no release of Debian or Ubuntu")
}

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// What `cargo xtask install` takes from a clone whose release build is done.
fn put_clone(clone: &Path) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let programs = clone.join("target/release");
    fs::create_dir_all(&programs).unwrap();
    fs::create_dir(clone.join("xtask")).unwrap();
    run(Command::new("cp")
        .arg("-r")
        .args(["Cargo.toml", "packaging", "policies"])
        .arg(clone)
        .current_dir(repository));
    run(Command::new("cp").arg(tests::daemon_binary()).arg(programs.join("vouchsafe")));
    run(Command::new("cp").arg(tests::xtask_binary()).arg(programs.join("xtask")));
}

/// Boots, and returns the facts that the probe found, by their first word.
fn boot() -> HashMap<String, String> {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("root");
    run(Command::new("cp").arg("-a").arg(pristine()).arg(&root));
    for (name, text) in FILES {
        write(&root, name, text);
    }
    put_clone(&root.join("src"));
    // The watchdog's time only: a test does not wait for half a minute.
    write(&root, "etc/systemd/system/vouchsafe.service.d/test.conf", "[Service]\nWatchdogSec=2s\n");
    fs::create_dir(root.join("out")).unwrap();
    run(Command::new("cp").arg(tests::built("caller")).arg(root.join("usr/bin/caller")));
    fs::create_dir_all(root.join("srv/v1/slowly")).unwrap();
    fs::write(root.join("srv/v1/slowly/file"), vec![b'x'; 300 * 1024]).unwrap();
    write(&root, "probe.sh", include_str!("systemd/probe.sh"));
    fs::set_permissions(root.join("probe.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    let hosts = fs::read_to_string(root.join("etc/hosts")).unwrap_or_default();
    write(&root, "etc/hosts", &format!("{hosts}\n127.0.0.1 localhost\n127.0.0.9 api.demo.test\n"));
    let wants = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("/etc/systemd/system/probe.timer", wants.join("probe.timer")).unwrap();
    let _ = fs::remove_file(wants.join("nginx.service"));
    let script = temp.path().join("boot.sh");
    fs::write(&script, include_str!("systemd/boot.sh")).unwrap();
    let name = format!("vouchsafe-test-{}", std::process::id());
    let output = Command::new("unshare")
        .args(["--mount", "--", "bash"])
        .arg(&script)
        .arg(&root)
        .arg(&name)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = fs::read_to_string(root.join("out/probe")).unwrap_or_default();
    let errors = fs::read_to_string(root.join("out/probe.err")).unwrap_or_default();
    println!("{said}\n{errors}");
    assert!(
        said.contains("fact done"),
        "the probe did not come to its end: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    said.lines()
        .filter_map(|line| line.strip_prefix("fact "))
        .map(|fact| fact.split_once(' ').unwrap_or((fact, "")))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn the_packaged_unit_serves_reloads_survives_and_keeps_its_secret_under_a_real_systemd() {
    let facts = boot();
    let fact = |name: &str| facts.get(name).map_or("(nothing)", String::as_str);
    assert_eq!(fact("install"), "0");
    assert_eq!(
        fact("installed"),
        "755 root:root 644 root:root 700 root:root vouchsafe",
        "binary, unit, state, group"
    );
    assert_eq!(fact("install-again"), "0 1", "a configuration that was changed is kept, and it is said");
    assert_eq!(fact("started"), "0 active");
    assert_eq!(fact("status"), "0");
    assert_eq!(fact("call"), "200 welcome", "the unit of the bot is its identity");
    assert_ne!(fact("journald"), "0", "journalctl finds the call by IDENTITY, with the bot's UNIT");
    assert_eq!(fact("invocation"), "1", "the run of the unit is the one that systemd told the unit itself");
    assert_eq!(fact("call-private"), "200 welcome", "a unit with a network of its own");
    assert_eq!(fact("call-joined"), "200 welcome", "a unit in the network of another one");
    assert_eq!(fact("reload"), "0 active");
    assert_eq!(
        fact("reload-broken"),
        "1 active",
        "systemd learns that the policy was refused; the old one goes on"
    );
    assert_eq!(fact("call-after-broken"), "200 welcome");
    assert_eq!(fact("restarted"), "active 1", "systemd restarts it, and it takes the links over");
    assert_eq!(fact("call-after-kill"), "200 welcome");
    assert_eq!(fact("call-exec"), "200 welcome", "a program in the sandbox prints the credential");
    assert!(fact("call-exec-user").starts_with("502"), "{}", fact("call-exec-user"));
    assert_eq!(
        fact("call-exec-user-may"),
        "200 welcome",
        "as another user, with the drop-in of docs/credentials.md"
    );
    assert_eq!(
        fact("trust"),
        "0 0 active enabled enabled",
        "the units that keep stores current are on from now on"
    );
    assert_eq!(fact("trust-unit"), "1", "systemd reads the variables of the drop-in");
    assert_eq!(fact("trust-rotated"), "0 1 1", "another root in ca.pem is in all stores by itself");
    assert_eq!(fact("trust-package"), "0 0", "one that ended is gone, and a store made anew has ours again");
    assert_eq!(fact("trust-pip"), "0 644 root", "a file that a package replaced as well");
    assert_eq!(fact("trust-ends"), "0 few 0", "what it changes itself does not start it again and again");
    assert_eq!(
        fact("sealed"),
        "0 1 0  1",
        "sealed, not taken away before systemd hands it over, taken away, and the store opens by it"
    );
    assert_eq!(fact("call-sealed"), "200 welcome", "the daemon has its key from LoadCredentialEncrypted=");
    let storm: Vec<&str> = fact("storm").split(' ').collect();
    let calls: usize = storm.first().and_then(|calls| calls.parse().ok()).unwrap_or(0);
    assert!(
        calls > 20 && storm.get(1) == Some(&"0"),
        "calls, and those that were lost, over restarts: {storm:?}"
    );
    let upgrades: Vec<&str> = fact("upgrades").split(' ').collect();
    assert_eq!(upgrades, ["0", "2"], "what restart said, and how many other binaries ran afterwards");
    let caller: serde_json::Value = serde_json::from_str(fact("caller")).unwrap();
    for way in ["http1", "http2", "long1", "long2"] {
        assert_eq!(caller[way]["lost"].as_array().map(Vec::len), Some(0), "{caller:#}");
        assert!(caller[way]["answered"].as_u64().unwrap() >= 3, "{caller:#}");
    }
    assert_eq!(fact("cut-off"), "0", "responses that had begun");
    assert_eq!(
        fact("call-while-crashed"),
        "200 welcome",
        "it waits in the queue until the next daemon is there"
    );
    assert_eq!(fact("verify"), "0");
    assert_ne!(fact("watchdog"), "0", "a daemon that hangs is ended by the watchdog");
    assert_eq!(fact("stopped"), "inactive");
    assert!(fact("call-while-stopped").starts_with("000"), "{}", fact("call-while-stopped"));
    assert_eq!(fact("canary"), "0 0", "the secret is in no file and in no log");
    assert_eq!(fact("uninstall"), "0", "also while it runs");
    assert_eq!(fact("left"), "config state", "and nothing of binary, unit, examples, pins");
    assert_eq!(
        fact("call-after-uninstall").split(' ').next(),
        Some("401"),
        "nothing of it is in the way of a call"
    );
    assert_eq!(fact("purge"), "0");
    assert_eq!(fact("left-after-purge"), "");
}
