//! `cgroup_skb/egress`: the barrier behind all other hooks. A packet leaves only when its socket was vetted.
//!
//! Sockets that nobody vetted and that send all the same: kernel sockets (resets, neighbour discovery, …), listeners
//! (SYN-ACK), and connections that were accepted before the programs were attached. Everything else is dropped: sockets
//! from before the start, raw sockets, and whatever way there may be around the other hooks.
use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_F_CURRENT_NETNS, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_tuple},
    helpers::generated::{
        bpf_get_socket_uid, bpf_sk_fullsock, bpf_sk_lookup_tcp, bpf_sk_release, bpf_sk_storage_get,
        bpf_skb_cgroup_id, bpf_skb_load_bytes,
    },
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use proxy_common::{
    Capture, Counter, EVENT_NETNS, EVENT_UNVETTED, SocketState, VETTED_ALLOWED, VETTED_DAEMON, VETTED_NOT,
    VETTED_OPEN, VETTED_PASSIVE, VETTED_TURNED, mapped,
};

use crate::{
    capture::{handed, read},
    maps::{SERVED, SOCKETS, count, offsets},
    network::{self, Answer, Target},
};

const PASS: i32 = 1;
const DROP: i32 = 0;

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
/// include/net/tcp_states.h
const TCP_SYN_SENT: u32 = 2;
const TCP_LISTEN: u32 = 10;

#[cgroup_skb(egress)]
pub fn on_egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: a field of the context.
    let common = unsafe { (*ctx.skb.skb).__bindgen_anon_2.sk };
    if common.is_null() {
        return refused(&ctx);
    }
    // SAFETY: not null, as the verifier wants it.
    let socket = unsafe { bpf_sk_fullsock(common) };
    if socket.is_null() {
        return refused(&ctx);
    }
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: a full socket; the result is checked before its use.
    let state =
        unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), 0).cast::<SocketState>() };
    // SAFETY: checked for null.
    if let Some(state) = unsafe { state.as_mut() } {
        let open = state.vetted == VETTED_OPEN;
        if (open || state.vetted == VETTED_ALLOWED) && state.generation != network::generation() {
            return again(&ctx, state);
        }
        if !open && state.vetted != VETTED_DAEMON && state.vetted != VETTED_NOT && goes_astray(&ctx, state) {
            count(Counter::DroppedAstray);
            return refused(&ctx);
        }
        // SAFETY: a field of a full socket.
        if state.vetted == VETTED_TURNED && unsafe { (*socket).state } == TCP_SYN_SENT {
            return begin(state);
        }
        if state.vetted != VETTED_NOT {
            return PASS;
        }
    }
    if is_of_kernel(&ctx) {
        return PASS;
    }
    // SAFETY: fields of a full socket.
    let (protocol, tcp_state) = unsafe { ((*socket).protocol, (*socket).state) };
    if protocol == IPPROTO_TCP {
        if tcp_state == TCP_LISTEN {
            return PASS;
        }
        // Only of a socket that no hook has seen yet: one that is older than the programs.
        if state.is_null() && is_accepted(&ctx, socket) {
            let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
            // SAFETY: as above.
            let state = unsafe {
                bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), create).cast::<SocketState>()
            };
            if !state.is_null() {
                // SAFETY: not null.
                unsafe { (*state).vetted = VETTED_PASSIVE };
            }
            return PASS;
        }
    }
    refused(&ctx)
}

/// Whether the kernel made this socket for itself: it has a `struct socket`, and no file (net/socket.c,
/// `sock_create_kern`). A user's has a file for as long as it has a `struct socket`, but for one that is not accepted yet,
/// which has neither.
#[inline(always)]
fn is_of_kernel(ctx: &SkBuffContext) -> bool {
    let offsets = offsets();
    let Some(socket) = handed(ctx.skb.skb, offsets.skb_sk) else { return false };
    let Some(inner) = read::<u64>(socket, offsets.sock_socket) else { return false };
    inner != 0 && read::<u64>(inner, offsets.socket_file) == Some(0)
}

/// Whether a listener stands on the socket's own port: the connection was accepted, not opened.
#[inline(always)]
fn is_accepted(ctx: &SkBuffContext, socket: *mut bpf_sock) -> bool {
    // SAFETY: zero is a valid tuple.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    // SAFETY: fields of a full socket; members of a union of integers.
    let size = unsafe {
        let port = ((*socket).src_port as u16).to_be();
        match (*socket).family {
            AF_INET => {
                tuple.__bindgen_anon_1.ipv4.daddr = (*socket).src_ip4;
                tuple.__bindgen_anon_1.ipv4.dport = port;
                core::mem::size_of_val(&tuple.__bindgen_anon_1.ipv4)
            }
            AF_INET6 => {
                let words = (&raw const (*socket).src_ip6).cast::<u32>();
                tuple.__bindgen_anon_1.ipv6.daddr = [
                    words.read_volatile(),
                    words.add(1).read_volatile(),
                    words.add(2).read_volatile(),
                    words.add(3).read_volatile(),
                ];
                tuple.__bindgen_anon_1.ipv6.dport = port;
                core::mem::size_of_val(&tuple.__bindgen_anon_1.ipv6)
            }
            _ => return false,
        }
    };
    // SAFETY: the tuple is of one of the two sizes; what is found is released.
    unsafe {
        let found = bpf_sk_lookup_tcp(ctx.as_ptr(), &mut tuple, size as u32, BPF_F_CURRENT_NETNS as u64, 0);
        if found.is_null() {
            return false;
        }
        let listens = (*found).state == TCP_LISTEN;
        bpf_sk_release(found.cast());
        listens
    }
}

/// Whether a packet goes elsewhere than its socket was vetted for: a source route (IPv4 options; an IPv6 routing header, or
/// one that could hide it) names other addresses than the destination, and what is turned to the proxy leaves by loopback
/// only (whose index is 1 in every network namespace), whatever device the socket is bound to.
#[inline(always)]
fn goes_astray(ctx: &SkBuffContext, state: &SocketState) -> bool {
    const LOOPBACK: u32 = 1;
    // SAFETY: a field of the context.
    if state.vetted == VETTED_TURNED && unsafe { (*ctx.skb.skb).ifindex } != LOOPBACK {
        return true;
    }
    // The first seven bytes of both: version and header length, and of IPv6 the next header.
    let start = load::<[u8; 7]>(ctx, 0).unwrap_or_default();
    match start[0] >> 4 {
        4 => start[0] != 0x45,
        6 => match start[6] {
            // What the kernel itself puts before more than 64 KiB at once (RFC 2675; include/net/ipv6.h, `hop_jumbo_hdr`):
            // one option and nothing else.
            HOP_BY_HOP => match load::<[u8; 4]>(ctx, 40) {
                Some([next, 0, JUMBO, 4]) => has_routes(next),
                _ => true,
            },
            next => has_routes(next),
        },
        _ => true,
    }
}

/// Extension headers of IPv6 (RFC 8200 section 4), and the option of a jumbo payload.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;
const JUMBO: u8 = 0xc2;

/// Whether this header is a source route, or could hide one behind it.
#[inline(always)]
fn has_routes(header: u8) -> bool {
    matches!(header, HOP_BY_HOP | ROUTING | DESTINATION)
}

/// The first packet of a connection that was turned to the proxy: held back while the proxy does not listen in its network
/// namespace, where somebody else could. TCP sends it again after a second; the daemon is told.
#[inline(never)]
fn begin(state: &SocketState) -> i32 {
    let origin = &state.origin;
    // SAFETY: only whether it is there counts.
    if unsafe { SERVED.get(&origin.capture.netns_cookie) }.is_some() {
        return PASS;
    }
    count(Counter::HeldBack);
    let target = Target::new(IPPROTO_TCP, origin.dst_addr, origin.dst_port);
    network::tell(&origin.capture, &target, EVENT_NETNS);
    DROP
}

/// Asks the policy that holds now about a socket that an older one let through. Until the daemon has said who it is under
/// this one, packets are dropped: TCP sends them again.
#[inline(never)]
fn again(ctx: &SkBuffContext, state: &mut SocketState) -> i32 {
    let header = Header::read(ctx);
    let target = Target::new(header.protocol, header.dst, header.port);
    match network::decide_again(&state.origin.capture, &target) {
        Answer::Pass => {
            state.generation = network::generation();
            PASS
        }
        Answer::Refuse | Answer::Unknown => DROP,
    }
}

/// Drops the packet, and tells where it would have gone and as much as the socket says of who.
/// A function of its own, for its stack: those of a chain of calls together may be 512 bytes.
#[inline(never)]
fn refused(ctx: &SkBuffContext) -> i32 {
    count(Counter::DroppedUnvetted);
    let mut who = Capture::default();
    // SAFETY: helpers of this program type; the context is valid.
    unsafe {
        who.uid = bpf_get_socket_uid(ctx.skb.skb);
        who.cgroup_id = bpf_skb_cgroup_id(ctx.skb.skb);
    }
    let header = Header::read(ctx);
    let target = Target::new(header.protocol, header.dst, header.port);
    network::tell(&who, &target, EVENT_UNVETTED);
    DROP
}

/// What a packet says of its destination.
struct Header {
    dst: [u8; 16],
    /// Host order; 0 where there is none.
    port: u16,
    protocol: u32,
}

impl Header {
    #[inline(always)]
    fn read(ctx: &SkBuffContext) -> Self {
        let mut dst = [0_u8; 16];
        let mut protocol = 0_u8;
        let mut at = 40;
        let version = load::<u8>(ctx, 0).unwrap_or(0);
        if version >> 4 == 4 {
            dst = mapped(load(ctx, 16).unwrap_or_default());
            protocol = load(ctx, 9).unwrap_or(0);
            at = u32::from(version & 15) * 4;
        } else if version >> 4 == 6 {
            dst = load(ctx, 24).unwrap_or_default();
            protocol = load(ctx, 6).unwrap_or(0);
        }
        let protocol = u32::from(protocol);
        let with_ports = protocol == IPPROTO_TCP || protocol == IPPROTO_UDP;
        let port = if with_ports { load::<u16>(ctx, at + 2).map_or(0, u16::from_be) } else { 0 };
        Self { dst, port, protocol }
    }
}

/// Bytes of the packet, from its network header on.
#[inline(always)]
fn load<T: Copy>(ctx: &SkBuffContext, at: u32) -> Option<T> {
    let mut value = core::mem::MaybeUninit::<T>::zeroed();
    let size = size_of::<T>() as u32;
    // SAFETY: the helper writes as many bytes as the value has, or fails.
    let result = unsafe { bpf_skb_load_bytes(ctx.as_ptr(), at, value.as_mut_ptr().cast(), size) };
    // SAFETY: any bytes are a T here: integers and arrays of them.
    if result == 0 { Some(unsafe { value.assume_init() }) } else { None }
}
