//! No way around: whatever a governed workload tries towards a server that would answer ends mediated, let through by a
//! rule, or refused, and is in the journal.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tests::{World, wait_until};

/// A server on every address of the world, TCP and UDP, that greets, tells in its log what it got, and sends it back.
const ECHO: &str = r"
import socket, sys, threading
port, v6 = int(sys.argv[1]), socket.AF_INET6
udp = socket.socket(v6, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
udp.bind(('::', port))
tcp = socket.create_server(('::', port), family=v6, dualstack_ipv6=True)
def datagrams():
    while True:
        data, peer = udp.recvfrom(2048)
        print('udp', data.decode(), flush=True)
        udp.sendto(data, peer)
def serve(connection):
    try:
        connection.sendall(b'hello\n')
        while data := connection.recv(2048):
            print('tcp', data.decode().strip(), flush=True)
            connection.sendall(data)
    except OSError:
        pass
threading.Thread(target=datagrams, daemon=True).start()
while True:
    threading.Thread(target=serve, args=tcp.accept()[:1], daemon=True).start()
";

/// Sends datagrams until one comes back, which it prints; refusals in between are counted, for the kernel asks who a
/// workload is at the first.
const ECHOED: &str = r"
import socket, sys, time
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ':' in address else socket.AF_INET
refused = 0
for attempt in range(100):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(2)
    try:
        s.sendto(b'asked', (address, port))
        print(s.recv(100).decode(), refused)
        break
    except PermissionError:
        refused += 1
        time.sleep(0.02)
else:
    print('refused', refused)
";

/// Opens a connection and prints the greeting.
const GREETED: &str = r"
import socket, sys
try:
    s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    print('greeted', s.recv(100).decode().strip())
except OSError as error:
    print(error)
";

const PORT: &str = "5353";
const V4: &str = "203.0.113.10";
const V6: &str = "2001:db8::10";

fn with_echo(world: World) -> World {
    for port in [PORT, "5354"] {
        world.server(&format!("echo-{port}"), "/usr/bin/python3", &["-c", ECHO, port], &format!("*:{port}"));
    }
    world
}

fn world() -> World {
    let world = with_echo(World::new());
    world.daemon();
    world
}

/// What the servers got.
fn heard(world: &World) -> String {
    let log = |port| fs::read_to_string(world.path(&format!("echo-{port}.log"))).unwrap();
    log(PORT) + &log("5354")
}

/// A refusal that names this destination.
#[track_caller]
fn refusal(world: &World, scheme: &str, dst: &str) -> Value {
    world.record("decision", |record| {
        record["verdict"] == "deny" && record["scheme"] == scheme && record["dst"] == dst
    })
}

fn grant(world: &World, rules: &str) {
    world.policy(
        "policies/python.toml",
        &format!("[identity]\nexe = \"{{root}}/bots/python3\"\n[[grant]]\nnetwork = {rules}\n"),
    );
}

#[test]
fn tcp_to_a_port_that_is_not_mediated_is_refused_over_every_family_and_recorded() {
    let world = world();
    for address in [V4, V6, "::ffff:203.0.113.10"] {
        // The first is told apart by the proxy, the second by the kernel.
        for attempt in 0..2 {
            let told = world.python(GREETED, &[address, PORT]);
            assert!(!told.stdout.contains("greeted hello"), "{address} {attempt}: {told:?}");
        }
    }
    let record = refusal(&world, "tcp", "203.0.113.10:5353");
    assert!(record["reason"].as_str().unwrap().contains("no network grant allows it"), "{record}");
    assert_eq!(record["identity"], "python");
    refusal(&world, "tcp", "[2001:db8::10]:5353");
    wait_until("a refusal in the kernel", || (world.counter("refused_network") > 0).then_some(()));
    assert_eq!(heard(&world), "");
}

#[test]
fn datagrams_are_refused_by_every_way_of_sending_them_and_recorded() {
    let world = world();
    let actor = || world.bot(world.path("bots/actor"));
    for address in [format!("{V4}:{PORT}"), format!("[{V6}]:{PORT}"), format!("[::ffff:{V4}]:{PORT}")] {
        for way in ["udp-connect", "udp-send", "udp-message", "udp-many", "uring-send"] {
            for _ in 0..2 {
                let told = actor().args([way, &address]).run();
                assert!(told.stdout.contains("not permitted"), "{way} {address}: {told:?}");
            }
        }
    }
    let record = refusal(&world, "udp", "203.0.113.10:5353");
    assert_eq!(record["identity"], "actor", "{record}");
    refusal(&world, "udp", "[2001:db8::10]:5353");
    assert_eq!(heard(&world), "");
}

#[test]
fn a_network_grant_opens_exactly_what_it_says_in_the_kernel_and_is_recorded() {
    let world = World::new();
    grant(&world, "[\"tcp 203.0.113.0/24:5353\", \"udp 203.0.113.10:5353\"]");
    let world = with_echo(world);
    world.daemon();
    for attempt in 0..2 {
        let told = world.python(GREETED, &[V4, PORT]);
        assert_eq!(told.stdout.trim(), "greeted hello", "{attempt}: {told:?}");
    }
    let told = world.python(ECHOED, &[V4, PORT]);
    assert!(told.stdout.starts_with("asked 0"), "the kernel knows it from its connections: {told:?}");
    // First through the proxy, then decided in the kernel.
    let through = |record: &Value| record["dst"] == "203.0.113.10:5353" && record["verdict"] == "allow";
    let record = world.record("decision", through);
    assert_eq!(record["rule"]["file"], "policies/python.toml", "{record}");
    for scheme in ["tcp", "udp"] {
        let record = world.record("connection", |record| through(record) && record["scheme"] == scheme);
        assert_eq!((&record["identity"], &record["rule"]["line"]), (&"python".into(), &4.into()), "{record}");
    }
    // Another port, another address, another protocol, another program.
    for (address, port) in [(V4, "5354"), (V6, PORT)] {
        let told = world.python(GREETED, &[address, port]);
        assert!(!told.stdout.contains("greeted hello"), "{address} {port}: {told:?}");
        let told = world.python(ECHOED, &[address, port]);
        assert!(told.stdout.starts_with("refused"), "{address} {port}: {told:?}");
    }
    let told = world.bot(world.path("bots/actor")).args(["udp-send", "203.0.113.10:5353"]).run();
    assert!(told.stdout.contains("not permitted"), "{told:?}");
    let log = world.vouchsafe(&["audit", "verify", world.path("state/journal").to_str().unwrap()]);
    assert_eq!(log.code, Some(0), "{log:?}");
}

#[test]
fn a_network_grant_that_ends_is_closed_at_that_moment_for_open_sockets_too_whatever_is_on_the_disk() {
    let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let world = with_echo(World::new());
    // Before the grant is: where a kernel is emulated, the start takes a good part of its life.
    world.daemon();
    let end = seconds() + 8;
    let until = Command::new("date").args(["-u", "-d", &format!("@{end}"), "+%Y-%m-%dT%H:%M:%SZ"]).output();
    let until = String::from_utf8(until.unwrap().stdout).unwrap();
    let policy = |rules: &str| {
        format!(
            "[identity]\nexe = \"{{root}}/bots/python3\"\n[[grant]]\nnetwork = {rules}\nuntil = {}\n\
             [[grant]]\nnetwork = [\"udp 203.0.113.10:5354\"]\n",
            until.trim()
        )
    };
    world.policy("policies/python.toml", &policy("[\"udp 203.0.113.10:5353\"]"));
    assert_eq!(world.vouchsafe(&["reload"]).code, Some(0));
    let told = world.python(ECHOED, &[V4, PORT]);
    assert!(told.stdout.starts_with("asked") && seconds() < end, "{told:?}");
    // A socket that is connected while it is open: it prints for how long it was answered.
    let kept = "import socket, sys, time\n\
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
                s.settimeout(0.5)\n\
                s.connect((sys.argv[1], int(sys.argv[2])))\n\
                last = 0\n\
                while time.time() < float(sys.argv[3]) + 3:\n\
                \x20   try:\n\
                \x20       s.send(b'kept')\n\
                \x20       s.recv(100)\n\
                \x20       last = time.time()\n\
                \x20   except OSError:\n\
                \x20       pass\n\
                \x20   time.sleep(0.05)\n\
                print(last)\n";
    // A policy that is refused goes on with the one before, and so does its end.
    world.policy("policies/broken.toml", "[identity]\n");
    let told = world.python(kept, &[V4, PORT, &end.to_string()]);
    let last: f64 = told.stdout.trim().parse().unwrap_or_else(|_| panic!("{told:?}"));
    let late = last - f64::from(u32::try_from(end).unwrap());
    assert!((-1.0..1.0).contains(&late), "answered until {late} s after the end");
    let told = world.python(ECHOED, &[V4, PORT]);
    assert!(told.stdout.starts_with("refused"), "{told:?}");
    let record = refusal(&world, "udp", "203.0.113.10:5353");
    let reason = record["reason"].as_str().unwrap();
    assert!(reason.contains("expired: ") && reason.contains(until.trim()), "{record}");
    let told = world.python(ECHOED, &[V4, "5354"]);
    assert!(told.stdout.starts_with("asked"), "the other grant goes on: {told:?}");
}

#[test]
fn what_the_host_opens_passes_at_the_first_datagram_for_everybody() {
    let world = World::new();
    world.set("network.allow", "[\"udp 203.0.113.10:5353\", \"tcp [2001:db8::]/32:*\"]");
    let world = with_echo(world);
    world.daemon();
    world.copy("/usr/bin/python3", "elsewhere/stranger");
    for program in ["bots/python3", "elsewhere/stranger"] {
        let run = |script, arguments: &[&str]| {
            world.bot(world.path(program)).args(["-c", script]).args(arguments).run()
        };
        assert_eq!(run(ECHOED, &[V4, PORT]).stdout.trim(), "asked 0", "{program}");
        assert_eq!(run(GREETED, &[V6, PORT]).stdout.trim(), "greeted hello", "{program}");
        // DNS is no tunnel: only to the address that is named.
        assert!(run(ECHOED, &["203.0.113.11", PORT]).stdout.starts_with("refused"), "{program}");
        assert!(run(ECHOED, &[V4, "5354"]).stdout.starts_with("refused"), "{program}");
    }
}

#[test]
fn a_workload_that_no_policy_knows_is_refused_or_passes_as_the_host_says() {
    for (setting, passes) in [("deny", false), ("pass", true)] {
        let world = World::new();
        world.set("unidentified", &format!("\"{setting}\""));
        let world = with_echo(world);
        world.daemon();
        world.copy("/usr/bin/python3", "elsewhere/stranger");
        let run = |script, arguments: &[&str]| {
            world.bot(world.path("elsewhere/stranger")).args(["-c", script]).args(arguments).run()
        };
        for _ in 0..2 {
            let told = run(GREETED, &[V4, PORT]);
            assert_eq!(told.stdout.trim() == "greeted hello", passes, "{setting}: {told:?}");
        }
        let told = run(ECHOED, &[V4, PORT]);
        assert_eq!(told.stdout.starts_with("asked"), passes, "{setting}: {told:?}");
        if !passes {
            let record = refusal(&world, "udp", "203.0.113.10:5353");
            assert!(record["reason"].as_str().unwrap().contains("no identity matches"), "{record}");
        }
    }
}

#[test]
fn sockets_of_other_kinds_are_not_given_and_it_is_recorded() {
    let world = world();
    let packets = world.status()["kernel"]["lacks"].as_array().unwrap().is_empty();
    let script = r"
import socket, sys
def attempt(name, *arguments):
    try:
        socket.socket(*arguments)
        print(name, 'given')
    except OSError as error:
        print(name, error.strerror)
attempt('raw', socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
attempt('icmp', socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
attempt('icmpv6', socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
attempt('sctp', socket.AF_INET, socket.SOCK_STREAM, 132)
attempt('dccp', socket.AF_INET, 6, 33)
attempt('udplite', socket.AF_INET, socket.SOCK_DGRAM, 136)
if sys.argv[1] == 'True':
    attempt('packet', socket.AF_PACKET, socket.SOCK_RAW, 0x300)
    attempt('vsock', socket.AF_VSOCK, socket.SOCK_STREAM)
";
    let told = world.python(script, &[if packets { "True" } else { "False" }]);
    assert!(told.stdout.lines().count() >= 6 && !told.stdout.contains("given"), "{told:?}");
    for name in ["raw", "icmp", "icmpv6"] {
        assert!(told.stdout.contains(&format!("{name} Operation not permitted")), "{told:?}");
        let record = world.record("decision", |record| record["scheme"] == name);
        assert!(record["reason"].as_str().unwrap().contains("was not given"), "{record}");
        assert_eq!(record["identity"], "python", "{record}");
    }
    if packets {
        assert!(told.stdout.contains("packet Operation not permitted"), "{told:?}");
        world.record("decision", |record| record["scheme"] == "family-17");
    }
}

#[test]
fn an_identity_that_makes_the_hosts_network_work_gets_every_kind_of_socket() {
    let world = World::new();
    grant(&world, "[\"any\"]");
    let world = with_echo(world);
    world.daemon();
    // The kernel knows the program from here on.
    assert_eq!(world.python(GREETED, &[V4, PORT]).stdout.trim(), "greeted hello");
    let script = r"
import socket
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
raw.sendto(bytes.fromhex('14e914e9000b0000') + b'raw', ('203.0.113.10', 0))
socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300)
print('given')
";
    assert_eq!(world.python(script, &[]).stdout.trim(), "given");
    wait_until("the raw datagram", || heard(&world).contains("udp raw").then_some(()));
    assert!(world.python(ECHOED, &[V4, PORT]).stdout.starts_with("asked 0"));
    // What is mediated stays mediated.
    let told = world.bot("python3").args(["-c", ECHOED, V4, "443"]).run();
    assert!(told.stdout.starts_with("refused"), "{told:?}");
}

#[test]
fn a_socket_from_before_the_start_sends_nothing_any_more_but_accepted_connections_go_on() {
    let world = with_echo(World::new());
    let script = r"
import socket, sys
tcp = socket.create_connection(('203.0.113.10', 5353), 5)
tcp.recv(100)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.connect(('203.0.113.10', 5353))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
print('ready', flush=True)
sys.stdin.readline()
for name, s, data in [('tcp', tcp, b'late'), ('udp', udp, b'late'),
        ('raw', raw, bytes.fromhex('14e914e9000c0000') + b'late')]:
    s.settimeout(1)
    try:
        s.send(data) if name != 'raw' else s.sendto(data, ('203.0.113.10', 0))
        print(name, s.recv(100) if name != 'raw' else 'sent')
    except OSError as error:
        print(name, 'refused' if isinstance(error, PermissionError) else 'silence')
";
    let mut bot = world.bot("python3").args(["-c", script]).spawn();
    assert_eq!(bot.line(), "ready");
    // A governed server, and a client of it that is not governed.
    let server = r"
import socket
listener = socket.create_server(('203.0.113.10', 7000))
print('ready', flush=True)
for _ in range(2):
    connection, _ = listener.accept()
    connections = globals().setdefault('kept', [])
    connections.append(connection)
    print('accepted', flush=True)
    input()
    connection.sendall(b'answer')
";
    let mut server = world.bot("python3").args(["-c", server]).spawn();
    assert_eq!(server.line(), "ready");
    let client = "import socket; s = socket.create_connection(('203.0.113.10', 7000)); print('ready', flush=True)\n\
                  print(s.recv(100))";
    let client = || world.bot("/usr/bin/python3").outside().args(["-c", client]).spawn();
    let mut before = client();
    assert_eq!((before.line(), server.line()), ("ready".into(), "accepted".into()));

    world.daemon();
    bot.say("go");
    assert_eq!(bot.rest(), "tcp silence\nudp refused\nraw refused\n");
    assert_eq!(heard(&world), "");
    let record = world.record("decision", |record| {
        record["scheme"] == "tcp" && record["reason"].as_str().unwrap().contains("older than vouchsafe")
    });
    assert!(record["workload"]["cgroup_path"].as_str().unwrap().ends_with("/governed/bots"), "{record}");
    assert!(world.counter("dropped_unvetted") >= 3);

    server.say("answer");
    assert_eq!(before.rest(), "b'answer'\n", "it was accepted before the start");
    let mut after = client();
    assert_eq!((after.line(), server.line()), ("ready".into(), "accepted".into()));
    server.say("answer");
    assert_eq!(after.rest(), "b'answer'\n", "it was accepted after the start");
}

#[test]
fn fast_open_and_multipath_are_mediated_like_any_other_connection() {
    let world = world();
    let sysctl = "echo 3 > /proc/sys/net/ipv4/tcp_fastopen";
    assert!(world.enter(None).args(["sh", "-c", sysctl]).status().unwrap().success());
    let script = r"
import os, socket, sys
way, path, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
request = f'GET {path} HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n'.encode()
protocol = 262 if way == 'mptcp' else 0
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
try:
    if way == 'tfo':
        s.sendto(request, socket.MSG_FASTOPEN, ('203.0.113.10', port))
        s.settimeout(5)
    else:
        s.settimeout(5)
        s.connect(('203.0.113.10', port))
        s.sendall(request)
    print(s.recv(1000).decode().split('\n')[0])
except OSError as error:
    print(error)
";
    for way in ["tfo", "mptcp"] {
        if way == "mptcp" && !std::path::Path::new("/proc/sys/net/mptcp").exists() {
            let told = world.python(script, &[way, "/v1/none", "80"]);
            assert!(told.stderr.contains("not supported"), "this kernel has no MPTCP: {told:?}");
            continue;
        }
        // The second fast open has a cookie, and sends with its SYN.
        for _ in 0..2 {
            let path = format!("/v1/{way}");
            let told = world.python(script, &[way, &path, "80"]);
            assert!(told.stdout.contains("200 OK"), "{way}: {told:?}");
            assert_eq!(world.decision(Some(&path))["identity"], "python");
            let told = world.python(script, &[way, "/v1/around", PORT]);
            assert!(!told.stdout.contains("hello"), "{way}: {told:?}");
        }
    }
    refusal(&world, "tcp", "203.0.113.10:5353");
    assert_eq!(heard(&world), "");
}

#[test]
fn io_uring_is_no_way_around() {
    let world = world();
    let told = world.bot(world.path("bots/actor")).args(["uring-get", "203.0.113.10:80", "/v1/uring"]).run();
    assert!(told.stdout.contains("HTTP/1.1 200"), "{told:?}");
    assert_eq!(world.decision(Some("/v1/uring"))["identity"], "actor");
    for _ in 0..2 {
        let told =
            world.bot(world.path("bots/actor")).args(["uring-get", "203.0.113.10:5353", "/v1/around"]).run();
        assert!(!told.stdout.contains("hello"), "{told:?}");
    }
    refusal(&world, "tcp", "203.0.113.10:5353");
    assert_eq!(heard(&world), "");
}

#[test]
fn moving_to_another_cgroup_or_starting_a_child_there_changes_nothing() {
    let world = World::new();
    let top = world.governed().parent().unwrap().to_owned();
    world.set("kernel.cgroup", &format!("{:?}", top.to_str().unwrap()));
    let world = with_echo(world);
    world.daemon();
    let (outside, curl) = (top.join("outside/cgroup.procs"), world.path("bots/curl"));
    let script = format!(
        "echo $$ > {outside}; exec {curl} -sS https://api.test/v1/moved",
        outside = outside.display(),
        curl = curl.display()
    );
    let told = world.bot("/bin/sh").args(["-c", &script]).run();
    assert!(told.stdout.contains("\"key\":\"ours\""), "{told:?}");
    let record = world.decision(Some("/v1/moved"));
    assert_eq!(record["identity"], "curl");
    assert!(record["workload"]["cgroup_path"].as_str().unwrap().ends_with("/outside"), "{record}");

    let script = "import os, socket, sys\n\
                  pid = os.fork()\n\
                  if pid: os.waitpid(pid, 0); sys.exit()\n\
                  open(sys.argv[1], 'w').write(str(os.getpid()))\n\
                  try: print(socket.create_connection(('203.0.113.10', 5353), 5).recv(10))\n\
                  except OSError as error: print(error)";
    for _ in 0..2 {
        let told = world.python(script, &[outside.to_str().unwrap()]);
        // Closed by the proxy, or refused by the kernel.
        let ended = told.stdout.contains("b''") || told.stdout.contains("not permitted");
        assert!(ended || told.stdout.contains("reset"), "{told:?}");
    }
    refusal(&world, "tcp", "203.0.113.10:5353");
    assert_eq!(heard(&world), "");
}

#[test]
fn a_socket_that_a_process_of_another_cgroup_lends_is_that_processs() {
    let world = World::new();
    let top = world.governed().parent().unwrap().to_owned();
    world.set("kernel.cgroup", &format!("{:?}", top.to_str().unwrap()));
    world.daemon();
    let lender = r"
import array, socket, sys
lent = socket.create_connection(('203.0.113.10', 80), 5)
listener = socket.socket(socket.AF_UNIX); listener.bind(sys.argv[1]); listener.listen()
print('ready', flush=True)
connection, _ = listener.accept()
connection.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [lent.fileno()]))])
";
    let borrower = r"
import array, socket, sys
way = socket.socket(socket.AF_UNIX); way.connect(sys.argv[1])
_, ancillary, _, _ = way.recvmsg(1, socket.CMSG_SPACE(4))
s = socket.socket(fileno=array.array('i', ancillary[0][2])[0])
s.settimeout(5)
s.sendall(b'GET /v1/lent HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n')
print(s.recv(1000).decode().split('\n')[0])
";
    let path = world.path("way");
    let path = path.to_str().unwrap();
    let mut lending = world.bot("/usr/bin/python3").outside().args(["-c", lender, path]).spawn();
    assert_eq!(lending.line(), "ready");
    let told = world.python(borrower, &[path]);
    assert!(told.stdout.contains("403"), "{told:?}");
    let record = world.decision(Some("/v1/lent"));
    assert_eq!(record["identity"], Value::Null, "{record}");
}

#[test]
fn a_network_namespace_of_its_own_is_no_way_around() {
    let world = world();
    let script = format!(
        "ip link set lo up; ip addr add {V4}/32 dev lo\n\
         /usr/bin/python3 -c \"$1\" {PORT} >/dev/null 2>&1 & server=$!\n\
         /usr/bin/python3 -c \"$1\" 5354 >/dev/null 2>&1 & second=$!\n\
         for _ in $(seq 100); do [ $(ss -Hltn | wc -l) = 2 ] && break; sleep 0.05; done\n\
         for port in 5354 {PORT}; do {python} -c \"$2\" {V4} $port; done\n\
         {python} -c \"$3\" {V4} {PORT}; kill $server $second",
        python = world.path("bots/python3").display()
    );
    let told =
        world.bot("/usr/bin/unshare").args(["-n", "sh", "-c", &script, "sh", ECHO, GREETED, ECHOED]).run();
    let lines: Vec<&str> = told.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{told:?}");
    assert!(lines[..2].iter().all(|line| !line.contains("hello")), "{told:?}");
    assert!(lines[2].starts_with("refused"), "{told:?}");
    refusal(&world, "udp", "203.0.113.10:5353");
}

#[test]
fn a_grant_that_is_taken_back_ends_open_connections_and_others_go_on() {
    let world = World::new();
    grant(&world, "[\"tcp 203.0.113.10:5353\", \"tcp 203.0.113.10:5354\"]");
    let world = with_echo(world);
    world.daemon();
    // The kernel knows the program from here on.
    assert_eq!(world.python(GREETED, &[V4, PORT]).stdout.trim(), "greeted hello");
    let script = r"
import socket, sys
kept = [socket.create_connection(('203.0.113.10', port), 5) for port in (5353, 5354)]
for s in kept: s.recv(100)
print('connected', flush=True)
sys.stdin.readline()
for s, wait in zip(kept, (1, 20)):
    s.settimeout(wait)
    try:
        s.sendall(b'after')
        print(s.recv(100).decode(), flush=True)
    except OSError as error:
        print('no answer', flush=True)
";
    let mut bot = world.bot("python3").args(["-c", script]).spawn();
    assert_eq!(bot.line(), "connected");
    world.record("connection", |record| record["dst"] == "203.0.113.10:5354");
    grant(&world, "[\"tcp 203.0.113.10:5354\"]");
    assert_eq!(world.reload().code, Some(0));
    bot.say("go");
    assert_eq!(bot.rest(), "no answer\nafter\n");
    refusal(&world, "tcp", "203.0.113.10:5353");
    assert_eq!(heard(&world), "tcp after\n");
}
