//! The stores of other distributions: their folders, and p11-kit's own `trust`, which their tools are scripts around.

use std::fs;

use super::machine::{Authority, Machine, certificates, same};

/// p11-kit reads these folders, as the distribution builds it to; the roots of this host are what it ships.
fn distribution(sources: &str, shipped: &str, tool: &str, script: &str) -> Machine {
    let machine = Machine::new();
    machine
        .shell(&format!(
            "set -e; rm /usr/sbin/update-ca-certificates
             sed -i \"s|^x-init-reserved:.*|x-init-reserved: paths='{sources}'|\" /usr/share/p11-kit/modules/p11-kit-trust.module
             mkdir -p {shipped}; cat /usr/share/ca-certificates/mozilla/*.crt >{shipped}/mozilla.pem
             cat >{tool} <<'END'\n#!/bin/sh\nset -e\n{script}\nEND\nchmod 755 {tool}"
        ))
        .well();
    machine
}

const EXTRACT: &str =
    "trust extract --overwrite --format=pem-bundle --filter=ca-anchors --purpose server-auth";

/// Installs, calls, refreshes and removes: the folder of anchors and the bundle are as they were.
fn serves(machine: &Machine, family: &str, anchors: &str, bundle: &str, run: &str) {
    let (old, new) = (Authority::new("Vouchsafe CA test"), Authority::new("Vouchsafe CA test"));
    machine.roots(&[&old]);
    let tree = machine.tree("/etc /usr/share/pki");
    let said = machine.run("install").well();
    for words in [family, &format!("write   {anchors}/vouchsafe-"), &format!("run     {run}\n")] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    machine.run("status").well();
    assert!(machine.run("install").well().ends_with("nothing to change\n"));
    let call = format!("curl -sS -o /dev/null -w '%{{http_code}}' --cacert {bundle} https://api.demo.test/");
    {
        let _server = machine.serve(&old);
        assert_eq!(machine.shell(&call).out, "200");
    }
    machine.roots(&[&new]);
    machine.run("refresh").well();
    {
        let _server = machine.serve(&new);
        assert_eq!(machine.shell(&call).out, "200");
    }
    assert_eq!(machine.shell(&format!("ls {anchors} | wc -l")).well(), "1\n", "the old one is gone");
    machine.run("remove").well();
    same(&machine.tree("/etc /usr/share/pki"), &tree, "nothing is left of it");
    let left = machine.shell(&format!("cat {bundle}")).well();
    assert!(left.matches("BEGIN CERTIFICATE").count() > 100 && !left.contains("Vouchsafe"));
}

#[test]
fn the_store_of_fedora_takes_the_roots_and_gives_them_back() {
    let bundle = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem";
    let machine = distribution(
        "/etc/pki/ca-trust/source:/usr/share/pki/ca-trust-source",
        "/usr/share/pki/ca-trust-source/anchors",
        "/usr/bin/update-ca-trust",
        &format!("[ \"$1\" = extract ] && {EXTRACT} --comment {bundle}"),
    );
    machine.shell("mkdir -p /etc/pki/ca-trust/source/anchors /etc/pki/ca-trust/extracted/pem; update-ca-trust extract").well();
    serves(
        &machine,
        "Fedora",
        "/etc/pki/ca-trust/source/anchors",
        bundle,
        "/usr/bin/update-ca-trust extract",
    );
}

#[test]
fn the_store_of_arch_takes_the_roots_and_gives_them_back() {
    let bundle = "/etc/ca-certificates/extracted/tls-ca-bundle.pem";
    let machine = distribution(
        "/etc/ca-certificates/trust-source:/usr/share/ca-certificates/trust-source",
        "/usr/share/ca-certificates/trust-source/anchors",
        "/usr/bin/update-ca-trust",
        &format!("{EXTRACT} --comment {bundle}"),
    );
    machine.shell("mkdir -p /etc/ca-certificates/trust-source/anchors /etc/ca-certificates/extracted; update-ca-trust").well();
    serves(&machine, "Arch", "/etc/ca-certificates/trust-source/anchors", bundle, "/usr/bin/update-ca-trust");
}

#[test]
fn the_store_of_suse_takes_the_roots_and_gives_them_back() {
    let bundle = "/var/lib/ca-certificates/ca-bundle.pem";
    let machine = distribution(
        "/etc/pki/trust:/usr/share/pki/trust",
        "/usr/share/pki/trust/anchors",
        "/usr/sbin/update-ca-certificates",
        &format!("[ \"$1\" = -f ] && {EXTRACT} {bundle}"),
    );
    machine
        .shell("mkdir -p /etc/pki/trust/anchors /var/lib/ca-certificates; update-ca-certificates -f")
        .well();
    serves(&machine, "SUSE", "/etc/pki/trust/anchors", bundle, "/usr/sbin/update-ca-certificates -f");
}

#[test]
fn a_tool_that_only_knows_the_folder_serves_as_on_alpine_also_where_the_folder_is_not_there_yet() {
    let machine = Machine::new();
    // As ca-certificates of Alpine: links, and one bundle of all; nothing is told what is gone.
    let script = "find /etc/ssl/certs -type l ! -exec test -e {} \\; -delete
        for file in /usr/local/share/ca-certificates/*.crt; do
            [ -e \"$file\" ] && ln -sf \"$file\" \"/etc/ssl/certs/ca-cert-$(basename \"$file\" .crt).pem\"
        done
        cat /usr/share/ca-certificates/mozilla/*.crt /usr/local/share/ca-certificates/*.crt 2>/dev/null >/etc/ssl/certs/new || true
        mv /etc/ssl/certs/new /etc/ssl/certs/ca-certificates.crt";
    machine
        .shell(&format!(
            "rm -rf /usr/local/share/ca-certificates; cat >/usr/sbin/update-ca-certificates <<'END'\n#!/bin/sh\n{script}\nEND\n\
             update-ca-certificates"
        ))
        .well();
    let tree = machine.tree("/etc /usr/local/share");
    machine.roots(&[&Authority::new("Vouchsafe CA test")]);
    let said = machine.run("install").well();
    assert!(
        said.contains("Alpine") && said.contains("create  /usr/local/share/ca-certificates/\n"),
        "{said}"
    );
    machine.run("status").well();
    machine.run("remove").well();
    same(&machine.tree("/etc /usr/local/share"), &tree, "the folder that was made is gone as well");
}

#[test]
fn a_host_without_a_store_says_so_and_still_gets_what_needs_none() {
    let machine = Machine::new();
    machine.roots(&[&Authority::new("Vouchsafe CA test")]);
    machine.shell("rm /usr/sbin/update-ca-certificates").well();
    machine.run("install").failed_with(&["none of the tools", "NixOS", "--unit"]);
    // The system's bundle is there, whoever made it.
    assert!(certificates(&machine.at("up/etc/vouchsafe/trust/bundle.pem")) > 100);
    machine.run("status").well();
    machine.shell("rm /etc/ssl/certs/ca-certificates.crt; rm -rf /etc/vouchsafe").well();
    machine.run("install --bundle").failed_with(&["none of the tools"]);
    assert!(fs::read_dir(machine.at("up/etc")).unwrap().all(|it| it.unwrap().file_name() != "trust"));
}
