//! What keeps the daemon from starting is told: what, where, what to do.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::Command;

use tests::wire::Dialer;
use tests::{World, wait_until};

/// Runs a daemon that must not start behind another program, which comes when cgroup and network are those of the
/// world, and returns what it said.
fn start_behind(world: &World, wrapper: &[&str]) -> String {
    let daemon = world.daemon_command();
    let words: Vec<_> = daemon.get_args().map(|word| word.to_str().unwrap().to_owned()).collect();
    let program = words.iter().position(|word| word == "env").unwrap();
    let mut command = Command::new(daemon.get_program());
    command.args(&words[..program]).args(wrapper).args(&words[program..]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// As [`start_behind`], with something hidden in a mount namespace of its own.
fn start_with(world: &World, prepare: &str) -> String {
    start_behind(world, &["unshare", "--mount", "--", "sh", "-c", &format!("{prepare} && exec \"$@\""), "sh"])
}

#[track_caller]
fn tells(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    assert!(!said.contains("panicked") && !said.contains("stack backtrace"), "{said}");
}

#[test]
fn without_cgroup_v2_it_says_so() {
    let world = World::new();
    let said = start_with(&world, "umount -a -t cgroup2");
    tells(&said, &["no cgroup v2", "mount -t cgroup2"]);
}

#[test]
fn without_btf_it_says_which_kernels_have_it() {
    let world = World::new();
    let said = start_with(&world, "mount -t tmpfs none /sys/kernel/btf");
    tells(&said, &["no BTF at /sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"]);
}

#[test]
fn without_permission_it_says_what_it_needs() {
    let world = World::new();
    // As root by name, with none of root's powers over BPF.
    let capabilities = "-bpf,-sys_admin,-perfmon,-net_admin";
    let said = start_behind(&world, &["setpriv", "--bounding-set", capabilities, "--inh-caps", capabilities]);
    tells(&said, &["no permission to", "CAP_BPF"]);
}

#[test]
fn a_cgroup_that_is_none_is_named() {
    let world = World::new();
    world.set("kernel.cgroup", "\"/tmp\"");
    tells(&world.start_fails(), &["kernel.cgroup /tmp", "not a cgroup of the v2 hierarchy"]);
    world.set("kernel.cgroup", "\"/nonexistent/group\"");
    tells(&world.start_fails(), &["kernel.cgroup /nonexistent/group", "No such file"]);
}

#[test]
fn pins_that_are_not_on_a_bpf_file_system_are_refused_with_the_mount_command() {
    let world = World::new();
    world.set("kernel.pin", "\"/tmp/pins\"");
    tells(&world.start_fails(), &["kernel.pin /tmp/pins", "mount -t bpf bpf /sys/fs/bpf"]);
}

#[test]
fn a_port_in_use_is_told_with_the_command_that_shows_by_whom() {
    let world = World::start();
    let port = world.status()["listeners"][0].as_str().unwrap().to_owned();
    assert_eq!(world.terminate(), Some(0));
    let (address, number) = port.rsplit_once(':').unwrap();
    world.server(
        "squatter",
        "python3",
        &["-c", &format!("import socket,time\ns=socket.socket()\ns.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\ns.bind(('{address}',{number}))\ns.listen()\ntime.sleep(60)")],
        &port,
    );
    tells(&world.start_fails(), &[&format!("{port} is in use"), "ss -ltnp"]);
}

#[test]
fn a_restart_does_not_wait_for_the_connections_of_the_last_run() {
    let world = World::start();
    let mut stream = Dialer::new(&world).tls("203.0.113.10:443", "api.test");
    stream.write_all(b"GET /v1/x HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n\r\n").unwrap();
    // The daemon closes first, so that its end stays in TIME_WAIT when this one is closed, too.
    stream.read_to_end(&mut Vec::new()).unwrap();
    // Not TLS only: also TCP.
    stream.sock.read_to_end(&mut Vec::new()).unwrap();
    drop(stream);
    let waiting = || {
        let found = world.enter(None).args(["ss", "-Htn", "state", "time-wait", "sport = :15001"]).output();
        !found.unwrap().stdout.is_empty()
    };
    wait_until("a connection in TIME_WAIT", || waiting().then_some(()));
    world.restart();
    assert!(waiting(), "the test has to restart while it is there");
}

#[test]
fn a_second_daemon_on_the_same_state_is_refused() {
    let world = World::start();
    tells(&world.start_fails(), &["another vouchsafe daemon"]);
    assert_eq!(world.curl(&["https://api.test/v1/x"]).status, 200, "the first one goes on");
}

#[test]
fn a_policy_with_an_error_keeps_the_daemon_from_starting_and_every_error_is_told() {
    let world = World::new();
    world.policy("policies/curl.toml", "[identity]\nexee = \"/bin/true\"\n");
    world.policy("apis/apis.toml", "[api.demo]\nhosts = 7\n");
    tells(&world.start_fails(), &["policies/curl.toml:2:1", "did you mean \"exe\"", "apis/apis.toml:2:9"]);
}

#[test]
fn files_that_others_may_write_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let file = world.path("etc/policies/curl.toml");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    tells(&world.start_fails(), &["curl.toml", "writable by everybody", "chmod go-w"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::chown(&file, Some(4242), None).unwrap();
    tells(&world.start_fails(), &["curl.toml", "uid 4242"]);
    std::os::unix::fs::chown(&file, Some(0), None).unwrap();
    fs::set_permissions(world.config(), fs::Permissions::from_mode(0o666)).unwrap();
    tells(&world.start_fails(), &["vouchsafe.toml", "writable by everybody"]);
}

#[test]
fn a_restart_takes_another_list_of_ports() {
    let world = World::new();
    world.set("network.allow", "[\"tcp 203.0.113.10:8443\"]");
    world.daemon();
    let before = world.curl(&["-4", "https://api.test:8443/v1/x"]);
    assert_eq!(before.status, 401, "not mediated: the API itself answers; {before:?}");
    world.set("kernel.ports", "[80, 443, 8443]");
    world.policy("apis/more.toml", "[api.more]\nhosts = [\"v6.test:8443\"]\n");
    world.restart();
    let resolve = ["--resolve", "v6.test:8443:203.0.113.10"];
    let answer = world.curl(&[resolve[0], resolve[1], "https://v6.test:8443/v1/x"]);
    assert_eq!(answer.status, 403, "mediated now, and not granted: {answer:?}");
}
