//! `getpeername4` and `getpeername6`: the bot sees the address that it asked for.
use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use proxy_common::FAMILY_V4;

use crate::{connect::set_user_ip6, maps::SOCKETS};

#[cgroup_sock_addr(getpeername4)]
pub fn on_getpeername4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the verifier checks the pointer.
    let state = unsafe { SOCKETS.get_ptr_mut(&ctx) };
    if !state.is_null() {
        // SAFETY: not null; storage lives as long as the socket.
        let origin = unsafe { &(*state).origin };
        if origin.family == FAMILY_V4 {
            let [.., a, b, c, d] = origin.dst_addr;
            // SAFETY: getpeername4 may write these two fields.
            unsafe {
                (*ctx.sock_addr).user_ip4 = u32::from_ne_bytes([a, b, c, d]);
                (*ctx.sock_addr).user_port = u32::from(origin.dst_port.to_be());
            }
        }
    }
    1
}

#[cgroup_sock_addr(getpeername6)]
pub fn on_getpeername6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the verifier checks the pointer.
    let state = unsafe { SOCKETS.get_ptr_mut(&ctx) };
    if !state.is_null() {
        // SAFETY: not null; storage lives as long as the socket.
        let origin = unsafe { &(*state).origin };
        if origin.family != 0 && origin.family != FAMILY_V4 {
            set_user_ip6(&ctx, &origin.dst_addr);
            // SAFETY: getpeername6 may write the port.
            unsafe { (*ctx.sock_addr).user_port = u32::from(origin.dst_port.to_be()) };
        }
    }
    1
}
