//! `connect4` and `connect6`: capture the workload, remember the origin, turn the destination to the proxy.
use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid,
        generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    },
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use aya_log_ebpf::debug;
use proxy_common::{
    Counter, DaemonSlot, EVENT_PROTOCOL, EVENT_PROXY, FAMILY_MAPPED, FAMILY_V4, FAMILY_V6, ProxyConfig,
    SocketState, VETTED_ALLOWED, VETTED_DAEMON, VETTED_TURNED, mapped,
};

use crate::{
    capture,
    maps::{CONFIG, DAEMON, SOCKETS, count, is_mediated},
    network::{self, Answer, Target},
};

/// Verdicts of a `cgroup/connect*` program; refused is EPERM to the caller.
const PASS: i32 = 1;
const REFUSE: i32 = 0;

const SOCK_STREAM: u32 = 1;
pub const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;

/// What becomes of one connect.
enum Verdict {
    Pass,
    Refuse,
    Turn(ProxyConfig),
}

#[cgroup_sock_addr(connect4)]
pub fn on_connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel hands a valid context; these are loads that the verifier rewrites.
    let (ip, port) = unsafe { ((*ctx.sock_addr).user_ip4, (*ctx.sock_addr).user_port) };
    match decide(&ctx, FAMILY_V4, mapped(ip.to_ne_bytes()), u16::from_be(port as u16)) {
        Verdict::Pass => PASS,
        Verdict::Refuse => REFUSE,
        Verdict::Turn(config) => {
            // SAFETY: as above; connect4 may write these two fields.
            unsafe {
                (*ctx.sock_addr).user_ip4 = u32::from_ne_bytes(config.listen_v4);
                (*ctx.sock_addr).user_port = u32::from(config.port_v4.to_be());
            }
            PASS
        }
    }
}

#[cgroup_sock_addr(connect6)]
pub fn on_connect6(ctx: SockAddrContext) -> i32 {
    let dst = user_ip6(&ctx);
    // SAFETY: as in on_connect4.
    let port = unsafe { (*ctx.sock_addr).user_port };
    let family = if is_mapped(&dst) { FAMILY_MAPPED } else { FAMILY_V6 };
    match decide(&ctx, family, dst, u16::from_be(port as u16)) {
        Verdict::Pass => PASS,
        Verdict::Refuse => REFUSE,
        Verdict::Turn(config) => {
            let (addr, port) = if family == FAMILY_MAPPED {
                (mapped(config.listen_v4), config.port_v4)
            } else {
                (config.listen_v6, config.port_v6)
            };
            set_user_ip6(&ctx, &addr);
            // SAFETY: as in on_connect4.
            unsafe { (*ctx.sock_addr).user_port = u32::from(port.to_be()) };
            PASS
        }
    }
}

/// The address asked for, in network order.
#[inline(always)]
pub fn user_ip6(ctx: &SockAddrContext) -> [u8; 16] {
    // SAFETY: loads that the verifier rewrites, four bytes each.
    let words = unsafe {
        let ip = &raw const (*ctx.sock_addr).user_ip6;
        let ip = ip.cast::<u32>();
        [
            core::ptr::read_volatile(ip),
            core::ptr::read_volatile(ip.add(1)),
            core::ptr::read_volatile(ip.add(2)),
            core::ptr::read_volatile(ip.add(3)),
        ]
    };
    // SAFETY: four words are sixteen bytes.
    unsafe { core::mem::transmute(words) }
}

/// Writes an address in network order.
#[inline(always)]
pub fn set_user_ip6(ctx: &SockAddrContext, addr: &[u8; 16]) {
    // SAFETY: sixteen bytes are four words; stores that the verifier rewrites, four bytes each.
    unsafe {
        let words: [u32; 4] = core::mem::transmute(*addr);
        let ip = (&raw mut (*ctx.sock_addr).user_ip6).cast::<u32>();
        core::ptr::write_volatile(ip, words[0]);
        core::ptr::write_volatile(ip.add(1), words[1]);
        core::ptr::write_volatile(ip.add(2), words[2]);
        core::ptr::write_volatile(ip.add(3), words[3]);
    }
}

/// `::ffff:0:0/96`, RFC 4291 section 2.5.5.2.
#[inline(always)]
pub fn is_mapped(addr: &[u8; 16]) -> bool {
    // SAFETY: sixteen bytes are four words.
    let words: [u32; 4] = unsafe { core::mem::transmute(*addr) };
    words[0] == 0 && words[1] == 0 && words[2] == 0x0000_ffff_u32.to_be()
}

/// Whether `addr:port` leads to the proxy's own listeners: their port at any loopback or unspecified address, which the
/// kernel takes for loopback.
#[inline(always)]
fn is_proxy(config: &ProxyConfig, addr: &[u8; 16], port: u16) -> bool {
    if port == 0 || (port != config.port_v4 && port != config.port_v6) {
        return false;
    }
    // SAFETY: sixteen bytes are four words.
    let words: [u32; 4] = unsafe { core::mem::transmute(*addr) };
    if words[0] != 0 || words[1] != 0 {
        return false;
    }
    if is_mapped(addr) {
        return addr[12] == 127 || words[3] == 0;
    }
    words[2] == 0 && (words[3] == 0 || words[3] == 1_u32.to_be())
}

/// Decides one connect and, when it is to be turned, remembers the origin on the socket.
#[inline(always)]
fn decide(ctx: &SockAddrContext, family: u8, dst: [u8; 16], port: u16) -> Verdict {
    // SAFETY: loads that the verifier rewrites.
    let (kind, protocol) = unsafe { ((*ctx.sock_addr).type_, (*ctx.sock_addr).protocol) };
    let tcp = kind == SOCK_STREAM && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP);
    let target = Target::new(if tcp { IPPROTO_TCP } else { protocol }, dst, port);

    // SAFETY: helpers of this program type; the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: as above.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let Some(state) = state(ctx) else { return Verdict::Refuse };
    if is_daemon(cookie, netns_cookie) {
        count(Counter::OwnConnection);
        state.vetted = VETTED_DAEMON;
        return Verdict::Pass;
    }
    let Some(config) = CONFIG.get(0) else {
        count(Counter::RefusedNotConfigured);
        return Verdict::Refuse;
    };
    let mediated = is_mediated(port);
    if !mediated && !(tcp && is_proxy(config, &dst, port)) && network::is_open(&target) {
        // A socket that was turned before and now goes elsewhere must not carry its old origin along.
        state.origin.family = 0;
        allow(state);
        return Verdict::Pass;
    }
    let origin = &mut state.origin;
    capture::current(&mut origin.capture, netns_cookie);
    if tcp && is_proxy(config, &dst, port) {
        count(Counter::RefusedProxyAddress);
        network::tell(&origin.capture, &target, EVENT_PROXY);
        return Verdict::Refuse;
    }
    if !mediated {
        match network::decide(&origin.capture, &target, false) {
            Answer::Pass => {
                origin.family = 0;
                allow(state);
                return Verdict::Pass;
            }
            Answer::Refuse => return Verdict::Refuse,
            // The proxy finds out who it is, and decides in the kernel's stead.
            Answer::Unknown if tcp => {}
            Answer::Unknown => {
                network::ask(&origin.capture, &target);
                return Verdict::Refuse;
            }
        }
    } else if !tcp {
        count(Counter::RefusedProtocol);
        network::tell(&origin.capture, &target, EVENT_PROTOCOL);
        debug!(ctx, "refused protocol {} to port {}", protocol, port);
        return Verdict::Refuse;
    }
    if config.port_v4 == 0 {
        count(Counter::RefusedNotConfigured);
        return Verdict::Refuse;
    }
    origin.socket_cookie = cookie;
    origin.dst_addr = dst;
    origin.dst_port = port;
    origin.family = family;
    state.vetted = VETTED_TURNED;
    count(Counter::Redirected);
    debug!(ctx, "turned pid {} port {}", state.origin.capture.tgid, port);
    Verdict::Turn(*config)
}

/// Lets packets of this socket leave, for as long as this policy holds.
#[inline(always)]
pub fn allow(state: &mut SocketState) {
    state.generation = network::generation();
    state.vetted = VETTED_ALLOWED;
}

/// What is remembered of this socket; made when there is nothing yet.
#[inline(always)]
pub fn state<'a>(ctx: &'a SockAddrContext) -> Option<&'a mut SocketState> {
    // SAFETY: the map's value type is SocketState; the verifier checks the pointer.
    let state = unsafe { SOCKETS.get_or_insert_ptr_mut(ctx, None) };
    if state.is_null() {
        count(Counter::RefusedNoStorage);
        return None;
    }
    // SAFETY: not null, and storage lives as long as the socket, which this hook holds.
    Some(unsafe { &mut *state })
}

/// The daemon's own connections are never turned. It is known by process id and start time, so that a process that
/// gets its pid after its death is not taken for it; and it makes itself known by a socket that only it can name.
#[inline(always)]
pub fn is_daemon(cookie: u64, netns_cookie: u64) -> bool {
    let Some(slot) = DAEMON.get_ptr_mut(0) else { return false };
    // SAFETY: an array slot is always valid; a torn read can only fail to recognise.
    let slot: &mut DaemonSlot = unsafe { &mut *slot };
    if slot.hello_cookie != 0 && slot.hello_cookie == cookie {
        capture::current(&mut slot.capture, netns_cookie);
        slot.hello_cookie = 0;
        return true;
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    slot.capture.tgid == tgid
        && slot.capture.start_time_ns != 0
        && slot.capture.start_time_ns == capture::start_time()
}
