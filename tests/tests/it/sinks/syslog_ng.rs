//! syslog-ng, which demands a client certificate.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tests::{World, wait_until};

use super::authority::Authority;
use super::{lines, seqs, status};

/// Where syslog-ng is, and where what it links to is. Its package would put the one of rsyslog away, which other tests need: it is unpacked and
/// not installed.
fn syslog_ng() -> (PathBuf, PathBuf) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("syslog-ng");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = std::fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let (root, done) = (folder.join("root"), folder.join("unpacked"));
    if !done.exists() {
        let debs = folder.join("debs");
        let _ = std::fs::remove_dir_all(&debs);
        std::fs::create_dir_all(debs.join("partial")).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).output().unwrap();
            assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        };
        let cache = format!("Dir::Cache::archives={}/", debs.display());
        let get = [
            "--download-only",
            "--yes",
            "--no-install-recommends",
            "-o",
            &cache,
            "-o",
            "APT::Sandbox::User=root",
        ];
        // With what it needs and this host has not.
        let install = [&get[..], &["install", "--reinstall", "syslog-ng-core"]].concat();
        if !Command::new("apt-get").args(&install).output().unwrap().status.success() {
            // The index may be an old one, or none.
            run("apt-get", &["update"]);
            run("apt-get", &install);
        }
        for deb in std::fs::read_dir(&debs).unwrap().flatten().map(|entry| entry.path()) {
            if deb.extension().is_some_and(|end| end == "deb") {
                run("dpkg-deb", &["-x", deb.to_str().unwrap(), root.to_str().unwrap()]);
            }
        }
        std::fs::write(&done, "").unwrap();
    }
    let of_it = root.join("usr/lib/syslog-ng");
    (root, of_it)
}

const CONFIG: &str = r#"@version: current
options { stats-freq(0); log-msg-size(1048576); keep-hostname(yes); };
source s_vouchsafe {
  syslog(ip("127.0.0.1") port(6514) transport("tls") max-connections(10)
    tls(key-file("server.key") cert-file("server.pem") ca-file("clients.pem") peer-verify(required-trusted)));
};
destination d_vouchsafe {
  file("syslog.jsonl" flush-lines(1) template("$(format-json pri=$PRI host=$HOST program=$PROGRAM msgid=$MSGID
    seq=${.SDATA.vouchsafe@32473.seq} hash=${.SDATA.vouchsafe@32473.hash} verdict=${.SDATA.vouchsafe@32473.verdict}
    path=${.SDATA.vouchsafe@32473.path} msg=$MSG)\n"));
};
log { source(s_vouchsafe); destination(d_vouchsafe); };
"#;

fn start(world: &World) {
    let (root, libraries) = syslog_ng();
    let at = |name: &str| world.path(name).display().to_string();
    let mut versions = std::fs::read_dir(&libraries).unwrap().flatten().map(|entry| entry.path());
    let modules = versions.find(|path| path.join("libaffile.so").exists()).unwrap();
    // Some packages still have their libraries outside of `usr`.
    let more = ["usr/lib", "lib"].into_iter().filter_map(|lib| std::fs::read_dir(root.join(lib)).ok());
    let more: Vec<String> =
        more.flatten().flatten().map(|entry| entry.path().display().to_string()).collect();
    let search = format!("LD_LIBRARY_PATH={}:{}", libraries.display(), more.join(":"));
    let program = root.join("usr/sbin/syslog-ng").display().to_string();
    let (conf, persist, pid, control) =
        (at("syslog-ng.conf"), at("sng.persist"), at("sng.pid"), at("sng.ctl"));
    let modules = format!("--module-path={}", modules.display());
    let arguments = [
        &search,
        &program,
        "-F",
        "-e",
        "--no-caps",
        &modules,
        "-f",
        &conf,
        "-R",
        &persist,
        "-p",
        &pid,
        "-c",
        &control,
    ];
    world.server("syslog-ng", "env", &arguments, "127.0.0.1:6514");
}

#[test]
fn syslog_ng_that_demands_a_certificate_gets_every_record_from_who_has_it_and_nothing_from_others() {
    let world = World::new();
    let (servers, clients, others) =
        (Authority::new("servers"), Authority::new("clients"), Authority::new("others"));
    let (certificate, key) = servers.issue("siem.corp.example");
    world.write("server.pem", &certificate);
    world.write("server.key", &key);
    world.write("clients.pem", &clients.pem);
    world.write("syslog-ng.conf", CONFIG);
    let roots = world.write("servers.pem", &servers.pem);
    world.set("journal.sinks.siem.kind", "\"syslog\"");
    world.set("journal.sinks.siem.address", "\"tls://127.0.0.1:6514\"");
    world.set("journal.sinks.siem.name", "\"siem.corp.example\"");
    world.set("journal.sinks.siem.roots", &format!("[\"{}\"]", roots.display()));
    start(&world);
    world.daemon();
    assert_eq!(world.curl(&["https://api.test/v1/first"]).status, 200);
    let refused = |why: &str| {
        wait_until(why, || (status(&world, "siem")["health"]["state"] == "degraded").then_some(()));
        assert_eq!(lines(&world, "syslog.jsonl").len(), 0, "{why}");
    };
    refused("none is refused");
    assert_eq!(world.terminate(), Some(0));
    let (certificate, key) = others.issue("vouchsafe-host-7");
    world.secret("siem-cert", &certificate);
    world.secret("siem-cert-key", &key);
    world.set("journal.sinks.siem.client_certificate", "\"vault:siem-cert\"");
    world.set("journal.sinks.siem.client_key", "\"vault:siem-cert-key\"");
    world.daemon();
    refused("a foreign one is refused");
    let (certificate, key) = clients.issue("vouchsafe-host-7");
    world.secret("siem-cert", &certificate);
    world.secret("siem-cert-key", &key);
    let denied = world.bot(world.path("elsewhere/curl")).curl(&["https://api.test/v1/denied"]);
    assert_ne!(denied.status, 200);
    let records = |there: &[Value]| -> Vec<Value> {
        there.iter().map(|line| serde_json::from_str(line["msg"].as_str().unwrap()).unwrap()).collect()
    };
    let there = wait_until("all records at syslog-ng", || {
        let there = lines(&world, "syslog.jsonl");
        (seqs(&records(&there)) == seqs(&world.journal())).then_some(there)
    });
    for (line, record) in there.iter().zip(records(&there)) {
        assert_eq!(line["seq"], record["seq"].to_string());
        assert_eq!((&line["hash"], &line["msgid"]), (&record["hash"], &record["kind"]));
        assert_eq!(line["program"], "vouchsafe");
    }
    let denied = there.iter().find(|line| line["verdict"] == "deny").unwrap();
    assert_eq!(denied["pri"], "84");
    let called = there.iter().find(|line| line["msgid"] == "outcome").unwrap();
    assert_eq!((&called["path"], &called["verdict"]), (&"/v1/first".into(), &"allow".into()));
    // What was held back is let go of when it stood long enough.
    wait_until("nothing is left", || (status(&world, "siem")["behind"] == 0).then_some(()));
    assert!(!world.log().contains("PRIVATE KEY"));
}
