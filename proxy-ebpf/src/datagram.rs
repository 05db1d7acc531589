//! `sendmsg4` and `sendmsg6`: where unconnected datagrams may go. To a mediated port (QUIC) never, so that clients fall
//! back to TCP.
use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use proxy_common::{Counter, EVENT_PROTOCOL, VETTED_ALLOWED, VETTED_DAEMON, mapped};

use crate::{
    capture,
    connect::{allow, is_daemon, state, user_ip6},
    maps::{count, is_mediated},
    network::{self, Answer, Target},
};

#[cgroup_sock_addr(sendmsg4)]
pub fn on_sendmsg4(ctx: SockAddrContext) -> i32 {
    // SAFETY: a load that the verifier rewrites.
    let ip = unsafe { (*ctx.sock_addr).user_ip4 };
    verdict(&ctx, mapped(ip.to_ne_bytes()))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn on_sendmsg6(ctx: SockAddrContext) -> i32 {
    verdict(&ctx, user_ip6(&ctx))
}

#[inline(always)]
fn verdict(ctx: &SockAddrContext, dst: [u8; 16]) -> i32 {
    // SAFETY: loads that the verifier rewrites.
    let (port, protocol) = unsafe { ((*ctx.sock_addr).user_port, (*ctx.sock_addr).protocol) };
    let port = u16::from_be(port as u16);
    let target = Target::new(protocol, dst, port);
    let Some(state) = state(ctx) else { return 0 };
    // SAFETY: helpers of this program type; the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: as above.
    let netns_cookie = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    if is_daemon(cookie, netns_cookie) {
        state.vetted = VETTED_DAEMON;
        return 1;
    }
    let mediated = is_mediated(port);
    if !mediated && network::is_open(&target) {
        allow(state);
        return 1;
    }
    let who = &mut state.origin.capture;
    let before = (who.tgid, who.start_time_ns);
    capture::current(who, netns_cookie);
    if mediated {
        count(Counter::RefusedProtocol);
        network::tell(who, &target, EVENT_PROTOCOL);
        return 0;
    }
    // A stream of datagrams of one process to one place is one thing to tell.
    let told = before == (who.tgid, who.start_time_ns)
        && state.vetted == VETTED_ALLOWED
        && state.generation == network::generation()
        && state.origin.dst_addr == dst
        && state.origin.dst_port == port;
    match network::decide(who, &target, told) {
        Answer::Pass => {
            state.origin.dst_addr = dst;
            state.origin.dst_port = port;
            allow(state);
            1
        }
        Answer::Refuse => 0,
        Answer::Unknown => {
            network::ask(who, &target);
            0
        }
    }
}
