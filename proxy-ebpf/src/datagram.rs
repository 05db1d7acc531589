//! `sendmsg4` and `sendmsg6`: unconnected datagrams to a mediated port (QUIC) are refused, so that clients fall back to
//! TCP, which is mediated.
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use proxy_common::Counter;

use crate::maps::{count, is_mediated};

#[cgroup_sock_addr(sendmsg4)]
pub fn on_sendmsg4(ctx: SockAddrContext) -> i32 {
    verdict(&ctx)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn on_sendmsg6(ctx: SockAddrContext) -> i32 {
    verdict(&ctx)
}

#[inline(always)]
fn verdict(ctx: &SockAddrContext) -> i32 {
    // SAFETY: a load that the verifier rewrites.
    let port = unsafe { (*ctx.sock_addr).user_port };
    if is_mediated(u16::from_be(port as u16)) {
        count(Counter::RefusedProtocol);
        return 0;
    }
    1
}
