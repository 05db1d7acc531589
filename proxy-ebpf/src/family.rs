//! LSM `socket_create`, `tun_dev_create`, `tun_dev_open`: families of sockets that reach a network past IP (packet, XDP, vsock, Bluetooth, …) and
//! tunnel devices are refused.
//! Packets of these do not pass `egress`, which sees what the IP stack sends.
use aya_ebpf::{macros::lsm_cgroup, programs::LsmContext};
use proxy_common::{Capture, Counter, EVENT_ASK, EVENT_FAMILY, EVENT_TUNNEL};

use crate::{
    capture,
    maps::count,
    network::{self, Target},
};

/// include/linux/socket.h
const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const AF_ALG: u32 = 38;

/// Verdicts of a cgroup's LSM program; refused is EPERM to the caller.
const PASS: i32 = 1;
const REFUSE: i32 = 0;

#[lsm_cgroup(hook = "socket_create")]
pub fn on_socket_create(ctx: LsmContext) -> i32 {
    // socket_create(int family, int type, int protocol, int kern)
    let (family, kern): (u32, u32) = (ctx.arg(0), ctx.arg(3));
    if kern != 0 || matches!(family, AF_UNIX | AF_INET | AF_INET6 | AF_NETLINK | AF_ALG) {
        return PASS;
    }
    let mut who = Capture::default();
    capture::current(&mut who, 0);
    if network::passes_all(&who) {
        return PASS;
    }
    refuse(&who, family, EVENT_FAMILY)
}

/// A tunnel device brings packets into the network that no socket sent.
#[lsm_cgroup(hook = "tun_dev_create")]
pub fn on_tun_create(_ctx: LsmContext) -> i32 {
    tunnel()
}

/// The same for one that is there already.
#[lsm_cgroup(hook = "tun_dev_open")]
pub fn on_tun_open(_ctx: LsmContext) -> i32 {
    tunnel()
}

#[inline(always)]
fn tunnel() -> i32 {
    let mut who = Capture::default();
    capture::current(&mut who, 0);
    if network::passes_all(&who) { PASS } else { refuse(&who, 0, EVENT_TUNNEL) }
}

#[inline(always)]
fn refuse(who: &Capture, protocol: u32, event: u16) -> i32 {
    count(Counter::RefusedSocket);
    let target = Target::new(protocol, [0; 16], 0);
    network::tell(who, &target, event);
    // Should it be one that may: the next try finds its standing.
    network::tell(who, &target, EVENT_ASK);
    REFUSE
}
