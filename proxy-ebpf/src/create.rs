//! `sock_create`: sockets of kinds that cannot be mediated (raw, ICMP, SCTP, DCCP, …) are refused when they are made.
//!
//! Not the barrier, which is `egress`, but the clear answer: here the process is known, and its `socket` call fails.
use aya_ebpf::{
    EbpfContext,
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    helpers::generated::{bpf_get_netns_cookie, bpf_sk_storage_get},
    macros::cgroup_sock,
    programs::SockContext,
};
use proxy_common::{Capture, Counter, EVENT_ASK, EVENT_SOCKET, SocketState, VETTED_OPEN};

use crate::{
    capture,
    connect::allow,
    maps::{SOCKETS, count},
    network::{self, Target},
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_MPTCP: u32 = 262;

const PASS: i32 = 1;
const REFUSE: i32 = 0;

#[cgroup_sock(sock_create)]
pub fn on_sock_create(ctx: SockContext) -> i32 {
    // SAFETY: loads that the verifier rewrites.
    let (kind, protocol) = unsafe { ((*ctx.sock).type_, (*ctx.sock).protocol) };
    let known = match kind {
        SOCK_STREAM => protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP,
        SOCK_DGRAM => protocol == IPPROTO_UDP,
        _ => false,
    };
    // The other hooks vet these.
    if known {
        return PASS;
    }
    let mut who = Capture::default();
    // SAFETY: a helper of this program type; the context is valid.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    capture::current(&mut who, netns_cookie);
    if network::passes_all(&who) {
        // SAFETY: the context is the socket; the verifier wants the null check before the use.
        unsafe {
            let map = (&raw const SOCKETS).cast_mut().cast();
            let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
            let state =
                bpf_sk_storage_get(map, ctx.as_ptr(), core::ptr::null_mut(), create).cast::<SocketState>();
            if state.is_null() {
                count(Counter::RefusedNoStorage);
                return REFUSE;
            }
            (*state).origin.capture = who;
            allow(&mut *state);
            (*state).vetted = VETTED_OPEN;
        }
        return PASS;
    }
    count(Counter::RefusedSocket);
    let target = Target::new(protocol, [0; 16], 0);
    network::tell(&who, &target, EVENT_SOCKET);
    // Should it be one that may: the next try finds its standing.
    network::tell(&who, &target, EVENT_ASK);
    REFUSE
}
